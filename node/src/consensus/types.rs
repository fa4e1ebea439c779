//! What goes in and out of [`Consensus`](super::Consensus).

use std::fmt;

use bytes::Bytes;
use raft::eraftpb::ConfState;

use crate::log::LogWrites;

/// The name of a shard, and of its Raft group.
pub use moonraft_router::ShardId;

/// The number of a node in the cluster, from 1. It fits 32 bits.
pub type NodeId = u64;

/// A reading of CLOCK_BOOTTIME in nanoseconds: monotonic, goes on while the machine sleeps. The only clock here.
pub type BootTime = u64;

/// A member of a group: a node in one life of its disk. Never used again once that disk is lost, because the next
/// life does not know what this one promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// The replica of `node` (1 to 2^32 - 1) in life `incarnation` of its disk, 0 being the first.
    pub fn new(node: NodeId, incarnation: u32) -> ReplicaId {
        assert!(node > 0 && node <= u64::from(u32::MAX), "no such node: {node}");
        ReplicaId(u64::from(incarnation) << 32 | node)
    }

    /// The node it is on.
    pub fn node(self) -> NodeId {
        self.0 & u64::from(u32::MAX)
    }

    /// Which life of the node's disk it is of.
    pub fn incarnation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.node(), self.incarnation())
    }
}

/// A message from a replica to another of the same group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMessage {
    /// The group.
    pub group: ShardId,
    /// Who sends.
    pub from: ReplicaId,
    /// Who is to receive.
    pub to: ReplicaId,
    /// Of a leader's appends, heartbeats and snapshots: its clock just before it sent them. 0 for the rest.
    pub stamp: BootTime,
    /// Of answers to the leader of the term: the largest `stamp` the sender took from it in this term. 0 for the
    /// rest. The leader's lease counts from it.
    pub echo: BootTime,
    /// Of what is stamped, if the leader serves: a moment that the shard's time had reached when it was sent, Unix
    /// nanoseconds. 0 if it tells none.
    pub time: u64,
    /// Of answers: clients read at the sender, which wants to hear of commits at once.
    pub reads: bool,
    /// A Raft message (`eraftpb.Message`, protobuf).
    pub data: Bytes,
}

/// What a replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads. Execute only once an entry of this term has been applied.
    Leader,
    /// It follows.
    Follower {
        /// Whom, if it knows.
        leader: Option<ReplicaId>,
    },
    /// It seeks votes.
    Candidate,
}

