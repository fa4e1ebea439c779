//! A unit's begin, and what its reply and its messages wait for.

use super::{Core, Output, PlantedFault, SessionId, Standing, clock::Reading, outbox::BatchId};
use crate::{
    consensus::ShardTimes,
    keyspace::tx::{Publication, Unit},
    marks,
};

impl Core {
    /// Begins a unit at the shard's present time.
    pub(super) fn begin_unit(&mut self) {
        self.begin_unit_at(self.surroundings.boot_ns());
    }

    /// The same, where the boot clock has just been read.
    pub(super) fn begin_unit_at(&mut self, boot_ns: u64) {
        let Reading { now_us, shown_us } = self.read_clock_at(boot_ns);
        let leading = self.is_serving();
        self.store_mut().begin_unit(now_us, leading);
        self.store_mut().show_time(shown_us);
    }

    /// The shard's present time.
    pub(super) fn read_clock(&mut self) -> Reading {
        self.read_clock_at(self.surroundings.boot_ns())
    }

    fn read_clock_at(&mut self, boot_ns: u64) -> Reading {
        let surroundings = &self.surroundings;
        if self.settings.fault == Some(PlantedFault::ClockBackwards) {
            let now_us = surroundings.unix_us();
            return Reading { now_us, shown_us: now_us };
        }
        let reading = self.clock.read(boot_ns, || surroundings.unix_us());
        match self.settings.fault {
            Some(PlantedFault::ExpiryByWall) => Reading { now_us: surroundings.unix_us(), ..reading },
            _ => reading,
        }
    }

    // ---- the shard's time -----------------------------------------------------

    /// Takes the shard's time over: this replica serves from now on.
    pub(super) fn begin_time(&mut self, term: u64) {
        self.hear_time();
        let (boot_ns, wall_us) = (self.surroundings.boot_ns(), self.surroundings.unix_us());
        let expires = self.keyspace().has_deadlines();
        self.clock.begin_term(term, boot_ns, wall_us, expires);
        if self.settings.fault == Some(PlantedFault::LeaderAhead) {
            self.clock.begin_at_ceiling();
        }
        self.tell_time();
        self.await_formats();
    }

    /// It serves no more.
    pub(super) fn end_time(&mut self) {
        self.clock.step_down(self.surroundings.boot_ns());
        self.tell_time();
    }

    /// Now and then: a leader looks at its wall clock and tells the time, a follower hears it.
    pub(super) fn tick_time(&mut self) {
        if self.is_serving() {
            self.clock.look_at_wall(self.surroundings.boot_ns(), self.surroundings.unix_us());
            self.tell_time();
        } else {
            self.hear_time();
        }
    }

    fn tell_time(&self) {
        if let Some(times) = self.surroundings.times() {
            times.tell(self.clock.told());
        }
    }

    fn hear_time(&mut self) {
        let heard = self.surroundings.times().and_then(ShardTimes::heard);
        if let Some(heard) = heard {
            self.clock.heard(heard);
        }
    }

    // ---- what waits -----------------------------------------------------------

    /// Settles what a unit's reply waits for. `None`: for nothing.
    pub(super) fn settle_unit(&mut self, mut unit: Unit) -> Option<BatchId> {
        let forgets = match unit.heard.is_empty() {
            true => Vec::new(),
            false => self.resolve_heard(std::mem::take(&mut unit.heard), unit.client),
        };
        // A leader that does not serve yet has no batch that could cover anything.
        let Standing::Leading { term, serving: true } = self.standing else {
            self.publish(unit.publications);
            self.tell_trackers(forgets);
            return None;
        };
        let mut sequence = unit.depends_on;
        if unit.found_expired && !unit.wrote {
            marks::reached("key found expired and not removed");
        }
        let needed_ms = self.clock.needed_ms(unit.showed_time, unit.found_expired && !unit.wrote);
        if needed_ms > self.clock.committed_ms() {
            let covering = match self.speculation.newest() {
                Some(newest) if self.clock.is_sealed(needed_ms) => newest.batch.sequence,
                _ => self.store().open_sequence(),
            };
            sequence = sequence.max(covering);
        }
        if sequence == 0 {
            self.publish(unit.publications);
            self.tell_trackers(forgets);
            return None;
        }
        let batch = BatchId { term, sequence };
        // What waits for the open batch needs it sealed, effects or not: those it saw may have been taken
        // back in this turn.
        self.stamp_wanted |= sequence == self.store().open_sequence();
        if self.settings.fault == Some(PlantedFault::MessageBeforeCommit) {
            self.publish(unit.publications);
            self.tell_trackers(forgets);
            return Some(batch);
        }
        match self.speculation.get_mut(batch) {
            Some(in_flight) => {
                in_flight.publications.extend(unit.publications);
                in_flight.forgets.extend(forgets);
            }
            None => {
                self.open_publications.extend(unit.publications);
                self.open_forgets.extend(forgets);
            }
        }
        Some(batch)
    }

    /// The reply that session `id` put out since `start` waits for `batch`.
    pub(super) fn hold(&mut self, id: SessionId, start: u64, batch: BatchId, slot: Option<u16>) {
        let silent = self.sessions[id].outbox.end() == start;
        if silent || self.settings.fault == Some(PlantedFault::ReplyBeforeCommit) {
            return;
        }
        let waiting = match self.speculation.get_mut(batch) {
            Some(in_flight) => &mut in_flight.waiting,
            None => &mut self.open_waiting,
        };
        if waiting.last() != Some(&id) {
            waiting.push(id);
        }
        self.sessions[id].outbox.hold(start, batch, slot);
    }

    pub(super) fn publish(&mut self, publications: Vec<Publication>) {
        if !publications.is_empty() {
            self.outputs.push(Output::Publish(publications));
        }
    }
}
