//! Clients: each has one request under way at a time, follows redirects, and gives
//! up when it is not answered.

use bytes::BytesMut;
use moonraft::shard::{SessionId, Standing};
use moonraft_router::Network;
use rand::RngExt;

use super::{CALM_PATIENCE, Event, FIRST_PORT, MS, World};
use crate::{
    history::{Answer, Grant, Operation, TimeReading},
    jobs::{Added, Seen},
    marks::mark,
    queues::{Look, Pushed, Taken},
    streams,
    workload::{Jobs, Meaning, NUMBERS_EACH, Queue, Request, Told, Way},
};

/// A connection: node, its life, shard, session.
pub(super) type Connection = (usize, u32, usize, SessionId);

/// One client: one request at a time.
pub(super) struct Client {
    /// Whether it asks any replica rather than the one it was redirected to:
    /// that is how stale leaders are asked.
    pub(super) stubborn: bool,
    pub(super) request: Option<Request>,
    pub(super) called: u64,
    /// When it was last sent: what was sent before was redirected, and not executed.
    pub(super) sent: u64,
    /// Counts requests, so that late replies are known as such.
    pub(super) number: u64,
    pub(super) target: (usize, usize),
    pub(super) heard: Vec<u8>,
    /// Whether a leader executed it: a follower's clock is its own.
    pub(super) by_leader: bool,
    /// It was left unread for a while.
    pub(super) parked: bool,
    /// What the watched keys held, and the term in which they were read.
    pub(super) watched: Option<(Vec<Answer>, u64)>,
    /// Where the request is being executed.
    pub(super) at: Option<Connection>,
}

impl Client {
    pub(super) fn new(stubborn: bool, node: usize) -> Self {
        Self {
            stubborn,
            request: None,
            called: 0,
            sent: 0,
            number: 0,
            target: (node, 0),
            heard: Vec::new(),
            by_leader: false,
            parked: false,
            watched: None,
            at: None,
        }
    }
}

impl World {
    // ---- asking -----------------------------------------------------------------

    pub(super) fn client_begins(&mut self, client: usize) {
        if self.calm && self.clients[client].request.is_some() {
            return;
        }
        let mut request = self.draw_request();
        while self.now.get() < self.lull_until && !request.only_reads() {
            request = self.draw_request();
        }
        self.begin(client, request);
    }

    fn draw_request(&mut self) -> Request {
        self.unique += NUMBERS_EACH;
        Request::draw(&mut self.rng, &self.weather.mix, self.shards, self.unique)
    }

    pub(super) fn begin(&mut self, client: usize, request: Request) {
        let shard = match request.slot() {
            Ok(slot) => self.nodes[0].map.borrow().shard_of(slot).expect("all slots are served") as usize,
            Err(shard) => shard,
        };
        let node = self.rng.random_range(0..self.nodes.len());
        let state = &mut self.clients[client];
        state.target = if state.stubborn { (node, shard) } else { (state.target.0, shard) };
        state.request = Some(request);
        state.called = self.now.get();
        state.number += 1;
        let number = state.number;
        self.client_sends(client, number);
        let patience = if self.calm { CALM_PATIENCE } else { self.weather.patience };
        self.after(patience, Event::ClientLosesPatience(client, number));
    }

    fn is_under_way(&self, client: usize, number: u64) -> bool {
        self.clients[client].number == number && self.clients[client].request.is_some()
    }

    pub(super) fn client_sends(&mut self, client: usize, number: u64) {
        if !self.is_under_way(client, number) {
            return;
        }
        let state = &mut self.clients[client];
        state.heard.clear();
        state.watched = None;
        state.parked = false;
        state.sent = self.now.get();
        let (node, shard) = state.target;
        let delay = self.rng.random_range(MS / 20..2 * MS);
        self.after(delay, Event::ClientArrives(client, number, node, shard));
    }

    pub(super) fn client_arrives(&mut self, client: usize, number: u64, node: usize, shard: usize) {
        if !self.is_under_way(client, number) {
            return;
        }
        if self.is_paused(node) {
            let until = self.nodes[node].paused_until;
            return self.at(until, Event::ClientArrives(client, number, node, shard));
        }
        let life = self.nodes[node].life;
        let Some(running) = &mut self.nodes[node].running else { return self.refused(client, number) };
        let session = running.shards[shard]
            .connect("client:1".into(), "server:1".into(), Network::Inside)
            .expect("there are few clients");
        let connection = (node, life, shard, session);
        self.waiting.insert(connection, (client, number));
        self.clients[client].at = Some(connection);
        self.send_request(client);
    }

