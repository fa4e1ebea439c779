//! Errors that Rust raises into a script.
//!
//! An `Err` of a safe callback reaches Lua as a userdata, where a script expects
//! a string or a table. So it travels as a [`Fault`], and every place that can
//! catch it (`pcall`, `xpcall`, `coroutine.resume`, the end of the run) turns it
//! into the value that Redis would have raised: [`settle`].
//!
//! INVARIANT: a stopped run is never settled. [`Fault::Stop`] is raised again by
//! whoever catches it, so nothing in a script survives a kill.

use mlua::{Lua, Table, Value};

use super::state::{KillReason, RunState};

/// The chunk name of the prelude. Its frames do not count in error positions.
pub(super) const PRELUDE: &str = "moonraft-prelude";

/// What Lua says when an allocation fails; whatever caught it, the run is over.
const OUT_OF_MEMORY: &[u8] = b"not enough memory";

/// An error on its way through Lua.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// A string, with its position if it has one.
    #[error("{0}")]
    Text(String),
    /// `{err = text}`: what `redis.call` raises. The flag: the command counted it already.
    #[error("{0}")]
    Reply(String, bool),
    /// The run is over.
    #[error("script stopped")]
    Stop,
}

impl From<Fault> for mlua::Error {
    fn from(fault: Fault) -> Self {
        mlua::Error::external(fault)
    }
}

/// An error with the position of the script line that called this Rust function.
pub(super) fn fault(lua: &Lua, text: impl AsRef<str>) -> mlua::Error {
    Fault::Text(format!("{}{}", position(lua, 1), text.as_ref())).into()
}

/// `user_script:3: `, or nothing where Lua knows no line. Level 1 is the caller
/// of the running function.
pub(super) fn position(lua: &Lua, level: usize) -> String {
    let here = |level| {
        lua.inspect_stack(level, |frame| {
            let source = frame.source().short_src.unwrap_or_default().into_owned();
            (source, frame.current_line())
        })
    };
    match (level..).map_while(here).find(|(source, _)| source != PRELUDE) {
        Some((source, Some(line))) => format!("{source}:{line}: "),
        _ => String::new(),
    }
}

/// `bad argument #1 to 'rep' (number expected, got nil)`, raised by the function
/// that runs at `level`. `index` counts from 1.
pub(super) fn bad_argument(lua: &Lua, level: usize, index: usize, text: &str) -> mlua::Error {
    let names = lua.inspect_stack(level, |frame| {
        let names = frame.names();
        (names.name.map(|name| name.into_owned()), names.name_what == Some("method"))
    });
    let (name, method) = names.unwrap_or_default();
    let name = name.unwrap_or_else(|| "?".into());
    let text = match (method, index) {
        (true, 1) => format!("calling '{name}' on bad self ({text})"),
        (true, _) => format!("bad argument #{} to '{name}' ({text})", index - 1),
        (false, _) => format!("bad argument #{index} to '{name}' ({text})"),
    };
    Fault::Text(format!("{}{text}", position(lua, level + 1))).into()
}

/// What Lua calls the type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// The value a script sees of something caught, or `Err` if the run is over.
pub(super) fn settle(state: &RunState, lua: &Lua, caught: Value) -> mlua::Result<Value> {
    if state.stopped().is_some() {
        return Err(Fault::Stop.into());
    }
    let text = match caught {
        Value::Error(error) => match error.downcast_ref::<Fault>() {
            Some(Fault::Reply(text, counted)) => return reply(lua, text, *counted).map(Value::Table),
            Some(Fault::Text(text)) => text.clone(),
            Some(Fault::Stop) => return Err(Fault::Stop.into()),
            None => foreign(state, lua, &error)?,
        },
        Value::String(text) => {
            let bytes = text.as_bytes();
            if bytes.ends_with(OUT_OF_MEMORY) {
                return Err(state.stop(lua, KillReason::Memory));
            }
            match without_prelude(&bytes) {
                None => return Ok(Value::String(text.clone())),
                Some(rest) => return lua.create_string(rest).map(Value::String),
            }
        }
        other => return Ok(other),
    };
    lua.create_string(text).map(Value::String)
}

/// `{err = text}`, as an error reply looks in a script.
pub(super) fn reply(lua: &Lua, text: &str, counted: bool) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", text)?;
    if counted {
        table.raw_set("ignore_error_stats_update", true)?;
    }
    Ok(table)
}

/// The text of an error that mlua itself made.
fn foreign(state: &RunState, lua: &Lua, error: &mlua::Error) -> mlua::Result<String> {
    match error {
        mlua::Error::MemoryError(_) => Err(state.stop(lua, KillReason::Memory)),
        mlua::Error::CallbackError { cause, .. } => foreign(state, lua, cause),
        mlua::Error::RuntimeError(text) if text.as_bytes().ends_with(OUT_OF_MEMORY) => {
            Err(state.stop(lua, KillReason::Memory))
        }
        mlua::Error::RuntimeError(text) => Ok(text.clone()),
        other => Ok(other.to_string()),
    }
}

/// A message without a position in the prelude, if it has one: `name:12: text`.
fn without_prelude(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(PRELUDE.as_bytes())?.strip_prefix(b":")?;
    let end = memchr::memmem::find(rest, b": ")?;
    Some(&rest[end + 2..])
}
