//! What test suites ask of `DEBUG`, where `enable-debug-command` lets their client.
//!
//! None of it can harm what was acknowledged: there are no words that end a node, have it stand still, or make a change
//! that its replicas do not have. What compares data, for everyone, is in [`super::object`].

use moonraft_proto::{Effect, Reply, Text, reply::Protocol};
use moonraft_router::{Keys, slot_of};

use super::{
    Arity, Client, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{c_text, integer, is, parse_bytes, parse_float, parse_integer},
    help::unknown_form,
    key_specs::uses,
    object::encoding_name,
};
use crate::keyspace::{Tx, Value};

/// A word of `DEBUG`. To Redis's table it is no subcommand, so that a wrong number of words is told here.
const ROW: Command = Command {
    parent: Some("debug"),
    arity: Arity::AtLeast(2),
    family: Family::Server,
    flags: &[Flag::Admin, Flag::NoScript, Flag::Stale, Flag::Debugging],
    ..Command::BASE
};

/// One that looks at a key.
const LOOKS: Command = Command {
    keys: Keys::Range { first: 2, last: 2, step: 1 },
    key_flags: &[uses::LOOK],
    flags: &[Flag::Admin, Flag::NoScript, Flag::Untouching, Flag::Debugging],
    ..ROW
};

/// One that is taken and changes nothing, with one word behind it.
const TAKEN: Command =
    Command { run: Run::Session(|_, words| of_words(words, 3).map(|()| Reply::OK)), ..ROW };

/// One that would end a node, or make replicas differ.
const REFUSED: Command = Command { run: Run::Session(|_, _| Err(HARMFUL)), ..ROW };

const HARMFUL: CommandError = CommandError::text(
    "ERR this word of DEBUG is not there: it would end a node, or make a change that its replicas do not have",
);

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "sleep", run: Run::Session(sleep), ..ROW },
    Command {
        name: "set-active-expire",
        run: Run::Session(|client, words| expire_actively(client, words, true)),
        ..ROW
    },
    Command {
        name: "pause-cron",
        run: Run::Session(|client, words| expire_actively(client, words, false)),
        ..ROW
    },
    Command { name: "reload", run: Run::Session(reload), ..ROW },
    Command { name: "loadaof", run: Run::Session(|_, words| of_words(words, 2).map(|()| Reply::OK)), ..ROW },
    Command {
        name: "change-repl-id",
        run: Run::Session(|_, words| of_words(words, 2).map(|()| Reply::OK)),
        ..ROW
    },
    Command { name: "dict-resizing", ..TAKEN },
    Command { name: "quicklist-packed-threshold", run: Run::Session(packed_threshold), ..ROW },
    Command { name: "replybuffer", run: Run::Session(reply_buffer), ..ROW },
    Command { name: "protocol", run: Run::Session(protocol), ..ROW },
    Command { name: "error", run: Run::Session(error), ..ROW },
    Command { name: "log", run: Run::Session(log), ..ROW },
    Command { name: "structsize", run: Run::Session(struct_sizes), ..ROW },
    Command { name: "htstats", run: Run::Read(table_sizes), flags: LOOKS.flags, ..ROW },
    Command { name: "htstats-key", run: Run::Read(table_size_of), ..LOOKS },
    Command { name: "listpack", run: Run::Read(listpack), ..LOOKS },
    Command { name: "quicklist", run: Run::Read(quicklist), ..LOOKS },
    Command {
        name: "populate",
        flags: &[Flag::Admin, Flag::NoScript, Flag::DenyOom, Flag::Debugging],
        run: Run::Write(populate),
        ..ROW
    },
    Command { name: "assert", ..REFUSED },
    Command { name: "crash-and-recover", ..REFUSED },
    Command { name: "leak", ..REFUSED },
    Command { name: "oom", ..REFUSED },
    Command { name: "panic", ..REFUSED },
    Command { name: "replicate", ..REFUSED },
    Command { name: "restart", ..REFUSED },
    Command { name: "segfault", ..REFUSED },
];

/// What `DEBUG HELP` says of them.
pub(super) const HELP: &[&str] = &[
    "Where enable-debug-command lets you, too:",
    "CHANGE-REPL-ID, DICT-RESIZING <0|1>, LOADAOF, REPLYBUFFER <subcommand> <arg>",
    "    Taken; there is nothing that they would change.",
    "ERROR <string>",
    "    Return an error with <string> as message.",
    "HTSTATS <dbid>, HTSTATS-KEY <key>",
    "    Return how many elements there are.",
    "LISTPACK <key>, QUICKLIST <key>",
    "    Tell whether a value has this encoding.",
    "LOG <message>",
    "    Write <message> to the traces.",
    "POPULATE <count> [<prefix>] [<size>]",
    "    Create those of <count> keys named <prefix>:<num> that are of this shard's slots.",
    "PROTOCOL <type>",
    "    Reply with a test value of the specified type.",
    "QUICKLIST-PACKED-THRESHOLD <size>",
    "    Taken: elements of lists have no such limit.",
    "RELOAD [option ...]",
    "    Taken: what was acknowledged is on disks.",
    "SET-ACTIVE-EXPIRE <0|1>, PAUSE-CRON <0|1>",
    "    Whether keys and fields that nobody asks for expire on this node.",
    "SLEEP <seconds>",
    "    Answer so much later. Others are served meanwhile.",
    "STRUCTSIZE",
    "    Return the size of some structures.",
];

