//! The log on disk against its twin in memory, and against damage.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use moonraft_proto::entry::{MORE, NEWEST_FORMAT};
use proptest::prelude::*;
use raft::eraftpb::{Entry, EntryType, HardState, SnapshotMetadata};

use super::*;

mod lost;

fn identity() -> Identity {
    Identity { cluster: "test".to_owned(), node: 1, incarnation: Some(0) }
}

fn open(directory: &Path) -> (Log, BTreeMap<GroupId, RecoveredGroup>) {
    Log::open(directory, &identity(), &LogSettings::default()).expect("the log opens")
}

fn refused(directory: &Path) -> OpenError {
    match Log::open(directory, &identity(), &LogSettings::default()) {
        Err(error) => error,
        Ok(_) => panic!("the log opened"),
    }
}

/// What a process killed right now would leave: the log stays open, so nothing was closed or flushed.
fn killed(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["identity", "ledger"] {
        fs::copy(directory.join(name), copy.path().join(name)).unwrap();
    }
    fs::create_dir(copy.path().join("log")).unwrap();
    for file in fs::read_dir(directory.join("log")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join("log").join(file.file_name())).unwrap();
    }
    copy
}

fn entries(range: std::ops::Range<u64>, term: u64, bytes: usize) -> Vec<Entry> {
    range.map(|index| Entry { index, term, data: payload(index, bytes), ..Entry::default() }).collect()
}

/// Data that begin as those of a batch do.
fn payload(index: u64, bytes: usize) -> Bytes {
    let noise = (0..bytes as u64).map(|byte| ((byte * byte * index) >> 3) as u8);
    std::iter::once(NEWEST_FORMAT).chain(noise.skip(1)).take(bytes).collect()
}

fn hard_state(term: u64, commit: u64) -> Option<HardState> {
    Some(HardState { term, vote: 1, commit, ..HardState::default() })
}

fn one(write: GroupWrite) -> LogWrites {
    LogWrites { groups: vec![write] }
}

/// A log of ten batches of one entry each, killed, and where each batch begins.
fn ten_batches() -> (tempfile::TempDir, PathBuf, Vec<u64>) {
    let running = tempfile::tempdir().unwrap();
    let (mut log, _) = open(running.path());
    write_batches(&mut log, 1..11);
    let directory = killed(running.path());
    let file = directory.path().join("log").join("0000000000000001.raftlog");
    let bytes = fs::read(&file).unwrap();
    let mut begins = vec![inspect::header(&bytes).unwrap().length as u64];
    while let Some(length) = inspect::batch(&bytes[begins[begins.len() - 1] as usize..], 1) {
        begins.push(begins[begins.len() - 1] + length as u64);
    }
    begins.remove(0); // the log's own
    assert_eq!(begins.len(), 11);
    (directory, file, begins)
}

/// Batches of one entry each.
fn write_batches(log: &mut Log, indexes: std::ops::Range<u64>) {
    for index in indexes {
        log.write(&one(GroupWrite {
            hard_state: hard_state(1, index - 1),
            entries: entries(index..index + 1, 1, 100),
            ..GroupWrite::new(0)
        }));
    }
}

/// As if what is behind `offset` had not reached the disk.
fn tear(file: &Path, offset: u64) {
    let length = fs::metadata(file).unwrap().len();
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(offset).unwrap();
    file.set_len(length).unwrap();
}

fn flip(file: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn a_killed_process_finds_everything_it_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, found) = open(directory.path());
    assert!(found.is_empty());
    let twin = MemoryLog::new();
    let mut writes = LogWrites::default();
    for group in 0..200 {
        writes.groups.push(GroupWrite {
            hard_state: hard_state(3, 2),
            entries: entries(1..4, 3, 50),
            ..GroupWrite::new(group)
        });
    }
    log.write(&writes);
    twin.write(&writes);

    let copy = killed(directory.path());
    let (after, found) = open(copy.path());
    assert_eq!(found, twin.recover());
    let mut read = Vec::new();
    after.reader().read(123, 2, 4, 1_000, &mut read);
    assert_eq!(read, entries(2..4, 3, 50));
    read.clear();
    after.reader().read(123, 1, 4, 60, &mut read);
    assert_eq!(read.len(), 1, "no more than asked for");
}

