//! When fields of a hash go, as in Redis 7.4 and 8.
//!
//! A relative time becomes a deadline here, and a deadline that has passed a removal: replicas compare no times.

use std::borrow::Cow;

use moonraft_proto::{Effect, Reply, effect::FIELD_DEADLINES_FORMAT};

use super::{
    super::{
        Arity, Command, CommandError, Flag, Outcome, Run,
        arguments::{TimeUnit, deadline, integer, is, parse_integer, time_option},
        key_specs::uses,
    },
    ROW, alter, take,
};
use crate::keyspace::{Class, Tx};

/// The last moment at which a field may go, Unix milliseconds, as in Redis: in the year 4199.
pub const FIELD_DEADLINE_MAX: u64 = (1 << 46) - 1;

/// A row that tells when fields go.
const TELLS: Command = Command { arity: Arity::AtLeast(5), flags: &[Flag::Fast], ..ROW };

/// A row that says when fields go.
const SETS: Command =
    Command { arity: Arity::AtLeast(6), key_flags: &[uses::UPDATE], format: FIELD_DEADLINES_FORMAT, ..TELLS };

/// The reply shrinks while time goes by.
const VARIES: &[&str] = &["nondeterministic_output"];

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "hexpire",
        run: Run::Write(|tx, words| expire(tx, words, TimeUnit::Seconds, true, "hexpire")),
        ..SETS
    },
    Command {
        name: "hpexpire",
        run: Run::Write(|tx, words| expire(tx, words, TimeUnit::Milliseconds, true, "hpexpire")),
        ..SETS
    },
    Command {
        name: "hexpireat",
        run: Run::Write(|tx, words| expire(tx, words, TimeUnit::Seconds, false, "hexpireat")),
        ..SETS
    },
    Command {
        name: "hpexpireat",
        run: Run::Write(|tx, words| expire(tx, words, TimeUnit::Milliseconds, false, "hpexpireat")),
        ..SETS
    },
    Command {
        name: "httl",
        run: Run::Read(|tx, words| tell(tx, words, |at, now_ms| seconds(at.saturating_sub(now_ms)))),
        tips: VARIES,
        ..TELLS
    },
    Command {
        name: "hpttl",
        run: Run::Read(|tx, words| tell(tx, words, u64::saturating_sub)),
        tips: VARIES,
        ..TELLS
    },
    Command {
        name: "hexpiretime",
        run: Run::Read(|tx, words| tell(tx, words, |at, _| seconds(at))),
        ..TELLS
    },
    Command { name: "hpexpiretime", run: Run::Read(|tx, words| tell(tx, words, |at, _| at)), ..TELLS },
    Command { name: "hpersist", run: Run::Write(persist), key_flags: &[uses::UPDATE], ..TELLS },
    Command {
        name: "hgetex",
        run: Run::Write(hgetex),
        key_flags: &[uses::CHANGE],
        format: FIELD_DEADLINES_FORMAT,
        ..TELLS
    },
    Command { name: "hsetex", flags: &[Flag::DenyOom, Flag::Fast], run: Run::Write(hsetex), ..SETS },
    Command { name: "hgetdel", run: Run::Write(hgetdel), key_flags: &[uses::MOVE], ..TELLS },
];

const FIELDS_MISSING: CommandError =
    CommandError::text("ERR Mandatory argument FIELDS is missing or not at the right position");
const NOT_AS_MANY: CommandError =
    CommandError::text("ERR The `numfields` parameter must match the number of arguments");
const NO_COUNT: CommandError = CommandError::text("ERR Number of fields must be a positive integer");

/// The fields that stand behind `FIELDS` and their number; that is all of `words`. `no_count` is the refusal of a number
/// that is none.
fn fields<'w, 'a>(words: &'w [&'a [u8]], no_count: CommandError) -> Result<&'w [&'a [u8]], CommandError> {
    let [token, count, fields @ ..] = words else { return Err(FIELDS_MISSING) };
    if !is(token, "fields") {
        return Err(FIELDS_MISSING);
    }
    let count = parse_integer(count).filter(|&count| count > 0).ok_or(no_count)?;
    match usize::try_from(count) == Ok(fields.len()) {
        true => Ok(fields),
        false => Err(NOT_AS_MANY),
    }
}

