//! Who hears a published message: all subscribers of the cluster, with `SPUBLISH` those at replicas of its shard, and of what
//! happens to a key those at the replica where it does.

use crate::{
    consensus::ShardId,
    keyspace::tx::{Audience, Publication},
};

/// The messages that other nodes hear.
pub fn for_others(publications: &[Publication]) -> impl Iterator<Item = &Publication> {
    publications.iter().filter(|message| message.audience != Audience::Replica)
}

/// Whose subscribers a message of `shard` is for; `None`: for all.
pub fn meant_for(message: &Publication, shard: ShardId) -> Option<ShardId> {
    (message.audience != Audience::Cluster).then_some(shard)
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
    fn a_message_is_heard_by_those_for_whom_it_is() {
        let message = |audience| Publication { channel: "c".into(), message: "m".into(), audience };
        let all = [Audience::Cluster, Audience::Shard, Audience::Replica].map(message);
        let heard = |shard| heard_at(shard, 1, &all).len();
        assert_eq!([heard(0), heard(1), heard(2)], [1, 3, 1]);
        let told: Vec<Audience> = for_others(&all).map(|message| message.audience).collect();
        assert_eq!(told, [Audience::Cluster, Audience::Shard]);
    }
}
