//! A transaction: one execution of a command, a `MULTI` block or a script, on
//! the state of one shard.
//!
//! Handlers read through a [`Tx`] and change the keyspace only by [`Tx::emit`].
//! Each effect is applied at once and recorded twice: as bytes of the batch that
//! this turn of the shard's loop will propose, and as the undo that takes it back
//! if the batch is lost. The effects of one transaction are a **unit**.
//!
//! Reads note what they depend on. A key with an uncommitted change carries the
//! number of the batch that changed it last; the reply to a unit that saw it must
//! wait for that batch. Scripts and libraries that are loaded are marked like keys. Time is state too: a unit that showed the time, or
//! found a key expired that it could not remove, says so, and its reply waits until the log holds a stamp that covers
//! the reading.
//!
//! Invariants:
//! * A unit sees one frozen time, and no expired key.
//! * After [`Tx::roll_back_unit`] nothing of the unit is left: state, batch,
//!   undo, messages.

mod loan;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    sync::Arc,
};

use bytes::Bytes;
use hashbrown::HashMap;
use moonraft_proto::{
    Effect,
    entry::{BatchWriter, Head, Mark},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use self::loan::{Borrowed, Loan};
use super::{
    Blob, Hash, Keyspace, List, Object, Seed, Set, SlotSet, SortedSet, Stream, Undo, Value, Wish,
    libraries::Found,
    scripts::{Sha1, sha1},
    stream::NodeLimits,
};
use crate::{marks, subscriptions::Subscriptions};

/// A message that leaves when its unit commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The channel.
    pub channel: Bytes,
    /// The message.
    pub message: Bytes,
    /// Published with `SPUBLISH`: heard by this shard's subscribers only.
    pub sharded: bool,
}

/// A key holds a value of another type than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

/// What a finished unit did and saw.
#[derive(Debug, Default)]
pub struct Unit {
    /// It emitted effects: its reply waits for the open batch.
    pub wrote: bool,
    /// The newest batch whose changes it saw; 0 if none.
    pub depends_on: u64,
    /// It showed the time.
    pub showed_time: bool,
    /// It found a key expired.
    pub found_expired: bool,
    /// Messages to send when it commits.
    pub publications: Vec<Publication>,
}

/// The batch that a turn produced, apart from its bytes.
#[derive(Debug, Default)]
pub struct OpenBatch {
    /// What takes its effects back, oldest first.
    pub undos: Vec<Undo>,
    /// Hashes of the keys it changed.
    pub changed: Vec<u64>,
}

/// What `hll-sparse-max-bytes` is by default, as in Redis.
pub const SPARSE_BYTES_MAX: usize = 3000;

/// Hashes are already well spread: no second hashing.
#[derive(Clone, Copy, Default)]
struct Identity(u64);

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed")
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The newest uncommitted batch that changed a key, by the key's hash. Keys that
/// share a hash wait for each other, which costs time and nothing else.
type Dirty = HashMap<u64, u64, std::hash::BuildHasherDefault<Identity>>;

/// One shard's state with the unit that is executing on it.
pub struct Tx {
    keyspace: Keyspace,
    batch: BatchWriter,
    open: OpenBatch,
    dirty: Dirty,
    /// The newest batch in flight, or the open one if it has effects; 0 if none.
    newest: u64,
    /// The newest batch in flight, or the open one, that cleared slots; 0 if none.
    cleared: u64,
    /// The newest batch in flight, or the open one, that had all scripts forgotten; 0 if none.
    flushed: u64,
    /// The newest batch in flight, or the open one, that took a library away or changed it; 0 if none.
    unlinked: u64,
    /// The newest batch in flight, or the open one, that changed whose slots are; 0 if none. And which slots those in
    /// flight change.
    reassigned: u64,
    changing_hands: SlotSet,
    /// The number that the open batch will have.
    sequence: u64,
    /// Time of the unit, Unix microseconds: by it keys expire.
    now_us: u64,
    /// What it shows for the time.
    shown_us: u64,
    /// Whether expired keys may be removed: on a leader.
    leading: bool,
    /// Expired keys stay, though no one sees them, until something writes them: `CLIENT PAUSE`.
    keeps_expired: bool,
    reply_bytes_max: usize,
    sparse_bytes_max: usize,
    /// Keys whose values are lent: see [`loan`].
    lent: BTreeSet<Blob>,
    stream_nodes: NodeLimits,
    unit: UnitState,
    /// Who listens on this replica: `PUBLISH` answers how many.
    pub listeners: Subscriptions,
    random: RefCell<StdRng>,
    lookups: Lookups,
}

