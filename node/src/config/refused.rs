//! Settings that Redis has and that are always what they are here.
//!
//! They show what is true (`appendonly yes`). A change would be a promise that is not kept, so it is refused, with a
//! reason where Redis takes changes, and as Redis refuses it where it takes none. A value that Redis would not take
//! is refused as Redis does.
//!
//! Source: `config.c` of Redis 7.2 for names and kinds.

use super::{
    form::{Form, Form::Number, Form::OneOf, Form::Text, Form::YesNo, INT},
    rows::{
        Change::{self, Anytime, AtStart, Protected},
        Kind, Row,
    },
};

const fn only(name: &'static str, form: Form, value: &'static str, doc: &'static str) -> Row {
    Row { name, alias: None, change: Anytime, kind: Kind::Only(form, value), doc, is_hidden: false }
}

/// One that Redis does not change while it runs, either.
const fn settled(name: &'static str, value: &'static str, doc: &'static str) -> Row {
    Row { change: AtStart, ..only(name, Text, value, doc) }
}

/// One that differs between nodes or replicas: who asks is told by the node.
const fn of_node(name: &'static str, change: Change, form: Form, doc: &'static str) -> Row {
    Row { name, alias: None, change, kind: Kind::OfNode(form), doc, is_hidden: false }
}

const PORT: Form = Number(0, 65_535);
const ADDRESSES: &str = "The cluster file says who is told what.";
const FILES: &str = "The node's files have names of their own, in its data directory.";
const TLS: &str = "There is no TLS yet.";
const STARTER: &str = "Whoever starts the node sees to it.";
const TRACES: &str = "Traces go to the standard error.";

