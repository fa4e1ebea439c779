//! The log's twin in memory: for simulations and tests.
//!
//! A write is visible to readers at once and durable after [`MemoryLog::sync`]. [`MemoryLog::crash`] leaves what a
//! power cut would: everything synced, and as many of the later writes, in order, as the caller says. A write that
//! the cut tore is not there at all, as in the files, where its checksum does not fit;
//! [`MemoryLog::crash_accepting_torn`] is the mistake to take what is there of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use raft::eraftpb::{Entry, HardState, SnapshotMetadata};

use super::{EntryId, GroupId, GroupWrite, LogReader, LogWrites, RecoveredGroup, TermRuns};

/// A log that lives in memory. Clones share it, as a node and its disk do.
#[derive(Clone, Default)]
pub struct MemoryLog {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    synced: BTreeMap<GroupId, Stored>,
    current: BTreeMap<GroupId, Stored>,
    unsynced: Vec<LogWrites>,
}

#[derive(Clone, Default)]
struct Stored {
    hard_state: HardState,
    snapshot: SnapshotMetadata,
    truncated: EntryId,
    entries: Vec<Entry>, // entries[i] has index truncated.index + 1 + i
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> MemoryLog {
        MemoryLog::default()
    }

    /// Takes the writes; they are not durable yet.
    pub fn write(&self, writes: &LogWrites) {
        let mut disk = self.disk();
        apply(&mut disk.current, writes);
        disk.unsynced.push(writes.clone());
    }

    /// Everything written so far survives a crash.
    pub fn sync(&self) {
        let mut disk = self.disk();
        let Disk { synced, unsynced, .. } = &mut *disk;
        for writes in unsynced.drain(..) {
            apply(synced, &writes);
        }
    }

    /// Writes that are not durable yet.
    pub fn unsynced(&self) -> usize {
        self.disk().unsynced.len()
    }

    /// The power goes. Of the unsynced writes the first `kept` had reached the disk by luck, the others are lost.
    pub fn crash(&self, kept: usize) {
        let mut disk = self.disk();
        let Disk { synced, current, unsynced } = &mut *disk;
        for writes in unsynced.drain(..).take(kept) {
            apply(synced, &writes);
        }
        *current = synced.clone();
    }

    /// For tests of tests only. Of the first unsynced write, `entries` entries of each group had reached the disk, the
    /// last by half, but not the term and vote that were written after them; they are taken for good.
    pub fn crash_accepting_torn(&self, entries: usize) {
        let mut disk = self.disk();
        if let Some(writes) = disk.unsynced.first_mut() {
            for write in &mut writes.groups {
                write.entries.truncate(entries);
                write.hard_state = None;
                if let Some(torn) = write.entries.last_mut() {
                    torn.data.truncate(torn.data.len() / 2);
                }
            }
        }
        drop(disk);
        self.crash(1);
    }

    /// The commit index that a group would find after a crash, at least.
    pub fn synced_commit(&self, group: GroupId) -> u64 {
        self.disk().synced.get(&group).map_or(0, |stored| stored.recover().hard_state.commit)
    }

    /// What every group finds after a restart.
    pub fn recover(&self) -> BTreeMap<GroupId, RecoveredGroup> {
        let disk = self.disk();
        let groups = disk.current.iter();
        groups.map(|(group, stored)| (*group, stored.recover())).collect()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no thread panics holding it")
    }
}

impl LogReader for MemoryLog {
    fn read(&self, group: GroupId, low: u64, high: u64, bytes_max: u64, entries: &mut Vec<Entry>) {
        let disk = self.disk();
        let stored = &disk.current[&group];
        let first = stored.truncated.index + 1;
        assert!(low >= first && high <= first + stored.entries.len() as u64);
        let mut bytes = 0;
        for entry in &stored.entries[(low - first) as usize..(high - first) as usize] {
            bytes += entry.data.len() as u64;
            if bytes > bytes_max && entry.index > low {
                break;
            }
            entries.push(entry.clone());
        }
    }
}

fn apply(groups: &mut BTreeMap<GroupId, Stored>, writes: &LogWrites) {
    for write in &writes.groups {
        groups.entry(write.group).or_default().apply(write);
    }
}

impl Stored {
    fn apply(&mut self, write: &GroupWrite) {
        if let Some(hard_state) = &write.hard_state {
            self.hard_state = hard_state.clone();
        }
        if let Some(snapshot) = &write.snapshot {
            self.snapshot = snapshot.clone();
            if write.reset {
                self.entries.clear();
                self.truncated = EntryId { index: snapshot.index, term: snapshot.term };
            }
        }
        if let Some(first) = write.entries.first() {
            let kept = first.index - self.truncated.index - 1;
            assert!(kept <= self.entries.len() as u64, "the log would have a hole");
            self.entries.truncate(kept as usize);
            self.entries.extend_from_slice(&write.entries);
        }
        if let Some(truncate) = write.truncate {
            let gone = truncate.index - self.truncated.index;
            self.entries.drain(..gone as usize);
            self.truncated = truncate;
        }
    }

    fn recover(&self) -> RecoveredGroup {
        let mut terms = TermRuns::new(self.truncated);
        let mut bytes_after_snapshot = 0;
        for entry in &self.entries {
            terms.push(EntryId { index: entry.index, term: entry.term });
            if entry.index > self.snapshot.index {
                bytes_after_snapshot += entry.data.len() as u64;
            }
        }
        let mut hard_state = self.hard_state.clone();
        hard_state.commit = hard_state.commit.max(self.snapshot.index);
        RecoveredGroup {
            hard_state,
            snapshot: self.snapshot.clone(),
            truncated: self.truncated,
            last_index: self.truncated.index + self.entries.len() as u64,
            terms,
            bytes_after_snapshot,
        }
    }
}
