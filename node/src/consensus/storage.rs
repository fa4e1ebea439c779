//! A group's log as Raft sees it: `raft::Storage` over an in-memory tail and a [`LogReader`].
//!
//! The tail holds the newest entries within a budget of bytes: what followers that keep up, and the shard, will ask
//! for next. Older ones are read back. The terms of all entries are in memory ([`TermRuns`]).
//!
//! Raft asks for entries for followers whenever something happens; those of the log are handed out in one place of a
//! turn only (`lead`), as far as the [`Window`] allows.
//!
//! INVARIANT: an entry may leave the tail only once it is durable; `trim` is called after a sync, never before.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::log::{EntryId, LogReader, RecoveredGroup, TermRuns};
use crate::marks;

use super::types::ShardId;
use super::window::Window;

/// See the module.
pub(super) struct GroupStorage {
    group: ShardId,
    reader: Arc<dyn LogReader>,
    /// As of the last `Ready`.
    pub(super) hard_state: HardState,
    /// The newest durable snapshot; index 0: none. Its members are those of its index.
    pub(super) snapshot: SnapshotMetadata,
    /// The entry before the first.
    pub(super) truncated: EntryId,
    last_index: u64,
    terms: TermRuns,
    tail: VecDeque<Entry>, // the last of them is entry `last_index`
    tail_bytes: u64,
    /// Payload of the entries after the snapshot; after a snapshot of our own an estimate.
    pub(super) bytes_after_snapshot: u64,
    /// Raft asked for a snapshot and there was none: someone should take one.
    pub(super) snapshot_wanted: Cell<bool>,
    window: Arc<Window>,
    /// Entries for followers may be taken out of the log now.
    sends: Cell<bool>,
    /// Raft asked for some, and was told to wait.
    unsent: Cell<bool>,
}

impl GroupStorage {
    pub(super) fn new(
        group: ShardId,
        reader: Arc<dyn LogReader>,
        window: Arc<Window>,
        recovered: RecoveredGroup,
    ) -> GroupStorage {
        GroupStorage {
            group,
            reader,
            hard_state: recovered.hard_state,
            snapshot: recovered.snapshot,
            truncated: recovered.truncated,
            last_index: recovered.last_index,
            terms: recovered.terms,
            tail: VecDeque::new(),
            tail_bytes: 0,
            bytes_after_snapshot: recovered.bytes_after_snapshot,
            snapshot_wanted: Cell::new(false),
            window,
            sends: Cell::new(false),
            unsent: Cell::new(false),
        }
    }

    /// What a restart would find.
    pub(super) fn recovered(&self) -> RecoveredGroup {
        RecoveredGroup {
            hard_state: self.hard_state.clone(),
            snapshot: self.snapshot.clone(),
            truncated: self.truncated,
            last_index: self.last_index,
            terms: self.terms.clone(),
            bytes_after_snapshot: self.bytes_after_snapshot,
        }
    }

