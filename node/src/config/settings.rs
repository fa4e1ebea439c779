//! Every setting of a node: one struct with documented defaults, one table of rows.
//!
//! A row says a setting's name, when it may change, what it takes and which
//! field of [`Settings`] it is. The cluster file, `--set`, `CONFIG GET` and
//! `CONFIG SET` go through the rows and through nothing else. Names and units
//! are those of redis.conf where Redis has the setting.
//!
//! Rows of the kind [`Kind::Fixed`] are settings that clients and tools ask
//! after and that Moonraft cannot change: they show what is true here
//! (`appendonly yes`), and setting them to something else is refused.
//!
//! Source: `config.c` of Redis 7.2 for names, kinds and error texts.

use std::ops::RangeInclusive;

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
    /// `maxmemory-clients`, a replica; 0 for no limit
    pub client_memory_bytes_max: u64,
    /// `maxmemory`, in resident bytes of the process; 0 for no limit
    pub memory_bytes_max: u64,
    /// `busy-reply-threshold`, in milliseconds; 0 for never
    pub busy_after_ms: u64,
    /// `cluster-node-timeout`, in milliseconds
    pub node_timeout_ms: u64,
    /// `lease-drift-percent`
    pub lease_drift_percent: u64,
    /// `max-unit-bytes`
    pub unit_bytes_max: u64,
    /// `max-unit-copied-bytes`
    pub unit_copied_bytes_max: u64,
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
    /// `shutdown-timeout`, in seconds
    pub shutdown_seconds: u64,
    /// `loglevel`: an index into [`LOG_LEVELS`]
    pub log_level: usize,
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
            client_memory_bytes_max: 2 << 30,
            memory_bytes_max: 0,
            busy_after_ms: 5000,
            // Clients give up after one to two and a half seconds of failing over.
            node_timeout_ms: 1000,
            lease_drift_percent: 10,
            unit_bytes_max: 544 << 20, // the largest value, and room for its key and what else the unit does
            unit_copied_bytes_max: 1 << 30,
            log_bytes_max: 64 << 20, // replayed in well under a second
            log_entries_max: 1_000_000,
            log_purge_bytes: 1 << 30,
            disk_bytes_min: 256 << 20, // a few files of the log, and a snapshot of the size the log may have
            snapshot_rate: 128 << 20,
            shutdown_seconds: 10,
            log_level: 2,
        }
    }
}

/// What `loglevel` takes, the most talkative first.
pub const LOG_LEVELS: &[&str] = &["debug", "verbose", "notice", "warning", "nothing"];

/// What `reads` takes.
const READS: &[&str] = &["lease", "read-index"];

/// Whether a setting may change while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// At any time, by `CONFIG SET`.
    Anytime,
    /// Only by the cluster file or `--set`: it shapes what is made at the start.
    AtStart,
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
    /// One of some words.
    Choice(&'static [&'static str], fn(&Settings) -> usize, fn(&mut Settings, usize)),
    /// `client-output-buffer-limit`.
    OutputLimits,
    /// Always this; see the module's header.
    Fixed(&'static str),
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
}

const fn row(name: &'static str, change: Change, kind: Kind, doc: &'static str) -> Row {
    Row { name, alias: None, change, kind, doc }
}

const fn fixed(name: &'static str, value: &'static str, doc: &'static str) -> Row {
    row(name, AtStart, Kind::Fixed(value), doc)
}

/// Milliseconds of an hour: longer waits than that are mistakes.
const HOUR_MS: u64 = 3_600_000;
/// More than any machine has.
const BYTES_MAX: u64 = 1 << 50;

use Change::{Anytime, AtStart};

