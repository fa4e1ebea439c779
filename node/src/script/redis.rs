//! The library `redis`: how a script reaches commands, the log and its own protocol.
//!
//! Source: script_lua.c of Redis 7.2, whose error texts these are. Replication
//! flags are accepted and change nothing: effects are replicated, always and whole.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};
use moonraft_proto::{Protocol, Reply};
use smallvec::SmallVec;

use super::LogLevel;
use super::arguments::{Arguments, Text, until_zero};
use super::convert::to_lua;
use super::fault::{self, Fault};
use super::hexadecimal;
use super::number;
use super::state::RunState;

/// The version that scripts are told; the one whose behaviour they get.
const VERSION: (&str, u32) = ("7.2.4", 0x0007_0204);
/// Bytes of a digest between two charges.
const SHA1_BYTES: usize = 128 << 10;
/// What a digest's byte is counted as: 2 ns.
const SHA1_WORK: usize = 2;
/// Bytes of a line in the traces, as in Redis.
const LOG_BYTES_MAX: usize = 1024;
/// What a line in the traces is counted as: 10 us.
const LOG_WORK: usize = 16 << 10;
/// Most words of a command. Lua 5.1 has 8,000 places for what a function is given, and
/// mlua as many for all texts that Rust holds; some must be left for the reply.
const WORDS_MAX: usize = 7_950;
/// Words of a command that need no allocation.
const WORDS_INLINE: usize = 8;

pub(super) fn library(lua: &Lua, state: &Rc<RunState>) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let add = |name: &str, run: fn(&RunState, &Lua, MultiValue) -> mlua::Result<Value>| {
        let state = Rc::clone(state);
        library.raw_set(name, lua.create_function(move |lua, values| run(&state, lua, values))?)
    };
    add("call", |state, lua, values| call(state, lua, values, true))?;
    add("pcall", |state, lua, values| call(state, lua, values, false))?;
    add("error_reply", error_reply)?;
    add("status_reply", status_reply)?;
    add("sha1hex", sha1hex)?;
    add("log", log)?;
    add("setresp", setresp)?;
    add("acl_check_cmd", acl_check_cmd)?;
    add("set_repl", set_repl)?;
    add("replicate_commands", |_, _, _| Ok(Value::Boolean(true)))?;
    // The debugger's functions, as they answer outside a debugging session.
    add("breakpoint", |_, _, _| Ok(Value::Boolean(false)))?;
    let nothing = |_: &Lua, _: MultiValue| Ok(MultiValue::new());
    library.raw_set("debug", lua.create_function(nothing)?)?;
    let numbers = [
        ("REDIS_VERSION_NUM", VERSION.1),
        ("LOG_DEBUG", 0),
        ("LOG_VERBOSE", 1),
        ("LOG_NOTICE", 2),
        ("LOG_WARNING", 3),
        ("REPL_NONE", 0),
        ("REPL_AOF", 1),
        ("REPL_SLAVE", 2),
        ("REPL_REPLICA", 2),
        ("REPL_ALL", 3),
    ];
    numbers.into_iter().try_for_each(|(name, number)| library.raw_set(name, number))?;
    library.raw_set("REDIS_VERSION", VERSION.0)?;
    Ok(library)
}

/// `{err = "ERR …"}`, raised.
fn refuse(text: &str) -> mlua::Error {
    Fault::Reply(format!("ERR {text}").into(), false).into()
}

fn refused(lua: &Lua, text: &str) -> mlua::Result<Value> {
    fault::reply(lua, format!("ERR {text}").as_bytes(), false).map(Value::Table)
}

/// The words of a command, or Redis's text of why they are none.
fn words(values: &MultiValue) -> Result<SmallVec<[Text; WORDS_INLINE]>, &'static str> {
    if values.is_empty() {
        return Err("Please specify at least one argument for this redis lib call");
    }
    if values.len() > WORDS_MAX {
        return Err("Too many arguments: a command of a script has 7950 words at most");
    }
    let mut words = SmallVec::with_capacity(values.len());
    for value in values {
        words.push(match value {
            Value::String(text) => Text::Lua(text.as_bytes()),
            // Not as Lua itself prints it: no number may lose its value on the way. mlua gives
            // whole numbers as integers, but to Redis they are doubles.
            Value::Integer(n) => Text::Number(number::word(*n as f64)),
            Value::Number(x) => Text::Number(number::word(*x)),
            _ => return Err("Lua redis lib command arguments must be strings or integers"),
        });
    }
    Ok(words)
}

/// `redis.call` and `redis.pcall`.
fn call(state: &RunState, lua: &Lua, values: MultiValue, raising: bool) -> mlua::Result<Value> {
    if state.stopped().is_some() {
        return Err(Fault::Stop.into());
    }
    let words = match words(&values) {
        Ok(words) => words,
        Err(text) if raising => return Err(refuse(text)),
        Err(text) => return refused(lua, text),
    };
    let slices: SmallVec<[&[u8]; WORDS_INLINE]> = words.iter().map(|word| &**word).collect();
    for word in &slices {
        state.charge(lua, word.len())?;
    }
    let reply = match state.host.borrow_mut().as_mut() {
        Some(host) => host.call(&slices),
        None => return Err(refuse("redis.call/pcall can only be called inside a script invocation")),
    };
    match reply {
        Reply::Error(text) if raising => Err(Fault::Reply(text, true).into()),
        reply => state.unlimited(lua, || to_lua(state, lua, reply)),
    }
}

