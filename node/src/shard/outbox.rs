//! The replies of one connection, and the gate that holds them.
//!
//! The leader executes a request at once, on a state that may hold changes the
//! group has not agreed on yet. Its reply must not leave before they are: a
//! write waits for its own batch, a read for the newest uncommitted batch of any
//! key it saw. A read also waits, where no lease covers it, for a round that
//! confirms that this replica still leads: that is a barrier, behind which
//! nothing leaves.
//!
//! All replies are encoded into one buffer; a `Hold` marks a piece of it that
//! may not leave yet. What stands before the first hold may be written.
//!
//! Invariants:
//! * Replies leave in the order of their requests.
//! * A held reply leaves unchanged if its batch committed, and becomes a
//!   redirect if the batch was overwritten.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use moonraft_proto::{Protocol, Reply};

/// A batch, for good: the term it was executed in and its number in that term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId {
    /// The term.
    pub term: u64,
    /// Its number in that term, from 1.
    pub sequence: u64,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not known yet.
    Open,
    /// A majority has it.
    Committed,
    /// It never will be committed.
    Lost,
}

/// A reply that may not leave yet. Offsets count all bytes ever put out.
#[derive(Clone, Copy, Debug)]
struct Hold {
    start: u64,
    end: u64,
    batch: BatchId,
    /// Where the request belonged, for the redirect if it is lost.
    slot: Option<u16>,
}

/// Nothing from `offset` on may leave before `round` is confirmed.
#[derive(Clone, Copy, Debug)]
struct Barrier {
    offset: u64,
    term: u64,
    round: u64,
}

impl Barrier {
    /// The same barrier when what was at `from` is at `to`.
    const fn moved(self, from: u64, to: u64) -> Self {
        Self { offset: to + self.offset.saturating_sub(from), ..self }
    }
}

/// Replies on their way to a client.
#[derive(Debug, Default)]
pub struct Outbox {
    buffer: BytesMut,
    /// Offset of the buffer's first byte.
    start: u64,
    holds: VecDeque<Hold>,
    barriers: VecDeque<Barrier>,
}

impl Outbox {
    /// Offset of the next byte.
    pub fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// Bytes that wait, held or not.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether a reply is held.
    pub fn is_holding(&self) -> bool {
        !self.holds.is_empty() || !self.barriers.is_empty()
    }

    /// Appends a reply.
    pub fn push(&mut self, reply: &Reply<'_>, protocol: Protocol) {
        reply.encode(protocol, &mut self.buffer);
    }

    /// The batch that the oldest held reply waits for.
    pub fn oldest_hold(&self) -> Option<BatchId> {
        self.holds.front().map(|hold| hold.batch)
    }

    /// Holds what was put out since `start` until `batch` is committed.
    pub fn hold(&mut self, start: u64, batch: BatchId, slot: Option<u16>) {
        self.holds.push_back(Hold { start, end: self.end(), batch, slot });
    }

    /// Lets nothing from `offset` on leave before `round` of `term` is confirmed.
    pub fn bar(&mut self, offset: u64, term: u64, round: u64) {
        self.barriers.push_back(Barrier { offset, term, round });
    }

    /// Takes back what was put out since `offset`, which is not held.
    pub fn truncate(&mut self, offset: u64) {
        self.buffer.truncate((offset - self.start) as usize);
    }

    /// What may leave now.
    pub fn writable(&self) -> &[u8] {
        let held = self.holds.front().map_or(u64::MAX, |hold| hold.start);
        let barred = self.barriers.front().map_or(u64::MAX, |barrier| barrier.offset);
        let open = held.min(barred).min(self.end());
        &self.buffer[..(open - self.start) as usize]
    }

    /// So many of the writable bytes have left.
    pub fn written(&mut self, count: usize) {
        self.buffer.advance(count);
        self.start += count as u64;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
    }

    /// Opens the gate for replies whose batch committed. Returns whether more may
    /// be written than before.
    pub fn release(&mut self, fate: impl Fn(BatchId) -> Fate) -> bool {
        let before = self.holds.len();
        while self.holds.front().is_some_and(|hold| fate(hold.batch) == Fate::Committed) {
            self.holds.pop_front();
        }
        self.holds.len() != before
    }

    /// Opens the barriers of `term` up to `round`. Returns whether any was.
    pub fn release_round(&mut self, term: u64, round: u64) -> bool {
        let before = self.barriers.len();
        while self.barriers.front().is_some_and(|barrier| barrier.term == term && barrier.round <= round) {
            self.barriers.pop_front();
        }
        self.barriers.len() != before
    }

    /// Whether a barrier of a term before `term` stands: no one can confirm it
    /// any more.
    pub fn is_barred_before(&self, term: u64) -> bool {
        self.barriers.front().is_some_and(|barrier| barrier.term < term)
    }

