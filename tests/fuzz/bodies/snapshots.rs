//! Snapshot files: what was written is read, and no bytes are taken for what was not.
//!
//! Checksums keep a fuzzer from what is behind them, so the bytes are read three times: as a file; as the chunks of
//! a file that is written right; and as that file with one byte of it changed, or its end cut off.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use moonraft::server::snapshot_file::{SnapshotReader, SnapshotWriter, verify};
use moonraft_proto::entry::Batch;
use tempfile::TempDir;

/// Where a chunk ends in the input.
const CHUNK_END: u8 = b'\n';

/// See the module.
pub fn run(bytes: &[u8]) {
    let path = place();
    fs::write(&path, bytes).expect("the disk has room");
    let _ = verify(&path); // right or wrong, it does not panic

    let (damage, content) = bytes.split_at(bytes.len().min(4));
    let chunks: Vec<&[u8]> =
        content.split(|byte| *byte == CHUNK_END).filter(|chunk| !chunk.is_empty()).collect();
    let mut writer = SnapshotWriter::create(&path).expect("the disk has room");
    chunks.iter().for_each(|chunk| writer.push(chunk).expect("the disk has room"));
    let length = writer.finish().expect("the disk has room");
    read_back(&path, &chunks);

    let whole = fs::read(&path).expect("it was just written");
    assert_eq!(whole.len() as u64, length);
    let &[high, low, change, cuts] = damage else { return };
    let mut damaged = whole;
    let at = usize::from(u16::from_be_bytes([high, low])) % damaged.len();
    match cuts & 1 {
        0 if change == 0 => return,
        0 => damaged[at] ^= change,
        _ => damaged.truncate(at),
    }
    fs::write(&path, &damaged).expect("the disk has room");
    assert!(verify(&path).is_err(), "damage at byte {at} goes unnoticed");
}

/// Chunks come back as they were; one that is no batch is told of, as another format's.
fn read_back(path: &Path, chunks: &[&[u8]]) {
    let mut reader = SnapshotReader::open(path).expect("it was written right");
    for chunk in chunks {
        match reader.next_chunk() {
            Ok(read) => {
                assert!(Batch::decode(chunk).is_ok(), "a chunk that is no batch");
                assert_eq!(read.as_deref(), Some(*chunk));
            }
            Err(error) => {
                assert!(Batch::decode(chunk).is_err() && !error.is_damage(), "{error}");
                return;
            }
        }
    }
    assert!(matches!(reader.next_chunk(), Ok(None)));
}

/// A file of this process; in memory, where there is such a place.
fn place() -> PathBuf {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
    });
    directory.path().join("snapshot")
}
