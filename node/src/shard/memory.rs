//! Room in memory: what is taken, and keys that are evicted when it is too much.
//!
//! `maxmemory` is a limit of the process, of which all replicas of a node are a part; a shard can make room only where it
//! leads, and only of its own keys. It does so before a request that may need memory, and in steps while more is taken
//! than may be, whatever took it: a follower's share, a client's reply, a lower limit.
//!
//! What is evicted is displaced at once and free when its batch is committed, and where it is large when a thread has
//! freed it. Until then it counts as free, or each request in between would evict as much again. So do the batches in
//! flight, which pass by.
//!
//! INVARIANTS:
//! * What a turn evicts is bounded. Only if there is nothing to evict are requests refused; if a turn has evicted its
//!   share they are executed, and the next turn goes on.
//! * An eviction is a unit of its own, in the batch of the request that needed the room or an earlier one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{Core, DiskRoom, PlantedFault, SessionId, waiting::Timer};
use crate::{
    command::{Flag, Request, Run, latency},
    keyspace::{
        Undo,
        tx::{Evicted, Policy},
        undo::UNDOS_FREED_AT_ONCE,
    },
    marks,
};

/// Keys that are evicted in one turn: about a millisecond.
const EVICTED_PER_TURN: usize = 500;

/// Keys that a request may have evicted, though the turn has evicted its share: so what requests bring is made up for.
const EVICTED_PER_REQUEST: usize = 8;

/// After how long eviction goes on, if no turn ends before.
const AGAIN_NS: u64 = 1_000_000;

/// What has been evicted and is being freed.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    /// Keys that the turn may still evict.
    left: usize,
    freeing_bytes: Arc<AtomicUsize>,
}

/// What was evicted, on its way to where it is freed.
struct Freed {
    undos: Vec<Undo>,
    bytes: usize,
    freeing_bytes: Arc<AtomicUsize>,
}

impl Drop for Freed {
    fn drop(&mut self) {
        self.undos.clear();
        self.freeing_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Core {
    /// Bytes that are taken now, and will be free without anything being evicted.
    pub(super) fn passing_bytes(&self) -> usize {
        let freeing = self.evictions.freeing_bytes.load(Ordering::Relaxed);
        let evicted = self.speculation.evicted_bytes() + self.store().evicted_bytes() + freeing;
        self.speculation.bytes() + evicted
    }

    fn is_over_memory(&self) -> bool {
        let limit = self.settings.memory_bytes_max;
        limit != u64::MAX
            && self.surroundings.used_bytes().saturating_sub(self.passing_bytes() as u64) > limit
    }

    /// Notes whether memory is short for a client's request, and makes room if it may need some.
    pub(super) fn look_at_memory(&mut self, id: SessionId, request: &Request<'_>) {
        self.room.out_of_memory = self.is_over_memory();
        if self.room.out_of_memory {
            let may_need =
                request.command.has(Flag::DenyOom) || matches!(request.command.run, Run::Exec | Run::Eval(_));
            if may_need && self.may_change(id, request) {
                self.room.out_of_memory = !self.evict(EVICTED_PER_REQUEST);
            }
        }
    }

    /// Whether keys may be evicted now.
    fn may_evict(&self) -> bool {
        let policy = self.store().eviction().policy;
        policy != Policy::NoEviction
            && self.is_serving()
            && self.pause.is_none()
            && self.room.disk < DiskRoom::Last
            && self.speculation.bytes() <= self.settings.in_flight_bytes_max
    }

    /// Evicts keys until there is room: as many as the turn may still, or `at_least` so many. Returns whether there is room
    /// now, or will be.
    fn evict(&mut self, at_least: usize) -> bool {
        if !self.may_evict() {
            return false;
        }
        let most = self.evictions.left.max(at_least);
        let mut count = 0;
        let mut is_some_left = true;
        let began_ns = self.begin_event();
        self.begin_unit();
        let begin = self.store().savepoint();
        while is_some_left && count < most && self.is_over_memory() {
            match self.tx().evict() {
                Evicted::One => count += 1,
                Evicted::NoneLeft => is_some_left = false,
                Evicted::NoneNow => break,
            }
        }
        let unit = self.store_mut().end_unit();
        self.evictions.left = self.evictions.left.saturating_sub(count);
        self.end_event(latency::Event::EvictionCycle, began_ns);
        if count > 0 {
            marks::reached("key evicted");
            if self.settings.fault == Some(PlantedFault::EvictionNotLogged) {
                self.store_mut().lose_effects(begin);
            }
            self.settle_unit(unit);
        }
        let is_over = self.is_over_memory();
        if is_over && is_some_left {
            self.timers.set(Timer::Evict, Some(self.surroundings.boot_ns() + AGAIN_NS));
        }
        is_some_left || !is_over
    }

    /// A turn has ended: the next may evict as much.
    pub(super) const fn begin_evictions(&mut self) {
        self.evictions.left = EVICTED_PER_TURN;
    }

    /// Notes whether memory is short, and makes room if it is, whoever took it.
    pub(super) fn evict_step(&mut self) {
        self.room.out_of_memory = self.is_over_memory();
        if self.room.out_of_memory && self.may_evict() {
            self.begin_evictions();
            self.room.out_of_memory = !self.evict(0);
            self.serve_blocked();
        }
    }

    /// A batch is committed that evicted keys of so many bytes. What is large is freed elsewhere, and counts as free until
    /// it is.
    pub(super) fn discard_evicted(&self, undos: Vec<Undo>, bytes: usize) {
        let slow: Vec<Undo> = match undos.len() > UNDOS_FREED_AT_ONCE {
            true => undos,
            false => undos.into_iter().filter(Undo::is_slow_to_drop).collect(),
        };
        if !slow.is_empty() {
            let freeing_bytes = Arc::clone(&self.evictions.freeing_bytes);
            freeing_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.surroundings.free(Box::new(Freed { undos: slow, bytes, freeing_bytes }));
        }
    }
}
