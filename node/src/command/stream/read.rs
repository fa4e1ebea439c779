//! Entries are read: `XLEN`, `XRANGE`, `XREAD`, and by groups, `XREADGROUP`.

use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashMap;
use moonraft_proto::{Reply, StreamChange, StreamId, stream::Ids};

use super::{
    id::{end, id, start, text},
    reply::{Room, entry_reply, id_reply},
};
use crate::{
    command::{
        CommandError, Outcome,
        arguments::{integer, is},
    },
    keyspace::{
        Awaited, Class, Stream, Tx, Wish,
        stream::{Group, Pending},
    },
};

/// `XLEN key`
pub fn xlen<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(tx.stream(words[1])?.map_or(0, Stream::len)))
}

/// `XRANGE key start end [COUNT count]`
pub fn xrange<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    range(tx, words, false)
}

/// `XREVRANGE key end start [COUNT count]`
pub fn xrevrange<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    range(tx, words, true)
}

fn range<'a>(tx: &'a Tx, words: &[&'a [u8]], back: bool) -> Outcome<'a> {
    let (first, last) = if back { (words[3], words[2]) } else { (words[2], words[3]) };
    let (from, to) = (start(first)?, end(last)?);
    let mut count = None;
    for option in words[4..].chunks(2) {
        match *option {
            [name, value] if is(name, "count") => count = Some(usize::try_from(integer(value)?).unwrap_or(0)),
            _ => return Err(CommandError::Syntax),
        }
    }

    let Some(stream) = tx.stream(words[1])? else { return Ok(Reply::Array(Vec::new())) };
    if count == Some(0) {
        return Ok(Reply::NullArray);
    }
    let (mut room, count) = (Room::of(tx), count.unwrap_or(0));
    let entries = match back {
        true => room.entries(stream.range_back(from, to), count)?,
        false => room.entries(stream.range(from, to), count)?,
    };
    Ok(Reply::Array(entries))
}

/// What `XREAD` and `XREADGROUP` are asked for.
struct Asked<'w> {
    /// Entries of each stream at most; 0 for all.
    count: usize,
    /// The group and the consumer.
    group: Option<(&'w [u8], &'w [u8])>,
    /// What is delivered is not pending.
    no_ack: bool,
    /// Keys with the words for ids.
    streams: Vec<(&'w [u8], &'w [u8])>,
    /// Which words the keys are; the ids follow.
    keys: Range<usize>,
    /// How long to wait for what is not there, in milliseconds.
    block_ms: Option<u64>,
}

