//! The Raft groups of a node, as one plain state machine: [`Consensus`].
//!
//! Inputs in ([`Input`]: proposals, messages, ticks, what shards and the shell report), work out ([`Work`]:
//! messages to send, writes to make durable, outputs for shards). No socket, file, thread, clock or randomness
//! inside: the server drives it with real ones, the simulator with virtual ones.
//!
//! ```text
//! loop {
//!     wait for inputs, at most until next_tick();
//!     now = clock();                                   // after they arrived: leases rely on it
//!     for input in inputs { consensus.step(input, now) }   // until it is full: the rest after this turn
//!     if consensus.has_work() {                        // and if there is more after it, do not wait for inputs
//!         let work = consensus.collect(clock());
//!         send(work.messages);                         // appends travel while this node syncs
//!         tell(work.outputs);
//!         if !work.writes.is_empty() { log.write(&work.writes) }
//!         let work = consensus.persisted(clock());
//!         send(work.messages); tell(work.outputs);
//!     }
//! }
//! ```
//!
//! The Raft rules are those of the `raft` crate. What it leaves to its user is here:
//!
//! * `lease`: reads without a round trip, and why that is safe;
//! * `receive`: which messages are believed, who may be voted for when;
//! * `lead`: proposals bound to a term, read rounds, graceful hand-over;
//! * `succession`: who leads when the leader is gone, and how leadership gets home;
//! * `join`: a node whose disk is new takes the place of what it was;
//! * `parts`: proposals too large to be one entry;
//! * `window`: how much one turn moves;
//! * `readers`: followers that clients read from;
//! * `formats`: what members can read of a newer build;
//! * `compact`: snapshots, truncation, members;
//! * `storage`: the log as raft sees it.
//!
//! INVARIANTs:
//!
//! * Nothing this replica promised (a vote, an acknowledged entry) leaves before it is durable.
//! * A shard is handed each committed entry once, in order; its bytes not yet applied are bounded.
//! * Once a proposal of a term is refused, no later one of that term is accepted.
//! * A group is led in a lease by at most one replica, whatever messages and clocks do, as long as clocks' rates
//!   differ by no more than the configured drift.
//!
//! Sources: Ongaro's thesis (§3.10 leadership transfer, §4 membership, §6.4 reads, §9.6 pre-vote, §10.2.1 writing
//! in parallel); `raft` 0.7.0 and its issues 557, 569; etcd's 20418 on contexts of read rounds.

mod compact;
mod formats;
mod group;
mod join;
mod lead;
mod lease;
mod logger;
mod parts;
mod readers;
mod receive;
mod settings;
mod storage;
mod succession;
#[cfg(test)]
mod tests;
mod types;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::log::{GroupWrite, LogReader, RecoveredGroup};

use formats::Formats;
use group::Group;
use window::Window;

pub use lease::{LeaderTime, LeaseCell, ShardTimes};
pub use receive::snapshot_position;
pub use settings::{GroupSettings, PlantedFault, Settings};
pub use types::*;

/// Ticks between two groups that a node sends home. Some clients drop their connections to a leader that was, with all
/// that is in flight there, as soon as another group's redirect made them look at the map.
const HOME_STEP_TICKS: u32 = 2;

/// The groups of a node. See the module.
pub struct Consensus {
    settings: Arc<Settings>,
    reader: Arc<dyn LogReader>,
    groups: BTreeMap<ShardId, Group>,
    touched: Vec<ShardId>,
    collected: Vec<ShardId>,
    outputs: Vec<Output>,
    /// Nodes that had better not lead.
    unfit: BTreeSet<NodeId>,
    formats: Formats,
    tick_ns: u64,
    next_tick: BootTime,
    /// Ticks until the next group may be sent home.
    home_rest: u32,
    window: Arc<Window>,
    /// Turns so far: by it the groups take turns in being first.
    turns: usize,
    /// Bytes of messages of peers taken in this turn.
    heard_bytes: u64,
    /// Of these, what one turn takes.
    turn_bytes_max: u64,
    halfway: bool,
}

