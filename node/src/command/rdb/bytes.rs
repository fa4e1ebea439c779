//! The parts that all forms of a payload are made of: numbers, lengths, strings, scores.

use std::borrow::Cow;

use super::lzf;
use crate::command::arguments::parse_float;

/// Bytes that the strings of one value may be together, unpacked: twice the longest
/// request, so that a few packed bytes cannot fill the memory.
pub const DECODED_BYTES_MAX: usize = 1 << 30;

/// Bytes still to be read.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    rest: &'a [u8],
    /// Bytes that may still be unpacked.
    budget: usize,
}

/// A length, or a mark that a string is in a special form.
enum Length {
    Plain(u64),
    Special(u8),
}

impl<'a> Bytes<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, budget: DECODED_BYTES_MAX }
    }

    /// Whether all has been read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// As many bytes as asked for.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// A number of so many bytes, at most eight, the lowest first.
    pub fn little(&mut self, count: usize) -> Option<u64> {
        Some(self.take(count)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// A number of so many bytes, at most eight, the highest first.
    pub fn big(&mut self, count: usize) -> Option<u64> {
        Some(self.take(count)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn length_or_special(&mut self) -> Option<Length> {
        let first = self.byte()?;
        let low = u64::from(first & 0x3f);
        Some(match first {
            0x00..=0x3f => Length::Plain(low),
            0x40..=0x7f => Length::Plain(low << 8 | u64::from(self.byte()?)),
            0x80 => Length::Plain(self.big(4)?),
            0x81 => Length::Plain(self.big(8)?),
            0xc0..=0xff => Length::Special(first & 0x3f),
            _ => return None,
        })
    }

    /// A length.
    pub fn length(&mut self) -> Option<u64> {
        match self.length_or_special()? {
            Length::Plain(length) => Some(length),
            Length::Special(_) => None,
        }
    }

    /// A string: plain, an integer, or packed.
    pub fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        let text = |number: i64| Cow::Owned(itoa::Buffer::new().format(number).as_bytes().to_vec());
        Some(match self.length_or_special()? {
            Length::Plain(length) => self.take(usize::try_from(length).ok()?)?.into(),
            Length::Special(0) => text((self.little(1)? as i8).into()),
            Length::Special(1) => text((self.little(2)? as i16).into()),
            Length::Special(2) => text((self.little(4)? as i32).into()),
            Length::Special(3) => self.packed()?.into(),
            Length::Special(_) => return None,
        })
    }

    fn packed(&mut self) -> Option<Vec<u8>> {
        let packed = usize::try_from(self.length()?).ok()?;
        let length = usize::try_from(self.length()?).ok()?;
        let packed = self.take(packed)?;
        self.budget = self.budget.checked_sub(length)?;
        lzf::decompress(packed, length)
    }

    /// A score as its eight bytes.
    pub fn score(&mut self) -> Option<f64> {
        let score = f64::from_bits(self.little(8)?);
        (!score.is_nan()).then_some(score)
    }

    /// A score as text with its length before it.
    pub fn score_text(&mut self) -> Option<f64> {
        match self.byte()? {
            253 => None,
            254 => Some(f64::INFINITY),
            255 => Some(f64::NEG_INFINITY),
            length => parse_float(self.take(length.into())?),
        }
    }
}
