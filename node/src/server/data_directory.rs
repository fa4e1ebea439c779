//! A node's data directory: whose it is, that no one else uses it, and its shape.
//!
//! The log keeps the owner (cluster and node) in `identity`. Here are kept the
//! lock, which is the system's and goes with the process, and `shape`: numbers of
//! the cluster file that data was laid out by. Other numbers with the same data
//! would deal slots to shards that do not have their keys.
//!
//! INVARIANT: a directory that is refused is not changed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::descriptors;
use crate::config::ClusterFile;

/// The file of the numbers.
const SHAPE: &str = "shape";
/// What the log writes first into a directory of its own; see `log::Identity`.
const IDENTITY: &str = "identity";
/// What is written beside them, for what they tell of a log.
const REST: [&str; 4] = [SHAPE, "log", "ledger", "snapshots"];
/// What systems put into directories: the root of a file system, and names that begin with a dot.
const LOST_AND_FOUND: &str = "lost+found";
/// What the names of folders begin with that damaged data was moved to; see `rebuild`.
pub const SET_ASIDE: &str = "set-aside-";

/// Why a data directory was refused.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be read or written.
    #[error("cannot use the data directory {path}: {}; it must be one that this process can make, read and write", descriptors::explain(.source), path = .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the data directory {path} is in use by another process; stop that one first, or give this node a directory of its own", path = .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It holds other things.
    #[error("{path} is not empty and not a Moonraft data directory; give a new or an empty one", path = .path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// Its owner is not known any more.
    #[error("{path} is missing, but there are data beside it: it told whose they are, so this node does not start", path = .path.display())]
    NoIdentity {
        /// The file.
        path: PathBuf,
    },
    /// It was made for a cluster of another shape.
    #[error("the data directory {path} was made for {found}, the cluster file says {wanted}; these numbers cannot change under existing data", path = .path.display())]
    OtherShape {
        /// The directory.
        path: PathBuf,
        /// What it was made for.
        found: String,
        /// What is asked for.
        wanted: String,
    },
}

impl DirectoryError {
    /// Whether something is lost: then only the node's peers can make it good.
    pub const fn is_damage(&self) -> bool {
        matches!(self, DirectoryError::NoIdentity { .. })
    }
}

/// A data directory that this process has for itself.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
    shape: String,
    is_new: bool,
}

impl DataDirectory {
    /// Creates the directory if there is none, and locks it.
    ///
    /// # Errors
    /// It is not ours to use.
    pub fn open(path: &Path, cluster: &ClusterFile) -> Result<Self, DirectoryError> {
        let directory = Self::open_damaged(path, cluster)?;
        let identity = path.join(IDENTITY);
        if !directory.is_new && !identity.exists() {
            return Err(DirectoryError::NoIdentity { path: identity });
        }
        Ok(directory)
    }

