//! The leader's lease: the time in which no other leader can exist, so that a read needs no round trip.
//!
//! # Rule
//!
//! Every append, heartbeat and snapshot message of a leader carries `stamp`, its clock before the message was sent.
//! A follower that takes such a message from the leader of its term remembers the largest stamp and sends it back
//! as `echo` with every answer to that leader in that term. Let S be the largest time such that a quorum (of both
//! configurations if they are joint) has echoed S or later in this term, the leader itself counting as "now". The
//! lease is valid while the leader's clock is before
//!
//! ```text
//! S + (election_ticks_min - 1) * tick * (1 - drift)
//! ```
//!
//! # Why no other leader can exist before that
//!
//! Let L lead term T with such an S, and let N be the **first** elected of all leaders with terms above T. Its
//! quorum of votes meets the quorum of echoes in a replica F. F took L's stamped message in term T, so it did so
//! before it voted in N's higher term; L sent that message at S or later. F's vote went out in one of four ways.
//!
//! 1. *For another, unforced.* `Group` drops vote and pre-vote requests for `election_ticks_min` ticks' time after
//!    the replica last took a leader's message. Raft's own check is not enough: it forgets the leader when any
//!    answer of a higher term arrives, and a delayed rejection of an old candidacy is such an answer.
//! 2. *For itself, unforced.* F became a candidate by its own timeout, at least `election_ticks_min` ticks after it
//!    took the message; `Consensus` lets no two ticks count that are closer than `tick` on F's clock. The first tick
//!    may come right after the message, so `election_ticks_min - 1` ticks' time has passed. (A pre-candidate that
//!    hears L becomes a follower again.)
//! 3. *Forced by a transfer.* Only a leader of term N-1 starts that, of itself or by MsgTimeoutNow, and the request
//!    is for exactly the next term. Were N-1 above T, an earlier leader than N would exist. So it was L, and L gives
//!    up its lease for the rest of the term before it starts a transfer (`Group::retire`).
//! 4. *F is L itself.* Then L saw the higher term before it voted, and its lease was withdrawn before the vote left.
//!
//! In 1 and 2 the vote was cast at least `(election_ticks_min - 1) * tick` after S **on F's clock**, which is at
//! least the lease's length on L's clock as long as the two clocks' rates differ by no more than the drift.
//! F cannot have forgotten: a node that just started counts its start as a message from a leader, with the longest
//! timeout to be generous ([`PlantedFault::VoteAfterRestart`](super::PlantedFault) leaves this out), and a replica
//! whose log is lost never comes back under the same id.
//!
//! All this needs: `now` given to `Consensus::step` was read **after** the input arrived (so that a message with
//! stamp S is taken at S or later), and `now` given to `collect` and `persisted` **before** messages are sent.
//!
//! # Transfers
//!
//! Once a leader has sent MsgTimeoutNow it cannot know when the receiver will act on it, so in that term it never
//! has a lease again. A transfer that fails ends the term: the leader steps down and forces a campaign of its own
//! for the next one. That is case 3 again, so it breaks nobody else's lease.
//!
//! # Reading it
//!
//! The shard executes, **then** reads the clock, then asks [`LeaseCell::covers`]: a process that slept in between
//! notices.
//!
//! # The shard's time
//!
//! The same messages tell the time of the shard ([`LeaderTime`], `shard::clock`), as far as the leader's shard says it to
//! [`ShardTimes`], which it does while it serves. No lease depends on it.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use super::types::BootTime;

/// A group's lease, shared with the shard's thread.
///
/// INVARIANT: `term` only grows, and between two values of it `valid_until` is 0. So a reader that finds its term
/// before and after it reads `valid_until` has a value of that term.
#[derive(Debug, Default)]
pub struct LeaseCell {
    term: AtomicU64,
    valid_until: AtomicU64, // 0: no lease
    /// The time of the shard, as its leader tells it.
    pub times: ShardTimes,
}

/// What the leader of a term said of the time of its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderTime {
    /// The term.
    pub term: u64,
    /// The shard's time, Unix nanoseconds.
    pub time_ns: u64,
    /// This node's boot clock when the leader had reached it: at the leader itself to the nanosecond, elsewhere later.
    pub at_ns: BootTime,
}

/// What consensus and the shard's thread tell each other of the shard's time.
#[derive(Debug, Default)]
pub struct ShardTimes {
    /// The time here while the shard serves, and by how much it goes on at least, in parts per thousand.
    own: Mutex<Option<(LeaderTime, u64)>>,
    heard: Mutex<Option<LeaderTime>>,
}

impl ShardTimes {
    /// The shard serves, and this is its time, which goes on by so many parts per thousand at least; or it does not.
    pub fn tell(&self, own: Option<(LeaderTime, u64)>) {
        *self.own.lock().expect("no thread panics holding it") = own;
    }

    /// The newest that was heard of a leader.
    pub fn heard(&self) -> Option<LeaderTime> {
        *self.heard.lock().expect("no thread panics holding it")
    }

