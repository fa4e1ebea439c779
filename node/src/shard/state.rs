//! The state a replica starts from: empty, or a snapshot's.
//!
//! A snapshot is a sequence of batches, its chunks, whose effects build the keyspace from nothing; their
//! stamp is the last that was committed.

use bytes::Bytes;
use moonraft_proto::{DecodeError, Effect, entry::Batch};

use crate::keyspace::Keyspace;

/// A keyspace as of an entry of the log.
pub struct State {
    /// The data.
    pub keyspace: Keyspace,
    /// The last entry in it: index and term; zeros if there is none.
    pub applied: (u64, u64),
    /// The last entry that the log held when the replica was started: index and term. It may have been
    /// acknowledged, so nothing is read before the state is as new.
    pub acknowledged: (u64, u64),
    /// The last stamp in it, Unix milliseconds.
    pub stamp_ms: u64,
}

impl State {
    /// A new shard that owns these slots, both ends included; a shard whose log is to tell owns none.
    pub fn of_new_shard(slots: &[(u16, u16)]) -> Self {
        let mut keyspace = Keyspace::default();
        for &(first, last) in slots {
            keyspace.apply(&Effect::AssignSlots { first, last });
        }
        Self { keyspace, applied: (0, 0), acknowledged: (0, 0), stamp_ms: 0 }
    }

    /// The state in a snapshot whose last entry is `index` of `term`.
    ///
    /// # Errors
    /// The chunks are not a snapshot's, or of a newer format.
    pub fn from_snapshot(index: u64, term: u64, chunks: &[Bytes]) -> Result<Self, DecodeError> {
        let (mut keyspace, mut stamp_ms) = (Keyspace::default(), 0);
        for chunk in chunks {
            let batch = Batch::decode(chunk)?;
            for effect in batch.effects() {
                keyspace.apply(&effect?);
            }
            stamp_ms = batch.stamp_ms;
        }
        Ok(Self { keyspace, applied: (index, term), acknowledged: (0, 0), stamp_ms })
    }
}
