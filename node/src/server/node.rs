//! One node: its threads, put together, and taken apart again.
//!
//! [`bind`] touches what can refuse a start, in this order: ports, then the data
//! directory, then the log. So a start that is refused has changed nothing.

use std::{collections::BTreeMap, io, path::Path, rc::Rc, sync::Arc, thread::JoinHandle, time::Duration};

use arc_swap::ArcSwap;
use moonraft_proto::peer::peer_server::PeerServer;
use moonraft_router::SlotMap;
use tokio::{net::TcpListener, sync::watch, task::LocalSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::{
    busy::Clients,
    clock,
    data_directory::{DataDirectory, DirectoryError},
    driver::{self, Driver, DriverFigures},
    http,
    listen::{self, ListenError, Listeners},
    mailbox::{Progress, ShardInbox, ShardMailbox, ShardMessage, driver_mailbox, shard_mailbox},
    peers::{
        CONNECTION_WINDOW_BYTES, ENVELOPE_BYTES_MAX, Incoming, STREAM_WINDOW_BYTES,
        outgoing::{Carriers, outgoing, tell_hints},
    },
    replica::{Replica, shard_settings},
    shared::{NodeShared, ReplicaFigures, ReplicaHandle},
    snapshots::SnapshotFiles,
    surroundings::World,
    view::View,
    writer,
};
use crate::{
    config::{ClusterFile, Settings},
    consensus::{self, Consensus, GroupSettings, Input, LeaseCell, ReplicaId, ShardId},
    control::{Directory, Topology},
    log::{GroupId, Identity, Log, LogSettings, OpenError, RecoveredGroup},
    shard::{Shard, ShardSettings, State},
};

/// Ticks of the longest election timeout, which is the node timeout; of the shortest, half.
const ELECTION_TICKS_MAX: u32 = 20;
/// Hints said in the time after which a silent node counts as failed: some may be lost.
const HINTS_A_TIMEOUT: u32 = 4;
/// What an entry may hold beside one unit of the largest size: the rest of its batch.
const BATCH_SLACK_BYTES: u64 = 4 << 20;
/// How long the peers' runtime may take to end.
const PEERS_END: Duration = Duration::from_millis(500);
/// How often a hand-over is looked at.
const HAND_OVER_STEP: Duration = Duration::from_millis(5);

/// Why a node does not start. One line for the user; exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The log in it.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The cluster file has no such node.
    #[error("the cluster file has no node {0}; it has {1}")]
    NoSuchNode(u64, String),
    /// The data is of a later life than the cluster file knows.
    #[error("the data directory is of incarnation {0}, which this cluster file does not know")]
    Incarnation(u32),
    /// The system.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A node that has its ports.
pub struct Bound {
    topology: Arc<Topology>,
    cluster: ClusterFile,
    node: u64,
    listeners: Listeners,
}

/// Binds the ports of a node.
///
/// # Errors
/// One is taken, or there is no such node.
pub fn bind(cluster: &ClusterFile, node: u64) -> Result<Bound, StartError> {
    let topology = Arc::new(Topology::new(cluster.clone()));
    let entry = topology.node(node).ok_or_else(|| {
        let ids: Vec<String> = cluster.nodes.iter().map(|entry| entry.id.to_string()).collect();
        StartError::NoSuchNode(node, ids.join(", "))
    })?;
    let listeners = listen::bind(entry, topology.shards_of(node), cluster.settings.backlog)?;
    Ok(Bound { cluster: cluster.clone(), node, listeners, topology })
}

/// A node that has its ports and its data.
pub struct Prepared {
    bound: Bound,
    directory: DataDirectory,
    log: Log,
    recovered: BTreeMap<GroupId, RecoveredGroup>,
    files: SnapshotFiles,
}

impl Bound {
    /// Opens the node's data.
    ///
    /// # Errors
    /// The directory is not this node's, or damaged.
    pub fn open(self, path: &Path) -> Result<Prepared, StartError> {
        let directory = DataDirectory::open(path, &self.cluster)?;
        let identity = Identity { cluster: self.cluster.name.clone(), node: self.node, incarnation: 0 };
        let purge_bytes = self.cluster.settings.log_purge_bytes;
        let settings = LogSettings { purge_bytes, ..LogSettings::default() };
        let (log, recovered) = Log::open(directory.path(), &identity, &settings)?;
        if log.identity().incarnation != 0 {
            return Err(StartError::Incarnation(log.identity().incarnation));
        }
        directory.remember_shape()?;
        let files = SnapshotFiles::open(directory.path())?;
        files.sweep()?;
        Ok(Prepared { bound: self, directory, log, recovered, files })
    }
}

/// The settings of consensus under the node's.
fn consensus_settings(settings: &Settings) -> consensus::Settings {
    let base = consensus::Settings::default();
    let entry_bytes_max = settings.unit_bytes_max + BATCH_SLACK_BYTES;
    let in_flight_bytes_max = ShardSettings::default().in_flight_bytes_max as u64;
    consensus::Settings {
        tick_ms: settings.node_timeout_ms / u64::from(ELECTION_TICKS_MAX),
        election_ticks_min: ELECTION_TICKS_MAX / 2,
        election_ticks_max: ELECTION_TICKS_MAX,
        lease_drift_percent: settings.lease_drift_percent,
        entry_bytes_max,
        // The shard stops before: a refusal would cost it its term.
        uncommitted_bytes_max: in_flight_bytes_max + 2 * entry_bytes_max,
        log_bytes_max: settings.log_bytes_max,
        log_entries_max: settings.log_entries_max,
        ..base
    }
}

/// One replica before its thread starts.
struct Seat {
    shard: ShardId,
    listener: std::net::TcpListener,
    inbox: ShardInbox,
    lease: Arc<LeaseCell>,
    port: u16,
}

/// A node whose threads run.
pub struct RunningNode {
    shared: Arc<NodeShared>,
    shards: Vec<JoinHandle<()>>,
    rest: Vec<JoinHandle<()>>,
    stopping: watch::Sender<bool>,
    directory: DataDirectory,
}

impl Prepared {
    /// Starts the node's threads.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn start(self) -> Result<RunningNode, StartError> {
        let Prepared { bound, directory, log, mut recovered, files } = self;
        let Bound { topology, cluster, node, listeners } = bound;
        let settings = cluster.settings.clone();
        let silence_max = Duration::from_millis(settings.node_timeout_ms);
        let (driver_mailbox, driver_inbox) = driver_mailbox();
        let (stopping, stop_watch) = watch::channel(false);

        let mut groups = Vec::new();
        let mut replicas = BTreeMap::new();
        let mut inboxes = BTreeMap::new();
        for shard in topology.shards_of(node) {
            let recovered = recovered.remove(&shard);
            let (mailbox, inbox) = shard_mailbox();
            let snapshot = recovered.as_ref().map(|group| (group.snapshot.index, group.snapshot.term));
            let (index, term) = snapshot.unwrap_or((0, 0));
            if index > 0 {
                mailbox.send(ShardMessage::Install { index, term });
            }
            let progress = Arc::new(Progress::new(shard, index));
            replicas.insert(shard, ReplicaHandle { mailbox, progress, figures: ReplicaFigures::default() });
            inboxes.insert(shard, inbox);
            groups.push(group_settings(&topology, node, shard, recovered));
        }
        let consensus = Consensus::new(consensus_settings(&settings), groups, log.reader(), clock::boot_ns());
        let mailboxes: Vec<ShardMailbox> = replicas.values().map(|replica| replica.mailbox.clone()).collect();
        let silence_ns = silence_max.as_nanos() as u64;
        let directory_view = Directory::new(&topology, node, silence_ns, clock::boot_ns());
        let view = Arc::new(View::new(directory_view, mailboxes));
        let (outgoing, carriers) = outgoing(&topology, node, silence_max);
        let (writer, writer_thread) = writer::spawn(node, files.clone(), driver_mailbox.clone())?;
        let shared = Arc::new(NodeShared {
            node,
            settings: ArcSwap::from_pointee(settings),
            settings_change: Default::default(),
            driver: driver_mailbox,
            outgoing: Arc::new(outgoing),
            view,
            files,
            writer,
            replicas,
            figures: Arc::new(DriverFigures::default()),
        });

        let mut seats = Vec::new();
        for (shard, listener) in listeners.clients {
            let inbox = inboxes.remove(&shard).expect("a listener for each shard of the node");
            let lease = consensus.lease(shard).expect("a group for each shard of the node");
            let port = listener.local_addr()?.port();
            seats.push(Seat { shard, listener, inbox, lease, port });
        }
        let shards =
            seats.into_iter().map(|seat| spawn_shard(&shared, &topology, seat)).collect::<Result<_, _>>()?;
        let driver = Driver::new(consensus, log, driver_inbox, &shared);
        let driver_thread = driver::spawn(node, driver)?;
        let peers = PeerSide { topology, silence_max, carriers, stopping: stop_watch };
        let peer_thread = spawn_peers(&shared, peers, listeners.peers, listeners.http)?;
        let rest = vec![driver_thread, peer_thread, writer_thread];
        Ok(RunningNode { shared, shards, rest, stopping, directory })
    }
}