/// The one string a function wants.
fn one_text(values: &MultiValue) -> Option<Vec<u8>> {
    match (values.len(), values.front()) {
        (1, Some(Value::String(text))) => Some(text.as_bytes().to_vec()),
        _ => None,
    }
}

/// `redis.error_reply(text)`: a leading `-` goes, a text of one word gets the code `ERR`.
fn error_reply(_: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let Some(text) = one_text(&values) else {
        return refused(lua, "wrong number or type of arguments");
    };
    let text = until_zero(text.strip_prefix(b"-").unwrap_or(&text));
    let (code, message) = match memchr::memchr(b' ', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (&b"ERR"[..], text),
    };
    let trimmed = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let start = message.iter().take_while(|byte| trimmed(byte)).count();
    let end = message.len() - message[start..].iter().rev().take_while(|byte| trimmed(byte)).count();
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("err", lua.create_string([code, b" ", &message[start..end]].concat())?)?;
    Ok(Value::Table(table))
}

/// `redis.status_reply(text)`
fn status_reply(_: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let Some(text) = one_text(&values) else {
        return refused(lua, "wrong number or type of arguments");
    };
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("ok", lua.create_string(text)?)?;
    Ok(Value::Table(table))
}

/// `redis.sha1hex(text)`
fn sha1hex(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    if values.len() != 1 {
        return Err(refuse("wrong number of arguments"));
    }
    // What is no string counts as an empty one, as in Redis.
    let text = values.front().and_then(super::arguments::text_of);
    let text = text.as_deref().unwrap_or_default();
    let mut digest = sha1_smol::Sha1::new();
    for piece in text.chunks(SHA1_BYTES) {
        state.charge(lua, piece.len() * SHA1_WORK)?;
        digest.update(piece);
    }
    lua.create_string(hexadecimal(digest.digest().bytes())).map(Value::String)
}

/// `redis.log(level, text, …)`
fn log(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let arguments = Arguments::new(lua, values);
    if arguments.len() < 2 {
        return Err(refuse("redis.log() requires two arguments or more."));
    }
    let level = arguments.integer(1).map_err(|_| refuse("First argument must be a number (log level)."))?;
    let level = match level {
        0 => LogLevel::Debug,
        1 => LogLevel::Verbose,
        2 => LogLevel::Notice,
        3 => LogLevel::Warning,
        _ => return Err(refuse("Invalid debug level.")),
    };
    let words: Vec<Text> = (2..=arguments.len()).filter_map(|index| arguments.text(index).ok()).collect();
    let mut text = Vec::new();
    for word in &words {
        if !text.is_empty() {
            text.push(b' ');
        }
        text.extend_from_slice(&word[..word.len().min(LOG_BYTES_MAX)]);
    }
    text.truncate(LOG_BYTES_MAX);
    state.charge(lua, LOG_WORK)?;
    if let Some(host) = state.host.borrow_mut().as_mut() {
        host.log(level, &text);
    }
    Ok(Value::Nil)
}

/// `redis.setresp(2 or 3)`
fn setresp(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let arguments = Arguments::new(lua, values);
    if arguments.len() != 1 {
        return Err(refuse("redis.setresp() requires one argument."));
    }
    let protocol = match arguments.integer(1) {
        Ok(2) => Protocol::Resp2,
        Ok(3) => Protocol::Resp3,
        _ => return Err(refuse("RESP version must be 2 or 3.")),
    };
    state.protocol.set(protocol);
    if let Some(host) = state.host.borrow_mut().as_mut() {
        host.set_protocol(protocol);
    }
    Ok(Value::Nil)
}

/// `redis.acl_check_cmd(command, …)`
fn acl_check_cmd(state: &RunState, _: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let words = words(&values).map_err(refuse)?;
    let slices: SmallVec<[&[u8]; WORDS_INLINE]> = words.iter().map(|word| &**word).collect();
    let allowed = state.host.borrow_mut().as_mut().and_then(|host| host.acl_check(&slices));
    allowed.map(Value::Boolean).ok_or_else(|| refuse("Invalid command passed to redis.acl_check_cmd()"))
}

/// `redis.set_repl(flags)`: checked, and otherwise without meaning here.
fn set_repl(_: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let arguments = Arguments::new(lua, values);
    if arguments.len() != 1 {
        return Err(refuse("redis.set_repl() requires two arguments."));
    }
    if arguments.integer(1).unwrap_or(0) & !3 != 0 {
        return Err(refuse("Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."));
    }
    Ok(Value::Nil)
}
