//! What a client is answered, apart from how it is written.
//!
//! A handler returns a [`Reply`] and never sees a RESP version; [`Reply::encode`]
//! writes it as the connection's [`Protocol`] asks. A reply may borrow from the
//! keyspace or from the request, so that a `GET` copies its value once: into the
//! output buffer.
//!
//! What it weighs is known before a byte of it is written ([`Reply::weight`]): a reply of many
//! large values takes no memory of its own until then.
//!
//! Sources: RESP specification (RESP2 and RESP3), `addReply*` of Redis 7.2.

use std::borrow::Cow;

use bytes::BufMut;

use crate::Text;

/// The reply format a connection asked for with `HELLO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Redis's format before version 6; what a connection starts with.
    #[default]
    Resp2,
    /// The format with maps, sets, doubles, booleans and pushes.
    Resp3,
}

/// One reply.
///
/// Variants that RESP2 lacks are written there as Redis writes them: a map as a
/// flat array, a set as an array, a double as a bulk string, a boolean as 0 or 1.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<'a> {
    /// `+text`
    Status(Text<'a>),
    /// `-text`; the text starts with its code (`ERR …`, `WRONGTYPE …`).
    Error(Text<'a>),
    /// `:n`
    Int(i64),
    /// `$n` and the bytes
    Bulk(Cow<'a, [u8]>),
    /// No value: `$-1`, or `_`
    Null,
    /// No array: `*-1`, or `_`
    NullArray,
    /// `*n`
    Array(Vec<Reply<'a>>),
    /// `%n`, or an array of twice the length
    Map(Vec<(Reply<'a>, Reply<'a>)>),
    /// `~n`, or an array
    Set(Vec<Reply<'a>>),
    /// Members with scores, fields with values where Redis nests them in RESP3:
    /// an array of two-element arrays, or one flat array.
    Pairs(Vec<(Reply<'a>, Reply<'a>)>),
    /// `%n`, or an array of two-element arrays: keys with what was read of them.
    Keyed(Vec<(Reply<'a>, Reply<'a>)>),
    /// `,x`, or a bulk string of its text
    Double(f64),
    /// A double whose text is another than [`double_text`] writes: `,x`, or a bulk string
    Number(Text<'a>),
    /// `#t`, or `:1`
    Bool(bool),
    /// `=n txt:…`, or a bulk string; the format is three letters.
    Verbatim([u8; 3], Text<'a>),
    /// `(n`, or a bulk string
    BigNumber(Text<'a>),
    /// `>n`, or an array: out-of-band messages
    Push(Vec<Reply<'a>>),
    /// Several replies to one request (`SUBSCRIBE a b`).
    Several(Vec<Reply<'a>>),
    /// Nothing at all (`CLIENT REPLY OFF`, a request that is not answered now).
    Nothing,
}

/// What a reply takes until it has left, counted before it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes of its texts, and [`Weight::PART_BYTES`] for each of its parts.
    pub bytes: usize,
    /// Bytes of the longest text among them.
    pub longest: usize,
}

impl Weight {
    /// Bytes of a part beside its text: what it is until it is written.
    pub const PART_BYTES: usize = 32;

    /// Bytes that a limit is about: all but the longest text. A value that a client could put there
    /// it can also get.
    pub const fn counted(self) -> usize {
        self.bytes - self.longest
    }

    /// This and another together.
    pub fn and(self, other: Weight) -> Weight {
        Weight { bytes: self.bytes.saturating_add(other.bytes), longest: self.longest.max(other.longest) }
    }

    fn text(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.longest = self.longest.max(bytes);
    }
}

impl<'a> Reply<'a> {
    /// `+OK`
    pub const OK: Reply<'static> = Reply::status("OK");

    /// `+text`
    pub const fn status(text: &'static str) -> Reply<'static> {
        Reply::Status(Text::fixed(text))
    }

    /// A bulk string of anything that turns into bytes.
    pub fn bulk(bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Reply::Bulk(bytes.into())
    }

    /// A bulk string of a text.
    pub fn text(text: impl Into<String>) -> Self {
        Reply::Bulk(Cow::Owned(text.into().into_bytes()))
    }

    /// A bulk string, or null.
    pub fn bulk_or_null(bytes: Option<&'a [u8]>) -> Self {
        bytes.map_or(Reply::Null, |bytes| Reply::Bulk(Cow::Borrowed(bytes)))
    }

    /// An array of bulk strings.
    pub fn bulks<B: Into<Cow<'a, [u8]>>>(items: impl IntoIterator<Item = B>) -> Self {
        Reply::Array(items.into_iter().map(Reply::bulk).collect())
    }

    /// `:1` or `:0`
    pub const fn flag(yes: bool) -> Reply<'static> {
        Reply::Int(yes as i64)
    }

    /// A count. Counts of things in memory always fit.
    pub const fn count(count: usize) -> Reply<'static> {
        Reply::Int(count as i64)
    }

    /// Whether this is an error.
    pub const fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// What it takes until it has left.
    pub fn weight(&self) -> Weight {
        let mut weight = Weight::default();
        self.weigh(&mut weight);
        weight
    }

    fn weigh(&self, weight: &mut Weight) {
        weight.bytes += Weight::PART_BYTES;
        match self {
            Reply::Bulk(bytes) => weight.text(bytes.len()),
            Reply::Status(text)
            | Reply::Error(text)
            | Reply::Verbatim(_, text)
            | Reply::Number(text)
            | Reply::BigNumber(text) => {
                weight.text(text.len());
            }
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) | Reply::Several(items) => {
                items.iter().for_each(|item| item.weigh(weight));
            }
            Reply::Map(pairs) | Reply::Pairs(pairs) | Reply::Keyed(pairs) => {
                pairs.iter().for_each(|(first, second)| {
                    first.weigh(weight);
                    second.weigh(weight);
                })
            }
            Reply::Int(_)
            | Reply::Null
            | Reply::NullArray
            | Reply::Double(_)
            | Reply::Bool(_)
            | Reply::Nothing => {}
        }
    }

    /// The same reply, borrowing nothing.
    pub fn into_owned(self) -> Reply<'static> {
        fn all(items: Vec<Reply<'_>>) -> Vec<Reply<'static>> {
            items.into_iter().map(Reply::into_owned).collect()
        }
        fn pairs(items: Vec<(Reply<'_>, Reply<'_>)>) -> Vec<(Reply<'static>, Reply<'static>)> {
            let owned = items.into_iter().map(|(a, b)| (a.into_owned(), b.into_owned()));
            owned.collect()
        }
        match self {
            Reply::Status(text) => Reply::Status(text.into_owned()),
            Reply::Error(text) => Reply::Error(text.into_owned()),
            Reply::Int(n) => Reply::Int(n),
            Reply::Bulk(bytes) => Reply::Bulk(Cow::Owned(bytes.into_owned())),
            Reply::Null => Reply::Null,
            Reply::NullArray => Reply::NullArray,
            Reply::Array(items) => Reply::Array(all(items)),
            Reply::Map(items) => Reply::Map(pairs(items)),
            Reply::Set(items) => Reply::Set(all(items)),
            Reply::Pairs(items) => Reply::Pairs(pairs(items)),
            Reply::Keyed(items) => Reply::Keyed(pairs(items)),
            Reply::Double(x) => Reply::Double(x),
            Reply::Number(text) => Reply::Number(text.into_owned()),
            Reply::Bool(yes) => Reply::Bool(yes),
            Reply::Verbatim(format, text) => Reply::Verbatim(format, text.into_owned()),
            Reply::BigNumber(text) => Reply::BigNumber(text.into_owned()),
            Reply::Push(items) => Reply::Push(all(items)),
            Reply::Several(items) => Reply::Several(all(items)),
            Reply::Nothing => Reply::Nothing,
        }
    }

    /// Appends the bytes of this reply to `out`.
    pub fn encode(&self, protocol: Protocol, out: &mut impl BufMut) {
        let resp3 = protocol == Protocol::Resp3;
        match self {
            Reply::Status(text) => line(out, b'+', text),
            Reply::Error(text) => line(out, b'-', text),
            Reply::Int(n) => header(out, b':', *n),
            Reply::Bulk(bytes) => bulk(out, bytes),
            Reply::Null if resp3 => out.put_slice(b"_\r\n"),
            Reply::Null => out.put_slice(b"$-1\r\n"),
            Reply::NullArray if resp3 => out.put_slice(b"_\r\n"),
            Reply::NullArray => out.put_slice(b"*-1\r\n"),
            Reply::Array(items) => list(out, b'*', items, protocol),
            Reply::Set(items) => list(out, if resp3 { b'~' } else { b'*' }, items, protocol),
            Reply::Push(items) => list(out, if resp3 { b'>' } else { b'*' }, items, protocol),
            Reply::Map(items) | Reply::Keyed(items) if resp3 => {
                header(out, b'%', items.len() as i64);
                flat(out, items, protocol);
            }
            Reply::Pairs(items) if resp3 => nested(out, items, protocol),
            Reply::Keyed(items) => nested(out, items, protocol),
            Reply::Map(items) | Reply::Pairs(items) => {
                header(out, b'*', items.len() as i64 * 2);
                flat(out, items, protocol);
            }
            Reply::Double(x) if resp3 => line(out, b',', double_text(*x).as_bytes()),
            Reply::Double(x) => bulk(out, double_text(*x).as_bytes()),
            Reply::Number(text) if resp3 => line(out, b',', text),
            Reply::Number(text) => bulk(out, text),
            Reply::Bool(yes) if resp3 => out.put_slice(if *yes { b"#t\r\n" } else { b"#f\r\n" }),
            Reply::Bool(yes) => header(out, b':', i64::from(*yes)),
            Reply::Verbatim(format, text) if resp3 => {
                header(out, b'=', text.len() as i64 + 4);
                out.put_slice(format);
                out.put_u8(b':');
                out.put_slice(text);
                out.put_slice(b"\r\n");
            }
            Reply::Verbatim(_, text) => bulk(out, text),
            Reply::BigNumber(text) if resp3 => line(out, b'(', text),
            Reply::BigNumber(text) => bulk(out, text),
            Reply::Several(items) => items.iter().for_each(|item| item.encode(protocol, out)),
            Reply::Nothing => {}
        }
    }
}

fn header(out: &mut impl BufMut, kind: u8, n: i64) {
    out.put_u8(kind);
    out.put_slice(itoa::Buffer::new().format(n).as_bytes());
    out.put_slice(b"\r\n");
}

/// A line holds no line end: Redis writes such bytes of an error as spaces.
fn line(out: &mut impl BufMut, kind: u8, text: &[u8]) {
    out.put_u8(kind);
    if memchr::memchr2(b'\r', b'\n', text).is_some() {
        let clean = |byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte };
        text.iter().for_each(|byte| out.put_u8(clean(*byte)));
    } else {
        out.put_slice(text);
    }
    out.put_slice(b"\r\n");
}

fn bulk(out: &mut impl BufMut, bytes: &[u8]) {
    header(out, b'$', bytes.len() as i64);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

fn list(out: &mut impl BufMut, kind: u8, items: &[Reply<'_>], protocol: Protocol) {
    header(out, kind, items.len() as i64);
    items.iter().for_each(|item| item.encode(protocol, out));
}

fn nested(out: &mut impl BufMut, items: &[(Reply<'_>, Reply<'_>)], protocol: Protocol) {
    header(out, b'*', items.len() as i64);
    for (first, second) in items {
        out.put_slice(b"*2\r\n");
        first.encode(protocol, out);
        second.encode(protocol, out);
    }
}

fn flat(out: &mut impl BufMut, items: &[(Reply<'_>, Reply<'_>)], protocol: Protocol) {
    for (first, second) in items {
        first.encode(protocol, out);
        second.encode(protocol, out);
    }
}

/// The text of a score or another double as Redis 7.2 writes it: `inf`, whole
/// numbers without a point, else few digits that read back the same.
/// (Redis 7.0 writes 17 digits: `0.10000000000000001`.)
pub fn double_text(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.into();
    }
    if x == 0.0 {
        return if x.is_sign_negative() { "-0" } else { "0" }.into();
    }
    // Up to here Redis writes a whole number as the integer it is.
    const WHOLE_MAX: f64 = (1_i64 << 62) as f64;
    if x.trunc() == x && x.abs() <= WHOLE_MAX {
        return itoa::Buffer::new().format(x as i64).to_string();
    }
    shortest_text(x)
}

/// Digits that read back, laid out as Redis 7.2 does: with an exponent where zeros would
/// be many.
fn shortest_text(x: f64) -> String {
    let (digits, last) = crate::digits::digits(x.abs());
    let count = digits.len() as i32;
    // The value is 0.DIGITS times ten to the `point`.
    let point = count + last;
    let scientific = point - 1;
    let sign = if x < 0.0 { "-" } else { "" };
    if last >= 0 && scientific < count + 7 {
        format!("{sign}{digits}{}", "0".repeat(last as usize))
    } else if last < 0 && (last > -7 || scientific.abs() < 4) {
        if point <= 0 {
            return format!("{sign}0.{}{digits}", "0".repeat(-point as usize));
        }
        let (before, after) = digits.split_at(point as usize);
        format!("{sign}{before}.{after}")
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{sign}{first}{dot}{rest}e{scientific:+}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(reply: &Reply<'_>, protocol: Protocol) -> String {
        let mut out = Vec::new();
        reply.encode(protocol, &mut out);
        String::from_utf8(out).expect("these tests write text")
    }

    #[test]
    fn each_variant_has_its_form_in_both_protocols() {
        let pair = || vec![(Reply::text("m"), Reply::Double(1.5))];
        let cases: Vec<(Reply<'_>, &str, &str)> = vec![
            (Reply::OK, "+OK\r\n", "+OK\r\n"),
            (Reply::Error("ERR a\r\nb".into()), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (Reply::Int(-7), ":-7\r\n", ":-7\r\n"),
            (Reply::text("hi"), "$2\r\nhi\r\n", "$2\r\nhi\r\n"),
            (Reply::Null, "$-1\r\n", "_\r\n"),
            (Reply::NullArray, "*-1\r\n", "_\r\n"),
            (Reply::Set(vec![Reply::Int(1)]), "*1\r\n:1\r\n", "~1\r\n:1\r\n"),
            (Reply::Map(pair()), "*2\r\n$1\r\nm\r\n$3\r\n1.5\r\n", "%1\r\n$1\r\nm\r\n,1.5\r\n"),
            (Reply::Pairs(pair()), "*2\r\n$1\r\nm\r\n$3\r\n1.5\r\n", "*1\r\n*2\r\n$1\r\nm\r\n,1.5\r\n"),
            (Reply::Bool(true), ":1\r\n", "#t\r\n"),
            (Reply::Verbatim(*b"txt", "ab".into()), "$2\r\nab\r\n", "=6\r\ntxt:ab\r\n"),
            (Reply::Push(vec![]), "*0\r\n", ">0\r\n"),
        ];
        for (reply, resp2, resp3) in cases {
            assert_eq!(encoded(&reply, Protocol::Resp2), resp2, "{reply:?}");
            assert_eq!(encoded(&reply, Protocol::Resp3), resp3, "{reply:?}");
        }
    }

    #[test]
    fn a_reply_weighs_what_its_texts_and_parts_take_but_for_the_longest_text() {
        let text = |bytes: usize| Reply::bulk(vec![b'x'; bytes]);
        assert_eq!(text(1000).weight(), Weight { bytes: 1032, longest: 1000 });
        assert_eq!(text(1000).weight().counted(), 32);
        let pairs = Reply::Map(vec![(text(10), Reply::Int(1)), (text(20), Reply::Array(vec![text(30)]))]);
        assert_eq!(pairs.weight(), Weight { bytes: 60 + 6 * 32, longest: 30 });
        let both = pairs.weight().and(text(1000).weight());
        assert_eq!(both.counted(), 60 + 7 * 32);
        // What is written is never more than what was weighed.
        for reply in [pairs, text(5), Reply::Double(0.1), Reply::Int(i64::MIN), Reply::Set(vec![text(0)])] {
            for protocol in [Protocol::Resp2, Protocol::Resp3] {
                assert!(encoded(&reply, protocol).len() <= reply.weight().bytes, "{reply:?}");
            }
        }
    }

    #[test]
    fn doubles_are_written_as_redis_does() {
        let cases = [
            (3.0, "3"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000"),
            (1e16, "10000000000000000"),
            (1e17, "100000000000000000"),
            (99999999999999984.0, "99999999999999984"),
            (1e19, "1e+19"),
            (1e21, "1e+21"),
            (-1.2345678901234567e19, "-12345678901234567000"),
            (1.5e-7, "1.5e-7"),
            (0.00001, "0.00001"),
            (0.0000001, "1e-7"),
            (0.00012345678, "1.2345678e-4"),
            (0.0012345678, "0.0012345678"),
            (0.000000012345678, "1.2345678e-8"),
            (0.0001, "0.0001"),
            (-2.5, "-2.5"),
            (1e300, "1e+300"),
            (f64::INFINITY, "inf"),
            (123456789.125, "123456789.125"),
        ];
        for (x, text) in cases {
            assert_eq!(double_text(x), text);
        }
    }
}