/// Refuses another number of words.
pub(super) fn of_words(words: &[&[u8]], count: usize) -> Result<(), CommandError> {
    if words.len() == count { Ok(()) } else { Err(unknown_form(words[1], "DEBUG")) }
}

/// The integer that a text begins with, as C reads it; 0 if with none.
fn leading_integer(word: &[u8]) -> i64 {
    let digits =
        word.iter().skip(usize::from(word.starts_with(b"-"))).take_while(|byte| byte.is_ascii_digit());
    let length = usize::from(word.starts_with(b"-")) + digits.count();
    parse_integer(&word[..length]).unwrap_or(0)
}

/// `DEBUG SLEEP seconds`
///
/// Only the client waits. A shard that stood still would be voted out of its leadership.
fn sleep(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    /// Nobody waits for longer.
    const SECONDS_MAX: f64 = 3600.0;
    of_words(words, 3)?;
    let seconds = parse_float(c_text(words[2])).unwrap_or(0.0).clamp(0.0, SECONDS_MAX);

    let milliseconds = (seconds * 1000.0) as u64;
    if milliseconds == 0 || !client.may_block() {
        return Ok(Reply::OK);
    }
    // For more followers than there can be.
    client.wait_for_followers(usize::MAX, milliseconds, |_| Reply::OK);
    Ok(Reply::Nothing)
}

/// `DEBUG SET-ACTIVE-EXPIRE 0|1`, `DEBUG PAUSE-CRON 0|1`
fn expire_actively(client: &mut dyn Client, words: &[&[u8]], one_means: bool) -> Outcome<'static> {
    of_words(words, 3)?;
    client.expire_actively((leading_integer(words[2]) != 0) == one_means);
    Ok(Reply::OK)
}

/// `DEBUG RELOAD [MERGE] [NOFLUSH] [NOSAVE]`
///
/// What Redis shows by it, that nothing is lost on the way to the disk and back, is so of all that was acknowledged.
fn reload(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let is_option = |word: &&[u8]| ["merge", "noflush", "nosave"].iter().any(|option| is(word, option));
    match words[2..].iter().all(is_option) {
        true => Ok(Reply::OK),
        false => {
            Err(CommandError::text("ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options."))
        }
    }
}

/// `DEBUG QUICKLIST-PACKED-THRESHOLD bytes`
fn packed_threshold(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    const BYTES_END: u64 = 4 << 30;
    of_words(words, 3)?;
    let bytes = std::str::from_utf8(words[2]).ok().and_then(parse_bytes).filter(|_| !words[2].is_empty());
    match bytes {
        Some(bytes) if bytes < BYTES_END => Ok(Reply::OK),
        _ => {
            Err(CommandError::text("ERR argument must be a memory value bigger than 1 and smaller than 4gb"))
        }
    }
}

/// `DEBUG REPLYBUFFER PEAK-RESET-TIME NEVER|RESET|ms`, `DEBUG REPLYBUFFER RESIZING 0|1`
fn reply_buffer(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    of_words(words, 4)?;
    let (option, argument) = (words[2], words[3]);
    match () {
        () if is(option, "resizing") => {}
        () if !is(option, "peak-reset-time") => return Err(unknown_form(words[1], "DEBUG")),
        () if is(argument, "never") || is(argument, "reset") => {}
        () => drop(integer(argument)?),
    }
    Ok(Reply::OK)
}

/// `DEBUG PROTOCOL type`: a reply of this type.
fn protocol(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    const UNKNOWN: CommandError = CommandError::text(
        "ERR Wrong protocol type name. Please use one of the following: string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
    );
    of_words(words, 3)?;
    let numbers = || (0..3).map(Reply::Int).collect();
    let kind = words[2].to_ascii_lowercase();
    Ok(match kind.as_slice() {
        b"string" => Reply::text("Hello World"),
        b"integer" => Reply::Int(12345),
        b"double" => Reply::Number(Text::fixed("3.141")),
        b"bignum" => Reply::BigNumber(Text::fixed("1234567999999999999999999999999999999")),
        b"null" => Reply::Null,
        b"array" => Reply::Array(numbers()),
        b"set" => Reply::Set(numbers()),
        b"map" => Reply::Map((0..3).map(|number| (Reply::Int(number), Reply::Bool(number == 1))).collect()),
        // Attributes are for clients that read them, of which there may be none: the reply is what they go with.
        b"attrib" => Reply::text("Some real reply following the attribute"),
        b"push" if client.session().protocol != Protocol::Resp3 => {
            return Err(CommandError::text("ERR RESP2 is not supported by this command"));
        }
        b"push" => Reply::Push(vec![Reply::text("server-cpu-usage"), Reply::Int(42)]),
        b"verbatim" => Reply::Verbatim(*b"txt", Text::fixed("This is a verbatim\nstring")),
        b"true" => Reply::Bool(true),
        b"false" => Reply::Bool(false),
        _ => return Err(UNKNOWN),
    })
}

