//! Errors that Rust raises into a script.
//!
//! An `Err` of a safe callback reaches Lua as a userdata, where a script expects
//! a string or a table. So it travels as a [`Fault`], and every place that can
//! catch it (`pcall`, `xpcall`, `coroutine.resume`, the end of the run) turns it
//! into the value that Redis would have raised; see `settle`.

use bstr::BStr;
use mlua::{Lua, Table, Value};
use moonraft_proto::Text;

/// The chunk name of the prelude. Its frames do not count in error positions.
pub(super) const PRELUDE: &str = "moonraft-prelude";

/// An error on its way through Lua.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// A string, with its position if it has one.
    #[error("{0}")]
    Text(Text<'static>),
    /// `{err = text}`: what `redis.call` raises. The flag: the command counted it already.
    #[error("{0}")]
    Reply(Text<'static>, bool),
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
pub(super) fn fault(lua: &Lua, text: impl AsRef<[u8]>) -> mlua::Error {
    Fault::Text(Text::joined(&[position(lua, 1).as_bytes(), text.as_ref()])).into()
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
pub(super) fn bad_argument(lua: &Lua, level: usize, index: usize, text: impl AsRef<[u8]>) -> mlua::Error {
    let names = lua.inspect_stack(level, |frame| {
        let names = frame.names();
        (names.name.map(|name| name.into_owned()), names.name_what == Some("method"))
    });
    let (name, method) = names.unwrap_or_default();
    let name = name.unwrap_or_else(|| "?".into());
    let what = match (method, index) {
        (true, 1) => format!("calling '{name}' on bad self"),
        (true, _) => format!("bad argument #{} to '{name}'", index - 1),
        (false, _) => format!("bad argument #{index} to '{name}'"),
    };
    let position = position(lua, level + 1);
    let parts = [position.as_bytes(), what.as_bytes(), b" (", text.as_ref(), b")"];
    Fault::Text(Text::joined(&parts)).into()
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

/// `{err = text}`, as an error reply looks in a script.
pub(super) fn reply(lua: &Lua, text: &[u8], counted: bool) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", BStr::new(text))?;
    if counted {
        table.raw_set("ignore_error_stats_update", true)?;
    }
    Ok(table)
}
