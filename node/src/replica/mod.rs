//! What connects the consensus of a node to its shards, as plain types that the server and the simulator wire alike.
//!
//! ```text
//! Consensus -- Dispatch: what to tell whom, when --> the shard's thread -- Intake: what has to wait --> Shard
//!     ^                                                                                                    |
//!     '------------- looked at when consensus is awake, told when it is much -- Progress <-----------------'
//! ```
//!
//! * [`Dispatch`]: the turns of a node's consensus, and what its shards, its view of the cluster and its disk hear of them;
//! * [`Intake`]: what a shard hears, in order; what is of the log may have to wait for a snapshot;
//! * [`Progress`]: how far a shard has applied its log;
//! * [`DiskHealth`]: whether the node is fit to lead;
//! * [`publications`]: who hears a published message.
//!
//! No socket, file, thread or clock in here: whoever wires it has those, and delivers what one thread tells another in
//! the order in which it was told.

mod dispatch;
mod health;
mod intake;
mod progress;
pub mod publications;

pub use dispatch::{Dispatch, FOLLOWER_BYTES, FOLLOWER_REST_NS, Notice, READERS_REST_NS};
pub use health::DiskHealth;
pub use intake::{Install, Intake};
pub use progress::Progress;

use crate::shard::Event;

/// What the thread of a shard is told.
#[derive(Debug)]
pub enum Message {
    /// For the shard itself.
    Event(Event),
    /// Its state is to become that of a snapshot on this node's disk.
    Install(Install),
    /// Consensus takes no proposals of this term any more.
    Retire {
        /// The term.
        term: u64,
    },
}

impl From<Event> for Message {
    fn from(event: Event) -> Self {
        Message::Event(event)
    }
}
