//! The turns of a node's consensus, and who hears what of them.
//!
//! ```text
//! loop {
//!     wait for inputs, at most until next_wake();
//!     while !is_full() { step(input, now) }      // the rest after this turn
//!     begin_turn(now, is_fit);
//!     if has_work() {
//!         send(collect(now).messages); carry out take_notices(); write what collect returned, if anything: written(..)
//!         send(persisted(now)); carry out take_notices();
//!     }
//!     carry out take_notices();
//! }
//! ```
//!
//! A leader's shard is told at once of what is committed: its clients wait. A follower's would wake for nothing else, so it is
//! told of much together: see [`FOLLOWER_REST_NS`].
//!
//! INVARIANT: a shard is told everything in the order in which consensus said it; entries that are kept back leave
//! before anything that comes after them.
//!
//! INVARIANT: a snapshot file goes only once the log durably calls a newer one the newest, and the shard, which may be reading
//! the old one, has applied what is in the newer.

use std::{collections::BTreeMap, sync::Arc};

use super::{Install, Message, Progress};
use crate::{
    consensus::{
        BootTime, CommittedEntry as RaftEntry, Consensus, GroupSettings, Input, Members, NodeId, Output,
        PeerMessage, ReplicaId, Role, ShardId,
    },
    log::{GroupWrite, LogWrites, RecoveredGroup},
    marks,
    shard::{CommittedEntry, Event},
};

/// A follower's shard is told of committed entries no more often, unless they are many: it wakes for them alone.
pub const FOLLOWER_REST_NS: u64 = 5_000_000;
/// The same where clients read.
pub const READERS_REST_NS: u64 = 1_000_000;
/// Bytes of entries that it is told of at once.
pub const FOLLOWER_BYTES: usize = 256 << 10;

/// What is to be done, in order.
#[derive(Debug)]
pub enum Notice {
    /// Tell a shard.
    Tell(ShardId, Message),
    /// The node's view of the cluster: this node leads that shard in that term, or knows who does.
    Leader {
        /// The shard.
        shard: ShardId,
        /// The term.
        term: u64,
        /// The node, whichever life of its disk it is in.
        node: NodeId,
    },
    /// This node does not lead the shard, or takes no proposals any more.
    Follows(ShardId),
    /// This node leads the shard, and an entry of the term is committed: it serves.
    Serves {
        /// The shard.
        shard: ShardId,
        /// The term.
        term: u64,
    },
    /// The members of a group changed, as of the entry or snapshot at `index`.
    Members {
        /// The group.
        group: ShardId,
        /// Where.
        index: u64,
        /// Who is a member.
        members: Members,
        /// Under which id this replica asks to be a voter, from now on, until it is one.
        joins: Option<ReplicaId>,
    },
    /// Move a snapshot, as [`Output::SendSnapshot`] says.
    SendSnapshot {
        /// The group.
        group: ShardId,
        /// To whom.
        to: ReplicaId,
        /// Which.
        snapshot: Install,
        /// Raft's part.
        message: PeerMessage,
    },
    /// Snapshots of this shard before this index may go.
    Prune(ShardId, u64),
}

/// One group.
#[derive(Debug)]
struct Member {
    progress: Arc<Progress>,
    told_applied: u64,
    /// The log durably calls the snapshot at this index the newest, and older files are still there.
    newest_snapshot: Option<u64>,
    /// The term it leads, and whether an entry of that term is committed.
    leads: Option<(u64, bool)>,
    /// Committed entries of which its shard has not been told, and their bytes.
    untold: (Vec<CommittedEntry>, usize),
    /// When it may be told again.
    next_told: BootTime,
    /// Between two times that it is told.
    rest_ns: u64,
}

impl Member {
    fn new(progress: Arc<Progress>) -> Self {
        Self {
            told_applied: progress.index(),
            progress,
            newest_snapshot: None,
            leads: None,
            untold: Default::default(),
            next_told: 0,
            rest_ns: FOLLOWER_REST_NS,
        }
    }

    /// Entries are committed. What of them, and of those before, the shard is told now.
    fn commit(&mut self, entries: Vec<CommittedEntry>, now: BootTime) -> Vec<CommittedEntry> {
        let (untold, bytes) = &mut self.untold;
        *bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        untold.extend(entries);
        match self.leads.is_some() || *bytes >= FOLLOWER_BYTES {
            true => std::mem::take(&mut self.untold).0,
            false => self.take_due(now),
        }
    }