    /// Whether followers wait for entries of the log.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent.get()
    }

    /// If followers wait for entries of the log, they may be sent some, until [`GroupStorage::end_sending`].
    pub(super) fn begin_sending(&self) -> bool {
        let has_unsent = self.unsent.take();
        self.sends.set(has_unsent);
        has_unsent
    }

    pub(super) fn end_sending(&self) {
        self.sends.set(false);
    }

    pub(super) fn last(&self) -> u64 {
        self.last_index
    }

    /// The term of an entry that is in the log, or of the one before.
    pub(super) fn term_of(&self, index: u64) -> u64 {
        self.terms.term(index)
    }

    /// Entries to be written in this turn. What the log had from the first of them on is replaced.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.truncated.index && first.index <= self.last_index + 1,
            "entries from {} do not fit a log of {}..={}",
            first.index,
            self.truncated.index + 1,
            self.last_index
        );
        if first.index <= self.last_index {
            marks::reached("conflicting entries replaced");
        }
        while self.tail.back().is_some_and(|entry| entry.index >= first.index) {
            let replaced = self.tail.pop_back().expect("there is a last one");
            self.tail_bytes -= replaced.data.len() as u64;
        }
        for entry in entries {
            self.terms.push(EntryId { index: entry.index, term: entry.term });
            let bytes = entry.data.len() as u64;
            self.tail_bytes += bytes;
            self.bytes_after_snapshot += bytes;
            self.tail.push_back(entry.clone());
        }
        self.last_index = entries[entries.len() - 1].index;
    }

    /// The log becomes what a received snapshot left: nothing after it.
    pub(super) fn reset(&mut self, snapshot: &SnapshotMetadata) {
        self.truncated = EntryId { index: snapshot.index, term: snapshot.term };
        self.last_index = snapshot.index;
        self.terms = TermRuns::new(self.truncated);
        self.tail.clear();
        self.tail_bytes = 0;
        self.bytes_after_snapshot = 0;
        self.snapshot = snapshot.clone();
    }

    /// A snapshot of our own at `index` is durable.
    pub(super) fn published(&mut self, index: u64, members: ConfState) -> &SnapshotMetadata {
        let before = self.last_index - self.snapshot.index;
        let after = self.last_index - index;
        // Entries' sizes are not kept one by one: take them for equal.
        self.bytes_after_snapshot =
            (u128::from(self.bytes_after_snapshot) * u128::from(after) / u128::from(before.max(1))) as u64;
        self.snapshot = SnapshotMetadata { index, term: self.term_of(index), ..SnapshotMetadata::default() };
        self.snapshot.set_conf_state(members);
        &self.snapshot
    }

    /// Entries up to `index` are no longer needed.
    pub(super) fn truncate(&mut self, index: u64) -> EntryId {
        self.truncated = EntryId { index, term: self.term_of(index) };
        self.terms.truncate(self.truncated);
        while self.tail.front().is_some_and(|entry| entry.index <= index) {
            self.forget_first();
        }
        self.truncated
    }

    /// Everything is durable: the tail may shrink to its budget.
    pub(super) fn trim(&mut self, bytes_max: u64) {
        while self.tail_bytes > bytes_max {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let entry = self.tail.pop_front().expect("bytes are of entries");
        self.tail_bytes -= entry.data.len() as u64;
    }

    /// Entries `low..high`, the first at least, then as many as fit in `bytes_max`.
    pub(super) fn read(&self, low: u64, high: u64, bytes_max: u64) -> Vec<Entry> {
        let tail_first = self.last_index + 1 - self.tail.len() as u64;
        let mut entries = Vec::new();
        let mut left = bytes_max;
        if low < tail_first {
            marks::reached("entries read back from the disk");
            let stored_high = high.min(tail_first);
            self.reader.read(self.group, low, stored_high, bytes_max, &mut entries);
            if (entries.len() as u64) < stored_high - low {
                return entries;
            }
            let read: u64 = entries.iter().map(|entry| entry.data.len() as u64).sum();
            left = bytes_max.saturating_sub(read);
        }
        let from = low.max(tail_first);
        if from >= high {
            return entries;
        }
        let range = (from - tail_first) as usize..(high - tail_first) as usize;
        for entry in self.tail.range(range) {
            let bytes = entry.data.len() as u64;
            if bytes > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes);
            entries.push(entry.clone());
        }
        entries
    }
}

impl Storage for GroupStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let members = self.snapshot.get_conf_state().clone();
        Ok(RaftState::new(self.hard_state.clone(), members))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last_index + 1, "there is no entry {}", high - 1);
        // Raft can wait only for what it sends to followers.
        let is_sent = context.can_async();
        if is_sent && (!self.sends.get() || self.window.is_spent()) {
            if self.sends.get() {
                marks::reached("follower waited for the next turn");
            }
            self.unsent.set(true);
            return Err(raft::Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        let entries = self.read(low, high, max_size.into().unwrap_or(u64::MAX));
        if is_sent {
            self.window.spend(entries.iter().map(|entry| entry.data.len() as u64).sum());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.truncated.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last_index {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        Ok(self.terms.term(index))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    /// Only the position: the payload is a file that the shell moves.
    ///
    /// A snapshot from before `to` was a member is none for it: it would not find itself there, and refuse it.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let members = self.snapshot.get_conf_state();
        let lists = [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next];
        let knows_receiver = lists.iter().any(|list| list.contains(&to));
        if self.snapshot.index == 0 || self.snapshot.index < request_index || !knows_receiver {
            self.snapshot_wanted.set(true);
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(self.snapshot.clone());
        Ok(snapshot)
    }
}
