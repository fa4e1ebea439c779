//! A transaction: one execution of a command, a `MULTI` block or a script, on
//! the state of one shard.
//!
//! The [`Store`] holds the state, the open batch and what of the state is not committed, for as long as the shard
//! lives. A [`Tx`] is borrowed from it: the unit that is open, as handlers see it. They read through it and change the
//! keyspace only by [`Tx::emit`]; to begin, end, seal or take back is not theirs.
//! Each effect is applied at once and recorded twice: as bytes of the batch that
//! this turn of the shard's loop will propose, and as the undo that takes it back
//! if the batch is lost. The effects of one transaction are a **unit**.
//!
//! Reads note what they depend on. A key with an uncommitted change carries the
//! number of the batch that changed it last; the reply to a unit that saw it must
//! wait for that batch. Scripts and libraries that are loaded are marked like keys. Time is state too: a unit that
//! showed the time, or found a key expired that it could not remove, says so, and its reply waits until the log holds a
//! stamp that covers the reading.
//!
//! Invariants:
//! * A unit sees one frozen time, and no expired key.
//! * After [`Store::roll_back_unit`] nothing of the unit is left: state, batch,
//!   undo, messages.

mod dirty;
mod events;
mod evict;
mod loan;
mod reading;
mod store;
mod unit;

use std::ops::Deref;

use bytes::Bytes;
use moonraft_proto::Effect;

pub use self::{
    events::{Class, Events},
    evict::{Evicted, Eviction, Policy},
    loan::{Borrowed, Loan},
    store::{Limits, OpenBatch, SPARSE_BYTES_MAX, Store},
    unit::{Audience, Publication, Savepoint, Unit},
};
use super::{Blob, Value, scripts::sha1};
use crate::{marks, subscriptions::Subscriptions};

/// A key holds a value of another type than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

/// The open unit of a store, to be read and written.
pub struct Tx<'a> {
    store: &'a mut Store,
    /// Who listens on this replica: `PUBLISH` answers how many.
    listeners: Option<&'a Subscriptions>,
}

/// What a unit reads is what its store holds.
impl Deref for Tx<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store
    }
}

impl<'a> Tx<'a> {
    /// These listen.
    pub const fn heard_by(self, listeners: &'a Subscriptions) -> Self {
        Self { listeners: Some(listeners), ..self }
    }
}

