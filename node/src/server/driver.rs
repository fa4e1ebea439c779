//! The consensus thread of a node: turns of [`Consensus`] with the real log and the real clock.
//!
//! A turn takes all that waits, sends append messages, tells the shards, and then
//! writes its own log: one fsync for everything that came in during the last one.
//! What arrives meanwhile waits for the next turn, so that the batches grow with
//! the load by themselves.
//!
//! INVARIANT: the clock is read after the inputs of a turn arrived and before its
//! messages leave; leases rely on it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    clock,
    mailbox::{DriverInbox, DriverMessage, Progress, ShardMailbox, ShardMessage},
    peers::Outgoing,
    shared::{NodeShared, ReplicaHandle},
    view::View,
    writer::SnapshotWriter,
};
use crate::{
    consensus::{Consensus, GroupStatus, Input, Output, ReplicaId, Role, ShardId, Work},
    log::Log,
    shard::{CommittedEntry, Event},
};

/// How often old log files are looked after.
const PURGE_INTERVAL_NS: u64 = 10_000_000_000;
/// How often figures for metrics are taken.
const STATUS_INTERVAL_NS: u64 = 1_000_000_000;

/// One group, as the thread sees it.
struct Member {
    replica: ReplicaId,
    mailbox: ShardMailbox,
    progress: Arc<Progress>,
    told_applied: u64,
    /// The term it leads, and whether an entry of that term is committed.
    leads: Option<(u64, bool)>,
}

/// Figures of the thread, for those who ask.
#[derive(Debug, Default)]
pub struct DriverFigures {
    /// Groups that this node leads.
    pub led: AtomicU64,
    /// Turns that wrote the log.
    pub writes: AtomicU64,
    /// Nanoseconds spent writing it.
    pub write_ns: AtomicU64,
    /// Bytes of all its files.
    pub log_bytes: AtomicU64,
    /// Where each group stands.
    pub groups: std::sync::Mutex<BTreeMap<ShardId, GroupStatus>>,
}

/// What the thread works with.
pub struct Driver {
    consensus: Consensus,
    log: Log,
    inbox: DriverInbox,
    outgoing: Arc<Outgoing>,
    view: Arc<View>,
    writer: SnapshotWriter,
    members: BTreeMap<ShardId, Member>,
    figures: Arc<DriverFigures>,
    next_purge: u64,
    next_status: u64,
    stopping: bool,
}

impl Driver {
    /// The thread of the node whose other parts are `shared`.
    pub fn new(consensus: Consensus, log: Log, inbox: DriverInbox, shared: &NodeShared) -> Self {
        let member = |(&shard, replica): (&ShardId, &ReplicaHandle)| {
            let member = Member {
                replica: ReplicaId::new(shared.node, 0),
                mailbox: replica.mailbox.clone(),
                told_applied: replica.progress.index(),
                progress: Arc::clone(&replica.progress),
                leads: None,
            };
            (shard, member)
        };
        Self {
            consensus,
            log,
            inbox,
            outgoing: Arc::clone(&shared.outgoing),
            view: Arc::clone(&shared.view),
            writer: shared.writer.clone(),
            members: shared.replicas.iter().map(member).collect(),
            figures: Arc::clone(&shared.figures),
            next_purge: 0,
            next_status: 0,
            stopping: false,
        }
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        let mut messages = Vec::new();
        while !self.stopping {
            self.wait(&mut messages);
            let now = clock::boot_ns();
            for message in messages.drain(..) {
                self.take(message, now);
            }
            self.take_progress(now);
            if now >= self.consensus.next_tick() {
                self.consensus.step(Input::Tick, now);
            }
            while self.consensus.has_work() {
                self.turn();
            }
            self.look_after(now);
        }
    }

    /// Waits for something to do, at most until the next tick, and takes all that is there.
    fn wait(&mut self, messages: &mut Vec<DriverMessage>) {
        let until_tick = self.consensus.next_tick().saturating_sub(clock::boot_ns());
        self.inbox.receive(messages, Duration::from_nanos(until_tick));
    }

    fn take(&mut self, message: DriverMessage, now: u64) {
        match message {
            DriverMessage::Input(Input::Applied { group, index }) => self.tell_applied(group, index, now),
            DriverMessage::Input(Input::SnapshotPublished { group, index }) => {
                // Its entries may have been applied without a word; see `Progress`.
                self.take_progress(now);
                self.consensus.step(Input::SnapshotPublished { group, index }, now);
            }
            DriverMessage::Input(input) => self.consensus.step(input, now),
            DriverMessage::Peer(messages) => {
                self.inbox.taken(&messages);
                for message in messages {
                    self.consensus.step(Input::Message(message), now);
                }
            }
            DriverMessage::Stop => self.stopping = true,
        }
    }

    /// What shards have applied without a word.
    fn take_progress(&mut self, now: u64) {
        let applied = |(&group, member): (&ShardId, &Member)| (group, member.progress.index());
        let applied: Vec<(ShardId, u64)> = self.members.iter().map(applied).collect();
        for (group, index) in applied {
            self.tell_applied(group, index, now);
        }
    }

