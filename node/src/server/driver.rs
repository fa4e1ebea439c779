//! The consensus of a node: turns of [`Consensus`] with the real log and the real clock.
//!
//! It shares its thread with the streams of the peers: nearly all that it is told
//! comes from them, and a message that changes threads on its way costs more than
//! all else that is done with it. While it waits for the disk those streams wait, too:
//! nothing they bring could be taken up before. What may take long has threads of its own.
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
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    clock,
    disk::DiskHealth,
    mailbox::{DriverInbox, DriverMessage, Progress, ShardMailbox, ShardMessage},
    peers::Outgoing,
    shared::{DriverFigures, NodeShared, ReplicaHandle},
    view::View,
    writer::SnapshotWriter,
};
use crate::{
    consensus::{
        Consensus, GroupSettings, Input, Members, NodeId, Output, ReplicaId, Role, Settings, ShardId, Work,
    },
    control::birth::Memory,
    log::Log,
    shard::{CommittedEntry, Event},
};

/// How often old log files are looked after.
const PURGE_INTERVAL_NS: u64 = 10_000_000_000;
/// How often figures for metrics are taken.
const STATUS_INTERVAL_NS: u64 = 1_000_000_000;

/// Hops from a message to its socket: the lane's stream, HTTP/2, the connection.
const FLUSH_HOPS: usize = 3;

/// One group, as the driver sees it.
struct Member {
    replica: ReplicaId,
    mailbox: ShardMailbox,
    progress: Arc<Progress>,
    told_applied: u64,
    /// The log durably calls the snapshot at this index the newest, and older files are still there: the shard may
    /// be reading one.
    newest_snapshot: Option<u64>,
    /// The term it leads, and whether an entry of that term is committed.
    leads: Option<(u64, bool)>,
}

