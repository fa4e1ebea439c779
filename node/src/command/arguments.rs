//! Reading the words of a request: numbers, options, deadlines.

use std::ops::Range;

use moonraft_proto::Weight;

use super::{
    CommandError,
    long_double::{LongDouble, shift_right},
};
use crate::keyspace::Tx;
pub use crate::keyspace::integer::parse_integer;

/// A 64-bit integer, written as Redis wants it: no blanks, no plus sign, no
/// leading zeros.
///
/// # Errors
/// It is none.
pub fn integer(word: &[u8]) -> Result<i64, CommandError> {
    parse_integer(word).ok_or(CommandError::NotInteger)
}

/// A double as C's `strtod` reads it, all of the word; never NaN.
///
/// # Errors
/// It is none.
pub fn float(word: &[u8]) -> Result<f64, CommandError> {
    parse_float(word).ok_or(CommandError::NotFloat)
}

/// An integer of 32 bits: the number of a database.
///
/// # Errors
/// It is none.
pub fn integer32(word: &[u8]) -> Result<i32, CommandError> {
    const OUT_OF_RANGE: CommandError =
        CommandError::text("ERR value is out of range, value must between -2147483648 and 2147483647");
    i32::try_from(integer(word)?).map_err(|_| OUT_OF_RANGE)
}

/// How long a request is to wait at most, in milliseconds; the word is in seconds. 0: for ever.
///
/// # Errors
/// It is no number, negative, or no moment can be so far away.
pub fn timeout_ms(tx: &Tx, word: &[u8]) -> Result<u64, CommandError> {
    const NONE: CommandError = CommandError::text("ERR timeout is not a float or out of range");
    const NEGATIVE: CommandError = CommandError::text("ERR timeout is negative");
    const TOO_FAR: CommandError = CommandError::text("ERR timeout is out of range");
    match LongDouble::parse(word).ok_or(NONE)?.thousandfold_up() {
        ms if ms < 0 => Err(NEGATIVE),
        ms if ms > i64::MAX.saturating_sub_unsigned(tx.now_ms()) => Err(TOO_FAR),
        ms => Ok(ms.unsigned_abs()),
    }
}

/// The double that `word` is the text of; see [`float`]. One too large for a
/// double is none, and so is one too small for any but 0.
pub fn parse_float(word: &[u8]) -> Option<f64> {
    let number = nearest_float(word)?;
    let says_zero = || {
        let mark = if word.iter().any(|byte| matches!(byte, b'x' | b'X')) { b'p' } else { b'e' };
        let mantissa = word.split(|byte| byte.to_ascii_lowercase() == mark).next().unwrap_or_default();
        !mantissa.iter().any(|byte| byte.is_ascii_hexdigit() && *byte != b'0')
    };
    let says_infinite = || word.iter().any(|byte| matches!(byte, b'i' | b'I'));
    let in_range = match number {
        0.0 => says_zero(),
        _ if number.is_infinite() => says_infinite(),
        _ => true,
    };
    in_range.then_some(number)
}

