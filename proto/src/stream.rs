//! The parts that effects on streams are made of: ids, and sequences of ids and texts, which are borrowed as the
//! bytes they have in an entry.

use std::fmt;

use bytes::BufMut;

use crate::{
    DecodeError,
    wire::{self, Reader},
};

/// The id of a stream's entry: a time in Unix milliseconds, and a number among those of that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Unix milliseconds, by the clock of whoever chose the id.
    pub ms: u64,
    /// Counts the ids of one millisecond.
    pub seq: u64,
}

impl StreamId {
    /// Below all ids that an entry can have.
    pub const MIN: Self = Self::new(0, 0);
    /// The last there is.
    pub const MAX: Self = Self::new(u64::MAX, u64::MAX);

    /// The id of these two numbers.
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The next id; `None` after the last.
    pub const fn next(self) -> Option<Self> {
        match (self.ms.checked_add(1), self.seq.checked_add(1)) {
            (_, Some(seq)) => Some(Self::new(self.ms, seq)),
            (Some(ms), None) => Some(Self::new(ms, 0)),
            (None, None) => None,
        }
    }

    /// The id before; `None` before the first.
    pub const fn previous(self) -> Option<Self> {
        match (self.ms.checked_sub(1), self.seq.checked_sub(1)) {
            (_, Some(seq)) => Some(Self::new(self.ms, seq)),
            (Some(ms), None) => Some(Self::new(ms, u64::MAX)),
            (None, None) => None,
        }
    }

    pub(crate) fn put(self, out: &mut impl BufMut) {
        wire::put_uint(out, self.ms);
        wire::put_uint(out, self.seq);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::new(reader.uint()?, reader.uint()?))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
        f.write_str(ms.format(self.ms))?;
        f.write_str("-")?;
        f.write_str(seq.format(self.seq))
    }
}

/// Fields and values in turn, each with its length before it. INVARIANT: the bytes are texts, whole, and of an even
/// number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairs<'a>(&'a [u8]);

impl<'a> Pairs<'a> {
    /// Writes fields and values to `out`, from where they can be borrowed.
    ///
    /// # Panics
    /// There is a field without a value.
    pub fn write<'o>(words: &[&[u8]], out: &'o mut Vec<u8>) -> Pairs<'o> {
        assert!(words.len().is_multiple_of(2), "each field has a value");
        out.clear();
        out.reserve(words.iter().map(|word| word.len() + 5).sum());
        words.iter().for_each(|word| wire::put_bytes(out, word));
        Pairs(out)
    }

    /// The pairs that these bytes are.
    ///
    /// # Errors
    /// They are none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            reader.bytes()?;
            reader.bytes()?;
        }
        Ok(Self(bytes))
    }

    /// The bytes, which [`Pairs::read`] takes.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Each field with its value.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || Some((reader.bytes().ok()?, reader.bytes().ok()?)))
    }
}

/// Ids, each as its difference from the one before. INVARIANT: the bytes are ids, whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids<'a>(&'a [u8]);

impl<'a> Ids<'a> {
    /// Writes ids to `out`, from where they can be borrowed. Rising ones take the fewest bytes.
    pub fn write(ids: impl IntoIterator<Item = StreamId>, out: &mut Vec<u8>) -> Ids<'_> {
        out.clear();
        let mut before = StreamId::MIN;
        for id in ids {
            let (ms, seq) = (id.ms.wrapping_sub(before.ms), id.seq.wrapping_sub(before.seq));
            wire::put_int(out, ms as i64);
            match ms {
                0 => wire::put_int(out, seq as i64),
                _ => wire::put_uint(out, id.seq),
            }
            before = id;
        }
        Ids(out)
    }

    /// The ids that these bytes are.
    ///
    /// # Errors
    /// They are none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            next_id(&mut reader, StreamId::MIN)?;
        }
        Ok(Self(bytes))
    }

    /// The bytes, which [`Ids::read`] takes.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The ids in order.
    pub fn iter(self) -> impl Iterator<Item = StreamId> {
        let (mut reader, mut before) = (Reader::new(self.0), StreamId::MIN);
        std::iter::from_fn(move || {
            before = next_id(&mut reader, before).ok()?;
            Some(before)
        })
    }
}

fn next_id(reader: &mut Reader<'_>, before: StreamId) -> Result<StreamId, DecodeError> {
    Ok(match reader.int()? {
        0 => StreamId::new(before.ms, before.seq.wrapping_add(reader.int()? as u64)),
        ms => StreamId::new(before.ms.wrapping_add(ms as u64), reader.uint()?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_id() -> impl Strategy<Value = StreamId> {
        let number = || prop_oneof![0_u64..3, any::<u64>(), Just(u64::MAX)];
        (number(), number()).prop_map(|(ms, seq)| StreamId::new(ms, seq))
    }

    proptest! {
        #[test]
        fn sequences_hold_what_was_written(
            ids in prop::collection::vec(any_id(), 0..9), texts in prop::collection::vec(any::<Vec<u8>>(), 0..9),
        ) {
            let mut out = Vec::new();
            let bytes = Ids::write(ids.iter().copied(), &mut out).bytes();
            let read = Ids::read(bytes).map(|read| read.iter().collect::<Vec<_>>());
            prop_assert_eq!(read, Ok(ids));

            let words: Vec<&[u8]> = texts.chunks_exact(2).flatten().map(Vec::as_slice).collect();
            let bytes = Pairs::write(&words, &mut out).bytes();
            let read = Pairs::read(bytes).map(|read| read.iter().flat_map(|(a, b)| [a, b]).collect::<Vec<_>>());
            prop_assert_eq!(read, Ok(words));
        }

        #[test]
        fn ids_follow_each_other(id in any_id()) {
            prop_assert_eq!(id.next().map_or(Some(id), StreamId::previous), Some(id));
            prop_assert!(id.next().is_none_or(|next| next > id));
            prop_assert!(id.previous().is_none_or(|previous| previous < id));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = (Ids::read(&bytes).map(|ids| ids.iter().count()), Pairs::read(&bytes).map(|read| read.iter().count()));
        }
    }
}
