//! The state a replica starts from: empty, or a snapshot's.
//!
//! A snapshot is one batch whose effects build the keyspace from nothing; its
//! stamp is the last that was committed.

use bytes::Bytes;
use moonraft_proto::{
    DecodeError, Effect,
    entry::{Batch, BatchWriter},
};

use crate::keyspace::Keyspace;

/// A keyspace as of an entry of the log.
pub struct State {
    /// The data.
    pub keyspace: Keyspace,
    /// The last entry in it: index and term; zeros if there is none.
    pub applied: (u64, u64),
    /// The last stamp in it, Unix milliseconds.
    pub stamp_ms: u64,
}

impl State {
    /// A new shard that owns these slots, both ends included.
    pub fn of_new_shard(slots: &[(u16, u16)]) -> Self {
        let mut keyspace = Keyspace::default();
        for &(first, last) in slots {
            keyspace.apply(&Effect::AssignSlots { first, last });
        }
        Self { keyspace, applied: (0, 0), stamp_ms: 0 }
    }

    /// The state in a snapshot whose last entry is `index` of `term`.
    ///
    /// # Errors
    /// The bytes are no snapshot, or one of a newer format.
    pub fn from_snapshot(index: u64, term: u64, data: &[u8]) -> Result<Self, DecodeError> {
        let batch = Batch::decode(data)?;
        let mut keyspace = Keyspace::default();
        for effect in batch.effects() {
            keyspace.apply(&effect?);
        }
        Ok(Self { keyspace, applied: (index, term), stamp_ms: batch.stamp_ms })
    }
}

/// A keyspace as a snapshot.
pub fn snapshot(keyspace: &Keyspace, stamp_ms: u64) -> Bytes {
    let mut writer = BatchWriter::default();
    keyspace.dump(|effect| writer.push(effect));
    writer.seal(stamp_ms, 0)
}
