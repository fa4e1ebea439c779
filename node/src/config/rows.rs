//! The table of settings.
//!
//! A row says a setting's name, when it may change, what it takes and which
//! field of [`Settings`] it is. The cluster file, `--set`, `CONFIG GET` and
//! `CONFIG SET` go through the rows and through nothing else. Names and units
//! are those of redis.conf where Redis has the setting.
//!
//! Here are those that work. [`super::kept`] are settings of Redis that change nothing, [`super::refused`] those
//! that show what is true here and cannot be changed: together every name that `CONFIG GET *` of Redis 7.2 lists.
//!
//! Source: `config.c` of Redis 7.2 for names and kinds.

use super::{
    form::Form,
    kept, refused,
    settings::{DebugAccess, FORMAT_LIMIT, LOG_LEVELS, Reads, Settings, Share},
};
use crate::keyspace::tx::Policy;

/// What `reads` takes.
const READS: &[&str] = &["lease", "read-index"];

/// Whether a setting may change while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// At any time, by `CONFIG SET`.
    Anytime,
    /// Only by the cluster file or `--set`: it shapes what is made at the start.
    AtStart,
    /// The same, though Redis changes it at any time: the value that it has is taken.
    AtStartHere,
    /// Neither: it would be a way to files of the machine.
    Protected,
}

impl Row {
    /// With another name that Redis takes, too.
    pub(super) const fn or(self, alias: &'static str) -> Row {
        Row { alias: Some(alias), ..self }
    }

    /// Its names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [Some(self.name), self.alias].into_iter().flatten()
    }
}

