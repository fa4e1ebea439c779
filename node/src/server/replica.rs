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
    collections::VecDeque,
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use moonraft_proto::resp;
use moonraft_router::Network;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::{JoinHandle, spawn_blocking, spawn_local},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    busy::{Clients, Guest},
    clock,
    connection::{self, Connection, READ_BYTES},
    listen::Doors,
    mailbox::{ShardInbox, ShardMessage},
    shared::NodeShared,
    snapshot_file::SnapshotError,
    snapshots::SnapshotName,
};
use crate::{
    config::{OutputLimit, Reads, Settings},
    consensus::Input,
    shard::{
        Backlog, CommittedEntry, Event, Output, SessionId, Shard, ShardSettings, Standing, TOO_MANY_CLIENTS,
    },
};

/// How often the shard is told that time has passed: Redis's `hz 10`.
const TICK: Duration = Duration::from_millis(100);
/// Messages of other threads that are taken together.
const MESSAGES_MAX: usize = 256;
/// A wait after the system had no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What one step of a snapshot may cost: about a fifth of a millisecond.
const WALK_STEP: usize = 64 << 10;
/// A snapshot that was held up makes so much time good, and no more.
const WALK_BURST_NS: u64 = 10_000_000;
/// Chunks of a snapshot that are read ahead of its installation.
const CHUNKS_AHEAD: usize = 8;
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
    /// A snapshot is being installed: what comes after it in the log waits.
    is_installing: Cell<bool>,
    /// Messages of the log that wait, oldest first; bounded by what consensus hands over at once.
    deferred: RefCell<VecDeque<ShardMessage>>,
    /// Wakes the task that goes on with a snapshot.
    walking: Notify,
    /// Before this, boot clock, no more of it is written.
    walk_from_ns: Cell<u64>,
    /// How long its longest step took.
    longest_step_ns: Cell<u64>,
    stop: Notify,
    /// No client is taken in any more.
    is_closed: Cell<bool>,
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
        unit_copied_bytes_max: bytes(settings.unit_copied_bytes_max),
        memory_bytes_max: if settings.memory_bytes_max == 0 { u64::MAX } else { settings.memory_bytes_max },
        outbox_bytes_max: unlimited(settings.output_normal.hard_bytes),
        outbox_listening_bytes_max: unlimited(settings.output_pubsub.hard_bytes),
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
            is_installing: Cell::new(false),
            deferred: RefCell::default(),
            walking: Notify::new(),
            walk_from_ns: Cell::new(0),
            longest_step_ns: Cell::new(0),
            stop: Notify::new(),
            is_closed: Cell::new(false),
        })
    }

    /// Runs until it is told to stop, and its clients have their replies.
    pub async fn run(self: Rc<Self>, doors: Doors<TcpListener>, inbox: ShardInbox) {
        let accept_all = |(network, listener)| spawn_local(accept(Rc::clone(&self), network, listener));
        let mut tasks: Vec<_> = doors.into_iter().map(accept_all).collect();
        tasks.push(spawn_local(end_turns(Rc::clone(&self))));
        tasks.push(spawn_local(tick(Rc::clone(&self))));
        tasks.push(spawn_local(walk(Rc::clone(&self))));
        tasks.push(spawn_local(listen(Rc::clone(&self), inbox)));
        self.stop.notified().await;
        // Clients may come until the end: they are told where to go. A port that is open and
        // answers nobody would keep them waiting.
        self.farewell().await;
        tasks.iter().for_each(JoinHandle::abort);
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
        for Guest { stream, network, input, mut greeting } in self.clients.take_guests() {
            let stream = std::net::TcpStream::from(stream);
            let peer = stream.peer_addr().map_or_else(|_| String::new(), |address| address.to_string());
            let Ok(stream) = TcpStream::from_std(stream) else { continue };
            if let Some(connection) = self.begin(stream, network, peer) {
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

    /// So many bytes of a snapshot are on their way: the next step waits until they fit the rate.
    fn pace_walk(&self, bytes: usize) {
        let rate = self.settings.borrow().snapshot_rate;
        let took = (bytes as u64 * 1_000_000_000).checked_div(rate).unwrap_or(0);
        let from = self.walk_from_ns.get().max(self.now_ns().saturating_sub(WALK_BURST_NS));
        self.walk_from_ns.set(from + took);
    }

    /// Wakes the task that ends turns, if this one has something to seal; and that of the snapshot.
    fn schedule_turn(&self) {
        self.refresh_settings();
        if self.shard.borrow().wants_walk() {
            self.walking.notify_one();
        }
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
            Output::WatchFollowers(watched) => {
                self.node.driver.send(Input::WatchFollowers { group, watched });
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
            Output::SnapshotChunk { number, data } => {
                self.pace_walk(data.len());
                self.node.writer.write(group, number, data);
            }
            Output::Snapshot { number, index, term } => {
                let longest_step_us = self.longest_step_ns.take() / 1000;
                tracing::info!(shard = group, index, longest_step_us, "snapshot taken");
                self.node.writer.publish(SnapshotName { shard: group, index, term }, number);
            }
            Output::SnapshotGivenUp { number } => self.node.writer.give_up(group, number),
            Output::Discard(state) => drop(spawn_blocking(move || drop(state))),
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

    /// Whether the node's disk hangs: others lead by now, and this node cannot tell who; see `disk`.
    fn is_stuck(&self) -> bool {
        let patience_ns = self.settings.borrow().node_timeout_ms * 1_000_000;
        self.node.disk.is_hanging(self.now_ns(), patience_ns)
    }

    fn begin(self: &Rc<Self>, stream: TcpStream, network: Network, peer: String) -> Option<Rc<Connection>> {
        if self.is_closed.get() || self.is_stuck() {
            return None;
        }
        let _ = stream.set_nodelay(true);
        let seconds = self.settings.borrow().keepalive_seconds;
        if seconds > 0 {
            let keepalive = socket2::TcpKeepalive::new()
                .with_time(Duration::from_secs(seconds))
                .with_interval(Duration::from_secs((seconds / 3).max(1)));
            let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        }
        let local = stream.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
        let connected = match self.node.has_room_for_client() {
            true => self.shard.borrow_mut().connect(peer, local, network),
            false => Err(TOO_MANY_CLIENTS),
        };
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

    /// Ends connections that are idle for too long or leave too much unread, and the largest if all
    /// together take too much. At every tick, and when a client leaves many replies unread: between
    /// two ticks there could be many such.
    pub fn check_clients(&self) {
        let settings = Arc::clone(&self.settings.borrow());
        let idle_ns = settings.idle_seconds_max * 1_000_000_000;
        let now = self.now_ns();
        let shard = self.shard.borrow();
        let mut total = 0;
        let connections = self.clients.all();
        for connection in connections.iter().filter(|connection| !connection.is_closing()) {
            let backlog = shard.backlog(connection.id);
            total += memory_of(connection, &backlog);
            let limit = if backlog.listens { settings.output_pubsub } else { settings.output_normal };
            let idle = idle_ns > 0 && !backlog.listens && now - connection.active_ns.get().min(now) > idle_ns;
            if idle || exceeds(connection, backlog.bytes as u64, limit, now) {
                connection.close();
            }
        }
        let total_max = settings.client_memory_bytes_max;
        drop(shard);
        if total_max > 0 && total as u64 > total_max {
            evict(&connections, &mut self.shard.borrow_mut(), total as u64 - total_max);
        }
        self.node.note_clients(self.number, self.clients.len());
    }

    /// Takes a message, unless it is of the log and has to wait: for the snapshot before it, or, on a
    /// follower, for the writer of one.
    fn take(self: &Rc<Self>, message: ShardMessage) {
        let is_of_log =
            matches!(message, ShardMessage::Install { .. } | ShardMessage::Event(Event::Committed(_)));
        if is_of_log && (self.is_log_held() || !self.deferred.borrow().is_empty()) {
            self.deferred.borrow_mut().push_back(message);
        } else {
            self.take_now(message);
        }
    }

    fn is_log_held(&self) -> bool {
        let shard = self.shard.borrow();
        self.is_installing.get() || !shard.standing().is_leading() && shard.is_writer_behind()
    }

    /// Takes what has waited for long enough. What comes before another snapshot need not be taken any more.
    fn take_deferred(self: &Rc<Self>) {
        {
            let mut deferred = self.deferred.borrow_mut();
            let newest = deferred.iter().rposition(|message| matches!(message, ShardMessage::Install { .. }));
            deferred.drain(..newest.unwrap_or(0));
        }
        while !self.is_log_held() {
            let Some(message) = self.deferred.borrow_mut().pop_front() else { return };
            self.take_now(message);
        }
    }

    fn take_now(self: &Rc<Self>, message: ShardMessage) {
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
                self.is_installing.set(true);
                spawn_local(install(Rc::clone(self), index, term));
                return;
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
        self.is_closed.set(true);
        for connection in self.clients.all() {
            connection.close();
        }
        let until = self.now_ns() + FAREWELL.as_nanos() as u64;
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

/// Bytes that wait for a client, in either direction.
fn memory_of(connection: &Connection, backlog: &Backlog) -> usize {
    backlog.bytes + backlog.queued_bytes + connection.input_bytes()
}

/// Ends the connections that take most, until `excess` bytes are free.
fn evict(connections: &[Rc<Connection>], shard: &mut Shard, excess: u64) {
    let mut sizes: Vec<(usize, &Rc<Connection>)> = connections
        .iter()
        .filter(|connection| !connection.is_closing())
        .map(|connection| (shard.backlog(connection.id), connection))
        .filter(|(backlog, _)| !backlog.stays)
        .map(|(backlog, connection)| (memory_of(connection, &backlog), connection))
        .collect();
    sizes.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let mut freed = 0;
    for (bytes, connection) in sizes {
        if freed >= excess {
            return;
        }
        freed += bytes as u64;
        tracing::warn!(client = connection.number, bytes, "closed: clients take more than maxmemory-clients");
        // At once: before the connection's task has ended, more such clients may come.
        shard.drop_replies(connection.id);
        connection.close();
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
                // Requests may have been left unread until now.
                return replica.drive();
            }
        }
    }
}

async fn accept(replica: Rc<Replica>, network: Network, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                replica.begin(stream, network, peer.to_string());
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
        replica.shard.borrow_mut().end_turn();
        replica.drive();
    }
}

/// Goes on with a snapshot while there is one to take: a small step, and everybody else's turn.
async fn walk(replica: Rc<Replica>) {
    loop {
        replica.walking.notified().await;
        while replica.shard.borrow().wants_walk() {
            let wait_ns = replica.walk_from_ns.get().saturating_sub(replica.now_ns());
            if wait_ns > 0 {
                sleep(Duration::from_nanos(wait_ns)).await;
            }
            let began_ns = replica.now_ns();
            replica.shard.borrow_mut().walk(WALK_STEP);
            let took_ns = replica.now_ns() - began_ns;
            replica.longest_step_ns.set(replica.longest_step_ns.get().max(took_ns));
            replica.drive();
            tokio::task::yield_now().await;
        }
    }
}

/// Installs a snapshot, which is on the disk and has been checked; clients are answered meanwhile. One
/// that cannot be read stops the node: the log before it is gone.
async fn install(replica: Rc<Replica>, index: u64, term: u64) {
    let shard = replica.number;
    let name = SnapshotName { shard, index, term };
    let (sender, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
    let files = replica.node.files.clone();
    // On a thread that may wait for the disk.
    let reading = spawn_blocking(move || -> Result<(), SnapshotError> {
        let mut reader = files.read(name)?;
        while let Some(chunk) = reader.next_chunk()? {
            if sender.blocking_send(chunk).is_err() {
                break; // the replica stops
            }
        }
        Ok(())
    });
    replica.shard.borrow_mut().begin_install(index, term);
    while let Some(chunk) = chunks.recv().await {
        let installed = replica.shard.borrow_mut().install_chunk(&chunk);
        installed.unwrap_or_else(|error| panic!("shard {shard}, snapshot {index}: {error}"));
        replica.drive();
        tokio::task::yield_now().await;
    }
    let read = reading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    match read {
        Ok(()) => replica.shard.borrow_mut().end_install(),
        Err(error) => panic!("shard {shard}: {error}"),
    }
    replica.begins_term.set(true);
    replica.is_installing.set(false);
    replica.take_deferred();
    replica.drive();
}

async fn tick(replica: Rc<Replica>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        replica.shard.borrow_mut().handle(Event::Tick);
        replica.drive();
        replica.check_clients();
        if replica.is_stuck() {
            replica.clients.all().iter().for_each(|connection| connection.close());
        }
    }
}

async fn listen(replica: Rc<Replica>, mut inbox: ShardInbox) {
    let mut messages = Vec::new();
    while inbox.receive(&mut messages, MESSAGES_MAX).await > 0 {
        for message in messages.drain(..) {
            replica.take(message);
        }
        replica.take_deferred();
        replica.drive();
    }
}
