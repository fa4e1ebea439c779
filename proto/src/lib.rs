//! What crosses a wire or a disk.
//!
//! * [`resp`]: requests as clients send them (RESP arrays and inline commands).
//! * [`reply`]: what a client is answered, and its RESP2 and RESP3 form.
//! * [`replies`]: replies as a client reads them.
//! * [`effect`]: the typed changes of a keyspace, and their bytes.
//! * [`stream`]: ids, and what else effects on streams hold.
//! * [`entry`]: a batch of units of effects, which is one entry of the Raft log.
//! * [`wire`]: the primitive encodings the last two share.
//! * [`peer`]: messages between nodes, generated from `peer.proto`.
//!
//! INVARIANT: no bytes, however broken, make a decoder of this crate panic or
//! allocate more than a small multiple of their own length.

mod digits;
pub mod effect;
pub mod entry;
pub mod peer;
pub mod replies;
pub mod reply;
pub mod resp;
pub mod stream;
mod text;
pub mod wire;

pub use effect::{Effect, StreamChange};
pub use reply::{Protocol, Reply, Weight};
pub use stream::StreamId;
pub use text::Text;

/// Bytes that do not mean what their place asks for.
///
/// From a connection: answered with `-ERR Protocol error: …` and closed. From
/// our own disk: fatal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub Text<'static>);

impl DecodeError {
    /// An error whose text is known at compile time.
    pub const fn new(text: &'static str) -> Self {
        Self(Text::fixed(text))
    }
}
