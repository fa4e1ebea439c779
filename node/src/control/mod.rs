//! The cluster's own state: who is in it, and who leads what.
//!
//! [`Topology`] is made from the cluster file and never changes while the node
//! runs: nodes, shards, which replica is where, which node a shard's leadership
//! belongs to. [`Directory`] is what changes: leaders as nodes tell them, nodes
//! that do not answer. Together they are the [`SlotMap`] that clients are
//! redirected by.
//!
//! INVARIANT: the names of replicas depend on the cluster's name, the node and
//! the shard only: they are the same on all nodes and after every restart.
//!
//! INVARIANT: a hint of who leads a shard is never replaced by one of an older
//! term, and failures are noted from the word of this node's own ears only.
//!
//! Source: Redis Cluster specification, "Cluster topology" and "Failure detection".

pub mod birth;

use std::collections::BTreeMap;

use moonraft_router::{Address, ReplicaPlace, ShardId, ShardPlace, SlotMap};

use crate::config::{ClusterFile, NodeEntry};

/// What the cluster file says of nodes and shards.
#[derive(Clone, Debug)]
pub struct Topology {
    cluster: ClusterFile,
}

impl Topology {
    /// The topology of a cluster file.
    pub fn new(cluster: ClusterFile) -> Self {
        Self { cluster }
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.cluster.name
    }

    /// The shards: the cluster file counts them, and their numbers are their names.
    pub fn shards(&self) -> std::ops::Range<ShardId> {
        0..self.cluster.shards
    }

    /// The slots that a shard begins with.
    pub fn born_with(&self, shard: ShardId) -> (u16, u16) {
        SlotMap::even_range(shard as usize, self.cluster.shards as usize)
    }

    /// All nodes.
    pub fn nodes(&self) -> &[NodeEntry] {
        &self.cluster.nodes
    }

    /// The node of this number.
    pub fn node(&self, id: u64) -> Option<&NodeEntry> {
        self.cluster.node(id)
    }

    /// The nodes that hold a replica of `shard`; the first is its home, which
    /// leads it when all are well.
    pub fn nodes_of(&self, shard: ShardId) -> impl Iterator<Item = &NodeEntry> {
        let count = self.cluster.nodes.len();
        let home = shard as usize % count;
        (0..self.cluster.replicas as usize).map(move |step| &self.cluster.nodes[(home + step) % count])
    }

    /// The node that leads `shard` when all are well.
    pub fn home(&self, shard: ShardId) -> u64 {
        self.cluster.nodes[shard as usize % self.cluster.nodes.len()].id
    }

    /// The shards that `node` holds a replica of.
    pub fn shards_of(&self, node: u64) -> impl Iterator<Item = ShardId> {
        self.shards().filter(move |&shard| self.nodes_of(shard).any(|entry| entry.id == node))
    }

    /// The nodes that share a shard with `node` or hear of its messages: all others.
    pub fn peers_of(&self, node: u64) -> impl Iterator<Item = &NodeEntry> {
        self.nodes().iter().filter(move |entry| entry.id != node)
    }

    /// The map with no leader known yet.
    pub fn slot_map(&self) -> SlotMap {
        let shards = self.shards().map(|shard| (shard, self.shard_place(shard))).collect();
        SlotMap { epoch: 1, shards }
    }

    fn shard_place(&self, shard: ShardId) -> ShardPlace {
        let replicas = self.nodes_of(shard).map(|entry| self.replica_place(entry, shard)).collect();
        ShardPlace { slots: vec![self.born_with(shard)], replicas, leader: None, failed: Vec::new() }
    }

    fn replica_place(&self, entry: &NodeEntry, shard: ShardId) -> ReplicaPlace {
        ReplicaPlace {
            // A node has one replica of a shard at most, and its place stays whichever life of its disk it is in.
            replica: entry.id,
            node: entry.id,
            name: self.replica_name(entry.id, shard),
            address: Address { host: entry.announce.clone(), port: entry.port + shard as u16 },
            outside: entry
                .outside
                .as_ref()
                .map(|outside| Address { host: outside.host.clone(), port: outside.port + shard as u16 }),
            peer_port: entry.peer_port,
        }
    }

    /// The 40 hexadecimal digits that name a replica in `CLUSTER NODES`.
    pub fn replica_name(&self, node: u64, shard: ShardId) -> String {
        let identity = format!("{}/{node}/{shard}", self.name());
        sha1_smol::Sha1::from(identity).digest().to_string()
    }
}

/// A node's knowledge of who leads what and who answers.
#[derive(Clone, Debug)]
pub struct Directory {
    me: u64,
    map: SlotMap,
    /// For each shard the term in which its leader itself said that it serves.
    serving: BTreeMap<ShardId, u64>,
    /// When each other node was last heard; the directory's own start if never.
    heard_ns: BTreeMap<u64, u64>,
    silence_ns_max: u64,
}

