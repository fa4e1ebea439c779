//! Whatever a log once had on its disk and has no more is noticed at the start; a crash is not taken for that.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::log::files;

/// Files so small that a few writes fill one, and few enough that old ones are given up and used again.
const SMALL: LogSettings = LogSettings { file_bytes: 8 << 10, purge_bytes: 64 << 10 };

fn open_small(directory: &Path) -> Log {
    Log::open(directory, &identity(), &SMALL).expect("the log opens").0
}

/// Writes of group 0, of a kilobyte each; every twentieth takes a snapshot, and group 1 writes on its first.
fn fill(log: &mut Log, indexes: std::ops::Range<u64>) {
    for index in indexes {
        let snapshot = (index % 20 == 0).then(|| SnapshotMetadata {
            index: index - 1,
            term: 1,
            ..SnapshotMetadata::default()
        });
        let truncate = snapshot.as_ref().map(|snapshot| EntryId { index: snapshot.index, term: 1 });
        let mut groups = vec![GroupWrite {
            hard_state: hard_state(1, index - 1),
            snapshot,
            truncate,
            entries: entries(index..index + 1, 1, 1_000),
            ..GroupWrite::new(0)
        }];
        if index == 1 {
            let entries = entries(1..4, 1, 100);
            groups.push(GroupWrite { hard_state: hard_state(1, 0), entries, ..GroupWrite::new(1) });
        }
        log.write(&LogWrites { groups });
        if index % 10 == 0 {
            log.purge();
        }
    }
}

/// A log in several files of both kinds.
fn many_files() -> (tempfile::TempDir, Log) {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open_small(directory.path());
    fill(&mut log, 1..201);
    log.keep_ledger();
    (directory, log)
}

/// The files of the log, oldest first.
fn log_files(directory: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(directory.join("log")).unwrap();
    let paths = listing.map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = paths.filter(|path| inspect::parse_name(path).is_some()).collect();
    files.sort();
    files
}

fn names(directory: &Path) -> Vec<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    log_files(directory).iter().map(name).collect()
}

/// The start is refused, as is every later one, and the line names the file.
fn is_refused(directory: &Path, file: &Path) -> String {
    let refusal = refused(directory);
    assert!(refusal.is_damage(), "{refusal}");
    let line = refusal.to_string();
    assert!(line.contains(file.to_str().unwrap()) && line.lines().count() == 1, "{file:?}: {line}");
    assert_eq!(refused(directory).to_string(), line, "nothing was changed");
    line
}

/// What may have happened to a file.
type Harm = fn(&Path);

const HARMS: [(&str, Harm); 4] = [
    ("is missing", |file| fs::remove_file(file).unwrap()),
    ("has 0 bytes, but had", |file| drop(fs::File::create(file).unwrap())),
    ("bytes, but had", |file| {
        let length = fs::metadata(file).unwrap().len();
        OpenOptions::new().write(true).open(file).unwrap().set_len(length - 1).unwrap();
    }),
    ("bytes, but had", |file| OpenOptions::new().write(true).open(file).unwrap().set_len(100).unwrap()),
];

#[test]
fn a_file_that_is_gone_or_shorter_is_refused_by_its_name() {
    let (directory, log) = many_files();
    let killed_one = killed(directory.path());
    drop(log);
    for state in [killed_one.path(), directory.path()] {
        let files = names(state);
        assert!(files.len() > 3 && files.iter().any(|name| name.ends_with("rewrite")), "{files:?}");
        for name in files {
            for (told, harm) in HARMS {
                let copy = killed(state);
                let file = copy.path().join("log").join(&name);
                harm(&file);
                let line = is_refused(copy.path(), &file);
                assert!(line.contains(told), "{line}");
            }
        }
        open_small(killed(state).path());
    }
}

#[test]
fn the_newest_file_is_missed_at_once() {
    // Nothing was told to the ledger since the log was begun but where the files are.
    let running = tempfile::tempdir().unwrap();
    let (mut log, _) = open(running.path());
    write_batches(&mut log, 1..2);
    for (_, harm) in HARMS {
        let copy = killed(running.path());
        let file = copy.path().join("log").join("0000000000000001.raftlog");
        harm(&file);
        is_refused(copy.path(), &file);
    }
}

