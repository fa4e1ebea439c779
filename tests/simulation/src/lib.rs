//! The simulator: a whole cluster in one thread from one seed.
//!
//! It wires the very types that the server runs, [`moonraft::shard::Shard`] and
//! [`moonraft::consensus::Consensus`], to a virtual network, virtual disks and
//! virtual clocks, and does to them what the world does: messages are lost,
//! delayed, doubled and reordered; links are cut, one way or both; nodes crash
//! and lose what was not synced, pause, restart; clocks are off, drift and jump.
//!
//! After each run:
//! * the history of every key is linearizable ([`checker`]): nothing acknowledged
//!   is lost, doubled or read stale; a redirected request had no effect;
//! * times shown by `TIME` never go backwards in real time;
//! * once faults end, every shard serves again;
//! * all replicas of a shard hold equal data.
//!
//! A seed replays exactly: the one generator in [`world::World`] draws all there
//! is to draw.
//!
//! Sources: the FoundationDB and TigerBeetle simulators for the idea; Wing & Gong
//! and Lowe for the linearizability check.

pub mod checker;
pub mod history;
pub mod node;
pub mod value;
pub mod workload;
pub mod world;

pub use world::{Fault, Report, Settings, run};
