//! The consensus of a node: turns of [`Dispatch`] with the real log and the real clock.
//!
//! It shares its thread with the connections of the peers: nearly all that it is told
//! comes from them, and a message that changes threads on its way costs more than
//! all else that is done with it. While it waits for the disk those wait, too:
//! nothing they bring could be taken up before. What may take long has threads of its own.
//!
//! A turn takes all that waits, sends append messages, tells the shards, and then
//! writes its own log: one fsync for everything that came in during the last one.
//! What arrives meanwhile waits for the next turn, so that the batches grow with
//! the load by themselves. What a turn moves is bounded (`consensus::window`), and between two turns the node hears its
//! peers and its ticks, however much there is to do.
//!
//! INVARIANT: the clock is read after the inputs of a turn arrived and before its
//! messages leave; leases rely on it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    clock,
    disk::DiskHealth,
    mailbox::{DriverInbox, DriverMessage, ShardMailbox},
    peers::Outgoing,
    shared::{DriverFigures, NodeShared},
    view::View,
    writer::SnapshotWriter,
};
use crate::{
    consensus::{Consensus, GroupSettings, Input, NodeId, PeerMessage, ReplicaId, Settings, ShardId},
    control::birth::Memory,
    log::Log,
    replica::{Dispatch, Notice},
};

/// How often old log files are looked after.
const PURGE_INTERVAL_NS: u64 = 10_000_000_000;
/// How often figures for metrics are taken.
const STATUS_INTERVAL_NS: u64 = 1_000_000_000;

/// Consensus with all that it works with.
pub struct Driver {
    dispatch: Dispatch,
    log: Log,
    inbox: DriverInbox,
    outgoing: Arc<Outgoing>,
    view: Arc<View>,
    writer: SnapshotWriter,
    mailboxes: BTreeMap<ShardId, ShardMailbox>,
    figures: Arc<DriverFigures>,
    disk: Arc<DiskHealth>,
    node: NodeId,
    /// A write of which nothing reaches the disk for longer is slow: the longest election timeout.
    patience_ns: u64,
    next_purge: u64,
    next_status: u64,
    /// What has arrived and is more than a turn takes.
    unheard: VecDeque<DriverMessage>,
    /// When this node was last awake.
    awake_ns: u64,
    /// Followers that hear nothing for so long may elect another.
    silence_ns: u64,
    stopping: bool,
}

impl Driver {
    /// The consensus of the node whose other parts are `shared`.
    pub fn new(
        groups: Vec<GroupSettings>,
        snapshot_bytes: &BTreeMap<ShardId, u64>,
        settings: Settings,
        log: Log,
        inbox: DriverInbox,
        shared: &NodeShared,
    ) -> Self {
        let incarnation = log.identity().incarnation.expect("decided before the groups begin");
        let patience_ns = u64::from(settings.election_ticks_max) * settings.tick_ns();
        let silence_ns = settings.vote_guard_ns();
        let disk = Arc::clone(&shared.disk);
        log.on_piece(move || disk.note_piece(clock::boot_ns()));
        let mut consensus = Consensus::new(settings, groups, log.reader(), clock::boot_ns());
        snapshot_bytes.iter().for_each(|(&shard, &bytes)| consensus.note_snapshot_bytes(shard, bytes));
        let progress = shared.replicas.iter().map(|(&shard, it)| (shard, Arc::clone(&it.progress)));
        let dispatch = Dispatch::new(consensus, ReplicaId::new(shared.node, incarnation), progress);
        Self {
            dispatch,
            log,
            inbox,
            outgoing: Arc::clone(&shared.outgoing),
            view: Arc::clone(&shared.view),
            writer: shared.writer.clone(),
            mailboxes: shared.replicas.iter().map(|(&shard, it)| (shard, it.mailbox.clone())).collect(),
            figures: Arc::clone(&shared.figures),
            disk: Arc::clone(&shared.disk),
            node: shared.node,
            patience_ns,
            next_purge: 0,
            next_status: 0,
            unheard: VecDeque::new(),
            awake_ns: clock::boot_ns(),
            silence_ns,
            stopping: false,
        }
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self) {
        let mut messages = Vec::new();
        self.carry_out();
        while !self.stopping {
            self.wait(&mut messages).await;
            let now = clock::boot_ns();
            self.note_silence(now);
            self.hear(&mut messages, now);
            self.dispatch.begin_turn(now, self.disk.is_fit(now));
            if self.dispatch.has_work() {
                self.turn();
            }
            self.carry_out();
            self.look_after(now);
        }
    }

    /// Takes in what has arrived, as far as a turn does.
    fn hear(&mut self, messages: &mut Vec<DriverMessage>, now: u64) {
        self.unheard.extend(messages.drain(..));
        while !self.dispatch.is_full()
            && let Some(message) = self.unheard.pop_front()
        {
            self.take(message, now);
        }
    }