impl<'w> Asked<'w> {
    fn read(tx: &Tx, words: &[&'w [u8]], by_group: bool) -> Result<Self, CommandError> {
        const UNBALANCED: CommandError = CommandError::text(
            "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
        );
        let only_by_group = |option: &str| {
            let text =
                format!("ERR The {option} option is only supported by XREADGROUP. You called XREAD instead.");
            if by_group { Ok(()) } else { Err(CommandError::Text(text.into())) }
        };
        let mut asked =
            Self { count: 0, group: None, no_ack: false, streams: Vec::new(), keys: 0..0, block_ms: None };
        let mut at = 1;
        while let Some(&word) = words.get(at) {
            let more = words.len() - 1 - at;
            if is(word, "block") && more > 0 {
                at += 1;
                asked.block_ms = Some(timeout_ms(tx, words[at])?);
            } else if is(word, "count") && more > 0 {
                at += 1;
                asked.count = usize::try_from(integer(words[at])?).unwrap_or(0);
            } else if is(word, "streams") && more > 0 {
                let rest = &words[at + 1..];
                if rest.len() % 2 == 1 {
                    return Err(UNBALANCED);
                }
                let (keys, ids) = rest.split_at(rest.len() / 2);
                asked.keys = at + 1..at + 1 + keys.len();
                asked.streams = keys.iter().copied().zip(ids.iter().copied()).collect();
                break;
            } else if is(word, "group") && more > 1 {
                only_by_group("GROUP")?;
                asked.group = Some((words[at + 1], words[at + 2]));
                at += 2;
            } else if is(word, "noack") {
                only_by_group("NOACK")?;
                asked.no_ack = true;
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        if asked.streams.is_empty() {
            return Err(CommandError::Syntax);
        }
        if by_group && asked.group.is_none() {
            return Err(CommandError::text("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(asked)
    }

    /// There was nothing: waits for it, if that was asked for. `ids` are those that `$` stood for.
    fn wait(self, tx: &Tx, ids: Vec<(usize, Bytes)>) {
        let awaited = if self.group.is_some() { Awaited::Group } else { Awaited::Stream };
        if let Some(timeout_ms) = self.block_ms {
            tx.wait_for(Wish { awaited, keys: self.keys, timeout_ms, words: ids });
        }
    }
}

/// Whether `BLOCK` is among the options of `XREAD`, before anything that is refused.
pub fn xread_asks_to_block(words: &[&[u8]]) -> bool {
    asks_to_block(words, false)
}

/// The same of `XREADGROUP`.
pub fn xreadgroup_asks_to_block(words: &[&[u8]]) -> bool {
    asks_to_block(words, true)
}

fn asks_to_block(words: &[&[u8]], by_group: bool) -> bool {
    let mut rest = words.get(1..).unwrap_or_default();
    loop {
        rest = match rest {
            [word, _, ..] if is(word, "block") => return true,
            [word, count, rest @ ..] if is(word, "count") && integer(count).is_ok() => rest,
            [word, _, _, rest @ ..] if by_group && is(word, "group") => rest,
            [word, rest @ ..] if by_group && is(word, "noack") => rest,
            _ => return false,
        };
    }
}

/// How long to wait at most, in milliseconds; 0: for ever.
fn timeout_ms(tx: &Tx, word: &[u8]) -> Result<u64, CommandError> {
    const NONE: CommandError = CommandError::text("ERR timeout is not an integer or out of range");
    const NEGATIVE: CommandError = CommandError::text("ERR timeout is negative");
    const TOO_FAR: CommandError = CommandError::text("ERR timeout is out of range");
    let ms = u64::try_from(integer(word).map_err(|_| NONE)?).map_err(|_| NEGATIVE)?;
    let end = ms.checked_add(tx.now_ms()).and_then(|end| i64::try_from(end).ok());
    if ms == 0 || end.is_some() { Ok(ms) } else { Err(TOO_FAR) }
}

/// `XREAD [COUNT count] [BLOCK milliseconds] STREAMS key [key …] id [id …]`
pub fn xread<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    const NEW: CommandError = CommandError::text(
        "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
    );
    let asked = Asked::read(tx, words, false)?;
    // Redis looks each up to see what it is, and again to read it.
    tx.tell_misses(asked.streams.iter().map(|(key, _)| *key));
    let (mut read, mut ids) = (Vec::new(), Vec::new());
    for (at, &(key, word)) in (asked.keys.end..).zip(&asked.streams) {
        let stream = tx.stream(key)?;
        let after = match word {
            b"$" => {
                let last = stream.map_or(StreamId::MIN, Stream::last_id);
                ids.push((at, text(last).into()));
                last
            }
            b">" => return Err(NEW),
            word => id(word, 0)?,
        };
        read.push((key, stream, after));
    }

    let (mut room, mut replies) = (Room::of(tx), Vec::new());
    for (key, stream, after) in read {
        let (Some(stream), Some(from)) = (stream, after.next()) else { continue };
        let entries = room.entries(stream.range(from, StreamId::MAX), asked.count)?;
        if !entries.is_empty() {
            replies.push((Reply::bulk(key), Reply::Array(entries)));
        }
    }
    if replies.is_empty() {
        asked.wait(tx, ids);
        return Ok(Reply::NullArray);
    }
    Ok(Reply::Keyed(replies))
}

/// `NOGROUP` as `XREADGROUP` says it.
fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    let parts = [
        b"NOGROUP No such key '".as_slice(),
        key,
        b"' or consumer group '",
        group,
        b"' in XREADGROUP with GROUP option",
    ];
    CommandError::joined(&parts)
}

/// One stream of an `XREADGROUP`.
struct Delivery<'w> {
    key: &'w [u8],
    /// What was delivered before that is still pending, from this id on; `None`: what is new.
    history_from: Option<StreamId>,
}

/// What becomes of a group, and what its consumer gets.
struct Delivered {
    /// How far the group has read.
    read_up_to: Option<(StreamId, Option<u64>)>,
    /// What is pending, with how often it was delivered.
    pending: Vec<(StreamId, u64)>,
    /// `None`: nothing is new.
    reply: Option<Reply<'static>>,
}

/// `XREADGROUP GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key …] id [id …]`
pub fn xreadgroup<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let asked = Asked::read(tx, words, true)?;
    let (group, consumer) = asked.group.expect("a group was asked for");
    let mut deliveries = Vec::new();
    for &(key, word) in &asked.streams {
        deliveries.push(delivery(tx, key, group, word)?);
    }
    let (mut room, mut delivered) = (Room::of(tx), Vec::new());
    // A key that is named twice goes on where it was left.
    let mut left: HashMap<&[u8], (StreamId, Option<u64>)> = HashMap::new();
    for delivery in &deliveries {
        let left_at = left.get(delivery.key).copied();
        let one: Delivered = match delivery.history_from {
            Some(from) => history(tx, delivery.key, (group, consumer), from, asked.count, &mut room)?,
            None => new_entries(tx, delivery.key, group, left_at, &asked, &mut room)?,
        };
        left.extend(one.read_up_to.map(|read_up_to| (delivery.key, read_up_to)));
        delivered.push(one);
    }

    if asked.block_ms.is_some() && delivered.iter().all(|one| one.reply.is_none()) {
        // Who waits has not been there yet.
        asked.wait(tx, Vec::new());
        return Ok(Reply::NullArray);
    }
    let mut replies = Vec::new();
    for (delivery, one) in deliveries.iter().zip(delivered) {
        let key = delivery.key;
        emit_delivered(tx, key, (group, consumer), &one, asked.no_ack && delivery.history_from.is_none());
        if let Some(reply) = one.reply {
            replies.push((Reply::bulk(key), reply));
        }
    }
    Ok(if replies.is_empty() { Reply::NullArray } else { Reply::Keyed(replies) })
}

fn delivery<'w>(tx: &Tx, key: &'w [u8], group: &[u8], word: &[u8]) -> Result<Delivery<'w>, CommandError> {
    const LAST: CommandError = CommandError::text(
        "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by \
         specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
    );
    tx.tell_misses([key]);
    if tx.stream(key)?.and_then(|stream| stream.group(group)).is_none() {
        return Err(no_group(key, group));
    }
    let history_from = match word {
        b"$" => return Err(LAST),
        b">" => None,
        // The last id stands for what is new, as in Redis.
        word => id(word, 0)?.next(),
    };
    Ok(Delivery { key, history_from })
}

