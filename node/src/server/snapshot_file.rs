//! The file of a snapshot: written and read chunk by chunk, never whole in memory.
//!
//! ```text
//! header    magic (8) | format: u32 | CRC-32 of these: u32
//! chunk     length: u32, not 0 | CRC-32 of the data: u32 | data: a batch
//! trailer   0: u32 | CRC-32 of what follows: u32 | chunks: u64 | bytes of data: u64 | CRC-32 of all before: u32
//! ```
//!
//! Numbers are little-endian. Nothing comes after the trailer. A chunk's checksum says where a file is
//! damaged; the trailer's, that no chunk is missing, doubled or of another file.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use crc32fast::Hasher;
use moonraft_proto::entry::{Batch, newer_format};
use rustix::fs::{Advice, fadvise};

const MAGIC: &[u8; 8] = b"MOONSNAP";
/// How the file is laid out: what this build writes, and the only one that it reads. What its batches need stands in
/// each of them, and is what was agreed on when it was taken. A change of this number must wait for that, too.
const FORMAT: u32 = 2;
const CHUNK_HEADER_BYTES: usize = 8;
const TRAILER_BYTES: usize = 20;
/// Bytes after which what is written is synced: the log is synced on the same disk, and must not wait for
/// more than its own large writes do at once.
const SYNC_BYTES: u64 = 1 << 20;

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk.
    #[error("cannot read the snapshot {path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what was written.
    #[error(
        "a snapshot is damaged: {path}, offset {offset}: {what}. The log before it is gone, so this node does not start",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where what does not check out begins.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Another build wrote it.
    #[error("the snapshot {path} is of another format: {what}. Start the build that wrote it, or a newer one", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Which format, and which would do.
        what: String,
        /// Newer than this build's.
        is_newer: bool,
    },
}

impl SnapshotError {
    /// Whether what the node needs of it is lost: then only its peers can make it good.
    pub const fn is_damage(&self) -> bool {
        matches!(self, SnapshotError::Io { .. } | SnapshotError::Damaged { .. })
    }

    /// Whether a newer build wrote it.
    pub const fn is_newer(&self) -> bool {
        matches!(self, SnapshotError::Format { is_newer: true, .. })
    }
}

/// Writes a snapshot. It has no right to its name before [`SnapshotWriter::finish`] says so.
pub struct SnapshotWriter {
    file: File,
    whole: Hasher,
    chunks: u64,
    data_bytes: u64,
    /// Bytes of the file, and how many of them were there at the last sync.
    bytes: u64,
    synced: u64,
}

impl SnapshotWriter {
    /// Begins the file.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let mut writer = Self { file, whole: Hasher::new(), chunks: 0, data_bytes: 0, bytes: 0, synced: 0 };
        let mut header = MAGIC.to_vec();
        header.extend(FORMAT.to_le_bytes());
        header.extend(crc32fast::hash(&header).to_le_bytes());
        writer.write(&header)?;
        writer.whole.update(&header);
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Appends a chunk, which is not empty.
    ///
    /// # Errors
    /// The disk's.
    pub fn push(&mut self, data: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        let mut checksum = Hasher::new();
        checksum.update(data);
        let mut header = [0; CHUNK_HEADER_BYTES];
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..].copy_from_slice(&checksum.clone().finalize().to_le_bytes());
        self.write(&header)?;
        self.write(data)?;
        self.whole.update(&header);
        self.whole.combine(&checksum);
        self.chunks += 1;
        self.data_bytes += u64::from(length);
        if self.bytes - self.synced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.forget_synced();
        }
        Ok(())
    }

    /// Nobody will read what has reached the disk, so the system need not keep it in memory. It would keep all of the
    /// file, in the place of what is needed, and give gigabytes back in one moment, when the next snapshot
    /// takes its place: after that a step of the shard was seen to take up to 78 ms.
    fn forget_synced(&mut self) {
        let length = NonZeroU64::new(self.bytes - self.synced);
        let _ = fadvise(&self.file, self.synced, length, Advice::DontNeed); // it is a hint
        self.synced = self.bytes;
    }

    /// All chunks are there: makes the file durable. Returns its bytes.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(mut self) -> io::Result<u64> {
        let mut trailer = [0; CHUNK_HEADER_BYTES + TRAILER_BYTES];
        trailer[8..16].copy_from_slice(&self.chunks.to_le_bytes());
        trailer[16..24].copy_from_slice(&self.data_bytes.to_le_bytes());
        trailer[24..].copy_from_slice(&self.whole.clone().finalize().to_le_bytes());
        let checksum = crc32fast::hash(&trailer[CHUNK_HEADER_BYTES..]);
        trailer[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.write(&trailer)?;
        self.file.sync_all()?;
        self.forget_synced();
        Ok(self.bytes)
    }
}

