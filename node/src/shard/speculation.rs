//! Batches on their way: what was executed and is not yet committed.
//!
//! In one term a leader's batches commit in the order of their numbers, and once
//! an entry of a later term is applied no batch of an earlier one can commit any
//! more. So the fate of every batch of a term is told by one number: the last
//! that committed, final when the term is closed.

use std::collections::VecDeque;

use super::{
    SessionId,
    outbox::{BatchId, Fate},
    tracking::Forget,
};
use crate::{
    keyspace::tx::{OpenBatch, Publication},
    marks,
};

/// Terms whose outcome is remembered: a reply held for an older one has been
/// answered or its connection closed long ago.
const TERMS_MAX: usize = 16;

/// A batch that has been proposed.
#[derive(Debug)]
pub struct InFlight {
    /// Which.
    pub batch: BatchId,
    /// How to take it back, and what it changed; empty once it has been.
    pub open: OpenBatch,
    /// Bytes of its entry.
    pub bytes: usize,
    /// Its stamp: no clock reading up to here is shown before it commits.
    pub stamp_ms: u64,
    /// Sessions with a reply that waits for it.
    pub waiting: Vec<SessionId>,
    /// Messages that leave when it commits.
    pub publications: Vec<Publication>,
    /// What clients are to forget when it commits.
    pub forgets: Vec<Forget>,
}

/// Batches in flight, and the fate of those before.
#[derive(Debug, Default)]
pub struct Speculation {
    /// Oldest first. Those of an earlier term have been taken back, and stay
    /// here until the log tells their fate.
    in_flight: VecDeque<InFlight>,
    bytes: usize,
    /// Bytes of keys that batches in flight evict.
    evicted_bytes: usize,
    /// For each recent term, the last own batch that committed.
    outcomes: VecDeque<(u64, u64)>,
    /// Terms before this one are closed.
    closed_before: u64,
}

impl Speculation {
    /// Bytes of entries in flight.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that are freed once what is in flight is committed, because keys were evicted.
    pub const fn evicted_bytes(&self) -> usize {
        self.evicted_bytes
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The newest batch in flight.
    pub fn newest(&self) -> Option<&InFlight> {
        self.in_flight.back()
    }

    /// A batch was proposed.
    pub fn push(&mut self, batch: InFlight) {
        self.bytes += batch.bytes;
        self.evicted_bytes += batch.open.evicted_bytes;
        self.in_flight.push_back(batch);
    }

    /// A batch in flight, to add who waits for it.
    pub fn get_mut(&mut self, batch: BatchId) -> Option<&mut InFlight> {
        let index = self.in_flight.binary_search_by_key(&batch, |other| other.batch).ok()?;
        self.in_flight.get_mut(index)
    }

    /// Batch `sequence` of `term` is committed and the log says so. Returns it if
    /// it was ours; it is the oldest of its term.
    pub fn commit(&mut self, batch: BatchId) -> Option<InFlight> {
        let front = self.in_flight.front().filter(|front| front.batch == batch)?;
        self.bytes -= front.bytes;
        self.evicted_bytes -= front.open.evicted_bytes;
        match self.outcomes.back_mut() {
            Some((term, committed)) if *term == batch.term => *committed = batch.sequence,
            _ => {
                self.outcomes.push_back((batch.term, batch.sequence));
                if self.outcomes.len() > TERMS_MAX {
                    self.outcomes.pop_front();
                }
            }
        }
        self.in_flight.pop_front()
    }

    /// An entry of `term` was applied. Returns the batches of earlier terms,
    /// which are lost.
    pub fn close_terms_before(&mut self, term: u64) -> Vec<InFlight> {
        self.closed_before = self.closed_before.max(term);
        let lost = self.in_flight.iter().take_while(|batch| batch.batch.term < term).count();
        self.take(lost)
    }

    /// The fate of all batches in flight can never be known. Returns them.
    pub fn forget(&mut self) -> Vec<InFlight> {
        self.take(self.in_flight.len())
    }

    fn take(&mut self, count: usize) -> Vec<InFlight> {
        let taken: Vec<InFlight> = self.in_flight.drain(..count).collect();
        self.bytes -= taken.iter().map(|batch| batch.bytes).sum::<usize>();
        self.evicted_bytes -= taken.iter().map(|batch| batch.open.evicted_bytes).sum::<usize>();
        taken
    }

    /// For simulations: what the undo to come is like.
    pub fn mark_undo(&self) {
        let open = || self.in_flight.iter().filter(|batch| !batch.open.undos.is_empty());
        if open().count() > 1 {
            marks::reached("several batches undone at once");
        }
        if open().any(|batch| batch.open.undos.len() > 1) {
            marks::reached("batch of several effects undone");
        }
    }

    /// What takes the batches back, of each its oldest effect first, the oldest batch first; they stay in flight.
    pub fn take_undos(&mut self) -> Vec<Vec<crate::keyspace::Undo>> {
        self.evicted_bytes = 0;
        self.in_flight.iter_mut().map(|batch| std::mem::take(&mut batch.open).undos).collect()
    }

    /// Clients have been told to forget everything: what batches in flight would tell is known.
    pub fn drop_forgets(&mut self) {
        self.in_flight.iter_mut().for_each(|batch| batch.forgets = Vec::new());
    }

    /// What became of a batch of ours.
    pub fn fate(&self, batch: BatchId) -> Fate {
        let outcome = self.outcomes.iter().find(|(term, _)| *term == batch.term);
        match outcome {
            Some(&(_, committed)) if batch.sequence <= committed => Fate::Committed,
            _ if batch.term < self.closed_before => Fate::Lost,
            _ => Fate::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_flight(term: u64, sequence: u64) -> InFlight {
        InFlight {
            batch: BatchId { term, sequence },
            open: OpenBatch::default(),
            bytes: 10,
            stamp_ms: 0,
            waiting: vec![],
            publications: vec![],
            forgets: vec![],
        }
    }

    #[test]
    fn a_later_term_settles_what_an_earlier_one_left_open() {
        let mut speculation = Speculation::default();
        (1..=3).for_each(|sequence| speculation.push(in_flight(4, sequence)));
        let batch = |sequence| BatchId { term: 4, sequence };
        assert!(speculation.commit(batch(1)).is_some());
        assert_eq!(speculation.fate(batch(1)), Fate::Committed);
        assert_eq!(speculation.fate(batch(2)), Fate::Open);
        // Leadership is lost, and batch 2 turns out to have been committed.
        assert!(speculation.close_terms_before(4).is_empty());
        assert!(speculation.commit(batch(2)).is_some());
        let lost = speculation.close_terms_before(6);
        assert_eq!(lost.len(), 1);
        assert_eq!(speculation.fate(batch(2)), Fate::Committed);
        assert_eq!(speculation.fate(batch(3)), Fate::Lost);
        assert_eq!(speculation.bytes(), 0);
    }
}
