//! The clients of a replica: how they come, are served, written to, limited, and go.
//!
//! A task of its own reads each client's socket and lets the shard execute what came. What may leave is
//! written at the end of the turn, for all clients together: so one client's answer wakes it only once the
//! others' requests are read, and more of them come in one go. Only when a socket takes no more does a
//! second task wait for it.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use bytes::BytesMut;
use moonraft_router::Network;
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::sleep,
};

use super::Replica;
use crate::{
    config::OutputLimit,
    server::{
        busy::Guest,
        connection::{Connection, Woken},
        wire::{Plain, Wire},
    },
    shard::{Backlog, SessionId, Shard, TOO_MANY_CLIENTS, receive::Received},
};

/// A wait after the system had no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of requests that are read ahead from a client that leaves its replies unread; then its
/// socket is left alone.
const AHEAD_BYTES_MAX: usize = 64 << 20;
/// Replies of one client that do not wait for the end of the turn: sockets take as much at a time.
const REPLIES_BYTES_MAX: usize = 64 << 10;

impl Replica {
    fn begin(self: &Rc<Self>, stream: TcpStream, network: Network, peer: String) {
        if self.is_closed.get() || self.is_stuck() {
            return;
        }
        let local = stream.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
        let connected = match self.node.has_room_for_client() {
            true => self.shard.borrow_mut().connect(peer, local, network),
            false => Err(TOO_MANY_CLIENTS),
        };
        match connected {
            Ok(id) => drop(self.take_over(id, Box::new(Plain::from(stream)))),
            Err(text) => {
                // A new socket takes a line; one that does not is closed without a word.
                spawn_local(async move {
                    if stream.writable().await.is_ok() {
                        let _ = stream.try_write(text.as_bytes());
                    }
                });
            }
        }
    }

    /// A session's client is served from now on.
    fn take_over(self: &Rc<Self>, id: SessionId, wire: Box<dyn Wire>) -> Rc<Connection> {
        let _ = wire.socket().set_nodelay(true);
        let seconds = self.settings.borrow().keepalive_seconds;
        if seconds > 0 {
            let keepalive = socket2::TcpKeepalive::new()
                .with_time(Duration::from_secs(seconds))
                .with_interval(Duration::from_secs((seconds / 3).max(1)));
            let _ = socket2::SockRef::from(wire.socket()).set_tcp_keepalive(&keepalive);
        }
        let number = self.shard.borrow().session_number(id);
        let connection = Rc::new(Connection::new(id, number, wire, self.now_ns()));
        self.clients.insert(id, Rc::clone(&connection));
        spawn_local(serve(Rc::clone(self), Rc::clone(&connection)));
        self.count_clients();
        connection
    }

    /// After a script that ran for long: those who came meanwhile are served on.
    pub(super) fn welcome(self: &Rc<Self>) {
        for Guest { id, wire, input } in self.clients.take_guests() {
            if self.is_closed.get() {
                self.shard.borrow_mut().disconnect(id);
                continue;
            }
            let connection = self.take_over(id, wire);
            connection.input.replace(input);
            connection.resume();
        }
    }

    /// What may leave on this connection leaves at the end of the turn, or now if it is much.
    pub fn flush(self: &Rc<Self>, connection: &Rc<Connection>) {
        if connection.is_closing() {
            return;
        }
        if self.shard.borrow().writable(connection.id).len() > REPLIES_BYTES_MAX {
            self.flush_now(connection);
        } else if !connection.is_unsent.replace(true) {
            self.unsent.borrow_mut().push(Rc::clone(connection));
        }
        self.end_turn_soon();
    }

    /// Writes what may leave, on all connections where something may.
    pub(super) fn flush_all(self: &Rc<Self>) {
        let mut unsent = self.unsent.take();
        for connection in unsent.drain(..) {
            // One that has ended since has not: its session's number may be another's by now.
            if connection.is_unsent.take() {
                self.flush_now(&connection);
            }
        }
        let mut since = self.unsent.borrow_mut();
        unsent.append(&mut since);
        *since = unsent;
    }

