//! A small deterministic cluster: nodes with disks, clocks that drift, a network that loses, delays and repeats.
//!
//! Everything happens in virtual time and is drawn from one seed. What must never happen is collected as
//! `violations` rather than asserted, so that tests of planted faults can look for it.
//!
//! It hears consensus itself, not what `replica` makes of it: there a refused proposal and a hand-over are one message,
//! a refused round none, and followers are told late. What is tested here is what that is made of; the simulator of
//! whole clusters runs it.

mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::config::ClusterFile;
use crate::consensus::*;
use crate::control::Topology;
use crate::control::birth::{self, Memory, Verdict};
use crate::log::{LogWrites, MemoryLog};

pub const MS: u64 = 1_000_000;

/// splitmix64: small, and the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone)]
pub struct Plan {
    pub nodes: u64,
    pub groups: u32,
    pub settings: Settings,
    pub latency_ms: (u64, u64),
    pub sync_ms: (u64, u64),
    /// What each disk takes beside; `None`: anything at once.
    pub disk_bytes_per_ms: Option<u64>,
    pub drop_percent: u64,
    pub repeat_percent: u64,
    /// Clock rates differ from true time by up to this much.
    pub drift_percent: u64,
    pub home: bool,
    /// Connections to a node that crashed break at once, and the others hear of it.
    pub breaks: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            nodes: 3,
            groups: 1,
            settings: Settings::default(),
            latency_ms: (1, 3),
            sync_ms: (0, 2),
            disk_bytes_per_ms: None,
            drop_percent: 0,
            repeat_percent: 0,
            drift_percent: 0,
            home: false,
            breaks: false,
        }
    }
}

/// One entry of a shard's state: where it was committed, and what it says.
pub type Applied = (u64, u64, Bytes);

#[derive(Default)]
pub struct Shard {
    pub state: Vec<Applied>,
    pub applied: u64,
    pub term: u64,
    pub role: Option<Role>,
    pub retiring: bool,
    pub refused: Vec<u64>,
    pub rounds: Vec<(u64, Option<u64>)>, // confirmed at an index, or refused
    pub installed: u32,
    pub snapshots_asked: u32,
    pub hold_applied: bool,
    /// As last told.
    pub members: Option<Members>,
}

pub struct Node {
    pub id: NodeId,
    pub life: u64,
    /// Of its disk; `None` until a node with a new disk has found out.
    pub incarnation: Option<u32>,
    pub log: MemoryLog,
    pub files: BTreeMap<(ShardId, u64, u64), Vec<Applied>>,
    pub consensus: Option<Consensus>,
    pub shards: BTreeMap<ShardId, Shard>,
    inbox: VecDeque<Input>,
    syncing: bool,
    pub paused_until: u64,
    offset: u64,
    rate: u64, // nanoseconds of its clock in a millisecond
}

/// See [`Network::most`].
#[derive(Default, Debug)]
pub struct Most {
    pub written: u64,
    pub sent: u64,
    pub handed: u64,
}

impl Most {
    fn note(&mut self, work: &Work) {
        let mut sent: BTreeMap<ReplicaId, u64> = BTreeMap::new();
        for message in &work.messages {
            *sent.entry(message.to).or_default() += message.data.len() as u64;
        }
        self.sent = self.sent.max(sent.into_values().max().unwrap_or(0));
        let handed = work.outputs.iter().filter_map(|output| match output {
            Output::Committed { entries, .. } => Some(entries),
            _ => None,
        });
        let handed: usize = handed.flatten().map(|entry| entry.data.len()).sum();
        self.handed = self.handed.max(handed as u64);
    }
}

enum Event {
    Input(NodeId, Input),
    Wake(NodeId),
    Synced(NodeId, u64),
    /// A node with a new disk asks its peers who it is.
    Born(NodeId, u64),
    /// A node asks to be taken in where it does not vote.
    Join(NodeId, u64),
    File {
        from: NodeId,
        to: NodeId,
        position: (ShardId, u64, u64),
        message: PeerMessage,
    },
}

pub struct Network {
    pub plan: Plan,
    pub random: Random,
    pub time: u64,
    pub nodes: BTreeMap<NodeId, Node>,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub violations: Vec<String>,
    /// What leaders told of their followers.
    pub followers: Vec<Vec<u64>>,
    /// What leaders told that all members read: who, and which format.
    pub readable: Vec<(NodeId, u8)>,
    pub sent: u64,
    /// The most bytes that a node wrote, sent to another, or handed to its shards, in one turn.
    pub most: Most,
    /// What was committed at each index, by whomever first.
    pub committed: BTreeMap<(ShardId, u64), (u64, Bytes)>,
    committed_term: BTreeMap<ShardId, u64>,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    /// Who has ever sent a message of Raft.
    acted: BTreeSet<ReplicaId>,
}

