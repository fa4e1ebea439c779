//! Entries come and go: `XADD`, `XDEL`, `XTRIM`, `XSETID`.

use std::borrow::Cow;

use moonraft_proto::{Reply, StreamChange, StreamId, stream::Pairs};

use super::{
    id::{NewId, id, new_id},
    reply::id_reply,
};
use crate::{
    command::{
        CommandError, Outcome,
        arguments::{integer, is},
    },
    keyspace::{
        Class, Stream, Tx,
        stream::{NodeLimits, Trim, TrimTo},
    },
};

const ZERO: CommandError = CommandError::text("ERR The ID specified in XADD must be greater than 0-0");
const NOT_ABOVE: CommandError =
    CommandError::text("ERR The ID specified in XADD is equal or smaller than the target stream top item");
const EXHAUSTED: CommandError =
    CommandError::text("ERR The stream has exhausted the last possible ID, unable to add more items");

/// What `XADD` and `XTRIM` share.
#[derive(Default)]
struct Options {
    to: Option<TrimTo>,
    by_nodes: bool,
    limit: Option<u64>,
    /// The stream is not created.
    only_existing: bool,
    /// The id of the entry, and where the words behind it begin.
    id: Option<(NewId, usize)>,
}

impl Options {
    /// Reads the words from the third on.
    fn read(words: &[&[u8]], adds: bool) -> Result<Self, CommandError> {
        const TWICE: CommandError = CommandError::text(
            "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
        );
        let mut options = Self::default();
        let mut at = 2;
        while let Some(&word) = words.get(at) {
            let more = words.len() - 1 - at;
            let trims = more > 0 && (is(word, "maxlen") || is(word, "minid"));
            if adds && word == b"*" {
                options.id = Some((NewId::Next, at + 1));
                break;
            } else if trims {
                if options.to.is_some() {
                    return Err(TWICE);
                }
                let mark = if more > 1 { words[at + 1] } else { b"" };
                options.by_nodes = mark == b"~";
                at += usize::from(matches!(mark, b"~" | b"=")) + 1;
                options.to = Some(trim_to(is(word, "maxlen"), words[at])?);
            } else if more > 0 && is(word, "limit") {
                at += 1;
                let limit = u64::try_from(integer(words[at])?);
                let limit = limit.map_err(|_| CommandError::text("ERR The LIMIT argument must be >= 0."))?;
                options.limit = Some(limit);
            } else if adds && is(word, "nomkstream") {
                options.only_existing = true;
            } else if adds {
                options.id = Some((new_id(word)?, at + 1));
                break;
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        options.check(adds)?;
        Ok(options)
    }

    fn check(&self, adds: bool) -> Result<(), CommandError> {
        let error = match (self.to, self.limit) {
            (None, Some(1..)) => {
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy"
            }
            (None, _) if !adds => "ERR syntax error, XTRIM must be called with a trimming strategy",
            (_, Some(_)) if !self.by_nodes => {
                "ERR syntax error, LIMIT cannot be used without the special ~ option"
            }
            _ => return Ok(()),
        };
        Err(CommandError::text(error))
    }

    fn trim(&self, limits: NodeLimits) -> Option<Trim> {
        /// How many nodes go at most, where nobody says.
        const NODES: u64 = 100;
        /// And how many entries.
        const ENTRIES_MAX: u64 = 1_000_000;
        let by_default = (limits.entries as u64).saturating_mul(NODES).min(ENTRIES_MAX);
        let by_default = if self.by_nodes { by_default } else { 0 };
        let limit = self.limit.unwrap_or(by_default);
        self.to.map(|to| Trim { to, by_nodes: self.by_nodes, limit })
    }
}

fn trim_to(by_length: bool, word: &[u8]) -> Result<TrimTo, CommandError> {
    if !by_length {
        return id(word, 0).map(TrimTo::Id);
    }
    let length = u64::try_from(integer(word)?);
    let length = length.map_err(|_| CommandError::text("ERR The MAXLEN argument must be >= 0."))?;
    Ok(TrimTo::Length(length))
}

/// How far a request asks to trim.
pub fn trim_of(words: &[&[u8]], adds: bool) -> Option<TrimTo> {
    Options::read(words, adds).ok()?.to
}

/// Trims the stream of a key. Returns how many entries are gone.
fn trim(tx: &mut Tx, key: &[u8], trim: Option<Trim>) -> Result<u64, CommandError> {
    let Some(trim) = trim else { return Ok(0) };
    let count = tx.stream(key)?.map_or(0, |stream| stream.trimmed_by(trim));
    if count > 0 {
        tx.emit(StreamChange::Trim { count }.of(key));
        tx.notify(Class::Stream, "xtrim", key);
    }
    Ok(count)
}

/// `XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT count]] *|id field value [field value …]`
///
/// The id is the leader's: its time, but never one that was there before.
pub fn xadd<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    let options = Options::read(words, true)?;
    let wrong_count = || CommandError::Arity(Cow::Borrowed("xadd"));
    let (new, at) = options.id.ok_or_else(wrong_count)?;
    let pairs = words.get(at..).unwrap_or_default();
    if pairs.is_empty() || pairs.len() % 2 == 1 {
        return Err(wrong_count());
    }
    if new == NewId::Given(StreamId::MIN) {
        return Err(ZERO);
    }
    let limits = tx.limits().stream_nodes;
    let stream = tx.stream(key)?;
    if stream.is_none() && options.only_existing {
        return Ok(Reply::Null);
    }
    let last = stream.map_or(StreamId::MIN, Stream::last_id);
    let id = choose(new, last, || tx.shown_us() / 1000)?;
    let text_bytes = pairs.iter().map(|text| text.len()).sum();
    let begins_node = stream.is_none_or(|stream| stream.begins_node(text_bytes, limits));

    let mut scratch = Vec::new();
    let fields = Pairs::write(pairs, &mut scratch);
    tx.emit(StreamChange::Add { id, fields, begins_node }.of(key));
    tx.notify(Class::Stream, "xadd", key);
    trim(tx, key, options.trim(limits))?;
    Ok(id_reply(id))
}

/// The id of a new entry behind `last`.
fn choose(new: NewId, last: StreamId, now_ms: impl FnOnce() -> u64) -> Result<StreamId, CommandError> {
    let next = last.next().ok_or(EXHAUSTED)?;
    let id = match new {
        NewId::Given(id) => id,
        NewId::NextOf(ms) if ms == last.ms => StreamId::new(ms, last.seq.checked_add(1).ok_or(NOT_ABOVE)?),
        NewId::NextOf(ms) => StreamId::new(ms, 0),
        NewId::Next => match now_ms() {
            ms if ms > last.ms => StreamId::new(ms, 0),
            _ => next,
        },
    };
    if id > last { Ok(id) } else { Err(NOT_ABOVE) }
}

/// `XTRIM key MAXLEN|MINID [=|~] threshold [LIMIT count]`
pub fn xtrim<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let options = Options::read(words, false)?;
    let how = options.trim(tx.limits().stream_nodes);
    Ok(Reply::Int(trim(tx, words[1], how)? as i64))
}

