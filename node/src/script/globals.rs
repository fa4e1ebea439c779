//! Makes the Lua state that scripts run in.
//!
//! What is here are the Rust halves of `prelude.lua`, which says what a script can
//! reach. Against the published holes of Lua 5.1.5 (see the tests for each):
//!
//! * no `package`, `io`, `debug`, `dofile`, `loadfile`, `print`, `newproxy`,
//!   `getfenv`, `setfenv`, `string.dump`; `loadstring` takes text only;
//! * the collector rests while a chunk is compiled, since the parser does not hold
//!   on to the name of its chunk (CVE-2025-49844); a chunk's length is capped,
//!   which keeps the lexer's counters in range (CVE-2025-46819);
//! * `unpack` checks its range (CVE-2025-46817);
//! * the metatable of strings is locked, other basic types have none (CVE-2025-46818);
//! * `os` holds a clock only, as in Valkey 9 and Redis 7.4 (before, it was not there).

use std::rc::Rc;

use mlua::{Function, Lua, LuaOptions, LuaString, MultiValue, StdLib, Table, Value};

use super::arguments::{Arguments, text_of, until_zero};
use super::fault::{Fault, PRELUDE, bad_argument, fault, type_name};
use super::settle::{OUT_OF_MEMORY, settle};
use super::shelf::Shelf;
use super::state::{KillReason, Place, RunState};
use super::{bits, json, library, message_pack, redis, strings, structs};

/// Places that a C function of Lua 5.1 has: for the arguments and the results of `unpack`.
const UNPACK_PLACES: i64 = 8_000;
/// What giving one value is counted as: 60 ns.
const UNPACK_WORK: usize = 64;
/// Bytes of a text that the parser is given at once, at the usual pace: 0.5 ms.
const PIECE_BYTES: usize = 8 << 10;
/// The same where each byte has proven to cost much.
const PIECE_BYTES_LEAST: usize = 8;
/// With this byte compiled code begins.
const BINARY: u8 = 0x1b;

/// The made state.
pub(super) struct Globals {
    /// The real table of globals, for `KEYS` and `ARGV`.
    pub real: Table,
    /// Runs a function, noting where an uncaught error happened.
    pub drive: Function,
    /// Stock Lua's `load`.
    pub load: Function,
    /// What scripts see of the globals.
    pub shown: Table,
    /// The globals of libraries of functions.
    pub libraries: LibraryGlobals,
}

/// See the prelude.
pub(super) struct LibraryGlobals {
    /// What libraries see of their globals.
    pub shown: Table,
    /// Its metatable: which of the next two tables is behind it.
    behind: Table,
    /// While a library's text is run.
    registering: Table,
    /// While a function is called.
    calling: Table,
    /// Calls a function with its keys and arguments, as `drive` calls a script.
    pub drive: Function,
}

impl LibraryGlobals {
    fn of(table: &Table) -> mlua::Result<Self> {
        Ok(Self {
            shown: table.raw_get("shown")?,
            behind: table.raw_get("behind")?,
            registering: table.raw_get("registering")?,
            calling: table.raw_get("calling")?,
            drive: table.raw_get("drive")?,
        })
    }

    /// Runs something that finds only what registers functions.
    pub fn registering<T>(&self, run: impl FnOnce() -> mlua::Result<T>) -> mlua::Result<T> {
        self.behind.raw_set("__index", &self.registering)?;
        let ran = run();
        // The field is there: nothing is allocated, so this cannot fail.
        self.behind.raw_set("__index", &self.calling)?;
        ran
    }
}

/// A Lua state without anything a script could misuse.
pub(super) fn bare() -> mlua::Result<Lua> {
    let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
    Lua::new_with(libraries, LuaOptions::new().catch_rust_panics(false))
}

