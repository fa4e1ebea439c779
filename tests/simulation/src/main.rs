//! Runs seeds of the simulator, or replays one.
//!
//! ```text
//! simulate                    1000 seeds from 1
//! simulate --seeds 100000     so many
//! simulate --seed 42          this one only
//! simulate --fault undo-skipped --seeds 500
//! ```

#![allow(clippy::disallowed_methods, reason = "it tells how long it took")]

use std::{collections::BTreeMap, time::Instant};

use clap::Parser;
use moonraft_tests::{Fault, Report, Settings, marks, run};

#[derive(Parser)]
#[command(about = "Runs a whole Moonraft cluster in one thread from one seed, and checks what clients saw.")]
struct Arguments {
    /// Run this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Virtual milliseconds with faults, in each run.
    #[arg(long, default_value_t = 5000)]
    faulty_ms: u64,
    /// Break a promise of the product on purpose, to see it found.
    #[arg(long)]
    fault: Option<Fault>,
    /// Tell what came of each seed.
    #[arg(long)]
    reports: bool,
    /// Only weather in which nothing but leases stands between clients and a stale read
    #[arg(long)]
    lease_weather: bool,
    /// Go on after a violation.
    #[arg(long)]
    go_on: bool,
}

/// At most one seed in so many may be too entangled to be checked.
const UNDECIDED_ONE_IN: u64 = 500;

/// What came of all seeds.
#[derive(Default)]
struct Sum {
    answered: usize,
    unknown: usize,
    virtual_ms: u64,
    faults: usize,
    /// For each mark: in how many seeds it was reached, and how often in all.
    marks: BTreeMap<&'static str, (u64, u64)>,
    violations: u64,
    /// Seeds with a key whose history is too entangled to be checked.
    undecided: Vec<u64>,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.answered += report.answered;
        self.unknown += report.unknown;
        self.virtual_ms += report.virtual_ms;
        self.faults += report.faults;
        for (name, count) in &report.marks {
            let (seeds, times) = self.marks.entry(*name).or_default();
            *seeds += 1;
            *times += count;
        }
    }

    fn print(&self, seeds: u64, took: f64) {
        if cfg!(debug_assertions) {
            println!("{:>8} {:>10}  path taken", "seeds", "times");
            for name in marks::ALL {
                let (seeds, times) = self.marks.get(name).copied().unwrap_or_default();
                println!("{seeds:>8} {times:>10}  {name}");
            }
        }
        println!(
            "{seeds} seeds, {} operations answered, {} with unknown outcome, {} faults, \
             {:.1} virtual hours in {took:.1} s: {} violations, undecided seeds {:?}",
            self.answered,
            self.unknown,
            self.faults,
            self.virtual_ms as f64 / 3.6e6,
            self.violations,
            self.undecided,
        );
    }
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from, arguments.seeds),
    };
    let began = Instant::now();
    let mut sum = Sum::default();
    for seed in first..first + count {
        let settings = Settings {
            seed,
            faulty_ms: arguments.faulty_ms,
            fault: arguments.fault,
            lease_weather: arguments.lease_weather,
        };
        match run(&settings) {
            Ok(report) => {
                if arguments.reports {
                    println!("seed {seed}: {report:?}");
                }
                if report.undecided > 0 {
                    sum.undecided.push(seed);
                }
                sum.add(&report);
            }
            Err(text) => {
                eprintln!("seed {seed} (version {}): {text}", env!("CARGO_PKG_VERSION"));
                sum.violations += 1;
                if !arguments.go_on {
                    return std::process::ExitCode::FAILURE;
                }
            }
        }
    }
    sum.print(count, began.elapsed().as_secs_f64());
    let too_many = sum.undecided.len() as u64 * UNDECIDED_ONE_IN > count;
    if sum.violations == 0 && !too_many {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}
