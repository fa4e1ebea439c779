//! A hash table that grows and shrinks by one bucket at a time, and that is walked in an order which is the
//! same on every replica: linear hashing (Litwin, "Linear hashing: a new tool for file and table
//! addressing", 1980), with small hash tables as its buckets.
//!
//! A hash has two halves (see [`super::seed`]). The upper one is the same on every replica and in every
//! process: an item's *position*, the order of walks, and what chooses its bucket. The lower one is this
//! process's secret, and all that counts inside a bucket. Whoever makes up names of one position gets a large
//! bucket, and pieces of a walk as large, but what is in it is found as quickly as ever.
//!
//! Of `n` buckets with `2^l <= n < 2^(l+1)`, the first `n - 2^l` and the last as many know `l + 1` bits of
//! their items' positions, the others `l`. The bits are the upper ones, so each bucket has an interval of
//! positions: a walk looks at the buckets that it returns something of, and a position is where to go on
//! however many buckets another replica has. In a bucket's number they stand the other way round: so the
//! next bucket to be split is always the next by number, and no directory is needed.
//!
//! INVARIANT: an item is in the bucket whose interval its position is in.

use hashbrown::{HashTable, hash_table};

/// Bits of a position.
const POSITION_BITS: u32 = 31;

/// The position after all others.
pub const POSITION_END: u64 = 1 << POSITION_BITS;

/// Items a bucket, on average, beyond which one is split: so a bucket that is to be split has up to twice
/// as many. A piece of a walk looks at as many; what a bucket costs beside its items, some 50 bytes, is
/// shared by as many.
const LOAD_MAX: usize = 24;

/// Items a bucket, on average, below which two are merged.
const LOAD_MIN: usize = LOAD_MAX / 2;

/// The first bucket is alone up to here, what 128 places hold: a slot of so many keys is as quick as one table.
const ALONE_MAX: usize = 112;

/// Buckets stand in chunks of so many, 8 KiB each: no more is ever copied when there are more.
const CHUNK: usize = 256;

/// A bucket of no more places than this is not worth shrinking.
const PLACES_MIN: usize = 64;

/// Places an item, at most.
const SPARSE: usize = 8;

/// A piece of a walk passes so many buckets for each item it is asked for, at most: as in Redis.
const PASSED_MAX: usize = 10;

/// Items of a bucket beyond which a draw does not count them: only made-up names fill a bucket so.
const CROWD: usize = 4 * LOAD_MAX;

/// A draw meets so many buckets that are too empty, before it counts items instead.
const MISSES_MAX: usize = 256;

/// Bits of a place that are the place inside a bucket; those above are a position.
const PLACE_BITS: u32 = 32;

/// The place after all others.
pub const PLACE_END: usize = (POSITION_END as usize) << PLACE_BITS;

/// Items by their hashes.
#[derive(Clone, Debug)]
pub struct LinearTable<T> {
    buckets: Buckets<T>,
}

#[derive(Clone, Debug)]
enum Buckets<T> {
    /// Most tables are small: nothing stands between them and their items.
    One(HashTable<T>),
    Many(Many<T>),
}

#[derive(Clone, Debug)]
struct Many<T> {
    /// Items.
    len: usize,
    /// Buckets.
    count: usize,
    /// The first chunk of buckets. It grows as it fills, the others are sure to.
    first: Vec<HashTable<T>>,
    more: Vec<Chunk<T>>,
}

#[derive(Clone, Debug)]
struct Chunk<T> {
    /// Items.
    len: usize,
    buckets: Vec<HashTable<T>>,
}

/// The position that a hash has in a walk.
pub const fn position_of(hash: u64) -> u64 {
    hash >> (u64::BITS - POSITION_BITS)
}

/// A hash inside a bucket: the secret half alone. `hashbrown` looks at its uppermost and its lowest bits.
const fn inside(hash: u64) -> u64 {
    hash << 32 | hash & 0xffff_ffff
}

/// The number of the bucket, of `count`, that a hash belongs to.
const fn bucket_of(hash: u64, count: usize) -> usize {
    let mask = usize::MAX >> count.leading_zeros();
    let number = hash.reverse_bits() as usize & mask;
    if number < count { number } else { number & mask >> 1 }
}