/// Fills a bare state and makes the scripts' globals its own.
pub(super) fn install(lua: &Lua, state: &Rc<RunState>, shelf: &Rc<Shelf>) -> mlua::Result<Globals> {
    let load: Function = lua.globals().raw_get("load")?;
    let rust = lua.create_table()?;
    let libraries = lua.create_table()?;
    libraries.raw_set("redis", redis::library(lua, state)?)?;
    libraries.raw_set("cjson", json::library(lua, state, &state.json)?)?;
    libraries.raw_set("cmsgpack", message_pack::library(lua, state)?)?;
    libraries.raw_set("struct", structs::library(lua, state)?)?;
    libraries.raw_set("bit", bits::library(lua)?)?;
    libraries.raw_set("os", clock(lua, state)?)?;
    rust.raw_set("libraries", libraries)?;

    let library = lua.create_table()?;
    for part in strings::install(lua, state, &library)?.pairs::<Value, Value>() {
        let (name, run) = part?;
        rust.raw_set(name, run)?;
    }
    rust.raw_set("strings", library)?;
    errors(lua, state, &rust)?;
    functions(lua, state, &load, &rust)?;
    rust.raw_set("script_bytes", state.limits.script_bytes)?;
    rust.raw_set("register_function", library::registrar(lua, state, shelf)?)?;

    let prelude = lua.load(include_str!("prelude.lua")).set_name(format!("={PRELUDE}"));
    let (shown, real, drive, libraries): (Table, Table, Function, Table) =
        prelude.call((lua.globals(), rust))?;
    lua.set_globals(shown.clone())?;
    Ok(Globals { real, drive, load, shown, libraries: LibraryGlobals::of(&libraries)? })
}

/// The library `os`, of which scripts have a clock.
fn clock(lua: &Lua, state: &Rc<RunState>) -> mlua::Result<Table> {
    let (library, of) = (lua.create_table()?, Rc::clone(state));
    let clock = move |_: &Lua, _: MultiValue| Ok(of.clock_ns() as f64 / 1e9);
    library.raw_set("clock", lua.create_function(clock)?)?;
    Ok(library)
}

