//! The time of a shard: when keys expire, and what `TIME` shows.
//!
//! # Rules
//!
//! *The shard's time* is a clock of its own, in Unix time. Who leads the shard has it; a deadline is a moment of it, and
//! over when it is past.
//!
//! 1. **Rate.** A leader's time goes on with its CLOCK_BOOTTIME, and follows its wall clock only by going up to *s* faster
//!    or slower (`clock-slew-per-mille`). However the wall clock jumps, the shard's time never does.
//! 2. **Told.** Each batch carries a stamp: the leader's time when it was sealed, and [`AHEAD_MS`] on top. So it is two
//!    things: the *ceiling*, up to which `TIME` may have shown the time once the batch is committed, and, less
//!    [`AHEAD_MS`], the leader's time. (A shard that only shows times writes a batch when it reaches its ceiling.)
//!    Messages of a leader that serves tell its time too ([`LeaderTime`]): a moment that it had reached when they left.
//! 3. **Followed.** A follower goes on from what the leader of the highest term told, T, at its own boot clock b, by
//!    `T + (now - b) * (1 - drift) * (1 - s)`, where clocks' rates differ by at most `lease-drift-percent`; and never
//!    below what the last batch it applied tells. What a leader of an older term told is forgotten.
//! 4. **Taken over.** A new leader goes on from there when the whole log before its own first entry is applied.
//! 5. **Shown.** `TIME` shows the shard's time, but never less than the last ceiling before the term. A reply that
//!    shows it leaves once a ceiling that covers it is committed. A reply to who found a key expired leaves once a batch
//!    is committed that tells a time at which it is: as a rule the one that removes the key.
//!
//! # A new leader's time is never ahead of the old one's
//!
//! Let N take over, and M be the leader that told what N goes on from. M had reached T before N's clock showed b, since
//! messages travel forward in time; since then M's time, had M gone on, has run by at least (1 - s) of its boot clock,
//! and that by at least (1 - drift) of N's. So N begins at or behind M's time of that moment. It is behind by no more
//! than the way of M's last message and drift + s of the time since: some 100 ms after an election of a second; that
//! much later may a key expire than it would have.
//!
//! # No deadline is early
//!
//! Let a key's deadline be set at real time t, when the time of its leader K is d, to d + L. At any real time u after
//! that, no leader that has this change in its log has a time above `d + (u - t) * (1 + s) * r`, r being the rate of
//! the fastest boot clock. So L is over no sooner than `L / ((1 + s) * r)` after t.
//!
//! For K itself this is rule 1. Else go by terms: let N be the leader, and M as above. M's term is not below K's: N has
//! applied K's batch, which told it K's time. If M is K, N began at or behind K's time, and has gone on by rule 1. If
//! M's term is higher, M served: its first entry is committed, so N, elected later, has it, and has K's batch before it;
//! two logs with an entry in common have all before it in common, so M has K's batch too. By induction the bound holds
//! for M's time when N took over, N began at or behind it, and has gone on by rule 1.
//!
//! (Who has not the change in its log does not know of the deadline: K's client was never answered.)
//!
//! # What was seen to be expired stays so
//!
//! The reply left when a batch was committed that tells a time past the deadline. Every later leader has that batch, and
//! never begins below it: rule 3 if it was the last to tell, and else because the one that told had it in its log, as
//! above, and did not either. A reader at a follower sees that replica's own time, which waits rather than goes back when
//! another leader's time is behind it: a key that lives for less than this is then gone early there, and there only. From
//! one replica to the next the time may go back, as all that followers show.
//!
//! # What was shown never goes back
//!
//! It was below a ceiling that is committed, and a new leader shows no less than the last ceiling of its log. Ceilings
//! grow along a log: a leader's time is not below what the last batch told, so its first is not below that batch's. And
//! what is shown lies never more than [`AHEAD_MS`] above the shard's time, so the next ceiling covers it. As `TIME` is
//! not behind the shard's time, a deadline that is reckoned from it (`EXPIREAT`) is not early either.
//!
//! # When nobody led
//!
//! A new leader that was started a moment ago, and has heard of no leader since, knows of the time before only what its
//! log says: nobody has told how long ago that was. And one that has heard of none for long has fallen behind by drift + s
//! of all that time. Either, if it has heard of none for [`DOUBT_NS`], takes the wall clock's word, but for as much: its
//! time is at least the wall clock less that. So keys expire though the cluster was down, a minute late at most; and
//! wall clocks that are less than a minute apart, or set by less while nobody led, shorten nothing. **A wall clock that
//! is fast by more, at a leader that heard of none before it for a minute or since its start, does shorten what time
//! keys have left.** Where no key has a deadline there is nothing to be shortened, and the wall clock's word is taken as
//! it is.

