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
//! The format (raft-engine 0.4, `file_pipe_log/format.rs` and `log_batch.rs`): a file is a header (magic, version,
//! alignment) and batches; a batch is a header (length and compression, offset of the footer), entries with their
//! CRC, and a footer with its CRC, which is combined with the file's number, so that what a recycled file still
//! holds from its earlier life does not count.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the names of the files end with that entries are appended to.
pub(super) const APPEND_SUFFIX: &str = ".raftlog";
const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
pub(super) const FILE_HEADER_LEN: usize = MAGIC.len() + 16;
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

/// Checks all log files of `directory`. Whether there are any: a log that was ever opened has one.
pub(super) fn inspect(directory: &Path) -> io::Result<Result<bool, DamageError>> {
    let mut is_there = false;
    for (suffix, torn_max) in [(APPEND_SUFFIX, usize::MAX), (".rewrite", REWRITE_UNSYNCED_BYTES_MAX)] {
        let files = files(directory, suffix)?;
        is_there |= !files.is_empty();
        for (position, (number, path)) in files.iter().enumerate() {
            let last = position + 1 == files.len();
            let bytes = fs::read(path)?;
            let checked = check_file(&bytes, *number as u32, last, suffix == ".rewrite", torn_max);
            match checked {
                Ok(offset) => note_rest(path, &bytes, offset),
                Err((offset, what)) => {
                    return Ok(Err(DamageError { file: path.clone(), offset: offset as u64, what }));
                }
            }
        }
    }
    Ok(Ok(is_there))
}

/// The files of one queue by number. A purge removes the oldest first, and a crash may undo some of its removals:
/// what lies before a gap is gone, for the engine and for us.
fn files(directory: &Path, suffix: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for item in listing {
        let path = item?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(suffix)?.parse::<u64>().ok());
        if let Some(number) = number {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    let gap = files.windows(2).rposition(|pair| pair[1].0 - pair[0].0 != 1);
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

/// Where the last whole batch ends, or where the damage is and what it is.
fn check_file(
    bytes: &[u8],
    signature: u32,
    last: bool,
    rewrite: bool,
    torn_max: usize,
) -> Result<usize, (usize, &'static str)> {
    let mut offset = 0;
    let mut what = "the file's header is broken";
    if bytes.starts_with(MAGIC) && bytes.len() >= FILE_HEADER_LEN {
        offset = FILE_HEADER_LEN;
        what = "a batch's checksum is wrong";
        while let Some(length) = batch(&bytes[offset..], signature) {
            offset += length;
        }
    }
    if offset == bytes.len() {
        return Ok(offset);
    }
    let tail = &bytes[offset..];
    if !last {
        return Err((offset, what));
    }
    let torn = match rewrite {
        true => tail.len() <= torn_max,
        false => !(1..tail.len()).any(|later| batch(&tail[later..], signature).is_some()),
    };
    if torn { Ok(offset) } else { Err((offset, what)) }
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
