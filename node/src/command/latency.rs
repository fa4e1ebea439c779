//! `LATENCY`: what took long, by kind of event, and how long commands take.
//!
//! An event that takes `latency-monitor-threshold` milliseconds or more is a spike: a command, a step that removes what has
//! expired or evicts keys. While it is 0 nothing is noted, and no clock is read for it.
//!
//! Source: `latency.c` and `sparkline.c` of Redis 7.2.

use std::collections::BTreeMap;

use moonraft_proto::Reply;

use super::{
    Arity, Client, Command, CommandError, Family, Flag, Outcome, Run, arguments::is, help::help, sparkline,
};

/// Spikes of a kind that are kept, as in Redis.
const SAMPLES_MAX: usize = 160;

const CONTAINER: Command = Command { family: Family::Server, ..Command::BASE };

/// A row of `LATENCY`.
const ROW: Command =
    Command { parent: Some("latency"), flags: &[Flag::Admin, Flag::NoScript, Flag::Stale], ..CONTAINER };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "latency", arity: Arity::AtLeast(2), ..CONTAINER },
    Command {
        name: "doctor",
        arity: Arity::Exactly(2),
        run: Run::Session(doctor),
        tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
        ..ROW
    },
    Command {
        name: "graph",
        arity: Arity::Exactly(3),
        run: Run::Session(graph),
        tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
        ..ROW
    },
    Command {
        name: "histogram",
        arity: Arity::AtLeast(2),
        run: Run::Session(histogram),
        tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
        ..ROW
    },
    Command {
        name: "history",
        arity: Arity::Exactly(3),
        run: Run::Session(history),
        tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
        ..ROW
    },
    Command {
        name: "latest",
        arity: Arity::Exactly(2),
        run: Run::Session(latest),
        tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
        ..ROW
    },
    Command {
        name: "reset",
        arity: Arity::AtLeast(2),
        run: Run::Session(reset),
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        ..ROW
    },
    Command {
        name: "help",
        arity: Arity::Exactly(2),
        flags: &[Flag::Stale],
        run: Run::Session(latency_help),
        ..ROW
    },
];

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A command whose time may grow with the data.
    Command,
    /// A step that evicts keys.
    EvictionCycle,
    /// A step that removes keys whose time has come.
    ExpireCycle,
    /// A command that is declared fast.
    FastCommand,
}

impl Event {
    const ALL: [Event; 4] = [Event::Command, Event::EvictionCycle, Event::ExpireCycle, Event::FastCommand];

    const fn name(self) -> &'static str {
        match self {
            Event::Command => "command",
            Event::EvictionCycle => "eviction-cycle",
            Event::ExpireCycle => "expire-cycle",
            Event::FastCommand => "fast-command",
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name().as_bytes() == name)
    }
}

/// A second in which something took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    /// Unix seconds.
    at: u64,
    /// The longest, milliseconds.
    took_ms: u64,
}

/// The spikes of one kind, oldest first; never none.
#[derive(Debug, Default)]
struct Series {
    samples: std::collections::VecDeque<Sample>,
    /// The longest ever.
    longest_ms: u64,
}

impl Series {
    fn note(&mut self, at: u64, took_ms: u64) {
        self.longest_ms = self.longest_ms.max(took_ms);
        match self.samples.back_mut() {
            Some(last) if last.at == at => last.took_ms = last.took_ms.max(took_ms),
            _ => self.samples.push_back(Sample { at, took_ms }),
        }
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }

    fn last(&self) -> Sample {
        *self.samples.back().expect("there is one")
    }

    fn times_ms(&self) -> impl Iterator<Item = u64> {
        self.samples.iter().map(|sample| sample.took_ms)
    }
}

/// What took long.
#[derive(Debug, Default)]
pub struct Latency {
    /// From how many milliseconds on; 0 for never.
    threshold_ms: u64,
    events: BTreeMap<Event, Series>,
}

impl Latency {
    /// What takes so long is noted from now on; 0: nothing is.
    pub const fn set_threshold(&mut self, threshold_ms: u64) {
        self.threshold_ms = threshold_ms;
    }

    /// Whether anything is noted.
    pub const fn is_on(&self) -> bool {
        self.threshold_ms > 0
    }