/// What happens to a node's groups.
#[derive(Clone, Debug)]
pub enum Input {
    /// Appends `data` to the group's log if this replica leads it in exactly this term; otherwise
    /// [`Output::Refused`]. Once one proposal of a term is refused, so are all later ones of that term: they would
    /// build on what is not there.
    Propose {
        /// The group.
        group: ShardId,
        /// The term in which the data was made.
        term: u64,
        /// The shard's own number for it.
        sequence: u64,
        /// Opaque, not empty (an empty entry is Raft's own).
        data: Bytes,
    },
    /// Makes sure that this replica still leads: one heartbeat round for all reads of a turn. Ends in
    /// [`Output::RoundConfirmed`] or [`Output::RoundRefused`].
    ReadRound {
        /// The group.
        group: ShardId,
        /// The term in which the reads were executed.
        term: u64,
        /// The shard's own number for it.
        round: u64,
    },
    /// Tells [`Output::Followers`] from now on while this replica leads, or no more.
    WatchFollowers {
        /// The group.
        group: ShardId,
        /// Whether to tell.
        watched: bool,
    },
    /// Clients read at this replica while it follows, or do so no more: it is told of commits at once, or with what
    /// comes next.
    Readers {
        /// The group.
        group: ShardId,
        /// Whether there are any.
        present: bool,
    },
    /// From a peer. A snapshot is only taken as [`Input::SnapshotReceived`].
    Message(PeerMessage),
    /// Time may have passed: see [`Consensus::next_tick`](super::Consensus::next_tick). Ticks that come earlier
    /// than the settings' `tick_ms` after the last are ignored, so a driver may send too many but never too few.
    Tick,
    /// Hands the leadership of a group over. The leader refuses proposals from here on ([`Output::Retiring`]).
    Transfer {
        /// The group.
        group: ShardId,
        /// To whom; `None`: the follower that has most of the log.
        to: Option<NodeId>,
    },
    /// Hands over every group this node leads, and leads none again: the node stops.
    TransferAll,
    /// The shard has applied the group's log up to here.
    Applied {
        /// The group.
        group: ShardId,
        /// The last entry applied.
        index: u64,
    },
    /// The shard's snapshot at `index`, an applied entry, is durable on this node: the log before it may go.
    SnapshotPublished {
        /// The group.
        group: ShardId,
        /// The last entry in the snapshot.
        index: u64,
        /// Bytes of its file.
        bytes: u64,
    },
    /// A leader's snapshot message whose payload is complete and **durable** on this node, under the index and term
    /// that [`snapshot_position`](super::snapshot_position) reads from it.
    SnapshotReceived(PeerMessage),
    /// The transfer begun by [`Output::SendSnapshot`] ended.
    SnapshotSent {
        /// The group.
        group: ShardId,
        /// To whom.
        to: ReplicaId,
        /// Whether the receiver has it all and got the message.
        success: bool,
    },
    /// Messages to this node could not be delivered.
    Unreachable {
        /// The node.
        node: NodeId,
    },
    /// The log holds too much for this group (`Log::purge` says so): a snapshot would free it.
    CompactWanted {
        /// The group.
        group: ShardId,
    },
    /// `replica`, of a node whose disk is new, wants to be a member in the place of what that node was before. Asked
    /// again and again, of all nodes, until it votes: see `join`.
    JoinWanted {
        /// The group.
        group: ShardId,
        /// Who wants to join.
        replica: ReplicaId,
    },
    /// A node, this one or another, is fit to lead, or is not: its disk is nearly full or slow. All are at first.
    Fitness {
        /// The node.
        node: NodeId,
        /// Whether it is.
        fit: bool,
    },
    /// A node, this one or another, reads batches of this format, and would agree on it. Said again and again: see
    /// `formats`.
    Agrees {
        /// The node.
        node: NodeId,
        /// The newest such format; see [`moonraft_proto::entry`].
        format: u8,
    },
    /// The shard's snapshot could not be written. It is asked for again after a while.
    SnapshotFailed {
        /// The group.
        group: ShardId,
    },
    /// Proposes the group's members: voters, the others are learners. Refused like a proposal. Joint consensus; the
    /// joint configuration is left by itself. Catch a learner up before it is made a voter.
    ChangeMembers {
        /// The group.
        group: ShardId,
        /// The term in which the change was decided.
        term: u64,
        /// The shard's own number for it.
        sequence: u64,
        /// Who votes. Not empty.
        voters: Vec<ReplicaId>,
        /// Who only receives the log.
        learners: Vec<ReplicaId>,
    },
}

/// An entry that a majority has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedEntry {
    /// Its place in the log. Without gaps.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// What was proposed. Empty: an entry of Raft's own (a leader's first, or a change of members), or a part that
    /// came to nothing.
    pub data: Bytes,
    /// A part of what was proposed: more follows in the next entry with data of this term, which is in the same output;
    /// in a later one, if the next entry is the end of a change of members.
    pub more: bool,
}

/// What the groups tell their shards, and the shell that moves snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The replica's role or term is another. A `Leader` of a new term right after one of an older means that the
    /// leadership was lost in between.
    Role {
        /// The group.
        group: ShardId,
        /// The term.
        term: u64,
        /// The role in it.
        role: Role,
    },
    /// The leader of `term` hands its leadership over, or has refused a proposal: it takes none any more in this
    /// term and has no lease. A [`Output::Role`] of a higher term follows.
    Retiring {
        /// The group.
        group: ShardId,
        /// The term that ends.
        term: u64,
    },
    /// Entries to apply, in order, each exactly once in a life of the process: from the snapshot the shard started
    /// from, or was last told to install, without gaps.
    Committed {
        /// The group.
        group: ShardId,
        /// Not empty.
        entries: Vec<CommittedEntry>,
    },
    /// A proposal that is not in the log and never will be, and with it all later ones of its term.
    Refused {
        /// The group.
        group: ShardId,
        /// As proposed.
        term: u64,
        /// As proposed.
        sequence: u64,
    },
    /// No other replica led when the round was asked for.
    RoundConfirmed {
        /// The group.
        group: ShardId,
        /// As asked.
        term: u64,
        /// As asked.
        round: u64,
        /// The reads see everything acknowledged if everything up to here is applied.
        index: u64,
    },
    /// The replica does not lead in that term any more.
    RoundRefused {
        /// The group.
        group: ShardId,
        /// As asked.
        term: u64,
        /// As asked.
        round: u64,
    },
    /// Someone needs a snapshot: the log has grown long, or a replica lags behind it.
    TakeSnapshot {
        /// The group.
        group: ShardId,
    },
    /// Move the snapshot at (`index`, `term`) to `to`, then hand `message` over there as
    /// [`Input::SnapshotReceived`], and tell the end by [`Input::SnapshotSent`].
    SendSnapshot {
        /// The group.
        group: ShardId,
        /// To whom.
        to: ReplicaId,
        /// The snapshot.
        index: u64,
        /// The snapshot.
        term: u64,
        /// Raft's part.
        message: PeerMessage,
    },
    /// The log now begins at the received snapshot: the shard's state is to become that of its file.
    InstallSnapshot {
        /// The group.
        group: ShardId,
        /// The snapshot.
        index: u64,
        /// The snapshot.
        term: u64,
    },
    /// What the other members are known to have on their disks has changed.
    Followers {
        /// The group.
        group: ShardId,
        /// The term that this replica leads.
        term: u64,
        /// The last entry that each of them has.
        matched: Vec<u64>,
    },
    /// What all members of the group would agree on: the newest format of batches. Told after the role.
    Readable {
        /// The group.
        group: ShardId,
        /// The term that this replica leads.
        term: u64,
        /// The format; see [`moonraft_proto::entry`].
        format: u8,
    },
    /// The members of the group changed, as of the entry or the received snapshot at `index`.
    Members {
        /// The group.
        group: ShardId,
        /// Where.
        index: u64,
        /// Who is a member.
        members: Members,
    },
}

