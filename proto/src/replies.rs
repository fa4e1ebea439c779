//! Replies, as a client reads them: the other end of [`Reply::encode`], for tools and tests.
//!
//! Nothing of a text is copied: a reply borrows from the buffer it was read from. What only one of the two versions of
//! RESP has is read whatever was agreed on; what both write alike comes back as RESP says it (a set in RESP2 is an
//! array). Attributes are skipped.
//!
//! Source: RESP specification (RESP2 and RESP3).

use crate::{DecodeError, Reply};

/// Replies within replies: more than any server makes, and far from what a thread's stack holds.
const NESTING_MAX: usize = 128;

/// The reply at the start of `input` and the bytes that it takes; `None` if it is not all there.
///
/// # Errors
/// Bytes that no reply starts with.
pub fn read(input: &[u8]) -> Result<Option<(Reply<'_>, usize)>, DecodeError> {
    let mut reader = Reader { input, at: 0 };
    match reader.reply(NESTING_MAX) {
        Ok(reply) => Ok(Some((reply, reader.at))),
        Err(Stop::Incomplete) => Ok(None),
        Err(Stop::Broken(text)) => Err(DecodeError::new(text)),
    }
}

/// Why there is no reply.
enum Stop {
    Incomplete,
    Broken(&'static str),
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn reply(&mut self, nesting: usize) -> Result<Reply<'a>, Stop> {
        let Some(inside) = nesting.checked_sub(1) else { return Err(Stop::Broken("nested too deep")) };
        let (kind, line) = self.line()?;
        Ok(match kind {
            b'+' => Reply::Status(line.into()),
            b'-' => Reply::Error(line.into()),
            b':' => Reply::Int(parsed(line)?),
            b'_' => Reply::Null,
            b'#' => match line {
                b"t" => Reply::Bool(true),
                b"f" => Reply::Bool(false),
                _ => return Err(Stop::Broken("invalid boolean")),
            },
            b',' => Reply::Double(parsed(line)?),
            b'(' => Reply::BigNumber(line.into()),
            b'$' => self.bulk(line)?.map_or(Reply::Null, |bytes| Reply::Bulk(bytes.into())),
            b'!' => Reply::Error(self.bulk(line)?.unwrap_or_default().into()),
            b'=' => match self.bulk(line)?.and_then(|bytes| bytes.split_first_chunk()) {
                Some((format, [b':', text @ ..])) => Reply::Verbatim(*format, text.into()),
                _ => return Err(Stop::Broken("invalid verbatim string")),
            },
            b'*' => self.list(line, inside)?.map_or(Reply::NullArray, Reply::Array),
            b'~' => Reply::Set(self.list(line, inside)?.unwrap_or_default()),
            b'>' => Reply::Push(self.list(line, inside)?.unwrap_or_default()),
            b'%' => Reply::Map(self.pairs(line, inside)?),
            b'|' => {
                self.pairs(line, inside)?;
                self.reply(inside)?
            }
            _ => return Err(Stop::Broken("no reply begins so")),
        })
    }

    /// The kind of the next line, and what follows it there.
    fn line(&mut self) -> Result<(u8, &'a [u8]), Stop> {
        let rest = &self.input[self.at..];
        let end = memchr::memchr(b'\r', rest).ok_or(Stop::Incomplete)?;
        match rest.get(end + 1) {
            None => return Err(Stop::Incomplete),
            Some(b'\n') => self.at += end + 2,
            Some(_) => return Err(Stop::Broken("a line does not end as it should")),
        }
        let (&kind, line) = rest[..end].split_first().ok_or(Stop::Broken("an empty line"))?;
        Ok((kind, line))
    }

