//! A few members with their scores in order, in one block: each member before its score.
//!
//! A score is as many bytes as it needs: a whole number as 1, 2 or 4 bytes, any other as the 8 of a double. Both
//! are little-endian. Minus zero is a double.

use super::compare;
use crate::keyspace::packed::{Items, Packed};

/// Members with scores, in order.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    items: Packed,
}

/// A score in its bytes.
struct Score {
    bytes: [u8; 8],
    length: usize,
}

impl Score {
    fn new(score: f64) -> Self {
        let mut bytes = score.to_le_bytes();
        let whole = score as i32;
        if f64::from(whole).to_bits() != score.to_bits() {
            return Self { bytes, length: 8 };
        }
        let length = match whole {
            -0x80..=0x7f => 1,
            -0x8000..=0x7fff => 2,
            _ => 4,
        };
        bytes[..4].copy_from_slice(&whole.to_le_bytes());
        Self { bytes, length }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn read(bytes: &[u8]) -> f64 {
        match *bytes {
            [one] => f64::from(one as i8),
            [one, two] => f64::from(i16::from_le_bytes([one, two])),
            [one, two, three, four] => f64::from(i32::from_le_bytes([one, two, three, four])),
            _ => f64::from_le_bytes(bytes.try_into().expect("a score is 1, 2, 4 or 8 bytes")),
        }
    }
}

/// Members with scores in order, from both ends.
#[derive(Clone, Debug)]
pub struct Iter<'a>(Items<'a>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    fn next(&mut self) -> Option<Self::Item> {
        let member = self.0.next()?;
        Some((member, Score::read(self.0.next()?)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.0.len() / 2;
        (count, Some(count))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let score = Score::read(self.0.next_back()?);
        Some((self.0.next_back()?, score))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl Pairs {
    /// How many members.
    pub const fn len(&self) -> usize {
        self.items.len() / 2
    }

    /// Bytes outside of this value.
    pub const fn heap_bytes(&self) -> usize {
        self.items.heap_bytes()
    }

    /// All members with their scores.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.items.iter())
    }

    /// Those at positions from `start` up to but without `end`.
    pub fn range(&self, start: usize, end: usize) -> Iter<'_> {
        Iter(self.items.range(2 * start, 2 * end))
    }

    /// The position and the score of a member.
    pub fn find(&self, member: &[u8]) -> Option<(usize, f64)> {
        let mut pairs = self.iter().enumerate();
        pairs.find(|(_, (name, _))| *name == member).map(|(at, (_, score))| (at, score))
    }

    /// Sets the score of a member. Returns its score before.
    pub fn put(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let before = self.take(member);
        let is_before = |&(name, other): &(&[u8], f64)| compare((other, name), (score, member)).is_lt();
        let at = self.iter().take_while(is_before).count();
        self.items.insert(2 * at, member);
        self.items.insert(2 * at + 1, Score::new(score).as_bytes());
        before
    }

    /// Takes a member away. Returns its score.
    pub fn take(&mut self, member: &[u8]) -> Option<f64> {
        let (at, score) = self.find(member)?;
        self.items.remove(2 * at, 2);
        Some(score)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scores_take_as_many_bytes_as_they_need() {
        for (score, length) in [
            (0.0, 1),
            (-128.0, 1),
            (128.0, 2),
            (-32_768.0, 2),
            (32_768.0, 4),
            (f64::from(i32::MIN), 4),
            (2_147_483_648.0, 8),
            (-0.0, 8),
            (0.5, 8),
            (f64::INFINITY, 8),
            (f64::NEG_INFINITY, 8),
        ] {
            let kept = Score::new(score);
            assert_eq!(kept.as_bytes().len(), length, "{score}");
            assert_eq!(Score::read(kept.as_bytes()).to_bits(), score.to_bits(), "{score}");
        }
    }

    proptest! {
        #[test]
        fn a_score_is_what_it_was(score: f64) {
            let kept = Score::new(score);
            prop_assert_eq!(Score::read(kept.as_bytes()).to_bits(), score.to_bits());
        }
    }
}
