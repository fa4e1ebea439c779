//! One group on this node: a `RawNode` and what the crate leaves to its user.
//!
//! A turn is: inputs are stepped, [`Group::collect`] takes raft's `Ready`, the shell sends what may be sent, makes
//! the writes durable, and [`Group::persisted`] ends the `Ready`: answers and votes leave, commits become visible.
//! The protocol is raft-rs' synchronous one; nothing is stepped between the two halves.
//!
//! The other halves of a group: `receive` (messages, the vote guard), `lead` (proposals, rounds, hand-over),
//! `succession` (who leads next), and `compact` (snapshots, truncation, members).

use std::collections::VecDeque;
use std::sync::Arc;

use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType};
use raft::{Config, RawNode, Ready, StateRole};

use crate::log::{GroupWrite, LogReader, RecoveredGroup};

use super::formats::ToldFormats;
use super::lease::{Echoes, LeaseCell};
use super::parts::{Queue, Whole};
use super::readers::Readers;
use super::settings::{GroupSettings, PlantedFault, Settings};
use super::storage::GroupStorage;
use super::types::*;
use super::window::Window;

/// The home replica must have kept up for this many ticks before it is handed the leadership: one that flaps
/// costs less as a follower.
pub(super) const HOME_PATIENCE_TICKS_MIN: u32 = 20;

/// Where the home replica itself gave the leadership away, it is about to stop: it gets it back once
/// it has come back, or if it still has not gone after this time.
pub(super) const HOME_PATIENCE_TICKS_GIVEN: u32 = 300;

/// After hand-overs that failed the patience doubles, up to a minute.
pub(super) const HOME_PATIENCE_TICKS_MAX: u32 = 1200;

pub(super) struct Group {
    pub(super) id: ShardId,
    pub(super) replica: ReplicaId,
    pub(super) home: Option<NodeId>,
    pub(super) raw: RawNode<GroupStorage>,
    pub(super) settings: Arc<Settings>,
    pub(super) window: Arc<Window>,
    pub(super) lease: Arc<LeaseCell>,
    pub(super) echoes: Echoes,
    pub(super) support: Support,
    /// Before this, no vote is granted unless it is forced: the replica may have promised a leader its patience.
    pub(super) vote_guard: BootTime,
    /// Before this, a replica that just started does not count its election timeout.
    pub(super) sleep_until: BootTime,
    /// Before this, the home replica does not ask for the leadership at its start.
    pub(super) eager_from: BootTime,
    pub(super) eager_ticks: u32,
    /// A leader was known in this life of the process.
    pub(super) leader_seen: bool,
    /// The leader's node could not be reached at this time: so many ticks after the promise to that leader has run
    /// out, this replica asks for votes.
    pub(super) orphaned: Option<(BootTime, u32)>,
    /// The node stops: it leads no more.
    pub(super) stopping: bool,
    /// Clients read here, also while this replica follows.
    pub(super) reads_here: bool,

    reported: Option<(Role, u64)>,
    pending: Option<Ready>,
    /// Writes that raft did not ask for: positions of snapshots, truncations.
    pub(super) own_write: GroupWrite,
    installing: bool,

    // What the shard has: handed <= known, and applied <= handed.
    pub(super) applied: u64,
    pub(super) handed: u64,
    known: u64,
    unapplied: VecDeque<(u64, u64)>, // index and bytes of each entry handed and not applied
    unapplied_bytes: u64,
    whole: Whole,

    // As a leader.
    /// Followers that clients read from.
    pub(super) readers: Readers,
    /// Followers' progress is told: what was told last, in which term.
    watched: Option<(u64, Vec<u64>)>,
    /// What the shard was told that all members read.
    pub(super) told_formats: ToldFormats,
    /// Proposals that are not appended whole.
    pub(super) queue: Queue,
    /// No more proposals and no lease in this term.
    pub(super) retiring: bool,
    /// The term whose first commit the followers were told of at once.
    told_term: u64,
    pub(super) waiting_rounds: Vec<u64>,
    pub(super) attempts: VecDeque<Attempt>,
    pub(super) rounds_term: u64,
    pub(super) next_attempt: u64,
    pub(super) home_ticks: u32,
    pub(super) home_patience: u32,

