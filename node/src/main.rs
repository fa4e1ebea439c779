//! The command line of `moonraft`.
//!
//! Exit codes: 0 after a clean stop, 2 if it does not start (with one line on
//! standard error that says what to mend), 134 (abort) if a running node cannot
//! go on.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use moonraft::{
    config::{ClusterFile, settings::LOG_LEVELS},
    server::run,
};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Redis Cluster server that does not lose what it acknowledged.
#[derive(Parser)]
#[command(name = "moonraft", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run a whole cluster in one process, ready when it says so
    Dev {
        /// Nodes of the cluster
        #[arg(long, default_value_t = 3)]
        nodes: u32,
        /// Shards of the cluster
        #[arg(long, default_value_t = 3)]
        shards: u32,
        /// Client port of node 1, shard 0; node i, shard s is at 100 * (i - 1) + s above
        #[arg(long, default_value_t = 7001)]
        port: u16,
        /// Where the data is, a folder a node
        #[arg(long, default_value = "moonraft-data")]
        dir: PathBuf,
        /// A setting, as in the cluster file
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Run one node
    Server {
        /// The cluster file
        #[arg(long)]
        cluster: PathBuf,
        /// The number of this node in the file
        #[arg(long)]
        node: u64,
        /// Where the data of this node is
        #[arg(long)]
        dir: PathBuf,
        /// A setting, over the cluster file's
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Validate a cluster file
    Check {
        /// The cluster file
        #[arg(long)]
        cluster: PathBuf,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moonraft: {error}");
            ExitCode::from(2)
        }
    }
}

fn perform(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Dev { nodes, shards, port, dir, settings } => {
            let mut cluster = ClusterFile::local(nodes, shards, port).map_err(anyhow::Error::msg)?;
            set(&mut cluster, &settings)?;
            begin(&cluster);
            run::dev(&cluster, &dir)?;
        }
        Task::Server { cluster, node, dir, settings } => {
            let mut cluster = ClusterFile::read(&cluster)?;
            set(&mut cluster, &settings)?;
            begin(&cluster);
            run::server(&cluster, node, &dir)?;
        }
        Task::Check { cluster } => {
            let ClusterFile { name, shards, replicas, nodes, .. } = ClusterFile::read(&cluster)?;
            let file = cluster.display();
            let nodes = nodes.len();
            println!(
                "{file}: good: cluster '{name}', nodes: {nodes}, shards: {shards}, replicas of each: {replicas}"
            );
        }
    }
    Ok(())
}

/// Settings of the command line.
fn set(cluster: &mut ClusterFile, settings: &[String]) -> anyhow::Result<()> {
    for setting in settings {
        let Some((name, value)) = setting.split_once('=') else {
            anyhow::bail!(
                "--set takes a setting and its value, as in --set maxclients=5000, not '{setting}'"
            );
        };
        cluster
            .settings
            .set_at_start(name, value)
            .map_err(|error| anyhow::anyhow!("--set {setting}: {}", error.explain()))?;
    }
    Ok(())
}

/// Traces to standard error, and the end of the process if any thread of it fails:
/// what one thread could not go on with, the others must not build on.
fn begin(cluster: &ClusterFile) {
    let level = match LOG_LEVELS[cluster.settings.log_level] {
        "debug" => "debug",
        "verbose" => "info,moonraft=debug",
        "notice" => "warn,moonraft=info",
        "warning" => "warn",
        _ => "off",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
