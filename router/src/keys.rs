//! Which words of a request are keys.
//!
//! A command's row holds one [`Keys`]; everything that needs keys (routing,
//! `COMMAND GETKEYS`, access rights, scripts) reads it, so that no command is
//! known by name outside its row.

use smallvec::SmallVec;

/// Keys of a request that fit without an allocation.
const KEYS_INLINE: usize = 8;

/// Positions of keys among the words of a request, the command's name being 0.
pub type KeyPositions = SmallVec<[usize; KEYS_INLINE]>;

/// Where the keys of a command stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Nowhere: the command has no keys.
    None,
    /// At `first`, and each `step` words on, up to `last`. A negative `last`
    /// counts from the end: -1 is the last word.
    Range {
        /// Position of the first key.
        first: usize,
        /// Position of the last key.
        last: isize,
        /// Words from a key to the next.
        step: usize,
    },
    /// The word at `count` says how many keys follow it; `also` is a key before it.
    Counted {
        /// Position of the count.
        count: usize,
        /// Position of a further key (a destination).
        also: Option<usize>,
    },
    /// The word at `count` says how many keys follow it, each with its value behind it.
    CountedPairs {
        /// Position of the count.
        count: usize,
    },
    /// At `first`, and behind the last occurrence of the word `token` after it, if any.
    After {
        /// Position of the first key.
        first: usize,
        /// The word before a further key, in lower case; an empty one is before none.
        token: &'static str,
        /// Words, in lower case, that are followed by so many words which are no tokens.
        skips: &'static [(&'static str, usize)],
    },
    /// At `first`, and behind the last of some words, if there is one from position `from` on.
    Behind {
        /// Position of the first key.
        first: usize,
        /// Where options begin.
        from: usize,
        /// The words before a further key, in lower case.
        tokens: &'static [&'static str],
    },
    /// The first half of the words behind `token`, which stands behind nothing but options. None if the other half is not
    /// as large.
    FirstHalf {
        /// The word before them, in lower case.
        token: &'static str,
        /// Where `COMMAND` says that it is looked for from.
        from: usize,
        /// Options, in lower case, each with the number of words that belong to it.
        options: &'static [(&'static str, usize)],
    },
}

/// The count of a [`Keys::Counted`] request is not a number of its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCount;

impl Keys {
    /// One key, the word after the command's name.
    pub const ONE: Keys = Keys::Range { first: 1, last: 1, step: 1 };
    /// Two keys.
    pub const TWO: Keys = Keys::Range { first: 1, last: 2, step: 1 };
    /// All words after the command's name.
    pub const ALL: Keys = Keys::Range { first: 1, last: -1, step: 1 };

    /// The positions that who knows nothing but the places that `COMMAND` tells takes for those of keys: the same, but
    /// that no word before `token` counts, and that one may be left over.
    ///
    /// # Errors
    /// As of [`Keys::positions`].
    pub fn positions_by_place(self, words: &[&[u8]]) -> Result<KeyPositions, BadCount> {
        let Keys::FirstHalf { token, from, .. } = self else { return self.positions(words) };
        let is_token = |word: &&[u8]| word.eq_ignore_ascii_case(token.as_bytes());
        let found = words.iter().skip(from).position(is_token);
        let Some(first) = found.map(|at| from + at + 1) else { return Ok(KeyPositions::new()) };
        Ok((first..first + (words.len() - first) / 2).collect())
    }