impl Tx<'_> {
    /// Changes the state: the only way there is.
    pub fn emit(&mut self, effect: Effect<'_>) {
        assert!(self.is_leading(), "only a leader emits effects");
        self.mark(&effect);
        let was_there = self.is_brought_there(&effect);
        let copied = self.copied_bytes(&effect);
        let store = &mut *self.store;
        store.unit.copied_bytes = store.unit.copied_bytes.saturating_add(copied);
        store.batch.push(&effect);
        let undo = store.keyspace.apply(&effect);
        store.open.undos.push(undo);
        if let Some(was_there) = was_there {
            self.tell_if_new(&effect, was_there);
        }
    }

    /// Notes what the open batch changes.
    fn mark(&mut self, effect: &Effect<'_>) {
        let sequence = self.store.sequence;
        self.store.dirty.newest = sequence;
        match *effect {
            Effect::Rename { key, to } | Effect::Copy { key, to } => {
                self.store.mark_changed(key);
                self.store.mark_changed(to);
            }
            // A key that is called so waits with it, which costs time and nothing else.
            Effect::ScriptLoad { text } => self.store.mark_changed(&sha1(text)),
            Effect::ScriptFlush => self.store.dirty.flushed = sequence,
            Effect::LibraryPut { code, .. } => {
                self.store.mark_changed(&sha1(code));
                self.store.dirty.unlinked = sequence;
            }
            Effect::LibraryRemove { .. } => self.store.dirty.unlinked = sequence,
            Effect::ClearSlots { .. } => self.store.dirty.cleared = sequence,
            Effect::AssignSlots { first, last } | Effect::ReleaseSlots { first, last } => {
                self.store.dirty.reassign(first, last, sequence);
            }
            _ => effect.key().into_iter().for_each(|key| self.store.mark_changed(key)),
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
        self.store.keyspace.watched.touch(key);
    }

    /// Removes a key if it is there, and tells this event of it. Returns whether it was.
    pub fn remove_telling(&mut self, event: &str, key: &[u8]) -> bool {
        let there = self.remove(key);
        if there {
            self.notify(Class::Generic, event, key);
        }
        there
    }

    /// Lets those who keep copies take any key for changed.
    pub fn touch_all(&mut self) {
        self.store.keyspace.watched.hear_all_changed();
    }

    /// Sends a message when this unit commits. Returns how many sessions of this
    /// replica will hear it.
    pub fn publish(&mut self, channel: &[u8], message: &[u8], sharded: bool) -> usize {
        let audience = if sharded { Audience::Shard } else { Audience::Cluster };
        let listeners = self.listeners.map_or(0, |all| all.count(channel, sharded));
        let (channel, message) = (Bytes::copy_from_slice(channel), Bytes::copy_from_slice(message));
        self.store.unit.publications.get_mut().push(Publication { channel, message, audience });
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

    /// Removes those of `keys` that have expired: a request that meets an expired
    /// key removes it in its own unit, so that no failover can bring it back.
    pub fn expire<'a>(&mut self, keys: impl IntoIterator<Item = &'a [u8]>) {
        let now_ms = self.now_ms();
        if !self.is_leading() || self.keyspace.deadlines().soonest().is_none_or(|at| at >= now_ms) {
            return;
        }
        for key in keys {
            if self.keyspace.get(key).is_some_and(|object| object.is_expired(now_ms)) {
                marks::reached("expired key removed by a request");
                self.remove_dead(key);
            }
        }
    }

    /// Removes keys and fields whose time has come, at most `limit`. Returns how many. One that a snapshot has to hold
    /// and that is large stays until it has been written.
    pub fn remove_expired(&mut self, limit: usize) -> usize {
        let mut keys: Vec<Blob> = self.store.keyspace.expired(self.now_ms(), limit);
        keys.retain(|key| !self.is_lent(key) && self.store.keyspace.prepare_change(key));
        keys.iter().for_each(|key| self.remove_dead(key));
        keys.len() + self.remove_expired_fields(limit - keys.len())
    }

    /// Removes fields whose time has come, at most `limit`. Returns how many. As in Redis, who watches the key hears of it.
    fn remove_expired_fields(&mut self, limit: usize) -> usize {
        let now_ms = self.now_ms();
        let mut left = limit;
        for key in self.store.keyspace.keys_of_expired_fields(now_ms, limit) {
            if left == 0 {
                break;
            }
            if self.is_lent(&key) || !self.store.keyspace.prepare_change(&key) {
                continue;
            }
            let Some(Value::Hash(hash)) = self.keyspace.get(&key).map(|object| &object.value) else {
                continue;
            };
            let fields: Vec<Blob> = hash.due(now_ms).take(left).map(Blob::new).collect();
            fields.iter().for_each(|field| self.emit(Effect::HashRemove { key: &key, field }));
            left -= fields.len();
            self.notify_taken(Class::Hash, "hexpired", &key);
            marks::reached("expired field removed by a tick");
        }
        limit - left
    }

    fn remove_dead(&mut self, key: &[u8]) {
        let last_change = self.keyspace.watched.last_change(key);
        self.emit(Effect::Remove { key });
        self.notify(Class::Expired, "expired", key);
        self.store.keyspace.watched.last_was_by_nobody();
        if let Some(change) = last_change {
            self.store.keyspace.watched.take_back(key, change);
        }
        self.lookups.expired.set(self.lookups.expired.get() + 1);
    }
}
