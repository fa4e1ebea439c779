//! The world: virtual time, the network between nodes and to clients, faults.
//!
//! Everything that happens is an event in one queue, ordered by time and then by
//! when it was put there; one generator draws all that is drawn. So a seed tells
//! the whole run.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use bytes::BytesMut;
use moonraft::{
    consensus::{self, Input, Output, PeerMessage, Role, snapshot_position},
    log::MemoryLog,
    shard::{self, Event as ShardEvent, SessionId, ShardSettings},
};
use moonraft_router::{Address, ReplicaPlace, ShardPlace, SlotMap};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    checker,
    history::{History, Operation, TimeReading},
    node::{Clock, Node, SnapshotFile, Start},
    workload::{Meaning, Request},
};

const MS: u64 = 1_000_000;
/// Once faults have ended, a client gives a request up after this time.
const CALM_PATIENCE: u64 = 3000 * MS;
/// Once faults have ended, every shard must serve within this time.
const HEALED_WITHIN: u64 = 20_000 * MS;
/// Between two ticks of a shard.
const SHARD_TICK: u64 = 50 * MS;

/// A fault planted in the product, which a run must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Replies leave before their batch is committed.
    ReplyBeforeCommit,
    /// A lease without its margin.
    LeaseWithoutMargin,
    /// A node that has just started votes at once.
    VoteAfterRestart,
    /// What was speculative stays when leadership is lost.
    UndoSkipped,
    /// An effect is dropped where it is applied.
    EffectDropped,
}

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// All that is drawn, is drawn from it.
    pub seed: u64,
    /// Virtual milliseconds with faults.
    pub faulty_ms: u64,
    /// A fault of the product itself.
    pub fault: Option<Fault>,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations that were answered.
    pub answered: usize,
    /// Operations whose outcome stayed unknown.
    pub unknown: usize,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// Faults done to the cluster.
    pub faults: usize,
    /// Events in all.
    pub events: u64,
    /// The digests of all replicas at the end.
    pub digests: Vec<String>,
}

/// How unkind the network, the disks and the clocks are in this run.
struct Weather {
    drop: f64,
    duplicate: f64,
    delay: (u64, u64),
    sync: (u64, u64),
    fault_every: (u64, u64),
    /// How likely each kind of fault is, against the others.
    weights: [u32; FAULT_KINDS],
    read_index: bool,
    /// How likely a client asks any replica rather than the one it knows.
    stubborn: f64,
    /// How long clients think between requests, and when they give one up.
    think: (u64, u64),
    patience: u64,
    /// How far election timeouts of a group lie apart, in ticks.
    election_spread: u32,
}

const FAULT_KINDS: usize = 10;

enum Event {
    Tick(usize, u32),
    ShardTick(usize, u32),
    Process(usize, u32),
    Deliver(usize, PeerMessage),
    Synced(usize, u32),
    SnapshotWritten(usize, u32, u32, SnapshotFile),
    SnapshotArrived(usize, SnapshotFile, PeerMessage),
    SnapshotDone(usize, u32, Input),
    Start(usize, u32),
    ClientBegins(usize),
    ClientSends(usize, u64),
    ClientArrives(usize, u64, usize, usize),
    ClientHears(usize, u64, Vec<u8>),
    ClientLosesPatience(usize, u64),
    DoFault,
    /// Leader and the node whose word its lease rests on.
    RestartSupporter(usize, usize),
}

/// One client: one request at a time.
struct Client {
    /// Whether it asks any replica rather than the one it was redirected to:
    /// that is how stale leaders are asked.
    stubborn: bool,
    request: Option<Request>,
    called: u64,
    /// Counts requests, so that late replies are known as such.
    number: u64,
    target: (usize, usize),
    heard: Vec<u8>,
    /// Whether a leader executed it: a follower's clock is its own.
    by_leader: bool,
    /// Where the request is being executed.
    at: Option<(usize, u32, usize, SessionId)>,
}

/// The world. See the module.
pub struct World {
    rng: StdRng,
    now: Rc<Cell<u64>>,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    weather: Weather,
    nodes: Vec<Node>,
    shards: usize,
    /// Links that are cut, from and to.
    cut: BTreeSet<(usize, usize)>,
    clients: Vec<Client>,
    /// Which client waits on which session: node, life, shard, session.
    waiting: BTreeMap<(usize, u32, usize, SessionId), (usize, u64)>,
    unique: u64,
    history: History,
    consensus: consensus::Settings,
    shard_settings: ShardSettings,
    faults_until: u64,
    calm: bool,
    report: Report,
    wrong: Option<String>,
    /// Until then clients only read.
    lull_until: u64,
    /// What shards want done, oldest first.
    outputs: VecDeque<(usize, usize, shard::Output)>,
    driving: bool,
    /// Bytes that wait for a leader to be known.
    parked: BTreeMap<(usize, u32, usize, SessionId), BytesMut>,
    /// When the last bytes to each client arrive.
    heard_at: Vec<u64>,
}