impl Network {
    pub fn new(seed: u64, plan: Plan) -> Network {
        let mut network = Network {
            random: Random(seed),
            time: 0,
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            violations: Vec::new(),
            followers: Vec::new(),
            readable: Vec::new(),
            sent: 0,
            most: Most::default(),
            committed: BTreeMap::new(),
            committed_term: BTreeMap::new(),
            queue: BTreeMap::new(),
            events: 0,
            acted: BTreeSet::new(),
            plan,
        };
        for id in 1..=network.plan.nodes {
            let drift = network.plan.drift_percent * MS / 100;
            let rate = MS - drift + network.random.below(2 * drift + 1);
            let offset = network.random.below(1 << 40) + 1;
            network.nodes.insert(
                id,
                Node {
                    id,
                    life: 0,
                    incarnation: Some(0),
                    log: MemoryLog::new(),
                    files: BTreeMap::new(),
                    consensus: None,
                    shards: BTreeMap::new(),
                    inbox: VecDeque::new(),
                    syncing: false,
                    paused_until: 0,
                    offset,
                    rate,
                },
            );
        }
        for id in 1..=network.plan.nodes {
            network.start(id);
        }
        network
    }

    pub fn clock(&self, id: NodeId) -> BootTime {
        let node = &self.nodes[&id];
        node.offset + (u128::from(self.time) * u128::from(node.rate) / u128::from(MS)) as u64
    }

    /// The disk of a node is lost, and it is started with a new one.
    pub fn wipe(&mut self, id: NodeId) {
        if self.nodes[&id].consensus.is_some() {
            self.crash(id, 0);
        }
        let node = self.nodes.get_mut(&id).unwrap();
        node.log = MemoryLog::new();
        node.files.clear();
        node.shards.clear();
        node.incarnation = None;
        self.start(id);
    }

    /// Whether the node votes in every group, as far as it knows, and none is between two configurations.
    pub fn votes(&self, id: NodeId) -> bool {
        let node = &self.nodes[&id];
        let (Some(consensus), Some(incarnation)) = (&node.consensus, node.incarnation) else { return false };
        let me = ReplicaId::new(id, incarnation);
        (0..self.plan.groups).all(|group| {
            let members = consensus.status(group).unwrap().members;
            members.is_voter(me) && members.outgoing.is_empty()
        })
    }

    fn be_born(&mut self, id: NodeId) {
        let mut cluster = ClusterFile::local(self.plan.nodes as u32, self.plan.groups, 7001).unwrap();
        cluster.replicas = self.plan.nodes as u32;
        let mut answers = BTreeMap::new();
        for (peer, node) in self.nodes.iter().filter(|(peer, _)| **peer != id) {
            let cut = self.cut.contains(&(id, *peer)) || self.cut.contains(&(*peer, id));
            if let (Some(consensus), false) =
                (&node.consensus, cut || node.paused_until > self.time || node.syncing)
            {
                let groups = 0..self.plan.groups;
                let shards = groups.map(|group| (group, consensus.recollect(group, id).unwrap())).collect();
                answers.insert(*peer, Memory { decided: true, shards });
            }
        }
        match birth::verdict(&Topology::new(cluster), id, &answers) {
            Verdict::Wait(_) => self.at(self.time + 100 * MS, Event::Born(id, self.nodes[&id].life)),
            Verdict::First => {
                self.nodes.get_mut(&id).unwrap().incarnation = Some(0);
                self.start(id);
            }
            Verdict::Joins(incarnation) => {
                if self.acted.contains(&ReplicaId::new(id, incarnation)) {
                    self.violations
                        .push(format!("node {id} takes incarnation {incarnation}, which made promises"));
                }
                self.nodes.get_mut(&id).unwrap().incarnation = Some(incarnation);
                self.start(id);
            }
        }
    }

    fn ask_to_join(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        let (Some(consensus), Some(incarnation)) = (&node.consensus, node.incarnation) else { return };
        let replica = ReplicaId::new(id, incarnation);
        let wanted = |group: &ShardId| !consensus.status(*group).unwrap().members.is_voter(replica);
        let groups: Vec<ShardId> = (0..self.plan.groups).filter(wanted).collect();
        let nodes = self.plan.nodes;
        let pairs = groups.into_iter().flat_map(|group| (1..=nodes).map(move |peer| (group, peer)));
        for (group, peer) in pairs {
            let lost = self.random.chance(self.plan.drop_percent) || self.cut.contains(&(id, peer));
            for _ in 0..1 + u64::from(self.random.chance(self.plan.repeat_percent)) {
                let latency = self.span(self.plan.latency_ms);
                if !lost {
                    self.at(self.time + latency, Event::Input(peer, Input::JoinWanted { group, replica }));
                }
            }
        }
        self.at(self.time + 100 * MS, Event::Join(id, self.nodes[&id].life));
    }

