//! One replica of one shard: sessions, execution, the gate. A plain state machine.
//!
//! Inputs are bytes of connections ([`Shard::receive`]) and events of consensus
//! and of the node ([`Shard::handle`]); outputs are bytes that may leave
//! ([`Shard::writable`]) and [`Output`]s. There is no socket, file or thread in
//! here, and clocks are read through [`Surroundings`], so that the simulator runs
//! the very same type.
//!
//! The life of a request, with real names:
//!
//! 1. [`Shard::receive`] parses it: words that borrow from the read buffer.
//! 2. [`execute`] finds its row, checks arity, queues it if a `MULTI` is open.
//! 3. Its keys give a slot; the shard's own state says whether it owns the slot,
//!    [`Standing`] whether it may execute. Else: a redirect, or it is parked.
//! 4. The handler runs on the [`Tx`]; effects are applied at once.
//! 5. [`Shard::end_turn`] seals the turn's units into one batch and proposes it.
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

pub mod client;
pub mod clock;
pub mod events;
pub mod execute;
pub mod messages;
pub mod outbox;
pub mod scripting;
pub mod session;
pub mod settings;
pub mod snapshot;
pub mod speculation;
pub mod state;
pub mod statistics;
pub mod surroundings;
pub mod waits;

#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use bytes::Bytes;
use moonraft_proto::Reply;
use moonraft_router::{Network, Redirect, ReplicaPlace, SlotMap};
use slab::Slab;

pub use self::{
    client::Client,
    messages::{CommittedEntry, Event, Output, Standing},
    session::SessionId,
    settings::{PlantedFault, ShardSettings},
    state::State,
    surroundings::{Busy, ProcessFacts, Surroundings},
};
use self::{
    clock::Clock,
    outbox::{BatchId, Fate, Outbox, ReadReply},
    scripting::SeenScripts,
    session::Session,
    snapshot::{Installing, Snapshots},
    speculation::Speculation,
    statistics::{Details, Rates, Statistics},
    waits::Waits,
};
pub use crate::keyspace::tx::DiskRoom;
use crate::{
    keyspace::{
        Keyspace, Tx,
        tx::{Publication, Unit},
    },
    script::{Engine, Limits},
    subscriptions::Subscriptions,
};

/// What a client is told that is one too many, before its connection is closed.
pub const TOO_MANY_CLIENTS: &str = "-ERR max number of clients reached\r\n";

/// What waits for a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    /// Bytes of replies and messages that have not left.
    pub bytes: usize,
    /// Bytes of requests that wait for `EXEC`.
    pub queued_bytes: usize,
    /// It asked not to be closed when clients together take too much: `CLIENT NO-EVICT`.
    pub stays: bool,
    /// It is subscribed to something.
    pub listens: bool,
}

/// Requests are left unread for a while: `CLIENT PAUSE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Until when, nanoseconds of the boot clock.
    pub until_ns: u64,
    /// Only those that may change data.
    pub writes_only: bool,
}

/// One replica of one shard.
pub struct Shard {
    settings: ShardSettings,
    surroundings: Rc<dyn Surroundings>,
    /// `None` only of one that is vacant.
    tx: Option<Box<Tx>>,
    /// `None` while a script runs, too.
    engine: Option<Box<Engine>>,
    seen_scripts: SeenScripts,
    standing: Standing,
    speculation: Speculation,
    clock: Clock,
    sessions: Slab<Session>,
    sessions_ever: u64,
    /// The last applied entry, and its term.
    applied: (u64, u64),
    /// The first parts of a batch whose last part is the next entry to come, or a
    /// later one.
    parts: Vec<Bytes>,
    /// Sessions with a reply that waits for the open batch.
    open_waiting: Vec<SessionId>,
    /// Messages that leave with the open batch.
    open_publications: Vec<Publication>,
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
    /// Sessions with requests left unread.
    parked: Vec<SessionId>,
    /// When a request first found that nobody serves, boot clock; `None` since somebody does.
    leaderless_since: Option<u64>,
    /// `CLIENT PAUSE`
    pause: Option<Pause>,
    /// Sessions that `WAIT` blocks.
    waits: Waits,
    outputs: Vec<Output>,
    statistics: Statistics,
    details: Details,
    rates: Rates,
}

impl Shard {
    /// A replica with this state. `seed` decides what is drawn at random.
    pub fn new(settings: ShardSettings, surroundings: Rc<dyn Surroundings>, state: State, seed: u64) -> Self {
        let engine = Engine::new(Limits::default()).expect("Lua's libraries fit in the memory limit");
        Self {
            tx: Some(Box::new(Tx::new(state.keyspace, seed))),
            engine: Some(Box::new(engine)),
            clock: Clock::starting_at(state.stamp_ms),
            applied: state.applied,
            acknowledged: state.acknowledged,
            ..Self::vacant(settings, surroundings)
        }
    }

