//! Groups and consumers come and go, entries are acknowledged: `XGROUP`, `XACK`.

use moonraft_proto::{Reply, StreamChange, StreamId, stream::Ids};

use super::id::{id, id_or_end};
use crate::{
    command::{
        CommandError, Outcome,
        arguments::{integer, is},
        help::{help as help_of, unknown_form},
    },
    keyspace::{Class, Stream, Tx, stream::Group},
};

const NO_KEY: CommandError = CommandError::text(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option \
     to create an empty stream automatically.",
);

/// `XGROUP HELP`
pub fn help() -> Reply<'static> {
    help_of(
        "XGROUP",
        &[
            "CREATE <key> <groupname> <id|$> [option]",
            "    Create a new consumer group. Options are:",
            "    * MKSTREAM",
            "      Create the empty stream if it does not exist.",
            "    * ENTRIESREAD entries_read",
            "      Set the group's entries_read counter (internal use).",
            "CREATECONSUMER <key> <groupname> <consumer>",
            "    Create a new consumer in the specified group.",
            "DELCONSUMER <key> <groupname> <consumer>",
            "    Remove the specified consumer.",
            "DESTROY <key> <groupname>",
            "    Remove the specified group.",
            "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
            "    Set the current group ID and entries_read counter.",
        ],
    )
}

/// There is no such group.
pub fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    CommandError::joined(&[b"NOGROUP No such consumer group '", group, b"' for key name '", key, b"'"])
}

/// There is no such key, or no such group.
pub fn no_key_or_group(key: &[u8], group: &[u8]) -> CommandError {
    CommandError::joined(&[b"NOGROUP No such key '", key, b"' or consumer group '", group, b"'"])
}

/// A group that is there, of a stream that must be.
fn existing<'t>(tx: &'t Tx, key: &[u8], group: &[u8]) -> Result<&'t Group, CommandError> {
    tx.stream(key)?.ok_or(NO_KEY)?.group(group).ok_or_else(|| no_group(key, group))
}

/// What may follow the id: whether to create the stream, and how many entries were read.
fn options(words: &[&[u8]], creates: bool) -> Result<(bool, Option<u64>), CommandError> {
    const NEGATIVE: CommandError = CommandError::text("ERR value for ENTRIESREAD must be positive or -1");
    let (mut creates_stream, mut read) = (false, None);
    let mut rest = words[5..].iter();
    while let Some(word) = rest.next() {
        if creates && is(word, "mkstream") {
            creates_stream = true;
        } else if is(word, "entriesread") && rest.len() > 0 {
            let count = integer(rest.next().expect("more follow"))?;
            if count < -1 {
                return Err(NEGATIVE);
            }
            read = u64::try_from(count).ok();
        } else {
            return Err(unknown_form(words[1], "XGROUP"));
        }
    }
    Ok((creates_stream, read))
}

/// `XGROUP CREATE key group id|$ [MKSTREAM] [ENTRIESREAD count]`
pub fn create<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, group) = (words[2], words[3]);
    let (creates_stream, read) = options(words, true)?;
    let stream = tx.stream(key)?;
    if stream.is_none() && !creates_stream {
        return Err(NO_KEY);
    }
    let last_id = match words[4] {
        b"$" => stream.map_or(StreamId::MIN, Stream::last_id),
        word => id(word, 0)?,
    };
    if stream.is_some_and(|stream| stream.group(group).is_some()) {
        return Err(CommandError::text("BUSYGROUP Consumer Group name already exists"));
    }

    if stream.is_none() {
        let none = StreamId::MIN;
        tx.emit(StreamChange::Set { last_id: none, added: 0, max_deleted: none }.of(key));
    }
    tx.emit(StreamChange::GroupSet { group, last_id, read }.of(key));
    tx.notify(Class::Stream, "xgroup-create", key);
    Ok(Reply::OK)
}

/// `XGROUP SETID key group id|$ [ENTRIESREAD count]`
pub fn set_id<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, group) = (words[2], words[3]);
    let (_, read) = options(words, false)?;
    existing(tx, key, group)?;
    let last_id = match words[4] {
        b"$" => tx.stream(key)?.map_or(StreamId::MIN, Stream::last_id),
        word => id_or_end(word, 0)?,
    };

    tx.emit(StreamChange::GroupSet { group, last_id, read }.of(key));
    tx.notify(Class::Stream, "xgroup-setid", key);
    Ok(Reply::OK)
}

/// `XGROUP DESTROY key group`
pub fn destroy<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, group) = (words[2], words[3]);
    let is_there = tx.stream(key)?.ok_or(NO_KEY)?.group(group).is_some();
    if is_there {
        tx.emit(StreamChange::GroupRemove { group }.of(key));
        tx.notify(Class::Stream, "xgroup-destroy", key);
    }
    Ok(Reply::flag(is_there))
}

/// `XGROUP CREATECONSUMER key group consumer`
pub fn create_consumer<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, group, consumer) = (words[2], words[3], words[4]);
    let is_new = existing(tx, key, group)?.consumer(consumer).is_none();
    if is_new {
        let seen_ms = tx.now_ms();
        tx.emit(StreamChange::ConsumerSet { group, consumer, seen_ms, active_ms: None }.of(key));
        tx.notify(Class::Stream, "xgroup-createconsumer", key);
    }
    Ok(Reply::flag(is_new))
}

/// `XGROUP DELCONSUMER key group consumer`
pub fn delete_consumer<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, group, consumer) = (words[2], words[3], words[4]);
    let Some(pending) = existing(tx, key, group)?.consumer(consumer).map(|it| it.pending_count()) else {
        return Ok(Reply::Int(0));
    };
    tx.emit(StreamChange::ConsumerRemove { group, consumer }.of(key));
    tx.notify(Class::Stream, "xgroup-delconsumer", key);
    Ok(Reply::count(pending))
}

/// `XACK key group id [id …]`
pub fn xack<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, group) = (words[1], words[2]);
    tx.tell_misses([key]);
    let Some(pending) = tx.stream(key)?.and_then(|stream| stream.group(group)).map(Group::pending) else {
        return Ok(Reply::Int(0));
    };
    let mut ids = Vec::with_capacity(words.len() - 3);
    for word in &words[3..] {
        let id = id(word, 0)?;
        if pending.contains(id) {
            ids.push(id);
        }
    }
    // An id that is named twice is acknowledged once.
    if !ids.is_sorted_by(|one, other| one < other) {
        ids.sort_unstable();
        ids.dedup();
    }

    if !ids.is_empty() {
        let mut scratch = Vec::new();
        let pending = Ids::write(ids.iter().copied(), &mut scratch);
        tx.emit(StreamChange::PendingRemove { group, ids: pending }.of(key));
    }
    Ok(Reply::count(ids.len()))
}
