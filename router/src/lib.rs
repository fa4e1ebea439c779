//! Where a request belongs: pure decisions, no socket and no clock.
//!
//! * [`slot`]: the slot of a key, hash tags included.
//! * [`keys`]: which words of a request are keys.
//! * [`map`]: which shard serves a slot, and the replicas of each shard.
//! * [`route`]: the decision, and the redirects a client may be sent.
//!
//! The map is a hint for redirects. Whether a shard owns a slot is state of that
//! shard, changed by entries of its own log; the caller asks that first.
//!
//! Source: Redis Cluster specification, "Key distribution model" and
//! "Redirection and resharding".

pub mod keys;
pub mod map;
pub mod route;
pub mod slot;

pub use keys::Keys;
pub use map::{Address, Network, ReplicaPlace, ShardId, ShardPlace, SlotMap};
pub use route::{Redirect, single_slot};
pub use slot::{SLOT_COUNT, slot_of};
