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

/// Elements of what a key holds.
pub fn elements_of(keyspace: &Keyspace, key: &[u8]) -> usize {
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
    // What is only stored to says nothing of what is found.
    let is_read = |nth: usize| request.command.key_flags_of(nth).contains(&KeyFlag::Access);
    let read = request.keys().enumerate().filter(|&(nth, _)| is_read(nth));
    let least = read.map(|(_, key)| elements_of(keyspace, key)).min().unwrap_or(0);
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
    let end = (offset.unwrap_or(0) / parts).saturating_add(request.words[3].len());
    reached(keyspace, request.words[1], end) + brought(keyspace, request)
}

/// KiB that are written or moved so that the string of a key has so many bytes.
pub fn reached(keyspace: &Keyspace, key: &[u8], end: usize) -> usize {
    if end <= STRING_BYTES {
        return 0;
    }
    match keyspace.get(key).map(|object| &object.value) {
        Some(Value::Str(text)) if end <= text.len() => 0,
        Some(Value::Str(text)) if end <= text.capacity() => (end - text.len()) / STRING_BYTES,
        // It is moved.
        Some(Value::Str(_)) | None => end / STRING_BYTES,
        Some(_) => 0,
    }
}

/// The bytes that are added to a string, and those of the string if it has no room for them.
pub fn appended(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let held = match keyspace.get(request.words[1]).map(|object| &object.value) {
        Some(Value::Str(text)) => text.len(),
        _ => 0,
    };
    reached(keyspace, request.words[1], held.saturating_add(request.words[2].len()))
}

/// Each byte of one string against each of another.
pub fn pairs(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let bytes = |key: &[u8]| keyspace.get(key).map_or(0, |object| object.value.len());
    request.keys().map(bytes).fold(1, usize::saturating_mul) / PAIRS
}

/// The bytes that it brings, which are read as elements.
pub fn read(_: &Keyspace, request: &Request<'_>) -> usize {
    request.words.iter().map(|word| word.len()).sum::<usize>() / PASSED
}

/// The bytes that it brings.
pub fn brought(_: &Keyspace, request: &Request<'_>) -> usize {
    request.words.iter().map(|word| word.len()).sum::<usize>() / STRING_BYTES
}

/// The bytes that it brings, and those that its key holds if it asks for them.
pub fn brought_or_got(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let gets = request.words[3..].iter().any(|word| is(word, "get"));
    brought(keyspace, request) + if gets { elements_of(keyspace, request.words[1]) } else { 0 }
}

/// The registers of its counters.
pub fn counters(_: &Keyspace, request: &Request<'_>) -> usize {
    /// A counter has 16,384, which are looked at some at a time.
    const REGISTERS: usize = 128;
    request.keys.len() * REGISTERS
}

/// As many elements of its key as a `COUNT` behind the cursor says.
pub fn scanned(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    /// Bytes of a pattern that cost about as much as an element.
    const PATTERN_BYTES: usize = 8;
    let option = |name: &str| {
        let mut all = request.words[3..].chunks_exact(2).filter(|option| is(option[0], name));
        all.next_back().map(|option| option[1])
    };
    let wanted = option("count").and_then(|count| integer(count).ok());
    let wanted = wanted.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let each = 1 + option("match").map_or(0, |pattern| pattern.len() / PATTERN_BYTES);
    wanted.min(elements_of(keyspace, request.words[1])).saturating_mul(each)
}

/// As many elements of its key as `SAMPLES` says, or the blocks that it has.
pub fn sampled(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let [.., option, count] = request.words else { return 0 };
    let held = request.keys().map(|key| elements_of(keyspace, key)).sum::<usize>();
    match integer(count).ok().filter(|_| is(option, "samples")) {
        Some(0) => held,
        count => count
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0)
            .min(held)
            .max(held / PASSED / PASSED),
    }
}

#[cfg(test)]
mod tests {
    use moonraft_proto::{Effect, StreamChange, StreamId, stream::Pairs};
    use proptest::prelude::*;

    use super::super::properties::{any_request, populated, words};
    use super::*;
    use crate::keyspace::Store;

    /// Elements of each value: many more than words of a request.
    const MANY: usize = 400;
    /// Fields of the hash: so many are not told whole by each scan.
    const FIELDS: usize = 600;

