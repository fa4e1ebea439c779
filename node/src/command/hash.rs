//! Hashes. What sets and tells the deadlines of their fields stands in [`expiry`].
//!
//! A field whose deadline has passed is not there, and a request that writes it removes what is left of it. Only `HLEN`
//! counts it until it is removed, and its key is there as long, as in Redis.

pub mod expiry;

use std::borrow::Cow;

use moonraft_proto::{Effect, Reply};
use moonraft_router::Keys;

use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{Draw, integer, parse_integer, room_for},
    generic::{cursor, scan_options, scan_reply},
    key_specs::uses,
    long_double::LongDouble,
    string::INFINITE,
    work,
};
use crate::keyspace::{Class, LiveHash, Tx};

/// A row of this family.
const ROW: Command = Command { family: Family::Hash, keys: Keys::ONE, ..Command::BASE };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "hset",
        arity: Arity::AtLeast(4),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::UPDATE],
        run: Run::Write(hset),
        ..ROW
    },
    Command {
        name: "hmset",
        arity: Arity::AtLeast(4),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::UPDATE],
        run: Run::Write(hmset),
        ..ROW
    },
    Command {
        name: "hsetnx",
        arity: Arity::Exactly(4),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::ADD],
        run: Run::Write(hsetnx),
        ..ROW
    },
    Command { name: "hget", arity: Arity::Exactly(3), flags: &[Flag::Fast], run: Run::Read(hget), ..ROW },
    Command { name: "hmget", arity: Arity::AtLeast(3), flags: &[Flag::Fast], run: Run::Read(hmget), ..ROW },
    Command {
        name: "hgetall",
        arity: Arity::Exactly(2),
        run: Run::Read(hgetall),
        tips: &["nondeterministic_output_order"],
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "hdel",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        key_flags: &[uses::TAKE],
        run: Run::Write(hdel),
        ..ROW
    },
    Command {
        name: "hlen",
        arity: Arity::Exactly(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::LOOK],
        run: Run::Read(hlen),
        ..ROW
    },
    Command {
        name: "hkeys",
        arity: Arity::Exactly(2),
        run: Run::Read(hkeys),
        tips: &["nondeterministic_output_order"],
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "hvals",
        arity: Arity::Exactly(2),
        run: Run::Read(hvals),
        tips: &["nondeterministic_output_order"],
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "hexists",
        arity: Arity::Exactly(3),
        flags: &[Flag::Fast],
        key_flags: &[uses::LOOK],
        run: Run::Read(hexists),
        ..ROW
    },
    Command {
        name: "hstrlen",
        arity: Arity::Exactly(3),
        flags: &[Flag::Fast],
        key_flags: &[uses::LOOK],
        run: Run::Read(hstrlen),
        ..ROW
    },
    Command {
        name: "hincrby",
        arity: Arity::Exactly(4),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(hincrby),
        ..ROW
    },
    Command {
        name: "hincrbyfloat",
        arity: Arity::Exactly(4),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(hincrbyfloat),
        ..ROW
    },
    Command {
        name: "hrandfield",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Random],
        run: Run::Read(hrandfield),
        tips: &["nondeterministic_output"],
        work: Some(work::counted),
        ..ROW
    },
    Command {
        name: "hscan",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Random],
        run: Run::Read(hscan),
        work: Some(work::scanned),
        tips: &["nondeterministic_output"],
        ..ROW
    },
];

/// The value of a field of the hash that a key holds.
fn value<'t>(tx: &'t Tx, key: &[u8], field: &[u8]) -> Result<Option<&'t [u8]>, CommandError> {
    Ok(tx.hash(key)?.and_then(|hash| hash.get(field)))
}

/// Puts fields with their values. Returns how many fields are new.
fn put(tx: &mut Tx, words: &[&[u8]], command: &'static str) -> Result<usize, CommandError> {
    let key = words[1];
    let (pairs, []) = words[2..].as_chunks() else {
        return Err(CommandError::Arity(Cow::Borrowed(command)));
    };
    let hash = tx.hash(key)?;
    let (before, has_gone) = (hash.map_or(0, LiveHash::total), hash.is_some_and(LiveHash::has_gone));

    let mut renewed = 0;
    for &[field, value] in pairs {
        renewed += usize::from(has_gone && tx.hash(key)?.is_some_and(|hash| hash.is_gone(field)));
        tx.emit(Effect::HashPut { key, field, value });
    }
    tx.notify(Class::Hash, "hset", key);
    Ok(tx.hash(key)?.map_or(0, LiveHash::total) - before + renewed)
}

/// `HSET key field value [field value …]`
fn hset<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    put(tx, words, "hset").map(Reply::count)
}

/// `HMSET key field value [field value …]`
fn hmset<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    put(tx, words, "hmset").map(|_| Reply::OK)
}

/// `HSETNX key field value`
fn hsetnx<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, field) = (words[1], words[2]);
    let absent = value(tx, key, field)?.is_none();
    if absent {
        tx.emit(Effect::HashPut { key, field, value: words[3] });
        tx.notify(Class::Hash, "hset", key);
    }
    Ok(Reply::flag(absent))
}

/// `HGET key field`
fn hget<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::bulk_or_null(value(tx, words[1], words[2])?))
}

/// `HMGET key field [field …]`
fn hmget<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let hash = tx.hash(words[1])?;
    let value = |field: &&[u8]| hash.and_then(|hash| hash.get(field));
    Ok(Reply::Array(words[2..].iter().map(|field| Reply::bulk_or_null(value(field))).collect()))
}

