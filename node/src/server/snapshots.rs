//! Snapshot files of a node.
//!
//! A file is a header and the snapshot's bytes: magic (8), CRC-32 of the bytes (4,
//! little endian), their length (8). It is written beside, synced and renamed, so
//! a file of the right name is whole, and damage to it later is found when read.
//!
//! A file that is being received has the ending `part`; its length says where the
//! transfer goes on.
//!
//! INVARIANT: the file that the log calls a group's newest snapshot is there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::data_directory::sync_parent;

const MAGIC: &[u8; 8] = b"MOONSNP1";
const HEADER_BYTES: usize = 20;

/// The snapshot files of a node.
#[derive(Clone, Debug)]
pub struct SnapshotFiles {
    directory: PathBuf,
}

/// Which snapshot: shard, last entry in it, that entry's term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName {
    /// The shard.
    pub shard: u32,
    /// The last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
}

impl SnapshotName {
    fn file(self) -> String {
        format!("{:05}-{:020}-{:020}.snapshot", self.shard, self.index, self.term)
    }

    /// The snapshot that a file is, or is a part of.
    fn parse(file: &str) -> Option<Self> {
        let mut numbers = file.strip_suffix(".snapshot").or(file.strip_suffix(".part"))?.split('-');
        let shard = numbers.next()?.parse().ok()?;
        let index = numbers.next()?.parse().ok()?;
        let term = numbers.next()?.parse().ok()?;
        Some(Self { shard, index, term })
    }
}

impl SnapshotFiles {
    /// The files under `data`, the node's data directory.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(data: &Path) -> io::Result<Self> {
        let directory = data.join("snapshots");
        fs::create_dir_all(&directory)?;
        sync_parent(&directory)?;
        Ok(Self { directory })
    }

    /// Where a snapshot is, or will be.
    pub fn path(&self, name: SnapshotName) -> PathBuf {
        self.directory.join(name.file())
    }

    /// Where a snapshot is received.
    pub fn part(&self, name: SnapshotName) -> PathBuf {
        self.path(name).with_extension("part")
    }

    /// Writes a snapshot durably.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, name: SnapshotName, data: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(MAGIC)?;
        file.write_all(&crc32fast::hash(data).to_le_bytes())?;
        file.write_all(&(data.len() as u64).to_le_bytes())?;
        file.write_all(data)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        sync_parent(&path)
    }

    /// A received file is complete: checks it, and gives it its name.
    ///
    /// # Errors
    /// The disk's, or the file is not what its sender wrote; then it is gone.
    pub fn accept(&self, name: SnapshotName) -> io::Result<()> {
        let part = self.part(name);
        if let Err(error) = read_checked(&part) {
            let _ = fs::remove_file(&part);
            return Err(error);
        }
        OpenOptions::new().read(true).open(&part)?.sync_all()?;
        let path = self.path(name);
        fs::rename(&part, &path)?;
        sync_parent(&path)
    }

    /// The bytes of a snapshot.
    ///
    /// # Errors
    /// The disk's, or the file is damaged.
    pub fn read(&self, name: SnapshotName) -> io::Result<Bytes> {
        let path = self.path(name);
        read_checked(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// Lets go what is older than the snapshot at `index`, which the log durably
    /// calls the newest of its shard. A transfer that has an older file open goes on.
    ///
    /// # Errors
    /// The disk's.
    pub fn prune(&self, shard: u32, index: u64) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_str().and_then(SnapshotName::parse);
            if name.is_some_and(|name| name.shard == shard && name.index < index) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Lets go what earlier lives of the process left half done.
    ///
    /// # Errors
    /// The disk's.
    pub fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "new") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn read_checked(path: &Path) -> io::Result<Bytes> {
    let damaged =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot is damaged: {what}"));
    let mut file = File::open(path)?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).map_err(|_| damaged("it has no header"))?;
    if header[..8] != *MAGIC {
        return Err(damaged("it is not one"));
    }
    let checksum = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
    let length = u64::from_le_bytes(header[12..20].try_into().expect("eight bytes"));
    let held = file.metadata()?.len();
    if held != length.saturating_add(HEADER_BYTES as u64) {
        return Err(damaged("its length is wrong"));
    }
    let mut data = Vec::with_capacity(length as usize);
    file.read_to_end(&mut data)?;
    if data.len() as u64 != length || crc32fast::hash(&data) != checksum {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(data.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: SnapshotName = SnapshotName { shard: 2, index: 70, term: 3 };

    #[test]
    fn what_was_written_is_read_and_damage_is_found() {
        let place = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(place.path()).unwrap();
        files.write(NAME, b"the state").unwrap();
        assert_eq!(files.read(NAME).unwrap(), "the state");
        let path = files.path(NAME);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            fs::write(&path, &broken).unwrap();
            assert!(files.read(NAME).is_err(), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(files.read(NAME).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn only_what_is_older_than_the_logs_newest_goes() {
        let place = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(place.path()).unwrap();
        let other = SnapshotName { shard: 1, index: 1, ..NAME };
        let names = [9, 80, 700].map(|index| SnapshotName { index, ..NAME });
        for name in names.into_iter().chain([other]) {
            files.write(name, b"x").unwrap();
        }
        fs::write(files.part(names[0]), b"x").unwrap();
        files.prune(NAME.shard, 80).unwrap();
        assert!(!files.path(names[0]).exists() && !files.part(names[0]).exists());
        assert!(files.path(names[1]).exists() && files.path(names[2]).exists() && files.path(other).exists());
    }

    #[test]
    fn a_received_file_that_is_not_whole_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(place.path()).unwrap();
        files.write(NAME, b"the state").unwrap();
        fs::rename(files.path(NAME), files.part(NAME)).unwrap();
        files.accept(NAME).unwrap();
        assert_eq!(files.read(NAME).unwrap(), "the state");
        fs::write(files.part(NAME), "MOONSNP1 nonsense that is long enough").unwrap();
        assert!(files.accept(NAME).is_err());
        assert!(!files.part(NAME).exists());
    }
}