    /// The bytes of a bulk string whose length is in `line`.
    fn bulk(&mut self, line: &[u8]) -> Result<Option<&'a [u8]>, Stop> {
        let Some(length) = length(line)? else { return Ok(None) };
        let rest = &self.input[self.at..];
        let end = length.checked_add(2).filter(|&end| end <= rest.len()).ok_or(Stop::Incomplete)?;
        if rest[length..end] != *b"\r\n" {
            return Err(Stop::Broken("a bulk string does not end as it should"));
        }
        self.at += end;
        Ok(Some(&rest[..length]))
    }

    /// As many replies as `line` says. Each takes some bytes, so the bytes end before a false count does.
    fn list(&mut self, line: &[u8], nesting: usize) -> Result<Option<Vec<Reply<'a>>>, Stop> {
        let Some(count) = length(line)? else { return Ok(None) };
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.reply(nesting)?);
        }
        Ok(Some(items))
    }

    fn pairs(&mut self, line: &[u8], nesting: usize) -> Result<Vec<(Reply<'a>, Reply<'a>)>, Stop> {
        let mut pairs = Vec::new();
        for _ in 0..length(line)?.unwrap_or_default() {
            pairs.push((self.reply(nesting)?, self.reply(nesting)?));
        }
        Ok(pairs)
    }
}

fn parsed<T: std::str::FromStr>(line: &[u8]) -> Result<T, Stop> {
    let number = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
    number.ok_or(Stop::Broken("invalid number"))
}

/// A length or count; -1 says that there is nothing.
fn length(line: &[u8]) -> Result<Option<usize>, Stop> {
    match parsed::<i64>(line)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Stop::Broken("invalid length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    #[test]
    fn what_is_written_is_read_and_every_part_of_it_is_incomplete() {
        let pair = vec![(Reply::text("m"), Reply::Double(1.5))];
        let all = Reply::Array(vec![
            Reply::OK,
            Reply::Error("ERR a b".into()),
            Reply::Int(-7),
            Reply::text("hi\r\n"),
            Reply::text(""),
            Reply::Null,
            Reply::Array(vec![]),
            Reply::Map(pair),
            Reply::Set(vec![Reply::Bool(true), Reply::Bool(false)]),
            Reply::Double(f64::NEG_INFINITY),
            Reply::Verbatim(*b"txt", "a:b".into()),
            Reply::BigNumber("12345678901234567890".into()),
            Reply::Push(vec![Reply::Int(1)]),
        ]);
        let mut bytes = Vec::new();
        all.encode(Protocol::Resp3, &mut bytes);
        let length = bytes.len();
        for end in 0..length {
            assert_eq!(read(&bytes[..end]), Ok(None), "{end} bytes");
        }
        bytes.extend(b"+next\r\n");
        assert_eq!(read(&bytes), Ok(Some((all, length))));
    }

    #[test]
    fn forms_that_are_not_written_here_are_read_too() {
        for (bytes, reply) in [
            (&b"$-1\r\n"[..], Reply::Null),
            (b"*-1\r\n", Reply::NullArray),
            (b"!5\r\nERR a\r\n", Reply::Error("ERR a".into())),
            (b"|1\r\n+ttl\r\n:5\r\n$1\r\nx\r\n", Reply::text("x")),
            (b",nan\r\n", Reply::text("nan")),
        ] {
            match read(bytes).expect("a reply").expect("all of it") {
                (Reply::Double(x), _) => assert!(x.is_nan()),
                (read, taken) => assert_eq!((read, taken), (reply, bytes.len())),
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let deep = b"*1\r\n".repeat(200);
        for bytes in [
            &b"?\r\n"[..],
            b"\r\n",
            b"+a\rb\r\n",
            b":1x\r\n",
            b":99999999999999999999\r\n",
            b"$-2\r\n",
            b"$1\r\nab\r\n",
            b"#x\r\n",
            b"=2\r\nab\r\n",
            b"*2\r\n:1\r\n?\r\n",
            &deep,
        ] {
            assert!(read(bytes).is_err(), "{:?}", bytes.escape_ascii().to_string());
        }
        // What cannot come is waited for, and takes no memory.
        assert_eq!(read(b"$9223372036854775807\r\nab"), Ok(None));
        assert_eq!(read(b"*9223372036854775807\r\n:1\r\n"), Ok(None));
    }
}
