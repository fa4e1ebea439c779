//! When fields of hashes go.

use moonraft_proto::entry::{BatchWriter, Head, NEWEST_FORMAT};

use super::ShardHarness;
use crate::shard::{Event, ShardSettings};

/// Sends a request; what is answered at once or once all is committed.
fn ask(shard: &mut ShardHarness, client: usize, requests: &str) -> String {
    let at_once = shard.send(client, requests);
    shard.commit_all();
    at_once + &shard.read(client)
}

/// Members of a shard that have agreed on the newest format.
fn agreed() -> ShardHarness {
    let mut shard = ShardHarness::leading();
    shard.handle(Event::Readable { term: 1, format: NEWEST_FORMAT });
    shard.pass_ms(100);
    shard.commit_all();
    shard
}

#[test]
fn deadlines_of_fields_wait_for_the_format_that_has_them() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    (0..100).for_each(|_| shard.pass_ms(100));
    assert_eq!(ask(&mut shard, client, "HSET h a 1"), ":1");
    let refused = "-ERR this request needs format 4";
    for request in [
        "HEXPIRE h 1 FIELDS 1 a",
        "HSETEX h FIELDS 1 a 1",
        "HGETEX h FIELDS 1 a",
        "HPEXPIREAT h 1 FIELDS 1 a",
    ] {
        let told = ask(&mut shard, client, request);
        assert!(told.starts_with(refused), "{told}");
    }
    // These need none: there are no deadlines.
    assert_eq!(ask(&mut shard, client, "HTTL h FIELDS 1 a ; HPERSIST h FIELDS 1 a"), "[:-1] [:-1]");
    assert_eq!(ask(&mut shard, client, "HGETDEL h FIELDS 1 a"), "[\"1\"]");
}

#[test]
fn a_field_is_there_for_the_whole_of_its_time_and_its_hash_goes_with_the_last() {
    let mut shard = agreed();
    let client = shard.connect();
    for set_at_us in [0, 1, 500, 999] {
        let into_us = shard.world.unix_us.get() % 1000;
        shard.world.elapse_us(1000 - into_us + set_at_us);
        assert_eq!(ask(&mut shard, client, "HSETEX h FNX PX 400 FIELDS 1 a 1"), ":1");
        shard.world.elapse_us(399_999);
        assert_eq!(ask(&mut shard, client, "HGET h a ; HSETEX h FNX FIELDS 1 a 2"), "\"1\" :0");
        // Not two milliseconds longer. What is there is counted until a tick removes it.
        shard.world.elapse_us(1001);
        assert_eq!(ask(&mut shard, client, "HGET h a ; HLEN h ; EXISTS h"), "nil :1 :1");
        assert_eq!(shard.shard.keyspace().len(), 1);
        shard.pass_ms(100);
        shard.commit_all();
        assert_eq!(ask(&mut shard, client, "HLEN h ; EXISTS h"), ":0 :0");
    }
}

#[test]
fn a_new_leader_hides_what_the_old_one_found_expired() {
    let mut old = agreed();
    let client = old.connect();
    old.send(client, "HSET h a 1 b 2 ; HPEXPIRE h 1000 FIELDS 1 a");
    let (term, batch) = old.proposals.front().cloned().expect("it was proposed");
    let mut new = ShardHarness::following_with(ShardSettings::default());
    let mut before = BatchWriter::default();
    before.push(&moonraft_proto::Effect::AgreeFormat { format: NEWEST_FORMAT });
    new.commit(term, before.seal(Head::default(), NEWEST_FORMAT));
    new.commit(term, batch);
    old.commit_all();
    assert_eq!(old.read(client), ":2 [:1]");
    assert_eq!(new.shard.keyspace().digest(), old.shard.keyspace().digest());

    old.world.elapse_us(1_001_000);
    assert_eq!(old.send(client, "HGET h a"), "", "the log must hold a stamp that is as late");
    old.commit_all();
    assert_eq!(old.read(client), "nil");
}

/// After a stop of all, the wall clock's word is taken as it is only where there is no deadline of any kind.
#[test]
fn a_wall_clock_that_jumped_while_nobody_led_shortens_no_deadline_of_a_field() {
    for (request, look, there) in
        [("HSETEX h PX 2000 FIELDS 1 a 1", "HGET h a", "\"1\""), ("SET h 1 PX 2000", "GET h", "\"1\"")]
    {
        let mut old = agreed();
        let client = old.connect();
        old.send(client, request);
        let (_, batch) = old.proposals.back().expect("it is proposed").clone();
        let mut new = ShardHarness::following_with(ShardSettings::default());
        new.commit(1, bytes::Bytes::new());
        new.commit(1, batch);
        new.world.unix_us.set(new.world.unix_us.get() + 20_000_000);
        new.lead(2);
        let client = new.connect();
        new.pass_ms(1900);
        assert_eq!(ask(&mut new, client, look), there, "{request}");
    }
}
