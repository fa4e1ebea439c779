//! Messages between nodes, over gRPC.
//!
//! Each node opens two streams to each other node, the lanes: one for what must
//! be prompt (heartbeats, votes, small appends, published messages), one for
//! large appends, so that no heartbeat queues behind megabytes. Snapshots have
//! calls of their own. What waits when a stream can take more becomes one
//! envelope.
//!
//! Everything here may be lost or late: Raft retries its messages, subscribers are
//! promised no more, hints are said again and again. So queues are bounded,
//! and what does not fit is dropped: nothing ever waits for a peer.
//!
//! * [`lanes`]: queues of what waits for a peer.
//! * [`outgoing`]: what is put there, and the tasks that carry it to the peers.
//! * [`incoming`]: the service that other nodes call.
//! * [`transfer`]: snapshot files, in chunks, resumed where they broke off.
//!
//! INVARIANT: messages of one lane arrive in the order they were put there, or
//! not at all.

pub mod incoming;
pub mod lanes;
pub mod outgoing;
pub mod transfer;

#[cfg(test)]
mod tests;

pub use incoming::Incoming;
pub use outgoing::Outgoing;

/// Flow-control windows: what may be on its way to a peer. The usual 64 KiB would
/// stall every append of more.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for all streams of a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of an envelope that are merged before it is sent; a larger message goes alone.
pub const ENVELOPE_BYTES: usize = 1 << 20;
/// Bytes of the largest envelope that is believed: above the largest entry.
pub const ENVELOPE_BYTES_MAX: usize = 1 << 30;
