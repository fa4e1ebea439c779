//! Strings.

pub mod conditional;
mod options;

use std::{borrow::Cow, ops::Range};

use moonraft_proto::{Effect, Reply};
use moonraft_router::Keys;

use self::{
    conditional::Comparison,
    options::{Condition, Deadline, Expiry, Form, Options, moment},
};
use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Request, Run,
    arguments::{TimeUnit, integer, is},
    key_specs::{KeyFlag, uses},
    long_double::LongDouble,
    work,
};
use crate::keyspace::{Class, Keyspace, Tx, Value};

/// Bytes of a string at most: `proto-max-bulk-len`, which no request passes either.
pub(super) const STRING_BYTES_MAX: usize = 512 << 20;

/// A row of this family.
const ROW: Command = Command { family: Family::String, keys: Keys::ONE, ..Command::BASE };

/// Every other word, each followed by its value.
const KEYS_WITH_VALUES: Keys = Keys::Range { first: 1, last: -1, step: 2 };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "get", arity: Arity::Exactly(2), flags: &[Flag::Fast], run: Run::Read(get), ..ROW },
    Command {
        name: "set",
        arity: Arity::AtLeast(3),
        flags: &[Flag::DenyOom],
        key_flags: &[&[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update, KeyFlag::Variable]],
        narrowed_key_flags: Some(|words| {
            let options = words.get(3..).unwrap_or_default();
            match () {
                () if options.iter().any(|word| is(word, "get")) => uses::CHANGE,
                () if options.iter().any(|word| Comparison::is_one(word)) => uses::UPDATE,
                () => uses::STORE,
            }
        }),
        run: Run::Write(set),
        work: Some(set_work),
        ..ROW
    },
    Command {
        name: "setnx",
        arity: Arity::Exactly(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[&[KeyFlag::Overwrite, KeyFlag::Insert]],
        run: Run::Write(setnx),
        work: Some(work::brought),
        ..ROW
    },
    Command {
        name: "setex",
        arity: Arity::Exactly(4),
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE],
        run: Run::Write(setex),
        work: Some(work::brought),
        ..ROW
    },
    Command {
        name: "psetex",
        arity: Arity::Exactly(4),
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE],
        run: Run::Write(psetex),
        work: Some(work::brought),
        ..ROW
    },
    Command {
        name: "getset",
        arity: Arity::Exactly(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(getset),
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "getdel",
        arity: Arity::Exactly(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::MOVE],
        run: Run::Write(getdel),
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "getex",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Fast],
        run: Run::Write(getex),
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "mget",
        arity: Arity::AtLeast(2),
        keys: Keys::ALL,
        flags: &[Flag::Fast],
        run: Run::Read(mget),
        tips: &["request_policy:multi_shard"],
        ..ROW
    },
    Command {
        name: "mset",
        arity: Arity::AtLeast(3),
        keys: KEYS_WITH_VALUES,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE],
        run: Run::Write(mset),
        work: Some(work::brought),
        tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
        ..ROW
    },
    Command {
        name: "msetnx",
        arity: Arity::AtLeast(3),
        keys: KEYS_WITH_VALUES,
        flags: &[Flag::DenyOom],
        key_flags: &[&[KeyFlag::Overwrite, KeyFlag::Insert]],
        run: Run::Write(msetnx),
        work: Some(work::brought),
        tips: &["request_policy:multi_shard", "response_policy:agg_min"],
        ..ROW
    },
    Command {
        name: "append",
        arity: Arity::Exactly(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::ADD],
        run: Run::Write(append),
        work: Some(work::appended),
        ..ROW
    },
    Command {
        name: "strlen",
        arity: Arity::Exactly(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::LOOK],
        run: Run::Read(strlen),
        ..ROW
    },
    Command {
        name: "incr",
        arity: Arity::Exactly(2),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(incr),
        ..ROW
    },
    Command {
        name: "decr",
        arity: Arity::Exactly(2),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(decr),
        ..ROW
    },
    Command {
        name: "incrby",
        arity: Arity::Exactly(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(incrby),
        ..ROW
    },
    Command {
        name: "decrby",
        arity: Arity::Exactly(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(decrby),
        ..ROW
    },
    Command {
        name: "incrbyfloat",
        arity: Arity::Exactly(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(incrbyfloat),
        ..ROW
    },
    Command { name: "getrange", arity: Arity::Exactly(4), run: Run::Read(getrange), ..ROW },
    Command { name: "substr", arity: Arity::Exactly(4), run: Run::Read(getrange), ..ROW },
    Command {
        name: "setrange",
        arity: Arity::Exactly(4),
        flags: &[Flag::DenyOom],
        key_flags: &[uses::UPDATE],
        run: Run::Write(setrange),
        work: Some(work::grown_to_byte),
        ..ROW
    },
];

/// `GET key`
fn get<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::bulk_or_null(tx.string(words[1])?))
}

/// What it brings, what it asks for, and what it takes a digest of.
fn set_work(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    work::brought_or_got(keyspace, request) + conditional::digested(keyspace, request)
}

