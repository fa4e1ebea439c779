//! Which keys go when memory is short.
//!
//! Redis's way: some keys are drawn at random, and the best of them for the policy goes. Those that were not
//! taken stay candidates, the [`POOL`] best of them, so that with time those go that an exact order would name, with no
//! order kept. A candidate that has been used since is none any more. Among the keys that have a deadline the soonest
//! are known without drawing.
//!
//! A removal is an effect like any other: it is undone with its batch, and seen when that is committed. The memory is
//! free only then, so what is being evicted is counted until then ([`super::OpenBatch`]).
//!
//! A key stays whose value is lent or has to be written for a snapshot before it may change. Scripts, functions and
//! whose the slots are are no keys: they never go.
//!
//! Source: `evict.c` of Redis 7.2 (`evictionPoolPopulate`, `performEvictions`).

use moonraft_proto::Effect;
use rand::RngExt;

use super::{Class, Store, Tx};
use crate::keyspace::{Blob, Entry, Keyspace, entry_bytes, uses::Counting};

/// Candidates that are kept, as in Redis.
const POOL: usize = 16;
/// Candidates that turn out to have gone, or to be in use, before another turn is waited for.
const TRIES: usize = 16;
/// Elements that are looked at to say how large a value is.
const SAMPLES: usize = 16;

/// What goes when memory is short; `maxmemory-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    #[default]
    NoEviction,
    /// What was not used for longest.
    AllKeysLru,
    /// What is used least.
    AllKeysLfu,
    /// Anything.
    AllKeysRandom,
    /// Of what has a deadline, what was not used for longest.
    VolatileLru,
    /// Of what has a deadline, what is used least.
    VolatileLfu,
    /// Of what has a deadline, anything.
    VolatileRandom,
    /// Of what has a deadline, what would go first anyhow.
    VolatileTtl,
}

impl Policy {
    /// Their names, in the order in which Redis tells them.
    pub const NAMES: &[&str] = &[
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "noeviction",
    ];

    /// In the order of their names.
    pub const ALL: &[Policy] = &[
        Policy::VolatileLru,
        Policy::VolatileLfu,
        Policy::VolatileRandom,
        Policy::VolatileTtl,
        Policy::AllKeysLru,
        Policy::AllKeysLfu,
        Policy::AllKeysRandom,
        Policy::NoEviction,
    ];

    /// Whether only keys go that have a deadline.
    const fn spares_immortals(self) -> bool {
        matches!(self, Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl)
    }

    /// Whether it goes by how often keys are used.
    pub const fn counts_uses(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }
}

/// How keys are evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// `maxmemory-policy`
    pub policy: Policy,
    /// `maxmemory-samples`
    pub samples: usize,
    /// `lfu-log-factor`, `lfu-decay-time`
    pub counting: Counting,
}

impl Default for Eviction {
    fn default() -> Self {
        let counting = Counting { log_factor: 10, decay_minutes: 1 };
        Self { policy: Policy::default(), samples: 5, counting }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// A key went.
    One,
    /// There is no key that may go.
    NoneLeft,
    /// The keys that were looked at may not go now.
    NoneNow,
}

/// A key that was drawn.
#[derive(Debug)]
struct Candidate {
    coldness: u32,
    key: Blob,
}

/// Candidates, the best last.
#[derive(Debug, Default)]
pub(super) struct Pool {
    candidates: Vec<Candidate>,
}

impl Pool {
    fn offer(&mut self, coldness: u32, entry: &Entry) {
        let place = self.candidates.partition_point(|other| other.coldness < coldness);
        let is_full = self.candidates.len() == POOL;
        if is_full && place == 0 || self.candidates.iter().any(|other| other.key == entry.key) {
            return;
        }
        let place = if is_full { place - 1 } else { place };
        if is_full {
            self.candidates.remove(0);
        }
        self.candidates.insert(place, Candidate { coldness, key: entry.key.clone() });
    }