#[test]
fn an_older_copy_that_is_put_back_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open_small(directory.path());
    fill(&mut log, 1..31);
    let old = killed(directory.path());
    fill(&mut log, 31..34);
    log.keep_ledger();
    let copy_of = |name: &str| {
        let copy = killed(directory.path());
        let file = copy.path().join("log").join(name);
        (copy, file)
    };
    // Of one file, if it is not as it is now.
    let mut other = 0;
    for name in names(old.path()) {
        let (copy, file) = copy_of(&name);
        let older = fs::read(old.path().join("log").join(&name)).unwrap();
        if fs::read(&file).unwrap() != older {
            fs::write(&file, older).unwrap();
            is_refused(copy.path(), &file);
            other += 1;
        }
    }
    assert!(other > 0, "the newest at least");
    // Of the log as a whole.
    let (copy, _) = copy_of("");
    let folder = copy.path().join("log");
    fs::remove_dir_all(&folder).unwrap();
    fs::rename(old.path().join("log"), &folder).unwrap();
    assert!(is_refused(copy.path(), &folder).contains("Entries that this node acknowledged may be lost"));
}

#[test]
fn another_logs_file_is_refused() {
    let [(one, first), (other, second)] = [1, 2].map(|term| {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path());
        let entries = entries(1..2, term, 100);
        log.write(&one(GroupWrite { hard_state: hard_state(term, 0), entries, ..GroupWrite::new(0) }));
        log.keep_ledger();
        (killed(directory.path()), log)
    });
    drop((first, second));
    let file = |directory: &tempfile::TempDir| directory.path().join("log").join("0000000000000001.raftlog");
    fs::copy(file(&other), file(&one)).unwrap();
    assert!(is_refused(one.path(), &file(&one)).contains("holds other writes"));
}

#[test]
fn the_end_of_the_newest_file_is_missed_once_the_ledger_knows_it() {
    let running = tempfile::tempdir().unwrap();
    let (mut log, _) = open(running.path());
    write_batches(&mut log, 1..11);
    let before = killed(running.path());
    log.keep_ledger();
    let file = |directory: &Path| directory.join("log").join("0000000000000001.raftlog");
    let ends = |directory: &Path| {
        let bytes = fs::read(file(directory)).unwrap();
        bytes.iter().rposition(|&byte| byte != 0).unwrap() as u64
    };
    tear(&file(before.path()), ends(before.path()) - 10);
    assert_eq!(open(before.path()).1[&0].last_index, 9, "as if it had never been synced");
    let after = killed(running.path());
    tear(&file(after.path()), ends(after.path()) - 10);
    assert!(is_refused(after.path(), &file(after.path())).contains("were on the disk"));
    // A clean stop needs no such moment.
    write_batches(&mut log, 11..12);
    drop(log);
    flip(&file(running.path()), ends(running.path()) - 50);
    is_refused(running.path(), &file(running.path()));
}

#[test]
fn the_ledger_itself_is_missed() {
    let (directory, log) = many_files();
    drop(log);
    let ledger = directory.path().join("ledger");
    let whole = fs::read(&ledger).unwrap();
    fs::remove_file(&ledger).unwrap();
    assert!(is_refused(directory.path(), &ledger).contains("is missing"));
    fs::write(&ledger, "").unwrap();
    assert!(is_refused(directory.path(), &ledger).contains("is damaged"));
    // An older one asks for no more than there was: nothing is lost.
    fs::write(&ledger, whole).unwrap();
    fill(&mut open_small(directory.path()), 201..203);
    open_small(directory.path());
}

#[test]
fn a_log_of_an_earlier_build_gets_a_ledger() {
    let directory = tempfile::tempdir().unwrap();
    identity::write(directory.path(), &identity()).unwrap();
    let folder = directory.path().join("log");
    let config = raft_engine::Config { dir: folder.to_str().unwrap().to_owned(), ..Default::default() };
    let engine = raft_engine::Engine::open(config).unwrap();
    let mut batch = raft_engine::LogBatch::default();
    batch.put_message(1, b"hard".to_vec(), &hard_state(7, 0).unwrap()).unwrap();
    engine.write(&mut batch, true).unwrap();
    drop(engine);
    assert_eq!(open(directory.path()).1[&0].hard_state.term, 7);
    let file = log_files(directory.path()).remove(0);
    fs::remove_file(&file).unwrap();
    is_refused(directory.path(), &file);
}