    /// Values of every type that are large to a request that says no work.
    fn large() -> Keyspace {
        let mut keyspace = populated();
        let mut scratch = Vec::new();
        for number in 0..FIELDS {
            let field = format!("m{number}").into_bytes();
            keyspace.apply(&Effect::HashPut { key: b"{k}d", field: &field, value: b"3" });
        }
        for number in 0..MANY {
            let (index, name) = (number as u64, format!("m{number}").into_bytes());
            keyspace.apply(&Effect::ListInsert { key: b"{k}b", index, value: &name });
            keyspace.apply(&Effect::SetAdd { key: b"{k}c", member: &name });
            keyspace.apply(&Effect::SortedPut { key: b"{k}e", member: &name, score: index as f64 });
            let (id, fields) = (StreamId::new(100 + index, 0), Pairs::write(&[b"f", &name], &mut scratch));
            let begins_node = number % 10 == 0;
            keyspace.apply(&StreamChange::Add { id, fields, begins_node }.of(b"{k}s"));
        }
        keyspace
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        /// What a request brings forth is bounded by its words and by the work that its row says: a row that says too
        /// little, or nothing, of what it does is found here.
        #[test]
        fn no_request_does_more_than_its_row_says(request in any_request()) {
            let words = words(&request);
            if request.row.check_arity(&words).is_err() {
                return Ok(());
            }
            let it = Request::new(request.row, &words);
            let mut store = Store::new(large(), 1);
            let work = request.row.work.map_or(0, |work| work(store.keyspace(), &it));
            if it.keys.is_empty() {
                return Ok(());
            }
            store.begin_unit(1_000_000_000_000, true);
            let most = PASSED.saturating_mul(work.saturating_add(words.len() + 2));
            let bytes = it.execute(&mut store.tx()).map_or(0, |reply| reply.weight().counted());
            prop_assert!(bytes / moonraft_proto::Weight::PART_BYTES <= most, "{words:?} told {bytes} bytes, work {work}");
            prop_assert!(store.unit_effects() <= most, "{words:?} did {}, work {work}", store.unit_effects());
        }
    }

    #[test]
    fn what_is_looked_at_is_reckoned_from_what_is_asked_for() {
        let keyspace = large();
        let work = |request: &str| {
            let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let it = Request::read(&words).expect("it is a command");
            it.command.work.map_or(0, |work| work(&keyspace, &it))
        };
        for (request, least, most) in [
            ("XRANGE {k}s - +", 400, 500),
            ("XRANGE {k}s - + COUNT 5", 5, 5),
            ("XRANGE {k}s 490 +", 10, 30),
            ("XREVRANGE {k}s 110 100", 10, 30),
            ("XREAD STREAMS {k}s $", 0, 0),
            ("XREAD STREAMS {k}s 0", 400, 500),
            ("XREAD COUNT 3 STREAMS {k}s {k}s 0 0", 6, 6),
            ("XREADGROUP GROUP f g STREAMS {k}s >", 400, 500),
            ("XREADGROUP GROUP f g STREAMS {k}s 0", 3, 3),
            ("XADD {k}s * f v", 0, 0),
            ("XADD {k}s MAXLEN ~ 1000 * f v", 0, 0),
            ("XADD {k}s MAXLEN = 4 * f v", 20, 30),
            ("XTRIM {k}s MINID 490", 20, 30),
            ("XPENDING {k}s f - + 2", 2, 2),
            ("XAUTOCLAIM {k}s f g 0 0", 3, 3),
            ("XINFO STREAM {k}s", 40, 50),
            ("XINFO STREAM {k}s FULL COUNT 0", 440, 520),
            ("XGROUP DELCONSUMER {k}s f g", 3, 3),
            ("GEOSEARCH {k}e FROMLONLAT 0 0 BYRADIUS 1 m", 0, MANY + 4),
            ("HSCAN {k}d 0", 0, 0),
            ("HSCAN {k}d 0 COUNT 1000000", FIELDS, FIELDS + 4),
            ("SINTERSTORE {k}new {k}c {k}c", MANY, 3 * (MANY + 4)),
            ("ZINTERSTORE {k}new 2 {k}e {k}e", MANY, 3 * (MANY + 4)),
            ("SSCAN {k}c 0 COUNT 20", 20, 20),
            ("SSCAN {k}c 0 COUNT 20 MATCH *abcdefghijklmnop", 60, 60),
            ("PFCOUNT {k}x {k}y", 256, 256),
            ("BITFIELD {k}a SET u8 80000000 1", 9765, 9766),
            ("BITFIELD {k}a GET u8 80000000", 0, 0),
            ("SETRANGE {k}a 0 x", 0, 0),
            ("SETRANGE {k}a 1048576 x", 1024, 1025),
            ("APPEND {k}a x", 0, 0),
            ("MEMORY USAGE {k}d", 0, 10),
            ("MEMORY USAGE {k}d SAMPLES 0", FIELDS, FIELDS + 4),
            ("BLMPOP 0 1 {k}b LEFT COUNT 1000", MANY, MANY + 4),
            ("BZMPOP 0 1 {k}e MIN COUNT 7", 7, 7),
            ("SET {k}a v GET", 0, 0),
            ("SRANDMEMBER {k}c -9223372036854775807", usize::MAX >> 1, usize::MAX >> 1),
        ] {
            let reckoned = work(request);
            assert!((least..=most).contains(&reckoned), "{request}: {reckoned} is not {least} to {most}");
        }
    }
}
