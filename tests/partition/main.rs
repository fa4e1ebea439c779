//! Partition tests: real processes, real faults, and a check of what clients saw.
//!
//! ```text
//! partition --prefix mr1 --moonraft PATH                       one minute a fault, all faults
//! partition --prefix mr1 --moonraft PATH --fault halves        only these
//! partition --prefix mr1 --moonraft PATH --minutes 120         the matrix again and again
//! partition --prefix mr1 --redis                               must catch redis-server
//! partition --prefix mr1 --planted PATH                        must catch each planted fault
//! ```
//!
//! One phase is one fault, under which all workloads run at a time, each with a few
//! clients. At its end all is made well; final reads, checks, and the comparison of
//! all replicas follow. `run` beside this file builds and starts it.

#![allow(clippy::disallowed_methods, reason = "real clocks and threads are what it is about")]

mod client;
mod clocks;
mod cluster;
mod delay;
mod nemesis;
mod network;
mod workloads;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use cluster::{Cluster, Levels, Product};
use delay::Delay;
use nemesis::Fault;
use network::{CLIENTS, Network};
use workloads::{Outcomes, Phase, Signals};

/// After the faults and the last request, replicas are level within this time.
const LEVEL_WITHIN: Duration = Duration::from_secs(30);
/// Violations shown in full; all are in the files.
const SHOWN_MAX: usize = 4;

/// What the server with planted faults can do wrong, the soonest noticed first.
const PLANTED: [&str; 3] = ["reply-before-commit", "undo-skipped", "effect-dropped"];

#[derive(Parser)]
#[command(about = "Torments a cluster of real processes and checks what clients saw.")]
struct Arguments {
    /// What the names of namespaces begin with; whoever gives it cleans up after us.
    #[arg(long)]
    prefix: String,
    /// The server under test.
    #[arg(long)]
    moonraft: Option<PathBuf>,
    /// The server with planted faults: each must be caught.
    #[arg(long)]
    planted: Option<PathBuf>,
    /// Which of them; all if none is named.
    #[arg(long, value_delimiter = ',', value_parser = PLANTED)]
    planted_fault: Vec<String>,
    /// Test the tests on a cluster of redis-server: it must be caught losing writes.
    #[arg(long)]
    redis: bool,
    /// Faults to run; all that are promised to be safe if none is named.
    #[arg(long, value_delimiter = ',')]
    fault: Vec<Fault>,
    /// Seconds of one phase.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Go on with the matrix for so long.
    #[arg(long, default_value_t = 0)]
    minutes: u64,
    /// Nodes; all of them have a replica of each shard.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Shards.
    #[arg(long, default_value_t = 3)]
    shards: usize,
    /// Of all that is drawn; the schedule of faults follows from it, the timing of processes does not.
    #[arg(long)]
    seed: Option<u64>,
    /// Where data, logs and the histories of violations are.
    #[arg(long)]
    dir: PathBuf,
    /// Seconds in which a fault of the tests of the tests must be caught.
    #[arg(long, default_value_t = 240)]
    caught_within: u64,
}

/// What came of a phase.
struct Verdict {
    fault: Fault,
    seconds: f64,
    outcomes: Vec<Outcomes>,
    /// Replicas that hold different data.
    differing: Vec<String>,
    /// What else is wrong with the cluster as a whole: processes that ended or do not answer.
    broken: Vec<String>,
}

impl Verdict {
    fn violations(&self) -> impl Iterator<Item = &String> {
        let each = self.outcomes.iter().flat_map(|outcomes| {
            outcomes.violations.iter().chain(&outcomes.surprises).chain(&outcomes.unserved)
        });
        self.differing.iter().chain(&self.broken).chain(each)
    }

    /// A broken promise about data, or a node that ended by itself: the product's own assertions find some
    /// faults before any client does. Not one that does not answer, nor a request that is not served or answered
    /// strangely, nor a promise that a system without durable times never gave.
    fn damage(&self) -> Option<String> {
        let kept = self.outcomes.iter().filter(|outcomes| !["time", "lock"].contains(&outcomes.name));
        let seen = kept.flat_map(|outcomes| {
            outcomes.violations.iter().map(|violation| format!("{}: {violation}", outcomes.name))
        });
        let ended = self.broken.iter().filter(|text| text.contains("ended by itself"));
        self.differing.iter().chain(ended).cloned().chain(seen).next()
    }
}

