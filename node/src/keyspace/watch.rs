//! Keys that somebody outside of the data minds, and what he hears of them: clients that `WATCH` a key, requests
//! that are blocked until something comes to one, and clients that keep copies of what they read.
//!
//! This is the one place where changes are heard: executed, applied as a follower, undone, or installed by a snapshot.
//!
//! * Every change of a watched key counts, but for those of a stream's groups. A client remembers the number it saw; its `EXEC` fails if it is another one
//!   by then. Only that an expired key is removed is none: whoever saw it there sees by the clock that it is gone, and to
//!   others nothing has changed.
//! * Of a key that requests wait for it is news when something may have come to it, or when it may have gone. News are
//!   taken once the unit that made them is over, oldest first: whoever takes them looks what the key holds by then.
//! * While somebody keeps copies every change of any key is heard, also that an expired key is removed, in order, and between them
//!   what was read. It is taken when the unit is over, and gone with what the unit takes back.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::{Blob, Seed};

/// The keys that are minded.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    keys: HashMap<Blob, Watch, Seed>,
    /// Counts changes of watched keys, so that no number comes twice.
    changes: u64,
    /// Keys that requests wait for and of which there is news, each once, oldest first.
    news: VecDeque<Blob>,
    /// What those who keep copies are to hear of, oldest first; nothing while there are none.
    heard: Vec<Heard>,
    hears_all: bool,
}

/// What matters to who keeps copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A key was read for whom the unit is.
    Read(Blob),
    /// A key has changed.
    Changed {
        /// Which.
        key: Blob,
        /// It was no client: its time had come, or memory was short.
        by_nobody: bool,
    },
    /// Any key may have.
    AllChanged,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    changed: u64,
    watchers: u32,
    /// Requests that wait for it.
    waiters: u32,
    /// It is among the news.
    is_news: bool,
}

impl Watched {
    fn entry(&mut self, key: &[u8]) -> &mut Watch {
        let changed = self.changes;
        let fresh = || Watch { changed, watchers: 0, waiters: 0, is_news: false };
        self.keys.entry(Blob::new(key)).or_insert_with(fresh)
    }

    fn change(&mut self, key: &[u8], change: impl FnOnce(&mut Watch)) {
        let Some(watch) = self.keys.get_mut(key) else { return };
        change(watch);
        if watch.watchers == 0 && watch.waiters == 0 {
            self.keys.remove(key);
        }
    }

    // ---- WATCH -----------------------------------------------------------------

    /// One more client watches `key`. Returns the number of its last change.
    pub fn watch(&mut self, key: &[u8]) -> u64 {
        let watch = self.entry(key);
        watch.watchers += 1;
        watch.changed
    }

    /// One client less watches `key`.
    pub fn unwatch(&mut self, key: &[u8]) {
        self.change(key, |watch| watch.watchers -= 1);
    }

    /// The number of the last change of a watched key.
    pub fn last_change(&self, key: &[u8]) -> Option<u64> {
        self.keys.get(key).map(|watch| watch.changed)
    }

    /// The last change of a watched key is this one again.
    pub fn take_back(&mut self, key: &[u8], change: u64) {
        if let Some(watch) = self.keys.get_mut(key) {
            watch.changed = change;
        }
    }

    // ---- requests that wait -------------------------------------------------------

    /// One more request waits for `key`.
    pub fn wait(&mut self, key: &[u8]) {
        self.entry(key).waiters += 1;
    }

    /// One request less waits for `key`.
    pub fn end_wait(&mut self, key: &[u8]) {
        self.change(key, |watch| watch.waiters -= 1);
    }

    /// Whether there is news of a key that requests wait for.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// The key of the oldest news. Nobody may wait for it any more.
    pub fn take_news(&mut self) -> Option<Blob> {
        let key = self.news.pop_front()?;
        if let Some(watch) = self.keys.get_mut(&key) {
            watch.is_news = false;
        }
        Some(key)
    }

