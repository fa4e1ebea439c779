//! Walking keys or elements in pieces, with a cursor that outlives changes.
//!
//! What is walked is ordered by a hash that is the same on every replica and in
//! every process, so a cursor stays good across resizes and failovers: whatever
//! is there from the first call to the last is returned.
//!
//! A cursor of `SCAN` holds the slot in its low 14 bits and, inside a slot of
//! many keys, a position in the order of hashes above them. 0 begins and ends.

use std::hash::BuildHasher;

use moonraft_router::SLOT_COUNT;

use super::{Entry, Keyspace};

/// Positions of hashes in a cursor: 2^50, what the slot leaves of 64 bits.
const POSITION_BITS: u32 = 50;

/// A slot or collection of at most this many is returned whole, whatever the
/// count asked for: as Redis does for small collections.
pub const WHOLE_MAX: usize = 512;

/// Pieces a large collection is returned in at most: each piece looks at all of
/// it, so that a walk costs this many times its size.
const PIECES_MAX: usize = 512;

/// The position of a name in a walk.
pub fn position(name: &[u8]) -> u64 {
    foldhash::fast::FixedState::with_seed(0).hash_one(name) >> (64 - POSITION_BITS)
}

/// The `count` names (or a few more) at and after `from`, and the position to go
/// on from; `None` at the end. `names` are all there are.
pub fn piece<'a, T>(
    names: impl ExactSizeIterator<Item = T>,
    name_of: impl Fn(&T) -> &'a [u8],
    from: u64,
    count: usize,
) -> (Vec<T>, Option<u64>) {
    let total = names.len();
    let count = count.max(total / PIECES_MAX).max(1);
    let mut found: Vec<(u64, T)> =
        names.map(|name| (position(name_of(&name)), name)).filter(|&(at, _)| at >= from).collect();
    if total <= WHOLE_MAX || found.len() <= count {
        return (found.into_iter().map(|(_, name)| name).collect(), None);
    }
    found.select_nth_unstable_by_key(count - 1, |&(at, _)| at);
    // All names that share the last position come along: none can be missed.
    let last = found[count - 1].0;
    found.retain(|&(at, _)| at <= last);
    let next = Some(last + 1).filter(|&next| next < 1 << POSITION_BITS);
    (found.into_iter().map(|(_, name)| name).collect(), next)
}

impl Keyspace {
    /// About `count` entries from `cursor` on, and the cursor to go on with.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<&Entry>, u64) {
        let mut slot = (cursor % u64::from(SLOT_COUNT)) as u16;
        let mut from = cursor / u64::from(SLOT_COUNT);
        let mut entries = Vec::new();
        loop {
            let left = count.saturating_sub(entries.len());
            let (piece, next) = piece(self.slot_entries(slot), |entry| &*entry.key, from, left);
            entries.extend(piece);
            if let Some(next) = next {
                return (entries, next * u64::from(SLOT_COUNT) + u64::from(slot));
            }
            slot += 1;
            from = 0;
            if slot == SLOT_COUNT {
                return (entries, 0);
            }
            if entries.len() >= count {
                return (entries, u64::from(slot));
            }
        }
    }
}
