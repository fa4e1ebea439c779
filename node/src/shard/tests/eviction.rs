//! Keys that go because memory is short.

use moonraft_proto::{
    Effect,
    entry::{Batch, NEWEST_FORMAT},
};

use super::{ShardHarness, batch, of_many, put};
use crate::{
    keyspace::tx::{Eviction, Policy},
    shard::{DiskRoom, Event, SessionId, ShardSettings},
};

const LIMIT: u64 = 1 << 30;
const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.";

/// A leader with this policy, with a client, and room enough.
fn leader(policy: Policy) -> (ShardHarness, SessionId) {
    let eviction = Eviction { policy, ..Eviction::default() };
    let settings = ShardSettings { memory_bytes_max: LIMIT, eviction, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    shard.world.used_bytes.set(0);
    let client = shard.connect();
    (shard, client)
}

/// Executes requests whose batches are committed.
fn done(shard: &mut ShardHarness, client: SessionId, requests: &str) -> String {
    let before = shard.send(client, requests);
    shard.commit_all();
    [before, shard.read(client)].join(" ").trim().to_owned()
}

/// So much more is taken than may be.
fn exceed(shard: &ShardHarness, bytes: u64) {
    let passing = shard.shard.passing_bytes() as u64;
    shard.world.used_bytes.set(LIMIT + bytes + passing);
}

fn keys(shard: &ShardHarness) -> Vec<String> {
    let entries = shard.shard.keyspace().entries();
    let mut keys: Vec<String> = entries.map(|entry| String::from_utf8_lossy(&entry.key).into()).collect();
    keys.sort_unstable();
    keys
}

/// What the newest proposed batch does, in short.
fn newest_effects(shard: &ShardHarness) -> Vec<String> {
    let batch = Batch::decode(&shard.proposals.back().expect("one is proposed").1).unwrap();
    let show = |effect: Effect<'_>| {
        let key = String::from_utf8_lossy(effect.key().unwrap_or_default()).into_owned();
        match effect {
            Effect::Remove { .. } => format!("remove {key}"),
            Effect::PutString { .. } => format!("put {key}"),
            _ => format!("other {key}"),
        }
    };
    batch.effects().map(|effect| show(effect.unwrap())).collect()
}

#[test]
fn a_write_that_needs_room_has_keys_evicted_in_its_batch_and_nobody_sees_it_before_that_is_committed() {
    let (mut shard, client) = leader(Policy::AllKeysLru);
    done(&mut shard, client, "SET old 1");
    shard.world.elapse_us(5_000_000);
    done(&mut shard, client, "SET fresh 1 ; GET fresh");
    exceed(&shard, 1);
    assert_eq!(shard.send(client, "SET new 1"), "");
    assert_eq!(newest_effects(&shard), ["remove old", "put new"]);
    let other = shard.connect();
    assert_eq!(shard.send(other, "GET old"), "", "whoever finds it gone waits for the batch");
    assert_eq!(shard.send(other, "GET fresh"), "", "replies keep their order");
    shard.commit_all();
    assert_eq!(shard.read(other), "nil \"1\"");
    assert_eq!(shard.read(client), "+OK");
    assert!(shard.send(client, "INFO stats").contains("evicted_keys:1"));
}

#[test]
fn what_only_reads_or_removes_evicts_nothing_and_is_served() {
    let (mut shard, client) = leader(Policy::AllKeysLru);
    done(&mut shard, client, "SET a 1 ; SET b 1");
    exceed(&shard, 1);
    assert_eq!(shard.send(client, "GET a ; EXISTS b"), "\"1\" :1");
    assert_eq!(done(&mut shard, client, "DEL c"), ":0");
    assert_eq!(keys(&shard), ["a", "b"]);
}

#[test]
fn what_is_evicted_comes_back_when_leadership_is_lost() {
    let (mut shard, client) = leader(Policy::AllKeysRandom);
    done(&mut shard, client, "SET a 1 ; SET b 1 ; SADD s 1 2 3");
    let before = shard.shard.keyspace().digest();
    exceed(&shard, 100);
    shard.send(client, "SET c 1");
    assert!(keys(&shard).len() < 4 && keys(&shard).contains(&"c".to_owned()));
    shard.lose_leadership(2);
    assert_eq!(shard.shard.keyspace().digest(), before);
    assert_eq!(shard.shard.speculation.evicted_bytes(), 0);
}