/// The settings that can be set.
pub const ROWS: &[Row] = &[
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
        Kind::Number((1, 1_000_000), |settings| &mut settings.clients_max),
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
        Kind::Number((0, 1 << 31), |settings| &mut settings.idle_seconds_max),
        "Seconds after which an idle client is disconnected; 0 for never.",
    ),
    row(
        "tcp-keepalive",
        Anytime,
        Kind::Number((0, 1 << 31), |settings| &mut settings.keepalive_seconds),
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
        Kind::Bytes((0, BYTES_MAX), |settings| &mut settings.client_memory_bytes_max),
        "Bytes that wait for a replica's clients, requests and replies: above, those who take most are disconnected; 0 for no limit.",
    ),
    row(
        "maxmemory",
        Anytime,
        Kind::Bytes((0, BYTES_MAX), |settings| &mut settings.memory_bytes_max),
        "Resident bytes of the process above which commands that need memory are refused; 0 for no limit.",
    ),
    Row {
        alias: Some("lua-time-limit"),
        ..row(
            "busy-reply-threshold",
            Anytime,
            Kind::Number((0, HOUR_MS), |settings| &mut settings.busy_after_ms),
            "Milliseconds of a script after which other clients are answered -BUSY; 0 for never.",
        )
    },
    row(
        "cluster-node-timeout",
        AtStart,
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
        Kind::Bytes((0, BYTES_MAX), |settings| &mut settings.disk_bytes_min),
        "Free bytes of the data directory's disk below which commands that may grow the data are refused with -MISCONF, and below a quarter of which all writes are; 0 for off.",
    ),
    row(
        "snapshot-bytes-per-second",
        Anytime,
        Kind::Bytes((0, BYTES_MAX), |settings| &mut settings.snapshot_rate),
        "Bytes a second that a shard writes while it takes a snapshot; 0 for as many as the disk takes.",
    ),
    row(
        "shutdown-timeout",
        Anytime,
        Kind::Number((0, 3600), |settings| &mut settings.shutdown_seconds),
        "Seconds that a stopping node gives to handing its leaderships over and answering clients.",
    ),
    row(
        "loglevel",
        AtStart,
        Kind::Choice(
            LOG_LEVELS,
            |settings| settings.log_level,
            |settings, choice| settings.log_level = choice,
        ),
        "How much the node tells on its standard error.",
    ),
    fixed("appendonly", "yes", "Every write is in the Raft log before it is acknowledged."),
    fixed("appendfsync", "always", "Every write is synced on a majority before it is acknowledged."),
    fixed("save", "", "Snapshots follow the size of the log, not a timetable."),
    fixed("databases", "1", "A cluster has one."),
    fixed("cluster-enabled", "yes", "Always."),
    fixed("cluster-require-full-coverage", "no", "A shard serves whether or not others do."),
    fixed("cluster-allow-reads-when-down", "no", "A read that could be stale is refused."),
    fixed("maxmemory-policy", "noeviction", "Nothing acknowledged is evicted."),
    fixed("protected-mode", "no", "The node listens where the cluster file says."),
    fixed("replica-read-only", "yes", "Only the leader writes."),
    fixed("slave-read-only", "yes", "The older name of replica-read-only."),
    fixed("replica-serve-stale-data", "yes", "After READONLY a replica answers from what it has."),
    fixed("hash-max-listpack-entries", "512", "Fields of a hash in the small form."),
    fixed("hash-max-listpack-value", "64", "Bytes of a field or value in the small form."),
    fixed("zset-max-listpack-entries", "128", "Members of a sorted set in the small form."),
    fixed("zset-max-listpack-value", "64", "Bytes of a member in the small form."),
    fixed("set-max-listpack-entries", "128", "Members of a set in the small form."),
    fixed("set-max-listpack-value", "64", "Bytes of a member in the small form."),
    fixed("set-max-intset-entries", "512", "Integers of a set in the form for integers."),
];

/// Why a setting was refused. `Display` writes what follows `ERR ` on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("Unknown option or number of arguments for CONFIG SET - '{0}'")]
    Unknown(String),
    /// The setting takes no such value, or not now.
    #[error("CONFIG SET failed (possibly related to argument '{name}') - {reason}")]
    Refused {
        /// The setting.
        name: String,
        /// Why.
        reason: String,
    },
}

impl SettingError {
    /// For a person who writes a file or a command line rather than `CONFIG SET`.
    pub fn explain(&self) -> String {
        match self {
            SettingError::Unknown(name) => {
                let known = ROWS.iter().flat_map(|row| [Some(row.name), row.alias]).flatten();
                match super::nearest(name, known) {
                    Some(near) => format!("there is no setting '{name}'; did you mean '{near}'?"),
                    None => format!("there is no setting '{name}'"),
                }
            }
            SettingError::Refused { name, reason } => format!("setting '{name}': {reason}"),
        }
    }
}

/// The row of this name, in any case.
pub fn find(name: &str) -> Option<&'static Row> {
    let is = |other: &str| other.eq_ignore_ascii_case(name);
    ROWS.iter().find(|row| is(row.name) || row.alias.is_some_and(is))
}