/// What raises, catches and places errors.
fn errors(lua: &Lua, state: &Rc<RunState>, rust: &Table) -> mlua::Result<()> {
    let of = Rc::clone(state);
    rust.raw_set("settle", lua.create_function(move |lua, value: Value| settle(&of, lua, value))?)?;
    let of = Rc::clone(state);
    rust.raw_set("trace", lua.create_function(move |lua, value: Value| trace(&of, lua, value))?)?;
    let fail = |lua: &Lua, text: LuaString| -> mlua::Result<()> { Err(fault(lua, text.as_bytes())) };
    rust.raw_set("fail", lua.create_function(fail)?)?;
    let bad = |lua: &Lua, (index, text): (usize, LuaString)| -> mlua::Result<()> {
        Err(bad_argument(lua, 1, index, text.as_bytes()))
    };
    rust.raw_set("bad_argument", lua.create_function(bad)?)?;
    let bad_table = |lua: &Lua, (index, value): (usize, Value)| -> mlua::Result<()> {
        let text = format!("table expected, got {}", type_name(&value));
        Err(bad_argument(lua, 1, index, &text))
    };
    rust.raw_set("bad_table", lua.create_function(bad_table)?)?;
    let missing = |lua: &Lua, (_, name): (Table, Value)| -> mlua::Result<()> {
        let Some(name) = text_of(&name) else {
            return Err(fault(lua, "Second argument to luaProtectedTableError must be a string or number"));
        };
        let before: &[u8] = b"Script attempted to access nonexistent global variable '";
        Err(fault(lua, [before, until_zero(&name), b"'"].concat()))
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

fn functions(lua: &Lua, state: &Rc<RunState>, load: &Function, rust: &Table) -> mlua::Result<()> {
    let of = Rc::clone(state);
    rust.raw_set("check_unpack", lua.create_function(move |lua, values| check_unpack(&of, lua, values))?)?;
    let of = (Rc::clone(state), load.clone());
    let run = move |lua: &Lua, values: MultiValue| loadstring(&of.0, lua, &of.1, values);
    rust.raw_set("loadstring", lua.create_function(run)?)?;
    let of = Rc::clone(state);
    // What stock functions, called by the prelude, are about to touch.
    let charge = move |lua: &Lua, work: f64| of.charge(lua, work as usize);
    rust.raw_set("charge", lua.create_function(charge)?)?;
    let of = Rc::clone(state);
    rust.raw_set("random", lua.create_function(move |lua, values| of.random.random(lua, values))?)?;
    let of = Rc::clone(state);
    let seed = move |lua: &Lua, values: MultiValue| {
        of.random.seed(Arguments::new(lua, values).integer(1)? as i32);
        Ok(())
    };
    rust.raw_set("randomseed", lua.create_function(seed)?)?;
    let of = Rc::clone(state);
    rust.raw_set("collectgarbage", lua.create_function(move |lua, values| collectgarbage(&of, lua, values))?)
}

/// `collectgarbage([what])`. A collection is long work that no hook sees. Stopping the
/// collector would outlive the script: accepted, and not done.
fn collectgarbage(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
    let arguments = Arguments::new(lua, values);
    let what = if arguments.value(1).is_nil() { None } else { Some(arguments.text(1)?) };
    match until_zero(what.as_deref().unwrap_or(b"collect")) {
        b"collect" => state.collect(lua)?,
        b"step" => return state.collect(lua).map(|()| Value::Boolean(true)),
        b"count" => return Ok(Value::Number(lua.used_memory() as f64 / 1024.0)),
        b"stop" | b"restart" => {}
        // What they were before: Lua's defaults.
        b"setpause" | b"setstepmul" => return Ok(Value::Integer(200)),
        other => return Err(arguments.error(1, [b"invalid option '", other, b"'"].concat())),
    }
    Ok(Value::Integer(0))
}

/// For the prelude: whether stock Lua may be asked for `unpack(list [, from [, to]])`.
fn check_unpack(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<()> {
    let arguments = Arguments::new(lua, values);
    let list = arguments.table(1)?;
    // Places are C ints there.
    let from = i64::from(arguments.integer_or(2, 1)? as i32);
    let to = match arguments.value(3) {
        Value::Nil => list.raw_len() as i64,
        _ => i64::from(arguments.integer(3)? as i32),
    };
    if from > to {
        return Ok(());
    }
    let most = UNPACK_PLACES - arguments.len() as i64;
    if to - from >= most {
        return Err(fault(lua, "too many results to unpack"));
    }
    for _ in from..=to {
        // One by one: many values say nothing of their length.
        state.charge(lua, UNPACK_WORK)?;
    }
    Ok(())
}

/// `loadstring(text [, name])`: a function, or nil and why not.
fn loadstring(
    state: &Rc<RunState>,
    lua: &Lua,
    load: &Function,
    values: MultiValue,
) -> mlua::Result<MultiValue> {
    let arguments = Arguments::new(lua, values);
    let text = arguments.text(1)?;
    let name = if arguments.value(2).is_nil() { None } else { Some(arguments.text(2)?) };
    state.charge(lua, text.len())?;
    match compile(state, lua, load, &text, name.as_deref().unwrap_or(&text))? {
        Ok(function) => Ok(MultiValue::from_iter([Value::Function(function)])),
        Err(error) => Ok(MultiValue::from_iter([Value::Nil, Value::String(lua.create_string(error)?)])),
    }
}

/// Compiles a text; the inner error is Lua's, for the script or the client.
///
/// The parser gets the text in pieces, and between two of them the host is asked:
/// a chain of `or` costs the square of its length, 200 KB of it four seconds.
pub(super) fn compile(
    state: &Rc<RunState>,
    lua: &Lua,
    load: &Function,
    text: &[u8],
    name: &[u8],
) -> mlua::Result<Result<Function, Vec<u8>>> {
    if text.len() > state.limits.script_bytes {
        return Ok(Err(format!("script is longer than {} bytes", state.limits.script_bytes).into()));
    }
    if text.first() == Some(&BINARY) {
        return Ok(Err(b"attempt to load a binary chunk".to_vec()));
    }
    let name = lua.create_string(until_zero(name))?;
    let of = Rc::clone(state);
    let (text, mut at) = (text.to_vec(), 0);
    let next = lua.create_function_mut(move |lua, ()| {
        of.ask(lua)?;
        let length = of.part(PIECE_BYTES).max(PIECE_BYTES_LEAST).min(text.len() - at);
        at += length;
        lua.create_string(&text[at - length..at])
    })?;
    // The parser keeps its chunk's name where the collector does not look.
    let compiled = state.memory.at_rest(lua, || load.call::<(Value, Value)>((next, name)));
    if state.stopped().is_some() {
        return Err(Fault::Stop.into());
    }
    match compiled {
        Ok((Value::Function(function), _)) => Ok(Ok(function)),
        Ok((_, Value::String(text))) if &*text.as_bytes() == OUT_OF_MEMORY => {
            Err(state.stop(lua, KillReason::Memory))
        }
        Ok((_, Value::String(text))) => Ok(Err(text.as_bytes().to_vec())),
        Err(mlua::Error::MemoryError(_)) => Err(state.stop(lua, KillReason::Memory)),
        Ok((_, other)) => Ok(Err(type_name(&other).into())),
        Err(other) => Ok(Err(other.to_string().into())),
    }
}
