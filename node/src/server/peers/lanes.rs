//! Lanes: bounded queues of what waits for a connection to a peer.
//!
//! Who has something to say writes it to the socket itself: a task that did it would cost a switch to it, and what
//! consensus sends before it waits for the disk has left by then. Only what the socket does not take waits, for the
//! lane's task (`outgoing::carry`).
//!
//! INVARIANT: frames leave whole and in the order they were put there. Only the first that waits may have left in
//! part, and it never leaves on another connection.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::{Buf, Bytes};
use tokio::{net::TcpStream, sync::Notify};

use super::frames;

/// Frames that wait for one lane.
const LANE_FRAMES_MAX: usize = 4096;
/// Bytes that wait for one lane: a few of the largest entries.
const LANE_BYTES_MAX: usize = 256 << 20;
/// Bytes that wait for one lane with which no more published messages are taken: those of Raft must
/// not be lost to them.
const LANE_PUBLICATION_BYTES_MAX: usize = 32 << 20;
/// Frames that are kept free for messages of Raft.
const LANE_RAFT_FRAMES: usize = LANE_FRAMES_MAX / 2;
/// Frames that one write takes along.
const FRAMES_A_WRITE: usize = 16;

/// One lane to one peer. Connections come and go; it stays.
#[derive(Default)]
pub(super) struct Lane {
    waiting: Mutex<Waiting>,
    /// The task has something to do.
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    socket: Option<Arc<TcpStream>>,
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no thread panics holding it")
    }

    /// Sends a frame, or lets it wait, or drops it if too much waits.
    pub(super) fn put(&self, frame: Bytes) {
        let mut waiting = self.lock();
        let too_much = waiting.bytes > 0 && waiting.bytes + frame.len() > LANE_BYTES_MAX;
        if too_much || waiting.frames.len() >= LANE_FRAMES_MAX {
            return;
        }
        let was_idle = waiting.frames.is_empty();
        waiting.push(frame);
        // A failure is the task's to find out.
        let is_left = !was_idle || waiting.write().is_err() || !waiting.frames.is_empty();
        if was_idle && is_left && waiting.socket.is_some() {
            drop(waiting);
            self.changed.notify_one();
        }
    }

    /// Sends published messages, or drops them if they would be in the way of Raft.
    pub(super) fn put_publications(&self, frame: Bytes) {
        let waiting = self.lock();
        let has_room = waiting.bytes < LANE_PUBLICATION_BYTES_MAX && waiting.frames.len() < LANE_RAFT_FRAMES;
        drop(waiting);
        if has_room {
            self.put(frame);
        }
    }

    /// Says that this node lives, if it does not say so anyhow.
    pub(super) fn keep_alive(&self) {
        if !self.is_waiting() {
            self.put(frames::ALIVE);
        }
    }

    /// The lane has a new connection, which begins with `hello`. What came since the last [`Lane::detach`] is sent
    /// after it.
    pub(super) fn attach(&self, socket: &Arc<TcpStream>, hello: Bytes) {
        let mut waiting = self.lock();
        waiting.socket = Some(Arc::clone(socket));
        waiting.bytes += hello.len();
        waiting.frames.push_front(hello);
    }

    /// The lane has no connection, and drops what waits: it is too old to be of use.
    pub(super) fn detach(&self) {
        let mut waiting = self.lock();
        waiting.socket = None;
        waiting.clear();
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn write(&self) -> io::Result<()> {
        self.lock().write()
    }

    /// Whether something waits for the socket.
    pub(super) fn is_waiting(&self) -> bool {
        !self.lock().frames.is_empty()
    }

    /// Waits until something waits that did not.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Waiting {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        while !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); FRAMES_A_WRITE];
            let count = slices
                .iter_mut()
                .zip(&self.frames)
                .map(|(slice, frame)| *slice = IoSlice::new(frame))
                .count();
            match socket.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.bytes -= written;
                    drop_front(&mut self.frames, written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The first `bytes` of these frames have left.
fn drop_front(frames: &mut VecDeque<Bytes>, mut bytes: usize) {
    while let Some(front) = frames.front_mut() {
        if bytes < front.len() {
            front.advance(bytes);
            return;
        }
        bytes -= front.len();
        frames.pop_front();
    }
}
