//! Checks every byte of the log's files before they are opened.
//!
//! raft-engine cuts the last file at the first batch that does not check out, whatever comes behind it, and looks
//! at the payload of old batches only when they are read. Both are too trusting for a log that holds acknowledged
//! writes: a flipped bit in the middle of the last file would silently drop all that was synced after it. So this
//! module reads the files first:
//!
//! * a batch that does not check out at the very end is what a crash leaves: the engine may cut it;
//! * a batch that does not check out with a good one behind it, or in an older file, is damage.
//!
//! What is not there at all checks out, too, so each file is compared with what the ledger says of it.
//!
//! The format (raft-engine 0.4, `file_pipe_log/format.rs` and `log_batch.rs`): a file is a header (magic, version,
//! alignment) and batches; a batch is a header (length and compression, offset of the footer), entries with their
//! CRC, and a footer with its CRC, which is combined with the file's number, so that what a recycled file still
//! holds from its earlier life does not count. A newest file whose header a crash kept from the disk is begun anew in
//! the older version: its header has no alignment, its batches are not combined with a number, and it is not recycled.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crc32fast::Hasher;

use super::OpenError;
use super::ledger::{Found, Kind, Ledger, Loss, Mark, Name};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const BATCH_HEADER_LEN: usize = 16;
const CHECKSUM_LEN: usize = 4;

/// What a purge may have written and not yet synced of the rewrite queue: the engine syncs every 512 KiB there, and
/// a batch is at most one large entry more. Until the sync the same entries are still in the append queue.
const REWRITE_UNSYNCED_BYTES_MAX: usize = 64 << 20;

/// The log is damaged where no crash can have torn it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log is damaged: {path}, offset {offset}: {what}. Entries that this node acknowledged may be lost, so it does not start",
    path = .file.display()
)]
pub struct DamageError {
    /// The damaged file.
    pub file: PathBuf,
    /// Where the first batch begins that does not check out.
    pub offset: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

/// A file of the log is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log has lost something: {path} {loss}. Entries that this node acknowledged may be lost, so it does not start",
    path = .file.display()
)]
pub struct LossError {
    /// The file.
    pub file: PathBuf,
    /// What it lacks.
    pub loss: Loss,
}

/// Checks all log files of `directory`, against what the ledger asks for. Returns what is there, as the ledger may
/// say it; a log that was ever opened has files.
pub(super) fn inspect(directory: &Path, ledger: &Ledger) -> Result<Ledger, OpenError> {
    let listed = |kind| files(directory, kind, ledger);
    let failed = |path: &Path, source| OpenError::Io { path: path.to_owned(), source };
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let files = listed(kind).map_err(|source| failed(directory, source))?;
        all.extend(files.iter().enumerate().map(|(place, name)| (*name, place + 1 == files.len())));
    }
    if all.is_empty() && ledger.marks().next().is_some() {
        return Err(OpenError::Missing { path: directory.to_owned() });
    }
    for (name, mark) in ledger.marks() {
        let file = directory.join(file_name(name));
        let there = all.iter().any(|(other, _)| *other == name);
        if let Some(loss) = mark.loss(None).filter(|_| !there) {
            return Err(LossError { file, loss }.into());
        }
    }
    let mut found = Ledger::default();
    for (name, is_last) in all {
        let path = directory.join(file_name(name));
        let bytes = fs::read(&path).map_err(|source| failed(&path, source))?;
        found.set(name, check(path, &bytes, name, is_last, ledger.mark(name))?);
    }
    Ok(found)
}

/// Checks a file. One that was cut is called so, wherever that left it.
fn check(
    path: PathBuf,
    bytes: &[u8],
    (kind, number): Name,
    is_last: bool,
    asked: Option<&Mark>,
) -> Result<Mark, OpenError> {
    let mut walk = Walk::default();
    let checked = walk.check_file(bytes, number, is_last, kind, asked.map_or(0, |mark| mark.synced));
    let (length, whole) = (bytes.len() as u64, walk.whole as u64);
    let found = Found { length, whole, checksum: walk.checksum };
    let lost = |loss| OpenError::from(LossError { file: path.clone(), loss });
    match (asked.and_then(|mark| mark.loss(Some(found))), checked) {
        (Some(loss @ Loss::Shorter { .. }), _) => return Err(lost(loss)),
        (_, Err(what)) => return Err(DamageError { file: path, offset: whole, what }.into()),
        (Some(loss), Ok(())) => return Err(lost(loss)),
        (None, Ok(())) => {}
    }
    note_rest(&path, bytes, walk.whole);
    // What comes behind is cut by whoever writes next.
    Ok(Mark { length: whole, synced: whole, checksum: walk.hash.finalize() })
}

/// Makes durable what was found: a process may have been killed between a write and its sync, and what a start has
/// found counts as synced.
pub(super) fn sync(directory: &Path, found: &Ledger) -> io::Result<()> {
    let newest = |kind| found.marks().map(|(name, _)| name).filter(|name| name.0 == kind).last();
    for name in Kind::ALL.into_iter().filter_map(newest) {
        File::open(directory.join(file_name(name)))?.sync_all()?;
    }
    File::open(directory)?.sync_all()
}

/// The name of a file of the log.
pub(super) fn file_name((kind, number): Name) -> String {
    format!("{number:016}.{}", kind.ending())
}

/// Which file of the log it is.
pub(super) fn parse_name(path: &Path) -> Option<Name> {
    let (number, ending) = path.file_name()?.to_str()?.split_once('.')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.ending() == ending)?;
    Some((kind, number.parse().ok()?))
}