    // Snapshots.
    pub(super) snapshot_asked: bool,
    pub(super) snapshot_asked_growth: u64,
    /// When a snapshot that failed is tried again.
    pub(super) snapshot_retry: Option<BootTime>,
    /// Bytes of the newest snapshot's file; 0 if they are not known.
    pub(super) snapshot_bytes: u64,
    /// The members from each index on, since the newest snapshot.
    pub(super) members: VecDeque<(u64, ConfState)>,
}

/// The leader a follower last heard, and the largest stamp it took from it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Support {
    pub(super) term: u64,
    pub(super) leader: u64,
    pub(super) stamp: BootTime,
}

/// One heartbeat round, for all reads that waited when it began.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) number: u64,
    pub(super) rounds: Vec<u64>,
}

impl Group {
    pub(super) fn new(
        (settings, window): (Arc<Settings>, Arc<Window>),
        group: GroupSettings,
        reader: Arc<dyn LogReader>,
        logger: &slog::Logger,
        now: BootTime,
    ) -> Group {
        let brand_new = group.recovered.is_none();
        let mut recovered = group.recovered.unwrap_or_default();
        let mut own_write = GroupWrite::new(group.group);
        if brand_new {
            let voters: Vec<u64> = group.voters.iter().map(|voter| voter.0).collect();
            recovered.snapshot.set_conf_state(ConfState::from((voters, vec![])));
            own_write.snapshot = Some(recovered.snapshot.clone());
        }
        // A replica that never took part in anything has promised nothing.
        let history = recovered.hard_state.term > 0 || recovered.last_index > 0;
        let members = recovered.snapshot.get_conf_state().clone();
        let snapshot_index = recovered.snapshot.index;
        let storage = GroupStorage::new(group.group, reader, Arc::clone(&window), recovered);
        let config = config(&settings, group.replica, group.election_ticks, snapshot_index);
        let raw = RawNode::new(&config, storage, logger)
            .unwrap_or_else(|error| panic!("group {}: the settings cannot work: {error}", group.group));

        let alone = members.voters[..] == [group.replica.0] && members.voters_outgoing.is_empty();
        let guarded = history && !alone;
        let ticks_max = u64::from(settings.election_ticks_max);
        let patience = u64::from(settings.election_ticks_max - settings.election_ticks_min);
        let guard_end = now + if guarded { ticks_max * settings.tick_ns() } else { 0 };
        let vote_guard = match settings.fault {
            PlantedFault::VoteAfterRestart => 0,
            _ => guard_end,
        };
        Group {
            id: group.group,
            replica: group.replica,
            home: group.home,
            raw,
            lease: group.lease,
            echoes: Echoes::default(),
            support: Support::default(),
            vote_guard,
            // With its own timeout on top, the replica campaigns after the longest timeout at the earliest.
            sleep_until: now + if guarded { patience * settings.tick_ns() } else { 0 },
            eager_from: guard_end,
            eager_ticks: 0,
            leader_seen: false,
            orphaned: None,
            stopping: false,
            reads_here: false,
            reported: None,
            pending: None,
            own_write,
            installing: false,
            applied: snapshot_index,
            handed: snapshot_index,
            known: snapshot_index,
            unapplied: VecDeque::new(),
            unapplied_bytes: 0,
            whole: Whole::default(),
            queue: Queue::default(),
            readers: Readers::default(),
            watched: None,
            told_formats: ToldFormats::default(),
            retiring: false,
            told_term: 0,
            waiting_rounds: Vec::new(),
            attempts: VecDeque::new(),
            rounds_term: 0,
            next_attempt: 0,
            home_ticks: 0,
            home_patience: HOME_PATIENCE_TICKS_MIN,
            snapshot_asked: false,
            snapshot_asked_growth: 0,
            snapshot_retry: None,
            snapshot_bytes: 0,
            members: VecDeque::from([(snapshot_index, members)]),
            settings,
            window,
        }
    }

    /// It ends, between two turns: what is left to be written, and what the log holds of it then.
    pub(super) fn close(mut self) -> (GroupWrite, RecoveredGroup) {
        assert!(self.pending.is_none(), "the last turn was not ended");
        self.lease.publish(self.term(), 0);
        let mut write = std::mem::take(&mut self.own_write);
        if !write.is_empty() {
            write.hard_state = Some(self.storage().hard_state.clone());
        }
        (write, self.storage().recovered())
    }