    fn flush_now(self: &Rc<Self>, connection: &Rc<Connection>) {
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
                if shard.should_close(id) {
                    connection.close();
                }
                return Ok(());
            }
            let count = connection.wire.send(bytes)?;
            shard.written(id, count);
        }
    }

    /// A connection has ended.
    pub fn end(self: &Rc<Self>, connection: &Rc<Connection>) {
        if let Some(task) = connection.stuck.borrow_mut().take() {
            task.abort();
        }
        if connection.is_unsent.take() {
            let _ = self.write(connection); // what it executed it is told, if it can be
        }
        self.clients.remove(connection.id);
        self.shard.borrow_mut().disconnect(connection.id);
        self.drive();
    }

    /// Ends connections that are idle for too long, leave too much unread, or whose clients have gone while
    /// they were blocked; and the largest if all together take too much. At every tick, and when a client
    /// leaves many replies unread: between two ticks there could be many such.
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
            let waits = backlog.listens || backlog.is_blocked;
            let idle = idle_ns > 0 && !waits && now - connection.active_ns.get().min(now) > idle_ns;
            // Who has sent nothing behind the request that waits is still read from.
            let gone = backlog.is_blocked && connection.input_bytes() > 0 && connection.has_ended();
            if idle || gone || exceeds(connection, backlog.bytes as u64, limit, now) {
                connection.close();
            }
        }
        let total_max = settings.client_memory_bytes_max();
        drop(shard);
        if total_max > 0 && total as u64 > total_max {
            evict(&connections, &mut self.shard.borrow_mut(), total as u64 - total_max);
        }
        self.count_clients();
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

pub(super) async fn accept(replica: Rc<Replica>, network: Network, listener: TcpListener) {
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

/// Serves a connection until it ends.
async fn serve(replica: Rc<Replica>, connection: Rc<Connection>) {
    let (mut needed, mut reads, mut is_full) = (1, true, false);
    loop {
        match connection.wait(&replica.shared_input, reads, needed).await {
            Ok(Woken::Read(0)) | Ok(Woken::Close) | Err(_) => break,
            Ok(Woken::Read(_)) => connection.active_ns.set(replica.now_ns()),
            // What was left, or missing, may have been dealt with beside a script.
            Ok(Woken::Resume) => (needed, reads) = (1, true),
        }
        if connection.input.borrow().is_empty() && replica.shared_input.borrow().is_empty() {
            replica.flush(&connection);
            continue;
        }
        let received = receive(&replica, &connection, needed);
        needed = received.needed;
        reads = !received.parked || received.reads && connection.input.borrow().len() < AHEAD_BYTES_MAX;
        replica.flush(&connection);
        let was_full = std::mem::replace(&mut is_full, received.parked && received.reads);
        if is_full && !was_full {
            replica.check_clients();
        }
        if received.close {
            drain(&replica, &connection).await;
            break;
        }
    }
    replica.end(&connection);
}

/// Lets the shard execute what is there. What it leaves moves into the connection's own buffer.
fn receive(replica: &Replica, connection: &Connection, needed: usize) -> Received {
    let mut own = connection.input.borrow_mut();
    let mut shared = replica.shared_input.borrow_mut();
    let input = if own.is_empty() { &mut *shared } else { &mut *own };
    if input.len() < needed && input.len() <= replica.query_bytes_max.get() {
        let received = Received { needed, parked: false, reads: true, close: false };
        keep(&mut own, &mut shared);
        return received;
    }
    let received = replica.shard.borrow_mut().receive(connection.id, input);
    if input.len() > replica.query_bytes_max.get() && !received.parked {
        connection.close();
    }
    keep(&mut own, &mut shared);
    received
}

/// Moves what is left in the shared buffer into the connection's own.
fn keep(own: &mut BytesMut, shared: &mut BytesMut) {
    if !shared.is_empty() {
        own.extend_from_slice(shared);
        shared.clear();
    } else if own.is_empty() && own.capacity() > 0 {
        *own = BytesMut::new();
    }
}

/// Waits until all replies have left: the last words of a connection that is to be closed.
async fn drain(replica: &Replica, connection: &Rc<Connection>) {
    while !replica.shard.borrow().should_close(connection.id) {
        match connection.wait(&replica.shared_input, false, 1).await {
            Ok(Woken::Close) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Waits for a socket that takes no more, and writes on.
async fn unstick(replica: Rc<Replica>, connection: Rc<Connection>) {
    let written = connection.wire.socket().async_io(Interest::WRITABLE, || replica.write(&connection)).await;
    connection.stuck.borrow_mut().take();
    if written.is_err() {
        connection.close();
    }
    // Requests may have been left unread until now.
    replica.drive();
}