/// `XDEL key id [id …]`
pub fn xdel<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    if tx.stream(key)?.is_none() {
        return Ok(Reply::Int(0));
    }
    let ids = words[2..].iter().map(|word| id(word, 0)).collect::<Result<Vec<_>, _>>()?;

    let mut count = 0;
    for id in ids {
        if tx.stream(key)?.is_some_and(|stream| stream.get(id).is_some()) {
            tx.emit(StreamChange::Delete { id }.of(key));
            count += 1;
        }
    }
    if count > 0 {
        tx.notify(Class::Stream, "xdel", key);
    }
    Ok(Reply::Int(count))
}

/// `XSETID key last-id [ENTRIESADDED count] [MAXDELETEDID id]`
pub fn xsetid<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    let last_id = id(words[2], 0)?;
    let (added, deleted) = set_id_options(&words[3..], last_id)?;
    let stream = tx.stream(key)?.ok_or(CommandError::NoSuchKey)?;
    let error =
        if stream.range_back(StreamId::MIN, StreamId::MAX).next().is_some_and(|entry| last_id < entry.id) {
            "ERR The ID specified in XSETID is smaller than the target stream top item"
        } else if !stream.is_empty() && added.is_some_and(|added| added < stream.len() as u64) {
            "ERR The entries_added specified in XSETID is smaller than the target stream length"
        } else {
            ""
        };
    if !error.is_empty() {
        return Err(CommandError::text(error));
    }

    let added = added.unwrap_or(stream.added());
    let max_deleted = deleted.filter(|&id| id != StreamId::MIN).unwrap_or(stream.max_deleted());
    tx.emit(StreamChange::Set { last_id, added, max_deleted }.of(key));
    tx.notify(Class::Stream, "xsetid", key);
    Ok(Reply::OK)
}

/// How many entries were added, and the highest id that was deleted.
fn set_id_options(
    words: &[&[u8]],
    last_id: StreamId,
) -> Result<(Option<u64>, Option<StreamId>), CommandError> {
    const NEGATIVE: CommandError = CommandError::text("ERR entries_added must be positive");
    const BELOW: CommandError = CommandError::text(
        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
    );
    let (mut added, mut deleted) = (None, None);
    for option in words.chunks(2) {
        let &[name, value] = option else { return Err(CommandError::Syntax) };
        if is(name, "entriesadded") {
            added = Some(u64::try_from(integer(value)?).map_err(|_| NEGATIVE)?);
        } else if is(name, "maxdeletedid") {
            let id = id(value, 0)?;
            if last_id < id {
                return Err(BELOW);
            }
            deleted = Some(id);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok((added, deleted))
}
