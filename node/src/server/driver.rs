//! The consensus of a node: turns of [`Consensus`] with the real log and the real clock.
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
/// A follower's shard is told of committed entries no more often, unless they are many: it wakes for them alone.
const FOLLOWER_REST_NS: u64 = 5_000_000;
/// The same where clients read.
const READERS_REST_NS: u64 = 1_000_000;
/// Bytes of entries that it is told of at once.
const FOLLOWER_BYTES: usize = 256 << 10;
/// How often figures for metrics are taken.
const STATUS_INTERVAL_NS: u64 = 1_000_000_000;

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
    /// Committed entries of which its shard has not been told, and their bytes.
    untold: (Vec<CommittedEntry>, usize),
    /// When it may be told again.
    next_told: u64,
    /// Between two times that it is told.
    rest_ns: u64,
}

impl Member {
    /// Tells the shard of the entries that it has not been told of.
    fn tell_untold(&mut self) {
        let (entries, _) = std::mem::take(&mut self.untold);
        if !entries.is_empty() {
            self.mailbox.send(Event::Committed(entries).into());
        }
    }

    /// Tells the shard something, after the entries that came before it.
    fn tell(&mut self, message: ShardMessage) {
        self.tell_untold();
        self.mailbox.send(message);
    }

    /// Tells the shard of committed entries, now or in a while.
    fn tell_committed(&mut self, entries: Vec<CommittedEntry>, now: u64) {
        let (untold, bytes) = &mut self.untold;
        *bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        untold.extend(entries);
        if self.leads.is_some() || *bytes >= FOLLOWER_BYTES {
            self.tell_untold();
        }
        self.tell_in_time(now);
    }

    /// Clients read there, or do so no more.
    fn note_readers(&mut self, present: bool, now: u64) {
        self.rest_ns = if present { READERS_REST_NS } else { FOLLOWER_REST_NS };
        self.next_told = self.next_told.min(now + self.rest_ns);
    }

    /// Tells the shard what it has waited for long enough.
    fn tell_in_time(&mut self, now: u64) {
        if now >= self.next_told && !self.untold.0.is_empty() {
            self.next_told = now + self.rest_ns;
            self.tell_untold();
        }
    }
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
        let member = |(&shard, replica): (&ShardId, &ReplicaHandle)| {
            let member = Member {
                replica: ReplicaId::new(shared.node, incarnation),
                mailbox: replica.mailbox.clone(),
                told_applied: replica.progress.index(),
                newest_snapshot: None,
                progress: Arc::clone(&replica.progress),
                leads: None,
                untold: Default::default(),
                next_told: 0,
                rest_ns: FOLLOWER_REST_NS,
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
            unheard: VecDeque::new(),
            awake_ns: clock::boot_ns(),
            silence_ns,
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
            self.note_silence(now);
            self.hear(&mut messages, now);
            self.take_progress(now);
            if now >= self.consensus.next_tick() {
                self.consensus.step(Input::Tick, now);
            }
            if self.consensus.has_work() {
                self.turn();
            }
            self.look_after(now);
        }
    }

    /// Takes in what has arrived, as far as a turn does.
    fn hear(&mut self, messages: &mut Vec<DriverMessage>, now: u64) {
        self.unheard.extend(messages.drain(..));
        while !self.consensus.is_full()
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
        if self.consensus.has_work() || !self.unheard.is_empty() {
            return self.inbox.receive(messages, None).await;
        }
        let untold = self.members.values().filter(|member| !member.untold.0.is_empty());
        let next_told = untold.map(|member| member.next_told).min();
        let until = self.consensus.next_tick().min(next_told.unwrap_or(u64::MAX));
        let patience = Duration::from_nanos(until.saturating_sub(clock::boot_ns()));
        self.inbox.receive(messages, Some(patience)).await;
    }

