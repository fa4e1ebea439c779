//! The arguments of a library function, checked as Lua's C library checks them.

use std::ops::Deref;

use mlua::{BorrowedBytes, Lua, MultiValue, Table, Value};

use super::fault::{bad_argument, type_name};
use super::number;

/// A string argument: Lua's own bytes, or the text of a number.
pub(super) enum Text {
    /// A string.
    Lua(BorrowedBytes),
    /// A number, as Lua prints it.
    Number(String),
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Text::Lua(bytes) => bytes,
            Text::Number(text) => text.as_bytes(),
        }
    }
}

/// What C takes for a text: up to a zero byte.
pub(super) fn until_zero(text: &[u8]) -> &[u8] {
    &text[..memchr::memchr(0, text).unwrap_or(text.len())]
}

/// The bytes of a string or a number; `None` of anything else.
pub(super) fn text_of(value: &Value) -> Option<Text> {
    match value {
        Value::String(text) => Some(Text::Lua(text.as_bytes())),
        Value::Integer(n) => Some(Text::Number(number::general(*n as f64, 14))),
        Value::Number(x) => Some(Text::Number(number::general(*x, 14))),
        _ => None,
    }
}

/// The arguments of one call. Indexes count from 1, as in Lua's messages.
pub(super) struct Arguments<'a> {
    lua: &'a Lua,
    values: MultiValue,
}

impl<'a> Arguments<'a> {
    pub fn new(lua: &'a Lua, values: MultiValue) -> Self {
        Self { lua, values }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn lua(&self) -> &'a Lua {
        self.lua
    }

    /// The argument itself; nil where there is none.
    pub fn value(&self, index: usize) -> &Value {
        self.values.get(index - 1).unwrap_or(&Value::Nil)
    }

    fn mismatch(&self, index: usize, expected: &str) -> mlua::Error {
        let got = self.values.get(index - 1).map_or("no value", type_name);
        self.error(index, format!("{expected} expected, got {got}"))
    }

    /// `bad argument #<index> to …`
    pub fn error(&self, index: usize, text: impl AsRef<[u8]>) -> mlua::Error {
        bad_argument(self.lua, 0, index, text)
    }

    pub fn text(&self, index: usize) -> mlua::Result<Text> {
        text_of(self.value(index)).ok_or_else(|| self.mismatch(index, "string"))
    }

    pub fn table(&self, index: usize) -> mlua::Result<&Table> {
        self.value(index).as_table().ok_or_else(|| self.mismatch(index, "table"))
    }

    pub fn number(&self, index: usize) -> mlua::Result<f64> {
        match self.value(index) {
            Value::Integer(n) => Ok(*n as f64),
            Value::Number(x) => Ok(*x),
            Value::String(_) => {
                let number = self.lua.coerce_number(self.value(index).clone())?;
                number.ok_or_else(|| self.mismatch(index, "number"))
            }
            _ => Err(self.mismatch(index, "number")),
        }
    }

    pub fn integer(&self, index: usize) -> mlua::Result<i64> {
        match self.value(index) {
            Value::Integer(n) => Ok(*n),
            _ => self.number(index).map(number::truncated),
        }
    }

    /// An integer, or `otherwise` where nil or nothing stands.
    pub fn integer_or(&self, index: usize, otherwise: i64) -> mlua::Result<i64> {
        if self.value(index).is_nil() { Ok(otherwise) } else { self.integer(index) }
    }

    pub fn truth(&self, index: usize) -> bool {
        !matches!(self.value(index), Value::Nil | Value::Boolean(false))
    }
}
