//! What a command about the session, the server or the cluster may ask of its shard.
//!
//! The shard implements it; nothing else is known here of who executes a command. So commands stand below the shard:
//! they use the keyspace, and are used by whoever has one and clients.

use std::sync::Arc;

use moonraft_proto::Reply;
use moonraft_router::{ReplicaPlace, ShardId, SlotMap};

use super::{
    CommandError,
    latency::Latency,
    session::{Session, Tracking},
    slow_requests::SlowLog,
    statistics::{Details, Rates, Statistics},
};
use crate::{
    keyspace::{Store, Tx, scripts::Sha1},
    script::RegisteredFunction,
    subscriptions::{SessionId, Subscriptions},
};

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It follows; `None`: no leader is known, or it is a candidate.
    Following {
        /// The leader's replica id.
        leader: Option<u64>,
    },
    /// It leads.
    Leading {
        /// In this term.
        term: u64,
        /// An entry of the term is applied: it may serve.
        serving: bool,
    },
}

impl Standing {
    /// Whether it leads, serving or not.
    pub const fn is_leading(self) -> bool {
        matches!(self, Standing::Leading { .. })
    }
}

/// Requests are left unread for a while: `CLIENT PAUSE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Until when, nanoseconds of the boot clock.
    pub until_ns: u64,
    /// Only those that may change data.
    pub writes_only: bool,
}

/// How many requests wait until something comes to their keys: `BLPOP` and its like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiters {
    /// Clients with such a request.
    pub clients: usize,
    /// Keys that they wait for.
    pub keys: usize,
    /// Of the clients, those that do not wait for ever.
    pub with_timeout: usize,
}

/// What is known of clients that keep copies: `CLIENT TRACKING`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackingFigures {
    /// Clients.
    pub clients: usize,
    /// Keys that one of them has read.
    pub keys: usize,
    /// Readers of these, all together.
    pub readers: usize,
    /// Beginnings of keys of which some hear.
    pub prefixes: usize,
}

/// What came of `SCRIPT KILL` or `FUNCTION KILL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kill {
    /// It ends.
    Done,
    /// Nothing is over its time.
    NotBusy,
    /// What runs is of the other kind, and this is its refusal.
    Other(CommandError),
}

/// A function that runs and is over its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningFunction {
    /// Its name.
    pub name: Vec<u8>,
    /// The request that called it.
    pub words: Vec<Vec<u8>>,
    /// For how long it runs.
    pub ran_ms: u64,
}

/// Which replica this is, and some of its limits.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaFacts {
    /// Its shard.
    pub shard: ShardId,
    /// Its Raft id.
    pub replica: u64,
    /// The node it lives on.
    pub node: u64,
    /// Clients at a time; `maxclients`.
    pub clients_max: usize,
    /// Bytes of batches in flight before no more requests are executed.
    pub in_flight_bytes_max: usize,
}

/// Facts about the process.
#[derive(Clone, Debug, Default)]
pub struct ProcessFacts {
    /// Process id.
    pub process_id: u32,
    /// 40 hexadecimal digits, drawn at start.
    pub run_id: String,
    /// Unix microseconds of the start.
    pub started_us: u64,
    /// Bytes that are taken of the allocator.
    pub used_bytes: u64,
    /// Resident bytes.
    pub resident_bytes: u64,
    /// Bytes of the machine.
    pub total_bytes: u64,
    /// Seconds of processor time in user mode and in the kernel.
    pub cpu_seconds: (f64, f64),
    /// The client port of this replica.
    pub port: u16,
    /// Kernel and machine, as `uname` says.
    pub system: String,
    /// The executable's path.
    pub executable: String,
}

/// A client's turn: its session, and the shard that executes its request.
pub trait Client {
    // ---- the session, and others ---------------------------------------------

