//! `DUMP` and `RESTORE`: a value as bytes, to be carried to another server.

use moonraft_proto::{
    Reply, Weight,
    effect::{FIELD_DEADLINES_FORMAT, STREAMS_FORMAT},
    entry::FIRST_FORMAT,
};
use moonraft_router::Keys;

use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{integer, is, room_for},
    key_specs::uses,
    rdb::{self, Refusal},
    work,
};
use crate::keyspace::{Class, Object, Tx, Value, dump::dump_object};

/// Elements of a value that is restored: each is an effect, and takes its room until that is committed.
const ELEMENTS_MAX: usize = 16 << 20;

/// A row of this family.
const ROW: Command = Command { family: Family::Generic, keys: Keys::ONE, ..Command::BASE };

const RESTORE: Command = Command {
    arity: Arity::AtLeast(4),
    flags: &[Flag::DenyOom, Flag::Dangerous],
    key_flags: &[uses::STORE],
    run: Run::Write(restore),
    work: Some(work::read),
    ..ROW
};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "dump",
        arity: Arity::Exactly(2),
        run: Run::Read(dump),
        tips: &["nondeterministic_output"],
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "migrate",
        arity: Arity::AtLeast(6),
        keys: Keys::None,
        run: Run::Session(|_, _| Err(NO_MIGRATION)),
        tips: &["nondeterministic_output"],
        flags: &[Flag::Dangerous],
        ..ROW
    },
    Command { name: "restore", ..RESTORE },
    // What moves slots by hand sends it. Slots are not moved by hand, so that it is `RESTORE`.
    Command { name: "restore-asking", flags: &[Flag::DenyOom, Flag::Dangerous, Flag::Asking], ..RESTORE },
];

const NO_MIGRATION: CommandError = CommandError::text(
    "ERR MIGRATE is not supported: a node sends nothing to servers that a client names. DUMP and RESTORE carry a key to another server",
);

/// Elements that are looked at to say how large a value is.
const SAMPLES: usize = 100;

/// `DUMP key`
fn dump<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let Some(object) = tx.object(words[1]) else { return Ok(Reply::Null) };
    // A string is one text. What else there is becomes one, of about the size it has.
    if !matches!(object.value, Value::Str(_)) {
        room_for(tx, object.heap_bytes(SAMPLES) / Weight::PART_BYTES)?;
    }
    Ok(Reply::bulk(rdb::dump(&object.value)))
}

#[derive(Default)]
struct Options {
    replace: bool,
    /// The time to live is a deadline.
    absolute: bool,
    /// For how many seconds it was not used.
    idle_seconds: Option<u64>,
    /// How often it was used: only one of the two can be told.
    use_count: Option<u8>,
}

/// `RESTORE key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]`
fn restore<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    let options = options(&words[4..])?;
    if !options.replace && tx.exists(key) {
        return Err(CommandError::text("BUSYKEY Target key name already exists."));
    }
    let ttl = u64::try_from(integer(words[2])?)
        .map_err(|_| CommandError::text("ERR Invalid TTL value, must be >= 0"))?;
    let value = rdb::restore(words[3]).map_err(|refusal| match refusal {
        Refusal::Footer => CommandError::text("ERR DUMP payload version or checksum are wrong"),
        Refusal::Content => CommandError::text("ERR Bad data format"),
    })?;
    let needed = match &value {
        Value::Stream(_) => STREAMS_FORMAT,
        Value::Hash(hash) if hash.has_deadlines() => FIELD_DEADLINES_FORMAT,
        _ => FIRST_FORMAT,
    };
    if tx.keyspace().agreed_format() < needed {
        return Err(CommandError::FormatNotAgreed(needed));
    }
    if !matches!(value, Value::Str(_)) && value.len() > ELEMENTS_MAX {
        return Err(CommandError::text("ERR the value has too many elements to be restored at once"));
    }

    let expires_at = match ttl {
        0 => None,
        _ if options.absolute => Some(ttl),
        _ => Some(ttl.saturating_add(tx.now_ms())),
    };
    let gone = expires_at.is_some_and(|at| at <= tx.now_ms());

    let was_there = tx.remove(key);
    if gone && was_there {
        tx.notify(Class::Generic, "del", key);
    }
    if !gone {
        let object = Object { value, expires_at: expires_at.and_then(std::num::NonZeroU64::new) };
        dump_object(key, &object, &mut |effect| tx.emit(*effect));
        // What was there is removed first, as Redis does it.
        if was_there {
            tx.notify(Class::New, "new", key);
        }
        tx.notify(Class::Generic, "restore", key);
        if let Some(seconds) = options.idle_seconds {
            tx.set_idle(key, seconds);
        }
        if let Some(count) = options.use_count {
            tx.set_use_count(key, count);
        }
    }
    Ok(Reply::OK)
}

fn options(words: &[&[u8]]) -> Result<Options, CommandError> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if is(word, "replace") {
            options.replace = true;
        } else if is(word, "absttl") {
            options.absolute = true;
        } else if is(word, "idletime") && options.use_count.is_none() {
            let seconds = u64::try_from(integer(words.next().ok_or(CommandError::Syntax)?)?);
            let refused = |_| CommandError::text("ERR Invalid IDLETIME value, must be >= 0");
            options.idle_seconds = Some(seconds.map_err(refused)?);
        } else if is(word, "freq") && options.idle_seconds.is_none() {
            let count = u8::try_from(integer(words.next().ok_or(CommandError::Syntax)?)?);
            let refused = |_| CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255");
            options.use_count = Some(count.map_err(refused)?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(options)
}