/// The deadline that a number stands for; `command` is named in the error.
fn moment(
    tx: &Tx,
    number: &[u8],
    unit: TimeUnit,
    relative: bool,
    command: &'static str,
) -> Result<u64, CommandError> {
    if integer(number)? < 0 {
        return Err(CommandError::text("ERR invalid expire time, must be >= 0"));
    }
    let at = deadline(number, unit, relative.then(|| tx.now_ms()), command)?;
    u64::try_from(at).ok().filter(|&at| at <= FIELD_DEADLINE_MAX).ok_or(CommandError::InvalidExpire(command))
}

/// Gives a field that is there this deadline, or removes it if that has passed. Returns whether it was removed.
fn set_deadline(tx: &mut Tx, key: &[u8], field: &[u8], at: u64) -> bool {
    let is_past = at <= tx.now_ms();
    tx.emit(match is_past {
        true => Effect::HashRemove { key, field },
        false => Effect::HashExpire { key, field, expires_at: Some(at) },
    });
    is_past
}

/// On what condition a deadline is set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// It is later; none is later than any.
    Later,
    /// It is sooner.
    Sooner,
}

impl Condition {
    fn read(word: &[u8]) -> Option<Self> {
        match () {
            () if is(word, "nx") => Some(Self::Absent),
            () if is(word, "xx") => Some(Self::Present),
            () if is(word, "gt") => Some(Self::Later),
            () if is(word, "lt") => Some(Self::Sooner),
            () => None,
        }
    }

    fn is_met(self, before: Option<u64>, after: u64) -> bool {
        match self {
            Self::Absent => before.is_none(),
            Self::Present => before.is_some(),
            Self::Later => before.is_some_and(|before| after > before),
            Self::Sooner => before.is_none_or(|before| after < before),
        }
    }
}

/// There is no such field, or no such key; the field stays.
const MISSING: i64 = -2;
const FOREVER: i64 = -1;

/// What became of a field: its deadline was not set, was set, or had passed.
const NOT_MET: i64 = 0;
const SET: i64 = 1;
const REMOVED: i64 = 2;

/// `HEXPIRE key seconds [NX | XX | GT | LT] FIELDS numfields field [field …]`, `HPEXPIRE`, `HEXPIREAT`, `HPEXPIREAT`
fn expire<'a>(
    tx: &mut Tx,
    words: &[&'a [u8]],
    unit: TimeUnit,
    relative: bool,
    command: &'static str,
) -> Outcome<'a> {
    let key = words[1];
    tx.hash(key)?;
    let after = moment(tx, words[2], unit, relative, command)?;
    let condition = Condition::read(words[3]);
    let behind = 3 + usize::from(condition.is_some());
    let fields =
        fields(&words[behind..], CommandError::text("ERR Parameter `numFields` should be greater than 0"))?;

    let became = fields.iter().map(|field| {
        let Some(hash) = tx.hash(key)?.filter(|hash| hash.get(field).is_some()) else {
            take(tx, key, field)?;
            return Ok(MISSING);
        };
        if condition.is_some_and(|condition| !condition.is_met(hash.deadline(field), after)) {
            return Ok(NOT_MET);
        }
        let is_removed = set_deadline(tx, key, field, after);
        Ok(if is_removed { REMOVED } else { SET })
    });
    let became = became.collect::<Result<Vec<i64>, CommandError>>()?;
    if became.iter().any(|&it| it == SET || it == REMOVED) {
        notify_deadline(tx, key, after);
    }
    Ok(Reply::Array(became.into_iter().map(Reply::Int).collect()))
}

/// Fields of this key were given a deadline, or removed as it had passed.
fn notify_deadline(tx: &Tx, key: &[u8], at: u64) {
    match at <= tx.now_ms() {
        true => tx.notify_taken(Class::Hash, "hdel", key),
        false => tx.notify(Class::Hash, "hexpire", key),
    }
}

