//! Large proposals, in parts.
//!
//! A proposal of hundreds of megabytes in one entry would keep this thread, and those of the followers, busy with one
//! write for as long as the disk takes: no heartbeat, and an election. So a large one becomes several entries, its
//! parts; each but the last says in its context that more follow. Parts are appended as the window of each turn
//! allows and as earlier ones commit, and what is proposed meanwhile waits behind them.
//!
//! INVARIANTs:
//!
//! * Nothing of this group's shard stands between the parts of a proposal.
//! * A shard is handed all parts of a proposal in one output, or none of their data, but for one case: raft may put
//!   the end of a change of members between two parts, and that entry must not wait, as nobody is elected who has
//!   not applied it. Then the parts before it come with it. The shard keeps them, and takes no snapshot meanwhile: so
//!   a replica that starts from one is handed all parts, from the first on.
//! * Parts without a last one are those of a leader that lost its term. The first entry of a later term gives them up,
//!   here and in the shard.

use std::collections::VecDeque;

use bytes::Bytes;
use moonraft_proto::entry::MORE;
use raft::eraftpb::Entry;

use crate::marks;

use super::settings::Settings;
use super::types::*;

/// Turns' worth of parts that are appended and not yet committed: enough that the disks of leader and followers work
/// at the same time.
const AHEAD_TURNS: u64 = 2;

/// Proposals of one term that wait for earlier ones to be appended whole, or for the next turn.
#[derive(Debug, Default)]
pub(super) struct Queue {
    term: u64,
    /// The shard's number of each, and what is not appended of it.
    waiting: VecDeque<(u64, Bytes)>,
    /// Index and bytes of each part that is not known to be committed, and the sum of these bytes.
    ahead: VecDeque<(u64, u64)>,
    ahead_bytes: u64,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The term of the proposals that wait.
    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Puts a proposal behind those that wait.
    pub(super) fn push(&mut self, term: u64, sequence: u64, data: Bytes) {
        if self.term != term {
            *self = Queue { term, ..Queue::default() };
        }
        self.waiting.push_back((sequence, data));
    }

    /// Whether something can be appended.
    pub(super) fn has_next(&self, settings: &Settings) -> bool {
        !self.is_empty() && self.ahead_bytes < AHEAD_TURNS * settings.turn_bytes_max
    }

    /// The log is committed up to here.
    pub(super) fn committed(&mut self, index: u64) {
        while self.ahead.front().is_some_and(|(part, _)| *part <= index) {
            let (_, bytes) = self.ahead.pop_front().expect("there is a first one");
            self.ahead_bytes -= bytes;
        }
    }

    /// Takes the next part, as an entry, and the number of its proposal.
    pub(super) fn next(&mut self, settings: &Settings) -> Option<(u64, Entry)> {
        if !self.has_next(settings) {
            return None;
        }
        let (sequence, mut data) = self.waiting.pop_front()?;
        let mut part = data.split_to(data.len().min(settings.part_bytes()));
        if !data.is_empty() && (data.len() as u64) < settings.cache_bytes_max {
            // The last ones stay in the log's cache, and would keep the whole proposal in memory.
            part = Bytes::copy_from_slice(&part);
        }
        let context = if data.is_empty() { Bytes::new() } else { Bytes::from_static(MORE) };
        if !data.is_empty() {
            self.waiting.push_front((sequence, data));
        }
        Some((sequence, Entry { data: part, context, ..Entry::default() }))
    }

    /// A part was appended.
    pub(super) fn appended(&mut self, index: u64, bytes: u64) {
        self.ahead.push_back((index, bytes));
        self.ahead_bytes += bytes;
    }
}

/// Committed parts that wait for their last.
#[derive(Debug, Default)]
pub(super) struct Whole {
    parts: Vec<CommittedEntry>,
}

impl Whole {
    /// Takes the next committed entry, in order. What is handed to the shard now: nothing while more parts follow.
    pub(super) fn take(&mut self, entry: &Entry, data: Bytes) -> Vec<CommittedEntry> {
        let mut handed = Vec::new();
        if self.parts.last().is_some_and(|part| part.term != entry.term) {
            marks::reached("parts of a lost leader given up");
            let lost = self.parts.drain(..);
            handed.extend(lost.map(|part| CommittedEntry { data: Bytes::new(), more: false, ..part }));
        }
        let more = *entry.context == *MORE;
        let entry = CommittedEntry { index: entry.index, term: entry.term, data, more };
        if more {
            marks::reached("proposal in parts");
            self.parts.push(entry);
        } else {
            if !self.parts.is_empty() && entry.data.is_empty() {
                marks::reached("change of members between two parts");
            }
            handed.append(&mut self.parts);
            handed.push(entry);
        }
        handed
    }

    /// A snapshot took the place of the log.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, context: &'static [u8]) -> Entry {
        Entry { index, term, context: Bytes::from_static(context), ..Entry::default() }
    }

    #[test]
    fn parts_are_handed_together_and_given_up_with_their_term() {
        let mut whole = Whole::default();
        let mut take = |index, term, context, data: &'static str| -> Vec<(u64, Bytes, bool)> {
            let handed = whole.take(&entry(index, term, context), Bytes::from_static(data.as_bytes()));
            handed.into_iter().map(|entry| (entry.index, entry.data, entry.more)).collect()
        };
        let b = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(take(1, 1, b"", "small"), [(1, b("small"), false)]);
        assert_eq!(take(2, 1, MORE, "a"), []);
        assert_eq!(take(3, 1, MORE, "b"), []);
        assert_eq!(take(4, 1, b"", "c"), [(2, b("a"), true), (3, b("b"), true), (4, b("c"), false)]);
        assert_eq!(take(5, 1, MORE, "lost"), []);
        assert_eq!(take(6, 2, b"", ""), [(5, b(""), false), (6, b(""), false)]);
        // The end of a change of members does not wait for the parts around it.
        assert_eq!(take(7, 2, MORE, "a"), []);
        assert_eq!(take(8, 2, b"", ""), [(7, b("a"), true), (8, b(""), false)]);
        assert_eq!(take(9, 2, b"", "b"), [(9, b("b"), false)]);
    }
}