    /// Something took so long; it is noted if that is long.
    pub fn note(&mut self, event: Event, took_ns: u64, unix_us: impl FnOnce() -> u64) {
        let took_ms = took_ns / 1_000_000;
        if self.is_on() && took_ms >= self.threshold_ms {
            self.events.entry(event).or_default().note(unix_us() / 1_000_000, took_ms);
        }
    }

    fn series(&self, name: &[u8]) -> Option<(Event, &Series)> {
        let event = Event::named(name)?;
        Some((event, self.events.get(&event)?))
    }
}

fn number(number: u64) -> Reply<'static> {
    Reply::Int(number as i64)
}

/// `LATENCY LATEST`
fn latest(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let told = client.latency().events.iter().map(|(event, series)| {
        let Sample { at, took_ms } = series.last();
        Reply::Array(vec![Reply::text(event.name()), number(at), number(took_ms), number(series.longest_ms)])
    });
    Ok(Reply::Array(told.collect()))
}

/// `LATENCY HISTORY event`
fn history(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let found = client.latency().series(words[2]);
    let samples = found.into_iter().flat_map(|(_, series)| &series.samples);
    Ok(Reply::Array(samples.map(|it| Reply::Array(vec![number(it.at), number(it.took_ms)])).collect()))
}

/// `LATENCY RESET [event …]`
fn reset(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let events = &mut client.latency_mut().events;
    let before = events.len();
    match &words[2..] {
        [] => events.clear(),
        names => events.retain(|event, _| !names.contains(&event.name().as_bytes())),
    }
    Ok(Reply::count(before - events.len()))
}

/// `LATENCY GRAPH event`
fn graph(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let now = client.unix_us() / 1_000_000;
    let Some((event, series)) = client.latency().series(words[2]) else {
        return Err(CommandError::about("ERR No samples available for event '", words[2], "'"));
    };
    let (high, low) = (series.times_ms().max().unwrap_or(0), series.times_ms().min().unwrap_or(0));
    let head = format!(
        "{} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        event.name(),
        series.longest_ms,
        "-".repeat(sparkline::COLUMNS)
    );
    let samples: Vec<(u64, String)> =
        series.samples.iter().map(|it| (it.took_ms, ago(now.saturating_sub(it.at)))).collect();
    Ok(Reply::Verbatim(*b"txt", (head + &sparkline::draw(&samples)).into()))
}

/// How long ago, in the largest unit.
fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `LATENCY DOCTOR`
///
/// The report is Redis's; the advice is about this server.
fn doctor(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let now = client.unix_us() / 1_000_000;
    let latency = client.latency();
    let text = match (latency.events.is_empty(), latency.is_on()) {
        (true, false) => OFF.to_owned(),
        (true, true) => HEALTHY.to_owned(),
        _ => report(latency, now),
    };
    Ok(Reply::Verbatim(*b"txt", text.into()))
}

const OFF: &str = "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Redis instance. You may use \"CONFIG SET latency-monitor-threshold <milliseconds>.\" in order to enable it. If we weren't in a deep space mission I'd suggest to take a look at https://redis.io/topics/latency-monitor.\n";

const HEALTHY: &str = "Dave, no latency spike was observed during the lifetime of this Redis instance, not in the slightest bit. I honestly think you ought to sit down calmly, take a stress pill, and think things over.\n";

fn report(latency: &Latency, now: u64) -> String {
    let mut text = "Dave, I have observed latency spikes in this Redis instance. You don't mind talking about it, do you Dave?\n\n".to_owned();
    for (at, (event, series)) in latency.events.iter().enumerate() {
        let count = series.samples.len() as u64;
        let average = series.times_ms().sum::<u64>() / count;
        let deviation = series.times_ms().map(|time| time.abs_diff(average)).sum::<u64>() / count;
        let oldest = series.samples.front().map_or(now, |sample| sample.at);
        let period = now.saturating_sub(oldest).max(1) as f64 / count as f64;
        text += &format!(
            "{}. {}: {count} latency spikes (average {average}ms, mean deviation {deviation}ms, period {period:.2} sec). Worst all time event {}ms.\n",
            at + 1,
            event.name(),
            series.longest_ms
        );
    }
    text += "\nI have a few advices for you:\n\n";
    let advices: Vec<&str> = latency.events.keys().map(|event| advice(*event)).collect();
    advices.into_iter().for_each(|advice| text += advice);
    text
}