    /// The same, also if nothing tells whose the data in it are.
    ///
    /// # Errors
    /// It is not ours to use.
    pub fn open_damaged(path: &Path, cluster: &ClusterFile) -> Result<Self, DirectoryError> {
        let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::open(path).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DirectoryError::InUse { path: path.to_owned() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let is_new = is_empty(path).map_err(failed)?;
        if !is_new && ![IDENTITY].iter().chain(&REST).any(|name| path.join(name).exists()) {
            return Err(DirectoryError::NotOurs { path: path.to_owned() });
        }
        let shape = shape(cluster);
        let directory = Self { path: path.to_owned(), _lock: lock, shape, is_new };
        directory.check_shape()?;
        Ok(directory)
    }

    fn check_shape(&self) -> Result<(), DirectoryError> {
        match fs::read_to_string(self.path.join(SHAPE)) {
            Ok(found) if found.trim_end() == self.shape => Ok(()),
            Ok(found) => Err(DirectoryError::OtherShape {
                path: self.path.clone(),
                found: found.trim_end().to_owned(),
                wanted: self.shape.clone(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(DirectoryError::Io { path: self.path.clone(), source }),
        }
    }

    /// Remembers the shape, once the log has taken the directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn remember_shape(&self) -> Result<(), DirectoryError> {
        let path = self.path.join(SHAPE);
        if path.exists() {
            return Ok(());
        }
        let text = format!("{}\n", self.shape);
        write_durably(&path, text.as_bytes())
            .map_err(|source| DirectoryError::Io { path: self.path.clone(), source })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing was in it.
    pub const fn is_new(&self) -> bool {
        self.is_new
    }
}

/// Whether nothing is there but what `moonraft rebuild` has set aside, a system's own things, and what a crash left of
/// files that were to be.
fn is_empty(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let unfinished =
            name.strip_suffix(".new").is_some_and(|name| name == IDENTITY || REST.contains(&name));
        let counts = name != LOST_AND_FOUND && !name.starts_with('.') && !name.starts_with(SET_ASIDE);
        if counts && !unfinished {
            return Ok(false);
        }
    }
    Ok(true)
}

fn shape(cluster: &ClusterFile) -> String {
    let ids: Vec<String> = cluster.nodes.iter().map(|node| node.id.to_string()).collect();
    format!("{} shards with {} replicas on nodes {}", cluster.shards, cluster.replicas, ids.join(" "))
}

/// Writes beside, syncs, renames: the file is there whole or not at all.
///
/// # Errors
/// The disk's.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use io::Write;
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

/// Makes durable that a file is where it is.
///
/// # Errors
/// The disk's.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(nodes: u32, shards: u32) -> ClusterFile {
        ClusterFile::local(nodes, shards, 7001).unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_directory_is_made_and_had_by_one_process() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b");
        let first = DataDirectory::open(&path, &cluster(3, 3)).unwrap();
        assert!(first.is_new());
        let second = DataDirectory::open(&path, &cluster(3, 3)).unwrap_err();
        assert!(second.to_string().contains("is in use by another process"), "{second}");
        drop(first);
        DataDirectory::open(&path, &cluster(3, 3)).unwrap();
    }

    #[test]
    fn another_shape_is_refused_and_nothing_changes() {
        let place = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(place.path(), &cluster(3, 3)).unwrap();
        fs::write(place.path().join(IDENTITY), "").unwrap();
        directory.remember_shape().unwrap();
        drop(directory);
        let before = names(place.path());
        let error = DataDirectory::open(place.path(), &cluster(3, 4)).unwrap_err().to_string();
        assert!(
            error.contains("3 shards with 3 replicas on nodes 1 2 3, the cluster file says 4 shards"),
            "{error}"
        );
        assert!(DataDirectory::open(place.path(), &cluster(2, 3)).is_err());
        assert_eq!(names(place.path()), before);
        assert!(!DataDirectory::open(place.path(), &cluster(3, 3)).unwrap().is_new());
    }

    #[test]
    fn a_directory_of_other_things_is_refused() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("letter.txt"), "dear").unwrap();
        let error = DataDirectory::open(place.path(), &cluster(3, 3)).unwrap_err().to_string();
        assert!(error.contains("is not empty and not a Moonraft data directory"), "{error}");
        assert_eq!(names(place.path()), ["letter.txt"]);
    }
    #[test]
    fn what_systems_put_into_a_directory_is_no_obstacle() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join(LOST_AND_FOUND)).unwrap();
        for name in [".keep", "identity.new", "ledger.new"] {
            fs::write(place.path().join(name), "").unwrap();
        }
        assert!(DataDirectory::open(place.path(), &cluster(3, 3)).unwrap().is_new());
    }

    #[test]
    fn data_without_an_owner_are_damaged() {
        for rest in REST {
            let place = tempfile::tempdir().unwrap();
            let content = if rest == SHAPE { shape(&cluster(3, 3)) } else { String::new() };
            fs::write(place.path().join(rest), content).unwrap();
            let error = DataDirectory::open(place.path(), &cluster(3, 3)).unwrap_err();
            assert!(error.is_damage(), "{rest}");
            assert!(error.to_string().contains("/identity is missing"), "{error}");
            assert!(!DataDirectory::open_damaged(place.path(), &cluster(3, 3)).unwrap().is_new());
        }
    }
}
