//! What is written to a lane's connection: a preface, then frames, each a length of four bytes (big-endian) and so
//! many bytes.
//!
//! * There: a protobuf [`Envelope`] a frame. The first says who speaks.
//! * Back: why the connection is refused, in words, after which it is closed.
//! * Either way, an empty frame: alive. The first one back says that the speaker is believed.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use moonraft_proto::{entry::NEWEST_FORMAT, peer::Envelope};
use prost::Message as _;
use tokio_util::codec::Decoder;

/// What a lane's connection begins with, its version included. A call of gRPC begins with `PRI`.
pub const PREFACE: [u8; 4] = *b"MRL1";
/// A frame that says nothing but that its sender lives.
pub const ALIVE: Bytes = Bytes::from_static(&[0; 4]);
/// Bytes of the largest envelope that is believed: above the largest entry.
const ENVELOPE_BYTES_MAX: usize = 1 << 30;
/// The same of one whose sender has not said who it is, and of what is answered.
const WORDS_BYTES_MAX: usize = 4 << 10;
/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;

/// Room that is made for a frame beyond what has come of it.
const AHEAD_BYTES: usize = 64 << 10;

/// Reads frames. Room for one grows as its bytes come: its length is but a word.
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    bytes_max: usize,
}

/// The frames of a peer that is known.
pub const fn envelopes() -> Frames {
    Frames { bytes_max: ENVELOPE_BYTES_MAX }
}

/// Those of one that is not, and of what is answered.
pub const fn words() -> Frames {
    Frames { bytes_max: WORDS_BYTES_MAX }
}

impl Decoder for Frames {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, input: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        let Some(length) = input.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.bytes_max {
            let (most, text) = (self.bytes_max, "a frame is too large");
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{text}: {length} bytes of {most}"),
            ));
        }
        let missing = (LENGTH_BYTES + length).saturating_sub(input.len());
        if missing > 0 {
            input.reserve(missing.min(input.len() + AHEAD_BYTES));
            return Ok(None);
        }
        input.advance(LENGTH_BYTES);
        Ok(Some(input.split_to(length)))
    }
}

/// An envelope as a frame.
pub fn envelope(envelope: &Envelope) -> Bytes {
    let length = envelope.encoded_len();
    let mut frame = BytesMut::with_capacity(LENGTH_BYTES + length);
    frame.put_u32(u32::try_from(length).expect("entries are far smaller"));
    envelope.encode(&mut frame).expect("there is room for its length");
    frame.freeze()
}

/// What a lane's connection begins with: the preface, who speaks, and what it reads.
pub fn hello(cluster: &str, node: u64) -> Bytes {
    let reads = Some(NEWEST_FORMAT.into());
    let who = Envelope { cluster: cluster.to_owned(), node, reads, ..Envelope::default() };
    [&PREFACE, &*envelope(&who)].concat().into()
}

/// Why a connection is refused, as a frame.
pub fn refusal(text: &str) -> Bytes {
    let text = &text.as_bytes()[..text.len().min(WORDS_BYTES_MAX)];
    let mut frame = BytesMut::with_capacity(LENGTH_BYTES + text.len());
    frame.put_u32(text.len() as u32);
    frame.put_slice(text);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_a_frame_grows_as_it_comes() {
        let (mut frames, mut input) = (envelopes(), BytesMut::new());
        let length = 10 << 20;
        input.put_u32(length as u32);
        let mut most = 0;
        while input.len() < LENGTH_BYTES + length {
            assert_eq!(frames.decode(&mut input).unwrap(), None);
            assert!(input.capacity() <= 4 * input.len() + 2 * AHEAD_BYTES, "{} bytes", input.capacity());
            most = most.max(input.capacity());
            let room = (input.capacity() - input.len()).min(LENGTH_BYTES + length - input.len());
            assert!(room > 0, "there is room for more");
            input.put_bytes(7, room);
        }
        assert!(most >= length);
        input.put_slice(&ALIVE);
        assert_eq!(frames.decode(&mut input).unwrap().unwrap(), vec![7; length]);
        assert_eq!(frames.decode(&mut input).unwrap().unwrap(), b""[..]);
        assert_eq!(frames.decode(&mut input).unwrap(), None);
        input.put_u32(WORDS_BYTES_MAX as u32 + 1);
        assert!(words().decode(&mut input).is_err() && envelopes().decode(&mut input).is_ok());
    }
}
