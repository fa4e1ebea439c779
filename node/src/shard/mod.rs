//! One replica of one shard: sessions, execution, the gate. A plain state machine.
//!
//! Inputs are bytes of connections ([`Shard::receive`]) and events of consensus
//! and of the node ([`Core::handle`]); outputs are bytes that may leave
//! ([`Core::writable`]) and [`Output`]s. There is no socket, file or thread in
//! here, and clocks are read through [`Surroundings`], so that the simulator runs
//! the very same type.
//!
//! The life of a request, with real names:
//!
//! 1. [`Shard::receive`] parses it: words that borrow from the read buffer.
//! 2. It becomes a [`Request`](crate::command::Request): its row, its keys, their slot.
//! 3. [`admit`] decides whether it may run: the shard's own state says whether it owns the slot,
//!    [`Standing`] whether it may execute. Else: a redirect, or it is left unread.
//! 4. [`execute`]: the handler runs on the [`Tx`]; effects are applied at once. If a `MULTI` is open
//!    it is queued ([`block`]).
//! 5. [`Core::end_turn`] seals the turn's units into one batch and proposes it.
//! 6. [`events`]: a committed batch opens the gate of the replies that wait for it.
//! 7. Or leadership is lost: all that is in flight is taken back, newest first,
//!    and the log tells which replies become redirects.
//!
//! Invariants:
//! * Nothing is executed or served before an entry of the own term is applied.
//! * Nothing of a new term is applied before all that is speculative is undone.
//! * A redirect is sent only for a request that had no effect and never will.
//! * A read leaves only if, after it was executed, a lease covered it or a round
//!   confirmed that this replica still led.

mod admit;
mod block;
mod blocked;
pub mod busy;
mod client;
pub mod clock;
pub mod connections;
pub mod errand;
mod errands;
pub mod events;
pub mod execute;
mod formats;
mod gathering;
mod large_blocks;
mod large_calls;
mod memory;
pub mod messages;
mod monitors;
pub mod outbox;
mod place;
pub mod preparing;
mod readers;
pub mod receive;
mod room;
mod script;
pub mod seen_scripts;
pub mod session;
pub mod settings;
mod slots;
pub mod snapshot;
pub mod speculation;
pub mod state;
pub mod surroundings;
mod survey;
mod tracking;
mod undoing;
mod units;
mod waiting;
pub mod waits;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    rc::Rc,
};

use bytes::Bytes;
use moonraft_proto::{Weight, entry::Place};
use slab::Slab;

use self::{
    blocked::Blocked,
    busy::{Called, Overdue},
    clock::Clock,
    errands::Errands,
    formats::Formats,
    gathering::Gathering,
    memory::Evictions,
    outbox::{BatchId, Fate, ReadReply},
    readers::Readers,
    room::Room,
    seen_scripts::SeenScripts,
    session::Session,
    snapshot::{Installing, Snapshots},
    speculation::Speculation,
    survey::Surveys,
    tracking::{Forget, Trackers},
    undoing::Undoing,
    waiting::{Timers, WaitingRoom},
    waits::Waits,
};
pub use self::{
    busy::BusyShard,
    connections::{Backlog, TOO_MANY_CLIENTS},
    errand::{Errand, Outcome},
    messages::{CommittedEntry, Event, Output, Standing},
    room::DiskRoom,
    settings::{PlantedFault, ShardSettings},
    state::State,
    surroundings::{Busy, ProcessFacts, Surroundings},
};
pub use crate::subscriptions::SessionId;
use crate::{
    command::{
        client::Pause,
        latency::Latency,
        slow_requests::SlowLog,
        statistics::{Details, Rates, Statistics},
    },
    keyspace::{Keyspace, Store, Tx, tx::Publication},
    script::Engine,
    subscriptions::Subscriptions,
};

/// One replica of one shard.
///
/// A script that runs has the [`Core`] for itself: what it calls lives as long as its engine, and cannot borrow. So
/// there is none here while it runs, and nothing is asked of what is left. Whatever may lead to a script is asked of
/// a shard, all else of its core.
pub struct Shard {
    core: Option<Box<Core>>,
    /// `None` while a script runs, also of the shard that the script has.
    engine: Option<Box<Engine>>,
}

impl Deref for Shard {
    type Target = Core;

