//! How much a request on a stream works through: see [`crate::command::work`].
//!
//! Entries are counted by nodes: some too many do no harm.

use moonraft_proto::StreamId;

use super::{
    add::trim_of,
    id::{end, id, start},
};
use crate::{
    command::{
        Request,
        arguments::{integer, is},
    },
    keyspace::{
        Keyspace, Stream, Value,
        stream::{Group, TrimTo},
    },
};

/// Pending entries that `XAUTOCLAIM` looks at for each that is asked for.
pub const LOOKS: usize = 10;
/// Entries that are counted, or passed over in order, as quickly as one is worked on.
const PASSED: usize = 16;

fn stream_of<'k>(keyspace: &'k Keyspace, key: &[u8]) -> Option<&'k Stream> {
    match &keyspace.get(key)?.value {
        Value::Stream(stream) => Some(stream),
        _ => None,
    }
}

fn group_of<'k>(keyspace: &'k Keyspace, key: &[u8], group: &[u8]) -> Option<&'k Group> {
    stream_of(keyspace, key)?.group(group)
}

/// The number behind an option among these words.
fn option(words: &[&[u8]], name: &str) -> Option<usize> {
    let at = words.iter().position(|word| is(word, name))?;
    words.get(at + 1).and_then(|word| integer(word).ok()).and_then(|count| usize::try_from(count).ok())
}

/// The number behind `COUNT` among these words; all, if there is none.
fn count(words: &[&[u8]]) -> usize {
    option(words, "count").filter(|&count| count > 0).unwrap_or(usize::MAX)
}

/// Entries between two ids, those of their nodes.
fn between(stream: &Stream, from: StreamId, to: StreamId, most: usize) -> usize {
    if from > to || from > stream.last_id() { 0 } else { stream.count_about(from, to, most) }
}

/// `XRANGE`
pub fn range(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    ranged(keyspace, request, request.words[2], request.words[3])
}

/// `XREVRANGE`
pub fn range_back(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    ranged(keyspace, request, request.words[3], request.words[2])
}

fn ranged(keyspace: &Keyspace, request: &Request<'_>, first: &[u8], last: &[u8]) -> usize {
    let stream = stream_of(keyspace, request.words[1]);
    let (Some(stream), Ok(from), Ok(to)) = (stream, start(first), end(last)) else { return 0 };
    let count = count(&request.words[4..]);
    between(stream, from, to, count).min(count)
}

/// `XREAD`
pub fn read(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    reads(keyspace, request, |stream, word, count| {
        let after = id(word, 0).ok().and_then(StreamId::next);
        after.map_or(0, |from| between(stream, from, StreamId::MAX, count))
    })
}

/// `XREADGROUP`
pub fn read_group(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let at = request.words.iter().position(|word| is(word, "group"));
    let names = at.and_then(|at| request.words.get(at + 1).zip(request.words.get(at + 2)));
    let Some((group, consumer)) = names else { return 0 };
    reads(keyspace, request, |stream, word, count| match stream.group(group) {
        None => 0,
        Some(group) if word == b">" => {
            group.last_id.next().map_or(0, |from| between(stream, from, StreamId::MAX, count))
        }
        Some(group) => group.consumer(consumer).map_or(0, |consumer| consumer.pending_count()),
    })
}

fn reads(
    keyspace: &Keyspace,
    request: &Request<'_>,
    of_one: impl Fn(&Stream, &[u8], usize) -> usize,
) -> usize {
    let (words, keys) = (request.words, request.keys.len());
    let (Some(&first), true) = (request.keys.first(), keys <= words.len()) else { return 0 };
    let count = count(&words[1..first]);
    let ids = &words[words.len() - keys..];
    let one = |(key, word): (&[u8], &&[u8])| {
        stream_of(keyspace, key).map_or(0, |stream| of_one(stream, word, count).min(count))
    };
    request.keys().zip(ids).map(one).fold(0, usize::saturating_add)
}

/// `XADD`, where it trims: most add an entry and do no more.
pub fn add(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    if request.words[2] == b"*" { 0 } else { trimmed(keyspace, request, true) }
}

/// `XTRIM`
pub fn trim(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    trimmed(keyspace, request, false)
}

fn trimmed(keyspace: &Keyspace, request: &Request<'_>, adds: bool) -> usize {
    let Some(stream) = stream_of(keyspace, request.words[1]) else { return 0 };
    let entries = match trim_of(request.words, adds) {
        Some(TrimTo::Length(length)) => {
            stream.len().saturating_sub(usize::try_from(length).unwrap_or(usize::MAX))
        }
        Some(TrimTo::Id(id)) => between(stream, StreamId::MIN, id, usize::MAX),
        None => 0,
    };
    entries / PASSED
}

/// `XPENDING`
pub fn pending(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let Some(group) = group_of(keyspace, request.words[1], request.words[2]) else { return 0 };
    match &request.words[3..] {
        [] => group.consumer_count(),
        // Those that have not been idle for so long are passed.
        [name, ..] if is(name, "idle") => group.pending().len() / PASSED,
        [_, _, count, ..] => integer(count)
            .ok()
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0)
            .min(group.pending().len()),
        _ => 0,
    }
}

/// `XAUTOCLAIM`
pub fn autoclaim(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    const COUNT_DEFAULT: usize = 100;
    let pending =
        group_of(keyspace, request.words[1], request.words[2]).map_or(0, |group| group.pending().len());
    let count = option(&request.words[6..], "count").unwrap_or(COUNT_DEFAULT);
    // What is passed costs less than what is claimed.
    count.min(pending).max(count.saturating_mul(LOOKS).min(pending) / PASSED)
}

/// `XINFO STREAM`
pub fn stream_info(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    const COUNT_DEFAULT: usize = 10;
    let Some(stream) = stream_of(keyspace, request.words[2]) else { return 0 };
    if request.words.len() == 3 {
        return stream.node_count();
    }
    let most = option(&request.words[3..], "count").unwrap_or(COUNT_DEFAULT);
    let most = if most == 0 { usize::MAX } else { most };
    let of_group = |group: &Group| {
        let pending = group.pending().len();
        // Each is told once of the group, and once of its consumer.
        let told = most.min(pending) + most.saturating_mul(group.consumer_count()).min(pending);
        group.consumer_count() + told
    };
    let groups = stream.groups().map(|(_, group)| of_group(group)).fold(0, usize::saturating_add);
    stream.node_count() + most.min(stream.len()) + groups
}

/// `XINFO GROUPS`
pub fn groups_info(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    stream_of(keyspace, request.words[2]).map_or(0, |stream| stream.groups().len())
}

/// `XINFO CONSUMERS`
pub fn consumers_info(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    group_of(keyspace, request.words[2], request.words[3]).map_or(0, Group::consumer_count)
}

/// `XGROUP DELCONSUMER`: what is pending for it goes.
pub fn delete_consumer(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let group = group_of(keyspace, request.words[2], request.words[3]);
    group.and_then(|group| group.consumer(request.words[4])).map_or(0, |consumer| consumer.pending_count())
}
