//! Requests, as clients send them: RESP arrays of bulk strings, and inline commands.
//!
//! [`parse`] turns the bytes at the start of a read buffer into one request
//! that borrows from that buffer. Nothing is copied; what a handler stores it
//! copies then. Inline requests, which people type, are unquoted into a buffer
//! beside it.
//!
//! Invariants:
//! * Bytes are consumed by whole requests: an incomplete one is parsed again
//!   when more has arrived. So that neither a value of many megabytes nor a
//!   million words are looked at once per packet, an incomplete request says how
//!   many bytes it needs at least, and which of its words were whole
//!   ([`Unfinished`]).
//! * A length that is over a limit is refused when it is read, before its bytes.
//! * What is refused, and when, does not depend on how the bytes were split.
//!
//! Source: RESP specification; `networking.c` of Redis 7 for limits and texts,
//! its `sds.c` for quotes, its `util.c` for what a number is.

use std::ops::Range;

use smallvec::SmallVec;

use crate::{DecodeError, Text};

/// Words of a request that fit without an allocation: most commands have fewer.
pub const WORDS_INLINE: usize = 16;

/// The words of one request, borrowed from the read buffer.
pub type Words<'a> = SmallVec<[&'a [u8]; WORDS_INLINE]>;

/// What a request may measure.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one word; `proto-max-bulk-len`.
    pub bulk_bytes_max: usize,
    /// Words of one request; Redis's `INT_MAX`. What a client may send before it is
    /// executed ends at far fewer: `client-query-buffer-limit`.
    pub words_max: usize,
    /// Bytes of an inline request and of a header line; Redis's 64 KiB.
    pub line_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bulk_bytes_max: 512 << 20, words_max: i32::MAX as usize, line_bytes_max: 64 << 10 }
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

/// How far the request at the start of a buffer was whole when it was last looked
/// at. The default: nothing is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Where the first word begins that was not whole; 0: unknown.
    at: usize,
    /// How many words begin there.
    left: usize,
}

/// Parses the request at the start of `input`, of which `unfinished` is known: what
/// the last call said if its bytes are still there, with more behind them. The words
/// of an inline one are put into `unquoted`, which is empty before.
///
/// # Errors
/// Bytes that no request starts with, or one over a limit; the text is Redis's.
pub fn parse<'a>(
    input: &'a [u8],
    unquoted: &'a mut Vec<u8>,
    limits: &Limits,
    unfinished: &mut Unfinished,
) -> Result<Parsed<'a>, DecodeError> {
    match input.first() {
        None => Ok(Parsed::Incomplete { needed: 1 }),
        Some(b'*') => parse_array(input, limits, unfinished),
        Some(_) => parse_inline(input, unquoted, limits),
    }
}

fn parse_array<'a>(
    input: &'a [u8],
    limits: &Limits,
    unfinished: &mut Unfinished,
) -> Result<Parsed<'a>, DecodeError> {
    while unfinished.left > 0 {
        match word(input, unfinished.at, limits)? {
            Word::Whole { end, .. } => *unfinished = Unfinished { at: end, left: unfinished.left - 1 },
            Word::Incomplete { needed } => return Ok(Parsed::Incomplete { needed }),
        }
    }
    let Some((count, mut at)) = header(input, 0, limits, "too big mbulk count string")? else {
        return Ok(Parsed::Incomplete { needed: input.len() + 1 });
    };
    let count = match count {
        Some(count) if count <= limits.words_max as i64 => count.max(0) as usize,
        _ => return Err(DecodeError::new("invalid multibulk length")),
    };
    let mut words = Words::new();
    for left in (1..=count).rev() {
        match word(input, at, limits)? {
            Word::Whole { start, end } => {
                words.push(&input[start..end - 2]);
                at = end;
            }
            Word::Incomplete { needed } => {
                *unfinished = Unfinished { at, left };
                return Ok(Parsed::Incomplete { needed });
            }
        }
    }
    *unfinished = Unfinished::default();
    Ok(Parsed::Request { words, consumed: at })
}

