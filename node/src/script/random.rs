//! `math.random` and `math.randomseed`: the generator of Redis, which is that of
//! `lrand48` in the C library, so that a seed gives the numbers it gives there.

use std::cell::Cell;

use mlua::{Lua, MultiValue, Value};

use super::arguments::Arguments;
use super::fault::fault;

/// 48 bits that become the next 48 of the sequence.
#[derive(Default)]
pub(super) struct Generator(Cell<u64>);

impl Generator {
    const MASK: u64 = (1 << 48) - 1;

    /// Starts anywhere in the sequence.
    pub fn start(&self, anywhere: u64) {
        self.0.set(anywhere & Self::MASK);
    }

    /// `srand48`
    pub fn seed(&self, seed: i32) {
        self.0.set((u64::from(seed as u32) << 16) | 0x330e);
    }

    /// The next number, from 0 to below 1.
    fn next(&self) -> f64 {
        const NUMBER_MAX: u64 = 0x7fff_ffff;
        let next = self.0.get().wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & Self::MASK;
        self.0.set(next);
        ((next >> 17) % NUMBER_MAX) as f64 / NUMBER_MAX as f64
    }

    /// `math.random([least,] most)`
    pub fn random(&self, lua: &Lua, values: MultiValue) -> mlua::Result<Value> {
        let arguments = Arguments::new(lua, values);
        let fraction = self.next();
        // Bounds are C ints there, and so is how many there are between them.
        let bound = |index: usize| arguments.integer(index).map(|n| n as i32);
        let (least, most, named) = match arguments.len() {
            0 => return Ok(Value::Number(fraction)),
            1 => (1, bound(1)?, 1),
            2 => (bound(1)?, bound(2)?, 2),
            _ => return Err(fault(lua, "wrong number of arguments")),
        };
        if least > most {
            return Err(arguments.error(named, "interval is empty"));
        }
        let count = most.wrapping_sub(least).wrapping_add(1);
        Ok(Value::Number((fraction * f64::from(count)).floor() + f64::from(least)))
    }
}
