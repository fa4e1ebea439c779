//! When keys go, and what time is shown.

use super::ShardHarness;
use crate::shard::{Event, ShardSettings};

/// Sends a request; what is answered at once or once all is committed.
fn ask(shard: &mut ShardHarness, client: usize, requests: &str) -> String {
    let at_once = shard.send(client, requests);
    shard.commit_all();
    at_once + &shard.read(client)
}

#[test]
fn a_key_is_there_for_the_whole_of_its_time() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    // Both ends are cut to milliseconds: the later in one it is set, the earlier it may seem over.
    for set_at_us in [0, 1, 500, 999] {
        let into_us = shard.world.unix_us.get() % 1000;
        shard.world.elapse_us(1000 - into_us + set_at_us);
        assert_eq!(
            ask(&mut shard, client, "SET lock a NX PX 400"),
            "+OK",
            "set {set_at_us} us into a millisecond"
        );
        shard.world.elapse_us(399_999);
        assert_eq!(ask(&mut shard, client, "GET lock ; SET lock b NX PX 400"), "\"a\" nil");
        // Not two milliseconds longer.
        shard.world.elapse_us(1001);
        assert_eq!(ask(&mut shard, client, "GET lock"), "nil");
    }
}

#[test]
fn a_jump_of_the_wall_clock_shortens_no_deadline_by_more_than_its_rate() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(ask(&mut shard, client, "SET lock a NX PX 2000"), "+OK");
    shard.world.unix_us.set(shard.world.unix_us.get() + 20_000_000);
    shard.pass_ms(0);
    shard.pass_ms(1989); // 2000 less five in a thousand
    assert_eq!(ask(&mut shard, client, "SET lock b NX PX 2000"), "nil");
    shard.pass_ms(3);
    assert_eq!(ask(&mut shard, client, "SET lock b NX PX 2000"), "+OK");
    // Back again: later by as much.
    shard.world.unix_us.set(shard.world.unix_us.get() - 40_000_000);
    shard.pass_ms(0);
    shard.pass_ms(2000);
    assert_eq!(ask(&mut shard, client, "SET lock c NX PX 2000"), "nil");
    shard.pass_ms(12);
    assert_eq!(ask(&mut shard, client, "SET lock c NX PX 2000"), "+OK");
}

#[test]
fn a_new_leader_lets_a_lock_live_for_the_whole_of_its_time() {
    let (mut old, mut new) =
        (ShardHarness::leading(), ShardHarness::following_with(ShardSettings::default()));
    let client = old.connect();
    old.send(client, "SET lock a NX PX 2000");
    let (_, batch) = old.proposals[0].clone();
    // The follower hears of it when it is committed: the first entry of the term, and the lock.
    new.handle(Event::Follow { leader: Some(2) });
    new.commit(1, bytes::Bytes::new());
    new.commit(1, batch);
    new.pass_ms(500);
    new.lead(2);
    let client = new.connect();
    new.pass_ms(1490);
    assert_eq!(ask(&mut new, client, "SET lock b NX PX 2000"), "nil", "after 1990 ms");
    // Its own clock may have been fast, and the old leader's time slewed: of 500 ms it counts 447.
    new.pass_ms(70);
    assert_eq!(ask(&mut new, client, "SET lock b NX PX 2000"), "+OK");
}

#[test]
fn who_reads_a_key_that_will_expire_waits_for_nothing() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    ask(&mut shard, client, "SET k text PX 60000");
    shard.pass_ms(5000);
    assert_eq!(shard.send(client, "GET k ; PTTL k"), "\"text\" :55000");
    assert!(shard.proposals.is_empty());
}

#[test]
fn who_finds_a_key_expired_that_stays_waits_until_no_later_leader_can_find_it_again() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    ask(&mut shard, client, "SET k text PX 100 ; SET other text");
    shard.world.elapse_us(101_000);
    // Nothing removes it: it is not one of the request's own keys.
    assert_eq!(shard.send(client, "KEYS *"), "");
    assert_eq!(shard.shard.keyspace().len(), 2);
    let (_, batch) = shard.proposals[0].clone();
    shard.commit_all();
    assert_eq!(shard.read(client), "[\"other\"]");
    let batch = moonraft_proto::entry::Batch::decode(&batch).expect("it was just sealed");
    assert_eq!(batch.effects().count(), 0, "it tells the time, and no more");
    // Who asks again sees what is known by then.
    assert_eq!(shard.send(client, "RANDOMKEY"), "\"other\"");
}
