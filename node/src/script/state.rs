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
use std::rc::Rc;

use mlua::{HookTriggers, Lua, VmState};
use moonraft_proto::Protocol;

use super::fault::Fault;
use super::json::settings::Settings;
use super::library::Registering;
use super::memory::{Memory, Unlimited};
use super::pace::{Pace, WORK};
use super::random::Generator;
use super::{Host, Limits, Verdict};

/// Work of less than that is counted, but says nothing of what instructions may cost.
const TEXT_NOTED: usize = 256;

/// Why a run was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// `SCRIPT KILL`
    User,
    /// The host gave up: leadership lost, shutdown, a time limit.
    Host,
    /// The script asked for more memory than [`Limits::memory_bytes`].
    Memory,
    /// A library took too long to be loaded.
    Time,
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
    pub random: Generator,
    /// The settings of the global `cjson`.
    pub json: Rc<RefCell<Settings>>,
    pub place: RefCell<Option<Place>>,
    /// What a library has registered so far, while one is loaded.
    pub registering: RefCell<Option<Registering>>,
    pub memory: Memory,
    stopped: Cell<Option<KillReason>>,
    /// Work since the last question.
    work: Cell<usize>,
    /// The most there ever was between two questions.
    work_longest: Cell<usize>,
    pace: Cell<Pace>,
    /// The last question: the host's clock, and the memory that was used.
    asked: Cell<(u64, usize)>,
    /// The instructions that the hook was last set to.
    hooked: Cell<u32>,
    /// The hook was set to fewer than usual in this run: a coroutine, which has a count
    /// of its own, may have another.
    was_close: Cell<bool>,
}

impl RunState {
    pub fn new(limits: Limits) -> Self {
        Self {
            memory: Memory::new(limits.memory_bytes),
            limits,
            host: RefCell::new(None),
            protocol: Cell::new(Protocol::Resp2),
            random: Generator::default(),
            json: Rc::default(),
            place: RefCell::new(None),
            registering: RefCell::new(None),
            stopped: Cell::new(None),
            work: Cell::new(0),
            work_longest: Cell::new(0),
            pace: Cell::default(),
            asked: Cell::default(),
            // Not what any hook is set to, so that the first run sets it.
            hooked: Cell::new(0),
            was_close: Cell::new(false),
        }
    }

    /// Makes everything as a fresh run finds it.
    pub fn begin(&self, lua: &Lua) -> mlua::Result<()> {
        let (seed, now) =
            self.host.borrow().as_ref().map_or((0, 0), |host| (host.random_seed(), host.clock_ns()));
        self.random.start(seed);
        self.asked.set((now, lua.used_memory()));
        self.protocol.set(Protocol::Resp2);
        self.json.replace(Settings::default());
        self.place.take();
        self.registering.take();
        self.stopped.set(None);
        self.work.set(0);
        self.pace.set(Pace::default());
        self.was_close.set(false);
        self.watch(lua)
    }

    /// Lends the host.
    pub fn lend(&self, host: Box<dyn Host>) {
        *self.host.borrow_mut() = Some(host);
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
        let _ = self.watch(lua);
        Fault::Stop.into()
    }

    /// Counts work outside of Lua's instructions, in bytes touched or steps made, and
    /// asks when it was much. The work of one call is also how long a text it is about.
    pub fn charge(&self, lua: &Lua, work: usize) -> mlua::Result<()> {
        let total = self.work.get().saturating_add(work);
        self.work.set(total);
        self.note_text(lua, work)?;
        if total < self.pace.get().work() && !(work > TEXT_NOTED && self.memory.is_due(lua, work)) {
            return Ok(());
        }
        self.ask(lua)
    }

    /// From now on the script may work on texts of so many bytes.
    pub fn note_text(&self, lua: &Lua, bytes: usize) -> mlua::Result<()> {
        if bytes <= TEXT_NOTED {
            return Ok(());
        }
        let pace = self.pace.get().text(bytes);
        if self.pace.replace(pace) == pace { Ok(()) } else { self.watch(lua) }
    }

