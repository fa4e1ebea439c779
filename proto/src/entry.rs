//! A batch: the effects of all units that one turn of a shard's loop produced,
//! which is one entry of the Raft log.
//!
//! ```text
//! format: u8 | stamp: u64 | sequence: u64 | effects…        (little-endian)
//! ```
//!
//! * `format` is the newest that its reader must know: that of its newest effect and of its head, whatever
//!   more the build knows that wrote it. A node that does not know it stops, rather than misread the entry. So nothing
//!   newer than [`FIRST_FORMAT`] is written before all members of the group can read it, and have agreed to
//!   ([`Effect::AgreeFormat`]).
//! * `stamp` is Unix milliseconds: the shard's time when the batch was sealed, and [`AHEAD_MS`] more. No time that was
//!   shown before this entry commits is later than the stamp.
//! * `sequence` numbers the batches that a leader proposed in one term, from 1.
//!   With the entry's term it tells a leader which of its batches committed.
//!
//! An entry without data is Raft's own (a new leader's first) and no batch. A large
//! batch is several entries of one term, its parts; all but the last have the
//! context [`MORE`], and only the first has the head.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{DecodeError, Effect, effect::Effects, wire::Reader};

/// What every build reads and writes, as long as nothing newer is agreed on.
pub const FIRST_FORMAT: u8 = 1;

/// The newest format that this build reads. What came with each:
///
/// * 2: [`Effect::AgreeFormat`].
/// * 3: streams, [`Effect::Stream`]; libraries of functions.
/// * 4: deadlines of fields, [`Effect::HashExpire`].
pub const NEWEST_FORMAT: u8 = 4;

/// How far a stamp lies ahead of the shard's time, in milliseconds.
pub const AHEAD_MS: u64 = 200;

/// The context of an entry with more parts of its batch behind it.
pub const MORE: &[u8] = b"+";

/// The format of an entry's data, if it is newer than this build reads.
pub fn newer_format(data: &[u8]) -> Option<u8> {
    data.first().copied().filter(|&format| format > NEWEST_FORMAT)
}

/// Bytes before the effects.
pub const HEADER_BYTES: usize = 1 + 8 + 8;

/// What a batch says beside its effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its stamp, Unix milliseconds.
    pub stamp_ms: u64,
    /// Its number among the batches of its leader's term.
    pub sequence: u64,
}

/// A batch, read from an entry's data.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// What its reader must know.
    pub format: u8,
    /// Its stamp, Unix milliseconds.
    pub stamp_ms: u64,
    /// Its number among the batches of its leader's term.
    pub sequence: u64,
    /// The bytes of its effects.
    effects: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads an entry's data.
    ///
    /// # Errors
    /// The data is cut short or of a newer format. Effects are checked as they
    /// are read.
    pub fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(data);
        let format = reader.byte()?;
        if !(FIRST_FORMAT..=NEWEST_FORMAT).contains(&format) {
            let text = format!("entry format {format}; this build reads up to {NEWEST_FORMAT}");
            return Err(DecodeError(text.into()));
        }
        let mut word =
            || reader.take(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
        let (stamp_ms, sequence) = (word()?, word()?);
        Ok(Self { format, stamp_ms, sequence, effects: reader.rest() })
    }

    /// Its effects, in order.
    pub const fn effects(&self) -> Effects<'a> {
        Effects::new(self.format, self.effects)
    }

    /// Its effects from a place on.
    pub fn effects_from<'b>(&self, place: &'b Place) -> Effects<'b>
    where
        'a: 'b,
    {
        Effects::resumed(self.format, &self.effects[place.at..], place.previous.as_deref())
    }

    /// The place that these effects, some of its own, have come to.
    pub fn place(&self, effects: &Effects<'_>) -> Place {
        let (rest, previous) = effects.state();
        Place { at: self.effects.len() - rest.len(), previous: previous.map(Bytes::copy_from_slice) }
    }
}

