//! Replies, as far as the generator must know them: how many have come, and that each is good.
//!
//! A bench that counts errors as operations measures nothing, so an error, a
//! missing key and a `WAIT` that was not heeded end the run.

use anyhow::bail;
use bytes::{Buf, BytesMut};
use moonraft_proto::{Reply, replies};

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
    let Some((reply, length)) = replies::read(bytes)? else { return Ok(None) };
    match reply {
        // A coupon is a number from 1, and `WAIT 2 0` does not return before it is 2:
        // zero and below mean that nothing was written.
        Reply::Int(number) if number <= 0 => bail!("a write was not done: {number}"),
        Reply::Status(_) | Reply::Int(_) | Reply::Bulk(_) => Ok(Some(length)),
        Reply::Null => bail!("a key that was loaded is missing"),
        other => bail!("the server answered {other:?}"),
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
