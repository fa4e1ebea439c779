//! The world: virtual time and all that happens in it.
//!
//! Everything that happens is an event in one queue, ordered by time and then by
//! when it was put there; one generator draws all that is drawn. So a seed tells
//! the whole run.
//!
//! * `settings`, `weather`: what a run is made of, drawn from its seed;
//! * `nodes`, `consensus`, `shards`, `snapshots`: the product, driven as the server
//!   drives it;
//! * `directory`: what each node knows of the others;
//! * `network`, `clients`, `publications`: who talks to it, and who listens;
//! * `faults`, `members`, `builds`: what is done to it;
//! * `checks`: how a run ends, and what must be true then.

mod builds;
mod checks;
mod clients;
mod consensus;
mod directory;
mod faults;
mod members;
mod network;
mod nodes;
mod publications;
mod queue;
mod settings;
mod shards;
mod snapshots;
mod weather;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use bytes::BytesMut;
use moonraft::{
    config::ClusterFile,
    consensus::{Input, Settings as ConsensusSettings},
    control::Topology,
    log::{Fatal, said},
    shard::{self, ShardSettings},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use self::settings::{Fault, Report, Settings};
use self::{
    clients::{Client, Connection},
    network::Parcel,
    publications::Listener,
    queue::Queue,
    snapshots::{Installation, Task, Transfer},
    weather::Weather,
};
use crate::{
    disk,
    history::History,
    node::Node,
    workload::{LIBRARIES, QUEUES},
};

const MS: u64 = 1_000_000;
/// Of the first shard at the first node; a node's are 100 above those of the node before.
const FIRST_PORT: u16 = 7001;
/// Once faults have ended, a client gives a request up after this time.
const CALM_PATIENCE: u64 = 3000 * MS;
/// Once faults have ended, every shard must serve within this time.
const HEALED_WITHIN: u64 = 20_000 * MS;
/// Between two ticks of a shard.
const SHARD_TICK: u64 = 50 * MS;
/// What a snapshot goes on by at each event: a few keys, so that much happens in between.
const WALK_STEP: usize = 300;

enum Event {
    /// A node's consensus has something to do at this time: a tick, or entries that were kept back.
    Wake(usize, u32),
    ShardTick(usize, u32),
    ShardWakes(usize, u32, usize),
    ErrandComes(usize, u32, usize),
    Process(usize, u32),
    Deliver(usize, Box<Parcel>),
    Synced(usize, u32),
    ReadMail(usize, u32, usize),
    WriteSnapshot(usize, u32, Box<Task>),
    InstallStep(usize, u32, usize, Installation),
    SnapshotChunk(Box<Transfer>),
    SnapshotDone(usize, u32, Input),
    Start(usize, u32),
    ClientBegins(usize),
    ClientSends(usize, u64),
    ClientArrives(usize, u64, usize, usize),
    ClientGoesOn(usize, u64),
    ClientHears(usize, u64, Vec<u8>),
    ClientLosesPatience(usize, u64),
    /// One node notices that its connection to another is broken, if it still is.
    ConnectionBreaks(usize, usize),
    DoFault,
    Crash(usize, u32),
    /// Leader and the node whose word its lease rests on.
    RestartSupporter(usize, usize),
    /// The links of a node work again, if there is a snapshot beyond this index or it is that late.
    Reconnect {
        node: usize,
        group: u32,
        index: u64,
        until: u64,
    },
    BeBorn(usize, u32),
    /// The incarnation that a node decided on has been written.
    Decided(usize, u32, u32),
    /// A node tells the others how it is, and what it wants.
    TellHints(usize, u32),
    LookAtDisk(usize, u32),
    /// A subscriber connects.
    Listen(usize, u32),
    /// There is room again: on a node's disk, in its memory.
    DiskFreed(usize),
    MemoryFreed(usize),
}

/// The world. See the module.
pub struct World {
    rng: StdRng,
    now: Rc<Cell<u64>>,
    queue: Queue<Event>,
    weather: Weather,
    nodes: Vec<Node>,
    shards: usize,
    topology: Topology,
    /// Links that are cut, from and to.
    cut: BTreeSet<(usize, usize)>,
    clients: Vec<Client>,
    /// Which client waits on which session: node, life, shard, session.
    waiting: BTreeMap<Connection, (usize, u64)>,
    /// Subscribers: node, life, shard, session.
    listeners: BTreeMap<Connection, Listener>,
    unique: u64,
    /// Counts units of clients' operations.
    unit: u64,
    history: History,
    consensus: ConsensusSettings,
    shard_settings: ShardSettings,
    faults_until: u64,
    calm: bool,
    report: Report,
    wrong: Option<String>,
    /// Who led each group in each term, and who retired in it.
    leaders: BTreeMap<(u32, u64), usize>,
    retired: BTreeMap<(u32, u64), usize>,
    /// What replicas of each shard held when they had applied up to an index.
    levels: BTreeMap<(usize, u64), String>,
    /// Nodes that lost their disks and are not yet back.
    lost: BTreeSet<usize>,
    /// A node was started with the newer build after the older; with the older after the newer.
    upgraded: bool,
    taken_back: bool,
    fault: Option<Fault>,
    /// Until then clients only read.
    lull_until: u64,
    /// What shards want done, oldest first.
    outputs: VecDeque<(usize, usize, shard::Output)>,
    driving: bool,
    /// Bytes that wait for a leader to be known.
    parked: BTreeMap<Connection, BytesMut>,
    /// When the last bytes to each client arrive.
    heard_at: Vec<u64>,
}

/// Runs one seed.
///
/// # Errors
/// What was found to be wrong. A node that stops itself (a broken invariant) is
/// wrong too: no fault of this world is a reason for that.
pub fn run(settings: &Settings) -> Result<Report, String> {
    moonraft::keyspace::seed::fix(settings.seed);
    moonraft::marks::take();
    std::panic::catch_unwind(|| World::new(settings).run()).unwrap_or_else(|panic| {
        let fatal = Fatal::of(&*panic);
        Err(format!("a node stopped: {}", fatal.as_ref().map_or_else(|| said(&*panic), Fatal::line)))
    })
}

/// The cluster file's word: every node has a replica of every shard.
fn topology(nodes: usize, shards: usize) -> Topology {
    Topology::new(ClusterFile::local(nodes as u32, shards as u32, FIRST_PORT).expect("it is a small cluster"))
}

impl World {
    fn new(settings: &Settings) -> Self {
        let mut rng = StdRng::seed_from_u64(settings.seed);
        let now = Rc::new(Cell::new(0));
        let count = [1, 3, 3, 3, 3, 3, 3, 3, 5, 5][rng.random_range(0..10)];
        let shards = if rng.random_bool(0.7) { 1 } else { 2 };
        let mut weather = weather::weather(&mut rng, settings.lease_weather);
        weather.mix.weights[QUEUES] = weather::weight_of_queues(
            settings.seed,
            &weather,
            settings.fault == Some(Fault::ServedBeforeCommit),
        );
        weather.mix.weights[LIBRARIES] = weather::weight_of_libraries(settings.seed, &weather);
        if settings.fault == Some(Fault::LeaderAhead) {
            weather::favour_locks(&mut weather.mix);
        }
        let (consensus, mut shard_settings) = settings::product_settings(&mut rng, settings.fault, &weather);
        // Of its own, so that runs without it are what they were.
        let mut of_errands = StdRng::seed_from_u64(!settings.seed);
        let fault_of_errands = settings.fault == Some(Fault::OutcomeOfOtherTerm);
        if fault_of_errands || of_errands.random_bool(0.3) {
            shard_settings.large_elements = of_errands.random_range(0..5);
            weather.errand = [2, 20, 200][of_errands.random_range(0..3)] * MS;
            if !fault_of_errands {
                shard_settings.lent_at_once_max = [1, 2, 1000][of_errands.random_range(0..3)];
            }
        }
        let drifting = rng.random_bool(0.5);
        let topology = topology(count, shards);
        let nodes: Vec<Node> =
            (0..count).map(|index| nodes::new_node(&mut rng, &now, index, &topology, drifting)).collect();
        let clients = (0..rng.random_range(2..10))
            .map(|_| Client::new(rng.random_bool(weather.stubborn), rng.random_range(0..count)));
        let clients: Vec<Client> = clients.collect();
        let heard_at = vec![0; clients.len()];
        Self {
            rng,
            now,
            queue: Queue::new(),
            weather,
            nodes,
            shards,
            topology,
            cut: BTreeSet::new(),
            clients,
            waiting: BTreeMap::new(),
            listeners: BTreeMap::new(),
            unique: 0,
            unit: 0,
            history: History::default(),
            consensus,
            shard_settings,
            faults_until: settings.faulty_ms * MS,
            calm: false,
            report: Report::default(),
            wrong: None,
            leaders: BTreeMap::new(),
            retired: BTreeMap::new(),
            levels: BTreeMap::new(),
            lost: BTreeSet::new(),
            upgraded: false,
            taken_back: false,
            fault: settings.fault,
            lull_until: 0,
            outputs: VecDeque::new(),
            driving: false,
            parked: BTreeMap::new(),
            heard_at,
        }
    }

    fn run(mut self) -> Result<Report, String> {
        self.draw_builds();
        let apart = if self.rng.random_bool(0.3) { 1000 } else { 1 };
        for node in 0..self.nodes.len() {
            let at = self.rng.random_range(0..apart) * MS;
            self.at(at, Event::Start(node, 0));
        }
        for client in 0..self.clients.len() {
            let at = self.rng.random_range(0..500) * MS;
            self.at(at, Event::ClientBegins(client));
        }
        // Now and then before the cluster has begun.
        let (low, high) = if self.rng.random_bool(0.15) { (0, 300) } else { (apart + 300, apart + 600) };
        let first = self.rng.random_range(low..high) * MS;
        self.at(first, Event::DoFault);
        while self.now.get() < self.faults_until {
            self.next()?;
        }
        self.calm_down();
        self.expect_service()?;
        self.finish()
    }

    fn at(&mut self, time: u64, event: Event) {
        self.queue.push(time.max(self.now.get()), event);
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now.get() + delay, event);
    }

    fn next(&mut self) -> Result<(), String> {
        let (time, event) = self.queue.pop().expect("ticks never end");
        self.now.set(time);
        self.report.events += 1;
        self.happen(event);
        self.wrong.take().map_or(Ok(()), Err)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(node, life) => self.wake(node, life),
            Event::ShardTick(node, life) => self.shard_tick(node, life),
            Event::ShardWakes(node, life, shard) => self.shard_wakes(node, life, shard),
            Event::ErrandComes(node, life, shard) => self.errand_comes(node, life, shard),
            Event::Process(node, life) if self.is_awake(node, life) => self.process(node),
            Event::Process(..) => {}
            Event::Deliver(node, message) => self.deliver(node, message),
            Event::Synced(node, life) => self.synced(node, life),
            Event::ReadMail(node, life, shard) => self.read_mail(node, life, shard),
            Event::WriteSnapshot(node, life, task) => self.write_snapshot(node, life, *task),
            Event::InstallStep(node, life, shard, install) => self.install_step(node, life, shard, install),
            Event::SnapshotChunk(transfer) => self.snapshot_chunk(*transfer),
            Event::SnapshotDone(node, life, input) => {
                if self.nodes[node].life == life {
                    self.input(node, input);
                }
            }
            Event::Start(node, life) => {
                if self.nodes[node].life == life && self.nodes[node].running.is_none() {
                    self.start(node);
                }
            }
            Event::ClientBegins(client) => self.client_begins(client),
            Event::ClientSends(client, number) => self.client_sends(client, number),
            Event::ClientArrives(client, number, node, shard) => {
                self.client_arrives(client, number, node, shard)
            }
            Event::ClientGoesOn(client, number) => self.client_goes_on(client, number),
            Event::ClientHears(client, number, bytes) => self.client_hears(client, number, &bytes),
            Event::ClientLosesPatience(client, number) => self.client_gives_up(client, number),
            Event::ConnectionBreaks(from, to) => self.connection_breaks(from, to),
            Event::DoFault => self.do_fault(),
            Event::Crash(node, life) => {
                if self.nodes[node].life == life && !self.calm {
                    self.crash(node);
                }
            }
            Event::Reconnect { node, group, index, until } => self.reconnect(node, group, index, until),
            Event::RestartSupporter(leader, supporter) => self.restart_supporter(leader, supporter),
            Event::BeBorn(node, life) => self.be_born(node, life),
            Event::Decided(node, life, incarnation) => self.decided(node, life, incarnation),
            Event::TellHints(node, life) => self.tell_hints(node, life),
            Event::Listen(node, life) => self.listen(node, life),
            Event::LookAtDisk(node, life) => self.look_at_disk(node, life),
            Event::DiskFreed(node) => self.set_free(node, disk::PLENTY_BYTES),
            Event::MemoryFreed(node) => self.nodes[node].used_bytes.set(0),
        }
    }
}
