//! How much a request works through: what decides whether its shard does it at once, or has it done elsewhere.
//!
//! A row whose request may work through much names one of these functions. They look at the request's words and at
//! the sizes of its keys' values, no more, and answer in elements; a KiB of a string counts as one. A rough answer will
//! do: too much costs a request a fraction of a millisecond, too little makes others wait.

use std::ops::Range;

use super::{
    Request,
    arguments::{integer, is, span},
    key_specs::KeyFlag,
};
use crate::keyspace::{Keyspace, Value};

/// How much a request works through.
pub type Work = fn(&Keyspace, &Request<'_>) -> usize;

/// Bytes of a string that are worked through as quickly as an element.
pub const STRING_BYTES: usize = 1 << 10;
/// Elements that are passed over as quickly as one is worked on.
const PASSED: usize = 16;
/// Pairs of bytes that are compared as quickly as an element is worked on.
const PAIRS: usize = 4 << 10;

/// Elements of a value.
pub fn elements(value: &Value) -> usize {
    match value {
        Value::Str(bytes) => bytes.len() / STRING_BYTES,
        other => other.len(),
    }
}

fn elements_of(keyspace: &Keyspace, key: &[u8]) -> usize {
    keyspace.get(key).map_or(0, |object| elements(&object.value))
}

/// The values of its keys that it looks at.
fn looked_at(keyspace: &Keyspace, request: &Request<'_>) -> impl Iterator<Item = usize> {
    let is_read = |nth: usize| !request.command.key_flags_of(nth).contains(&KeyFlag::Overwrite);
    let keys = request.keys().enumerate().filter(move |&(nth, _)| is_read(nth));
    keys.map(|(_, key)| elements_of(keyspace, key))
}

/// All that its keys hold.
pub fn values(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    looked_at(keyspace, request).sum()
}

/// All that its keys hold, but only to find something in it.
pub fn passed(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    values(keyspace, request) / PASSED
}

/// The smallest of its keys' values, looked for in all the others.
pub fn smallest(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let least = looked_at(keyspace, request).min().unwrap_or(0);
    least.saturating_mul(request.keys.len())
}

/// As many elements of its key as the word behind it says; a negative count may be more than there are.
pub fn counted(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let Some(count) = request.words.get(2).and_then(|word| integer(word).ok()) else { return 0 };
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    match elements_of(keyspace, request.words[1]) {
        0 => 0,
        held if count > 0 => wanted.min(held),
        _ => wanted,
    }
}

/// As many elements of one of its keys as the last word says, behind `COUNT`.
pub fn popped(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let [.., option, count] = request.words else { return 0 };
    let count = integer(count).ok().filter(|_| is(option, "count"));
    let wanted = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
    wanted.min(values(keyspace, request))
}

/// The elements of its key that two positions name, the words behind the key.
pub fn spanned(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    positions(keyspace, request).0.len()
}

/// The elements of its key that two positions, the words behind the key, do not name.
pub fn trimmed(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let (span, held) = positions(keyspace, request);
    held - span.len()
}

fn positions(keyspace: &Keyspace, request: &Request<'_>) -> (Range<usize>, usize) {
    let held = elements_of(keyspace, request.words[1]);
    match (integer(request.words[2]), integer(request.words[3])) {
        (Ok(first), Ok(last)) => (span(first, last, held), held),
        _ => (0..held, held),
    }
}

/// What a string grows to that has a byte at the offset behind the key, or a bit.
pub fn grown_to_byte(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    grown(keyspace, request, 1)
}

/// See [`grown_to_byte`].
pub fn grown_to_bit(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    grown(keyspace, request, 8)
}

fn grown(keyspace: &Keyspace, request: &Request<'_>, parts: usize) -> usize {
    let offset = integer(request.words[2]).ok().and_then(|offset| usize::try_from(offset).ok());
    match offset.unwrap_or(0) / parts / STRING_BYTES {
        0 => 0,
        wanted => wanted.saturating_sub(elements_of(keyspace, request.words[1])),
    }
}

/// Each byte of one string against each of another.
pub fn pairs(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let bytes = |key: &[u8]| keyspace.get(key).map_or(0, |object| object.value.len());
    request.keys().map(bytes).fold(1, usize::saturating_mul) / PAIRS
}

/// The bytes that it brings.
pub fn brought(_: &Keyspace, request: &Request<'_>) -> usize {
    request.words.iter().map(|word| word.len()).sum::<usize>() / PASSED
}
