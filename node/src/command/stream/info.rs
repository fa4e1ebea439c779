//! `XINFO`: what there is to know of a stream and its groups.

use moonraft_proto::{Reply, StreamId};

use super::{
    group::no_group,
    reply::{Room, entry_reply, id_reply},
};
use crate::{
    command::{
        CommandError, Outcome,
        arguments::{integer, is},
        help::{help as help_of, unknown_form},
    },
    keyspace::{
        Stream, Tx,
        stream::{Consumer, Group},
    },
};

type Facts<'a> = Vec<(Reply<'a>, Reply<'a>)>;

/// `XINFO HELP`
pub fn help() -> Reply<'static> {
    help_of(
        "XINFO",
        &[
            "CONSUMERS <key> <groupname>",
            "    Show consumers of <groupname>.",
            "GROUPS <key>",
            "    Show the stream consumer groups.",
            "STREAM <key> [FULL [COUNT <count>]",
            "    Show information about the stream.",
        ],
    )
}

fn fact<'a>(name: &'static str, value: Reply<'a>) -> (Reply<'a>, Reply<'a>) {
    (Reply::bulk(name.as_bytes()), value)
}

fn number<'a>(number: u64) -> Reply<'a> {
    Reply::Int(number as i64)
}

/// The stream of a key, which must be there.
fn existing<'t>(tx: &'t Tx, key: &[u8]) -> Result<&'t Stream, CommandError> {
    tx.stream(key)?.ok_or(CommandError::NoSuchKey)
}

/// `XINFO STREAM key [FULL [COUNT count]]`
pub fn stream<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    const COUNT_DEFAULT: usize = 10;
    let stream = existing(tx, words[2])?;
    let count = match words[3..] {
        [] => None,
        [full] if is(full, "full") => Some(COUNT_DEFAULT),
        [full, name, count] if is(full, "full") && is(name, "count") => {
            Some(usize::try_from(integer(count)?).unwrap_or(COUNT_DEFAULT))
        }
        _ => return Err(unknown_form(words[1], "XINFO")),
    };
    let mut facts = vec![
        fact("length", Reply::count(stream.len())),
        fact("radix-tree-keys", Reply::count(stream.node_count())),
        fact("radix-tree-nodes", Reply::count(radix_nodes(stream))),
        fact("last-generated-id", id_reply(stream.last_id())),
        fact("max-deleted-entry-id", id_reply(stream.max_deleted())),
        fact("entries-added", number(stream.added())),
        fact("recorded-first-entry-id", id_reply(stream.first_id())),
    ];
    let mut room = Room::of(tx);
    let Some(count) = count else {
        let (first, last) = (stream.iter().next(), stream.range_back(StreamId::MIN, StreamId::MAX).next());
        [first, last].into_iter().flatten().try_for_each(|entry| room.take(entry))?;
        facts.push(fact("groups", Reply::count(stream.groups().len())));
        facts.push(fact("first-entry", first.map_or(Reply::Null, entry_reply)));
        facts.push(fact("last-entry", last.map_or(Reply::Null, entry_reply)));
        return Ok(Reply::Map(facts));
    };
    facts.push(fact("entries", Reply::Array(room.entries(stream.iter(), count)?)));
    let count = if count == 0 { usize::MAX } else { count };
    let groups = stream.groups().map(|(name, group)| full_group(stream, name, group, count, &mut room));
    facts.push(fact("groups", Reply::Array(groups.collect::<Result<_, _>>()?)));
    Ok(Reply::Map(facts))
}

fn full_group<'a>(
    stream: &Stream,
    name: &'a [u8],
    group: &'a Group,
    count: usize,
    room: &mut Room,
) -> Outcome<'a> {
    /// Parts of the reply that a group, or a consumer, has beside what is pending.
    const PARTS: usize = 16;
    room.take_parts(PARTS + group.pending().len().min(count) * 5)?;
    let pending = group.pending().iter().take(count).map(|(id, pending)| {
        let consumer = Reply::bulk(&*group.consumer_of(pending).name);
        Reply::Array(vec![id_reply(id), consumer, number(pending.time_ms), number(pending.count)])
    });
    let pending = Reply::Array(pending.collect());
    let consumers = group.consumers_from(0).map(|consumer| {
        room.take_parts(PARTS + consumer.pending_count().min(count) * 4)?;
        Ok(full_consumer(group, consumer, count))
    });
    let consumers = Reply::Array(consumers.collect::<Result<_, CommandError>>()?);
    let mut facts = vec![fact("name", Reply::bulk(name)), fact("last-delivered-id", id_reply(group.last_id))];
    facts.extend(counts(stream, group));
    facts.push(fact("pel-count", Reply::count(group.pending().len())));
    facts.push(fact("pending", pending));
    facts.push(fact("consumers", consumers));
    Ok(Reply::Map(facts))
}

