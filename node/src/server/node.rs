//! One node: its threads, put together, and taken apart again.
//!
//! [`bind`] touches what can refuse a start, in this order: ports, then the data
//! directory, then the log. So a start that is refused has changed nothing. Nobody can connect
//! before the node has its data: until then clients are refused, and ask other nodes.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use moonraft_router::SlotMap;
use tokio::{net::TcpListener, sync::watch, task::LocalSet};

use super::{
    birth::{self, Unborn},
    busy::Clients,
    clock,
    data_directory::{DataDirectory, DirectoryError},
    descriptors,
    disk::{self, DiskHealth},
    http,
    listen::{self, Doors, ListenError, Ports},
    mailbox::{ShardInbox, ShardMailbox, driver_mailbox, shard_mailbox},
    peers::{
        Incoming, listener,
        outgoing::{Carriers, outgoing, tell_hints},
    },
    replica::{Replica, shard_settings},
    shared::{DriverFigures, NodeShared, ReplicaFigures, ReplicaHandle},
    snapshot_file::SnapshotError,
    snapshots::{SnapshotFiles, SnapshotName},
    stop::Times,
    surroundings::World,
    view::View,
    writer,
};
use crate::{
    config::{ClusterFile, Settings},
    consensus::{self, GroupSettings, Input, LeaseCell, ReplicaId, ShardId},
    control::{Directory, Topology},
    log::{GroupId, Identity, Log, LogSettings, OpenError, RecoveredGroup},
    replica::{Install, Message, Progress},
    shard::{PlantedFault, Shard, ShardSettings, State},
};

/// Ticks of the longest election timeout, which is the node timeout; of the shortest, half.
const ELECTION_TICKS_MAX: u32 = 20;
/// Hints said in the time after which a silent node counts as failed: some may be lost.
const HINTS_A_TIMEOUT: u32 = 4;
/// What an entry may hold beside one unit of the largest size: the rest of its batch.
const BATCH_SLACK_BYTES: u64 = 4 << 20;
/// How long a script may go on once its node has handed over what it can.
const SCRIPT_GRACE: Duration = Duration::from_millis(300);
/// Time for clients between the hand-overs of two shards: they look at the map, which takes them some
/// round trips.
const HAND_OVER_REST: Duration = Duration::from_millis(50);
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

