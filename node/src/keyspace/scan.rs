//! Walking keys or elements in pieces, with a cursor that outlives changes.
//!
//! What is walked is ordered by a hash that is the same on every replica and in
//! every process, so a cursor stays good across resizes and failovers: whatever
//! is there from the first call to the last is returned.
//!
//! A cursor of `SCAN` holds the slot in its low 14 bits and, inside a slot of
//! many keys, a position in the order of hashes above them; those of `HSCAN`,
//! `SSCAN` and `ZSCAN` are positions. 0 begins and ends. All are below 2^53:
//! clients keep them as doubles.

use moonraft_router::SLOT_COUNT;

use super::{Entry, Keyspace, linear, seed};

/// Cursors that a double can hold.
const CURSOR_END: u64 = 1 << 53;
const _: () = assert!(linear::POSITION_END * SLOT_COUNT as u64 <= CURSOR_END);

/// The position of a name in a walk.
pub fn position(name: &[u8]) -> u64 {
    linear::position_of(seed::shared_hash(name))
}

impl Keyspace {
    /// About `count` entries of the cursor's slot from `cursor` on, and the cursor to go on with; 0 at the slot's end.
    /// The cursor of a slot's first entry is the slot.
    pub fn scan_slot(&self, cursor: u64, count: usize) -> (Vec<&Entry>, u64) {
        let (slot, from) = (cursor % u64::from(SLOT_COUNT), cursor / u64::from(SLOT_COUNT));
        let table = &self.tables[slot as usize];
        let (piece, next) = table.scan(from, count, |entry| position(&entry.key));
        let entries = piece.into_iter().map(|entry| &**entry).collect();
        (entries, next.map_or(0, |next| next * u64::from(SLOT_COUNT) + slot))
    }

    /// About `count` entries from `cursor` on, and the cursor to go on with.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<&Entry>, u64) {
        let mut slot = (cursor % u64::from(SLOT_COUNT)) as u16;
        let mut from = cursor / u64::from(SLOT_COUNT);
        let mut entries = Vec::new();
        loop {
            let left = count.saturating_sub(entries.len());
            let table = &self.tables[usize::from(slot)];
            let (piece, next) = table.scan(from, left, |entry| position(&entry.key));
            entries.extend(piece.into_iter().map(|entry| &**entry));
            if let Some(next) = next {
                return (entries, next * u64::from(SLOT_COUNT) + u64::from(slot));
            }
            let Some(filled) = self.filled_slot_from(slot + 1) else { return (entries, 0) };
            if entries.len() >= count {
                return (entries, u64::from(filled));
            }
            (slot, from) = (filled, 0);
        }
    }
}
