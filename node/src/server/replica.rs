//! The thread of one replica: a [`Shard`], its clients, and what connects it to the node.
//!
//! Everything here runs on one thread as local tasks: one a connection, one for
//! messages of other threads, one that ends turns, one that ticks, one that accepts.
//!
//! A turn is what the tasks that were ready executed. The first of them wakes the
//! turn's task, which comes after all of them in the queue and seals what they
//! did into one batch.
//!
//! INVARIANT: the shard is borrowed for one call at a time and never across an `await`.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use moonraft_proto::resp;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::spawn_local,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    busy::{Clients, Guest},
    clock,
    connection::{self, Connection, READ_BYTES},
    mailbox::{ShardInbox, ShardMessage},
    shared::NodeShared,
    snapshots::SnapshotName,
};
use crate::{
    config::{OutputLimit, Reads, Settings},
    consensus::Input,
    shard::{CommittedEntry, Event, Output, SessionId, Shard, ShardSettings, Standing},
};

/// How often the shard is told that time has passed: Redis's `hz 10`.
const TICK: Duration = Duration::from_millis(100);
/// Messages of other threads that are taken together.
const MESSAGES_MAX: usize = 256;
/// A wait after the system had no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a stopping replica waits for replies that are held or unread, and for
/// clients to learn from a redirect where to go.
const FAREWELL: Duration = Duration::from_millis(1000);
/// A client that has sent nothing for so long will not notice that its connection is closed
/// while it waits for a reply.
const QUIET_NS: u64 = 100_000_000;
/// How often it looks.
const FAREWELL_STEP: Duration = Duration::from_millis(5);

/// A replica on its thread.
pub struct Replica {
    /// Its state machine.
    pub shard: RefCell<Shard>,
    /// The buffer that connections read into; see [`connection`].
    pub shared_input: RefCell<BytesMut>,
    /// `client-query-buffer-limit`
    pub query_bytes_max: Cell<usize>,
    clients: Rc<Clients>,
    node: Arc<NodeShared>,
    number: u32,
    is_turn_due: Cell<bool>,
    turn: Notify,
    settings: RefCell<Arc<Settings>>,
    /// Bytes of entries handed over and not yet reported as applied, and the newest of their terms.
    handed: Cell<(u64, u64)>,
    begins_term: Cell<bool>,
    stop: Notify,
}

/// What the shard's settings are under the node's.
pub fn shard_settings(base: ShardSettings, settings: &Settings) -> ShardSettings {
    let bytes = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let unlimited = |bytes_max: u64| if bytes_max == 0 { usize::MAX } else { bytes(bytes_max) };
    ShardSettings {
        read_index: settings.reads == Reads::ReadIndex,
        // About two election timeouts: the longest that a failover takes when all goes well.
        park_ms: 2 * settings.node_timeout_ms,
        clients_max: bytes(settings.clients_max),
        unit_bytes_max: bytes(settings.unit_bytes_max),
        memory_bytes_max: if settings.memory_bytes_max == 0 { u64::MAX } else { settings.memory_bytes_max },
        outbox_bytes_max: unlimited(settings.output_normal.hard_bytes),
        busy_ms: if settings.busy_after_ms == 0 { u64::MAX / 1_000_000 } else { settings.busy_after_ms },
        requests: resp::Limits { bulk_bytes_max: bytes(settings.bulk_bytes_max), ..base.requests },
        ..base
    }
}

impl Replica {
    /// A replica of shard `number`, with no clients yet.
    pub fn new(shard: Shard, clients: Rc<Clients>, node: Arc<NodeShared>, number: u32) -> Rc<Self> {
        let settings = node.settings.load_full();
        Rc::new(Self {
            shard: RefCell::new(shard),
            shared_input: RefCell::new(BytesMut::with_capacity(READ_BYTES)),
            query_bytes_max: Cell::new(settings.query_bytes_max as usize),
            clients,
            node,
            number,
            is_turn_due: Cell::new(false),
            turn: Notify::new(),
            settings: RefCell::new(settings),
            handed: Cell::new((0, 0)),
            begins_term: Cell::new(false),
            stop: Notify::new(),
        })
    }