use moonraft_proto::entry::AHEAD_MS;

use crate::{consensus::LeaderTime, marks};

/// After so long without a word of a leader a wall clock is believed, and so far it is not; in nanoseconds.
pub const DOUBT_NS: u64 = 60 * SECOND_NS;

const SECOND_NS: u64 = 1_000_000_000;
const FAR_NS: i64 = 5 * SECOND_NS as i64;
const MILLISECOND_NS: u64 = 1_000_000;

/// How much clocks may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How much faster one node's boot clock may run than another's; below 100.
    pub drift_percent: u64,
    /// How much faster or slower than its boot clock a leader's time may run to follow the wall clock; at most 1000.
    pub slew_per_mille: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        // Half of what clients of locks allow for clocks that differ (Redlock: 1 %), and ten times what a system's own clock is
        // slewed by.
        Self { drift_percent: 10, slew_per_mille: 5 }
    }
}

impl Bounds {
    /// The least by which a leader's time goes on in so many nanoseconds of its own boot clock.
    fn least(self, elapsed_ns: u64) -> u64 {
        part(elapsed_ns, 1000 - self.slew_per_mille, 1000)
    }

    /// The same, of this node's boot clock.
    fn least_elsewhere(self, elapsed_ns: u64) -> u64 {
        part(self.least(elapsed_ns), 100 - self.drift_percent, 100)
    }
}

fn part(of: u64, numerator: u64, denominator: u64) -> u64 {
    (u128::from(of) * u128::from(numerator) / u128::from(denominator)) as u64
}

/// What the clocks show a unit, Unix microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The shard's time: keys whose deadline is before it are gone.
    pub now_us: u64,
    /// What `TIME` shows.
    pub shown_us: u64,
}

/// The clock of one replica.
#[derive(Debug, Default)]
pub struct Clock {
    bounds: Bounds,
    /// The shard's time, Unix nanoseconds, when the boot clock was `at_ns`: at a leader its latest reading, at a follower
    /// what it was told last. 0 if nobody told.
    time_ns: u64,
    at_ns: u64,
    /// The term of the leader whose time it is.
    term: u64,
    leads: bool,
    /// When a leader told it the time, or it led, last; `None` if that was before it was started.
    heard_ns: Option<u64>,
    /// By how much the wall clock was ahead of a leader's time, less what it followed since.
    behind_ns: i64,
    /// `TIME` shows no less, Unix microseconds: what a leader's ceiling was when it began, and what a follower has shown.
    least_shown_us: u64,
    /// The latest reading at a follower, Unix microseconds.
    least_read_us: u64,
    /// The newest stamp that is committed, or was sealed by an earlier leader.
    committed_ms: u64,
    /// The newest stamp that this leader has sealed.
    sealed_ms: u64,
}

impl Clock {
    /// A clock on a state whose last stamp was this, Unix milliseconds.
    pub fn starting_at(stamp_ms: u64, bounds: Bounds) -> Self {
        Self { bounds, committed_ms: stamp_ms, ..Self::default() }
    }

    /// Clocks may differ by this from now on.
    pub fn set_bounds(&mut self, boot_ns: u64, bounds: Bounds) {
        self.advance(boot_ns);
        self.bounds = bounds;
    }