/// Runs one seed.
///
/// # Errors
/// What was found to be wrong. A node that stops itself (a broken invariant) is
/// wrong too: no fault of this world is a reason for that.
pub fn run(settings: &Settings) -> Result<Report, String> {
    std::panic::catch_unwind(|| World::new(settings).run()).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("a node stopped: {}", text.or(panic.downcast_ref().copied()).unwrap_or("?")))
    })
}

fn shard_port(node: usize, shard: usize) -> u16 {
    (7000 + 100 * node + shard) as u16
}

/// A network so good that only leases stand between clients and a stale read.
fn lease_weather() -> Weather {
    Weather {
        drop: 0.0,
        duplicate: 0.0,
        delay: (MS / 20, MS / 2),
        sync: (MS / 50, MS / 5),
        fault_every: (900 * MS, 2500 * MS),
        weights: [1, 0, 0, 1, 0, 0, 0, 0, 12, 0],
        read_index: false,
        stubborn: 0.9,
        think: (2 * MS, 15 * MS),
        patience: 1500 * MS,
        election_spread: 3,
    }
}

fn weather(rng: &mut StdRng) -> Weather {
    if rng.random_bool(0.15) {
        return lease_weather();
    }
    let mut weights = [0; FAULT_KINDS];
    for weight in &mut weights {
        // Swarm testing: in each run some kinds are common, some do not occur.
        *weight = if rng.random_bool(0.4) { 0 } else { rng.random_range(1..10) };
    }
    weights[0] += 1;
    let (slow_disk, near) = (rng.random_bool(0.2), rng.random_bool(0.5));
    Weather {
        drop: if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.15) },
        duplicate: if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.1) },
        delay: (MS / 10, if near { 2 * MS } else { rng.random_range(2..40) * MS }),
        sync: (MS / 20, if slow_disk { 60 * MS } else { MS }),
        fault_every: (20 * MS, rng.random_range(100..1500) * MS),
        weights,
        read_index: rng.random_bool(0.2),
        stubborn: 0.4,
        think: (MS, 60 * MS),
        patience: 3000 * MS,
        election_spread: 10,
    }
}

impl World {
    fn new(settings: &Settings) -> Self {
        let mut rng = StdRng::seed_from_u64(settings.seed);
        let now = Rc::new(Cell::new(0));
        let count = if rng.random_bool(0.75) { 3 } else { 5 };
        let shards = if rng.random_bool(0.7) { 1 } else { 2 };
        let weather = weather(&mut rng);
        let (consensus, shard_settings) = product_settings(&mut rng, settings.fault, weather.read_index);
        let drifting = rng.random_bool(0.5);
        let nodes: Vec<Node> =
            (0..count).map(|index| new_node(&mut rng, &now, index, count, shards, drifting)).collect();
        let clients = (0..rng.random_range(3..9)).map(|_| Client {
            stubborn: rng.random_bool(weather.stubborn),
            request: None,
            called: 0,
            number: 0,
            target: (rng.random_range(0..count), 0),
            heard: Vec::new(),
            by_leader: false,
            at: None,
        });
        let clients: Vec<Client> = clients.collect();
        let heard_at = vec![0; clients.len()];
        Self {
            rng,
            now,
            order: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            weather,
            nodes,
            shards,
            cut: BTreeSet::new(),
            clients,
            waiting: BTreeMap::new(),
            unique: 0,
            history: History::default(),
            consensus,
            shard_settings,
            faults_until: settings.faulty_ms * MS,
            calm: false,
            report: Report::default(),
            wrong: None,
            lull_until: 0,
            outputs: VecDeque::new(),
            driving: false,
            parked: BTreeMap::new(),
            heard_at,
        }
    }

    fn run(mut self) -> Result<Report, String> {
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        for client in 0..self.clients.len() {
            let at = self.rng.random_range(0..500) * MS;
            self.at(at, Event::ClientBegins(client));
        }
        self.at(300 * MS, Event::DoFault);
        while self.now.get() < self.faults_until {
            self.next()?;
        }
        self.calm_down();
        self.expect_service()?;
        self.finish()
    }

    // ---- the queue -------------------------------------------------------------