/// `SET key value [NX | XX | IFEQ v | IFNE v | IFDEQ digest | IFDNE digest] [GET]
/// [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`
fn set<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, value) = (words[1], words[2]);
    let options = Options::read(&words[3..], Form::Set)?;
    let expires_at = options.deadline(tx, "set")?;

    if options.get {
        tx.tell_misses([key]);
    }
    let old = if options.get { tx.string(key)?.map(<[u8]>::to_vec) } else { None };
    let met = match options.condition {
        None => true,
        Some(Condition::Absent) => !tx.exists(key),
        Some(Condition::Present) => tx.exists(key),
        Some(Condition::Compared(comparison)) => match tx.string(key)? {
            Some(held) => comparison.holds(held)?,
            None => !comparison.wants_equal(),
        },
    };

    if met {
        put(tx, key, value, expires_at);
    }
    Ok(match (options.get, met) {
        (true, _) => old.map_or(Reply::Null, Reply::bulk),
        (false, true) => Reply::OK,
        (false, false) => Reply::Null,
    })
}

/// Makes `key` hold `value`, unless it would be gone at once: then it is told to have been there, as it is in Redis until
/// somebody looks.
fn put(tx: &mut Tx, key: &[u8], value: &[u8], deadline: Deadline) {
    let expires_at = deadline.of(tx, key);
    let is_over = expires_at.is_some_and(|at| at <= tx.now_ms());
    if !is_over {
        tx.emit(Effect::PutString { key, value, expires_at });
    } else if !tx.remove(key) {
        tx.notify(Class::New, "new", key);
    }
    tx.notify(Class::String, "set", key);
    if deadline.is_new() {
        tx.notify(Class::Generic, "expire", key);
    }
    if is_over {
        tx.notify(Class::Expired, "expired", key);
    }
}

/// `SETNX key value`
fn setnx<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, value) = (words[1], words[2]);
    let absent = !tx.exists(key);
    if absent {
        put(tx, key, value, Deadline::Is(None));
    }
    Ok(Reply::flag(absent))
}

/// `SETEX key seconds value`
fn setex<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let expires_at = moment(tx, TimeUnit::Seconds, true, words[2], "setex")?;
    put(tx, words[1], words[3], Deadline::Is(Some(expires_at)));
    Ok(Reply::OK)
}

/// `PSETEX key milliseconds value`
fn psetex<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let expires_at = moment(tx, TimeUnit::Milliseconds, true, words[2], "psetex")?;
    put(tx, words[1], words[3], Deadline::Is(Some(expires_at)));
    Ok(Reply::OK)
}

/// The string a key holds, as a reply that outlives a change of it.
fn old_value(tx: &Tx, key: &[u8]) -> Outcome<'static> {
    tx.tell_misses([key]);
    Ok(tx.string(key)?.map_or(Reply::Null, |old| Reply::bulk(old.to_vec())))
}

/// `GETSET key value`
fn getset<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, value) = (words[1], words[2]);
    let old = old_value(tx, key)?;
    put(tx, key, value, Deadline::Is(None));
    Ok(old)
}

