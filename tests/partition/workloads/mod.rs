//! What clients do while the cluster is tormented, and what must be true of it.
//!
//! A [`Workload`] does one operation at a time in several workers; when all faults
//! are over, `finish` makes its final reads, and `check` says what is wrong. Keys
//! are of one phase, and of few operations each, so that every key is read at the
//! end and no check has to search long.

mod append;
mod bank;
mod blocking_queue;
mod copies;
mod counter;
mod lock;
mod queue;
mod random;
mod register;
mod sale;
mod set;
mod stream;
mod time;

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use moonraft_tests::value::Value;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::LocalSet;

use crate::{
    client::{Client, Ended, Journal, Outcome, Words, words},
    nemesis::Fault,
};

/// After the faults, every request is served within this time.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// Between two operations of one worker, up to this.
const THINK_MS: u64 = 40;

/// One kind of use.
trait Workload: Sized + 'static {
    /// Its name in reports.
    fn name(&self) -> &'static str;
    /// Clients at a time.
    fn workers(&self) -> u64;

    /// One operation of a worker.
    async fn step(&self, client: &mut Client, worker: u64);
    /// The final reads.
    async fn finish(&self, client: &mut Client) -> Result<(), String>;
    /// What is wrong.
    fn check(&self) -> Vec<String>;
}

/// What all workloads of a phase share with the nemesis.
#[derive(Default)]
pub struct Signals {
    /// Workers stop.
    pub stop: AtomicBool,
    /// All faults are over.
    pub healed: AtomicBool,
}

/// What a phase is.
#[derive(Clone)]
pub struct Phase {
    /// Its keys begin with this.
    pub name: String,
    /// The fault it is about.
    pub fault: Fault,
    /// Where the nodes are.
    pub addresses: Vec<SocketAddr>,
    /// How many shards.
    pub shards: usize,
    /// The start of the run.
    pub start: Instant,
    /// Of all draws.
    pub seed: u64,
}

/// What one workload came to.
pub struct Outcomes {
    /// Its name.
    pub name: &'static str,
    /// Requests done, failed, unknown.
    pub counts: [u64; 3],
    /// What is wrong.
    pub violations: Vec<String>,
    /// Replies that no client should ever be given, and clients that did not survive one.
    pub surprises: Vec<String>,
    /// A request that was not served though the faults were over; nothing was checked then.
    pub unserved: Option<String>,
    /// All requests, as lines of JSON.
    pub history: Vec<String>,
}

/// Numbers that are never given twice, and the tags of keys.
#[derive(Clone)]
struct Names {
    phase: String,
    last: Rc<Cell<u64>>,
}

impl Names {
    fn unique(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// A hash tag; different ones fall on different shards.
    fn tag(&self, what: &str, number: u64) -> String {
        format!("{{{}-{what}-{number}}}", self.phase)
    }
}

/// Runs all workloads until the signals say so; on a thread of its own.
pub fn run(phase: &Phase, signals: &Signals) -> anyhow::Result<Vec<Outcomes>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let names = Names { phase: phase.name.clone(), last: Rc::default() };
    Ok(runtime.block_on(LocalSet::new().run_until(async {
        let (first, second) = tokio::join!(
            async {
                tokio::join!(
                    drive(register::Register::new(&names), phase, signals),
                    drive(append::Append::new(&names, append::Form::Plain), phase, signals),
                    drive(append::Append::new(&names, append::Form::Multi), phase, signals),
                    drive(append::Append::new(&names, append::Form::Script), phase, signals),
                    drive(counter::Counter::new(&names), phase, signals),
                    drive(set::Set::new(&names), phase, signals),
                )
            },
            async {
                tokio::join!(
                    drive(bank::Bank::new(&names), phase, signals),
                    drive(lock::Lock::new(&names, phase.fault), phase, signals),
                    drive(sale::Sale::new(&names), phase, signals),
                    drive(time::Time::new(&names, phase.fault), phase, signals),
                    drive(random::Random::new(&names), phase, signals),
                    drive(queue::Queue::new(&names), phase, signals),
                    drive(blocking_queue::BlockingQueue::new(&names), phase, signals),
                    drive(stream::Stream::new(&names), phase, signals),
                    drive(copies::Copies::new(&names, &phase.addresses), phase, signals),
                )
            }
        );
        let (a, b, c, d, e, f) = first;
        let (g, h, i, j, k, l, m, n, o) = second;
        // Checks take time on this thread: they come when no client waits any more.
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o].into_iter().map(|check| check()).collect()
    })))
}

type Check = Box<dyn FnOnce() -> Outcomes>;

