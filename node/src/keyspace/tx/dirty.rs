//! What in the state is changed and not committed, by the number of the batch that changed it last.
//!
//! Who reads waits for that batch. Keys are known by their hashes: those that share one wait for each other, which costs
//! time and nothing else. What has no key, or all of them, has a number of its own. A number of 0 means that nothing is
//! in flight.

use hashbrown::{HashMap, HashSet};

use crate::keyspace::SlotSet;

/// Hashes are already well spread: no second hashing.
#[derive(Clone, Copy, Default)]
pub(super) struct Identity(u64);

/// Hashes of keys.
pub(super) type Hashes = HashSet<u64, std::hash::BuildHasherDefault<Identity>>;

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed")
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
/// See the module.
#[derive(Default)]
pub(super) struct Dirty {
    /// The newest uncommitted batch that changed a key, by the key's hash.
    keys: HashMap<u64, u64, std::hash::BuildHasherDefault<Identity>>,
    /// Batches that changed so many keys that to mark each would take long, with these.
    large: Vec<(u64, Hashes)>,
    /// The newest batch in flight, or the open one if it has effects.
    pub newest: u64,
    /// The newest that cleared slots: all keys are changed, and marking each would take long.
    pub cleared: u64,
    /// The newest that had all scripts forgotten.
    pub flushed: u64,
    /// The newest that took a library away or changed it.
    pub unlinked: u64,
    /// The newest that changed whose slots are, and which slots those in flight change.
    reassigned: u64,
    changing_hands: SlotSet,
}

impl Dirty {
    /// The newest that changed what has this hash.
    pub fn of(&self, hash: u64) -> u64 {
        let newest = match self.keys.is_empty() {
            true => 0,
            false => self.keys.get(&hash).copied().unwrap_or(0),
        };
        let large = self.large.iter().filter(|(_, hashes)| hashes.contains(&hash));
        large.fold(newest, |newest, &(sequence, _)| newest.max(sequence))
    }

    /// Batch `sequence` changes all of these.
    pub fn mark_many(&mut self, hashes: Hashes, sequence: u64) {
        self.large.push((sequence, hashes));
    }

    /// Batch `sequence` changes the key with this hash. Returns whether that is the first time it does.
    pub fn mark(&mut self, hash: u64, sequence: u64) -> bool {
        self.keys.insert(hash, sequence) != Some(sequence)
    }

    /// Batch `sequence` changes whose these slots are.
    pub fn reassign(&mut self, first: u16, last: u16, sequence: u64) {
        self.reassigned = sequence;
        (first..=last).for_each(|slot| self.changing_hands.insert(slot));
    }

    /// Whether a batch in flight, or the open one, changes whose this slot is.
    pub fn is_changing_hands(&self, slot: u16) -> bool {
        self.reassigned > 0 && self.changing_hands.contains(slot)
    }

    /// Whether such a batch changes any slot's.
    pub const fn is_any_changing_hands(&self) -> bool {
        self.reassigned > 0
    }

    /// Batch `sequence` is committed: what it changed is clean, unless a later one changed it again. `changed` are
    /// the keys; it is the last of all if none is in flight or open behind it.
    pub fn committed(&mut self, sequence: u64, changed: &[u64], is_last: bool) {
        for hash in changed {
            if let hashbrown::hash_map::Entry::Occupied(entry) = self.keys.entry(*hash)
                && *entry.get() == sequence
            {
                entry.remove();
            }
        }
        self.large.retain(|&(of, _)| of != sequence);
        if self.newest == sequence && is_last {
            self.newest = 0;
        }
        for newest in [&mut self.cleared, &mut self.flushed, &mut self.unlinked] {
            if *newest == sequence {
                *newest = 0;
            }
        }
        if self.reassigned == sequence {
            self.settle_hands();
        }
    }

    /// Nothing is in flight any more. The table keeps its room.
    pub fn forget(&mut self) {
        self.keys.clear();
        self.large.clear();
        (self.newest, self.cleared, self.flushed, self.unlinked) = (0, 0, 0, 0);
        self.settle_hands();
    }

    fn settle_hands(&mut self) {
        if self.reassigned > 0 {
            self.reassigned = 0;
            self.changing_hands = SlotSet::default();
        }
    }
}