/// A bulk string.
enum Word {
    /// Its bytes begin at `start`, and what follows it at `end`: two bytes after the last,
    /// whatever these are.
    Whole { start: usize, end: usize },
    /// The buffer must hold at least this many bytes to try again.
    Incomplete { needed: usize },
}

/// The bulk string at `at`. Its first byte is looked at when its whole line is there.
#[inline]
fn word(input: &[u8], at: usize, limits: &Limits) -> Result<Word, DecodeError> {
    let Some((length, start)) = header(input, at, limits, "too big bulk count string")? else {
        return Ok(Word::Incomplete { needed: input.len() + 1 });
    };
    if input[at] != b'$' {
        return Err(unexpected(input[at]));
    }
    let length = match length {
        Some(length) if (0..=limits.bulk_bytes_max as i64).contains(&length) => length as usize,
        _ => return Err(DecodeError::new("invalid bulk length")),
    };
    let end = start + length + 2;
    Ok(if end <= input.len() { Word::Whole { start, end } } else { Word::Incomplete { needed: end } })
}

#[cold]
fn unexpected(kind: u8) -> DecodeError {
    DecodeError(Text::joined(&[b"expected '$', got '", &[kind], b"'"]))
}

/// The number after the kind byte at `at` and where the next line starts; no
/// number if the line is not one, nothing at all if the line is not complete.
type Header = Option<(Option<i64>, usize)>;

#[inline]
fn header(input: &[u8], at: usize, limits: &Limits, too_long: &'static str) -> Result<Header, DecodeError> {
    let line = &input[at..];
    // The common case: a few digits, found without a search.
    if let [b'$' | b'*', digits @ ..] = line {
        let mut number = 0_i64;
        for (index, &byte) in digits.iter().take(10).enumerate() {
            match byte {
                b'0'..=b'9' if number > 0 || index == 0 => number = number * 10 + i64::from(byte - b'0'),
                b'\r' if index > 0 => {
                    return Ok(digits.get(index + 1).map(|_| (Some(number), at + index + 3)));
                }
                _ => break,
            }
        }
    }
    // In C a zero byte ends the text in which the end of the line is looked for.
    let end = memchr::memchr2(b'\r', 0, line).filter(|&end| line[end] == b'\r');
    if end.unwrap_or(line.len()) > limits.line_bytes_max {
        return Err(DecodeError::new(too_long));
    }
    let Some(end) = end.filter(|end| end + 1 < line.len()) else { return Ok(None) };
    Ok(Some((integer(line.get(1..end).unwrap_or_default()), at + end + 2)))
}

/// An integer as Redis reads them: neither a `+` nor a zero in front.
fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_written_once = text == b"0" || matches!(digits, [b'1'..=b'9', ..]);
    std::str::from_utf8(text).ok().filter(|_| is_written_once)?.parse().ok()
}

fn parse_inline<'a>(
    input: &[u8],
    unquoted: &'a mut Vec<u8>,
    limits: &Limits,
) -> Result<Parsed<'a>, DecodeError> {
    // In C a zero byte ends the text in which the end of the line is looked for.
    let end = memchr::memchr2(b'\n', 0, input).filter(|&end| input[end] == b'\n');
    if end.unwrap_or(input.len()) > limits.line_bytes_max {
        return Err(DecodeError::new("too big inline request"));
    }
    let Some(end) = end else { return Ok(Parsed::Incomplete { needed: input.len() + 1 }) };
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let words = inline_words(line, unquoted).ok_or(DecodeError::new("unbalanced quotes in request"))?;
    let unquoted: &[u8] = unquoted;
    let words = words.into_iter().map(|word| &unquoted[word]).collect();
    Ok(Parsed::Request { words, consumed: end + 1 })
}

/// The words of a line, as [`inline_words`] splits them.
pub fn split_line(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut unquoted = Vec::new();
    let words = inline_words(line, &mut unquoted)?;
    Some(words.into_iter().map(|word| unquoted[word].to_vec()).collect())
}