    /// Runs until it is told to stop, and its clients have their replies.
    pub async fn run(self: Rc<Self>, listener: TcpListener, inbox: ShardInbox) {
        let accepting = spawn_local(accept(Rc::clone(&self), listener));
        let turning = spawn_local(end_turns(Rc::clone(&self)));
        let ticking = spawn_local(tick(Rc::clone(&self)));
        let listening = spawn_local(listen(Rc::clone(&self), inbox));
        self.stop.notified().await;
        accepting.abort();
        self.farewell().await;
        for task in [turning, ticking, listening] {
            task.abort();
        }
    }

    /// The boot clock.
    pub fn now_ns(&self) -> u64 {
        clock::boot_ns()
    }

    /// Does what the shard wants done.
    pub fn drive(self: &Rc<Self>) {
        if self.clients.take_news() {
            self.welcome();
        }
        loop {
            let outputs = self.shard.borrow_mut().take_outputs();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.carry_out(output);
            }
        }
        self.schedule_turn();
    }

    /// After a script that ran for long: those who came meanwhile get their
    /// sessions, and the shard hears which protocols it was answered in its name.
    fn welcome(self: &Rc<Self>) {
        for connection in self.clients.all() {
            let mut greeting = connection.greeting.take();
            self.replay(connection.id, &mut greeting);
        }
        for Guest { stream, input, mut greeting } in self.clients.take_guests() {
            let stream = std::net::TcpStream::from(stream);
            let peer = stream.peer_addr().map_or_else(|_| String::new(), |address| address.to_string());
            let Ok(stream) = TcpStream::from_std(stream) else { continue };
            if let Some(connection) = self.begin(stream, peer) {
                self.replay(connection.id, &mut greeting);
                connection.input.replace(input);
                connection.resume();
            }
        }
    }

    /// Executes a request that is answered already.
    fn replay(&self, id: SessionId, request: &mut BytesMut) {
        if !request.is_empty() {
            let mut shard = self.shard.borrow_mut();
            shard.receive(id, request);
            let count = shard.writable(id).len();
            shard.written(id, count);
        }
    }

    /// Wakes the task that ends turns, if this one has something to seal.
    fn schedule_turn(&self) {
        self.refresh_settings();
        if self.shard.borrow().wants_turn() && !self.is_turn_due.replace(true) {
            self.turn.notify_one();
        }
    }

    fn carry_out(self: &Rc<Self>, output: Output) {
        let group = self.number;
        match output {
            Output::Propose { term, sequence, data } => {
                self.node.driver.send(Input::Propose { group, term, sequence, data });
            }
            Output::ReadRound { term, round } => {
                self.node.driver.send(Input::ReadRound { group, term, round });
            }
            Output::Publish(publications) => self.node.publish(group, publications),
            Output::Flush(id) => {
                if let Some(connection) = self.clients.get(id) {
                    self.flush(&connection);
                }
            }
            Output::Resume(id) => {
                if let Some(connection) = self.clients.get(id) {
                    connection.resume();
                }
            }
            Output::Close(id) => {
                if let Some(connection) = self.clients.get(id) {
                    connection.close();
                }
            }
            Output::Applied { index } => self.report_applied(index),
            Output::Snapshot { index, term, data } => {
                let name = SnapshotName { shard: group, index, term };
                self.node.writer.write(name, data);
            }
        }
    }

    fn report_applied(&self, index: u64) {
        let (bytes, term) = self.handed.replace((0, self.handed.get().1));
        let begins_term = self.begins_term.replace(false);
        let driver = &self.node.driver;
        self.node.progress(self.number).applied(index, bytes, begins_term, driver);
        self.node.note_replica(self.number, index, term, self.shard.borrow().is_serving());
    }

    /// Writes what may leave on this connection now.
    pub fn flush(self: &Rc<Self>, connection: &Rc<Connection>) {
        if connection.stuck.borrow().is_some() {
            return;
        }
        match self.write(connection) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let task = spawn_local(unstick(Rc::clone(self), Rc::clone(connection)));
                *connection.stuck.borrow_mut() = Some(task.abort_handle());
            }
            Err(_) => connection.close(),
        }
    }

    fn write(&self, connection: &Connection) -> io::Result<()> {
        let id = connection.id;
        let mut shard = self.shard.borrow_mut();
        loop {
            let bytes = shard.writable(id);
            if bytes.is_empty() {
                connection.is_holding.set(shard.is_holding(id));
                if shard.should_close(id) {
                    connection.close();
                }
                return Ok(());
            }
            connection.is_holding.set(true);
            let count = connection.try_write(bytes)?;
            shard.written(id, count);
        }
    }

    /// A connection has ended.
    pub fn end(self: &Rc<Self>, connection: &Rc<Connection>) {
        if let Some(task) = connection.stuck.borrow_mut().take() {
            task.abort();
        }
        self.clients.remove(connection.id);
        self.shard.borrow_mut().disconnect(connection.id);
        self.drive();
    }

    fn begin(self: &Rc<Self>, stream: TcpStream, peer: String) -> Option<Rc<Connection>> {
        let _ = stream.set_nodelay(true);
        let seconds = self.settings.borrow().keepalive_seconds;
        if seconds > 0 {
            let keepalive = socket2::TcpKeepalive::new()
                .with_time(Duration::from_secs(seconds))
                .with_interval(Duration::from_secs((seconds / 3).max(1)));
            let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        }
        let local = stream.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
        let connected = self.shard.borrow_mut().connect(peer, local);
        let begun = match connected {
            Ok(id) => {
                let connection = Rc::new(Connection::new(id, self.clients.begin(), stream, self.now_ns()));
                self.clients.insert(id, Rc::clone(&connection));
                spawn_local(connection::serve(Rc::clone(self), Rc::clone(&connection)));
                Some(connection)
            }
            Err(text) => {
                // A new socket takes a line; one that does not is closed without a word.
                spawn_local(async move {
                    if stream.writable().await.is_ok() {
                        let _ = stream.try_write(text.as_bytes());
                    }
                });
                None
            }
        };
        self.node.note_clients(self.number, self.clients.len());
        begun
    }

    /// Takes settings over that have changed.
    fn refresh_settings(&self) {
        let current = self.node.settings.load();
        if Arc::ptr_eq(&current, &self.settings.borrow()) {
            return;
        }
        let current = Arc::clone(&current);
        self.query_bytes_max.set(current.query_bytes_max as usize);
        self.shard
            .borrow_mut()
            .reconfigure(|settings| *settings = shard_settings(settings.clone(), &current));
        *self.settings.borrow_mut() = current;
    }

    /// Ends connections that are idle for too long or leave too much unread.
    fn check_clients(&self) {
        let settings = Arc::clone(&self.settings.borrow());
        let idle_ns = settings.idle_seconds_max * 1_000_000_000;
        let now = self.now_ns();
        let shard = self.shard.borrow();
        for connection in self.clients.all() {
            let backlog = shard.backlog(connection.id);
            let limit = if backlog.listens { settings.output_pubsub } else { settings.output_normal };
            let idle = idle_ns > 0 && !backlog.listens && now - connection.active_ns.get().min(now) > idle_ns;
            if idle || exceeds(&connection, backlog.bytes as u64, limit, now) {
                connection.close();
            }
        }
        drop(shard);
        self.node.note_clients(self.number, self.clients.len());
    }

    fn take(self: &Rc<Self>, message: ShardMessage) {
        let event = match message {
            ShardMessage::Event(event) => event,
            ShardMessage::Retire { term } => {
                let leads = matches!(self.shard.borrow().standing(), Standing::Leading { term: own, .. } if own == term);
                if !leads {
                    return;
                }
                Event::Follow { leader: None }
            }
            ShardMessage::Install { index, term } => {
                let name = SnapshotName { shard: self.number, index, term };
                let data = self.node.files.read(name);
                let data = data.unwrap_or_else(|error| panic!("shard {}: {error}", self.number));
                self.begins_term.set(true);
                Event::InstallSnapshot { index, term, data }
            }
            ShardMessage::Stop => {
                self.stop.notify_one();
                return;
            }
        };
        if let Event::Committed(entries) = &event {
            self.note_committed(entries);
        }
        self.shard.borrow_mut().handle(event);
    }

    fn note_committed(&self, entries: &[CommittedEntry]) {
        let (bytes, term) = self.handed.get();
        let newest = entries.last().map_or(0, |entry| entry.term);
        let more: usize = entries.iter().map(|entry| entry.data.len()).sum();
        self.begins_term.set(self.begins_term.get() || newest > term);
        self.handed.set((bytes + more as u64, newest.max(term)));
    }

    /// Waits, not for ever, until every reply that is due has left and no client
    /// is in the midst of something; then closes.
    async fn farewell(self: &Rc<Self>) {
        let until = self.now_ns() + FAREWELL.as_nanos() as u64;
        while self.now_ns() < until && self.is_any_client_busy() {
            sleep(FAREWELL_STEP).await;
        }
        for connection in self.clients.all() {
            connection.close();
        }
        while !self.clients.is_empty() && self.now_ns() < until {
            tokio::task::yield_now().await;
        }
    }

    fn is_any_client_busy(&self) -> bool {
        let (now, shard) = (self.now_ns(), self.shard.borrow());
        let is_busy = |connection: &Rc<Connection>| {
            shard.is_holding(connection.id) || now < connection.active_ns.get() + QUIET_NS
        };
        self.clients.all().iter().any(is_busy)
    }
}