    /// The keys were watched and read, the client has thought: the rest of the request.
    pub(super) fn client_goes_on(&mut self, client: usize, number: u64) {
        let state = &self.clients[client];
        let (Some((node, ..)), Some(_)) = (state.at, &state.watched) else { return };
        if !self.is_under_way(client, number) {
            return;
        }
        if self.is_paused(node) {
            return self.at(self.nodes[node].paused_until, Event::ClientGoesOn(client, number));
        }
        self.send_request(client);
    }

    fn send_request(&mut self, client: usize) {
        let state = &self.clients[client];
        let (request, connection) = (state.request.as_ref(), state.at.expect("it is connected"));
        let second = state.watched.is_some();
        let bytes = request.expect("it is being sent").bytes(second, self.weather.mix.text_bytes);
        self.receive(connection, &bytes);
    }

    /// Nobody listens there: the request was not sent. Another replica is asked.
    fn refused(&mut self, client: usize, number: u64) {
        self.clients[client].target.0 = self.rng.random_range(0..self.nodes.len());
        self.after(20 * MS, Event::ClientSends(client, number));
    }

    // ---- the server's end of the connection -----------------------------------------

    pub(super) fn receive(&mut self, connection: Connection, bytes: &[u8]) {
        let (node, life, shard, session) = connection;
        if self.nodes[node].life != life {
            return;
        }
        let client = self.waiting.get(&connection).map(|&(client, _)| client);
        let request = client.and_then(|client| self.clients[client].request.as_ref());
        self.nodes[node].kills.set(matches!(request, Some(Request::Killed(..))));
        let Some(running) = &mut self.nodes[node].running else { return };
        let mut input = BytesMut::from(bytes);
        let by_leader = running.shards[shard].is_serving();
        let received = running.shards[shard].receive(session, &mut input);
        running.shards[shard].end_turn();
        self.nodes[node].kills.set(false);
        let stalled = self.nodes[node].clock.stall_was_met();
        if stalled > 0 {
            self.nodes[node].paused_until = self.now.get() + stalled;
        }
        if let Some(client) = client {
            self.clients[client].by_leader = by_leader && !received.parked;
            self.clients[client].parked |= received.parked;
        }
        if received.parked {
            self.parked.insert(connection, input);
        }
        self.flush(node, shard, session);
        self.drive(node, shard);
    }

    pub(super) fn resume(&mut self, node: usize, shard: usize, session: SessionId) {
        let connection = (node, self.nodes[node].life, shard, session);
        if let Some(input) = self.parked.remove(&connection) {
            self.receive(connection, &input);
        }
    }

    pub(super) fn flush(&mut self, node: usize, shard: usize, session: SessionId) {
        let connection = (node, self.nodes[node].life, shard, session);
        let Some(running) = &mut self.nodes[node].running else { return };
        let bytes = running.shards[shard].writable(session).to_vec();
        running.shards[shard].written(session, bytes.len());
        if bytes.is_empty() {
            return;
        }
        if self.listeners.contains_key(&connection) {
            return self.hear(connection, &bytes);
        }
        if let Some(&(client, number)) = self.waiting.get(&connection) {
            let delay = self.rng.random_range(MS / 20..2 * MS);
            let sent = self.now.get().max(self.nodes[node].paused_until);
            // A connection keeps the order of its bytes.
            let at = (sent + delay).max(self.heard_at[client]);
            self.heard_at[client] = at;
            self.at(at, Event::ClientHears(client, number, bytes));
        }
    }

    pub(super) fn close(&mut self, node: usize, shard: usize, session: SessionId) {
        let connection = (node, self.nodes[node].life, shard, session);
        if let Some(running) = &mut self.nodes[node].running {
            running.shards[shard].disconnect(session);
        }
        self.parked.remove(&connection);
        if self.listeners.remove(&connection).is_some() {
            self.after(20 * MS, Event::Listen(node, connection.1));
        }
        if let Some((client, number)) = self.waiting.remove(&connection) {
            mark("connection closed: outcome unknown");
            self.client_gives_up(client, number);
        }
    }

    // ---- hearing ----------------------------------------------------------------

