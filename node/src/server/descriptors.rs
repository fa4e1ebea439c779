//! How many files, and so how many connections, the system lets this process have.
//!
//! A connection is a descriptor. A process that runs out of them can open no file of its log any
//! more either, so each listener has a share, and the last descriptors are in none: they are for
//! the log, snapshots, and the streams to other nodes.

use std::io;

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Descriptors that no client gets: the shares of the other listeners, and as many again for what the
/// process opens itself.
const RESERVED: u64 = 512;

/// What a process needs to start at all, and on top of it for each replica: sockets, the queues of threads, the files
/// of the log and of snapshots, and some clients.
const LEAST: u64 = 48;
const LEAST_A_REPLICA: u64 = 16;

/// The system lets this process open fewer files than it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot start: this process may open {limit} files, and needs {least} at least; raise the limit of open files (ulimit -n, LimitNOFILE) to at least {}",
    2 * RESERVED
)]
pub struct TooFew {
    limit: u64,
    least: u64,
}

/// How many connections each kind of listener may have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Clients, of all replicas together.
    pub clients: u64,
    /// Pages over HTTP.
    pub pages: u64,
    /// Calls of gRPC from other nodes.
    pub callers: u64,
    /// Connections at the port for peers that have not said yet who they are.
    pub strangers: u64,
}

impl Shares {
    /// Of so many descriptors. A system that grants next to nothing gets a server that serves somebody.
    fn of(limit: u64) -> Self {
        Self {
            clients: limit.saturating_sub(RESERVED).max(limit / 2),
            pages: (limit / 16).clamp(1, 64),
            callers: (limit / 8).clamp(1, 128),
            strangers: (limit / 16).clamp(1, 64),
        }
    }
}

/// The shares that this process has descriptors for.
pub fn shares() -> Shares {
    Shares::of(limit())
}

/// Descriptors that the system lets this process have.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the soft limit to the hard one, which must suffice for `replicas` replicas.
///
/// # Errors
/// It does not: what fails for lack of a descriptor later, in a library too, would not say so.
pub fn raise(replicas: u64) -> Result<(), TooFew> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!("the limit of open files cannot be raised: {error}");
    }
    let limit = self::limit();
    let least = LEAST.saturating_add(LEAST_A_REPLICA.saturating_mul(replicas));
    if limit < least { Err(TooFew { limit, least }) } else { Ok(()) }
}

/// Warns if the system cannot have as many connections as `maxclients` allows on `replicas` replicas.
pub fn warn_of_few(clients_max: u64, replicas: u64) {
    let (possible, wanted) = (shares().clients, clients_max.saturating_mul(replicas));
    if possible < wanted {
        tracing::warn!(
            "the system allows {possible} connections at once, {RESERVED} descriptors being reserved; maxclients allows {wanted}; raise the limit of open files (ulimit -n, LimitNOFILE) to at least {}",
            wanted.saturating_add(RESERVED)
        );
    }
}

/// What the system said, and the way out if it has too little for this process.
pub fn explain(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => {
            format!(
                "{error}; raise the limit of open files (ulimit -n, LimitNOFILE) to at least {}",
                2 * RESERVED
            )
        }
        Some(Errno::AGAIN) => format!("{error}; raise the limit of threads (ulimit -u, TasksMax)"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one_and_some_are_kept_back() {
        assert_eq!(raise(1), Ok(()));
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert!(raise(u64::MAX).is_err());
    }

    #[test]
    fn what_listeners_may_take_leaves_some_for_the_disk() {
        for limit in [64, 256, 1024, 1100, 4096, 1 << 20] {
            let Shares { clients, pages, callers, strangers } = Shares::of(limit);
            let left = limit - clients - pages - callers - strangers;
            assert!(clients >= limit / 2 && left >= (limit / 4).min(256), "{limit}: {left}");
        }
    }
}
