//! A sorted set: members in the order of their scores, equal scores in the order
//! of the members' bytes.

use std::cmp::Ordering;

use hashbrown::HashMap;

use super::{Blob, Seed, small};

/// Members with scores. A score is never NaN.
#[derive(Clone, Debug, Default)]
pub struct SortedSet {
    /// All, in order.
    order: Vec<(f64, Blob)>,
    /// The score of each member, once there are too many to search.
    scores: Option<HashMap<Blob, f64, Seed>>,
}

fn compare(left: (f64, &[u8]), right: (f64, &[u8])) -> Ordering {
    let scores = left.0.partial_cmp(&right.0).expect("a score is never NaN");
    scores.then_with(|| left.1.cmp(right.1))
}

impl PartialEq for SortedSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl SortedSet {
    /// How many members.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether it is in the form that Redis calls `listpack`.
    pub const fn is_small(&self) -> bool {
        self.scores.is_none()
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.scores {
            Some(scores) => scores.get(member).copied(),
            None => self.order.iter().find(|(_, other)| **other == *member).map(|(score, _)| *score),
        }
    }

    /// Sets the score of a member. Returns its score before.
    pub fn put(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let before = self.remove(member);
        let at = self.position(|other, name| compare((other, name), (score, member)).is_lt());
        self.order.insert(at, (score, Blob::new(member)));
        let large = self.order.len() > small::COUNT_MAX || member.len() > small::BYTES_MAX;
        match &mut self.scores {
            Some(scores) => {
                scores.insert(Blob::new(member), score);
            }
            None if large => {
                self.scores = Some(self.order.iter().map(|(score, name)| (name.clone(), *score)).collect());
            }
            None => {}
        }
        before
    }

    /// Takes a member away. Returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.score(member)?;
        let at = self.rank_of(member, score);
        self.order.remove(at);
        if let Some(scores) = &mut self.scores {
            scores.remove(member);
        }
        Some(score)
    }

    /// The position of a member, from 0.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        Some(self.rank_of(member, self.score(member)?))
    }

    fn rank_of(&self, member: &[u8], score: f64) -> usize {
        self.position(|other, name| compare((other, name), (score, member)).is_lt())
    }

    /// The first position at which `before` is false; it is true for a prefix of
    /// the order only.
    pub fn position(&self, before: impl Fn(f64, &[u8]) -> bool) -> usize {
        self.order.partition_point(|(score, member)| before(*score, member))
    }

    /// Members with scores, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Blob, f64)> + ExactSizeIterator {
        self.range(0, self.len())
    }

    /// Members at positions from `start` up to but without `end`, in order.
    pub fn range(
        &self,
        start: usize,
        end: usize,
    ) -> impl DoubleEndedIterator<Item = (&Blob, f64)> + ExactSizeIterator {
        self.order[start..end].iter().map(|(score, member)| (member, *score))
    }
}