/// What a group has not delivered yet.
fn new_entries(
    tx: &Tx,
    key: &[u8],
    group: &[u8],
    left_at: Option<(StreamId, Option<u64>)>,
    asked: &Asked<'_>,
    room: &mut Room,
) -> Result<Delivered, CommandError> {
    let mut delivered = Delivered { read_up_to: None, pending: Vec::new(), reply: None };
    let Some(stream) = tx.stream(key)? else { return Ok(delivered) };
    let Some(group) = stream.group(group) else { return Ok(delivered) };
    let (last_id, mut read) = left_at.unwrap_or((group.last_id, group.read));
    let Some(from) = last_id.next() else { return Ok(delivered) };
    let count = if asked.count == 0 { usize::MAX } else { asked.count };
    let mut entries = Vec::new();
    for entry in stream.range(from, StreamId::MAX).take(count) {
        room.take(entry)?;
        read = match read {
            Some(read) if !stream.has_gaps_from(entry.id) => Some(read.wrapping_add(1)),
            _ => stream.read_up_to(entry.id),
        };
        delivered.pending.push((entry.id, 1));
        entries.push(entry_reply(entry).into_owned());
        delivered.read_up_to = Some((entry.id, read));
    }
    delivered.reply = (!entries.is_empty()).then_some(Reply::Array(entries));
    Ok(delivered)
}

