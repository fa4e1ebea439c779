//! How much one turn of a node moves, for all its groups together.
//!
//! While a turn is written and sent the node hears nobody and beats for no group. So what a turn moves has a bound
//! ([`Settings::turn_bytes_max`](super::Settings)): what is proposed, what followers that lag are sent, and what is
//! read back for shards. What finds the window spent waits for the next turn, and which group comes first changes
//! with each turn.
//!
//! INVARIANT: whoever finds the window open may move one thing more, of `message_bytes_max` at most: so everything
//! gets on, however small the window, and a turn moves at most the window and one such thing beyond.
//!
//! What peers say counts for itself, as it must not keep a node from speaking: the driver hands over no more of it in
//! a turn than [`Consensus::is_full`](super::Consensus::is_full) allows.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the module. Shared by the groups of a node; one thread uses it.
#[derive(Debug)]
pub(super) struct Window {
    bytes_max: u64,
    spent: AtomicU64,
}

impl Window {
    pub(super) fn new(bytes_max: u64) -> Window {
        Window { bytes_max, spent: AtomicU64::new(0) }
    }

    /// The next turn begins.
    pub(super) fn reopen(&self) {
        self.spent.store(0, Ordering::Relaxed);
    }

    /// What is left of this turn.
    pub(super) fn left(&self) -> u64 {
        self.bytes_max.saturating_sub(self.spent.load(Ordering::Relaxed))
    }

    /// Whether the rest must wait for the next turn.
    pub(super) fn is_spent(&self) -> bool {
        self.left() == 0
    }

    /// So much is moved.
    pub(super) fn spend(&self, bytes: u64) {
        self.spent.fetch_add(bytes, Ordering::Relaxed);
    }
}