    fn at(&mut self, time: u64, event: Event) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.order += 1;
        self.queue.push(Reverse((time.max(self.now.get()), self.order, place)));
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now.get() + delay, event);
    }

    fn next(&mut self) -> Result<(), String> {
        let Reverse((time, _, place)) = self.queue.pop().expect("ticks never end");
        self.now.set(time);
        self.report.events += 1;
        let event = self.events[place].take().expect("each event happens once");
        self.free.push(place);
        self.happen(event);
        self.wrong.take().map_or(Ok(()), Err)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(node, life) => self.tick(node, life),
            Event::ShardTick(node, life) => self.shard_tick(node, life),
            Event::Process(node, life) if self.is_awake(node, life) => self.process(node),
            Event::Process(..) => {}
            Event::Deliver(node, message) => self.deliver(node, message),
            Event::Synced(node, life) => self.synced(node, life),
            Event::SnapshotWritten(node, life, group, file) => self.snapshot_written(node, life, group, file),
            Event::SnapshotArrived(node, file, message) => self.snapshot_arrived(node, file, message),
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
            Event::ClientHears(client, number, bytes) => self.client_hears(client, number, &bytes),
            Event::ClientLosesPatience(client, number) => self.client_gives_up(client, number),
            Event::DoFault => self.do_fault(),
            Event::RestartSupporter(leader, supporter) => self.restart_supporter(leader, supporter),
        }
    }

    // ---- nodes -----------------------------------------------------------------

    fn start(&mut self, node: usize) {
        let election_ticks = self.draw_election_ticks(node);
        let seeds = (0..self.shards).map(|_| self.rng.random()).collect();
        let start = Start {
            consensus: &self.consensus,
            shard: &self.shard_settings,
            nodes: self.nodes.len() as u64,
            shards: self.shards,
            election_ticks,
            seeds,
        };
        self.nodes[node].start(&start);
        let life = self.nodes[node].life;
        self.after(self.consensus.tick_ms * MS, Event::Tick(node, life));
        self.after(SHARD_TICK, Event::ShardTick(node, life));
        self.after(0, Event::Process(node, life));
    }

    /// Timeouts that differ between the replicas of a group: the crate's own draw
    /// is not from our seed.
    fn draw_election_ticks(&mut self, node: usize) -> Vec<u32> {
        let min = self.consensus.election_ticks_min;
        let max = min + self.weather.election_spread;
        let step = ((max - min) / self.nodes.len() as u32).max(1);
        let node = node as u32;
        let mut draw = || min + ((node * step + self.rng.random_range(0..step)) % (max - min));
        (0..self.shards).map(|_| draw()).collect()
    }

    fn is_awake(&mut self, node: usize, life: u32) -> bool {
        self.nodes[node].life == life && self.nodes[node].running.is_some() && !self.is_paused(node)
    }

    fn is_paused(&self, node: usize) -> bool {
        self.nodes[node].paused_until > self.now.get()
    }

    fn tick(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life || self.nodes[node].running.is_none() {
            return;
        }
        let tick = self.consensus.tick_ms * MS;
        let next = self.nodes[node].paused_until.max(self.now.get() + tick / 2);
        self.at(next, Event::Tick(node, life));
        if !self.is_paused(node) {
            self.input(node, Input::Tick);
        }
    }

    fn shard_tick(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life || self.nodes[node].running.is_none() {
            return;
        }
        let next = self.nodes[node].paused_until.max(self.now.get() + SHARD_TICK);
        self.at(next, Event::ShardTick(node, life));
        if !self.is_paused(node) {
            for shard in 0..self.shards {
                self.tell(node, shard, ShardEvent::Tick);
            }
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        if let Some(running) = &mut self.nodes[node].running {
            running.inbox.push_back(input);
            let life = self.nodes[node].life;
            let at = self.nodes[node].paused_until;
            self.at(at, Event::Process(node, life));
        }
    }

    /// A turn of the consensus thread: all that waits, then one write.
    fn process(&mut self, node: usize) {
        loop {
            let now = self.nodes[node].clock.boot_ns();
            let Some(running) = &mut self.nodes[node].running else { return };
            if running.syncing {
                return;
            }
            while let Some(input) = running.inbox.pop_front() {
                running.consensus.step(input, now);
            }
            if !running.consensus.has_work() {
                return;
            }
            let work = running.consensus.collect(now);
            let writes = work.writes;
            self.send(node, work.messages);
            self.consensus_outputs(node, work.outputs);
            if !writes.is_empty() {
                self.nodes[node].log.write(&writes);
                let (low, high) = self.weather.sync;
                let delay = self.rng.random_range(low..high);
                let life = self.nodes[node].life;
                self.nodes[node].running.as_mut().expect("it is up").syncing = true;
                self.after(delay, Event::Synced(node, life));
                return;
            }
            self.persisted(node);
        }
    }

    fn synced(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life || self.nodes[node].running.is_none() {
            return;
        }
        if self.is_paused(node) {
            return self.at(self.nodes[node].paused_until, Event::Synced(node, life));
        }
        self.nodes[node].log.sync();
        self.nodes[node].running.as_mut().expect("it is up").syncing = false;
        self.persisted(node);
        self.process(node);
    }

    fn persisted(&mut self, node: usize) {
        let now = self.nodes[node].clock.boot_ns();
        let Some(running) = &mut self.nodes[node].running else { return };
        let work = running.consensus.persisted(now);
        self.send(node, work.messages);
        self.consensus_outputs(node, work.outputs);
    }

    fn send(&mut self, from: usize, messages: Vec<PeerMessage>) {
        for message in messages {
            let to = message.to.node() as usize - 1;
            let copies = if self.draw(self.weather.duplicate) { 2 } else { 1 };
            for _ in 0..copies {
                if self.cut.contains(&(from, to)) || self.draw(self.weather.drop) {
                    continue;
                }
                let (low, high) = self.weather.delay;
                let high = if self.calm { low * 10 } else { high };
                let delay = self.rng.random_range(low..high);
                self.after(delay, Event::Deliver(to, message.clone()));
            }
        }
    }

    fn draw(&mut self, likely: f64) -> bool {
        !self.calm && likely > 0.0 && self.rng.random_bool(likely)
    }

    fn deliver(&mut self, node: usize, message: PeerMessage) {
        if self.nodes[node].running.is_none() {
            return;
        }
        if self.is_paused(node) {
            // A process that is stopped still has its sockets' buffers.
            return self.at(self.nodes[node].paused_until, Event::Deliver(node, message));
        }
        self.input(node, Input::Message(message));
    }

    fn consensus_outputs(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Role { group, term, role } => self.role(node, group, term, role),
                Output::Retiring { group, .. } => {
                    self.tell(node, group as usize, ShardEvent::Follow { leader: None });
                }
                Output::Committed { group, entries } => {
                    let entries = entries.into_iter().map(|entry| shard::CommittedEntry {
                        index: entry.index,
                        term: entry.term,
                        data: entry.data,
                    });
                    let event = ShardEvent::Committed(entries.collect());
                    self.tell(node, group as usize, event);
                }
                Output::RoundConfirmed { group, term, round, .. } => {
                    self.tell(node, group as usize, ShardEvent::RoundConfirmed { term, round });
                }
                Output::TakeSnapshot { group } => self.tell(node, group as usize, ShardEvent::TakeSnapshot),
                Output::SendSnapshot { group, to, index, message, .. } => {
                    self.send_snapshot(node, group, to, index, message);
                }
                Output::InstallSnapshot { group, index, term } => {
                    let file = self.nodes[node].snapshot(group, index).expect("it was kept before").clone();
                    assert_eq!(file.term, term, "a snapshot file is named by index and term");
                    let event = ShardEvent::InstallSnapshot { index, term, data: file.data };
                    self.tell(node, group as usize, event);
                }
                Output::Refused { .. } | Output::RoundRefused { .. } | Output::Members { .. } => {}
            }
        }
    }

    fn role(&mut self, node: usize, group: u32, term: u64, role: Role) {
        let leader = match role {
            Role::Leader => Some(self.nodes[node].id),
            Role::Follower { leader } => leader.map(|replica| replica.0),
            Role::Candidate => None,
        };
        if let Some(leader) = leader {
            let mut map = SlotMap::clone(&self.nodes[node].map.borrow());
            if map.learn_leader(group as usize, term, leader) {
                *self.nodes[node].map.borrow_mut() = Arc::new(map);
            }
        }
        let event = match role {
            Role::Leader => ShardEvent::Lead { term },
            Role::Follower { leader } => ShardEvent::Follow { leader: leader.map(|replica| replica.0) },
            Role::Candidate => ShardEvent::Follow { leader: None },
        };
        self.tell(node, group as usize, event);
    }

    // ---- shards ----------------------------------------------------------------

    fn tell(&mut self, node: usize, shard: usize, event: ShardEvent) {
        let Some(running) = &mut self.nodes[node].running else { return };
        running.shards[shard].handle(event);
        running.shards[shard].end_turn();
        self.drive(node, shard);
    }

    /// Does what a shard wants done, in order: what comes of it is done after it.
    fn drive(&mut self, node: usize, shard: usize) {
        self.gather(node, shard);
        if self.driving {
            return;
        }
        self.driving = true;
        while let Some((node, shard, output)) = self.outputs.pop_front() {
            self.shard_output(node, shard, output);
            self.gather(node, shard);
        }
        self.driving = false;
    }

    fn gather(&mut self, node: usize, shard: usize) {
        if let Some(running) = &mut self.nodes[node].running {
            let outputs = running.shards[shard].take_outputs();
            self.outputs.extend(outputs.into_iter().map(|output| (node, shard, output)));
        }
    }

    fn shard_output(&mut self, node: usize, shard: usize, output: shard::Output) {
        let group = shard as u32;
        match output {
            shard::Output::Propose { term, sequence, data } => {
                self.input(node, Input::Propose { group, term, sequence, data });
            }
            shard::Output::ReadRound { term, round } => {
                self.input(node, Input::ReadRound { group, term, round })
            }
            shard::Output::Applied { index } => self.input(node, Input::Applied { group, index }),
            shard::Output::Snapshot { index, term, data } => {
                let life = self.nodes[node].life;
                let delay = self.rng.random_range(MS..100 * MS);
                let file = SnapshotFile { index, term, data };
                self.after(delay, Event::SnapshotWritten(node, life, group, file));
            }
            shard::Output::Flush(session) => self.flush(node, shard, session),
            shard::Output::Resume(session) => self.resume(node, shard, session),
            shard::Output::Close(session) => self.close(node, shard, session),
            shard::Output::Publish(_) => {}
        }
    }

    fn snapshot_written(&mut self, node: usize, life: u32, group: u32, file: SnapshotFile) {
        if self.nodes[node].life == life {
            let index = file.index;
            self.nodes[node].keep_snapshot(group, file);
            self.input(node, Input::SnapshotPublished { group, index });
        }
    }

    fn send_snapshot(
        &mut self,
        node: usize,
        group: u32,
        to: consensus::ReplicaId,
        index: u64,
        message: PeerMessage,
    ) {
        let target = to.node() as usize - 1;
        let delay = self.rng.random_range(5 * MS..200 * MS);
        let lost = self.cut.contains(&(node, target)) || self.draw(self.weather.drop);
        let file = self.nodes[node].snapshot(group, index).cloned();
        let success = !lost && file.is_some() && self.nodes[target].running.is_some();
        if let (true, Some(file)) = (success, file) {
            self.after(delay, Event::SnapshotArrived(target, file, message));
        }
        let life = self.nodes[node].life;
        let done = Input::SnapshotSent { group, to, success };
        self.after(delay + MS, Event::SnapshotDone(node, life, done));
    }

    fn snapshot_arrived(&mut self, node: usize, file: SnapshotFile, message: PeerMessage) {
        if self.nodes[node].running.is_none() {
            return;
        }
        assert_eq!(snapshot_position(&message), Some((file.index, file.term)));
        self.nodes[node].keep_snapshot(message.group, file);
        self.input(node, Input::SnapshotReceived(message));
    }

    // ---- clients ----------------------------------------------------------------

    fn client_begins(&mut self, client: usize) {
        if self.calm && self.clients[client].request.is_some() {
            return;
        }
        self.unique += 1;
        let mut request = Request::draw(&mut self.rng, self.shards, self.unique);
        while self.now.get() < self.lull_until && !request.only_reads() {
            request = Request::draw(&mut self.rng, self.shards, self.unique);
        }
        self.begin(client, request);
    }

    fn begin(&mut self, client: usize, request: Request) {
        let shard = match request.slot() {
            Ok(slot) => self.nodes[0].map.borrow().shard_of(slot).expect("all slots are served"),
            Err(shard) => shard,
        };
        let node = self.rng.random_range(0..self.nodes.len());
        let state = &mut self.clients[client];
        state.target = if state.stubborn { (node, shard) } else { (state.target.0, shard) };
        state.request = Some(request);
        state.called = self.now.get();
        state.number += 1;
        state.heard.clear();
        let number = state.number;
        self.client_sends(client, number);
        let patience = if self.calm { CALM_PATIENCE } else { self.weather.patience };
        self.after(patience, Event::ClientLosesPatience(client, number));
    }

    fn client_sends(&mut self, client: usize, number: u64) {
        if self.clients[client].number != number || self.clients[client].request.is_none() {
            return;
        }
        let (node, shard) = self.clients[client].target;
        let delay = self.rng.random_range(MS / 20..2 * MS);
        self.after(delay, Event::ClientArrives(client, number, node, shard));
    }

    fn client_arrives(&mut self, client: usize, number: u64, node: usize, shard: usize) {
        if self.clients[client].number != number || self.clients[client].request.is_none() {
            return;
        }
        if self.is_paused(node) {
            let until = self.nodes[node].paused_until;
            return self.at(until, Event::ClientArrives(client, number, node, shard));
        }
        let bytes = self.clients[client].request.as_ref().expect("it is being sent").bytes();
        let life = self.nodes[node].life;
        let Some(running) = &mut self.nodes[node].running else { return self.refused(client, number) };
        let session = running.shards[shard]
            .connect("client:1".into(), "server:1".into())
            .expect("there are few clients");
        self.waiting.insert((node, life, shard, session), (client, number));
        self.clients[client].at = Some((node, life, shard, session));
        self.receive(node, shard, session, &bytes);
    }

    /// Nobody listens there: the request was not sent. Another replica is asked.
    fn refused(&mut self, client: usize, number: u64) {
        self.clients[client].target.0 = self.rng.random_range(0..self.nodes.len());
        self.after(20 * MS, Event::ClientSends(client, number));
    }

    fn receive(&mut self, node: usize, shard: usize, session: SessionId, bytes: &[u8]) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let mut input = BytesMut::from(bytes);
        let by_leader = running.shards[shard].is_serving();
        let received = running.shards[shard].receive(session, &mut input);
        running.shards[shard].end_turn();
        let key = (node, self.nodes[node].life, shard, session);
        if let Some(&(client, _)) = self.waiting.get(&key) {
            self.clients[client].by_leader = by_leader;
        }
        if received.parked {
            self.parked.insert(key, input);
        }
        self.flush(node, shard, session);
        self.drive(node, shard);
    }

    fn resume(&mut self, node: usize, shard: usize, session: SessionId) {
        let key = (node, self.nodes[node].life, shard, session);
        if let Some(input) = self.parked.remove(&key) {
            self.receive(node, shard, session, &input);
        }
    }

    fn flush(&mut self, node: usize, shard: usize, session: SessionId) {
        let key = (node, self.nodes[node].life, shard, session);
        let Some(running) = &mut self.nodes[node].running else { return };
        let bytes = running.shards[shard].writable(session).to_vec();
        running.shards[shard].written(session, bytes.len());
        if bytes.is_empty() {
            return;
        }
        if let Some(&(client, number)) = self.waiting.get(&key) {
            let delay = self.rng.random_range(MS / 20..2 * MS);
            // A connection keeps the order of its bytes.
            let at = (self.now.get() + delay).max(self.heard_at[client]);
            self.heard_at[client] = at;
            self.at(at, Event::ClientHears(client, number, bytes));
        }
    }

    fn close(&mut self, node: usize, shard: usize, session: SessionId) {
        let key = (node, self.nodes[node].life, shard, session);
        if let Some(running) = &mut self.nodes[node].running {
            running.shards[shard].disconnect(session);
        }
        if let Some((client, number)) = self.waiting.remove(&key) {
            self.client_gives_up(client, number);
        }
    }

    fn client_hears(&mut self, client: usize, number: u64, bytes: &[u8]) {
        if self.clients[client].number != number || self.clients[client].request.is_none() {
            return;
        }
        self.clients[client].heard.extend_from_slice(bytes);
        let request = self.clients[client].request.clone().expect("it was looked at");
        let Some(meaning) = request.meaning(&self.clients[client].heard) else { return };
        self.hang_up(client);
        self.clients[client].heard.clear();
        match meaning {
            Meaning::Moved(port) => {
                let (node, shard) = (usize::from(port - 7000) / 100, usize::from(port) % 100);
                if shard != self.clients[client].target.1 {
                    self.wrong = Some(format!("{request:?} was redirected to shard {shard}"));
                }
                self.clients[client].target.0 = node;
                self.after(2 * MS, Event::ClientSends(client, number));
            }
            Meaning::Again => {
                self.clients[client].target.0 = self.rng.random_range(0..self.nodes.len());
                self.after(50 * MS, Event::ClientSends(client, number));
            }
            Meaning::Wrong(text) => self.wrong = Some(format!("{request:?} was answered {text}")),
            Meaning::Time(shown) => {
                let (called, returned) = (self.clients[client].called, self.now.get());
                let shard = self.clients[client].target.1;
                if self.clients[client].by_leader {
                    self.history.times.push(TimeReading { shard, called, returned, shown });
                }
                self.answered(client, vec![]);
            }
            Meaning::Answers(answers) => {
                self.answered(client, answers.into_iter().map(Some).collect());
            }
        }
    }

    fn hang_up(&mut self, client: usize) {
        let Some((node, life, shard, session)) = self.clients[client].at.take() else { return };
        self.waiting.remove(&(node, life, shard, session));
        self.parked.remove(&(node, life, shard, session));
        if self.nodes[node].life == life
            && let Some(running) = &mut self.nodes[node].running
        {
            running.shards[shard].disconnect(session);
        }
    }

    /// The request has ended; without answers, nobody knows how.
    fn answered(&mut self, client: usize, answers: Vec<Option<crate::history::Answer>>) {
        let state = &mut self.clients[client];
        let request = state.request.take().expect("a request was under way");
        let known = !answers.is_empty() || matches!(request, Request::Time(_));
        self.report.answered += usize::from(known);
        self.report.unknown += usize::from(!known);
        let mut answers = answers.into_iter();
        for (key, action) in request.actions() {
            let answer = answers.next().flatten();
            let returned = if answer.is_some() { self.now.get() } else { u64::MAX };
            self.history.operations.push(Operation { key, action, called: state.called, returned, answer });
        }
        let (low, high) = self.weather.think;
        let pause = self.rng.random_range(low..high);
        if !self.calm {
            self.after(pause, Event::ClientBegins(client));
        }
    }

    fn client_gives_up(&mut self, client: usize, number: u64) {
        if self.clients[client].number == number && self.clients[client].request.is_some() {
            self.hang_up(client);
            self.answered(client, vec![]);
        }
    }

    // ---- faults -----------------------------------------------------------------

    fn do_fault(&mut self) {
        if self.calm {
            return;
        }
        let (low, high) = self.weather.fault_every;
        let delay = self.rng.random_range(low..high);
        self.after(delay, Event::DoFault);
        self.report.faults += 1;
        let total: u32 = self.weather.weights.iter().sum();
        let mut draw = self.rng.random_range(0..total);
        let kind = self.weather.weights.iter().position(|&weight| {
            let here = draw < weight;
            draw = draw.saturating_sub(weight);
            here
        });
        let node = self.rng.random_range(0..self.nodes.len());
        match kind.expect("the draw is below the sum") {
            0 => self.cut.clear(),
            1 => self.crash(node),
            2 => self.partition(),
            3 => self.isolate_leader(),
            4 => self.cut_one_way(node),
            5 => self.cut_bridge(),
            6 => self.nodes[node].paused_until = self.now.get() + self.rng.random_range(50..2000) * MS,
            7 => self.jump_clock(node),
            8 => self.leave_one_supporter(),
            _ => self.transfer(node),
        }
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].running.is_none() {
            return;
        }
        let kept = self.rng.random_range(0..3);
        self.nodes[node].crash(kept);
        self.nodes[node].paused_until = 0;
        let life = self.nodes[node].life;
        let quick = self.rng.random_bool(0.5);
        let down = if quick { self.rng.random_range(5..100) } else { self.rng.random_range(100..3000) };
        self.after(down * MS, Event::Start(node, life));
        let gone: Vec<_> = self.waiting.keys().filter(|key| key.0 == node).copied().collect();
        for key in gone {
            let (client, number) = self.waiting.remove(&key).expect("it was listed");
            self.client_gives_up(client, number);
        }
    }

    fn partition(&mut self) {
        self.cut.clear();
        let side: Vec<bool> = self.nodes.iter().map(|_| self.rng.random_bool(0.5)).collect();
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if side[from] != side[to] {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    fn leader(&self) -> Option<usize> {
        let leads = |node: &Node| {
            node.running.as_ref().is_some_and(|running| running.shards.iter().any(shard::Shard::is_serving))
        };
        self.nodes.iter().position(leads)
    }

    fn isolate_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.cut.clear();
        for other in (0..self.nodes.len()).filter(|&other| other != leader) {
            self.cut.extend([(leader, other), (other, leader)]);
        }
    }

    fn cut_one_way(&mut self, node: usize) {
        let inward = self.rng.random_bool(0.5);
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.cut.insert(if inward { (other, node) } else { (node, other) });
        }
    }

    /// The leader and one other do not hear each other, but all the rest do.
    fn cut_bridge(&mut self) {
        let Some(leader) = self.leader() else { return };
        let other = self.rng.random_range(0..self.nodes.len());
        if other != leader {
            self.cut.extend([(leader, other), (other, leader)]);
        }
    }

    /// The leader is heard by just enough nodes; later one of those forgets that
    /// it heard it.
    fn leave_one_supporter(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.cut.clear();
        let mut others: Vec<usize> = (0..self.nodes.len()).filter(|&other| other != leader).collect();
        let supporter = others.swap_remove(self.rng.random_range(0..others.len()));
        for &other in others.iter().take(self.nodes.len() / 2) {
            self.cut.extend([(leader, other), (other, leader)]);
        }
        let delay = self.rng.random_range(600..1500) * MS;
        // A lull: the others have the whole log, so that nothing but the
        // supporter's promise keeps it from electing one of them.
        self.lull_until = self.now.get() + delay;
        self.after(delay, Event::RestartSupporter(leader, supporter));
    }

    fn restart_supporter(&mut self, leader: usize, supporter: usize) {
        if self.calm || self.nodes[supporter].running.is_none() {
            return;
        }
        self.cut.extend([(leader, supporter), (supporter, leader)]);
        self.crash(supporter);
        let life = self.nodes[supporter].life;
        let down = self.rng.random_range(1..5) * MS;
        self.after(down, Event::Start(supporter, life));
    }

    fn jump_clock(&mut self, node: usize) {
        let offset = &self.nodes[node].clock.wall_offset_us;
        offset.set(offset.get() + self.rng.random_range(-5_000_000..5_000_000));
    }

    fn transfer(&mut self, node: usize) {
        let group = self.rng.random_range(0..self.shards) as u32;
        let to = self.rng.random_range(1..=self.nodes.len() as u64);
        self.input(node, Input::Transfer { group, to: Some(to) });
    }

    // ---- the end ----------------------------------------------------------------

    /// No more faults: all links work, all nodes run.
    fn calm_down(&mut self) {
        self.calm = true;
        self.cut.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = 0;
            if self.nodes[node].running.is_none() {
                self.start(node);
            } else {
                let life = self.nodes[node].life;
                self.after(0, Event::Process(node, life));
            }
        }
    }

    /// Every shard serves a write and a read, and all clients come to an end.
    fn expect_service(&mut self) -> Result<(), String> {
        let deadline = self.now.get() + HEALED_WITHIN;
        let mut open: VecDeque<Request> = (0..2)
            .flat_map(|which| {
                let list = format!("{{tag{which}}}list");
                let count = format!("{{tag{which}}}count");
                let register = format!("register{which}");
                [
                    Request::Both(count, list.clone(), 1_000_000 + which),
                    Request::Key(list, crate::history::Action::ReadList),
                    Request::Key(register, crate::history::Action::Read),
                ]
            })
            .collect();
        while !open.is_empty() || self.clients.iter().any(|client| client.request.is_some()) {
            if self.now.get() > deadline {
                return Err(format!(
                    "no service after healing: {} requests left: {}",
                    open.len(),
                    self.describe()
                ));
            }
            if let Some(client) = self.clients.iter().position(|client| client.request.is_none())
                && let Some(request) = open.pop_front()
            {
                let before = self.report.unknown;
                self.begin(client, request.clone());
                while self.clients[client].request.is_some() {
                    self.next()?;
                }
                if self.report.unknown > before && self.now.get() < deadline {
                    open.push_back(request);
                }
            }
            self.next()?;
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let show = |node: &Node| match &node.running {
            None => format!("{} down", node.id),
            Some(running) => {
                let shards = running.shards.iter().enumerate().map(|(shard, state)| {
                    format!("{:?} {:?}", state.standing(), running.consensus.status(shard as u32))
                });
                format!("{} {}", node.id, shards.collect::<Vec<_>>().join(" "))
            }
        };
        self.nodes.iter().map(show).collect::<Vec<_>>().join("\n")
    }

    /// Lets replicas catch up, then compares them and checks the history.
    fn finish(mut self) -> Result<Report, String> {
        let deadline = self.now.get() + HEALED_WITHIN;
        while !self.replicas_are_level() {
            if self.now.get() > deadline {
                return Err(format!("replicas do not catch up: {}", self.describe()));
            }
            self.next()?;
        }
        for shard in 0..self.shards {
            let digests: Vec<String> = self.nodes.iter().map(|node| digest(node, shard)).collect();
            if digests.iter().any(|digest| *digest != digests[0]) {
                return Err(format!("replicas of shard {shard} have parted: {digests:?}"));
            }
            self.report.digests.extend(digests);
        }
        checker::check(&self.history)?;
        self.report.virtual_ms = self.now.get() / MS;
        Ok(self.report)
    }

    fn replicas_are_level(&self) -> bool {
        (0..self.shards).all(|shard| {
            let applied = |node: &Node| node.running.as_ref().map(|running| running.shards[shard].applied());
            let first = applied(&self.nodes[0]);
            let settled = |node: &Node| {
                node.running.as_ref().is_some_and(|running| !running.shards[shard].is_speculating())
            };
            first.is_some() && self.nodes.iter().all(|node| applied(node) == first && settled(node))
        })
    }
}

