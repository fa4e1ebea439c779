//! Ids as clients write them: `1526919030474-55`, `1526919030474`, and for ends of a range `-`, `+` and `(` before
//! an id that is left out.

use moonraft_proto::StreamId;

use crate::command::{
    CommandError,
    arguments::{c_text, parse_integer},
};

const INVALID: CommandError =
    CommandError::text("ERR Invalid stream ID specified as stream command argument");
const NO_START: CommandError = CommandError::text("ERR invalid start ID for the interval");
const NO_END: CommandError = CommandError::text("ERR invalid end ID for the interval");

/// Bytes of a word that may be an id.
const BYTES_MAX: usize = 127;

/// A number as Redis reads one of an id: what is no integer to it is left to C's `strtoull`, which passes blanks,
/// takes a sign, and counts negative numbers from the end.
fn number(text: &[u8]) -> Option<u64> {
    if let Some(number) = parse_integer(text) {
        return u64::try_from(number).ok();
    }
    let start = text.iter().position(|&byte| !matches!(byte, b' ' | b'\t'..=b'\r'))?;
    let (negative, digits) = match &text[start..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let number = digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = char::from(byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })?;
    let number = if negative { number.wrapping_neg() } else { number };
    (!digits.is_empty()).then_some(number)
}

/// An id, of which only the time may be given: then its second number is `seq`.
pub fn parse(word: &[u8], seq: u64) -> Option<StreamId> {
    let text = if word.len() <= BYTES_MAX { c_text(word) } else { return None };
    match text.iter().position(|&byte| byte == b'-') {
        Some(at) => Some(StreamId::new(number(&text[..at])?, number(&text[at + 1..])?)),
        None => Some(StreamId::new(number(text)?, seq)),
    }
}

/// See [`parse`].
///
/// # Errors
/// It is none; so below.
pub fn id(word: &[u8], seq: u64) -> Result<StreamId, CommandError> {
    parse(word, seq).ok_or(INVALID)
}

/// An id, or `-` or `+` for the first or last there can be.
pub fn id_or_end(word: &[u8], seq: u64) -> Result<StreamId, CommandError> {
    match c_text(word) {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => id(word, seq),
    }
}

/// Where a range begins.
pub fn start(word: &[u8]) -> Result<StreamId, CommandError> {
    match word {
        [b'(', rest @ ..] if !rest.is_empty() => id(rest, 0)?.next().ok_or(NO_START),
        _ => id_or_end(word, 0),
    }
}

/// Where a range ends.
pub fn end(word: &[u8]) -> Result<StreamId, CommandError> {
    match word {
        [b'(', rest @ ..] if !rest.is_empty() => id(rest, u64::MAX)?.previous().ok_or(NO_END),
        _ => id_or_end(word, u64::MAX),
    }
}

/// The id that an entry is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewId {
    /// `*`: the time, or what follows the last.
    Next,
    /// `ms-*`: what follows the last in this millisecond.
    NextOf(u64),
    /// This one.
    Given(StreamId),
}

/// The id that `XADD` is given, but for `*`.
pub fn new_id(word: &[u8]) -> Result<NewId, CommandError> {
    let text = c_text(word);
    match text.strip_suffix(b"-*") {
        Some(ms) if word.len() <= BYTES_MAX && !ms.contains(&b'-') => {
            number(ms).map(NewId::NextOf).ok_or(INVALID)
        }
        _ => id(word, 0).map(NewId::Given),
    }
}

/// The text of an id.
pub fn text(id: StreamId) -> Vec<u8> {
    let mut text = Vec::with_capacity(24);
    text.extend_from_slice(itoa::Buffer::new().format(id.ms).as_bytes());
    text.push(b'-');
    text.extend_from_slice(itoa::Buffer::new().format(id.seq).as_bytes());
    text
}
