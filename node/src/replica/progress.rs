//! How far a shard has applied its log, for consensus.
//!
//! Consensus looks when it is awake anyhow; waking it for each entry would cost a switch of threads. Only much at once, and
//! the first entries of a term, which begin a lease, are told.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::consensus::Settings;

/// A shard tells at once that it has applied this share of what may be handed to it unapplied: then there is no
/// waiting for it.
const TOLD_SHARE: u64 = 16;

/// How far a shard has applied its log. See the module.
#[derive(Debug)]
pub struct Progress {
    applied: AtomicU64,
    untold_bytes: AtomicU64,
    told_bytes: u64,
}

impl Progress {
    /// Of a shard that has applied its log up to `applied`.
    pub fn new(applied: u64, settings: &Settings) -> Self {
        let told_bytes = settings.unapplied_bytes_max / TOLD_SHARE;
        Self { applied: AtomicU64::new(applied), untold_bytes: AtomicU64::new(0), told_bytes }
    }

    /// The shard has applied its log up to `index`, `bytes` more than before. Whether consensus is to be told at once:
    /// by `Input::Applied`.
    #[must_use]
    pub(super) fn applied(&self, index: u64, bytes: u64, begins_term: bool) -> bool {
        self.applied.store(index, Ordering::Release);
        let untold = self.untold_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let is_told = begins_term || untold >= self.told_bytes;
        if is_told {
            self.untold_bytes.store(0, Ordering::Relaxed);
        }
        is_told
    }

    /// How far it is.
    pub fn index(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consensus_is_told_only_of_much_or_of_a_new_term() {
        let settings = Settings { unapplied_bytes_max: 16_000, ..Settings::default() };
        let progress = Progress::new(5, &settings);
        assert!(!progress.applied(6, 100, false));
        assert_eq!(progress.index(), 6);
        assert!(progress.applied(7, 0, true));
        assert!(!progress.applied(8, 999, false));
        assert!(progress.applied(9, 1, false));
        assert!(!progress.applied(10, 1, false));
        assert_eq!(progress.index(), 10);
    }
}