/// A crash, or a full disk, may keep the header of a new file from the disk. The engine begins such a file anew in an
/// older version of its format.
#[test]
fn a_newest_file_whose_header_was_torn_is_written_and_read_on() {
    for torn in [0, 1, 53, 60, 61, 68] {
        let directory = tempfile::tempdir().unwrap();
        let mut log = open_small(directory.path());
        fill(&mut log, 1..31);
        drop(log);
        let newest =
            log_files(directory.path()).into_iter().rfind(|path| path.extension().unwrap() == "raftlog");
        let (kind, number) = inspect::parse_name(newest.as_ref().unwrap()).unwrap();
        let header = fs::read(newest.unwrap()).unwrap()[..torn].to_vec();
        let file = directory.path().join("log").join(inspect::file_name((kind, number + 1)));
        fs::write(&file, header).unwrap();

        let mut log = open_small(directory.path());
        fill(&mut log, 31..33);
        log.keep_ledger();
        let crashed = killed(directory.path());
        drop(log);
        for state in [crashed.path(), directory.path()] {
            let (mut log, found) = Log::open(state, &identity(), &SMALL).expect("nothing is lost");
            assert_eq!(found[&0].last_index, 32, "{torn} bytes of a header");
            fill(&mut log, 33..61);
            drop(log);
            assert_eq!(Log::open(state, &identity(), &SMALL).unwrap().1[&0].last_index, 60);
        }
        // What is damaged in it is noticed as elsewhere: its header, and a batch in the middle.
        for place in [torn as u64 / 2, 100] {
            let copy = killed(crashed.path());
            let file = copy.path().join("log").join(file.file_name().unwrap());
            flip(&file, place);
            is_refused(copy.path(), &file);
        }
    }
}

#[test]
fn a_log_that_cannot_be_read_is_told_in_a_plain_line() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("log");
    fs::write(&folder, "").unwrap();
    let line = refused(directory.path()).to_string();
    assert_eq!(line, format!("cannot access {}: Not a directory (os error 20)", folder.display()));
    // What the engine says has no place in its source in it.
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("log").join("LOCK")).unwrap();
    let line = refused(directory.path()).to_string();
    assert!(line.ends_with("/log: Is a directory (os error 21)"), "{line}");
}

/// Tears the newer of the two ledgers in the file.
fn tear_ledger(directory: &Path) {
    let path = directory.join("ledger");
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    let generation = |place: &[u8]| ledger::Ledger::parse(&String::from_utf8_lossy(place)).map(|it| it.0);
    let newer = if generation(&bytes[..half]) > generation(&bytes[half..]) { 0 } else { half };
    bytes[newer + 60] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_crash_between_any_two_steps_leaves_a_log_that_starts() {
    let directory = tempfile::tempdir().unwrap();
    let (path, steps) = (directory.path().to_owned(), Rc::new(RefCell::new(0)));
    let acknowledged = Rc::new(RefCell::new(0));
    let (counter, least) = (Rc::clone(&steps), Rc::clone(&acknowledged));
    let mut log = open_small(directory.path());
    fill(&mut log, 1..41);
    files::at_each_step(Some(Box::new(move |ledger_written| {
        *counter.borrow_mut() += 1;
        let copy = killed(&path);
        if ledger_written {
            tear_ledger(copy.path());
        }
        let (_, found) = Log::open(copy.path(), &identity(), &SMALL).expect("nothing is lost");
        let (last, least) = (found[&0].last_index, *least.borrow());
        assert!(last >= least && last <= least + 1, "{last} and {least}");
    })));
    for index in 41..121 {
        *acknowledged.borrow_mut() = index - 1;
        fill(&mut log, index..index + 1);
    }
    *acknowledged.borrow_mut() = 120;
    drop(log);
    files::at_each_step(None);
    assert!(*steps.borrow() > 100, "{} steps", steps.borrow());
    open_small(directory.path());
}
