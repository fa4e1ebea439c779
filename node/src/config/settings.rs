//! Every setting of a node, in one struct with documented defaults.

use crate::keyspace::tx::{Events, Policy, SPARSE_BYTES_MAX};
use std::collections::BTreeMap;

/// The largest `format-max`: nothing is held back.
pub const FORMAT_LIMIT: u64 = u8::MAX as u64;

/// How a linearizable read is made sure of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// By a lease: no round trip, trusts that clocks run at about one rate.
    Lease,
    /// By a round of heartbeats for all reads of a turn: trusts no clock.
    ReadIndex,
}

/// What a client may leave unread before it is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    /// Bytes at which the client is disconnected at once; 0 for no limit.
    pub hard_bytes: u64,
    /// Bytes at which it is disconnected if it stays above for `soft_seconds`; 0 for no limit.
    pub soft_bytes: u64,
    /// See `soft_bytes`.
    pub soft_seconds: u64,
}

/// Bytes, or a part of `maxmemory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many bytes.
    Bytes(u64),
    /// So many percent.
    Percent(u64),
}

impl Settings {
    /// The least that `maxmemory-clients` may come to: some requests and replies of ordinary size.
    pub const CLIENT_MEMORY_MIN: u64 = 8 << 20;

    /// Bytes that may wait for a replica's clients; 0 for no limit, as a part of no limit is.
    pub fn client_memory_bytes_max(&self) -> u64 {
        match self.client_memory {
            Share::Bytes(bytes) => bytes,
            Share::Percent(percent) => match self.memory_bytes_max / 100 * percent {
                0 => 0,
                bytes => bytes.max(Self::CLIENT_MEMORY_MIN),
            },
        }
    }
}

impl OutputLimit {
    /// The least that a limit may be: replies to what clients ask first, `COMMAND DOCS` the longest, are shorter.
    pub const BYTES_MIN: u64 = 1 << 20;
}

