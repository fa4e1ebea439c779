//! Runs seeds of the simulator, or replays one.
//!
//! ```text
//! simulate                    1000 seeds from 1
//! simulate --seeds 100000     so many
//! simulate --seed 42          this one only
//! simulate --fault undo-skipped --seeds 500
//! ```

#![allow(clippy::disallowed_methods, reason = "it tells how long it took")]

use std::time::Instant;

use clap::{Parser, ValueEnum};
use moonraft_tests::{Fault, Settings, run};

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
    fault: Option<FaultName>,
}

#[derive(Clone, Copy, ValueEnum)]
enum FaultName {
    ReplyBeforeCommit,
    LeaseWithoutMargin,
    VoteAfterRestart,
    UndoSkipped,
    EffectDropped,
}

impl From<FaultName> for Fault {
    fn from(name: FaultName) -> Self {
        match name {
            FaultName::ReplyBeforeCommit => Fault::ReplyBeforeCommit,
            FaultName::LeaseWithoutMargin => Fault::LeaseWithoutMargin,
            FaultName::VoteAfterRestart => Fault::VoteAfterRestart,
            FaultName::UndoSkipped => Fault::UndoSkipped,
            FaultName::EffectDropped => Fault::EffectDropped,
        }
    }
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from, arguments.seeds),
    };
    let began = Instant::now();
    let (mut answered, mut unknown, mut virtual_ms, mut faults) = (0, 0, 0, 0);
    for seed in first..first + count {
        let settings =
            Settings { seed, faulty_ms: arguments.faulty_ms, fault: arguments.fault.map(Fault::from) };
        match run(&settings) {
            Ok(report) => {
                answered += report.answered;
                unknown += report.unknown;
                virtual_ms += report.virtual_ms;
                faults += report.faults;
            }
            Err(text) => {
                eprintln!("seed {seed} (version {}): {text}", env!("CARGO_PKG_VERSION"));
                return std::process::ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{count} seeds, {answered} operations answered, {unknown} with unknown outcome, {faults} faults, \
         {:.1} virtual hours in {:.1} s: no violation",
        virtual_ms as f64 / 3.6e6,
        began.elapsed().as_secs_f64()
    );
    std::process::ExitCode::SUCCESS
}
