//! Requests that look at all keys, or at all of a slot: what they look for.
//!
//! A row whose request does so says it here. Where there are many keys, the shard looks at some of them at a time and
//! serves others between ([`crate::shard`]); the row's handler looks at all in one go: of few keys, in a block, in a
//! script.

use crate::{
    glob,
    keyspace::{Entry, Keyspace, Store},
};

/// What such a request looks for; its reply is the names of what it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Keys of this slot; `None`: of all.
    pub slot: Option<u16>,
    /// Keys whose names match this; `None`: all.
    pub pattern: Option<Vec<u8>>,
    /// So many of them at most.
    pub count_max: usize,
    /// Also those whose time has come and that are there yet.
    pub expired_too: bool,
}

/// What a request with these words looks for; `None`: its words make no sense.
pub type Surveys = fn(&[&[u8]]) -> Option<Survey>;

impl Survey {
    /// All keys whose names match a pattern. One with a hash tag is about one slot.
    pub fn matching(pattern: &[u8]) -> Self {
        Self {
            slot: glob::slot_of_matches(pattern),
            pattern: (!glob::is_everything(pattern)).then(|| pattern.to_vec()),
            count_max: usize::MAX,
            expired_too: false,
        }
    }

    /// How many keys it looks at.
    pub fn keys(&self, keyspace: &Keyspace) -> usize {
        let all = self.slot.map_or(keyspace.len(), |slot| keyspace.slot_len(slot));
        if self.pattern.is_none() && self.expired_too { all.min(self.count_max) } else { all }
    }

    /// Whether it looks for this key.
    pub fn is_met(&self, store: &Store, entry: &Entry) -> bool {
        self.is_met_counted(store, entry, &mut 0)
    }

    /// The same. The steps that matching took are added to `steps`.
    pub fn is_met_counted(&self, store: &Store, entry: &Entry, steps: &mut usize) -> bool {
        let pattern = self.pattern.as_deref();
        let matches = pattern.is_none_or(|pattern| glob::matches_counted(pattern, &entry.key, steps));
        matches && (self.expired_too || store.is_live(&entry.object))
    }

    /// All that it looks for, at once.
    pub fn all<'t>(&self, store: &'t Store) -> Vec<&'t Entry> {
        let is_met = |entry: &&Entry| self.is_met(store, entry);
        match self.slot {
            Some(slot) => store.whole().slot_entries(slot).filter(is_met).take(self.count_max).collect(),
            None => store.whole().entries().filter(is_met).take(self.count_max).collect(),
        }
    }
}