    fn take(&mut self, message: DriverMessage, now: u64) {
        match message {
            DriverMessage::Input(Input::Applied { group, index }) => self.tell_applied(group, index, now),
            DriverMessage::Input(Input::SnapshotPublished { group, index, bytes }) => {
                // Its entries may have been applied without a word; see `Progress`.
                self.take_progress(now);
                self.consensus.step(Input::SnapshotPublished { group, index, bytes }, now);
            }
            DriverMessage::Input(Input::Readers { group, present }) => {
                if let Some(member) = self.members.get_mut(&group) {
                    member.note_readers(present, now);
                }
                self.consensus.step(Input::Readers { group, present }, now);
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

    fn turn(&mut self) {
        let work = self.consensus.collect(clock::boot_ns());
        let writes = self.send_and_tell(work);
        if !writes.is_empty() {
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
                self.tell_shard(group, ShardMessage::Retire { term });
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
                if let Some(member) = self.members.get_mut(&group) {
                    member.tell_committed(entries, clock::boot_ns());
                }
                self.notice_serving(group, newest_term);
            }
            Output::RoundConfirmed { group, term, round, .. } => {
                self.tell_shard(group, Event::RoundConfirmed { term, round }.into());
            }
            Output::Followers { group, term, matched } => {
                self.tell_shard(group, Event::Followers { term, matched }.into());
            }
            // A `Role` that ends the term tells the shard, and its reads are redirected.
            Output::RoundRefused { .. } => {}
            Output::TakeSnapshot { group } => self.tell_shard(group, Event::TakeSnapshot.into()),
            Output::SendSnapshot { group, to, index, term, message } => {
                self.outgoing.send_snapshot(group, to, (index, term), message);
            }
            Output::InstallSnapshot { group, index, term } => {
                self.tell_shard(group, ShardMessage::Install { index, term });
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
        self.tell_shard(group, event.into());
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

    fn tell_shard(&mut self, group: ShardId, message: ShardMessage) {
        if let Some(member) = self.members.get_mut(&group) {
            member.tell(message);
        }
    }

    /// Tells the ledger of the log how far it is; that is a write, too.
    fn keep_ledger(&mut self) {
        self.disk.begin_write(clock::boot_ns());
        self.log.keep_ledger();
        self.disk.end_write(clock::boot_ns(), self.patience_ns);
    }

    /// What is done now and then: followers' entries, files of the log and its ledger, figures.
    fn look_after(&mut self, now: u64) {
        self.members.values_mut().for_each(|member| member.tell_in_time(now));
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
            self.keep_ledger();
            self.figures.log_bytes.store(self.log.used_bytes(), Ordering::Relaxed);
            let status = |&group: &ShardId| Some((group, self.consensus.status(group)?));
            let groups = self.members.keys().filter_map(status).collect();
            *self.figures.groups.lock().expect("no thread panics holding it") = groups;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::server::mailbox::{ShardInbox, shard_mailbox};

    fn member() -> (Member, ShardInbox) {
        let (mailbox, inbox) = shard_mailbox();
        let member = Member {
            replica: ReplicaId::new(1, 0),
            mailbox,
            progress: Arc::new(Progress::new(0, 0)),
            told_applied: 0,
            newest_snapshot: None,
            leads: None,
            untold: Default::default(),
            next_told: 0,
            rest_ns: FOLLOWER_REST_NS,
        };
        (member, inbox)
    }

    fn entry(index: u64, bytes: usize) -> Vec<CommittedEntry> {
        vec![CommittedEntry { index, term: 1, data: Bytes::from(vec![0; bytes]), more: false }]
    }

    /// What the shard has been told: the entries of each message, and 0 for any other.
    async fn told(inbox: &mut ShardInbox) -> Vec<Vec<u64>> {
        let mut messages = Vec::new();
        tokio::select! { biased; _ = inbox.receive(&mut messages, 100) => {}, () = std::future::ready(()) => {} }
        let entries = |message: ShardMessage| match message {
            ShardMessage::Event(Event::Committed(entries)) => {
                entries.iter().map(|entry| entry.index).collect()
            }
            _ => vec![0],
        };
        messages.into_iter().map(entries).collect()
    }

    #[tokio::test]
    async fn a_follower_with_readers_is_told_sooner() {
        let (mut member, mut inbox) = member();
        let start = FOLLOWER_REST_NS;
        member.tell_committed(entry(1, 1), start);
        member.tell_committed(entry(2, 1), start + 1);
        assert_eq!(told(&mut inbox).await, [[1]]);
        member.note_readers(true, start + 1);
        member.tell_in_time(start + READERS_REST_NS);
        assert!(told(&mut inbox).await.is_empty());
        member.tell_in_time(start + 1 + READERS_REST_NS);
        assert_eq!(told(&mut inbox).await, [[2]]);
        member.note_readers(false, start + 1 + READERS_REST_NS);
        assert_eq!(member.rest_ns, FOLLOWER_REST_NS);
    }

    #[tokio::test]
    async fn a_follower_is_told_of_many_entries_at_once_and_of_no_role_before_them() {
        let (mut member, mut inbox) = member();
        let start = FOLLOWER_REST_NS;
        member.tell_committed(entry(1, 1), start);
        assert_eq!(told(&mut inbox).await, [[1]], "it had its rest");
        (2..5).for_each(|index| member.tell_committed(entry(index, 1), start + index));
        member.tell_in_time(start + FOLLOWER_REST_NS - 1);
        assert!(told(&mut inbox).await.is_empty());
        member.tell_in_time(start + FOLLOWER_REST_NS);
        assert_eq!(told(&mut inbox).await, [[2, 3, 4]]);
        member.tell_committed(entry(5, FOLLOWER_BYTES - 1), start + FOLLOWER_REST_NS);
        assert!(told(&mut inbox).await.is_empty());
        member.tell_committed(entry(6, 1), start + FOLLOWER_REST_NS);
        assert_eq!(told(&mut inbox).await, [[5, 6]], "much is not kept back");
        member.tell_committed(entry(7, 1), start + FOLLOWER_REST_NS);
        member.tell(Event::Lead { term: 2 }.into());
        assert_eq!(told(&mut inbox).await, [[7], [0]]);
        member.leads = Some((2, false));
        member.tell_committed(entry(8, 1), start + FOLLOWER_REST_NS);
        assert_eq!(told(&mut inbox).await, [[8]], "a leader's clients wait for it");
    }
}
