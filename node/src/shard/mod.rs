//! One replica of a shard.

/// A client's turn.
pub struct Client<'a> {
    _shard: std::marker::PhantomData<&'a ()>,
}