#[test]
fn a_key_that_is_watched_and_evicted_has_changed() {
    let (mut shard, client) = leader(Policy::VolatileTtl);
    done(&mut shard, client, "SET w 1 EX 100 ; WATCH w ; MULTI ; SET x{w} 1");
    let other = shard.connect();
    exceed(&shard, 1);
    done(&mut shard, other, "SET n 1");
    assert_eq!(keys(&shard), ["n"]);
    shard.world.used_bytes.set(0);
    assert_eq!(done(&mut shard, client, "EXEC"), "nil");
}

#[test]
fn only_keys_with_a_deadline_go_where_the_policy_says_so_the_soonest_first_where_it_says_that() {
    for policy in [Policy::VolatileLru, Policy::VolatileLfu, Policy::VolatileRandom, Policy::VolatileTtl] {
        let (mut shard, client) = leader(policy);
        done(&mut shard, client, &of_many("SADD", "s", 100));
        done(&mut shard, client, "SET a 1 ; SET late 1 EX 1000 ; SET soon 1 EX 10 ; SET b 1");
        exceed(&shard, 1);
        assert_eq!(done(&mut shard, client, "SET c 1"), "+OK", "{policy:?}");
        let left = keys(&shard);
        assert_eq!(left.len(), 5, "{policy:?}: {left:?}");
        assert!(policy != Policy::VolatileTtl || !left.contains(&"soon".to_owned()), "{left:?}");
        exceed(&shard, 1 << 20);
        assert_eq!(shard.send(client, "SET d 1"), OOM, "{policy:?}: there is too little left");
        assert_eq!(keys(&shard), ["a", "b", "c", "s"], "{policy:?}: what there was went before");
        exceed(&shard, 1);
        assert_eq!(shard.send(client, "SET d 1"), OOM, "{policy:?}: there is none left");
    }
}

#[test]
fn without_a_policy_nothing_goes_and_writes_are_refused() {
    let (mut shard, client) = leader(Policy::NoEviction);
    done(&mut shard, client, "SET a 1 EX 100");
    exceed(&shard, 1);
    assert_eq!(shard.send(client, "SET b 1"), OOM);
    assert_eq!(keys(&shard), ["a"]);
}

#[test]
fn scripts_and_functions_never_go() {
    let (mut shard, client) = leader(Policy::AllKeysRandom);
    shard.handle(Event::Readable { term: 1, format: NEWEST_FORMAT });
    shard.pass_ms(100);
    shard.commit_all();
    let library = b"#!lua name=l\nredis.register_function{function_name='f', callback=function() return 1 end, flags={'no-writes'}}";
    shard.send_words(client, &[b"FUNCTION", b"LOAD", library]);
    done(&mut shard, client, "SET a 1");
    done(&mut shard, client, "SCRIPT LOAD return");
    exceed(&shard, 1 << 20);
    assert_eq!(shard.send(client, "SET b 1"), OOM);
    shard.commit_all();
    assert!(keys(&shard).is_empty());
    assert_eq!(shard.shard.keyspace().scripts().iter().count(), 1);
    assert_eq!(shard.shard.keyspace().libraries().len(), 1);
}

#[test]
fn a_block_and_a_script_have_room_made_or_are_refused_before_they_write() {
    let (mut shard, client) = leader(Policy::AllKeysRandom);
    let script = "return redis.call('SET',KEYS[1],'1')";
    let eval = |shard: &mut ShardHarness| {
        let reply = shard.send_words(client, &[b"EVAL", script.as_bytes(), b"1", b"k"]);
        shard.commit_all();
        [reply, shard.read(client)].concat()
    };
    done(&mut shard, client, "SET a 1");
    exceed(&shard, 1);
    assert_eq!(eval(&mut shard), "+OK");
    assert_eq!(keys(&shard), ["k"]);
    exceed(&shard, 1);
    let block = "MULTI ; SET {k}a 1 ; SET {k}b 1 ; EXEC";
    assert_eq!(done(&mut shard, client, block), "+OK +QUEUED +QUEUED [+OK, +OK]");
    assert_eq!(keys(&shard), ["{k}a", "{k}b"]);
    exceed(&shard, 1 << 20);
    assert!(eval(&mut shard).starts_with("-OOM command not allowed when used memory > 'maxmemory'."));
    assert!(keys(&shard).is_empty());
    let refused = done(&mut shard, client, block);
    assert!(refused.ends_with("-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'."), "{refused}");
}

