//! The shard's clock: a wall clock that never goes backwards, failovers included.
//!
//! Each batch carries a stamp that lies [`AHEAD_MS`] ahead of the clock when it
//! was sealed. A reply that shows a time leaves only once a stamp that covers it
//! is committed; a new leader starts its clock at the last stamp. So no time is
//! shown that an earlier leader had passed.

use crate::marks;

/// How far a stamp lies ahead of the clock, in milliseconds: how often a shard
/// that only shows times, and writes nothing, must write a stamp; and how far
/// time may jump ahead at a failover.
pub const AHEAD_MS: u64 = 200;

/// The clock of one replica.
#[derive(Debug, Default)]
pub struct Clock {
    /// The latest reading, or the last stamp if that is later.
    latest_us: u64,
    /// The newest stamp that is committed, or was sealed by an earlier leader.
    committed_ms: u64,
    /// The newest stamp that this leader has sealed.
    sealed_ms: u64,
}

impl Clock {
    /// A clock on a state whose last stamp was this, Unix milliseconds.
    pub fn starting_at(stamp_ms: u64) -> Self {
        Self { committed_ms: stamp_ms, ..Self::default() }
    }

    /// The shard's time when the wall clock shows `wall_us`; Unix microseconds.
    pub fn read(&mut self, wall_us: u64) -> u64 {
        if wall_us < self.latest_us {
            marks::reached("clock went back and the shard's did not");
        }
        self.latest_us = self.latest_us.max(wall_us);
        self.latest_us
    }

    /// Takes over as leader: time goes on from the last stamp in the log.
    pub fn begin_term(&mut self) {
        self.latest_us = self.latest_us.max(self.committed_ms * 1000);
        self.sealed_ms = self.committed_ms;
    }

    /// The stamp for a batch that is sealed now.
    pub fn stamp(&mut self) -> u64 {
        self.sealed_ms = self.sealed_ms.max(self.latest_us / 1000 + AHEAD_MS);
        self.sealed_ms
    }

    /// A batch with this stamp is committed.
    pub fn committed(&mut self, stamp_ms: u64) {
        self.committed_ms = self.committed_ms.max(stamp_ms);
    }

    /// The newest committed stamp, Unix milliseconds.
    pub const fn committed_ms(&self) -> u64 {
        self.committed_ms
    }

    /// Whether the present time is covered by a committed stamp.
    pub const fn is_covered(&self) -> bool {
        self.latest_us <= self.committed_ms * 1000
    }

    /// Whether the present time is covered by a stamp that is on its way.
    pub const fn will_be_covered(&self) -> bool {
        self.latest_us <= self.sealed_ms * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_leader_never_shows_a_time_that_was_passed() {
        let mut old = Clock::default();
        let shown = old.read(5_000_000);
        assert!(!old.is_covered());
        let stamp = old.stamp();
        old.committed(stamp);
        assert!(old.is_covered());
        // A stamp covers its own millisecond's beginning, not all of it.
        old.read(stamp * 1000 + 216);
        assert!(!old.is_covered() && !old.will_be_covered());
        // The next leader's wall clock is a second behind.
        let mut new = Clock::default();
        new.committed(stamp);
        new.begin_term();
        assert!(new.read(4_000_000) >= shown);
        assert!(new.is_covered());
    }
}
