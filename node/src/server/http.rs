//! Health, readiness and metrics over HTTP.
//!
//! Names of metrics are those of redis_exporter where it has one, so that the
//! dashboards people have show something; the rest is `moonraft_…`.
//!
//! Anybody may connect, so a connection is for one request, for a short time, and the oldest
//! gives way when there are too many: who asks properly is answered whoever else is there.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{process, shared::NodeShared};
use crate::consensus::{GroupStatus, Role, ShardId};

/// After the system had no descriptor for a connection, the next is awaited so much later.
const RETRY: Duration = Duration::from_millis(100);

/// What who asks for pages may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; the oldest is closed for one more.
    pub connections: usize,
    /// Until its headers are there.
    pub header: Duration,
    /// Until its answer has left.
    pub request: Duration,
}

impl Limits {
    /// With so many connections.
    pub const fn of(connections: usize) -> Self {
        // More than any prober waits.
        Self { connections, header: Duration::from_secs(5), request: Duration::from_secs(10) }
    }
}

/// Serves the pages to those who connect.
pub async fn serve(listener: TcpListener, pages: Router, limits: Limits) {
    let mut open = VecDeque::<AbortHandle>::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= limits.connections
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(tokio::spawn(answer(stream, pages.clone(), limits)).abort_handle());
            }
            Err(error) => {
                tracing::warn!("a connection for HTTP could not be accepted: {error}");
                sleep(RETRY).await;
            }
        }
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, pages: Router, limits: Limits) {
    let mut protocol = hyper::server::conn::http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(limits.header).keep_alive(false);
    let served = protocol.serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    // Whoever did not ask properly, or in time, is not owed an answer.
    let _ = timeout(limits.request, served).await;
}

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
    let facts = process::facts(0);
    let one = |value: f64| vec![(String::new(), value)];
    let cpu = facts.cpu_seconds;
    family(&mut text, "redis_up", "gauge", "The node answers.", &one(1.0));
    let used = one(facts.used_bytes as f64);
    family(&mut text, "redis_memory_used_bytes", "gauge", "Bytes that are taken of the allocator.", &used);
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
    let each = |value: &dyn Fn(&super::replicas::ReplicaHandle) -> u64| {
        let sample =
            |(shard, replica): (&ShardId, &Arc<_>)| (format!("{{shard=\"{shard}\"}}"), value(replica) as f64);
        node.replicas.all().iter().map(sample).collect::<Vec<_>>()
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const HALF: &[u8] = b"GET / HTTP/1.1\r\nx: ";

    /// A server of one page, and what connects to it.
    async fn served(limits: Limits) -> impl AsyncFn(&[u8]) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Router::new().route("/", get(|| async { "page" })), limits));
        async move |request: &[u8]| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request).await.unwrap();
            stream
        }
    }

    /// What comes until the connection is closed; a connection that was dropped gave nothing.
    async fn all(mut stream: TcpStream) -> String {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn the_oldest_connection_gives_way_to_who_asks_properly() {
        let long = Duration::from_secs(600);
        let connect = served(Limits { connections: 3, header: long, request: long }).await;
        let mut halves = Vec::new();
        for _ in 0..8 {
            halves.push(connect(HALF).await);
        }
        let page = all(connect(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await).await;
        assert!(page.starts_with("HTTP/1.1 200") && page.ends_with("page"), "{page}");
        // Six of the nine connections gave way, these first.
        for half in halves.drain(..6) {
            assert_eq!(all(half).await, "");
        }
        // The others are still listened to.
        for mut half in halves {
            half.write_all(b"y\r\n\r\n").await.unwrap();
            assert!(all(half).await.ends_with("page"));
        }
    }

    #[tokio::test]
    async fn headers_that_do_not_come_and_answers_that_are_not_read_end_the_connection() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(600));
        let connect = served(Limits { connections: 3, header: short, request: long }).await;
        assert_eq!(all(connect(HALF).await).await, "");
        let connect = served(Limits { connections: 3, header: long, request: short }).await;
        assert_eq!(all(connect(HALF).await).await, "");
        assert_eq!(all(connect(b"").await).await, "");
    }
}