/// However much too much is taken: others are heard between the steps.
#[test]
fn a_turn_evicts_so_many_keys_and_the_next_goes_on() {
    let (mut shard, client) = leader(Policy::AllKeysRandom);
    const COUNT: usize = 3000;
    (0..COUNT).for_each(|number| drop(shard.send(client, &format!("SET {{k}}{number} v"))));
    shard.commit_all();
    shard.read(client);
    // Half of what there is.
    exceed(&shard, COUNT as u64 / 2 * 90);
    shard.receive_only(client, "SET a 1");
    let after_one = shard.shard.keyspace().len();
    assert_eq!(after_one, COUNT - 500 + 1, "and it is executed");
    shard.receive_only(client, "SET b 1");
    assert_eq!(shard.shard.keyspace().len(), after_one - 8 + 1, "another has its own room made");
    shard.end_turn();
    // Nobody sends anything: eviction goes on.
    let mut steps = 0;
    while shard.shard.passing_bytes() < COUNT / 2 * 90 {
        let before = shard.shard.keyspace().len();
        shard.wake();
        let gone = before - shard.shard.keyspace().len();
        assert!((1..=500).contains(&gone), "{gone}");
        steps += 1;
    }
    assert!(steps >= 1);
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK +OK");
    let left = shard.shard.keyspace().len();
    shard.world.used_bytes.set(0);
    shard.pass_ms(100);
    assert_eq!(shard.shard.keyspace().len(), left, "there is room");
}

#[test]
fn memory_that_others_take_is_made_room_for_without_a_request() {
    let (mut shard, client) = leader(Policy::AllKeysRandom);
    done(&mut shard, client, "SET a 1 ; SET b 1");
    exceed(&shard, 1);
    shard.pass_ms(100);
    assert_eq!(keys(&shard).len(), 1);
    shard.pass_ms(100);
    assert_eq!(keys(&shard).len(), 1, "what was evicted counts as free before it is");
    shard.handle(Event::DiskRoom(DiskRoom::Last));
    exceed(&shard, 1);
    shard.pass_ms(100);
    assert_eq!(keys(&shard).len(), 1, "a disk that is all but full has no room for a removal");
}

#[test]
fn a_follower_evicts_nothing() {
    let eviction = Eviction { policy: Policy::AllKeysRandom, ..Eviction::default() };
    let settings = ShardSettings { memory_bytes_max: 1, eviction, ..ShardSettings::default() };
    let mut shard = ShardHarness::following_with(settings);
    shard.lose_leadership(2);
    shard.commit(1, batch(&[put(b"a", b"1")]));
    shard.pass_ms(100);
    assert_eq!(keys(&shard), ["a"]);
}

#[test]
fn a_key_that_is_lent_stays() {
    let (mut shard, client) = leader(Policy::AllKeysRandom);
    shard.shard.reconfigure(|settings| settings.large_elements = 10);
    done(&mut shard, client, &of_many("SADD", "{k}s", 30));
    shard.world.holds_errands.set(true);
    let other = shard.connect();
    shard.send(other, "SORT {k}s LIMIT 0 1");
    exceed(&shard, 1 << 20);
    shard.send(client, "SET {k}a 1");
    assert_eq!(keys(&shard), ["{k}a", "{k}s"], "a write that may be served later is not refused");
    shard.world.holds_errands.set(false);
    shard.end_turn();
    assert_eq!(shard.read(other), "[\"0\"]");
    shard.pass_ms(100);
    assert!(keys(&shard).is_empty());
}

/// What is large and evicted is freed elsewhere, and is not evicted for a second time meanwhile.
#[test]
fn a_large_value_that_is_evicted_is_freed_elsewhere() {
    let (mut shard, client) = leader(Policy::AllKeysRandom);
    done(&mut shard, client, &of_many("SADD", "s", 6_000));
    exceed(&shard, 1);
    shard.pass_ms(100);
    assert!(keys(&shard).is_empty());
    assert_eq!(shard.world.freed.get(), 0);
    shard.commit_all();
    assert_eq!(shard.world.freed.get(), 1);
    assert_eq!(shard.shard.passing_bytes(), 0);
}

