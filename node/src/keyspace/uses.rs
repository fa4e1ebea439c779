//! When and how often keys were used: what `OBJECT IDLETIME` and `OBJECT FREQ` tell, and what eviction goes by.
//!
//! An entry has 32 bits for it, which its size had to spare. Either the time of the last use, in hundredths of a second,
//! or Redis's counter that grows as the logarithm of uses and decays with time, and the minute in which it was looked
//! at last; a bit tells which. What is of the other kind after a change of policy counts as nothing known.
//!
//! This is what one replica has seen, no part of the data: it is not in the log, in snapshots or in digests, and is not
//! undone. Whoever begins to lead knows when keys were written, as he applied it, and what was read of himself. Of a key
//! of a snapshot nothing is known: it counts as used when this replica first looked at a clock.
//!
//! Source: `evict.c` of Redis 7.2 (`LFULogIncr`, `LFUDecrAndReturn`).

use std::sync::atomic::{AtomicU32, Ordering};

/// Set: a counter of uses. Else: a time.
const COUNTS_BIT: u32 = 1 << 31;
/// A time, which begins anew after 248 days.
const TICKS_MASK: u32 = COUNTS_BIT - 1;
/// A tick of it.
const TICK_US: u64 = 10_000;
/// Ticks in a second.
const TICKS_A_SECOND: u32 = (1_000_000 / TICK_US) as u32;
const MINUTE_US: u64 = 60_000_000;
/// Minutes, which begin anew after 45 days, as in Redis.
const MINUTES_MASK: u32 = 0xffff;
/// The counter of a new key: it would else go before it is used a second time.
const COUNT_FIRST: u8 = 5;

/// What is known of one key's uses; 0: nothing.
#[derive(Debug, Default)]
pub struct Used(AtomicU32);

impl Used {
    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, word: u32) {
        self.0.store(word, Ordering::Relaxed);
    }
}

impl Clone for Used {
    fn clone(&self) -> Self {
        Self(AtomicU32::new(self.get()))
    }
}

/// The time of uses, and how they are counted.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    ticks: u32,
    minutes: u32,
    /// When it was first set.
    since_ticks: u32,
    since_minutes: u32,
    counting: Option<Counting>,
}

/// How uses are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// `lfu-log-factor`
    pub log_factor: u64,
    /// `lfu-decay-time`, in minutes; 0 for never.
    pub decay_minutes: u64,
}

impl Uses {
    /// It is this time.
    pub fn set_time(&mut self, now_us: u64) {
        let is_first = self.ticks == 0;
        // 0 would be nothing known.
        self.ticks = ((now_us / TICK_US) as u32 & TICKS_MASK).max(1);
        self.minutes = (now_us / MINUTE_US) as u32 & MINUTES_MASK;
        if is_first {
            (self.since_ticks, self.since_minutes) = (self.ticks, self.minutes);
        }
    }

    /// Uses are counted like this, or are not counted.
    pub const fn set_counting(&mut self, counting: Option<Counting>) {
        self.counting = counting;
    }

    /// Whether uses are counted; else their times are kept.
    pub const fn counts(&self) -> bool {
        self.counting.is_some()
    }

    /// What is known of a key that comes now.
    pub fn fresh(&self) -> Used {
        let word = match self.counting {
            Some(_) => self.counter(COUNT_FIRST),
            None => self.ticks,
        };
        Used(AtomicU32::new(word))
    }

    /// A key gets another value. How often it was used still holds.
    pub fn renew(&self, used: &Used) {
        if !self.counts() || used.get() & COUNTS_BIT == 0 {
            used.set(self.fresh().get());
        }
    }

    /// A key is used; `below_one` draws a number from 0 to 1.
    pub fn note(&self, used: &Used, below_one: impl FnOnce() -> f64) {
        let Some(counting) = self.counting else { return used.set(self.ticks) };
        let count = self.count(used);
        let above = f64::from(count.saturating_sub(COUNT_FIRST));
        let grows = count < u8::MAX && below_one() < 1.0 / (above * counting.log_factor as f64 + 1.0);
        used.set(self.counter(count + u8::from(grows)));
    }

    fn counter(&self, count: u8) -> u32 {
        COUNTS_BIT | self.minutes << 8 | u32::from(count)
    }

    /// How often a key was used, after decay.
    pub fn count(&self, used: &Used) -> u8 {
        let decay_minutes = self.counting.map_or(0, |counting| counting.decay_minutes);
        let count = match used.get() {
            word if word & COUNTS_BIT != 0 => word as u8,
            _ => COUNT_FIRST,
        };
        let periods = u64::from(self.minutes_since(used)).checked_div(decay_minutes).unwrap_or(0);
        count.saturating_sub(u8::try_from(periods).unwrap_or(u8::MAX))
    }

    fn minutes_since(&self, used: &Used) -> u32 {
        let then = match used.get() {
            word if word & COUNTS_BIT != 0 => word >> 8,
            _ => self.since_minutes,
        };
        self.minutes.wrapping_sub(then) & MINUTES_MASK
    }

