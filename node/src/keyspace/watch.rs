//! Keys that clients `WATCH`: each with the number of its last change.
//!
//! Every change counts: executed, applied as a follower, undone, or installed
//! by a snapshot. A client remembers the number it saw; its `EXEC` fails if it
//! is another one by then. Only that an expired key is removed is none: whoever saw
//! it there sees by the clock that it is gone, and to others nothing has changed.

use hashbrown::HashMap;

use super::{Blob, Seed};

/// The watched keys.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    keys: HashMap<Blob, Watch, Seed>,
    /// Counts changes of watched keys, so that no number comes twice.
    changes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    changed: u64,
    watchers: u32,
}

impl Watched {
    /// One more client watches `key`. Returns the number of its last change.
    pub fn watch(&mut self, key: &[u8]) -> u64 {
        let changed = self.changes;
        let watch = self.keys.entry(Blob::new(key)).or_insert(Watch { changed, watchers: 0 });
        watch.watchers += 1;
        watch.changed
    }

    /// One client less watches `key`.
    pub fn unwatch(&mut self, key: &[u8]) {
        let Some(watch) = self.keys.get_mut(key) else { return };
        watch.watchers -= 1;
        if watch.watchers == 0 {
            self.keys.remove(key);
        }
    }

    /// The number of the last change of a watched key.
    pub fn last_change(&self, key: &[u8]) -> Option<u64> {
        self.keys.get(key).map(|watch| watch.changed)
    }

    /// `key` has changed.
    pub fn touch(&mut self, key: &[u8]) {
        if self.keys.is_empty() {
            return;
        }
        if let Some(watch) = self.keys.get_mut(key) {
            self.changes += 1;
            watch.changed = self.changes;
        }
    }

    /// Those keys have changed of which this is true.
    pub fn touch_where(&mut self, has_changed: impl Fn(&[u8]) -> bool) {
        self.changes += 1;
        let changed = self.keys.iter_mut().filter(|(key, _)| has_changed(key));
        changed.for_each(|(_, watch)| watch.changed = self.changes);
    }

    /// The last change of a watched key is this one again.
    pub fn take_back(&mut self, key: &[u8], change: u64) {
        if let Some(watch) = self.keys.get_mut(key) {
            watch.changed = change;
        }
    }

    /// Any key may have changed.
    pub fn touch_all(&mut self) {
        self.touch_where(|_| true);
    }
}