    /// What stands in the place of a shard that a script has: it can do nothing.
    fn vacant(settings: ShardSettings, surroundings: Rc<dyn Surroundings>) -> Self {
        Self {
            settings,
            surroundings,
            tx: None,
            engine: None,
            seen_scripts: SeenScripts::default(),
            standing: Standing::Following { leader: None },
            speculation: Speculation::default(),
            clock: Clock::default(),
            sessions: Slab::new(),
            sessions_ever: 0,
            acknowledged: (0, 0),
            snapshots: Snapshots::default(),
            installing: None,
            applied: (0, 0),
            parts: Vec::new(),
            open_waiting: Vec::new(),
            open_publications: Vec::new(),
            stamp_wanted: false,
            round_wanted: false,
            reads: Vec::new(),
            next_round: 1,
            parked: Vec::new(),
            leaderless_since: None,
            pause: None,
            waits: Waits::default(),
            outputs: Vec::new(),
            statistics: Statistics::default(),
            details: Details::default(),
            rates: Rates::default(),
        }
    }

    /// What is to be done, oldest first.
    pub fn take_outputs(&mut self) -> Vec<Output> {
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
        !self.speculation.is_empty() || self.tx().has_effects()
    }

    /// The last applied entry: index and term.
    pub const fn applied(&self) -> (u64, u64) {
        self.applied
    }

    /// Its data.
    pub fn keyspace(&self) -> &Keyspace {
        self.tx().keyspace()
    }

    fn tx(&self) -> &Tx {
        self.tx.as_ref().expect("nothing is asked of a vacant shard")
    }

    fn tx_mut(&mut self) -> &mut Tx {
        self.tx.as_mut().expect("nothing is asked of a vacant shard")
    }

    fn listeners(&self) -> &Subscriptions {
        &self.tx().listeners
    }

    fn listeners_mut(&mut self) -> &mut Subscriptions {
        &mut self.tx_mut().listeners
    }

    /// The place of this replica in the map.
    fn place(&self, map: &SlotMap) -> Option<ReplicaPlace> {
        let shard = map.shards.get(self.settings.shard as usize)?;
        shard.replicas.iter().find(|place| place.replica == self.settings.replica).cloned()
    }

    // ---- connections ----------------------------------------------------------

