//! The figures as markdown, beside what the project aims at.

use std::fmt;

use hdrhistogram::Histogram;

use crate::Options;
use crate::load::Measurement;
use crate::memory::{Memory, shape};
use crate::workload::{Acknowledgement, Workload};

/// At most Redis's CPU for a linearizable read.
const READ_CPU_RATIO_MAX: f64 = 1.0;
/// At most half of the CPU for a durable write.
const WRITE_CPU_RATIO_MAX: f64 = 0.5;
/// At least half as many durable writes again, unpipelined.
const WRITE_THROUGHPUT_RATIO_MIN: f64 = 1.5;
/// At most Redis's memory.
const MEMORY_RATIO_MAX: f64 = 1.0;

/// One comparison: a workload at a depth of pipeline against one rival.
pub struct Cell {
    workload: Workload,
    pipeline: usize,
    acknowledgement: Acknowledgement,
    /// One measurement a round.
    pub rival: Vec<Measurement>,
    /// One measurement a round.
    pub moonraft: Vec<Measurement>,
}

impl Cell {
    /// A cell without measurements.
    pub fn new(workload: Workload, pipeline: usize, acknowledgement: Acknowledgement) -> Self {
        Self { workload, pipeline, acknowledgement, rival: Vec::new(), moonraft: Vec::new() }
    }

    /// What is aimed at, and whether it is met. The kinder rival is no aim.
    fn aim(&self, cpu_ratio: f64, throughput_ratio: f64) -> String {
        if self.acknowledgement == Acknowledgement::WaitBatch {
            return "—".to_owned();
        }
        let cpu_max = if self.workload.is_write() { WRITE_CPU_RATIO_MAX } else { READ_CPU_RATIO_MAX };
        let mut aims = vec![verdict(cpu_ratio <= cpu_max, &format!("CPU ≤ {cpu_max}"))];
        if self.workload.is_write() && self.pipeline == 1 {
            let is_met = throughput_ratio >= WRITE_THROUGHPUT_RATIO_MIN;
            aims.push(verdict(is_met, &format!("rate ≥ {WRITE_THROUGHPUT_RATIO_MIN}")));
        }
        aims.join(", ")
    }
}

fn verdict(is_met: bool, aim: &str) -> String {
    format!("{aim} {}", if is_met { "met" } else { "**missed**" })
}

/// All rounds of one side as one.
struct Summary {
    throughput: f64,
    cpu_micros: f64,
    /// The cheapest and the dearest round.
    cpu_range: (f64, f64),
    latency: Histogram<u64>,
}

impl Summary {
    fn new(rounds: &[Measurement]) -> Self {
        let operations: u64 = rounds.iter().map(|round| round.operations).sum();
        let elapsed: f64 = rounds.iter().map(|round| round.elapsed.as_secs_f64()).sum();
        let cpu: f64 = rounds.iter().map(|round| round.cpu.as_secs_f64()).sum();
        let micros = rounds.iter().map(Measurement::cpu_micros);
        let mut latency = rounds[0].latency.clone();
        for round in &rounds[1..] {
            latency.add(&round.latency).expect("the histograms of all rounds resize themselves");
        }
        Self {
            throughput: operations as f64 / elapsed,
            cpu_micros: cpu * 1e6 / operations.max(1) as f64,
            cpu_range: (micros.clone().fold(f64::MAX, f64::min), micros.fold(0.0, f64::max)),
            latency,
        }
    }

    /// CPU, rate, p50, p99, as columns.
    fn columns(&self) -> String {
        let (low, high) = self.cpu_range;
        let millis = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e6;
        format!(
            "{:.2} ({low:.2}–{high:.2}) | {:.0} | {:.2} | {:.2}",
            self.cpu_micros,
            self.throughput,
            millis(0.5),
            millis(0.99),
        )
    }
}

/// Everything that was measured.
pub struct Report {
    options: Options,
    versions: String,
    /// In the order of measurement.
    pub cells: Vec<Cell>,
    /// If it was asked for.
    pub memory: Option<Memory>,
}

impl Report {
    /// An empty report.
    pub fn new(options: &Options, versions: String) -> Self {
        Self { options: options.clone(), versions, cells: Vec::new(), memory: None }
    }

    fn write_speed(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "| workload | pipeline | rival | side | CPU us/op (range) | op/s | p50 ms | p99 ms | \
             CPU ratio | rate ratio | aim |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        )?;
        for cell in &self.cells {
            let (rival, own) = (Summary::new(&cell.rival), Summary::new(&cell.moonraft));
            let cpu_ratio = own.cpu_micros / rival.cpu_micros;
            let throughput_ratio = own.throughput / rival.throughput;
            let Cell { workload, pipeline, acknowledgement, .. } = cell;
            let columns = rival.columns();
            let (side, against, aim) = match self.options.before {
                Some(_) => ("before", "another build".to_owned(), String::new()),
                None => ("Redis", acknowledgement.to_string(), cell.aim(cpu_ratio, throughput_ratio)),
            };
            writeln!(formatter, "| {workload} | {pipeline} | {against} | {side} | {columns} | | | |")?;
            let columns = own.columns();
            writeln!(
                formatter,
                "| | | | Moonraft | {columns} | {cpu_ratio:.2} | {throughput_ratio:.2} | {aim} |"
            )?;
        }
        Ok(())
    }

    fn write_memory(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(memory) = &self.memory else {
            return Ok(());
        };
        writeln!(
            formatter,
            "\nMemory of one process, {} keys ({}), bytes a key:\n\n\
             | | Redis | Moonraft (leader) | ratio | aim |\n\
             | --- | --- | --- | --- | --- |",
            memory.keys,
            shape(),
        )?;
        let (rival, own) = (memory.rival.resident, memory.moonraft.resident);
        let ratio = own / rival;
        let aim = verdict(ratio <= MEMORY_RATIO_MAX, &format!("≤ {MEMORY_RATIO_MAX}"));
        writeln!(formatter, "| resident | {rival:.0} | {own:.0} | {ratio:.2} | {aim} |")?;
        if let (Some(rival), Some(own)) = (memory.rival.used, memory.moonraft.used) {
            let ratio = own / rival;
            writeln!(formatter, "| `used_memory` | {rival:.0} | {own:.0} | {ratio:.2} | |")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { connections, rounds, seconds, .. } = self.options;
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        writeln!(
            formatter,
            "{}; {cores} cores; {connections} connections; {rounds} rounds of {seconds} s, \
             the sides in turns; CPU summed over all server processes.\n",
            self.versions,
        )?;
        self.write_speed(formatter)?;
        self.write_memory(formatter)
    }
}
