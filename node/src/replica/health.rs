//! How a node's disk does, from what is seen of it: how much room it has, and whether it is slow. What that means for clients and
//! for leadership is told in `server::disk`, which looks.
//!
//! A node whose disk was slow, or is short of room, is not **fit** to lead: it hands its leaderships to nodes that are, and
//! is handed none until it is fit again. See `Input::Fitness`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::shard::DiskRoom;

/// The share of `min-free-disk` below which no client may write.
const LAST_SHARE: u64 = 4;
/// A disk has room again when there is a tenth more than it takes.
const RETURN_PERCENT: u64 = 110;
/// After a slow piece of a write, the disk must have done well for so long before it is trusted again: ten elections' time.
const SLOW_REST_NS: u64 = 10_000_000_000;

/// What is known of the disk, for all threads.
#[derive(Debug, Default)]
pub struct DiskHealth {
    free_bytes: AtomicU64,
    is_short: AtomicBool,
    is_last: AtomicBool,
    slow_until_ns: AtomicU64,
    /// Since when nothing of a write of the log has reached the disk, boot clock; 0 if nothing is written.
    waiting_since_ns: AtomicU64,
    /// The longest that a piece of this write took.
    longest_ns: AtomicU64,
}

impl DiskHealth {
    /// How much room there is.
    pub fn room(&self) -> DiskRoom {
        match (self.is_last.load(Ordering::Relaxed), self.is_short.load(Ordering::Relaxed)) {
            (true, _) => DiskRoom::Last,
            (false, true) => DiskRoom::Short,
            (false, false) => DiskRoom::Enough,
        }
    }

    /// Free bytes; 0 before the first look.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Whether a node with this disk should lead.
    pub fn is_fit(&self, now_ns: u64) -> bool {
        self.room() == DiskRoom::Enough && now_ns >= self.slow_until_ns.load(Ordering::Relaxed)
    }

    /// A write of the log begins.
    pub fn begin_write(&self, now_ns: u64) {
        self.longest_ns.store(0, Ordering::Relaxed);
        self.waiting_since_ns.store(now_ns, Ordering::Relaxed);
    }

    /// A piece of it has reached the disk. A large write takes as long as it is large: that tells nothing of
    /// the disk.
    pub fn note_piece(&self, now_ns: u64) {
        let since_ns = self.waiting_since_ns.load(Ordering::Relaxed);
        if since_ns > 0 {
            self.longest_ns.fetch_max(now_ns - since_ns, Ordering::Relaxed);
            self.waiting_since_ns.store(now_ns, Ordering::Relaxed);
        }
    }

    /// All of it has; others have elected after `patience_ns` without a leader.
    pub fn end_write(&self, now_ns: u64, patience_ns: u64) {
        self.note_piece(now_ns);
        self.waiting_since_ns.store(0, Ordering::Relaxed);
        let took_ns = self.longest_ns.load(Ordering::Relaxed);
        if took_ns > patience_ns && self.note_slow(now_ns) {
            let milliseconds = took_ns / 1_000_000;
            tracing::warn!(milliseconds, "a write of the log was slow: this node leads no shard for a while");
        }
    }

    /// Whether nothing of a write has reached the disk for longer than `patience_ns`.
    pub fn is_hanging(&self, now_ns: u64, patience_ns: u64) -> bool {
        let since_ns = self.waiting_since_ns.load(Ordering::Relaxed);
        since_ns > 0 && now_ns.saturating_sub(since_ns) > patience_ns
    }

    /// A write took longer than others wait for a leader. Returns whether that is news.
    fn note_slow(&self, now_ns: u64) -> bool {
        let before = self.slow_until_ns.swap(now_ns + SLOW_REST_NS, Ordering::Relaxed);
        before <= now_ns
    }

    /// So much is free, and `min-free-disk` is `wanted`. Returns whether the room changed.
    pub fn note_free(&self, free: u64, wanted: u64) -> bool {
        let before = self.room();
        self.free_bytes.store(free, Ordering::Relaxed);
        for (flag, least) in [(&self.is_short, wanted), (&self.is_last, wanted / LAST_SHARE)] {
            let enough =
                if flag.load(Ordering::Relaxed) { least.saturating_mul(RETURN_PERCENT) / 100 } else { least };
            flag.store(free < enough, Ordering::Relaxed);
        }
        self.room() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ends_at_the_mark_and_is_back_only_above_it() {
        let disk = DiskHealth::default();
        let note = |free| {
            let changed = disk.note_free(free, 1000);
            (changed, disk.room())
        };
        assert_eq!(note(1000), (false, DiskRoom::Enough));
        assert_eq!(note(999), (true, DiskRoom::Short));
        assert_eq!(note(1099), (false, DiskRoom::Short));
        assert_eq!(note(249), (true, DiskRoom::Last));
        assert_eq!(note(274), (false, DiskRoom::Last));
        assert_eq!(note(275), (true, DiskRoom::Short));
        assert_eq!(note(1100), (true, DiskRoom::Enough));
        assert!(!disk.note_free(0, 0), "off");
    }

    #[test]
    fn a_write_that_lasts_is_noticed_while_it_lasts() {
        let disk = DiskHealth::default();
        assert!(!disk.is_hanging(1_000, 10));
        disk.begin_write(1_000);
        assert!(!disk.is_hanging(1_010, 10));
        assert!(disk.is_hanging(1_011, 10));
        disk.end_write(1_011, 10);
        assert!(!disk.is_hanging(2_000, 10) && !disk.is_fit(2_000));
    }

    #[test]
    fn a_large_write_that_progresses_is_not_slow() {
        let disk = DiskHealth::default();
        disk.begin_write(1_000);
        (1_010..1_100).step_by(10).for_each(|now_ns| disk.note_piece(now_ns));
        assert!(!disk.is_hanging(1_100, 10));
        assert!(disk.is_hanging(1_101, 10), "since the last piece");
        disk.end_write(1_100, 10);
        assert!(disk.is_fit(1_100));
        disk.note_piece(1_500);
        assert!(!disk.is_hanging(1_600, 10), "of old files that are purged, perhaps");
        disk.begin_write(2_000);
        disk.note_piece(2_011);
        disk.end_write(2_012, 10);
        assert!(!disk.is_fit(2_012), "one piece was slow");
    }

    #[test]
    fn a_slow_disk_is_not_fit_until_it_has_done_well_for_a_while() {
        let disk = DiskHealth::default();
        assert!(disk.is_fit(5));
        assert!(disk.note_slow(5));
        assert!(!disk.note_slow(6), "no news");
        assert!(!disk.is_fit(5 + SLOW_REST_NS));
        assert!(disk.is_fit(6 + SLOW_REST_NS));
    }
}
