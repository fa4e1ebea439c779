//! What effects on streams change, and its bytes.

use bytes::BufMut;

use super::{Effect, unknown};
use crate::{
    DecodeError,
    stream::{Ids, Pairs, StreamId},
    wire::{self, Reader},
};

/// A change of a stream.
#[allow(missing_docs, reason = "a variant's sentence tells of its fields")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StreamChange<'a> {
    /// It has this entry, its last; it begins a node, or follows in the one before it.
    Add { id: StreamId, fields: Pairs<'a>, begins_node: bool },
    /// It lacks this entry, which was there: deleted by its id.
    Delete { id: StreamId },
    /// Its first `count` entries are gone: trimmed.
    Trim { count: u64 },
    /// It has had ids up to `last_id`, so many entries in all, and none with an id above `max_deleted` was deleted by it.
    Set { last_id: StreamId, added: u64, max_deleted: StreamId },
    /// It has this group, to which entries up to `last_id` were delivered, so many in all if that is known.
    GroupSet { group: &'a [u8], last_id: StreamId, read: Option<u64> },
    /// It lacks this group, which was there.
    GroupRemove { group: &'a [u8] },
    /// The group has this consumer, which asked last and was given something last at these times, Unix milliseconds.
    ConsumerSet { group: &'a [u8], consumer: &'a [u8], seen_ms: u64, active_ms: Option<u64> },
    /// The group lacks this consumer, which was there, and all that was pending for it.
    ConsumerRemove { group: &'a [u8], consumer: &'a [u8] },
    /// These entries are pending for this consumer of the group, delivered `count` times, and last at this time,
    /// Unix milliseconds.
    PendingSet { group: &'a [u8], consumer: &'a [u8], time_ms: u64, count: u64, ids: Ids<'a> },
    /// These entries, which were pending in the group, are not any more.
    PendingRemove { group: &'a [u8], ids: Ids<'a> },
}

/// Tags of effects, of which these are a range.
mod tag {
    pub const ADD: u8 = 32;
    pub const DELETE: u8 = 33;
    pub const TRIM: u8 = 34;
    pub const SET: u8 = 35;
    pub const GROUP_SET: u8 = 36;
    pub const GROUP_REMOVE: u8 = 37;
    pub const CONSUMER_SET: u8 = 38;
    pub const CONSUMER_REMOVE: u8 = 39;
    pub const PENDING_SET: u8 = 40;
    pub const PENDING_REMOVE: u8 = 41;
}

/// Whether an effect with this tag is about streams.
pub(super) const fn is_of_stream(tag: u8) -> bool {
    tag::ADD <= tag && tag <= tag::PENDING_REMOVE
}

impl<'a> StreamChange<'a> {
    /// The effect: this change of the stream at `key`.
    pub const fn of(self, key: &'a [u8]) -> Effect<'a> {
        Effect::Stream { key, change: self }
    }

    pub(super) const fn tag(&self) -> u8 {
        match self {
            Self::Add { .. } => tag::ADD,
            Self::Delete { .. } => tag::DELETE,
            Self::Trim { .. } => tag::TRIM,
            Self::Set { .. } => tag::SET,
            Self::GroupSet { .. } => tag::GROUP_SET,
            Self::GroupRemove { .. } => tag::GROUP_REMOVE,
            Self::ConsumerSet { .. } => tag::CONSUMER_SET,
            Self::ConsumerRemove { .. } => tag::CONSUMER_REMOVE,
            Self::PendingSet { .. } => tag::PENDING_SET,
            Self::PendingRemove { .. } => tag::PENDING_REMOVE,
        }
    }

    /// Appends what is behind tag and key.
    pub(super) fn encode(self, out: &mut impl BufMut) {
        match self {
            Self::Add { id, fields, begins_node } => {
                id.put(out);
                out.put_u8(begins_node.into());
                wire::put_bytes(out, fields.bytes());
            }
            Self::Delete { id } => id.put(out),
            Self::Trim { count } => wire::put_uint(out, count),
            Self::Set { last_id, added, max_deleted } => {
                last_id.put(out);
                wire::put_uint(out, added);
                max_deleted.put(out);
            }
            Self::GroupSet { group, last_id, read } => {
                wire::put_bytes(out, group);
                last_id.put(out);
                put_known(out, read);
            }
            Self::GroupRemove { group } => wire::put_bytes(out, group),
            Self::ConsumerSet { group, consumer, seen_ms, active_ms } => {
                wire::put_bytes(out, group);
                wire::put_bytes(out, consumer);
                wire::put_uint(out, seen_ms);
                put_known(out, active_ms);
            }
            Self::ConsumerRemove { group, consumer } => {
                wire::put_bytes(out, group);
                wire::put_bytes(out, consumer);
            }
            Self::PendingSet { group, consumer, time_ms, count, ids } => {
                wire::put_bytes(out, group);
                wire::put_bytes(out, consumer);
                wire::put_uint(out, time_ms);
                wire::put_uint(out, count);
                wire::put_bytes(out, ids.bytes());
            }
            Self::PendingRemove { group, ids } => {
                wire::put_bytes(out, group);
                wire::put_bytes(out, ids.bytes());
            }
        }
    }

    /// Reads what is behind tag and key.
    pub(super) fn decode(kind: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match kind {
            tag::ADD => {
                let (id, begins_node) = (StreamId::read(reader)?, reader.byte()? != 0);
                Self::Add { id, begins_node, fields: Pairs::read(reader.bytes()?)? }
            }
            tag::DELETE => Self::Delete { id: StreamId::read(reader)? },
            tag::TRIM => Self::Trim { count: reader.uint()? },
            tag::SET => {
                let (last_id, added) = (StreamId::read(reader)?, reader.uint()?);
                Self::Set { last_id, added, max_deleted: StreamId::read(reader)? }
            }
            tag::GROUP_SET => {
                let (group, last_id) = (reader.bytes()?, StreamId::read(reader)?);
                Self::GroupSet { group, last_id, read: known(reader)? }
            }
            tag::GROUP_REMOVE => Self::GroupRemove { group: reader.bytes()? },
            tag::CONSUMER_SET => {
                let (group, consumer) = (reader.bytes()?, reader.bytes()?);
                let (seen_ms, active_ms) = (reader.uint()?, known(reader)?);
                Self::ConsumerSet { group, consumer, seen_ms, active_ms }
            }
            tag::CONSUMER_REMOVE => {
                Self::ConsumerRemove { group: reader.bytes()?, consumer: reader.bytes()? }
            }
            tag::PENDING_SET => {
                let (group, consumer) = (reader.bytes()?, reader.bytes()?);
                let (time_ms, count) = (reader.uint()?, reader.uint()?);
                let ids = Ids::read(reader.bytes()?)?;
                Self::PendingSet { group, consumer, time_ms, count, ids }
            }
            tag::PENDING_REMOVE => {
                Self::PendingRemove { group: reader.bytes()?, ids: Ids::read(reader.bytes()?)? }
            }
            _ => return Err(unknown(kind)),
        })
    }
}

/// A number that may be unknown, after a byte that says so.
fn put_known(out: &mut impl BufMut, number: Option<u64>) {
    out.put_u8(number.is_some().into());
    wire::put_uint(out, number.unwrap_or(0));
}

fn known(reader: &mut Reader<'_>) -> Result<Option<u64>, DecodeError> {
    let is_known = reader.byte()? != 0;
    let number = reader.uint()?;
    Ok(is_known.then_some(number))
}
