//! The data of one shard: keys with their values, the slots the shard owns, the
//! scripts and libraries it knows. Plain state: no clock, no socket, no randomness but the seed
//! of its hash tables.
//!
//! Invariants:
//! * **One door.** State changes only by [`Keyspace::apply`], which takes an
//!   effect and gives back its [`Undo`], and by [`Keyspace::undo`].
//! * Applying the same effects in the same order gives the same state on every
//!   replica, whatever the seeds: [`digest`] sees no order of a hash table.
//! * `undo(apply(effect))` changes nothing that a command can see.
//! * Applying cannot fail. An effect that does not fit the state (a field put
//!   into a list) means that replicas have parted: the node stops.
//! * A container is never empty.
//!
//! Expired keys stay until an effect removes them; hiding them from readers is
//! the transaction's part, which knows the time.
//!
//! Keys live in one hash table a slot: slots are what moves between shards and
//! what a snapshot walks by ([`walk`]).

pub mod blob;
pub mod deadlines;
pub mod digest;
pub mod dump;
pub mod hash;
pub mod integer;
pub mod integers;
pub mod libraries;
pub mod linear;
pub mod list;
pub mod listpack_size;
pub mod packed;
pub mod scan;
pub mod scripts;
pub mod seed;
pub mod set;
mod slot_counts;
pub mod slots;
pub mod sorted;
pub mod stream;
pub mod table;
pub mod tx;
pub mod undo;
pub mod uses;
pub mod value;
pub mod walk;
pub mod watch;
pub mod weight;
pub mod wish;

mod apply;

use moonraft_proto::entry::FIRST_FORMAT;
use moonraft_router::{SLOT_COUNT, slot_of};

use self::slot_counts::SlotCounts;
pub use self::{
    blob::Blob,
    deadlines::Deadlines,
    hash::{Hash, LiveHash},
    libraries::Libraries,
    linear::{LinearTable, Spot},
    list::List,
    scripts::Scripts,
    seed::Seed,
    set::Set,
    slots::SlotSet,
    sorted::SortedSet,
    stream::Stream,
    tx::{Class, Limits, Store, Tx, WrongType},
    undo::Undo,
    uses::Uses,
    value::{Entry, Object, Value},
    walk::Walk,
    watch::Watched,
    weight::entry_bytes,
    wish::{Awaited, Wish},
};

/// Up to where a container takes the small form; Redis's `*-max-listpack-*`.
pub mod small {
    /// Elements.
    pub const COUNT_MAX: usize = 128;
    /// Fields of a hash: Redis allows more of them.
    pub const FIELDS_MAX: usize = 512;
    /// Bytes of each.
    pub const BYTES_MAX: usize = 64;
}

/// The keys of one slot.
type SlotTable = LinearTable<Box<Entry>>;

/// The data of one shard.
pub struct Keyspace {
    seed: Seed,
    /// One table a slot, all 16384: a slot that is not ours is empty.
    tables: Box<[SlotTable]>,
    /// Keys in the tables.
    counts: SlotCounts,
    owned: SlotSet,
    deadlines: Deadlines,
    /// Hashes by the soonest deadline of their fields.
    field_deadlines: Deadlines,
    /// When and how often keys are used.
    pub uses: Uses,
    scripts: Scripts,
    libraries: Libraries,
    /// The newest format that the log may hold: see [`moonraft_proto::entry`].
    format: u8,
    /// Keys that somebody minds.
    pub watched: Watched,
    /// Counts all changes since start: `rdb_changes_since_last_save` and the like.
    changes: u64,
    /// The walk that writes a snapshot, if one is under way.
    walk: Option<Box<Walk>>,
    /// Walks since start.
    walks: u32,
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a keyspace of {} keys", self.len())
    }
}

impl Default for Keyspace {
    fn default() -> Self {
        Self {
            seed: Seed::default(),
            tables: (0..SLOT_COUNT).map(|_| SlotTable::default()).collect(),
            counts: SlotCounts::default(),
            owned: SlotSet::default(),
            deadlines: Deadlines::default(),
            field_deadlines: Deadlines::default(),
            uses: Uses::default(),
            scripts: Scripts::default(),
            libraries: Libraries::default(),
            format: FIRST_FORMAT,
            watched: Watched::default(),
            changes: 0,
            walk: None,
            walks: 0,
        }
    }
}

impl Keyspace {
    /// One without keys, of a shard that owns these slots.
    pub fn owning(owned: SlotSet) -> Self {
        Self { owned, ..Self::default() }
    }

