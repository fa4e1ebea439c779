//! What a request waits for that has found nothing: `BLPOP` and its like, `XREAD BLOCK`.

use std::ops::Range;

use bytes::Bytes;

use super::{Object, Value};

/// What a key must come to hold for a request to be worth trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Awaited {
    /// A list.
    List,
    /// A sorted set.
    SortedSet,
    /// A stream.
    Stream,
    /// Something for a group of a stream; that it is gone is worth a try, too.
    Group,
}

impl Awaited {
    /// Whether a request that is tried again looks only at the key to which something has come, and not first at those
    /// that it names before it.
    pub const fn is_of_one_key(self) -> bool {
        match self {
            Self::List | Self::SortedSet => true,
            // Of each stream is answered what has come to it.
            Self::Stream | Self::Group => false,
        }
    }

    /// All there are.
    pub const ALL: [Self; 4] = [Self::List, Self::SortedSet, Self::Stream, Self::Group];

    /// Whether a key that holds this is worth a try.
    pub const fn is_met(self, object: Option<&Object>) -> bool {
        match (self, object) {
            (Self::Group, _) => true,
            (_, None) => false,
            (Self::List, Some(object)) => matches!(object.value, Value::List(_)),
            (Self::SortedSet, Some(object)) => matches!(object.value, Value::Sorted(_)),
            (Self::Stream, Some(object)) => matches!(object.value, Value::Stream(_)),
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What it waits for.
    pub awaited: Awaited,
    /// The words of the request that are the keys it waits at: one of them is enough.
    pub keys: Range<usize>,
    /// For how long, in milliseconds; 0: for ever.
    pub timeout_ms: u64,
    /// Words that are to be others when it is tried again, with their places: what was meant by them when it came.
    pub words: Vec<(usize, Bytes)>,
}