impl Consensus {
    /// The groups as the log has them. `now` is the start of this life of the node.
    pub fn new(
        settings: Settings,
        groups: Vec<GroupSettings>,
        reader: Arc<dyn LogReader>,
        now: BootTime,
    ) -> Consensus {
        settings.check();
        let tick_ns = settings.tick_ns();
        let formats = Formats::new(u64::from(settings.election_ticks_max) * tick_ns);
        let mut consensus = Consensus {
            groups: BTreeMap::new(),
            touched: Vec::new(),
            collected: Vec::new(),
            outputs: Vec::new(),
            unfit: BTreeSet::new(),
            formats,
            tick_ns,
            next_tick: now + tick_ns,
            home_rest: 0,
            window: Arc::new(Window::new(settings.turn_bytes_max)),
            turns: 0,
            heard_bytes: 0,
            turn_bytes_max: settings.turn_bytes_max,
            halfway: false,
            settings: Arc::new(settings),
            reader,
        };
        groups.into_iter().for_each(|group| consensus.open(group, now));
        consensus
    }

    /// A group begins here, as the log has it. `now` is the start of this life of its replica.
    pub fn open(&mut self, group: GroupSettings, now: BootTime) {
        assert!(!self.halfway, "a group opens between two turns");
        let shared = (Arc::clone(&self.settings), Arc::clone(&self.window));
        let id = group.group;
        let group = Group::new(shared, group, Arc::clone(&self.reader), &logger::logger(), now);
        assert!(self.groups.insert(id, group).is_none(), "group {id} is there twice");
        self.touched.push(id);
    }

    /// A group ends here; `None` if it is not here. What it had promised is in the log, once this last write of it is
    /// durable, and in what it is to be opened with another time.
    pub fn close(&mut self, id: ShardId) -> Option<(GroupWrite, RecoveredGroup)> {
        assert!(!self.halfway, "a group closes between two turns");
        let group = self.groups.remove(&id)?;
        self.touched.retain(|&touched| touched != id);
        self.outputs.retain(|output| output.group() != id);
        Some(group.close())
    }

    /// Takes an input: cheap, no effect outside. `now` must have been read after the input arrived.
    pub fn step(&mut self, input: Input, now: BootTime) {
        assert!(!self.halfway, "step between collect and persisted");
        let outputs = &mut self.outputs;
        let id = match input {
            Input::Tick => return self.tick(now),
            Input::TransferAll => return self.transfer_all(now),
            Input::Unreachable { node } => {
                self.groups.values_mut().for_each(|group| group.unreachable(node, now));
                return;
            }
            Input::Fitness { node, fit } => {
                let _ = if fit { self.unfit.remove(&node) } else { self.unfit.insert(node) };
                return;
            }
            Input::Agrees { node, format } => return self.formats.note(node, format, now),
            Input::Propose { group, .. }
            | Input::ReadRound { group, .. }
            | Input::WatchFollowers { group, .. }
            | Input::Readers { group, .. }
            | Input::Transfer { group, .. }
            | Input::Applied { group, .. }
            | Input::SnapshotPublished { group, .. }
            | Input::SnapshotSent { group, .. }
            | Input::CompactWanted { group }
            | Input::SnapshotFailed { group }
            | Input::JoinWanted { group, .. }
            | Input::ChangeMembers { group, .. }
            | Input::Message(PeerMessage { group, .. })
            | Input::SnapshotReceived(PeerMessage { group, .. }) => group,
        };
        let Some(group) = self.groups.get_mut(&id) else {
            // It was closed, or is to be opened soon: peers know later, or sooner.
            tracing::debug!(group = id, "an input for a group that is not here");
            return;
        };
        if let Input::Message(message) = &input {
            self.heard_bytes += message.data.len() as u64;
        }
        match input {
            Input::Propose { term, sequence, data, .. } => group.propose(term, sequence, data, outputs),
            Input::ReadRound { term, round, .. } => group.read_round(term, round, outputs),
            Input::WatchFollowers { watched, .. } => group.watch_followers(watched),
            Input::Readers { present, .. } => group.note_readers(present),
            Input::Message(message) => group.receive(message, false, now),
            Input::SnapshotReceived(message) => group.receive(message, true, now),
            Input::Transfer { to, .. } => group.transfer(to, now, outputs),
            Input::Applied { index, .. } => group.applied(index),
            Input::SnapshotPublished { index, bytes, .. } => group.snapshot_published(index, bytes),
            Input::SnapshotSent { to, success, .. } => group.snapshot_sent(to, success),
            Input::CompactWanted { .. } => group.compact_wanted(outputs),
            Input::SnapshotFailed { .. } => group.snapshot_failed(now),
            Input::JoinWanted { replica, .. } => group.join_wanted(replica, &self.formats, now),
            Input::ChangeMembers { term, sequence, voters, learners, .. } => {
                group.propose_members((term, sequence), &voters, &learners, outputs);
            }
            Input::Tick
            | Input::TransferAll
            | Input::Unreachable { .. }
            | Input::Fitness { .. }
            | Input::Agrees { .. } => unreachable!("taken above"),
        }
        self.touched.push(id);
    }

