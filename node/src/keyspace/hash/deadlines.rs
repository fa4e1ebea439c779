//! The deadlines of a hash's fields: found by field, and soonest first.

use std::{collections::BTreeSet, num::NonZeroU64};

use super::super::{
    table::{Named, Table},
    weight::sampled,
};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct FieldDeadlines {
    by_field: Table<Deadline>,
    /// Each deadline with the hash of its field in `by_field`. Fields that share both share an element.
    by_time: BTreeSet<(u64, u64)>,
}

/// A deadline and its field in one allocation: the deadline in eight bytes, the field.
#[derive(Clone, Debug)]
struct Deadline(Box<[u8]>);

impl Deadline {
    fn new(at: NonZeroU64, field: &[u8]) -> Self {
        Self([&at.get().to_le_bytes()[..], field].concat().into())
    }

    fn parts(&self) -> (u64, &[u8]) {
        let (at, field) = self.0.split_first_chunk().expect("a deadline stands first");
        (u64::from_le_bytes(*at), field)
    }
}

impl Named for Deadline {
    fn name(&self) -> &[u8] {
        self.parts().1
    }
}

/// Bytes of an element of a tree of which two thirds are filled.
const TREE_BYTES: usize = size_of::<(u64, u64)>() * 3 / 2;

impl FieldDeadlines {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_field.is_empty()
    }

    /// The deadline of a field, Unix milliseconds.
    pub fn get(&self, field: &[u8]) -> Option<u64> {
        self.by_field.get(field).map(|deadline| deadline.parts().0)
    }

    /// Sets the deadline of a field. Returns the one before.
    pub fn set(&mut self, field: &[u8], at: Option<NonZeroU64>) -> Option<NonZeroU64> {
        let before = match at {
            Some(at) => self.by_field.put(Deadline::new(at, field)),
            None => self.by_field.remove(field),
        };
        let before = before.and_then(|deadline| NonZeroU64::new(deadline.parts().0));
        if before == at {
            return before;
        }
        let hash = self.by_field.hash(field);
        if let Some(before) = before {
            let is_shared = self.of_hash(before.get(), hash).next().is_some();
            if !is_shared {
                self.by_time.remove(&(before.get(), hash));
            }
        }
        if let Some(at) = at {
            self.by_time.insert((at.get(), hash));
        }
        before
    }

    /// The soonest deadline.
    pub fn soonest(&self) -> Option<u64> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// The fields whose deadlines are before `now_ms`, soonest first.
    pub fn due(&self, now_ms: u64) -> impl Iterator<Item = &[u8]> {
        self.by_time.range(..(now_ms, 0)).flat_map(|&(at, hash)| self.of_hash(at, hash))
    }

    /// The fields of this deadline and hash.
    fn of_hash(&self, at: u64, hash: u64) -> impl Iterator<Item = &[u8]> {
        let same_hash = self.by_field.iter_hash(hash).map(Deadline::parts);
        same_hash
            .filter(move |&(other, field)| other == at && self.by_field.hash(field) == hash)
            .map(|(_, field)| field)
    }

    /// Bytes outside of this value; the fields are as long as the first `samples` of them.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        let sizes = self.by_field.iter().map(|deadline| deadline.0.len());
        let count = self.by_field.len();
        self.by_field.heap_bytes() + count * TREE_BYTES + sampled(sizes, count, samples)
    }
}