    fn idle_ticks(&self, used: &Used) -> u32 {
        let then = match used.get() {
            0 => self.since_ticks,
            word if word & COUNTS_BIT != 0 => self.since_ticks,
            word => word,
        };
        let idle = self.ticks.wrapping_sub(then) & TICKS_MASK;
        // A later leader's clock may be a little behind.
        if idle > TICKS_MASK - TICKS_A_SECOND * 3600 { 0 } else { idle }
    }

    /// For how many seconds a key was not used.
    pub fn idle_seconds(&self, used: &Used) -> u64 {
        u64::from(self.idle_ticks(used) / TICKS_A_SECOND)
    }

    /// The key that goes first has most of it: the one that was not used for longest or, where uses are counted, that was
    /// used least, and among equals not for longest.
    pub fn coldness(&self, used: &Used) -> u32 {
        match self.counts() {
            true => u32::from(u8::MAX - self.count(used)) << 16 | self.minutes_since(used),
            false => self.idle_ticks(used),
        }
    }

    /// A key was not used for so many seconds. Where uses are counted this means nothing.
    pub fn set_idle(&self, used: &Used, seconds: u64) {
        if !self.counts() {
            let idle = seconds.saturating_mul(TICKS_A_SECOND.into()).min((TICKS_MASK / 2).into()) as u32;
            used.set((self.ticks.wrapping_sub(idle) & TICKS_MASK).max(1));
        }
    }

    /// A key was used so often. Where uses are not counted this means nothing.
    pub fn set_count(&self, used: &Used, count: u8) {
        if self.counts() {
            used.set(self.counter(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;
    const COUNTING: Counting = Counting { log_factor: 10, decay_minutes: 1 };

    fn at(seconds: u64) -> Uses {
        let mut uses = Uses::default();
        uses.set_time(seconds * SECOND_US);
        uses
    }

    #[test]
    fn a_key_is_idle_since_its_last_use_or_since_anything_is_known() {
        let mut uses = at(1000);
        let (unknown, known) = (Used::default(), uses.fresh());
        uses.set_time(1010 * SECOND_US);
        uses.note(&known, || unreachable!("nothing is drawn for a time"));
        uses.set_time(1075 * SECOND_US);
        assert_eq!((uses.idle_seconds(&unknown), uses.idle_seconds(&known)), (75, 65));
        assert!(uses.coldness(&unknown) > uses.coldness(&known));
        uses.set_idle(&known, 100);
        assert_eq!(uses.idle_seconds(&known), 100);
        uses.renew(&known);
        assert_eq!(uses.idle_seconds(&known), 0);
        uses.set_time(1074 * SECOND_US);
        assert_eq!(uses.idle_seconds(&known), 0, "a clock that went back makes nothing old");
    }

    #[test]
    fn times_go_on_when_their_bits_begin_anew() {
        let end = (u64::from(TICKS_MASK) + 1) * TICK_US;
        let mut uses = Uses::default();
        uses.set_time(end - 5 * SECOND_US);
        let used = uses.fresh();
        uses.set_time(end + 5 * SECOND_US);
        assert_eq!(uses.idle_seconds(&used), 10);
    }

    #[test]
    fn a_counter_grows_ever_more_slowly_and_decays() {
        let mut uses = at(6000);
        uses.set_counting(Some(COUNTING));
        let used = uses.fresh();
        assert_eq!(uses.count(&used), 5);
        uses.note(&used, || 0.99);
        assert_eq!(uses.count(&used), 6, "the first use is always counted");
        uses.note(&used, || 0.1);
        assert_eq!(uses.count(&used), 6);
        uses.note(&used, || 0.09);
        assert_eq!(uses.count(&used), 7, "the next one of eleven");
        uses.renew(&used);
        assert_eq!(uses.count(&used), 7);
        let never = Uses { counting: Some(Counting { decay_minutes: 0, ..COUNTING }), ..uses.clone() };
        assert_eq!(never.count(&used), 7);
        uses.set_time((6000 + 3 * 60) * SECOND_US);
        assert_eq!(uses.count(&used), 4);
        uses.set_time((6000 + 300 * 60) * SECOND_US);
        assert_eq!(uses.count(&used), 0);
        uses.set_count(&used, 255);
        uses.note(&used, || 0.0);
        assert_eq!(uses.count(&used), 255);
    }

    #[test]
    fn what_is_of_the_other_kind_is_nothing_known() {
        let mut uses = at(600);
        let time = uses.fresh();
        uses.set_counting(Some(COUNTING));
        let count = uses.fresh();
        assert_eq!(uses.count(&time), 5);
        uses.set_counting(None);
        uses.set_time(700 * SECOND_US);
        assert_eq!(uses.idle_seconds(&count), 100);
        uses.set_counting(Some(COUNTING));
        uses.renew(&time);
        assert_eq!(uses.count(&time), 5);
    }
}
