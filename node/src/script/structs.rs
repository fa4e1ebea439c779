//! The library `struct`: binary records (Roberto Ierusalimschy's struct 0.2, as
//! Redis carries it).

use mlua::{Lua, MultiValue, Table, Value};

use super::arguments::{Arguments, Text, until_zero};
use super::fault::fault;
use super::number::wrapped;
use super::state::RunState;

/// Largest size of an integer, in bytes.
const INTEGER_SIZE_MAX: usize = 32;
/// What one option is counted as, its bytes apart.
const OPTION_WORK: usize = 32;
/// What `!` without a number aligns to.
const ALIGNMENT: usize = 8;
/// Most results of one call: what Lua 5.1 lets a C function push.
const RESULTS_MAX: usize = 7_900;

/// A format string being read.
struct Format<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
    big: bool,
    alignment: usize,
}

impl<'a> Format<'a> {
    fn new(lua: &'a Lua, text: &'a [u8]) -> Self {
        Self { lua, text: until_zero(text), at: 0, big: cfg!(target_endian = "big"), alignment: 1 }
    }

    /// The next option and the size it names.
    fn next(&mut self) -> mlua::Result<Option<(u8, usize)>> {
        let Some(&option) = self.text.get(self.at) else { return Ok(None) };
        self.at += 1;
        let size = match option {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'f' => 4,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'c' => self.count(1)?,
            b'i' | b'I' => {
                let size = self.count(4)?;
                if size > INTEGER_SIZE_MAX {
                    let text = format!("integral size {size} is larger than limit of {INTEGER_SIZE_MAX}");
                    return Err(fault(self.lua, text));
                }
                size
            }
            _ => 0,
        };
        Ok(Some((option, size)))
    }

    fn count(&mut self, otherwise: usize) -> mlua::Result<usize> {
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Ok(otherwise);
        }
        let text = std::str::from_utf8(&self.text[self.at..self.at + digits]).expect("digits are text");
        self.at += digits;
        let count: i32 = text.parse().map_err(|_| fault(self.lua, "integral size overflow"))?;
        Ok(count as usize)
    }

    /// Zero bytes before an option at `position`.
    fn padding(&self, position: usize, option: u8, size: usize) -> usize {
        if size == 0 || option == b'c' {
            return 0;
        }
        let size = size.min(self.alignment);
        size.wrapping_sub(position & (size - 1)) & (size - 1)
    }

    /// An option that is not data.
    fn control(&mut self, arguments: &Arguments<'_>, option: u8) -> mlua::Result<()> {
        match option {
            b' ' => {}
            b'>' => self.big = true,
            b'<' => self.big = false,
            b'!' => {
                let alignment = self.count(ALIGNMENT)?;
                if !alignment.is_power_of_two() {
                    return Err(fault(self.lua, format!("alignment {alignment} is not a power of 2")));
                }
                self.alignment = alignment;
            }
            other => {
                let text = [&b"invalid format option '"[..], &[other], b"'"].concat();
                return Err(arguments.error(1, &text));
            }
        }
        Ok(())
    }

    fn ordered<const N: usize>(&self, little: [u8; N]) -> [u8; N] {
        let mut bytes = little;
        if self.big {
            bytes.reverse();
        }
        bytes
    }
}

/// `struct.pack(format, …)`
pub(super) fn pack(state: &RunState, lua: &Lua, mut values: MultiValue) -> mlua::Result<mlua::LuaString> {
    let text = Arguments::new(lua, values.clone()).text(1)?;
    // The original puts a nil after the arguments, and counts a short text as the next one.
    values.push_back(Value::Nil);
    let arguments = Arguments::new(lua, values);
    let mut format = Format::new(lua, &text);
    let mut out: Vec<u8> = Vec::new();
    let mut next = 2;
    while let Some((option, size)) = format.next()? {
        out.resize(out.len() + format.padding(out.len(), option, size), 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                put_integer(&mut out, arguments.number(next)?, format.big, size);
            }
            b'x' => out.push(0),
            b'f' => out.extend(format.ordered((arguments.number(next)? as f32).to_le_bytes())),
            b'd' => out.extend(format.ordered(arguments.number(next)?.to_le_bytes())),
            b'c' | b's' => {
                let bytes = arguments.text(next)?;
                let size = if size == 0 { bytes.len() } else { size };
                let piece = bytes.get(..size).ok_or_else(|| arguments.error(next + 1, "string too short"))?;
                state.charge(lua, piece.len())?;
                out.extend_from_slice(piece);
                if option == b's' {
                    out.push(0);
                }
            }
            _ => format.control(&arguments, option)?,
        }
        next += usize::from(b"bBhHlLTiIfdcs".contains(&option));
        state.charge(lua, size + OPTION_WORK)?;
        if out.len() > state.limits.memory_bytes {
            return Err(state.stop(lua, super::KillReason::Memory));
        }
    }
    state.charge(lua, out.len())?;
    lua.create_string(out)
}