    /// Clients read there, or do so no more.
    fn note_readers(&mut self, present: bool, now: BootTime) {
        self.rest_ns = if present { READERS_REST_NS } else { FOLLOWER_REST_NS };
        self.next_told = self.next_told.min(now + self.rest_ns);
    }

    /// What the shard has waited for long enough.
    fn take_due(&mut self, now: BootTime) -> Vec<CommittedEntry> {
        if now < self.next_told || self.untold.0.is_empty() {
            return Vec::new();
        }
        self.next_told = now + self.rest_ns;
        if self.untold.0.len() > 1 {
            marks::reached("follower told of several entries at once");
        }
        std::mem::take(&mut self.untold).0
    }

    /// Snapshots before this index may go now.
    fn take_prunable(&mut self) -> Option<u64> {
        self.newest_snapshot.take_if(|index| *index <= self.told_applied)
    }
}

/// The consensus of a node, and its shards. See the module.
pub struct Dispatch {
    consensus: Consensus,
    replica: ReplicaId,
    members: BTreeMap<ShardId, Member>,
    is_fit: bool,
    notices: Vec<Notice>,
}

impl Dispatch {
    /// Of `replica`, whose shards have got so far.
    pub fn new(
        consensus: Consensus,
        replica: ReplicaId,
        progress: impl IntoIterator<Item = (ShardId, Arc<Progress>)>,
    ) -> Self {
        let members = progress.into_iter().map(|(shard, progress)| (shard, Member::new(progress))).collect();
        let mut dispatch = Self { consensus, replica, members, is_fit: true, notices: Vec::new() };
        for group in dispatch.members.keys().copied().collect::<Vec<_>>() {
            if let Some(status) = dispatch.consensus.status(group) {
                dispatch.note_members(group, status.members_since, status.members);
            }
        }
        dispatch
    }

    /// A shard's group begins, with a snapshot of so many bytes if it has one; the shard has got so far.
    pub fn open(
        &mut self,
        settings: GroupSettings,
        snapshot_bytes: Option<u64>,
        progress: Arc<Progress>,
        now: BootTime,
    ) {
        let group = settings.group;
        self.consensus.open(settings, now);
        if let Some(bytes) = snapshot_bytes {
            self.consensus.note_snapshot_bytes(group, bytes);
        }
        self.members.insert(group, Member::new(progress));
        if let Some(status) = self.consensus.status(group) {
            self.note_members(group, status.members_since, status.members);
        }
    }

    /// A shard's group ends, between two turns, its notices carried out: see [`Consensus::close`].
    pub fn close(&mut self, group: ShardId) -> Option<(GroupWrite, RecoveredGroup)> {
        self.members.remove(&group);
        self.consensus.close(group)
    }

