//! The slot map: shards, their slots, their replicas, and who leads each.
//!
//! Shards, slots and places are what the control state says; leaders are what
//! nodes tell each other. A hint of an older term never replaces one of a newer.
//!
//! A cluster may be reached from two networks under different addresses (containers
//! see each other by name, the host sees published ports). A client must only ever
//! be told addresses of its own network, so it is shown a map that has no others:
//! see [`SlotMap::seen_from`].

use std::collections::BTreeMap;

use crate::SLOT_COUNT;

/// The name of a shard: given once, and no place in any row, so that shards may come and go.
pub type ShardId = u32;

/// Where clients reach a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Host name or IP, as announced.
    pub host: String,
    /// Client port.
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The network a client comes from, told by the port it came in at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The one that the nodes share.
    #[default]
    Inside,
    /// One from which the nodes have other addresses, if the cluster file gives them.
    Outside,
}

/// One replica of a shard: to a client, one Redis Cluster node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaPlace {
    /// What it is called in the shard's place: the number of its node, whatever its Raft id is.
    pub replica: u64,
    /// The node it lives on.
    pub node: u64,
    /// 40 hexadecimal digits: its name in `CLUSTER NODES`.
    pub name: String,
    /// Where clients reach it.
    pub address: Address,
    /// Where clients from outside reach it, if that is elsewhere.
    pub outside: Option<Address>,
    /// Where nodes reach its node: the bus port of `CLUSTER NODES`.
    pub peer_port: u16,
}

/// A shard: slots, and the replicas that serve them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// Slots it serves, as ranges with both ends included, ascending.
    pub slots: Vec<(u16, u16)>,
    /// Its replicas.
    pub replicas: Vec<ReplicaPlace>,
    /// The replica that leads it, and the term it does so in.
    pub leader: Option<(u64, u64)>,
    /// Nodes of its replicas that do not answer: `fail` in `CLUSTER NODES`.
    pub failed: Vec<u64>,
}

impl ShardPlace {
    /// The place of the leader, if one is known.
    pub fn leader_place(&self) -> Option<&ReplicaPlace> {
        let (replica, _) = self.leader?;
        self.replicas.iter().find(|place| place.replica == replica)
    }

    /// Whether a replica's node answers.
    pub fn answers(&self, replica: &ReplicaPlace) -> bool {
        !self.failed.contains(&replica.node)
    }

    /// Whether a majority of its replicas lives on nodes that answer.
    pub fn has_quorum(&self) -> bool {
        2 * self.replicas.iter().filter(|place| self.answers(place)).count() > self.replicas.len()
    }

    /// The replica that clients are sent to: the leader while its node answers.
    ///
    /// While the leader's node does not answer, this is the first replica whose
    /// node does, the same for all who miss the same nodes. It holds what it is
    /// asked until there is a leader. Clients need that: named a dead leader, they
    /// find a closed port and have used up their attempts in milliseconds (redis-py
    /// tries ten times without a pause), long before any election ends; and named
    /// nobody, they see a hole in the map, which several refuse.
    pub fn master_place(&self) -> Option<&ReplicaPlace> {
        let answers = |place: &&ReplicaPlace| self.answers(place);
        let leader = self.leader_place();
        let standing_in = || self.replicas.iter().find(answers);
        leader.filter(answers).or_else(standing_in).or(leader).or(self.replicas.first())
    }
}

/// The whole cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotMap {
    /// Grows with each change.
    pub epoch: u64,
    /// The shards, by name.
    pub shards: BTreeMap<ShardId, ShardPlace>,
}

impl SlotMap {
    /// The map with the addresses of one network.
    pub fn seen_from(&self, network: Network) -> Self {
        let mut map = self.clone();
        for place in map.shards.values_mut().flat_map(|shard| &mut shard.replicas) {
            let outside = place.outside.take();
            if let (Network::Outside, Some(outside)) = (network, outside) {
                place.address = outside;
            }
        }
        map
    }

    /// The shard that serves `slot`.
    pub fn shard_of(&self, slot: u16) -> Option<ShardId> {
        let serves =
            |shard: &ShardPlace| shard.slots.iter().any(|&(first, last)| (first..=last).contains(&slot));
        self.shards.iter().find(|&(_, shard)| serves(shard)).map(|(&shard, _)| shard)
    }

