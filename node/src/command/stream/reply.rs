//! Entries as clients see them, and how much of them a reply may hold.

use moonraft_proto::{Reply, StreamId, Weight};

use super::id;
use crate::{
    command::CommandError,
    keyspace::{Tx, stream::Entry},
};

/// An id.
pub fn id_reply<'a>(id: StreamId) -> Reply<'a> {
    Reply::bulk(id::text(id))
}

/// An entry: its id, and its fields with their values.
pub fn entry_reply(entry: Entry<'_>) -> Reply<'_> {
    let texts = entry.pairs().flat_map(|(field, value)| [Reply::Bulk(field), Reply::Bulk(value)]);
    Reply::Array(vec![id_reply(entry.id), Reply::Array(texts.collect())])
}

/// What a reply may still hold: entries are refused before more of them are gathered than can be sent.
pub struct Room {
    weight: Weight,
    bytes_max: usize,
}

impl Room {
    /// Of a reply that has nothing yet.
    pub fn of(tx: &Tx) -> Self {
        Self { weight: Weight::default(), bytes_max: tx.limits().reply_bytes_max }
    }

    /// Takes what an entry needs.
    ///
    /// # Errors
    /// The reply would be too large.
    pub fn take(&mut self, entry: Entry<'_>) -> Result<(), CommandError> {
        let parts = 3 + 2 * entry.len();
        self.add(Weight { bytes: parts * Weight::PART_BYTES + entry.bytes(), longest: entry.bytes() })
    }

    /// Takes what so many parts without texts need.
    ///
    /// # Errors
    /// The reply would be too large.
    pub fn take_parts(&mut self, parts: usize) -> Result<(), CommandError> {
        self.add(Weight { bytes: parts * Weight::PART_BYTES, longest: 0 })
    }

    fn add(&mut self, weight: Weight) -> Result<(), CommandError> {
        self.weight = self.weight.and(weight);
        match self.weight.counted() > self.bytes_max {
            true => Err(CommandError::ReplyTooLarge(self.bytes_max)),
            false => Ok(()),
        }
    }

    /// As many of these entries as asked for; 0 for all.
    ///
    /// # Errors
    /// The reply would be too large.
    pub fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = Entry<'e>>,
        count: usize,
    ) -> Result<Vec<Reply<'e>>, CommandError> {
        let count = if count == 0 { usize::MAX } else { count };
        entries.take(count).map(|entry| self.take(entry).map(|()| entry_reply(entry))).collect()
    }
}
