//! What is written to a lane's connection: a preface, then frames, each a length of four bytes (big-endian) and so
//! many bytes.
//!
//! * There: a protobuf [`Envelope`] a frame. The first says who speaks.
//! * Back: why the connection is refused, in words, after which it is closed.
//! * Either way, an empty frame: alive. The first one back says that the speaker is believed.

use bytes::{BufMut, Bytes, BytesMut};
use moonraft_proto::{entry::NEWEST_FORMAT, peer::Envelope};
use prost::Message as _;
use tokio_util::codec::LengthDelimitedCodec;

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

/// The codec of a peer that is known.
pub fn envelopes() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(ENVELOPE_BYTES_MAX).new_codec()
}

/// The codec of one that is not, and of what is answered.
pub fn words() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(WORDS_BYTES_MAX).new_codec()
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
