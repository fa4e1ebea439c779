//! Answers clients while a script holds the shard's thread.
//!
//! Called from inside the script, with the shard in use and the runtime standing
//! still, so nothing of either is touched: the sockets are read and written
//! directly. Whole requests are answered `-BUSY`; what is not whole, or stands
//! behind a reply that has not left, stays in the connection's buffer, and its
//! task is woken to look at it afterwards.
//!
//! Clients that come meanwhile are guests: accepted and answered here, and made
//! connections of the shard afterwards, before any other. Otherwise nobody could
//! kill a script who was not connected when it began. `HELLO`, with which clients
//! begin, is answered as Redis does, and told to the shard afterwards.
//!
//! INVARIANT: guests get the session numbers that `HELLO` told them, as the shard
//! counts its sessions in the order in which they begin.

use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use bytes::{Buf, BytesMut};
use hashbrown::HashMap;
use moonraft_proto::{
    Protocol, Reply,
    resp::{self, Limits, Parsed, Unfinished},
};
use moonraft_router::Network;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

use super::{clock, connection::Connection, listen::Doors};
use crate::{
    command::hello_reply,
    shard::{Busy, SessionId},
};

/// The text of Redis 7.
const BUSY: &[u8] =
    b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
const OK: &[u8] = b"+OK\r\n";
/// How often the sockets are looked at: a client notices no wait of this length,
/// and ten thousand sockets take a fraction of it.
const INTERVAL_NS: u64 = 20_000_000;
/// Bytes of requests that one connection may leave unanswered meanwhile.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Clients that are taken in meanwhile; more wait in the listener's queue.
const GUESTS_MAX: usize = 128;
/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// The connections of a replica, by session.
#[derive(Default)]
pub struct Clients {
    connections: RefCell<HashMap<SessionId, Rc<Connection>>>,
    looked_ns: Cell<u64>,
    /// Sessions so far, as the shard counts them.
    begun: Cell<u64>,
    /// Where new clients come in.
    doors: RefCell<Doors<OwnedFd>>,
    guests: RefCell<Vec<Guest>>,
    /// Somebody was greeted or came while a script ran.
    has_news: Cell<bool>,
}

/// A client that came while a script ran.
pub struct Guest {
    /// Its socket, which does not block.
    pub stream: OwnedFd,
    /// The network it comes from.
    pub network: Network,
    /// What it has sent and is not answered.
    pub input: BytesMut,
    /// The last `HELLO` it was answered: the shard must hear of it.
    pub greeting: BytesMut,
}

/// One client, as it is attended to.
struct Desk<'a, S> {
    stream: &'a S,
    input: &'a mut BytesMut,
    greeting: &'a mut BytesMut,
    number: u64,
    may_answer: bool,
}

/// What became of a client.
#[derive(PartialEq, Eq)]
enum Attended {
    /// It goes on; whether it asks to kill the script.
    Open(Busy),
    /// Part of a line has left, or nothing ever will: there is no way on.
    Broken(Busy),
}

impl Clients {
    /// New clients from `network` come in at this listener, which does not block.
    pub fn open(&self, network: Network, door: OwnedFd) {
        self.doors.borrow_mut().push((network, door));
    }

    /// The number of the session that begins now.
    pub fn begin(&self) -> u64 {
        self.begun.set(self.begun.get() + 1);
        self.begun.get()
    }

