//! One simulated node: what runs on it, its disk and its clocks.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use moonraft::{
    consensus::{Consensus, GroupSettings, GroupStatus, Input, LeaseCell, ReplicaId, ShardTimes},
    control::{Directory, Topology, birth::Birth},
    log::{LogWrites, RecoveredGroup},
    replica::{DiskHealth, Dispatch, Install, Intake, Message, Notice, Progress},
    shard::{Busy, BusyShard, Errand, Outcome, ProcessFacts, Shard, ShardSettings, State, Surroundings},
};
use moonraft_router::{Network, SlotMap};
use rand::rngs::StdRng;

use crate::{clock::Clock, disk::Disk, marks::mark};

/// What a simulated shard sees of the world.
struct SimulatedSurroundings {
    clock: Rc<Clock>,
    lease: Arc<LeaseCell>,
    map: Rc<RefCell<Arc<SlotMap>>>,
    kills: Rc<Cell<bool>>,
    used_bytes: Rc<Cell<u64>>,
    errands: Rc<Errands>,
}

/// What one replica has had executed elsewhere.
#[derive(Default)]
pub struct Errands {
    /// Carried out, but nobody knows yet.
    under_way: RefCell<VecDeque<Outcome>>,
    /// Come back, and not asked for.
    come: RefCell<Vec<Outcome>>,
    /// How many have been sent.
    sent: Cell<usize>,
}

impl Errands {
    /// How many have been sent since this was asked last.
    pub fn newly_sent(&self) -> usize {
        self.sent.take()
    }

    /// The oldest comes back, unless it was called back before.
    pub fn come(&self) {
        let outcome = self.under_way.borrow_mut().pop_front();
        self.come.borrow_mut().extend(outcome);
    }
}

