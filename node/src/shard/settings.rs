//! What a shard is set to.

use moonraft_proto::resp;
use moonraft_router::ShardId;

use super::clock::Bounds;
use crate::{
    config::DebugAccess,
    keyspace::{
        Limits,
        tx::{Events, Eviction},
    },
    script,
};

/// What does not change while a shard runs.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Name of the shard.
    pub shard: ShardId,
    /// The slots that its log begins with, both ends included, as the cluster file says.
    pub born_with: Vec<(u16, u16)>,
    /// This replica's Raft id.
    pub replica: u64,
    /// The node it lives on.
    pub node: u64,
    /// How much clocks may differ; `lease-drift-percent`, `clock-slew-per-mille`.
    pub clocks: Bounds,
    /// Every read waits for a round: `reads = "read-index"`.
    pub read_index: bool,
    /// How long requests wait for a leader before clients are told that there is
    /// none; about two election timeouts.
    pub park_ms: u64,
    /// How long a reply is held whose fate the log does not tell.
    pub settle_ms: u64,
    /// Clients at a time; `maxclients`.
    pub clients_max: usize,
    /// Bytes of effects in one batch before it is sealed within a turn.
    pub batch_bytes_max: usize,
    /// Bytes of effects of one unit; `max-unit-bytes`.
    pub unit_bytes_max: usize,
    /// Bytes that one unit adds to memory with small effects; `max-unit-copied-bytes`.
    pub unit_copied_bytes_max: usize,
    /// What handlers are held to.
    pub limits: Limits,
    /// Bytes taken of the process's allocator above which commands that need memory are
    /// refused; `maxmemory`.
    pub memory_bytes_max: u64,
    /// What goes then; `maxmemory-policy`, `maxmemory-samples`, `lfu-log-factor`, `lfu-decay-time`.
    pub eviction: Eviction,
    /// Keys of which it is remembered who has read them; `tracking-table-max-keys`.
    pub tracked_keys_max: usize,
    /// What is told of keys; `notify-keyspace-events`.
    pub events: Events,
    /// Bytes of a snapshot that wait to be written before its walk pauses and writers wait: see
    /// [`super::snapshot`].
    pub snapshot_pending_bytes_max: u64,
    /// Bytes that are written at once for a snapshot because they are about to change; who would change more
    /// waits: see [`super::preparing`].
    pub snapshot_at_once_bytes_max: usize,
    /// Elements that a request works through at most, or KiB of strings, to be executed here and not elsewhere;
    /// `large-request-elements`. See [`super::errands`].
    pub large_elements: usize,
    /// Keys that are lent, or come back, in one go; eight times as many in each step of a request that has more.
    pub lent_at_once_max: usize,
    /// Bytes of batches in flight before no more requests are executed.
    pub in_flight_bytes_max: usize,
    /// Bytes of replies that a client may leave unread; `client-output-buffer-limit normal`.
    pub outbox_bytes_max: usize,
    /// The same of one that listens to messages; `client-output-buffer-limit pubsub`.
    pub outbox_listening_bytes_max: usize,
    /// Bytes of replies, held or unread, with which no more of a client's requests are executed
    /// until half of them have left.
    pub outbox_bytes_full: usize,
    /// Bytes of words in one `MULTI`.
    pub queue_bytes_max: usize,
    /// Bytes of one request that is blocked, its places at its keys included.
    pub blocked_bytes_max: usize,
    /// After how long a script makes the shard busy, in milliseconds;
    /// `busy-reply-threshold`.
    pub busy_ms: u64,
    /// After how long a script at most the shard hears who would end it.
    pub heard_ms: u64,
    /// Microseconds of a request from which on it is noted; `slowlog-log-slower-than`, the largest for never.
    pub slow_us: u64,
    /// Whose `DEBUG` is heard; `enable-debug-command`.
    pub debug_access: DebugAccess,
    /// How many of these are kept; `slowlog-max-len`.
    pub slow_log_length_max: usize,
    /// Milliseconds from which on `LATENCY` tells of an event; `latency-monitor-threshold`, 0 for never.
    pub latency_ms: u64,
    /// What a script may use; `script-memory-max`, `script-bytes-max`, `script-cache-bytes-max`.
    pub scripts: script::Limits,
    /// Limits of a request.
    pub requests: resp::Limits,
    /// For tests of the tests: breaks a promise on purpose.
    pub fault: Option<PlantedFault>,
}

impl ShardSettings {
    /// Keys that are lent, or come back, in a step of a request that has very many: some milliseconds.
    pub fn lent_a_step_max(&self) -> usize {
        self.lent_at_once_max.saturating_mul(8).max(1)
    }
}

impl Default for ShardSettings {
    fn default() -> Self {
        Self {
            shard: 0,
            born_with: Vec::new(),
            replica: 1,
            node: 1,
            clocks: Bounds::default(),
            read_index: false,
            park_ms: 2000,
            settle_ms: 10_000,
            clients_max: 10_000,
            batch_bytes_max: 1 << 20,
            unit_bytes_max: 544 << 20,
            unit_copied_bytes_max: 1 << 30,
            limits: Limits::default(),
            memory_bytes_max: u64::MAX,
            eviction: Eviction::default(),
            tracked_keys_max: 1_000_000,
            events: Events::default(),
            // A quarter of a second at the speed of a slow disk.
            snapshot_pending_bytes_max: 16 << 20,
            // About a millisecond.
            snapshot_at_once_bytes_max: 256 << 10,
            // Some ten milliseconds.
            large_elements: 10_000,
            // About a millisecond.
            lent_at_once_max: 1_000,
            in_flight_bytes_max: 128 << 20,
            outbox_bytes_max: 1 << 30,
            outbox_listening_bytes_max: 32 << 20,
            // More than clients leave unread that read at all; a client that sends all requests of
            // a long pipeline before it reads may go on sending (see `Received::reads`).
            outbox_bytes_full: 32 << 20,
            queue_bytes_max: 1 << 30,
            // Some thousand keys.
            blocked_bytes_max: 1 << 20,
            busy_ms: 5000,
            heard_ms: 5000,
            slow_us: 10_000,
            debug_access: DebugAccess::No,
            latency_ms: 0,
            slow_log_length_max: 128,
            scripts: script::Limits::default(),
            requests: resp::Limits::default(),
            fault: None,
        }
    }
}

/// A promise that is broken on purpose, to show that the checkers notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedFault {
    /// Replies leave before their batch is committed.
    ReplyBeforeCommit,
    /// What was speculative stays when leadership is lost.
    UndoSkipped,
    /// A follower leaves out the first effect of some entries.
    EffectDropped,
    /// A snapshot is taken though changes in it are not committed.
    SnapshotBeforeCommit,
    /// A leader agrees on its build's format, whatever others read.
    FormatNotReadable,
    /// The shard's clock shows what the node's clock shows.
    ClockBackwards,
    /// A script that has written is refused the next write when memory or disk is short.
    ScriptStoppedHalfWay,
    /// Published messages leave before their batch is committed.
    MessageBeforeCommit,
    /// The reply to a request that waited leaves before its batch is committed.
    ServedBeforeCommit,
    /// A new leader begins at what its predecessor may have shown, not at what its clock was.
    LeaderAhead,
    /// Keys expire by the node's wall clock.
    ExpiryByWall,
    /// What was lent before leadership was lost comes back as it has become meanwhile.
    OutcomeOfOtherTerm,
    /// What is evicted goes at the leader, and is not in its batch.
    EvictionNotLogged,
}
