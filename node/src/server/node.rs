//! One node: its threads, put together, and taken apart again.
//!
//! [`bind`] touches what can refuse a start, in this order: ports, then the data
//! directory, then the log. So a start that is refused has changed nothing. Nobody can connect
//! before the node has its data: until then clients are refused, and ask other nodes.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{net::TcpListener, sync::watch};

use super::{
    birth::{self, Unborn},
    clock,
    data_directory::{DataDirectory, DirectoryError},
    descriptors, disk, hand_over,
    housing::{Housing, HousingError, newest_snapshot},
    http,
    known_cluster::KnownCluster,
    listen::{self, ListenError, Ports},
    mailbox::driver_mailbox,
    peers::{
        Incoming, listener,
        outgoing::{Carriers, outgoing, tell_hints},
    },
    replicas::{Data, Replicas},
    shared::{DriverFigures, NodeShared},
    snapshot_file::SnapshotError,
    snapshots::SnapshotFiles,
    stop::Times,
    writer,
};
use crate::{
    config::{ClusterFile, Settings},
    consensus::{self, ShardId},
    control::{Directory, Topology},
    log::{GroupId, Identity, Log, LogSettings, OpenError, RecoveredGroup},
    replica::DiskHealth,
    shard::{PlantedFault, ShardSettings},
};

