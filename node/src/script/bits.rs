//! The library `bit`: operations on 32-bit integers (Lua BitOp 1.0.2).

use mlua::{Lua, MultiValue, Table};

use super::arguments::Arguments;

/// Adding this to a number of up to 2^51 leaves its integer part, modulo 2^32, in
/// the low bits of the sum: how Lua BitOp rounds, ties to even included.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

fn word(arguments: &Arguments<'_>, index: usize) -> mlua::Result<u32> {
    Ok((arguments.number(index)? + ROUNDER).to_bits() as u32)
}

/// Results are signed.
fn signed(bits: u32) -> i64 {
    i64::from(bits as i32)
}

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let one = |name: &str, operation: fn(u32) -> u32| {
        let run = move |lua: &Lua, values: MultiValue| {
            Ok(signed(operation(word(&Arguments::new(lua, values), 1)?)))
        };
        library.raw_set(name, lua.create_function(run)?)
    };
    one("tobit", |bits| bits)?;
    one("bnot", |bits| !bits)?;
    one("bswap", u32::swap_bytes)?;

    let many = |name: &str, operation: fn(u32, u32) -> u32| {
        let run = move |lua: &Lua, values: MultiValue| {
            let arguments = Arguments::new(lua, values);
            let mut bits = word(&arguments, 1)?;
            for index in 2..=arguments.len() {
                bits = operation(bits, word(&arguments, index)?);
            }
            Ok(signed(bits))
        };
        library.raw_set(name, lua.create_function(run)?)
    };
    many("band", |a, b| a & b)?;
    many("bor", |a, b| a | b)?;
    many("bxor", |a, b| a ^ b)?;

    let shift = |name: &str, operation: fn(u32, u32) -> u32| {
        let run = move |lua: &Lua, values: MultiValue| {
            let arguments = Arguments::new(lua, values);
            Ok(signed(operation(word(&arguments, 1)?, word(&arguments, 2)? & 31)))
        };
        library.raw_set(name, lua.create_function(run)?)
    };
    shift("lshift", |bits, by| bits << by)?;
    shift("rshift", |bits, by| bits >> by)?;
    shift("arshift", |bits, by| ((bits as i32) >> by) as u32)?;
    shift("rol", u32::rotate_left)?;
    shift("ror", u32::rotate_right)?;

    library.raw_set("tohex", lua.create_function(tohex)?)?;
    Ok(library)
}

/// `bit.tohex(x [, digits])`: a negative count asks for capitals.
fn tohex(lua: &Lua, values: MultiValue) -> mlua::Result<String> {
    let arguments = Arguments::new(lua, values);
    let bits = word(&arguments, 1)?;
    let digits = if arguments.len() < 2 { 8 } else { word(&arguments, 2)? as i32 };
    let count = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 { format!("{bits:08X}") } else { format!("{bits:08x}") };
    Ok(text[8 - count..].to_owned())
}
