//! The server: one replica of each of several shards, in one process.
//!
//! The life of a request, with real names:
//!
//! 1. `server` reads bytes of a connection on its shard's thread and calls
//!    [`shard::Shard::receive`].
//! 2. The shard parses it, finds its row in [`command`], routes it by its keys.
//! 3. The row's handler runs on [`keyspace::Tx`] and emits effects, which are
//!    applied at once to [`keyspace::Keyspace`]; a [`script`] does so many times.
//! 4. At the end of the turn the effects are one batch, proposed to the shard's
//!    group in [`consensus`], which makes it durable in [`log`] on a majority;
//!    [`replica`] is the way there and back.
//! 5. The committed batch opens the gate of the replies that wait for it; on
//!    followers its effects are applied.
//!
//! Each of the parts uses only those below it, which a test sees to (`layers`).
//! `command`, `keyspace`, `script`, `shard`, `consensus` and `replica` know no socket, file,
//! thread or clock: the simulator runs the very same types.

pub mod command;
pub mod config;
pub mod consensus;
pub mod control;
pub mod glob;
pub mod keyspace;
#[cfg(test)]
mod layers;
pub mod log;
pub mod marks;
pub mod replica;
pub mod script;
pub mod server;
pub mod shard;
pub mod subscriptions;
