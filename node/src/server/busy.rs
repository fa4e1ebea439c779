//! Answers clients while a script holds the shard's thread.
//!
//! Called from inside the script, with the shard in use and the runtime standing
//! still, so nothing of either is touched: the sockets are read and written
//! directly. Whole requests are answered `-BUSY`; what is not whole, or stands
//! behind a reply that has not left, stays in the connection's buffer, and its
//! task is woken to look at it afterwards.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use bytes::{Buf, BytesMut};
use hashbrown::HashMap;
use moonraft_proto::resp::{self, Limits, Parsed};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{clock, connection::Connection};
use crate::shard::{Busy, SessionId};

/// The text of Redis 7.
const BUSY: &[u8] =
    b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
const OK: &[u8] = b"+OK\r\n";
/// How often the sockets are looked at: a client notices no wait of this length,
/// and ten thousand sockets take a fraction of it.
const INTERVAL_NS: u64 = 20_000_000;
/// Bytes of requests that one connection may leave unanswered meanwhile.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// The connections of a replica, by session.
#[derive(Default)]
pub struct Clients {
    connections: RefCell<HashMap<SessionId, Rc<Connection>>>,
    looked_ns: Cell<u64>,
}

impl Clients {
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

    /// Answers those who have sent something, now and then.
    pub fn while_busy(&self) -> Busy {
        let now = clock::boot_ns();
        if now < self.looked_ns.get() + INTERVAL_NS {
            return Busy::Continue;
        }
        self.looked_ns.set(now);
        let mut verdict = Busy::Continue;
        for connection in self.connections.borrow().values() {
            if attend(connection) == Busy::Kill {
                verdict = Busy::Kill;
            }
        }
        verdict
    }
}

/// Reads what one client has sent, and answers it.
fn attend(connection: &Connection) -> Busy {
    // The client whose script runs has its buffer in use.
    let Ok(mut input) = connection.input.try_borrow_mut() else { return Busy::Continue };
    let mut chunk = [0; READ_BYTES];
    while input.len() < INPUT_BYTES_MAX {
        match recv(connection.stream(), &mut chunk, RecvFlags::DONTWAIT) {
            Ok((count, _)) if count > 0 => input.extend_from_slice(&chunk[..count]),
            _ => break, // nothing there; an end or an error its task will find
        }
    }
    if input.is_empty() {
        return Busy::Continue;
    }
    let verdict = if connection.is_holding.get() { Busy::Continue } else { answer(connection, &mut input) };
    if !input.is_empty() {
        connection.resume();
    }
    verdict
}

fn answer(connection: &Connection, input: &mut BytesMut) -> Busy {
    let mut verdict = Busy::Continue;
    while let Some((reply, consumed)) = reply_to_first(input) {
        if reply == OK {
            verdict = Busy::Kill;
        }
        input.advance(consumed);
        let sent = send(connection.stream(), reply, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        if !reply.is_empty() && sent != Ok(reply.len()) {
            // Part of a line has left, or nothing ever will: there is no way on.
            connection.close();
            return verdict;
        }
    }
    verdict
}

/// The answer to the first whole request, and its length. What is no request is
/// left to the shard, which knows what to say.
fn reply_to_first(input: &[u8]) -> Option<(&'static [u8], usize)> {
    let Ok(Parsed::Request { words, consumed }) = resp::parse(input, &Limits::default()) else { return None };
    let reply = match words.as_slice() {
        [] => &[],
        [name, child, ..] if is(name, b"script") && is(child, b"kill") => OK,
        _ => BUSY,
    };
    Some((reply, consumed))
}

fn is(word: &[u8], name: &[u8]) -> bool {
    word.eq_ignore_ascii_case(name)
}
