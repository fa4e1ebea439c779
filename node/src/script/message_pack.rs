//! The library `cmsgpack` (lua-cmsgpack 0.4.0), as Redis carries it.
//!
//! The sources are the MessagePack specification and the choices of that library:
//! whole numbers become integers, a table whose keys are 1..n an array, anything
//! that has no form (functions, tables nested too deep) nil.
//!
//! INVARIANT: a length that the input only claims allocates nothing, and neither
//! direction recurses deeper than its named bound.

use std::rc::Rc;

use mlua::{Lua, LuaString, MultiValue, Table, Value};

use super::arguments::Arguments;
use super::fault::{Fault, fault};
use super::json::settings::NESTING_MAX;
use super::state::{KillReason, RunState};

/// What one value is counted as, its bytes apart: 0.1 us.
const VALUE_WORK: usize = 64;
/// Deeper tables are packed as nil, as in the original.
const PACK_NESTING_MAX: usize = 16;
/// Most values of one `unpack`: what Lua 5.1 lets a C function return.
const RESULTS_MAX: usize = 7_900;

pub(super) fn library(lua: &Lua, state: &Rc<RunState>) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    library.raw_set("_NAME", "cmsgpack")?;
    library.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    library.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    library.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    let of = Rc::clone(state);
    library.raw_set("pack", lua.create_function(move |lua, values| pack(&of, lua, values))?)?;
    let unpack = |name: &str, bounds: fn(&Arguments<'_>) -> mlua::Result<Bounds>| {
        let state = Rc::clone(state);
        let run = move |lua: &Lua, values: MultiValue| {
            let arguments = Arguments::new(lua, values);
            unpack(&state, &arguments, bounds(&arguments)?)
        };
        library.raw_set(name, lua.create_function(run)?)
    };
    unpack("unpack", |_| Ok(Bounds { limit: None, offset: 0 }))?;
    unpack("unpack_one", |arguments| Ok(Bounds { limit: Some(1), offset: arguments.integer_or(2, 0)? }))?;
    unpack("unpack_limit", |arguments| {
        Ok(Bounds { limit: Some(arguments.integer(2)?), offset: arguments.integer_or(3, 0)? })
    })?;
    Ok(library)
}

// ------------------------------------------------------------------- pack

fn pack(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<LuaString> {
    let arguments = Arguments::new(lua, values);
    if arguments.len() == 0 {
        return Err(arguments.error(0, "MessagePack pack needs input."));
    }
    let mut packer = Packer { state, lua, out: Vec::new() };
    for index in 1..=arguments.len() {
        packer.value(arguments.value(index), 0)?;
    }
    state.charge(lua, packer.out.len())?;
    lua.create_string(packer.out)
}

struct Packer<'a> {
    state: &'a RunState,
    lua: &'a Lua,
    out: Vec<u8>,
}

