//! Strings.

use std::borrow::Cow;

use moonraft_proto::{Effect, Reply};
use moonraft_router::Keys;

use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{TimeUnit, deadline, integer, is, parse_integer},
};
use crate::keyspace::Tx;

/// A row of this family.
const ROW: Command = Command { family: Family::String, keys: Keys::ONE, ..Command::BASE };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "get",
        arity: Arity::Exactly(2),
        flags: &[Flag::Fast],
        run: Run::Read(get),
        summary: "Returns the string value of a key.",
        ..ROW
    },
    Command {
        name: "set",
        arity: Arity::AtLeast(3),
        flags: &[Flag::DenyOom],
        run: Run::Write(set),
        summary: "Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.",
        ..ROW
    },
    Command {
        name: "incrby",
        arity: Arity::Exactly(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(incrby),
        summary: "Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
        ..ROW
    },
];

/// `GET key`
fn get<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::bulk_or_null(tx.string(words[1])?))
}

/// When `SET` sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Absent,
    Present,
}

/// What becomes of the deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expiry {
    None,
    Keep,
    At(u64),
}

struct SetOptions {
    condition: Option<Condition>,
    expiry: Expiry,
    get: bool,
}

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`
///
/// A relative time becomes a deadline here; replicas do no arithmetic.
fn set<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, value) = (words[1], words[2]);
    let options = set_options(tx, &words[3..])?;

    let old = match options.get {
        true => tx.string(key)?.map(|old| Reply::Bulk(Cow::Owned(old.to_vec()))),
        false => None,
    };
    let met = match options.condition {
        None => true,
        Some(Condition::Absent) => !tx.exists(key),
        Some(Condition::Present) => tx.exists(key),
    };
    let expires_at = match options.expiry {
        Expiry::None => None,
        Expiry::Keep => tx.deadline(key),
        Expiry::At(at) => Some(at),
    };

    if met {
        tx.emit(Effect::PutString { key, value, expires_at });
    }
    Ok(match (options.get, met) {
        (true, _) => old.unwrap_or(Reply::Null),
        (false, true) => Reply::OK,
        (false, false) => Reply::Null,
    })
}

fn set_options(tx: &Tx, words: &[&[u8]]) -> Result<SetOptions, CommandError> {
    let mut options = SetOptions { condition: None, expiry: Expiry::None, get: false };
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let condition = match () {
            () if is(word, "nx") => Some(Condition::Absent),
            () if is(word, "xx") => Some(Condition::Present),
            () => None,
        };
        if let Some(condition) = condition {
            if options.condition.is_some_and(|other| other != condition) {
                return Err(CommandError::Syntax);
            }
            options.condition = Some(condition);
        } else if is(word, "get") {
            options.get = true;
        } else if options.expiry != Expiry::None && !(is(word, "keepttl") && options.expiry == Expiry::Keep) {
            return Err(CommandError::Syntax);
        } else if is(word, "keepttl") {
            options.expiry = Expiry::Keep;
        } else {
            let time = words.get(at + 1).ok_or(CommandError::Syntax)?;
            options.expiry = Expiry::At(expiry_option(tx, word, time, "set")?);
            at += 1;
        }
        at += 1;
    }
    Ok(options)
}

/// The deadline that `EX`, `PX`, `EXAT` or `PXAT` with its number stands for.
fn expiry_option(tx: &Tx, option: &[u8], time: &[u8], command: &'static str) -> Result<u64, CommandError> {
    let (unit, relative) = match () {
        () if is(option, "ex") => (TimeUnit::Seconds, true),
        () if is(option, "px") => (TimeUnit::Milliseconds, true),
        () if is(option, "exat") => (TimeUnit::Seconds, false),
        () if is(option, "pxat") => (TimeUnit::Milliseconds, false),
        () => return Err(CommandError::Syntax),
    };
    if integer(time)? <= 0 {
        return Err(CommandError::InvalidExpire(command));
    }
    let at = deadline(time, unit, relative.then(|| tx.now_ms()), command)?;
    u64::try_from(at).map_err(|_| CommandError::InvalidExpire(command))
}

/// `INCRBY key delta`
fn incrby<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    add(tx, words[1], integer(words[2])?)
}

/// Adds to an integer. The effect carries the sum: a replica does no arithmetic.
fn add<'a>(tx: &mut Tx, key: &[u8], delta: i64) -> Outcome<'a> {
    let before = match tx.string(key)? {
        Some(old) => parse_integer(old).ok_or(CommandError::NotInteger)?,
        None => 0,
    };
    let after = before.checked_add(delta).ok_or(CommandError::Overflow)?;

    let expires_at = tx.deadline(key);
    tx.emit(Effect::PutString { key, value: itoa::Buffer::new().format(after).as_bytes(), expires_at });
    Ok(Reply::Int(after))
}