/// All settings of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `reads`
    pub reads: Reads,
    /// `maxclients`, a replica
    pub clients_max: u64,
    /// `proto-max-bulk-len`
    pub bulk_bytes_max: u64,
    /// `client-query-buffer-limit`
    pub query_bytes_max: u64,
    /// `client-output-buffer-limit`, class `normal`
    pub output_normal: OutputLimit,
    /// `client-output-buffer-limit`, class `pubsub`
    pub output_pubsub: OutputLimit,
    /// `timeout`, in seconds; 0 for never
    pub idle_seconds_max: u64,
    /// `tcp-keepalive`, in seconds; 0 for none
    pub keepalive_seconds: u64,
    /// `tcp-backlog`
    pub backlog: u64,
    /// `maxmemory-clients`, a replica; see [`Settings::client_memory_bytes_max`]
    pub client_memory: Share,
    /// `maxmemory`, in bytes that the process has taken of its allocator; 0 for no limit
    pub memory_bytes_max: u64,
    /// `maxmemory-policy`
    pub eviction_policy: Policy,
    /// `maxmemory-samples`
    pub eviction_samples: u64,
    /// `lfu-log-factor`
    pub lfu_log_factor: u64,
    /// `lfu-decay-time`, in minutes; 0 for never
    pub lfu_decay_minutes: u64,
    /// `tracking-table-max-keys`, a replica; 0 for no limit
    pub tracked_keys_max: u64,
    /// `notify-keyspace-events`
    pub events: Events,
    /// `busy-reply-threshold`, in milliseconds; 0 for never
    pub busy_after_ms: u64,
    /// `slowlog-log-slower-than`, in microseconds; negative for never
    pub slow_us: i64,
    /// `slowlog-max-len`
    pub slow_log_length_max: u64,
    /// `latency-monitor-threshold`, in milliseconds; 0 for never
    pub latency_ms: u64,
    /// `script-memory-max`, a shard
    pub script_memory_bytes_max: u64,
    /// `script-bytes-max`
    pub script_bytes_max: u64,
    /// `script-cache-bytes-max`, a shard
    pub script_cache_bytes_max: u64,
    /// `cluster-node-timeout`, in milliseconds
    pub node_timeout_ms: u64,
    /// `lease-drift-percent`
    pub lease_drift_percent: u64,
    /// `clock-slew-per-mille`
    pub clock_slew_per_mille: u64,
    /// `max-unit-bytes`
    pub unit_bytes_max: u64,
    /// `max-unit-copied-bytes`
    pub unit_copied_bytes_max: u64,
    /// `max-reply-bytes`
    pub reply_bytes_max: u64,
    /// `hll-sparse-max-bytes`
    pub sparse_bytes_max: u64,
    /// `large-request-elements`; 0 for never
    pub large_elements: u64,
    /// `stream-node-max-bytes`; 0 for as many as can be
    pub stream_node_bytes_max: u64,
    /// `stream-node-max-entries`; 0 for as many as can be
    pub stream_node_entries_max: u64,
    /// `log-bytes-max`, a shard
    pub log_bytes_max: u64,
    /// `log-entries-max`, a shard
    pub log_entries_max: u64,
    /// `log-purge-bytes`, a node
    pub log_purge_bytes: u64,
    /// `min-free-disk`, in bytes; 0 for off
    pub disk_bytes_min: u64,
    /// `snapshot-bytes-per-second`; 0 for no limit.
    pub snapshot_rate: u64,
    /// `format-max`
    pub format_max: u64,
    /// `shutdown-timeout`, in seconds
    pub shutdown_seconds: u64,
    /// `loglevel`: an index into [`LOG_LEVELS`]
    pub log_level: usize,
    /// `enable-debug-command`
    pub debug_access: DebugAccess,
    /// Settings that change nothing, by name, where they were set: see [`super::kept`].
    pub kept: BTreeMap<&'static str, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reads: Reads::Lease,
            clients_max: 10_000,
            bulk_bytes_max: 512 << 20,
            query_bytes_max: 1 << 30,
            // Redis sets no limit for normal clients. We do: a client that reads nothing must not
            // take the memory of all others.
            output_normal: OutputLimit { hard_bytes: 1 << 30, soft_bytes: 0, soft_seconds: 0 },
            output_pubsub: OutputLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 },
            idle_seconds_max: 0,
            keepalive_seconds: 300,
            backlog: 511,
            // Redis sets none. Ours is far above what clients take that read their replies.
            client_memory: Share::Bytes(2 << 30),
            memory_bytes_max: 0,
            eviction_policy: Policy::NoEviction,
            eviction_samples: 5,
            lfu_log_factor: 10,
            lfu_decay_minutes: 1,
            tracked_keys_max: 1_000_000,
            events: Events::default(),
            busy_after_ms: 5000,
            slow_us: 10_000,
            slow_log_length_max: 128,
            latency_ms: 0,
            script_memory_bytes_max: 128 << 20,
            script_bytes_max: 1 << 20,
            script_cache_bytes_max: 32 << 20,
            // Clients give up after one to two and a half seconds of failing over.
            node_timeout_ms: 1000,
            lease_drift_percent: 10,
            clock_slew_per_mille: 5,   // see `shard::clock::Bounds`
            unit_bytes_max: 544 << 20, // the largest value, and room for its key and what else the unit does
            unit_copied_bytes_max: 1 << 30,
            reply_bytes_max: 128 << 20, // others wait for a twentieth of a second
            sparse_bytes_max: SPARSE_BYTES_MAX as u64,
            large_elements: 10_000,
            stream_node_bytes_max: 4096,
            stream_node_entries_max: 100,
            log_bytes_max: 64 << 20, // replayed in well under a second
            log_entries_max: 1_000_000,
            log_purge_bytes: 1 << 30,
            disk_bytes_min: 256 << 20, // a few files of the log, and a snapshot of the size the log may have
            snapshot_rate: 128 << 20,
            format_max: FORMAT_LIMIT,
            shutdown_seconds: 10,
            log_level: 2,
            debug_access: DebugAccess::No,
            kept: BTreeMap::new(),
        }
    }
}

/// Whose words of `DEBUG` are heard that do more than compare data; `enable-debug-command`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugAccess {
    /// Nobody's.
    No,
    /// Everybody's.
    Yes,
    /// Those of who connects from the machine itself.
    Local,
}

/// What `loglevel` takes, the most talkative first.
pub const LOG_LEVELS: &[&str] = &["debug", "verbose", "notice", "warning", "nothing"];
