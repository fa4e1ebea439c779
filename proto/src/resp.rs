//! Requests, as clients send them: RESP arrays of bulk strings, and inline commands.
//!
//! [`parse`] turns the bytes at the start of a read buffer into one request
//! that borrows from that buffer. Nothing is copied; what a handler stores it
//! copies then. Inline requests, which people type, are unquoted into a buffer
//! beside it.
//!
//! Invariants:
//! * Bytes are consumed by whole requests: an incomplete one is parsed again
//!   when more has arrived. So that a value of many megabytes is not parsed once
//!   per packet, an incomplete request says how many bytes it needs at least.
//! * A length that is over a limit is refused when it is read, before its bytes.
//!
//! Source: RESP specification; `networking.c` of Redis 7.2 for limits and texts,
//! its `sds.c` for quotes.

use std::ops::Range;

use smallvec::SmallVec;

use crate::DecodeError;

/// Words of a request that fit without an allocation: most commands have fewer.
pub const WORDS_INLINE: usize = 16;

/// The words of one request, borrowed from the read buffer.
pub type Words<'a> = SmallVec<[&'a [u8]; WORDS_INLINE]>;

/// What a request may measure.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one word; `proto-max-bulk-len`.
    pub bulk_bytes_max: usize,
    /// Words of one request; Redis's 1024 * 1024.
    pub words_max: usize,
    /// Bytes of an inline request and of a header line; Redis's 64 KiB.
    pub line_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bulk_bytes_max: 512 << 20, words_max: 1 << 20, line_bytes_max: 64 << 10 }
    }
}

/// What the bytes at the start of a buffer are.
#[allow(clippy::large_enum_variant, reason = "the words stay on the stack: that is what they are for")]
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A request of these words, in the first `consumed` bytes. No words: an
    /// empty line or array, to be skipped.
    Request {
        /// The words, the command's name first.
        words: Words<'a>,
        /// Bytes that the request takes.
        consumed: usize,
    },
    /// Not all there: the buffer must hold at least this many bytes to try again.
    Incomplete {
        /// A lower bound, in bytes from the start of the buffer.
        needed: usize,
    },
}

/// Parses the request at the start of `input`. The words of an inline one are put
/// into `unquoted`, which is empty before.
///
/// # Errors
/// Bytes that no request starts with, or one over a limit; the text is Redis's.
pub fn parse<'a>(
    input: &'a [u8],
    unquoted: &'a mut Vec<u8>,
    limits: &Limits,
) -> Result<Parsed<'a>, DecodeError> {
    match input.first() {
        None => Ok(Parsed::Incomplete { needed: 1 }),
        Some(b'*') => parse_array(input, limits),
        Some(_) => parse_inline(input, unquoted, limits),
    }
}

fn parse_array<'a>(input: &'a [u8], limits: &Limits) -> Result<Parsed<'a>, DecodeError> {
    let Some((count, mut at)) = header(input, 0, limits, "too big mbulk count string")? else {
        return Ok(Parsed::Incomplete { needed: input.len() + 1 });
    };
    let count = match count {
        Some(count) if count <= limits.words_max as i64 => count.max(0) as usize,
        _ => return Err(DecodeError::new("invalid multibulk length")),
    };
    let mut words = Words::new();
    for left in (0..count).rev() {
        match input.get(at) {
            None => return Ok(Parsed::Incomplete { needed: at + 1 }),
            Some(b'$') => {}
            Some(&other) => {
                let text = format!("expected '$', got '{}'", printable(other));
                return Err(DecodeError(text.into()));
            }
        }
        let Some((length, start)) = header(input, at, limits, "too big bulk count string")? else {
            return Ok(Parsed::Incomplete { needed: input.len() + 1 });
        };
        let length = match length {
            Some(length) if (0..=limits.bulk_bytes_max as i64).contains(&length) => length as usize,
            _ => return Err(DecodeError::new("invalid bulk length")),
        };
        at = start + length + 2;
        if input.len() < at {
            // Each word that is still to come takes at least `$0\r\n\r\n`.
            return Ok(Parsed::Incomplete { needed: at + 6 * left });
        }
        words.push(&input[start..start + length]);
    }
    Ok(Parsed::Request { words, consumed: at })
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { ' ' }
}

