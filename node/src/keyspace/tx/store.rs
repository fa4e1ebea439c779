//! What a shard's transactions are executed on, for as long as the shard lives.

use std::{cell::RefCell, collections::BTreeMap};

use bytes::Bytes;
use hashbrown::HashSet;
use moonraft_proto::entry::{BatchWriter, Head};
use rand::{SeedableRng, rngs::StdRng};

use super::{Events, Eviction, Tx, dirty::Dirty, evict::Pool, reading::Lookups, unit::OpenUnit};
use crate::keyspace::{Blob, Keyspace, Undo, stream::NodeLimits};

/// The batch that a turn produced, apart from its bytes.
#[derive(Debug, Default)]
pub struct OpenBatch {
    /// What takes its effects back, oldest first.
    pub undos: Vec<Undo>,
    /// Hashes of the keys it changed.
    pub changed: Vec<u64>,
    /// Bytes of keys that were evicted: taken until they are freed, after its commit.
    pub evicted_bytes: usize,
}

/// Room that is made for a batch at once: for so many effects.
const EFFECTS_AHEAD_MAX: usize = 256;

/// What `hll-sparse-max-bytes` is by default, as in Redis.
pub const SPARSE_BYTES_MAX: usize = 3000;

/// What handlers are held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What one reply may weigh; `max-reply-bytes`.
    pub reply_bytes_max: usize,
    /// Bytes of a sparse HyperLogLog; `hll-sparse-max-bytes`.
    pub sparse_bytes_max: usize,
    /// What a node of a stream may hold; `stream-node-max-bytes`, `stream-node-max-entries`.
    pub stream_nodes: NodeLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A twentieth of a second's copying.
            reply_bytes_max: 128 << 20,
            sparse_bytes_max: SPARSE_BYTES_MAX,
            stream_nodes: NodeLimits::default(),
        }
    }
}

/// One shard's state, with what is not committed of it.
pub struct Store {
    pub(super) keyspace: Keyspace,
    pub(super) batch: BatchWriter,
    pub(super) open: OpenBatch,
    pub(super) dirty: Dirty,
    /// The number that the open batch will have.
    pub(super) sequence: u64,
    /// The unit that is open, or was last.
    pub(super) unit: OpenUnit,
    /// Expired keys stay, though no one sees them, until something writes them: `CLIENT PAUSE`.
    pub(super) keeps_expired: bool,
    pub(super) limits: Limits,
    /// What is told of keys.
    pub(super) events: Events,
    /// Keys whose values are lent, by the number of their loan: see [`super::loan`].
    pub(super) lent: BTreeMap<u64, HashSet<Blob>>,
    pub(super) eviction: Eviction,
    pub(super) pool: Pool,
    pub(super) random: RefCell<StdRng>,
    pub(super) lookups: Lookups,
}

impl Store {
    /// On this state; `seed` decides what is drawn at random.
    pub fn new(keyspace: Keyspace, seed: u64) -> Self {
        Self {
            keyspace,
            batch: BatchWriter::default(),
            open: OpenBatch::default(),
            dirty: Dirty::default(),
            sequence: 1,
            unit: OpenUnit::default(),
            keeps_expired: false,
            limits: Limits::default(),
            events: Events::default(),
            lent: BTreeMap::new(),
            eviction: Eviction::default(),
            pool: Pool::default(),
            random: RefCell::new(StdRng::seed_from_u64(seed)),
            lookups: Lookups::default(),
        }
    }

    /// What the open unit is executed on, with nobody who listens.
    pub const fn tx(&mut self) -> Tx<'_> {
        Tx { store: self, listeners: None }
    }

    /// The state, to look at without a transaction.
    pub const fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The state, to be changed by committed entries, undo and snapshots.
    pub const fn keyspace_mut(&mut self) -> &mut Keyspace {
        &mut self.keyspace
    }

    /// Replaces the state, and returns the one before. Whoever watches a key hears of a change.
    pub fn replace_keyspace(&mut self, mut keyspace: Keyspace) -> Keyspace {
        assert!(!self.has_effects(), "a state is replaced with nothing speculative");
        std::mem::swap(&mut keyspace.watched, &mut self.keyspace.watched);
        keyspace.watched.announce_all();
        keyspace.uses = self.keyspace.uses.clone();
        std::mem::replace(&mut self.keyspace, keyspace)
    }

    /// What handlers are held to.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Handlers are held to this from now on.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Expired keys stay from now on where nothing writes them, or do no longer.
    pub const fn keep_expired(&mut self, keep: bool) {
        self.keeps_expired = keep;
    }

    /// Whether a request that only reads removes the expired keys that it meets.
    pub const fn removes_expired(&self) -> bool {
        !self.keeps_expired
    }

    /// Random numbers are drawn from this seed on.
    pub fn reseed(&self, seed: u64) {
        *self.random.borrow_mut() = StdRng::seed_from_u64(seed);
    }

    // ---- batches -----------------------------------------------------------------

    /// Bytes of effects in the open batch.
    pub fn batch_bytes(&self) -> usize {
        self.batch.effect_bytes()
    }

    /// The number that the open batch will have.
    pub const fn open_sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the open batch has an effect.
    pub fn has_effects(&self) -> bool {
        !self.open.undos.is_empty() || !self.batch.is_empty()
    }

    /// Seals the open batch: its number, its bytes as an entry, and how to take
    /// it back.
    pub fn seal(&mut self, stamp_ms: u64) -> (u64, Bytes, OpenBatch) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.dirty.newest = sequence;
        let head = Head { stamp_ms, sequence };
        let data = self.batch.seal(head, self.keyspace.agreed_format());
        // The next batch is about as large: its rows need not grow step by step.
        let ahead = |length: usize| length.min(EFFECTS_AHEAD_MAX);
        let next = OpenBatch {
            undos: Vec::with_capacity(ahead(self.open.undos.len())),
            changed: Vec::with_capacity(ahead(self.open.changed.len())),
            evicted_bytes: 0,
        };
        (sequence, data, std::mem::replace(&mut self.open, next))
    }

    /// Batch `sequence` is committed: what it changed is clean, unless a later
    /// one changed it again.
    pub fn committed(&mut self, sequence: u64, changed: &[u64]) {
        let is_last = !self.has_effects();
        self.dirty.committed(sequence, changed, is_last);
    }

    /// Whether a batch in flight, or the open one, changes whose this slot is.
    pub fn is_changing_hands(&self, slot: u16) -> bool {
        self.dirty.is_changing_hands(slot)
    }

    /// Whether such a batch changes any slot's.
    pub const fn is_any_changing_hands(&self) -> bool {
        self.dirty.is_any_changing_hands()
    }

    /// Leadership is lost: gives up the open batch. What takes it back, oldest effect first, is whoever calls' to undo,
    /// and after it the batches in flight, newest first.
    #[must_use]
    pub fn abandon(&mut self) -> Vec<Undo> {
        let open = std::mem::take(&mut self.open);
        self.batch = BatchWriter::default();
        self.dirty.forget();
        open.undos
    }

    /// A new term: batches are numbered from 1.
    pub fn begin_term(&mut self) {
        assert!(!self.has_effects(), "a term begins with nothing speculative");
        self.sequence = 1;
        self.dirty.forget();
    }

    /// The open batch changes this key.
    pub(super) fn mark_changed(&mut self, key: &[u8]) {
        self.mark_hash_changed(self.keyspace.hash(key));
    }

    /// The open batch changes the keys with this hash.
    pub(super) fn mark_hash_changed(&mut self, hash: u64) {
        if self.dirty.mark(hash, self.sequence) {
            self.open.changed.push(hash);
        }
    }
}