    /// The time of the shard when the clocks show this, nanoseconds and Unix microseconds.
    pub fn read(&mut self, boot_ns: u64, wall_us: impl FnOnce() -> u64) -> Reading {
        if self.leads {
            self.advance(boot_ns);
            let now_us = self.time_ns / 1000;
            return Reading { now_us, shown_us: now_us.max(self.least_shown_us) };
        }
        self.least_read_us = self.least_read_us.max(self.followed_ns(boot_ns) / 1000);
        // Who has not heard of a leader yet knows the time by its own clock.
        let shown_us =
            if self.has_heard(boot_ns) { self.least_read_us } else { self.least_read_us.max(wall_us()) };
        self.least_shown_us = self.least_shown_us.max(shown_us);
        Reading { now_us: self.least_read_us, shown_us: self.least_shown_us }
    }

    /// Brings a leader's time up to date.
    fn advance(&mut self, boot_ns: u64) {
        if !self.leads {
            return;
        }
        let elapsed_ns = boot_ns.saturating_sub(self.at_ns);
        let most_ns = elapsed_ns.saturating_mul(self.bounds.slew_per_mille) / 1000;
        let most_ns = i64::try_from(most_ns).unwrap_or(i64::MAX);
        let followed_ns = self.behind_ns.clamp(-most_ns, most_ns);
        self.behind_ns -= followed_ns;
        self.time_ns = self.time_ns.saturating_add(elapsed_ns).saturating_add_signed(followed_ns);
        self.at_ns += elapsed_ns;
    }

    /// A follower's time.
    fn followed_ns(&self, boot_ns: u64) -> u64 {
        let told_ns = match self.time_ns {
            0 => 0,
            time_ns => {
                time_ns.saturating_add(self.bounds.least_elsewhere(boot_ns.saturating_sub(self.at_ns)))
            }
        };
        told_ns.max(told_by(self.committed_ms))
    }

    /// Whether a leader told the time of late.
    fn has_heard(&self, boot_ns: u64) -> bool {
        self.heard_ns.is_some_and(|heard_ns| boot_ns.saturating_sub(heard_ns) < DOUBT_NS)
    }

    /// A leader looks at its wall clock, to follow it.
    pub fn look_at_wall(&mut self, boot_ns: u64, wall_us: u64) {
        self.advance(boot_ns);
        self.behind_ns = behind_ns(self.time_ns, wall_us);
        if self.behind_ns > FAR_NS {
            marks::reached("wall clock far ahead of the shard's time");
        } else if self.behind_ns < -FAR_NS {
            marks::reached("wall clock far behind the shard's time");
        }
    }

    /// By how much the wall clock is ahead of what the shard's time was when it was last read, in milliseconds.
    pub fn behind_ms(&self, boot_ns: u64, wall_us: u64) -> i64 {
        let time_ns = if self.leads { self.time_ns } else { self.followed_ns(boot_ns) };
        behind_ns(time_ns, wall_us) / MILLISECOND_NS as i64
    }

    /// A leader that serves told its time in a message.
    pub fn heard(&mut self, told: LeaderTime) {
        // The newest message, not the highest time: where clocks differ by more than they should, it mends itself.
        let is_newer = told.term > self.term || told.term == self.term && told.at_ns > self.at_ns;
        if is_newer && !self.leads {
            (self.term, self.time_ns, self.at_ns) = (told.term, told.time_ns, told.at_ns);
            self.heard_ns = Some(told.at_ns);
        }
    }

    /// A batch with this stamp is committed, which was sealed in this term.
    pub fn committed(&mut self, term: u64, stamp_ms: u64, boot_ns: u64) {
        let time_ns = told_by(stamp_ms);
        let is_news = term > self.term || term == self.term && time_ns > self.followed_ns(boot_ns);
        self.committed_ms = self.committed_ms.max(stamp_ms);
        if is_news && !self.leads {
            (self.term, self.time_ns, self.at_ns) = (term, time_ns, boot_ns);
        }
    }

