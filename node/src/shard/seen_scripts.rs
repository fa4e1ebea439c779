//! Scripts that a replica has seen, beside those that are replicated.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashMap;

use crate::keyspace::{Seed, scripts::Sha1};

/// Scripts that were sent with `EVAL`, or loaded at a follower, and are remembered for `EVALSHA`
/// on this replica; Redis 7.4 keeps as many. Those that were loaded at a leader are replicated state.
const SEEN_MAX: usize = 500;

/// Texts of scripts that were sent lately.
#[derive(Default)]
pub struct SeenScripts {
    texts: HashMap<Sha1, Arc<[u8]>, Seed>,
    order: VecDeque<Sha1>,
}

impl SeenScripts {
    /// Remembers a script.
    pub fn remember(&mut self, name: Sha1, text: &[u8]) {
        if self.texts.contains_key(&name) {
            return;
        }
        if self.order.len() >= SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.texts.remove(&oldest);
        }
        self.order.push_back(name);
        self.texts.insert(name, text.into());
    }

    /// The text of a script.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<[u8]>> {
        let name: Sha1 = name.to_ascii_lowercase().try_into().ok()?;
        self.texts.get(&name)
    }

    /// `SCRIPT FLUSH`
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