fn group_settings(
    topology: &Topology,
    node: u64,
    shard: ShardId,
    recovered: Option<RecoveredGroup>,
) -> GroupSettings {
    GroupSettings {
        group: shard,
        replica: ReplicaId::new(node, 0),
        voters: topology.nodes_of(shard).map(|entry| ReplicaId::new(entry.id, 0)).collect(),
        home: Some(topology.home(shard)),
        election_ticks: None,
        recovered,
    }
}

fn spawn_shard(shared: &Arc<NodeShared>, topology: &Arc<Topology>, seat: Seat) -> io::Result<JoinHandle<()>> {
    let (shared, shards) = (Arc::clone(shared), topology.shards());
    let name = format!("shard-{}-{}", shared.node, seat.shard);
    std::thread::Builder::new().name(name).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system has descriptors for a runtime at the start");
        runtime.block_on(LocalSet::new().run_until(async move {
            let Seat { shard, listener, inbox, lease, port } = seat;
            let clients = Rc::new(Clients::default());
            let world = World { node: Arc::clone(&shared), lease, clients: Rc::clone(&clients), port };
            let base = ShardSettings {
                shard,
                replica: ReplicaId::new(shared.node, 0).0,
                node: shared.node,
                ..ShardSettings::default()
            };
            let settings = shard_settings(base, &shared.settings.load());
            let state = State::of_new_shard(&[SlotMap::even_range(shard as usize, shards as usize)]);
            let machine = Shard::new(settings, Rc::new(world), state, rand::random());
            clients.open(listener.try_clone().expect("the system has a descriptor left").into());
            let listener = TcpListener::from_std(listener).expect("a listener that does not block");
            Replica::new(machine, clients, shared, shard).run(listener, inbox).await;
        }));
    })
}