    /// The groups.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// The shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.members.keys().copied()
    }

    /// What is to be done, oldest first.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Whether peers have said as much as one turn takes.
    pub fn is_full(&self) -> bool {
        self.consensus.is_full()
    }

    /// Takes an input. `now` must have been read after it arrived.
    pub fn step(&mut self, input: Input, now: BootTime) {
        match input {
            Input::Applied { group, index } => return self.tell_applied(group, index, now),
            // Its entries may have been applied without a word.
            Input::SnapshotPublished { .. } => self.take_progress(now),
            Input::Readers { group, present } => {
                if let Some(member) = self.members.get_mut(&group) {
                    member.note_readers(present, now);
                }
            }
            _ => {}
        }
        self.consensus.step(input, now);
    }

    /// What a turn begins with, after the inputs: what shards have applied without a word, the tick that is due, entries
    /// that were kept back for long enough, and whether the node is fit to lead.
    pub fn begin_turn(&mut self, now: BootTime, is_fit: bool) {
        self.take_progress(now);
        if now >= self.consensus.next_tick() {
            self.consensus.step(Input::Tick, now);
        }
        if std::mem::replace(&mut self.is_fit, is_fit) != is_fit {
            self.consensus.step(Input::Fitness { node: self.replica.node(), fit: is_fit }, now);
        }
        for (&group, member) in &mut self.members {
            let due = member.take_due(now);
            tell_entries(&mut self.notices, group, due);
        }
    }

    /// When there is something to do even if no input comes.
    pub fn next_wake(&self) -> BootTime {
        let untold = self.members.values().filter(|member| !member.untold.0.is_empty());
        let next_told = untold.map(|member| member.next_told).min();
        self.consensus.next_tick().min(next_told.unwrap_or(u64::MAX))
    }

    /// Whether there is a turn to take.
    pub fn has_work(&self) -> bool {
        self.consensus.has_work()
    }

    /// The first half of a turn: what to send at once, and what to write.
    pub fn collect(&mut self, now: BootTime) -> (Vec<PeerMessage>, LogWrites) {
        let work = self.consensus.collect(now);
        work.outputs.into_iter().for_each(|output| self.notice(output, now));
        (work.messages, work.writes)
    }

    /// What was to be written is durable.
    pub fn written(&mut self, writes: &LogWrites) {
        for write in &writes.groups {
            if let (Some(snapshot), Some(member)) = (&write.snapshot, self.members.get_mut(&write.group)) {
                member.newest_snapshot = Some(snapshot.index);
                self.prune(write.group);
            }
        }
    }

    /// The second half, after the writes: what to send.
    pub fn persisted(&mut self, now: BootTime) -> Vec<PeerMessage> {
        let work = self.consensus.persisted(now);
        work.outputs.into_iter().for_each(|output| self.notice(output, now));
        work.messages
    }

    fn take_progress(&mut self, now: BootTime) {
        let applied = |(&group, member): (&ShardId, &Member)| (group, member.progress.index());
        let applied: Vec<(ShardId, u64)> = self.members.iter().map(applied).collect();
        for (group, index) in applied {
            self.tell_applied(group, index, now);
        }
    }

    fn tell_applied(&mut self, group: ShardId, index: u64, now: BootTime) {
        let Some(member) = self.members.get_mut(&group) else { return };
        if index > member.told_applied {
            member.told_applied = index;
            self.consensus.step(Input::Applied { group, index }, now);
            self.prune(group);
        }
    }

    fn prune(&mut self, group: ShardId) {
        let index = self.members.get_mut(&group).and_then(Member::take_prunable);
        self.notices.extend(index.map(|index| Notice::Prune(group, index)));
    }

    fn notice(&mut self, output: Output, now: BootTime) {
        match output {
            Output::Role { group, term, role } => self.notice_role(group, term, role),
            Output::Retiring { group, term } | Output::Refused { group, term, .. } => {
                self.notices.push(Notice::Follows(group));
                self.tell(group, Message::Retire { term });
            }
            Output::Committed { group, entries } => self.notice_committed(group, entries, now),
            Output::RoundConfirmed { group, term, round, .. } => {
                self.tell(group, Event::RoundConfirmed { term, round }.into());
            }
            Output::Followers { group, term, matched } => {
                self.tell(group, Event::Followers { term, matched }.into());
            }
            Output::Readable { group, term, format } => {
                self.tell(group, Event::Readable { term, format }.into());
            }
            // A `Role` that ends the term tells the shard, and its reads are redirected.
            Output::RoundRefused { .. } => {}
            Output::TakeSnapshot { group } => self.tell(group, Event::TakeSnapshot.into()),
            Output::SendSnapshot { group, to, index, term, message } => {
                let snapshot = Install { index, term };
                self.notices.push(Notice::SendSnapshot { group, to, snapshot, message });
            }
            Output::InstallSnapshot { group, index, term } => {
                self.tell(group, Message::Install(Install { index, term }));
            }
            Output::Members { group, index, members } => self.note_members(group, index, members),
        }
    }

    fn notice_role(&mut self, group: ShardId, term: u64, role: Role) {
        let Some(member) = self.members.get_mut(&group) else { return };
        member.leads = (role == Role::Leader).then_some((term, false));
        // To clients a replica is its node's, whichever life of its disk that is in.
        let leader = match role {
            Role::Leader => Some(self.replica.node()),
            Role::Follower { leader } => leader.map(ReplicaId::node),
            Role::Candidate => None,
        };
        let event = match role {
            Role::Leader => Event::Lead { term },
            Role::Follower { .. } | Role::Candidate => Event::Follow { leader },
        };
        self.notices.extend(leader.map(|node| Notice::Leader { shard: group, term, node }));
        if role != Role::Leader {
            self.notices.push(Notice::Follows(group));
        }
        self.tell(group, event.into());
    }

    fn notice_committed(&mut self, group: ShardId, entries: Vec<RaftEntry>, now: BootTime) {
        let Some(member) = self.members.get_mut(&group) else { return };
        let newest_term = entries.last().map_or(0, |entry| entry.term);
        let convert = |RaftEntry { index, term, data, more }| CommittedEntry { index, term, data, more };
        let due = member.commit(entries.into_iter().map(convert).collect(), now);
        tell_entries(&mut self.notices, group, due);
        // A leader serves once an entry of its own term is committed: now others may know.
        if member.leads == Some((newest_term, false)) {
            member.leads = Some((newest_term, true));
            self.notices.push(Notice::Serves { shard: group, term: newest_term });
        }
    }

    /// A replica that does not vote asks to, until it does.
    fn note_members(&mut self, group: ShardId, index: u64, members: Members) {
        let joins = (!members.is_voter(self.replica)).then_some(self.replica);
        self.notices.push(Notice::Members { group, index, members, joins });
    }

    /// Tells the shard something, after the entries that came before it.
    fn tell(&mut self, group: ShardId, message: Message) {
        let Some(member) = self.members.get_mut(&group) else { return };
        let (entries, _) = std::mem::take(&mut member.untold);
        if !entries.is_empty() {
            marks::reached("entries kept back left before what came after them");
        }
        tell_entries(&mut self.notices, group, entries);
        self.notices.push(Notice::Tell(group, message));
    }
}