const fn advice(event: Event) -> &'static str {
    match event {
        Event::Command => {
            "- Check your Slow Log to understand what are the commands you are running which are too slow to execute. What works through much is executed beside its shard: see large-request-elements.\n"
        }
        Event::FastCommand => {
            "- The system is slow to execute code paths not containing system calls. This usually means that it does not provide CPU time for long periods: give the node processors of its own, and look for 'held up' in its traces.\n"
        }
        Event::ExpireCycle => "- Many keys have the same deadline: spread their times to live.\n",
        Event::EvictionCycle => {
            "- Keys are evicted while requests wait: raise maxmemory, or give the shard less to hold.\n"
        }
    }
}

/// `LATENCY HISTOGRAM [command …]`
///
/// Of a container it tells of what is in it, as Redis does.
fn histogram(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let asked = &words[2..];
    let names = |name: &str| asked.iter().any(|word| is(word, name));
    let is_asked =
        |row: &Command| asked.is_empty() || names(&row.full_name()) || row.parent.is_some_and(names);
    let called =
        client.details().commands().into_iter().filter(|(row, calls)| calls.calls > 0 && is_asked(row));
    let told = called.map(|(row, calls)| {
        let histogram = calls.histogram().into_iter().map(|(time, count)| (number(time), number(count)));
        let facts = vec![
            (Reply::text("calls"), number(calls.calls)),
            (Reply::text("histogram_usec"), Reply::Map(histogram.collect())),
        ];
        (Reply::text(row.full_name()), Reply::Map(facts))
    });
    Ok(Reply::Map(told.collect()))
}

/// `LATENCY HELP`
fn latency_help(_: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Ok(help(
        "LATENCY",
        &[
            "DOCTOR",
            "    Return a human readable latency analysis report.",
            "GRAPH <event>",
            "    Return an ASCII latency graph for the <event> class.",
            "HISTORY <event>",
            "    Return time-latency samples for the <event> class.",
            "LATEST",
            "    Return the latest latency samples for all events.",
            "RESET [<event> ...]",
            "    Reset latency data of one or more <event> classes.",
            "    (default: reset all data for all event classes)",
            "HISTOGRAM [COMMAND ...]",
            "    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.",
            "    If no commands are specified then all histograms are replied.",
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(spikes: &[(u64, u64)]) -> Latency {
        let mut latency = Latency { threshold_ms: 10, ..Latency::default() };
        for (at, took_ms) in spikes {
            latency.note(Event::Command, took_ms * 1_000_000, || at * 1_000_000);
        }
        latency
    }

    #[test]
    fn of_each_second_the_longest_spike_is_kept_and_of_many_seconds_the_last() {
        let latency = latency(&[(1, 10), (1, 30), (1, 20), (2, 9), (3, 11)]);
        let series = &latency.events[&Event::Command];
        let expected = [Sample { at: 1, took_ms: 30 }, Sample { at: 3, took_ms: 11 }];
        assert_eq!(
            (series.samples.iter().copied().collect::<Vec<_>>(), series.longest_ms),
            (expected.into(), 30)
        );
        let many: Vec<(u64, u64)> = (1..=200).map(|at| (at, 500 - at)).collect();
        let series = &self::latency(&many).events[&Event::Command];
        assert_eq!((series.samples.len(), series.samples[0].at, series.longest_ms), (160, 41, 499));
    }

    #[test]
    fn nothing_is_noted_while_it_is_off() {
        let mut latency = Latency::default();
        latency.note(Event::Command, u64::MAX, || 0);
        assert!(latency.events.is_empty());
    }

    #[test]
    fn a_report_says_what_redis_says() {
        let text = report(&latency(&[(1, 50), (2, 31), (4, 110), (5, 70)]), 5);
        let line = "1. command: 4 latency spikes (average 65ms, mean deviation 24ms, period 1.00 sec). Worst all time event 110ms.";
        assert!(text.contains(line), "{text}");
    }
}
