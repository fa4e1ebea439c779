//! Whole processes: start nodes, say when they are ready, stop them when asked.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    descriptors, facts,
    node::{self, RunningNode, StartError},
};
use crate::{
    config::{ClusterFile, NodeEntry},
    shard::PlantedFault,
};

/// How often readiness is looked at.
const READY_STEP: Duration = Duration::from_millis(5);
/// Shells' code for a process that an interrupt ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Runs one node of a cluster until it is told to stop.
///
/// # Errors
/// It does not start.
pub fn server(cluster: &ClusterFile, id: u64, directory: &Path) -> Result<(), StartError> {
    server_with_fault(cluster, id, directory, None)
}

/// The same, with a promise that its shards break on purpose: for the tests that must notice.
///
/// # Errors
/// It does not start.
pub fn server_with_fault(
    cluster: &ClusterFile,
    id: u64,
    directory: &Path,
    fault: Option<PlantedFault>,
) -> Result<(), StartError> {
    facts::note_start();
    descriptors::raise();
    let running = node::bind(cluster, id)?.with_fault(fault).open(directory)?.start()?;
    let topology = crate::control::Topology::new(cluster.clone());
    descriptors::warn_of_few(cluster.settings.clients_max, topology.shards_of(id).count() as u64);
    let entry = cluster.node(id).expect("a node that was bound is in the file");
    let shards = cluster.shards;
    let ready = format!(
        "ready: node {id} of cluster '{}', {shards} shards; clients {}, http {}:{}; connect with: {}",
        cluster.name,
        client_addresses(cluster, entry),
        entry.announce,
        entry.http_port,
        connect(entry),
    );
    let limit = Duration::from_secs(cluster.settings.shutdown_seconds);
    until_stopped(vec![running], &ready, move |nodes| {
        for node in &nodes {
            node.hand_over(limit);
        }
        node::stop(nodes);
    })
}

/// Runs a whole cluster in this process until it is told to stop.
///
/// # Errors
/// One of its nodes does not start.
pub fn dev(cluster: &ClusterFile, directory: &Path) -> Result<(), StartError> {
    facts::note_start();
    descriptors::raise();
    let bound =
        cluster.nodes.iter().map(|entry| node::bind(cluster, entry.id)).collect::<Result<Vec<_>, _>>()?;
    let mut prepared = Vec::new();
    for (entry, bound) in cluster.nodes.iter().zip(bound) {
        prepared.push(bound.open(&node_directory(directory, entry.id))?);
    }
    let running = prepared.into_iter().map(node::Prepared::start).collect::<Result<Vec<_>, _>>()?;
    let replicas = u64::from(cluster.shards) * u64::from(cluster.replicas);
    descriptors::warn_of_few(cluster.settings.clients_max, replicas);
    let addresses: Vec<String> = cluster.nodes.iter().map(|entry| client_addresses(cluster, entry)).collect();
    let ready = format!(
        "ready: cluster '{}', {} nodes, {} shards; clients {}; connect with: {}",
        cluster.name,
        cluster.nodes.len(),
        cluster.shards,
        addresses.join(" "),
        connect(&cluster.nodes[0]),
    );
    // All nodes stop, so there is nobody to hand a leadership to.
    until_stopped(running, &ready, node::stop)
}

fn node_directory(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("node-{id}"))
}

fn client_addresses(cluster: &ClusterFile, entry: &NodeEntry) -> String {
    let topology = crate::control::Topology::new(cluster.clone());
    let addresses = |host: &str, port: u16| {
        let address = |shard: u32| format!("{host}:{}", u32::from(port) + shard);
        topology.shards_of(entry.id).map(address).collect::<Vec<_>>().join(" ")
    };
    let inside = addresses(&entry.announce, entry.port);
    match &entry.outside {
        Some(outside) => format!("{inside}, from outside {}", addresses(&outside.host, outside.port)),
        None => inside,
    }
}

fn connect(entry: &NodeEntry) -> String {
    match entry.announce.as_str() {
        "127.0.0.1" | "localhost" => format!("redis-cli -c -p {}", entry.port),
        host => format!("redis-cli -c -h {host} -p {}", entry.port),
    }
}

/// Says when the nodes are ready; at SIGINT or SIGTERM stops them; at a second one ends at once.
fn until_stopped(
    nodes: Vec<RunningNode>,
    ready: &str,
    stop: impl FnOnce(Vec<RunningNode>) + Send + 'static,
) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
        tokio::select! {
            () = any(&mut signals) => {}
            () = tell_ready(&nodes, ready) => any(&mut signals).await,
        }
        tracing::info!("stopping");
        let stopped = tokio::task::spawn_blocking(move || stop(nodes));
        tokio::select! {
            stopped = stopped => stopped.map_err(std::io::Error::other)?,
            () = any(&mut signals) => std::process::exit(EXIT_INTERRUPTED),
        }
        Ok(())
    })
}

async fn any([first, second]: &mut [Signal; 2]) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}

async fn tell_ready(nodes: &[RunningNode], ready: &str) {
    while !nodes.iter().all(RunningNode::is_ready) {
        tokio::time::sleep(READY_STEP).await;
    }
    // Who started us may have closed its end: the cluster serves all the same.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{ready}").and_then(|()| stdout.flush());
}