impl Directory {
    /// What node `me` knows when it starts, at `now_ns` on its boot clock. A node
    /// that is silent for longer than `silence_ns_max` counts as failed.
    pub fn new(topology: &Topology, me: u64, silence_ns_max: u64, now_ns: u64) -> Self {
        let heard_ns = topology.peers_of(me).map(|entry| (entry.id, now_ns)).collect();
        Self { me, map: topology.slot_map(), serving: BTreeMap::new(), heard_ns, silence_ns_max }
    }

    /// The map as it is now.
    pub fn map(&self) -> &SlotMap {
        &self.map
    }

    /// This node's own consensus says who leads. Returns whether the map changed.
    pub fn learn_leader(&mut self, shard: ShardId, term: u64, replica: u64) -> bool {
        let known = self.map.shards.get(&shard).is_some_and(|place| has(place, replica));
        known && self.map.learn_leader(shard, term, replica)
    }

    /// A leader says of itself that it leads and serves. Returns whether the map changed.
    pub fn learn_serving(&mut self, shard: ShardId, term: u64, replica: u64) -> bool {
        let Some(place) = self.map.shards.get(&shard).filter(|place| has(place, replica)) else {
            return false;
        };
        if place.leader.is_some_and(|(_, known)| term < known) {
            return false;
        }
        let serving = self.serving.entry(shard).or_default();
        let news = term > *serving;
        *serving = term.max(*serving);
        self.learn_leader(shard, term, replica) || news
    }

    /// This node has no replica of `shard` any more: it does not lead it. Returns whether the map changed.
    pub fn leave(&mut self, shard: ShardId) -> bool {
        let me = self.me;
        let Some(place) = self.map.shards.get_mut(&shard) else { return false };
        let left = place.leader.take_if(|(leader, _)| *leader == me).is_some();
        if left {
            self.serving.remove(&shard);
            self.map.epoch += 1;
        }
        left
    }

    /// Whether the leader of `shard`, as far as the map knows it, has said that it serves, and can:
    /// it answers, and so does a majority.
    pub fn is_served(&self, shard: ShardId) -> bool {
        let Some(place) = self.map.shards.get(&shard) else { return false };
        let serves = place.leader.is_some_and(|(_, term)| self.serving.get(&shard) == Some(&term));
        serves && place.has_quorum() && place.leader_place().is_some_and(|leader| place.answers(leader))
    }

    /// Whether the replicas of `shard` on other nodes are a majority, as far as they answer: without it nobody can
    /// lead once this node is gone.
    pub fn can_spare_me(&self, shard: ShardId) -> bool {
        let Some(place) = self.map.shards.get(&shard) else { return false };
        let others =
            place.replicas.iter().filter(|replica| replica.node != self.me && place.answers(replica));
        2 * others.count() > place.replicas.len()
    }

    /// Node `node` was heard. Returns whether the map changed.
    pub fn heard(&mut self, node: u64, now_ns: u64) -> bool {
        let Some(last) = self.heard_ns.get_mut(&node) else { return false };
        *last = now_ns.max(*last);
        self.map.learn_failure(node, false)
    }

    /// The last stream from node `node` has ended: its process has, or the way to
    /// it. That is known long before its silence is. Returns whether the map changed.
    pub fn lost(&mut self, node: u64) -> bool {
        self.heard_ns.contains_key(&node) && self.map.learn_failure(node, true)
    }

    /// Notes who has been silent for too long. Returns whether the map changed.
    pub fn check_silence(&mut self, now_ns: u64) -> bool {
        let mut changed = false;
        for (&node, &heard) in &self.heard_ns {
            let silent = now_ns.saturating_sub(heard) > self.silence_ns_max;
            changed |= silent && self.map.learn_failure(node, true);
        }
        changed
    }

    /// The node whose view this is.
    pub fn me(&self) -> u64 {
        self.me
    }
}

