//! The durable Raft log of a node: one log for all groups, one fsync for everything a turn has to write.
//!
//! [`Log`] keeps it in `raft-engine` files, [`MemoryLog`] is its twin for simulations and tests: it tells synced
//! from unsynced writes, so that a simulated crash loses what a real one would lose. Both take [`LogWrites`] and
//! are read through a [`LogReader`]; [`RecoveredGroup`] is what a group finds after a restart.
//!
//! The vocabulary is raft's own (`Entry`, `HardState`, `SnapshotMetadata`): the log gives back exactly what Raft
//! asked it to keep.
//!
//! INVARIANT: a [`LogWrites`] is durable as a whole or not at all: a snapshot's position, the entries it replaces
//! and the vote of that turn cannot part.
//!
//! INVARIANT: nothing is ever written without a sync. So at most one batch, the last, can be torn by a crash, and
//! anything else that does not check out is damage, not a crash: it stops the start ([`DamageError`]). What is not
//! there at all, though it was, does so, too ([`LossError`]): a small file, the ledger, tells what there was.
//!
//! Left out: the snapshots themselves. The log knows only their position; a position may be written once the
//! snapshot's file is durable.

mod engine;
mod failure;
mod files;
mod identity;
mod inspect;
mod ledger;
mod ledger_file;
mod memory;
mod newer;
mod terms;
#[cfg(test)]
mod tests;

use raft::eraftpb::{Entry, HardState, SnapshotMetadata};

pub use engine::{Log, LogSettings, OpenError};
pub use failure::{Fatal, cannot_go_on, disk_failed, entries_lost, lacks_descriptors, said};
pub use identity::{Identity, IdentityError, read as read_identity};
pub use inspect::{DamageError, LossError};
pub use ledger::Loss;
pub use memory::{Harm, MemoryLog};
pub use newer::newer_entry;
pub use terms::TermRuns;

/// Which group; the same number as its shard. One is reserved, see [`RESERVED_GROUP`].
pub type GroupId = moonraft_router::ShardId;

/// No shard has this number: the log keeps a record of its own under it, that it has a ledger.
pub const RESERVED_GROUP: GroupId = GroupId::MAX;

/// The place of an entry in a log. Index 0 means none: before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    /// Position, from 1.
    pub index: u64,
    /// The term in which a leader put it there.
    pub term: u64,
}

/// What one group has to make durable in one turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupWrite {
    /// The group.
    pub group: GroupId,
    /// Term, vote and commit index, if term or vote changed or there is anything else to write.
    pub hard_state: Option<HardState>,
    /// A snapshot of this position is durable on this node (index 0: the members of a brand-new group).
    pub snapshot: Option<SnapshotMetadata>,
    /// `snapshot` came from the leader and replaces the whole log: every entry goes, the log begins after it.
    pub reset: bool,
    /// Entries up to and including this one are no longer needed. Applied after `entries`.
    pub truncate: Option<EntryId>,
    /// Consecutive entries. Those the log has from the first of them on are replaced.
    pub entries: Vec<Entry>,
}

impl GroupWrite {
    /// A write of `group` with nothing in it.
    pub fn new(group: GroupId) -> GroupWrite {
        GroupWrite { group, ..GroupWrite::default() }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.hard_state.is_none()
            && self.snapshot.is_none()
            && self.truncate.is_none()
            && self.entries.is_empty()
    }
}

/// What all groups of a node have to make durable in one turn: one batch, one fsync.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogWrites {
    /// At most one a group.
    pub groups: Vec<GroupWrite>,
}

impl LogWrites {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// What the log holds of one group at a start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveredGroup {
    /// Term, vote and a commit index: at least the snapshot's, at most the last entry's. It may be older than what
    /// was committed: it is written along with other things, never for its own sake.
    pub hard_state: HardState,
    /// The newest snapshot, with the members at its index. Index 0: none yet, only the members.
    pub snapshot: SnapshotMetadata,
    /// The entry before the first. At most the snapshot's.
    pub truncated: EntryId,
    /// The last entry, or `truncated` if there is none.
    pub last_index: u64,
    /// The terms of `truncated` and all entries.
    pub terms: TermRuns,
    /// Payload bytes of the entries after the snapshot.
    pub bytes_after_snapshot: u64,
}

impl RecoveredGroup {
    /// Whether this replica may have promised something: a brand-new group has no term and no log.
    pub fn has_begun(&self) -> bool {
        self.hard_state.term > 0 || self.last_index > 0 || self.snapshot.index > 0
    }
}

/// Reads entries back that are no longer in memory. What cannot be read stops the node: the group has other
/// replicas, and a guess would part them.
pub trait LogReader: Send + Sync {
    /// Appends entries `low..high` of `group` to `entries`: the first at least, then as many as fit in `bytes_max`
    /// payload bytes. All of them are in the log.
    fn read(&self, group: GroupId, low: u64, high: u64, bytes_max: u64, entries: &mut Vec<Entry>);
}