/// All fields and values of a hash, of each of which so many parts of a reply are made.
fn pairs<'t>(
    tx: &'t Tx,
    key: &[u8],
    parts: usize,
) -> Result<impl Iterator<Item = (&'t [u8], &'t [u8])>, CommandError> {
    let hash = tx.hash(key)?;
    room_for(tx, hash.map_or(0, LiveHash::total).saturating_mul(parts))?;
    Ok(hash.into_iter().flat_map(LiveHash::iter))
}

/// `HGETALL key`
fn hgetall<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let pairs = pairs(tx, words[1], 2)?;
    Ok(Reply::Map(pairs.map(|(field, value)| (Reply::bulk(field), Reply::bulk(value))).collect()))
}

/// `HDEL key field [field …]`
fn hdel<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    tx.hash(key)?;

    let mut removed = 0;
    for &field in &words[2..] {
        removed += i64::from(take(tx, key, field)?);
    }
    if removed > 0 {
        tx.notify_taken(Class::Hash, "hdel", key);
    }
    Ok(Reply::Int(removed))
}

/// Removes a field. Returns whether it was there: one that is gone was not, but it is removed.
fn take(tx: &mut Tx, key: &[u8], field: &[u8]) -> Result<bool, CommandError> {
    let Some(hash) = tx.hash(key)? else { return Ok(false) };
    let (is_there, is_gone) = (hash.get(field).is_some(), hash.is_gone(field));
    if is_there || is_gone {
        tx.emit(Effect::HashRemove { key, field });
    }
    if is_gone {
        tx.notify_taken(Class::Hash, "hexpired", key);
    }
    Ok(is_there)
}

/// Sets a field and leaves it the deadline that it has.
fn alter(tx: &mut Tx, key: &[u8], field: &[u8], value: &[u8]) -> Result<(), CommandError> {
    let expires_at = tx.hash(key)?.and_then(|hash| hash.deadline(field));
    tx.emit(Effect::HashPut { key, field, value });
    if expires_at.is_some() {
        tx.emit(Effect::HashExpire { key, field, expires_at });
    }
    Ok(())
}

/// `HLEN key`
fn hlen<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(tx.hash(words[1])?.map_or(0, LiveHash::total)))
}

/// `HKEYS key`
fn hkeys<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let pairs = pairs(tx, words[1], 1)?;
    Ok(Reply::Array(pairs.map(|(field, _)| Reply::bulk(field)).collect()))
}

/// `HVALS key`
fn hvals<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let pairs = pairs(tx, words[1], 1)?;
    Ok(Reply::Array(pairs.map(|(_, value)| Reply::bulk(value)).collect()))
}

/// `HEXISTS key field`
fn hexists<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::flag(value(tx, words[1], words[2])?.is_some()))
}

/// `HSTRLEN key field`
fn hstrlen<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(value(tx, words[1], words[2])?.map_or(0, <[u8]>::len)))
}

/// `HINCRBY key field increment`
fn hincrby<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, field, delta) = (words[1], words[2], integer(words[3])?);
    let before = match value(tx, key, field)? {
        Some(old) => parse_integer(old).ok_or(CommandError::text("ERR hash value is not an integer"))?,
        None => 0,
    };
    let after = before.checked_add(delta).ok_or(CommandError::Overflow)?;

    alter(tx, key, field, itoa::Buffer::new().format(after).as_bytes())?;
    tx.notify(Class::Hash, "hincrby", key);
    Ok(Reply::Int(after))
}

/// `HINCRBYFLOAT key field increment`
fn hincrbyfloat<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, field) = (words[1], words[2]);
    let delta = LongDouble::parse(words[3]).ok_or(CommandError::NotFloat)?;
    if !delta.is_finite() {
        return Err(CommandError::text("ERR value is NaN or Infinity"));
    }
    let before = match value(tx, key, field)? {
        Some(old) => LongDouble::parse(old).ok_or(CommandError::text("ERR hash value is not a float"))?,
        None => LongDouble::ZERO,
    };
    let after = before.add(delta).ok_or(INFINITE)?.text();

    alter(tx, key, field, after.as_bytes())?;
    tx.notify(Class::Hash, "hincrbyfloat", key);
    Ok(Reply::text(after))
}

/// `HRANDFIELD key [count [WITHVALUES]]`
fn hrandfield<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let random = |end| tx.random_below(end);
    let [_, key, ref rest @ ..] = *words else { return Err(CommandError::Syntax) };
    let [count, ref rest @ ..] = *rest else {
        let drawn = tx.hash(key)?.and_then(|hash| hash.draw(random));
        return Ok(drawn.map_or(Reply::Null, |(field, _)| Reply::bulk(field)));
    };
    let draw = Draw::read(count)?;
    let with_values = draw.in_pairs(rest, "withvalues")?;

    let Some(hash) = tx.hash(key)? else { return Ok(Reply::Array(Vec::new())) };
    let drawn = match draw {
        Draw::Distinct(count) => hash.draw_distinct(count, random),
        Draw::Repeated(count) => {
            room_for(tx, count)?;
            hash.draw_repeated(count, random)
        }
    };
    let drawn = drawn.into_iter();
    Ok(if with_values {
        Reply::Pairs(drawn.map(|(field, value)| (Reply::bulk(field), Reply::bulk(value))).collect())
    } else {
        Reply::Array(drawn.map(|(field, _)| Reply::bulk(field)).collect())
    })
}

/// `HSCAN key cursor [MATCH pattern] [COUNT count]`
fn hscan<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let from = cursor(words[2])?;
    let Some(hash) = tx.hash(words[1])? else { return Ok(scan_reply(0, Vec::new())) };
    let options = scan_options(&words[3..], false)?;

    let (pairs, next) = hash.scan(from, options.count);
    let wanted = pairs.into_iter().filter(|(field, _)| options.matches(field));
    Ok(scan_reply(next, wanted.flat_map(|(field, value)| [Reply::bulk(field), Reply::bulk(value)]).collect()))
}