    fn deref(&self) -> &Core {
        self.core.as_ref().expect("nothing is asked of a shard whose core a script has")
    }
}

impl DerefMut for Shard {
    fn deref_mut(&mut self) -> &mut Core {
        self.core.as_mut().expect("nothing is asked of a shard whose core a script has")
    }
}

/// All of a replica but the engine of its scripts.
pub struct Core {
    settings: ShardSettings,
    surroundings: Rc<dyn Surroundings>,
    store: Store,
    /// Who listens on this replica.
    listeners: Subscriptions,
    /// What the node has of memory and disk.
    room: Room,
    evictions: Evictions,
    seen_scripts: SeenScripts,
    standing: Standing,
    speculation: Speculation,
    clock: Clock,
    /// The boot clock, if a request that was timed has just ended: the next one of those that are received together
    /// begins then. It is forgotten after the last of them.
    read_ns: Option<u64>,
    formats: Formats,
    sessions: Slab<Session>,
    sessions_ever: u64,
    /// The last applied entry, and its term.
    applied: (u64, u64),
    /// The applied part of the log tells what is owned; see [`slots`].
    is_born: bool,
    /// The first parts of a batch whose last part is the next entry to come, or a
    /// later one.
    parts: Vec<Bytes>,
    /// Entries that are committed and wait for the walk of a snapshot, oldest first; see [`preparing`].
    held_entries: VecDeque<CommittedEntry>,
    /// How far the first of them is applied, if it is applied in steps.
    applying: Option<Place>,
    /// What takes back what is lost and is taken back in steps; see [`undoing`].
    undoing: Undoing,
    /// Sessions with a reply that waits for the open batch.
    open_waiting: Vec<SessionId>,
    /// What the reply to the open unit weighs, as far as it is known.
    unit_reply: Weight,
    /// Messages that leave with the open batch.
    open_publications: Vec<Publication>,
    /// What clients are to forget when the open batch commits.
    open_forgets: Vec<Forget>,
    /// Clients that keep copies.
    trackers: Trackers,
    /// A batch is sealed though it has no effects: its stamp is wanted.
    stamp_wanted: bool,
    /// Reads of this turn wait for the round to come.
    round_wanted: bool,
    /// Replies to reads of the requests that are being received, oldest first: whether a lease
    /// covers them is asked once, after the last.
    reads: Vec<ReadReply>,
    /// The round to come, counted in each term.
    next_round: u64,
    /// The last entry that the log held at the start; see [`State::acknowledged`].
    acknowledged: (u64, u64),
    snapshots: Snapshots,
    installing: Option<Installing>,
    /// Requests that are executed elsewhere.
    errands: Errands,
    /// Requests that look at all keys, in steps.
    surveys: Surveys,
    gathering: Gathering,
    /// Sessions with requests left unread.
    waiting: WaitingRoom,
    /// Sessions that hear of each request.
    monitors: Vec<SessionId>,
    /// Moments that are waited for.
    timers: Timers,
    /// A reply may be held that nobody can settle: leadership was lost since none was.
    may_be_unsettled: bool,
    /// When a request first found that nobody serves, boot clock; `None` since somebody does.
    leaderless_since: Option<u64>,
    /// Each tick removes keys and fields whose time has come: `DEBUG SET-ACTIVE-EXPIRE`.
    expires_actively: bool,
    /// `CLIENT PAUSE`
    pause: Option<Pause>,
    /// Sessions that `WAIT` blocks.
    waits: Waits,
    /// Requests that wait until something comes to their keys.
    blocked: Blocked,
    readers: Readers,
    /// While clients are attended to beside a script that is over its time.
    overdue: Option<Overdue>,
    /// While a function of a library runs.
    called: Option<Called>,
    outputs: Vec<Output>,
    statistics: Statistics,
    details: Details,
    rates: Rates,
    slow_log: SlowLog,
    latency: Latency,
    /// When the data were last saved, as `LASTSAVE` tells it, Unix microseconds, and how many changes there had
    /// been then.
    saved: (u64, u64),
    /// When the traces last told that somebody speaks HTTP, boot clock.
    told_of_http_ns: Option<u64>,
}

