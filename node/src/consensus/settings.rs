//! The numbers consensus works with.

use std::sync::Arc;

use moonraft_proto::entry::HEADER_BYTES;

use crate::log::RecoveredGroup;

use super::lease::LeaseCell;
use super::types::{NodeId, ReplicaId, ShardId};

/// Numbers for all groups of a node. They must be the same on all nodes: a lease relies on its followers' timeout.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between two ticks.
    pub tick_ms: u64,
    /// A follower that hears nothing for this many ticks may seek votes, and may grant them.
    pub election_ticks_min: u32,
    /// A follower that hears nothing for this many ticks has sought votes.
    pub election_ticks_max: u32,
    /// Ticks between two heartbeats of an idle leader.
    pub heartbeat_ticks: u32,
    /// How much faster one node's clock may run than another's, in percent: two clocks each off by 5 % are within
    /// 10.
    pub lease_drift_percent: u64,
    /// A larger proposal is refused.
    pub entry_bytes_max: u64,
    /// Entries of one append message: more only if they were proposed or read in one turn. A larger proposal becomes
    /// several entries of this size: see `parts`.
    pub message_bytes_max: u64,
    /// What all groups of the node together append, send to followers that lag, and read back for shards in one
    /// turn; and what they take from peers. See `window`.
    pub turn_bytes_max: u64,
    /// Append messages on their way to one follower.
    pub inflight_max: usize,
    /// Proposed and not yet committed: proposals above are refused, so shards must stay below.
    pub uncommitted_bytes_max: u64,
    /// Handed to a shard and not yet applied. Further entries wait in the log.
    pub unapplied_bytes_max: u64,
    /// Newest entries of one group kept in memory, for followers that are a little behind.
    pub cache_bytes_max: u64,
    /// A group's log since its last snapshot, before it asks for the next; with a snapshot that is larger,
    /// as much as that. See `compact`.
    pub log_bytes_max: u64,
    /// The same in entries: they cost a restart even if they are small.
    pub log_entries_max: u64,
    /// Entries before a snapshot that are kept for a follower that is alive and behind.
    pub slack_entries_max: u64,
    /// For tests of the tests only.
    pub fault: PlantedFault,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            tick_ms: 50,
            election_ticks_min: 10, // 0.5 s without a leader at least, 1 s at most: clients retry for 1 s or longer
            election_ticks_max: 20,
            heartbeat_ticks: 2,      // four can be lost before an election
            lease_drift_percent: 10, // quartz is off by 0.01 %; a badly virtualised clock by a few percent
            entry_bytes_max: 64 << 20,
            message_bytes_max: 256 << 10, // with `inflight_max`, what a follower that lags has before it in all: 16 MiB
            turn_bytes_max: 4 << 20,      // at 20 MB/s, written in half of the shortest election timeout
            inflight_max: 64,
            uncommitted_bytes_max: 256 << 20, // four of the largest entries
            unapplied_bytes_max: 16 << 20,
            cache_bytes_max: 8 << 20,
            log_bytes_max: 64 << 20, // replayed in well under a second
            log_entries_max: 1_000_000,
            slack_entries_max: 10_000, // entries are batches: a second or more under load
            fault: PlantedFault::None,
        }
    }
}

impl Settings {
    /// Panics on numbers that cannot work together; they come from the code, not from a user.
    pub(super) fn check(&self) {
        assert!(self.tick_ms > 0 && self.heartbeat_ticks > 0);
        assert!(self.heartbeat_ticks < self.election_ticks_min);
        assert!(self.election_ticks_min < self.election_ticks_max);
        assert!(self.lease_drift_percent < 100);
        assert!(self.uncommitted_bytes_max >= self.message_bytes_max.max(self.entry_bytes_max));
    }

    /// Bytes of a part of a proposal that is not one entry. The first holds all of a batch's head: it is all that the
    /// shard that sealed it looks at.
    pub(super) fn part_bytes(&self) -> usize {
        usize::try_from(self.message_bytes_max).unwrap_or(usize::MAX).max(HEADER_BYTES)
    }

    /// Nanoseconds between two ticks.
    pub fn tick_ns(&self) -> u64 {
        self.tick_ms * 1_000_000
    }

    /// How long a follower that heard its leader does not help another, on its own clock.
    pub fn vote_guard_ns(&self) -> u64 {
        u64::from(self.election_ticks_min) * self.tick_ns()
    }

    /// How long a lease lasts from S, on the leader's clock; see `lease`.
    pub(super) fn lease_ns(&self) -> u64 {
        match self.fault {
            PlantedFault::LeaseWithoutMargin => u64::from(self.election_ticks_max) * self.tick_ns(),
            _ => {
                let ticks = u64::from(self.election_ticks_min) - 1;
                ticks * self.tick_ns() / 100 * (100 - self.lease_drift_percent)
            }
        }
    }
}

/// A mistake built in on purpose: a simulation that does not find it is no good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlantedFault {
    /// None.
    #[default]
    None,
    /// The lease counts from the arrival of the answers and lasts the longest election timeout, no margin.
    LeaseWithoutMargin,
    /// A node that just started grants votes as if it had heard from no leader before.
    VoteAfterRestart,
    /// A leader that hands over keeps its lease.
    LeaseKeptInTransfer,
}

/// One group of a node.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// The group.
    pub group: ShardId,
    /// This node's member of it.
    pub replica: ReplicaId,
    /// The voters the group began with, before its first entry: also of a replica that joins later, as it may
    /// be sent the log from there. A group with a log knows its members itself.
    pub voters: Vec<ReplicaId>,
    /// The node that leads when all are well.
    pub home: Option<NodeId>,
    /// The election timeout of this replica, if it shall not be drawn anew by each election from the range in the
    /// settings. Simulations must set it, from their seed: the draw is not theirs.
    pub election_ticks: Option<u32>,
    /// Where the lease is published: the shard may have it before the group begins.
    pub lease: Arc<LeaseCell>,
    /// What the log holds of it; `None` for a brand-new group.
    pub recovered: Option<RecoveredGroup>,
}