    /// Takes over as leader: all of the log before this term is applied. `expires`: some key has a deadline.
    pub fn begin_term(&mut self, term: u64, boot_ns: u64, wall_us: u64, expires: bool) {
        self.time_ns = self.followed_ns(boot_ns);
        if !self.has_heard(boot_ns) {
            let believed_ns = wall_us.saturating_mul(1000).saturating_sub(if expires { DOUBT_NS } else { 0 });
            if believed_ns > self.time_ns && self.time_ns > 0 {
                marks::reached("time without a leader was told by the wall clock");
            }
            self.time_ns = self.time_ns.max(believed_ns);
        }
        (self.at_ns, self.term, self.leads) = (boot_ns, term, true);
        self.least_shown_us = self.committed_ms.saturating_mul(1000);
        if self.least_shown_us > self.time_ns / 1000 {
            marks::reached("new leader waited for its time to be shown");
        }
        self.sealed_ms = self.committed_ms;
        self.look_at_wall(boot_ns, wall_us);
    }

    /// For a test of the tests: the new leader begins at the last ceiling.
    pub fn begin_at_ceiling(&mut self) {
        self.time_ns = self.time_ns.max(self.committed_ms.saturating_mul(MILLISECOND_NS));
    }

    /// Leads no more.
    pub fn step_down(&mut self, boot_ns: u64) {
        self.advance(boot_ns);
        if std::mem::take(&mut self.leads) {
            self.heard_ns = Some(boot_ns);
            self.least_read_us = self.time_ns / 1000;
        }
    }

    /// What a leader tells the others, if it serves.
    pub fn told(&self) -> Option<(LeaderTime, u64)> {
        let told = LeaderTime { term: self.term, time_ns: self.time_ns, at_ns: self.at_ns };
        self.leads.then_some((told, 1000 - self.bounds.slew_per_mille))
    }

    /// The stamp for a batch that is sealed now.
    pub fn stamp(&mut self) -> u64 {
        self.sealed_ms = self.sealed_ms.max(self.time_ns / MILLISECOND_NS + AHEAD_MS);
        self.sealed_ms
    }

    /// The newest committed stamp, Unix milliseconds.
    pub const fn committed_ms(&self) -> u64 {
        self.committed_ms
    }

    /// The stamp that must be committed before what was read last may be known: it was shown, or a key found expired.
    pub fn needed_ms(&self, shown: bool, found_expired: bool) -> u64 {
        let shown_ms = if shown { (self.time_ns / 1000).max(self.least_shown_us).div_ceil(1000) } else { 0 };
        let passed_ms = if found_expired { self.time_ns / MILLISECOND_NS + AHEAD_MS } else { 0 };
        shown_ms.max(passed_ms)
    }

    /// Whether such a stamp is on its way.
    pub const fn is_sealed(&self, needed_ms: u64) -> bool {
        needed_ms <= self.sealed_ms
    }
}

/// The leader's time when it sealed a batch with this stamp.
const fn told_by(stamp_ms: u64) -> u64 {
    stamp_ms.saturating_sub(AHEAD_MS).saturating_mul(MILLISECOND_NS)
}