/// Reads a snapshot and checks it on the way. It is right only if it was read to the end.
pub struct SnapshotReader {
    path: PathBuf,
    input: BufReader<File>,
    whole: Hasher,
    chunks: u64,
    data_bytes: u64,
    offset: u64,
    length: u64,
}

impl SnapshotReader {
    /// Opens a file.
    ///
    /// # Errors
    /// It is no snapshot, or of another format.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let failed = |source| SnapshotError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut reader = Self {
            path: path.to_owned(),
            input: BufReader::new(file),
            whole: Hasher::new(),
            chunks: 0,
            data_bytes: 0,
            offset: 0,
            length,
        };
        let header: [u8; 16] = reader.take()?;
        if header[..8] != *MAGIC {
            return Err(reader.damaged(0, "it does not begin as a snapshot"));
        }
        if crc32fast::hash(&header[..12]) != word(&header[12..]) {
            return Err(reader.damaged(0, "the header's checksum is wrong"));
        }
        reader.whole.update(&header);
        match word(&header[8..12]) {
            FORMAT => Ok(reader),
            other => {
                let what = format!("snapshot format {other}; this build reads format {FORMAT}");
                Err(SnapshotError::Format { path: reader.path, what, is_newer: other > FORMAT })
            }
        }
    }

    fn damaged(&self, offset: u64, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), offset, what }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        if self.length - self.offset < bytes.len() as u64 {
            return Err(self.damaged(self.offset, "the file ends too early"));
        }
        let path = &self.path;
        self.input.read_exact(bytes).map_err(|source| SnapshotError::Io { path: path.clone(), source })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The next chunk; `None` at the end, if all was right.
    ///
    /// # Errors
    /// The file is damaged, or holds a batch of a newer format.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        let offset = self.offset;
        let header: [u8; CHUNK_HEADER_BYTES] = self.take()?;
        let (length, checksum) = (word(&header), word(&header[4..]));
        if length == 0 {
            return self.end(offset, checksum);
        }
        if u64::from(length) > self.length - self.offset {
            return Err(self.damaged(offset, "a chunk is longer than the file"));
        }
        let mut data = vec![0; length as usize];
        self.fill(&mut data)?;
        let mut found = Hasher::new();
        found.update(&data);
        if found.clone().finalize() != checksum {
            return Err(self.damaged(offset, "a chunk's checksum is wrong"));
        }
        self.whole.update(&header);
        self.whole.combine(&found);
        self.chunks += 1;
        self.data_bytes += u64::from(length);
        if let Err(error) = Batch::decode(&data) {
            let (path, what) = (self.path.clone(), error.to_string());
            return Err(SnapshotError::Format { path, what, is_newer: newer_format(&data).is_some() });
        }
        Ok(Some(data))
    }

    fn end(&mut self, offset: u64, checksum: u32) -> Result<Option<Vec<u8>>, SnapshotError> {
        let trailer: [u8; TRAILER_BYTES] = self.take()?;
        if crc32fast::hash(&trailer) != checksum {
            return Err(self.damaged(offset, "the trailer's checksum is wrong"));
        }
        let whole = self.whole.clone().finalize();
        let found = [&self.chunks.to_le_bytes()[..], &self.data_bytes.to_le_bytes(), &whole.to_le_bytes()];
        if found.concat() != trailer {
            return Err(self.damaged(offset, "chunks are missing or are not this file's"));
        }
        if self.offset != self.length {
            return Err(self.damaged(self.offset, "something comes after the end"));
        }
        Ok(None)
    }
}