async fn drive<W: Workload>(workload: W, phase: &Phase, signals: &Signals) -> Check {
    let workload = Rc::new(workload);
    let journal = Journal::new(phase.start);
    let addresses: Rc<[SocketAddr]> = phase.addresses.clone().into();
    let name = workload.name();
    let number = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    let mut seeds = StdRng::seed_from_u64(phase.seed ^ number);
    let mut client = || {
        let rng = StdRng::seed_from_u64(seeds.next_u64());
        Client::new(Rc::clone(&addresses), phase.shards, Rc::clone(&journal), rng)
    };
    let stop = Rc::new(Cell::new(false));
    let mut workers = Vec::new();
    for worker in 0..workload.workers() {
        let (workload, mut client, stop) = (Rc::clone(&workload), client(), Rc::clone(&stop));
        workers.push(tokio::task::spawn_local(async move {
            while !stop.get() {
                workload.step(&mut client, worker).await;
                let pause = client.rng.random_range(1..THINK_MS);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }));
    }
    let mut surprises = Vec::new();
    wait_for(&signals.stop).await;
    stop.set(true);
    for worker in workers {
        if let Err(error) = worker.await {
            surprises.push(format!("a client ended: {error}"));
        }
    }
    wait_for(&signals.healed).await;
    let finished = workload.finish(&mut client()).await;
    Box::new(move || {
        let unserved = finished.err();
        let violations = if unserved.is_none() { workload.check() } else { Vec::new() };
        surprises
            .extend(journal.surprises.take().into_iter().map(|text| format!("unexpected reply: {text}")));
        Outcomes {
            name,
            counts: [journal.done.get(), journal.failed.get(), journal.unknown.get()],
            violations,
            surprises,
            unserved,
            history: journal.lines.take().iter().map(ToString::to_string).collect(),
        }
    })
}

async fn wait_for(signal: &AtomicBool) {
    while !signal.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A request after the faults: tried until it is done, which must not take long.
async fn settled(client: &mut Client, key: &str, commands: &[Words]) -> Result<Ended, String> {
    let until = Instant::now() + SERVED_WITHIN;
    loop {
        let ended = client.call(key, commands).await;
        if ended.value().is_some() {
            return Ok(ended);
        }
        if Instant::now() > until {
            return Err(format!(
                "not served {SERVED_WITHIN:?} after the faults: {commands:?}: {:?}",
                ended.outcome
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Bulk(bytes) => String::from_utf8_lossy(bytes).parse().ok(),
        _ => None,
    }
}

fn numbers(value: &Value) -> Option<Vec<i64>> {
    match value {
        Value::Array(items) => items.iter().map(number).collect(),
        _ => None,
    }
}

/// What lists of numbers hold in the end.
///
/// # Errors
/// They are not served.
async fn lists(client: &mut Client, keys: &[String]) -> Result<Vec<Vec<i64>>, String> {
    let mut lists = Vec::with_capacity(keys.len());
    for key in keys {
        let ended = settled(client, key, &[words(["LRANGE", key, "0", "-1"])]).await?;
        lists.push(ended.value().and_then(numbers).unwrap_or_default());
    }
    Ok(lists)
}

/// A whole number with the times between which it was so.
#[derive(Clone, Copy, Debug)]
struct Reading {
    called: u64,
    returned: u64,
    value: i64,
    /// It must be larger than all before, not only as large.
    grows: bool,
}

/// What is wrong with numbers that never get smaller in real time.
fn falling(readings: &[Reading]) -> Vec<String> {
    let mut by_call: Vec<&Reading> = readings.iter().collect();
    by_call.sort_by_key(|reading| reading.called);
    let mut by_return = by_call.clone();
    by_return.sort_by_key(|reading| reading.returned);
    let (mut ended, mut largest, mut wrong) = (0, None::<&Reading>, Vec::new());
    for reading in by_call {
        while by_return[ended].returned < reading.called {
            if largest.is_none_or(|largest| largest.value < by_return[ended].value) {
                largest = Some(by_return[ended]);
            }
            ended += 1;
        }
        if let Some(before) = largest
            && (reading.value < before.value || reading.grows && reading.value == before.value)
        {
            wrong.push(format!("{before:?} and then {reading:?}"));
        }
    }
    wrong
}

/// Whether a request is known to have had no effect.
fn had_none(ended: &Ended) -> bool {
    matches!(ended.outcome, Outcome::Failed(_))
}

/// The most that is told of one kind of wrong.
const TOLD_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_falls_is_found() {
        let reading = |called, value| Reading { called, returned: called + 5, value, grows: true };
        assert!(falling(&[reading(0, 1), reading(3, 3), reading(4, 2), reading(20, 4)]).is_empty());
        assert_eq!(falling(&[reading(0, 1), reading(10, 3), reading(20, 2)]).len(), 1);
        assert_eq!(falling(&[reading(0, 1), reading(10, 1)]).len(), 1);
    }
}