/// How often a reader found its key.
#[derive(Debug, Default)]
struct Lookups {
    /// A command that only reads is executing.
    counting: Cell<bool>,
    hits: Cell<u64>,
    misses: Cell<u64>,
    /// Keys that were removed because their time had come, met or not.
    expired: Cell<u64>,
}

impl Lookups {
    fn add(&self, other: &Self) {
        for (own, other) in
            [(&self.hits, &other.hits), (&self.misses, &other.misses), (&self.expired, &other.expired)]
        {
            own.set(own.get() + other.get());
        }
    }
}

/// A point in a unit to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint {
    mark: Mark,
    undo_count: usize,
    publication_count: usize,
    copied_bytes: usize,
}

#[derive(Default)]
struct UnitState {
    mark: Option<Mark>,
    undo_count: usize,
    depends_on: Cell<u64>,
    showed_time: Cell<bool>,
    found_expired: Cell<bool>,
    publications: Vec<Publication>,
    /// Bytes of effects that the open batch had before.
    bytes_before: usize,
    /// Bytes that were added to memory and stand in no effect.
    copied_bytes: usize,
    /// What the request waits for that was executed last, if it found nothing.
    wish: RefCell<Option<Wish>>,
}

impl Tx {
    /// A transaction on a keyspace; `seed` decides what is drawn at random.
    pub fn new(keyspace: Keyspace, seed: u64) -> Self {
        Self {
            keyspace,
            batch: BatchWriter::default(),
            open: OpenBatch::default(),
            dirty: Dirty::default(),
            newest: 0,
            cleared: 0,
            flushed: 0,
            unlinked: 0,
            reassigned: 0,
            changing_hands: SlotSet::default(),
            sequence: 1,
            now_us: 0,
            shown_us: 0,
            leading: false,
            keeps_expired: false,
            reply_bytes_max: usize::MAX,
            sparse_bytes_max: SPARSE_BYTES_MAX,
            lent: BTreeSet::new(),
            stream_nodes: NodeLimits::default(),
            unit: UnitState::default(),
            listeners: Subscriptions::default(),
            random: RefCell::new(StdRng::seed_from_u64(seed)),
            lookups: Lookups::default(),
        }
    }

    // ---- for the shard -------------------------------------------------------

    /// The state, to look at without a transaction.
    pub const fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The state, to be changed by committed entries, undo and snapshots.
    pub const fn keyspace_mut(&mut self) -> &mut Keyspace {
        &mut self.keyspace
    }

    /// Begins a unit at this time.
    pub fn begin_unit(&mut self, now_us: u64, leading: bool) {
        (self.now_us, self.shown_us) = (now_us, now_us);
        self.leading = leading;
        self.unit.mark = Some(self.batch.mark());
        self.unit.undo_count = self.open.undos.len();
        self.unit.depends_on.set(0);
        self.unit.showed_time.set(false);
        self.unit.found_expired.set(false);
        self.unit.publications.clear();
        self.unit.bytes_before = self.batch.effect_bytes();
        self.unit.copied_bytes = 0;
        *self.unit.wish.get_mut() = None;
    }

    /// The unit shows another time than that by which keys expire.
    pub const fn show_time(&mut self, shown_us: u64) {
        self.shown_us = shown_us;
    }

    /// Ends the unit: its effects are part of the open batch.
    pub fn end_unit(&mut self) -> Unit {
        let wrote = self.open.undos.len() > self.unit.undo_count;
        self.unit.mark = None;
        Unit {
            wrote,
            depends_on: if wrote { self.sequence } else { self.unit.depends_on.get() },
            showed_time: self.unit.showed_time.get(),
            found_expired: self.unit.found_expired.get(),
            publications: std::mem::take(&mut self.unit.publications),
        }
    }

    /// Takes back all that the unit did, and begins it anew at the same time.
    pub fn roll_back_unit(&mut self) {
        let mark = self.unit.mark.expect("a unit that is rolled back has begun");
        let undo_count = self.unit.undo_count;
        self.roll_back_to(Savepoint { mark, undo_count, publication_count: 0, copied_bytes: 0 });
    }

