//! Things that are kept by the name of a script, within a bound of bytes: those
//! that were used least lately go first.

use std::cell::Cell;

use hashbrown::HashMap;

/// Of a bound: what is given up beyond what must be, so that the least used are
/// looked for once in many insertions.
const SPARE_PART: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Kept<V> {
    entries: HashMap<[u8; 40], Entry<V>, foldhash::fast::RandomState>,
    bytes: usize,
    bytes_max: usize,
    count_max: usize,
    /// Uses so far.
    uses: Cell<u64>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    /// [`Kept::uses`] at its last use.
    used: Cell<u64>,
}

impl<V> Kept<V> {
    /// Nothing yet; the bounds are of bytes and of entries.
    pub fn new(bytes_max: usize, count_max: usize) -> Self {
        Self { entries: HashMap::default(), bytes: 0, bytes_max, count_max, uses: Cell::new(0) }
    }

    /// What is kept by this name, which counts as a use.
    pub fn get(&self, name: &[u8; 40]) -> Option<&V> {
        let entry = self.entries.get(name)?;
        entry.used.set(self.next_use());
        Some(&entry.value)
    }

    /// Keeps a value; nothing that is larger than the bound.
    pub fn insert(&mut self, name: [u8; 40], value: V, bytes: usize) {
        self.remove(&name);
        if bytes > self.bytes_max || self.count_max == 0 {
            return;
        }
        if self.bytes + bytes > self.bytes_max || self.entries.len() == self.count_max {
            self.make_room(bytes);
        }
        self.bytes += bytes;
        let used = Cell::new(self.next_use());
        self.entries.insert(name, Entry { value, bytes, used });
    }

    /// Keeps nothing more.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn next_use(&self) -> u64 {
        self.uses.set(self.uses.get() + 1);
        self.uses.get()
    }

    fn remove(&mut self, name: &[u8; 40]) {
        if let Some(entry) = self.entries.remove(name) {
            self.bytes -= entry.bytes;
        }
    }

    fn make_room(&mut self, bytes: usize) {
        let mut names: Vec<_> = self.entries.iter().map(|(name, entry)| (entry.used.get(), *name)).collect();
        names.sort_unstable();
        let bytes_left = (self.bytes_max - self.bytes_max / SPARE_PART).min(self.bytes_max - bytes);
        let count_left = (self.count_max - self.count_max / SPARE_PART).min(self.count_max - 1);
        for (_, name) in names {
            if self.bytes <= bytes_left && self.entries.len() <= count_left {
                break;
            }
            self.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u8) -> [u8; 40] {
        [number; 40]
    }

    #[test]
    fn the_least_used_go_first_and_the_bound_holds() {
        let mut kept = Kept::new(80, 100);
        for number in 0..8 {
            kept.insert(name(number), number, 10);
        }
        assert_eq!((kept.len(), kept.bytes()), (8, 80));
        assert_eq!(kept.get(&name(0)), Some(&0));
        kept.insert(name(8), 8, 10);
        assert!(kept.bytes() <= 80);
        assert!(kept.get(&name(0)).is_some(), "it was used lately");
        assert!(kept.get(&name(1)).is_none(), "it was not");
        assert!(kept.get(&name(7)).is_some() && kept.get(&name(8)).is_some());
        kept.insert(name(9), 9, 81);
        assert!(kept.get(&name(9)).is_none() && !kept.is_empty(), "too large to be kept");
        kept.insert(name(10), 10, 80);
        assert_eq!((kept.len(), kept.bytes()), (1, 80));
        kept.clear();
        assert_eq!((kept.len(), kept.bytes()), (0, 0));
    }

    #[test]
    fn the_number_is_bounded_too() {
        let mut kept = Kept::new(usize::MAX, 3);
        for number in 0..100 {
            kept.insert(name(number), number, 1);
            assert!(kept.len() <= 3 && kept.get(&name(number)).is_some());
        }
    }
}
