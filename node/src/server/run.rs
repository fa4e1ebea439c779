//! Whole processes: start nodes, say when they are ready, stop them when asked.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    descriptors,
    node::{self, RunningNode, StartError},
    process,
    stop::Signals,
};
use crate::{
    config::{ClusterFile, NodeEntry},
    shard::PlantedFault,
};

/// How often readiness is looked at.
const READY_STEP: Duration = Duration::from_millis(5);

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
    process::note_start();
    let replicas = crate::control::Topology::new(cluster.clone()).shards_of(id).count() as u64;
    descriptors::raise(replicas)?;
    let signals = Signals::heed()?;
    let running = node::bind(cluster, id)?.with_fault(fault).open(directory)?.start()?;
    descriptors::warn_of_few(cluster.settings.clients_max, replicas);
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
    wait_for_the_end(&signals, std::slice::from_ref(&running), &ready);
    running.hand_over(running.times().hand_over);
    node::stop(vec![running]);
    Ok(())
}

/// Runs a whole cluster in this process until it is told to stop.
///
/// # Errors
/// One of its nodes does not start.
pub fn dev(cluster: &ClusterFile, directory: &Path) -> Result<(), StartError> {
    process::note_start();
    let replicas = u64::from(cluster.shards) * u64::from(cluster.replicas);
    descriptors::raise(replicas)?;
    let signals = Signals::heed()?;
    let bound =
        cluster.nodes.iter().map(|entry| node::bind(cluster, entry.id)).collect::<Result<Vec<_>, _>>()?;
    let mut prepared = Vec::new();
    for (entry, bound) in cluster.nodes.iter().zip(bound) {
        prepared.push(bound.open(&node_directory(directory, entry.id))?);
    }
    let running = prepared.into_iter().map(node::Prepared::start).collect::<Result<Vec<_>, _>>()?;
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
    wait_for_the_end(&signals, &running, &ready);
    // All nodes stop, so there is nobody to hand a leadership to.
    node::stop(running);
    Ok(())
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

/// Says when the nodes are ready, and waits until they are to stop: from then on they say that they are not.
fn wait_for_the_end(signals: &Signals, nodes: &[RunningNode], ready: &str) {
    signals.begin(nodes.iter().map(RunningNode::watched).collect());
    let is_asked = loop {
        if nodes.iter().all(RunningNode::is_ready) {
            break false;
        }
        if signals.wait_for(READY_STEP) {
            break true;
        }
    };
    if !is_asked {
        // Who started us may have closed its end: the cluster serves all the same.
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{ready}").and_then(|()| stdout.flush());
        drop(stdout);
        signals.wait();
    }
    nodes.iter().for_each(RunningNode::begin_stop);
    tracing::info!("stopping");
}