    /// A point in the unit to go back to.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            mark: self.batch.mark(),
            undo_count: self.open.undos.len(),
            publication_count: self.unit.publications.len(),
            copied_bytes: self.unit.copied_bytes,
        }
    }

    /// Takes back all that the unit did since then.
    pub fn roll_back_to(&mut self, savepoint: Savepoint) {
        while self.open.undos.len() > savepoint.undo_count {
            let undo = self.open.undos.pop().expect("its length was compared");
            self.keyspace.undo(undo);
        }
        // A key that was changed stays marked: that costs a wait, no more.
        self.batch.rewind(savepoint.mark);
        self.unit.publications.truncate(savepoint.publication_count);
        self.unit.copied_bytes = savepoint.copied_bytes;
    }

    /// Effects of the open unit so far.
    pub fn unit_effects(&self) -> usize {
        self.open.undos.len() - self.unit.undo_count
    }

    /// Bytes of effects in the open batch.
    pub fn batch_bytes(&self) -> usize {
        self.batch.effect_bytes()
    }

    /// Bytes of effects of the open unit so far.
    pub fn unit_bytes(&self) -> usize {
        self.batch.effect_bytes().saturating_sub(self.unit.bytes_before)
    }

    /// Bytes that the unit added to memory and that stand in none of its effects:
    /// values it copied, gaps it made in strings.
    pub const fn unit_copied_bytes(&self) -> usize {
        self.unit.copied_bytes
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
        self.newest = sequence;
        let head = Head { stamp_ms, sequence };
        let data = self.batch.seal(head, self.keyspace.agreed_format());
        (sequence, data, std::mem::take(&mut self.open))
    }

    /// Batch `sequence` is committed: what it changed is clean, unless a later
    /// one changed it again.
    pub fn committed(&mut self, sequence: u64, changed: &[u64]) {
        for hash in changed {
            if let hashbrown::hash_map::Entry::Occupied(entry) = self.dirty.entry(*hash)
                && *entry.get() == sequence
            {
                entry.remove();
            }
        }
        if self.newest == sequence && !self.has_effects() {
            self.newest = 0;
        }
        if self.cleared == sequence {
            self.cleared = 0;
        }
        if self.flushed == sequence {
            self.flushed = 0;
        }
        if self.unlinked == sequence {
            self.unlinked = 0;
        }
        if self.reassigned == sequence {
            self.settle_hands();
        }
    }

    /// Whether a batch in flight, or the open one, changes whose this slot is.
    pub fn is_changing_hands(&self, slot: u16) -> bool {
        self.reassigned > 0 && self.changing_hands.contains(slot)
    }

    /// Whether such a batch changes any slot's.
    pub const fn is_any_changing_hands(&self) -> bool {
        self.reassigned > 0
    }

    fn settle_hands(&mut self) {
        if self.reassigned > 0 {
            self.reassigned = 0;
            self.changing_hands = SlotSet::default();
        }
    }

    /// Leadership is lost: takes back the open batch. Those in flight are taken
    /// back after it, newest first, by whoever keeps them.
    pub fn abandon(&mut self) {
        let open = std::mem::take(&mut self.open);
        for undo in open.undos.into_iter().rev() {
            self.keyspace.undo(undo);
        }
        self.batch = BatchWriter::default();
        self.forget_batches();
    }

    /// A new term: batches are numbered from 1.
    pub fn begin_term(&mut self) {
        assert!(!self.has_effects(), "a term begins with nothing speculative");
        self.sequence = 1;
        self.forget_batches();
    }

    /// Nothing is in flight any more.
    fn forget_batches(&mut self) {
        self.dirty.clear();
        (self.newest, self.cleared, self.flushed, self.unlinked) = (0, 0, 0, 0);
        self.settle_hands();
    }

    /// Random numbers are drawn from this seed on.
    pub fn reseed(&self, seed: u64) {
        *self.random.borrow_mut() = StdRng::seed_from_u64(seed);
    }

    /// Removes those of `keys` that have expired: a request that meets an expired
    /// key removes it in its own unit, so that no failover can bring it back.
    pub fn expire<'a>(&mut self, keys: impl IntoIterator<Item = &'a [u8]>) {
        let now_ms = self.now_us / 1000;
        if !self.leading || self.keyspace.deadlines().soonest().is_none_or(|at| at >= now_ms) {
            return;
        }
        for key in keys {
            if self.keyspace.get(key).is_some_and(|object| object.is_expired(now_ms)) {
                marks::reached("expired key removed by a request");
                self.remove_dead(key);
            }
        }
    }

    /// Expired keys stay from now on where nothing writes them, or do no longer.
    pub const fn keep_expired(&mut self, keep: bool) {
        self.keeps_expired = keep;
    }

    /// Whether a request that only reads removes the expired keys that it meets.
    pub const fn removes_expired(&self) -> bool {
        !self.keeps_expired
    }

    /// Replies may weigh so much; `max-reply-bytes`.
    pub const fn set_reply_bytes_max(&mut self, bytes: usize) {
        self.reply_bytes_max = bytes;
    }

    /// A sparse HyperLogLog may have so many bytes; `hll-sparse-max-bytes`.
    pub const fn set_sparse_bytes_max(&mut self, bytes: usize) {
        self.sparse_bytes_max = bytes;
    }

    /// How many bytes a sparse HyperLogLog may have.
    pub const fn sparse_bytes_max(&self) -> usize {
        self.sparse_bytes_max
    }

    /// Nodes of streams may hold so much; `stream-node-max-bytes`, `stream-node-max-entries`.
    pub const fn set_stream_nodes(&mut self, limits: NodeLimits) {
        self.stream_nodes = limits;
    }

    /// How much a node of a stream may hold.
    pub const fn stream_nodes(&self) -> NodeLimits {
        self.stream_nodes
    }

    /// How much a reply may weigh.
    pub const fn reply_bytes_max(&self) -> usize {
        self.reply_bytes_max
    }

    /// Whether a key is there and has not expired, for `WATCH`: no reply shows what is in it, so none need wait for
    /// who changed it.
    pub fn is_there(&self, key: &[u8]) -> bool {
        self.keyspace.get(key).is_some_and(|object| self.is_live(object))
    }

    /// Whether an expired key may be removed where it is met.
    pub const fn is_leading(&self) -> bool {
        self.leading
    }

    // ---- for handlers: reading ------------------------------------------------

    /// The unit's time, Unix milliseconds: what deadlines are reckoned from and compared with. Not to be shown.
    pub const fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// The time to show, Unix microseconds.
    pub fn shown_us(&self) -> u64 {
        self.unit.showed_time.set(true);
        self.shown_us
    }

    /// The text of a loaded script. The reply waits for the batch that loaded it, if that is in flight.
    pub fn script(&self, name: &Sha1) -> Option<&Arc<[u8]>> {
        let text = self.keyspace.scripts().get(name)?;
        if let Some(&sequence) = self.dirty.get(&self.keyspace.hash(name)) {
            self.depend_on(sequence);
        }
        Some(text)
    }

    /// A script is not known: the reply waits for the batch that may have had it forgotten.
    pub fn note_no_script(&self) {
        self.depend_on(self.flushed);
    }

    /// A function of a library. The reply waits for the batch that loaded the library, if that is in flight; if there
    /// is no such function, for the batch that may have taken it away.
    pub fn function(&self, name: &[u8]) -> Option<Found<'_>> {
        let found = self.keyspace.libraries().function(name);
        match found {
            Some(found) => {
                if let Some(&sequence) = self.dirty.get(&self.keyspace.hash(found.library.sha())) {
                    self.depend_on(sequence);
                }
            }
            None => self.depend_on(self.unlinked),
        }
        found
    }

    /// The object of a key that has not expired.
    pub fn object(&self, key: &[u8]) -> Option<&Object> {
        debug_assert!(!self.is_lent(key), "what is lent is not looked at");
        let hash = self.keyspace.hash(key);
        self.depend_on_hash(hash);
        let object = self.keyspace.get_hashed(hash, key);
        let object = object.filter(|object| self.is_live(object));
        if self.lookups.counting.get() {
            let count = if object.is_some() { &self.lookups.hits } else { &self.lookups.misses };
            count.set(count.get() + 1);
        }
        object
    }

    /// Whether keys that are looked up from now on count as hits and misses: those
    /// of commands that only read do.
    pub fn count_lookups(&self, counting: bool) {
        self.lookups.counting.set(counting);
    }

    /// Lookups that found their key, and those that did not.
    pub fn lookups(&self) -> (u64, u64) {
        (self.lookups.hits.get(), self.lookups.misses.get())
    }

    /// How many keys were removed because their time had come.
    pub fn expired_keys(&self) -> u64 {
        self.lookups.expired.get()
    }

    /// Hits and misses are counted anew.
    pub fn reset_lookups(&self) {
        self.lookups.hits.set(0);
        self.lookups.misses.set(0);
        self.lookups.expired.set(0);
    }

    /// The value of a key that has not expired.
    pub fn value(&self, key: &[u8]) -> Option<&Value> {
        self.object(key).map(|object| &object.value)
    }

    /// Whether a key is there and has not expired.
    pub fn exists(&self, key: &[u8]) -> bool {
        self.object(key).is_some()
    }

    /// The deadline of a key, Unix milliseconds.
    pub fn deadline(&self, key: &[u8]) -> Option<u64> {
        self.object(key).and_then(Object::deadline)
    }

    /// The string a key holds.
    ///
    /// # Errors
    /// It holds another type; so below.
    pub fn string(&self, key: &[u8]) -> Result<Option<&[u8]>, WrongType> {
        self.typed(key, |value| if let Value::Str(string) = value { Some(&**string) } else { None })
    }

    /// The list a key holds.
    ///
    /// # Errors
    /// It holds another type.
    pub fn list(&self, key: &[u8]) -> Result<Option<&List>, WrongType> {
        self.typed(key, |value| if let Value::List(list) = value { Some(&**list) } else { None })
    }

    /// The hash a key holds.
    ///
    /// # Errors
    /// It holds another type.
    pub fn hash(&self, key: &[u8]) -> Result<Option<&Hash>, WrongType> {
        self.typed(key, |value| if let Value::Hash(hash) = value { Some(&**hash) } else { None })
    }

    /// The set a key holds.
    ///
    /// # Errors
    /// It holds another type.
    pub fn set(&self, key: &[u8]) -> Result<Option<&Set>, WrongType> {
        self.typed(key, |value| if let Value::Set(set) = value { Some(&**set) } else { None })
    }

    /// The sorted set a key holds.
    ///
    /// # Errors
    /// It holds another type.
    pub fn sorted(&self, key: &[u8]) -> Result<Option<&SortedSet>, WrongType> {
        self.typed(key, |value| if let Value::Sorted(sorted) = value { Some(&**sorted) } else { None })
    }

    /// The stream a key holds.
    ///
    /// # Errors
    /// It holds another type.
    pub fn stream(&self, key: &[u8]) -> Result<Option<&Stream>, WrongType> {
        self.typed(key, |value| if let Value::Stream(stream) = value { Some(&**stream) } else { None })
    }

    /// What `of` sees in the value of a key: nothing in one of another type.
    fn typed<'a, T: ?Sized>(
        &'a self,
        key: &[u8],
        of: impl FnOnce(&'a Value) -> Option<&'a T>,
    ) -> Result<Option<&'a T>, WrongType> {
        self.value(key).map(|value| of(value).ok_or(WrongType)).transpose()
    }

    /// The whole keyspace, for commands that look at more than the keys they
    /// name; the reply waits for everything in flight. Expired keys are in it:
    /// see [`Tx::is_live`].
    pub fn whole(&self) -> &Keyspace {
        self.depend_on(self.newest);
        &self.keyspace
    }

    /// Whether an object of the whole keyspace has not expired.
    pub fn is_live(&self, object: &Object) -> bool {
        let is_live = object.expires_at.is_none() || !object.is_expired(self.now_ms());
        if !is_live {
            self.unit.found_expired.set(true);
        }
        is_live
    }

    /// A number below `end`, drawn at random. `end` is not 0.
    pub fn random_below(&self, end: usize) -> usize {
        self.random.borrow_mut().random_range(0..end)
    }

    /// A seed drawn at random.
    pub fn random_seed(&self) -> u64 {
        self.random.borrow_mut().random()
    }

    /// The request that is being executed found nothing, and would wait for it. Where it cannot, in a block or a script, the
    /// reply that it gives stands.
    pub fn wait_for(&self, wish: Wish) {
        self.unit.wish.replace(Some(wish));
    }

    /// What the request waits for that was just executed.
    pub fn take_wish(&self) -> Option<Wish> {
        self.unit.wish.take()
    }

    /// The reply waits for the batch that changed this key last, if that is in flight.
    fn depend_on_key(&self, key: &[u8]) {
        self.depend_on_hash(self.keyspace.hash(key));
    }

    fn depend_on_hash(&self, hash: u64) {
        if !self.dirty.is_empty()
            && let Some(&sequence) = self.dirty.get(&hash)
        {
            self.depend_on(sequence);
        }
        self.depend_on(self.cleared);
    }

    fn depend_on(&self, sequence: u64) {
        let known = self.unit.depends_on.get();
        self.unit.depends_on.set(known.max(sequence));
    }

    // ---- for handlers: changing -----------------------------------------------

    /// Changes the state: the only way there is.
    pub fn emit(&mut self, effect: Effect<'_>) {
        assert!(self.leading, "only a leader emits effects");
        match effect {
            Effect::Rename { key, to } | Effect::Copy { key, to } => {
                self.mark_changed(key);
                self.mark_changed(to);
            }
            // A key that is called so waits with it, which costs time and nothing else.
            Effect::ScriptLoad { text } => self.mark_changed(&sha1(text)),
            Effect::ScriptFlush => self.flushed = self.sequence,
            Effect::LibraryPut { code, .. } => {
                self.mark_changed(&sha1(code));
                self.unlinked = self.sequence;
            }
            Effect::LibraryRemove { .. } => self.unlinked = self.sequence,
            _ => effect.key().into_iter().for_each(|key| self.mark_changed(key)),
        }
        self.unit.copied_bytes = self.unit.copied_bytes.saturating_add(self.copied_bytes(&effect));
        self.batch.push(&effect);
        let undo = self.keyspace.apply(&effect);
        self.open.undos.push(undo);
        self.newest = self.sequence;
        match effect {
            // All keys are changed: whoever reads any of them must wait. Marking each would take long.
            Effect::ClearSlots { .. } => self.cleared = self.sequence,
            Effect::AssignSlots { first, last } | Effect::ReleaseSlots { first, last } => {
                self.reassigned = self.sequence;
                (first..=last).for_each(|slot| self.changing_hands.insert(slot));
            }
            _ => {}
        }
    }

    /// Removes a key if it is there. Returns whether it was.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let there = self.exists(key);
        if there {
            self.emit(Effect::Remove { key });
        }
        there
    }

    /// Lets those who watch a key take it for changed, though it is what it was: as Redis does where a
    /// request that writes changes nothing.
    pub fn touch(&mut self, key: &[u8]) {
        self.keyspace.watched.touch(key);
    }

    /// Sends a message when this unit commits. Returns how many sessions of this
    /// replica will hear it.
    pub fn publish(&mut self, channel: &[u8], message: &[u8], sharded: bool) -> usize {
        let listeners = self.listeners.count(channel, sharded);
        let (channel, message) = (Bytes::copy_from_slice(channel), Bytes::copy_from_slice(message));
        self.unit.publications.push(Publication { channel, message, sharded });
        listeners
    }

    /// What an effect adds to memory without naming it.
    fn copied_bytes(&self, effect: &Effect<'_>) -> usize {
        /// Of a large collection so many elements are weighed.
        const SAMPLES: usize = 16;
        match *effect {
            Effect::Copy { key, .. } => self.keyspace.get(key).map_or(0, |object| object.heap_bytes(SAMPLES)),
            Effect::PatchString { key, offset, .. } => {
                let length = match self.keyspace.get(key).map(|object| &object.value) {
                    Some(Value::Str(text)) => text.len(),
                    _ => 0,
                };
                usize::try_from(offset).unwrap_or(usize::MAX).saturating_sub(length)
            }
            _ => 0,
        }
    }

    fn mark_changed(&mut self, key: &[u8]) {
        self.mark_hash_changed(self.keyspace.hash(key));
    }

    fn mark_hash_changed(&mut self, hash: u64) {
        if self.dirty.insert(hash, self.sequence) != Some(self.sequence) {
            self.open.changed.push(hash);
        }
    }

    /// Removes keys whose time has come, at most `limit`. Returns how many. One that a snapshot has to hold and
    /// that is large stays until it has been written.
    pub fn remove_expired(&mut self, limit: usize) -> usize {
        let mut keys: Vec<Blob> = self.keyspace.expired(self.now_us / 1000, limit);
        keys.retain(|key| !self.is_lent(key) && self.keyspace.prepare_change(key));
        keys.iter().for_each(|key| self.remove_dead(key));
        keys.len()
    }

    fn remove_dead(&mut self, key: &[u8]) {
        let last_change = self.keyspace.watched.last_change(key);
        self.emit(Effect::Remove { key });
        if let Some(change) = last_change {
            self.keyspace.watched.take_back(key, change);
        }
        self.lookups.expired.set(self.lookups.expired.get() + 1);
    }
}
