//! What each node knows of the cluster, who leads and who answers, as the server keeps it: by the product's
//! [`Directory`], with the words of other nodes, connections that break, and silence. Its shards hear of every change.

use std::sync::Arc;

use moonraft::{control::Directory, shard::Event as ShardEvent};

use super::{MS, World};
use crate::marks::mark;

impl World {
    /// For how long a node may be silent before it counts as failed: `cluster-node-timeout`.
    pub(super) fn silence_ns_max(&self) -> u64 {
        self.shard_settings.park_ms / 2 * MS
    }

    /// A node learns something of the cluster, at this time of its clock: `learn` says whether that is news.
    pub(super) fn learn(&mut self, node: usize, learn: impl FnOnce(&mut Directory, u64) -> bool) {
        let state = &mut self.nodes[node];
        let now = state.clock.boot_ns();
        let Some(running) = &mut state.running else { return };
        if learn(&mut running.directory, now) {
            let map = running.directory.map();
            if map.shards.values().any(|shard| !shard.failed.is_empty()) {
                mark("node known not to answer");
            }
            *state.map.borrow_mut() = Arc::new(map.clone());
            (0..self.shards).for_each(|shard| self.post(node, shard, ShardEvent::MapChanged));
        }
    }

    /// Another node was heard, with the shards that it leads and serves, each with its term.
    pub(super) fn hear_hints(&mut self, node: usize, from: u64, serves: &[(u32, u64)]) {
        self.learn(node, |directory, now| {
            let mut is_news = directory.heard(from, now);
            for &(shard, term) in serves {
                is_news |= directory.learn_serving(shard, term, from);
            }
            is_news
        });
    }
}