    pub(super) fn client_hears(&mut self, client: usize, number: u64, bytes: &[u8]) {
        if !self.is_under_way(client, number) {
            return;
        }
        let state = &mut self.clients[client];
        state.heard.extend_from_slice(bytes);
        let request = state.request.clone().expect("it was looked at");
        let Some(meaning) = request.meaning(state.watched.is_some(), &state.heard) else { return };
        if let Meaning::Watched(answers) = meaning {
            return self.client_watches(client, answers);
        }
        let term = self.term_at(client);
        self.hang_up(client);
        match meaning {
            Meaning::Moved(port) => self.client_moves(client, &request, port),
            Meaning::Again => {
                if self.clients[client].parked {
                    mark("parked, then told there is no leader");
                }
                self.clients[client].target.0 = self.rng.random_range(0..self.nodes.len());
                self.after(50 * MS, Event::ClientSends(client, number));
            }
            Meaning::WatchBroken => {
                mark("watch broken");
                if self.clients[client].watched.as_ref().is_some_and(|(_, then)| Some(*then) != term) {
                    mark("watch broken by a change of leader");
                }
                self.answered(client, Some(vec![Told::NotDone; request.actions().len()]));
            }
            // Those that are asked when all is well want to be done; a shard may not have heard yet that it is.
            Meaning::Refused if self.calm => self.after(50 * MS, Event::ClientSends(client, number)),
            Meaning::Refused => {
                mark("request refused in a shortage");
                self.answered(client, Some(vec![Told::NotDone; request.actions().len()]));
            }
            Meaning::Done => {
                self.note_job(client, &request, self.now.get());
                self.note_push(client, &request, self.now.get());
                self.answered(client, Some(vec![]));
            }
            Meaning::Taken(element) => {
                let (called, returned) = (self.clients[client].called, self.now.get());
                if let Request::Queue(queue, _) = request {
                    self.history.queues.taken.push(Taken { queue, called, returned, element });
                }
                self.answered(client, Some(vec![]));
            }
            Meaning::Queue(elements) => {
                let (called, returned) = (self.clients[client].called, self.now.get());
                if let Request::Queue(queue, _) = request {
                    self.history.queues.looks.push(Look { queue, called, returned, elements });
                }
                self.answered(client, Some(vec![]));
            }
            Meaning::Jobs(jobs) => {
                let (called, returned) = (self.clients[client].called, self.now.get());
                if let Request::Jobs(pair, _) = request {
                    self.history.jobs_seen.push(Seen { pair, called, returned, jobs });
                }
                self.answered(client, Some(vec![]));
            }
            Meaning::Stream(told) => {
                self.note_stream(client, &request, Some(told));
                self.answered(client, Some(vec![]));
            }
            Meaning::Wrong(text) => self.wrong = Some(format!("{request:?} was answered {text}")),
            Meaning::Killed => {
                mark("script killed after it wrote");
                self.answered(client, Some(vec![]));
            }
            Meaning::Time(shown) => {
                self.note_time(client, &request, shown);
                self.answered(client, Some(vec![]));
            }
            Meaning::Locked(given) => {
                if given {
                    self.note_lock(client, &request);
                }
                self.answered(client, Some(vec![]));
            }
            Meaning::Twins(one, other) => {
                self.history.twins.push((one, other));
                self.answered(client, Some(vec![]));
            }
            Meaning::Answers(mut told) => {
                let watched = self.clients[client].watched.take();
                let read = watched.into_iter().flat_map(|(answers, _)| answers).map(Told::Answer);
                told.splice(0..0, read);
                self.answered(client, Some(told));
            }
            Meaning::Watched(_) => unreachable!("seen above"),
        }
    }

    /// The term in which the client's request is being served, if it is.
    fn term_at(&self, client: usize) -> Option<u64> {
        let (node, life, shard, _) = self.clients[client].at?;
        let running = self.nodes[node].running.as_ref().filter(|_| self.nodes[node].life == life)?;
        match running.shards[shard].standing() {
            Standing::Leading { term, .. } => Some(term),
            Standing::Following { .. } => None,
        }
    }

    fn client_watches(&mut self, client: usize, answers: Vec<Answer>) {
        let term = self.term_at(client).unwrap_or(0);
        let state = &mut self.clients[client];
        state.heard.clear();
        state.watched = Some((answers, term));
        let number = state.number;
        // Now and then as long as an election takes.
        let long = self.rng.random_bool(0.2);
        let mut delay = self.rng.random_range(MS..if long { 1500 * MS } else { 30 * MS });
        if self.draw(self.weather.hand_over_in_watch) {
            let leader = self.clients[client].target.0;
            self.hand_over_in_vain(leader);
            delay = self.rng.random_range(500..2500) * MS;
        }
        self.after(delay, Event::ClientGoesOn(client, number));
    }

    fn client_moves(&mut self, client: usize, request: &Request, port: u16) {
        let place = usize::from(port - FIRST_PORT);
        let (node, shard) = (place / 100, place % 100);
        let state = &mut self.clients[client];
        if shard != state.target.1 {
            self.wrong = Some(format!("{request:?} was redirected to shard {shard}"));
            return;
        }
        if state.by_leader && !request.may_wait() {
            mark("redirect in place of a reply whose batch was overwritten");
            match request.way() {
                Way::Block | Way::Library => mark("block redirected after it was executed"),
                Way::Script | Way::Listed => mark("script redirected after it was executed"),
                Way::Commands | Way::Together | Way::Watch | Way::Announce => {}
            }
        }
        state.target.0 = node;
        let number = state.number;
        self.after(2 * MS, Event::ClientSends(client, number));
    }