    /// What the shard's time is at `now` at least, if its leader in `term` serves here; 0 if it does not.
    pub(super) fn own(&self, term: u64, now: BootTime) -> u64 {
        let own = *self.own.lock().expect("no thread panics holding it");
        own.filter(|(own, _)| own.term == term).map_or(0, |(own, per_mille)| {
            own.time_ns.saturating_add(now.saturating_sub(own.at_ns) / 1000 * per_mille)
        })
    }

    /// A message of the leader of `term` was taken at `now` that tells this; 0: nothing.
    pub(super) fn hear(&self, term: u64, time_ns: u64, now: BootTime) {
        if time_ns > 0 {
            *self.heard.lock().expect("no thread panics holding it") =
                Some(LeaderTime { term, time_ns, at_ns: now });
        }
    }
}

impl LeaseCell {
    /// Whether the replica, leading `term`, had a lease at `now`. `now` must have been read after the reads were
    /// executed.
    pub fn covers(&self, term: u64, now: BootTime) -> bool {
        now < self.valid_until(term)
    }

    /// Until when the lease of `term` is valid; 0 if there is none.
    pub fn valid_until(&self, term: u64) -> BootTime {
        if self.term.load(Ordering::SeqCst) != term {
            return 0;
        }
        let valid_until = self.valid_until.load(Ordering::SeqCst);
        match self.term.load(Ordering::SeqCst) == term {
            true => valid_until,
            false => 0,
        }
    }

    pub(super) fn publish(&self, term: u64, valid_until: BootTime) {
        if self.term.load(Ordering::Relaxed) != term {
            self.valid_until.store(0, Ordering::SeqCst);
            self.term.store(term, Ordering::SeqCst);
        }
        if self.valid_until.load(Ordering::Relaxed) != valid_until {
            self.valid_until.store(valid_until, Ordering::SeqCst);
        }
    }
}

/// The newest echo of each follower, for one term.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    term: u64,
    newest: Vec<(u64, BootTime)>,
}

impl Echoes {
    /// An answer in `term` came from `replica`.
    pub(super) fn record(&mut self, term: u64, replica: u64, echo: BootTime) {
        if self.term != term {
            self.term = term;
            self.newest.clear();
        }
        match self.newest.iter_mut().find(|(id, _)| *id == replica) {
            Some((_, newest)) => *newest = echo.max(*newest),
            None => self.newest.push((replica, echo)),
        }
    }

    /// The newest echo of `replica` in `term`; 0 if none.
    pub(super) fn of(&self, term: u64, replica: u64) -> BootTime {
        let found = self.newest.iter().find(|(id, _)| *id == replica);
        found.filter(|_| self.term == term).map_or(0, |(_, echo)| *echo)
    }

    /// The time that a quorum of `voters` has echoed, `me` counting as `now`. No voters: they ask for nothing.
    pub(super) fn quorum(&self, term: u64, voters: &[u64], me: u64, now: BootTime) -> BootTime {
        if voters.is_empty() {
            return now;
        }
        let mut times: Vec<BootTime> =
            voters.iter().map(|voter| if *voter == me { now } else { self.of(term, *voter) }).collect();
        times.sort_unstable();
        times[(times.len() - 1) / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_a_majority_with_the_leader_as_now() {
        let mut echoes = Echoes::default();
        echoes.record(7, 2, 50);
        echoes.record(7, 3, 80);
        echoes.record(7, 3, 60); // an older one, late
        assert_eq!(echoes.quorum(7, &[1, 2, 3], 1, 100), 80);
        assert_eq!(echoes.quorum(7, &[1, 2, 3, 4], 1, 100), 50);
        assert_eq!(echoes.quorum(7, &[1, 2, 3, 4, 5], 1, 100), 50);
        assert_eq!(echoes.quorum(7, &[2, 3], 1, 100), 50, "the leader does not vote");
        assert_eq!(echoes.quorum(7, &[1], 1, 100), 100);
        assert_eq!(echoes.quorum(8, &[1, 2, 3], 1, 100), 0, "another term");
    }

    #[test]
    fn a_leader_tells_its_shards_time_in_the_term_in_which_it_serves() {
        let times = ShardTimes::default();
        assert_eq!(times.own(3, 10_000), 0);
        let told = LeaderTime { term: 3, time_ns: 500_000, at_ns: 10_000 };
        times.tell(Some((told, 995)));
        assert_eq!(
            times.own(3, 9_000),
            500_000,
            "what was read later was reached before a message leaves now"
        );
        assert_eq!(times.own(3, 12_000), 501_990);
        assert_eq!((times.own(2, 12_000), times.own(4, 12_000)), (0, 0));
        times.tell(None);
        assert_eq!(times.own(3, 12_000), 0);
        // A message that tells nothing does not take away what one told.
        times.hear(4, 700_000, 20);
        times.hear(4, 0, 30);
        assert_eq!(times.heard(), Some(LeaderTime { term: 4, time_ns: 700_000, at_ns: 20 }));
    }

    #[test]
    fn a_cell_answers_for_its_term_only() {
        let cell = LeaseCell::default();
        cell.publish(3, 500);
        assert!(cell.covers(3, 499));
        assert!(!cell.covers(3, 500));
        assert!(!cell.covers(2, 1) && !cell.covers(4, 1));
        cell.publish(4, 0);
        assert!(!cell.covers(3, 1) && !cell.covers(4, 1));
    }
}