/// The number after the kind byte at `at` and where the next line starts; no
/// number if the line is not one, nothing at all if the line is not complete.
type Header = Option<(Option<i64>, usize)>;

fn header(input: &[u8], at: usize, limits: &Limits, too_long: &'static str) -> Result<Header, DecodeError> {
    let line = &input[at + 1..];
    // The common case: a few digits, found without a search.
    let mut number = 0_i64;
    for (index, &byte) in line.iter().take(10).enumerate() {
        match byte {
            b'0'..=b'9' => number = number * 10 + i64::from(byte - b'0'),
            b'\r' if index > 0 => {
                return Ok(line.get(index + 1).map(|_| (Some(number), at + index + 3)));
            }
            _ => break,
        }
    }
    match memchr::memchr(b'\r', line) {
        Some(end) if end + 1 < line.len() => {
            let text = std::str::from_utf8(&line[..end]).ok();
            Ok(Some((text.and_then(|text| text.parse().ok()), at + end + 3)))
        }
        Some(_) => Ok(None),
        None if line.len() > limits.line_bytes_max => Err(DecodeError::new(too_long)),
        None => Ok(None),
    }
}

fn parse_inline<'a>(
    input: &[u8],
    unquoted: &'a mut Vec<u8>,
    limits: &Limits,
) -> Result<Parsed<'a>, DecodeError> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        if input.len() > limits.line_bytes_max {
            return Err(DecodeError::new("too big inline request"));
        }
        return Ok(Parsed::Incomplete { needed: input.len() + 1 });
    };
    if end > limits.line_bytes_max {
        return Err(DecodeError::new("too big inline request"));
    }
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let words = inline_words(line, unquoted).ok_or(DecodeError::new("unbalanced quotes in request"))?;
    let unquoted: &[u8] = unquoted;
    let words = words.into_iter().map(|word| &unquoted[word]).collect();
    Ok(Parsed::Request { words, consumed: end + 1 })
}

/// Splits a line at blanks, as Redis does: a zero byte ends it, quotes may begin
/// inside a word but end it. `None`: a quote is not closed, or more follows it.
fn inline_words(line: &[u8], unquoted: &mut Vec<u8>) -> Option<Vec<Range<usize>>> {
    let mut line = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut words = Vec::new();
    loop {
        while let [byte, rest @ ..] = line
            && is_blank(*byte)
        {
            line = rest;
        }
        if line.is_empty() {
            return Some(words);
        }
        let start = unquoted.len();
        line = next_inline_word(line, unquoted)?;
        words.push(start..unquoted.len());
    }
}

/// What C's `isspace` takes for one.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Reads a word from the start of `line` and returns what follows it.
fn next_inline_word<'a>(mut line: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        line = match line {
            [] => return Some(line),
            [byte, ..] if is_blank(*byte) => return Some(line),
            [quote @ (b'"' | b'\''), rest @ ..] => {
                let rest = unquote(*quote, rest, word)?;
                return rest.first().is_none_or(|&byte| is_blank(byte)).then_some(rest);
            }
            [byte, rest @ ..] => {
                word.push(*byte);
                rest
            }
        }
    }
}