struct Run {
    cluster: Cluster,
    _delay: Delay,
    rng: StdRng,
    seed: u64,
    start: Instant,
    directory: PathBuf,
    phases: u64,
}

impl Run {
    fn new(arguments: &Arguments, product: Product, nodes: usize, seed: u64) -> anyhow::Result<Self> {
        let network = Network::new(&arguments.prefix, nodes)?;
        network::enter(&network.namespace(CLIENTS))?;
        let delay = Delay::start(network.router(), seed)?;
        let directory = arguments.dir.join(match &product {
            Product::Moonraft(_) => "moonraft",
            Product::Planted(_, fault) => fault,
            Product::Redis => "redis",
        });
        let cluster = Cluster::start(product, network, nodes, arguments.shards, &directory)?;
        let rng = StdRng::seed_from_u64(seed);
        Ok(Self { cluster, _delay: delay, rng, seed, start: Instant::now(), directory, phases: 0 })
    }

    /// One phase: torment, heal, read, check, compare.
    fn phase(&mut self, fault: Fault, seconds: u64) -> anyhow::Result<Verdict> {
        self.phases += 1;
        let began = Instant::now();
        let phase = Phase {
            name: format!("p{}", self.phases),
            fault,
            addresses: self.cluster.addresses(),
            shards: self.cluster.shards,
            start: self.start,
            seed: self.rng.next_u64(),
        };
        let signals = Arc::new(Signals::default());
        let seen = Arc::clone(&signals);
        let clients = std::thread::spawn(move || workloads::run(&phase, &seen));
        let until = began + Duration::from_secs(seconds);
        let deeds = nemesis::torment(&mut self.cluster, fault, &mut self.rng, self.start, until);
        signals.stop.store(true, Ordering::Relaxed);
        let ready = self.cluster.wait_until_ready();
        signals.healed.store(true, Ordering::Relaxed);
        let outcomes = clients.join().map_err(|_| anyhow::anyhow!("the clients' thread ended"))??;
        let deeds = deeds?;
        let mut broken: Vec<String> = ready.err().map(|error| error.to_string()).into_iter().collect();
        let Levels { differing, silent } = self.cluster.compare_replicas(LEVEL_WITHIN);
        broken.extend(silent);
        broken.append(&mut self.cluster.deaths);
        let seconds = began.elapsed().as_secs_f64();
        let verdict = Verdict { fault, seconds, outcomes, differing, broken };
        if verdict.violations().next().is_some() {
            self.keep(&verdict, &deeds)?;
        }
        Ok(verdict)
    }

    /// Keeps everything about a phase that went wrong.
    fn keep(&self, verdict: &Verdict, deeds: &[String]) -> anyhow::Result<()> {
        let kept = self.directory.join(format!("kept-{}-{}", self.phases, verdict.fault.name()));
        std::fs::create_dir_all(&kept)?;
        for outcomes in &verdict.outcomes {
            std::fs::write(kept.join(format!("{}.jsonl", outcomes.name)), outcomes.history.join("\n"))?;
        }
        let told: Vec<String> = verdict.violations().cloned().collect();
        let text = format!(
            "seed {}, phase {} ({})\n\nviolations\n{}\n\nfaults\n{}\n",
            self.seed,
            self.phases,
            verdict.fault.name(),
            told.join("\n"),
            deeds.join("\n")
        );
        std::fs::write(kept.join("violations.txt"), text)?;
        eprintln!("seed {}: histories are in {}", self.seed, kept.display());
        for violation in told.iter().take(SHOWN_MAX) {
            let short: String = violation.chars().take(400).collect();
            eprintln!("  {short}");
        }
        Ok(())
    }
}