fn has(place: &ShardPlace, replica: u64) -> bool {
    place.replicas.iter().any(|other| other.replica == replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn topology(nodes: u32, shards: u32, replicas: u32) -> Topology {
        let mut cluster = ClusterFile::local(nodes, shards, 7001).unwrap();
        cluster.replicas = replicas;
        Topology::new(cluster)
    }

    #[test]
    fn every_shard_has_its_replicas_on_different_nodes_and_a_home() {
        let topology = topology(5, 7, 3);
        for shard in 0..7 {
            let mut nodes: Vec<u64> = topology.nodes_of(shard).map(|entry| entry.id).collect();
            assert_eq!(nodes[0], 1 + u64::from(shard) % 5);
            assert_eq!(topology.home(shard), nodes[0]);
            nodes.sort_unstable();
            nodes.dedup();
            assert_eq!(nodes.len(), 3);
        }
        let held: usize = (1..=5).map(|node| topology.shards_of(node).count()).sum();
        assert_eq!(held, 7 * 3);
    }

    #[test]
    fn the_map_tells_each_replica_by_address_and_stable_name() {
        let map = topology(3, 3, 3).slot_map();
        assert_eq!(map.shard_of(0), Some(0));
        assert_eq!(map.shard_of(16383), Some(2));
        let place = &map.shards[&1];
        let addresses: Vec<String> =
            place.replicas.iter().map(|replica| replica.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:7102", "127.0.0.1:7202", "127.0.0.1:7002"]);
        // Written down: a change would give every replica of every cluster a new name.
        assert_eq!(map.shards[&0].replicas[0].name, "3e1c0883443197a6044aa2e87ff67b5950a5d760");
        let mut names: Vec<&str> = map
            .shards
            .values()
            .flat_map(|shard| &shard.replicas)
            .map(|replica| replica.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 9);
    }

    #[test]
    fn a_shard_is_served_once_its_leader_says_so_in_its_present_term() {
        let mut directory = Directory::new(&topology(3, 3, 3), 1, 1000, 0);
        assert!(directory.learn_leader(0, 5, 2));
        assert!(!directory.is_served(0));
        assert!(directory.learn_serving(0, 5, 2));
        assert!(!directory.learn_serving(0, 5, 2), "no news");
        assert!(directory.is_served(0));
        assert!(directory.learn_leader(0, 6, 3));
        assert!(!directory.is_served(0));
        assert!(!directory.learn_serving(0, 5, 2), "a late word of an old leader");
        assert!(!directory.is_served(0));
        assert!(!directory.learn_serving(0, 7, 99), "no replica of the shard");
        assert!(!directory.learn_serving(9, 7, 1), "no shard");
        assert_eq!(directory.map().shards[&0].leader, Some((3, 6)));
    }

    #[test]
    fn who_has_left_a_shard_does_not_lead_it() {
        let mut directory = Directory::new(&topology(3, 3, 3), 1, 1000, 0);
        directory.learn_serving(0, 5, 1);
        directory.learn_serving(1, 5, 2);
        assert!(directory.leave(0) && !directory.is_served(0));
        assert!(!directory.leave(0) && !directory.leave(1) && !directory.leave(9), "no news");
        assert!(directory.is_served(1), "another leads it");
        assert!(directory.learn_serving(0, 1, 1), "a shard that began anew");
    }

    #[test]
    fn a_shard_is_not_served_while_its_leader_or_a_majority_is_silent() {
        let mut directory = Directory::new(&topology(3, 3, 3), 1, 1000, 0);
        directory.learn_serving(0, 5, 1);
        directory.heard(2, 500);
        assert!(directory.check_silence(1200));
        assert!(directory.is_served(0), "two of three answer");
        assert!(directory.lost(2));
        assert!(!directory.is_served(0), "nobody follows");
        assert!(directory.heard(3, 1300));
        assert!(directory.is_served(0));
        directory.learn_serving(0, 6, 2);
        assert!(!directory.is_served(0), "the leader does not answer");
    }

    #[test]
    fn a_node_can_be_spared_where_a_majority_answers_without_it() {
        let mut directory = Directory::new(&topology(3, 3, 3), 1, 1000, 0);
        assert!(directory.can_spare_me(0));
        directory.lost(2);
        assert!(!directory.can_spare_me(0), "one of three cannot lead");
        directory.heard(2, 10);
        assert!(directory.can_spare_me(0) && !directory.can_spare_me(9));
        assert!(!Directory::new(&topology(1, 1, 1), 1, 1000, 0).can_spare_me(0));
        assert!(!Directory::new(&topology(2, 1, 2), 1, 1000, 0).can_spare_me(0));
        let mut of_five = Directory::new(&topology(5, 1, 5), 1, 1000, 0);
        of_five.lost(4);
        assert!(of_five.can_spare_me(0));
        of_five.lost(5);
        assert!(!of_five.can_spare_me(0));
    }

    #[test]
    fn a_silent_node_is_failed_until_it_is_heard_again() {
        let mut directory = Directory::new(&topology(3, 3, 3), 1, 1000, 0);
        assert!(!directory.check_silence(1000));
        assert!(!directory.heard(2, 900), "it was not failed");
        assert!(directory.check_silence(1500));
        assert_eq!(directory.map().shards[&0].failed, [3]);
        assert!(!directory.check_silence(1600), "no news");
        assert!(directory.heard(3, 1700));
        assert!(directory.map().shards.values().all(|shard| shard.failed.is_empty()));
        assert!(!directory.heard(77, 1700), "no such node");
        assert!(directory.lost(2), "known at once");
        assert!(!directory.check_silence(1800) && !directory.lost(2), "no news");
        assert!(directory.heard(2, 1900));
        assert!(!directory.lost(77), "no such node");
    }
}