    /// Says so if this node was still for so long that its followers may have elected another.
    fn note_silence(&mut self, now: u64) {
        let silent_ns = now - std::mem::replace(&mut self.awake_ns, now);
        if silent_ns > self.silence_ns {
            let milliseconds = silent_ns / 1_000_000;
            tracing::warn!(node = self.node, milliseconds, "held up: the machine or its disk stood still");
        }
    }

    /// Waits for something to do, at most until the next tick, and takes all that is there.
    async fn wait(&mut self, messages: &mut Vec<DriverMessage>) {
        if self.dispatch.has_work() || !self.unheard.is_empty() {
            return self.inbox.receive(messages, None).await;
        }
        let patience = self.dispatch.next_wake().saturating_sub(clock::boot_ns());
        self.inbox.receive(messages, Some(Duration::from_nanos(patience))).await;
    }

    fn take(&mut self, message: DriverMessage, now: u64) {
        match message {
            DriverMessage::Input(input) => self.dispatch.step(input, now),
            DriverMessage::Peer(messages) => {
                self.inbox.taken(&messages);
                for message in messages {
                    self.dispatch.step(Input::Message(message), now);
                }
            }
            DriverMessage::Recall { node, reply } => {
                let consensus = self.dispatch.consensus();
                let recall = |group: ShardId| Some((group, consensus.recollect(group, node)?));
                let shards = self.dispatch.shards().filter_map(recall).collect();
                let _ = reply.send(Memory { decided: true, shards });
            }
            // Once, before there are groups.
            DriverMessage::Decide { .. } | DriverMessage::Begin => {}
            DriverMessage::Stop => self.stopping = true,
        }
    }

    fn turn(&mut self) {
        let (messages, writes) = self.dispatch.collect(clock::boot_ns());
        self.send_and_tell(messages);
        if !writes.is_empty() {
            let began_ns = clock::boot_ns();
            self.disk.begin_write(began_ns);
            self.log.write(&writes);
            let ended_ns = clock::boot_ns();
            self.disk.end_write(ended_ns, self.patience_ns);
            self.figures.writes.fetch_add(1, Ordering::Relaxed);
            self.figures.write_ns.fetch_add(ended_ns - began_ns, Ordering::Relaxed);
            self.dispatch.written(&writes);
        }
        let messages = self.dispatch.persisted(clock::boot_ns());
        self.send_and_tell(messages);
    }

    fn send_and_tell(&mut self, messages: Vec<PeerMessage>) {
        self.outgoing.send_raft(messages);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        for notice in self.dispatch.take_notices() {
            self.carry_out_one(notice);
        }
    }

    fn carry_out_one(&self, notice: Notice) {
        match notice {
            Notice::Tell(shard, message) => {
                if let Some(mailbox) = self.mailboxes.get(&shard) {
                    mailbox.send(message);
                }
            }
            Notice::Leader { shard, term, node } => {
                tracing::debug!(shard, term, node, "leader");
                self.view.learn_leader(shard, term, node);
            }
            Notice::Follows(shard) => self.view.follow(shard),
            Notice::Serves { shard, term } => {
                tracing::info!(node = self.node, shard, term, "leads");
                self.view.lead(shard, term, self.node);
            }
            Notice::Members { group, index, members, joins } => {
                tracing::info!(shard = group, index, voters = ?members.voters, learners = ?members.learners, "members");
                self.view.join(group, joins.map(|replica| replica.0));
            }
            Notice::SendSnapshot { group, to, snapshot, message } => {
                self.outgoing.send_snapshot(group, to, (snapshot.index, snapshot.term), message);
            }
            Notice::Prune(shard, index) => self.writer.prune(shard, index),
        }
    }

    /// Tells the ledger of the log how far it is; that is a write, too.
    fn keep_ledger(&mut self) {
        self.disk.begin_write(clock::boot_ns());
        self.log.keep_ledger();
        self.disk.end_write(clock::boot_ns(), self.patience_ns);
    }

    /// What is done now and then: files of the log and its ledger, figures.
    fn look_after(&mut self, now: u64) {
        if now >= self.next_purge {
            self.next_purge = now + PURGE_INTERVAL_NS;
            for group in self.log.purge() {
                self.dispatch.step(Input::CompactWanted { group }, now);
            }
        }
        if now >= self.next_status {
            self.next_status = now + STATUS_INTERVAL_NS;
            self.keep_ledger();
            self.figures.log_bytes.store(self.log.used_bytes(), Ordering::Relaxed);
            let consensus = self.dispatch.consensus();
            let status = |group: ShardId| Some((group, consensus.status(group)?));
            let groups = self.dispatch.shards().filter_map(status).collect();
            *self.figures.groups.lock().expect("no thread panics holding it") = groups;
        }
    }
}