impl Shard {
    /// A replica with this state. `seed` decides what is drawn at random.
    pub fn new(settings: ShardSettings, surroundings: Rc<dyn Surroundings>, state: State, seed: u64) -> Self {
        let engine = Engine::new(settings.scripts.clone()).expect("Lua's libraries fit in the memory limit");
        let saved = (surroundings.unix_us(), state.keyspace.changes());
        let is_born = state.stamp_ms > 0 || !state.keyspace.owned().is_empty();
        let formats = Formats::of(state.keyspace.agreed_format());
        let mut store = Store::new(state.keyspace, seed);
        store.set_limits(settings.limits);
        store.set_eviction(settings.eviction);
        store.set_events(settings.events);
        let mut latency = Latency::default();
        latency.set_threshold(settings.latency_ms);
        let clock = Clock::starting_at(state.stamp_ms, settings.clocks);
        let core = Core {
            settings,
            surroundings,
            store,
            listeners: Subscriptions::default(),
            room: Room::default(),
            evictions: Evictions::default(),
            seen_scripts: SeenScripts::default(),
            standing: Standing::Following { leader: None },
            speculation: Speculation::default(),
            clock,
            read_ns: None,
            formats,
            sessions: Slab::new(),
            sessions_ever: 0,
            acknowledged: state.acknowledged,
            snapshots: Snapshots::default(),
            installing: None,
            errands: Errands::default(),
            surveys: Surveys::new(),
            gathering: Gathering::default(),
            applied: state.applied,
            is_born,
            parts: Vec::new(),
            held_entries: VecDeque::new(),
            applying: None,
            undoing: Undoing::default(),
            open_waiting: Vec::new(),
            unit_reply: Weight::default(),
            open_publications: Vec::new(),
            open_forgets: Vec::new(),
            trackers: Trackers::default(),
            stamp_wanted: false,
            round_wanted: false,
            reads: Vec::new(),
            next_round: 1,
            waiting: WaitingRoom::default(),
            monitors: Vec::new(),
            timers: Timers::default(),
            may_be_unsettled: false,
            leaderless_since: None,
            expires_actively: true,
            pause: None,
            waits: Waits::default(),
            blocked: Blocked::default(),
            readers: Readers::default(),
            overdue: None,
            called: None,
            outputs: Vec::new(),
            statistics: Statistics::default(),
            details: Details::default(),
            rates: Rates::default(),
            slow_log: SlowLog::default(),
            latency,
            saved,
            told_of_http_ns: None,
        };
        Self { core: Some(Box::new(core)), engine: Some(Box::new(engine)) }
    }
}

impl Core {
    /// What is to be done, oldest first.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        self.resume_awaiting();
        self.collect_chunks();
        std::mem::take(&mut self.outputs)
    }

    /// What this replica is at the moment.
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether it leads and may serve.
    pub const fn is_serving(&self) -> bool {
        matches!(self.standing, Standing::Leading { serving: true, .. })
    }

    /// Whether its data are ahead of the log.
    pub fn is_speculating(&self) -> bool {
        !self.speculation.is_empty() || self.store().has_effects()
    }

    /// Whether its data are those of no entry: values are lent, or a batch is applied, or taken back, in part.
    pub fn is_amidst(&self) -> bool {
        self.store().has_lent() || self.is_between_states()
    }

    /// The last applied entry: index and term.
    pub const fn applied(&self) -> (u64, u64) {
        self.applied
    }

    /// Its data.
    pub fn keyspace(&self) -> &Keyspace {
        self.store().keyspace()
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// The open unit.
    fn tx(&mut self) -> Tx<'_> {
        self.store.tx().heard_by(&self.listeners)
    }

    /// Takes changed settings over, for what comes from now on.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut ShardSettings)) {
        change(&mut self.settings);
        self.clock.set_bounds(self.surroundings.boot_ns(), self.settings.clocks);
        self.store.set_limits(self.settings.limits);
        self.store.set_eviction(self.settings.eviction);
        self.store.set_events(self.settings.events);
        self.latency.set_threshold(self.settings.latency_ms);
    }

    fn unwatch(&mut self, id: SessionId) {
        let watches = std::mem::take(&mut self.sessions[id].watches);
        for key in watches.keys() {
            self.store_mut().keyspace_mut().watched.unwatch(key);
        }
    }

    fn fate(&self, batch: BatchId) -> Fate {
        self.speculation.fate(batch)
    }
}
