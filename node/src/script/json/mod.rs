//! The library `cjson` (Lua CJSON 2.1.0), byte for byte as Redis carries it.
//!
//! A general JSON crate would not do: number texts (`%.14g`), the tolerance for
//! hexadecimal numbers and NaN, the rules for sparse arrays, the error texts and
//! their character positions are all part of what scripts see.
//!
//! INVARIANT: the stack grows by at most [`settings::NESTING_MAX`] levels, whatever a
//! script sets as its depth; the output is bounded by the script's memory.

mod decode;
mod encode;
pub(super) mod settings;

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use self::decode::decode;
use self::encode::encode;
use self::settings::{Settings, at_most, depth, encode_invalid_numbers, switch, whole};
use super::arguments::Arguments;
use super::state::RunState;

/// The library with settings of its own; those of the global one are the run state's.
pub(super) fn library(
    lua: &Lua,
    state: &Rc<RunState>,
    settings: &Rc<RefCell<Settings>>,
) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    library.raw_set("_NAME", "cjson")?;
    library.raw_set("_VERSION", "2.1.0")?;
    library.raw_set("null", Value::NULL)?;
    let of = (Rc::clone(state), Rc::clone(settings));
    library.raw_set(
        "encode",
        lua.create_function(move |lua, values| encode(&of.0, &of.1.borrow(), lua, values))?,
    )?;
    let of = (Rc::clone(state), Rc::clone(settings));
    library.raw_set(
        "decode",
        lua.create_function(move |lua, values| decode(&of.0, &of.1.borrow(), lua, values))?,
    )?;
    let of = Rc::clone(state);
    let new = move |lua: &Lua, _: MultiValue| self::library(lua, &of, &Rc::default());
    library.raw_set("new", lua.create_function(new)?)?;
    let setting = |name: &str, run: fn(&mut Settings, &Arguments<'_>) -> mlua::Result<Value>| {
        let settings = Rc::clone(settings);
        let run = move |lua: &Lua, values: MultiValue| {
            let arguments = Arguments::new(lua, values);
            at_most(&arguments, 1)?;
            run(&mut settings.borrow_mut(), &arguments)
        };
        library.raw_set(name, lua.create_function(run)?)
    };
    setting("encode_max_depth", |settings, arguments| {
        depth(&mut settings.encode_depth, arguments).map(Value::Integer)
    })?;
    setting("decode_max_depth", |settings, arguments| {
        depth(&mut settings.decode_depth, arguments).map(Value::Integer)
    })?;
    setting("encode_number_precision", |settings, arguments| {
        let mut precision = settings.precision as i64;
        let value = whole(&mut precision, arguments, 1, 1, 14)?;
        settings.precision = precision as usize;
        Ok(Value::Integer(value))
    })?;
    setting("encode_keep_buffer", |settings, arguments| {
        switch(&mut settings.keep_buffer, arguments, 1).map(Value::Boolean)
    })?;
    setting("decode_invalid_numbers", |settings, arguments| {
        switch(&mut settings.decode_invalid, arguments, 1).map(Value::Boolean)
    })?;
    setting("encode_invalid_numbers", encode_invalid_numbers)?;
    let of = Rc::clone(settings);
    let sparse = move |lua: &Lua, values: MultiValue| {
        let arguments = Arguments::new(lua, values);
        let settings = &mut *of.borrow_mut();
        at_most(&arguments, 3)?;
        let convert = switch(&mut settings.sparse_convert, &arguments, 1)?;
        let ratio = whole(&mut settings.sparse_ratio, &arguments, 2, 0, i32::MAX.into())?;
        let safe = whole(&mut settings.sparse_safe, &arguments, 3, 0, i32::MAX.into())?;
        Ok((convert, ratio, safe))
    };
    library.raw_set("encode_sparse_array", lua.create_function(sparse)?)?;
    Ok(library)
}
