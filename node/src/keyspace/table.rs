//! A hash table of items that carry their own name, walked in an order that is the same on every replica.

use hashbrown::HashSet;

use super::{
    Blob, Seed,
    linear::{self, LinearTable, Spot},
    scan::position,
};

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
    items: LinearTable<T>,
    seed: Seed,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { items: LinearTable::default(), seed: Seed::default() }
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
        self.items.find(self.seed.hash(name), |item| item.name() == name)
    }

    /// The hash of a name in this table.
    pub fn hash(&self, name: &[u8]) -> u64 {
        self.seed.hash(name)
    }

    /// The items of this hash, and perhaps some of others.
    pub fn iter_hash(&self, hash: u64) -> impl Iterator<Item = &T> {
        self.items.iter_hash(hash)
    }

    /// The item of this name, to be changed; its name stays.
    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut T> {
        self.items.find_mut(self.seed.hash(name), |item| item.name() == name)
    }

    /// Puts the item that `make` makes where there is none of this name. Returns
    /// whether there was none.
    pub fn add(&mut self, name: &[u8], make: impl FnOnce() -> T) -> bool {
        let hash = self.seed.hash(name);
        let new = self.items.find(hash, |item| item.name() == name).is_none();
        if new {
            self.items.insert_unique(hash, make(), |item| self.seed.hash(item.name()));
        }
        new
    }

    /// Puts an item. Returns the one that had its name.
    pub fn put(&mut self, item: T) -> Option<T> {
        let hash = self.seed.hash(item.name());
        if let Some(before) = self.items.find_mut(hash, |other| other.name() == item.name()) {
            return Some(std::mem::replace(before, item));
        }
        self.items.insert_unique(hash, item, |item| self.seed.hash(item.name()));
        None
    }

    /// Takes the item of this name out.
    pub fn remove(&mut self, name: &[u8]) -> Option<T> {
        let rehash = |item: &T| self.seed.hash(item.name());
        self.items.remove(self.seed.hash(name), |item| item.name() == name, rehash)
    }

    /// All items, in no order.
    pub fn iter(&self) -> linear::Iter<'_, T> {
        self.items.iter()
    }

    /// The items in the places from `place` on, each with the place after it. Places are good until an
    /// item comes or goes.
    pub fn iter_from(&self, place: usize) -> impl Iterator<Item = (usize, &T)> {
        self.items.iter_from(place)
    }

    /// About `count` items from `cursor` on, and the cursor to go on with; 0 begins and ends.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<&T>, u64) {
        let (items, next) = self.items.scan(cursor, count, |item| position(item.name()));
        (items, next.unwrap_or(0))
    }

    /// An item drawn at random, each as likely; `below` draws a number below its argument.
    pub fn draw(&self, below: impl FnOnce(usize) -> usize) -> Option<&T> {
        (!self.is_empty()).then(|| self.items.nth(below(self.len()), &mut Spot::default()))
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
        while drawn.len() < count {
            drawn.insert(below(self.len()));
        }
        let mut ordinals: Vec<usize> = drawn.into_iter().collect();
        ordinals.sort_unstable();
        let mut spot = Spot::default();
        ordinals.into_iter().map(|ordinal| self.items.nth(ordinal, &mut spot)).collect()
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