/// The newest snapshot of a group; `None`: there is none yet.
fn newest_snapshot(shard: ShardId, recovered: &RecoveredGroup) -> Option<SnapshotName> {
    let (index, term) = (recovered.snapshot.index, recovered.snapshot.term);
    (index > 0).then_some(SnapshotName { shard, index, term })
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

/// One replica before its thread starts.
struct Seat {
    shard: ShardId,
    doors: Doors<std::net::TcpListener>,
    inbox: ShardInbox,
    lease: Arc<LeaseCell>,
    port: u16,
    fault: Option<PlantedFault>,
    /// The last entry that the log holds: index and term.
    acknowledged: (u64, u64),
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
    /// Another process began to listen on one of the ports meanwhile, or the system has no thread or descriptor left.
    pub fn start(self) -> Result<RunningNode, StartError> {
        let Prepared { bound, directory, log, mut recovered, files } = self;
        let Bound { topology, cluster, node, ports, fault } = bound;
        let settings = cluster.settings.clone();
        let listeners = ports.listen(settings.backlog)?;
        let silence_max = Duration::from_millis(settings.node_timeout_ms);
        let (driver_mailbox, driver_inbox) = driver_mailbox();
        let (stopping, stop_watch) = watch::channel(false);

        let consensus_settings = consensus_settings(&settings);
        let has_begun = recovered.values().any(RecoveredGroup::has_begun);
        let mut groups = Vec::new();
        let mut leases = BTreeMap::new();
        let mut replicas = BTreeMap::new();
        let mut inboxes = BTreeMap::new();
        let mut snapshots = Vec::new();
        let mut acknowledged = BTreeMap::new();
        for shard in topology.shards_of(node) {
            let recovered = recovered.remove(&shard);
            let (mailbox, inbox) = shard_mailbox();
            let snapshot = recovered.as_ref().and_then(|group| newest_snapshot(shard, group));
            if let Some(SnapshotName { index, term, .. }) = snapshot {
                mailbox.send(Message::Install(Install { index, term }));
            }
            let last = recovered.as_ref().map(|group| (group.last_index, group.terms.term(group.last_index)));
            acknowledged.insert(shard, last.unwrap_or_default());
            snapshots.extend(snapshot);
            let applied = snapshot.map_or(0, |name| name.index);
            let progress = Arc::new(Progress::new(applied, &consensus_settings));
            replicas.insert(shard, ReplicaHandle { mailbox, progress, figures: ReplicaFigures::default() });
            inboxes.insert(shard, inbox);
            let group = group_settings(&topology, shard, recovered);
            leases.insert(shard, Arc::clone(&group.lease));
            groups.push(group);
        }
        let snapshot_bytes = snapshots.iter().map(|&name| (name.shard, files.bytes(name))).collect();
        let mailbox_of = |(&shard, replica): (&ShardId, &ReplicaHandle)| (shard, replica.mailbox.clone());
        let by_shard: BTreeMap<ShardId, ShardMailbox> = replicas.iter().map(mailbox_of).collect();
        let mailboxes: Vec<ShardMailbox> = by_shard.values().cloned().collect();
        let silence_ns = silence_max.as_nanos() as u64;
        let directory_view = Directory::new(&topology, node, silence_ns, clock::boot_ns());
        let view = Arc::new(View::new(directory_view, mailboxes));
        let (outgoing, carriers) = outgoing(&topology, node, silence_max);
        let (writer, writer_thread) = writer::spawn(node, files.clone(), driver_mailbox.clone(), by_shard)?;
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
            disk: Arc::new(DiskHealth::default()),
            awaiting: Mutex::new(Some(format!("node {node} starts"))),
            figures: Arc::new(DriverFigures::default()),
            shares: descriptors::shares(),
            is_stopping: AtomicBool::new(false),
            scripts_until_ns: AtomicU64::new(u64::MAX),
        });

        let mut seats = Vec::new();
        for (shard, doors) in listeners.clients {
            let inbox = inboxes.remove(&shard).expect("a listener for each shard of the node");
            let lease = leases.remove(&shard).expect("a group for each shard of the node");
            let port = doors[0].1.local_addr()?.port();
            let acknowledged = acknowledged[&shard];
            seats.push(Seat { shard, doors, inbox, lease, port, fault, acknowledged });
        }
        let shards =
            seats.into_iter().map(|seat| spawn_shard(&shared, &topology, seat)).collect::<Result<_, _>>()?;
        let decided = log.identity().incarnation;
        let as_node = move |incarnation| {
            let replica = ReplicaId::new(node, incarnation);
            groups.into_iter().map(|group| GroupSettings { replica, ..group }).collect()
        };
        let unborn = Unborn {
            log,
            inbox: driver_inbox,
            shared: Arc::clone(&shared),
            groups: Box::new(as_node),
            snapshot_bytes,
            settings: consensus_settings,
        };
        if has_begun {
            shared.await_now(None);
            shared.driver.begin();
        }
        let data = directory.path().to_owned();
        let unsettled = (!has_begun).then_some(decided);
        let peers = PeerSide { topology, silence_max, carriers, data, unsettled, stopping: stop_watch };
        let peer_thread = spawn_peers(&shared, peers, unborn, listeners.peers, listeners.http)?;
        let rest = vec![peer_thread, writer_thread];
        Ok(RunningNode { shared, shards, rest, stopping, directory })
    }
}

/// A group as it is before the node knows which life of its disk it is in.
fn group_settings(topology: &Topology, shard: ShardId, recovered: Option<RecoveredGroup>) -> GroupSettings {
    GroupSettings {
        group: shard,
        replica: ReplicaId::default(),
        voters: topology.nodes_of(shard).map(|entry| ReplicaId::new(entry.id, 0)).collect(),
        home: Some(topology.home(shard)),
        election_ticks: None,
        lease: Arc::default(),
        recovered,
    }
}

/// The stack of a shard's thread, on which scripts run: a value nested a thousand times takes 2 MiB of it in
/// `cjson` and `cmsgpack`, in a build that is not optimised, and 2 MiB is what threads have by default.
const SHARD_STACK_BYTES: usize = 8 << 20;

