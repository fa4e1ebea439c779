//! Settings that are kept and answered, and change nothing.
//!
//! They tune what Redis has and Moonraft has not: an append-only file, dumps by fork, encodings with thresholds of
//! their own, replicas that copy a stream. Test suites and operators set them in their first line, so they take what
//! Redis takes, refuse what it refuses, and are shown. What is kept here promises nothing that an owner could rely
//! on: a setting that would is refused instead (see [`super::refused`]).
//!
//! Source: `config.c` of Redis 7.2 for names, bounds and defaults.

use super::{
    form::{Form, Form::Bytes, Form::Number, Form::OneOf, Form::YesNo, INT},
    rows::{
        Change::{Anytime, AtStart},
        Kind, Row,
    },
};

const fn kept(name: &'static str, form: Form, default: &'static str, doc: &'static str) -> Row {
    Row { name, alias: None, change: Anytime, kind: Kind::Kept(form, default), doc, is_hidden: false }
}

/// One that Redis takes at its start only.
const fn at_start(name: &'static str, form: Form, default: &'static str, doc: &'static str) -> Row {
    Row { change: AtStart, ..kept(name, form, default, doc) }
}

/// One that `CONFIG GET` shows only to who knows its name.
const fn hidden(name: &'static str, form: Form, default: &'static str, doc: &'static str) -> Row {
    Row { is_hidden: true, ..kept(name, form, default, doc) }
}

const LONG: Form = Number(0, i64::MAX);
const SIZE: Form = Bytes(0, i64::MAX as u64);
const PERCENT: Form = Number(1, 99);

const LOG: &str = "There is no append-only file: the Raft log has every write.";
const DUMP: &str = "There are no dumps by fork: snapshots are written while the shard serves.";
const ENCODING: &str = "Where encodings change is fixed.";
const FREE: &str = "What is large is freed by a thread of its own, whatever displaced it.";
const EVICTION: &str = "A turn of a shard evicts no more keys than it does in about a millisecond.";
const ENGINE: &str = "Of Redis's own hash tables and timers.";
const DEFRAGMENTATION: &str = "The allocator sees to it.";
const FOLLOWING: &str = "Replicas follow by Raft.";
const SHAPE: &str = "The cluster file tells the shape.";
const CRASH: &str = "What ends a node is one line in its traces.";
const TESTS: &str = "For Redis's own tests.";

