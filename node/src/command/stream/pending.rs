//! `XPENDING`: what was delivered and not acknowledged.

use moonraft_proto::{Reply, StreamId};

use super::{
    group::no_key_or_group,
    id::{end, start},
    reply::{Room, id_reply},
};
use crate::{
    command::{
        CommandError, Outcome,
        arguments::{integer, is},
    },
    keyspace::{
        Tx,
        stream::{Consumer, Group},
    },
};

/// Which entries are asked for.
struct Range<'w> {
    from: StreamId,
    to: StreamId,
    count: usize,
    /// Milliseconds since they were delivered, at least.
    idle_ms: u64,
    consumer: Option<&'w [u8]>,
}

impl<'w> Range<'w> {
    /// Reads the words behind the group.
    fn read(words: &[&'w [u8]]) -> Result<Self, CommandError> {
        /// Redis takes two words more than it looks at, three with `IDLE`.
        const WORDS_MAX: usize = 6;
        if words.len() < 3 || words.len() > WORDS_MAX {
            return Err(CommandError::Syntax);
        }
        let (mut idle_ms, mut words) = (0, words);
        if is(words[0], "idle") {
            idle_ms = u64::try_from(integer(words[1])?).unwrap_or(0);
            words = &words[2..];
        }
        let [from, to, count, ref rest @ ..] = *words else { return Err(CommandError::Syntax) };
        let count = usize::try_from(integer(count)?).unwrap_or(0);
        Ok(Self { from: start(from)?, to: end(to)?, count, idle_ms, consumer: rest.first().copied() })
    }
}

/// `XPENDING key group [[IDLE min-idle-time] start end count [consumer]]`
pub fn xpending<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, name) = (words[1], words[2]);
    let range = match words[3..] {
        [] => None,
        ref rest => Some(Range::read(rest)?),
    };
    let group = tx.stream(key)?.and_then(|stream| stream.group(name));
    let group = group.ok_or_else(|| no_key_or_group(key, name))?;
    match range {
        None => summary(tx, group),
        Some(range) => listed(tx, group, &range),
    }
}

/// How many entries are pending, from where to where, and how many for whom.
fn summary<'a>(tx: &'a Tx, group: &'a Group) -> Outcome<'a> {
    let pending = group.pending();
    let (Some(first), Some(last)) = (pending.first(), pending.last()) else {
        return Ok(Reply::Array(vec![Reply::Int(0), Reply::Null, Reply::Null, Reply::NullArray]));
    };
    Room::of(tx).take_parts(group.consumer_count() * 3)?;
    let with_some = group.consumers_from(0).filter(|consumer| consumer.pending_count() > 0);
    let consumers = with_some.map(|consumer| {
        let count = consumer.pending_count().to_string();
        Reply::Array(vec![Reply::bulk(&*consumer.name), Reply::text(count)])
    });
    let consumers = Reply::Array(consumers.collect());
    Ok(Reply::Array(vec![Reply::count(pending.len()), id_reply(first), id_reply(last), consumers]))
}

/// Entries that are pending, one by one.
fn listed<'a>(tx: &'a Tx, group: &'a Group, range: &Range<'_>) -> Outcome<'a> {
    let ids: Box<dyn Iterator<Item = StreamId>> = match range.consumer {
        None => Box::new(group.pending().iter_from(range.from).map(|(id, _)| id)),
        Some(name) => match group.consumer(name) {
            Some(consumer) => Box::new(Consumer::pending_from(consumer, range.from)),
            None => return Ok(Reply::Array(Vec::new())),
        },
    };
    let (mut room, mut replies) = (Room::of(tx), Vec::new());
    for id in ids.take_while(|id| *id <= range.to) {
        if replies.len() >= range.count {
            break;
        }
        let Some(pending) = group.pending().get(id) else { continue };
        let idle_ms = tx.now_ms().saturating_sub(pending.time_ms);
        if idle_ms < range.idle_ms {
            continue;
        }
        room.take_parts(5)?;
        let consumer = Reply::bulk(&*group.consumer_of(pending).name);
        let numbers = [idle_ms, pending.count].map(|number| Reply::Int(number as i64));
        let [idle, count] = numbers;
        replies.push(Reply::Array(vec![id_reply(id), consumer, idle, count]));
    }
    Ok(Reply::Array(replies))
}
