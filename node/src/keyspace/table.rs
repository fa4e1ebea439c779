//! A hash table of items that carry their own name, from which one can be drawn
//! at random in constant time.
//!
//! A draw looks at buckets picked at random until one is full, so each item is
//! as likely as any other. That is constant time while the table is not much
//! larger than what it holds: it shrinks when it falls below
//! one item in `SPARSE` buckets, and the items that went pay for that.

use std::hash::BuildHasher;

use hashbrown::{HashSet, HashTable, hash_table};

use super::{Blob, Seed};

/// Buckets an item, at most: so many tries a draw takes on average, at worst.
const SPARSE: usize = 8;

/// A table of no more buckets than this is not worth shrinking.
const BUCKETS_MIN: usize = 64;

/// A draw of more than one in so many items shuffles all of them: picking at
/// random until enough different ones are found would repeat itself too often.
const FEW: usize = 3;

/// Something with a name by which it is found.
pub trait Named {
    /// The name.
    fn name(&self) -> &[u8];
}

impl Named for Blob {
    fn name(&self) -> &[u8] {
        self
    }
}

/// A field with its value.
impl Named for (Blob, Blob) {
    fn name(&self) -> &[u8] {
        &self.0
    }
}

/// Items by name, in no order.
#[derive(Clone, Debug)]
pub struct Table<T> {
    items: HashTable<T>,
    seed: Seed,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { items: HashTable::new(), seed: Seed::default() }
    }
}

impl<T: Named> FromIterator<T> for Table<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut table = Self::default();
        for item in items {
            table.put(item);
        }
        table
    }
}

impl<T: Named> Table<T> {
    /// How many items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of its buckets, without what items hold outside of them.
    pub fn heap_bytes(&self) -> usize {
        self.items.allocation_size()
    }

    /// The item of this name.
    pub fn get(&self, name: &[u8]) -> Option<&T> {
        self.items.find(self.seed.hash_one(name), |item| item.name() == name)
    }

    /// The item of this name, to be changed; its name stays.
    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut T> {
        self.items.find_mut(self.seed.hash_one(name), |item| item.name() == name)
    }

    /// Puts the item that `make` makes where there is none of this name. Returns
    /// whether there was none.
    pub fn add(&mut self, name: &[u8], make: impl FnOnce() -> T) -> bool {
        let seed = &self.seed;
        let found = self.items.entry(
            seed.hash_one(name),
            |item| item.name() == name,
            |item| seed.hash_one(item.name()),
        );
        match found {
            hash_table::Entry::Occupied(_) => false,
            hash_table::Entry::Vacant(place) => {
                place.insert(make());
                true
            }
        }
    }

    /// Puts an item. Returns the one that had its name.
    pub fn put(&mut self, item: T) -> Option<T> {
        let seed = &self.seed;
        let found = self.items.entry(
            seed.hash_one(item.name()),
            |other| other.name() == item.name(),
            |other| seed.hash_one(other.name()),
        );
        match found {
            hash_table::Entry::Occupied(mut place) => Some(std::mem::replace(place.get_mut(), item)),
            hash_table::Entry::Vacant(place) => {
                place.insert(item);
                None
            }
        }
    }

    /// Takes the item of this name out.
    pub fn remove(&mut self, name: &[u8]) -> Option<T> {
        let seed = &self.seed;
        let found = self.items.find_entry(seed.hash_one(name), |item| item.name() == name).ok()?;
        let (item, _) = found.remove();
        let (buckets, count) = (self.items.num_buckets(), self.items.len());
        if buckets > BUCKETS_MIN && count < buckets / SPARSE {
            self.items.shrink_to(count * 2, |item| seed.hash_one(item.name()));
        }
        Some(item)
    }

    /// All items, in no order.
    pub fn iter(&self) -> hash_table::Iter<'_, T> {
        self.items.iter()
    }

    /// The items in the places from `place` on, each with the place after it. Places are good until an
    /// item comes.
    pub fn iter_from(&self, place: usize) -> impl Iterator<Item = (usize, &T)> {
        let places = place..self.items.num_buckets();
        places.filter_map(|at| self.items.get_bucket(at).map(|item| (at + 1, item)))
    }

    /// An item drawn at random; `below` draws a number below its argument.
    pub fn draw(&self, below: impl FnMut(usize) -> usize) -> Option<&T> {
        draw(&self.items, below)
    }

    /// As many different items drawn at random, or all if there are fewer, in no
    /// order; takes time for as many.
    pub fn draw_distinct(&self, count: usize, mut below: impl FnMut(usize) -> usize) -> Vec<&T> {
        if count >= self.len() {
            return self.iter().collect();
        }
        if count.saturating_mul(FEW) > self.len() {
            let mut items: Vec<&T> = self.iter().collect();
            shuffle_first(&mut items, count, below);
            return items;
        }
        let mut drawn = HashSet::with_capacity_and_hasher(count, foldhash::fast::FixedState::default());
        let mut items = Vec::with_capacity(count);
        while items.len() < count {
            let bucket = below(self.items.num_buckets());
            if let Some(item) = self.items.get_bucket(bucket)
                && drawn.insert(bucket)
            {
                items.push(item);
            }
        }
        items
    }
}

