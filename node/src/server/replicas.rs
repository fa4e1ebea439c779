//! The replicas that are open on a node, as its other threads see them.
//!
//! They come and go while the node runs ([`super::housing`]). Who looks takes the table without a lock. A handle stays
//! good for as long as it is held: a replica that has ended is sent messages in vain.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64},
    },
};

use arc_swap::ArcSwap;

use super::mailbox::ShardMailbox;
use crate::{
    consensus::{GroupSettings, NodeId, Recollection, ShardId},
    log::RecoveredGroup,
    replica::Progress,
    shard::Event,
};

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
#[derive(Debug)]
pub struct ReplicaHandle {
    /// Its shard.
    pub shard: ShardId,
    /// Messages for its thread.
    pub mailbox: ShardMailbox,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Its figures.
    pub figures: ReplicaFigures,
    /// When a script that still runs is ended, boot clock: a little after the replica was told to end.
    pub scripts_until_ns: AtomicU64,
}

impl ReplicaHandle {
    /// Of a replica that is so far.
    pub fn new(shard: ShardId, mailbox: ShardMailbox, progress: Progress) -> Self {
        Self {
            shard,
            mailbox,
            progress: Arc::new(progress),
            figures: ReplicaFigures::default(),
            scripts_until_ns: AtomicU64::new(u64::MAX),
        }
    }
}

/// What consensus is told of a replica that opens.
#[derive(Debug)]
pub struct Opening {
    /// Its group, but for the life of the node's disk, which consensus knows.
    pub group: GroupSettings,
    /// The replica.
    pub replica: Arc<ReplicaHandle>,
    /// Bytes of its newest snapshot, if it has one.
    pub snapshot_bytes: Option<u64>,
}

/// What becomes of the data of a replica that closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// It is opened again with them.
    Kept,
    /// They go, and all that it promised is forgotten: its group must have let it go, or consist of it alone.
    Removed,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Replicas {
    open: ArcSwap<BTreeMap<ShardId, Arc<ReplicaHandle>>>,
    /// What the log holds of groups that are not open.
    kept: Mutex<BTreeMap<ShardId, RecoveredGroup>>,
}

impl Replicas {
    /// None is open yet; the log holds these groups.
    pub fn new(kept: BTreeMap<ShardId, RecoveredGroup>) -> Self {
        Self { open: ArcSwap::default(), kept: Mutex::new(kept) }
    }

    /// All that are open now.
    pub fn all(&self) -> Arc<BTreeMap<ShardId, Arc<ReplicaHandle>>> {
        self.open.load_full()
    }

    /// That of `shard`, if it is open.
    pub fn get(&self, shard: ShardId) -> Option<Arc<ReplicaHandle>> {
        self.open.load().get(&shard).cloned()
    }

    /// Tells every one of them.
    pub fn tell_all(&self, event: impl Fn() -> Event) {
        self.open.load().values().for_each(|replica| replica.mailbox.send(event()));
    }

    /// A replica is open, and what was kept of it is its own.
    pub fn insert(&self, replica: Arc<ReplicaHandle>) {
        self.kept().remove(&replica.shard);
        self.change(|open| drop(open.insert(replica.shard, Arc::clone(&replica))));
    }

    /// A replica is not open any more.
    pub fn remove(&self, shard: ShardId) {
        self.change(|open| drop(open.remove(&shard)));
    }

    /// What the log holds of a group that is not open; `None`: nothing.
    pub fn kept_of(&self, shard: ShardId) -> Option<RecoveredGroup> {
        self.kept().get(&shard).cloned()
    }

    /// The log holds this of a group that was closed.
    pub fn keep(&self, shard: ShardId, recovered: RecoveredGroup) {
        self.kept().insert(shard, recovered);
    }

    /// What groups that are not open tell of `node`, whose disk is new: their word does not count as a voter's.
    pub fn recollect_kept(&self, node: NodeId) -> Vec<(ShardId, Recollection)> {
        let kept = self.kept();
        kept.iter().map(|(&shard, recovered)| (shard, Recollection::of_closed(recovered, node))).collect()
    }

    fn change(&self, change: impl Fn(&mut BTreeMap<ShardId, Arc<ReplicaHandle>>)) {
        self.open.rcu(|open| {
            let mut open = (**open).clone();
            change(&mut open);
            open
        });
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<ShardId, RecoveredGroup>> {
        self.kept.lock().expect("no thread panics holding it")
    }
}
