//! A few texts in one block of memory: what small hashes, sets and sorted sets are made of, and the nodes of
//! lists. The idea is that of Redis's listpack; the bytes are our own, and never leave the process.
//!
//! ```text
//! block   item…
//! item    length bytes length'
//! length  0…253 as one byte; else 254 and four bytes (little-endian)
//! ```
//!
//! `length'` are the same bytes as `length` in reverse order, so that a block is read from both ends. Finding an
//! item takes time for the items before it, or behind it if those are fewer; a change moves what is behind it.
//!
//! INVARIANT: a block is items, whole, and as many as are counted.

use std::ops::Range;

/// Lengths from here on do not fit one byte.
const LONG: usize = 254;

/// A block grows by so many bytes, and by an eighth of what it has if that is more: little is left over where
/// there are many small ones, and a long one is not copied too often.
const GROWTH_BYTES: usize = 16;

/// Texts in one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    bytes: Vec<u8>,
    count: u32,
}

/// Bytes of a length.
const fn length_bytes(length: usize) -> usize {
    if length < LONG { 1 } else { 5 }
}

/// Bytes of an item of so many.
pub const fn item_bytes(length: usize) -> usize {
    2 * length_bytes(length) + length
}

/// Puts a length where it belongs, at the start of `place` or, reversed, at its end.
fn put_length(place: &mut [u8], length: usize, reversed: bool) {
    let mut bytes = [LONG as u8, 0, 0, 0, 0];
    let count = length_bytes(length);
    if count == 1 {
        bytes[0] = length as u8;
    } else {
        let length = u32::try_from(length).expect("a text is shorter than 4 GiB");
        bytes[1..].copy_from_slice(&length.to_le_bytes());
    }
    if reversed {
        bytes[..count].reverse();
        let start = place.len() - count;
        place[start..].copy_from_slice(&bytes[..count]);
    } else {
        place[..count].copy_from_slice(&bytes[..count]);
    }
}

/// The length at the start of `bytes`.
fn length_first(bytes: &[u8]) -> usize {
    match bytes[0] as usize {
        LONG => u32::from_le_bytes(bytes[1..5].try_into().expect("four bytes")) as usize,
        short => short,
    }
}

/// The length at the end of `bytes`, where it stands reversed.
fn length_last(bytes: &[u8]) -> usize {
    let end = bytes.len();
    match bytes[end - 1] as usize {
        LONG => u32::from_be_bytes(bytes[end - 5..end - 1].try_into().expect("four bytes")) as usize,
        short => short,
    }
}

/// Items in order, from both ends.
#[derive(Clone, Debug, Default)]
pub struct Items<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.count = self.count.checked_sub(1)?;
        let length = length_first(self.bytes);
        let start = length_bytes(length);
        let (item, rest) = self.bytes.split_at(item_bytes(length));
        self.bytes = rest;
        Some(&item[start..start + length])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl DoubleEndedIterator for Items<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let length = length_last(self.bytes);
        let start = length_bytes(length);
        let (rest, item) = self.bytes.split_at(self.bytes.len() - item_bytes(length));
        self.bytes = rest;
        Some(&item[start..start + length])
    }
}

impl ExactSizeIterator for Items<'_> {}

impl<'a> Items<'a> {
    /// Those after the first `count`.
    fn skip_items(mut self, count: usize) -> Self {
        if count > 0 {
            self.nth(count - 1);
        }
        self
    }

    /// Those before the last `count`.
    fn skip_back(mut self, count: usize) -> Self {
        if count > 0 {
            self.nth_back(count - 1);
        }
        self
    }
}

impl Packed {
    /// How many items.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that are used.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes outside of this value.
    pub const fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// All items.
    pub fn iter(&self) -> Items<'_> {
        Items { bytes: &self.bytes, count: self.len() }
    }

    /// The items from `start` up to but without `end`.
    pub fn range(&self, start: usize, end: usize) -> Items<'_> {
        assert!(start <= end && end <= self.len(), "a range is inside the block");
        let (first, last) = (self.offset(start), self.offset(end));
        Items { bytes: &self.bytes[first..last], count: end - start }
    }

    /// The item at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        (index < self.len()).then(|| self.range(index, self.len()).next())?
    }

    /// Where the item at `index` begins; the end of the block for the number of items.
    fn offset(&self, index: usize) -> usize {
        let behind = self.len() - index;
        if index <= behind {
            self.bytes.len() - self.iter().skip_items(index).bytes.len()
        } else {
            self.iter().skip_back(behind).bytes.len()
        }
    }

    /// Puts an item at the end.
    pub fn push(&mut self, item: &[u8]) {
        let end = self.bytes.len();
        self.splice(end..end, Some(item));
        self.count += 1;
    }

    /// Puts an item before position `index`, which is at most the number of items.
    pub fn insert(&mut self, index: usize, item: &[u8]) {
        let at = self.offset(index);
        self.splice(at..at, Some(item));
        self.count += 1;
    }

    /// Replaces the item at `index`, which is there.
    pub fn set(&mut self, index: usize, item: &[u8]) {
        let place = self.offset(index)..self.offset(index + 1);
        self.splice(place, Some(item));
    }

    /// Takes `count` items out, which are there, the first of them at `index`.
    pub fn remove(&mut self, index: usize, count: usize) {
        let place = self.offset(index)..self.offset(index + count);
        self.splice(place, None);
        self.count -= count as u32;
        if self.bytes.len() * 2 < self.bytes.capacity() {
            self.shrink();
        }
    }

    /// Takes the items from `index` on out.
    pub fn split_off(&mut self, index: usize) -> Self {
        let at = self.offset(index);
        let bytes = self.bytes[at..].to_vec();
        let count = self.count - index as u32;
        self.bytes.truncate(at);
        self.count = index as u32;
        self.shrink();
        Self { bytes, count }
    }

    /// Puts all items of `other` at the end.
    pub fn append(&mut self, other: &Self) {
        self.reserve(other.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
    }

    /// Gives back what is not used.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Puts an item in the place of what is there.
    fn splice(&mut self, place: Range<usize>, item: Option<&[u8]>) {
        let added = item.map_or(0, |item| item_bytes(item.len()));
        let (before, tail) = (self.bytes.len(), self.bytes.len() - place.end);
        let after = before - place.len() + added;
        if after > before {
            self.reserve(after - before);
            self.bytes.resize(after, 0);
        }
        self.bytes.copy_within(place.end..before, after - tail);
        self.bytes.truncate(after);
        let Some(item) = item else { return };
        let room = &mut self.bytes[place.start..place.start + added];
        put_length(room, item.len(), false);
        put_length(room, item.len(), true);
        let start = length_bytes(item.len());
        room[start..start + item.len()].copy_from_slice(item);
    }

    fn reserve(&mut self, bytes: usize) {
        let needed = self.bytes.len() + bytes;
        if needed > self.bytes.capacity() {
            let grown = (needed + self.bytes.len() / 8).next_multiple_of(GROWTH_BYTES);
            self.bytes.reserve_exact(grown - self.bytes.len());
        }
    }
}