fn tell_entries(notices: &mut Vec<Notice>, group: ShardId, entries: Vec<CommittedEntry>) {
    if !entries.is_empty() {
        notices.push(Notice::Tell(group, Event::Committed(entries).into()));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{consensus::Settings, log::MemoryLog};

    const GROUP: ShardId = 0;

    /// One of three nodes, which has heard nothing yet.
    fn dispatch() -> Dispatch {
        dispatch_of(&MemoryLog::default(), &[1, 2, 3])
    }

    fn dispatch_of(log: &MemoryLog, voters: &[NodeId]) -> Dispatch {
        let group = GroupSettings {
            group: GROUP,
            replica: ReplicaId::new(1, 0),
            voters: voters.iter().map(|&node| ReplicaId::new(node, 0)).collect(),
            home: None,
            election_ticks: Some(10),
            lease: Arc::default(),
            recovered: None,
        };
        let settings = Settings::default();
        let progress = Arc::new(Progress::new(0, &settings));
        let consensus = Consensus::new(settings, vec![group], Arc::new(log.clone()), 0);
        let mut dispatch = Dispatch::new(consensus, ReplicaId::new(1, 0), [(GROUP, progress)]);
        dispatch.take_notices();
        dispatch
    }

    fn commit(dispatch: &mut Dispatch, index: u64, bytes: usize, now: BootTime) {
        let entry = RaftEntry { index, term: 2, data: Bytes::from(vec![0; bytes]), more: false };
        dispatch.notice(Output::Committed { group: GROUP, entries: vec![entry] }, now);
    }

    fn role(dispatch: &mut Dispatch, role: Role) {
        dispatch.notice(Output::Role { group: GROUP, term: 2, role }, 0);
    }

    /// What the shard is told: the entries of each message, and 0 for any other.
    fn told(dispatch: &mut Dispatch) -> Vec<Vec<u64>> {
        let entries = |notice: Notice| match notice {
            Notice::Tell(_, Message::Event(Event::Committed(entries))) => {
                Some(entries.iter().map(|entry| entry.index).collect())
            }
            Notice::Tell(..) => Some(vec![0]),
            _ => None,
        };
        dispatch.take_notices().into_iter().filter_map(entries).collect()
    }

    #[test]
    fn a_follower_is_told_of_many_entries_at_once_and_of_nothing_else_before_them() {
        let (mut dispatch, start) = (dispatch(), FOLLOWER_REST_NS);
        commit(&mut dispatch, 1, 1, start);
        assert_eq!(told(&mut dispatch), [[1]], "it had its rest");
        (2..5).for_each(|index| commit(&mut dispatch, index, 1, start + index));
        dispatch.begin_turn(start + FOLLOWER_REST_NS - 1, true);
        assert!(told(&mut dispatch).is_empty());
        assert_eq!(dispatch.next_wake(), start + FOLLOWER_REST_NS);
        dispatch.begin_turn(start + FOLLOWER_REST_NS, true);
        assert_eq!(told(&mut dispatch), [[2, 3, 4]]);
        commit(&mut dispatch, 5, FOLLOWER_BYTES - 1, start + FOLLOWER_REST_NS);
        assert!(told(&mut dispatch).is_empty());
        commit(&mut dispatch, 6, 1, start + FOLLOWER_REST_NS);
        assert_eq!(told(&mut dispatch), [[5, 6]], "much is not kept back");
        commit(&mut dispatch, 7, 1, start + FOLLOWER_REST_NS);
        dispatch.notice(Output::InstallSnapshot { group: GROUP, index: 20, term: 2 }, start);
        assert_eq!(told(&mut dispatch), [[7], [0]]);
        commit(&mut dispatch, 21, 1, start + FOLLOWER_REST_NS);
        role(&mut dispatch, Role::Leader);
        assert_eq!(told(&mut dispatch), [[21], [0]]);
        commit(&mut dispatch, 22, 1, start + FOLLOWER_REST_NS);
        assert_eq!(told(&mut dispatch), [[22]], "a leader's clients wait for it");
    }

    #[test]
    fn a_follower_with_readers_is_told_sooner() {
        let (mut dispatch, start) = (dispatch(), FOLLOWER_REST_NS);
        let readers = |present| Input::Readers { group: GROUP, present };
        commit(&mut dispatch, 1, 1, start);
        commit(&mut dispatch, 2, 1, start + 1);
        assert_eq!(told(&mut dispatch), [[1]]);
        dispatch.step(readers(true), start + 1);
        dispatch.begin_turn(start + READERS_REST_NS, true);
        assert!(told(&mut dispatch).is_empty());
        dispatch.begin_turn(start + 1 + READERS_REST_NS, true);
        assert_eq!(told(&mut dispatch), [[2]]);
        dispatch.step(readers(false), start + 1 + READERS_REST_NS);
        assert_eq!(dispatch.members[&GROUP].rest_ns, FOLLOWER_REST_NS);
    }

    /// A refused proposal, a hand-over and the loss of the leadership say the same to the shard, each for its own term.
    #[test]
    fn a_leader_that_takes_no_more_proposals_says_so_with_its_term() {
        for output in [
            Output::Retiring { group: GROUP, term: 2 },
            Output::Refused { group: GROUP, term: 2, sequence: 7 },
        ] {
            let mut dispatch = dispatch();
            role(&mut dispatch, Role::Leader);
            dispatch.take_notices();
            dispatch.notice(output, 0);
            let notices = dispatch.take_notices();
            let expected = matches!(
                notices[..],
                [Notice::Follows(GROUP), Notice::Tell(GROUP, Message::Retire { term: 2 })]
            );
            assert!(expected, "{notices:?}");
        }
    }

    #[test]
    fn others_know_of_a_leader_once_it_serves() {
        let mut dispatch = dispatch();
        role(&mut dispatch, Role::Leader);
        let serves = |dispatch: &mut Dispatch| {
            let notices = dispatch.take_notices();
            notices.iter().filter(|notice| matches!(notice, Notice::Serves { shard: GROUP, term: 2 })).count()
        };
        assert_eq!(serves(&mut dispatch), 0);
        commit(&mut dispatch, 1, 0, 0);
        assert_eq!(serves(&mut dispatch), 1);
        commit(&mut dispatch, 2, 0, 0);
        assert_eq!(serves(&mut dispatch), 0, "no news");
    }

    #[test]
    fn a_snapshot_stays_until_the_log_calls_a_newer_one_the_newest_and_the_shard_is_beyond_it() {
        let log = MemoryLog::default();
        let mut dispatch = dispatch_of(&log, &[1]);
        let progress = Arc::clone(&dispatch.members[&GROUP].progress);
        let pruned_at = |now, dispatch: &mut Dispatch| {
            dispatch.begin_turn(now, true);
            while dispatch.has_work() {
                let (_, writes) = dispatch.collect(now);
                log.write(&writes);
                log.sync();
                dispatch.persisted(now);
            }
            dispatch.take_notices().into_iter().find_map(|notice| match notice {
                Notice::Prune(GROUP, index) => Some(index),
                _ => None,
            })
        };
        let elected = Settings::default().tick_ns() * 100;
        (0..=100).for_each(|tick| assert_eq!(pruned_at(tick * elected / 100, &mut dispatch), None));
        let sequence =
            |sequence| Input::Propose { group: GROUP, term: 1, sequence, data: Bytes::from_static(b"x") };
        (1..=8).for_each(|number| dispatch.step(sequence(number), elected));
        assert_eq!(pruned_at(elected, &mut dispatch), None);
        dispatch.members.get_mut(&GROUP).unwrap().newest_snapshot = Some(9);
        let _ = progress.applied(8, 1, false);
        assert_eq!(pruned_at(elected, &mut dispatch), None);
        let _ = progress.applied(9, 1, false);
        assert_eq!(pruned_at(elected, &mut dispatch), Some(9), "though the shard said nothing of it");
        assert_eq!(pruned_at(elected, &mut dispatch), None, "once");
    }
}
