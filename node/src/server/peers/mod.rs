//! Messages between nodes.
//!
//! Each node opens two connections to each other node, the lanes: one for what must
//! be prompt (heartbeats, votes, small appends, published messages), one for
//! large appends, so that no heartbeat queues behind megabytes. Snapshots, and
//! what is asked and answered, are calls of gRPC. Both come in at one port.
//!
//! Everything on a lane may be lost or late: Raft retries its messages, subscribers are
//! promised no more, hints are said again and again. So queues are bounded,
//! and what does not fit is dropped: nothing ever waits for a peer.
//!
//! * [`frames`]: what a lane's connection looks like.
//! * [`lanes`]: queues of what waits for a peer.
//! * [`outgoing`]: what is put there, and the tasks that keep the connections.
//! * [`listener`]: who comes in at the port.
//! * [`incoming`]: what is done with what others send and ask.
//! * [`transfer`]: snapshot files, in chunks, resumed where they broke off.
//!
//! INVARIANT: messages of one lane arrive in the order they were put there, or
//! not at all.

pub mod frames;
pub mod incoming;
mod lanes;
pub mod listener;
pub mod outgoing;
pub mod transfer;

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

pub use incoming::Incoming;
pub use outgoing::Outgoing;

/// Flow-control windows of calls: what may be on its way to a peer. The usual 64 KiB would
/// stall every chunk of a snapshot.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Looks in the time that a peer may be silent.
const LOOKS: u32 = 2;

/// How long nothing has come from the other end of a connection.
struct Silence {
    looks: Interval,
    silent: u32,
    /// Bytes of a frame of which only a part had come at the last look.
    part: usize,
}

impl Silence {
    /// Of a connection that may be silent for `patience`.
    fn new(patience: Duration) -> Self {
        let mut looks = tokio::time::interval(patience / LOOKS);
        // A thread that was held up itself has heard nobody, and is to listen first.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset(); // the first would be at once
        Self { looks, silent: 0, part: 0 }
    }

    /// Something has come.
    fn broken(&mut self) {
        self.silent = 0;
    }

    /// Waits until it is time to look, and to say that this end lives.
    async fn look(&mut self) {
        self.looks.tick().await;
    }

    /// At a look, with so many bytes of a frame here: whether the other end has said nothing for too long. That is
    /// twice its patience, as its disk may keep it from speaking (`server::driver`).
    fn lasts(&mut self, part: usize) -> bool {
        self.silent = if part == self.part { self.silent + 1 } else { 0 };
        self.part = part;
        self.silent >= 2 * LOOKS
    }
}
