//! What `INFO` counts: requests, bytes, errors, and calls by command.
//!
//! A clock reading costs as much as a small command, so that one call in
//! `TIMED_EVERY` of each command is timed, and its time stands for them all.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use moonraft_proto::Reply;

use crate::command::Command;

/// One call of a command in so many is timed, the first among them.
const TIMED_EVERY: u64 = 64;

/// Different error codes that are counted: scripts make up their own, without end.
const CODES_MAX: usize = 128;

/// How long a rate is averaged over, in nanoseconds.
const RATE_WINDOW_NS: u64 = 1_000_000_000;

/// Counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Connections ever made.
    pub connections: u64,
    /// Connections refused.
    pub refused: u64,
    /// Requests ever executed.
    pub requests: u64,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of replies.
    pub bytes_out: u64,
    /// Replies that were errors.
    pub errors: u64,
}

impl Statistics {
    /// Counts a reply that is an error.
    pub fn note_error(&mut self, details: &mut Details, reply: &Reply<'_>) {
        if let Reply::Error(text) = reply {
            self.errors += 1;
            details.error(text);
        }
    }
}

/// What became of one command's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls that were executed.
    pub calls: u64,
    /// Those of them that answered with an error.
    pub failed: u64,
    /// Calls that were refused before.
    pub rejected: u64,
    /// Calls that were timed.
    timed: u64,
    /// How long those took, in nanoseconds.
    timed_ns: u64,
}

impl Calls {
    /// How long all calls took, in microseconds, judged by those that were timed.
    pub fn microseconds(&self) -> f64 {
        self.calls as f64 * self.microseconds_per_call()
    }

    /// How long a call took, in microseconds.
    pub fn microseconds_per_call(&self) -> f64 {
        if self.timed == 0 { 0.0 } else { self.timed_ns as f64 / self.timed as f64 / 1000.0 }
    }
}

/// Counters by command and by error code.
#[derive(Default)]
pub struct Details {
    /// By the address of the row.
    commands: HashMap<usize, (&'static Command, Calls), foldhash::fast::FixedState>,
    codes: BTreeMap<String, u64>,
}

impl Details {
    /// The counters of a command.
    fn of(&mut self, command: &'static Command) -> &mut Calls {
        let row = std::ptr::from_ref(command).addr();
        &mut self.commands.entry(row).or_insert((command, Calls::default())).1
    }

    /// A command is about to be executed. Returns whether it is to be timed.
    pub fn begin(&mut self, command: &'static Command) -> bool {
        let calls = self.of(command);
        calls.calls += 1;
        calls.calls % TIMED_EVERY == 1
    }

    /// A call of a command failed.
    pub fn failed(&mut self, command: &'static Command) {
        self.of(command).failed += 1;
    }

    /// A call of a command was refused.
    pub fn rejected(&mut self, command: &'static Command) {
        self.of(command).rejected += 1;
    }

    /// A call of a command took so long.
    pub fn took(&mut self, command: &'static Command, nanoseconds: u64) {
        let calls = self.of(command);
        calls.timed += 1;
        calls.timed_ns += nanoseconds;
    }

    /// A client was answered with this error.
    pub fn error(&mut self, text: &str) {
        let code = text.split(' ').next().unwrap_or_default();
        if let Some(count) = self.codes.get_mut(code) {
            *count += 1;
        } else if self.codes.len() < CODES_MAX {
            self.codes.insert(code.to_owned(), 1);
        }
    }

    /// Commands that were called or refused, by name.
    pub fn commands(&self) -> Vec<(&'static Command, Calls)> {
        let mut commands: Vec<_> = self.commands.values().copied().collect();
        commands.sort_by_key(|(command, _)| command.full_name());
        commands
    }

    /// Errors by code.
    pub fn errors(&self) -> impl Iterator<Item = (&str, u64)> {
        self.codes.iter().map(|(code, count)| (code.as_str(), *count))
    }
}

/// What happened in the last second or so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// When the window began, boot clock, and the counters then.
    since: Option<(u64, Statistics)>,
    /// Requests a second.
    pub requests: u64,
    /// Bytes of requests a second.
    pub bytes_in: u64,
    /// Bytes of replies a second.
    pub bytes_out: u64,
}

impl Rates {
    /// Some time has passed.
    pub fn tick(&mut self, now_ns: u64, counted: Statistics) {
        let Some((since, before)) = self.since else {
            self.since = Some((now_ns, counted));
            return;
        };
        let passed = now_ns.saturating_sub(since);
        if passed < RATE_WINDOW_NS {
            return;
        }
        // A reset of the counters makes them go down.
        let rate = |now: u64, before: u64| {
            (u128::from(now.saturating_sub(before)) * u128::from(RATE_WINDOW_NS) / u128::from(passed)) as u64
        };
        self.requests = rate(counted.requests, before.requests);
        self.bytes_in = rate(counted.bytes_in, before.bytes_in);
        self.bytes_out = rate(counted.bytes_out, before.bytes_out);
        self.since = Some((now_ns, counted));
    }
}