    /// The client's session.
    fn session(&self) -> &Session;
    /// The client's session, to be changed.
    fn session_mut(&mut self) -> &mut Session;
    /// Its number among the shard's sessions.
    fn session_id(&self) -> SessionId;
    /// All sessions of this replica.
    fn sessions(&self) -> Box<dyn Iterator<Item = (SessionId, &Session)> + '_>;
    /// Bytes of replies and messages that a session's client has not read.
    fn unread_bytes(&self, id: SessionId) -> usize;
    /// Sessions whose requests wait: for a leader, for room, for a pause to end, or for followers.
    fn waiting_count(&self) -> usize;
    /// Whether a session's last request is answered later, and none is read until then.
    fn is_blocked(&self, id: SessionId) -> bool;
    /// Requests that wait until something comes to their keys.
    fn waiters(&self) -> Waiters;
    /// Closes a session's connection: this one's after its reply, any other at once.
    fn close(&mut self, id: SessionId);
    /// Whether a command may block the session until something happens: not in a script or a block.
    fn may_block(&self) -> bool;
    /// Blocks the session until `wanted` followers have what was executed so far, or
    /// this time is over; 0: for ever. The command itself answers nothing: `answer` makes the reply of how many have it.
    fn wait_for_followers(&mut self, wanted: usize, timeout_ms: u64, answer: fn(usize) -> Reply<'static>);
    /// Ends what blocks a session, as if its time were over, or with an error. Returns whether it was blocked.
    fn unblock(&mut self, id: SessionId, with_error: bool) -> bool;
    /// The session hears of each request that is executed from now on, or does no longer.
    fn monitor(&mut self, listens: bool);
    /// The session keeps copies in this way from now on; `None`: it keeps none.
    fn track(&mut self, tracking: Option<Tracking>);
    /// What is known of those who do.
    fn tracking_figures(&self) -> TrackingFigures;
    /// Requests are left unread for a while, or are read again.
    fn pause(&mut self, pause: Option<Pause>);
    /// The pause that lasts, if any.
    fn paused(&self) -> Option<Pause>;
    /// Keys and fields that nobody asks for expire on this replica from now on, or do no longer.
    fn expire_actively(&mut self, expires: bool);
    /// Who listens to what on this replica.
    fn listeners(&self) -> &Subscriptions;
    /// The same, to be changed.
    fn listeners_mut(&mut self) -> &mut Subscriptions;

    // ---- the data --------------------------------------------------------------

    /// The data, with a unit open.
    fn store(&self) -> &Store;
    /// The open unit, to change the data.
    fn tx(&mut self) -> Tx<'_>;
    /// The session watches a key from now on.
    fn watch(&mut self, key: &[u8]);
    /// The session stops watching keys.
    fn unwatch(&mut self);
    /// When the data were last saved, Unix microseconds, and changes since.
    fn saved(&self) -> (u64, u64);
    /// All there is is as good as saved now.
    fn note_saved(&mut self);

    // ---- scripts ---------------------------------------------------------------

    /// Compiles a script and keeps it: its name.
    ///
    /// # Errors
    /// It does not compile, or that took long and was killed.
    fn load_script(&mut self, text: &[u8]) -> Result<Sha1, CommandError>;
    /// Whether a script of this name is known, loaded or seen.
    fn knows_script(&self, name: &[u8]) -> bool;
    /// Remembers a script that is not replicated.
    fn remember_script(&mut self, name: Sha1, text: &[u8]);
    /// Forgets compiled scripts, and those that are not replicated.
    fn forget_scripts(&mut self);
    /// Until when the texts of libraries may run that a request brings, boot clock.
    fn loading_ends_ns(&self) -> u64;
    /// Runs the text of a library, no longer than until then: what it registers.
    ///
    /// # Errors
    /// It does not compile, failed, or took too long.
    fn load_library(&mut self, code: &[u8], ends_ns: u64) -> Result<Vec<RegisteredFunction>, CommandError>;
    /// Forgets libraries whose text has been run, and what they keep in variables.
    fn forget_libraries(&mut self);
    /// The function that runs, if one is over its time.
    ///
    /// # Errors
    /// It is a script that is over its time.
    fn running_function(&self) -> Result<Option<RunningFunction>, CommandError>;
    /// Ends the script, or the function, that is over its time.
    fn kill_script(&mut self, is_function: bool) -> Kill;

    // ---- the replica, its shard, the cluster ---------------------------------------

    /// Which replica this is.
    fn replica(&self) -> ReplicaFacts;
    /// What this replica is at the moment.
    fn standing(&self) -> Standing;
    /// The last applied entry: index and term.
    fn applied(&self) -> (u64, u64);
    /// The format that the log has agreed on.
    fn agreed_format(&self) -> u8;
    /// Whether the data are not yet what the log held at the start, or a snapshot is being installed.
    fn is_loading(&self) -> bool;
    /// Whether the shard has had no leader for so long that requests are told so.
    fn is_leaderless(&self) -> bool;
    /// Bytes of batches that are proposed and not yet committed.
    fn in_flight_bytes(&self) -> usize;
    /// These, and bytes of keys that were evicted and are not free yet.
    fn passing_bytes(&self) -> usize;
    /// The cluster as this node knows it, with addresses that reach it from where
    /// the client is.
    fn map(&self) -> Arc<SlotMap>;
    /// The place of this replica in the map.
    fn place(&self, map: &SlotMap) -> Option<ReplicaPlace>;

    // ---- what was counted ----------------------------------------------------------

    /// Counters.
    fn statistics(&self) -> Statistics;
    /// Counters by command and by error code.
    fn details(&self) -> &Details;
    /// What happened in the last second.
    fn rates(&self) -> Rates;
    /// All counters begin anew.
    fn reset_statistics(&mut self);
    /// What took long, by kind of event.
    fn latency(&self) -> &Latency;
    /// The same, to be changed.
    fn latency_mut(&mut self) -> &mut Latency;
    /// Requests that took long.
    fn slow_log(&mut self) -> &mut SlowLog;

    // ---- the process -----------------------------------------------------------

    /// The wall clock, Unix microseconds. May jump.
    fn unix_us(&self) -> u64;
    /// By how many milliseconds it is ahead of the shard's time.
    fn wall_clock_ahead_ms(&self) -> i64;
    /// A clock that only goes forward, suspend included, in nanoseconds.
    fn boot_ns(&self) -> u64;
    /// Facts about the process.
    fn facts(&self) -> ProcessFacts;
    /// Settings whose names match a glob pattern.
    fn settings(&self, pattern: &[u8]) -> Vec<(String, String)>;
    /// Changes settings, all or none.
    ///
    /// # Errors
    /// Unknown name, bad value, not to be changed.
    fn change_settings(&self, changes: &[(&[u8], &[u8])]) -> Result<(), CommandError>;
    /// The node is to end as it does when it is told to by a signal.
    fn shut_down(&self);
}