    /// The most work there ever was between two questions.
    pub fn work_longest(&self) -> usize {
        self.work_longest.get()
    }

    /// So much of a long work as is to be done before the next charge: all of `usual`
    /// where it is cheap.
    pub fn part(&self, usual: usize) -> usize {
        usual / (WORK / self.pace.get().work())
    }

    /// Makes values without Lua's memory limit, and looks at it afterwards. Only for
    /// what is no larger than something that is in memory already.
    pub fn unlimited<T>(&self, lua: &Lua, make: impl FnOnce() -> mlua::Result<T>) -> mlua::Result<T> {
        let unlimited = Unlimited::new(lua)?;
        let made = make();
        drop(unlimited);
        if self.memory.is_due(lua, 0) {
            self.collect(lua)?;
        }
        made
    }

    /// Asks the host whether the run may go on.
    pub fn ask(&self, lua: &Lua) -> mlua::Result<()> {
        let work = self.work.take();
        self.work_longest.set(self.work_longest.get().max(work));
        if self.stopped.get().is_some() {
            return Err(self.stop(lua, KillReason::Host));
        }
        let (asked_ns, used_before) = self.asked.get();
        let took_ns = self.clock_ns().saturating_sub(asked_ns);
        let grown = lua.used_memory().saturating_sub(used_before);
        if self.memory.is_due(lua, work) {
            self.collect(lua)?;
        }
        self.poll(lua)?;
        self.asked.set((self.clock_ns(), lua.used_memory()));
        self.pace.set(self.pace.get().stretch(took_ns, grown, self.memory.taken(lua)));
        self.watch(lua)
    }

    /// Whether the run may go on, for code that cannot raise.
    pub fn may_go_on(&self, lua: &Lua) -> bool {
        self.ask(lua).is_ok()
    }

    /// Collects garbage, and ends the run if it holds too much.
    pub fn collect(&self, lua: &Lua) -> mlua::Result<()> {
        if self.memory.collect(lua, || self.poll(lua))? {
            return Ok(());
        }
        Err(self.stop(lua, KillReason::Memory))
    }

    /// Collects what a run that is over leaves behind; whether it may go on is no
    /// question any more, but others are still heard.
    pub fn clean(&self, lua: &Lua) {
        let hear = || {
            self.verdict();
            Ok(())
        };
        // Failing to collect leaves garbage, which the next collection finds.
        let _ = self.memory.collect(lua, hear);
    }

    /// The host's clock.
    pub fn clock_ns(&self) -> u64 {
        self.host.borrow().as_ref().map_or(0, |host| host.clock_ns())
    }

    fn verdict(&self) -> Verdict {
        self.host.borrow_mut().as_mut().map_or(Verdict::Continue, |host| host.poll())
    }

    fn poll(&self, lua: &Lua) -> mlua::Result<()> {
        match self.verdict() {
            Verdict::Continue => Ok(()),
            Verdict::Kill(reason) => Err(self.stop(lua, reason)),
        }
    }

    /// Sets the hook of the thread that runs.
    fn watch(&self, lua: &Lua) -> mlua::Result<()> {
        let usual = Pace::default().instructions();
        let instructions = if self.stopped.get().is_some() { 1 } else { self.pace.get().instructions() };
        self.was_close.set(self.was_close.get() || instructions != usual);
        if self.hooked.replace(instructions) == instructions && !self.was_close.get() {
            return Ok(());
        }
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(instructions), hook)
    }
}

/// The state is found through the Lua state, so that the hook itself is free to make.
fn hook(lua: &Lua, _: &mlua::debug::Debug) -> mlua::Result<VmState> {
    let state = lua.app_data_ref::<Rc<RunState>>().map(|state| Rc::clone(&state));
    state.map_or(Ok(()), |state| state.ask(lua)).map(|()| VmState::Continue)
}
