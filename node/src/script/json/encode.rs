//! Lua values as JSON.

use mlua::{Lua, LuaString, MultiValue, Table, Value};

use super::settings::{Invalid, NESTING_MAX, Settings};
use crate::script::{
    arguments::Arguments,
    fault::{fault, type_name},
    number,
    state::{KillReason, RunState},
};

/// `cjson.encode`
pub(super) fn encode(
    state: &RunState,
    settings: &Settings,
    lua: &Lua,
    values: MultiValue,
) -> mlua::Result<LuaString> {
    let arguments = Arguments::new(lua, values);
    if arguments.len() != 1 {
        return Err(arguments.error(1, "expected 1 argument"));
    }
    let mut writer = Writer { state, lua, settings, out: Vec::new(), charged: 0 };
    writer.value(arguments.value(1), 0)?;
    state.charge(lua, writer.out.len())?;
    lua.create_string(writer.out)
}

struct Writer<'a> {
    state: &'a RunState,
    lua: &'a Lua,
    settings: &'a Settings,
    out: Vec<u8>,
    /// How much of `out` was charged.
    charged: usize,
}

/// What one value is counted as, its bytes apart: 0.1 us.
const VALUE_WORK: usize = 64;
/// Bytes of one text between two charges.
const CHARGE_BYTES: usize = 64 << 10;

impl Writer<'_> {
    fn refuse<T>(&self, value: &Value, reason: &str) -> mlua::Result<T> {
        Err(fault(self.lua, format!("Cannot serialise {}: {reason}", type_name(value))))
    }

    /// Charges what was written since the last time.
    fn charge(&mut self) -> mlua::Result<()> {
        let written = self.out.len() - std::mem::replace(&mut self.charged, self.out.len());
        if self.out.len() > self.state.limits.memory_bytes {
            return Err(self.state.stop(self.lua, KillReason::Memory));
        }
        self.state.charge(self.lua, written + VALUE_WORK)
    }

    fn value(&mut self, value: &Value, depth: usize) -> mlua::Result<()> {
        self.charge()?;
        match value {
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::LightUserData(pointer) if pointer.0.is_null() => self.out.extend_from_slice(b"null"),
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Integer(n) => self.number(*n as f64, value)?,
            Value::Number(x) => self.number(*x, value)?,
            Value::String(text) => self.text(&text.as_bytes())?,
            Value::Table(table) => self.table(table, depth + 1)?,
            other => return self.refuse(other, "type not supported"),
        }
        Ok(())
    }

    fn number(&mut self, x: f64, value: &Value) -> mlua::Result<()> {
        if !x.is_finite() {
            match self.settings.encode_invalid {
                Invalid::Refuse => return self.refuse(value, "must not be NaN or Inf"),
                Invalid::AsNull => {
                    self.out.extend_from_slice(b"null");
                    return Ok(());
                }
                Invalid::AsText if x.is_nan() => {
                    self.out.extend_from_slice(b"nan");
                    return Ok(());
                }
                Invalid::AsText => {}
            }
        }
        self.out.extend_from_slice(number::general(x, self.settings.precision).as_bytes());
        Ok(())
    }

    fn text(&mut self, bytes: &[u8]) -> mlua::Result<()> {
        self.out.push(b'"');
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
            self.out.extend_from_slice(&rest[..at]);
            let short = match rest[at] {
                b'"' => Some(b'"'),
                b'\\' => Some(b'\\'),
                b'/' => Some(b'/'),
                0x08 => Some(b'b'),
                0x0c => Some(b'f'),
                b'\n' => Some(b'n'),
                b'\r' => Some(b'r'),
                b'\t' => Some(b't'),
                _ => None,
            };
            match short {
                Some(letter) => self.out.extend_from_slice(&[b'\\', letter]),
                None => self.out.extend_from_slice(format!("\\u{:04x}", rest[at]).as_bytes()),
            }
            rest = &rest[at + 1..];
            if self.out.len() - self.charged > CHARGE_BYTES {
                self.charge()?;
            }
        }
        self.out.extend_from_slice(rest);
        self.out.push(b'"');
        Ok(())
    }

    fn table(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        if depth as i64 > self.settings.encode_depth || depth > NESTING_MAX {
            return Err(fault(self.lua, format!("Cannot serialise, excessive nesting ({depth})")));
        }
        match self.array_length(table)? {
            Some(length) => self.array(table, length, depth),
            None => self.object(table, depth),
        }
    }

    /// The length of a table that is to be an array: not an empty one, nor one
    /// with other keys than positive whole numbers.
    ///
    /// The original keeps the largest in an `int`, where one that is too large becomes the
    /// smallest: such a table is an object, unless a smaller key comes after.
    fn array_length(&self, table: &Table) -> mlua::Result<Option<i64>> {
        let (mut largest, mut items) = (0_i32, 0_i64);
        for pair in table.pairs::<Value, Value>() {
            self.state.charge(self.lua, VALUE_WORK)?;
            let key = match pair?.0 {
                Value::Integer(n) => n as f64,
                Value::Number(x) => x,
                _ => return Ok(None),
            };
            if key < 1.0 || key.floor() != key {
                return Ok(None);
            }
            if key > largest.into() {
                largest = if key > i32::MAX.into() { i32::MIN } else { key as i32 };
            }
            items += 1;
        }
        let largest = i64::from(largest);
        let Settings { sparse_ratio, sparse_safe, sparse_convert, .. } = *self.settings;
        if sparse_ratio > 0 && largest > items.saturating_mul(sparse_ratio) && largest > sparse_safe {
            if !sparse_convert {
                return self.refuse(&Value::Table(table.clone()), "excessively sparse array");
            }
            return Ok(None);
        }
        Ok((largest > 0).then_some(largest))
    }

    fn array(&mut self, table: &Table, length: i64, depth: usize) -> mlua::Result<()> {
        self.out.push(b'[');
        for index in 1..=length {
            if index > 1 {
                self.out.push(b',');
            }
            self.value(&table.raw_get(index)?, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        self.out.push(b'{');
        let mut first = true;
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            match &key {
                Value::Integer(_) | Value::Number(_) => {
                    self.out.push(b'"');
                    self.value(&key, depth)?;
                    self.out.push(b'"');
                }
                Value::String(text) => self.text(&text.as_bytes())?,
                other => return self.refuse(other, "table key must be a number or string"),
            }
            self.out.push(b':');
            self.value(&value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | b'/' | 0x7f)
}
