//! The world around a shard, as it sees it: clocks, the lease, the cluster, the process.

use std::{sync::Arc, time::Duration};

use moonraft_router::{Network, SlotMap};

use super::{BusyShard, Errand, Outcome};
pub use crate::command::client::ProcessFacts;
use crate::consensus::ShardTimes;

/// What a shard sees of the world around it.
pub trait Surroundings {
    /// The wall clock, Unix microseconds. May jump.
    fn unix_us(&self) -> u64;
    /// A clock that only goes forward, suspend included, in nanoseconds.
    fn boot_ns(&self) -> u64;
    /// Whether this replica, leading `term`, has a lease at this very moment: the
    /// clock is read in here.
    fn lease_covers(&self, term: u64) -> bool;
    /// Where the shard's time is told and heard, or nobody does.
    fn times(&self) -> Option<&ShardTimes> {
        None
    }
    /// The cluster as this node knows it, with the addresses of one network.
    fn map(&self, network: Network) -> Arc<SlotMap>;
    /// Bytes that the process has taken of its allocator. Cheap: asked before each request that may take more.
    fn used_bytes(&self) -> u64;
    /// Facts about the process, for `INFO`.
    fn facts(&self) -> ProcessFacts;
    /// Settings whose names match a glob pattern.
    fn settings(&self, pattern: &[u8]) -> Vec<(String, String)>;
    /// Changes settings, all or none.
    ///
    /// # Errors
    /// The text of the wire: unknown name, bad value, not to be changed.
    fn change_settings(&self, changes: &[(&[u8], &[u8])]) -> Result<(), String>;
    /// Called now and then while a script runs longer than its time: lets the shard deal with what clients
    /// have sent meanwhile, and says whether the script must end for a reason of the world's own.
    fn while_busy(&self, shard: &mut BusyShard<'_>) -> Busy;
    /// Whether a script that runs is to be ended, however long it has run: the node stops.
    fn ends_scripts(&self) -> bool {
        false
    }
    /// Frees what would take long, where nobody waits for it.
    fn free(&self, large: Box<dyn Send>) {
        drop(large);
    }
    /// Has an errand carried out elsewhere; [`Event::ErrandsDone`](super::Event::ErrandsDone) follows.
    fn send(&self, errand: Box<Errand>);
    /// What came of errands that have been carried out, and was not asked for before.
    fn outcomes(&self) -> Vec<Outcome>;
    /// Waits for what comes of this errand, which is under way.
    fn await_outcome(&self, number: u64) -> Outcome;
    /// The same, but no longer than so long.
    fn outcome_within(&self, number: u64, wait: Duration) -> Option<Outcome>;
    /// The node is to end as it does when it is told to by a signal.
    fn shut_down(&self);
}

/// Whether a long script goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// It does.
    Continue,
    /// It ends, and is undone whole.
    Kill,
}