    pub(super) fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub(super) fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub(super) fn storage(&self) -> &GroupStorage {
        self.raw.store()
    }

    pub(super) fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower => Role::Follower {
                leader: Some(ReplicaId(self.raw.raft.leader_id)).filter(|leader| leader.0 != 0),
            },
        }
    }

    pub(super) fn status(&self) -> GroupStatus {
        let raft = &self.raw.raft;
        let mut matched: Vec<(ReplicaId, u64)> = Vec::new();
        if self.leads() {
            let others = raft.prs().iter().filter(|(id, _)| **id != self.replica.0);
            matched.extend(others.map(|(id, progress)| (ReplicaId(*id), progress.matched)));
            matched.sort_unstable();
        }
        let (members_since, members) = &self.members[self.members.len() - 1];
        GroupStatus {
            term: raft.term,
            role: self.role(),
            first: self.storage().truncated.index + 1,
            last: raft.raft_log.last_index(),
            committed: raft.raft_log.committed,
            applied: self.applied,
            snapshot: self.storage().snapshot.index,
            members: Members::from_raft(members),
            members_since: *members_since,
            matched,
        }
    }

    /// Tells what followers have from now on, or no more.
    pub(super) fn watch_followers(&mut self, watched: bool) {
        self.watched = watched.then(|| (0, Vec::new()));
    }

    fn tell_followers(&mut self, outputs: &mut Vec<Output>) {
        if self.watched.is_none() || !self.leads() {
            return;
        }
        let status = self.status();
        let matched: Vec<u64> = status.matched.into_iter().map(|(_, index)| index).collect();
        let now = (status.term, matched);
        if self.watched.as_ref() != Some(&now) {
            outputs.push(Output::Followers { group: self.id, term: now.0, matched: now.1.clone() });
            self.watched = Some(now);
        }
    }

    /// The first half of a turn.
    pub(super) fn collect(&mut self, now: BootTime, work: &mut Work) {
        assert!(self.pending.is_none(), "the last turn was not ended");
        self.report_role(&mut work.outputs);
        self.tell_first_commit();
        self.start_round();
        self.feed(&mut work.outputs);
        self.send_unsent();
        self.tell_readers();
        let mut write = std::mem::replace(&mut self.own_write, GroupWrite::new(self.id));
        if self.raw.has_ready() {
            let mut ready = self.raw.ready();
            self.confirm_rounds(&mut ready, &mut work.outputs);
            self.send(ready.take_messages(), now, work);
            self.store(&mut ready, &mut write);
            self.hand_over(ready.take_committed_entries(), &mut work.outputs);
            self.pending = Some(ready);
        }
        self.hand_more(&mut work.outputs);
        self.tell_followers(&mut work.outputs);
        self.ask_for_snapshot(&mut work.outputs);
        if !write.is_empty() {
            write.hard_state = Some(self.storage().hard_state.clone());
            work.writes.groups.push(write);
        }
        self.refresh_lease(now);
    }

    /// Followers hear of a commit with the next append or heartbeat, but of the first of a term at once: it settles
    /// what the leader before had in flight, and clients of that leader wait for it.
    fn tell_first_commit(&mut self) {
        if self.told_term != self.term() && self.leads() && self.raw.raft.commit_to_current_term() {
            self.told_term = self.term();
            self.raw.ping();
        }
    }

    /// What raft wants durable, into the cache and into the write. A commit index alone is not worth a sync: it
    /// goes along with the next write.
    fn store(&mut self, ready: &mut Ready, write: &mut GroupWrite) {
        let must_sync = ready.must_sync();
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata().clone();
            self.install(&metadata);
            write.reset = true;
            write.truncate = None;
            write.snapshot = Some(metadata);
            self.installing = true;
        }
        let storage = self.raw.mut_store();
        if let Some(hard_state) = ready.hs() {
            storage.hard_state = hard_state.clone();
        }
        if must_sync {
            write.hard_state = Some(storage.hard_state.clone());
        }
        write.entries = ready.take_entries();
        storage.append(&write.entries);
    }

    /// A received snapshot takes the place of the log. What was handed to the shard before is before it.
    fn install(&mut self, metadata: &raft::eraftpb::SnapshotMetadata) {
        self.raw.mut_store().reset(metadata);
        self.handed = metadata.index;
        self.known = metadata.index;
        self.whole.clear();
        self.members = VecDeque::from([(metadata.index, metadata.get_conf_state().clone())]);
        self.snapshot_asked = false;
        self.snapshot_asked_growth = 0;
    }

    /// The second half: everything written is durable.
    pub(super) fn persisted(&mut self, now: BootTime, work: &mut Work) {
        if let Some(mut ready) = self.pending.take() {
            self.send(ready.take_persisted_messages(), now, work);
            let mut light = self.raw.advance_append(ready);
            if let Some(commit) = light.commit_index() {
                self.raw.mut_store().hard_state.commit = commit;
            }
            if std::mem::take(&mut self.installing) {
                let snapshot = &self.storage().snapshot;
                let (index, term) = (snapshot.index, snapshot.term);
                let group = self.id;
                let members = Members::from_raft(snapshot.get_conf_state());
                work.outputs.push(Output::Members { group, index, members });
                work.outputs.push(Output::InstallSnapshot { group, index, term });
                // Raft must not look for what the snapshot replaced, however long the shard takes to install it.
                self.raw.advance_apply_to(index);
            }
            self.send(light.take_messages(), now, work);
            self.hand_over(light.take_committed_entries(), &mut work.outputs);
        }
        let bytes_max = self.settings.cache_bytes_max;
        self.raw.mut_store().trim(bytes_max);
        self.queue.committed(self.raw.raft.raft_log.committed);
        self.report_role(&mut work.outputs);
        self.refresh_lease(now);
    }

    pub(super) fn has_work(&self) -> bool {
        self.raw.has_ready()
            || !self.own_write.is_empty()
            || (self.handed < self.known && self.has_room())
            || self.can_feed()
            || self.storage().has_unsent()
            || self.has_news_for_readers()
            || self.reported != Some((self.role(), self.term()))
    }

    /// The shard has applied up to `index`.
    pub(super) fn applied(&mut self, index: u64) {
        assert!(
            index <= self.handed,
            "group {}: applied {index}, but only {} was handed over",
            self.id,
            self.handed
        );
        while let Some((first, bytes)) = self.unapplied.front().copied() {
            if first > index {
                break;
            }
            self.unapplied_bytes -= bytes;
            self.unapplied.pop_front();
        }
        if index <= self.applied {
            return;
        }
        self.applied = index;
        if index > self.raw.raft.raft_log.applied() {
            let last = self.raw.raft.raft_log.last_index();
            self.raw.advance_apply_to(index);
            if self.leads() && self.raw.raft.raft_log.last_index() > last {
                // Raft has just proposed to leave a joint configuration, and would tell at the next heartbeat only.
                self.raw.raft.bcast_append();
            }
        }
    }

    fn has_room(&self) -> bool {
        self.unapplied_bytes < self.settings.unapplied_bytes_max
    }

    /// Entries raft calls committed. What the shard has no room for is read again later.
    fn hand_over(&mut self, entries: Vec<Entry>, outputs: &mut Vec<Output>) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return;
        };
        assert_eq!(first.index, self.known + 1, "raft commits without gaps");
        let in_order = self.handed == self.known;
        self.known = last.index;
        if in_order {
            self.emit(entries, outputs);
        }
    }

    fn hand_more(&mut self, outputs: &mut Vec<Output>) {
        while self.handed < self.known && self.has_room() && !self.window.is_spent() {
            let room = self.settings.unapplied_bytes_max - self.unapplied_bytes;
            let entries = self.storage().read(self.handed + 1, self.known + 1, room.min(self.window.left()));
            self.window.spend(entries.iter().map(|entry| entry.data.len() as u64).sum());
            self.emit(entries, outputs);
        }
    }

    fn emit(&mut self, entries: Vec<Entry>, outputs: &mut Vec<Output>) {
        let mut committed = Vec::with_capacity(entries.len());
        for mut entry in entries {
            if !self.has_room() {
                break;
            }
            let data = match entry.entry_type {
                EntryType::EntryNormal => entry.take_data(),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    self.change_members(&entry, outputs);
                    bytes::Bytes::new()
                }
            };
            self.handed = entry.index;
            for entry in self.whole.take(&entry, data) {
                self.unapplied_bytes += entry.data.len() as u64;
                self.unapplied.push_back((entry.index, entry.data.len() as u64));
                committed.push(entry);
            }
        }
        if !committed.is_empty() {
            outputs.push(Output::Committed { group: self.id, entries: committed });
        }
    }

    /// Whether it leads, and the shard knows.
    pub(super) fn has_reported_lead(&self) -> bool {
        self.leads() && self.reported == Some((Role::Leader, self.term()))
    }

    fn report_role(&mut self, outputs: &mut Vec<Output>) {
        let now = (self.role(), self.term());
        if self.reported == Some(now) {
            return;
        }
        let (role, term) = now;
        self.reported = Some(now);
        self.retiring = false;
        self.home_ticks = 0;
        if matches!(role, Role::Leader | Role::Follower { leader: Some(_) }) {
            self.orphaned = None;
        }
        self.refuse_rounds(outputs);
        match role {
            Role::Follower { leader: Some(leader) } => {
                self.leader_seen = true;
                if Some(leader.node()) == self.home {
                    self.home_patience = HOME_PATIENCE_TICKS_MIN;
                }
            }
            Role::Leader => self.leader_seen = true,
            _ => {}
        }
        outputs.push(Output::Role { group: self.id, term, role });
    }

    /// Withdraws, keeps or extends the lease, after every turn and before its messages leave.
    pub(super) fn refresh_lease(&self, now: BootTime) {
        let raft = &self.raw.raft;
        let retiring = self.retiring && self.settings.fault != PlantedFault::LeaseKeptInTransfer;
        let serves = self.leads() && !retiring && raft.apply_to_current_term();
        let mut valid_until = 0;
        if serves {
            let conf = &self.members[self.members.len() - 1].1;
            let since = [&conf.voters, &conf.voters_outgoing]
                .map(|voters| self.echoes.quorum(raft.term, voters, self.replica.0, now));
            let since = since[0].min(since[1]);
            if since > 0 {
                valid_until = since + self.settings.lease_ns();
            }
        }
        self.lease.publish(raft.term, valid_until);
    }

    fn send(&mut self, messages: Vec<Message>, now: BootTime, work: &mut Work) {
        for message in messages {
            let kind = message.get_msg_type();
            let stamped =
                matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot);
            let answer = matches!(kind, MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse);
            if stamped {
                self.told_reader(message.to, message.commit);
            }
            let supports = answer && message.term == self.support.term && message.to == self.support.leader;
            let data = message.write_to_bytes().expect("protobuf writes to memory");
            let peer_message = PeerMessage {
                group: self.id,
                from: self.replica,
                to: ReplicaId(message.to),
                stamp: if stamped { now } else { 0 },
                echo: if supports { self.support.stamp } else { 0 },
                time: if stamped { self.lease.times.own(message.term, now) } else { 0 },
                reads: answer && self.reads_here,
                data: data.into(),
            };
            if kind == MessageType::MsgSnapshot {
                let metadata = message.get_snapshot().get_metadata();
                work.outputs.push(Output::SendSnapshot {
                    group: self.id,
                    to: peer_message.to,
                    index: metadata.index,
                    term: metadata.term,
                    message: peer_message,
                });
            } else {
                work.messages.push(peer_message);
            }
        }
    }
}

fn config(settings: &Settings, replica: ReplicaId, election_ticks: Option<u32>, applied: u64) -> Config {
    let shortest = election_ticks.unwrap_or(settings.election_ticks_min);
    let longest = election_ticks.map_or(settings.election_ticks_max, |ticks| ticks + 1);
    Config {
        id: replica.0,
        election_tick: settings.election_ticks_min as usize,
        heartbeat_tick: settings.heartbeat_ticks as usize,
        min_election_tick: shortest as usize,
        max_election_tick: longest as usize, // exclusive
        applied,
        max_size_per_msg: settings.message_bytes_max,
        max_inflight_msgs: settings.inflight_max,
        check_quorum: true,
        pre_vote: true,
        batch_append: true,
        // Followers without readers hear of a commit with the next append or heartbeat. A message of its own, and its answers, would
        // double what a replicated batch costs all nodes, and tell them nothing that their log lacks.
        skip_bcast_commit: true,
        max_uncommitted_size: settings.uncommitted_bytes_max,
        max_committed_size_per_ready: settings.unapplied_bytes_max.min(settings.turn_bytes_max),
        ..Config::default()
    }
}
