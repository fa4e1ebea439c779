//! Handing leaderships over to other nodes, before a replica closes or the node stops.

use std::time::Duration;

use super::{clock, shared::NodeShared};
use crate::consensus::{Input, ShardId};

/// Time for clients between the hand-overs of two shards: they look at the map, which takes them some
/// round trips.
const REST: Duration = Duration::from_millis(50);
/// How often a hand-over is looked at.
const STEP: Duration = Duration::from_millis(5);

/// Hands the leadership of all shards over, within `limit`; not of those that nobody else could lead.
///
/// One after the other: some clients drop their connections to a leader that was, with all that
/// is in flight there, as soon as another shard's redirect made them look at the map.
pub fn hand_over_all(node: &NodeShared, limit: Duration) {
    if node.awaited().is_some() {
        return; // it has led nothing
    }
    let now = clock::boot_ns();
    let (half, until) = (now + limit.as_nanos() as u64 / 2, now + limit.as_nanos() as u64);
    let led = node.cluster.hints();
    let step = REST.min(limit / (2 * led.len().max(1) as u32));
    for hint in led {
        if hand_over(node, hint.shard, half) {
            std::thread::sleep(step);
        }
    }
    // What is led all the same, and what would be sent here meanwhile.
    node.driver.send(Input::TransferAll);
    let is_over = || node.replicas.all().keys().all(|&shard| is_handed_over(node, shard));
    if !wait_until(until, is_over) {
        tracing::warn!("not every shard has found another leader in time");
    }
}

/// Hands the leadership of one shard over, until `until` on the boot clock. Whether another node leads it now, or
/// need not.
pub fn hand_over(node: &NodeShared, shard: ShardId, until: u64) -> bool {
    if is_given_up(node, shard) {
        return false;
    }
    node.driver.send(Input::Transfer { group: shard, to: None });
    wait_until(until, || is_handed_over(node, shard))
}

/// Whether another node leads `shard` and serves, or waiting for that is in vain.
fn is_handed_over(node: &NodeShared, shard: ShardId) -> bool {
    node.cluster.is_served_by_another(shard, node.node) || is_given_up(node, shard)
}

/// Whether no other node can lead `shard`, or this one could not hand it over: its consensus waits for the disk.
fn is_given_up(node: &NodeShared, shard: ShardId) -> bool {
    node.is_disk_hanging() || !node.cluster.can_spare_this_node(shard)
}

/// Waits for a condition, at most until `until` on the boot clock. Whether it came true.
fn wait_until(until: u64, condition: impl Fn() -> bool) -> bool {
    while !condition() {
        if clock::boot_ns() >= until {
            return false;
        }
        std::thread::sleep(STEP);
    }
    true
}
