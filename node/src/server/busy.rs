//! Attends to clients while a script holds the shard's thread.
//!
//! Called from inside the script, with the runtime standing still: so sockets are read and written directly,
//! and what came is given to the shard ([`BusyShard`]), which answers as it always does. What the shard leaves
//! unanswered stays in the connection's buffer, and its task is woken to look at it afterwards.
//!
//! Clients that come meanwhile are guests: accepted, given sessions and answered here, and made connections
//! afterwards, before anything else. Otherwise nobody could kill a script who was not connected when it began.
//!
//! What a client sends beyond [`INPUT_BYTES_MAX`] waits in its socket, as do clients beyond [`GUESTS_MAX`].

use std::{
    cell::{Cell, RefCell},
    io,
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    rc::Rc,
};

use bytes::BytesMut;
use hashbrown::HashMap;
use moonraft_router::Network;
use rustix::net::{SocketFlags, accept_with};

use super::{
    clock,
    connection::Connection,
    listen::Doors,
    wire::{Plain, Wire},
};
use crate::shard::{BusyShard, SessionId, TOO_MANY_CLIENTS};

/// How often the sockets are looked at: a client notices no wait of this length,
/// and ten thousand sockets take a fraction of it.
const INTERVAL_NS: u64 = 20_000_000;
/// Bytes of requests that one connection may leave unanswered meanwhile.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Clients that are taken in meanwhile; more wait in the listener's queue.
const GUESTS_MAX: usize = 128;

/// The connections of a replica, by session.
#[derive(Default)]
pub struct Clients {
    connections: RefCell<HashMap<SessionId, Rc<Connection>>>,
    looked_ns: Cell<u64>,
    /// Where new clients come in.
    doors: RefCell<Doors<OwnedFd>>,
    guests: RefCell<Vec<Guest>>,
}

/// A client that came while a script ran.
pub struct Guest {
    /// Its session.
    pub id: SessionId,
    /// What carries its bytes.
    pub wire: Box<dyn Wire>,
    /// What it has sent and is not answered.
    pub input: BytesMut,
}

/// What became of a client.
enum Attended {
    /// It has sent nothing, and has all its replies.
    Idle,
    /// It was heard: its task looks at what is left afterwards.
    Active,
    /// It is told nothing more.
    Over,
}

impl Clients {
    /// New clients from `network` come in at this listener, which does not block.
    pub fn open(&self, network: Network, door: OwnedFd) {
        self.doors.borrow_mut().push((network, door));
    }

    /// Those who came while a script ran, in their order.
    pub fn take_guests(&self) -> Vec<Guest> {
        self.guests.take()
    }

    /// The connection of a session.
    pub fn get(&self, id: SessionId) -> Option<Rc<Connection>> {
        self.connections.borrow().get(&id).cloned()
    }

    /// A connection has begun.
    pub fn insert(&self, id: SessionId, connection: Rc<Connection>) {
        self.connections.borrow_mut().insert(id, connection);
    }

    /// A connection has ended.
    pub fn remove(&self, id: SessionId) {
        self.connections.borrow_mut().remove(&id);
    }

    /// All of them.
    pub fn all(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets the shard deal with what clients have sent, now and then; new ones come in while `has_room`.
    pub fn while_busy(&self, shard: &mut BusyShard<'_>, has_room: impl Fn() -> bool) {
        let now = clock::boot_ns();
        if now < self.looked_ns.get() + INTERVAL_NS {
            return;
        }
        self.looked_ns.set(now);
        for connection in self.connections.borrow().values() {
            // The client whose script runs has its buffer in use.
            let Ok(mut input) = connection.input.try_borrow_mut() else { continue };
            match attend(shard, connection.id, &*connection.wire, &mut input) {
                Attended::Idle => {}
                Attended::Active => connection.resume(),
                Attended::Over => connection.close(),
            }
        }
        let mut guests = self.guests.borrow_mut();
        for (network, door) in &*self.doors.borrow() {
            while guests.len() < GUESTS_MAX
                && let Ok(stream) = accept_with(door, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
            {
                guests.extend(welcome(shard, stream.into(), *network, has_room()));
            }
        }
        for Guest { id, wire, input } in &mut *guests {
            // One that ends is found out by its task.
            attend(shard, *id, &**wire, input);
        }
    }
}

/// Gives a new client its session, if it may have one.
fn welcome(shard: &mut BusyShard<'_>, stream: TcpStream, network: Network, has_room: bool) -> Option<Guest> {
    let text = |address: io::Result<SocketAddr>| address.map_or_else(|_| String::new(), |it| it.to_string());
    let (peer, local) = (text(stream.peer_addr()), text(stream.local_addr()));
    let wire: Box<dyn Wire> = Box::new(Plain::from(tokio::net::TcpStream::from_std(stream).ok()?));
    let begun = match has_room {
        true => shard.connect(peer, local, network),
        false => Err(TOO_MANY_CLIENTS),
    };
    let refused = |text: &'static str| drop(wire.send(text.as_bytes()));
    let id = begun.map_err(refused).ok()?;
    Some(Guest { id, wire, input: BytesMut::new() })
}

/// Reads what a client has sent, lets the shard deal with it, and writes what may leave.
fn attend(shard: &mut BusyShard<'_>, id: SessionId, wire: &dyn Wire, input: &mut BytesMut) -> Attended {
    wire.read_now(input, INPUT_BYTES_MAX);
    if input.is_empty() && shard.writable(id).is_empty() {
        return Attended::Idle;
    }
    shard.receive(id, input);
    while !shard.writable(id).is_empty() {
        match wire.send(shard.writable(id)) {
            Ok(count) => shard.written(id, count),
            Err(_) => return Attended::Active, // it takes no more, or its task will find that it has gone
        }
    }
    if !shard.should_close(id) {
        return Attended::Active;
    }
    wire.close(); // the rest of its end waits
    Attended::Over
}
