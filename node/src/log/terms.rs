//! The term of every entry of a log, in a few bytes: terms change rarely, so runs of equal terms are kept.
//!
//! Raft asks for the terms of old entries (the one before an append, the search for a conflict). Without this
//! table each such question would read an entry from disk.

use super::EntryId;

/// Terms by index, from the entry before the first on.
///
/// INVARIANT: first indexes and terms strictly grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermRuns {
    runs: Vec<EntryId>, // each: the first index of a run and its term; never empty
}

impl Default for TermRuns {
    fn default() -> TermRuns {
        TermRuns::new(EntryId::default())
    }
}

impl TermRuns {
    /// A log whose last forgotten entry is `truncated`, with no other entry.
    pub fn new(truncated: EntryId) -> TermRuns {
        TermRuns { runs: vec![truncated] }
    }

    /// The term at `index`, which must be known: neither before the table's begin nor after the log's end.
    pub fn term(&self, index: u64) -> u64 {
        let after = self.runs.partition_point(|run| run.index <= index);
        assert!(after > 0, "the term of entry {index}, long truncated, is unknown");
        self.runs[after - 1].term
    }

    /// An entry follows. What the table knew from its index on is forgotten.
    pub fn push(&mut self, entry: EntryId) {
        while self.runs.len() > 1 && self.runs[self.runs.len() - 1].index >= entry.index {
            self.runs.pop();
        }
        let last = self.runs[self.runs.len() - 1];
        assert!(
            entry.term >= last.term,
            "terms go back: entry {} is of term {} after term {}",
            entry.index,
            entry.term,
            last.term
        );
        if entry.term > last.term {
            self.runs.push(entry);
        }
    }

    /// Forgets what is before `truncated`.
    pub fn truncate(&mut self, truncated: EntryId) {
        let after = self.runs.partition_point(|run| run.index <= truncated.index);
        self.runs.drain(..after.saturating_sub(1));
        self.runs[0] = truncated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(index: u64, term: u64) -> EntryId {
        EntryId { index, term }
    }

    #[test]
    fn a_conflicting_suffix_is_forgotten() {
        let mut runs = TermRuns::default();
        for (index, term) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (3, 4)] {
            runs.push(id(index, term));
        }
        assert_eq!([0, 1, 2, 3].map(|index| runs.term(index)), [0, 1, 1, 4]);
    }

    proptest! {
        /// The table answers as a plain list of terms does, through appends, conflicts and truncations.
        #[test]
        fn answers_like_a_list(steps in prop::collection::vec((0u8..4, 0u64..3, 1u64..6), 1..60)) {
            let mut runs = TermRuns::default();
            let mut list = vec![0u64]; // list[i]: term of entry `first + i`
            let mut first = 0u64;
            for (kind, grow, amount) in steps {
                match kind {
                    0 => {
                        let cut = (amount as usize).min(list.len() - 1);
                        let index = (list.len() - cut) as u64 + first;
                        let term = *list.last().unwrap() + 1;
                        list.truncate(list.len() - cut);
                        list.push(term);
                        runs.push(id(index, term));
                    }
                    1 => {
                        let cut = (amount as usize).min(list.len() - 1);
                        list.drain(..cut);
                        first += cut as u64;
                        runs.truncate(id(first, list[0]));
                    }
                    _ => {
                        let term = list.last().unwrap() + grow / 2;
                        runs.push(id(first + list.len() as u64, term));
                        list.push(term);
                    }
                }
                for (offset, term) in list.iter().enumerate() {
                    prop_assert_eq!(runs.term(first + offset as u64), *term);
                }
            }
        }
    }
}
