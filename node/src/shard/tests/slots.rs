//! Which slots a shard owns: what its log says, once it is committed.

use bytes::Bytes;
use moonraft_proto::{Effect, entry::Batch};

use super::{LAST_OWN_SLOT, ShardHarness, batch};
use crate::shard::{Event, ShardSettings};

/// What the shard is born with.
const BORN_WITH: Effect<'static> = Effect::AssignSlots { first: 0, last: LAST_OWN_SLOT };
/// The slot of the key `k`, which the shard owns, and of `x`, which another does.
const SLOT_K: u16 = 7629;
const SLOT_X: u16 = 16_287;

/// A replica of a shard whose log is empty.
fn unborn() -> ShardHarness {
    let born_with = vec![(0, LAST_OWN_SLOT)];
    ShardHarness::following_with(ShardSettings { born_with, ..ShardSettings::default() })
}

/// The leader proposes an effect that no client asked for.
fn propose(shard: &mut ShardHarness, effect: Effect<'_>) {
    shard.shard.begin_unit();
    shard.shard.tx().emit(effect);
    let unit = shard.shard.store_mut().end_unit();
    shard.shard.settle_unit(unit);
    shard.end_turn();
}

/// The first effect of the newest proposal.
fn proposed(shard: &ShardHarness) -> Effect<'_> {
    let (_, data) = shard.proposals.back().expect("something was proposed");
    Batch::decode(data).unwrap().effects().next().unwrap().unwrap()
}

fn digest(shard: &ShardHarness) -> String {
    let keyspace = shard.shard.keyspace();
    keyspace.digest() + &keyspace.shared_digest()
}

#[test]
fn the_first_entry_of_a_shard_says_what_it_owns_and_nothing_is_served_before() {
    let mut shard = unborn();
    let client = shard.connect();
    shard.lead(1);
    assert_eq!(proposed(&shard), BORN_WITH);
    assert_eq!(shard.send(client, "SET k v"), "", "it may not own the slot");
    assert_eq!(shard.proposals.len(), 1);
    shard.commit_all();
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
    assert_eq!(shard.send(client, "GET x"), "-MOVED 16287 127.0.0.1:7102");
    // No later leader does it again.
    shard.lose_leadership(2);
    shard.lead(3);
    assert!(shard.proposals.is_empty());
}

#[test]
fn a_birth_that_was_lost_is_the_next_leaders() {
    let mut shard = unborn();
    let client = shard.connect();
    shard.lead(1);
    shard.lose_leadership(2);
    shard.commit(2, Bytes::new());
    assert_eq!(shard.send(client, "GET k"), "-MOVED 7629 127.0.0.1:7101", "who leads will know");
    shard.lead(3);
    assert_eq!(proposed(&shard), BORN_WITH);
    shard.commit_all();
    assert_eq!(shard.send(client, "GET k"), "nil");
}

/// A log that a build before this one began says nothing of slots: its replicas had them from elsewhere.
#[test]
fn a_log_without_a_birth_and_one_with_it_give_every_build_the_same_slots() {
    let put = Effect::PutString { key: b"k", value: b"v", expires_at: None };
    for log in [vec![batch(&[put])], vec![batch(&[BORN_WITH]), batch(&[put])]] {
        // The one of the build before was given its slots before it read its log.
        let mut replicas = [unborn(), ShardHarness::following_with(ShardSettings::default())];
        for data in &log {
            replicas.iter_mut().for_each(|replica| replica.commit(1, data.clone()));
            assert_eq!(digest(&replicas[0]), digest(&replicas[1]));
        }
        let [mut shard, _] = replicas;
        assert_eq!(shard.shard.keyspace().owned().ranges(), [(0, LAST_OWN_SLOT)]);
        shard.lead(2);
        assert!(shard.proposals.is_empty(), "it is born");
        let client = shard.connect();
        assert_eq!(shard.send(client, "GET k"), "\"v\"");
    }
}

#[test]
fn a_snapshot_of_before_the_birth_leaves_it_to_the_log() {
    let mut shard = unborn();
    shard.handle(Event::InstallSnapshot { index: 5, term: 1, chunks: vec![] });
    shard.lead(2);
    assert_eq!(proposed(&shard), BORN_WITH);
}

#[test]
fn a_slot_that_changes_hands_is_neither_served_nor_sent_elsewhere_until_that_is_committed() {
    for request in ["GET k", "SET k v", "EVAL return(1) 1 k", "SSUBSCRIBE k"] {
        let mut shard = ShardHarness::leading();
        let (client, other) = (shard.connect(), shard.connect());
        propose(&mut shard, Effect::ReleaseSlots { first: SLOT_K, last: SLOT_K });
        assert_eq!(shard.send(client, request), "", "{request}");
        assert_eq!(shard.send(other, "GET a"), "nil", "the other slots are served");
        assert_eq!(shard.proposals.len(), 1);
        shard.world.map.borrow_mut().shards.get_mut(&0).unwrap().slots =
            vec![(0, SLOT_K - 1), (SLOT_K + 1, LAST_OWN_SLOT)];
        shard.world.map.borrow_mut().shards.get_mut(&1).unwrap().slots.push((SLOT_K, SLOT_K));
        shard.commit_all();
        assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7102", "{request}");
    }
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    propose(&mut shard, Effect::AssignSlots { first: SLOT_X, last: SLOT_X });
    assert_eq!(shard.send(client, "GET x"), "");
    shard.commit_all();
    assert_eq!(shard.read(client), "nil");
}

#[test]
fn a_slot_that_was_not_given_away_after_all_is_its_shards() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    propose(&mut shard, Effect::ReleaseSlots { first: SLOT_K, last: SLOT_K });
    assert_eq!(shard.send(client, "SET k v"), "");
    shard.lose_leadership(2);
    assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7101");
    shard.commit(2, Bytes::new());
    shard.lead(3);
    assert_eq!(shard.send(client, "GET k"), "nil");
}
