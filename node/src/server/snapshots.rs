//! The folder of a node's snapshot files; [`super::snapshot_file`] tells what is in one.
//!
//! A file is written beside, with the ending `new`, synced and renamed. So a file of the right name is
//! whole, and damage to it later is found when it is read.
//!
//! A file that is being received has the ending `part`; its length says where the transfer goes on.
//!
//! INVARIANT: the file that the log calls a group's newest snapshot is there.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use super::{
    data_directory::sync_parent,
    snapshot_file::{SnapshotError, SnapshotReader, SnapshotWriter, verify},
};
use crate::log::Fatal;

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

    /// The node's data directory.
    pub fn data_directory(&self) -> &Path {
        self.directory.parent().unwrap_or(&self.directory)
    }

    /// Where a snapshot is, or will be.
    pub fn path(&self, name: SnapshotName) -> PathBuf {
        self.directory.join(name.file())
    }

    /// Where a snapshot is received.
    pub fn part(&self, name: SnapshotName) -> PathBuf {
        self.path(name).with_extension("part")
    }

    /// Where a snapshot of `shard` is written until it has a name: the one of this number in this life of
    /// the process.
    fn beside(&self, shard: u32, number: u64) -> PathBuf {
        self.directory.join(format!("{shard:05}-{number}.new"))
    }

    /// Begins to write a snapshot.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(&self, shard: u32, number: u64) -> io::Result<SnapshotWriter> {
        SnapshotWriter::create(&self.beside(shard, number))
    }

    /// A snapshot has been written: makes it durable under its name. Returns its bytes.
    ///
    /// # Errors
    /// The disk's.
    pub fn publish(&self, writer: SnapshotWriter, number: u64, name: SnapshotName) -> io::Result<u64> {
        let bytes = writer.finish()?;
        let path = self.path(name);
        fs::rename(self.beside(name.shard, number), &path)?;
        sync_parent(&path)?;
        Ok(bytes)
    }

    /// A snapshot that was begun is of no use.
    ///
    /// # Errors
    /// The disk's.
    pub fn discard(&self, shard: u32, number: u64) -> io::Result<()> {
        fs::remove_file(self.beside(shard, number))
    }

    /// A received file is complete: checks it, and gives it its name. One of a newer build stops the
    /// process: what this replica lacks it could never read.
    ///
    /// # Errors
    /// The disk's, or the file is not what its sender wrote; then it is gone.
    pub fn accept(&self, name: SnapshotName) -> io::Result<()> {
        let part = self.part(name);
        if let Err(error) = verify(&part) {
            if error.is_newer() {
                Fatal::Newer(error.to_string()).stop();
            }
            let _ = fs::remove_file(&part);
            return Err(io::Error::other(error));
        }
        OpenOptions::new().read(true).open(&part)?.sync_all()?;
        let path = self.path(name);
        fs::rename(&part, &path)?;
        sync_parent(&path)
    }

    /// A snapshot, to be read.
    ///
    /// # Errors
    /// The disk's, or it is not one that this build reads.
    pub fn read(&self, name: SnapshotName) -> Result<SnapshotReader, SnapshotError> {
        SnapshotReader::open(&self.path(name))
    }

    /// Checks a whole snapshot.
    ///
    /// # Errors
    /// It is damaged, or of another format.
    pub fn verify(&self, name: SnapshotName) -> Result<(), SnapshotError> {
        verify(&self.path(name))
    }

    /// Bytes of a snapshot's file; 0 if it cannot be found.
    pub fn bytes(&self, name: SnapshotName) -> u64 {
        fs::metadata(self.path(name)).map_or(0, |metadata| metadata.len())
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

    /// Lets all files of a shard go.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(&self, shard: u32) -> io::Result<()> {
        let of_shard = format!("{shard:05}-");
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&of_shard)) {
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

#[cfg(test)]
mod tests {
    use moonraft_proto::entry::{BatchWriter, Head, NEWEST_FORMAT};

    use super::*;

    const NAME: SnapshotName = SnapshotName { shard: 2, index: 70, term: 3 };

    /// Writes a snapshot of nothing.
    fn write(files: &SnapshotFiles, name: SnapshotName) {
        let mut writer = files.create(name.shard, 1).unwrap();
        writer.push(&BatchWriter::default().seal(Head { stamp_ms: 7, sequence: 0 }, NEWEST_FORMAT)).unwrap();
        files.publish(writer, 1, name).unwrap();
    }

    #[test]
    fn a_snapshot_has_its_name_only_when_it_is_whole() {
        let place = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(place.path()).unwrap();
        drop(files.create(NAME.shard, 1).unwrap());
        assert!(files.read(NAME).is_err() && files.verify(NAME).is_err());
        files.sweep().unwrap();
        assert_eq!(fs::read_dir(place.path().join("snapshots")).unwrap().count(), 0);
        write(&files, NAME);
        files.verify(NAME).unwrap();
        assert_eq!(files.bytes(NAME), fs::metadata(files.path(NAME)).unwrap().len());
    }

    #[test]
    fn only_what_is_older_than_the_logs_newest_goes() {
        let place = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(place.path()).unwrap();
        let other = SnapshotName { shard: 1, index: 1, ..NAME };
        let names = [9, 80, 700].map(|index| SnapshotName { index, ..NAME });
        for name in names.into_iter().chain([other]) {
            write(&files, name);
        }
        fs::write(files.part(names[0]), b"x").unwrap();
        files.prune(NAME.shard, 80).unwrap();
        assert!(!files.path(names[0]).exists() && !files.part(names[0]).exists());
        assert!(files.path(names[1]).exists() && files.path(names[2]).exists() && files.path(other).exists());
        drop(files.create(NAME.shard, 7).unwrap());
        fs::write(files.part(names[0]), b"x").unwrap();
        files.remove(NAME.shard).unwrap();
        assert_eq!(fs::read_dir(place.path().join("snapshots")).unwrap().count(), 1);
        assert!(files.path(other).exists());
    }

    #[test]
    fn a_received_file_that_is_not_whole_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(place.path()).unwrap();
        write(&files, NAME);
        fs::rename(files.path(NAME), files.part(NAME)).unwrap();
        files.accept(NAME).unwrap();
        files.verify(NAME).unwrap();
        fs::write(files.part(NAME), "MOONSNAP nonsense that is long enough").unwrap();
        assert!(files.accept(NAME).is_err());
        assert!(!files.part(NAME).exists());
    }

    #[test]
    fn a_received_file_of_a_newer_build_stops_the_process() {
        let place = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(place.path()).unwrap();
        let mut chunk =
            BatchWriter::default().seal(Head { stamp_ms: 7, sequence: 0 }, NEWEST_FORMAT).to_vec();
        chunk[0] = NEWEST_FORMAT + 1;
        let mut writer = files.create(NAME.shard, 1).unwrap();
        writer.push(&chunk).unwrap();
        files.publish(writer, 1, NAME).unwrap();
        fs::rename(files.path(NAME), files.part(NAME)).unwrap();
        let stopped = std::panic::catch_unwind(|| files.accept(NAME)).unwrap_err();
        let Some(Fatal::Newer(line)) = Fatal::of(&*stopped) else { panic!("it says why") };
        let reads = format!("this build reads up to {NEWEST_FORMAT}");
        assert!(line.contains("00002-") && line.contains(&reads), "{line}");
        assert!(
            files.part(NAME).exists() && !files.path(NAME).exists(),
            "it waits for a build that reads it"
        );
    }
}
