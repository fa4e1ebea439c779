//! What a key weighs in memory, estimated: what `MEMORY USAGE` answers.
//!
//! Of a large value only some elements are looked at; the others are taken to be
//! like them.

use super::{Blob, Entry, Object, Value};

/// Bytes of an entry beside what its key holds: the entry and its place in a table, a pointer and a byte, of which
/// two thirds are filled.
const ENTRY_BYTES: usize = size_of::<Entry>() + (size_of::<usize>() + 1) * 3 / 2;

/// Bytes of a deadline among all, in runs of which three quarters are filled.
const DEADLINE_BYTES: usize = size_of::<u128>() * 4 / 3;

/// Bytes of an entry of this key without its value's own.
pub fn entry_bytes(key: &[u8]) -> usize {
    ENTRY_BYTES + Blob::new(key).heap_bytes()
}

/// Bytes outside of `count` elements, as those of the first `samples` of them are.
pub(super) fn sampled(sizes: impl Iterator<Item = usize>, count: usize, samples: usize) -> usize {
    let (mut seen, mut bytes) = (0_usize, 0_usize);
    for size in sizes.take(samples) {
        seen += 1;
        bytes += size;
    }
    (bytes as f64 / seen.max(1) as f64 * count as f64) as usize
}

impl Object {
    /// Bytes outside of this value, `samples` elements of it looked at; those that its deadline takes included.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        self.value_bytes(samples) + if self.expires_at.is_some() { DEADLINE_BYTES } else { 0 }
    }

    fn value_bytes(&self, samples: usize) -> usize {
        match &self.value {
            Value::Str(bytes) => bytes.capacity(),
            Value::List(list) => size_of_val(&**list) + list.heap_bytes(),
            Value::Hash(hash) => size_of_val(&**hash) + hash.heap_bytes(samples),
            Value::Set(set) => size_of_val(&**set) + set.heap_bytes(samples),
            Value::Sorted(sorted) => size_of_val(&**sorted) + sorted.heap_bytes(samples),
            Value::Stream(stream) => size_of_val(&**stream) + stream.heap_bytes(samples),
        }
    }
}