fn digest(node: &Node, shard: usize) -> String {
    let running = node.running.as_ref().expect("all nodes run at the end");
    let keyspace = running.shards[shard].keyspace();
    format!("{} {}", keyspace.digest(), keyspace.shared_digest())
}

fn product_settings(
    rng: &mut StdRng,
    fault: Option<Fault>,
    read_index: bool,
) -> (consensus::Settings, ShardSettings) {
    let mut consensus = consensus::Settings {
        log_entries_max: rng.random_range(20..200),
        slack_entries_max: rng.random_range(0..30),
        ..consensus::Settings::default()
    };
    let mut shard = ShardSettings { read_index, ..ShardSettings::default() };
    match fault {
        Some(Fault::LeaseWithoutMargin) => consensus.fault = consensus::PlantedFault::LeaseWithoutMargin,
        Some(Fault::VoteAfterRestart) => consensus.fault = consensus::PlantedFault::VoteAfterRestart,
        Some(Fault::ReplyBeforeCommit) => shard.fault = Some(shard::PlantedFault::ReplyBeforeCommit),
        Some(Fault::UndoSkipped) => shard.fault = Some(shard::PlantedFault::UndoSkipped),
        Some(Fault::EffectDropped) => shard.fault = Some(shard::PlantedFault::EffectDropped),
        None => {}
    }
    (consensus, shard)
}

