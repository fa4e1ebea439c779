//! One client connection on its shard's thread: bytes in, bytes out.
//!
//! Bytes are read into one buffer that all connections of the thread share; only
//! what is left of an incomplete or parked request moves into a buffer of the
//! connection's own. So ten thousand idle clients cost no buffers.
//!
//! INVARIANT: nothing waits while the shared buffer holds bytes.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use tokio::{io::Interest, task::AbortHandle};

use super::wire::Wire;
use crate::shard::SessionId;

/// Bytes read at a time, and kept free in the shared buffer: Redis's 16 KiB, four
/// times, as one buffer serves all.
pub const READ_BYTES: usize = 64 << 10;
/// A request that is not complete gets room as it grows, at most this much ahead.
const GROWTH_BYTES_MAX: usize = 4 << 20;

/// A connection, as its tasks and the thread's other parts share it.
pub struct Connection {
    /// Its session.
    pub id: SessionId,
    /// The session's number, as clients know it.
    pub number: u64,
    /// What carries its bytes.
    pub wire: Box<dyn Wire>,
    /// What is left of requests that cannot be executed yet.
    pub input: RefCell<BytesMut>,
    /// The task that waits for the socket to take more, if it took less than it should.
    pub stuck: RefCell<Option<AbortHandle>>,
    /// It has replies that are written at the end of the turn.
    pub is_unsent: Cell<bool>,
    signal: Cell<Signal>,
    waker: RefCell<Option<Waker>>,
    /// When bytes last came, boot clock.
    pub active_ns: Cell<u64>,
    /// Since when the soft output limit is exceeded, boot clock; 0 if it is not.
    pub over_since_ns: Cell<u64>,
}

/// What another part of the thread tells the connection's task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Signal {
    #[default]
    None,
    /// Requests that were left in the buffer may be received now.
    Resume,
    /// End at once.
    Close,
}

/// Why a task that waited for bytes goes on.
pub enum Woken {
    /// So many bytes came; none: the client has ended.
    Read(usize),
    /// Requests that were left in the buffer may be received now.
    Resume,
    /// It is to end at once.
    Close,
}

impl Connection {
    /// A connection of a session that has begun.
    pub fn new(id: SessionId, number: u64, wire: Box<dyn Wire>, now_ns: u64) -> Self {
        Self {
            id,
            number,
            wire,
            input: RefCell::default(),
            stuck: RefCell::default(),
            is_unsent: Cell::default(),
            signal: Cell::default(),
            waker: RefCell::default(),
            active_ns: Cell::new(now_ns),
            over_since_ns: Cell::new(0),
        }
    }

    /// Requests that were left in the buffer may be received now.
    pub fn resume(&self) {
        if self.signal.get() == Signal::None {
            self.tell(Signal::Resume);
        }
    }

    /// Bytes that its buffers take.
    pub fn input_bytes(&self) -> usize {
        // The task has it while it reads: then it is being used, and will be looked at later.
        self.input.try_borrow().map_or(0, |input| input.capacity())
    }

    /// Ends the connection at once.
    pub fn close(&self) {
        self.tell(Signal::Close);
    }

    /// Whether it has been told to end, and has not yet.
    pub fn is_closing(&self) -> bool {
        self.signal.get() == Signal::Close
    }

    /// Whether its client sends nothing more: where nothing is read that is seen only if somebody looks.
    pub fn has_ended(&self) -> bool {
        let ready = pin!(self.wire.socket().ready(Interest::READABLE));
        let ready = ready.poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    fn tell(&self, signal: Signal) {
        self.signal.set(signal);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits for a signal, or for bytes if `reads`, which are put at the end of
    /// `shared` if the connection has none of its own, else there.
    ///
    /// # Errors
    /// The socket's.
    pub async fn wait(&self, shared: &RefCell<BytesMut>, reads: bool, needed: usize) -> io::Result<Woken> {
        std::future::poll_fn(|context| {
            match self.signal.take() {
                Signal::Close => return Poll::Ready(Ok(Woken::Close)),
                Signal::Resume => return Poll::Ready(Ok(Woken::Resume)),
                Signal::None => {}
            }
            if self.waker.borrow().as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
                *self.waker.borrow_mut() = Some(context.waker().clone());
            }
            if !reads {
                return Poll::Pending;
            }
            let (mut own, mut shared) = (self.input.borrow_mut(), shared.borrow_mut());
            let input = if own.is_empty() { &mut *shared } else { &mut *own };
            let missing = needed.saturating_sub(input.len());
            input.reserve(missing.min(input.len() * 2 + GROWTH_BYTES_MAX).max(READ_BYTES));
            self.wire.poll_read(context, input).map_ok(Woken::Read)
        })
        .await
    }
}