fn show(verdict: &Verdict) {
    for outcomes in &verdict.outcomes {
        let Outcomes { name, counts: [done, failed, unknown], violations, surprises, unserved, .. } =
            outcomes;
        let wrong = violations.len() + surprises.len() + usize::from(unserved.is_some());
        let (fault, seconds) = (verdict.fault.name(), verdict.seconds);
        println!("| {fault} | {name} | {seconds:.0} | {done} | {failed} | {unknown} | {wrong} |");
    }
    let wrong = verdict.differing.len() + verdict.broken.len();
    println!("| {} | replicas, processes | {:.0} | | | | {wrong} |", verdict.fault.name(), verdict.seconds);
}

/// Moonraft itself: whether nothing was wrong.
fn matrix(arguments: &Arguments, binary: &Path, seed: u64) -> anyhow::Result<bool> {
    let binary = binary.canonicalize().with_context(|| format!("no server at {}", binary.display()))?;
    let mut run = Run::new(arguments, Product::Moonraft(binary), arguments.nodes, seed)?;
    let faults = if arguments.fault.is_empty() { Fault::matrix() } else { arguments.fault.clone() };
    let until = Instant::now() + Duration::from_secs(60 * arguments.minutes);
    let (mut good, mut total) = (true, [0; 3]);
    println!("\nseed {seed}, {} nodes, {} shards\n", arguments.nodes, arguments.shards);
    println!("| fault | workload | seconds | done | failed | unknown | violations |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    loop {
        for &fault in &faults {
            let verdict = run.phase(fault, arguments.seconds)?;
            show(&verdict);
            // Beyond the drift that is promised to be safe, what happens is only told.
            good &= fault == Fault::ClockRateOver || verdict.violations().next().is_none();
            for outcomes in &verdict.outcomes {
                outcomes.counts.iter().zip(&mut total).for_each(|(count, sum)| *sum += count);
            }
        }
        if Instant::now() >= until {
            break;
        }
    }
    let [done, failed, unknown] = total;
    let seconds = run.start.elapsed().as_secs();
    println!("\n{done} requests done, {failed} failed, {unknown} unknown, in {seconds} s\n");
    Ok(good)
}

/// A system that breaks promises: whether that was noticed in time.
fn is_caught(arguments: &Arguments, product: Product, nodes: usize, seed: u64) -> anyhow::Result<bool> {
    let name = match &product {
        Product::Planted(_, fault) => format!("the planted fault {fault}"),
        _ => "redis-server".to_owned(),
    };
    let mut run = Run::new(arguments, product, nodes, seed)?;
    let limit = Duration::from_secs(arguments.caught_within);
    while run.start.elapsed() < limit {
        for fault in [Fault::IsolateLeader, Fault::Kill] {
            let verdict = run.phase(fault, 12)?;
            if let Some(violation) = verdict.damage() {
                let short: String = violation.chars().take(300).collect();
                println!(
                    "{name} is caught after {} s, under {}: {short}",
                    run.start.elapsed().as_secs(),
                    fault.name()
                );
                return Ok(true);
            }
        }
    }
    println!("{name} is NOT caught within {limit:?}: these tests find nothing");
    Ok(false)
}

fn perform(arguments: &Arguments) -> anyhow::Result<bool> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let mut good = true;
    if arguments.redis {
        good &= is_caught(arguments, Product::Redis, 6, seed)?;
    }
    if let Some(binary) = &arguments.planted {
        let binary = binary.canonicalize().with_context(|| format!("no server at {}", binary.display()))?;
        let is_chosen = |fault: &&str| arguments.planted_fault.iter().any(|chosen| chosen == *fault);
        let all = arguments.planted_fault.is_empty();
        for fault in PLANTED.into_iter().filter(|fault| all || is_chosen(fault)) {
            good &= is_caught(arguments, Product::Planted(binary.clone(), fault), 3, seed)?;
        }
    }
    if let Some(binary) = &arguments.moonraft {
        good &= matrix(arguments, binary, seed)?;
    }
    Ok(good)
}

fn main() -> ExitCode {
    match perform(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("partition: {error:#}");
            ExitCode::FAILURE
        }
    }
}