    pub fn start(&mut self, id: NodeId) {
        let Some(incarnation) = self.nodes[&id].incarnation else {
            let node = self.nodes.get_mut(&id).unwrap();
            node.life += 1;
            let life = node.life;
            return self.at(self.time, Event::Born(id, life));
        };
        let voters: Vec<ReplicaId> = (1..=self.plan.nodes).map(|node| ReplicaId::new(node, 0)).collect();
        let mut recovered = self.nodes[&id].log.recover();
        let (low, high) = (self.plan.settings.election_ticks_min, self.plan.settings.election_ticks_max);
        let mut groups = Vec::new();
        for group in 0..self.plan.groups {
            groups.push(GroupSettings {
                group,
                replica: ReplicaId::new(id, incarnation),
                voters: voters.clone(),
                home: self.plan.home.then_some(1 + u64::from(group) % self.plan.nodes),
                election_ticks: Some(low + self.random.below(u64::from(high - low)) as u32),
                lease: Arc::default(),
                recovered: recovered.remove(&group),
            });
        }
        let now = self.clock(id);
        let settings = self.plan.settings.clone();
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(node.consensus.is_none());
        node.life += 1;
        node.shards.clear();
        for group in &groups {
            let mut shard = Shard::default();
            if let Some(recovered) = group.recovered.as_ref().filter(|found| found.snapshot.index > 0) {
                let position = (group.group, recovered.snapshot.index, recovered.snapshot.term);
                shard.state =
                    node.files.get(&position).expect("a position is written after its file").clone();
                shard.applied = recovered.snapshot.index;
            }
            node.shards.insert(group.group, shard);
        }
        node.consensus = Some(Consensus::new(settings, groups, Arc::new(node.log.clone()), now));
        let life = node.life;
        self.at(self.time, Event::Wake(id));
        if incarnation > 0 {
            self.at(self.time, Event::Join(id, life));
        }
    }

    /// A group of a node closes and is opened again, with what its closing returned: all that the log then holds.
    /// Nothing of it may be under way on that node.
    pub fn reopen(&mut self, id: NodeId, group: ShardId) {
        let (now, replica) = (self.clock(id), ReplicaId::new(id, self.nodes[&id].incarnation.unwrap()));
        let voters = (1..=self.plan.nodes).map(|node| ReplicaId::new(node, 0)).collect();
        let ticks = self.plan.settings.election_ticks_min;
        let node = self.nodes.get_mut(&id).unwrap();
        let consensus = node.consensus.as_mut().unwrap();
        let (write, recovered) = consensus.close(group).unwrap();
        assert!(consensus.close(group).is_none() && consensus.status(group).is_none());
        node.log.write(&LogWrites { groups: [write].into_iter().filter(|it| !it.is_empty()).collect() });
        node.log.sync();
        let mut found = node.log.recover().remove(&group).unwrap();
        assert!(
            found.hard_state.commit <= recovered.hard_state.commit,
            "a commit is written along with others"
        );
        found.hard_state.commit = recovered.hard_state.commit;
        assert_eq!(recovered, found);
        let (election_ticks, home, lease) = (Some(ticks), None, Arc::default());
        let recovered = Some(recovered);
        node.shards.insert(group, Shard::default());
        consensus.open(GroupSettings { group, replica, voters, home, election_ticks, lease, recovered }, now);
        self.at(self.time, Event::Wake(id));
    }

