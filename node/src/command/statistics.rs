//! What `INFO` counts: requests, bytes, errors, and calls by command.
//!
//! A command that is called in a block or by a script counts like any other; an error that a script hands on is
//! counted once, where it arose.
//!
//! A clock reading costs as much as a small command, so that one call in
//! `TIMED_EVERY` of each command is timed, and its time stands for them all.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use moonraft_proto::Reply;

use super::Command;

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
    /// Requests ever parsed; one that waited is parsed again.
    pub parsed: u64,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of replies.
    pub bytes_out: u64,
    /// Replies that were errors.
    pub errors: u64,
}

impl Statistics {
    /// Counts a reply that is an error, unless it was counted where it arose.
    pub fn note_error(&mut self, details: &mut Details, reply: &Reply<'_>) {
        if let Reply::Error(text) = reply
            && !std::mem::take(&mut details.is_error_counted)
        {
            self.errors += 1;
            details.error(text);
        }
    }
}

/// Parts of [`Calls::timed_by_length`]: the last ends after about a second, and takes what is longer.
const LENGTHS: usize = 21;

/// The longest time of one part, nanoseconds: each is twice as long as the one before. These are the bounds
/// of Redis's histograms, which keep two digits.
const fn length_bound_ns(part: usize) -> u64 {
    let level = 1024 << part;
    level + level / 128 - 1
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
    /// How many of them took about so long.
    timed_by_length: [u32; LENGTHS],
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

    /// Times in microseconds, with how many calls took no longer; where their number grows.
    pub fn histogram(&self) -> Vec<(u64, u64)> {
        let (mut timed, mut points) = (0, Vec::new());
        for (part, &count) in self.timed_by_length.iter().enumerate().filter(|(_, count)| **count > 0) {
            timed += u64::from(count);
            let calls = u128::from(self.calls) * u128::from(timed) / u128::from(self.timed.max(1));
            points.push((length_bound_ns(part) / 1000, calls as u64));
        }
        points
    }

    /// The time, in microseconds, that so many percent of the calls did not exceed.
    pub fn percentile(&self, percent: f64) -> f64 {
        let (mut timed, wanted) = (0, self.timed as f64 * percent / 100.0);
        let part = self.timed_by_length.iter().position(|&count| {
            timed += u64::from(count);
            timed > 0 && timed as f64 >= wanted
        });
        part.map_or(0.0, |part| length_bound_ns(part) as f64 / 1000.0)
    }
}

/// Counters by command and by error code.
#[derive(Default)]
pub struct Details {
    /// Where a command's counters are, by the address of its row.
    places: HashMap<usize, usize, foldhash::fast::FixedState>,
    calls: Vec<(&'static Command, Calls)>,
    codes: BTreeMap<String, u64>,
    /// The error that is about to be answered is one of a command that a script called.
    is_error_counted: bool,
}

impl Details {
    /// The next error that is answered has been counted.
    pub fn expect_counted_error(&mut self) {
        self.is_error_counted = true;
    }

    /// The place of a command's counters.
    fn place(&mut self, command: &'static Command) -> usize {
        let Self { places, calls, .. } = self;
        *places.entry(std::ptr::from_ref(command).addr()).or_insert_with(|| {
            calls.push((command, Calls::default()));
            calls.len() - 1
        })
    }

    /// A command is about to be executed. Returns the place of its counters, and whether it is to be timed.
    pub fn begin(&mut self, command: &'static Command) -> (usize, bool) {
        let place = self.place(command);
        (place, self.calls[place].1.calls.is_multiple_of(TIMED_EVERY))
    }

    /// A command has been executed: whether it failed and, if it was to be timed, how many nanoseconds it took.
    /// It counts from now on, so that what it told of the counters is without itself.
    pub fn end(&mut self, command: &'static Command, place: usize, failed: bool, took_ns: Option<u64>) {
        // It may have been what reset the counters.
        let is_there = self.calls.get(place).is_some_and(|(known, _)| std::ptr::eq(*known, command));
        let place = if is_there { place } else { self.place(command) };
        let calls = &mut self.calls[place].1;
        calls.calls += 1;
        calls.failed += u64::from(failed);
        if let Some(nanoseconds) = took_ns {
            calls.timed += 1;
            calls.timed_ns += nanoseconds;
            let part = (0..LENGTHS - 1).find(|&part| nanoseconds <= length_bound_ns(part));
            calls.timed_by_length[part.unwrap_or(LENGTHS - 1)] += 1;
        }
    }

    /// A call of a command was refused.
    pub fn rejected(&mut self, command: &'static Command) {
        let place = self.place(command);
        self.calls[place].1.rejected += 1;
    }

    /// A client was answered with this error.
    pub fn error(&mut self, text: &[u8]) {
        let code = text.split(|&byte| byte == b' ').next().unwrap_or_default();
        let code = String::from_utf8_lossy(code);
        if let Some(count) = self.codes.get_mut(&*code) {
            *count += 1;
        } else if self.codes.len() < CODES_MAX {
            self.codes.insert(code.into_owned(), 1);
        }
    }

    /// Commands that were called or refused, by name.
    pub fn commands(&self) -> Vec<(&'static Command, Calls)> {
        let called = self.calls.iter().filter(|(_, calls)| calls.calls + calls.rejected > 0);
        let mut commands: Vec<_> = called.copied().collect();
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