fn behind_ns(time_ns: u64, wall_us: u64) -> i64 {
    let behind_ns = i128::from(wall_us) * 1000 - i128::from(time_ns);
    behind_ns.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A wall clock that is right at boot clock 0; microseconds.
    const WALL_US: u64 = 1_900_000_000_000_000;

    fn leader(boot_ns: u64, wall_us: u64) -> Clock {
        let mut clock = Clock::default();
        clock.begin_term(1, boot_ns, wall_us, false);
        clock
    }

    fn now_us(clock: &mut Clock, boot_ns: u64) -> u64 {
        clock.read(boot_ns, || unreachable!("it knows the time")).now_us
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_followed_slowly_and_to_its_end() {
        for (jump_s, rate) in [(20, 1005), (-20, 995)] {
            let mut clock = leader(0, WALL_US);
            let wall_us = |s: u64| (WALL_US + s * 1_000_000).saturating_add_signed(jump_s * 1_000_000);
            for s in 0..=4000 {
                let passed_us = now_us(&mut clock, s * SECOND_NS) - WALL_US;
                assert_eq!(passed_us, s * 1000 * rate, "after {s} s of a jump of {jump_s} s");
                clock.look_at_wall(s * SECOND_NS, wall_us(s));
            }
            // The twenty seconds are made good, and no more.
            for s in [4001, 5000, 9000] {
                assert_eq!(now_us(&mut clock, s * SECOND_NS), wall_us(s));
                clock.look_at_wall(s * SECOND_NS, wall_us(s));
            }
        }
    }

    #[test]
    fn a_leader_that_was_not_asked_for_long_follows_no_faster() {
        let mut clock = leader(0, WALL_US);
        clock.look_at_wall(0, WALL_US + 3_600_000_000);
        assert_eq!(now_us(&mut clock, 10 * SECOND_NS), WALL_US + 10_050_000);
    }

    #[test]
    fn a_new_leader_never_shows_a_time_that_was_passed() {
        let mut old = leader(0, WALL_US);
        let reading = old.read(0, || 0);
        let needed = old.needed_ms(true, false);
        let stamp = old.stamp();
        assert!(needed > old.committed_ms() && old.is_sealed(needed));
        old.committed(1, stamp, 0);
        assert!(needed <= old.committed_ms());
        // A stamp covers its own millisecond's beginning, not all of it.
        assert!(old.read(200_216_000, || 0).shown_us > reading.shown_us);
        assert!(!old.is_sealed(old.needed_ms(true, false)));
        // The next leader's wall clock is twenty seconds behind, and nothing has told it how much time has passed.
        let mut new = Clock::default();
        new.committed(1, stamp, 5 * SECOND_NS);
        new.begin_term(2, 5 * SECOND_NS, WALL_US - 20_000_000, true);
        let first = new.read(5 * SECOND_NS, || 0);
        assert_eq!((first.now_us, first.shown_us), (WALL_US, WALL_US + AHEAD_MS * 1000));
        assert!(new.needed_ms(true, false) <= new.committed_ms());
        assert!(new.stamp() >= stamp);
    }

    #[test]
    fn what_was_found_expired_is_expired_for_the_next_leader() {
        let mut old = leader(0, WALL_US);
        let now_us = now_us(&mut old, 1_234_567_890);
        let stamp = old.stamp();
        assert_eq!(old.needed_ms(false, true), stamp);
        let mut new = Clock::default();
        new.committed(1, stamp, 0);
        new.begin_term(2, 0, 0, true);
        assert_eq!(new.read(0, || 0).now_us / 1000, now_us / 1000);
    }

    #[test]
    fn a_follower_forgets_what_an_older_leader_told() {
        let told = |term, time_s: u64, at_s: u64| LeaderTime {
            term,
            time_ns: time_s * SECOND_NS,
            at_ns: at_s * SECOND_NS,
        };
        let mut clock = Clock::default();
        clock.heard(told(1, 1_900_000_100, 10));
        clock.heard(told(2, 1_900_000_095, 11));
        clock.heard(told(1, 1_900_000_102, 12));
        // Its readers' time waits until the new leader's has come so far.
        let read = |clock: &mut Clock, s: u64| clock.read(s * SECOND_NS, || 0).now_us / 1_000_000;
        assert_eq!(read(&mut clock, 11), 1_900_000_095);
        assert_eq!(
            read(&mut clock, 21),
            1_900_000_103,
            "not ten seconds: its clock may be fast, and the leader's slow"
        );
        clock.heard(told(3, 1_900_000_100, 22));
        assert_eq!(read(&mut clock, 22), 1_900_000_103);
        clock.begin_term(4, 22 * SECOND_NS, 0, true);
        assert_eq!(read(&mut clock, 22), 1_900_000_100);
    }

    #[test]
    fn after_a_stop_of_all_the_wall_clock_is_believed_but_for_a_minute() {
        let restarted = |wall_us, expires| {
            let mut clock = Clock::starting_at(WALL_US / 1000 + AHEAD_MS, Bounds::default());
            clock.begin_term(2, 0, wall_us, expires);
            now_us(&mut clock, 0)
        };
        let hour_us = 3_600_000_000;
        assert_eq!(restarted(WALL_US + hour_us, true), WALL_US + hour_us - DOUBT_NS / 1000);
        assert_eq!(restarted(WALL_US + hour_us, false), WALL_US + hour_us);
        assert_eq!(restarted(WALL_US + 20_000_000, true), WALL_US);
        assert_eq!(restarted(WALL_US - hour_us, false), WALL_US);
        // Who was told the time of late needs no wall clock.
        let elected = |after_ns| {
            let mut clock = Clock::default();
            clock.heard(LeaderTime { term: 1, time_ns: WALL_US * 1000, at_ns: 7 });
            clock.begin_term(2, 7 + after_ns, WALL_US + hour_us, true);
            now_us(&mut clock, 7 + after_ns)
        };
        assert_eq!(elected(0), WALL_US);
        assert!(elected(DOUBT_NS - 1) < WALL_US + DOUBT_NS / 1000);
        assert_eq!(elected(DOUBT_NS), WALL_US + hour_us - DOUBT_NS / 1000);
    }

    /// A moment of real time, nanoseconds, on a boot clock of this rate.
    fn rated(ns: u64, rate_ppm: i64) -> u64 {
        ns.saturating_add_signed((i128::from(ns) * i128::from(rate_ppm) / 1_000_000) as i64)
    }

    proptest! {
        /// Two clocks that differ by all that they may, wall clocks anywhere, messages late: whenever the leader ends, the
        /// next begins at or behind it, and by no more than it should.
        #[test]
        fn a_new_leader_is_never_ahead_of_the_old_one(
            rates in prop::array::uniform2(-45_000i64..45_000),
            walls in prop::array::uniform2(-20_000_000i64..20_000_000),
            slew_per_mille in 0u64..200,
            gaps_ms in prop::collection::vec((1u64..400, 0u64..60, any::<bool>()), 1..20),
            election_ms in 0u64..3000,
        ) {
            let bounds = Bounds { slew_per_mille, ..Bounds::default() };
            let start_us = WALL_US.saturating_add_signed(walls[0]);
            let mut old = Clock::starting_at(0, bounds);
            old.begin_term(1, 0, start_us, false);
            let mut new = Clock::starting_at(0, bounds);
            let (mut sent, mut heard) = (0, 0);
            for &(gap_ms, way_ms, is_batch) in &gaps_ms {
                sent = sent.max(heard) + gap_ms * MILLISECOND_NS;
                heard = sent + way_ms * MILLISECOND_NS;
                let boot_ns = rated(sent, rates[0]);
                old.look_at_wall(boot_ns, (WALL_US + boot_ns / 1000).saturating_add_signed(walls[0] - 15_000_000));
                if is_batch {
                    new.committed(1, old.stamp(), rated(heard, rates[1]));
                } else {
                    let (told, _) = old.told().expect("it leads");
                    new.heard(LeaderTime { at_ns: rated(heard, rates[1]), ..told });
                }
            }
            let (way_ms, is_batch) = (gaps_ms[gaps_ms.len() - 1].1, gaps_ms[gaps_ms.len() - 1].2);
            let end = heard + election_ms * MILLISECOND_NS;
            let old_us = now_us(&mut old, rated(end, rates[0]));
            new.begin_term(2, rated(end, rates[1]), WALL_US, true);
            let new_us = now_us(&mut new, rated(end, rates[1]));
            prop_assert!(new_us <= old_us, "{new_us} is ahead of {old_us}");
            if !is_batch {
                // Both clocks at their worst, and twice the slew: theirs is reckoned with, ours may not have been needed.
                let lag_us = 1200 * way_ms + (100 * 2 + 2 * slew_per_mille) * election_ms + 10;
                prop_assert!(old_us - new_us <= lag_us, "{} us behind", old_us - new_us);
            }
        }
    }
}
