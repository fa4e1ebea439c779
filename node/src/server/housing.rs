//! Replicas are opened and closed while their node runs; at its start and at its end, too.
//!
//! With a replica come a thread, ports, a group of consensus, a place for snapshots, figures; with it they go. Nothing
//! else of the node stops meanwhile: its other replicas serve, its consensus takes part.
//!
//! INVARIANT: at most one replica opens or closes at a time.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    panic::resume_unwind,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{net::TcpListener, task::LocalSet};

use super::{
    busy::Clients,
    clock, hand_over,
    listen::{self, Doors, ListenError},
    mailbox::{ShardInbox, shard_mailbox},
    replica::{Replica, shard_settings},
    replicas::{Data, Opening, ReplicaHandle},
    shared::NodeShared,
    snapshot_file::SnapshotError,
    snapshots::SnapshotName,
    surroundings::NodeSurroundings,
};
use crate::{
    consensus::{self, GroupSettings, LeaseCell, ReplicaId, ShardId},
    control::Topology,
    log::RecoveredGroup,
    replica::{Install, Message, Progress},
    shard::{DiskRoom, Event, PlantedFault, Shard, ShardSettings, State},
};

/// The stack of a shard's thread, on which scripts run: a value nested a thousand times takes 2 MiB of it in
/// `cjson` and `cmsgpack`, in a build that is not optimised, and 2 MiB is what threads have by default.
const SHARD_STACK_BYTES: usize = 8 << 20;
/// How long a script may go on once its replica has been told to end.
const SCRIPT_GRACE: Duration = Duration::from_millis(300);

/// Why a replica does not open or close.
#[derive(Debug, thiserror::Error)]
pub enum HousingError {
    /// There is no such thing to be done.
    #[error("node {node} has no place for a replica of shard {shard}")]
    NoPlace {
        /// The node.
        node: u64,
        /// The shard.
        shard: ShardId,
    },
    /// It is open.
    #[error("node {node} has a replica of shard {shard} already")]
    IsOpen {
        /// The node.
        node: u64,
        /// The shard.
        shard: ShardId,
    },
    /// It is not open.
    #[error("node {node} has no replica of shard {shard}")]
    NotOpen {
        /// The node.
        node: u64,
        /// The shard.
        shard: ShardId,
    },
    /// A port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its snapshot is damaged.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The system has no thread or descriptor left, or the disk fails.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The newest snapshot of a group; `None`: there is none yet.
pub fn newest_snapshot(shard: ShardId, recovered: &RecoveredGroup) -> Option<SnapshotName> {
    let (index, term) = (recovered.snapshot.index, recovered.snapshot.term);
    (index > 0).then_some(SnapshotName { shard, index, term })
}

/// The replicas of a node, for who opens and closes them.
pub struct Housing {
    node: Arc<NodeShared>,
    topology: Arc<Topology>,
    settings: consensus::Settings,
    fault: Option<PlantedFault>,
    /// Their threads; held by who opens or closes one.
    threads: Mutex<BTreeMap<ShardId, JoinHandle<()>>>,
}

/// One replica before its thread starts.
struct Seat {
    replica: Arc<ReplicaHandle>,
    doors: Doors<std::net::TcpListener>,
    inbox: ShardInbox,
    lease: Arc<LeaseCell>,
    /// The last entry that the log holds: index and term.
    acknowledged: (u64, u64),
    /// What is drawn at random there.
    seed: u64,
}

impl Housing {
    /// Of a node with no replica yet.
    pub fn new(
        node: Arc<NodeShared>,
        topology: Arc<Topology>,
        settings: consensus::Settings,
        fault: Option<PlantedFault>,
    ) -> Self {
        Self { node, topology, settings, fault, threads: Mutex::default() }
    }

    /// Opens the replica of `shard` that the cluster file puts here, with the data that the node has of it.
    ///
    /// # Errors
    /// It is open, or has no place here; a port is taken, its snapshot is damaged, or the system lacks something.
    /// Then it is not open.
    pub fn open_replica(&self, shard: ShardId) -> Result<(), HousingError> {
        let mut threads = self.threads();
        let node = self.node.node;
        if threads.contains_key(&shard) {
            return Err(HousingError::IsOpen { node, shard });
        }
        let entry = self.topology.node(node).filter(|_| self.topology.shards_of(node).any(|it| it == shard));
        let entry = entry.ok_or(HousingError::NoPlace { node, shard })?;
        match self.node.replicas.kept_of(shard) {
            Some(recovered) => {
                newest_snapshot(shard, &recovered).map_or(Ok(()), |name| self.node.files.verify(name))?;
            }
            // What an earlier replica of that shard may have left.
            None => self.node.files.remove(shard)?,
        }
        let doors = listen::listen(listen::bind_doors(entry, shard)?, self.node.settings.load().backlog)?;
        threads.insert(shard, self.start(shard, doors)?);
        Ok(())
    }

    /// The same, at these doors and with what has been checked.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn open_at(&self, shard: ShardId, doors: Doors<std::net::TcpListener>) -> io::Result<()> {
        let thread = self.start(shard, doors)?;
        let before = self.threads().insert(shard, thread);
        assert!(before.is_none(), "shard {shard} is there twice");
        Ok(())
    }