#[test]
fn what_a_snapshot_has_yet_to_write_is_in_it() {
    let (mut shard, client) = leader(Policy::AllKeysRandom);
    (0..50).for_each(|number| drop(shard.send(client, &format!("SET {{k}}{number} v"))));
    shard.commit_all();
    shard.read(client);
    let digest = shard.shard.keyspace().digest();
    shard.handle(Event::TakeSnapshot);
    assert!(shard.shard.keyspace().is_walking());
    exceed(&shard, 1 << 20);
    shard.pass_ms(100);
    assert!(keys(&shard).is_empty());
    while shard.shard.wants_walk() {
        shard.walk(1000);
    }
    shard.commit_all();
    let (index, term, chunks) = shard.snapshots.pop().expect("one was taken");
    let state = crate::shard::State::from_snapshot(index, term, &chunks).unwrap();
    assert_eq!(state.keyspace.digest(), digest);
}

// ---- uses ----------------------------------------------------------------------

#[test]
fn idle_times_are_told_and_what_only_looks_uses_nothing() {
    let (mut shard, client) = leader(Policy::AllKeysLru);
    done(&mut shard, client, "SET k v");
    shard.world.elapse_us(7_500_000);
    let idle = "OBJECT IDLETIME k";
    let looks = "OBJECT ENCODING k ; TYPE k ; TTL k ; PTTL k ; EXISTS k ; MEMORY USAGE k ; EXPIRETIME k";
    shard.send(client, looks);
    assert_eq!(shard.send(client, &format!("{idle} ; OBJECT IDLETIME missing")), ":7 nil");
    assert!(shard.send(client, "OBJECT FREQ k").starts_with("-ERR An LFU maxmemory policy is not selected"));
    assert_eq!(shard.send(client, &format!("CLIENT NO-TOUCH ON ; GET k ; {idle}")), "+OK \"v\" :7");
    assert_eq!(shard.send(client, &format!("TOUCH k ; {idle}")), ":1 :0");
    shard.world.elapse_us(3_500_000);
    assert_eq!(
        shard.send(client, &format!("CLIENT NO-TOUCH OFF ; {idle} ; GET k ; {idle}")),
        "+OK :3 \"v\" :0"
    );
    shard.world.elapse_us(3_500_000);
    assert_eq!(done(&mut shard, client, &format!("SET k w ; {idle}")), "+OK :0");
}

#[test]
fn uses_are_counted_where_the_policy_goes_by_them() {
    let (mut shard, client) = leader(Policy::VolatileLfu);
    done(&mut shard, client, "SET k v");
    let freq = "OBJECT FREQ k";
    assert_eq!(
        shard.send(client, &format!("{freq} ; GET k ; {freq} ; EXISTS k ; {freq}")),
        ":5 \"v\" :6 :1 :6"
    );
    assert!(
        shard
            .send(client, "OBJECT IDLETIME k")
            .starts_with("-ERR An LFU maxmemory policy is selected, idle time not tracked.")
    );
    shard.world.elapse_us(120_000_000);
    assert_eq!(shard.send(client, freq), ":4", "two minutes take two off");
}

#[test]
fn restore_sets_what_is_known_of_uses() {
    let (mut shard, client) = leader(Policy::AllKeysLru);
    done(&mut shard, client, "SET k v");
    let dump = crate::command::rdb::dump(&shard.shard.keyspace().get(b"k").unwrap().value);
    shard.send_words(client, &[b"RESTORE", b"i{k}", b"0", &dump, b"IDLETIME", b"1000"]);
    shard.send_words(client, &[b"RESTORE", b"f{k}", b"0", &dump, b"FREQ", b"77"]);
    shard.commit_all();
    shard.read(client);
    assert_eq!(shard.send(client, "OBJECT IDLETIME i{k} ; OBJECT IDLETIME f{k}"), ":1000 :0");
    shard.shard.reconfigure(|settings| settings.eviction.policy = Policy::AllKeysLfu);
    shard.send_words(client, &[b"RESTORE", b"f{k}", b"0", &dump, b"FREQ", b"77", b"REPLACE"]);
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
    assert_eq!(shard.send(client, "OBJECT FREQ f{k} ; OBJECT FREQ i{k}"), ":77 :5");
}
