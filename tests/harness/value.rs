//! What a client is told, as the simulator's clients and those of the partition tests see it: RESP2, and texts as texts.

use moonraft_proto::{Reply, replies};

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+`
    Status(String),
    /// `-`
    Error(String),
    /// `:`
    Int(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1` and `*-1`
    Nil,
    /// `*`
    Array(Vec<Value>),
}

impl From<Reply<'_>> for Value {
    /// # Panics
    /// The reply is none of RESP2.
    fn from(reply: Reply<'_>) -> Self {
        let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        match reply {
            Reply::Status(line) => Value::Status(text(&line)),
            Reply::Error(line) => Value::Error(text(&line)),
            Reply::Int(number) => Value::Int(number),
            Reply::Bulk(bytes) => Value::Bulk(bytes.into_owned()),
            Reply::Null | Reply::NullArray => Value::Nil,
            Reply::Array(items) => Value::Array(items.into_iter().map(Value::from).collect()),
            other => panic!("not a reply of RESP2: {other:?}"),
        }
    }
}

/// Takes one reply off the front of `bytes`; `None` if it is not all there.
///
/// # Panics
/// The bytes are no reply.
pub fn read_value(bytes: &mut &[u8]) -> Option<Value> {
    let (reply, taken) = replies::read(bytes).expect("a reply")?;
    *bytes = &bytes[taken..];
    Some(reply.into())
}
