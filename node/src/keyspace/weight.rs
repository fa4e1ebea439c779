//! What a key weighs in memory, estimated: what `MEMORY USAGE` answers.
//!
//! Of a large value only some elements are looked at; the others are taken to be
//! like them.

use super::{Blob, Entry, Object, Value};

/// Bytes of an entry beside what its key holds: the entry and its place in a table
/// that is three quarters full.
const ENTRY_BYTES: usize = size_of::<Entry>() + size_of::<usize>() * 4 / 3;

/// Bytes of an entry of this key without its value's own.
pub fn entry_bytes(key: &[u8]) -> usize {
    ENTRY_BYTES + Blob::new(key).heap_bytes()
}

/// Bytes outside of `count` elements, as those of the first `samples` of them are.
fn sampled(sizes: impl Iterator<Item = usize>, count: usize, samples: usize) -> usize {
    let (mut seen, mut bytes) = (0_usize, 0_usize);
    for size in sizes.take(samples) {
        seen += 1;
        bytes += size;
    }
    (bytes as f64 / seen.max(1) as f64 * count as f64) as usize
}

impl Object {
    /// Bytes outside of this value, `samples` elements of it looked at.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        let blob = size_of::<Blob>();
        let outside = |blobs: [&Blob; 2]| blobs[0].heap_bytes() + blobs[1].heap_bytes();
        match &self.value {
            Value::Str(bytes) => bytes.capacity(),
            Value::List(list) => {
                let own = size_of_val(&**list) + list.len() * blob;
                own + sampled(list.iter().map(Blob::heap_bytes_of), list.len(), samples)
            }
            Value::Hash(hash) => {
                let place = if hash.is_small() { 2 * blob } else { (2 * blob + 1) * 4 / 3 };
                let sizes = hash.iter().map(|(field, value)| outside([field, value]));
                size_of_val(&**hash) + hash.len() * place + sampled(sizes, hash.len(), samples)
            }
            Value::Set(set) => {
                let sizes = set.iter().map(|member| Blob::new(&member).heap_bytes());
                size_of_val(&**set) + set.heap_bytes() + sampled(sizes, set.len(), samples)
            }
            Value::Sorted(sorted) => {
                let ordered = blob + size_of::<f64>();
                let place = if sorted.is_small() { ordered } else { ordered + (ordered + 1) * 4 / 3 };
                let copies = if sorted.is_small() { 1 } else { 2 };
                let sizes = sorted.iter().map(|(member, _)| copies * member.heap_bytes());
                size_of_val(&**sorted) + sorted.len() * place + sampled(sizes, sorted.len(), samples)
            }
        }
    }
}