/// `GETDEL key`
fn getdel<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let old = old_value(tx, words[1])?;
    tx.remove_telling("del", words[1]);
    Ok(old)
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`
fn getex<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    let options = Options::read(&words[2..], Form::GetEx)?;
    let old = old_value(tx, key)?;
    if old == Reply::Null {
        return Ok(old);
    }
    let before = tx.deadline(key);
    let expires_at = match options.expiry {
        None | Some(Expiry::Keep) => before,
        Some(Expiry::Clear) => None,
        Some(Expiry::Time { unit, relative, number }) => Some(moment(tx, unit, relative, number, "getex")?),
    };

    if expires_at.is_some_and(|at| at <= tx.now_ms()) {
        tx.remove_telling("del", key);
    } else {
        if expires_at != before {
            tx.emit(Effect::SetExpiry { key, expires_at });
        }
        match options.expiry {
            Some(Expiry::Time { .. }) => tx.notify(Class::Generic, "expire", key),
            Some(Expiry::Clear) if before.is_some() => tx.notify(Class::Generic, "persist", key),
            _ => {}
        }
    }
    Ok(old)
}

/// `MGET key [key …]`
fn mget<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let values = words[1..].iter().map(|key| match tx.value(key) {
        Some(Value::Str(string)) => Reply::bulk(string.as_slice()),
        _ => Reply::Null,
    });
    Ok(Reply::Array(values.collect()))
}

/// Keys with their values; `command` is named when the last has none.
fn pairs<'w, 'a>(words: &'w [&'a [u8]], command: &'static str) -> Result<&'w [[&'a [u8]; 2]], CommandError> {
    match words.as_chunks() {
        (pairs, []) => Ok(pairs),
        _ => Err(CommandError::Arity(Cow::Borrowed(command))),
    }
}

/// `MSET key value [key value …]`
fn mset<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    for &[key, value] in pairs(&words[1..], "mset")? {
        put(tx, key, value, Deadline::Is(None));
    }
    Ok(Reply::OK)
}

/// `MSETNX key value [key value …]`
fn msetnx<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let pairs = pairs(&words[1..], "msetnx")?;
    if pairs.iter().any(|[key, _]| tx.exists(key)) {
        return Ok(Reply::Int(0));
    }
    for &[key, value] in pairs {
        put(tx, key, value, Deadline::Is(None));
    }
    Ok(Reply::Int(1))
}

/// `APPEND key value`
fn append<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, bytes) = (words[1], words[2]);
    let before = tx.string(key)?.map(<[u8]>::len);
    let length = before.unwrap_or(0) + bytes.len();
    if length > STRING_BYTES_MAX {
        return Err(CommandError::TooLong);
    }
    // An empty string comes into being all the same.
    match before {
        Some(_) if bytes.is_empty() => tx.touch(key),
        _ => tx.emit(Effect::PatchString { key, offset: before.unwrap_or(0) as u64, bytes }),
    }
    tx.notify(Class::String, "append", key);
    Ok(Reply::count(length))
}

/// `STRLEN key`
fn strlen<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(tx.string(words[1])?.map_or(0, <[u8]>::len)))
}

/// `INCR key`
fn incr<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    add(tx, words[1], 1)
}

/// `DECR key`
fn decr<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    add(tx, words[1], -1)
}

/// `INCRBY key increment`
fn incrby<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    add(tx, words[1], integer(words[2])?)
}

/// `DECRBY key decrement`
fn decrby<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let delta = integer(words[2])?.checked_neg();
    add(tx, words[1], delta.ok_or(CommandError::text("ERR decrement would overflow"))?)
}

/// The string a key holds and its deadline, found in one look-up.
fn string_and_deadline<'t>(tx: &'t Tx, key: &[u8]) -> Result<(Option<&'t [u8]>, Option<u64>), CommandError> {
    match tx.object(key).map(|object| (&object.value, object.deadline())) {
        None => Ok((None, None)),
        Some((Value::Str(string), expires_at)) => Ok((Some(string), expires_at)),
        Some(_) => Err(CommandError::WrongType),
    }
}

/// Adds to an integer. The effect carries the sum: a replica does no arithmetic.
fn add<'a>(tx: &mut Tx, key: &[u8], delta: i64) -> Outcome<'a> {
    let (old, expires_at) = string_and_deadline(tx, key)?;
    let before = old.map_or(Ok(0), integer)?;
    let after = before.checked_add(delta).ok_or(CommandError::Overflow)?;

    tx.emit(Effect::PutString { key, value: itoa::Buffer::new().format(after).as_bytes(), expires_at });
    tx.notify(Class::String, "incrby", key);
    Ok(Reply::Int(after))
}

/// `INCRBYFLOAT key increment`
fn incrbyfloat<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    let (old, expires_at) = string_and_deadline(tx, key)?;
    let number = |word: &[u8]| LongDouble::parse(word).ok_or(CommandError::NotFloat);
    let before = old.map_or(Ok(LongDouble::ZERO), number)?;
    let after = before.add(number(words[2])?).ok_or(INFINITE)?.text();

    tx.emit(Effect::PutString { key, value: after.as_bytes(), expires_at });
    tx.notify(Class::String, "incrbyfloat", key);
    Ok(Reply::text(after))
}

/// A sum of two numbers is none.
pub(super) const INFINITE: CommandError = CommandError::text("ERR increment would produce NaN or Infinity");

/// The positions from `start` to `end`, negative ones counted from behind, as
/// far as there are any of `length`.
pub(super) fn clamp(start: i64, end: i64, length: usize) -> Option<Range<usize>> {
    let from_behind = |at: i64| if at < 0 { at.saturating_add_unsigned(length as u64) } else { at };
    let start = usize::try_from(from_behind(start)).unwrap_or(0);
    let end = usize::try_from(from_behind(end)).unwrap_or(0).min(length.checked_sub(1)?);
    (start <= end).then_some(start..end + 1)
}

/// `GETRANGE key start end`, `SUBSTR key start end`
fn getrange<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (start, end) = (integer(words[2])?, integer(words[3])?);
    let string = tx.string(words[1])?.unwrap_or_default();
    let backwards = start < 0 && end < 0 && start > end;
    let range = clamp(start, end, string.len()).filter(|_| !backwards);
    Ok(Reply::bulk(&string[range.unwrap_or(0..0)]))
}

/// `SETRANGE key offset value`
fn setrange<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, bytes) = (words[1], words[3]);
    let offset =
        usize::try_from(integer(words[2])?).map_err(|_| CommandError::text("ERR offset is out of range"))?;
    let length = tx.string(key)?.map_or(0, <[u8]>::len);
    if bytes.is_empty() {
        return Ok(Reply::count(length));
    }
    let end = offset.saturating_add(bytes.len());
    if end > STRING_BYTES_MAX {
        return Err(CommandError::TooLong);
    }

    tx.emit(Effect::PatchString { key, offset: offset as u64, bytes });
    tx.notify(Class::String, "setrange", key);
    Ok(Reply::count(length.max(end)))
}