    /// The best that is still as good as it was.
    fn take(&mut self, keyspace: &Keyspace, spares_immortals: bool) -> Option<Blob> {
        while let Some(Candidate { coldness, key }) = self.candidates.pop() {
            let is_good = |entry: &Entry| {
                keyspace.uses.coldness(&entry.used) >= coldness
                    && (!spares_immortals || entry.object.expires_at.is_some())
            };
            if keyspace.entry(&key).is_some_and(is_good) {
                return Some(key);
            }
        }
        None
    }
}

impl Tx<'_> {
    /// Evicts a key, in the open unit.
    pub fn evict(&mut self) -> Evicted {
        let policy = self.eviction.policy;
        let is_empty = match policy.spares_immortals() {
            true => self.keyspace.deadlines().is_empty(),
            false => self.keyspace.is_empty(),
        };
        if policy == Policy::NoEviction || is_empty {
            return Evicted::NoneLeft;
        }
        for attempt in 0..TRIES {
            let Some(key) = self.store.candidate(policy, attempt) else { continue };
            if !self.is_lent(&key) && self.store.keyspace.prepare_change(&key) {
                self.remove_evicted(&key);
                return Evicted::One;
            }
        }
        Evicted::NoneNow
    }

    /// Removes a key because memory is short.
    fn remove_evicted(&mut self, key: &[u8]) {
        let bytes = self.keyspace.get(key).map_or(0, |object| object.heap_bytes(SAMPLES)) + entry_bytes(key);
        self.emit(Effect::Remove { key });
        self.store.keyspace.watched.last_was_by_nobody();
        self.notify(Class::Evicted, "evicted", key);
        self.store.open.evicted_bytes += bytes;
        self.lookups.evicted.set(self.lookups.evicted.get() + 1);
    }
}

impl Store {
    /// Keys are evicted like this from now on.
    pub fn set_eviction(&mut self, eviction: Eviction) {
        if self.eviction.policy != eviction.policy {
            self.pool = Pool::default();
        }
        self.eviction = eviction;
        self.keyspace.uses.set_counting(eviction.policy.counts_uses().then_some(eviction.counting));
    }

    /// How keys are evicted.
    pub const fn eviction(&self) -> Eviction {
        self.eviction
    }

    fn candidate(&mut self, policy: Policy, attempt: usize) -> Option<Blob> {
        let Self { keyspace, pool, random, eviction, .. } = self;
        let (keyspace, random) = (&*keyspace, random.get_mut());
        let mut draw = || {
            let below = |end| random.random_range(0..end);
            match policy.spares_immortals() {
                true => keyspace.draw_expiring(below),
                false => keyspace.draw(below),
            }
        };
        match policy {
            Policy::NoEviction => None,
            Policy::VolatileTtl => keyspace.nth_expiring(attempt).map(|entry| entry.key.clone()),
            Policy::AllKeysRandom | Policy::VolatileRandom => draw().map(|entry| entry.key.clone()),
            Policy::AllKeysLru | Policy::AllKeysLfu | Policy::VolatileLru | Policy::VolatileLfu => {
                for _ in 0..eviction.samples {
                    let Some(entry) = draw() else { break };
                    pool.offer(keyspace.uses.coldness(&entry.used), entry);
                }
                pool.take(keyspace, policy.spares_immortals())
            }
        }
    }

    // ---- what is known of uses ---------------------------------------------------

    /// A key was not used for so many seconds.
    pub fn set_idle(&self, key: &[u8], seconds: u64) {
        if let Some(entry) = self.keyspace.entry(key) {
            self.keyspace.uses.set_idle(&entry.used, seconds);
        }
    }

    /// A key was used so often.
    pub fn set_use_count(&self, key: &[u8], count: u8) {
        if let Some(entry) = self.keyspace.entry(key) {
            self.keyspace.uses.set_count(&entry.used, count);
        }
    }

    /// For how many seconds a key was not used.
    pub fn idle_seconds(&self, key: &[u8]) -> Option<u64> {
        self.keyspace.entry(key).map(|entry| self.keyspace.uses.idle_seconds(&entry.used))
    }

    /// How often a key was used, after decay.
    pub fn use_count(&self, key: &[u8]) -> Option<u8> {
        self.keyspace.entry(key).map(|entry| self.keyspace.uses.count(&entry.used))
    }

    /// Keys that were removed because memory was short.
    pub fn evicted_keys(&self) -> u64 {
        self.lookups.evicted.get()
    }

    /// Bytes of them that the open batch will free once it is committed.
    pub const fn evicted_bytes(&self) -> usize {
        self.open.evicted_bytes
    }
}
