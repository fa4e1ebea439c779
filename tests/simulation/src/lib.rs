//! The simulator: a whole cluster in one thread from one seed.
//!
//! It wires the very types that the server runs, [`moonraft::shard::Shard`],
//! [`moonraft::consensus::Consensus`] and the glue in [`moonraft::replica`], to a virtual network, virtual disks and
//! virtual clocks, and does to them what the world does: messages are lost,
//! delayed, doubled and reordered; links are cut, one way or both; nodes crash
//! and lose what was not synced, pause, restart, run short of memory; disks tear writes, fail, run short, fill up, hang and
//! are lost; clocks are off, drift and jump; leadership is handed over, members are replaced.
//!
//! After each run:
//! * the history of every key is linearizable ([`checker`]): nothing acknowledged
//!   is lost, doubled or read stale; a redirected request had no effect;
//! * units are atomic and have one order ([`units`]);
//! * a job that scripts move between lists is always in exactly one ([`jobs`]);
//! * nobody is given a lock before its time is over by the fastest clock, whatever wall clocks do;
//! * times shown by `TIME` never go backwards in real time;
//! * once faults end, every shard serves again;
//! * all replicas of a shard hold equal data, at the end and at each index along the way.
//!
//! The rare paths that runs must have taken are listed in [`marks`]. A seed replays exactly:
//! the one generator in [`world::World`] draws all there is to draw.
//!
//! Sources: the FoundationDB and TigerBeetle simulators for the idea; Wing & Gong
//! and Lowe for the linearizability check; Elle for the order of units.

pub mod checker;
pub mod clock;
pub mod disk;
pub mod history;
pub mod jobs;
pub mod marks;
pub mod node;
#[path = "../../harness/processes.rs"]
pub mod processes;
pub mod queues;
pub mod streams;
pub mod units;
#[path = "../../harness/value.rs"]
pub mod value;
pub mod workload;
pub mod world;

pub use world::{Fault, Report, Settings, run};

use rand::{RngExt, rngs::StdRng};

/// Draws one of several kinds: the place of its weight. All weights 0: the last.
pub(crate) fn pick(rng: &mut StdRng, weights: &[u32]) -> usize {
    let total: u32 = weights.iter().sum();
    let mut draw = rng.random_range(0..total.max(1));
    let kind = weights.iter().position(|&weight| {
        let here = draw < weight;
        draw = draw.saturating_sub(weight);
        here
    });
    kind.unwrap_or(weights.len() - 1)
}
