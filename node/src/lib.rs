//! The server.

pub mod command;
pub mod keyspace;
pub mod script;
pub mod shard;
