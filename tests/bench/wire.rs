//! Replies, as far as the generator must know them: where each ends, and that it is good.
//!
//! A bench that counts errors as operations measures nothing, so an error, a
//! missing key and a `WAIT` that was not heeded end the run.

use anyhow::bail;
use bytes::{Buf, BytesMut};

/// Longest line of a reply that is not a bulk string; an error text, mostly.
const LINE_BYTES_MAX: usize = 4096;

/// Takes whole replies off the front of `buffer`, at most `count`; returns how many.
pub fn take_replies(buffer: &mut BytesMut, count: usize) -> anyhow::Result<usize> {
    let mut taken = 0;
    let mut position = 0;
    while taken < count {
        let Some(length) = reply_length(&buffer[position..])? else {
            break;
        };
        position += length;
        taken += 1;
    }
    buffer.advance(position);
    Ok(taken)
}

/// The length of the reply that `bytes` begin with, if all of it is there.
fn reply_length(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(line_end) = bytes.iter().position(|&byte| byte == b'\n') else {
        if bytes.len() > LINE_BYTES_MAX {
            bail!("a reply without an end: {:?}", String::from_utf8_lossy(&bytes[..80]));
        }
        return Ok(None);
    };
    let line = String::from_utf8_lossy(&bytes[..line_end]);
    match bytes[0] {
        b'+' | b':' => {
            // A coupon is a number from 1, and `WAIT 2 0` does not return before it is 2:
            // zero and below mean that nothing was written.
            if matches!(&*line, ":0\r" | ":-1\r") {
                bail!("a write was not done: {line:?}");
            }
            Ok(Some(line_end + 1))
        }
        b'$' => {
            let length: i64 = line[1..].trim_end().parse()?;
            if length < 0 {
                bail!("a key that was loaded is missing");
            }
            let total = line_end + 1 + length as usize + 2;
            Ok((bytes.len() >= total).then_some(total))
        }
        _ => bail!("the server answered {:?}", line.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bytes: &[u8], count: usize) -> anyhow::Result<(usize, usize)> {
        let mut buffer = BytesMut::from(bytes);
        let taken = take_replies(&mut buffer, count)?;
        Ok((taken, buffer.len()))
    }

    #[test]
    fn whole_replies_are_taken_and_the_rest_is_left() {
        assert_eq!(taken(b"+OK\r\n:2\r\n$3\r\nabc\r\n$3\r\nab", 9).unwrap(), (3, 6));
        assert_eq!(taken(b"+OK\r\n+OK\r\n", 1).unwrap(), (1, 5));
        assert_eq!(taken(b"$3\r\nabc\r", 1).unwrap(), (0, 8));
    }

    #[test]
    fn whatever_is_not_a_success_ends_the_run() {
        for bad in [&b"-MOVED 1 a:1\r\n"[..], b"$-1\r\n", b":0\r\n", b"*1\r\n:1\r\n"] {
            assert!(taken(bad, 1).is_err());
        }
    }
}