/// Milliseconds as seconds; of one that has begun all.
const fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000)
}

/// `HTTL key FIELDS numfields field [field …]`, `HPTTL`, `HEXPIRETIME`, `HPEXPIRETIME`
fn tell<'a>(tx: &'a Tx, words: &[&'a [u8]], shown: fn(u64, u64) -> u64) -> Outcome<'a> {
    let hash = tx.hash(words[1])?;
    let fields = fields(&words[2..], NO_COUNT)?;

    let told = fields.iter().map(|field| match hash.filter(|hash| hash.get(field).is_some()) {
        None => MISSING,
        Some(hash) => hash.deadline(field).map_or(FOREVER, |at| shown(at, tx.now_ms()) as i64),
    });
    Ok(Reply::Array(told.map(Reply::Int).collect()))
}

/// `HPERSIST key FIELDS numfields field [field …]`
fn persist<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    tx.hash(key)?;
    let fields = fields(&words[2..], NO_COUNT)?;

    let became = fields.iter().map(|field| {
        let Some(hash) = tx.hash(key)?.filter(|hash| hash.get(field).is_some()) else {
            take(tx, key, field)?;
            return Ok(MISSING);
        };
        if hash.deadline(field).is_none() {
            return Ok(FOREVER);
        }
        tx.emit(Effect::HashExpire { key, field, expires_at: None });
        Ok(SET)
    });
    let became = became.collect::<Result<Vec<i64>, CommandError>>()?;
    if became.contains(&SET) {
        tx.notify(Class::Hash, "hpersist", key);
    }
    Ok(Reply::Array(became.into_iter().map(Reply::Int).collect()))
}

/// `HGETDEL key FIELDS numfields field [field …]`
fn hgetdel<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    tx.hash(key)?;
    let fields = fields(&words[2..], NO_COUNT)?;

    let mut is_taken = false;
    let values = fields.iter().map(|field| {
        let value = owned(tx, key, field)?;
        is_taken |= take(tx, key, field)?;
        Ok(value)
    });
    let values = values.collect::<Result<_, CommandError>>()?;
    if is_taken {
        tx.notify_taken(Class::Hash, "hdel", key);
    }
    Ok(Reply::Array(values))
}

/// The value of a field, which may change then.
fn owned(tx: &Tx, key: &[u8], field: &[u8]) -> Result<Reply<'static>, CommandError> {
    let value = super::value(tx, key, field)?;
    Ok(value.map_or(Reply::Null, |value| Reply::Bulk(Cow::Owned(value.to_vec()))))
}

/// What becomes of the deadlines of fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// They are this.
    At(u64),
    /// There are none.
    None,
    /// They stay.
    Keep,
}

/// `HGETEX key [EX seconds | PX ms | EXAT time | PXAT time | PERSIST] FIELDS numfields field [field …]`
fn hgetex<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    const COMMAND: &str = "hgetex";
    let key = words[1];
    tx.hash(key)?;
    let (expiry, behind) = match time_option(words[2]) {
        Some((unit, relative)) => (Expiry::At(moment(tx, words[3], unit, relative, COMMAND)?), 4),
        None if is(words[2], "persist") => (Expiry::None, 3),
        None => (Expiry::Keep, 2),
    };
    if words.len() < behind + 2 {
        return Err(CommandError::Arity(Cow::Borrowed(COMMAND)));
    }
    let fields = fields(&words[behind..], NO_COUNT)?;

    let mut has_changed = false;
    let values = fields.iter().map(|field| {
        let value = owned(tx, key, field)?;
        let Some(hash) = tx.hash(key)?.filter(|hash| hash.get(field).is_some()) else {
            take(tx, key, field)?;
            return Ok(value);
        };
        let has_deadline = hash.deadline(field).is_some();
        match expiry {
            Expiry::At(at) => drop(set_deadline(tx, key, field, at)),
            Expiry::None if has_deadline => tx.emit(Effect::HashExpire { key, field, expires_at: None }),
            Expiry::None | Expiry::Keep => return Ok(value),
        }
        has_changed = true;
        Ok(value)
    });
    let values = values.collect::<Result<_, CommandError>>()?;
    match expiry {
        Expiry::At(at) if has_changed => notify_deadline(tx, key, at),
        Expiry::None if has_changed => tx.notify(Class::Hash, "hpersist", key),
        _ => {}
    }
    Ok(Reply::Array(values))
}

