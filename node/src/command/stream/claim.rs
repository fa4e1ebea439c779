//! What is pending is given to another consumer: `XCLAIM`, `XAUTOCLAIM`.

use moonraft_proto::{Reply, StreamChange, StreamId, stream::Ids};

use super::{
    group::no_key_or_group,
    id::{id, parse, start},
    read::saw,
    reply::{Room, entry_reply, id_reply},
    work::LOOKS,
};
use crate::{
    command::{
        CommandError, Outcome,
        arguments::{is, parse_integer},
    },
    keyspace::{
        Stream, Tx,
        stream::{Entry, Group},
    },
};

/// The group of a stream, which must be there.
fn existing<'t>(tx: &'t Tx, key: &[u8], group: &[u8]) -> Result<(&'t Stream, &'t Group), CommandError> {
    tx.tell_misses([key]);
    let stream = tx.stream(key)?;
    let found = stream.and_then(|stream| Some((stream, stream.group(group)?)));
    found.ok_or_else(|| no_key_or_group(key, group))
}

fn number(word: &[u8], refusal: &'static str) -> Result<i64, CommandError> {
    parse_integer(word).ok_or(CommandError::text(refusal))
}

/// What `XCLAIM` is asked for beside the ids.
#[derive(Default)]
struct Options {
    /// When the entries were delivered, Unix milliseconds.
    time_ms: Option<i64>,
    /// How often.
    count: Option<u64>,
    /// Entries that are not pending become so.
    force: bool,
    /// Their ids are enough.
    just_id: bool,
    /// The group has read up to here.
    last_id: StreamId,
}

impl Options {
    fn read(words: &[&[u8]], now_ms: u64) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut at = 0;
        while let Some(&word) = words.get(at) {
            let value = words.get(at + 1).copied();
            match value {
                _ if is(word, "force") => options.force = true,
                _ if is(word, "justid") => options.just_id = true,
                Some(value) => {
                    options.set(word, value, now_ms)?;
                    at += 1;
                }
                None => return Err(unknown(word)),
            }
            at += 1;
        }
        // A time that makes no sense is taken for now: clients reckon by clocks of their own.
        options.time_ms = options.time_ms.filter(|time| (0..=now_ms as i64).contains(time));
        Ok(options)
    }

    /// Sets an option that has a value.
    fn set(&mut self, name: &[u8], value: &[u8], now_ms: u64) -> Result<(), CommandError> {
        if is(name, "idle") {
            let idle = number(value, "ERR Invalid IDLE option argument for XCLAIM")?;
            self.time_ms = Some((now_ms as i64).wrapping_sub(idle));
        } else if is(name, "time") {
            self.time_ms = Some(number(value, "ERR Invalid TIME option argument for XCLAIM")?);
        } else if is(name, "retrycount") {
            let count = number(value, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
            self.count = u64::try_from(count).ok();
        } else if is(name, "lastid") {
            self.last_id = id(value, 0)?;
        } else {
            return Err(unknown(name));
        }
        Ok(())
    }
}

fn unknown(word: &[u8]) -> CommandError {
    CommandError::about("ERR Unrecognized XCLAIM option '", word, "'")
}

/// Claims entries of a group for a consumer, one after another.
struct Claims<'w> {
    key: &'w [u8],
    group: &'w [u8],
    consumer: &'w [u8],
    just_id: bool,
    replies: Vec<Reply<'static>>,
    scratch: Vec<u8>,
}

impl<'w> Claims<'w> {
    fn new(words: &[&'w [u8]], just_id: bool) -> Self {
        let (replies, scratch) = (Vec::new(), Vec::new());
        Self { key: words[1], group: words[2], consumer: words[3], just_id, replies, scratch }
    }

    /// An entry is the consumer's from now on.
    fn claim(&mut self, tx: &mut Tx, entry: Reply<'static>, id: StreamId, time_ms: u64, count: u64) {
        let (key, group, consumer) = (self.key, self.group, self.consumer);
        if self.replies.is_empty() {
            saw(tx, key, (group, consumer), true);
        }
        let ids = Ids::write([id], &mut self.scratch);
        tx.emit(StreamChange::PendingSet { group, consumer, time_ms, count, ids }.of(key));
        self.replies.push(entry);
    }

    /// An entry is pending that was deleted: it is forgotten.
    fn forget(&mut self, tx: &mut Tx, id: StreamId) {
        let ids = Ids::write([id], &mut self.scratch);
        tx.emit(StreamChange::PendingRemove { group: self.group, ids }.of(self.key));
    }

    fn reply_of(&self, entry: Entry<'_>) -> Reply<'static> {
        if self.just_id { id_reply(entry.id) } else { entry_reply(entry).into_owned() }
    }
}

/// `XCLAIM key group consumer min-idle-time id [id …] [IDLE ms] [TIME unix-ms] [RETRYCOUNT count] [FORCE] [JUSTID]
/// [LASTID id]`
pub fn xclaim<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, name) = (words[1], words[2]);
    let (stream, group) = existing(tx, key, name)?;
    let idle_ms = number(words[4], "ERR Invalid min-idle-time argument for XCLAIM")?.max(0) as u64;
    let ids: Vec<StreamId> = words[5..].iter().map_while(|word| parse(word, 0)).collect();
    let now_ms = tx.now_ms();
    let options = Options::read(&words[5 + ids.len()..], now_ms)?;
    let mut room = Room::of(tx);
    if !options.just_id {
        ids.iter().filter_map(|id| stream.get(*id)).try_for_each(|entry| room.take(entry))?;
    }