/// Of so many buckets, the one that was split last, to make the last one.
const fn split_last(count: usize) -> usize {
    let last = count - 1;
    last - ((usize::MAX / 2 + 1) >> last.leading_zeros())
}

/// The first position of a bucket of `count`, and the one after its last.
const fn interval(number: usize, count: usize) -> (u64, u64) {
    let level = usize::BITS - 1 - count.leading_zeros();
    let split = number < count - (1 << level) || number >= 1 << level;
    let bits = if split { level + 1 } else { level };
    let start = position_of((number as u64).reverse_bits());
    (start, start + (POSITION_END >> bits))
}

impl<T> Default for LinearTable<T> {
    fn default() -> Self {
        Self { buckets: Buckets::One(HashTable::new()) }
    }
}

impl<T> Many<T> {
    fn get(&self, number: usize) -> &HashTable<T> {
        match number.checked_sub(CHUNK) {
            None => &self.first[number],
            Some(after) => &self.more[after / CHUNK].buckets[after % CHUNK],
        }
    }

    fn get_mut(&mut self, number: usize) -> &mut HashTable<T> {
        match number.checked_sub(CHUNK) {
            None => &mut self.first[number],
            Some(after) => &mut self.more[after / CHUNK].buckets[after % CHUNK],
        }
    }

    /// Items have come to a bucket, or gone.
    fn note(&mut self, number: usize, change: isize) {
        self.len = self.len.wrapping_add_signed(change);
        if let Some(after) = number.checked_sub(CHUNK) {
            let len = &mut self.more[after / CHUNK].len;
            *len = len.wrapping_add_signed(change);
        }
    }

    fn push(&mut self, bucket: HashTable<T>) {
        let number = self.count;
        self.count += 1;
        if number < CHUNK {
            self.first.push(bucket);
            return;
        }
        if number.is_multiple_of(CHUNK) {
            self.more.push(Chunk { len: 0, buckets: Vec::with_capacity(CHUNK) });
        }
        let chunk = self.more.last_mut().expect("there is room for one more");
        chunk.len += bucket.len();
        chunk.buckets.push(bucket);
    }

    fn pop(&mut self) -> HashTable<T> {
        self.count -= 1;
        let Some(chunk) = self.more.last_mut() else {
            return self.first.pop().expect("there are at least two");
        };
        let bucket = chunk.buckets.pop().expect("no chunk is empty");
        chunk.len -= bucket.len();
        if chunk.buckets.is_empty() {
            self.more.pop();
        }
        bucket
    }

    /// Items in the chunk of this number.
    fn chunk_len(&self, number: usize) -> usize {
        match number.checked_sub(1) {
            None => self.len - self.more.iter().map(|chunk| chunk.len).sum::<usize>(),
            Some(after) => self.more[after].len,
        }
    }

    /// Splits the bucket whose turn it is.
    fn split(&mut self, rehash: impl Fn(&T) -> u64) {
        let (number, count) = (split_last(self.count + 1), self.count + 1);
        let before = std::mem::take(self.get_mut(number));
        let room = before.len().div_ceil(2);
        let mut halves = [HashTable::with_capacity(room), HashTable::with_capacity(room)];
        for item in before {
            let hash = rehash(&item);
            let moved = bucket_of(hash, count) != number;
            halves[usize::from(moved)].insert_unique(inside(hash), item, |item| inside(rehash(item)));
        }
        let [stay, moved] = halves;
        self.note(number, -(moved.len() as isize));
        self.len += moved.len();
        *self.get_mut(number) = stay;
        self.push(moved);
    }

    /// Takes the split back that was last.
    fn merge(&mut self, rehash: impl Fn(&T) -> u64) {
        let number = split_last(self.count);
        let moved = self.pop();
        self.len -= moved.len();
        self.note(number, moved.len() as isize);
        let bucket = self.get_mut(number);
        bucket.shrink_to(bucket.len() + moved.len(), |item| inside(rehash(item)));
        for item in moved {
            bucket.insert_unique(inside(rehash(&item)), item, |item| inside(rehash(item)));
        }
    }
}

