//! The disk of a node: what is there after a crash, and what it does instead of writing.

use std::collections::BTreeMap;

use bytes::Bytes;
use moonraft::log::{Harm, Loss, MemoryLog};
use rand::{RngExt, rngs::StdRng};

use crate::marks::mark;

/// Bytes that are free where there is room; `min-free-disk`.
pub const PLENTY_BYTES: u64 = 100_000;
/// See there.
pub const FREE_BYTES_MIN: u64 = 1000;

/// A snapshot file.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    /// The last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Its chunks.
    pub chunks: Vec<Bytes>,
}

impl SnapshotFile {
    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        self.chunks.concat()
    }
}

/// A file that is being received.
#[derive(Clone, Debug)]
pub struct Part {
    /// The last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The bytes that are here.
    pub data: Vec<u8>,
}

/// A disk.
pub struct Disk {
    /// Which life of the node's disk it is, once that is decided.
    pub identity: Option<u32>,
    /// The log of all groups.
    pub log: MemoryLog,
    /// Snapshot files by group.
    snapshots: BTreeMap<u32, Vec<SnapshotFile>>,
    /// Files that are being received, by group.
    pub parts: BTreeMap<u32, Part>,
    /// It has lost something since its node was up.
    pub harmed: bool,
    /// The next write fails.
    pub broken: bool,
    /// There is no space for the log before this true time.
    pub full_until: u64,
    /// There is none for snapshots: the log's room is there before it is needed.
    pub files_full_until: u64,
    /// Nothing is synced before this true time.
    pub hung_until: u64,
    /// So much is free, as the system says.
    pub free_bytes: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            identity: None,
            log: MemoryLog::default(),
            snapshots: BTreeMap::new(),
            parts: BTreeMap::new(),
            harmed: false,
            broken: false,
            full_until: 0,
            files_full_until: 0,
            hung_until: 0,
            free_bytes: PLENTY_BYTES,
        }
    }
}

impl Disk {
    /// A snapshot file.
    pub fn snapshot(&self, group: u32, index: u64) -> Option<&SnapshotFile> {
        self.snapshots.get(&group)?.iter().find(|file| file.index == index)
    }

    /// A snapshot file is durable.
    pub fn keep_snapshot(&mut self, group: u32, file: SnapshotFile) {
        let files = self.snapshots.entry(group).or_default();
        files.retain(|other| other.index != file.index);
        files.push(file);
    }

    /// The log durably calls the snapshot at `index` the newest: older files go.
    pub fn prune(&mut self, group: u32, index: u64) {
        if let Some(files) = self.snapshots.get_mut(&group) {
            files.retain(|file| file.index >= index);
        }
        if self.parts.get(&group).is_some_and(|part| part.index < index) {
            self.parts.remove(&group);
        }
    }

    /// A chunk of a snapshot was received. Whether it is the one that was awaited.
    pub fn receive(&mut self, group: u32, file: &SnapshotFile, offset: usize, bytes: usize) -> bool {
        if self.has(group, file) {
            return true;
        }
        let new = || Part { index: file.index, term: file.term, data: Vec::new() };
        let part = self.parts.entry(group).or_insert_with(new);
        if (part.index, part.term) != (file.index, file.term) {
            *part = new();
        }
        if part.data.len() != offset {
            return false;
        }
        part.data.extend_from_slice(&file.bytes()[offset..offset + bytes]);
        true
    }

    /// How much is here of a file that is being received: all of it, if it came whole before.
    pub fn received(&self, group: u32, file: &SnapshotFile) -> usize {
        if self.has(group, file) {
            return file.bytes().len();
        }
        let part = self.parts.get(&group);
        part.filter(|part| (part.index, part.term) == (file.index, file.term))
            .map_or(0, |part| part.data.len())
    }

    fn has(&self, group: u32, file: &SnapshotFile) -> bool {
        self.snapshot(group, file.index).is_some_and(|other| other.term == file.term)
    }

    /// A received file is complete. Whether it is what its sender has: the checksum
    /// of the whole says so.
    pub fn accept(&mut self, group: u32, file: &SnapshotFile) -> bool {
        if self.has(group, file) {
            return true;
        }
        let part = self.parts.remove(&group);
        let whole = part.is_some_and(|part| part.data == file.bytes());
        if whole {
            self.keep_snapshot(group, file.clone());
        }
        whole
    }

    /// While its node is down it loses something, or gets an older copy back. Whether there was anything.
    pub fn lose_part(&mut self, rng: &mut StdRng) -> bool {
        let harms = [Harm::FileGone, Harm::FileEmptied, Harm::FilePutBack, Harm::LogPutBack];
        let Some(&harm) = harms.get(rng.random_range(0..harms.len() + 3)) else {
            let newest = |(&group, files): (&u32, &mut Vec<SnapshotFile>)| {
                let found = self.log.recover().get(&group)?.snapshot.index;
                let place = files.iter().position(|file| file.index == found)?;
                Some(files.remove(place))
            };
            return self.snapshots.iter_mut().find_map(newest).is_some();
        };
        self.log.lose(harm)
    }

    /// What a start finds missing, as the server does: of the log, if that is looked for, and of the snapshots that it
    /// begins after.
    pub fn missing(&self, of_log: bool) -> Option<&'static str> {
        if let Some(loss) = self.log.missing().filter(|_| of_log) {
            return Some(match loss {
                Loss::Missing => "lost file of a log noticed",
                Loss::Shorter { .. } => "emptied file of a log noticed",
                Loss::Older { .. } | Loss::Other => "older file of a log noticed",
            });
        }
        let recovered = self.log.recover();
        let lost = |(&group, found): (&u32, &moonraft::log::RecoveredGroup)| {
            found.snapshot.index > 0 && self.snapshot(group, found.snapshot.index).is_none()
        };
        recovered.iter().any(lost).then_some("lost snapshot noticed")
    }

    /// The power goes. The write under way was lost, was torn, or was there after all.
    pub fn crash(&mut self, rng: &mut StdRng, torn_is_taken: bool) {
        for part in self.parts.values_mut() {
            part.data.truncate(rng.random_range(0..=part.data.len()));
        }
        if self.log.unsynced() == 0 {
            return;
        }
        match rng.random_range(0..3) {
            0 => {
                mark("unsynced write kept");
                self.log.crash(1);
            }
            1 => {
                mark("torn tail cut");
                let entries = rng.random_range(0..3);
                if torn_is_taken { self.log.crash_accepting_torn(entries) } else { self.log.crash(0) }
            }
            _ => {
                mark("unsynced write lost");
                self.log.crash(0);
            }
        }
    }
}
