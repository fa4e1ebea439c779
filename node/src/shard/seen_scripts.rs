//! Scripts that a replica has seen, beside those that are replicated.

use std::sync::Arc;

use crate::{keyspace::scripts::Sha1, script::Kept};

/// Scripts that were sent with `EVAL`, or loaded at a follower, and are remembered for `EVALSHA`
/// on this replica; Redis 7.4 keeps as many. Those that were loaded at a leader are replicated state.
const SEEN_MAX: usize = 500;
/// Bytes of their texts: 500 of 64 KiB. Redis has no such limit.
const SEEN_BYTES_MAX: usize = 32 << 20;

/// Texts of scripts that were sent lately; the least used go first.
pub struct SeenScripts(Kept<Arc<[u8]>>);

impl Default for SeenScripts {
    fn default() -> Self {
        Self(Kept::new(SEEN_BYTES_MAX, SEEN_MAX))
    }
}

impl SeenScripts {
    /// Remembers a script.
    pub fn remember(&mut self, name: Sha1, text: &[u8]) {
        if self.0.get(&name).is_none() {
            self.0.insert(name, text.into(), text.len());
        }
    }

    /// The text of a script.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<[u8]>> {
        let name: Sha1 = name.to_ascii_lowercase().try_into().ok()?;
        self.0.get(&name)
    }

    /// `SCRIPT FLUSH`
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::scripts::sha1;

    #[test]
    fn texts_are_bounded_in_bytes_and_the_least_used_go_first() {
        let mut seen = SeenScripts::default();
        let texts: Vec<Vec<u8>> = (0_u8..52).map(|number| vec![number; 1 << 20]).collect();
        seen.remember(sha1(b"used"), b"used");
        for text in &texts {
            seen.remember(sha1(text), text);
            assert!(seen.get(&sha1(b"used")).is_some() && seen.get(&sha1(text)).is_some());
            assert!(seen.0.bytes() <= SEEN_BYTES_MAX);
        }
        assert!(seen.get(&sha1(&texts[0])).is_none());
        seen.clear();
        assert!(seen.get(&sha1(b"used")).is_none());
    }
}