/// Consensus with all that it works with.
pub struct Driver {
    consensus: Consensus,
    log: Log,
    inbox: DriverInbox,
    outgoing: Arc<Outgoing>,
    view: Arc<View>,
    writer: SnapshotWriter,
    members: BTreeMap<ShardId, Member>,
    figures: Arc<DriverFigures>,
    disk: Arc<DiskHealth>,
    node: NodeId,
    is_fit: bool,
    /// A write of which nothing reaches the disk for longer is slow: the longest election timeout.
    patience_ns: u64,
    next_purge: u64,
    next_status: u64,
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
        let patience_ns = u64::from(settings.election_ticks_max) * settings.tick_ms * 1_000_000;
        let disk = Arc::clone(&shared.disk);
        log.on_piece(move || disk.note_piece(clock::boot_ns()));
        let mut consensus = Consensus::new(settings, groups, log.reader(), clock::boot_ns());
        snapshot_bytes.iter().for_each(|(&shard, &bytes)| consensus.note_snapshot_bytes(shard, bytes));
        let member = |(&shard, replica): (&ShardId, &ReplicaHandle)| {
            let member = Member {
                replica: ReplicaId::new(shared.node, incarnation),
                mailbox: replica.mailbox.clone(),
                told_applied: replica.progress.index(),
                newest_snapshot: None,
                progress: Arc::clone(&replica.progress),
                leads: None,
            };
            (shard, member)
        };
        let driver = Self {
            consensus,
            log,
            inbox,
            outgoing: Arc::clone(&shared.outgoing),
            view: Arc::clone(&shared.view),
            writer: shared.writer.clone(),
            members: shared.replicas.iter().map(member).collect(),
            figures: Arc::clone(&shared.figures),
            disk: Arc::clone(&shared.disk),
            node: shared.node,
            is_fit: true,
            patience_ns,
            next_purge: 0,
            next_status: 0,
            stopping: false,
        };
        for group in driver.members.keys().copied().collect::<Vec<_>>() {
            let members = driver.consensus.status(group).map(|status| status.members);
            driver.note_members(group, &members.unwrap_or_default());
        }
        driver
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self) {
        let mut messages = Vec::new();
        while !self.stopping {
            self.wait(&mut messages).await;
            let now = clock::boot_ns();
            for message in messages.drain(..) {
                self.take(message, now);
            }
            self.take_progress(now);
            if now >= self.consensus.next_tick() {
                self.consensus.step(Input::Tick, now);
            }
            while self.consensus.has_work() {
                self.turn().await;
            }
            self.look_after(now);
        }
    }

    /// Waits for something to do, at most until the next tick, and takes all that is there.
    async fn wait(&mut self, messages: &mut Vec<DriverMessage>) {
        let until_tick = self.consensus.next_tick().saturating_sub(clock::boot_ns());
        self.inbox.receive(messages, Duration::from_nanos(until_tick)).await;
    }

    fn take(&mut self, message: DriverMessage, now: u64) {
        match message {
            DriverMessage::Input(Input::Applied { group, index }) => self.tell_applied(group, index, now),
            DriverMessage::Input(Input::SnapshotPublished { group, index, bytes }) => {
                // Its entries may have been applied without a word; see `Progress`.
                self.take_progress(now);
                self.consensus.step(Input::SnapshotPublished { group, index, bytes }, now);
            }
            DriverMessage::Input(input) => self.consensus.step(input, now),
            DriverMessage::Peer(messages) => {
                self.inbox.taken(&messages);
                for message in messages {
                    self.consensus.step(Input::Message(message), now);
                }
            }
            DriverMessage::Recall { node, reply } => {
                let recall = |&group: &ShardId| Some((group, self.consensus.recollect(group, node)?));
                let shards = self.members.keys().filter_map(recall).collect();
                let _ = reply.send(Memory { decided: true, shards });
            }
            // Once, before there are groups.
            DriverMessage::Decide { .. } | DriverMessage::Begin => {}
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
            self.prune(group);
        }
    }

    /// Lets snapshots older than the newest go, once the shard needs none of them.
    fn prune(&mut self, group: ShardId) {
        let Some(member) = self.members.get_mut(&group) else { return };
        if let Some(index) = member.newest_snapshot.take_if(|index| *index <= member.told_applied) {
            self.writer.prune(group, index);
        }
    }

    async fn turn(&mut self) {
        let work = self.consensus.collect(clock::boot_ns());
        let sends = !work.messages.is_empty();
        let writes = self.send_and_tell(work);
        if !writes.is_empty() {
            if sends {
                flush().await;
            }
            let began_ns = clock::boot_ns();
            self.disk.begin_write(began_ns);
            self.log.write(&writes);
            let ended_ns = clock::boot_ns();
            self.disk.end_write(ended_ns, self.patience_ns);
            self.figures.writes.fetch_add(1, Ordering::Relaxed);
            self.figures.write_ns.fetch_add(ended_ns - began_ns, Ordering::Relaxed);
            for write in &writes.groups {
                if let (Some(snapshot), Some(member)) = (&write.snapshot, self.members.get_mut(&write.group))
                {
                    member.newest_snapshot = Some(snapshot.index);
                    self.prune(write.group);
                }
            }
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
                    more: entry.more,
                };
                let newest_term = entries.last().map_or(0, |entry| entry.term);
                let entries = entries.into_iter().map(convert).collect();
                self.to_shard(group, Event::Committed(entries).into());
                self.notice_serving(group, newest_term);
            }
            Output::RoundConfirmed { group, term, round, .. } => {
                self.to_shard(group, Event::RoundConfirmed { term, round }.into());
            }
            Output::Followers { group, term, matched } => {
                self.to_shard(group, Event::Followers { term, matched }.into());
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
                tracing::info!(shard = group, index, voters = ?members.voters, learners = ?members.learners, "members");
                self.note_members(group, &members);
            }
        }
    }

    fn tell_role(&mut self, group: ShardId, term: u64, role: Role) {
        let Some(member) = self.members.get_mut(&group) else { return };
        tracing::debug!(shard = group, term, ?role, "role");
        member.leads = (role == Role::Leader).then_some((term, false));
        let replica = member.replica.node();
        let event = match role {
            Role::Leader => Event::Lead { term },
            // To clients a replica is its node's, whichever life of its disk that is in.
            Role::Follower { leader } => Event::Follow { leader: leader.map(ReplicaId::node) },
            Role::Candidate => Event::Follow { leader: None },
        };
        match role {
            Role::Leader => self.view.learn_leader(group, term, replica),
            Role::Follower { leader: Some(leader) } => self.view.learn_leader(group, term, leader.node()),
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
            self.view.lead(group, newest_term, node);
        }
    }

    /// A replica that does not vote asks to, until it does.
    fn note_members(&self, group: ShardId, members: &Members) {
        if let Some(member) = self.members.get(&group) {
            let wants = !members.is_voter(member.replica);
            self.view.join(group, wants.then_some(member.replica.0));
        }
    }

    fn to_shard(&self, group: ShardId, message: ShardMessage) {
        if let Some(member) = self.members.get(&group) {
            member.mailbox.send(message);
        }
    }

    /// What is done now and then: files of the log, figures.
    fn look_after(&mut self, now: u64) {
        let (node, fit) = (self.node, self.disk.is_fit(now));
        if fit != self.is_fit {
            self.is_fit = fit;
            self.consensus.step(Input::Fitness { node, fit }, now);
        }
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

/// Lets messages leave before the thread waits for the disk.
async fn flush() {
    for _ in 0..FLUSH_HOPS {
        tokio::task::yield_now().await;
    }
}
