//! Who hears a published message: all subscribers of the cluster, or with `SPUBLISH` those at replicas of its shard.

use crate::{consensus::ShardId, keyspace::tx::Publication};

/// Whose subscribers a message of `shard` is for; `None`: for all.
pub fn meant_for(message: &Publication, shard: ShardId) -> Option<ShardId> {
    message.sharded.then_some(shard)
}

/// Whether subscribers at a replica of `shard` hear a message that is for those of `only`, or for all.
pub fn is_heard_at(shard: ShardId, only: Option<ShardId>) -> bool {
    only.is_none_or(|only| only == shard)
}

/// What subscribers at a replica of `shard` hear of messages that were published on `from`.
pub fn heard_at(shard: ShardId, from: ShardId, publications: &[Publication]) -> Vec<Publication> {
    let is_heard = |message: &&Publication| is_heard_at(shard, meant_for(message, from));
    publications.iter().filter(is_heard).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sharded_message_is_heard_at_its_shard_only() {
        let message = |sharded| Publication { channel: "c".into(), message: "m".into(), sharded };
        let heard = |shard| heard_at(shard, 1, &[message(true), message(false)]).len();
        assert_eq!([heard(0), heard(1), heard(2)], [1, 2, 1]);
    }
}
