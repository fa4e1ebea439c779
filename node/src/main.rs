//! The command line of `moonraft`.
//!
//! Exit codes: 0 after a clean stop, 1 after one that did not end in its time, 2 if it does not start, finds that it
//! lost entries, or can no longer read what a newer build writes (with one line on standard error that says what to
//! mend), 71 (`EX_OSERR` of sysexits.h) if no descriptor is left for a file of its data, 74 (`EX_IOERR`) if the disk
//! fails under a running node, 130 if a second signal ended it, 134 (abort) if it cannot go on for another reason.
//! `moonraft health` ends with 1 if the node is not ready.
//!
//! Where a container's image or a unit file should say it once, the environment may
//! stand for `--cluster`, `--node` and `--dir`.

use std::{any::Any, io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use moonraft::{
    config::{ClusterFile, settings::LOG_LEVELS},
    log::{Fatal, lacks_descriptors, said},
    server::{descriptors, health, node::StartError, rebuild, run},
};
use tracing_subscriber::EnvFilter;

/// The disk has failed or is full; a supervisor may start the node again once it is not.
const EXIT_DISK: i32 = 74;
/// The system lacks what the process needs: descriptors (`EX_OSERR` of sysexits).
const EXIT_SYSTEM: i32 = 71;
/// It cannot run as it is told, with the data that are there.
const EXIT_REFUSED: i32 = 2;

#[global_allocator]
static ALLOCATOR: moonraft_allocator::Counting = moonraft_allocator::Counting;

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
        #[arg(long, env = "MOONRAFT_CLUSTER")]
        cluster: PathBuf,
        /// The number of this node in the file
        #[arg(long, env = "MOONRAFT_NODE")]
        node: u64,
        /// Where the data of this node is
        #[arg(long, env = "MOONRAFT_DIR")]
        dir: PathBuf,
        /// A setting, over the cluster file's
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Set the data of a damaged node aside, so that it is rebuilt from its peers at its next start
    Rebuild {
        /// The cluster file
        #[arg(long)]
        cluster: PathBuf,
        /// The number of the node in the file
        #[arg(long)]
        node: u64,
        /// Where the data of the node is
        #[arg(long)]
        dir: PathBuf,
    },
    /// Ask the node on this machine whether it is ready: exit code 0, or 1 if not
    Health {
        /// The cluster file
        #[arg(long, env = "MOONRAFT_CLUSTER")]
        cluster: PathBuf,
        /// The number of this node in the file
        #[arg(long, env = "MOONRAFT_NODE")]
        node: u64,
    },
    /// Validate a cluster file
    Check {
        /// The cluster file
        #[arg(long, env = "MOONRAFT_CLUSTER")]
        cluster: PathBuf,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("moonraft: {error}");
            ExitCode::from(EXIT_REFUSED as u8)
        }
    }
}

fn perform(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Dev { nodes, shards, port, dir, settings } => {
            let mut cluster = ClusterFile::local(nodes, shards, port).map_err(anyhow::Error::msg)?;
            set(&mut cluster, &settings)?;
            let way_out = rebuild::way_out_of_dev(&cluster, &dir);
            begin(&cluster, &way_out);
            run::dev(&cluster, &dir).map_err(|error| with_way_out(error, &way_out))?;
        }
        Task::Server { cluster, node, dir, settings } => {
            let file = cluster;
            let mut cluster = ClusterFile::read(&file)?;
            set(&mut cluster, &settings)?;
            let way_out = rebuild::way_out(&cluster, &file, node, &dir);
            begin(&cluster, &way_out);
            run::server(&cluster, node, &dir).map_err(|error| with_way_out(error, &way_out))?;
        }
        Task::Rebuild { cluster, node, dir } => {
            let cluster = ClusterFile::read(&cluster)?;
            println!("{}", rebuild::rebuild(&cluster, node, &dir)?);
        }
        Task::Health { cluster, node } => {
            let answer = health::ask(&ClusterFile::read(&cluster)?, node)?;
            println!("{answer}");
            if answer != health::Answer::Ready {
                return Ok(ExitCode::FAILURE);
            }
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
    Ok(ExitCode::SUCCESS)
}

/// Why a node does not start, and what to do if that is because it has lost something.
fn with_way_out(error: StartError, way_out: &str) -> anyhow::Error {
    if error.is_damage() { anyhow::anyhow!("{error}. {way_out}") } else { error.into() }
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

/// Whether traces are in colour: only for eyes at a terminal, unless they say no (no-color.org). In a file or at a
/// collector of logs the codes would stand between the words that are searched for.
fn wants_colour() -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !is_unwanted
}

/// Traces to standard error, and the end of the process if any thread of it fails:
/// what one thread could not go on with, the others must not build on. `way_out`: what to do if something is lost.
fn begin(cluster: &ClusterFile, way_out: &str) {
    let level = match LOG_LEVELS[cluster.settings.log_level] {
        "debug" => "debug",
        "verbose" => "info,moonraft=debug",
        "notice" => "warn,moonraft=info",
        "warning" => "warn",
        _ => "off",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let traces = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    traces.with_ansi(wants_colour()).init();
    let (report, way_out) = (std::panic::take_hook(), way_out.to_owned());
    std::panic::set_hook(Box::new(move |panic| {
        if let Some((line, code)) = known_end(panic.payload(), &way_out) {
            eprintln!("moonraft: {line}");
            code.map_or_else(|| std::process::abort(), |code| std::process::exit(code))
        }
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            report(panic);
        }
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("?");
        let message = said(panic.payload());
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!(
            "moonraft: thread {thread} failed at {place}: {}. This is a mistake in Moonraft, please report it; what was acknowledged is on the disks, and the node may be started again",
            message.replace('\n', "; ")
        );
        std::process::abort();
    }));
}

/// What to say, and the exit code, if it is known why a thread cannot go on; without a code the process aborts.
fn known_end(payload: &(dyn Any + Send), way_out: &str) -> Option<(String, Option<i32>)> {
    Some(match Fatal::of(payload)? {
        Fatal::Disk(line) if lacks_descriptors(&line) => {
            let limit = descriptors::limit();
            let line = format!(
                "no descriptor is left for a file of the data: {line}. Nothing is wrong with the disk: of {limit} descriptors all are taken; raise the limit of open files (ulimit -n, LimitNOFILE) and start the node again"
            );
            (line, Some(EXIT_SYSTEM))
        }
        Fatal::Disk(line) => (format!("the disk has failed: {line}"), Some(EXIT_DISK)),
        Fatal::Newer(line) => (line, Some(EXIT_REFUSED)),
        Fatal::Lost(line) => (format!("{line}. {way_out}"), Some(EXIT_REFUSED)),
        Fatal::Senseless(line) => (format!("{line}; this node cannot go on"), None),
    })
}
