//! The file `ledger` of a data directory: what the log must hold, as [`ledger`](super::ledger) decides it.
//!
//! It is text in two places of fixed size that are written in turns, so that a write that a crash tears leaves the
//! one before. Nothing is renamed and the file does not grow: a write costs one sync of a few hundred bytes.
//!
//! It lies outside of the log's folder, so that a copy of that folder which is put back does not bring its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::OpenError;
use super::ledger::Ledger;

const FILE_NAME: &str = "ledger";

/// Bytes of each of the two places.
const PLACE_BYTES: usize = 128 << 10;

/// The file, which this process has for itself.
pub(super) struct LedgerFile {
    path: PathBuf,
    file: File,
    generation: u64,
}

/// Where it is.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(FILE_NAME)
}

impl LedgerFile {
    /// Opens the file of a data directory, if there is one.
    pub(super) fn open(directory: &Path) -> Result<Option<(LedgerFile, Ledger)>, OpenError> {
        let path = path(directory);
        let failed = |source| OpenError::Io { path: path.clone(), source };
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::InUse { path }),
            Err(error) => return Err(failed(error.into())),
        }
        let bytes = fs::read(&path).map_err(failed)?;
        let whole =
            bytes.chunks(PLACE_BYTES).filter_map(|text| Ledger::parse(&String::from_utf8_lossy(text)));
        let Some((generation, ledger)) = whole.max_by_key(|(generation, _)| *generation) else {
            return Err(OpenError::LedgerDamaged { path });
        };
        Ok(Some((LedgerFile { path, file, generation }, ledger)))
    }

    /// Makes the file, with a ledger that asks for nothing.
    pub(super) fn create(directory: &Path) -> Result<LedgerFile, OpenError> {
        let path = path(directory);
        let make = || {
            let beside = path.with_extension("new");
            let mut bytes = Ledger::default().render(0).into_bytes();
            bytes.resize(2 * PLACE_BYTES, 0);
            let mut file = File::create(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(directory)?.sync_all()
        };
        make().map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let opened = LedgerFile::open(directory)?;
        Ok(opened.expect("it has just been made").0)
    }

    /// Makes a ledger durable.
    pub(super) fn write(&mut self, ledger: &Ledger) -> io::Result<()> {
        let generation = self.generation + 1;
        let text = ledger.render(generation);
        assert!(text.len() <= PLACE_BYTES, "the number of files it names is bounded");
        let told =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
        self.file.write_all_at(text.as_bytes(), generation % 2 * PLACE_BYTES as u64).map_err(told)?;
        self.file.sync_data().map_err(told)?;
        self.generation = generation;
        Ok(())
    }
}
