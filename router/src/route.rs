//! The routing decision, and what a client is told when a request is not for here.

use crate::{map::Address, slot::slot_of};

/// Why a request is not executed here and now.
///
/// A redirect means that the request had no effect and never will. `Display`
/// writes the exact text of the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Redirect {
    /// Another replica leads the slot's shard.
    #[error("MOVED {slot} {address}")]
    Moved {
        /// The slot of the request's keys.
        slot: u16,
        /// Where its leader is.
        address: Address,
    },
    /// This one request belongs to the shard that is taking the slot over.
    #[error("ASK {slot} {address}")]
    Ask {
        /// The slot of the request's keys.
        slot: u16,
        /// Where the new shard's leader is.
        address: Address,
    },
    /// The keys are of different slots.
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    CrossSlot,
    /// Some of the keys have moved, some have not.
    #[error("TRYAGAIN Multiple keys request during rehashing of slot")]
    TryAgain,
    /// No shard serves the slot.
    #[error("CLUSTERDOWN Hash slot not served")]
    NotServed,
    /// The shard has lost its quorum for good, as far as this node can tell.
    #[error("CLUSTERDOWN The cluster is down")]
    Down,
}

/// The one slot of all `keys`, or `None` if there are none.
///
/// # Errors
/// The keys are of different slots.
pub fn single_slot<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<u16>, Redirect> {
    let mut slots = keys.into_iter().map(slot_of);
    let Some(first) = slots.next() else { return Ok(None) };
    if slots.all(|slot| slot == first) { Ok(Some(first)) } else { Err(Redirect::CrossSlot) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_must_share_a_slot() {
        assert_eq!(single_slot([]), Ok(None));
        assert_eq!(single_slot([&b"foo"[..]]), Ok(Some(12182)));
        assert_eq!(single_slot([&b"{t}a"[..], b"{t}b", b"t"]), Ok(Some(slot_of(b"t"))));
        assert_eq!(single_slot([&b"a"[..], b"b"]), Err(Redirect::CrossSlot));
    }

    #[test]
    fn redirects_have_the_texts_of_redis() {
        let address = Address { host: "10.0.0.1".into(), port: 7002 };
        let moved = Redirect::Moved { slot: 3999, address };
        assert_eq!(moved.to_string(), "MOVED 3999 10.0.0.1:7002");
        assert_eq!(Redirect::CrossSlot.to_string(), "CROSSSLOT Keys in request don't hash to the same slot");
    }
}