/// `DEBUG ERROR text`
fn error(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    of_words(words, 3)?;
    let line: Vec<u8> = c_text(words[2])
        .iter()
        .map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte })
        .collect();
    Err(CommandError::Text(Text::joined(&[&line])))
}

/// `DEBUG LOG text`
fn log(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    of_words(words, 3)?;
    tracing::warn!("DEBUG LOG: {}", words[2].escape_ascii());
    Ok(Reply::OK)
}

/// `DEBUG STRUCTSIZE`
fn struct_sizes(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    of_words(words, 2)?;
    let (entry, value) = (size_of::<crate::keyspace::Entry>(), size_of::<Value>());
    Ok(Reply::text(format!("bits:{} entry:{entry} value:{value}", usize::BITS)))
}

/// How many elements a table has, in Redis's words.
fn table_text(count: usize) -> String {
    match count {
        0 => "No stats available for empty dictionaries\n".into(),
        _ => format!("Hash table 0 stats (main hash table):\n number of elements: {count}\n"),
    }
}

/// `DEBUG HTSTATS database [FULL]`
fn table_sizes<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    if !(words.len() == 3 || words.len() == 4 && is(words[3], "full")) {
        return Err(unknown_form(words[1], "DEBUG"));
    }
    if integer(words[2])? != 0 {
        return Err(CommandError::text("ERR Out of range database"));
    }

    let keyspace = tx.whole();
    let (keys, expiring) = (table_text(keyspace.len()), table_text(keyspace.deadlines().len()));
    Ok(Reply::Verbatim(*b"txt", format!("[Dictionary HT]\n{keys}[Expires HT]\n{expiring}").into()))
}

/// What a key holds, and the name of its encoding.
fn encoded<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Result<(&'a Value, &'static str), CommandError> {
    of_words(words, 3)?;
    let value = tx.value(words[2]).ok_or(CommandError::NoSuchKey)?;
    Ok((value, encoding_name(value)))
}

/// `DEBUG HTSTATS-KEY key`
fn table_size_of<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    const NO_TABLE: CommandError = CommandError::text(
        "ERR The value stored at the specified key is not represented using an hash table",
    );
    match encoded(tx, words)? {
        (value, "hashtable" | "skiplist") => Ok(Reply::Verbatim(*b"txt", table_text(value.len()).into())),
        _ => Err(NO_TABLE),
    }
}

/// `DEBUG LISTPACK key`
fn listpack<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    match encoded(tx, words)? {
        (_, "listpack" | "listpackex") => Ok(Reply::status("Listpack structure printed on stdout")),
        _ => Err(CommandError::text("ERR Not a listpack encoded object.")),
    }
}

/// `DEBUG QUICKLIST key`
fn quicklist<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let words = if words.len() == 4 { &words[..3] } else { words };
    match encoded(tx, words)? {
        (_, "quicklist") => Ok(Reply::status("Quicklist structure printed on stdout")),
        _ => Err(CommandError::text("ERR Not a quicklist encoded object.")),
    }
}

/// `DEBUG POPULATE count [prefix] [size]`: strings that are not there, of the slots that the shard serves.
fn populate<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    /// So many keys, and bytes of their values, take some tenths of a second.
    const COUNT_MAX: u64 = 100_000;
    const BYTES_MAX: u64 = 32 << 20;
    const TOO_MUCH: CommandError = CommandError::text(
        "ERR DEBUG POPULATE creates 100000 keys and 32 MiB at once, at most: it is one change",
    );
    const NEGATIVE: CommandError = CommandError::text("ERR value is out of range, must be positive");
    let natural = |word: &[u8]| parse_integer(word).and_then(|it| u64::try_from(it).ok()).ok_or(NEGATIVE);
    let (count, prefix, size) = match *words {
        [_, _, count] => (natural(count)?, &b"key"[..], 0),
        [_, _, count, prefix] => (natural(count)?, prefix, 0),
        [_, _, count, prefix, size] => (natural(count)?, prefix, natural(size)?),
        _ => return Err(unknown_form(words[1], "DEBUG")),
    };
    let bytes_each = size.saturating_add(prefix.len() as u64);
    if count > COUNT_MAX || count.saturating_mul(bytes_each) > BYTES_MAX {
        return Err(TOO_MUCH);
    }

    for number in 0..count {
        let key = [prefix, b":", itoa::Buffer::new().format(number).as_bytes()].concat();
        if !tx.keyspace().owned().contains(slot_of(&key)) || tx.exists(&key) {
            continue;
        }
        let mut value = [b"value:", itoa::Buffer::new().format(number).as_bytes()].concat();
        if size > 0 {
            value.resize(size as usize, 0);
        }
        tx.emit(Effect::PutString { key: &key, value: &value, expires_at: None });
    }
    Ok(Reply::OK)
}
