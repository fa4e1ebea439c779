//! What a shard is told, and what it wants done.

use bytes::Bytes;

use super::DiskRoom;
pub use crate::command::client::Standing;
use crate::{
    keyspace::{Keyspace, tx::Publication},
    subscriptions::SessionId,
};

/// An entry that is committed.
#[derive(Clone, Debug)]
pub struct CommittedEntry {
    /// Its place in the log.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// A batch, a part of one, or nothing.
    pub data: Bytes,
    /// The batch goes on in the next entry with data of this term, which is told in the same event; in a later one, if
    /// the next entry is the end of a change of members.
    pub more: bool,
}

/// What a shard is told.
#[derive(Debug)]
pub enum Event {
    /// The replica leads `term` now.
    Lead {
        /// The new term.
        term: u64,
    },
    /// The replica does not lead (any more).
    Follow {
        /// The leader's replica id, if one is known.
        leader: Option<u64>,
    },
    /// Entries are committed; in order, each once.
    Committed(Vec<CommittedEntry>),
    /// A quorum has confirmed that this replica led `term` after `round` began.
    RoundConfirmed {
        /// The term.
        term: u64,
        /// The round.
        round: u64,
    },
    /// The log is long: a snapshot is wanted.
    TakeSnapshot,
    /// Chunks of a snapshot of ours need no memory any more.
    SnapshotTaken {
        /// Which.
        number: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A snapshot of ours cannot be kept.
    SnapshotFailed {
        /// Which.
        number: u64,
    },
    /// The state is that of this snapshot. A large one is better installed step by step: see
    /// [`super::Core::begin_install`].
    InstallSnapshot {
        /// The last entry in it.
        index: u64,
        /// That entry's term.
        term: u64,
        /// Batches whose effects make the state.
        chunks: Vec<Bytes>,
    },
    /// What each follower has of the log of `term`; only while it is wanted.
    Followers {
        /// The term.
        term: u64,
        /// The last entry that each of them has, durably.
        matched: Vec<u64>,
    },
    /// The newest format that all members of the group read, as the leader of `term` knows it.
    Readable {
        /// The term.
        term: u64,
        /// The format; see [`moonraft_proto::entry`].
        format: u8,
    },
    /// Errands have been carried out: [`super::Surroundings::outcomes`].
    ErrandsDone,
    /// Messages for subscribers here.
    Deliver(Vec<Publication>),
    /// Leaders or failures have changed.
    MapChanged,
    /// The node's disk has this much room now.
    DiskRoom(DiskRoom),
    /// Some milliseconds have passed.
    Tick,
    /// What [`super::Core::next_wake`] told has come.
    Wake,
}

/// What a shard wants done.
#[derive(Debug)]
pub enum Output {
    /// Propose a batch.
    Propose {
        /// Only in this term.
        term: u64,
        /// Its number in the term.
        sequence: u64,
        /// The entry.
        data: Bytes,
    },
    /// Confirm with a quorum that this replica still leads.
    ReadRound {
        /// Only in this term.
        term: u64,
        /// Its number in the term.
        round: u64,
    },
    /// Tell what followers have, or do so no more: [`Event::Followers`].
    WatchFollowers(bool),
    /// Clients read here while this replica follows, or none has for a while: hear of commits at once, or with what
    /// comes next.
    Readers(bool),
    /// Send messages to all subscribers.
    Publish(Vec<Publication>),
    /// More may be written to this session's client.
    Flush(SessionId),
    /// Requests of this session that were left unread may be received now.
    Resume(SessionId),
    /// Close this session's connection at once.
    Close(SessionId),
    /// All entries up to here are applied.
    Applied {
        /// The last one.
        index: u64,
    },
    /// The next chunk of a snapshot that is being taken: a batch. [`Event::SnapshotTaken`] is to follow.
    SnapshotChunk {
        /// Which snapshot of this shard.
        number: u64,
        /// The chunk.
        data: Bytes,
    },
    /// The chunks of this number are a snapshot.
    Snapshot {
        /// Which.
        number: u64,
        /// The last entry in it.
        index: u64,
        /// That entry's term.
        term: u64,
    },
    /// The chunks of this number are of no use.
    SnapshotGivenUp {
        /// Which.
        number: u64,
    },
    /// This state is of no use. Letting go of a large one takes a while, so it is better done elsewhere.
    Discard(Box<Keyspace>),
}