/// Ticks of the longest election timeout, which is the node timeout; of the shortest, half.
const ELECTION_TICKS_MAX: u32 = 20;
/// Hints said in the time after which a silent node counts as failed: some may be lost.
const HINTS_A_TIMEOUT: u32 = 4;
/// What an entry may hold beside one unit of the largest size: the rest of its batch.
const BATCH_SLACK_BYTES: u64 = 4 << 20;
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
    /// A snapshot in it.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The cluster file has no such node.
    #[error("the cluster file has no node {0}; it has {1}")]
    NoSuchNode(u64, String),
    /// Few files may be open at once.
    #[error(transparent)]
    TooFew(#[from] descriptors::TooFew),
    /// The system.
    #[error("cannot start: {}", descriptors::explain(.0))]
    System(#[from] io::Error),
}

impl StartError {
    /// Whether the node has lost what it may have promised, and has to be rebuilt from its peers.
    pub fn is_damage(&self) -> bool {
        match self {
            StartError::Directory(error) => error.is_damage(),
            StartError::Log(error) => error.is_damage(),
            StartError::Snapshot(error) => error.is_damage(),
            _ => false,
        }
    }

    /// `node` is not in the file; tells who is.
    pub(super) fn no_such_node(cluster: &ClusterFile, node: u64) -> Self {
        let ids: Vec<String> = cluster.nodes.iter().map(|entry| entry.id.to_string()).collect();
        StartError::NoSuchNode(node, ids.join(", "))
    }
}

/// A node that has its ports.
pub struct Bound {
    topology: Arc<Topology>,
    cluster: ClusterFile,
    node: u64,
    ports: Ports,
    fault: Option<PlantedFault>,
}

/// Binds the ports of a node.
///
/// # Errors
/// One is taken, or there is no such node.
pub fn bind(cluster: &ClusterFile, node: u64) -> Result<Bound, StartError> {
    let topology = Arc::new(Topology::new(cluster.clone()));
    let entry = topology.node(node).ok_or_else(|| StartError::no_such_node(cluster, node))?;
    let ports = listen::bind(entry, topology.shards_of(node))?;
    Ok(Bound { cluster: cluster.clone(), node, ports, topology, fault: None })
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
    /// Has its shards break a promise on purpose; only tests of the tests want that.
    pub fn with_fault(self, fault: Option<PlantedFault>) -> Bound {
        Bound { fault, ..self }
    }

    /// Opens the node's data.
    ///
    /// # Errors
    /// The directory is not this node's, or damaged.
    pub fn open(self, path: &Path) -> Result<Prepared, StartError> {
        let directory = DataDirectory::open(path, &self.cluster)?;
        let identity = Identity { cluster: self.cluster.name.clone(), node: self.node, incarnation: None };
        let purge_bytes = self.cluster.settings.log_purge_bytes;
        let settings = LogSettings { purge_bytes, ..LogSettings::default() };
        let (log, recovered) = Log::open(directory.path(), &identity, &settings)?;
        directory.remember_shape()?;
        let files = SnapshotFiles::open(directory.path())?;
        files.sweep()?;
        verify(&files, &recovered)?;
        Ok(Prepared { bound: self, directory, log, recovered, files })
    }
}

/// Checks the snapshots that are to be installed, before anything else is done: all at once, as a disk
/// likes it.
fn verify(files: &SnapshotFiles, recovered: &BTreeMap<GroupId, RecoveredGroup>) -> Result<(), SnapshotError> {
    std::thread::scope(|scope| {
        let names = recovered.iter().filter_map(|(&shard, group)| newest_snapshot(shard, group));
        let checks: Vec<_> = names.map(|name| scope.spawn(move || files.verify(name))).collect();
        let join = |check: std::thread::ScopedJoinHandle<'_, _>| {
            check.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        checks.into_iter().try_for_each(join)
    })
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

/// A node whose threads run.
pub struct RunningNode {
    shared: Arc<NodeShared>,
    housing: Housing,
    rest: Vec<JoinHandle<()>>,
    stopping: watch::Sender<bool>,
    directory: DataDirectory,
}

impl Prepared {
    /// Starts the node's threads.
    ///
    /// # Errors
    /// Another process began to listen on one of the ports meanwhile, or the system has no thread or descriptor left.
    pub fn start(self) -> Result<RunningNode, StartError> {
        let Prepared { bound, directory, log, recovered, files } = self;
        let Bound { topology, cluster, node, ports, fault } = bound;
        let settings = cluster.settings.clone();
        let listeners = ports.listen(settings.backlog)?;
        let silence_max = Duration::from_millis(settings.node_timeout_ms);
        let (driver_mailbox, inbox) = driver_mailbox();
        let (stopping, stop_watch) = watch::channel(false);
        let has_begun = recovered.values().any(RecoveredGroup::has_begun);

        let replicas = Arc::new(Replicas::new(recovered));
        let silence_ns = silence_max.as_nanos() as u64;
        let known = Directory::new(&topology, node, silence_ns, clock::boot_ns());
        let known = Arc::new(KnownCluster::new(known, Arc::clone(&replicas)));
        let (outgoing, carriers) = outgoing(&topology, node, silence_max);
        let (writer, writer_thread) =
            writer::spawn(node, files.clone(), driver_mailbox.clone(), Arc::clone(&replicas))?;
        let consensus_settings = consensus_settings(&settings);
        let shared = Arc::new(NodeShared {
            node,
            settings: ArcSwap::from_pointee(settings),
            settings_change: Default::default(),
            driver: driver_mailbox,
            outgoing: Arc::new(outgoing),
            cluster: known,
            files,
            writer,
            replicas,
            disk: Arc::new(DiskHealth::default()),
            awaiting: Mutex::new(Some(format!("node {node} starts"))),
            figures: Arc::new(DriverFigures::default()),
            agreed: Arc::default(),
            shares: descriptors::shares(),
            is_stopping: AtomicBool::new(false),
        });
        let housing =
            Housing::new(Arc::clone(&shared), Arc::clone(&topology), consensus_settings.clone(), fault);
        for (shard, doors) in listeners.clients {
            housing.open_at(shard, doors)?;
        }
        let unsettled = (!has_begun).then_some(log.identity().incarnation);
        let (unborn_shared, openings) = (Arc::clone(&shared), BTreeMap::new());
        let unborn = Unborn { log, inbox, shared: unborn_shared, openings, settings: consensus_settings };
        if has_begun {
            shared.await_now(None);
            shared.driver.begin();
        }
        let data = directory.path().to_owned();
        let peers = PeerSide { topology, silence_max, carriers, data, unsettled, stopping: stop_watch };
        let peer_thread = spawn_peers(&shared, peers, unborn, listeners.peers, listeners.http)?;
        let rest = vec![peer_thread, writer_thread];
        Ok(RunningNode { shared, housing, rest, stopping, directory })
    }
}

/// What the peers' runtime works with.
struct PeerSide {
    topology: Arc<Topology>,
    silence_max: Duration,
    carriers: Carriers,
    data: PathBuf,
    /// Of a node that has not begun: which life of its disk it is in, if it knows.
    unsettled: Option<Option<u32>>,
    stopping: watch::Receiver<bool>,
}

fn spawn_peers(
    shared: &Arc<NodeShared>,
    side: PeerSide,
    unborn: Unborn,
    peers: std::net::TcpListener,
    http_listener: std::net::TcpListener,
) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let name = format!("peers-{}", shared.node);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name).spawn(move || {
        let node = Arc::clone(&shared);
        runtime.block_on(async move {
            serve_peers(shared, side, peers, http_listener);
            unborn.run().await;
        });
        let Times { peers, .. } = node.times();
        drop(node);
        runtime.shutdown_timeout(peers);
    })
}

