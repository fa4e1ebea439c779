//! The files of the log, with room that is written ahead.
//!
//! A sync of a file that has grown, or whose blocks were only reserved, must also
//! sync the file system's own journal: two writes and a wait more. So the engine's
//! next [`write-ahead room`](raft_engine::env::WriteExt::allocate) is filled with
//! zeros before it is needed, and a sync writes data only. Measured on ext4: 270 us
//! and one switch of threads a sync instead of 740 us and two.
//!
//! The engine cuts a file to what it holds when it closes it, and a recovery stops
//! at the zeros, as it does at reserved blocks.
//!
//! A large write is synced in pieces, each of which is told ([`LogFiles::on_piece`]):
//! a disk that is busy with much is not one that hangs. What a crash leaves of such a
//! write is a torn batch, as of any other.
//!
//! All that happens to the files is entered in a [`Book`] on the way, and what must be in
//! the [`ledger`](super::ledger) before it happens is written there first: a file that is
//! removed, renamed or cut. What must be there before a write is acknowledged,
//! [`LogFiles::keep_ledger`] writes.

use std::io::{Error, Result, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

use super::inspect;
use super::ledger::{Book, Ledger, Name};
use super::ledger_file::LedgerFile;

/// Zeros written at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A larger write is synced in pieces of this size.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// The most that the engine asks room for ahead of a write. If it asks for more, all of that is filled by
/// the write itself.
const AHEAD_BYTES_MAX: usize = 2 << 20;

/// Called after a piece of a write has reached the disk.
type OnPiece = Box<dyn Fn() + Send + Sync>;

/// The system's file.
type SystemFile = <DefaultFileSystem as FileSystem>::Handle;

/// The book of the files, and where it is written down; `None` until there is such a file.
#[derive(Default)]
struct Accounts {
    book: Book,
    ledger: Option<LedgerFile>,
}

impl Accounts {
    /// Writes the ledger, if there is anything new to say.
    fn write(&mut self) -> Result<()> {
        if let (Some(ledger), Some(news)) = (&mut self.ledger, self.book.news()) {
            ledger.write(news)?;
            self.book.told();
            step(true);
        }
        Ok(())
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct LogFiles {
    accounts: Arc<Mutex<Accounts>>,
    on_piece: Arc<OnceLock<OnPiece>>,
}

impl LogFiles {
    /// Files of which this much is there, and durable; the ledger says so before it returns.
    pub(super) fn new(found: Ledger, ledger: Option<LedgerFile>) -> Result<LogFiles> {
        let files = LogFiles::default();
        *files.accounts() = Accounts { book: Book::new(found), ledger };
        files.keep_ledger()?;
        Ok(files)
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        accounts(&self.accounts)
    }

    /// From now on there is a ledger.
    pub(super) fn begin_ledger(&self, ledger: LedgerFile) {
        self.accounts().ledger = Some(ledger);
    }

    /// Whether a write must not be acknowledged before the ledger is written.
    pub(super) fn ledger_lags(&self) -> bool {
        self.accounts().book.lags()
    }

    /// Tells the ledger what it does not know yet.
    pub(super) fn keep_ledger(&self) -> Result<()> {
        self.accounts().write()
    }

    /// From now on `told` is called after each piece of a large write but the last; once.
    pub(super) fn on_piece(&self, told: impl Fn() + Send + Sync + 'static) {
        assert!(self.on_piece.set(Box::new(told)).is_ok(), "one is told");
    }

    fn handle(&self, path: &Path, file: SystemFile) -> Result<LogFileHandle> {
        let name = inspect::parse_name(path);
        if let Some(name) = name {
            self.accounts().book.begin(name, file.file_size()? as u64);
        }
        Ok(LogFileHandle { file: Arc::new(file), name, accounts: Arc::clone(&self.accounts) })
    }

    /// A file is to go from its place.
    fn let_go(&self, path: &Path) -> Result<()> {
        let Some(name) = inspect::parse_name(path) else { return Ok(()) };
        let mut accounts = self.accounts();
        if accounts.book.drop_through(name) { accounts.write() } else { Ok(()) }
    }
}

fn accounts(shared: &Mutex<Accounts>) -> MutexGuard<'_, Accounts> {
    shared.lock().expect("no thread panics holding it")
}

#[cfg(test)]
type OnStep = Box<dyn FnMut(bool)>;

#[cfg(test)]
thread_local! {
    static ON_STEP: std::cell::RefCell<Option<OnStep>> = const { std::cell::RefCell::new(None) };
}

/// Has a test look at the disk of this thread's logs whenever it has changed, and told whether it was the ledger.
#[cfg(test)]
pub(super) fn at_each_step(look: Option<OnStep>) {
    ON_STEP.with(|on_step| *on_step.borrow_mut() = look);
}

/// Something on the disk has changed.
fn step(_ledger_written: bool) {
    #[cfg(test)]
    if let Some(mut look) = ON_STEP.with(|on_step| on_step.take()) {
        look(_ledger_written);
        at_each_step(Some(look));
    }
}

/// An open file.
pub(super) struct LogFileHandle {
    file: Arc<SystemFile>,
    /// `None`: it is none of the log's.
    name: Option<Name>,
    accounts: Arc<Mutex<Accounts>>,
}

impl LogFileHandle {
    fn enter<T>(&self, entry: impl FnOnce(&mut Book, Name) -> T) -> Option<T> {
        self.name.map(|name| entry(&mut accounts(&self.accounts).book, name))
    }
}

impl Handle for LogFileHandle {
    /// At a start, which has told the ledger where the last whole write ends.
    fn truncate(&self, offset: usize) -> Result<()> {
        self.file.truncate(offset)
    }

    fn file_size(&self) -> Result<usize> {
        self.file.file_size()
    }

    fn sync(&self) -> Result<()> {
        self.file.sync()?;
        self.enter(Book::synced);
        step(false);
        Ok(())
    }
}

/// Writes one file.
pub(super) struct LogFileWriter {
    file: <DefaultFileSystem as FileSystem>::Writer,
    handle: Arc<LogFileHandle>,
    on_piece: Arc<OnceLock<OnPiece>>,
}

impl FileSystem for LogFiles {
    type Handle = LogFileHandle;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = LogFileWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<LogFileHandle> {
        self.handle(path.as_ref(), DefaultFileSystem.create(&path)?)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> Result<LogFileHandle> {
        self.handle(path.as_ref(), DefaultFileSystem.open(&path, permission)?)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        self.let_go(path.as_ref())?;
        DefaultFileSystem.delete(path)?;
        step(false);
        Ok(())
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> Result<()> {
        self.let_go(from.as_ref())?;
        DefaultFileSystem.rename(from, to)?;
        step(false);
        Ok(())
    }

    fn new_reader(&self, handle: Arc<LogFileHandle>) -> Result<Self::Reader> {
        DefaultFileSystem.new_reader(Arc::clone(&handle.file))
    }

    fn new_writer(&self, handle: Arc<LogFileHandle>) -> Result<LogFileWriter> {
        let file = DefaultFileSystem.new_writer(Arc::clone(&handle.file))?;
        Ok(LogFileWriter { file, handle, on_piece: Arc::clone(&self.on_piece) })
    }
}

impl Write for LogFileWriter {
    /// All of it, or an error: what was written of it then counts for nothing.
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut pieces = bytes.chunks(PIECE_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            self.file.write_all(piece)?;
            if pieces.peek().is_some() {
                // Whatever the reason, it is not tried again: see `failure`.
                self.handle.file.sync().map_err(Error::other)?;
                if let Some(told) = self.on_piece.get() {
                    told();
                }
            }
        }
        let checksums = inspect::checksums(bytes);
        self.handle.enter(|book, name| book.wrote(name, bytes.len() as u64, checksums));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

impl Seek for LogFileWriter {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let position = self.file.seek(to)?;
        let fits = self.handle.enter(|book, name| book.seek(name, position));
        if fits == Some(false) {
            return Err(Error::other(format!(
                "a log file is not written at byte {position}: it ends elsewhere"
            )));
        }
        Ok(position)
    }
}

impl WriteExt for LogFileWriter {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        if let Some(name) = self.handle.name {
            let mut accounts = accounts(&self.handle.accounts);
            if accounts.book.shorten(name, offset as u64) {
                accounts.write()?;
            }
        }
        self.file.truncate(offset)?;
        step(false);
        Ok(())
    }

    /// Fills the room with zeros. The position stays. The engine takes an error for a
    /// warning: the write that follows meets it again.
    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        if size > AHEAD_BYTES_MAX {
            return Ok(());
        }
        let position = self.file.stream_position()?;
        self.file.seek(SeekFrom::Start(offset as u64))?;
        let mut left = size;
        let mut filled = Ok(());
        while left > 0 && filled.is_ok() {
            let bytes = left.min(ZEROS.len());
            filled = self.file.write_all(&ZEROS[..bytes]);
            left -= bytes;
        }
        self.file.seek(SeekFrom::Start(position))?;
        if filled.is_ok() {
            self.handle.enter(|book, name| book.grown(name, (offset + size) as u64));
        }
        step(false);
        filled
    }
}