    fn start(&self, shard: ShardId, doors: Doors<std::net::TcpListener>) -> io::Result<JoinHandle<()>> {
        let recovered = self.node.replicas.kept_of(shard);
        let (mailbox, inbox) = shard_mailbox();
        let snapshot = recovered.as_ref().and_then(|group| newest_snapshot(shard, group));
        if let Some(SnapshotName { index, term, .. }) = snapshot {
            mailbox.send(Message::Install(Install { index, term }));
        }
        let room = self.node.disk.room();
        if room != DiskRoom::Enough {
            mailbox.send(Event::DiskRoom(room));
        }
        let last = recovered.as_ref().map(|group| (group.last_index, group.terms.term(group.last_index)));
        let progress = Progress::new(snapshot.map_or(0, |name| name.index), &self.settings);
        let replica = Arc::new(ReplicaHandle::new(shard, mailbox, progress));
        let group = group_settings(&self.topology, shard, recovered);
        let (lease, acknowledged) = (Arc::clone(&group.lease), last.unwrap_or_default());
        let seed = rand::random();
        let seat = Seat { replica: Arc::clone(&replica), doors, inbox, lease, acknowledged, seed };
        let thread = self.spawn(seat)?;
        self.node.replicas.insert(Arc::clone(&replica));
        let snapshot_bytes = snapshot.map(|name| self.node.files.bytes(name));
        self.node.driver.open(Opening { group, replica, snapshot_bytes });
        Ok(thread)
    }

    fn spawn(&self, seat: Seat) -> io::Result<JoinHandle<()>> {
        let (node, shard) = (Arc::clone(&self.node), seat.replica.shard);
        let born_with = vec![self.topology.born_with(shard)];
        let settings = ShardSettings {
            shard,
            born_with,
            replica: node.node,
            node: node.node,
            fault: self.fault,
            ..ShardSettings::default()
        };
        let name = format!("shard-{}-{shard}", node.node);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().on_thread_stop(moonraft_allocator::settle).build()?;
        let again = |(network, door): &(_, std::net::TcpListener)| Ok((*network, door.try_clone()?.into()));
        let while_busy = seat.doors.iter().map(again).collect::<io::Result<Doors<OwnedFd>>>()?;
        // All that the thread is given is freed before it settles.
        let life: Box<dyn FnOnce() + Send> = Box::new(move || {
            let replica = Arc::clone(&seat.replica);
            let state = State { acknowledged: seat.acknowledged, ..State::of_new_shard(&[]) };
            let life = live(node, seat, while_busy, settings, state);
            runtime.block_on(LocalSet::new().run_until(life));
            // What it let others do, as to read a snapshot or to drop a state, is of no use any more.
            runtime.shutdown_background();
            replica.figures.has_ended.store(true, Ordering::Relaxed);
        });
        std::thread::Builder::new().name(name).stack_size(SHARD_STACK_BYTES).spawn(move || {
            life();
            moonraft_allocator::settle();
        })
    }

    /// Closes the replica of `shard`: hands its leadership over if another node can take it, answers the clients that
    /// are here, and closes everything. Returns when nothing of it is left.
    ///
    /// # Errors
    /// It is not open, or files of it cannot be removed.
    pub fn close_replica(&self, shard: ShardId, data: Data) -> Result<(), HousingError> {
        let mut threads = self.threads();
        let node = &self.node;
        let thread = threads.remove(&shard).ok_or(HousingError::NotOpen { node: node.node, shard })?;
        let replica = node.replicas.get(shard).expect("what has a thread is in the table");
        let times = node.times();
        hand_over::hand_over(node, shard, clock::boot_ns() + times.hand_over.as_nanos() as u64);
        tell_to_end(&replica, times.farewell);
        join(thread);
        node.replicas.remove(shard);
        node.driver.close(shard, data);
        node.writer.close(shard, data)?;
        Ok(())
    }

    /// The node stops: tells all replicas to answer their clients, and to end.
    pub fn tell_all_to_end(&self) {
        let within = self.node.times().farewell;
        self.node.replicas.all().values().for_each(|replica| tell_to_end(replica, within));
    }

    /// Waits until all have ended.
    pub fn join_all(&self) {
        std::mem::take(&mut *self.threads()).into_values().for_each(join);
    }

    fn threads(&self) -> MutexGuard<'_, BTreeMap<ShardId, JoinHandle<()>>> {
        self.threads.lock().expect("no thread panics holding it")
    }
}

/// A replica's life on its thread.
async fn live(
    node: Arc<NodeShared>,
    Seat { replica, doors, inbox, lease, seed, .. }: Seat,
    while_busy: Doors<OwnedFd>,
    settings: ShardSettings,
    state: State,
) {
    let clients = Rc::new(Clients::default());
    while_busy.into_iter().for_each(|(network, door)| clients.open(network, door));
    let address = doors[0].1.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let surroundings = NodeSurroundings {
        errands: Arc::default(),
        node: Arc::clone(&node),
        replica: Arc::clone(&replica),
        lease,
        clients: Rc::clone(&clients),
        port: address.port(),
        bind: address.ip(),
    };
    let settings = shard_settings(settings, &node.settings.load());
    let machine = Shard::new(settings, Rc::new(surroundings), state, seed);
    let listener =
        |(network, door)| (network, TcpListener::from_std(door).expect("a listener that does not block"));
    let doors = doors.into_iter().map(listener).collect();
    Replica::new(machine, clients, node, replica).run(doors, inbox).await;
}

fn tell_to_end(replica: &ReplicaHandle, within: Duration) {
    let until_ns = clock::boot_ns() + SCRIPT_GRACE.as_nanos() as u64;
    replica.scripts_until_ns.store(until_ns, Ordering::Relaxed);
    replica.mailbox.stop(within);
}

fn join(thread: JoinHandle<()>) {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic));
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
