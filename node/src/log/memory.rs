//! The log's twin in memory: for simulations and tests.
//!
//! A write is visible to readers at once and durable after [`MemoryLog::sync`]. [`MemoryLog::crash`] leaves what a
//! power cut would: everything synced, and as many of the later writes, in order, as the caller says. A write that
//! the cut tore is not there at all, as in the files, where its checksum does not fit;
//! [`MemoryLog::crash_accepting_torn`] is the mistake to take what is there of it.
//!
//! What a disk loses between a crash and a start ([`MemoryLog::lose`]) is missed by the code that the files are
//! missed by: the log is in files here, too, of a few bytes a write, and a [`Book`] is kept of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use raft::eraftpb::{Entry, HardState, SnapshotMetadata};

use super::ledger::{Book, Found, Kind, Ledger, Loss, Mark, Name};
use super::{EntryId, GroupId, GroupWrite, LogReader, LogWrites, RecoveredGroup, TermRuns};

/// Writes of a file, each of which takes four bytes. The room for them is there from the begin.
const FILE_WRITES: usize = 8;
const FILE_BYTES: u64 = 4 * FILE_WRITES as u64;
/// Older files are given up.
const FILES_MAX: usize = 3;
/// The ledger is told of every so many writes: in the time of as many as fit between, a second passes.
const WRITES_UNTOLD: u64 = 3;

/// What a disk may lose of a log, or have put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// The newest file.
    FileGone,
    /// All that is in it.
    FileEmptied,
    /// The newest file is as it was when it was begun.
    FilePutBack,
    /// The whole log is as it was when the file before the newest was begun.
    LogPutBack,
}

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
    files: Files,
}

/// The files of what is synced.
#[derive(Default)]
struct Files {
    files: VecDeque<MemoryFile>,
    book: Book,
    ledger: Ledger,
    writes: u64,
}

struct MemoryFile {
    number: u64,
    /// What the log held when it was begun.
    before: BTreeMap<GroupId, Stored>,
    bytes: Vec<u8>,
    length: u64,
}

impl MemoryFile {
    const fn name(&self) -> Name {
        (Kind::Append, self.number)
    }
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
        let Disk { synced, unsynced, files, .. } = &mut *disk;
        for writes in unsynced.drain(..) {
            files.write(synced);
            apply(synced, &writes);
        }
        files.keep_ledger();
    }

    /// Forgets a group, durably.
    pub fn remove(&self, group: GroupId) {
        let mut disk = self.disk();
        disk.unsynced.iter_mut().for_each(|writes| writes.groups.retain(|write| write.group != group));
        disk.synced.remove(&group);
        disk.current.remove(&group);
    }

    /// Writes that are not durable yet.
    pub fn unsynced(&self) -> usize {
        self.disk().unsynced.len()
    }

    /// The power goes. Of the unsynced writes the first `kept` had reached the disk by luck, the others are lost.
    pub fn crash(&self, kept: usize) {
        let mut disk = self.disk();
        let Disk { synced, current, unsynced, files } = &mut *disk;
        for writes in unsynced.drain(..).take(kept) {
            files.write(synced);
            apply(synced, &writes);
        }
        *current = synced.clone();
    }

    /// While the node is down, its disk loses something. Whether there was such a thing.
    pub fn lose(&self, harm: Harm) -> bool {
        let mut disk = self.disk();
        assert!(disk.unsynced.is_empty(), "after the crash");
        let Some(before) = disk.files.lose(harm) else { return false };
        (disk.synced, disk.current) = (before.clone(), before);
        true
    }

    /// What is missing at a start, if anything is.
    pub fn missing(&self) -> Option<Loss> {
        self.disk().files.missing()
    }

    /// What is there at a start is the log from now on.
    pub fn take_for_good(&self) {
        self.disk().files.take_for_good();
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

impl Files {
    /// A write is on the disk; `before`: what the log held before it.
    fn write(&mut self, before: &BTreeMap<GroupId, Stored>) {
        if self.files.back().is_none_or(|file| file.bytes.len() as u64 >= FILE_BYTES) {
            self.begin_file(before);
        }
        self.writes += 1;
        let bytes = crc32fast::hash(&self.writes.to_le_bytes()).to_le_bytes();
        let file = self.files.back_mut().expect("one was begun");
        file.bytes.extend(bytes);
        self.book.wrote(file.name(), bytes.len() as u64, [&bytes, &[]]);
        self.book.synced(file.name());
    }

    fn begin_file(&mut self, before: &BTreeMap<GroupId, Stored>) {
        let number = self.files.back().map_or(1, |file| file.number + 1);
        let file = MemoryFile { number, before: before.clone(), bytes: Vec::new(), length: FILE_BYTES };
        self.book.begin(file.name(), file.length);
        self.files.push_back(file);
        if self.files.len() > FILES_MAX {
            let oldest = self.files.pop_front().expect("there are more than one");
            if self.book.drop_through(oldest.name()) {
                self.tell();
            }
        }
    }

    /// As the log on disk does before a write is acknowledged, and every second.
    fn keep_ledger(&mut self) {
        if self.book.lags() || self.writes.is_multiple_of(WRITES_UNTOLD) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if let Some(news) = self.book.news() {
            self.ledger.clone_from(news);
            self.book.told();
        }
    }

    /// Returns what the log still holds.
    fn lose(&mut self, harm: Harm) -> Option<BTreeMap<GroupId, Stored>> {
        let newest = self.files.back_mut()?;
        let mut before = newest.before.clone();
        match harm {
            Harm::FileGone => drop(self.files.pop_back()),
            Harm::FileEmptied => (newest.bytes, newest.length) = (Vec::new(), 0),
            // What the ledger does not know yet cannot be missed.
            Harm::FilePutBack if self.ledger.mark(newest.name()).is_none_or(|mark| mark.synced == 0) => {
                return None;
            }
            Harm::FilePutBack => newest.bytes.clear(),
            Harm::LogPutBack => {
                if self.files.len() < 2 {
                    return None;
                }
                self.files.pop_back();
                let newest = self.files.back_mut()?;
                newest.bytes.clear();
                before.clone_from(&newest.before);
            }
        }
        Some(before)
    }

    fn missing(&self) -> Option<Loss> {
        let found = |name: Name, mark: &Mark| {
            let file = self.files.iter().find(|file| file.name() == name)?;
            let synced = (mark.synced as usize).min(file.bytes.len());
            let (whole, checksum) = (file.bytes.len() as u64, crc32fast::hash(&file.bytes[..synced]));
            Some(Found { length: file.length, whole, checksum: Some(checksum) })
        };
        self.ledger.marks().find_map(|(name, mark)| mark.loss(found(name, mark)))
    }

    fn take_for_good(&mut self) {
        let mut found = Ledger::default();
        for file in &mut self.files {
            let (synced, checksum) = (file.bytes.len() as u64, crc32fast::hash(&file.bytes));
            file.length = FILE_BYTES; // what it lacks is written ahead again
            found.set(file.name(), Mark { length: file.length, synced, checksum });
        }
        self.book = Book::new(found);
        self.tell();
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
