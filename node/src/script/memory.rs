//! What a script holds, and the collector that finds it out.
//!
//! Lua 5.1 has no emergency collection: an allocation that would pass the limit
//! fails, be all the rest garbage. And its own collector goes on by the number of
//! allocations, not by their size, so joining texts of megabytes outruns it. So the
//! collector runs at questions, before the limit is reached, and what is left then
//! is what the script holds. Lua itself is stopped only at [`HEADROOM`] times that.
//!
//! The collector works in small steps, with a question after each.

use std::cell::Cell;

use mlua::Lua;
use mlua::state::{GcIncParams, GcMode};

/// Lua's own limit, as a multiple of what a script may hold: the rest is garbage
/// that the next question finds.
const HEADROOM: usize = 2;
/// Of the limit: more garbage than that is looked at.
const GARBAGE_PART: usize = 8;
/// Of the limit: what a run may leave behind as garbage.
const LEFT_PART: usize = 16;
/// The collector's speed at questions, in Lua's units: a step is 200 KB of tables
/// or 20,000 objects, at worst 2 ms.
const STEP_FAST: i32 = 20_000;
/// Its speed otherwise: Lua's default.
const STEP_USUAL: i32 = 200;
/// Cycles after which the rest is held: Lua gives back half of the buffer that joins
/// texts in each.
const CYCLES_MAX: usize = 4;

/// See the module.
pub(super) struct Memory {
    /// What a script may hold.
    limit: usize,
    /// What is not a script's: the libraries and the chunks that are kept.
    base: Cell<usize>,
    /// From here on the collector is asked.
    collect_at: Cell<usize>,
    /// Nothing may be collected: a text is being compiled.
    rests: Cell<bool>,
}

impl Memory {
    pub fn new(limit: usize) -> Self {
        Self { limit, base: Cell::new(0), collect_at: Cell::new(usize::MAX), rests: Cell::new(false) }
    }

    /// What is not a script's from now on.
    pub fn set_base(&self, bytes: usize) {
        self.base.set(bytes);
        self.collect_at.set(bytes + self.limit / GARBAGE_PART);
    }

    /// Where Lua itself refuses, if at most so much is ever not a script's.
    pub fn hard_limit(&self, base_max: usize) -> usize {
        self.limit.saturating_mul(HEADROOM).saturating_add(base_max)
    }

    /// What a script has taken, garbage included.
    pub fn taken(&self, lua: &Lua) -> usize {
        lua.used_memory().saturating_sub(self.base.get())
    }

    /// Whether the collector should look, if so much is about to come.
    pub fn is_due(&self, lua: &Lua, coming: usize) -> bool {
        lua.used_memory().saturating_add(coming) > self.collect_at.get() && !self.rests.get()
    }

    /// Whether a run left much garbage.
    pub fn is_littered(&self, lua: &Lua) -> bool {
        self.taken(lua) > (self.limit / LEFT_PART).max(self.base.get())
    }

    /// Runs something during which nothing is collected.
    pub fn at_rest<T>(&self, lua: &Lua, run: impl FnOnce() -> T) -> T {
        let before = self.rests.replace(true);
        lua.gc_stop();
        let value = run();
        if !before {
            lua.gc_restart();
        }
        self.rests.set(before);
        value
    }

    /// Collects; `after_step` is asked after each step whether to go on. Whether
    /// what is held now is no more than a script may hold.
    pub fn collect(&self, lua: &Lua, mut after_step: impl FnMut() -> mlua::Result<()>) -> mlua::Result<bool> {
        let pace =
            |speed| lua.gc_set_mode(GcMode::Incremental(GcIncParams::default().step_multiplier(speed)));
        // At the limit even the collector, which shrinks tables, could not allocate.
        let unlimited = Unlimited::new(lua)?;
        pace(STEP_FAST);
        let mut collected = Ok(());
        for cycle in 0..CYCLES_MAX {
            // The first one may have been half done when the last garbage was made.
            if cycle > 1 && self.taken(lua) <= self.limit {
                break;
            }
            collected = run_cycle(lua, &mut after_step);
            if collected.is_err() {
                break;
            }
        }
        pace(STEP_USUAL);
        drop(unlimited);
        collected?;
        let held = self.taken(lua);
        // As much again may come as is held, and half of it: so the work is in proportion to what is made.
        // Near the limit it comes more often, since nobody may hold much more than that.
        let garbage = self.limit / GARBAGE_PART;
        let next = (held + (held / 2).max(garbage)).min(self.limit + garbage);
        self.collect_at.set(self.base.get() + next);
        Ok(held <= self.limit)
    }
}

fn run_cycle(lua: &Lua, after_step: &mut impl FnMut() -> mlua::Result<()>) -> mlua::Result<()> {
    while !lua.gc_step()? {
        after_step()?;
    }
    after_step()
}

/// While it lives Lua has no limit.
///
/// Under the limit every allocation from Rust is a protected call, which costs
/// more than the allocation; without it none can fail.
pub(super) struct Unlimited<'a>(&'a Lua, usize);

impl<'a> Unlimited<'a> {
    pub fn new(lua: &'a Lua) -> mlua::Result<Self> {
        Ok(Self(lua, lua.set_memory_limit(0)?))
    }
}

impl Drop for Unlimited<'_> {
    fn drop(&mut self) {
        // It fails only where there is no limit to set, and then none was lifted.
        let _ = self.0.set_memory_limit(self.1);
    }
}