impl Packer<'_> {
    fn value(&mut self, value: &Value, nesting: usize) -> mlua::Result<()> {
        self.charge(VALUE_WORK)?;
        match value {
            Value::String(text) => self.text(&text.as_bytes())?,
            Value::Boolean(truth) => self.out.push(if *truth { 0xc3 } else { 0xc2 }),
            Value::Integer(n) => self.integer(*n),
            Value::Number(x) => self.number(*x),
            Value::Table(_) if nesting == PACK_NESTING_MAX => self.out.push(0xc0),
            Value::Table(table) => self.table(table, nesting + 1)?,
            _ => self.out.push(0xc0),
        }
        Ok(())
    }

    /// A kind's code for lengths that fit two and four bytes, and the length.
    fn length(&mut self, codes: [u8; 2], length: usize) {
        match u16::try_from(length) {
            Ok(short) => {
                self.out.push(codes[0]);
                self.out.extend(short.to_be_bytes());
            }
            Err(_) => {
                // Lua's memory limit is far below what four bytes count.
                self.out.push(codes[1]);
                self.out.extend((length as u32).to_be_bytes());
            }
        }
    }

    fn text(&mut self, bytes: &[u8]) -> mlua::Result<()> {
        match bytes.len() {
            length @ 0..=31 => self.out.push(0xa0 | length as u8),
            length @ 32..=255 => self.out.extend([0xd9, length as u8]),
            length => self.length([0xda, 0xdb], length),
        }
        self.out.extend_from_slice(bytes);
        self.charge(bytes.len())
    }

    fn charge(&mut self, work: usize) -> mlua::Result<()> {
        if self.out.len() > self.state.limits.memory_bytes {
            return Err(self.state.stop(self.lua, KillReason::Memory));
        }
        self.state.charge(self.lua, work)
    }

    fn integer(&mut self, n: i64) {
        match n {
            0..=0x7f => self.out.push(n as u8),
            -32..=-1 => self.out.push(n as u8),
            0x80..=0xff => self.out.extend([0xcc, n as u8]),
            0x100..=0xffff => self.tagged(0xcd, &(n as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.tagged(0xce, &(n as u32).to_be_bytes()),
            0x1_0000_0000.. => self.tagged(0xcf, &n.to_be_bytes()),
            -0x80..=-33 => self.out.extend([0xd0, n as u8]),
            -0x8000..=-0x81 => self.tagged(0xd1, &(n as i16).to_be_bytes()),
            -0x8000_0000..=-0x8001 => self.tagged(0xd2, &(n as i32).to_be_bytes()),
            _ => self.tagged(0xd3, &n.to_be_bytes()),
        }
    }

    fn tagged(&mut self, code: u8, bytes: &[u8]) {
        self.out.push(code);
        self.out.extend_from_slice(bytes);
    }

    fn number(&mut self, x: f64) {
        // Minus zero is the one whole number that does not come as an integer.
        if x == 0.0 {
            self.integer(0);
        } else if f64::from(x as f32) == x {
            self.tagged(0xca, &(x as f32).to_be_bytes());
        } else {
            self.tagged(0xcb, &x.to_be_bytes());
        }
    }

    fn table(&mut self, table: &Table, nesting: usize) -> mlua::Result<()> {
        let (mut count, mut largest, mut array) = (0_usize, 0_i64, true);
        for pair in table.pairs::<Value, Value>() {
            // Sixteen levels of shared tables can stand for any number of values.
            self.state.charge(self.lua, VALUE_WORK)?;
            match pair?.0 {
                Value::Integer(n) if (1..=i32::MAX.into()).contains(&n) => largest = largest.max(n),
                _ => array = false,
            }
            count += 1;
        }
        if array && largest == count as i64 {
            match count {
                0..=15 => self.out.push(0x90 | count as u8),
                _ => self.length([0xdc, 0xdd], count),
            }
            return (1..=largest).try_for_each(|index| self.value(&table.raw_get(index)?, nesting));
        }
        match count {
            0..=15 => self.out.push(0x80 | count as u8),
            _ => self.length([0xde, 0xdf], count),
        }
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            self.value(&key, nesting)?;
            self.value(&value, nesting)?;
        }
        Ok(())
    }
}

// ----------------------------------------------------------------- unpack

/// How much to unpack, and from where; `None` is all.
struct Bounds {
    limit: Option<i64>,
    offset: i64,
}

fn unpack(state: &RunState, arguments: &Arguments<'_>, bounds: Bounds) -> mlua::Result<MultiValue> {
    let lua = arguments.lua();
    let text = arguments.text(1)?;
    let Bounds { limit, offset } = bounds;
    // A limit of nothing from the start asks for everything.
    let limit = limit.filter(|limit| (*limit, offset) != (0, 0));
    // Told as C's `int`.
    let told = offset as i32;
    if offset < 0 || limit.is_some_and(|limit| limit < 0) {
        let length = text.len();
        let text = format!("Invalid request to unpack with offset of {told} and limit of {length}.");
        return Err(fault(lua, text));
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    if start > text.len() {
        let text = format!("Start offset {told} greater than input length {}.", text.len());
        return Err(fault(lua, text));
    }
    let mut unpacker = Unpacker { state, lua, text: &text, at: start };
    let mut values: Vec<Value> = Vec::new();
    if limit.is_some() {
        values.push(Value::Nil);
    }
    while unpacker.at < text.len() && limit.is_none_or(|limit| (values.len() as i64) <= limit) {
        if values.len() == RESULTS_MAX {
            return Err(fault(
                lua,
                "stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)",
            ));
        }
        values.push(unpacker.value(0)?);
    }
    if limit.is_some() {
        let next = if unpacker.at == text.len() { -1 } else { unpacker.at as i64 };
        values[0] = Value::Integer(next);
    }
    Ok(MultiValue::from_vec(values))
}

struct Unpacker<'a> {
    state: &'a RunState,
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
}