impl Surroundings for SimulatedSurroundings {
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
    fn times(&self) -> Option<&ShardTimes> {
        Some(&self.lease.times)
    }
    fn map(&self, _: Network) -> Arc<SlotMap> {
        Arc::clone(&self.map.borrow())
    }
    fn used_bytes(&self) -> u64 {
        self.used_bytes.get()
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
    fn while_busy(&self, _: &mut BusyShard<'_>) -> Busy {
        if self.kills.get() { Busy::Kill } else { Busy::Continue }
    }
    fn send(&self, errand: Box<Errand>) {
        self.errands.under_way.borrow_mut().push_back(errand.run());
        self.errands.sent.set(self.errands.sent.get() + 1);
    }
    fn outcomes(&self) -> Vec<Outcome> {
        self.errands.come.take()
    }
    fn await_outcome(&self, number: u64) -> Outcome {
        let (mut under_way, mut come) = (self.errands.under_way.borrow_mut(), self.errands.come.borrow_mut());
        let is_it = |outcome: &Outcome| outcome.number == number;
        match under_way.iter().position(is_it) {
            Some(at) => under_way.remove(at).expect("it is there"),
            None => {
                let at = come.iter().position(is_it).expect("it was sent");
                come.remove(at)
            }
        }
    }
    fn outcome_within(&self, number: u64, _: Duration) -> Option<Outcome> {
        Some(self.await_outcome(number))
    }
    fn shut_down(&self) {
        // The faults of a plan end nodes, not clients.
    }
}

/// `maxmemory` of all nodes: more than all that is in flight.
pub const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// What the consensus thread is told.
pub enum Told {
    /// What its groups are told.
    Input(Input),
    /// A peer, in this life, asks what is known of it.
    Recall(usize, u32),
}

/// What runs on a node while it is up.
pub struct Running {
    /// All its groups, once they have begun.
    pub dispatch: Option<Dispatch>,
    /// What is known before.
    pub birth: Birth,
    /// Groups that this node's replica is to become a voter of.
    pub joining: BTreeSet<u32>,
    /// Its replicas, by shard.
    pub shards: Vec<Shard>,
    /// The way to each of them.
    pub intakes: Vec<Intake>,
    /// What waits for the thread of each, where that is busy.
    pub mailboxes: Vec<Option<VecDeque<Message>>>,
    /// When each wakes, true time, if it waits for a time.
    pub alarms: Vec<u64>,
    /// What each has had executed elsewhere.
    pub errands: Vec<Rc<Errands>>,
    /// How far each is.
    pub progress: Vec<Arc<Progress>>,
    /// Their leases.
    leases: Vec<Arc<LeaseCell>>,
    /// What waits for the consensus thread.
    pub inbox: VecDeque<Told>,
    /// What it knows of its disk.
    pub health: DiskHealth,
    /// A write is being synced.
    pub syncing: Option<LogWrites>,
    /// When the consensus thread wakes, true time, if nothing comes before.
    pub wakes_at: u64,
    /// Groups it led in this life.
    pub led: BTreeSet<u32>,
    /// What it knows of the cluster.
    pub directory: Directory,
    /// The shards that it leads and serves, each with its term.
    pub serves: BTreeMap<u32, u64>,
    /// The snapshot of each shard that is being written: its number, its chunks; none if it has failed.
    pub writing: BTreeMap<u32, (u64, Option<Vec<Bytes>>)>,
    /// When the thread that writes snapshots has done all that it was told.
    pub written_at: u64,
}

impl Running {
    /// The next that waits for the consensus thread, if this turn takes more.
    pub fn hear(&mut self) -> Option<Told> {
        if self.dispatch.as_ref().is_some_and(Dispatch::is_full) {
            if !self.inbox.is_empty() {
                mark("message waited for the next turn");
            }
            return None;
        }
        self.inbox.pop_front()
    }
}

/// One node.
pub struct Node {
    /// Its number, from 1.
    pub id: u64,
    /// Counts its starts: events of an earlier life are void.
    pub life: u32,
    /// Nothing happens on it before this true time, though its clocks go on.
    pub paused_until: u64,
    /// The newest format that its build reads: see `world::builds`.
    pub reads: u8,
    /// Its disk.
    pub disk: Disk,
    /// Its clocks.
    pub clock: Rc<Clock>,
    /// What it knows of the cluster.
    pub map: Rc<RefCell<Arc<SlotMap>>>,
    /// Scripts that run now are killed.
    pub kills: Rc<Cell<bool>>,
    /// Bytes that its process has taken.
    pub used_bytes: Rc<Cell<u64>>,
    /// `None` while it is down.
    pub running: Option<Running>,
}

/// What a node is started with.
pub struct Start<'a> {
    /// Numbers of shards.
    pub shard: &'a ShardSettings,
    /// Numbers of consensus.
    pub consensus: &'a moonraft::consensus::Settings,
    /// The cluster file's word.
    pub topology: &'a Topology,
    /// A node that is silent for longer counts as failed.
    pub silence_ns_max: u64,
    /// What is drawn at random, by shard.
    pub seeds: Vec<u64>,
}