fn new_node(
    rng: &mut StdRng,
    now: &Rc<Cell<u64>>,
    index: usize,
    count: usize,
    shards: usize,
    drifting: bool,
) -> Node {
    let clock = Clock {
        now: Rc::clone(now),
        // Two clocks differ by less than the 10 % that leases allow for.
        drift_ppm: if drifting { rng.random_range(-45_000..45_000) } else { 0 },
        wall_offset_us: Cell::new(rng.random_range(-2_000_000..2_000_000)),
        boot_offset_ns: rng.random_range(1..1_000_000) * MS,
    };
    Node {
        id: index as u64 + 1,
        life: 0,
        paused_until: 0,
        log: MemoryLog::new(),
        snapshots: BTreeMap::new(),
        clock: Rc::new(clock),
        map: Rc::new(RefCell::new(Arc::new(slot_map(count, shards)))),
        running: None,
    }
}

fn slot_map(nodes: usize, shards: usize) -> SlotMap {
    let place = |node: usize, shard: usize| ReplicaPlace {
        replica: node as u64 + 1,
        node: node as u64 + 1,
        name: format!("{node:020x}{shard:020x}"),
        address: Address { host: "sim".into(), port: shard_port(node, shard) },
        peer_port: 1,
    };
    let shard = |shard: usize| ShardPlace {
        slots: vec![SlotMap::even_range(shard, shards)],
        replicas: (0..nodes).map(|node| place(node, shard)).collect(),
        leader: None,
        failed: vec![],
    };
    SlotMap { epoch: 0, shards: (0..shards).map(shard).collect() }
}