impl Unpacker<'_> {
    fn take(&mut self, count: usize) -> mlua::Result<&[u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.text.len());
        let end = end.ok_or_else(|| fault(self.lua, "Missing bytes in input."))?;
        let piece = &self.text[self.at..end];
        self.at = end;
        Ok(piece)
    }

    fn fixed<const N: usize>(&mut self) -> mlua::Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes were taken"))
    }

    /// A big-endian length of `N` bytes.
    fn length<const N: usize>(&mut self) -> mlua::Result<usize> {
        let bytes = self.fixed::<N>()?;
        Ok(bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)))
    }

    fn string(&mut self, length: usize) -> mlua::Result<Value> {
        let (state, lua) = (self.state, self.lua);
        let bytes = self.take(length)?;
        state.charge(lua, bytes.len())?;
        lua.create_string(bytes).map(Value::String)
    }

    fn value(&mut self, nesting: usize) -> mlua::Result<Value> {
        if nesting == NESTING_MAX {
            return Err(fault(self.lua, "Bad data format in input."));
        }
        self.state.charge(self.lua, VALUE_WORK)?;
        let [code] = self.fixed::<1>()?;
        let number = match code {
            0x00..=0x7f => f64::from(code),
            0xe0..=0xff => f64::from(code as i8),
            0xcc => f64::from(self.fixed::<1>()?[0]),
            0xcd => f64::from(u16::from_be_bytes(self.fixed()?)),
            0xce => f64::from(u32::from_be_bytes(self.fixed()?)),
            // Lua 5.1's integers are signed: so the original takes both.
            0xcf | 0xd3 => i64::from_be_bytes(self.fixed()?) as f64,
            0xd0 => f64::from(i8::from_be_bytes(self.fixed()?)),
            0xd1 => f64::from(i16::from_be_bytes(self.fixed()?)),
            0xd2 => f64::from(i32::from_be_bytes(self.fixed()?)),
            0xca => f32::from_be_bytes(self.fixed()?).into(),
            0xcb => f64::from_be_bytes(self.fixed()?),
            0xc0 => return Ok(Value::Nil),
            0xc2 => return Ok(Value::Boolean(false)),
            0xc3 => return Ok(Value::Boolean(true)),
            0xa0..=0xbf => return self.string(usize::from(code & 31)),
            0x90..=0x9f => return self.array(usize::from(code & 15), nesting + 1),
            0x80..=0x8f => return self.map(usize::from(code & 15), nesting + 1),
            _ => return self.long(code, nesting),
        };
        Ok(Value::Number(number))
    }

    /// The kinds whose length stands in bytes of its own.
    fn long(&mut self, code: u8, nesting: usize) -> mlua::Result<Value> {
        let length = match code {
            0xd9 => self.length::<1>()?,
            0xda | 0xdc | 0xde => self.length::<2>()?,
            0xdb | 0xdd | 0xdf => self.length::<4>()?,
            _ => return Err(fault(self.lua, "Bad data format in input.")),
        };
        match code {
            0xdc | 0xdd => self.array(length, nesting + 1),
            0xde | 0xdf => self.map(length, nesting + 1),
            _ => self.string(length),
        }
    }

    fn array(&mut self, length: usize, nesting: usize) -> mlua::Result<Value> {
        let table = self.lua.create_table()?;
        for index in 1..=length {
            table.raw_set(index, self.value(nesting)?)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, length: usize, nesting: usize) -> mlua::Result<Value> {
        let table = self.lua.create_table()?;
        for _ in 0..length {
            let key = self.value(nesting)?;
            let unusable = match &key {
                Value::Nil => Some("table index is nil"),
                Value::Number(x) if x.is_nan() => Some("table index is NaN"),
                _ => None,
            };
            let value = self.value(nesting)?;
            if let Some(text) = unusable {
                // Lua itself says so there, and of a function of C it knows no line.
                return Err(Fault::Text(text.into()).into());
            }
            table.raw_set(key, value)?;
        }
        Ok(Value::Table(table))
    }
}