/// What was delivered to a consumer and is pending.
fn history(
    tx: &Tx,
    key: &[u8],
    (group, consumer): (&[u8], &[u8]),
    from: StreamId,
    count: usize,
    room: &mut Room,
) -> Result<Delivered, CommandError> {
    let mut delivered = Delivered { read_up_to: None, pending: Vec::new(), reply: None };
    let count = if count == 0 { usize::MAX } else { count };
    let mut entries = Vec::new();
    let stream = tx.stream(key)?;
    let group = stream.and_then(|stream| stream.group(group));
    if let (Some(stream), Some(group)) = (stream, group)
        && let Some(consumer) = group.consumer(consumer)
    {
        for id in consumer.pending_from(from).take(count) {
            match stream.get(id) {
                Some(entry) => {
                    room.take(entry)?;
                    let times = group.pending().get(id).map_or(0, |pending: Pending| pending.count);
                    delivered.pending.push((id, times.saturating_add(1)));
                    entries.push(entry_reply(entry).into_owned());
                }
                // It was deleted since.
                None => {
                    room.take_parts(3)?;
                    entries.push(Reply::Array(vec![id_reply(id), Reply::NullArray]));
                }
            }
        }
    }
    delivered.reply = Some(Reply::Array(entries));
    Ok(delivered)
}

/// Writes down what a consumer got.
fn emit_delivered(
    tx: &mut Tx,
    key: &[u8],
    (group, consumer): (&[u8], &[u8]),
    delivered: &Delivered,
    no_ack: bool,
) {
    let now_ms = tx.now_ms();
    // Who reads again what he was given is seen, and is not active.
    saw(tx, key, (group, consumer), delivered.read_up_to.is_some());
    if let Some((last_id, read)) = delivered.read_up_to {
        tx.emit(StreamChange::GroupSet { group, last_id, read }.of(key));
    }
    if no_ack {
        return;
    }
    let mut scratch = Vec::new();
    for run in delivered.pending.chunk_by(|(_, one), (_, other)| one == other) {
        let ids = Ids::write(run.iter().map(|(id, _)| *id), &mut scratch);
        let count = run[0].1;
        tx.emit(StreamChange::PendingSet { group, consumer, time_ms: now_ms, count, ids }.of(key));
    }
}

/// A consumer, which is created if it is not there, has asked for something, and maybe got it.
pub fn saw(tx: &mut Tx, key: &[u8], (group, consumer): (&[u8], &[u8]), got: bool) {
    let seen_ms = tx.now_ms();
    let stream = tx.stream(key).ok().flatten();
    let known =
        stream.and_then(|stream| stream.group(group)).and_then(|group: &Group| group.consumer(consumer));
    let active_ms = if got { Some(seen_ms) } else { known.and_then(|known| known.active_ms) };
    let is_new = known.is_none();
    let is_told = known.is_some_and(|known| (known.seen_ms, known.active_ms) == (seen_ms, active_ms));
    if !is_told {
        tx.emit(StreamChange::ConsumerSet { group, consumer, seen_ms, active_ms }.of(key));
    }
    if is_new {
        tx.notify(Class::Stream, "xgroup-createconsumer", key);
    }
}
