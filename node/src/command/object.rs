//! Looking at keys and the data as an operator does: `OBJECT`, `DEBUG`.

use moonraft_proto::Reply;
use moonraft_router::Keys;

use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run, arguments::parse_integer, debug,
    key_specs::uses, rdb, work,
};
use crate::keyspace::{
    Tx, Value,
    digest::{entry_digest_of, hex},
};

/// A row with subcommands.
const CONTAINER: Command = Command { arity: Arity::AtLeast(2), ..Command::BASE };

/// A subcommand that looks at one key.
const LOOKS: Command = Command {
    arity: Arity::Exactly(3),
    keys: Keys::Range { first: 2, last: 2, step: 1 },
    key_flags: &[uses::LOOK],
    flags: &[Flag::Untouching, Flag::Unheard],
    ..Command::BASE
};

const OBJECT: Command =
    Command { parent: Some("object"), family: Family::Generic, tips: &["nondeterministic_output"], ..LOOKS };

const HELP: Command =
    Command { name: "help", arity: Arity::Exactly(2), flags: &[Flag::Stale], ..Command::BASE };

const DEBUG: Command = Command {
    parent: Some("debug"),
    family: Family::Server,
    flags: &[Flag::Admin, Flag::NoScript, Flag::Untouching, Flag::Unheard],
    ..LOOKS
};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "object", family: Family::Generic, ..CONTAINER },
    Command { name: "encoding", run: Run::Read(encoding), ..OBJECT },
    Command { name: "refcount", run: Run::Read(refcount), ..OBJECT },
    Command { name: "idletime", run: Run::Read(idletime), ..OBJECT },
    Command { name: "freq", run: Run::Read(freq), ..OBJECT },
    Command {
        parent: Some("object"),
        family: Family::Generic,
        run: Run::Read(|_, _| Ok(help(OBJECT_HELP))),
        ..HELP
    },
    Command {
        name: "debug",
        family: Family::Server,
        flags: &[Flag::Admin, Flag::NoScript, Flag::Stale, Flag::Words],
        ..CONTAINER
    },
    Command {
        name: "digest",
        arity: Arity::AtLeast(2),
        keys: Keys::None,
        forms_keys: Some(|_| true),
        run: Run::Read(digest),
        ..DEBUG
    },
    Command {
        name: "digest-value",
        arity: Arity::AtLeast(2),
        keys: Keys::Range { first: 2, last: -1, step: 1 },
        run: Run::Read(digest_value),
        work: Some(work::values),
        ..DEBUG
    },
    Command {
        name: "object",
        arity: Arity::AtLeast(2),
        run: Run::Read(debug_object),
        work: Some(work::values),
        ..DEBUG
    },
    Command {
        parent: Some("debug"),
        family: Family::Server,
        run: Run::Read(|_, _| Ok(debug_help())),
        ..HELP
    },
];

/// The reply of a `HELP`: its lines as simple strings.
pub(super) fn help(lines: &'static [&'static str]) -> Reply<'static> {
    Reply::Array(lines.iter().map(|line| Reply::status(line)).collect())
}

const OBJECT_HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Prints this help.",
];

const DEBUG_HELP: &[&str] = &[
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "DIGEST",
    "    Output a hex signature representing the current DB content.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    Output a hex signature of the values of all the specified keys.",
    "OBJECT <key>",
    "    Show low level info about `key` and associated value.",
];

/// `DEBUG HELP`
fn debug_help() -> Reply<'static> {
    let last = &["HELP", "    Prints this help."];
    let lines = [DEBUG_HELP, debug::HELP, last].into_iter().flatten();
    Reply::Array(lines.map(|line| Reply::status(line)).collect())
}

/// `OBJECT ENCODING key`
fn encoding<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(tx.value(words[2]).map_or(Reply::Null, |value| Reply::text(encoding_name(value))))
}

/// The form a value has, by the name of the form in Redis 7.2 that is like it.
pub(super) fn encoding_name(value: &Value) -> &'static str {
    /// Bytes of the longest string that Redis keeps beside its header.
    const EMBEDDED_MAX: usize = 44;
    match value {
        Value::Str(bytes) if parse_integer(bytes).is_some() => "int",
        Value::Str(bytes) if bytes.len() <= EMBEDDED_MAX => "embstr",
        Value::Str(_) => "raw",
        Value::List(list) if rdb::fits_listpack(list.iter()) => "listpack",
        Value::List(_) => "quicklist",
        Value::Hash(hash) if hash.is_small() && hash.has_deadlines() => "listpackex",
        Value::Hash(hash) if hash.is_small() => "listpack",
        Value::Hash(_) => "hashtable",
        Value::Set(set) => set.encoding(),
        Value::Sorted(sorted) if sorted.is_small() => "listpack",
        Value::Sorted(_) => "skiplist",
        Value::Stream(_) => "stream",
    }
}

/// `OBJECT REFCOUNT key`: as Redis answers it, which shares small integers.
fn refcount<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    const SHARED: std::ops::Range<i64> = 0..10_000;
    Ok(tx.value(words[2]).map_or(Reply::Null, |value| match value {
        Value::Str(bytes) if parse_integer(bytes).is_some_and(|number| SHARED.contains(&number)) => {
            Reply::Int(i32::MAX.into())
        }
        _ => Reply::Int(1),
    }))
}

/// `OBJECT IDLETIME key`
fn idletime<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    if !tx.exists(words[2]) {
        return Ok(Reply::Null);
    }
    if tx.eviction().policy.counts_uses() {
        return Err(CommandError::text(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    Ok(tx.idle_seconds(words[2]).map_or(Reply::Null, |seconds| Reply::Int(seconds as i64)))
}

/// `OBJECT FREQ key`
fn freq<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    if !tx.exists(words[2]) {
        return Ok(Reply::Null);
    }
    if tx.eviction().policy.counts_uses() {
        return Ok(tx.use_count(words[2]).map_or(Reply::Null, |count| Reply::Int(count.into())));
    }
    Err(CommandError::text(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
    ))
}

/// `DEBUG DIGEST`
fn digest<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    debug::of_words(words, 2)?;
    Ok(Reply::Status(tx.whole().digest().into()))
}

/// `DEBUG DIGEST-VALUE [key …]`: zeros for a key that is not there. The key is no
/// part of its digest.
fn digest_value<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let digest = |key: &&[u8]| tx.object(key).map_or([0; 20], |object| entry_digest_of(b"", object));
    Ok(Reply::Array(words[2..].iter().map(|key| Reply::Status(hex(&digest(key)).into())).collect()))
}

/// `DEBUG OBJECT key`
fn debug_object<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    debug::of_words(words, 3)?;
    let object = tx.object(words[2]).ok_or(CommandError::NoSuchKey)?;
    let encoding = encoding_name(&object.value);
    let serialized = rdb::dump(&object.value).len() - rdb::FOOTER_BYTES - 1;
    let text = format!(
        "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{serialized} lru:0 lru_seconds_idle:0"
    );
    Ok(Reply::Status(text.into()))
}
