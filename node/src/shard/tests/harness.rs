//! A shard without any IO: its clock, its lease, its cluster and its log are
//! the test's.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use moonraft_router::{Address, Network, ReplicaPlace, ShardPlace, SlotMap};

use crate::{
    glob,
    keyspace::tx::Publication,
    shard::{
        Busy, BusyShard, CommittedEntry, Errand, Event, Outcome, Output, ProcessFacts, SessionId, Shard,
        ShardSettings, State, Surroundings,
    },
};

/// The last slot of the shard under test; those above belong to another shard.
/// The key `x` is of slot 16287.
pub(crate) const LAST_OWN_SLOT: u16 = 16_000;

/// What is around the shard, to be changed at will.
pub(crate) struct TestSurroundings {
    pub unix_us: Cell<u64>,
    pub boot_ns: Cell<u64>,
    /// So long it takes to look at that clock.
    pub look_ns: Cell<u64>,
    pub lease: Cell<bool>,
    pub used_bytes: Cell<u64>,
    pub map: RefCell<SlotMap>,
    pub settings: RefCell<BTreeMap<String, String>>,
    pub is_shut_down: Cell<bool>,
    /// How often the shard had something freed elsewhere.
    pub freed: Cell<usize>,
    /// What came of errands, and was not asked for.
    pub errands: RefCell<VecDeque<Outcome>>,
    /// So often the next call is waited for in vain.
    pub call_takes: Cell<usize>,
    /// The shard is not told that they have come.
    pub holds_errands: Cell<bool>,
    /// Done each time that a script which is over its time asks.
    pub while_busy: RefCell<Option<WhileBusy>>,
}

impl TestSurroundings {
    /// Time goes by, on all clocks.
    pub fn elapse_us(&self, microseconds: u64) {
        self.unix_us.set(self.unix_us.get() + microseconds);
        self.boot_ns.set(self.boot_ns.get() + microseconds * 1000);
    }
}