#[test]
fn a_torn_tail_is_cut() {
    for keep in [1, 15, 16, 40, 120] {
        let (directory, file, begins) = ten_batches();
        let last = begins[9];
        tear(&file, last + keep);
        let (mut log, found) = open(directory.path());
        assert_eq!(found[&0].last_index, 9, "{keep} bytes of the last batch");
        log.write(&one(GroupWrite {
            hard_state: hard_state(2, 9),
            entries: entries(10..12, 2, 10),
            ..GroupWrite::new(0)
        }));
        drop(log);
        assert_eq!(open(directory.path()).1[&0].last_index, 11);
    }
}

#[test]
fn a_large_write_reaches_the_disk_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    let pieces = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pieces);
    log.on_piece(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let mut write = |index, bytes| {
        let entries = entries(index..index + 1, 1, bytes);
        log.write(&one(GroupWrite { hard_state: hard_state(1, 0), entries, ..GroupWrite::new(0) }));
        pieces.swap(0, Ordering::Relaxed)
    };
    assert_eq!(write(1, 100), 0);
    assert_eq!(write(2, 5 << 20), 5, "and the rest");
    assert_eq!(write(3, 100), 0);
    let (log, found) = open(killed(directory.path()).path());
    assert_eq!(found[&0].last_index, 3);
    let mut read = Vec::new();
    log.reader().read(0, 1, 4, u64::MAX, &mut read);
    assert!(read == [entries(1..2, 1, 100), entries(2..3, 1, 5 << 20), entries(3..4, 1, 100)].concat());
}

#[test]
fn a_flipped_bit_in_the_last_batch_is_a_torn_tail() {
    let (directory, file, begins) = ten_batches();
    flip(&file, begins[9] + 50);
    assert_eq!(open(directory.path()).1[&0].last_index, 9);
}

#[test]
fn damage_before_the_end_is_refused_with_its_place() {
    for inside in [0, 5, 20, 100, 140] {
        let (directory, file, begins) = ten_batches();
        flip(&file, begins[4] + inside);
        let OpenError::Damage(damage) = refused(directory.path()) else {
            panic!("refused for another reason");
        };
        assert_eq!((damage.file, damage.offset), (file.clone(), begins[4]), "bit at {inside}");
        // And nothing was cut: what the operator saves is all there is.
        assert!(matches!(refused(directory.path()), OpenError::Damage(_)));
    }
}

#[test]
fn damage_in_an_older_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let settings = LogSettings { file_bytes: 10_000, purge_bytes: 1 << 20 };
    {
        let (mut log, _) = Log::open(directory.path(), &identity(), &settings).unwrap();
        for index in 1..=30 {
            log.write(&one(GroupWrite {
                hard_state: hard_state(1, 0),
                entries: entries(index..index + 1, 1, 1_000),
                ..GroupWrite::new(0)
            }));
        }
    }
    let first = directory.path().join("log").join("0000000000000001.raftlog");
    let length = fs::metadata(&first).unwrap().len();
    flip(&first, length - 20);
    let OpenError::Damage(damage) = refused(directory.path()) else {
        panic!("refused for another reason");
    };
    assert_eq!(damage.file, first);
    assert!(damage.to_string().contains("0000000000000001.raftlog, offset "));
}