fn put_integer(out: &mut Vec<u8>, number: f64, big: bool, size: usize) {
    let value = wrapped(number);
    let start = out.len();
    out.extend((0..size).map(|index| if index < 8 { (value >> (8 * index)) as u8 } else { 0 }));
    if big {
        out[start..].reverse();
    }
}

fn integer(bytes: &[u8], big: bool, signed: bool) -> f64 {
    let fold = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
    let value = if big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) };
    if !signed {
        return value as f64;
    }
    // A size over eight bytes shifts as the processor does: modulo 64.
    let mask = u64::MAX.wrapping_shl((bytes.len() as u32 * 8).wrapping_sub(1));
    let value = if value & mask != 0 { value | mask } else { value };
    value as i64 as f64
}

/// `struct.unpack(format, data [, position])`
pub(super) fn unpack(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<MultiValue> {
    let arguments = Arguments::new(lua, values);
    let (text, data) = (arguments.text(1)?, arguments.text(2)?);
    // A negative offset counts as a large one.
    let start = arguments.integer_or(3, 1)? as u64 as usize;
    let mut position =
        start.checked_sub(1).ok_or_else(|| arguments.error(3, "offset must be 1 or greater"))?;
    let mut format = Format::new(lua, &text);
    let mut results: Vec<Value> = Vec::new();
    let short = || arguments.error(2, "data string too short");
    while let Some((option, mut size)) = format.next()? {
        position = position.saturating_add(format.padding(position, option, size));
        let end = position.checked_add(size).filter(|end| *end <= data.len()).ok_or_else(short)?;
        let piece = &data[position..end];
        state.charge(lua, size + OPTION_WORK)?;
        if results.len() == RESULTS_MAX {
            return Err(fault(lua, "stack overflow (too many results)"));
        }
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                results.push(Value::Number(integer(piece, format.big, option.is_ascii_lowercase())));
            }
            b'x' => {}
            b'f' => {
                let bytes = format.ordered(piece.try_into().expect("f has four bytes"));
                results.push(Value::Number(f32::from_le_bytes(bytes).into()));
            }
            b'd' => {
                let bytes = format.ordered(piece.try_into().expect("d has eight bytes"));
                results.push(Value::Number(f64::from_le_bytes(bytes)));
            }
            b'c' if size == 0 => {
                size = previous_size(lua, &mut results)?;
                let end = position.checked_add(size).filter(|end| *end <= data.len()).ok_or_else(short)?;
                results.push(Value::String(lua.create_string(&data[position..end])?));
            }
            b'c' => results.push(Value::String(lua.create_string(piece)?)),
            b's' => {
                let rest = &data[position..];
                let length =
                    memchr::memchr(0, rest).ok_or_else(|| fault(lua, "unfinished string in data"))?;
                size = length + 1;
                results.push(Value::String(lua.create_string(&rest[..length])?));
            }
            _ => format.control(&arguments, option)?,
        }
        position += size;
    }
    results.push(Value::Number((position as i64).wrapping_add(1) as f64));
    Ok(MultiValue::from_vec(results))
}

/// `c0` takes its size from the number read just before.
fn previous_size(lua: &Lua, results: &mut Vec<Value>) -> mlua::Result<usize> {
    let size = match results.pop() {
        Some(value @ (Value::Number(_) | Value::Integer(_) | Value::String(_))) => {
            lua.coerce_number(value)?
        }
        _ => None,
    };
    size.map(|size| wrapped(size) as usize).ok_or_else(|| fault(lua, "format 'c0' needs a previous size"))
}

/// `struct.size(format)`
pub(super) fn size(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<f64> {
    let arguments = Arguments::new(lua, values);
    let text: Text = arguments.text(1)?;
    let mut format = Format::new(lua, &text);
    let mut position = 0_usize;
    while let Some((option, size)) = format.next()? {
        position = position.saturating_add(format.padding(position, option, size));
        state.charge(lua, OPTION_WORK)?;
        match option {
            b's' => return Err(arguments.error(1, "option 's' has no fixed size")),
            b'c' if size == 0 => return Err(arguments.error(1, "option 'c0' has no fixed size")),
            _ if !option.is_ascii_alphanumeric() => format.control(&arguments, option)?,
            _ => {}
        }
        position = position.saturating_add(size);
    }
    Ok(position as f64)
}

pub(super) fn library(lua: &Lua, state: &std::rc::Rc<RunState>) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let of = std::rc::Rc::clone(state);
    library.raw_set("pack", lua.create_function(move |lua, values| pack(&of, lua, values))?)?;
    let of = std::rc::Rc::clone(state);
    library.raw_set("unpack", lua.create_function(move |lua, values| unpack(&of, lua, values))?)?;
    let of = std::rc::Rc::clone(state);
    library.raw_set("size", lua.create_function(move |lua, values| size(&of, lua, values))?)?;
    Ok(library)
}
