//! `moonraft rebuild`: a node whose data is damaged begins anew.
//!
//! Its data is set aside inside its directory, renamed and never deleted. At the next start the directory counts as
//! empty, so the node asks its peers what they know of it, and joins them as a new incarnation (`control::birth`).
//!
//! INVARIANT: the identity goes last. A run that was interrupted leaves a directory that is refused and can be
//! rebuilt again, never one that looks whole.

use std::{
    fs,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::data_directory::{DataDirectory, DirectoryError, SET_ASIDE};
use crate::{
    config::ClusterFile,
    log::{IdentityError, read_identity},
};

/// Fewer replicas have no majority without one of them, and cannot take it in again.
const REPLICAS_MIN: u32 = 3;

/// Why a directory is not set aside. One line for the user.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// In use, not ours, of another shape.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The identity cannot be read.
    #[error(transparent)]
    Identity(IdentityError),
    /// It belongs to somebody else.
    #[error("{path} holds the data of node {found_node} of cluster '{found_cluster}', not of node {node} of cluster '{cluster}'", path = .path.display())]
    Other {
        /// The directory.
        path: PathBuf,
        /// Who was named.
        cluster: String,
        /// Who was named.
        node: u64,
        /// Whose it is.
        found_cluster: String,
        /// Whose it is.
        found_node: u64,
    },
    /// There is no such node.
    #[error("the cluster file has no node {0}")]
    NoSuchNode(u64),
    /// There is nobody to rebuild it from.
    #[error(
        "a shard of this cluster has {0} replicas: without this one they are no majority, so they cannot take it in again. Nothing was changed"
    )]
    NoPeers(u32),
    /// There is nothing.
    #[error("there is no data in {path}: start the node", path = .0.display())]
    Empty(PathBuf),
    /// The disk's.
    #[error("cannot set {path} aside: {source}", path = .path.display())]
    Io {
        /// What was to be moved.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Sets the data of a node aside. Returns what to tell the user.
///
/// # Errors
/// It is not this node's, in use, or has no peers to be rebuilt from; then nothing was changed. Or the disk's.
pub fn rebuild(cluster: &ClusterFile, node: u64, path: &Path) -> Result<String, RebuildError> {
    if cluster.node(node).is_none() {
        return Err(RebuildError::NoSuchNode(node));
    }
    if cluster.replicas < REPLICAS_MIN {
        return Err(RebuildError::NoPeers(cluster.replicas));
    }
    if !path.is_dir() {
        return Err(RebuildError::Empty(path.to_owned()));
    }
    let directory = DataDirectory::open_damaged(path, cluster)?;
    match read_identity(path) {
        Ok(Some(found)) if found.cluster != cluster.name || found.node != node => {
            return Err(RebuildError::Other {
                path: path.to_owned(),
                cluster: cluster.name.clone(),
                node,
                found_cluster: found.cluster,
                found_node: found.node,
            });
        }
        Ok(None) if directory.is_new() => return Err(RebuildError::Empty(path.to_owned())),
        // One that is damaged is part of what has to go.
        Ok(_) | Err(IdentityError::Damaged { .. }) => {}
        Err(error) => return Err(RebuildError::Identity(error)),
    }
    let aside = set_aside(path)?;
    drop(directory);
    Ok(format!(
        "{}: set aside in {}; start node {node} again, and it is rebuilt from its peers",
        path.display(),
        aside.display()
    ))
}

/// What to do about a node that has lost what it may have promised.
pub fn way_out(cluster: &ClusterFile, file: &Path, node: u64, path: &Path) -> String {
    if cluster.replicas < REPLICAS_MIN {
        return without_peers(cluster.replicas, path);
    }
    let (file, path) = (shell_word(file), shell_word(path));
    format!(
        "To rebuild this node from its peers: moonraft rebuild --cluster {file} --node {node} --dir {path}"
    )
}

/// The same for a cluster in one process, whose nodes have a folder each.
pub fn way_out_of_dev(cluster: &ClusterFile, path: &Path) -> String {
    if cluster.replicas < REPLICAS_MIN {
        return without_peers(cluster.replicas, path);
    }
    format!("Move that node's folder in {} away: it is rebuilt from the others", path.display())
}

fn without_peers(replicas: u32, path: &Path) -> String {
    format!(
        "A shard of this cluster has {replicas} of the 3 replicas that it takes to rebuild one: put back what is missing, or move the data directory of each node away ({}) to begin with nothing",
        path.display()
    )
}

/// A path as a shell takes it for one word.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+=:,@%".contains(letter);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn set_aside(path: &Path) -> Result<PathBuf, RebuildError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RebuildError::Io { path, source }
    };
    let free = (1..).map(|number| path.join(format!("{SET_ASIDE}{number}"))).find(|aside| !aside.exists());
    let aside = free.expect("a directory does not hold that many");
    fs::create_dir(&aside).map_err(failed(&aside))?;
    for name in ["log", "ledger", "snapshots", "shape", "identity"] {
        let (from, to) = (path.join(name), aside.join(name));
        if from.exists() {
            fs::rename(&from, to).map_err(failed(&from))?;
            let synced = File::open(path).and_then(|directory| directory.sync_all());
            synced.map_err(failed(path))?;
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Identity, Log, LogSettings};

    fn cluster() -> ClusterFile {
        ClusterFile::local(3, 3, 7001).unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn node_with_data() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: cluster().name, node: 2, incarnation: Some(0) };
        let directory = DataDirectory::open(place.path(), &cluster()).unwrap();
        Log::open(place.path(), &identity, &LogSettings::default()).unwrap();
        directory.remember_shape().unwrap();
        place
    }

    #[test]
    fn data_is_renamed_and_the_directory_is_new_again() {
        let place = node_with_data();
        let before = names(place.path());
        assert_eq!(before, ["identity", "ledger", "log", "shape"]);
        let told = rebuild(&cluster(), 2, place.path()).unwrap();
        assert!(told.contains("set-aside-1"), "{told}");
        assert_eq!(names(place.path()), ["set-aside-1"]);
        assert_eq!(names(&place.path().join("set-aside-1")), before);
        assert!(DataDirectory::open(place.path(), &cluster()).unwrap().is_new());
        let again = rebuild(&cluster(), 2, place.path()).unwrap_err().to_string();
        assert!(again.contains("there is no data"), "{again}");
        assert_eq!(names(place.path()), ["set-aside-1"]);
    }

    #[test]
    fn a_damaged_identity_and_a_run_that_broke_off_are_no_obstacle() {
        let place = node_with_data();
        fs::write(place.path().join("identity"), "nonsense").unwrap();
        fs::create_dir(place.path().join("set-aside-1")).unwrap();
        fs::rename(place.path().join("log"), place.path().join("set-aside-1/log")).unwrap();
        let told = rebuild(&cluster(), 2, place.path()).unwrap();
        assert!(told.contains("set-aside-2"), "{told}");
        assert_eq!(names(place.path()), ["set-aside-1", "set-aside-2"]);
    }

    #[test]
    fn data_without_an_owner_are_set_aside() {
        let place = node_with_data();
        fs::remove_file(place.path().join("identity")).unwrap();
        fs::create_dir(place.path().join("lost+found")).unwrap();
        let told = rebuild(&cluster(), 2, place.path()).unwrap();
        assert!(told.contains("set-aside-1"), "{told}");
        assert_eq!(names(place.path()), ["lost+found", "set-aside-1"]);
        let again = rebuild(&cluster(), 2, place.path()).unwrap_err().to_string();
        assert!(again.contains("there is no data"), "{again}");
    }

    #[test]
    fn the_way_out_is_a_command_that_a_shell_takes() {
        let told = |path: &str| way_out(&cluster(), Path::new("c.toml"), 2, Path::new(path));
        let command = "moonraft rebuild --cluster c.toml --node 2 --dir ";
        assert!(told("data/2").ends_with(&format!("{command}data/2")));
        assert!(told("my data").ends_with(&format!("{command}'my data'")));
        assert!(told("it's").ends_with(&format!("{command}'it'\\''s'")));
        let alone = ClusterFile { replicas: 1, ..cluster() };
        let told = way_out(&alone, Path::new("c.toml"), 2, Path::new("d"));
        assert!(!told.contains("rebuild --cluster") && told.contains("put back what is missing"), "{told}");
        assert_eq!(way_out_of_dev(&alone, Path::new("d")), told);
    }

    #[test]
    fn what_is_not_this_nodes_or_in_use_is_left_alone() {
        let place = node_with_data();
        let refused =
            |cluster: &ClusterFile, node| rebuild(cluster, node, place.path()).unwrap_err().to_string();
        assert!(refused(&cluster(), 1).contains("holds the data of node 2"));
        assert!(refused(&cluster(), 9).contains("no node 9"));
        assert!(refused(&ClusterFile { name: "other".to_owned(), ..cluster() }, 2).contains("'other'"));
        assert!(refused(&ClusterFile { replicas: 1, ..cluster() }, 2).contains("cannot take it in again"));
        let user = DataDirectory::open(place.path(), &cluster()).unwrap();
        assert!(refused(&cluster(), 2).contains("in use by another process"));
        drop(user);
        assert_eq!(names(place.path()), ["identity", "ledger", "log", "shape"]);
    }
}