    /// The hash of a key in this keyspace's tables.
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.seed.hash(key)
    }

    /// The object of a key, expired or not.
    pub fn get(&self, key: &[u8]) -> Option<&Object> {
        self.get_hashed(self.hash(key), key)
    }

    /// The object of a key whose hash is known.
    pub fn get_hashed(&self, hash: u64, key: &[u8]) -> Option<&Object> {
        self.entry_hashed(hash, key).map(|entry| &entry.object)
    }

    /// The entry of a key whose hash is known.
    pub fn entry_hashed(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        let table = &self.tables[usize::from(slot_of(key))];
        table.find(hash, |entry| *entry.key == *key).map(|entry| &**entry)
    }

    /// The entry of a key.
    pub fn entry(&self, key: &[u8]) -> Option<&Entry> {
        self.entry_hashed(self.hash(key), key)
    }

    /// All entries of a slot, expired or not, in no order.
    pub fn slot_entries(&self, slot: u16) -> impl ExactSizeIterator<Item = &Entry> {
        self.tables[usize::from(slot)].iter().map(|entry| &**entry)
    }

    /// All entries, slot by slot.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.tables.iter().flat_map(|table| table.iter().map(|entry| &**entry))
    }

    /// Keys of a slot, expired or not.
    pub fn slot_len(&self, slot: u16) -> usize {
        self.tables[usize::from(slot)].len()
    }

    /// Keys, expired or not.
    pub const fn len(&self) -> usize {
        self.counts.total()
    }

    /// Whether there are no keys.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A key with what it holds, expired or not, drawn at random, each as likely: see [`LinearTable::draw`]. `below`
    /// draws a number below its argument.
    pub fn draw(&self, mut below: impl FnMut(usize) -> usize) -> Option<&Entry> {
        if self.is_empty() {
            return None;
        }
        let (slot, _) = self.counts.find(below(self.len()));
        Some(self.tables[usize::from(slot)].draw(below))
    }

    /// The same of the keys that have a deadline.
    pub fn draw_expiring(&self, below: impl FnMut(usize) -> usize) -> Option<&Entry> {
        let (slot, hash) = self.deadlines.draw(below)?;
        self.expiring(slot, hash)
    }

    /// The key with a deadline that comes first but so many.
    pub fn nth_expiring(&self, ordinal: usize) -> Option<&Entry> {
        let (slot, hash) = self.deadlines.all().nth(ordinal)?;
        self.expiring(slot, hash)
    }

    /// A key of this hash that has a deadline.
    fn expiring(&self, slot: u16, hash: u64) -> Option<&Entry> {
        let mut same_hash = self.tables[usize::from(slot)].iter_hash(hash).map(|entry| &**entry);
        same_hash.find(|entry| entry.object.expires_at.is_some() && self.hash(&entry.key) == hash)
    }

    /// The first slot from `slot` on that has a key.
    fn filled_slot_from(&self, slot: u16) -> Option<u16> {
        (usize::from(slot) < self.tables.len()).then(|| self.counts.filled_from(slot)).flatten()
    }

    /// Keys have come to a slot, or gone.
    fn count_keys(&mut self, slot: u16, change: isize) {
        self.counts.add(slot, change);
    }

    /// The slots the shard serves.
    pub const fn owned(&self) -> &SlotSet {
        &self.owned
    }

    /// Whether any key, or field of a hash, has a deadline.
    pub fn has_deadlines(&self) -> bool {
        !self.deadlines.is_empty() || !self.field_deadlines.is_empty()
    }

    /// When keys expire.
    pub const fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// The scripts the shard knows.
    pub const fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// The libraries of functions the shard knows.
    pub const fn libraries(&self) -> &Libraries {
        &self.libraries
    }

    /// The format that the members of the group have agreed on: what needs a newer one is not written.
    pub const fn agreed_format(&self) -> u8 {
        self.format
    }

    /// Effects applied and undone since start.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Keys that are gone at `now_ms`, soonest first, at most `limit`.
    pub fn expired(&self, now_ms: u64, limit: usize) -> Vec<Blob> {
        let mut keys = Vec::new();
        for (slot, hash) in self.deadlines.due(now_ms) {
            let same_hash = self.tables[usize::from(slot)].iter_hash(hash);
            let gone =
                same_hash.filter(|entry| self.hash(&entry.key) == hash && entry.object.is_expired(now_ms));
            keys.extend(gone.map(|entry| entry.key.clone()));
            if keys.len() >= limit {
                break;
            }
        }
        keys.truncate(limit);
        keys
    }

    /// Keys of hashes that have fields which are gone at `now_ms`, in the order of the soonest of each, at most `limit`.
    pub fn keys_of_expired_fields(&self, now_ms: u64, limit: usize) -> Vec<Blob> {
        let entries = self.field_deadlines.due(now_ms).flat_map(|(slot, hash)| {
            let same_hash = self.tables[usize::from(slot)].iter_hash(hash);
            same_hash.filter(move |entry| self.hash(&entry.key) == hash)
        });
        let is_due = |at: Option<u64>| at.is_some_and(|at| at < now_ms);
        let with_gone = entries.filter(|entry| is_due(entry.object.value.soonest_field()));
        with_gone.map(|entry| entry.key.clone()).take(limit).collect()
    }
}

#[cfg(test)]
mod tests;
