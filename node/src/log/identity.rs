//! Whose disk this is: cluster, node and incarnation, in a small checksummed text file.
//!
//! A data directory remembers its owner, so that a node started with another's directory, or with one of another
//! cluster, is refused instead of joining groups under a name that voted elsewhere.
//!
//! The incarnation is part of a replica's id: a node that lost its log must come back with a higher one, because
//! it no longer knows what it promised under the old one. Which one a new disk takes is decided after its peers were
//! asked (`control::birth`); until then the directory belongs to the node, and the incarnation is `undecided`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file's name in the data directory.
const FILE_NAME: &str = "identity";

/// The first line: what this is, and the version of its format.
const HEADER: &str = "moonraft data directory, format 1";

/// In the place of an incarnation.
const UNDECIDED: &str = "undecided";

/// Whose data directory this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's name, as in the cluster file. One line.
    pub cluster: String,
    /// The node's number in the cluster, from 1.
    pub node: u64,
    /// Which life of the node's disk: 0 is the first. `None`: not decided yet.
    pub incarnation: Option<u32>,
}

/// Why a data directory was refused.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be read or written.
    #[error("cannot access {path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{path} is damaged: it does not tell whose data this is", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The directory belongs to another node or cluster.
    #[error(
        "{path} says that this data directory belongs to node {found_node} of cluster '{found_cluster}', not to node {node} of cluster '{cluster}'",
        path = .path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Who was started.
        cluster: String,
        /// Who was started.
        node: u64,
        /// Who wrote the directory.
        found_cluster: String,
        /// Who wrote the directory.
        found_node: u64,
    },
}

/// Whose `directory` is; `None` if nobody has taken it.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn read(directory: &Path) -> Result<Option<Identity>, IdentityError> {
    let path = directory.join(FILE_NAME);
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text).map(Some).ok_or(IdentityError::Damaged { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(IdentityError::Damaged { path }),
        Err(source) => Err(IdentityError::Io { path, source }),
    }
}

/// Reads the identity of `directory` and compares it; a directory without one gets `wanted`. The incarnation found
/// is kept: only a new directory takes the one of `wanted`.
pub(super) fn claim(directory: &Path, wanted: &Identity) -> Result<Identity, IdentityError> {
    let path = directory.join(FILE_NAME);
    let failed = |source| IdentityError::Io { path: path.clone(), source };
    let Some(found) = read(directory)? else {
        write(directory, wanted).map_err(failed)?;
        return Ok(wanted.clone());
    };
    if found.cluster != wanted.cluster || found.node != wanted.node {
        return Err(IdentityError::Other {
            path,
            cluster: wanted.cluster.clone(),
            node: wanted.node,
            found_cluster: found.cluster,
            found_node: found.node,
        });
    }
    Ok(found)
}

fn body(identity: &Identity) -> String {
    format!(
        "{HEADER}\ncluster {}\nnode {}\nincarnation {}\n",
        identity.cluster,
        identity.node,
        identity.incarnation.map_or_else(|| UNDECIDED.to_owned(), |incarnation| incarnation.to_string())
    )
}

fn parse(text: &str) -> Option<Identity> {
    let mut lines = text.lines().skip(1);
    let identity = Identity {
        cluster: lines.next()?.strip_prefix("cluster ")?.to_owned(),
        node: lines.next()?.strip_prefix("node ")?.parse().ok()?,
        incarnation: match lines.next()?.strip_prefix("incarnation ")? {
            UNDECIDED => None,
            number => Some(number.parse().ok()?),
        },
    };
    (text == render(&identity)).then_some(identity)
}

fn render(identity: &Identity) -> String {
    let body = body(identity);
    let checksum = crc32fast::hash(body.as_bytes());
    format!("{body}checksum {checksum:08x}\n")
}

/// Written beside, synced, renamed: the file is there whole or not at all.
pub(super) fn write(directory: &Path, identity: &Identity) -> io::Result<()> {
    let beside = directory.join("identity.new");
    let mut file = File::create(&beside)?;
    file.write_all(render(identity).as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, directory.join(FILE_NAME))?;
    File::open(directory)?.sync_all()
}
