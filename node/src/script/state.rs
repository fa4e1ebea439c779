//! What the callbacks of one engine share during a run.
//!
//! The callbacks are made once and live as long as the Lua state, so what differs
//! from run to run (the host, the protocol, the random numbers, whether the run
//! was stopped) is kept here, behind cells: everything is on one thread.
//!
//! A run is stopped from three places: the instruction hook, long work in Rust
//! ([`RunState::charge`]) and a failed allocation. From then on every instruction
//! calls the hook, which raises, and whatever catches it raises again.

use std::cell::{Cell, RefCell};

use mlua::{HookTriggers, Lua, VmState};
use moonraft_proto::Protocol;

use super::fault::Fault;
use super::json::settings::Settings;
use super::{Host, Limits, Verdict};

/// Instructions between two questions to the host: about 5 us of plain code, so
/// that a loop over large strings, too, is asked every few seconds at worst.
const HOOK_INSTRUCTIONS: u32 = 1_000;
/// The same once the script holds much memory: one instruction may then compare
/// or join megabytes.
const HOOK_INSTRUCTIONS_LARGE: u32 = 50;
/// The memory from which a script counts as large.
const LARGE_BYTES: usize = 8 << 20;
/// Work in Rust between two questions, in bytes touched or steps made: under 1 ms.
const WORK_A_QUESTION: usize = 1 << 20;

/// Why a run was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// `SCRIPT KILL`
    User,
    /// The host gave up: leadership lost, shutdown, a time limit.
    Host,
    /// The script asked for more memory than [`Limits::memory_bytes`].
    Memory,
}

/// How closely the instruction hook looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Normal,
    Large,
    EveryInstruction,
}

/// Where an uncaught error happened.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub source: String,
    /// -1 where Lua knows no line.
    pub line: i64,
}

/// See the module.
pub(super) struct RunState {
    pub limits: Limits,
    pub host: RefCell<Option<Box<dyn Host>>>,
    pub protocol: Cell<Protocol>,
    pub random: Cell<u64>,
    /// The settings of the global `cjson`.
    pub json: std::rc::Rc<RefCell<Settings>>,
    pub place: RefCell<Option<Place>>,
    stopped: Cell<Option<KillReason>>,
    work: Cell<usize>,
    watch: Cell<Watch>,
}

impl RunState {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            host: RefCell::new(None),
            protocol: Cell::new(Protocol::Resp2),
            random: Cell::new(0),
            json: std::rc::Rc::default(),
            place: RefCell::new(None),
            stopped: Cell::new(None),
            work: Cell::new(0),
            // Not what any hook is set to yet, so that the first run sets it.
            watch: Cell::new(Watch::EveryInstruction),
        }
    }

    /// Makes everything as a fresh run finds it.
    pub fn begin(state: &std::rc::Rc<Self>, lua: &Lua, host: Box<dyn Host>) -> mlua::Result<()> {
        state.random.set(host.random_seed());
        *state.host.borrow_mut() = Some(host);
        state.protocol.set(Protocol::Resp2);
        state.json.replace(Settings::default());
        state.place.take();
        state.stopped.set(None);
        state.work.set(0);
        state.watch(lua, Watch::Normal)
    }

    /// Takes the host back.
    pub fn end(&self) -> Box<dyn Host> {
        self.host.take().expect("a run ends once, and began with a host")
    }

    /// Why the run is over, if it is.
    pub fn stopped(&self) -> Option<KillReason> {
        self.stopped.get()
    }

    /// Ends the run; the error to raise.
    pub fn stop(&self, lua: &Lua, reason: KillReason) -> mlua::Error {
        if self.stopped.get().is_none() {
            self.stopped.set(Some(reason));
        }
        // Without the hook the run still ends: whoever catches the error raises it again.
        let _ = self.watch(lua, Watch::EveryInstruction);
        Fault::Stop.into()
    }

    /// Counts work done outside Lua's instructions, and asks when it was much.
    pub fn charge(&self, lua: &Lua, work: usize) -> mlua::Result<()> {
        let total = self.work.get().saturating_add(work);
        if total < WORK_A_QUESTION {
            self.work.set(total);
            return Ok(());
        }
        self.ask(lua)
    }

    /// Makes values without Lua's memory limit, and looks at it afterwards.
    ///
    /// Under the limit every allocation from Rust is a protected call, which costs
    /// more than the allocation; without it none can fail. Only for what is no
    /// larger than something that is in memory already.
    pub fn unlimited<T>(&self, lua: &Lua, make: impl FnOnce() -> mlua::Result<T>) -> mlua::Result<T> {
        struct Restore<'a>(&'a Lua, usize);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                // It fails only where there is no limit to set, and then none was lifted.
                let _ = self.0.set_memory_limit(self.1);
            }
        }
        let limited = Restore(lua, lua.set_memory_limit(0)?);
        let made = make();
        drop(limited);
        if lua.used_memory() > self.limits.memory_bytes {
            return Err(self.stop(lua, KillReason::Memory));
        }
        made
    }

    /// Asks the host whether the run may go on.
    pub fn ask(&self, lua: &Lua) -> mlua::Result<()> {
        self.work.set(0);
        if self.stopped.get().is_some() {
            // A coroutine made before the stop has a hook of its own.
            self.watch.set(Watch::Normal);
            return Err(self.stop(lua, KillReason::Host));
        }
        let used = lua.used_memory();
        if used > self.limits.memory_bytes {
            return Err(self.stop(lua, KillReason::Memory));
        }
        let verdict = self.host.borrow_mut().as_mut().map_or(Verdict::Continue, |host| host.poll());
        if let Verdict::Kill(reason) = verdict {
            return Err(self.stop(lua, reason));
        }
        let watch = if used > LARGE_BYTES { Watch::Large } else { Watch::Normal };
        self.watch(lua, watch)
    }

    /// Whether the run may go on, for code that cannot raise.
    pub fn may_go_on(&self, lua: &Lua) -> bool {
        self.ask(lua).is_ok()
    }

    fn watch(&self, lua: &Lua, watch: Watch) -> mlua::Result<()> {
        if self.watch.replace(watch) == watch {
            return Ok(());
        }
        let instructions = match watch {
            Watch::Normal => HOOK_INSTRUCTIONS,
            Watch::Large => HOOK_INSTRUCTIONS_LARGE,
            Watch::EveryInstruction => 1,
        };
        let triggers = HookTriggers::new().every_nth_instruction(instructions);
        lua.set_global_hook(triggers, hook)
    }
}

/// The state is found through the Lua state, so that the hook itself is free to make.
fn hook(lua: &Lua, _: &mlua::debug::Debug) -> mlua::Result<VmState> {
    let state = lua.app_data_ref::<std::rc::Rc<RunState>>().map(|state| std::rc::Rc::clone(&state));
    state.map_or(Ok(()), |state| state.ask(lua)).map(|()| VmState::Continue)
}