/// The settings that are kept.
pub const ROWS: &[Row] = &[
    kept("aof-disable-auto-gc", YesNo, "no", LOG),
    kept("aof-load-truncated", YesNo, "yes", LOG),
    kept("aof-rewrite-incremental-fsync", YesNo, "yes", LOG),
    kept("aof-timestamp-enabled", YesNo, "no", LOG),
    kept("aof-use-rdb-preamble", YesNo, "yes", LOG),
    kept("auto-aof-rewrite-min-size", SIZE, "67108864", LOG),
    kept("auto-aof-rewrite-percentage", INT, "100", LOG),
    kept("no-appendfsync-on-rewrite", YesNo, "no", LOG),
    kept("rdb-del-sync-files", YesNo, "no", DUMP),
    kept("rdb-save-incremental-fsync", YesNo, "yes", DUMP),
    at_start("rdbchecksum", YesNo, "yes", DUMP),
    kept("rdbcompression", YesNo, "yes", DUMP),
    kept(
        "sanitize-dump-payload",
        OneOf(&["no", "yes", "clients"]),
        "no",
        "What RESTORE takes is always checked.",
    ),
    kept(
        "save",
        Form::Own(super::form::save_points),
        "",
        "Snapshots follow the size of the log, not a timetable.",
    ),
    kept("stop-writes-on-bgsave-error", YesNo, "yes", "A disk that fails ends the node."),
    kept("hash-max-listpack-entries", LONG, "512", ENCODING).or("hash-max-ziplist-entries"),
    kept("hash-max-listpack-value", SIZE, "64", ENCODING).or("hash-max-ziplist-value"),
    kept("list-compress-depth", INT, "0", ENCODING),
    kept("list-max-listpack-size", Number(i32::MIN as i64, i32::MAX as i64), "-2", ENCODING)
        .or("list-max-ziplist-size"),
    kept("set-max-intset-entries", LONG, "512", ENCODING),
    kept("set-max-listpack-entries", LONG, "128", ENCODING),
    kept("set-max-listpack-value", SIZE, "64", ENCODING),
    kept("zset-max-listpack-entries", LONG, "128", ENCODING).or("zset-max-ziplist-entries"),
    kept("zset-max-listpack-value", SIZE, "64", ENCODING).or("zset-max-ziplist-value"),
    kept("lazyfree-lazy-eviction", YesNo, "no", FREE),
    kept("lazyfree-lazy-expire", YesNo, "no", FREE),
    kept("lazyfree-lazy-server-del", YesNo, "no", FREE),
    kept("lazyfree-lazy-user-del", YesNo, "no", FREE),
    kept("lazyfree-lazy-user-flush", YesNo, "no", FREE),
    kept("replica-lazy-flush", YesNo, "no", FREE).or("slave-lazy-flush"),
    kept("maxmemory-eviction-tenacity", Number(0, 100), "10", EVICTION),
    kept("acllog-max-len", LONG, "128", "There are no users yet."),
    kept(
        "acl-pubsub-default",
        OneOf(&["allchannels", "resetchannels"]),
        "resetchannels",
        "There are no users yet.",
    ),
    kept("active-expire-effort", Number(1, 10), "1", ENGINE),
    kept("activerehashing", YesNo, "yes", ENGINE),
    kept("dynamic-hz", YesNo, "yes", ENGINE),
    kept("hz", Form::Own(super::form::hertz), "10", ENGINE),
    kept("active-defrag-cycle-max", PERCENT, "25", DEFRAGMENTATION),
    kept("active-defrag-cycle-min", PERCENT, "1", DEFRAGMENTATION),
    kept("active-defrag-ignore-bytes", Bytes(1, i64::MAX as u64), "104857600", DEFRAGMENTATION),
    kept("active-defrag-max-scan-fields", Number(1, i64::MAX), "1000", DEFRAGMENTATION),
    kept("active-defrag-threshold-lower", Number(0, 1000), "10", DEFRAGMENTATION),
    kept("active-defrag-threshold-upper", Number(0, 1000), "100", DEFRAGMENTATION),
    kept("jemalloc-bg-thread", YesNo, "yes", DEFRAGMENTATION),
    kept("masterauth", Form::Text, "", FOLLOWING),
    kept("masteruser", Form::Text, "", FOLLOWING),
    kept("min-replicas-max-lag", INT, "10", FOLLOWING).or("min-slaves-max-lag"),
    kept("propagation-error-behavior", OneOf(&["ignore", "panic", "panic-on-replicas"]), "ignore", FOLLOWING),
    kept("repl-backlog-size", Form::Own(super::form::backlog), "1048576", FOLLOWING),
    kept("repl-backlog-ttl", LONG, "3600", FOLLOWING),
    kept("repl-disable-tcp-nodelay", YesNo, "no", FOLLOWING),
    kept("repl-diskless-load", OneOf(&["disabled", "on-empty-db", "swapdb"]), "disabled", FOLLOWING),
    kept("repl-diskless-sync", YesNo, "yes", FOLLOWING),
    kept("repl-diskless-sync-delay", INT, "5", FOLLOWING),
    kept("repl-diskless-sync-max-replicas", INT, "0", FOLLOWING),
    kept("repl-ping-replica-period", Number(1, i32::MAX as i64), "10", FOLLOWING)
        .or("repl-ping-slave-period"),
    kept("repl-timeout", Number(1, i32::MAX as i64), "60", FOLLOWING),
    kept("replica-ignore-disk-write-errors", YesNo, "no", FOLLOWING),
    kept("cluster-allow-replica-migration", YesNo, "yes", SHAPE),
    kept("cluster-link-sendbuf-limit", Bytes(0, u64::MAX), "0", SHAPE),
    kept("cluster-migration-barrier", INT, "1", SHAPE),
    kept("cluster-replica-validity-factor", INT, "10", SHAPE).or("cluster-slave-validity-factor"),
    kept("crash-log-enabled", YesNo, "yes", CRASH),
    kept("crash-memcheck-enabled", YesNo, "yes", CRASH),
    kept("ignore-warnings", Form::Text, "", "The node's warnings are lines in its traces."),
    kept(
        "oom-score-adj-values",
        Form::Own(super::form::scores),
        "0 200 800",
        "Whoever starts the node sees to its score: oom-score-adj is 'no'.",
    ),
    kept("shutdown-on-sigint", Form::Own(super::form::shutdown), "default", DUMP),
    kept("shutdown-on-sigterm", Form::Own(super::form::shutdown), "default", DUMP),
    hidden("key-load-delay", Number(i32::MIN as i64, i32::MAX as i64), "0", TESTS),
    hidden("lazyexpire-nested-arbitrary-keys", YesNo, "yes", TESTS),
    hidden("loading-process-events-interval-bytes", Number(1024, i32::MAX as i64), "2097152", TESTS),
    hidden("rdb-key-save-delay", Number(i32::MIN as i64, i32::MAX as i64), "0", TESTS),
    hidden("use-exit-on-panic", YesNo, "no", TESTS),
    hidden("watchdog-period", Form::Own(super::form::watchdog), "0", TESTS),
];