fn spawn_shard(shared: &Arc<NodeShared>, topology: &Arc<Topology>, seat: Seat) -> io::Result<JoinHandle<()>> {
    let (shared, shards) = (Arc::clone(shared), topology.shards());
    let name = format!("shard-{}-{}", shared.node, seat.shard);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let again = |(network, door): &(_, std::net::TcpListener)| Ok((*network, door.try_clone()?.into()));
    let while_busy = seat.doors.iter().map(again).collect::<io::Result<Doors<OwnedFd>>>()?;
    std::thread::Builder::new().name(name).stack_size(SHARD_STACK_BYTES).spawn(move || {
        let (node, number) = (Arc::clone(&shared), seat.shard);
        runtime.block_on(LocalSet::new().run_until(async move {
            let Seat { shard, doors, inbox, lease, port, fault, acknowledged } = seat;
            let clients = Rc::new(Clients::default());
            while_busy.into_iter().for_each(|(network, door)| clients.open(network, door));
            let world = World { node: Arc::clone(&shared), lease, clients: Rc::clone(&clients), port };
            let base = ShardSettings {
                shard,
                replica: shared.node,
                node: shared.node,
                fault,
                ..ShardSettings::default()
            };
            let settings = shard_settings(base, &shared.settings.load());
            let slots = SlotMap::even_range(shard as usize, shards as usize);
            let state = State { acknowledged, ..State::of_new_shard(&[slots]) };
            let machine = Shard::new(settings, Rc::new(world), state, rand::random());
            let mut listeners = Vec::new();
            for (network, door) in doors {
                let listener = TcpListener::from_std(door).expect("a listener that does not block");
                listeners.push((network, listener));
            }
            Replica::new(machine, clients, shared, shard).run(listeners, inbox).await;
        }));
        // What it let others do, as to read a snapshot or to drop a state, is of no use any more.
        runtime.shutdown_background();
        node.replicas[&number].figures.has_ended.store(true, Ordering::Relaxed);
    })
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
    let disk = Arc::clone(&shared.disk);
    tokio::spawn(tell_hints(Arc::clone(&shared.view), Arc::clone(&shared.outgoing), disk, interval));
    tokio::spawn(disk::watch(Arc::clone(&shared), data));
    if let Some(decided) = unsettled {
        tokio::spawn(birth::settle(Arc::clone(&shared), Arc::clone(&topology), decided, silence_max));
    }
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
    let peers = TcpListener::from_std(peers).expect("a listener that does not block");
    let limits = listener::Limits::of(&shared.shares, silence_max);
    tokio::spawn(listener::serve(peers, incoming, limits));
    let http_listener = TcpListener::from_std(http_listener).expect("a listener that does not block");
    let limits = http::Limits::of(shared.shares.pages as usize);
    tokio::spawn(http::serve(http_listener, http::router(shared), limits));
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
    ///
    /// One after the other: some clients drop their connections to a leader that was, with all that
    /// is in flight there, as soon as another shard's redirect made them look at the map.
    pub fn hand_over(&self, limit: Duration) {
        if self.shared.awaited().is_some() {
            return; // it has led nothing
        }
        let now = clock::boot_ns();
        let (half, until) = (now + limit.as_nanos() as u64 / 2, now + limit.as_nanos() as u64);
        let led = self.shared.view.hints();
        let step = HAND_OVER_REST.min(limit / (2 * led.len().max(1) as u32));
        for hint in led.into_iter().filter(|hint| !self.is_given_up(hint.shard)) {
            self.shared.driver.send(Input::Transfer { group: hint.shard, to: None });
            if wait_until(half, || self.is_handed_over(hint.shard)) {
                std::thread::sleep(step);
            }
        }
        // What is led all the same, and what would be sent here meanwhile.
        self.shared.driver.send(Input::TransferAll);
        if !wait_until(until, || self.shared.replicas.keys().all(|&shard| self.is_handed_over(shard))) {
            tracing::warn!("not every shard has found another leader in time");
        }
    }

    /// Whether another node leads `shard` and serves, or waiting for that is in vain.
    fn is_handed_over(&self, shard: ShardId) -> bool {
        self.shared.view.is_served_by_another(shard, self.shared.node) || self.is_given_up(shard)
    }

    /// Whether no other node can lead `shard`, or this one could not hand it over: its consensus waits for the disk.
    fn is_given_up(&self, shard: ShardId) -> bool {
        self.shared.is_disk_hanging() || !self.shared.view.can_spare_this_node(shard)
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

/// Waits for a condition, at most until `until` on the boot clock. Whether it came true.
fn wait_until(until: u64, condition: impl Fn() -> bool) -> bool {
    while !condition() {
        if clock::boot_ns() >= until {
            return false;
        }
        std::thread::sleep(HAND_OVER_STEP);
    }
    true
}

/// Stops nodes: answers the clients that are here, closes everything, and waits
/// for the end. All at once, or each would complain that the others are gone.
pub fn stop(nodes: Vec<RunningNode>) {
    let join =
        |thread: JoinHandle<()>| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for RunningNode { shared, .. } in &nodes {
        shared.is_stopping.store(true, Ordering::Relaxed);
        let until_ns = clock::boot_ns() + SCRIPT_GRACE.as_nanos() as u64;
        shared.scripts_until_ns.store(until_ns, Ordering::Relaxed);
        let within = shared.times().farewell;
        shared.replicas.values().for_each(|replica| replica.mailbox.stop(within));
    }
    let mut rest = Vec::new();
    for node in nodes {
        node.shards.into_iter().for_each(join);
        rest.push((node.shared, node.stopping, node.rest, node.directory));
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