/// What a setting takes, and where it is kept.
#[derive(Clone, Copy)]
pub enum Kind {
    /// An integer.
    Number(RangeBounds, fn(&mut Settings) -> &mut u64),
    /// An integer that may be negative.
    Signed(i64, i64, fn(&mut Settings) -> &mut i64),
    /// A number of bytes, with `k`, `kb`, `m`, `mb`, `g`, `gb` as units.
    Bytes(RangeBounds, fn(&mut Settings) -> &mut u64),
    /// The same, or 0 for off; and why so little is not taken that is neither.
    BytesOrOff(RangeBounds, &'static str, fn(&mut Settings) -> &mut u64),
    /// The same, or a percentage of `maxmemory`: `10%`.
    Share(RangeBounds, &'static str, fn(&mut Settings) -> &mut Share),
    /// One of some words.
    Choice(&'static [&'static str], fn(&Settings) -> usize, fn(&mut Settings, usize)),
    /// `client-output-buffer-limit`.
    OutputLimits,
    /// `notify-keyspace-events`.
    Events,
    /// Any such value, which changes nothing; and what it is at first. See [`super::kept`].
    Kept(Form, &'static str),
    /// Always this; see [`super::refused`].
    Only(Form, &'static str),
    /// Always what the node was started with.
    OfNode(Form),
}

/// The least and the largest value.
type RangeBounds = (u64, u64);

/// One setting.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// An older name that Redis still takes.
    pub alias: Option<&'static str>,
    /// When it may change.
    pub change: Change,
    /// What it takes.
    pub kind: Kind,
    /// What it means.
    pub doc: &'static str,
    /// `CONFIG GET` shows it only to who knows its name.
    pub is_hidden: bool,
}

const fn row(name: &'static str, change: Change, kind: Kind, doc: &'static str) -> Row {
    Row { name, alias: None, change, kind, doc, is_hidden: false }
}

/// Milliseconds of an hour: longer waits than that are mistakes.
const HOUR_MS: u64 = 3_600_000;

/// The most seconds that Redis takes; few enough to count in nanoseconds.
pub const SECONDS_MAX: u64 = i32::MAX as u64;

/// The largest integer of Redis.
const INT_MAX: u64 = i32::MAX as u64;

/// More than any machine has.
const BYTES_MAX: u64 = 1 << 50;
/// Two files of the log: that which is written and the next.
const DISK_BYTES_LEAST: u64 = 128 << 20;
/// Clients that a replica takes at least: whoever sets the limit, and whoever looks after the node, must get in.
const CLIENTS_MIN: u64 = 16;

use Change::{Anytime, AtStart, AtStartHere};

/// The settings that work.
const ROWS: &[Row] = &[
    row(
        "reads",
        AtStart,
        Kind::Choice(
            READS,
            |settings| usize::from(settings.reads == Reads::ReadIndex),
            |settings, choice| settings.reads = [Reads::Lease, Reads::ReadIndex][choice],
        ),
        "How a read is made linearizable: by the leader's lease, or by a round of heartbeats.",
    ),
    row(
        "maxclients",
        Anytime,
        Kind::Number((CLIENTS_MIN, 1_000_000), |settings| &mut settings.clients_max),
        "Connections a replica takes at once.",
    ),
    row(
        "proto-max-bulk-len",
        Anytime,
        Kind::Bytes((1 << 20, 4 << 30), |settings| &mut settings.bulk_bytes_max),
        "Bytes of the longest word of a request, and of the longest string.",
    ),
    row(
        "client-query-buffer-limit",
        Anytime,
        Kind::Bytes((1 << 20, BYTES_MAX), |settings| &mut settings.query_bytes_max),
        "Bytes of a request that is not complete yet.",
    ),
    row(
        "client-output-buffer-limit",
        Anytime,
        Kind::OutputLimits,
        "Bytes of replies a client may leave unread: class, hard limit, soft limit, seconds.",
    ),
    row(
        "timeout",
        Anytime,
        Kind::Number((0, SECONDS_MAX), |settings| &mut settings.idle_seconds_max),
        "Seconds after which an idle client is disconnected; 0 for never.",
    ),
    row(
        "tcp-keepalive",
        Anytime,
        Kind::Number((0, SECONDS_MAX), |settings| &mut settings.keepalive_seconds),
        "Seconds of silence after which the system asks whether a client is still there; 0 for never.",
    ),
    row(
        "tcp-backlog",
        AtStart,
        Kind::Number((1, 65_535), |settings| &mut settings.backlog),
        "Connections that wait to be accepted.",
    ),
    row(
        "maxmemory-clients",
        Anytime,
        Kind::Share(
            (Settings::CLIENT_MEMORY_MIN, BYTES_MAX),
            "less would disconnect clients that ask for next to nothing, the one that sets it included",
            |settings| &mut settings.client_memory,
        ),
        "Bytes that wait for a replica's clients, requests and replies, or a percentage of maxmemory: above, those who take most are disconnected; 0 for no limit.",
    ),
    row(
        "maxmemory",
        Anytime,
        Kind::Bytes((0, BYTES_MAX), |settings| &mut settings.memory_bytes_max),
        "Bytes that the process, with all its replicas, has taken of its allocator, above which keys are evicted, or commands that need memory are refused; 0 for no limit.",
    ),
    row(
        "maxmemory-policy",
        Anytime,
        Kind::Choice(
            Policy::NAMES,
            |settings| Policy::ALL.iter().position(|&it| it == settings.eviction_policy).expect("all are there"),
            |settings, choice| settings.eviction_policy = Policy::ALL[choice],
        ),
        "Which keys a shard evicts when the node it leads on is above maxmemory; noeviction: none, writes are refused.",
    ),
    row(
        "maxmemory-samples",
        Anytime,
        Kind::Number((1, INT_MAX), |settings| &mut settings.eviction_samples),
        "How many keys are drawn at random for each that is evicted by time or number of uses.",
    ),
    row(
        "lfu-log-factor",
        Anytime,
        Kind::Number((0, INT_MAX), |settings| &mut settings.lfu_log_factor),
        "How much more slowly the counter of a key's uses grows, the higher it is.",
    ),
    row(
        "lfu-decay-time",
        Anytime,
        Kind::Number((0, INT_MAX), |settings| &mut settings.lfu_decay_minutes),
        "Minutes after which the counter of a key's uses is one less; 0 for never.",
    ),
    row(
        "tracking-table-max-keys",
        Anytime,
        Kind::Number((0, i64::MAX as u64), |settings| &mut settings.tracked_keys_max),
        "Keys of which a replica remembers who has read them, for CLIENT TRACKING: of others, their readers are told to forget them; 0 for no limit.",
    ),
    row(
        "notify-keyspace-events",
        Anytime,
        Kind::Events,
        "Which changes of keys are told to subscribers of __keyspace@0__:* (K) and __keyevent@0__:* (E), by the letters of their classes; empty for none.",
    ),
    row(
        "busy-reply-threshold",
        Anytime,
        Kind::Number((0, HOUR_MS), |settings| &mut settings.busy_after_ms),
        "Milliseconds of a script after which other clients are answered -BUSY; 0 for never: they wait, but for who would end it.",
    )
    .or("lua-time-limit"),
    row(
        "slowlog-log-slower-than",
        Anytime,
        Kind::Signed(-1, i64::MAX, |settings| &mut settings.slow_us),
        "Microseconds above which a request is noted for SLOWLOG; negative for never.",
    ),
    row(
        "slowlog-max-len",
        Anytime,
        Kind::Number((0, 100_000), |settings| &mut settings.slow_log_length_max),
        "How many requests SLOWLOG keeps.",
    ),
    row(
        "latency-monitor-threshold",
        Anytime,
        Kind::Number((0, i64::MAX as u64), |settings| &mut settings.latency_ms),
        "Milliseconds from which on LATENCY tells of a command, of an eviction, and of the removal of what has expired; 0 for never.",
    ),
    row(
        "script-memory-max",
        AtStart,
        Kind::Bytes((8 << 20, 1 << 40), |settings| &mut settings.script_memory_bytes_max),
        "Bytes that a script may hold, garbage apart: one that holds more is stopped.",
    ),
    row(
        "script-bytes-max",
        AtStart,
        // Beyond, counters of Lua's parser would overflow.
        Kind::Bytes((64 << 10, 256 << 20), |settings| &mut settings.script_bytes_max),
        "Bytes of a script's text.",
    ),
    row(
        "script-cache-bytes-max",
        AtStart,
        Kind::Bytes((0, 1 << 40), |settings| &mut settings.script_cache_bytes_max),
        "Bytes of compiled scripts that a shard keeps: the least used go first.",
    ),
    row(
        "cluster-node-timeout",
        AtStartHere,
        Kind::Number((200, 60_000), |settings| &mut settings.node_timeout_ms),
        "Milliseconds of silence after which a node counts as failed; its followers elect after half of it at the earliest. The same on all nodes.",
    ),
    row(
        "lease-drift-percent",
        AtStart,
        Kind::Number((1, 50), |settings| &mut settings.lease_drift_percent),
        "How much faster one node's clock may run than another's. The same on all nodes.",
    ),
    row(
        "clock-slew-per-mille",
        Anytime,
        Kind::Number((0, 1000), |settings| &mut settings.clock_slew_per_mille),
        "How much faster or slower a shard's time, by which keys expire, may run to follow its leader's wall clock, in parts per thousand. The same on all nodes.",
    ),
    row(
        "max-unit-bytes",
        AtStart,
        Kind::Bytes((1 << 20, 2 << 30), |settings| &mut settings.unit_bytes_max),
        "Bytes of the effects of one command, script or transaction; more is refused whole.",
    ),
    row(
        "max-unit-copied-bytes",
        AtStart,
        Kind::Bytes((1 << 20, 1 << 40), |settings| &mut settings.unit_copied_bytes_max),
        "Bytes that one command, script or transaction adds to memory without sending them: copies of values, gaps in strings; more is refused whole.",
    ),
    row(
        "max-reply-bytes",
        Anytime,
        Kind::Bytes((1 << 20, BYTES_MAX), |settings| &mut settings.reply_bytes_max),
        "Bytes of one reply, beside its longest value: a request whose reply would be larger is refused whole, before the reply is written.",
    ),
    row(
        "hll-sparse-max-bytes",
        Anytime,
        Kind::Bytes((0, BYTES_MAX), |settings| &mut settings.sparse_bytes_max),
        "Bytes of a HyperLogLog in the sparse form; beyond, it takes 12 KiB.",
    ),
    row(
        "large-request-elements",
        Anytime,
        Kind::Number((0, 1 << 40), |settings| &mut settings.large_elements),
        "Elements of values, or KiB of strings, above which the request that works through them is executed on a thread of its own, while its shard serves others; 0 for never.",
    ),
    row(
        "stream-node-max-bytes",
        Anytime,
        Kind::Bytes((0, BYTES_MAX), |settings| &mut settings.stream_node_bytes_max),
        "Bytes of a node of a stream, by which ~ trims; 0 for 1 MiB, which is the most.",
    ),
    row(
        "stream-node-max-entries",
        Anytime,
        Kind::Number((0, i64::MAX as u64), |settings| &mut settings.stream_node_entries_max),
        "Entries of a node of a stream, by which ~ trims; 0 for 10,000, which is the most.",
    ),
    row(
        "log-bytes-max",
        AtStart,
        Kind::Bytes((1 << 20, 64 << 30), |settings| &mut settings.log_bytes_max),
        "Bytes of a shard's log since its last snapshot, before the next is taken.",
    ),
    row(
        "log-entries-max",
        AtStart,
        Kind::Number((1000, 1 << 32), |settings| &mut settings.log_entries_max),
        "The same in entries.",
    ),
    row(
        "log-purge-bytes",
        AtStart,
        Kind::Bytes((64 << 20, 1 << 40), |settings| &mut settings.log_purge_bytes),
        "Bytes of a node's log files above which old ones are given up.",
    ),
    row(
        "min-free-disk",
        Anytime,
        Kind::BytesOrOff(
            (DISK_BYTES_LEAST, BYTES_MAX),
            "with less, what was taken before may fill the disk, and end the node",
            |settings| &mut settings.disk_bytes_min,
        ),
        "Free bytes of the data directory's disk below which commands that may grow the data are refused with -MISCONF, and below a quarter of which all writes are; 0 for off.",
    ),
    row(
        "snapshot-bytes-per-second",
        Anytime,
        Kind::BytesOrOff(
            (1 << 20, BYTES_MAX),
            "at less no snapshot ends, and writers of what it holds wait for it",
            |settings| &mut settings.snapshot_rate,
        ),
        "Bytes a second that a shard writes while it takes a snapshot; 0 for as many as the disk takes.",
    ),
    row(
        "format-max",
        Anytime,
        Kind::Number((1, FORMAT_LIMIT), |settings| &mut settings.format_max),
        "The newest format of the log that this node agrees on: with less than its build reads, the cluster waits, and the build before can be started again.",
    ),
    row(
        "shutdown-timeout",
        Anytime,
        Kind::Number((0, 3600), |settings| &mut settings.shutdown_seconds),
        "Seconds that a stopping node gives to handing its leaderships over and answering clients.",
    ),
    row(
        "enable-debug-command",
        AtStart,
        Kind::Choice(
            &["no", "yes", "local"],
            |settings| settings.debug_access as usize,
            |settings, choice| {
                settings.debug_access = [DebugAccess::No, DebugAccess::Yes, DebugAccess::Local][choice];
            },
        ),
        "Whose DEBUG is heard: of `local`, of who connects from the machine itself. What compares data is for everyone.",
    ),
    row(
        "loglevel",
        AtStartHere,
        Kind::Choice(
            LOG_LEVELS,
            |settings| settings.log_level,
            |settings, choice| settings.log_level = choice,
        ),
        "How much the node tells on its standard error.",
    ),
];

/// All settings.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    [ROWS, kept::ROWS, refused::ROWS].into_iter().flatten()
}

/// The row of this name, in any case.
pub fn find(name: &str) -> Option<&'static Row> {
    let is = |other: &str| other.eq_ignore_ascii_case(name);
    rows().find(|row| is(row.name) || row.alias.is_some_and(is))
}