/// How far a search for items by their ordinals has come.
#[derive(Default)]
pub struct Spot {
    bucket: usize,
    /// Items in the buckets before.
    before: usize,
}

impl<T> LinearTable<T> {
    /// How many items.
    pub fn len(&self) -> usize {
        match &self.buckets {
            Buckets::One(bucket) => bucket.len(),
            Buckets::Many(many) => many.len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bucket_count(&self) -> usize {
        match &self.buckets {
            Buckets::One(_) => 1,
            Buckets::Many(many) => many.count,
        }
    }

    /// The bucket of this number.
    fn bucket(&self, number: usize) -> &HashTable<T> {
        match &self.buckets {
            Buckets::One(bucket) => bucket,
            Buckets::Many(many) => many.get(number),
        }
    }

    /// The bucket of a hash.
    fn bucket_for(&self, hash: u64) -> &HashTable<T> {
        match &self.buckets {
            Buckets::One(bucket) => bucket,
            Buckets::Many(many) => many.get(bucket_of(hash, many.count)),
        }
    }

    fn bucket_for_mut(&mut self, hash: u64) -> &mut HashTable<T> {
        match &mut self.buckets {
            Buckets::One(bucket) => bucket,
            Buckets::Many(many) => many.get_mut(bucket_of(hash, many.count)),
        }
    }

    /// Bytes of its buckets, without what items hold outside of them. Of a large table, those in the first
    /// chunk stand for all.
    pub fn allocation_size(&self) -> usize {
        match &self.buckets {
            Buckets::One(bucket) => bucket.allocation_size(),
            Buckets::Many(many) => {
                let sample = many.first.iter().map(HashTable::allocation_size).sum::<usize>();
                (many.first.capacity() * size_of::<HashTable<T>>() + sample) * many.count / many.first.len()
            }
        }
    }

    /// The item of this hash for which `is_it` holds.
    pub fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.bucket_for(hash).find(inside(hash), is_it)
    }

    /// The same, to be changed; its hash stays.
    pub fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.bucket_for_mut(hash).find_mut(inside(hash), is_it)
    }

    /// Items that may have this hash: all that have it, and perhaps others.
    pub fn iter_hash(&self, hash: u64) -> impl Iterator<Item = &T> {
        self.bucket_for(hash).iter_hash(inside(hash))
    }

    /// Puts an item that is not there. `rehash` tells the hash of any item.
    pub fn insert_unique(&mut self, hash: u64, item: T, rehash: impl Fn(&T) -> u64) {
        if self.grows() {
            self.grow(&rehash);
        }
        self.bucket_for_mut(hash).insert_unique(inside(hash), item, |item| inside(rehash(item)));
        if let Buckets::Many(many) = &mut self.buckets {
            many.note(bucket_of(hash, many.count), 1);
        }
    }

