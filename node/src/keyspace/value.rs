//! What a key holds.

use std::num::NonZeroU64;

use super::{Blob, Hash, List, Set, SortedSet, Stream, uses::Used};

/// A value of one of Redis's types. Small on purpose: it stands in every entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Bytes. Never more than `proto-max-bulk-len`.
    Str(Vec<u8>),
    /// A list, never empty.
    List(Box<List>),
    /// A hash, never empty.
    Hash(Box<Hash>),
    /// A set, never empty.
    Set(Box<Set>),
    /// A sorted set, never empty.
    Sorted(Box<SortedSet>),
    /// A stream, which may be empty.
    Stream(Box<Stream>),
}

impl Value {
    /// What `TYPE` answers.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Value::Str(_) => "string",
            Value::List(_) => "list",
            Value::Hash(_) => "hash",
            Value::Set(_) => "set",
            Value::Sorted(_) => "zset",
            Value::Stream(_) => "stream",
        }
    }

    /// Fields, members, elements, entries; bytes of a string.
    pub fn len(&self) -> usize {
        match self {
            Value::Str(bytes) => bytes.len(),
            Value::List(list) => list.len(),
            Value::Hash(hash) => hash.len(),
            Value::Set(set) => set.len(),
            Value::Sorted(sorted) => sorted.len(),
            Value::Stream(stream) => stream.len(),
        }
    }

    /// When the first of its fields goes, Unix milliseconds; `None` if no field has a deadline.
    pub fn soonest_field(&self) -> Option<u64> {
        match self {
            Value::Hash(hash) => hash.soonest(),
            _ => None,
        }
    }

    /// Whether it has no element. An empty string or stream is a value all the same.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A value and its deadline.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// What the key holds.
    pub value: Value,
    /// When it goes, Unix milliseconds; `None` if never.
    pub expires_at: Option<NonZeroU64>,
}

impl Object {
    /// Whether it is gone at `now_ms`: only when its deadline's millisecond is over, since both are cut to
    /// milliseconds. A lock of 400 ms would else be gone after 399 and a bit.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at.is_some_and(|at| at.get() < now_ms)
    }

    /// Its deadline, Unix milliseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.expires_at.map(NonZeroU64::get)
    }
}

/// A key and what it holds.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Blob,
    /// What it holds.
    pub object: Object,
    /// The walk that has nothing to write of it any more; see [`super::walk`]. 0: none.
    pub walked: u32,
    /// When or how often it was used, as far as this replica knows: no part of the data.
    pub used: Used,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_small_as_it_was_measured() {
        assert_eq!(size_of::<Value>(), 24);
        // The allocator counts in steps of 16 bytes: 56 would cost as much.
        assert_eq!(size_of::<Entry>(), 64);
    }
}