/// Makes `items` as many of them, drawn at random. There are as many.
pub fn shuffle_first<T>(items: &mut Vec<T>, count: usize, mut below: impl FnMut(usize) -> usize) {
    for at in 0..count {
        let other = at + below(items.len() - at);
        items.swap(at, other);
    }
    items.truncate(count);
}

/// An item of any table drawn at random. Constant time unless the table is
/// nearly empty for its size; then linear.
pub fn draw<T>(table: &HashTable<T>, mut below: impl FnMut(usize) -> usize) -> Option<&T> {
    /// Tries in vain are this likely to end for a table that is as sparse as a
    /// [`Table`] may be: once in ten million draws.
    const TRIES_MAX: usize = 128;
    if table.is_empty() {
        return None;
    }
    for _ in 0..TRIES_MAX {
        if let Some(item) = table.get_bucket(below(table.num_buckets())) {
            return Some(item);
        }
    }
    table.iter().nth(below(table.len()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn numbered(count: usize) -> Table<Blob> {
        (0..count).map(|number| Blob::new(number.to_string().as_bytes())).collect()
    }

    /// The chi-squared statistic of `counts` against all being equally likely.
    fn chi_squared(counts: &BTreeMap<Vec<u8>, usize>, items: usize) -> f64 {
        let draws: usize = counts.values().sum();
        let expected = draws as f64 / items as f64;
        let square = |seen: usize| (seen as f64 - expected).powi(2) / expected;
        let unseen = (items - counts.len()) as f64 * expected;
        counts.values().map(|&seen| square(seen)).sum::<f64>() + unseen
    }

    #[test]
    fn each_item_is_as_likely_as_any_other_even_after_most_have_gone() {
        let mut random = StdRng::seed_from_u64(1);
        let mut table = numbered(10_000);
        (0..9_900).for_each(|number| drop(table.remove(number.to_string().as_bytes())));
        assert!(table.items.num_buckets() <= 100 * SPARSE * 2, "it has shrunk");
        let mut one = BTreeMap::new();
        let mut few = BTreeMap::new();
        let mut many = BTreeMap::new();
        for _ in 0..20_000 {
            let mut below = |end| random.random_range(0..end);
            *one.entry(table.draw(&mut below).expect("there are items").to_vec()).or_default() += 1;
            for item in table.draw_distinct(5, &mut below) {
                *few.entry(item.to_vec()).or_default() += 1;
            }
            for item in table.draw_distinct(60, &mut below) {
                *many.entry(item.to_vec()).or_default() += 1;
            }
        }
        // 99 degrees of freedom: more than 160 comes once in ten thousand runs.
        for counts in [one, few, many] {
            let statistic = chi_squared(&counts, 100);
            assert!(statistic < 160.0, "{statistic}");
        }
    }

    #[test]
    fn a_draw_takes_constant_time() {
        for count in [10, 1000, 100_000] {
            let table = numbered(count);
            let mut random = StdRng::seed_from_u64(2);
            let mut tries = 0;
            for _ in 0..1000 {
                table.draw(|end| {
                    tries += 1;
                    random.random_range(0..end)
                });
            }
            assert!(tries < 1000 * SPARSE, "{tries} tries for 1000 draws of {count}");
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(changes: Vec<(bool, u8)>, seed: u64, count in 0_usize..300) {
            let mut random = StdRng::seed_from_u64(seed);
            let mut table = Table::<(Blob, Blob)>::default();
            let mut model = BTreeMap::new();
            for (turn, (put, name)) in changes.into_iter().enumerate() {
                let (name, value) = (vec![name], turn.to_string().into_bytes());
                if put {
                    let before = table.put((Blob::new(&name), Blob::new(&value)));
                    prop_assert_eq!(before.map(|(_, value)| value.to_vec()), model.insert(name, value));
                } else {
                    let before = table.remove(&name);
                    prop_assert_eq!(before.map(|(_, value)| value.to_vec()), model.remove(&name));
                }
            }
            prop_assert_eq!(table.len(), model.len());
            for (name, value) in &model {
                prop_assert_eq!(table.get(name).map(|(_, value)| value.to_vec()), Some(value.clone()));
            }
            let drawn = table.draw_distinct(count, |end| random.random_range(0..end));
            let names: std::collections::BTreeSet<_> = drawn.iter().map(|(name, _)| name.to_vec()).collect();
            prop_assert_eq!(names.len(), drawn.len());
            prop_assert_eq!(drawn.len(), count.min(model.len()));
            prop_assert!(names.iter().all(|name| model.contains_key(name)));
        }
    }
}
