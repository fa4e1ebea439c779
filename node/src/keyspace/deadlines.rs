//! Which keys expire when, so that they go without being asked for.
//!
//! An element is a deadline, a slot and a key's hash in one number: 16 bytes
//! however long the key. Two keys that share all three share an element, so
//! whoever acts on one looks at all entries of that hash.

use std::collections::BTreeSet;

/// The deadlines of a keyspace, soonest first.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    set: BTreeSet<u128>,
}

/// Milliseconds that fit beside slot and hash: year 10889.
pub const DEADLINE_MAX: u64 = (1 << 48) - 1;

fn pack(at: u64, slot: u16, hash: u64) -> u128 {
    u128::from(at.min(DEADLINE_MAX)) << 80 | u128::from(slot) << 64 | u128::from(hash)
}

impl Deadlines {
    /// A key of this slot and hash expires at this time.
    pub fn insert(&mut self, at: u64, slot: u16, hash: u64) {
        self.set.insert(pack(at, slot, hash));
    }

    /// No key of this slot and hash expires at this time.
    pub fn remove(&mut self, at: u64, slot: u16, hash: u64) {
        self.set.remove(&pack(at, slot, hash));
    }

    /// Slots and hashes of keys that are gone at `now_ms`, soonest first: their deadlines are over.
    pub fn due(&self, now_ms: u64) -> impl Iterator<Item = (u16, u64)> {
        let end = pack(now_ms.saturating_sub(1), u16::MAX, u64::MAX);
        self.set.range(..=end).map(|&packed| ((packed >> 64) as u16, packed as u64))
    }

    /// The soonest deadline.
    pub fn soonest(&self) -> Option<u64> {
        self.set.first().map(|&packed| (packed >> 80) as u64)
    }

    /// How many keys expire (keys that share an element counted once).
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether no key expires.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Forgets those of a slot.
    pub fn clear_slots(&mut self, first: u16, last: u16) {
        self.set.retain(|&packed| !(first..=last).contains(&((packed >> 64) as u16)));
    }
}