    /// Takes the item of this hash out for which `is_it` holds.
    pub fn remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        rehash: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let bucket = self.bucket_for_mut(hash);
        let (item, _) = bucket.find_entry(inside(hash), is_it).ok()?.remove();
        let (places, count) = (bucket.num_buckets(), bucket.len());
        if places > PLACES_MIN && count < places / SPARSE {
            bucket.shrink_to(count * 2, |item| inside(rehash(item)));
        }
        if let Buckets::Many(many) = &mut self.buckets {
            many.note(bucket_of(hash, many.count), -1);
        }
        if self.shrinks(self.len()) {
            self.shrink(&rehash);
        }
        Some(item)
    }

    /// Whether there is to be one more bucket before an item comes.
    fn grows(&self) -> bool {
        match &self.buckets {
            Buckets::One(bucket) => bucket.len() >= ALONE_MAX,
            Buckets::Many(many) => many.len >= many.count * LOAD_MAX,
        }
    }

    fn grow(&mut self, rehash: impl Fn(&T) -> u64) {
        if let Buckets::One(bucket) = &mut self.buckets {
            let (len, bucket) = (bucket.len(), std::mem::take(bucket));
            self.buckets = Buckets::Many(Many { len, count: 1, first: vec![bucket], more: Vec::new() });
        }
        if let Buckets::Many(many) = &mut self.buckets {
            many.split(rehash);
        }
    }

    /// Whether so many items are to have one bucket less.
    fn shrinks(&self, len: usize) -> bool {
        matches!(&self.buckets, Buckets::Many(many) if len < many.count * LOAD_MIN)
    }

    fn shrink(&mut self, rehash: impl Fn(&T) -> u64) {
        let Buckets::Many(many) = &mut self.buckets else { return };
        many.merge(rehash);
        if let [bucket] = &mut many.first[..] {
            self.buckets = Buckets::One(std::mem::take(bucket));
        }
    }

    /// All items, in no order.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { table: self, next: 1, bucket: self.bucket(0).iter(), left: self.len() }
    }

    /// Items of the first positions from `from` on: `count` of them or, if more share the last position, a few
    /// more. Also where to go on from; `None` at the end. `position` tells the position of any item.
    pub fn scan(&self, from: u64, count: usize, position: impl Fn(&T) -> u64) -> (Vec<&T>, Option<u64>) {
        let (mut found, mut from) = (Vec::new(), from);
        let mut ahead = Vec::new();
        for _ in 0..count.saturating_mul(PASSED_MAX) {
            if from >= POSITION_END || found.len() >= count {
                break;
            }
            let (bucket, start, end) = self.bucket_at(from);
            let left = count - found.len();
            let whole = from == start && bucket.len() <= left;
            from = if whole {
                found.extend(bucket.iter());
                end
            } else {
                let items = bucket.iter().map(|item| (position(item), item));
                ahead.extend(items.filter(|&(at, _)| at >= from));
                let next = cut(&mut ahead, left).unwrap_or(end);
                found.extend(ahead.drain(..).map(|(_, item)| item));
                next
            };
        }
        (found, Some(from).filter(|&from| from < POSITION_END))
    }

    /// The bucket that has a position, with the first position it has and the one after its last.
    fn bucket_at(&self, position: u64) -> (&HashTable<T>, u64, u64) {
        let count = self.bucket_count();
        let number = bucket_of(position << (u64::BITS - POSITION_BITS), count);
        let (start, end) = interval(number, count);
        (self.bucket(number), start, end)
    }

    /// Looks for an item in the places from `place` on, at no more than `limit` of them, of one bucket only.
    /// Returns the item with its place, if there is one, and the place to go on from: [`PLACE_END`] at the
    /// end. Places are good as long as [`LinearTable::keep_place`] keeps them.
    pub fn look(&self, place: usize, limit: usize) -> (Option<(usize, &T)>, usize) {
        let (base, at) = split_place(place);
        let (bucket, _, end) = self.bucket_at((base >> PLACE_BITS) as u64);
        let until = bucket.num_buckets().min(at.saturating_add(limit));
        match (at..until).find_map(|at| Some((at, bucket.get_bucket(at)?))) {
            Some((at, item)) => (Some((base + at, item)), base + at + 1),
            None if until < bucket.num_buckets() => (None, base + until),
            None => (None, (end as usize) << PLACE_BITS),
        }
    }

    /// The item at a place, to be changed; its hash stays.
    pub fn at_mut(&mut self, place: usize) -> Option<&mut T> {
        let (base, at) = split_place(place);
        let hash = (base as u64) << (u64::BITS - PLACE_BITS - POSITION_BITS);
        self.bucket_for_mut(hash).get_bucket_mut(at)
    }

    /// Where to go on from if an item of this hash comes or goes: at `place`, or at an earlier one if items
    /// may then be elsewhere in the bucket of that place.
    pub fn keep_place(&self, place: usize, hash: u64) -> usize {
        let (base, _) = split_place(place);
        if place >= PLACE_END {
            return place;
        }
        let count = self.bucket_count();
        let here = bucket_of((base as u64) << (u64::BITS - PLACE_BITS - POSITION_BITS), count);
        let bucket = self.bucket(here);
        let filled = here == bucket_of(hash, count) && bucket.len() == bucket.capacity();
        let emptied = here == bucket_of(hash, count) && bucket.num_buckets() > PLACES_MIN;
        let split = self.grows() && here == split_last(count + 1);
        let merged =
            self.shrinks(self.len().saturating_sub(1)) && (here == count - 1 || here == split_last(count));
        if filled || emptied || split || merged { base } else { place }
    }

    /// The items in the places from `place` on, each with the place after it. Places are good until an
    /// item comes or goes.
    pub fn iter_from(&self, place: usize) -> impl Iterator<Item = (usize, &T)> {
        let mut place = place;
        std::iter::from_fn(move || {
            while place < PLACE_END {
                let (found, next) = self.look(place, usize::MAX);
                place = next;
                if let Some((_, item)) = found {
                    return Some((next, item));
                }
            }
            None
        })
    }

    /// An item drawn at random; `below` draws a number below its argument. There is one. It costs the same however many
    /// there are, or were: some eight draws, which meet a bucket and a place in it, until one finds it filled. Each item
    /// is as likely, but those of a bucket that made-up names have filled are less so.
    pub fn draw(&self, mut below: impl FnMut(usize) -> usize) -> &T {
        let Buckets::Many(many) = &self.buckets else {
            return self.nth(below(self.len()), &mut Spot::default());
        };
        for _ in 0..MISSES_MAX {
            let (bucket, at) = (many.get(below(many.count)), below(CROWD));
            if at < bucket.len() {
                let at = if bucket.len() > CROWD { below(bucket.len()) } else { at };
                return bucket.iter().nth(at).expect("a bucket has as many items as it counts");
            }
        }
        self.nth(below(many.len), &mut Spot::default())
    }

    /// The item that has so many before it, in an order that lasts as long as the table does not change, and
    /// how far the search for it went: a search for one further on may begin there.
    pub fn nth(&self, ordinal: usize, spot: &mut Spot) -> &T {
        assert!(ordinal < self.len(), "an ordinal is below the length");
        loop {
            if let Buckets::Many(many) = &self.buckets
                && spot.bucket.is_multiple_of(CHUNK)
            {
                let len = many.chunk_len(spot.bucket / CHUNK);
                if ordinal >= spot.before + len {
                    spot.bucket += CHUNK;
                    spot.before += len;
                    continue;
                }
            }
            let bucket = self.bucket(spot.bucket);
            if ordinal < spot.before + bucket.len() {
                let item = bucket.iter().nth(ordinal - spot.before);
                return item.expect("a bucket has as many items as it counts");
            }
            spot.bucket += 1;
            spot.before += bucket.len();
        }
    }
}