/// The files of one kind, by number. A purge removes the oldest first, and a crash may undo some of its removals: what
/// lies before a gap that the ledger does not ask for is gone, for the engine and for us.
fn files(directory: &Path, kind: Kind, ledger: &Ledger) -> io::Result<Vec<Name>> {
    let mut files = Vec::new();
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for item in listing {
        files.extend(parse_name(&item?.path()).filter(|name| name.0 == kind));
    }
    files.sort_unstable();
    let gap = files.windows(2).rposition(|pair| pair[1].1 - pair[0].1 != 1 && ledger.mark(pair[0]).is_none());
    files.drain(..gap.map_or(0, |position| position + 1));
    Ok(files)
}

/// Tells of bytes behind the last whole batch. Zeros are room that was set aside.
fn note_rest(path: &Path, bytes: &[u8], offset: usize) {
    let rest = &bytes[offset..];
    if rest.iter().any(|byte| *byte != 0) {
        let (path, count) = (path.display(), rest.len());
        tracing::info!(
            "{path} is cut at offset {offset}: the {count} bytes behind it are a write that a crash tore, or what the file held before it was used again"
        );
    }
}

/// What is found in a file.
#[derive(Default)]
struct Walk {
    /// Where the last whole batch ends.
    whole: usize,
    hash: Hasher,
    /// Of the batches that end where it was asked.
    checksum: Option<u32>,
}

impl Walk {
    /// Reads a file; an error tells what is wrong behind its last whole batch, if no crash explains that.
    fn check_file(
        &mut self,
        bytes: &[u8],
        number: u64,
        last: bool,
        kind: Kind,
        synced: u64,
    ) -> Result<(), &'static str> {
        self.reach(0, synced);
        let mut what = "the file's header is broken";
        let mut signatures = vec![number as u32, UNSIGNED];
        if let Some(Header { length, signed }) = header(bytes) {
            self.reach(length, synced);
            what = "a batch's checksum is wrong";
            let signature = if signed { number as u32 } else { UNSIGNED };
            signatures = vec![signature];
            while let Some(length) = batch(&bytes[self.whole..], signature) {
                let [entries, rest] = checksums(&bytes[self.whole..self.whole + length]);
                self.hash.update(entries);
                self.hash.update(rest);
                self.reach(self.whole + length, synced);
            }
        }
        let tail = &bytes[self.whole..];
        let good = |later: usize| signatures.iter().any(|&it| batch(&tail[later..], it).is_some());
        let torn = match kind {
            _ if tail.is_empty() => true,
            _ if !last => false,
            Kind::Rewrite => tail.len() <= REWRITE_UNSYNCED_BYTES_MAX,
            Kind::Append => !(1..tail.len()).any(good),
        };
        if torn { Ok(()) } else { Err(what) }
    }

    fn reach(&mut self, offset: usize, synced: u64) {
        self.whole = offset;
        if offset as u64 == synced {
            self.checksum = Some(self.hash.clone().finalize());
        }
    }
}

/// The header of a file.
pub(super) struct Header {
    pub(super) length: usize,
    /// Whether the checksums of batches are combined with the file's number.
    signed: bool,
}

/// What the checksums of other batches are combined with: nothing changes.
const UNSIGNED: u32 = 0;

/// The header at the begin of `bytes`, if it is whole.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    let version = bytes.strip_prefix(MAGIC)?.first_chunk()?;
    let (length, signed) = match u64::from_be_bytes(*version) {
        1 => (MAGIC.len() + 8, false),
        2 => (MAGIC.len() + 16, true),
        _ => return None,
    };
    (bytes.len() >= length).then_some(Header { length, signed })
}

/// The checksums in a whole batch: of its entries, if it has any, and of the rest. None of a file's header.
pub(super) fn checksums(bytes: &[u8]) -> [&[u8]; 2] {
    let at = |end: usize| bytes.get(end.saturating_sub(CHECKSUM_LEN)..end).unwrap_or_default();
    if bytes.starts_with(MAGIC) || bytes.len() < BATCH_HEADER_LEN {
        return [&[]; 2];
    }
    let footer = u64::from_be_bytes(*bytes[8..].first_chunk().expect("a header is longer"));
    [at(footer as usize), at(bytes.len())]
}

/// The length of the batch at the begin of `bytes`, if it checks out.
pub(super) fn batch(bytes: &[u8], signature: u32) -> Option<usize> {
    let header = bytes.get(..BATCH_HEADER_LEN)?;
    let length_and_type = u64::from_be_bytes(header[..8].try_into().ok()?);
    let footer = u64::from_be_bytes(header[8..].try_into().ok()?);
    let (length, compression) = (length_and_type >> 8, length_and_type & 0xff);
    let plausible = compression <= 1
        && length <= bytes.len() as u64
        && footer >= BATCH_HEADER_LEN as u64
        && footer < length;
    if !plausible {
        return None;
    }
    let entries = &bytes[BATCH_HEADER_LEN..footer as usize];
    let footer = &bytes[footer as usize..length as usize];
    let good = checksum(footer, signature) && (entries.is_empty() || checksum(entries, 0));
    good.then_some(length as usize)
}

fn checksum(bytes: &[u8], signature: u32) -> bool {
    let Some((content, expected)) = bytes.split_last_chunk::<CHECKSUM_LEN>() else {
        return false;
    };
    !content.is_empty() && crc32fast::hash(content) == u32::from_le_bytes(*expected) ^ signature
}
