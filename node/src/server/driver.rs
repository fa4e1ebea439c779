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
    known_cluster::KnownCluster,
    mailbox::{DriverInbox, DriverMessage, ShardMailbox},
    peers::Outgoing,
    replicas::{Data, Opening, Replicas},
    shared::{DriverFigures, NodeShared},
    writer::SnapshotWriter,
};
use crate::{
    consensus::{Consensus, GroupSettings, Input, PeerMessage, ReplicaId, Settings, ShardId},
    control::birth::Memory,
    log::{Log, LogWrites},
    replica::{DiskHealth, Dispatch, Notice},
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
    cluster: Arc<KnownCluster>,
    writer: SnapshotWriter,
    mailboxes: BTreeMap<ShardId, ShardMailbox>,
    replicas: Arc<Replicas>,
    figures: Arc<DriverFigures>,
    disk: Arc<DiskHealth>,
    /// This node in this life of its disk: a member of all its groups.
    id: ReplicaId,
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
    /// The consensus of the node whose other parts are `shared`, with no group yet.
    pub fn new(settings: Settings, log: Log, inbox: DriverInbox, shared: &NodeShared) -> Self {
        let incarnation = log.identity().incarnation.expect("decided before the groups begin");
        let patience_ns = u64::from(settings.election_ticks_max) * settings.tick_ns();
        let silence_ns = settings.vote_guard_ns();
        let disk = Arc::clone(&shared.disk);
        log.on_piece(move || disk.note_piece(clock::boot_ns()));
        let id = ReplicaId::new(shared.node, incarnation);
        let consensus = Consensus::new(settings, Vec::new(), log.reader(), clock::boot_ns());
        Self {
            dispatch: Dispatch::new(consensus, id, []),
            log,
            inbox,
            outgoing: Arc::clone(&shared.outgoing),
            cluster: Arc::clone(&shared.cluster),
            writer: shared.writer.clone(),
            mailboxes: BTreeMap::new(),
            replicas: Arc::clone(&shared.replicas),
            figures: Arc::clone(&shared.figures),
            disk: Arc::clone(&shared.disk),
            id,
            patience_ns,
            next_purge: 0,
            next_status: 0,
            unheard: VecDeque::new(),
            awake_ns: clock::boot_ns(),
            silence_ns,
            stopping: false,
        }
    }

    /// A replica is open: its group begins.
    pub fn open(&mut self, opening: Opening) {
        let Opening { group, replica, snapshot_bytes } = opening;
        let group = GroupSettings { replica: self.id, ..group };
        self.mailboxes.insert(replica.shard, replica.mailbox.clone());
        self.dispatch.open(group, snapshot_bytes, Arc::clone(&replica.progress), clock::boot_ns());
    }

    /// The replica of a group has ended: it closes. What it promised is in the log when this returns, or forgotten.
    fn close(&mut self, group: ShardId, data: Data) {
        self.carry_out();
        self.mailboxes.remove(&group);
        self.cluster.leave(group);
        self.figures.groups.lock().expect("no thread panics holding it").remove(&group);
        let Some((write, recovered)) = self.dispatch.close(group) else { return };
        match data {
            Data::Kept => {
                if !write.is_empty() {
                    self.write(|log| log.write(&LogWrites { groups: vec![write] }));
                }
                self.replicas.keep(group, recovered);
            }
            Data::Removed => self.write(|log| log.remove(group)),
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
            tracing::warn!(
                node = self.id.node(),
                milliseconds,
                "held up: the machine or its disk stood still"
            );
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
                let open = self.dispatch.shards().filter_map(recall);
                let shards = self.replicas.recollect_kept(node).into_iter().chain(open).collect();
                let _ = reply.send(Memory { decided: true, shards });
            }
            DriverMessage::Open(opening) => self.open(*opening),
            DriverMessage::Close { shard, data, done } => {
                self.close(shard, data);
                let _ = done.send(());
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
            self.write(|log| log.write(&writes));
            self.dispatch.written(&writes);
        }
        let messages = self.dispatch.persisted(clock::boot_ns());
        self.send_and_tell(messages);
    }

    /// Writes to the log; the disk is watched meanwhile.
    fn write(&mut self, write: impl FnOnce(&mut Log)) {
        let began_ns = clock::boot_ns();
        self.disk.begin_write(began_ns);
        write(&mut self.log);
        let ended_ns = clock::boot_ns();
        self.disk.end_write(ended_ns, self.patience_ns);
        self.figures.writes.fetch_add(1, Ordering::Relaxed);
        self.figures.write_ns.fetch_add(ended_ns - began_ns, Ordering::Relaxed);
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
                self.cluster.learn_leader(shard, term, node);
            }
            Notice::Follows(shard) => self.cluster.follow(shard),
            Notice::Serves { shard, term } => {
                let node = self.id.node();
                tracing::info!(node, shard, term, "leads");
                self.cluster.lead(shard, term, node);
            }
            Notice::Members { group, index, members, joins } => {
                tracing::info!(shard = group, index, voters = ?members.voters, learners = ?members.learners, "members");
                self.cluster.join(group, joins.map(|replica| replica.0));
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