impl Settings {
    /// The settings whose names `matches` accepts, with their values, as `CONFIG GET` shows them.
    pub fn get(&self, matches: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for row in ROWS {
            for name in [Some(row.name), row.alias].into_iter().flatten() {
                if matches(name) {
                    found.push((name, self.value(row)));
                }
            }
        }
        found
    }

    /// The value of one row.
    pub fn value(&self, row: &Row) -> String {
        let mut copy = self.clone();
        match row.kind {
            Kind::Number(_, field) | Kind::Bytes(_, field) => field(&mut copy).to_string(),
            Kind::Signed(_, _, field) => field(&mut copy).to_string(),
            Kind::Choice(choices, read, _) => choices[read(self)].to_owned(),
            Kind::OutputLimits => {
                let shown = |limit: &OutputLimit| {
                    format!("{} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_seconds)
                };
                let (normal, pubsub) = (shown(&self.output_normal), shown(&self.output_pubsub));
                format!("normal {normal} slave 0 0 0 pubsub {pubsub}")
            }
            Kind::Fixed(value) => value.to_owned(),
        }
    }

    /// `CONFIG SET`: all the pairs, or an error and none of them.
    ///
    /// # Errors
    /// A name is unknown or comes twice, or a value is not what its setting takes.
    pub fn set_all<'a>(
        &mut self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), SettingError> {
        let mut changed = self.clone();
        let mut seen: Vec<&'static str> = Vec::new();
        for (name, value) in pairs {
            let row = find(name).ok_or_else(|| SettingError::Unknown(name.to_owned()))?;
            let refused = |reason: String| SettingError::Refused { name: name.to_owned(), reason };
            if seen.contains(&row.name) {
                return Err(refused("duplicate parameter".to_owned()));
            }
            seen.push(row.name);
            if row.change == AtStart && self.value(row) != value {
                return Err(refused("can't set immutable config".to_owned()));
            }
            changed.assign(row, value).map_err(refused)?;
        }
        *self = changed;
        Ok(())
    }

    /// One setting of a cluster file or of `--set`.
    ///
    /// # Errors
    /// The name is unknown, or the value is not what the setting takes.
    pub fn set_at_start(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let row = find(name).ok_or_else(|| SettingError::Unknown(name.to_owned()))?;
        self.assign(row, value).map_err(|reason| SettingError::Refused { name: name.to_owned(), reason })
    }

    fn assign(&mut self, row: &Row, value: &str) -> Result<(), String> {
        match row.kind {
            Kind::Number(bounds, field) => {
                let number = value.parse::<u64>();
                let number = number.map_err(|_| "argument couldn't be parsed into an integer".to_owned())?;
                *field(self) = within(number, bounds.0..=bounds.1)?;
            }
            Kind::Signed(least, most, field) => {
                let number = value.parse::<i64>();
                let number = number.map_err(|_| "argument couldn't be parsed into an integer".to_owned())?;
                *field(self) = within(number, least..=most)?;
            }
            Kind::Bytes(bounds, field) => {
                let bytes = parse_bytes(value).ok_or("argument must be a memory value")?;
                *field(self) = within(bytes, bounds.0..=bounds.1)?;
            }
            Kind::Choice(choices, _, write) => {
                let choice = choices.iter().position(|choice| choice.eq_ignore_ascii_case(value));
                let list = || format!("argument(s) must be one of the following: {}", choices.join(", "));
                write(self, choice.ok_or_else(list)?);
            }
            Kind::OutputLimits => self.assign_output_limits(value)?,
            Kind::Fixed(only) if only == value => {}
            Kind::Fixed(only) => return Err(format!("it is always '{only}'. {}", row.doc)),
        }
        Ok(())
    }

    /// `class hard soft seconds`, any number of times.
    fn assign_output_limits(&mut self, value: &str) -> Result<(), String> {
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        if words.is_empty() || !words.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
        }
        for limit in words.chunks_exact(4) {
            let (hard, soft, seconds) = (parse_bytes(limit[1]), parse_bytes(limit[2]), limit[3].parse());
            let (Some(hard_bytes), Some(soft_bytes), Ok(soft_seconds)) = (hard, soft, seconds) else {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration.".into()
                );
            };
            let parsed = OutputLimit { hard_bytes, soft_bytes, soft_seconds };
            match limit[0].to_ascii_lowercase().as_str() {
                "normal" => self.output_normal = parsed,
                "pubsub" => self.output_pubsub = parsed,
                // No client is a replica here: replicas are peers, bounded elsewhere.
                "slave" | "replica" => {}
                _ => return Err("Invalid client class specified in buffer limit configuration.".to_owned()),
            }
        }
        Ok(())
    }
}