pub(crate) type WhileBusy = Box<dyn FnMut(&mut BusyShard<'_>) -> Busy>;

impl Surroundings for TestSurroundings {
    fn unix_us(&self) -> u64 {
        self.unix_us.get()
    }
    fn boot_ns(&self) -> u64 {
        self.boot_ns.set(self.boot_ns.get() + self.look_ns.get());
        self.boot_ns.get()
    }
    fn lease_covers(&self, _: u64) -> bool {
        self.lease.get()
    }
    fn map(&self, network: Network) -> Arc<SlotMap> {
        Arc::new(self.map.borrow().seen_from(network))
    }
    fn used_bytes(&self) -> u64 {
        self.used_bytes.get()
    }

    fn facts(&self) -> ProcessFacts {
        ProcessFacts {
            run_id: "f".repeat(40),
            port: 7001,
            system: "Linux".into(),
            resident_bytes: 1 << 30,
            ..Default::default()
        }
    }
    fn settings(&self, pattern: &[u8]) -> Vec<(String, String)> {
        let settings = self.settings.borrow();
        let matching = settings.iter().filter(|(name, _)| glob::matches(pattern, name.as_bytes()));
        matching.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
    fn change_settings(&self, changes: &[(&[u8], &[u8])]) -> Result<(), String> {
        let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        for (name, _) in changes {
            if !self.settings.borrow().contains_key(&text(name)) {
                let name = text(name);
                return Err(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"));
            }
        }
        let changes = changes.iter().map(|(name, value)| (text(name), text(value)));
        self.settings.borrow_mut().extend(changes);
        Ok(())
    }
    fn while_busy(&self, shard: &mut BusyShard<'_>) -> Busy {
        match &mut *self.while_busy.borrow_mut() {
            Some(attend) => attend(shard),
            None => Busy::Continue,
        }
    }
    fn free(&self, _: Box<dyn Send>) {
        self.freed.set(self.freed.get() + 1);
    }
    fn send(&self, errand: Box<Errand>) {
        self.errands.borrow_mut().push_back(errand.run());
    }
    fn outcomes(&self) -> Vec<Outcome> {
        self.errands.take().into()
    }
    fn await_outcome(&self, number: u64) -> Outcome {
        let mut errands = self.errands.borrow_mut();
        let at = errands.iter().position(|outcome| outcome.number == number);
        errands.remove(at.expect("it is under way")).expect("it is there")
    }
    fn outcome_within(&self, number: u64, _: Duration) -> Option<Outcome> {
        let waits = self.call_takes.get();
        self.call_takes.set(waits.saturating_sub(1));
        (waits == 0).then(|| self.await_outcome(number))
    }
    fn shut_down(&self) {
        self.is_shut_down.set(true);
    }
}

/// The shard under test, replica 1 of 3 of shard 0, with all that is around it.
pub(crate) struct ShardHarness {
    pub shard: Shard,
    pub world: Rc<TestSurroundings>,
    /// Batches that are proposed and not committed: term and data, oldest first.
    pub proposals: VecDeque<(u64, Bytes)>,
    /// Rounds that are to be confirmed.
    pub rounds: Vec<(u64, u64)>,
    /// All messages that were sent to all subscribers.
    pub published: Vec<Publication>,
    /// Sessions that the shard closed.
    pub closed: Vec<SessionId>,
    /// Chunks of the snapshot that is being taken, and its number.
    pub chunks: (u64, Vec<Bytes>),
    /// Nobody takes chunks away from it.
    pub is_disk_slow: bool,
    /// Snapshots it took: index, term, chunks.
    pub snapshots: Vec<(u64, u64, Vec<Bytes>)>,
    /// Whether the shard wants to be told what followers have.
    pub followers_watched: bool,
    /// What it told of readers.
    pub readers: Vec<bool>,
    unread: HashMap<SessionId, BytesMut>,
}

fn place(replica: u64, port: u16) -> ReplicaPlace {
    ReplicaPlace {
        replica,
        node: replica,
        name: format!("{port:040}"),
        address: Address { host: "127.0.0.1".into(), port },
        outside: Some(Address { host: "outside.example".into(), port: port + 1000 }),
        peer_port: 17_000 + replica as u16,
    }
}

/// Two shards of three replicas on three nodes.
pub(crate) fn two_shards() -> SlotMap {
    let shard = |slots, port, leader| ShardPlace {
        slots: vec![slots],
        replicas: (1..=3).map(|replica| place(replica, port + 100 * (replica as u16 - 1))).collect(),
        leader: Some((leader, 1)),
        failed: vec![],
    };
    let shards = [shard((0, LAST_OWN_SLOT), 7001, 1), shard((LAST_OWN_SLOT + 1, 16_383), 7002, 2)];
    SlotMap { epoch: 1, shards: (0..).zip(shards).collect() }
}

impl ShardHarness {
    /// A leader, in term 1, that serves.
    pub fn leading() -> Self {
        Self::leading_with(ShardSettings::default())
    }

    /// A leader with these settings.
    pub fn leading_with(settings: ShardSettings) -> Self {
        let mut harness = Self::following_with(settings);
        harness.lead(1);
        harness
    }

    /// A replica that knows no leader yet.
    pub fn following_with(settings: ShardSettings) -> Self {
        Self::starting(settings, (0, 0))
    }

    /// A replica whose log ends with this entry, index and term.
    pub fn starting_with_log(acknowledged: (u64, u64)) -> Self {
        Self::starting(ShardSettings::default(), acknowledged)
    }

    fn starting(settings: ShardSettings, acknowledged: (u64, u64)) -> Self {
        let settings_now = [("maxmemory", "0"), ("maxmemory-policy", "noeviction")];
        let world = Rc::new(TestSurroundings {
            unix_us: Cell::new(1_700_000_000_000_000),
            boot_ns: Cell::new(1_000_000_000),
            look_ns: Cell::new(0),
            used_bytes: Cell::new(1 << 30),
            lease: Cell::new(true),
            map: RefCell::new(two_shards()),
            is_shut_down: Cell::new(false),
            freed: Cell::new(0),
            settings: RefCell::new(settings_now.map(|(name, value)| (name.into(), value.into())).into()),
            errands: RefCell::default(),
            call_takes: Cell::new(0),
            holds_errands: Cell::new(false),
            while_busy: RefCell::default(),
        });
        let slots = [(0, LAST_OWN_SLOT)];
        let slots = if settings.born_with.is_empty() { &slots[..] } else { &[] };
        let state = State { acknowledged, ..State::of_new_shard(slots) };
        let shard = Shard::new(settings, world.clone(), state, 1);
        Self {
            shard,
            world,
            proposals: VecDeque::new(),
            rounds: Vec::new(),
            published: Vec::new(),
            closed: Vec::new(),
            chunks: (0, Vec::new()),
            is_disk_slow: false,
            snapshots: Vec::new(),
            followers_watched: false,
            readers: Vec::new(),
            unread: HashMap::new(),
        }
    }

    // ---- clients ----------------------------------------------------------------

    /// A client connects.
    pub fn connect(&mut self) -> SessionId {
        self.connect_from(Network::Inside)
    }

    /// A client connects from a network.
    pub fn connect_from(&mut self, network: Network) -> SessionId {
        let number = self.unread.len();
        let peer = format!("127.0.0.1:{}", 50_000 + number);
        let id = self.shard.connect(peer, "127.0.0.1:7001".into(), network).expect("there is room");
        self.unread.insert(id, BytesMut::new());
        id
    }

    /// Sends requests, parted by ` ; `, in one packet; ends the turn. Returns what
    /// the client reads now, as text.
    pub fn send(&mut self, id: SessionId, requests: &str) -> String {
        let mut packet = Vec::new();
        for request in requests.split(" ; ") {
            let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            packet.extend(encode(&words));
        }
        self.send_bytes(id, &packet)
    }

    /// Sends one request of these words; see [`ShardHarness::send`].
    pub fn send_words(&mut self, id: SessionId, words: &[&[u8]]) -> String {
        self.send_bytes(id, &encode(words))
    }

    /// Sends these bytes; see [`ShardHarness::send`].
    pub fn send_bytes(&mut self, id: SessionId, packet: &[u8]) -> String {
        self.unread.get_mut(&id).expect("the client is connected").extend_from_slice(packet);
        self.receive(id);
        self.end_turn();
        self.read(id)
    }

    /// Sends a request without ending the turn.
    pub fn receive_only(&mut self, id: SessionId, request: &str) {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let packet = encode(&words);
        self.unread.get_mut(&id).expect("the client is connected").extend_from_slice(&packet);
        self.receive(id);
    }

    /// Executes requests without ending the turn.
    pub fn receive(&mut self, id: SessionId) {
        // A request may be resumed of a client that was closed just before.
        let Some(mut unread) = self.unread.remove(&id) else { return };
        self.shard.receive(id, &mut unread);
        self.unread.insert(id, unread);
    }

    /// What a client reads now, as text: replies parted by blanks, `""` if none.
    pub fn read(&mut self, id: SessionId) -> String {
        let bytes = self.shard.writable(id).to_vec();
        self.shard.written(id, bytes.len());
        show_all(&bytes)
    }

    /// Ends the turn, and does what the shard wants done.
    pub fn end_turn(&mut self) {
        self.shard.end_turn();
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let outputs = self.shard.take_outputs();
            let errands_came = !self.world.errands.borrow().is_empty() && !self.world.holds_errands.get();
            if errands_came {
                self.shard.handle(Event::ErrandsDone);
            } else if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.perform(output));
            self.shard.end_turn();
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Propose { term, data, .. } => self.proposals.push_back((term, data)),
            Output::ReadRound { term, round } => self.rounds.push((term, round)),
            Output::Publish(publications) => {
                self.published.extend(publications.iter().cloned());
                self.shard.handle(Event::Deliver(publications));
            }
            Output::Resume(id) => self.receive(id),
            Output::Close(id) => {
                self.closed.push(id);
                self.unread.remove(&id);
                self.shard.disconnect(id);
            }
            Output::SnapshotChunk { number, data } => {
                if number != self.chunks.0 {
                    self.chunks = (number, Vec::new());
                }
                let bytes = data.len() as u64;
                self.chunks.1.push(data);
                if !self.is_disk_slow {
                    self.shard.handle(Event::SnapshotTaken { number, bytes });
                }
            }
            Output::Snapshot { number, index, term } => {
                assert_eq!(number, self.chunks.0);
                self.snapshots.push((index, term, std::mem::take(&mut self.chunks.1)));
            }
            Output::SnapshotGivenUp { .. } => self.chunks.1.clear(),
            Output::WatchFollowers(watched) => self.followers_watched = watched,
            Output::Readers(present) => self.readers.push(present),
            Output::Flush(_) | Output::Applied { .. } | Output::Discard(_) => {}
        }
    }

    // ---- the group --------------------------------------------------------------

    /// Something happens; the turn ends.
    pub fn handle(&mut self, event: Event) {
        self.shard.handle(event);
        self.end_turn();
    }

    /// The replica leads this term, and its first entry is committed.
    pub fn lead(&mut self, term: u64) {
        self.proposals.clear();
        self.handle(Event::Lead { term });
        self.commit(term, Bytes::new());
    }

    /// Another replica leads, in a term of which nothing is committed yet.
    pub fn lose_leadership(&mut self, leader: u64) {
        self.handle(Event::Follow { leader: Some(leader) });
    }

    /// An entry is committed.
    pub fn commit(&mut self, term: u64, data: Bytes) {
        let index = self.shard.applied().0 + 1;
        self.handle(Event::Committed(vec![CommittedEntry { index, term, data, more: false }]));
    }

    /// The oldest proposed batch is committed.
    pub fn commit_one(&mut self) {
        let (term, data) = self.proposals.pop_front().expect("a batch is proposed");
        self.commit(term, data);
    }

    /// All proposed batches are committed, one by one.
    pub fn commit_all(&mut self) {
        while !self.proposals.is_empty() {
            self.commit_one();
        }
    }

    /// All rounds so far are confirmed.
    pub fn confirm_rounds(&mut self) {
        for (term, round) in std::mem::take(&mut self.rounds) {
            self.handle(Event::RoundConfirmed { term, round });
        }
    }

    /// The snapshot goes on by a step.
    pub fn walk(&mut self, cost: usize) {
        self.walk_until(cost, u64::MAX);
    }

    /// The snapshot goes on by a step that has time until then.
    pub fn walk_until(&mut self, cost: usize, until_ns: u64) {
        self.shard.walk(cost, until_ns);
        self.settle();
    }

    /// Time passes until the shard wants to be woken, and it is. Returns how many microseconds.
    pub fn wake(&mut self) -> u64 {
        let at_ns = self.shard.next_wake().expect("it waits for a time");
        let passed_ns = at_ns - self.world.boot_ns.replace(at_ns);
        self.world.unix_us.set(self.world.unix_us.get() + passed_ns / 1000);
        self.handle(Event::Wake);
        passed_ns / 1000
    }

    /// Time passes, then the shard is told.
    pub fn pass_ms(&mut self, milliseconds: u64) {
        self.world.unix_us.set(self.world.unix_us.get() + milliseconds * 1000);
        self.world.boot_ns.set(self.world.boot_ns.get() + milliseconds * 1_000_000);
        self.handle(Event::Tick);
    }
}

pub(super) fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Replies as text: `+OK`, `-ERR …`, `:1`, `"bulk"`, `nil`, `[array]`, `{map}`,
/// `~[set]`, `>[push]`.
pub(super) fn show_all(bytes: &[u8]) -> String {
    let mut at = 0;
    let mut replies = Vec::new();
    while at < bytes.len() {
        replies.push(show(bytes, &mut at));
    }
    replies.join(" ")
}

fn show(bytes: &[u8], at: &mut usize) -> String {
    let end = *at + bytes[*at..].windows(2).position(|pair| pair == b"\r\n").expect("a whole line");
    let line = std::str::from_utf8(&bytes[*at..end]).expect("a line of text");
    *at = end + 2;
    let (kind, rest) = line.split_at(1);
    let length = rest.parse::<usize>().unwrap_or(0);
    let mut items = |count: usize| (0..count).map(|_| show(bytes, at)).collect::<Vec<_>>();
    match kind {
        "$" | "*" if rest == "-1" => "nil".into(),
        "_" => "nil".into(),
        "$" | "=" => {
            let bulk = bytes[*at..*at + length].escape_ascii().to_string();
            *at += length + 2;
            format!("\"{bulk}\"")
        }
        "*" => format!("[{}]", items(length).join(", ")),
        "~" | ">" => format!("{kind}[{}]", items(length).join(", ")),
        "%" => {
            let items = items(2 * length);
            let pairs: Vec<String> = items.chunks(2).map(|pair| pair.join(": ")).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        _ => line.into(),
    }
}
