//! Health, readiness and metrics over HTTP.
//!
//! Names of metrics are those of redis_exporter where it has one, so that the
//! dashboards people have show something; the rest is `moonraft_…`.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, sync::atomic::Ordering};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use super::{facts, shared::NodeShared};
use crate::consensus::{GroupStatus, Role, ShardId};

/// The pages of a node.
pub fn router(node: Arc<NodeShared>) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(node)
}

/// 200 once every replica here knows a leader that serves, and until the node is told to stop.
async fn ready(State(node): State<Arc<NodeShared>>) -> impl IntoResponse {
    if node.is_stopping.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("node {} stops\n", node.node));
    }
    match node.awaited() {
        None if node.is_ready() => (StatusCode::OK, "ready\n".to_owned()),
        None => (StatusCode::SERVICE_UNAVAILABLE, "a shard here has no leader that serves\n".to_owned()),
        Some(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")),
    }
}

async fn metrics(State(node): State<Arc<NodeShared>>) -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content_type, render(&node))
}

/// One family of metrics in the text format of Prometheus.
fn family(text: &mut String, name: &str, kind: &str, help: &str, samples: &[(String, f64)]) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

fn render(node: &NodeShared) -> String {
    let mut text = String::new();
    let facts = facts::gather(0);
    let one = |value: f64| vec![(String::new(), value)];
    let cpu = facts.cpu_seconds;
    family(&mut text, "redis_up", "gauge", "The node answers.", &one(1.0));
    let resident = one(facts.resident_bytes as f64);
    family(&mut text, "redis_memory_used_rss_bytes", "gauge", "Resident bytes of the process.", &resident);
    family(
        &mut text,
        "redis_total_system_memory_bytes",
        "gauge",
        "Bytes of the machine.",
        &one(facts.total_bytes as f64),
    );
    family(&mut text, "redis_cpu_user_seconds_total", "counter", "Processor time in user mode.", &one(cpu.0));
    family(&mut text, "redis_cpu_sys_seconds_total", "counter", "Processor time in the kernel.", &one(cpu.1));
    let each = |value: &dyn Fn(&super::shared::ReplicaHandle) -> u64| {
        let sample = |(shard, replica)| (format!("{{shard=\"{shard}\"}}"), value(replica) as f64);
        node.replicas.iter().map(sample).collect::<Vec<_>>()
    };
    let clients = each(&|replica| replica.figures.clients.load(Ordering::Relaxed));
    family(&mut text, "redis_connected_clients", "gauge", "Connections of a replica.", &clients);
    let applied = each(&|replica| replica.progress.index());
    family(&mut text, "moonraft_raft_applied_index", "gauge", "The last applied entry.", &applied);
    let serving = each(&|replica| u64::from(replica.figures.is_serving.load(Ordering::Relaxed)));
    family(&mut text, "moonraft_raft_serving", "gauge", "The replica leads and serves.", &serving);
    render_consensus(&mut text, node);
    text
}

/// Who belongs to the groups: node and life of its disk, and as what.
fn render_members(text: &mut String, groups: &BTreeMap<ShardId, GroupStatus>) {
    let mut samples = Vec::new();
    for (shard, status) in groups {
        let members = &status.members;
        let lists =
            [("voter", &members.voters), ("outgoing", &members.outgoing), ("learner", &members.learners)];
        for (role, id) in lists.iter().flat_map(|(role, ids)| ids.iter().map(move |id| (role, id))) {
            let (node, life) = (id.node(), id.incarnation());
            let labels =
                format!("{{shard=\"{shard}\",node=\"{node}\",incarnation=\"{life}\",role=\"{role}\"}}");
            samples.push((labels, 1.0));
        }
    }
    family(
        text,
        "moonraft_raft_member",
        "gauge",
        "Members of a group: a node in a life of its disk.",
        &samples,
    );
}

fn render_consensus(text: &mut String, node: &NodeShared) {
    let figures = &node.figures;
    let groups = figures.groups.lock().expect("no thread panics holding it").clone();
    let each = |value: &dyn Fn(&GroupStatus) -> u64| {
        let sample = |(shard, status)| (format!("{{shard=\"{shard}\"}}"), value(status) as f64);
        groups.iter().map(sample).collect::<Vec<_>>()
    };
    let leads = each(&|status| u64::from(status.role == Role::Leader));
    family(text, "moonraft_raft_leader", "gauge", "The replica leads.", &leads);
    family(text, "moonraft_raft_term", "gauge", "The term.", &each(&|status| status.term));
    family(
        text,
        "moonraft_raft_committed_index",
        "gauge",
        "The last committed entry.",
        &each(&|status| status.committed),
    );
    family(
        text,
        "moonraft_raft_last_index",
        "gauge",
        "The last entry of the log.",
        &each(&|status| status.last),
    );
    family(
        text,
        "moonraft_raft_snapshot_index",
        "gauge",
        "The last entry in the newest snapshot.",
        &each(&|status| status.snapshot),
    );
    render_members(text, &groups);
    let one = |value: f64| vec![(String::new(), value)];
    let writes = figures.writes.load(Ordering::Relaxed) as f64;
    let seconds = figures.write_ns.load(Ordering::Relaxed) as f64 / 1e9;
    family(
        text,
        "moonraft_log_writes_total",
        "counter",
        "Writes of the log, each with an fsync.",
        &one(writes),
    );
    family(text, "moonraft_log_write_seconds_total", "counter", "Time they took.", &one(seconds));
    let room = node.disk.room();
    let levels = one(f64::from(room as u8));
    let help = "Room of the disk: 0 enough, 1 short (min-free-disk), 2 next to none.";
    family(text, "moonraft_disk_shortage", "gauge", help, &levels);
    let free = one(node.disk.free_bytes() as f64);
    family(text, "moonraft_disk_free_bytes", "gauge", "Free bytes of the data directory's disk.", &free);
    let bytes = figures.log_bytes.load(Ordering::Relaxed) as f64;
    family(text, "moonraft_log_bytes", "gauge", "Bytes of the log's files.", &one(bytes));
}