/// A place as that of the first item of its bucket, or of a part of it, and the place inside of the bucket.
const fn split_place(place: usize) -> (usize, usize) {
    let at = place & ((1 << PLACE_BITS) - 1);
    (place - at, at)
}

/// Leaves the `count` items with the lowest positions, and those that share the last of these. Returns the
/// position after it; `None` if all are left.
fn cut<T>(items: &mut Vec<(u64, T)>, count: usize) -> Option<u64> {
    if items.len() <= count {
        return None;
    }
    let (_, &mut (last, _), _) = items.select_nth_unstable_by_key(count - 1, |&(at, _)| at);
    items.retain(|&(at, _)| at <= last);
    Some(last + 1)
}

/// All items of a table, in no order.
#[derive(Debug)]
pub struct Iter<'a, T> {
    table: &'a LinearTable<T>,
    /// The number of the next bucket.
    next: usize,
    bucket: hash_table::Iter<'a, T>,
    left: usize,
}

impl<T> Clone for Iter<'_, T> {
    fn clone(&self) -> Self {
        Self { bucket: self.bucket.clone(), ..*self }
    }
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        loop {
            if let Some(item) = self.bucket.next() {
                self.left -= 1;
                return Some(item);
            }
            if self.left == 0 {
                return None;
            }
            self.bucket = self.table.bucket(self.next).iter();
            self.next += 1;
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

impl<'a, T> IntoIterator for &'a LinearTable<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        collections::{BTreeMap, BTreeSet},
    };

    use proptest::prelude::*;

    use super::*;

    /// Any number as a hash, as good as random.
    fn mixed(number: u64) -> u64 {
        let number = (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (number ^ number >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ number >> 32
    }

    /// The hash of an item: the upper byte is taken from the number as it is for some, so that they crowd.
    fn hash(&number: &u64) -> u64 {
        if number.is_multiple_of(3) { mixed(number) & 0xffff_ffff | 7 << 33 } else { mixed(number) }
    }

    fn put(table: &mut LinearTable<u64>, number: u64) -> bool {
        let new = table.find(hash(&number), |&other| other == number).is_none();
        if new {
            table.insert_unique(hash(&number), number, hash);
        }
        new
    }

    fn remove(table: &mut LinearTable<u64>, number: u64) -> bool {
        table.remove(hash(&number), |&other| other == number, hash).is_some()
    }

    /// What must hold of any table.
    fn check(table: &LinearTable<u64>, model: &BTreeSet<u64>) {
        assert_eq!(table.len(), model.len());
        assert_eq!(table.iter().copied().collect::<BTreeSet<_>>(), *model);
        assert!(model.iter().all(|number| table.find(hash(number), |other| other == number).is_some()));
        let (mut position, mut buckets, mut items) = (0, 0, 0);
        while position < POSITION_END {
            let (bucket, start, end) = table.bucket_at(position);
            assert_eq!(start, position, "intervals leave no gap");
            assert!(bucket.iter().all(|item| (start..end).contains(&position_of(hash(item)))));
            (position, buckets, items) = (end, buckets + 1, items + bucket.len());
        }
        assert_eq!((buckets, items), (table.bucket_count(), model.len()));
        let by_place: BTreeSet<u64> = table.iter_from(0).map(|(_, &number)| number).collect();
        assert_eq!(by_place, *model);
        let mut spot = Spot::default();
        let by_ordinal: Vec<u64> = (0..model.len()).map(|ordinal| *table.nth(ordinal, &mut spot)).collect();
        assert_eq!(by_ordinal, table.iter().copied().collect::<Vec<_>>());
        if let Some(last) = model.len().checked_sub(1) {
            assert_eq!(*table.nth(last, &mut Spot::default()), by_ordinal[last]);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u64),
        Remove(u64),
        PutAll(u64, u64),
        RemoveAll(u64, u64),
    }

    fn any_steps() -> impl Strategy<Value = Vec<Step>> {
        const END: u64 = 20_000;
        let step = prop_oneof![
            10 => (0..END).prop_map(Step::Put),
            10 => (0..END).prop_map(Step::Remove),
            2 => (0..END, 0..END).prop_map(|(start, end)| Step::PutAll(start, end)),
            2 => (0..END, 0..END).prop_map(|(start, end)| Step::RemoveAll(start, end)),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_holds_what_a_set_holds(steps in any_steps(), pieces in 1_usize..3000) {
            let (mut table, mut model) = (LinearTable::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Put(number) => prop_assert_eq!(put(&mut table, number), model.insert(number)),
                    Step::Remove(number) => {
                        prop_assert_eq!(remove(&mut table, number), model.remove(&number));
                    }
                    Step::PutAll(start, end) => (start..end).for_each(|number| {
                        assert_eq!(put(&mut table, number), model.insert(number));
                    }),
                    Step::RemoveAll(start, end) => (start..end).for_each(|number| {
                        assert_eq!(remove(&mut table, number), model.remove(&number));
                    }),
                }
            }
            check(&table, &model);
            let (mut seen, mut from) = (BTreeMap::new(), Some(0));
            while let Some(start) = from {
                let (items, next) = table.scan(start, pieces, |item| position_of(hash(item)));
                let next_or_end = next.unwrap_or(POSITION_END);
                for item in items {
                    prop_assert!((start..next_or_end).contains(&position_of(hash(item))));
                    prop_assert!(seen.insert(*item, ()).is_none());
                }
                from = next;
            }
            prop_assert_eq!(seen.len(), model.len());
        }

        /// A walk by places that heeds `keep_place` misses nothing that stays.
        #[test]
        fn places_outlive_changes(
            stay in 1_u64..2000,
            changes in prop::collection::vec((any::<bool>(), 0_u64..3000), 1..2000),
            churn in 1_usize..40,
        ) {
            /// More than the largest bucket takes: a walk whose bucket is rearranged before it comes to its
            /// end, again and again, does not go on.
            const LOOKS: usize = 200;
            let mut table = LinearTable::default();
            let rehash = |&number: &u64| mixed(number);
            (0..stay).for_each(|number| table.insert_unique(mixed(number), number, rehash));
            let mut changes = changes.iter().cycle();
            let mut there = BTreeSet::new();
            let (mut seen, mut place, mut looks) = (BTreeSet::new(), 0, 0);
            while place < PLACE_END {
                let (found, next) = table.look(place, 5);
                place = next;
                if let Some((at, &item)) = found {
                    prop_assert_eq!(table.at_mut(at), Some(&mut { item }));
                    seen.insert(item);
                }
                looks += 1;
                if looks % LOOKS > 0 {
                    continue;
                }
                for &(come, number) in changes.by_ref().take(churn) {
                    let number = stay + number;
                    place = table.keep_place(place, mixed(number));
                    if come && there.insert(number) {
                        table.insert_unique(mixed(number), number, rehash);
                    } else if !come && there.remove(&number) {
                        table.remove(mixed(number), |&other| other == number, rehash).expect("it was put");
                    }
                }
            }
            prop_assert!((0..stay).all(|number| seen.contains(&number)));
        }
    }

    /// What a step costs is what it hashes: no change rehashes more than a few buckets, no piece of a walk
    /// looks at more, however many items there are.
    #[test]
    fn no_step_grows_with_the_table() {
        const ITEMS: u64 = 300_000;
        const COST_MAX: u64 = 12 * LOAD_MAX as u64;
        let cost = Cell::new(0);
        let counted = |number: &u64| {
            cost.set(cost.get() + 1);
            mixed(*number)
        };
        let mut table = LinearTable::default();
        for number in 0..ITEMS {
            table.insert_unique(mixed(number), number, counted);
            assert!(cost.replace(0) <= COST_MAX, "an insertion among {number}");
        }
        let (mut from, mut pieces, mut all) = (Some(0), 0, 0);
        while let Some(start) = from {
            from = table.scan(start, 10, |number| position_of(counted(number))).1;
            assert!(cost.get() <= COST_MAX, "a piece looks at {}", cost.get());
            (pieces, all) = (pieces + 1, all + cost.replace(0));
        }
        assert!(all / pieces <= 2 * LOAD_MAX as u64, "a piece looks at {} on average", all / pieces);
        for number in 0..ITEMS {
            table.remove(mixed(number), |&other| other == number, counted).expect("it was put");
            assert!(cost.replace(0) <= COST_MAX, "a removal, {number} before");
        }
        assert_eq!(table.bucket_count(), 1);
    }

    /// Buckets that nobody is in are passed, but not without end.
    #[test]
    fn a_piece_of_an_empty_stretch_is_bounded() {
        let crowded = |number: &u64| *number & 0xffff_ffff | (POSITION_END - 1) << 33;
        let mut table = LinearTable::default();
        (0..100_000).for_each(|number| table.insert_unique(crowded(&number), number, crowded));
        let (mut from, mut pieces, mut seen) = (Some(0), 0, 0);
        while let Some(start) = from {
            let (items, next) = table.scan(start, 10, |number| position_of(crowded(number)));
            (from, pieces, seen) = (next, pieces + 1, seen + items.len());
        }
        assert_eq!(seen, 100_000);
        assert_eq!(pieces, (100_000_usize / LOAD_MAX).div_ceil(10 * PASSED_MAX));
    }

    #[test]
    fn buckets_cost_few_bytes_an_item() {
        for items in [112, 200, 300, 1000, 10_000, 100_000] {
            let table = &mut LinearTable::default();
            (0..items)
                .for_each(|number| table.insert_unique(mixed(number), Box::new(number), |n| mixed(**n)));
            let bytes = table.allocation_size() as f64 / items as f64;
            assert!((9.0..26.0).contains(&bytes), "{bytes} bytes an item of {items}");
        }
    }
}