impl Node {
    /// Starts the node from what its disk holds, as the server does. Returns whether its groups have begun, and the
    /// snapshots that its shards are to install.
    pub fn start(&mut self, start: &Start<'_>) -> (bool, Vec<(usize, Install)>) {
        self.life += 1;
        let recovered = self.disk.log.recover();
        let directory = Directory::new(start.topology, self.id, start.silence_ns_max, self.clock.boot_ns());
        *self.map.borrow_mut() = Arc::new(directory.map().clone());
        let leases: Vec<Arc<LeaseCell>> = start.seeds.iter().map(|_| Arc::default()).collect();
        let errands: Vec<Rc<Errands>> = start.seeds.iter().map(|_| Rc::default()).collect();
        let shards = start.seeds.iter().enumerate().map(|(shard, &seed)| {
            let group = shard as u32;
            let last = recovered.get(&group).map(|it| (it.last_index, it.terms.term(it.last_index)));
            let state = State { acknowledged: last.unwrap_or_default(), ..State::of_new_shard(&[]) };
            let surroundings = SimulatedSurroundings {
                clock: Rc::clone(&self.clock),
                lease: Arc::clone(&leases[shard]),
                map: Rc::clone(&self.map),
                kills: Rc::clone(&self.kills),
                used_bytes: Rc::clone(&self.used_bytes),
                errands: Rc::clone(&errands[shard]),
            };
            let settings = ShardSettings {
                shard: group,
                born_with: vec![start.topology.born_with(group)],
                replica: self.id,
                node: self.id,
                ..start.shard.clone()
            };
            Shard::new(settings, Rc::new(surroundings), state, seed)
        });
        let snapshots = recovered.iter().filter(|(_, it)| it.snapshot.index > 0).map(|(&group, it)| {
            (group as usize, Install { index: it.snapshot.index, term: it.snapshot.term })
        });
        let applied = |group: usize| recovered.get(&(group as u32)).map_or(0, |it| it.snapshot.index);
        let progress = |group| Arc::new(Progress::new(applied(group), start.consensus));
        self.running = Some(Running {
            dispatch: None,
            birth: Birth::new(self.id, self.disk.identity),
            joining: BTreeSet::new(),
            shards: shards.collect(),
            intakes: leases.iter().map(|_| Intake::default()).collect(),
            mailboxes: leases.iter().map(|_| None).collect(),
            alarms: leases.iter().map(|_| u64::MAX).collect(),
            errands: errands.clone(),
            progress: (0..leases.len()).map(progress).collect(),
            leases,
            inbox: VecDeque::new(),
            health: DiskHealth::default(),
            syncing: None,
            wakes_at: 0,
            led: BTreeSet::new(),
            directory,
            serves: BTreeMap::new(),
            writing: BTreeMap::new(),
            written_at: 0,
        });
        let has_begun = recovered.values().any(RecoveredGroup::has_begun);
        (has_begun, snapshots.collect())
    }

    /// The node knows which life of its disk it is in: its groups begin.
    pub fn begin(
        &mut self,
        settings: &moonraft::consensus::Settings,
        topology: &Topology,
        election_ticks: &[u32],
    ) {
        let (replica, now) = (self.replica(), self.clock.boot_ns());
        let mut recovered = self.disk.log.recover();
        let running = self.running.as_mut().expect("it is up");
        let groups = topology.shards_of(self.id).map(|group| GroupSettings {
            group,
            replica,
            voters: topology.nodes_of(group).map(|entry| ReplicaId::new(entry.id, 0)).collect(),
            home: Some(topology.home(group)),
            election_ticks: Some(election_ticks[group as usize]),
            lease: Arc::clone(&running.leases[group as usize]),
            recovered: recovered.remove(&group),
        });
        let groups: Vec<GroupSettings> = groups.collect();
        let reader = Arc::new(self.disk.log.clone());
        let consensus = Consensus::new(settings.clone(), groups, reader, now);
        let progress = (0..).zip(running.progress.iter().map(Arc::clone));
        let mut dispatch = Dispatch::new(consensus, replica, progress);
        running.joining = dispatch.take_notices().into_iter().filter_map(joiner).collect();
        running.dispatch = Some(dispatch);
    }

    /// The power goes.
    pub fn crash(&mut self, rng: &mut StdRng, torn_is_taken: bool) {
        self.running = None;
        self.life += 1;
        self.paused_until = 0;
        self.disk.crash(rng, torn_is_taken);
    }

    /// Its consensus, if that has begun.
    pub fn dispatch(&mut self) -> Option<&mut Dispatch> {
        self.running.as_mut()?.dispatch.as_mut()
    }

    /// The groups' replica here, as it calls itself once it knows.
    pub fn replica(&self) -> ReplicaId {
        ReplicaId::new(self.id, self.disk.identity.expect("which life it is in has been decided"))
    }

    /// Where a group stands here, if it has begun.
    pub fn status(&self, group: u32) -> Option<GroupStatus> {
        self.running.as_ref()?.dispatch.as_ref()?.consensus().status(group)
    }
}

/// The group that a replica of the node asks to be a voter of.
fn joiner(notice: Notice) -> Option<u32> {
    match notice {
        Notice::Members { group, joins: Some(_), .. } => Some(group),
        _ => None,
    }
}
