//! What is taken back in steps when leadership is lost.

use bytes::Bytes;

use super::{ShardHarness, of_many};
use crate::{
    keyspace::seed,
    shard::{CommittedEntry, Event, SessionId, ShardSettings, tests::batch, tests::put},
};

const FEW: usize = 10;
const MANY: usize = 35;

/// A leader to which little is much, with much in flight, two readers, and the digest before.
fn leader() -> (ShardHarness, SessionId, SessionId, String) {
    seed::fix(7);
    let mut shard =
        ShardHarness::leading_with(ShardSettings { large_elements: FEW, ..ShardSettings::default() });
    let (client, other) = (shard.connect(), shard.connect());
    shard.send(client, "SADD {t}s a b ; SET {t}small v");
    shard.commit_all();
    shard.read(client);
    let before = shard.shard.keyspace().digest();
    shard.send(client, &of_many("SADD", "{t}s", MANY));
    shard.send(client, "SET {t}small w");
    shard.send(other, "READONLY");
    shard.read(other);
    assert_ne!(shard.shard.keyspace().digest(), before);
    (shard, client, other, before)
}

#[test]
fn others_are_heard_between_steps_and_who_looks_at_data_waits_for_the_last() {
    let (mut shard, _, other, before) = leader();
    shard.lose_leadership(2);
    assert!(shard.shard.is_amidst());
    assert_eq!(shard.send(other, "PING ; GET {t}small ; SCARD {t}s"), "+PONG");
    let applied = shard.shard.applied().0;
    let entry = |index: u64, data: Bytes| CommittedEntry { index, term: 2, data, more: false };
    shard.handle(Event::Committed(vec![
        entry(applied + 1, Bytes::new()),
        entry(applied + 2, batch(&[put(b"{t}small", b"x")])),
    ]));
    assert_eq!(shard.shard.applied().0, applied, "nothing is applied to a state that is none");
    let mut steps = 0;
    while shard.shard.is_amidst() {
        assert_ne!(shard.shard.keyspace().digest(), before);
        shard.wake();
        steps += 1;
    }
    // The members, and the string.
    assert_eq!(steps, (MANY + 1).div_ceil(FEW));
    assert_eq!(shard.shard.applied().0, applied + 2);
    assert_eq!(shard.read(other), "\"x\" :2");
}

#[test]
fn what_is_taken_back_in_steps_is_as_it_was() {
    let (mut shard, _, _, before) = leader();
    shard.lose_leadership(2);
    while shard.shard.is_amidst() {
        shard.wake();
    }
    assert_eq!(shard.shard.keyspace().digest(), before);
}

#[test]
fn who_begins_to_lead_takes_the_rest_back_at_once() {
    let (mut shard, client, other, before) = leader();
    shard.lose_leadership(2);
    assert_eq!(shard.send(other, "GET {t}small"), "");
    shard.wake();
    assert!(shard.shard.is_amidst());
    shard.handle(Event::Lead { term: 3 });
    assert!(!shard.shard.is_amidst());
    assert_eq!(shard.shard.keyspace().digest(), before);
    shard.commit(3, Bytes::new());
    assert_eq!(shard.read(other), "\"v\"");
    assert!(shard.send(client, "SCARD {t}s").ends_with(":2"));
}

#[test]
fn no_snapshot_begins_before_all_is_taken_back() {
    let (mut shard, _, _, before) = leader();
    shard.lose_leadership(2);
    shard.handle(Event::TakeSnapshot);
    assert!(!shard.shard.wants_walk());
    while shard.shard.is_amidst() {
        shard.wake();
    }
    assert!(shard.shard.wants_walk());
    shard.walk(usize::MAX);
    shard.walk(usize::MAX);
    let (index, term, chunks) = shard.snapshots.pop().expect("a snapshot");
    let state = crate::shard::State::from_snapshot(index, term, &chunks).expect("it can be read");
    assert_eq!(state.keyspace.digest(), before);
}