/// What the peers' runtime works with.
struct PeerSide {
    topology: Arc<Topology>,
    silence_max: Duration,
    carriers: Carriers,
    stopping: watch::Receiver<bool>,
}

fn spawn_peers(
    shared: &Arc<NodeShared>,
    side: PeerSide,
    peers: std::net::TcpListener,
    http_listener: std::net::TcpListener,
) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let name = format!("peers-{}", shared.node);
    std::thread::Builder::new().name(name).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system has descriptors for a runtime at the start");
        runtime.block_on(serve_peers(shared, side, peers, http_listener));
        runtime.shutdown_timeout(PEERS_END);
    })
}

async fn serve_peers(
    shared: Arc<NodeShared>,
    side: PeerSide,
    peers: std::net::TcpListener,
    http_listener: std::net::TcpListener,
) {
    let PeerSide { topology, silence_max, carriers, mut stopping } = side;
    carriers.spawn(&shared.driver, &shared.files, &stopping);
    let interval = silence_max / HINTS_A_TIMEOUT;
    tokio::spawn(tell_hints(Arc::clone(&shared.view), Arc::clone(&shared.outgoing), interval));
    tokio::spawn(watch_silence(Arc::clone(&shared.view), interval));
    let incoming = Incoming {
        topology,
        me: shared.node,
        driver: shared.driver.clone(),
        shards: shared.replicas.iter().map(|(&shard, replica)| (shard, replica.mailbox.clone())).collect(),
        view: Arc::clone(&shared.view),
        files: shared.files.clone(),
        stopping: stopping.clone(),
    };
    let service = PeerServer::new(incoming).max_decoding_message_size(ENVELOPE_BYTES_MAX);
    let server = Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(silence_max))
        .http2_keepalive_timeout(Some(silence_max))
        .add_service(service);
    let listener = TcpListener::from_std(peers).expect("a listener that does not block");
    tokio::spawn(async move {
        if let Err(error) = server.serve_with_incoming(TcpListenerStream::new(listener)).await {
            panic!("the service for peers ended: {error}");
        }
    });
    let http_listener = TcpListener::from_std(http_listener).expect("a listener that does not block");
    let pages = http::router(Arc::clone(&shared));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(http_listener, pages).await {
            tracing::error!("the HTTP service ended: {error}");
        }
    });
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn watch_silence(view: Arc<View>, interval: Duration) {
    let mut looks = tokio::time::interval(interval);
    loop {
        looks.tick().await;
        view.check_silence(clock::boot_ns());
    }
}

impl RunningNode {
    /// Whether every replica here knows a leader that serves.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Hands the leadership of all shards over to other nodes, within `limit`.
    pub fn hand_over(&self, limit: Duration) {
        let until = clock::boot_ns() + limit.as_nanos() as u64;
        self.shared.driver.send(Input::TransferAll);
        while clock::boot_ns() < until {
            let led = self.shared.figures.led.load(std::sync::atomic::Ordering::Relaxed);
            if led == 0 && self.is_ready() {
                return;
            }
            std::thread::sleep(HAND_OVER_STEP);
        }
        tracing::warn!("not every shard has found another leader in time");
    }
}

/// Stops nodes: answers the clients that are here, closes everything, and waits
/// for the end. All at once, or each would complain that the others are gone.
pub fn stop(nodes: Vec<RunningNode>) {
    let join =
        |thread: JoinHandle<()>| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for node in &nodes {
        node.shared.replicas.values().for_each(|replica| replica.mailbox.send(ShardMessage::Stop));
    }
    let mut rest = Vec::new();
    for node in nodes {
        node.shards.into_iter().for_each(join);
        rest.push((node.shared, node.stopping, node.rest, node.directory));
    }
    for (_, stopping, ..) in &rest {
        stopping.send_replace(true);
    }
    for (shared, _, threads, directory) in rest {
        shared.driver.stop();
        drop(shared);
        threads.into_iter().for_each(join);
        drop(directory);
    }
}
