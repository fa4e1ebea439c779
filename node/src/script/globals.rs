//! Makes the Lua state that scripts run in.
//!
//! What is here are the Rust halves of `prelude.lua`, which says what a script can
//! reach. Against the published holes of Lua 5.1.5 (see the tests for each):
//!
//! * no `package`, `io`, `os`, `debug`, `dofile`, `loadfile`, `print`, `newproxy`,
//!   `getfenv`, `setfenv`, `string.dump`; `loadstring` takes text only;
//! * the collector rests while a chunk is compiled, since the parser does not hold
//!   on to the name of its chunk (CVE-2025-49844); a chunk's length is capped,
//!   which keeps the lexer's counters in range (CVE-2025-46819);
//! * `unpack` checks its range (CVE-2025-46817);
//! * the metatable of strings is locked, other basic types have none (CVE-2025-46818);
//! * `os` is not there at all, not even `os.clock`, which Redis dropped in 7.0 too.

use std::rc::Rc;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table, Value};

use super::arguments::Arguments;
use super::fault::{PRELUDE, bad_argument, fault, type_name};
use super::settle::settle;
use super::state::{KillReason, Place, RunState};
use super::{bits, json, message_pack, redis, strings, structs};

/// Most values that `unpack` gives: what Lua 5.1 lets a C function return.
const UNPACK_MAX: i64 = 7_900;
/// Bytes a full collection is counted as for each byte it looks at.
const COLLECT_WORK: usize = 1;

/// The made state.
pub(super) struct Globals {
    /// The real table of globals, for `KEYS` and `ARGV`.
    pub real: Table,
    /// Runs a function, noting where an uncaught error happened.
    pub drive: Function,
}

/// A Lua state without anything a script could misuse.
pub(super) fn bare() -> mlua::Result<Lua> {
    let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
    Lua::new_with(libraries, LuaOptions::new().catch_rust_panics(false))
}

/// Fills a bare state and makes the scripts' globals its own.
pub(super) fn install(lua: &Lua, state: &Rc<RunState>) -> mlua::Result<Globals> {
    let rust = lua.create_table()?;
    let libraries = lua.create_table()?;
    libraries.raw_set("redis", redis::library(lua, state)?)?;
    libraries.raw_set("cjson", json::library(lua, state, &state.json)?)?;
    libraries.raw_set("cmsgpack", message_pack::library(lua, state)?)?;
    libraries.raw_set("struct", structs::library(lua, state)?)?;
    libraries.raw_set("bit", bits::library(lua)?)?;
    rust.raw_set("libraries", libraries)?;

    let library = lua.create_table()?;
    for part in strings::install(lua, state, &library)?.pairs::<Value, Value>() {
        let (name, run) = part?;
        rust.raw_set(name, run)?;
    }
    rust.raw_set("strings", library)?;
    errors(lua, state, &rust)?;
    functions(lua, state, &rust)?;

    let prelude = lua.load(include_str!("prelude.lua")).set_name(format!("={PRELUDE}"));
    let (shown, real, drive): (Table, Table, Function) = prelude.call((lua.globals(), rust))?;
    lua.set_globals(shown)?;
    Ok(Globals { real, drive })
}

/// What raises, catches and places errors.
fn errors(lua: &Lua, state: &Rc<RunState>, rust: &Table) -> mlua::Result<()> {
    let of = Rc::clone(state);
    rust.raw_set("settle", lua.create_function(move |lua, value: Value| settle(&of, lua, value))?)?;
    let of = Rc::clone(state);
    rust.raw_set("trace", lua.create_function(move |lua, value: Value| trace(&of, lua, value))?)?;
    let fail = |lua: &Lua, text: String| -> mlua::Result<()> { Err(fault(lua, text)) };
    rust.raw_set("fail", lua.create_function(fail)?)?;
    let bad = |lua: &Lua, (index, text): (usize, String)| -> mlua::Result<()> {
        Err(bad_argument(lua, 1, index, &text))
    };
    rust.raw_set("bad_argument", lua.create_function(bad)?)?;
    let bad_table = |lua: &Lua, (index, value): (usize, Value)| -> mlua::Result<()> {
        let text = format!("table expected, got {}", type_name(&value));
        Err(bad_argument(lua, 1, index, &text))
    };
    rust.raw_set("bad_table", lua.create_function(bad_table)?)?;
    let missing = |lua: &Lua, (_, name): (Table, Value)| -> mlua::Result<()> {
        let Some(name) = super::arguments::text_of(&name) else {
            return Err(fault(lua, "Second argument to luaProtectedTableError must be a string or number"));
        };
        let name = String::from_utf8_lossy(&name);
        Err(fault(lua, format!("Script attempted to access nonexistent global variable '{name}'")))
    };
    rust.raw_set("missing", lua.create_function(missing)?)
}

