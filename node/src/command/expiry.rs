//! When keys go.
//!
//! A relative time becomes a deadline here, and a deadline that has passed a
//! removal: replicas compare no times.

use moonraft_proto::{Effect, Reply};
use moonraft_router::Keys;

use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{TimeUnit, deadline, is},
    key_specs::uses,
};
use crate::keyspace::{Class, Tx};

const FAST: &[Flag] = &[Flag::Fast];

/// A row that tells a deadline.
const TELLS: Command = Command {
    family: Family::Generic,
    arity: Arity::Exactly(2),
    keys: Keys::ONE,
    flags: &[Flag::Fast, Flag::Untouching],
    ..Command::BASE
};

/// A row that sets one.
const SETS: Command = Command { arity: Arity::AtLeast(3), key_flags: &[uses::UPDATE], flags: FAST, ..TELLS };

/// The reply shrinks while time goes by.
const VARIES: &[&str] = &["nondeterministic_output"];

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "expire",
        run: Run::Write(|tx, words| expire(tx, words, TimeUnit::Seconds, true, "expire")),
        ..SETS
    },
    Command {
        name: "pexpire",
        run: Run::Write(|tx, words| expire(tx, words, TimeUnit::Milliseconds, true, "pexpire")),
        ..SETS
    },
    Command {
        name: "expireat",
        run: Run::Write(|tx, words| expire(tx, words, TimeUnit::Seconds, false, "expireat")),
        ..SETS
    },
    Command {
        name: "pexpireat",
        run: Run::Write(|tx, words| expire(tx, words, TimeUnit::Milliseconds, false, "pexpireat")),
        ..SETS
    },
    Command {
        name: "ttl",
        run: Run::Read(|tx, words| left(tx, words, TimeUnit::Seconds)),
        tips: VARIES,
        ..TELLS
    },
    Command {
        name: "pttl",
        run: Run::Read(|tx, words| left(tx, words, TimeUnit::Milliseconds)),
        tips: VARIES,
        ..TELLS
    },
    Command { name: "expiretime", run: Run::Read(|tx, words| moment(tx, words, TimeUnit::Seconds)), ..TELLS },
    Command {
        name: "pexpiretime",
        run: Run::Read(|tx, words| moment(tx, words, TimeUnit::Milliseconds)),
        ..TELLS
    },
    Command { name: "persist", arity: Arity::Exactly(2), run: Run::Write(persist), ..SETS },
];

/// On what condition a deadline is set.
#[derive(Clone, Copy, Default)]
struct Conditions {
    /// There is none.
    absent: bool,
    /// There is one.
    present: bool,
    /// It is later; none is later than any.
    later: bool,
    /// It is sooner.
    sooner: bool,
}

impl Conditions {
    fn read(words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut conditions = Self::default();
        for word in words {
            let named = match () {
                () if is(word, "nx") => &mut conditions.absent,
                () if is(word, "xx") => &mut conditions.present,
                () if is(word, "gt") => &mut conditions.later,
                () if is(word, "lt") => &mut conditions.sooner,
                () => return Err(CommandError::about("ERR Unsupported option ", word, "")),
            };
            *named = true;
        }
        if conditions.absent && (conditions.present || conditions.later || conditions.sooner) {
            return Err(CommandError::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if conditions.later && conditions.sooner {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    fn are_met(self, before: Option<u64>, after: i64) -> bool {
        let before = before.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        !(self.absent && before.is_some()
            || self.present && before.is_none()
            || self.later && before.is_none_or(|before| after <= before)
            || self.sooner && before.is_some_and(|before| after >= before))
    }
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`, `PEXPIRE`, `EXPIREAT`, `PEXPIREAT`
fn expire<'a>(
    tx: &mut Tx,
    words: &[&'a [u8]],
    unit: TimeUnit,
    relative: bool,
    command: &'static str,
) -> Outcome<'a> {
    let key = words[1];
    let conditions = Conditions::read(&words[3..])?;
    let after = deadline(words[2], unit, relative.then(|| tx.now_ms()), command)?;

    let met = tx.exists(key) && conditions.are_met(tx.deadline(key), after);
    let future = u64::try_from(after).ok().filter(|&at| at > tx.now_ms());

    if met {
        tx.emit(match future {
            Some(_) => Effect::SetExpiry { key, expires_at: future },
            None => Effect::Remove { key },
        });
        tx.notify(Class::Generic, if future.is_some() { "expire" } else { "del" }, key);
    }
    Ok(Reply::flag(met))
}

/// No such key; a key that stays.
const MISSING: Reply<'static> = Reply::Int(-2);
const FOREVER: Reply<'static> = Reply::Int(-1);

/// `TTL key`, `PTTL key`
fn left<'a>(tx: &'a Tx, words: &[&'a [u8]], unit: TimeUnit) -> Outcome<'a> {
    let Some(object) = tx.object(words[1]) else { return Ok(MISSING) };
    let Some(at) = object.deadline() else { return Ok(FOREVER) };

    let milliseconds = at.saturating_sub(tx.now_ms());
    Ok(Reply::Int(match unit {
        // Redis rounds to the nearest second here.
        TimeUnit::Seconds => (milliseconds.saturating_add(500) / 1000) as i64,
        TimeUnit::Milliseconds => milliseconds as i64,
    }))
}

/// `EXPIRETIME key`, `PEXPIRETIME key`
fn moment<'a>(tx: &'a Tx, words: &[&'a [u8]], unit: TimeUnit) -> Outcome<'a> {
    let Some(object) = tx.object(words[1]) else { return Ok(MISSING) };
    let Some(at) = object.deadline() else { return Ok(FOREVER) };

    Ok(Reply::Int(match unit {
        TimeUnit::Seconds => (at.saturating_add(500) / 1000) as i64,
        TimeUnit::Milliseconds => at as i64,
    }))
}

/// `PERSIST key`
fn persist<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    let expires = tx.deadline(key).is_some();

    if expires {
        tx.emit(Effect::SetExpiry { key, expires_at: None });
        tx.notify(Class::Generic, "persist", key);
    }
    Ok(Reply::flag(expires))
}
