//! The replies of one connection, and the gate that holds them.
//!
//! The leader executes a request at once, on a state that may hold changes the
//! group has not agreed on yet. Its reply must not leave before they are: a
//! write waits for its own batch, a read for the newest uncommitted batch of any
//! key it saw. A read also waits, where no lease covers it, for a round that
//! confirms that this replica still led. (A write needs none: its own batch
//! commits only if it did.)
//!
//! All replies are encoded into one buffer; a `Hold` marks a piece of it that
//! may not leave yet. What stands before the first hold may be written.
//!
//! Invariants:
//! * Replies leave in the order of their requests.
//! * A held reply leaves unchanged if its batch committed and its round was
//!   confirmed, and becomes a redirect if the batch was overwritten or the round
//!   never will be confirmed.

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

/// A round of a term that confirms that this replica led when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundId {
    /// The term.
    pub term: u64,
    /// Its number in that term, from 1.
    pub round: u64,
}

/// What is sent in place of a reply that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// A redirect to where the request belonged: it had no effect.
    Redirect(Option<u16>),
    /// Nothing can be: it read, and it published a message, which is gone.
    Close,
}

/// The reply to a read, as it stands in the outbox.
#[derive(Clone, Copy, Debug)]
pub struct ReadReply {
    /// Offset of its first byte.
    pub start: u64,
    /// Offset behind its last.
    pub end: u64,
    /// What is sent in its place if nobody can confirm it.
    pub instead: Instead,
}

/// A reply that may not leave yet. Offsets count all bytes ever put out.
#[derive(Clone, Copy, Debug)]
struct Hold {
    start: u64,
    end: u64,
    batch: Option<BatchId>,
    round: Option<RoundId>,
    instead: Instead,
}