    /// Writes `redirect` in place of every held reply whose batch is lost, and
    /// releases it. Replies behind it that wait for others stay held.
    pub fn redirect_lost(
        &mut self,
        fate: impl Fn(BatchId) -> Fate,
        redirect: impl Fn(Option<u16>) -> Reply<'static>,
        protocol: Protocol,
    ) {
        if !self.holds.iter().any(|hold| fate(hold.batch) == Fate::Lost) {
            return;
        }
        let old = std::mem::take(self);
        self.start = old.start;
        let piece = |from: u64, to: u64| &old.buffer[(from - old.start) as usize..(to - old.start) as usize];
        let mut at = old.start;
        let mut barriers = old.barriers.into_iter().peekable();
        for hold in &old.holds {
            // Where a barrier stands moves with the bytes before it.
            while let Some(barrier) = barriers.next_if(|barrier| barrier.offset <= hold.start) {
                self.barriers.push_back(barrier.moved(at, self.end()));
            }
            self.buffer.extend_from_slice(piece(at, hold.start));
            at = hold.end;
            let start = self.end();
            match fate(hold.batch) {
                Fate::Lost => redirect(hold.slot).encode(protocol, &mut self.buffer),
                Fate::Committed => self.buffer.extend_from_slice(piece(hold.start, hold.end)),
                Fate::Open => {
                    self.buffer.extend_from_slice(piece(hold.start, hold.end));
                    self.hold(start, hold.batch, hold.slot);
                }
            }
        }
        self.barriers
            .extend(barriers.map(|barrier| barrier.moved(at, self.start + self.buffer.len() as u64)));
        self.buffer.extend_from_slice(piece(at, old.start + old.buffer.len() as u64));
    }
}

/// Bytes of an empty buffer that is kept for the next replies.
const KEPT_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOL: Protocol = Protocol::Resp2;

    fn batch(sequence: u64) -> BatchId {
        BatchId { term: 1, sequence }
    }

    fn held(outbox: &mut Outbox, n: i64, sequence: u64) {
        let start = outbox.end();
        outbox.push(&Reply::Int(n), PROTOCOL);
        outbox.hold(start, batch(sequence), None);
    }

    fn up_to(committed: u64) -> impl Fn(BatchId) -> Fate {
        move |batch| if batch.sequence <= committed { Fate::Committed } else { Fate::Open }
    }

    #[test]
    fn replies_leave_in_order_once_their_batch_committed() {
        let mut outbox = Outbox::default();
        outbox.push(&Reply::Int(0), PROTOCOL);
        held(&mut outbox, 1, 1);
        outbox.push(&Reply::Int(2), PROTOCOL);
        held(&mut outbox, 3, 2);
        assert_eq!(outbox.writable(), b":0\r\n");
        outbox.written(2);
        assert!(outbox.release(up_to(1)));
        assert_eq!(outbox.writable(), b"\r\n:1\r\n:2\r\n");
        outbox.written(10);
        assert!(!outbox.release(up_to(1)));
        assert_eq!(outbox.writable(), b"");
        assert!(outbox.release(up_to(2)));
        assert_eq!(outbox.writable(), b":3\r\n");
    }

    #[test]
    fn a_lost_reply_becomes_a_redirect_and_the_others_stay() {
        let mut outbox = Outbox::default();
        held(&mut outbox, 1, 1);
        outbox.push(&Reply::Int(2), PROTOCOL);
        held(&mut outbox, 3, 3);
        held(&mut outbox, 4, 9);
        let fate = |batch: BatchId| match batch.sequence {
            1 => Fate::Committed,
            3 => Fate::Lost,
            _ => Fate::Open,
        };
        outbox.redirect_lost(fate, |_| Reply::Error("MOVED".into()), PROTOCOL);
        assert_eq!(outbox.writable(), b":1\r\n:2\r\n-MOVED\r\n");
        outbox.release(up_to(9));
        assert_eq!(outbox.writable(), b":1\r\n:2\r\n-MOVED\r\n:4\r\n");
    }

    #[test]
    fn a_barrier_stays_before_its_reply_when_those_before_it_become_redirects() {
        let mut outbox = Outbox::default();
        outbox.push(&Reply::text("a value that is longer than a redirect"), PROTOCOL);
        outbox.hold(0, batch(1), None);
        outbox.bar(outbox.end(), 1, 7);
        outbox.push(&Reply::Int(1), PROTOCOL);
        held(&mut outbox, 2, 2);
        outbox.bar(outbox.end(), 1, 8);
        outbox.push(&Reply::Int(3), PROTOCOL);
        outbox.redirect_lost(|_| Fate::Lost, |_| Reply::Error("MOVED".into()), PROTOCOL);
        assert_eq!(outbox.writable(), b"-MOVED\r\n");
        assert!(outbox.release_round(1, 7));
        assert_eq!(outbox.writable(), b"-MOVED\r\n:1\r\n-MOVED\r\n");
    }

    #[test]
    fn a_barrier_holds_what_was_read_without_a_lease() {
        let mut outbox = Outbox::default();
        outbox.push(&Reply::Int(0), PROTOCOL);
        outbox.bar(outbox.end(), 1, 7);
        outbox.push(&Reply::Int(1), PROTOCOL);
        assert_eq!(outbox.writable(), b":0\r\n");
        assert!(!outbox.release_round(1, 6));
        assert!(!outbox.release_round(2, 9));
        assert!(outbox.is_barred_before(2));
        assert!(outbox.release_round(1, 7));
        assert_eq!(outbox.writable(), b":0\r\n:1\r\n");
    }
}
