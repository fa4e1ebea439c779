//! What a unit sees.
//!
//! What it looks at is noted, for its reply must not leave before that is committed.

use std::{cell::Cell, sync::Arc};

use rand::RngExt;

use super::{Store, WrongType};
use crate::keyspace::{
    Hash, Keyspace, List, LiveHash, Object, Set, SortedSet, Stream, Value, Wish, libraries::Found,
    scripts::Sha1,
};

/// How often a reader found its key.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// A command that only reads is executing.
    counting: Cell<bool>,
    /// A key that is not there is told.
    telling: Cell<bool>,
    /// Looking a key up does not count as using it: for this command, and for all of its client's.
    untouching: Cell<bool>,
    client_untouching: bool,
    hits: Cell<u64>,
    misses: Cell<u64>,
    /// Keys that were removed because their time had come, met or not.
    pub expired: Cell<u64>,
    /// Keys that were removed because memory was short.
    pub evicted: Cell<u64>,
}

impl Lookups {
    /// Keys that are looked up count as used, and nobody is told of those that are not there.
    pub fn begin_unit(&mut self) {
        self.telling.set(false);
        self.untouching.set(false);
        self.client_untouching = false;
    }

    pub fn add(&self, other: &Self) {
        for (own, other) in
            [(&self.hits, &other.hits), (&self.misses, &other.misses), (&self.expired, &other.expired)]
        {
            own.set(own.get() + other.get());
        }
    }
}

impl Store {
    /// The unit's time, Unix milliseconds: what deadlines are reckoned from and compared with. Not to be shown.
    pub const fn now_ms(&self) -> u64 {
        self.unit.moment.now_us / 1000
    }

    /// The time to show, Unix microseconds.
    pub fn shown_us(&self) -> u64 {
        self.unit.showed_time.set(true);
        self.unit.moment.shown_us
    }

    /// Whether an expired key may be removed where it is met.
    pub const fn is_leading(&self) -> bool {
        self.unit.moment.leading
    }

    /// The text of a loaded script. The reply waits for the batch that loaded it, if that is in flight.
    pub fn script(&self, name: &Sha1) -> Option<&Arc<[u8]>> {
        let text = self.keyspace.scripts().get(name)?;
        self.unit.depend_on(self.dirty.of(self.keyspace.hash(name)));
        Some(text)
    }

    /// A script is not known: the reply waits for the batch that may have had it forgotten.
    pub fn note_no_script(&self) {
        self.unit.depend_on(self.dirty.flushed);
    }

    /// A function of a library. The reply waits for the batch that loaded the library, if that is in flight; if there
    /// is no such function, for the batch that may have taken it away.
    pub fn function(&self, name: &[u8]) -> Option<Found<'_>> {
        let found = self.keyspace.libraries().function(name);
        match found {
            Some(found) => self.unit.depend_on(self.dirty.of(self.keyspace.hash(found.library.sha()))),
            None => self.unit.depend_on(self.dirty.unlinked),
        }
        found
    }

    /// The object of a key that has not expired.
    pub fn object(&self, key: &[u8]) -> Option<&Object> {
        debug_assert!(!self.is_lent(key), "what is lent is not looked at");
        let hash = self.keyspace.hash(key);
        self.depend_on_hash(hash);
        let entry = self.keyspace.entry_hashed(hash, key).filter(|entry| self.is_live(&entry.object));
        if let Some(entry) = entry
            && !self.lookups.untouching.get()
        {
            self.keyspace.uses.note(&entry.used, || self.random.borrow_mut().random());
        }
        let object = entry.map(|entry| &entry.object);
        if self.lookups.counting.get() {
            let count = if object.is_some() { &self.lookups.hits } else { &self.lookups.misses };
            count.set(count.get() + 1);
        }
        if object.is_none() && self.lookups.telling.get() {
            self.tell_missed(key);
        }
        object
    }

    /// Whether a key is there and has not expired, for `WATCH`: no reply shows what is in it, so none need wait for
    /// who changed it.
    pub fn is_there(&self, key: &[u8]) -> bool {
        self.keyspace.get(key).is_some_and(|object| self.is_live(object))
    }

    /// Whether an object of the whole keyspace has not expired.
    pub fn is_live(&self, object: &Object) -> bool {
        let is_live = object.expires_at.is_none() || !object.is_expired(self.now_ms());
        if !is_live {
            self.unit.found_expired.set(true);
        }
        is_live
    }

    /// Whether keys that are looked up from now on count as hits and misses: those
    /// of commands that only read do.
    pub fn count_lookups(&self, counting: bool) {
        self.lookups.counting.set(counting);
    }

    /// Whether keys that are looked up from now on, and are not there, are told to who listens.
    pub fn tell_lookups(&self, telling: bool) {
        self.lookups.telling.set(telling);
    }

    /// Whether keys that are looked up from now on count as used.
    pub fn touch_lookups(&self, touching: bool) {
        self.lookups.untouching.set(!touching);
    }

    /// The unit's client wants no keys to count as used: `CLIENT NO-TOUCH`.
    pub const fn set_client_untouching(&mut self, untouching: bool) {
        self.lookups.client_untouching = untouching;
    }

    /// Whether it does.
    pub const fn is_client_untouching(&self) -> bool {
        self.lookups.client_untouching
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
        self.lookups.evicted.set(0);
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
    pub fn hash(&self, key: &[u8]) -> Result<Option<LiveHash<'_>>, WrongType> {
        let hash =
            self.typed(key, |value| if let Value::Hash(hash) = value { Some(&**hash) } else { None })?;
        Ok(hash.map(|hash| self.live(hash)))
    }

    /// A hash of this keyspace, without the fields that have expired.
    pub const fn live<'a>(&'a self, hash: &'a Hash) -> LiveHash<'a> {
        LiveHash::new(hash, self.now_ms(), &self.unit.found_expired)
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
    /// see [`Store::is_live`].
    pub fn whole(&self) -> &Keyspace {
        self.unit.depend_on(self.dirty.newest);
        &self.keyspace
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
    pub(super) fn depend_on_key(&self, key: &[u8]) {
        self.depend_on_hash(self.keyspace.hash(key));
    }

    fn depend_on_hash(&self, hash: u64) {
        self.unit.depend_on(self.dirty.of(hash).max(self.dirty.cleared));
    }
}