    fn note_time(&mut self, client: usize, request: &Request, shown: u64) {
        let (called, returned) = (self.clients[client].called, self.now.get());
        let shard = self.clients[client].target.1;
        // A follower's clock is its own; a script is only ever executed by a leader.
        if self.clients[client].by_leader || matches!(request, Request::Draw(_)) {
            self.history.times.push(TimeReading { shard, called, returned, shown });
        }
    }

    /// A job was added, or nobody knows whether it was.
    fn note_job(&mut self, client: usize, request: &Request, returned: u64) {
        if let &Request::Jobs(pair, Jobs::Add(job)) = request {
            let called = self.clients[client].called;
            self.history.jobs_added.push(Added { pair, job, called, returned });
        }
    }

    /// An element was pushed, or nobody knows whether it was; or nobody knows whether one was taken.
    fn note_push(&mut self, client: usize, request: &Request, returned: u64) {
        let called = self.clients[client].called;
        match *request {
            Request::Queue(queue, Queue::Push { element, .. }) => {
                self.history.queues.pushed.push(Pushed { queue, element, called, returned });
            }
            Request::Queue(queue, Queue::Take { .. }) if returned == u64::MAX => {
                self.history.queues.unanswered.push(queue);
            }
            _ => {}
        }
    }

    /// Something was asked of a stream; nobody knows what became of it if nothing was told.
    fn note_stream(&mut self, client: usize, request: &Request, told: Option<streams::Told>) {
        if let &Request::Stream(stream, ask) = request {
            let called = self.clients[client].called;
            let returned = if told.is_some() { self.now.get() } else { u64::MAX };
            self.history.streams.push(streams::Asked { stream, ask, called, returned, told });
        }
    }

    fn note_lock(&mut self, client: usize, request: &Request) {
        let Request::Lock(key, _, ms) = request else { return };
        let fastest_ppm = self.nodes.iter().map(|node| node.clock.drift_ppm.max(0) as u64).max().unwrap_or(0);
        let slewed_ppm = 1000 * (1000 + self.shard_settings.clocks.slew_per_mille);
        let life = ms * MS * 1_000_000 / (1_000_000 + fastest_ppm) * 1_000_000 / slewed_ppm;
        let (sent, returned) = (self.clients[client].sent, self.now.get());
        self.history.locks.push(Grant { key: key.clone(), sent, returned, life });
    }

    fn hang_up(&mut self, client: usize) {
        let Some(connection) = self.clients[client].at.take() else { return };
        self.waiting.remove(&connection);
        self.parked.remove(&connection);
        let (node, life, shard, session) = connection;
        if self.nodes[node].life == life
            && let Some(running) = &mut self.nodes[node].running
        {
            running.shards[shard].disconnect(session);
        }
    }

    /// The request has ended; without answers, nobody knows how.
    fn answered(&mut self, client: usize, told: Option<Vec<Told>>) {
        let state = &mut self.clients[client];
        let request = state.request.take().expect("a request was under way");
        self.report.answered += usize::from(told.is_some());
        self.report.unknown += usize::from(told.is_none());
        if told.is_some() && state.parked {
            mark("parked, then answered");
        }
        let called = state.called;
        let mut told = told.map(Vec::into_iter);
        self.unit += 1;
        for (key, action) in request.actions().iter().cloned() {
            if request.way() == Way::Commands {
                self.unit += 1;
            }
            let answer = match told.as_mut().map(|told| told.next().expect("one for each action")) {
                Some(Told::NotDone) => continue,
                Some(Told::Answer(answer)) => Some(answer),
                None => None,
            };
            let returned = if answer.is_some() { self.now.get() } else { u64::MAX };
            let unit = self.unit;
            self.history.operations.push(Operation { key, action, called, returned, answer, unit });
        }
        let (low, high) = self.weather.think;
        let pause = self.rng.random_range(low..high);
        if !self.calm {
            self.after(pause, Event::ClientBegins(client));
        }
    }

    pub(super) fn client_gives_up(&mut self, client: usize, number: u64) {
        if self.is_under_way(client, number) {
            self.hang_up(client);
            let request = self.clients[client].request.clone().expect("it is under way");
            self.note_job(client, &request, u64::MAX);
            self.note_push(client, &request, u64::MAX);
            self.note_stream(client, &request, None);
            self.answered(client, None);
        }
    }
}