    /// Keys that are watched, or that requests wait for.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Blob> {
        self.keys.keys()
    }

    // ---- what happens -----------------------------------------------------------

    /// `key` has changed, but nothing has come to it that was not there.
    pub fn touch(&mut self, key: &[u8]) {
        self.hear(key, true, false);
    }

    /// The same of a change that those who keep copies hear of otherwise.
    pub fn touch_unheard(&mut self, key: &[u8]) {
        let hears_all = std::mem::take(&mut self.hears_all);
        self.touch(key);
        self.hears_all = hears_all;
    }

    /// `key` has changed: something may have come to it, or it may be gone.
    pub fn announce(&mut self, key: &[u8]) {
        self.hear(key, true, true);
    }

    /// There is news for requests that wait, and no change to who watches `key`.
    pub fn tell(&mut self, key: &[u8]) {
        self.hear(key, false, true);
    }

    fn hear(&mut self, key: &[u8], is_change: bool, is_news: bool) {
        if is_change && self.hears_all {
            self.hear_changed(key);
        }
        if self.keys.is_empty() {
            return;
        }
        if let Some(watch) = self.keys.get_mut(key) {
            if is_change {
                self.changes += 1;
                watch.changed = self.changes;
            }
            if is_news && watch.waiters > 0 && !std::mem::replace(&mut watch.is_news, true) {
                self.news.push_back(Blob::new(key));
            }
        }
    }

    // ---- who keeps copies ---------------------------------------------------------

    /// Every change is heard from now on, or no more.
    pub fn hear_all_changes(&mut self, hears_all: bool) {
        self.hears_all = hears_all;
        if !hears_all {
            self.heard = Vec::new();
        }
    }

    /// Whether every change is heard.
    pub const fn hears_all_changes(&self) -> bool {
        self.hears_all
    }

    /// What was heard behind the first so many.
    pub fn take_heard(&mut self, after: usize) -> Vec<Heard> {
        match after {
            0 => std::mem::take(&mut self.heard),
            _ => self.heard.split_off(after.min(self.heard.len())),
        }
    }

    /// How much was heard.
    pub const fn heard_len(&self) -> usize {
        self.heard.len()
    }

    /// This was heard elsewhere.
    pub fn hear_more(&mut self, mut heard: Vec<Heard>) {
        if self.hears_all {
            self.heard.append(&mut heard);
        }
    }

    /// A key was read.
    pub fn hear_read(&mut self, key: &[u8]) {
        if self.hears_all {
            self.heard.push(Heard::Read(Blob::new(key)));
        }
    }

    fn hear_changed(&mut self, key: &[u8]) {
        // One command often changes a key by many effects.
        if !matches!(self.heard.last(), Some(Heard::Changed { key: last, .. }) if **last == *key) {
            self.heard.push(Heard::Changed { key: Blob::new(key), by_nobody: false });
        }
    }

    /// The last change was no client's.
    pub fn last_was_by_nobody(&mut self) {
        if let Some(Heard::Changed { by_nobody, .. }) = self.heard.last_mut() {
            *by_nobody = true;
        }
    }

    /// Any key may have changed, for those who keep copies.
    pub fn hear_all_changed(&mut self) {
        if self.hears_all && self.heard.last() != Some(&Heard::AllChanged) {
            self.heard.push(Heard::AllChanged);
        }
    }

    // ---- many keys ------------------------------------------------------------------

    /// Those keys have changed of which this is true, in any way.
    pub fn announce_where(&mut self, has_changed: impl Fn(&[u8]) -> bool) {
        self.changes += 1;
        let mut news = Vec::new();
        for (key, watch) in self.keys.iter_mut().filter(|(key, _)| has_changed(key)) {
            watch.changed = self.changes;
            if watch.waiters > 0 && !std::mem::replace(&mut watch.is_news, true) {
                news.push(key.clone());
            }
        }
        news.sort_unstable(); // the same order in each run of a simulation
        self.news.extend(news);
    }

    /// Any key may have changed.
    pub fn announce_all(&mut self) {
        self.announce_where(|_| true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_of_keys_that_requests_wait_for_each_once_and_oldest_first() {
        let mut watched = Watched::default();
        watched.watch(b"watched");
        [b"a".as_slice(), b"b", b"b"].into_iter().for_each(|key| watched.wait(key));
        [b"b".as_slice(), b"watched", b"other", b"a", b"b"].into_iter().for_each(|key| watched.announce(key));
        watched.touch(b"a");
        assert_eq!(watched.take_news().as_deref(), Some(b"b".as_slice()));
        watched.announce(b"b");
        watched.end_wait(b"a");
        let rest: Vec<Blob> = std::iter::from_fn(|| watched.take_news()).collect();
        assert_eq!(rest, [Blob::new(b"a"), Blob::new(b"b")]);
        watched.end_wait(b"b");
        watched.end_wait(b"b");
        watched.unwatch(b"watched");
        assert!(watched.keys.is_empty() && !watched.has_news());
    }
}