    /// The process ends; `kept` unsynced writes had reached the disk.
    pub fn crash(&mut self, id: NodeId, kept: usize) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.consensus = None;
        node.inbox.clear();
        node.syncing = false;
        node.paused_until = 0;
        node.log.crash(kept);
        if self.plan.breaks {
            for other in (1..=self.plan.nodes).filter(|other| *other != id) {
                let at = self.time + self.span(self.plan.latency_ms);
                self.at(at, Event::Input(other, Input::Unreachable { node: id }));
            }
        }
    }

    pub fn pause(&mut self, id: NodeId, until: u64) {
        self.nodes.get_mut(&id).unwrap().paused_until = until;
        self.at(until, Event::Wake(id));
    }

    pub fn isolate(&mut self, id: NodeId) {
        for other in 1..=self.plan.nodes {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.events += 1;
        self.queue.insert((time, self.events), event);
    }

    fn span(&mut self, (low, high): (u64, u64)) -> u64 {
        low * MS + self.random.below((high - low) * MS + 1)
    }

    pub fn input(&mut self, id: NodeId, input: Input) {
        self.at(self.time, Event::Input(id, input));
    }

    pub fn run_ms(&mut self, ms: u64) {
        let end = self.time + ms * MS;
        self.run_until(end, |_| false);
    }

    /// Runs until `done`, for `ms` at most. Whether it was done.
    pub fn run_until_ms(&mut self, ms: u64, done: impl FnMut(&Network) -> bool) -> bool {
        let end = self.time + ms * MS;
        self.run_until(end, done)
    }

    fn run_until(&mut self, end: u64, mut done: impl FnMut(&Network) -> bool) -> bool {
        while !done(self) {
            let Some(((time, order), _)) = self.queue.first_key_value() else {
                break;
            };
            if *time > end {
                break;
            }
            let key = (*time, *order);
            self.time = key.0;
            let event = self.queue.remove(&key).unwrap();
            self.handle(event);
            self.check_leases();
        }
        let reached = done(self);
        if !reached {
            self.time = end;
        }
        reached
    }

    fn handle(&mut self, event: Event) {
        let id = match event {
            Event::Input(id, input) => {
                let node = self.nodes.get_mut(&id).unwrap();
                if node.consensus.is_some() {
                    node.inbox.push_back(input);
                }
                id
            }
            Event::Wake(id) => id,
            Event::Born(id, life) => {
                if self.nodes[&id].life == life {
                    self.be_born(id);
                }
                return;
            }
            Event::Join(id, life) => {
                if self.nodes[&id].life == life {
                    self.ask_to_join(id);
                }
                return;
            }
            Event::Synced(id, life) => {
                let node = self.nodes.get_mut(&id).unwrap();
                if node.life != life || !node.syncing {
                    return;
                }
                if node.paused_until > self.time {
                    let until = node.paused_until;
                    return self.at(until, Event::Synced(id, life));
                }
                node.syncing = false;
                node.log.sync();
                self.finish_turn(id);
                id
            }
            Event::File { from, to, position, message } => {
                let file = self.nodes[&from].files.get(&position).cloned();
                let sender = message.from;
                let group = message.group;
                let receiver = message.to;
                let reachable = !self.cut.contains(&(from, to)) && self.nodes[&to].consensus.is_some();
                let success = file.is_some() && reachable;
                if let (Some(file), true) = (file, reachable) {
                    self.nodes.get_mut(&to).unwrap().files.insert(position, file);
                    self.input(to, Input::SnapshotReceived(message));
                }
                self.input(sender.node(), Input::SnapshotSent { group, to: receiver, success });
                return;
            }
        };
        self.turn(id);
    }

    fn turn(&mut self, id: NodeId) {
        let now = self.clock(id);
        loop {
            let time = self.time;
            let node = self.nodes.get_mut(&id).unwrap();
            let Some(consensus) = node.consensus.as_mut() else {
                return;
            };
            if node.syncing || node.paused_until > time {
                return;
            }
            while !consensus.is_full()
                && let Some(input) = node.inbox.pop_front()
            {
                consensus.step(input, now);
            }
            consensus.step(Input::Tick, now);
            if !consensus.has_work() {
                let wait = consensus.next_tick().saturating_sub(now) * MS / node.rate + 1;
                return self.at(time + wait, Event::Wake(id));
            }
            let work = consensus.collect(now);
            let writes = !work.writes.is_empty();
            let entries = work.writes.groups.iter().flat_map(|write| &write.entries);
            let bytes: u64 = entries.map(|entry| entry.data.len() as u64).sum();
            self.most.written = self.most.written.max(bytes);
            if writes {
                node.log.write(&work.writes);
            }
            self.take(id, work);
            if writes {
                let disk = self.plan.disk_bytes_per_ms.map_or(0, |rate| bytes * MS / rate);
                let wait = self.span(self.plan.sync_ms) + disk;
                let node = self.nodes.get_mut(&id).unwrap();
                node.syncing = true;
                let life = node.life;
                return self.at(self.time + wait, Event::Synced(id, life));
            }
            self.finish_turn(id);
        }
    }

    fn finish_turn(&mut self, id: NodeId) {
        let now = self.clock(id);
        let consensus = self.nodes.get_mut(&id).unwrap().consensus.as_mut().unwrap();
        let work = consensus.persisted(now);
        assert!(work.writes.is_empty());
        self.take(id, work);
    }

    fn take(&mut self, id: NodeId, work: Work) {
        self.most.note(&work);
        for message in work.messages {
            self.sent += 1;
            self.acted.insert(message.from);
            let to = message.to.node();
            let copies = 1 + u64::from(self.random.chance(self.plan.repeat_percent));
            for _ in 0..copies {
                let lost = self.random.chance(self.plan.drop_percent) || self.cut.contains(&(id, to));
                let latency = self.span(self.plan.latency_ms);
                if !lost {
                    self.at(self.time + latency, Event::Input(to, Input::Message(message.clone())));
                }
            }
        }
        for output in work.outputs {
            self.output(id, output);
        }
    }
}
