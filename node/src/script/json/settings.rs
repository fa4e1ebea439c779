//! What scripts set of `cjson`, and how they do.

use mlua::Value;

use crate::script::arguments::{Arguments, until_zero};

/// Levels of nesting that are followed, at most: CJSON's own default.
pub(in crate::script) const NESTING_MAX: usize = 1000;

/// What the functions `cjson.encode_…` and `cjson.decode_…` set. Redis keeps them
/// for all later scripts; here every run starts from the defaults.
#[derive(Clone, Debug)]
pub(in crate::script) struct Settings {
    pub(super) sparse_convert: bool,
    pub(super) sparse_ratio: i64,
    pub(super) sparse_safe: i64,
    pub(super) encode_depth: i64,
    pub(super) decode_depth: i64,
    pub(super) precision: usize,
    pub(super) keep_buffer: bool,
    pub(super) encode_invalid: Invalid,
    pub(super) decode_invalid: bool,
}

/// How NaN and infinities are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    Refuse,
    AsText,
    AsNull,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth: NESTING_MAX as i64,
            decode_depth: NESTING_MAX as i64,
            precision: 14,
            keep_buffer: true,
            encode_invalid: Invalid::Refuse,
            decode_invalid: true,
        }
    }
}

pub(super) fn at_most(arguments: &Arguments<'_>, count: usize) -> mlua::Result<()> {
    if arguments.len() > count {
        return Err(arguments.error(count + 1, "found too many arguments"));
    }
    Ok(())
}

pub(super) fn depth(setting: &mut i64, arguments: &Arguments<'_>) -> mlua::Result<i64> {
    whole(setting, arguments, 1, 1, i32::MAX.into())
}

pub(super) fn whole(
    setting: &mut i64,
    arguments: &Arguments<'_>,
    index: usize,
    least: i64,
    most: i64,
) -> mlua::Result<i64> {
    if !arguments.value(index).is_nil() {
        let value = arguments.integer(index)?;
        if !(least..=most).contains(&value) {
            // The original names the first argument, whichever it is.
            return Err(arguments.error(1, format!("expected integer between {least} and {most}")));
        }
        *setting = value;
    }
    Ok(*setting)
}

pub(super) fn switch(setting: &mut bool, arguments: &Arguments<'_>, index: usize) -> mlua::Result<bool> {
    match arguments.value(index) {
        Value::Nil => {}
        Value::Boolean(on) => *setting = *on,
        _ => match until_zero(&arguments.text(index)?) {
            b"on" => *setting = true,
            b"off" => *setting = false,
            other => {
                return Err(arguments.error(index, [b"invalid option '", other, b"'"].concat()));
            }
        },
    }
    Ok(*setting)
}

pub(super) fn encode_invalid_numbers(
    settings: &mut Settings,
    arguments: &Arguments<'_>,
) -> mlua::Result<Value> {
    match arguments.value(1) {
        Value::String(text) if until_zero(&text.as_bytes()) == b"null" => {
            settings.encode_invalid = Invalid::AsNull
        }
        _ => {
            let mut on = settings.encode_invalid == Invalid::AsText;
            if !arguments.value(1).is_nil() {
                settings.encode_invalid =
                    if switch(&mut on, arguments, 1)? { Invalid::AsText } else { Invalid::Refuse };
            }
        }
    }
    Ok(match settings.encode_invalid {
        Invalid::Refuse => Value::Boolean(false),
        Invalid::AsText => Value::Boolean(true),
        Invalid::AsNull => Value::String(arguments.lua().create_string("null")?),
    })
}