/// Reads up to the closing quote and returns what follows it.
fn unquote<'a>(quote: u8, mut line: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    loop {
        let (byte, rest) = match line {
            [] => return None,
            [byte, rest @ ..] if *byte == quote => return Some(rest),
            [b'\\', b'\'', rest @ ..] if quote == b'\'' => (b'\'', rest),
            [b'\\', escape, rest @ ..] if quote == b'"' => match (escape, rest) {
                (b'x', [high, low, rest @ ..]) if digit(*high).is_some() && digit(*low).is_some() => {
                    (digit(*high)? << 4 | digit(*low)?, rest)
                }
                (b'n', rest) => (b'\n', rest),
                (b'r', rest) => (b'\r', rest),
                (b't', rest) => (b'\t', rest),
                (b'b', rest) => (8, rest),
                (b'a', rest) => (7, rest),
                (other, rest) => (*other, rest),
            },
            [byte, rest @ ..] => (*byte, rest),
        };
        word.push(byte);
        line = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(input: &str) -> Vec<String> {
        match parse(input.as_bytes(), &mut Vec::new(), &Limits::default()) {
            Ok(Parsed::Request { words, .. }) => {
                words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
            }
            other => panic!("{input:?} gave {other:?}"),
        }
    }

    fn refusal(input: &str) -> String {
        parse(input.as_bytes(), &mut Vec::new(), &Limits::default()).expect_err("must be refused").to_string()
    }

    #[test]
    fn arrays_and_inline_requests_give_words() {
        assert_eq!(words("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), ["GET", "k"]);
        assert_eq!(words("*1\r\n$0\r\n\r\n"), [""]);
        assert_eq!(words("*0\r\n"), Vec::<String>::new());
        assert_eq!(words("*-1\r\n"), Vec::<String>::new());
        assert_eq!(words("set  a 'b c'\r\n"), ["set", "a", "b c"]);
        assert_eq!(words("ping\n"), ["ping"]);
        assert_eq!(words("a\tb\x0bc \r\n"), ["a", "b", "c"]);
        assert_eq!(words("\r\n"), Vec::<String>::new());
    }

    /// Each pair is what redis-server 7.0.15 makes of the line.
    #[test]
    fn quotes_and_escapes_of_a_line_are_those_of_redis() {
        assert_eq!(words("echo \"a\\nb\\x41\\\\\\q\\\"\"\n"), ["echo", "a\nbA\\q\""]);
        assert_eq!(words("echo \"\\r\\t\\a\\b\\x4\\xzz\"\n"), ["echo", "\r\t\x07\x08x4xzz"]);
        assert_eq!(words("echo 'it\\'s \\n \"x\"'\n"), ["echo", "it's \\n \"x\""]);
        assert_eq!(words("echo ab\"c d\" ''\n"), ["echo", "abc d", ""]);
        assert_eq!(words("echo a\0 'b\n"), ["echo", "a"]);
        for line in ["echo \"a\n", "echo 'a\n", "echo \"a\"b\n", "echo 'a''b'\n", "echo \"a\\\"\n", "\"\\\n"]
        {
            assert_eq!(refusal(line), "Protocol error: unbalanced quotes in request", "{line}");
        }
    }

    #[test]
    fn refusals_have_the_texts_of_redis() {
        assert_eq!(refusal("*x\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(refusal("*1048577\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(refusal("*1\r\n:1\r\n"), "Protocol error: expected '$', got ':'");
        assert_eq!(refusal("*1\r\n$-1\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(refusal("*1\r\n$536870913\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(refusal("get \"a\r\n"), "Protocol error: unbalanced quotes in request");
    }

    #[test]
    fn a_large_word_says_how_much_it_needs() {
        let mut unquoted = Vec::new();
        let parsed = parse(b"*2\r\n$3\r\nSET\r\n$1000\r\nabc", &mut unquoted, &Limits::default());
        assert_eq!(parsed, Ok(Parsed::Incomplete { needed: 13 + 7 + 1000 + 2 }));
    }

    proptest! {
        #[test]
        fn every_prefix_is_incomplete_and_the_whole_is_what_was_sent(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..20)
        ) {
            let mut bytes = format!("*{}\r\n", sent.len()).into_bytes();
            for word in &sent {
                bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                bytes.extend_from_slice(word);
                bytes.extend_from_slice(b"\r\n");
            }
            for end in 0..bytes.len() {
                match parse(&bytes[..end], &mut Vec::new(), &Limits::default()) {
                    Ok(Parsed::Incomplete { needed }) => {
                        prop_assert!(needed > end && needed <= bytes.len());
                    }
                    other => prop_assert!(false, "prefix {end}: {other:?}"),
                }
            }
            match parse(&bytes, &mut Vec::new(), &Limits::default()) {
                Ok(Parsed::Request { words, consumed }) => {
                    prop_assert_eq!(consumed, bytes.len());
                    prop_assert_eq!(words.to_vec(), sent.iter().map(Vec::as_slice).collect::<Vec<_>>());
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, &mut Vec::new(), &Limits::default());
        }
    }
}