fn full_consumer<'a>(group: &'a Group, consumer: &'a Consumer, count: usize) -> Reply<'a> {
    let pending = consumer.pending_from(StreamId::MIN).take(count).filter_map(|id| {
        let pending = group.pending().get(id)?;
        Some(Reply::Array(vec![id_reply(id), number(pending.time_ms), number(pending.count)]))
    });
    let pending = Reply::Array(pending.collect());
    Reply::Map(vec![
        fact("name", Reply::bulk(&*consumer.name)),
        fact("seen-time", number(consumer.seen_ms)),
        fact("active-time", consumer.active_ms.map_or(Reply::Int(-1), number)),
        fact("pel-count", Reply::count(consumer.pending_count())),
        fact("pending", pending),
    ])
}

/// `entries-read` and `lag`: how many entries a group has been given, and how many are still to come, where that
/// can be told.
fn counts<'a>(stream: &Stream, group: &Group) -> Facts<'a> {
    let counted = group.read.filter(|_| !stream.has_gaps_from(group.last_id));
    let read = match stream.added() {
        0 => Some(0),
        _ => counted.or_else(|| stream.read_up_to(group.last_id)),
    };
    let lag = read.map_or(Reply::Null, |read| number(stream.added().wrapping_sub(read)));
    vec![fact("entries-read", group.read.map_or(Reply::Null, number)), fact("lag", lag)]
}

/// `XINFO GROUPS key`
pub fn groups<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let stream = existing(tx, words[2])?;
    let mut room = Room::of(tx);
    room.take_parts(stream.groups().len() * 13)?;
    let groups = stream.groups().map(|(name, group)| {
        let mut facts = vec![
            fact("name", Reply::bulk(name)),
            fact("consumers", Reply::count(group.consumer_count())),
            fact("pending", Reply::count(group.pending().len())),
            fact("last-delivered-id", id_reply(group.last_id)),
        ];
        facts.extend(counts(stream, group));
        Reply::Map(facts)
    });
    Ok(Reply::Array(groups.collect()))
}

/// `XINFO CONSUMERS key group`
pub fn consumers<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, name) = (words[2], words[3]);
    let group = existing(tx, key)?.group(name).ok_or_else(|| no_group(key, name))?;
    Room::of(tx).take_parts(group.consumer_count() * 9)?;
    let now_ms = tx.now_ms();
    let consumers = group.consumers_from(0).map(|consumer| {
        let since = |at: u64| number(now_ms.saturating_sub(at));
        Reply::Map(vec![
            fact("name", Reply::bulk(&*consumer.name)),
            fact("pending", Reply::count(consumer.pending_count())),
            fact("idle", since(consumer.seen_ms)),
            fact("inactive", consumer.active_ms.map_or(Reply::Int(-1), since)),
        ])
    });
    Ok(Reply::Array(consumers.collect()))
}

/// How many nodes Redis's radix tree has for the ids that the stream's nodes begin with: there is none here, but
/// `XINFO` tells of it.
fn radix_nodes(stream: &Stream) -> usize {
    let bytes = |id: StreamId| (u128::from(id.ms) << 64 | u128::from(id.seq)).to_be_bytes();
    let keys: Vec<_> = stream.node_bases().map(bytes).collect();
    let shared =
        |pair: &[[u8; 16]]| pair[0].iter().zip(&pair[1]).take_while(|(one, other)| one == other).count();
    let parts: Vec<usize> = keys.windows(2).map(shared).collect();
    if keys.is_empty() { 1 } else { radix_nodes_below(&parts, 0) }
}

/// The same of keys, of which neighbours share so many bytes, and all of them the first `depth`.
fn radix_nodes_below(shared: &[usize], depth: usize) -> usize {
    const KEY_BYTES: usize = 16;
    let Some(&least) = shared.iter().min() else {
        // A leaf, and a node for the bytes before it, if there are any.
        return 1 + usize::from(depth < KEY_BYTES);
    };
    let children = shared.split(|&bytes| bytes == least);
    let below: usize = children.map(|shared| radix_nodes_below(shared, least + 1)).sum();
    // A node where they part, and one for the bytes before that.
    below + 1 + usize::from(depth < least)
}