/// Notes where an uncaught error was raised, as Redis's handler looks for it: the
/// function that raised, or its caller if that is not a Lua function.
fn trace(state: &RunState, lua: &Lua, value: Value) -> mlua::Result<Value> {
    let frame = |level| {
        lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let line = frame.current_line().map_or(-1, |line| line as i64);
            (source.what == "C", source.source.unwrap_or_default().into_owned(), line)
        })
    };
    // Level 0 is this function, 1 the part of `xpcall` that calls it.
    let prelude = format!("={PRELUDE}");
    let mut level = 2;
    if frame(level).is_some_and(|(is_c, ..)| is_c) {
        level += 1;
    }
    let place = (level..).map_while(frame).find(|(_, source, _)| *source != prelude);
    *state.place.borrow_mut() = place.map(|(_, source, line)| Place { source, line });
    Ok(value)
}

fn functions(lua: &Lua, state: &Rc<RunState>, rust: &Table) -> mlua::Result<()> {
    rust.raw_set("unpack", lua.create_function(unpack)?)?;
    let of = Rc::clone(state);
    rust.raw_set("loadstring", lua.create_function(move |lua, values| loadstring(&of, lua, values))?)?;
    let of = Rc::clone(state);
    rust.raw_set("random", lua.create_function(move |lua, values| random(&of, lua, values))?)?;
    let of = Rc::clone(state);
    let seed = move |lua: &Lua, values: MultiValue| {
        of.random.set(Arguments::new(lua, values).integer(1)? as u64);
        Ok(())
    };
    rust.raw_set("randomseed", lua.create_function(seed)?)?;
    let of = Rc::clone(state);
    let collect = move |lua: &Lua, _: MultiValue| {
        of.charge(lua, lua.used_memory() * COLLECT_WORK)?;
        lua.gc_collect()?;
        Ok(0)
    };
    rust.raw_set("collect", lua.create_function(collect)?)
}

/// `unpack(list [, from [, to]])`
fn unpack(lua: &Lua, values: MultiValue) -> mlua::Result<MultiValue> {
    let arguments = Arguments::new(lua, values);
    let list = arguments.table(1)?;
    let from = arguments.integer_or(2, 1)?;
    let to = match arguments.value(3) {
        Value::Nil => list.raw_len() as i64,
        _ => arguments.integer(3)?,
    };
    if from > to {
        return Ok(MultiValue::new());
    }
    if to.checked_sub(from).is_none_or(|span| span >= UNPACK_MAX) {
        return Err(fault(lua, "too many results to unpack"));
    }
    (from..=to).map(|index| list.raw_get::<Value>(index)).collect()
}

/// `loadstring(text [, name])`: a function, or nil and why not.
fn loadstring(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<(Value, Value)> {
    let arguments = Arguments::new(lua, values);
    let text = arguments.text(1)?;
    let name = if arguments.value(2).is_nil() { None } else { Some(arguments.text(2)?) };
    state.charge(lua, text.len())?;
    match compile(state, lua, &text, name.as_deref().unwrap_or(&text))? {
        Ok(function) => Ok((Value::Function(function), Value::Nil)),
        Err(error) => Ok((Value::Nil, Value::String(lua.create_string(error)?))),
    }
}

/// Compiles a text; the inner error is Lua's, for the script or the client.
pub(super) fn compile(
    state: &RunState,
    lua: &Lua,
    text: &[u8],
    name: &[u8],
) -> mlua::Result<Result<Function, String>> {
    if text.len() > state.limits.script_bytes {
        return Ok(Err(format!("script is longer than {} bytes", state.limits.script_bytes)));
    }
    let name = &name[..memchr::memchr(0, name).unwrap_or(name.len())];
    let chunk = lua.load(text).set_mode(ChunkMode::Text).set_name(String::from_utf8_lossy(name));
    // The parser keeps its chunk's name where the collector does not look.
    lua.gc_stop();
    let compiled = chunk.into_function();
    lua.gc_restart();
    match compiled {
        Ok(function) => Ok(Ok(function)),
        Err(mlua::Error::SyntaxError { message, .. }) => Ok(Err(message)),
        Err(mlua::Error::MemoryError(_)) => Err(state.stop(lua, KillReason::Memory)),
        Err(other) => Ok(Err(other.to_string())),
    }
}

/// `math.random([least,] most)`, with the numbers of SplitMix64.
fn random(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let arguments = Arguments::new(lua, values);
    let seed = state.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.random.set(seed);
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // The 53 bits that a double between 0 and 1 has.
    let fraction = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    // Bounds are C ints there.
    let bound = |index: usize| arguments.integer(index).map(|n| f64::from(n as i32));
    match arguments.len() {
        0 => Ok(Value::Number(fraction)),
        1 => {
            let most = bound(1)?;
            if most < 1.0 {
                return Err(arguments.error(1, "interval is empty"));
            }
            Ok(Value::Number((fraction * most).floor() + 1.0))
        }
        2 => {
            let (least, most) = (bound(1)?, bound(2)?);
            if least > most {
                return Err(arguments.error(2, "interval is empty"));
            }
            Ok(Value::Number((fraction * (most - least + 1.0)).floor() + least))
        }
        _ => Err(fault(lua, "wrong number of arguments")),
    }
}