/// What `HSETEX` is told.
struct SetOptions<'w, 'a> {
    /// All fields have to be there, or none of them.
    present: Option<bool>,
    expiry: Expiry,
    pairs: &'w [[&'a [u8]; 2]],
}

impl<'w, 'a> SetOptions<'w, 'a> {
    fn read(tx: &Tx, words: &'w [&'a [u8]]) -> Result<Self, CommandError> {
        const COMMAND: &str = "hsetex";
        const ONE_CONDITION: CommandError =
            CommandError::text("ERR Only one of FXX or FNX arguments can be specified");
        const ONE_EXPIRY: CommandError =
            CommandError::text("ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified");
        const BAD_ARITY: CommandError = CommandError::Arity(Cow::Borrowed(COMMAND));
        let (mut present, mut expiry, mut rest) = (None, None, words);
        while let [word, behind @ ..] = rest {
            rest = behind;
            let time = time_option(word);
            if is(word, "fields") {
                let [count, behind @ ..] = rest else { return Err(BAD_ARITY) };
                let count = parse_integer(count).filter(|&count| count > 0);
                let count = count.ok_or(CommandError::text("ERR invalid number of fields"))?;
                let (pairs, []) = behind.as_chunks() else { return Err(BAD_ARITY) };
                return match usize::try_from(count) == Ok(pairs.len()) {
                    true => Ok(Self { present, expiry: expiry.unwrap_or(Expiry::None), pairs }),
                    false => Err(BAD_ARITY),
                };
            } else if is(word, "fnx") || is(word, "fxx") {
                if present.replace(is(word, "fxx")).is_some() {
                    return Err(ONE_CONDITION);
                }
            } else if time.is_some() || is(word, "keepttl") {
                if expiry.is_some() {
                    return Err(ONE_EXPIRY);
                }
                let Some((unit, relative)) = time else {
                    expiry = Some(Expiry::Keep);
                    continue;
                };
                let [number, behind @ ..] = rest else { return Err(BAD_ARITY) };
                rest = behind;
                expiry = Some(Expiry::At(moment(tx, number, unit, relative, COMMAND)?));
            } else {
                return Err(CommandError::about("ERR unknown argument: ", word, ""));
            }
        }
        Err(BAD_ARITY)
    }
}

/// `HSETEX key [FNX | FXX] [EX seconds | PX ms | EXAT time | PXAT time | KEEPTTL] FIELDS numfields field value
/// [field value …]`
fn hsetex<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    let SetOptions { present, expiry, pairs } = SetOptions::read(tx, &words[2..])?;

    let hash = tx.hash(key)?;
    let is_there = |field: &[u8]| hash.is_some_and(|hash| hash.get(field).is_some());
    if present.is_some_and(|present| pairs.iter().any(|[field, _]| is_there(field) != present)) {
        return Ok(Reply::Int(NOT_MET));
    }

    for &[field, value] in pairs {
        match expiry {
            Expiry::At(at) if at <= tx.now_ms() => drop(take(tx, key, field)?),
            Expiry::At(at) => {
                tx.emit(Effect::HashPut { key, field, value });
                tx.emit(Effect::HashExpire { key, field, expires_at: Some(at) });
            }
            Expiry::None => tx.emit(Effect::HashPut { key, field, value }),
            Expiry::Keep => alter(tx, key, field, value)?,
        }
    }
    tx.notify(Class::Hash, "hset", key);
    if let Expiry::At(at) = expiry {
        notify_deadline(tx, key, at);
    }
    Ok(Reply::Int(SET))
}