impl<'a> FromIterator<&'a [u8]> for Packed {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(items: I) -> Self {
        let mut packed = Self::default();
        items.into_iter().for_each(|item| packed.push(item));
        packed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<u8>),
        Insert(usize, Vec<u8>),
        Set(usize, Vec<u8>),
        Remove(usize, usize),
        SplitAndAppend(usize),
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        // Lengths at which the form of a length changes, and much longer ones.
        prop_oneof![
            6 => prop::collection::vec(any::<u8>(), 0..12),
            2 => prop::collection::vec(any::<u8>(), LONG - 2..LONG + 3),
            1 => prop::collection::vec(any::<u8>(), 65_530..65_540),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => text().prop_map(Step::Push),
            3 => (any::<usize>(), text()).prop_map(|(at, item)| Step::Insert(at, item)),
            2 => (any::<usize>(), text()).prop_map(|(at, item)| Step::Set(at, item)),
            2 => (any::<usize>(), 0_usize..4).prop_map(|(at, count)| Step::Remove(at, count)),
            1 => any::<usize>().prop_map(Step::SplitAndAppend),
        ]
    }

    fn take(packed: &mut Packed, model: &mut Vec<Vec<u8>>, step: Step) {
        match step {
            Step::Push(item) => {
                packed.push(&item);
                model.push(item);
            }
            Step::Insert(at, item) => {
                let at = at % (model.len() + 1);
                packed.insert(at, &item);
                model.insert(at, item);
            }
            Step::Set(at, item) if !model.is_empty() => {
                let at = at % model.len();
                packed.set(at, &item);
                model[at] = item;
            }
            Step::Set(..) => {}
            Step::Remove(at, count) => {
                let at = at % (model.len() + 1);
                let count = count.min(model.len() - at);
                packed.remove(at, count);
                model.drain(at..at + count);
            }
            Step::SplitAndAppend(at) => {
                let behind = packed.split_off(at % (model.len() + 1));
                assert_eq!(packed.len(), at % (model.len() + 1));
                packed.append(&behind);
            }
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_vector_holds(
            steps in prop::collection::vec(step(), 0..40), from: usize, to: usize,
        ) {
            let (mut packed, mut model) = (Packed::default(), Vec::new());
            for step in steps {
                take(&mut packed, &mut model, step);
                prop_assert_eq!(packed.len(), model.len());
                prop_assert!(packed.iter().eq(model.iter().map(|item| &**item)));
                prop_assert!(packed.iter().rev().eq(model.iter().rev().map(|item| &**item)));
            }
            let (from, to) = (from % (model.len() + 1), to % (model.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            prop_assert!(packed.range(from, to).eq(model[from..to].iter().map(|item| &**item)));
            prop_assert!(packed.range(from, to).rev().eq(model[from..to].iter().rev().map(|item| &**item)));
            prop_assert_eq!(packed.get(from), model.get(from).map(|item| &**item));
            prop_assert_eq!(packed.bytes(), model.iter().map(|item| item_bytes(item.len())).sum::<usize>());
            // From both ends in turn.
            let mut items = packed.iter();
            let mut seen = Vec::new();
            while let Some(item) = items.next() {
                seen.push(item.to_vec());
                let left = items.len();
                if items.next_back().is_some() {
                    prop_assert_eq!(items.len(), left - 1);
                }
            }
            prop_assert_eq!(&seen[..], &model[..model.len().div_ceil(2)]);
        }
    }

    #[test]
    fn little_room_is_left_over() {
        let mut packed = Packed::default();
        (0..100).for_each(|number: u32| packed.push(format!("field:{number}").as_bytes()));
        assert!(packed.heap_bytes() <= packed.bytes() + packed.bytes() / 8 + GROWTH_BYTES, "{packed:?}");
        packed.remove(0, 90);
        assert!(packed.heap_bytes() < 2 * packed.bytes() + GROWTH_BYTES);
    }
}
