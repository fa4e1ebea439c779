//! The log on disk: `raft-engine`, one stream of batches for all groups.
//!
//! Each group keeps three records beside its entries: `hard` (term, vote, commit), `snapshot` (position and members
//! of its newest snapshot) and `truncated` (the entry before the first). They change in the same batch as the
//! entries, so they always agree.
//!
//! INVARIANT: entries are read and files purged on the thread that writes: raft-engine 0.4.2 panics when entries
//! are read during a concurrent rewrite (its issue 370).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use moonraft_proto::entry::MORE;
use raft::eraftpb::{Entry, EntryType, HardState, SnapshotMetadata};
use raft_engine::internals::LogQueue;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

use super::files::LogFiles;
use super::identity::{self, Identity, IdentityError};
use super::inspect::{self, DamageError, LossError};
use super::ledger::{Kind, Loss};
use super::ledger_file::{self, LedgerFile};
use super::{
    EntryId, GroupId, GroupWrite, LogReader, LogWrites, RESERVED_GROUP, RecoveredGroup, TermRuns,
    cannot_go_on, disk_failed, entries_lost, failure, newer_entry,
};

const HARD_STATE: &[u8] = b"hard";
const SNAPSHOT: &[u8] = b"snapshot";
const TRUNCATED: &[u8] = b"truncated";

/// In the reserved group: a ledger was begun, so there must be one.
const LEDGER: &[u8] = b"ledger";

/// Entries are read in pieces of this size when a log is recovered.
const RECOVERY_BYTES: usize = 4 << 20;

/// How the files of the log are kept.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A file is closed and the next begun at this size.
    pub file_bytes: u64,
    /// Above this many bytes in all files, old ones are given up: what is still needed of them is written anew, and
    /// groups that hold much of them are asked for a snapshot.
    pub purge_bytes: u64,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            file_bytes: 64 << 20, // large enough that switching files is rare, small enough to read at a start
            purge_bytes: 1 << 30, // a restart reads it in a few seconds
        }
    }
}