#[test]
fn an_entry_of_a_newer_format_refuses_the_start() {
    use EntryType::{EntryConfChangeV2, EntryNormal};
    const NEWER: u8 = NEWEST_FORMAT + 1;
    // Kind, term, context and first byte of each entry; the snapshot reaches to entry 2.
    let opened = |rest: &[(EntryType, u64, &'static [u8], u8)]| {
        let directory = tempfile::tempdir().unwrap();
        let none = &b""[..];
        let all = [&[(EntryNormal, 1, none, NEWER), (EntryNormal, 1, none, 1)], rest].concat();
        let entry = |(index, (kind, term, context, byte)): (u64, (EntryType, u64, &'static [u8], u8))| {
            let mut entry = Entry { index, term, ..Entry::default() };
            (entry.context, entry.data) = (Bytes::from_static(context), vec![byte; 20].into());
            entry.set_entry_type(kind);
            entry
        };
        let (mut log, _) = open(directory.path());
        log.write(&one(GroupWrite {
            hard_state: hard_state(2, 2),
            snapshot: Some(SnapshotMetadata { index: 2, term: 1, ..SnapshotMetadata::default() }),
            entries: (1..).zip(all).map(entry).collect(),
            ..GroupWrite::new(5)
        }));
        drop(log);
        Log::open(directory.path(), &identity(), &LogSettings::default()).err()
    };
    for fine in [
        &[(EntryNormal, 1, &b""[..], NEWEST_FORMAT)][..],
        &[(EntryConfChangeV2, 1, b"", NEWER)],
        &[(EntryNormal, 1, MORE, NEWEST_FORMAT), (EntryNormal, 1, MORE, NEWER), (EntryNormal, 1, b"", NEWER)],
        // A change of members ended between two parts.
        &[
            (EntryNormal, 1, MORE, NEWEST_FORMAT),
            (EntryConfChangeV2, 1, b"", NEWER),
            (EntryNormal, 1, b"", NEWER),
        ],
    ] {
        assert!(opened(fine).is_none(), "{fine:?}");
    }
    for (newer, index) in [
        (&[(EntryNormal, 1, &b""[..], NEWER)][..], 3),
        (&[(EntryNormal, 1, MORE, NEWER), (EntryNormal, 1, b"", 1)], 3),
        // A part that was given up with its term, and what comes in the next.
        (&[(EntryNormal, 1, MORE, NEWEST_FORMAT), (EntryNormal, 2, b"", NEWER)], 4),
        (
            &[
                (EntryNormal, 1, MORE, NEWEST_FORMAT),
                (EntryConfChangeV2, 1, b"", NEWER),
                (EntryNormal, 2, b"", NEWER),
            ],
            5,
        ),
    ] {
        let refusal = opened(newer).expect("the log is refused");
        assert!(!refusal.is_damage(), "its peers have nothing better");
        let text = refusal.to_string();
        let (_, line) = text.split_once("/log is of a newer build: ").expect("the place comes first");
        let expected = format!(
            "shard 5, entry {index} of the log is of format {NEWER}; this build reads up to format {NEWEST_FORMAT}."
        );
        assert!(line.starts_with(&expected), "{line}; {newer:?}");
    }
}

#[test]
fn a_directory_remembers_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let first = Identity { incarnation: Some(2), ..identity() };
    drop(Log::open(directory.path(), &first, &LogSettings::default()).unwrap());
    let (log, _) = open(directory.path());
    assert_eq!(log.identity().incarnation, Some(2), "the disk's own");
    drop(log);

    for other in [Identity { node: 2, ..identity() }, Identity { cluster: "prod".to_owned(), ..identity() }] {
        let refusal = Log::open(directory.path(), &other, &LogSettings::default());
        let text = refusal.err().unwrap().to_string();
        assert!(text.contains("belongs to node 1 of cluster 'test'"), "{text}");
    }
    flip(&directory.path().join("identity"), 45);
    assert!(matches!(refused(directory.path()), OpenError::Identity(IdentityError::Damaged { .. })));
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (_log, _) = open(directory.path());
    assert!(matches!(refused(directory.path()), OpenError::InUse { .. }));
}

#[test]
fn old_files_are_given_up_and_what_is_needed_survives() {
    let directory = tempfile::tempdir().unwrap();
    let settings = LogSettings { file_bytes: 64 << 10, purge_bytes: 256 << 10 };
    let twin = MemoryLog::new();
    {
        let (mut log, _) = Log::open(directory.path(), &identity(), &settings).unwrap();
        let write = |log: &mut Log, writes: LogWrites| {
            log.write(&writes);
            twin.write(&writes);
        };
        // Group 1 writes a little once and is never heard of again; group 0 writes on and on.
        write(
            &mut log,
            one(GroupWrite {
                hard_state: hard_state(1, 0),
                entries: entries(1..4, 1, 100),
                ..GroupWrite::new(1)
            }),
        );
        for round in 0..2_000u64 {
            let snapshot = (round % 100 == 99).then(|| SnapshotMetadata {
                index: round,
                term: 1,
                ..SnapshotMetadata::default()
            });
            let truncate = snapshot.as_ref().map(|snapshot| EntryId { index: snapshot.index, term: 1 });
            write(
                &mut log,
                one(GroupWrite {
                    hard_state: hard_state(1, round),
                    snapshot,
                    truncate,
                    entries: entries(round + 1..round + 2, 1, 1_000),
                    ..GroupWrite::new(0)
                }),
            );
            if round % 50 == 0 {
                log.purge();
            }
            // Group 2 goes and comes back as another, again and again, and is gone at last.
            if round % 7 == 0 {
                write(
                    &mut log,
                    one(GroupWrite {
                        hard_state: hard_state(round + 1, 0),
                        entries: entries(1..2 + round % 3, round + 1, 500),
                        ..GroupWrite::new(2)
                    }),
                );
            }
            if round % 7 == 3 {
                log.remove(2);
                twin.remove(2);
            }
        }
        assert!(log.used_bytes() < 1 << 20, "{} bytes", log.used_bytes());
    }
    let (log, found) = Log::open(directory.path(), &identity(), &settings).unwrap();
    assert!(!found.contains_key(&2), "1,998 was its last round");
    assert_eq!(found, twin.recover());
    let mut read = Vec::new();
    log.reader().read(1, 1, 4, 10_000, &mut read);
    assert_eq!(read, entries(1..4, 1, 100));
}

/// One step of a group's life, as Raft would ask for it.
#[derive(Clone, Debug)]
enum Step {
    Append { count: u64, back: u64, new_term: bool, bytes: usize },
    Compact { snapshot: u64, slack: u64 },
    Install { ahead: u64 },
    Remove,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<(GroupId, Step)>> {
    let append = (1u64..6, 0u64..4, any::<bool>(), 0usize..200)
        .prop_map(|(count, back, new_term, bytes)| Step::Append { count, back, new_term, bytes });
    let compact = (0u64..10, 0u64..3).prop_map(|(snapshot, slack)| Step::Compact { snapshot, slack });
    let install = (1u64..20).prop_map(|ahead| Step::Install { ahead });
    let step = prop_oneof![6 => append, 2 => compact, 1 => install, 1 => Just(Step::Remove), 1 => Just(Step::Reopen)];
    prop::collection::vec((0u32..3, step), 1..40)
}

fn write_for(state: &RecoveredGroup, group: GroupId, step: &Step) -> Option<GroupWrite> {
    let term = state.hard_state.term.max(1);
    let committed = state.hard_state.commit.max(state.truncated.index);
    let mut write = GroupWrite::new(group);
    match step {
        Step::Append { count, back, new_term, bytes } => {
            let term = term + u64::from(*new_term || *back > 0);
            let first = (state.last_index + 1 - back.min(&(state.last_index - committed))).max(1);
            write.entries = entries(first..first + count, term, *bytes);
            write.hard_state = hard_state(term, committed.max(first - 1));
        }
        Step::Compact { snapshot, slack } => {
            let index = (state.snapshot.index + snapshot).min(committed);
            if index <= state.snapshot.index {
                return None;
            }
            let term = state.terms.term(index);
            write.snapshot = Some(SnapshotMetadata { index, term, ..SnapshotMetadata::default() });
            let to = index.saturating_sub(*slack);
            write.truncate =
                (to > state.truncated.index).then(|| EntryId { index: to, term: state.terms.term(to) });
            write.hard_state = Some(state.hard_state.clone());
        }
        Step::Install { ahead } => {
            let index = committed + ahead;
            write.reset = true;
            write.snapshot = Some(SnapshotMetadata { index, term: term + 1, ..SnapshotMetadata::default() });
            write.hard_state = hard_state(term + 1, index);
        }
        Step::Remove | Step::Reopen => return None,
    }
    Some(write)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever Raft writes, and however often the process is killed, the log holds what its twin does.
    #[test]
    fn the_log_recovers_what_its_twin_holds(steps in steps()) {
        let mut directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path());
        let twin = MemoryLog::new();
        for (group, step) in steps {
            let state = twin.recover().remove(&group).unwrap_or_default();
            if let Some(write) = write_for(&state, group, &step) {
                log.write(&one(write.clone()));
                twin.write(&one(write));
            }
            if matches!(step, Step::Remove) {
                log.remove(group);
                twin.remove(group);
            }
            if matches!(step, Step::Reopen) {
                let copy = killed(directory.path());
                let (next, found) = open(copy.path());
                prop_assert_eq!(&found, &twin.recover());
                log = next;
                directory = copy;
            }
        }
        for (group, state) in twin.recover() {
            let (low, high) = (state.truncated.index + 1, state.last_index + 1);
            if low < high {
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                log.reader().read(group, low, high, u64::MAX, &mut ours);
                twin.read(group, low, high, u64::MAX, &mut theirs);
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