/// Splits a line at blanks, as Redis does: quotes may begin inside a word but end
/// it. `None`: a quote is not closed, or more follows it.
fn inline_words(mut line: &[u8], unquoted: &mut Vec<u8>) -> Option<Vec<Range<usize>>> {
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
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Some(line),
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

    /// What is made of bytes of which nothing is known.
    fn parsed<'a>(input: &'a [u8], unquoted: &'a mut Vec<u8>) -> Result<Parsed<'a>, DecodeError> {
        parse(input, unquoted, &Limits::default(), &mut Unfinished::default())
    }

    fn words(input: &str) -> Vec<String> {
        match parsed(input.as_bytes(), &mut Vec::new()) {
            Ok(Parsed::Request { words, .. }) => {
                words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
            }
            other => panic!("{input:?} gave {other:?}"),
        }
    }

    fn refusal(input: &str) -> String {
        parsed(input.as_bytes(), &mut Vec::new()).expect_err("must be refused").to_string()
    }

    fn is_incomplete(input: &str) -> bool {
        matches!(parsed(input.as_bytes(), &mut Vec::new()), Ok(Parsed::Incomplete { .. }))
    }

    #[test]
    fn arrays_and_inline_requests_give_words() {
        assert_eq!(words("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), ["GET", "k"]);
        assert_eq!(words("*1\r\n$0\r\n\r\n"), [""]);
        assert_eq!(words("*0\r\n"), Vec::<String>::new());
        assert_eq!(words("*-1\r\n"), Vec::<String>::new());
        assert_eq!(words("set  a 'b c'\r\n"), ["set", "a", "b c"]);
        assert_eq!(words("ping\n"), ["ping"]);
        // What stands before a word as a blank does not end one.
        assert_eq!(words("a\tb\x0bc \x0b\x0cd\r\n"), ["a", "b\x0bc", "d"]);
        assert_eq!(words("\r\n"), Vec::<String>::new());
    }

    /// Each pair is what redis-server 7.0.15 makes of the line.
    #[test]
    fn quotes_and_escapes_of_a_line_are_those_of_redis() {
        assert_eq!(words("echo \"a\\nb\\x41\\\\\\q\\\"\"\n"), ["echo", "a\nbA\\q\""]);
        assert_eq!(words("echo \"\\r\\t\\a\\b\\x4\\xzz\"\n"), ["echo", "\r\t\x07\x08x4xzz"]);
        assert_eq!(words("echo 'it\\'s \\n \"x\"'\n"), ["echo", "it's \\n \"x\""]);
        assert_eq!(words("echo ab\"c d\" ''\n"), ["echo", "abc d", ""]);
        for line in ["echo \"a\n", "echo 'a\n", "echo \"a\"b\n", "echo 'a''b'\n", "echo \"a\\\"\n", "\"\\\n"]
        {
            assert_eq!(refusal(line), "unbalanced quotes in request", "{line}");
        }
    }

    #[test]
    fn refusals_have_the_texts_of_redis() {
        assert_eq!(refusal("*x\r\n"), "invalid multibulk length");
        assert_eq!(refusal("*2147483648\r\n"), "invalid multibulk length");
        for count in ["01", "+1", "-0", " 1", "1 ", "", "1.0", "9223372036854775808"] {
            let text = refusal(&format!("*{count}\r\n"));
            assert_eq!(text, "invalid multibulk length", "{count}");
            let text = refusal(&format!("*1\r\n${count}\r\n"));
            assert_eq!(text, "invalid bulk length", "{count}");
        }
        assert_eq!(refusal("*1\r\n:1\r\n"), "expected '$', got ':'");
        assert_eq!(refusal("*1\r\n$-1\r\n"), "invalid bulk length");
        assert_eq!(refusal("*1\r\n$536870913\r\n"), "invalid bulk length");
        assert_eq!(refusal("get \"a\r\n"), "unbalanced quotes in request");
    }

    #[test]
    fn nothing_is_refused_before_its_line_is_there() {
        assert!(is_incomplete("*x") && is_incomplete("*x\r"));
        assert!(is_incomplete("*1\r\nx") && is_incomplete("*1\r\n:1\r"));
        assert!(is_incomplete("*2147483647\r\n$4\r\nPING\r\n"));
        // A zero byte ends the text in which C looks for the end of the line.
        assert!(is_incomplete("*1\0\r\n") && is_incomplete("PING\0\r\n"));
        let long = "1".repeat(64 << 10);
        assert_eq!(refusal(&format!("*{long}")), "too big mbulk count string");
        assert_eq!(refusal(&format!("*1\r\n${long}")), "too big bulk count string");
        assert_eq!(refusal(&format!("1{long}")), "too big inline request");
        // Also if its end has come with it.
        assert_eq!(refusal(&format!("*{long}\r\n")), "too big mbulk count string");
        assert_eq!(refusal(&format!("*1\r\n${long}\r\n")), "too big bulk count string");
        assert_eq!(refusal(&format!("*{}\r\n", &long[1..])), "invalid multibulk length");
        assert!(is_incomplete(&long) && is_incomplete(&format!("*{}", &long[1..])));
    }

    #[test]
    fn a_large_word_says_how_much_it_needs() {
        let mut unquoted = Vec::new();
        let parsed = parsed(b"*2\r\n$3\r\nSET\r\n$1000\r\nabc", &mut unquoted);
        assert_eq!(parsed, Ok(Parsed::Incomplete { needed: 13 + 7 + 1000 + 2 }));
    }

    /// A million words in a hundred pieces: what was whole is not looked at again.
    #[test]
    fn words_that_were_whole_are_not_looked_at_again() {
        let count = 1_000_000;
        let bytes = [format!("*{count}\r\n").into_bytes(), b"$1\r\nx\r\n".repeat(count)].concat();
        let (mut unfinished, mut looked) = (Unfinished::default(), 0);
        for end in (1..100).map(|piece| bytes.len() / 100 * piece) {
            let before = unfinished;
            let (mut unquoted, limits) = (Vec::new(), Limits::default());
            let parsed = parse(&bytes[..end], &mut unquoted, &limits, &mut unfinished);
            assert!(matches!(parsed, Ok(Parsed::Incomplete { .. })));
            looked += before.left.checked_sub(unfinished.left).unwrap_or(count - unfinished.left);
        }
        assert_eq!(looked, count - unfinished.left, "each word once");
        let (mut unquoted, limits) = (Vec::new(), Limits::default());
        match parse(&bytes, &mut unquoted, &limits, &mut unfinished) {
            Ok(Parsed::Request { words, consumed }) => {
                assert_eq!((words.len(), consumed), (count, bytes.len()));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(unfinished, Unfinished::default());
    }

    /// Bytes that are nearly requests.
    fn nearly_requests() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::sample::select(vec!["*1\r\n", "*2\r\n", "$4\r\nPING\r\n", "$0\r\n\r\n", "PING\r\n"]),
            1 => prop::sample::select(vec!["*", "$", "-1", "01", "+1", "\r\n", "\n", "\r", "\0", "x", "'", "\"", " "]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn what_becomes_of_bytes_does_not_depend_on_how_they_are_split(bytes in nearly_requests()) {
            let whole = format!("{:?}", parsed(&bytes, &mut Vec::new()));
            let mut unfinished = Unfinished::default();
            let mut needed = 1;
            for end in 0..=bytes.len() {
                if end < needed && end < bytes.len() {
                    continue;
                }
                match parse(&bytes[..end], &mut Vec::new(), &Limits::default(), &mut unfinished) {
                    Ok(Parsed::Incomplete { needed: more }) => needed = more,
                    other => {
                        prop_assert_eq!(format!("{other:?}"), whole);
                        return Ok(());
                    }
                }
            }
            prop_assert!(whole.contains("Incomplete"), "{whole}");
        }

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
                match parsed(&bytes[..end], &mut Vec::new()) {
                    Ok(Parsed::Incomplete { needed }) => {
                        prop_assert!(needed > end && needed <= bytes.len());
                    }
                    other => prop_assert!(false, "prefix {end}: {other:?}"),
                }
            }
            match parsed(&bytes, &mut Vec::new()) {
                Ok(Parsed::Request { words, consumed }) => {
                    prop_assert_eq!(consumed, bytes.len());
                    prop_assert_eq!(words.to_vec(), sent.iter().map(Vec::as_slice).collect::<Vec<_>>());
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parsed(&bytes, &mut Vec::new());
        }
    }
}