    /// Whether clients were greeted or came while a script ran; asked after it.
    pub fn take_news(&self) -> bool {
        self.has_news.take()
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

    /// Answers those who have sent something, now and then.
    pub fn while_busy(&self) -> Busy {
        let now = clock::boot_ns();
        if now < self.looked_ns.get() + INTERVAL_NS {
            return Busy::Continue;
        }
        self.looked_ns.set(now);
        let mut verdict = Busy::Continue;
        for connection in self.connections.borrow().values() {
            if self.attend(connection) == Busy::Kill {
                verdict = Busy::Kill;
            }
        }
        if self.attend_guests() == Busy::Kill {
            verdict = Busy::Kill;
        }
        verdict
    }

    /// Answers a client that was here before the script.
    fn attend(&self, connection: &Connection) -> Busy {
        // The client whose script runs has its buffer in use.
        let Ok(mut input) = connection.input.try_borrow_mut() else { return Busy::Continue };
        connection.was_attended.set(true);
        let mut greeting = connection.greeting.borrow_mut();
        let mut desk = Desk {
            stream: connection.stream(),
            input: &mut input,
            greeting: &mut greeting,
            number: connection.number,
            may_answer: !connection.is_holding.get(),
        };
        let attended = desk.attend();
        if !greeting.is_empty() {
            self.has_news.set(true);
        }
        if !input.is_empty() {
            connection.resume();
        }
        match attended {
            Attended::Open(verdict) => verdict,
            Attended::Broken(verdict) => {
                connection.close();
                verdict
            }
        }
    }

    /// Lets new clients in, and answers those who came.
    fn attend_guests(&self) -> Busy {
        let mut guests = self.guests.borrow_mut();
        for (network, door) in &*self.doors.borrow() {
            while guests.len() < GUESTS_MAX
                && let Ok(stream) = accept_with(door, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
            {
                let (input, greeting) = (BytesMut::new(), BytesMut::new());
                guests.push(Guest { stream, network: *network, input, greeting });
                self.has_news.set(true);
            }
        }
        let mut verdict = Busy::Continue;
        // One that is broken stays: others have been told numbers after its own.
        for (guest, number) in guests.iter_mut().zip(self.begun.get() + 1..) {
            let Guest { stream, input, greeting, .. } = guest;
            let mut desk = Desk { stream, input, greeting, number, may_answer: true };
            if matches!(desk.attend(), Attended::Open(Busy::Kill) | Attended::Broken(Busy::Kill)) {
                verdict = Busy::Kill;
            }
        }
        verdict
    }
}

impl<S: AsFd> Desk<'_, S> {
    /// Reads what the client has sent, and answers it.
    fn attend(&mut self) -> Attended {
        let mut chunk = [0; READ_BYTES];
        while self.input.len() < INPUT_BYTES_MAX {
            match recv(self.stream, &mut chunk, RecvFlags::DONTWAIT) {
                Ok((count, _)) if count > 0 => self.input.extend_from_slice(&chunk[..count]),
                _ => break, // nothing there; an end or an error its task will find
            }
        }
        if self.may_answer { self.answer() } else { Attended::Open(Busy::Continue) }
    }

    fn answer(&mut self) -> Attended {
        let mut verdict = Busy::Continue;
        while let Some((reply, consumed)) = self.reply_to_first() {
            if reply == OK {
                verdict = Busy::Kill;
            }
            self.input.advance(consumed);
            let sent = send(self.stream, &reply, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            if !reply.is_empty() && sent != Ok(reply.len()) {
                return Attended::Broken(verdict);
            }
        }
        Attended::Open(verdict)
    }

    /// The answer to the first whole request, and its length. What is no request is
    /// left to the shard, which knows what to say.
    fn reply_to_first(&mut self) -> Option<(Vec<u8>, usize)> {
        let mut unquoted = Vec::new();
        let parsed = resp::parse(self.input, &mut unquoted, &Limits::default(), &mut Unfinished::default());
        let Ok(Parsed::Request { words, consumed }) = parsed else { return None };
        let protocol = match words.as_slice() {
            [] => return Some((Vec::new(), consumed)),
            [name, child, ..] if is(name, b"script") && is(child, b"kill") => {
                return Some((OK.to_vec(), consumed));
            }
            [name, b"2"] if is(name, b"hello") => Protocol::Resp2,
            [name, b"3"] if is(name, b"hello") => Protocol::Resp3,
            _ => return Some((BUSY.to_vec(), consumed)),
        };
        self.greeting.clear();
        self.greeting.extend_from_slice(&self.input[..consumed]);
        Some((hello(protocol, self.number), consumed))
    }
}

/// The answer to a client's `HELLO`. Only a leader runs a script for so long.
fn hello(protocol: Protocol, number: u64) -> Vec<u8> {
    let mut text = Vec::new();
    let reply: Reply<'static> = hello_reply(protocol, number, true);
    reply.encode(protocol, &mut text);
    text
}

fn is(word: &[u8], name: &[u8]) -> bool {
    word.eq_ignore_ascii_case(name)
}
