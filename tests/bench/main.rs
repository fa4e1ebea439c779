//! Moonraft beside Redis, on the same load, in the same run.
//!
//! Both are started here, on this machine, and asked in turns (A B A B …), so
//! that noise of the machine hits both. What counts most is CPU time an
//! operation, summed over all server processes: it is steady where wall time is
//! not. The generator is this process, and its CPU is not counted.
//!
//! * Reads: `GET` from one Redis Cluster master, and from a leader of Moonraft.
//! * Durable writes: Redis with two replicas, `appendfsync always` on all, each
//!   write followed by `WAIT 2 0`; Moonraft as it is, three processes, one shard.
//! * Memory: what a million keys add to one process.
//!
//! Standard output is markdown for `docs/performance.md`; progress goes to stderr.

// `Instant` and friends are banned from the core, which this is not.
#![allow(clippy::disallowed_methods)]

mod load;
mod memory;
mod report;
mod servers;
mod wire;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use crate::load::{Load, Measurement};
use crate::report::{Cell, Report};
use crate::servers::{Machine, System};
use crate::workload::{Acknowledgement, Workload};

/// Measures Moonraft and Redis in one run, and prints the ratios as markdown.
#[derive(Parser, Clone)]
pub struct Options {
    /// The server under test.
    #[arg(long, required_unless_present = "rival_only")]
    moonraft_binary: Option<PathBuf>,
    /// Redis's server.
    #[arg(long, default_value = "redis-server")]
    redis_binary: PathBuf,
    /// Where servers keep their data: a folder on the disk to be measured.
    #[arg(long, default_value = "bench-data")]
    dir: PathBuf,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Seconds before each measurement in which nothing is counted.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// How often each side is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections of the generator.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests sent together on a connection; several values make several rows.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    pipeline: Vec<usize>,
    /// Keys that GET and SET choose from.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Keys of the memory measurement; 0 leaves it out.
    #[arg(long, default_value_t = 1_000_000)]
    memory_keys: u64,
    /// Only these workloads.
    #[arg(long, value_delimiter = ',', default_value = "get,set,evalsha")]
    workloads: Vec<Workload>,
    /// Another build of Moonraft, in Redis's place: what a change costs. Of memory it says nothing.
    #[arg(long, conflicts_with = "rival_only")]
    before: Option<PathBuf>,
    /// Puts a second Redis in Moonraft's place, which shows that the bench is fair.
    #[arg(long, hide = true)]
    rival_only: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    std::fs::create_dir_all(&options.dir).with_context(|| format!("making {}", options.dir.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let machine = Machine::new(&options)?;
    let mut report = Report::new(&options, machine.versions()?);

    if options.memory_keys > 0 && options.before.is_none() {
        report.memory = Some(memory::measure(&machine, &options, &runtime)?);
    }
    measure_speed(&machine, &options, &runtime, &mut report)?;
    print!("{report}");
    Ok(())
}

/// Fills the report's cells: every workload at every depth of pipeline.
fn measure_speed(
    machine: &Machine,
    options: &Options,
    runtime: &tokio::runtime::Runtime,
    report: &mut Report,
) -> anyhow::Result<()> {
    let moonraft = machine.moonraft()?;
    let rivals = match &options.before {
        Some(binary) => Rivals::Before(machine.moonraft_before(binary)?),
        None => Rivals::Redis { master: machine.redis_master()?, durable: machine.redis_durable()? },
    };

    for &workload in &options.workloads {
        for &pipeline in &options.pipeline {
            for (rival, waits) in rivals.of(workload, pipeline) {
                // A reply of Moonraft is durable; with Redis in its place it is not.
                let ours = if options.rival_only { waits } else { Acknowledgement::Reply };
                let mut cell = Cell::new(workload, pipeline, waits);
                for round in 1..=options.rounds {
                    let load = |acknowledgement| Load::new(options, workload, pipeline, acknowledgement);
                    cell.rival.push(run(runtime, rival, &load(waits), round)?);
                    cell.moonraft.push(run(runtime, &moonraft, &load(ours), round)?);
                }
                report.cells.push(cell);
            }
        }
    }
    Ok(())
}

/// Whom to compare with.
enum Rivals {
    Redis { master: System, durable: System },
    Before(System),
}

impl Rivals {
    /// Those for a kind of load, and how a write is made durable there.
    fn of(&self, workload: Workload, pipeline: usize) -> Vec<(&System, Acknowledgement)> {
        let (master, durable) = match self {
            Self::Before(before) => return vec![(before, Acknowledgement::Reply)],
            Self::Redis { master, durable } => (master, durable),
        };
        if !workload.is_write() {
            return vec![(master, Acknowledgement::Reply)];
        }
        let mut rivals = vec![(durable, Acknowledgement::WaitEach)];
        if pipeline > 1 {
            // Kinder to Redis, and what a careful application would write.
            rivals.push((durable, Acknowledgement::WaitBatch));
        }
        rivals
    }
}

/// One measurement of one side.
fn run(
    runtime: &tokio::runtime::Runtime,
    system: &System,
    load: &Load,
    round: usize,
) -> anyhow::Result<Measurement> {
    let what = format!("{load} on {}, round {round}", system.name);
    let measurement = load.run(runtime, system).with_context(|| what.clone())?;
    eprintln!("{what}: {measurement}");
    Ok(measurement)
}

/// Seconds of an option as a duration.
fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value.max(0.0))
}