/// The double nearest to what `word` is the text of: infinite, or 0, if that is
/// out of a double's range.
pub fn nearest_float(word: &[u8]) -> Option<f64> {
    let (negative, rest) = match word.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, word),
    };
    let magnitude = if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
        f64::INFINITY
    } else if let [b'0', b'x' | b'X', digits @ ..] = rest {
        hexadecimal(digits)?
    } else if rest.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.') {
        fast_float2::parse::<f64, _>(rest).ok()?
    } else {
        return None;
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// The double nearest to a hexadecimal number, of which `text` is what stands behind its `0x`.
fn hexadecimal(text: &[u8]) -> Option<f64> {
    /// The exponent of the lowest digit of any double, and one that is out of every double's range.
    const LOWEST: i32 = -1074;
    const TOO_LARGE: i32 = 1100;
    let end = text.iter().position(|byte| matches!(byte, b'p' | b'P')).unwrap_or(text.len());
    let (digits, power) = text.split_at(end);
    let mut exponent = match power {
        [] => 0,
        [_, power @ ..] => parse_exponent(power)?,
    };
    let (mut mantissa, mut count, mut is_behind_point) = (0_u64, 0, false);
    for &byte in digits {
        if byte == b'.' && !is_behind_point {
            is_behind_point = true;
            continue;
        }
        let digit = u64::from(char::from(byte).to_digit(16)?);
        count += 1;
        if mantissa >> 60 == 0 {
            mantissa = mantissa << 4 | digit;
            exponent -= if is_behind_point { 4 } else { 0 };
        } else {
            // More than a double holds: the lowest digit stands for all that follow.
            mantissa |= u64::from(digit != 0);
            exponent += if is_behind_point { 0 } else { 4 };
        }
    }
    if count == 0 || mantissa == 0 {
        return (count > 0).then_some(0.0);
    }
    let width = (u64::BITS - mantissa.leading_zeros()) as i32;
    let lowest = (exponent + width - f64::MANTISSA_DIGITS as i32).clamp(LOWEST, TOO_LARGE);
    let kept = match lowest - exponent {
        ..=0 => mantissa << (exponent - lowest).min(63),
        cut => shift_right(mantissa.into(), cut as u32) as u64,
    };
    // In two steps, for a power of two may be out of range where the number is not.
    Some(kept as f64 * 2.0_f64.powi(lowest / 2) * 2.0_f64.powi(lowest - lowest / 2))
}

/// The exponent behind a `p`; one that is out of any range is a large one.
fn parse_exponent(text: &[u8]) -> Option<i32> {
    const LARGE: i32 = 1 << 28;
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    let exponent = digits.iter().try_fold(0_i32, |exponent, &byte| {
        Some((exponent * 10 + char::from(byte).to_digit(10)? as i32).min(LARGE / 16))
    })?;
    (!digits.is_empty()).then_some(if text.starts_with(b"-") { -exponent } else { exponent })
}

/// What C reads of a text: all before a zero byte.
pub fn c_text(word: &[u8]) -> &[u8] {
    word.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Whether a word is this option, in any case. `option` is in lower case.
pub fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

/// An integer that is not negative.
///
/// # Errors
/// It is none: `refusal` says it all.
pub fn count_or(word: &[u8], refusal: &'static str) -> Result<usize, CommandError> {
    let count = parse_integer(word).and_then(|count| usize::try_from(count).ok());
    count.ok_or(CommandError::text(refusal))
}

/// The positions that `start` and `stop` name of `length` things, the last
/// included; negative ones count from the end. Empty if they name none.
pub fn span(start: i64, stop: i64, length: usize) -> Range<usize> {
    let length_signed = length as i64;
    let from_end =
        |position: i64| if position < 0 { position.saturating_add(length_signed) } else { position };
    let start = from_end(start).max(0);
    let stop = from_end(stop).min(length_signed - 1);
    if start > stop { 0..0 } else { start as usize..stop as usize + 1 }
}

/// How many of `rest`, the words behind the count, are keys of a script.
///
/// # Errors
/// The count is none, or there are not so many.
pub fn script_key_count(count: &[u8], rest: &[&[u8]]) -> Result<usize, CommandError> {
    const NEGATIVE: CommandError = CommandError::text("ERR Number of keys can't be negative");
    const TOO_MANY: CommandError =
        CommandError::text("ERR Number of keys can't be greater than number of args");
    let count = integer(count)?;
    match usize::try_from(count) {
        Ok(count) if count <= rest.len() => Ok(count),
        Ok(_) => Err(TOO_MANY),
        Err(_) => Err(NEGATIVE),
    }
}

/// A count with a direction: any integer that can change its sign.
///
/// # Errors
/// It is none.
pub fn signed_count(word: &[u8]) -> Result<i64, CommandError> {
    const LEAST: CommandError = CommandError::text(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    match parse_integer(word) {
        None => Err(CommandError::NotInteger),
        Some(i64::MIN) => Err(LEAST),
        Some(count) => Ok(count),
    }
}

/// Members that one request may draw with repetition: so many that nobody needs
/// more, so few that their reply fits in memory.
const REPEATED_MAX: u64 = 1 << 22;

/// Refuses a reply of so many parts that would be too large, before one of them is made.
///
/// # Errors
/// It would be.
pub fn room_for(tx: &Tx, parts: usize) -> Result<(), CommandError> {
    let bytes_max = tx.limits().reply_bytes_max;
    match parts.saturating_mul(Weight::PART_BYTES) > bytes_max {
        true => Err(CommandError::ReplyTooLarge(bytes_max)),
        false => Ok(()),
    }
}

/// How many members of a collection to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Each at most once.
    Distinct(usize),
    /// This many, with repetition.
    Repeated(usize),
}

impl Draw {
    const OUT_OF_RANGE: CommandError = CommandError::text("ERR value is out of range");

    /// The count of `SRANDMEMBER` and its like; a negative one allows repetition.
    ///
    /// # Errors
    /// It is no integer, or asks for too many.
    pub fn read(word: &[u8]) -> Result<Self, CommandError> {
        let count = signed_count(word)?;
        match usize::try_from(count) {
            Ok(count) => Ok(Draw::Distinct(count)),
            Err(_) if count.unsigned_abs() > REPEATED_MAX => Err(Self::OUT_OF_RANGE),
            Err(_) => Ok(Draw::Repeated(count.unsigned_abs() as usize)),
        }
    }

    /// Whether each member is to come with another word: `WITHVALUES` (`name`) or
    /// nothing may follow the count.
    ///
    /// # Errors
    /// Something else follows, or the words of the reply would be too many to count.
    pub fn in_pairs(self, words: &[&[u8]], name: &str) -> Result<bool, CommandError> {
        match (words, self) {
            ([], _) => Ok(false),
            ([word], _) if !is(word, name) => Err(CommandError::Syntax),
            ([_], Draw::Distinct(count)) if count > isize::MAX as usize / 2 => Err(Self::OUT_OF_RANGE),
            ([_], _) => Ok(true),
            _ => Err(CommandError::Syntax),
        }
    }
}

/// `512mb` and its like: `k`, `m`, `g` count in thousands, `kb`, `mb`, `gb` in powers of two.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number = if number.is_empty() { "0" } else { number }; // as in Redis
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The unit a duration or a deadline is given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// The unit of an option that is followed by a time, and whether that is a duration.
pub fn time_option(word: &[u8]) -> Option<(TimeUnit, bool)> {
    match () {
        () if is(word, "ex") => Some((TimeUnit::Seconds, true)),
        () if is(word, "px") => Some((TimeUnit::Milliseconds, true)),
        () if is(word, "exat") => Some((TimeUnit::Seconds, false)),
        () if is(word, "pxat") => Some((TimeUnit::Milliseconds, false)),
        () => None,
    }
}

/// The deadline, Unix milliseconds, that a number stands for: `now_ms` is added
/// if it is a duration.
///
/// # Errors
/// It is no integer, or does not fit; `command` is named in the error.
pub fn deadline(
    word: &[u8],
    unit: TimeUnit,
    now_ms: Option<u64>,
    command: &'static str,
) -> Result<i64, CommandError> {
    let number = integer(word)?;
    let factor = if unit == TimeUnit::Seconds { 1000 } else { 1 };
    let invalid = CommandError::InvalidExpire(command);
    let milliseconds = number.checked_mul(factor).ok_or_else(|| invalid.clone())?;
    milliseconds.checked_add_unsigned(now_ms.unwrap_or(0)).ok_or(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_count_from_either_end() {
        for (start, stop, positions) in [
            (0, -1, 0..5),
            (-2, -1, 3..5),
            (1, 1, 1..2),
            (-100, 100, 0..5),
            (5, 9, 0..0),
            (3, 2, 0..0),
            (0, -6, 0..0),
            (i64::MIN, i64::MAX, 0..5),
            (i64::MAX, i64::MIN, 0..0),
        ] {
            assert_eq!(span(start, stop, 5), positions, "{start} {stop}");
        }
        assert_eq!(span(0, -1, 0), 0..0);
    }

    #[test]
    fn floats_are_read_as_redis_reads_them() {
        for (word, number) in [
            ("1.5", Some(1.5)),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("+Infinity", Some(f64::INFINITY)),
            ("nan", None),
            ("", None),
            (" 1", None),
            ("1 ", None),
            ("1e3", Some(1000.0)),
            (".5", Some(0.5)),
            ("0x10", Some(16.0)),
            ("0x1p4", Some(16.0)),
            ("-0x1.8", Some(-1.5)),
            ("0X.8P-1", Some(0.25)),
            ("0x1.", Some(1.0)),
            ("0x", None),
            ("0x.", None),
            ("0x1p", None),
            ("0xg", None),
            ("1p4", None),
            ("0x0p5", Some(0.0)),
            ("0x1p1023", Some(2.0_f64.powi(1023))),
            ("0x1p1024", None),
            ("0x1p-1074", Some(f64::from_bits(1))),
            ("0x1.8p-1074", Some(f64::from_bits(2))),
            ("0x1p-1076", None),
            // Half way between two doubles: to the even one, unless a little is added.
            ("0x20000000000001", Some(9_007_199_254_740_992.0)),
            ("0x20000000000001.00000000000000001", Some(9_007_199_254_740_994.0)),
            ("0x1fffffffffffff8", Some(144_115_188_075_855_868.0)),
            ("1e400", None),
            ("-1e400", None),
            ("1e-400", None),
            ("0e400", Some(0.0)),
            ("-0.000", Some(0.0)),
            ("abc", None),
        ] {
            assert_eq!(parse_float(word.as_bytes()), number, "{word:?}");
        }
    }
}
