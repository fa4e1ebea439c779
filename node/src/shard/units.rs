//! A unit's begin, and what its reply and its messages wait for.

use super::{Output, PlantedFault, SessionId, Shard, Standing, outbox::BatchId};
use crate::keyspace::tx::{Publication, Unit};

impl Shard {
    /// Begins a unit at the shard's present time.
    pub(super) fn begin_unit(&mut self) {
        let wall_us = self.surroundings.unix_us();
        let now_us = match self.settings.fault {
            Some(PlantedFault::ClockBackwards) => wall_us,
            _ => self.clock.read(wall_us),
        };
        let leading = self.is_serving();
        self.tx_mut().begin_unit(now_us, leading);
    }

    /// Settles what a unit's reply waits for. `None`: for nothing.
    pub(super) fn settle_unit(&mut self, unit: Unit) -> Option<BatchId> {
        // A leader that does not serve yet has no batch that could cover anything.
        let Standing::Leading { term, serving: true } = self.standing else {
            self.publish(unit.publications);
            return None;
        };
        let mut sequence = unit.depends_on;
        if unit.read_clock && !self.clock.is_covered() {
            let covering = match self.speculation.newest() {
                Some(newest) if self.clock.will_be_covered() => newest.batch.sequence,
                _ => self.tx().open_sequence(),
            };
            sequence = sequence.max(covering);
        }
        if sequence == 0 {
            self.publish(unit.publications);
            return None;
        }
        let batch = BatchId { term, sequence };
        // What waits for the open batch needs it sealed, effects or not: those it saw may have been taken
        // back in this turn.
        self.stamp_wanted |= sequence == self.tx().open_sequence();
        if self.settings.fault == Some(PlantedFault::MessageBeforeCommit) {
            self.publish(unit.publications);
            return Some(batch);
        }
        match self.speculation.get_mut(batch) {
            Some(in_flight) => in_flight.publications.extend(unit.publications),
            None => self.open_publications.extend(unit.publications),
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
