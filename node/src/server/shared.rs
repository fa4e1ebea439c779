//! What the threads of one node share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{
    clock,
    descriptors::Shares,
    disk::DiskHealth,
    mailbox::{DriverMailbox, ShardMailbox},
    peers::Outgoing,
    snapshots::SnapshotFiles,
    stop::Times,
    view::View,
    writer::SnapshotWriter,
};
use crate::{
    config::Settings,
    consensus::{GroupStatus, ShardId},
    keyspace::tx::Publication,
    replica::Progress,
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

/// Figures of one replica, for those who ask.
#[derive(Debug, Default)]
pub struct ReplicaFigures {
    /// Connections.
    pub clients: AtomicU64,
    /// The last applied entry.
    pub applied: AtomicU64,
    /// That entry's term.
    pub term: AtomicU64,
    /// It leads and serves.
    pub is_serving: AtomicBool,
    /// Its thread has ended.
    pub has_ended: AtomicBool,
}

/// A replica of the node, as the other threads see it.
pub struct ReplicaHandle {
    /// Messages for its thread.
    pub mailbox: ShardMailbox,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Its figures.
    pub figures: ReplicaFigures,
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
    pub view: Arc<View>,
    /// Its snapshots.
    pub files: SnapshotFiles,
    /// Who writes them.
    pub writer: SnapshotWriter,
    /// Its replicas, by shard.
    pub replicas: BTreeMap<ShardId, ReplicaHandle>,
    /// How its disk does.
    pub disk: Arc<DiskHealth>,
    /// What it waits for before its groups begin: see `birth`. `None` once they have.
    pub awaiting: Mutex<Option<String>>,
    /// Figures of the consensus thread.
    pub figures: Arc<DriverFigures>,
    /// Connections that the system has descriptors for.
    pub shares: Shares,
    /// It has been told to stop.
    pub is_stopping: AtomicBool,
    /// When scripts that still run are ended, boot clock: a little after the node was told to stop.
    pub scripts_until_ns: AtomicU64,
}

impl NodeShared {
    /// Sends messages that were published on `shard` to all subscribers of the cluster.
    pub fn publish(&self, shard: ShardId, publications: Vec<Publication>) {
        self.outgoing.send_publications(shard, &publications);
        for (&number, replica) in &self.replicas {
            let heard = publications.iter().filter(|message| !message.sharded || number == shard);
            let heard: Vec<Publication> = heard.cloned().collect();
            if !heard.is_empty() {
                replica.mailbox.deliver(heard);
            }
        }
    }

    /// How far a replica of this node is.
    pub fn progress(&self, shard: ShardId) -> &Progress {
        &self.replicas[&shard].progress
    }

    /// Notes where a replica stands.
    pub fn note_replica(&self, shard: ShardId, applied: u64, term: u64, is_serving: bool) {
        let figures = &self.replicas[&shard].figures;
        figures.applied.store(applied, Ordering::Relaxed);
        figures.term.store(term, Ordering::Relaxed);
        figures.is_serving.store(is_serving, Ordering::Relaxed);
    }

    /// Notes how many clients a replica has.
    pub fn note_clients(&self, shard: ShardId, count: usize) {
        self.replicas[&shard].figures.clients.store(count as u64, Ordering::Relaxed);
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
        let clients = self.replicas.values().map(|replica| replica.figures.clients.load(Ordering::Relaxed));
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
        let busy =
            self.replicas.iter().filter(|(_, replica)| !replica.figures.has_ended.load(Ordering::Relaxed));
        let busy: Vec<String> = busy.map(|(shard, _)| shard.to_string()).collect();
        match busy.is_empty() {
            true => format!("node {} waits for its log or a snapshot", self.node),
            false => format!("node {} is busy in shard {}", self.node, busy.join(", ")),
        }
    }

    /// Whether every replica here knows a leader that serves.
    pub fn is_ready(&self) -> bool {
        self.view.all_served(self.replicas.keys().copied())
    }
}