    /// The positions of the keys of `words`, whose number the command's arity
    /// allows.
    ///
    /// # Errors
    /// A count that is no number, negative, or more than there are words.
    pub fn positions(self, words: &[&[u8]]) -> Result<KeyPositions, BadCount> {
        match self {
            Keys::None => Ok(KeyPositions::new()),
            Keys::Range { first, last, step } => {
                let last = if last < 0 { words.len() as isize + last } else { last };
                let end = usize::try_from(last + 1).unwrap_or(0).min(words.len());
                Ok((first..end).step_by(step).collect())
            }
            Keys::Counted { count, also } => {
                let given = words.get(count).and_then(|word| std::str::from_utf8(word).ok());
                let given: usize = given.and_then(|text| text.parse().ok()).ok_or(BadCount)?;
                let end = given.checked_add(count + 1).filter(|&end| end <= words.len());
                let counted = count + 1..end.ok_or(BadCount)?;
                Ok(also.into_iter().chain(counted).collect())
            }
            Keys::CountedPairs { count } => {
                let given = words.get(count).and_then(|word| std::str::from_utf8(word).ok());
                let given: usize = given.and_then(|text| text.parse().ok()).ok_or(BadCount)?;
                let end = given.checked_mul(2).and_then(|pairs| pairs.checked_add(count + 1));
                let end = end.filter(|&end| end <= words.len()).ok_or(BadCount)?;
                Ok((count + 1..end).step_by(2).collect())
            }
            Keys::Behind { first, from, tokens } => {
                let (mut at, mut behind) = (from, None);
                while at + 1 < words.len() {
                    if tokens.iter().any(|token| words[at].eq_ignore_ascii_case(token.as_bytes())) {
                        behind = Some(at + 1);
                        at += 1;
                    }
                    at += 1;
                }
                Ok(std::iter::once(first).chain(behind).collect())
            }
            Keys::After { first, token, skips } => {
                let is = |word: &[u8], other: &str| word.eq_ignore_ascii_case(other.as_bytes());
                let (mut at, mut behind) = (first + 1, None);
                while let Some(word) = words.get(at) {
                    let skipped = skips.iter().find(|(option, _)| is(word, option));
                    if !token.is_empty() && is(word, token) && at + 1 < words.len() {
                        behind = Some(at + 1);
                    }
                    at += 1 + skipped.map_or(0, |(_, count)| *count);
                }
                Ok(std::iter::once(first).chain(behind).collect())
            }
            Keys::FirstHalf { token, options, .. } => {
                let is = |word: &[u8], other: &str| word.eq_ignore_ascii_case(other.as_bytes());
                let mut at = 1;
                while let Some((_, count)) =
                    words.get(at).and_then(|word| options.iter().find(|(option, _)| is(word, option)))
                {
                    at += 1 + count;
                }
                let behind = words.get(at).filter(|word| is(word, token)).map_or(0, |_| words.len() - at - 1);
                let count = if behind.is_multiple_of(2) { behind / 2 } else { 0 };
                Ok((at + 1..at + 1 + count).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(keys: Keys, request: &str) -> Option<Vec<usize>> {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        keys.positions(&words).ok().map(|positions| positions.to_vec())
    }

    #[test]
    fn keys_are_found_where_the_row_says() {
        let pairs = Keys::Range { first: 1, last: -1, step: 2 };
        let counted = Keys::Counted { count: 2, also: None };
        let stored = Keys::Counted { count: 2, also: Some(1) };
        let sort = Keys::After { first: 1, token: "store", skips: &[("by", 1), ("limit", 2)] };
        let behind = Keys::Behind { first: 1, from: 3, tokens: &["store", "keep"] };
        assert_eq!(positions(behind, "c k store"), Some(vec![1]));
        assert_eq!(positions(behind, "c k x store"), Some(vec![1]));
        assert_eq!(positions(behind, "c k store STORE d"), Some(vec![1, 4]));
        assert_eq!(positions(behind, "c k x store d keep e y"), Some(vec![1, 6]));
        assert_eq!(positions(behind, "c k x store store d"), Some(vec![1, 4]));
        assert_eq!(positions(Keys::None, "ping x"), Some(vec![]));
        let counted_pairs = Keys::CountedPairs { count: 1 };
        assert_eq!(positions(counted_pairs, "c 2 a 1 b 2 x"), Some(vec![2, 4]));
        assert_eq!(positions(counted_pairs, "c 2 a 1 b"), None);
        assert_eq!(positions(counted_pairs, "c 18446744073709551615 a 1"), None);
        assert_eq!(positions(Keys::ONE, "get k"), Some(vec![1]));
        assert_eq!(positions(Keys::ALL, "del a b c"), Some(vec![1, 2, 3]));
        assert_eq!(positions(pairs, "mset a 1 b 2"), Some(vec![1, 3]));
        assert_eq!(positions(counted, "eval s 2 a b x"), Some(vec![3, 4]));
        assert_eq!(positions(counted, "eval s 0"), Some(vec![]));
        assert_eq!(positions(counted, "eval s 3 a b"), None);
        assert_eq!(positions(counted, "eval s -1 a"), None);
        assert_eq!(positions(counted, "eval s 18446744073709551615 a"), None);
        assert_eq!(positions(stored, "zunionstore d 2 a b"), Some(vec![1, 3, 4]));
        assert_eq!(positions(sort, "sort k desc STORE d"), Some(vec![1, 4]));
        assert_eq!(positions(sort, "sort k store"), Some(vec![1]));
        assert_eq!(positions(sort, "sort k store c STORE d"), Some(vec![1, 5]));
        assert_eq!(positions(sort, "sort k by store x limit store d"), Some(vec![1]));
        let options = &[("block", 1), ("count", 1), ("group", 2), ("noack", 0)];
        let streams = |from| Keys::FirstHalf { token: "streams", from, options };
        for (from, request, keys, by_place) in [
            (1, "xread count 1 Streams a b 0 0", &[4, 5][..], &[4, 5][..]),
            (1, "xread streams a b 0", &[], &[2]),
            (1, "xread streams a", &[], &[]),
            (1, "xread streams", &[], &[]),
            (1, "xread count 1", &[], &[]),
            (1, "xread count", &[], &[]),
            (1, "xread count streams streams a 0", &[4], &[3]),
            (1, "xread more streams a 0", &[], &[3]),
            (1, "xread streams a streams 0 0", &[2, 3], &[2, 3]),
            (4, "xreadgroup group streams c NoAck streams a 0", &[6], &[6]),
            (4, "xreadgroup streams a b c 0 0 0", &[2, 3, 4], &[]),
        ] {
            assert_eq!(positions(streams(from), request).as_deref(), Some(keys), "{request}");
            let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let found = streams(from).positions_by_place(&words);
            assert_eq!(found.as_deref(), Ok(by_place), "{request}");
        }
    }
}