/// Reads a whole file to see whether it is right.
///
/// # Errors
/// It is not.
pub fn verify(path: &Path) -> Result<(), SnapshotError> {
    let mut reader = SnapshotReader::open(path)?;
    while reader.next_chunk()?.is_some() {}
    Ok(())
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use moonraft_proto::{
        Effect,
        entry::{BatchWriter, Head, NEWEST_FORMAT},
    };

    use super::*;

    fn chunk(value: &[u8]) -> Vec<u8> {
        let mut batch = BatchWriter::default();
        batch.push(&Effect::PutString { key: b"key", value, expires_at: None });
        batch.seal(Head { stamp_ms: 7, sequence: 0 }, NEWEST_FORMAT).to_vec()
    }

    fn write(path: &Path, chunks: &[Vec<u8>]) -> u64 {
        let mut writer = SnapshotWriter::create(path).unwrap();
        chunks.iter().for_each(|chunk| writer.push(chunk).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn what_was_written_is_read_and_damage_is_found_wherever_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let chunks = [chunk(b"one"), chunk(b"two"), chunk(b"")];
        let bytes = write(&path, &chunks);
        let mut reader = SnapshotReader::open(&path).unwrap();
        for chunk in &chunks {
            assert_eq!(reader.next_chunk().unwrap().as_ref(), Some(chunk));
        }
        assert!(reader.next_chunk().unwrap().is_none());
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len() as u64, bytes);
        for at in 0..whole.len() {
            for bit in [1, 0x80] {
                let mut broken = whole.clone();
                broken[at] ^= bit;
                fs::write(&path, &broken).unwrap();
                assert!(verify(&path).is_err(), "byte {at}");
            }
            fs::write(&path, &whole[..at]).unwrap();
            assert!(verify(&path).is_err(), "cut at {at}");
        }
        fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(verify(&path).is_err(), "a byte more");
    }

    #[test]
    fn whole_chunks_that_are_doubled_missing_or_swapped_are_noticed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let [one, two] = [chunk(b"111"), chunk(b"222")];
        write(&path, &[one.clone(), two]);
        let whole = fs::read(&path).unwrap();
        let length = CHUNK_HEADER_BYTES + one.len();
        let (header, rest) = whole.split_at(16);
        let (one, rest) = rest.split_at(length);
        let (two, trailer) = rest.split_at(length);
        for parts in
            [&[header, one, trailer][..], &[header, two, one, trailer], &[header, one, one, two, trailer]]
        {
            fs::write(&path, parts.concat()).unwrap();
            let error = verify(&path).unwrap_err().to_string();
            assert!(error.contains("not this file's"), "{error}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let mut newer = chunk(b"v");
        newer[0] = NEWEST_FORMAT + 1;
        write(&path, &[newer]);
        let error = verify(&path).unwrap_err().to_string();
        assert!(
            error.contains(path.to_str().unwrap()) && error.contains("this build reads up to"),
            "{error}"
        );
        write(&path, &[chunk(b"v")]);
        let mut whole = fs::read(&path).unwrap();
        whole[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
        let checksum = crc32fast::hash(&whole[..12]);
        whole[12..16].copy_from_slice(&checksum.to_le_bytes());
        fs::write(&path, &whole).unwrap();
        let error = verify(&path).unwrap_err().to_string();
        assert!(error.contains("snapshot format 3; this build reads format 2"), "{error}");
        assert!(verify(&path).unwrap_err().is_newer());
    }

    #[test]
    fn damage_is_told_with_file_and_offset() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        write(&path, &[chunk(b"one"), chunk(b"two")]);
        let mut whole = fs::read(&path).unwrap();
        let second = 16 + CHUNK_HEADER_BYTES + chunk(b"one").len();
        whole[second + CHUNK_HEADER_BYTES + 3] ^= 1;
        fs::write(&path, &whole).unwrap();
        let error = verify(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("{}, offset {second}:", path.display())), "{error}");
    }
}