/// A place between two effects of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes of effects before it.
    at: usize,
    /// The key of the last of them that has one.
    previous: Option<Bytes>,
}

/// Collects the effects of a turn.
#[derive(Debug, Default)]
pub struct BatchWriter {
    buffer: BytesMut,
    /// Where in the buffer the key of the last keyed effect stands.
    previous: Option<(usize, usize)>,
    /// The newest format that an effect needs; 0 if there is none.
    needed: u8,
}

/// A point to go back to: the state of a writer before a unit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    length: usize,
    previous: Option<(usize, usize)>,
    needed: u8,
}

impl BatchWriter {
    /// Bytes of effects so far.
    pub fn effect_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(HEADER_BYTES)
    }

    /// Whether no effect has been written.
    pub fn is_empty(&self) -> bool {
        self.effect_bytes() == 0
    }

    /// Appends an effect.
    pub fn push(&mut self, effect: &Effect<'_>) {
        if self.buffer.is_empty() {
            self.buffer.put_bytes(0, HEADER_BYTES);
        }
        self.needed = self.needed.max(effect.format());
        let start = self.buffer.len();
        let same = match (self.previous, effect.key()) {
            (Some((at, length)), Some(key)) => &self.buffer[at..at + length] == key,
            _ => false,
        };
        if same {
            effect.encode(effect.key(), &mut self.buffer);
            return;
        }
        effect.encode(None, &mut self.buffer);
        if let Some(key) = effect.key() {
            // The tag and the key's length come before the key.
            let length_bytes = (64 - (key.len() as u64 | 1).leading_zeros()).div_ceil(7) as usize;
            self.previous = Some((start + 1 + length_bytes, key.len()));
        }
    }

    /// Where a unit begins.
    pub fn mark(&self) -> Mark {
        Mark { length: self.buffer.len(), previous: self.previous, needed: self.needed }
    }

    /// Forgets all effects since the mark.
    pub fn rewind(&mut self, mark: Mark) {
        self.buffer.truncate(mark.length);
        self.previous = mark.previous;
        self.needed = mark.needed;
    }

    /// Appends the effects of another writer, whose buffer is taken over whole if there is nothing here yet.
    pub fn append(&mut self, other: BatchWriter) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other;
            return;
        }
        let shift = self.buffer.len() - HEADER_BYTES;
        self.buffer.extend_from_slice(&other.buffer[HEADER_BYTES..]);
        self.previous = other.previous.map(|(at, length)| (at + shift, length));
        self.needed = self.needed.max(other.needed);
    }

    /// The batch as an entry's data, for readers who have agreed on format `agreed`; the writer is empty again. A
    /// batch without effects carries its stamp alone.
    ///
    /// # Panics
    /// An effect needs a newer format.
    pub fn seal(&mut self, head: Head, agreed: u8) -> Bytes {
        let format = std::mem::take(&mut self.needed).max(FIRST_FORMAT);
        assert!(format <= agreed, "format {format} is written though {agreed} is agreed on");
        if self.buffer.is_empty() {
            self.buffer.put_bytes(0, HEADER_BYTES);
        }
        self.buffer[0] = format;
        self.buffer[1..9].copy_from_slice(&head.stamp_ms.to_le_bytes());
        self.buffer[9..17].copy_from_slice(&head.sequence.to_le_bytes());
        self.previous = None;
        self.buffer.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::effect::tests::any_effect;

    proptest! {
        #[test]
        fn a_batch_holds_what_was_pushed_and_not_rewound(
            kept in prop::collection::vec(any_effect(), 0..12),
            dropped in prop::collection::vec(any_effect(), 0..12),
            more in prop::collection::vec(any_effect(), 0..12),
        ) {
            let mut writer = BatchWriter::default();
            kept.iter().for_each(|owned| writer.push(&owned.effect()));
            let mark = writer.mark();
            dropped.iter().for_each(|owned| writer.push(&owned.effect()));
            writer.rewind(mark);
            more.iter().for_each(|owned| writer.push(&owned.effect()));
            let data = writer.seal(Head { stamp_ms: 7, sequence: 9 }, NEWEST_FORMAT);
            let batch = Batch::decode(&data).expect("it was just written");
            prop_assert_eq!((batch.stamp_ms, batch.sequence), (7, 9));
            let needed = kept.iter().chain(&more).map(|owned| owned.effect().format()).max();
            prop_assert_eq!(batch.format, needed.unwrap_or(FIRST_FORMAT), "no more than its effects need");
            let decoded: Result<Vec<_>, _> = batch.effects().collect();
            let expected: Vec<_> = kept.iter().chain(&more).map(|owned| owned.effect()).collect();
            prop_assert_eq!(decoded, Ok(expected));
            prop_assert!(writer.is_empty());
        }
    }

    proptest! {
        #[test]
        fn what_two_writers_hold_is_one_batch(
            first in prop::collection::vec(any_effect(), 0..12),
            second in prop::collection::vec(any_effect(), 0..12),
            third in prop::collection::vec(any_effect(), 0..12),
        ) {
            let (mut writer, mut other) = (BatchWriter::default(), BatchWriter::default());
            first.iter().for_each(|owned| writer.push(&owned.effect()));
            second.iter().for_each(|owned| other.push(&owned.effect()));
            writer.append(other);
            third.iter().for_each(|owned| writer.push(&owned.effect()));
            let data = writer.seal(Head::default(), NEWEST_FORMAT);
            let batch = Batch::decode(&data).expect("it was just written");
            let decoded: Result<Vec<_>, _> = batch.effects().collect();
            let expected = first.iter().chain(&second).chain(&third).map(|owned| owned.effect());
            prop_assert_eq!(decoded, Ok(expected.collect()));
        }
    }

    proptest! {
        #[test]
        fn reading_goes_on_where_it_stopped(
            effects in prop::collection::vec(any_effect(), 0..12),
            each in 1_usize..5,
        ) {
            let mut writer = BatchWriter::default();
            effects.iter().for_each(|owned| writer.push(&owned.effect()));
            let data = writer.seal(Head::default(), NEWEST_FORMAT);
            let batch = Batch::decode(&data).expect("it was just written");
            let expected: Vec<_> = batch.effects().collect();
            let (mut place, mut at) = (Place::default(), 0);
            while at < expected.len() {
                let from = std::mem::take(&mut place);
                let mut rest = batch.effects_from(&from);
                let read: Vec<_> = rest.by_ref().take(each).collect();
                prop_assert_eq!(&read[..], &expected[at..at + read.len()]);
                at += read.len();
                place = batch.place(&rest);
            }
            prop_assert_eq!(batch.effects_from(&place).count(), 0);
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut data = BatchWriter::default().seal(Head::default(), FIRST_FORMAT).to_vec();
        data[0] = NEWEST_FORMAT + 1;
        let error = Batch::decode(&data).expect_err("must be refused");
        assert!(error.to_string().contains("entry format 5; this build reads up to 4"));
        assert!(Batch::decode(&data[..5]).is_err());
    }

    #[test]
    fn an_effect_in_a_batch_of_an_older_format_is_refused() {
        let mut writer = BatchWriter::default();
        writer.push(&Effect::AgreeFormat { format: 2 });
        let mut data = writer.seal(Head::default(), 2).to_vec();
        assert!(Batch::decode(&data).unwrap().effects().all(|effect| effect.is_ok()));
        data[0] = FIRST_FORMAT;
        let error = Batch::decode(&data).unwrap().effects().next().unwrap().unwrap_err();
        assert!(error.to_string().contains("format 2 in a batch of format 1"), "{error}");
    }

    #[test]
    #[should_panic(expected = "format 2 is written though 1 is agreed on")]
    fn what_is_not_agreed_on_is_not_written() {
        let mut writer = BatchWriter::default();
        writer.push(&Effect::AgreeFormat { format: 2 });
        writer.seal(Head::default(), FIRST_FORMAT);
    }
}
