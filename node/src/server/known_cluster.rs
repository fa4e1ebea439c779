//! What this node knows of its cluster, shared by its threads.
//!
//! Readers take the map without a lock. Whoever learns something changes the
//! [`Directory`] under one, publishes the new map, and tells the shards.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use arc_swap::ArcSwap;
use moonraft_proto::peer::{Joining, LeaderHint};
use moonraft_router::{Network, ShardId, SlotMap};
use tokio::sync::Notify;

use super::replicas::Replicas;
use crate::{control::Directory, shard::Event};

/// The slot map, as each network's clients are shown it.
struct Maps {
    inside: Arc<SlotMap>,
    outside: Arc<SlotMap>,
}

impl Maps {
    fn of(map: &SlotMap) -> Self {
        let [inside, outside] =
            [Network::Inside, Network::Outside].map(|network| Arc::new(map.seen_from(network)));
        Self { inside, outside }
    }
}

/// What a node knows of its cluster.
pub struct KnownCluster {
    directory: Mutex<Directory>,
    maps: ArcSwap<Maps>,
    /// They are told of its changes.
    replicas: Arc<Replicas>,
    /// Shards whose leader is here and serves, with its term and replica id.
    led: Mutex<Vec<LeaderHint>>,
    /// Replicas of this node that are to become voters.
    joining: Mutex<BTreeMap<u32, u64>>,
    /// There is a new leader here: other nodes are to be told.
    news: Notify,
    /// Open streams from each other node.
    streams: Mutex<BTreeMap<u64, usize>>,
}

impl KnownCluster {
    /// One that tells these replicas of its changes.
    pub fn new(directory: Directory, replicas: Arc<Replicas>) -> Self {
        let maps = ArcSwap::from_pointee(Maps::of(directory.map()));
        Self {
            directory: Mutex::new(directory),
            maps,
            replicas,
            led: Mutex::default(),
            joining: Mutex::default(),
            news: Notify::new(),
            streams: Mutex::default(),
        }
    }

    /// The cluster now, with the addresses of one network.
    pub fn map(&self, network: Network) -> Arc<SlotMap> {
        let maps = self.maps.load();
        Arc::clone(match network {
            Network::Inside => &maps.inside,
            Network::Outside => &maps.outside,
        })
    }

    /// This node's consensus says who leads `shard`.
    pub fn learn_leader(&self, shard: ShardId, term: u64, replica: u64) {
        self.change(|directory| directory.learn_leader(shard, term, replica));
        self.led().retain(|hint| hint.shard != shard || hint.term == term);
    }

    /// This node's replica leads `shard` and serves.
    pub fn lead(&self, shard: ShardId, term: u64, replica: u64) {
        self.change(|directory| directory.learn_serving(shard, term, replica));
        let mut led = self.led();
        led.retain(|hint| hint.shard != shard);
        led.push(LeaderHint { shard, term, replica });
        drop(led);
        self.news.notify_waiters();
    }

    /// This node's replica does not lead `shard` any more.
    pub fn follow(&self, shard: ShardId) {
        self.led().retain(|hint| hint.shard != shard);
    }

    /// This node has no replica of `shard` any more.
    pub fn leave(&self, shard: ShardId) {
        self.follow(shard);
        self.join(shard, None);
        self.change(|directory| directory.leave(shard));
    }

    /// Another node was heard, with what it leads.
    pub fn heard(&self, node: u64, hints: &[LeaderHint], now_ns: u64) {
        self.change(|directory| {
            let mut changed = directory.heard(node, now_ns);
            for hint in hints {
                changed |= directory.learn_serving(hint.shard, hint.term, hint.replica);
            }
            changed
        });
    }

    /// A stream from another node has begun; it ends when the guard is dropped.
    pub fn begin_stream(self: &Arc<Self>, node: u64) -> HeardStream {
        *self.streams.lock().expect("no thread panics holding it").entry(node).or_default() += 1;
        HeardStream { cluster: Arc::clone(self), node }
    }

    /// Looks for nodes that have been silent for too long.
    pub fn check_silence(&self, now_ns: u64) {
        self.change(|directory| directory.check_silence(now_ns));
    }

    /// What this node leads, to be told to others.
    pub fn hints(&self) -> Vec<LeaderHint> {
        self.led().clone()
    }

    /// This node's replica of `shard` wants to be a voter, under this id, or is one.
    pub fn join(&self, shard: ShardId, replica: Option<u64>) {
        let mut joining = self.joining.lock().expect("no thread panics holding it");
        match replica {
            Some(replica) => joining.insert(shard, replica),
            None => joining.remove(&shard),
        };
    }

    /// What this node wants to be a member of.
    pub fn joining(&self) -> Vec<Joining> {
        let joining = self.joining.lock().expect("no thread panics holding it");
        joining.iter().map(|(&shard, &replica)| Joining { shard, replica }).collect()
    }

    /// Waits until this node leads something new.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Whether the leaders of these shards are known and have said that they serve.
    pub fn all_served(&self, mut shards: impl Iterator<Item = ShardId>) -> bool {
        let directory = self.directory();
        shards.all(|shard| directory.is_served(shard))
    }

    /// Whether the leader of `shard` is known not to be `replica`, and has said that it serves.
    pub fn is_served_by_another(&self, shard: ShardId, replica: u64) -> bool {
        let directory = self.directory();
        let leader = directory.map().shards.get(&shard).and_then(|place| place.leader);
        leader.is_some_and(|(leader, _)| leader != replica) && directory.is_served(shard)
    }

    /// Whether other nodes could lead `shard` without this one.
    pub fn can_spare_this_node(&self, shard: ShardId) -> bool {
        self.directory().can_spare_me(shard)
    }

    fn change(&self, change: impl FnOnce(&mut Directory) -> bool) {
        let mut directory = self.directory();
        if change(&mut directory) {
            self.maps.store(Arc::new(Maps::of(directory.map())));
            drop(directory);
            self.replicas.tell_all(|| Event::MapChanged);
        }
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().expect("no thread panics holding it")
    }

    fn led(&self) -> MutexGuard<'_, Vec<LeaderHint>> {
        self.led.lock().expect("no thread panics holding it")
    }
}

/// An open stream from another node. When the last of a node's ends, the node
/// counts as failed until it is heard again: sockets of a process that died close
/// at once, and clients must not wait for the silence that follows.
pub struct HeardStream {
    cluster: Arc<KnownCluster>,
    node: u64,
}

impl Drop for HeardStream {
    fn drop(&mut self) {
        let mut streams = self.cluster.streams.lock().expect("no thread panics holding it");
        let open = streams.get_mut(&self.node).expect("it was counted when it began");
        *open -= 1;
        let is_last = *open == 0;
        drop(streams);
        if is_last {
            self.cluster.change(|directory| directory.lost(self.node));
        }
    }
}
