//! One simulated node: its consensus, its shards, its disk and its clock.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use moonraft::{
    consensus::{Consensus, GroupSettings, Input, LeaseCell, ReplicaId},
    log::MemoryLog,
    shard::{Busy, ProcessFacts, Shard, ShardSettings, State, Surroundings},
};
use moonraft_router::SlotMap;

/// A node's clocks: true time through a rate and an offset.
#[derive(Debug)]
pub struct Clock {
    /// True time, nanoseconds; shared by all.
    pub now: Rc<Cell<u64>>,
    /// Parts per million that this clock runs faster.
    pub drift_ppm: i64,
    /// What the wall clock is off by, microseconds.
    pub wall_offset_us: Cell<i64>,
    /// When the boot clock began.
    pub boot_offset_ns: u64,
}

/// Unix microseconds at true time 0.
const EPOCH_US: i64 = 1_700_000_000_000_000;

impl Clock {
    fn rated(&self, nanoseconds: u64) -> u64 {
        let drift = i128::from(nanoseconds) * i128::from(self.drift_ppm) / 1_000_000;
        (i128::from(nanoseconds) + drift) as u64
    }

    /// The boot clock, nanoseconds.
    pub fn boot_ns(&self) -> u64 {
        self.boot_offset_ns + self.rated(self.now.get())
    }

    /// The wall clock, Unix microseconds.
    pub fn wall_us(&self) -> u64 {
        (EPOCH_US + (self.rated(self.now.get()) / 1000) as i64 + self.wall_offset_us.get()) as u64
    }
}

/// What a simulated shard sees of the world.
struct World {
    clock: Rc<Clock>,
    lease: Arc<LeaseCell>,
    map: Rc<std::cell::RefCell<Arc<SlotMap>>>,
}

impl Surroundings for World {
    fn unix_us(&self) -> u64 {
        self.clock.wall_us()
    }
    fn boot_ns(&self) -> u64 {
        self.clock.boot_ns()
    }
    fn lease_covers(&self, term: u64) -> bool {
        self.lease.covers(term, self.clock.boot_ns())
    }
    fn map(&self) -> Arc<SlotMap> {
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
        Busy::Continue
    }
}

/// A snapshot file.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    /// The last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Its bytes.
    pub data: Bytes,
}

/// What runs on a node while it is up.
pub struct Running {
    /// All its groups.
    pub consensus: Consensus,
    /// Its replicas, by shard.
    pub shards: Vec<Shard>,
    /// What waits for the consensus thread.
    pub inbox: VecDeque<Input>,
    /// A write is being synced.
    pub syncing: bool,
}

/// One node.
pub struct Node {
    /// Its number, from 1.
    pub id: u64,
    /// Counts its starts: events of an earlier life are void.
    pub life: u32,
    /// Nothing happens on it before this true time, though its clocks go on.
    pub paused_until: u64,
    /// Its disk: the log.
    pub log: MemoryLog,
    /// Its disk: snapshot files by group, oldest first.
    pub snapshots: BTreeMap<u32, Vec<SnapshotFile>>,
    /// Its clocks.
    pub clock: Rc<Clock>,
    /// What it knows of the cluster.
    pub map: Rc<std::cell::RefCell<Arc<SlotMap>>>,
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
        let recovered = self.log.recover();
        let replica = ReplicaId::new(self.id, 0);
        let groups = (0..start.shards as u32).map(|group| GroupSettings {
            group,
            replica,
            voters: (1..=start.nodes).map(|node| ReplicaId::new(node, 0)).collect(),
            home: Some(1 + u64::from(group) % start.nodes),
            election_ticks: Some(start.election_ticks[group as usize]),
            recovered: recovered.get(&group).cloned(),
        });
        let reader = Arc::new(self.log.clone());
        let consensus =
            Consensus::new(start.consensus.clone(), groups.collect(), reader, self.clock.boot_ns());
        let shards = (0..start.shards).map(|shard| {
            let group = shard as u32;
            let index = recovered.get(&group).map_or(0, |group| group.snapshot.index);
            let state = self.restore(group, index, start.shards);
            let lease = consensus.lease(group).expect("the group was made just now");
            let world = World { clock: Rc::clone(&self.clock), lease, map: Rc::clone(&self.map) };
            let settings =
                ShardSettings { shard: group, replica: replica.0, node: self.id, ..start.shard.clone() };
            Shard::new(settings, Rc::new(world), state, start.seeds[shard])
        });
        let shards = shards.collect();
        self.running = Some(Running { consensus, shards, inbox: VecDeque::new(), syncing: false });
    }

    /// The state of the snapshot at `index`, or of a new shard.
    fn restore(&self, group: u32, index: u64, shards: usize) -> State {
        if index == 0 {
            return State::of_new_shard(&[SlotMap::even_range(group as usize, shards)]);
        }
        let file = self.snapshot(group, index).expect("the log names a snapshot that is durable");
        State::from_snapshot(file.index, file.term, &file.data).expect("a snapshot was written just so")
    }

    /// A snapshot file.
    pub fn snapshot(&self, group: u32, index: u64) -> Option<&SnapshotFile> {
        self.snapshots.get(&group)?.iter().find(|file| file.index == index)
    }

    /// A snapshot file is durable. The newest few are kept.
    pub fn keep_snapshot(&mut self, group: u32, file: SnapshotFile) {
        const KEPT: usize = 4;
        let files = self.snapshots.entry(group).or_default();
        files.retain(|other| other.index != file.index);
        files.push(file);
        files.sort_by_key(|file| file.index);
        let over = files.len().saturating_sub(KEPT);
        files.drain(..over);
    }

    /// The power goes; of the unsynced writes, the first `kept` are there.
    pub fn crash(&mut self, kept: usize) {
        self.running = None;
        self.life += 1;
        self.log.crash(kept);
    }
}