    if options.last_id > group.last_id {
        let (last_id, read) = (options.last_id, group.read);
        tx.emit(StreamChange::GroupSet { group: name, last_id, read }.of(key));
    }
    let mut claims = Claims::new(words, options.just_id);
    let time_ms = options.time_ms.map_or(now_ms, |time| time as u64);
    for id in ids {
        let (stream, group) = existing(tx, key, name)?;
        let pending = group.pending().get(id);
        let Some(entry) = stream.get(id) else {
            if pending.is_some() {
                claims.forget(tx, id);
            }
            continue;
        };
        let times = match pending {
            Some(pending) if now_ms.saturating_sub(pending.time_ms) < idle_ms => continue,
            Some(pending) => pending.count,
            None if options.force => 1,
            None => continue,
        };
        let count = options.count.unwrap_or(times.saturating_add(u64::from(!options.just_id)));
        let reply = claims.reply_of(entry);
        claims.claim(tx, reply, id, time_ms, count);
    }
    Ok(Reply::Array(claims.replies))
}

/// `XAUTOCLAIM key group consumer min-idle-time start [COUNT count] [JUSTID]`
pub fn xautoclaim<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, name) = (words[1], words[2]);
    let idle_ms = number(words[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM")?.max(0) as u64;
    let from = start(words[5])?;
    let (count, just_id) = auto_options(&words[6..])?;
    let (stream, group) = existing(tx, key, name)?;
    let (now_ms, mut room) = (tx.now_ms(), Room::of(tx));
    let mut claims = Claims::new(words, just_id);
    let (mut claimed, mut deleted) = (Vec::new(), Vec::new());
    let next = {
        let mut pending = group.pending().iter_from(from);
        for (id, it) in pending.by_ref().take(count.saturating_mul(LOOKS)) {
            match stream.get(id) {
                None => {
                    room.take_parts(1)?;
                    deleted.push(id);
                }
                Some(_) if now_ms.saturating_sub(it.time_ms) < idle_ms => continue,
                Some(entry) => {
                    if just_id { room.take_parts(1) } else { room.take(entry) }?;
                    let times = it.count.saturating_add(u64::from(!just_id));
                    claimed.push((claims.reply_of(entry), id, times));
                }
            }
            if claimed.len() + deleted.len() >= count {
                break;
            }
        }
        pending.next().map_or(StreamId::MIN, |(id, _)| id)
    };

    deleted.iter().for_each(|&id| claims.forget(tx, id));
    for (reply, id, times) in claimed {
        claims.claim(tx, reply, id, now_ms, times);
    }
    let deleted = deleted.into_iter().map(id_reply).collect();
    Ok(Reply::Array(vec![id_reply(next), Reply::Array(claims.replies), Reply::Array(deleted)]))
}

/// How many entries at most, and whether their ids are enough.
fn auto_options(words: &[&[u8]]) -> Result<(usize, bool), CommandError> {
    const COUNT_DEFAULT: usize = 100;
    /// As much as Redis takes.
    const COUNT_MAX: i64 = i64::MAX / size_of::<StreamId>() as i64;
    const WRONG: CommandError = CommandError::text("ERR COUNT must be > 0");
    let (mut count, mut just_id) = (COUNT_DEFAULT, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if is(word, "count") && words.len() > 0 {
            let given = words.next().and_then(|word| parse_integer(word));
            let given = given.filter(|count| (1..=COUNT_MAX).contains(count)).ok_or(WRONG)?;
            count = given as usize;
        } else if is(word, "justid") {
            just_id = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok((count, just_id))
}