    /// Whether peers have said as much as one turn takes: what else they say must wait until it has ended.
    pub fn is_full(&self) -> bool {
        self.heard_bytes >= self.turn_bytes_max
    }

    /// When the next tick counts.
    pub fn next_tick(&self) -> BootTime {
        self.next_tick
    }

    fn tick(&mut self, now: BootTime) {
        if now < self.next_tick {
            return;
        }
        // From now, not from when it was due: ticks must not be closer together than this, and a process that was
        // paused must not make up for it.
        self.next_tick = now + self.tick_ns;
        self.home_rest = self.home_rest.saturating_sub(1);
        for (id, group) in &mut self.groups {
            group.tick(now, &self.unfit);
            group.tell_readable(&self.formats, now, &mut self.outputs);
            if self.home_rest == 0 && group.send_home(now, &self.unfit, &mut self.outputs) {
                self.home_rest = HOME_STEP_TICKS;
            }
            if group.leads() || group.has_work() {
                self.touched.push(*id);
            }
        }
    }

    fn transfer_all(&mut self, now: BootTime) {
        for (id, group) in &mut self.groups {
            group.stopping = true;
            group.transfer(None, now, &mut self.outputs);
            self.touched.push(*id);
        }
    }

    /// Whether there is work to collect.
    pub fn has_work(&self) -> bool {
        !self.touched.is_empty() || !self.outputs.is_empty()
    }

    /// The first half of a turn: what to send at once, to write, and to tell. To be ended by
    /// [`Consensus::persisted`] before anything else is stepped. `now` must be read before the messages are sent.
    pub fn collect(&mut self, now: BootTime) -> Work {
        assert!(!self.halfway, "collect before the last turn was ended");
        self.halfway = true;
        self.touched.sort_unstable();
        self.touched.dedup();
        std::mem::swap(&mut self.collected, &mut self.touched);
        self.turns = self.turns.wrapping_add(1);
        let first = self.turns % self.collected.len().max(1);
        self.collected.rotate_left(first);
        let mut work = Work { outputs: std::mem::take(&mut self.outputs), ..Work::default() };
        for id in &self.collected {
            let group = self.groups.get_mut(id).expect("only groups that exist are touched");
            group.collect(now, &mut work);
        }
        work
    }

    /// The second half: the writes of [`Consensus::collect`] are durable. There are no writes in what it returns.
    pub fn persisted(&mut self, now: BootTime) -> Work {
        assert!(self.halfway, "persisted without collect");
        self.halfway = false;
        let mut work = Work::default();
        for id in self.collected.drain(..) {
            let group = self.groups.get_mut(&id).expect("only groups that exist are touched");
            group.persisted(now, &mut work);
            if group.has_work() {
                self.touched.push(id);
            }
        }
        self.window.reopen();
        self.heard_bytes = 0;
        work
    }

    /// The lease of a group, for its shard.
    pub fn lease(&self, group: ShardId) -> Option<Arc<LeaseCell>> {
        self.groups.get(&group).map(|group| Arc::clone(&group.lease))
    }

    /// What this node's replica of a group knows of `node` and of the group's past.
    pub fn recollect(&self, group: ShardId, node: NodeId) -> Option<Recollection> {
        self.groups.get(&group).map(|group| group.recollect(node))
    }

    /// The file of a group's newest snapshot, from before the start, has so many bytes.
    pub fn note_snapshot_bytes(&mut self, group: ShardId, bytes: u64) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.snapshot_bytes = bytes;
        }
    }

    /// How many groups this node leads.
    pub fn led(&self) -> usize {
        self.groups.values().filter(|group| group.leads()).count()
    }

    /// Where a group stands.
    pub fn status(&self, group: ShardId) -> Option<GroupStatus> {
        self.groups.get(&group).map(Group::status)
    }
}