/// Why the log of a node could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is not this node's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The files are damaged.
    #[error(transparent)]
    Damage(#[from] DamageError),
    /// A file is not what it was, or is gone.
    #[error(transparent)]
    Lost(#[from] LossError),
    /// What ought to be there is not known any more.
    #[error("{path} is damaged: it does not tell what the log must hold, so this node does not start", path = .path.display())]
    LedgerDamaged {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("{path} is in use by another process; stop that one first", path = .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The files are gone, but not the identity: entries and votes were lost with them.
    #[error("the log is missing: there are no files in {path}, but this node has begun one there", path = .path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A newer build wrote an entry.
    #[error("the log in {path} is of a newer build: {newer}", path = .path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// What it wrote.
        newer: String,
    },
    /// The directory could not be read or created.
    #[error("cannot access {path}: {source}", path = .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The files check out one by one but do not fit together, or are in use by another process.
    #[error("cannot open the log in {path}: {detail}", path = .path.display())]
    Engine {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

impl OpenError {
    /// Whether something is lost that this node may have promised: then only its peers can make it good.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            OpenError::Damage(_)
                | OpenError::Lost(_)
                | OpenError::LedgerDamaged { .. }
                | OpenError::Missing { .. }
                | OpenError::Identity(IdentityError::Damaged { .. })
        )
    }
}

/// The durable log of a node.
pub struct Log {
    engine: Arc<Engine<LogFiles>>,
    files: Arc<LogFiles>,
    directory: PathBuf,
    identity: Identity,
    batch: LogBatch,
    /// The number of the file that was written last, and where it is.
    newest: (u64, Arc<Path>),
}

struct RaftEntry;

impl MessageExt for RaftEntry {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl Log {
    /// Opens the log in `directory`, or begins one there for `wanted`. A torn tail is cut; other damage, or another
    /// node's directory, is an error.
    pub fn open(
        directory: &Path,
        wanted: &Identity,
        settings: &LogSettings,
    ) -> Result<(Log, BTreeMap<GroupId, RecoveredGroup>), OpenError> {
        let failed = |source| OpenError::Io { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        let known = identity::read(directory)?.and_then(|identity| identity.incarnation);
        let identity = identity::claim(directory, wanted)?;
        let files = directory.join("log");
        let opened = LedgerFile::open(directory)?;
        let (ledger, asked) = opened.map_or_else(Default::default, |(file, asked)| (Some(file), asked));
        let found = inspect::inspect(&files, &asked)?;
        let is_new = found.marks().next().is_none();
        if known.is_some() && is_new {
            return Err(OpenError::Missing { path: files });
        }
        if !is_new {
            inspect::sync(&files, &found).map_err(failed)?;
        }
        let has_ledger = ledger.is_some();
        let log_files = Arc::new(LogFiles::new(found, ledger).map_err(failed)?);
        let engine = open_engine(&files, settings, &log_files)?;
        begin_ledger(directory, &engine, &log_files, has_ledger)?;
        let refused = |detail: String| OpenError::Engine { path: files.clone(), detail };
        let groups = recover_apart(&engine).map_err(|error| match error {
            RecoverError::Newer(newer) => OpenError::Newer { path: files.clone(), newer },
            RecoverError::Misfit(detail) => refused(detail),
        })?;
        let directory = directory.to_owned();
        let newest = (0, Path::new("").into());
        let log = Log { engine, files: log_files, directory, identity, batch: LogBatch::default(), newest };
        Ok((log, groups))
    }

    /// Decides, for ever, which life of the node's disk this is. Durable when it returns; an error stops the process.
    pub fn decide(&mut self, incarnation: u32) {
        assert_eq!(self.identity.incarnation, None, "an incarnation is decided once");
        self.identity.incarnation = Some(incarnation);
        if let Err(error) = identity::write(&self.directory, &self.identity) {
            disk_failed(format!("{} cannot be written: {error}", self.directory.join("identity").display()));
        }
    }

    /// Whose log this is; the incarnation is the disk's own.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Makes the writes durable: one batch, one fsync. Returns when they are; an error stops the process.
    pub fn write(&mut self, writes: &LogWrites) {
        for write in &writes.groups {
            if let Err(error) = self.add(write) {
                cannot_go_on(format!("a log write cannot be encoded: {error}"));
            }
        }
        // A failed fsync panics inside the engine, anything else it returns.
        let _writing = failure::writing(self.newest_file());
        if let Err(error) = self.engine.write(&mut self.batch, true) {
            disk_failed(format!("{} cannot be written: {}", self.newest_file().display(), explain(&error)));
        }
        if self.files.ledger_lags() {
            self.keep_ledger();
        }
    }

    /// Forgets a group, with all that it promised: durable when it returns. It must be no member of its group any more.
    pub fn remove(&mut self, group: GroupId) {
        self.batch.add_command(region(group), Command::Clean);
        self.write(&LogWrites::default());
    }

    /// Tells the ledger how much is on the disk, so that a later start misses what is not there any more. To be called
    /// every second.
    pub fn keep_ledger(&self) {
        if let Err(error) = self.files.keep_ledger() {
            disk_failed(format!("the ledger cannot be written: {error}"));
        }
    }

    /// From now on `told` is called after each piece of a large write that has reached the disk; once.
    pub fn on_piece(&self, told: impl Fn() + Send + Sync + 'static) {
        self.files.on_piece(told);
    }

    /// The file that is written now. Asked before each write: its name is made once.
    fn newest_file(&mut self) -> Arc<Path> {
        let (_, newest) = self.engine.file_span(LogQueue::Append);
        if self.newest.0 != newest {
            let name = inspect::file_name((Kind::Append, newest));
            self.newest = (newest, Path::new(self.engine.path()).join(name).into());
        }
        Arc::clone(&self.newest.1)
    }

    fn add(&mut self, write: &GroupWrite) -> raft_engine::Result<()> {
        let region = region(write.group);
        if let Some(snapshot) = &write.snapshot {
            if write.reset {
                if let Some(last) = self.engine.last_index(region) {
                    let index = last + 1;
                    self.batch.add_command(region, Command::Compact { index });
                }
                let position = position(snapshot.index, snapshot.term);
                self.batch.put_message(region, TRUNCATED.to_vec(), &position)?;
            }
            self.batch.put_message(region, SNAPSHOT.to_vec(), snapshot)?;
        }
        if let Some(hard_state) = &write.hard_state {
            self.batch.put_message(region, HARD_STATE.to_vec(), hard_state)?;
        }
        self.batch.add_entries::<RaftEntry>(region, &write.entries)?;
        if let Some(truncate) = write.truncate {
            let index = truncate.index + 1;
            self.batch.add_command(region, Command::Compact { index });
            let position = position(truncate.index, truncate.term);
            self.batch.put_message(region, TRUNCATED.to_vec(), &position)?;
        }
        Ok(())
    }

    /// Gives up old files if there are too many. Returns the groups that hold much of them: they should take a
    /// snapshot (`Input::CompactWanted`). To be called every few seconds.
    pub fn purge(&mut self) -> Vec<GroupId> {
        let _writing = failure::writing(Path::new(self.engine.path()).into());
        let regions = match self.engine.purge_expired_files() {
            Ok(regions) => regions,
            Err(error) => {
                disk_failed(format!("{} cannot be purged: {}", self.engine.path(), explain(&error)))
            }
        };
        if self.files.ledger_lags() {
            self.keep_ledger();
        }
        regions.into_iter().map(|region| (region - 1) as GroupId).collect()
    }

    /// Reads entries of this log, on the thread that writes it.
    pub fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(EngineReader { engine: Arc::clone(&self.engine) })
    }

    /// Bytes set aside for the log: a file counts as full from its begin on.
    pub fn used_bytes(&self) -> u64 {
        self.engine.get_used_size() as u64
    }
}

impl Drop for Log {
    /// The engine tells the ledger when it closes the file that is written; if it has nothing to cut there, this does.
    fn drop(&mut self) {
        if let Err(error) = self.files.keep_ledger() {
            tracing::warn!("the ledger cannot be written: {error}");
        }
    }
}

fn open_engine(
    directory: &Path,
    settings: &LogSettings,
    files: &Arc<LogFiles>,
) -> Result<Arc<Engine<LogFiles>>, OpenError> {
    let refused = |detail: String| OpenError::Engine { path: directory.to_owned(), detail };
    let config = Config {
        dir: directory.to_str().ok_or_else(|| refused("the path is not valid UTF-8".to_owned()))?.to_owned(),
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        target_file_size: ReadableSize(settings.file_bytes),
        purge_threshold: ReadableSize(settings.purge_bytes.max(settings.file_bytes)),
        enable_log_recycle: true,
        // Time is what is short, not room.
        batch_compression_threshold: ReadableSize(0),
        ..Config::default()
    };
    let engine = Engine::open_with_file_system(config, Arc::clone(files));
    engine.map(Arc::new).map_err(|error| refused(explain(&error)))
}

/// Sees to it that there is a ledger which names all files, and that the log says so. A log of an earlier build has none.
fn begin_ledger(
    directory: &Path,
    engine: &Engine<LogFiles>,
    files: &LogFiles,
    has_ledger: bool,
) -> Result<(), OpenError> {
    let log = Path::new(engine.path());
    let region = region(RESERVED_GROUP);
    let is_told = engine.get(region, LEDGER).is_some();
    if !has_ledger {
        if is_told {
            return Err(LossError { file: ledger_file::path(directory), loss: Loss::Missing }.into());
        }
        files.begin_ledger(LedgerFile::create(directory)?);
    }
    if !is_told {
        let mut batch = LogBatch::default();
        let put = batch.put(region, LEDGER.to_vec(), b"1".to_vec());
        put.and_then(|()| engine.write(&mut batch, true).map(drop))
            .map_err(|error| OpenError::Engine { path: log.to_owned(), detail: explain(&error) })?;
    }
    let kept = fs::File::open(log).and_then(|folder| folder.sync_all()).and_then(|()| files.keep_ledger());
    kept.map_err(|source| OpenError::Io { path: log.to_owned(), source })
}

/// What went wrong, in the system's words where the engine has others.
fn explain(error: &raft_engine::Error) -> String {
    let text = match error {
        raft_engine::Error::Io(error) => error.to_string(),
        raft_engine::Error::Other(error) => {
            // It begins with a place in the engine's source.
            let text = error.to_string();
            text.split_once("]: ").map_or(text.clone(), |(_, text)| text.to_owned())
        }
        other => other.to_string(),
    };
    if text.ends_with("nospace") { rustix::io::Errno::NOSPC.to_string() } else { text }
}

struct EngineReader {
    engine: Arc<Engine<LogFiles>>,
}

impl LogReader for EngineReader {
    fn read(&self, group: GroupId, low: u64, high: u64, bytes_max: u64, entries: &mut Vec<Entry>) {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).max(1);
        let result =
            self.engine.fetch_entries_to::<RaftEntry>(region(group), low, high, Some(bytes_max), entries);
        if let Err(error) = result {
            let (path, what) = (self.engine.path(), explain(&error));
            let line = format!("entries {low}..{high} of shard {group} cannot be read from {path}: {what}");
            match error {
                raft_engine::Error::Io(_) => disk_failed(line),
                _ => entries_lost(line),
            }
        }
    }
}

/// Regions count from 1.
fn region(group: GroupId) -> u64 {
    u64::from(group) + 1
}

fn position(index: u64, term: u64) -> SnapshotMetadata {
    SnapshotMetadata { index, term, ..SnapshotMetadata::default() }
}

/// Why a group cannot go on with what the log holds of it.
enum RecoverError {
    Newer(String),
    Misfit(String),
}

/// Whether an entry begins a batch, or is one.
fn begins_batch(entry: &Entry, before: Option<&(u64, bool)>) -> bool {
    let goes_on = before.is_some_and(|&(term, more)| more && term == entry.term);
    entry.get_entry_type() == EntryType::EntryNormal && !goes_on
}

/// Recovers all groups, on a thread of its own: the engine keeps the block that a thread has read last, known
/// by its place in a file, of whichever log that was. Nodes of one process have files of the same names.
fn recover_apart(engine: &Engine<LogFiles>) -> Result<BTreeMap<GroupId, RecoveredGroup>, RecoverError> {
    let recovered = thread::scope(|scope| scope.spawn(|| recover_all(engine)).join());
    recovered.unwrap_or_else(|panic| resume_unwind(panic))
}

fn recover_all(engine: &Engine<LogFiles>) -> Result<BTreeMap<GroupId, RecoveredGroup>, RecoverError> {
    let mut groups = BTreeMap::new();
    for region in engine.raft_groups().into_iter().filter(|&it| it != region(RESERVED_GROUP)) {
        let group = GroupId::try_from(region - 1)
            .map_err(|_| RecoverError::Misfit(format!("it holds a group of number {region}")))?;
        let recovered = recover(engine, region).map_err(|error| match error {
            RecoverError::Misfit(detail) => RecoverError::Misfit(format!("group {group}: {detail}")),
            newer => newer,
        })?;
        groups.insert(group, recovered);
    }
    Ok(groups)
}

fn recover(engine: &Engine<LogFiles>, region: u64) -> Result<RecoveredGroup, RecoverError> {
    let text = |error: raft_engine::Error| RecoverError::Misfit(error.to_string());
    let hard_state = engine.get_message::<HardState>(region, HARD_STATE).map_err(text)?;
    let snapshot = engine.get_message::<SnapshotMetadata>(region, SNAPSHOT).map_err(text)?;
    let truncated = engine.get_message::<SnapshotMetadata>(region, TRUNCATED).map_err(text)?;
    let (mut hard_state, snapshot) = (hard_state.unwrap_or_default(), snapshot.unwrap_or_default());
    let truncated = truncated
        .map_or(EntryId::default(), |position| EntryId { index: position.index, term: position.term });

    let first = engine.first_index(region).unwrap_or(truncated.index + 1);
    let last_index = engine.last_index(region).unwrap_or(0).max(truncated.index);
    if last_index > truncated.index && first > truncated.index + 1 {
        let detail = format!("entries {}..{first} are missing", truncated.index + 1);
        return Err(RecoverError::Misfit(detail));
    }
    let mut recovered = RecoveredGroup { terms: TermRuns::new(truncated), ..RecoveredGroup::default() };
    let mut next = truncated.index + 1;
    let mut entries = Vec::new();
    // The term of the entry before, if it is to be replayed, and whether more parts follow it.
    let mut before = None;
    while next <= last_index {
        engine
            .fetch_entries_to::<RaftEntry>(region, next, last_index + 1, Some(RECOVERY_BYTES), &mut entries)
            .map_err(text)?;
        for entry in entries.drain(..) {
            recovered.terms.push(EntryId { index: entry.index, term: entry.term });
            if entry.index > snapshot.index {
                recovered.bytes_after_snapshot += entry.data.len() as u64;
                if begins_batch(&entry, before.as_ref())
                    && let Some(newer) = newer_entry((region - 1) as GroupId, entry.index, &entry.data)
                {
                    return Err(RecoverError::Newer(newer));
                }
                // The end of a change of members may stand between two parts.
                if entry.get_entry_type() == EntryType::EntryNormal {
                    before = Some((entry.term, *entry.context == *MORE));
                }
            }
            next = entry.index + 1;
        }
    }
    hard_state.commit = hard_state.commit.max(snapshot.index);
    if truncated.index > snapshot.index || hard_state.commit > last_index {
        return Err(RecoverError::Misfit(format!(
            "its records disagree: truncated at {}, snapshot at {}, committed to {}, last entry {last_index}",
            truncated.index, snapshot.index, hard_state.commit
        )));
    }
    recovered.hard_state = hard_state;
    recovered.snapshot = snapshot;
    recovered.truncated = truncated;
    recovered.last_index = last_index;
    Ok(recovered)
}