fn serve_peers(
    shared: Arc<NodeShared>,
    side: PeerSide,
    peers: std::net::TcpListener,
    http_listener: std::net::TcpListener,
) {
    let PeerSide { topology, silence_max, carriers, data, unsettled, stopping } = side;
    carriers.spawn(&shared.driver, &shared.files, &stopping);
    let interval = silence_max / HINTS_A_TIMEOUT;
    tokio::spawn(tell_hints(Arc::clone(&shared), interval));
    tokio::spawn(disk::watch(Arc::clone(&shared), data));
    if let Some(decided) = unsettled {
        tokio::spawn(birth::settle(Arc::clone(&shared), Arc::clone(&topology), decided, silence_max));
    }
    tokio::spawn(watch_silence(Arc::clone(&shared.cluster), interval));
    let incoming = Incoming {
        topology,
        me: shared.node,
        driver: shared.driver.clone(),
        replicas: Arc::clone(&shared.replicas),
        cluster: Arc::clone(&shared.cluster),
        agreed: Arc::clone(&shared.agreed),
        files: shared.files.clone(),
        stopping: stopping.clone(),
    };
    let peers = TcpListener::from_std(peers).expect("a listener that does not block");
    let limits = listener::Limits::of(&shared.shares, silence_max);
    tokio::spawn(listener::serve(peers, incoming, limits));
    let http_listener = TcpListener::from_std(http_listener).expect("a listener that does not block");
    let limits = http::Limits::of(shared.shares.pages as usize);
    tokio::spawn(http::serve(http_listener, http::router(shared), limits));
}

async fn watch_silence(cluster: Arc<KnownCluster>, interval: Duration) {
    let mut looks = tokio::time::interval(interval);
    loop {
        looks.tick().await;
        cluster.check_silence(clock::boot_ns());
    }
}

impl RunningNode {
    /// Whether every replica here knows a leader that serves.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// How the time of a stop is divided.
    pub fn times(&self) -> Times {
        self.shared.times()
    }

    /// The node, for whoever ends the process if it hangs.
    pub fn watched(&self) -> Watched {
        Watched(Arc::downgrade(&self.shared))
    }

    /// From now on the node says that it is not ready.
    pub fn begin_stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Hands the leadership of all shards over to other nodes, within `limit`; not of those that nobody else
    /// could lead.
    pub fn hand_over(&self, limit: Duration) {
        hand_over::hand_over_all(&self.shared, limit);
    }

    /// Opens the replica of `shard` that the cluster file puts here.
    ///
    /// # Errors
    /// See [`Housing::open_replica`].
    pub fn open_replica(&self, shard: ShardId) -> Result<(), HousingError> {
        self.housing.open_replica(shard)
    }

    /// Closes the replica of `shard`; the node goes on.
    ///
    /// # Errors
    /// See [`Housing::close_replica`].
    pub fn close_replica(&self, shard: ShardId, data: Data) -> Result<(), HousingError> {
        self.housing.close_replica(shard, data)
    }
}

/// A node that is not kept by who looks at it.
pub struct Watched(Weak<NodeShared>);

impl Watched {
    /// How long its stop may take.
    pub fn shutdown_limit(&self) -> Duration {
        self.0.upgrade().map_or(Duration::ZERO, |node| node.shutdown_limit())
    }

    /// What keeps it from ending, as far as that is known.
    pub fn hangs(&self) -> Option<String> {
        self.0.upgrade().map(|node| node.hangs())
    }
}

/// Stops nodes: answers the clients that are here, closes everything, and waits
/// for the end. All at once, or each would complain that the others are gone.
pub fn stop(nodes: Vec<RunningNode>) {
    let join =
        |thread: JoinHandle<()>| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for RunningNode { shared, housing, .. } in &nodes {
        shared.is_stopping.store(true, Ordering::Relaxed);
        housing.tell_all_to_end();
    }
    let mut rest = Vec::new();
    for RunningNode { shared, housing, rest: threads, stopping, directory } in nodes {
        housing.join_all();
        rest.push((shared, stopping, threads, directory));
    }
    for (shared, stopping, ..) in &rest {
        stopping.send_replace(true);
        shared.driver.stop();
    }
    for (shared, _, threads, directory) in rest {
        drop(shared);
        threads.into_iter().for_each(join);
        drop(directory);
    }
}