    fn tell_applied(&mut self, group: ShardId, index: u64, now: u64) {
        let Some(member) = self.members.get_mut(&group) else { return };
        if index > member.told_applied {
            member.told_applied = index;
            self.consensus.step(Input::Applied { group, index }, now);
        }
    }

    fn turn(&mut self) {
        let work = self.consensus.collect(clock::boot_ns());
        let writes = self.send_and_tell(work);
        if !writes.is_empty() {
            let before = clock::boot_ns();
            self.log.write(&writes);
            self.figures.writes.fetch_add(1, Ordering::Relaxed);
            self.figures.write_ns.fetch_add(clock::boot_ns() - before, Ordering::Relaxed);
            let positions =
                writes.groups.iter().filter_map(|it| Some((it.group, it.snapshot.as_ref()?.index)));
            positions.for_each(|(group, index)| self.writer.prune(group, index));
        }
        let work = self.consensus.persisted(clock::boot_ns());
        self.send_and_tell(work);
    }

    fn send_and_tell(&mut self, work: Work) -> crate::log::LogWrites {
        self.outgoing.send_raft(work.messages);
        for output in work.outputs {
            self.tell(output);
        }
        work.writes
    }

    fn tell(&mut self, output: Output) {
        match output {
            Output::Role { group, term, role } => self.tell_role(group, term, role),
            Output::Retiring { group, term } | Output::Refused { group, term, .. } => {
                self.view.follow(group);
                self.to_shard(group, ShardMessage::Retire { term });
            }
            Output::Committed { group, entries } => {
                let convert = |entry: crate::consensus::CommittedEntry| CommittedEntry {
                    index: entry.index,
                    term: entry.term,
                    data: entry.data,
                };
                let newest_term = entries.last().map_or(0, |entry| entry.term);
                let entries = entries.into_iter().map(convert).collect();
                self.to_shard(group, Event::Committed(entries).into());
                self.notice_serving(group, newest_term);
            }
            Output::RoundConfirmed { group, term, round, .. } => {
                self.to_shard(group, Event::RoundConfirmed { term, round }.into());
            }
            // A `Role` that ends the term tells the shard, and its reads are redirected.
            Output::RoundRefused { .. } => {}
            Output::TakeSnapshot { group } => self.to_shard(group, Event::TakeSnapshot.into()),
            Output::SendSnapshot { group, to, index, term, message } => {
                self.outgoing.send_snapshot(group, to, (index, term), message);
            }
            Output::InstallSnapshot { group, index, term } => {
                self.to_shard(group, ShardMessage::Install { index, term });
            }
            Output::Members { group, index, members } => {
                tracing::debug!(shard = group, index, ?members, "members changed");
            }
        }
    }

    fn tell_role(&mut self, group: ShardId, term: u64, role: Role) {
        let Some(member) = self.members.get_mut(&group) else { return };
        tracing::debug!(shard = group, term, ?role, "role");
        member.leads = (role == Role::Leader).then_some((term, false));
        let replica = member.replica.0;
        let event = match role {
            Role::Leader => Event::Lead { term },
            Role::Follower { leader } => Event::Follow { leader: leader.map(|leader| leader.0) },
            Role::Candidate => Event::Follow { leader: None },
        };
        match role {
            Role::Leader => self.view.learn_leader(group, term, replica),
            Role::Follower { leader: Some(leader) } => self.view.learn_leader(group, term, leader.0),
            _ => {}
        }
        if role != Role::Leader {
            self.view.follow(group);
        }
        self.to_shard(group, event.into());
        let led = self.members.values().filter(|member| member.leads.is_some()).count();
        self.figures.led.store(led as u64, Ordering::Relaxed);
    }

    /// A leader serves once an entry of its own term is committed: now others may know.
    fn notice_serving(&mut self, group: ShardId, newest_term: u64) {
        let Some(member) = self.members.get_mut(&group) else { return };
        if member.leads == Some((newest_term, false)) {
            member.leads = Some((newest_term, true));
            let node = member.replica.node();
            tracing::info!(node, shard = group, term = newest_term, "leads");
            self.view.lead(group, newest_term, member.replica.0);
        }
    }

    fn to_shard(&self, group: ShardId, message: ShardMessage) {
        if let Some(member) = self.members.get(&group) {
            member.mailbox.send(message);
        }
    }

    /// What is done now and then: files of the log, figures.
    fn look_after(&mut self, now: u64) {
        if now >= self.next_purge {
            self.next_purge = now + PURGE_INTERVAL_NS;
            for group in self.log.purge() {
                self.consensus.step(Input::CompactWanted { group }, now);
            }
        }
        if now >= self.next_status {
            self.next_status = now + STATUS_INTERVAL_NS;
            self.figures.log_bytes.store(self.log.used_bytes(), Ordering::Relaxed);
            let status = |&group: &ShardId| Some((group, self.consensus.status(group)?));
            let groups = self.members.keys().filter_map(status).collect();
            *self.figures.groups.lock().expect("no thread panics holding it") = groups;
        }
    }
}

/// Starts the thread.
///
/// # Errors
/// The system has no thread left.
pub fn spawn(node: u64, driver: Driver) -> std::io::Result<std::thread::JoinHandle<()>> {
    let name = format!("consensus-{node}");
    std::thread::Builder::new().name(name).spawn(move || driver.run())
}