fn within<N: PartialOrd + std::fmt::Display>(number: N, range: RangeInclusive<N>) -> Result<N, String> {
    if range.contains(&number) {
        return Ok(number);
    }
    Err(format!("argument must be between {} and {} inclusive", range.start(), range.end()))
}

/// `512mb` and its like: `k`, `m`, `g` count in thousands, `kb`, `mb`, `gb` in powers of two.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let outcome = settings.set_all(pairs.iter().copied());
        outcome.map(|()| settings).map_err(|error| error.to_string())
    }

    #[test]
    fn every_row_takes_its_own_default() {
        for row in ROWS {
            let mut settings = Settings::default();
            let value = settings.value(row);
            settings.set_at_start(row.name, &value).expect("a default is a legal value");
            assert_eq!(settings, Settings::default(), "{}", row.name);
        }
    }

    #[test]
    fn every_row_that_can_change_writes_what_it_reads() {
        for row in ROWS {
            let other = match row.kind {
                Kind::Number((least, most), _) | Kind::Bytes((least, most), _) => {
                    [least, most].map(|number| number.to_string()).to_vec()
                }
                Kind::Signed(least, most, _) => [least, most].map(|number| number.to_string()).to_vec(),
                Kind::Choice(choices, ..) => choices.iter().map(|&choice| choice.to_owned()).collect(),
                Kind::OutputLimits => vec!["normal 3 2 1 slave 0 0 0 pubsub 6 5 4".to_owned()],
                Kind::Fixed(_) => continue,
            };
            for value in other {
                let mut settings = Settings::default();
                settings.set_at_start(row.name, &value).expect("a bound is a legal value");
                assert_eq!(settings.value(row), value, "{}", row.name);
            }
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<&str> =
            ROWS.iter().flat_map(|row| [Some(row.name), row.alias]).flatten().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn several_settings_change_together_or_not_at_all() {
        let both = set(&[("maxclients", "7"), ("MAXMEMORY", "100mb")]).unwrap();
        assert_eq!((both.clients_max, both.memory_bytes_max), (7, 100 << 20));

        let mut settings = Settings::default();
        let pairs = [("maxclients", "7"), ("maxmemory", "much")];
        assert!(settings.set_all(pairs).is_err());
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn refusals_have_the_texts_of_redis() {
        let refusal = |name, value| set(&[(name, value)]).unwrap_err();
        assert_eq!(refusal("foo", "1"), "Unknown option or number of arguments for CONFIG SET - 'foo'");
        let failed = |name| format!("CONFIG SET failed (possibly related to argument '{name}') - ");
        assert_eq!(
            refusal("maxclients", "x"),
            failed("maxclients") + "argument couldn't be parsed into an integer"
        );
        assert_eq!(
            refusal("maxclients", "0"),
            failed("maxclients") + "argument must be between 1 and 1000000 inclusive"
        );
        assert_eq!(refusal("maxmemory", "1tb"), failed("maxmemory") + "argument must be a memory value");
        assert_eq!(refusal("tcp-backlog", "5"), failed("tcp-backlog") + "can't set immutable config");
        assert_eq!(refusal("appendonly", "no"), failed("appendonly") + "can't set immutable config");
        assert_eq!(set(&[("appendonly", "yes")]), Ok(Settings::default()));
        let twice = set(&[("timeout", "1"), ("timeout", "2")]).unwrap_err();
        assert_eq!(twice, failed("timeout") + "duplicate parameter");
    }

    #[test]
    fn an_alias_is_the_same_setting() {
        let settings = set(&[("lua-time-limit", "100")]).unwrap();
        assert_eq!(settings.busy_after_ms, 100);
        let shown = settings.get(|name| name.ends_with("limit") && name.starts_with("lua"));
        assert_eq!(shown, [("lua-time-limit", "100".to_owned())]);
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("1gb"), Some(1 << 30));
        assert_eq!(parse_bytes("2K"), Some(2000));
        assert_eq!(parse_bytes("5"), Some(5));
        for wrong in ["", "mb", "-1", "1 mb", "99999999999999999999", "18446744073709551615kb"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }
}