    /// A client connected, from `network`.
    ///
    /// # Errors
    /// There are too many: the text to send it before its connection is closed.
    pub fn connect(
        &mut self,
        peer_address: String,
        local_address: String,
        network: Network,
    ) -> Result<SessionId, &'static str> {
        if self.sessions.len() >= self.settings.clients_max {
            self.statistics.refused += 1;
            return Err(TOO_MANY_CLIENTS);
        }
        self.statistics.connections += 1;
        self.sessions_ever += 1;
        let now_us = self.surroundings.unix_us();
        let session = Session::new(self.sessions_ever, peer_address, local_address, network, now_us);
        Ok(self.sessions.insert(session))
    }

    /// The connection of a session is gone.
    pub fn disconnect(&mut self, id: SessionId) {
        if !self.sessions.contains(id) {
            return;
        }
        self.unwatch(id);
        self.forget_wait(id);
        let session = self.sessions.remove(id);
        if session.is_parked {
            self.parked.retain(|&other| other != id);
        }
        self.listeners_mut().forget(id, &session.listening);
    }

    /// Bytes that may be written to the client now.
    pub fn writable(&self, id: SessionId) -> &[u8] {
        self.sessions.get(id).map_or(&[], |session| session.outbox.writable())
    }

    /// So many of the writable bytes were written.
    pub fn written(&mut self, id: SessionId, count: usize) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.outbox.written(count);
        self.statistics.bytes_out += count as u64;
        if session.is_full && session.outbox.len() <= self.settings.outbox_bytes_full / 2 {
            session.is_full = false;
            self.outputs.push(Output::Resume(id));
        }
    }

    /// Whether the connection is to be closed: nothing more will be sent.
    pub fn should_close(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_none_or(|session| session.closing && session.outbox.is_empty())
    }

    /// Whether a reply of this session is held: nothing may be sent past it.
    pub fn is_holding(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_some_and(|session| session.outbox.is_holding() || !session.outbox.is_empty())
    }

    /// What waits for this session's client.
    pub fn backlog(&self, id: SessionId) -> Backlog {
        self.sessions.get(id).map_or(Backlog::default(), |session| Backlog {
            bytes: session.outbox.len(),
            queued_bytes: session.queue.as_ref().map_or(0, |queue| queue.bytes),
            stays: session.no_evict,
            listens: session.listening.count() > 0,
        })
    }

    /// The connection of a session is about to be closed: nothing more is sent there or executed.
    pub fn drop_replies(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.closing = true;
            session.outbox = Outbox::default();
        }
    }

    /// Takes changed settings over, for what comes from now on.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut ShardSettings)) {
        change(&mut self.settings);
    }

    fn unwatch(&mut self, id: SessionId) {
        let watches = std::mem::take(&mut self.sessions[id].watches);
        for (key, _) in watches {
            self.tx_mut().keyspace_mut().watched.unwatch(&key);
        }
    }

    // ---- units ------------------------------------------------------------------

    /// Begins a unit at the shard's present time.
    fn begin_unit(&mut self) {
        let wall_us = self.surroundings.unix_us();
        let now_us = match self.settings.fault {
            Some(PlantedFault::ClockBackwards) => wall_us,
            _ => self.clock.read(wall_us),
        };
        let leading = self.is_serving();
        self.tx_mut().begin_unit(now_us, leading);
    }

    /// Settles what a unit's reply waits for. `None`: for nothing.
    fn settle_unit(&mut self, unit: Unit) -> Option<BatchId> {
        // A leader that does not serve yet has no batch that could cover anything.
        let Standing::Leading { term, serving: true } = self.standing else {
            self.publish(unit.publications);
            return None;
        };
        let mut sequence = unit.depends_on;
        if unit.read_clock && !self.clock.is_covered() {
            let covering = match self.speculation.newest() {
                Some(newest) if self.clock.will_be_covered() => newest.batch.sequence,
                _ => self.tx().open_sequence(),
            };
            sequence = sequence.max(covering);
        }
        // What waits for the open batch needs it sealed, effects or not: those it
        // saw may have been rolled back.
        self.stamp_wanted |= sequence == self.tx().open_sequence();
        if sequence == 0 {
            self.publish(unit.publications);
            return None;
        }
        let batch = BatchId { term, sequence };
        // What was taken back in this turn may leave a batch without effects that
        // is waited for all the same: it is sealed for its stamp.
        self.stamp_wanted |= sequence == self.tx().open_sequence();
        match self.speculation.get_mut(batch) {
            Some(in_flight) => in_flight.publications.extend(unit.publications),
            None => self.open_publications.extend(unit.publications),
        }
        Some(batch)
    }

    /// The reply that session `id` put out since `start` waits for `batch`.
    fn hold(&mut self, id: SessionId, start: u64, batch: BatchId, slot: Option<u16>) {
        let silent = self.sessions[id].outbox.end() == start;
        if silent || self.settings.fault == Some(PlantedFault::ReplyBeforeCommit) {
            return;
        }
        let waiting = match self.speculation.get_mut(batch) {
            Some(in_flight) => &mut in_flight.waiting,
            None => &mut self.open_waiting,
        };
        if waiting.last() != Some(&id) {
            waiting.push(id);
        }
        self.sessions[id].outbox.hold(start, batch, slot);
    }

    fn publish(&mut self, publications: Vec<Publication>) {
        if !publications.is_empty() {
            self.outputs.push(Output::Publish(publications));
        }
    }

    /// What a client from `network` is told whose request is not for here. One
    /// without keys belongs where all the shard's slots do.
    fn redirect(&self, network: Network, slot: Option<u16>) -> Redirect {
        let map = self.surroundings.map(network);
        let any = || self.keyspace().owned().ranges().first().map(|&(first, _)| first);
        let Some(slot) = slot.or_else(any) else { return Redirect::Down };
        let shard = match map.shard_of(slot) {
            Some(shard) => &map.shards[shard],
            None => return Redirect::NotServed,
        };
        let here = self.keyspace().owned().contains(slot);
        let leader = match self.standing {
            Standing::Following { leader: Some(leader) } if here && self.leader_answers() => {
                shard.replicas.iter().find(|place| place.replica == leader)
            }
            Standing::Following { leader: None } if here => None,
            Standing::Leading { .. } if here => {
                shard.replicas.iter().find(|place| place.replica == self.settings.replica)
            }
            _ => shard.master_place(),
        };
        match leader {
            Some(place) => Redirect::Moved { slot, address: place.address.clone() },
            None => Redirect::Down,
        }
    }

    fn redirect_reply(&self, network: Network, slot: Option<u16>) -> Reply<'static> {
        Reply::Error(self.redirect(network, slot).to_string().into())
    }

    fn fate(&self, batch: BatchId) -> Fate {
        self.speculation.fate(batch)
    }
}
