//! One simulated node: what runs on it, its disk and its clocks.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;

use moonraft::{
    consensus::{Consensus, GroupSettings, Input, LeaseCell, ReplicaId},
    shard::{Busy, Event, ProcessFacts, Shard, ShardSettings, State, Surroundings},
};
use moonraft_router::{Network, SlotMap};
use rand::rngs::StdRng;

use crate::{clock::Clock, disk::Disk, marks::mark};

/// What a simulated shard sees of the world.
struct World {
    clock: Rc<Clock>,
    lease: Arc<LeaseCell>,
    map: Rc<RefCell<Arc<SlotMap>>>,
    kills: Rc<Cell<bool>>,
}

impl Surroundings for World {
    fn unix_us(&self) -> u64 {
        self.clock.wall_us()
    }
    fn boot_ns(&self) -> u64 {
        self.clock.boot_ns()
    }
    fn lease_covers(&self, term: u64) -> bool {
        let before = self.lease.covers(term, self.clock.boot_ns());
        let covers = self.lease.covers(term, self.clock.boot_ns_after_stall());
        if covers {
            mark("read answered under a lease");
        } else if before {
            mark("lease lapsed while a read was executed");
        }
        covers
    }
    fn map(&self, _: Network) -> Arc<SlotMap> {
        Arc::clone(&self.map.borrow())
    }
    fn facts(&self) -> ProcessFacts {
        ProcessFacts::default()
    }
    fn settings(&self, _: &[u8]) -> Vec<(String, String)> {
        Vec::new()
    }
    fn change_settings(&self, _: &[(&[u8], &[u8])]) -> Result<(), String> {
        Ok(())
    }
    fn while_busy(&self) -> Busy {
        if self.kills.get() { Busy::Kill } else { Busy::Continue }
    }
}

/// What runs on a node while it is up.
pub struct Running {
    /// All its groups.
    pub consensus: Consensus,
    /// Its replicas, by shard.
    pub shards: Vec<Shard>,
    /// What waits for each shard's thread, where it is busy.
    pub mailboxes: Vec<Option<VecDeque<Event>>>,
    /// What waits for the consensus thread.
    pub inbox: VecDeque<Input>,
    /// A write is being synced.
    pub syncing: bool,
    /// Groups it led in this life.
    pub led: BTreeSet<u32>,
    /// Chunks of the snapshot that each shard is taking, and its number.
    pub taking: BTreeMap<u32, (u64, Vec<Bytes>)>,
}

/// One node.
pub struct Node {
    /// Its number, from 1.
    pub id: u64,
    /// Counts its starts: events of an earlier life are void.
    pub life: u32,
    /// Nothing happens on it before this true time, though its clocks go on.
    pub paused_until: u64,
    /// Its disk.
    pub disk: Disk,
    /// Its clocks.
    pub clock: Rc<Clock>,
    /// What it knows of the cluster.
    pub map: Rc<RefCell<Arc<SlotMap>>>,
    /// Scripts that run now are killed.
    pub kills: Rc<Cell<bool>>,
    /// Counts its disks.
    pub incarnation: u32,
    /// `None` while it is down.
    pub running: Option<Running>,
}

/// What a node is started with.
pub struct Start<'a> {
    /// Numbers of consensus.
    pub consensus: &'a moonraft::consensus::Settings,
    /// Numbers of shards.
    pub shard: &'a ShardSettings,
    /// The node count.
    pub nodes: u64,
    /// The shard count.
    pub shards: usize,
    /// Election timeouts by shard, in ticks.
    pub election_ticks: Vec<u32>,
    /// What is drawn at random, by shard.
    pub seeds: Vec<u64>,
}

impl Node {
    /// Starts the node from what its disk holds.
    pub fn start(&mut self, start: &Start<'_>) {
        self.life += 1;
        let recovered = self.disk.log.recover();
        let replica = self.replica();
        let groups = (0..start.shards as u32).map(|group| GroupSettings {
            group,
            replica,
            voters: (1..=start.nodes).map(|node| ReplicaId::new(node, 0)).collect(),
            home: Some(1 + u64::from(group) % start.nodes),
            election_ticks: Some(start.election_ticks[group as usize]),
            lease: Arc::default(),
            recovered: recovered.get(&group).cloned(),
        });
        let reader = Arc::new(self.disk.log.clone());
        let consensus =
            Consensus::new(start.consensus.clone(), groups.collect(), reader, self.clock.boot_ns());
        let shards = (0..start.shards).map(|shard| {
            let group = shard as u32;
            let index = recovered.get(&group).map_or(0, |group| group.snapshot.index);
            let last = recovered.get(&group).map(|it| (it.last_index, it.terms.term(it.last_index)));
            let acknowledged = last.unwrap_or_default();
            let state = State { acknowledged, ..self.restore(group, index, start.shards) };
            let lease = consensus.lease(group).expect("the group was made just now");
            let world = World {
                clock: Rc::clone(&self.clock),
                lease,
                map: Rc::clone(&self.map),
                kills: Rc::clone(&self.kills),
            };
            let settings =
                ShardSettings { shard: group, replica: replica.0, node: self.id, ..start.shard.clone() };
            Shard::new(settings, Rc::new(world), state, start.seeds[shard])
        });
        let shards = shards.collect();
        let mailboxes = (0..start.shards).map(|_| None).collect();
        self.running = Some(Running {
            consensus,
            shards,
            mailboxes,
            inbox: VecDeque::new(),
            syncing: false,
            led: BTreeSet::new(),
            taking: BTreeMap::new(),
        });
    }

    /// The state of the snapshot at `index`, or of a new shard.
    fn restore(&self, group: u32, index: u64, shards: usize) -> State {
        if index == 0 {
            return State::of_new_shard(&[SlotMap::even_range(group as usize, shards)]);
        }
        let file = self.disk.snapshot(group, index).expect("the log names a snapshot that is durable");
        State::from_snapshot(file.index, file.term, &file.chunks).expect("a snapshot was written just so")
    }

    /// The power goes.
    pub fn crash(&mut self, rng: &mut StdRng, torn_is_taken: bool) {
        self.running = None;
        self.life += 1;
        self.paused_until = 0;
        self.disk.crash(rng, torn_is_taken);
    }

    /// The group's replica here, as it calls itself.
    pub fn replica(&self) -> ReplicaId {
        ReplicaId::new(self.id, self.incarnation)
    }
}
