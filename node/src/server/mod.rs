//! The shell: threads, sockets and files around the pure core.
//!
//! Threads of a node, and what they pass each other:
//!
//! ```text
//!  shard-N-S (one a replica)     consensus-N             peers-N
//!  clients' sockets              Raft groups, log        gRPC, HTTP
//!     │  proposals, rounds  ──▶  mailbox::Driver…  ◀──── messages of peers
//!     ◀── mailbox::Shard… ─────  commits, roles
//!                                messages ───────────▶   peers::Outgoing
//! ```
//!
//! * [`node`]: a node's threads, put together and taken apart. [`housing`], [`replicas`]: its replicas, opened and
//!   closed while it runs. [`hand_over`]: leaderships, before that.
//! * [`replica`], [`connection`], [`busy`], [`surroundings`]: a shard's thread. [`errands`]: requests that it has executed elsewhere.
//! * [`driver`]: the consensus thread, which takes the turns of [`crate::replica`]; [`birth`]: before its groups begin. [`writer`], [`snapshots`]: snapshot files.
//! * [`disk`]: room and speed of the disk. [`rebuild`]: a damaged node begins anew.
//! * [`peers`]: between nodes. [`known_cluster`]: what a node knows of its cluster.
//! * [`http`]: health and metrics. [`health`]: asks for it from the command line.
//! * [`run`]: whole processes, from a cluster file to the end. [`stop`]: how they end, [`shutdown`]: a client asks for it. [`descriptors`]: what the system lets them have.
//!
//! INVARIANT: nothing in here decides what a request means or whether an entry is
//! committed: that is `shard`'s and `consensus`'s.

#![allow(clippy::disallowed_methods, reason = "the shell is where clocks are read and threads begin")]

pub mod birth;
pub mod busy;
pub mod clock;
pub mod connection;
pub mod data_directory;
pub mod descriptors;
pub mod disk;
pub mod driver;
mod errands;
mod hand_over;
pub mod health;
pub mod housing;
pub mod http;
pub mod known_cluster;
pub mod listen;
pub mod mailbox;
pub mod node;
pub mod peers;
pub mod process;
pub mod rebuild;
pub mod replica;
pub mod replicas;
pub mod run;
pub mod shared;
pub mod shutdown;
pub mod snapshot_file;
mod snapshots;
pub mod stop;
pub mod surroundings;
pub mod wire;
pub mod writer;

#[cfg(test)]
mod tests;
