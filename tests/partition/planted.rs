//! A node that breaks a promise on purpose, to show that the partition tests notice.
//!
//! It is the server of `moonraft server` with one fault of [`PlantedFault`]; the
//! shipped binary has no way to ask for it.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use moonraft::{config::ClusterFile, server::run, shard::PlantedFault};

#[derive(Parser)]
struct Arguments {
    /// The promise to break.
    #[arg(long)]
    fault: FaultName,
    #[arg(long)]
    cluster: PathBuf,
    #[arg(long)]
    node: u64,
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum FaultName {
    ReplyBeforeCommit,
    UndoSkipped,
    EffectDropped,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let fault = match arguments.fault {
        FaultName::ReplyBeforeCommit => PlantedFault::ReplyBeforeCommit,
        FaultName::UndoSkipped => PlantedFault::UndoSkipped,
        FaultName::EffectDropped => PlantedFault::EffectDropped,
    };
    let cluster = ClusterFile::read(&arguments.cluster)?;
    Ok(run::server_with_fault(&cluster, arguments.node, &arguments.dir, Some(fault))?)
}