    /// Takes a hint of who leads a shard. Returns whether the map changed.
    pub fn learn_leader(&mut self, shard: ShardId, term: u64, replica: u64) -> bool {
        let Some(place) = self.shards.get_mut(&shard) else { return false };
        let newer = place.leader.is_none_or(|(_, known)| term > known);
        if newer {
            place.leader = Some((replica, term));
            self.epoch += 1;
        }
        newer
    }

    /// Notes whether a node answers. Returns whether the map changed.
    pub fn learn_failure(&mut self, node: u64, failed: bool) -> bool {
        let mut changed = false;
        for shard in self.shards.values_mut() {
            let lives_there = shard.replicas.iter().any(|place| place.node == node);
            if lives_there && shard.failed.contains(&node) != failed {
                shard.failed.retain(|&other| other != node);
                shard.failed.extend(failed.then_some(node));
                changed = true;
            }
        }
        self.epoch += u64::from(changed);
        changed
    }

    /// The slots of the shard at `place` when `count` shards share all slots evenly, as
    /// `redis-cli --cluster create` deals them.
    pub fn even_range(place: usize, count: usize) -> (u16, u16) {
        let share = f64::from(SLOT_COUNT) / count as f64;
        let end = |place: usize| ((place as f64 * share).round() as u16).min(SLOT_COUNT);
        (end(place), end(place + 1) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_ranges_cover_all_slots_once() {
        for count in 1..=64 {
            let mut next = 0;
            for shard in 0..count {
                let (first, last) = SlotMap::even_range(shard, count);
                assert_eq!(first, next);
                assert!(last >= first);
                next = last + 1;
            }
            assert_eq!(next, SLOT_COUNT);
        }
        assert_eq!(SlotMap::even_range(0, 3), (0, 5460));
        assert_eq!(SlotMap::even_range(1, 3), (5461, 10922));
    }

    #[test]
    fn a_hint_of_an_older_term_is_ignored() {
        let shard = ShardPlace { slots: vec![], replicas: vec![], leader: None, failed: vec![] };
        let mut map = SlotMap { epoch: 0, shards: BTreeMap::from([(0, shard)]) };
        assert!(map.learn_leader(0, 5, 1));
        assert!(!map.learn_leader(0, 4, 2));
        assert!(!map.learn_leader(1, 9, 2));
        assert_eq!(map.shards[&0].leader, Some((1, 5)));
    }

    #[test]
    fn each_network_sees_its_own_addresses_only() {
        let address = |port| Address { host: "127.0.0.1".into(), port };
        let place = |replica, outside| ReplicaPlace {
            replica,
            node: replica,
            name: String::new(),
            address: address(7000),
            outside,
            peer_port: 0,
        };
        let replicas = vec![place(1, Some(address(8000))), place(2, None)];
        let shard = ShardPlace { slots: vec![], replicas, leader: None, failed: vec![] };
        let map = SlotMap { epoch: 3, shards: BTreeMap::from([(0, shard)]) };
        let ports = |network| {
            let seen = map.seen_from(network);
            assert_eq!(seen.epoch, 3);
            let places = seen.shards[&0].replicas.iter();
            places.map(|place| (place.address.port, place.outside.is_none())).collect::<Vec<_>>()
        };
        assert_eq!(ports(Network::Inside), [(7000, true), (7000, true)]);
        assert_eq!(ports(Network::Outside), [(8000, true), (7000, true)], "the only one there is");
    }

    #[test]
    fn a_replica_that_answers_stands_in_for_a_leader_that_does_not() {
        let place = |replica| ReplicaPlace {
            replica,
            node: 10 + replica,
            name: String::new(),
            address: Address { host: "127.0.0.1".into(), port: 7000 },
            outside: None,
            peer_port: 0,
        };
        let replicas = vec![place(1), place(2), place(3)];
        let shard = ShardPlace { slots: vec![], replicas, leader: None, failed: vec![] };
        let mut map = SlotMap { epoch: 0, shards: BTreeMap::from([(0, shard)]) };
        let master = |map: &SlotMap| map.shards[&0].master_place().unwrap().replica;
        assert_eq!(master(&map), 1, "no hole though no leader is known");
        map.learn_leader(0, 5, 2);
        assert_eq!(master(&map), 2);
        map.learn_failure(12, true);
        assert_eq!(master(&map), 1);
        map.learn_failure(11, true);
        assert_eq!(master(&map), 3);
        map.learn_failure(13, true);
        assert_eq!(master(&map), 2, "nobody answers: the leader that was");
        map.learn_failure(12, false);
        assert_eq!(master(&map), 2);
    }
}
