//! What the threads of one node share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use moonraft_proto::entry::NEWEST_FORMAT;

use super::{
    clock, descriptors::Shares, known_cluster::KnownCluster, mailbox::DriverMailbox, peers::Outgoing,
    replicas::Replicas, snapshots::SnapshotFiles, stop::Times, writer::SnapshotWriter,
};
use crate::{
    config::Settings,
    consensus::{GroupStatus, ShardId},
    keyspace::tx::Publication,
    replica::{DiskHealth, publications::heard_at},
};

/// Figures of consensus, for those who ask.
#[derive(Debug, Default)]
pub struct DriverFigures {
    /// Turns that wrote the log.
    pub writes: AtomicU64,
    /// Nanoseconds spent writing it.
    pub write_ns: AtomicU64,
    /// Bytes of all its files.
    pub log_bytes: AtomicU64,
    /// Where each group stands.
    pub groups: Mutex<BTreeMap<ShardId, GroupStatus>>,
}

/// What the threads of a node share.
pub struct NodeShared {
    /// Its number.
    pub node: u64,
    /// Its settings now.
    pub settings: ArcSwap<Settings>,
    /// Held by who changes them: two changes at once must not undo each other.
    pub settings_change: Mutex<()>,
    /// Messages for consensus.
    pub driver: DriverMailbox,
    /// Messages for other nodes.
    pub outgoing: Arc<Outgoing>,
    /// What it knows of the cluster.
    pub cluster: Arc<KnownCluster>,
    /// Its snapshots.
    pub files: SnapshotFiles,
    /// Who writes them.
    pub writer: SnapshotWriter,
    /// Its replicas, as they come and go.
    pub replicas: Arc<Replicas>,
    /// How its disk does.
    pub disk: Arc<DiskHealth>,
    /// What it waits for before its groups begin: see `birth`. `None` once they have.
    pub awaiting: Mutex<Option<String>>,
    /// Figures of the consensus thread.
    pub figures: Arc<DriverFigures>,
    /// The newest format that a shard here has agreed on.
    pub agreed: Arc<AtomicU8>,
    /// Connections that the system has descriptors for.
    pub shares: Shares,
    /// It has been told to stop.
    pub is_stopping: AtomicBool,
}

impl NodeShared {
    /// Sends messages that were published on `shard` to all subscribers of the cluster.
    pub fn publish(&self, shard: ShardId, publications: Vec<Publication>) {
        self.outgoing.send_publications(shard, &publications);
        for (&number, replica) in self.replicas.all().iter() {
            let heard = heard_at(number, shard, &publications);
            if !heard.is_empty() {
                replica.mailbox.deliver(heard);
            }
        }
    }

    /// Notes what a replica has agreed on: see `shard::formats`.
    pub fn note_format(&self, format: u8) {
        self.agreed.fetch_max(format, Ordering::Relaxed);
    }

    /// The newest format that this node would agree on.
    pub fn agreeable_format(&self) -> u8 {
        let held_back = self.settings.load().format_max.try_into().unwrap_or(u8::MAX);
        NEWEST_FORMAT.min(held_back)
    }

    /// What the groups of this node wait for before they begin; `None` if they have.
    pub fn awaited(&self) -> Option<String> {
        self.awaiting.lock().expect("no thread panics holding it").clone()
    }

    /// Notes what the groups wait for. Returns whether that is news.
    pub fn await_now(&self, what: Option<String>) -> bool {
        let mut awaiting = self.awaiting.lock().expect("no thread panics holding it");
        let news = *awaiting != what;
        *awaiting = what;
        news
    }

    /// Whether the system has a descriptor for one more client.
    pub fn has_room_for_client(&self) -> bool {
        let replicas = self.replicas.all();
        let clients = replicas.values().map(|replica| replica.figures.clients.load(Ordering::Relaxed));
        clients.sum::<u64>() < self.shares.clients
    }

    /// How long a stop may take: `shutdown-timeout`.
    pub fn shutdown_limit(&self) -> Duration {
        Duration::from_secs(self.settings.load().shutdown_seconds)
    }

    /// How that is divided.
    pub fn times(&self) -> Times {
        Times::of(self.shutdown_limit())
    }

    /// Whether consensus waits for the disk, for longer than others wait for a leader.
    pub fn is_disk_hanging(&self) -> bool {
        self.disk.is_hanging(clock::boot_ns(), self.settings.load().node_timeout_ms * 1_000_000)
    }

    /// What keeps it from ending.
    pub fn hangs(&self) -> String {
        if self.is_disk_hanging() {
            return format!("the disk of node {} does not end a write of the log", self.node);
        }
        let replicas = self.replicas.all();
        let busy = replicas.iter().filter(|(_, replica)| !replica.figures.has_ended.load(Ordering::Relaxed));
        let busy: Vec<String> = busy.map(|(shard, _)| shard.to_string()).collect();
        match busy.is_empty() {
            true => format!("node {} waits for its log or a snapshot", self.node),
            false => format!("node {} is busy in shard {}", self.node, busy.join(", ")),
        }
    }

    /// Whether every replica here knows a leader that serves.
    pub fn is_ready(&self) -> bool {
        self.cluster.all_served(self.replicas.all().keys().copied())
    }
}
