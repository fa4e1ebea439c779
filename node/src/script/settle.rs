//! What a script sees of an error that it caught.
//!
//! INVARIANT: a stopped run is never settled. [`Fault::Stop`] is raised again by
//! whoever catches it, so nothing in a script survives a kill.

use mlua::{Lua, Value};

use super::fault::{Fault, PRELUDE, reply};
use super::state::{KillReason, RunState};

/// What Lua says when an allocation fails; whatever caught it, the run is over.
pub(super) const OUT_OF_MEMORY: &[u8] = b"not enough memory";

/// The value a script sees of something caught, or `Err` if the run is over.
pub(super) fn settle(state: &RunState, lua: &Lua, caught: Value) -> mlua::Result<Value> {
    if state.stopped().is_some() {
        return Err(Fault::Stop.into());
    }
    let text = match caught {
        Value::Error(error) => match error.downcast_ref::<Fault>() {
            Some(Fault::Reply(text, counted)) => return reply(lua, text, *counted).map(Value::Table),
            Some(Fault::Text(text)) => text.to_vec(),
            Some(Fault::Stop) => return Err(Fault::Stop.into()),
            None => foreign(state, lua, &error)?.into_bytes(),
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