/// Replies on their way to a client.
#[derive(Debug, Default)]
pub struct Outbox {
    buffer: BytesMut,
    /// Offset of the buffer's first byte.
    start: u64,
    /// In the order of their offsets.
    holds: VecDeque<Hold>,
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
        !self.holds.is_empty()
    }

    /// Appends a reply.
    pub fn push(&mut self, reply: &Reply<'_>, protocol: Protocol) {
        reply.encode(protocol, &mut self.buffer);
    }

    /// Appends a reply that is written already.
    pub fn push_encoded(&mut self, reply: BytesMut) {
        match self.buffer.is_empty() {
            true => self.buffer = reply,
            false => self.buffer.extend_from_slice(&reply),
        }
    }

    /// The batch that the oldest held reply waits for.
    pub fn oldest_hold(&self) -> Option<BatchId> {
        self.holds.front().and_then(|hold| hold.batch)
    }

    /// Holds what was put out since `start` until `batch` is committed.
    pub fn hold(&mut self, start: u64, batch: BatchId, slot: Option<u16>) {
        let (end, instead) = (self.end(), Instead::Redirect(slot));
        self.holds.push_back(Hold { start, end, batch: Some(batch), round: None, instead });
    }

    /// Holds these replies, the newest, until `round` is confirmed; those that wait for a batch
    /// wait for both.
    pub fn bar(&mut self, reads: &[ReadReply], round: RoundId) {
        // Those that were taken back are not there any more.
        let reads = &reads[reads.partition_point(|read| read.start < self.start)..];
        let Some(first) = reads.first() else { return };
        let before = self.holds.partition_point(|hold| hold.start < first.start);
        let mut newest = self.holds.split_off(before).into_iter().peekable();
        for read in reads {
            while let Some(earlier) = newest.next_if(|hold| hold.start < read.start) {
                self.holds.push_back(earlier);
            }
            let batch = newest.next_if(|hold| hold.start == read.start).and_then(|hold| hold.batch);
            let &ReadReply { start, end, instead } = read;
            self.holds.push_back(Hold { start, end, batch, round: Some(round), instead });
        }
        self.holds.extend(newest);
    }

    /// Takes back what was put out since `offset`, which is not held.
    pub fn truncate(&mut self, offset: u64) {
        self.buffer.truncate((offset - self.start) as usize);
    }

    /// Takes all back: nothing of it leaves any more.
    pub fn clear(&mut self) {
        self.start = self.end();
        self.buffer = BytesMut::new();
        self.holds.clear();
    }

    /// What may leave now.
    pub fn writable(&self) -> &[u8] {
        let open = self.holds.front().map_or(self.end(), |hold| hold.start);
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

    /// Opens the gate for replies whose batch committed and whose round was confirmed.
    /// Returns whether more may be written than before.
    pub fn release(&mut self, fate: impl Fn(BatchId) -> Fate) -> bool {
        let before = self.holds.len();
        let is_free = |hold: &Hold| {
            hold.round.is_none() && hold.batch.is_none_or(|batch| fate(batch) == Fate::Committed)
        };
        while self.holds.front().is_some_and(is_free) {
            self.holds.pop_front();
        }
        self.holds.len() != before
    }

    /// A round was confirmed, and with it those before it in its term. Returns whether more may be
    /// written than before.
    pub fn release_round(&mut self, confirmed: RoundId, fate: impl Fn(BatchId) -> Fate) -> bool {
        let is_confirmed = |it: RoundId| it.term == confirmed.term && it.round <= confirmed.round;
        for hold in &mut self.holds {
            hold.round = hold.round.filter(|&round| !is_confirmed(round));
        }
        self.release(fate)
    }

    /// Whether a reply waits for a round of a term before `term`: no one can confirm it any more.
    pub fn is_barred_before(&self, term: u64) -> bool {
        self.holds.iter().any(|hold| hold.round.is_some_and(|round| round.term < term))
    }

    /// Writes a redirect in place of every held reply whose batch is lost, or which waits for a
    /// round of a term before `leading`, and releases it. Replies behind it that wait for others
    /// stay held. Returns whether a reply was lost that no redirect can replace: the connection
    /// must be closed.
    #[must_use]
    pub fn redirect_lost(
        &mut self,
        fate: impl Fn(BatchId) -> Fate,
        leading: u64,
        redirect: impl Fn(Option<u16>) -> Reply<'static>,
        protocol: Protocol,
    ) -> bool {
        let is_lost = |hold: &Hold| {
            hold.batch.is_some_and(|batch| fate(batch) == Fate::Lost)
                || hold.round.is_some_and(|round| round.term < leading)
        };
        if !self.holds.iter().any(is_lost) {
            return false;
        }
        let mut must_close = false;
        let old = std::mem::take(self);
        self.start = old.start;
        let piece = |from: u64, to: u64| &old.buffer[(from - old.start) as usize..(to - old.start) as usize];
        let mut at = old.start;
        for hold in &old.holds {
            self.buffer.extend_from_slice(piece(at, hold.start));
            at = hold.end;
            match hold.instead {
                Instead::Redirect(slot) if is_lost(hold) => {
                    redirect(slot).encode(protocol, &mut self.buffer);
                }
                Instead::Close if is_lost(hold) => must_close = true,
                _ => {
                    let start = self.end();
                    self.buffer.extend_from_slice(piece(hold.start, hold.end));
                    self.holds.push_back(Hold { start, end: self.end(), ..*hold });
                }
            }
        }
        self.buffer.extend_from_slice(piece(at, old.start + old.buffer.len() as u64));
        self.release(fate);
        must_close
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

    const MOVED: &str = "MOVED";

    fn moved(_: Option<u16>) -> Reply<'static> {
        Reply::Error(MOVED.into())
    }

    fn round(round: u64) -> RoundId {
        RoundId { term: 1, round }
    }

    /// The reply to a read, put out now.
    fn read(outbox: &mut Outbox, n: i64) -> ReadReply {
        let start = outbox.end();
        outbox.push(&Reply::Int(n), PROTOCOL);
        ReadReply { start, end: outbox.end(), instead: Instead::Redirect(None) }
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
        assert!(!outbox.redirect_lost(fate, 1, moved, PROTOCOL));
        assert_eq!(outbox.writable(), b":1\r\n:2\r\n-MOVED\r\n");
        outbox.release(up_to(9));
        assert_eq!(outbox.writable(), b":1\r\n:2\r\n-MOVED\r\n:4\r\n");
    }

    #[test]
    fn what_was_read_without_a_lease_waits_for_its_round() {
        let mut outbox = Outbox::default();
        outbox.push(&Reply::Int(0), PROTOCOL);
        let barred = read(&mut outbox, 1);
        outbox.bar(&[barred], round(7));
        assert_eq!(outbox.writable(), b":0\r\n");
        assert!(!outbox.release_round(round(6), up_to(0)));
        assert!(!outbox.release_round(RoundId { term: 2, round: 9 }, up_to(0)));
        assert!(outbox.is_barred_before(2) && !outbox.is_barred_before(1));
        assert!(outbox.release_round(round(7), up_to(0)));
        assert_eq!(outbox.writable(), b":0\r\n:1\r\n");
    }

    #[test]
    fn a_read_of_what_is_not_committed_waits_for_both() {
        for round_first in [true, false] {
            let mut outbox = Outbox::default();
            held(&mut outbox, 1, 1);
            let start = outbox.end();
            held(&mut outbox, 2, 1);
            let seen = ReadReply { start, end: outbox.end(), instead: Instead::Redirect(None) };
            let clean = read(&mut outbox, 3);
            outbox.bar(&[seen, clean], round(7));
            if round_first {
                assert!(!outbox.release_round(round(7), up_to(0)));
                assert!(outbox.release(up_to(1)));
            } else {
                assert!(outbox.release(up_to(1)));
                assert_eq!(outbox.writable(), b":1\r\n");
                assert!(outbox.release_round(round(7), up_to(1)));
            }
            assert_eq!(outbox.writable(), b":1\r\n:2\r\n:3\r\n");
        }
    }

    #[test]
    fn a_read_that_nobody_can_confirm_becomes_a_redirect_and_a_write_before_it_stays() {
        let mut outbox = Outbox::default();
        held(&mut outbox, 1, 1);
        let barred = read(&mut outbox, 2);
        outbox.push(&Reply::Int(3), PROTOCOL);
        outbox.bar(&[barred], round(7));
        assert!(!outbox.redirect_lost(up_to(0), 2, moved, PROTOCOL));
        assert_eq!(outbox.writable(), b"");
        outbox.release(up_to(1));
        assert_eq!(outbox.writable(), b":1\r\n-MOVED\r\n:3\r\n");
    }

    #[test]
    fn what_read_and_published_cannot_be_redirected() {
        let mut outbox = Outbox::default();
        let barred = ReadReply { instead: Instead::Close, ..read(&mut outbox, 1) };
        outbox.bar(&[barred], round(7));
        assert!(outbox.redirect_lost(up_to(0), 2, moved, PROTOCOL));
    }
}