/// The settings that are refused.
pub const ROWS: &[Row] = &[
    only("appendonly", YesNo, "yes", "Every write is in the Raft log before it is acknowledged."),
    only(
        "appendfsync",
        OneOf(&["everysec", "always", "no"]),
        "always",
        "Every write is synced on a majority before it is acknowledged.",
    ),
    settled("appendfilename", "", FILES),
    settled("appenddirname", "", FILES),
    settled("aclfile", "", "There are no users yet."),
    settled("cluster-config-file", "", FILES),
    Row { change: Protected, ..only("dbfilename", Text, "", FILES) },
    of_node("dir", Protected, Text, "The data directory: --dir says it."),
    of_node(
        "port",
        Anytime,
        PORT,
        "The cluster file says it: a replica's port is the node's and its shard's number.",
    ),
    of_node("bind", Anytime, Text, "The cluster file says it."),
    only("bind-source-addr", Text, "", "The system chooses where connections to peers come from."),
    settled("pidfile", "", STARTER),
    settled("daemonize", "no", "The node runs in the foreground."),
    settled("supervised", "no", STARTER),
    settled("always-show-logo", "no", TRACES),
    settled("logfile", "", TRACES),
    settled("syslog-enabled", "no", TRACES),
    settled("syslog-facility", "local0", TRACES),
    settled("syslog-ident", "redis", TRACES),
    settled("unixsocket", "", "Clients come by TCP."),
    settled("unixsocketperm", "0", "Clients come by TCP."),
    settled("socket-mark-id", "0", "Sockets bear no mark."),
    settled("server-cpulist", "", STARTER).or("server_cpulist"),
    settled("bio-cpulist", "", STARTER).or("bio_cpulist"),
    settled("aof-rewrite-cpulist", "", STARTER).or("aof_rewrite_cpulist"),
    settled("bgsave-cpulist", "", STARTER).or("bgsave_cpulist"),
    only("oom-score-adj", OneOf(&["no", "yes", "relative", "absolute"]), "no", STARTER),
    settled("disable-thp", "no", STARTER),
    settled("set-proc-title", "no", "A process is named after its program."),
    only(
        "proc-title-template",
        Form::Own(super::form::title),
        "{title} {listen-addr} {server-mode}",
        "A process is named after its program.",
    ),
    settled("enable-module-command", "no", "There are no modules."),
    settled("enable-protected-configs", "no", "Where files are is said when the node starts."),
    settled("io-threads", "1", "Each replica has a thread of its own."),
    settled("io-threads-do-reads", "no", "Each replica has a thread of its own."),
    only("activedefrag", YesNo, "no", "Active defragmentation cannot be enabled: the allocator sees to it."),
    only("requirepass", Text, "", "There are no passwords yet."),
    only("protected-mode", YesNo, "no", "The node listens where the cluster file says."),
    only("latency-tracking", YesNo, "yes", "Times of commands are kept."),
    only(
        "latency-tracking-info-percentiles",
        Form::Own(super::form::percentiles),
        "50 99 99.9",
        "These are shown.",
    ),
    only(
        "locale-collate",
        Text,
        "",
        "Texts are compared byte by byte, as in the locale C: replicas of all machines must agree.",
    ),
    settled("databases", "1", "A cluster has one."),
    settled("replicaof", "", "The shard's group elects its leader.").or("slaveof"),
    only("min-replicas-to-write", INT, "0", "A majority has every write that is acknowledged.")
        .or("min-slaves-to-write"),
    only("replica-announced", YesNo, "yes", ADDRESSES),
    only("replica-announce-ip", Text, "", ADDRESSES).or("slave-announce-ip"),
    only("replica-announce-port", PORT, "0", ADDRESSES).or("slave-announce-port"),
    only("replica-ignore-maxmemory", YesNo, "yes", "A follower applies what is committed.")
        .or("slave-ignore-maxmemory"),
    only("replica-priority", INT, "100", "Followers are alike: the next leader is one that has all.")
        .or("slave-priority"),
    only("replica-read-only", YesNo, "yes", "Only the leader writes.").or("slave-read-only"),
    only("replica-serve-stale-data", YesNo, "yes", "After READONLY a replica answers from what it has.")
        .or("slave-serve-stale-data"),
    settled("cluster-enabled", "yes", "Always."),
    settled("cluster-port", "0", "The cluster file says where nodes talk: peer-port."),
    only("cluster-allow-pubsubshard-when-down", YesNo, "yes", "Messages need no majority of another shard."),
    only("cluster-allow-reads-when-down", YesNo, "no", "A read that could be stale is refused."),
    only("cluster-announce-bus-port", PORT, "0", ADDRESSES),
    only("cluster-announce-hostname", Text, "", ADDRESSES),
    only("cluster-announce-human-nodename", Text, "", ADDRESSES),
    only("cluster-announce-ip", Text, "", ADDRESSES),
    only("cluster-announce-port", PORT, "0", ADDRESSES),
    only("cluster-announce-tls-port", PORT, "0", ADDRESSES),
    only("cluster-preferred-endpoint-type", OneOf(&["ip", "hostname", "unknown-endpoint"]), "ip", ADDRESSES),
    only("cluster-replica-no-failover", YesNo, "no", "Any follower that has all may lead.")
        .or("cluster-slave-no-failover"),
    only("cluster-require-full-coverage", YesNo, "no", "A shard serves whether or not others do."),
    only("tls-port", PORT, "0", TLS),
    only("tls-cluster", YesNo, "no", TLS),
    only("tls-replication", YesNo, "no", TLS),
    only("tls-auth-clients", OneOf(&["no", "yes", "optional"]), "yes", TLS),
    only("tls-prefer-server-ciphers", YesNo, "no", TLS),
    only("tls-session-caching", YesNo, "yes", TLS),
    only("tls-session-cache-size", INT, "20480", TLS),
    only("tls-session-cache-timeout", INT, "300", TLS),
    only("tls-cert-file", Text, "", TLS),
    only("tls-key-file", Text, "", TLS),
    only("tls-key-file-pass", Text, "", TLS),
    only("tls-client-cert-file", Text, "", TLS),
    only("tls-client-key-file", Text, "", TLS),
    only("tls-client-key-file-pass", Text, "", TLS),
    only("tls-dh-params-file", Text, "", TLS),
    only("tls-ca-cert-file", Text, "", TLS),
    only("tls-ca-cert-dir", Text, "", TLS),
    only("tls-protocols", Text, "", TLS),
    only("tls-ciphers", Text, "", TLS),
    only("tls-ciphersuites", Text, "", TLS),
];
