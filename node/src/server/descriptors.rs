//! How many files, and so how many connections, the system lets this process have.
//!
//! A connection is a descriptor. A process that runs out of them can open no file of its log any
//! more either, so the last of them are never given to clients.

use std::io;

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Descriptors kept for everything but clients: ports, files of the log and of snapshots, streams
/// to other nodes, pages over HTTP.
const RESERVED: u64 = 512;

/// Raises the soft limit to the hard one.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!("the limit of open files cannot be raised: {error}");
    }
}

/// Warns if the system cannot have as many connections as `maxclients` allows on `replicas` replicas.
pub fn warn_of_few(clients_max: u64, replicas: u64) {
    let (possible, wanted) = (self::clients_max(), clients_max.saturating_mul(replicas));
    if possible < wanted {
        tracing::warn!(
            "the system allows {possible} connections at once, {RESERVED} descriptors being reserved; maxclients allows {wanted}; raise the limit of open files (ulimit -n, LimitNOFILE) to at least {}",
            wanted.saturating_add(RESERVED)
        );
    }
}

/// Connections that this process has descriptors for.
pub fn clients_max() -> u64 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // A system that grants next to nothing gets a server that serves somebody.
    limit.saturating_sub(RESERVED).max(limit / 2)
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
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        let all = limit.current.unwrap_or(u64::MAX);
        assert!(clients_max() < all && clients_max() >= all / 2);
    }
}