/// Whether a client leaves too much unread, or has for too long.
fn exceeds(connection: &Connection, bytes: u64, limit: OutputLimit, now: u64) -> bool {
    let is_over = limit.soft_bytes > 0 && bytes >= limit.soft_bytes;
    let since = match connection.over_since_ns.get() {
        0 if is_over => now,
        since if is_over => since,
        _ => 0,
    };
    connection.over_since_ns.set(since);
    let hard = limit.hard_bytes > 0 && bytes >= limit.hard_bytes;
    hard || since > 0 && now - since > limit.soft_seconds * 1_000_000_000
}

/// Waits for a socket that takes no more, and writes on.
async fn unstick(replica: Rc<Replica>, connection: Rc<Connection>) {
    loop {
        let written = match connection.writable().await {
            Ok(()) => replica.write(&connection),
            Err(error) => Err(error),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => {
                connection.stuck.borrow_mut().take();
                if outcome.is_err() {
                    connection.close();
                }
                return;
            }
        }
    }
}

async fn accept(replica: Rc<Replica>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                replica.begin(stream, peer.to_string());
            }
            Err(error) => {
                tracing::warn!(shard = replica.number, "a client could not be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn end_turns(replica: Rc<Replica>) {
    loop {
        replica.turn.notified().await;
        replica.is_turn_due.set(false);
        let outputs = {
            let mut shard = replica.shard.borrow_mut();
            shard.end_turn();
            shard.take_outputs()
        };
        for output in outputs {
            replica.carry_out(output);
        }
    }
}

async fn tick(replica: Rc<Replica>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        replica.shard.borrow_mut().handle(Event::Tick);
        replica.drive();
        replica.check_clients();
    }
}

async fn listen(replica: Rc<Replica>, mut inbox: ShardInbox) {
    let mut messages = Vec::new();
    while inbox.receive(&mut messages, MESSAGES_MAX).await > 0 {
        for message in messages.drain(..) {
            replica.take(message);
        }
        replica.drive();
    }
}