impl Output {
    /// The group that says so.
    pub const fn group(&self) -> ShardId {
        match self {
            Output::Role { group, .. }
            | Output::Retiring { group, .. }
            | Output::Committed { group, .. }
            | Output::Refused { group, .. }
            | Output::RoundConfirmed { group, .. }
            | Output::RoundRefused { group, .. }
            | Output::TakeSnapshot { group }
            | Output::SendSnapshot { group, .. }
            | Output::InstallSnapshot { group, .. }
            | Output::Followers { group, .. }
            | Output::Readable { group, .. }
            | Output::Members { group, .. } => *group,
        }
    }
}

/// Who belongs to a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Who votes.
    pub voters: Vec<ReplicaId>,
    /// Who voted before a change that is under way, and still does until it is done; else empty.
    pub outgoing: Vec<ReplicaId>,
    /// Who receives the log only.
    pub learners: Vec<ReplicaId>,
}

impl Members {
    /// Whether `replica` votes.
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica)
    }

    pub(super) fn from_raft(conf: &ConfState) -> Members {
        let list = |ids: &[u64]| {
            let mut list: Vec<ReplicaId> = ids.iter().map(|id| ReplicaId(*id)).collect();
            list.sort_unstable();
            list
        };
        Members {
            voters: list(&conf.voters),
            outgoing: list(&conf.voters_outgoing),
            learners: list(&conf.learners),
        }
    }
}

/// What a replica knows of the group's past, for a node that has none: see `control::birth`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recollection {
    /// This replica has promised something: it has a term or a log.
    pub begun: bool,
    /// It votes, as far as it has applied its log: so it has everything that was committed before it began to.
    pub voter: bool,
    /// The highest incarnation of the node that asks in any configuration in this replica's log, committed or not.
    pub incarnation: u32,
}

/// What is to be done after inputs were stepped: send, write, tell, in this order.
#[derive(Debug, Default)]
pub struct Work {
    /// To be sent at once. Of [`Consensus::collect`](super::Consensus::collect): before the writes are durable, so
    /// that the followers sync while this node does.
    pub messages: Vec<PeerMessage>,
    /// To be made durable before [`Consensus::persisted`](super::Consensus::persisted) is called.
    pub writes: LogWrites,
    /// To the shards and the shell, in order.
    pub outputs: Vec<Output>,
}

impl Work {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.writes.is_empty() && self.outputs.is_empty()
    }
}

/// Where a group stands on this node: for status pages, metrics and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The term.
    pub term: u64,
    /// The role in it.
    pub role: Role,
    /// The first entry still in the log.
    pub first: u64,
    /// The last entry, durable or not.
    pub last: u64,
    /// The last entry known to be committed.
    pub committed: u64,
    /// The last entry the shard has applied.
    pub applied: u64,
    /// The last entry in the newest snapshot; 0 if there is none.
    pub snapshot: u64,
    /// Who is a member.
    pub members: Members,
    /// Since which entry.
    pub members_since: u64,
    /// Of a leader: the last entry each other member is known to have.
    pub matched: Vec<(ReplicaId, u64)>,
}
