//! Requests of very many keys, which are lent and come back some at a time.

use bytes::Bytes;
use moonraft_proto::{Effect, entry::NEWEST_FORMAT};

use super::{ShardHarness, batch, errands::leader_with, put};
use crate::shard::{CommittedEntry, Event, SessionId, ShardSettings};

/// Keys of such a request.
const MANY: usize = 400;
/// Keys that are lent in one go.
const AT_ONCE: usize = 3;
/// Steps that it takes to lend them.
const STEPS: usize = MANY.div_ceil(8 * AT_ONCE);

/// A leader to which little is much, whose errands wait until they are let come.
fn leader() -> (ShardHarness, SessionId, SessionId) {
    leader_with(ShardSettings { lent_at_once_max: AT_ONCE, ..ShardSettings::default() })
}

/// A request with so many keys, each followed by this.
fn of_keys(name: &str, count: usize, behind: &str) -> String {
    (0..count).fold(name.to_owned(), |request, number| format!("{request} {{t}}k{number}{behind}"))
}

/// What is gathered goes on by some steps.
fn step(shard: &mut ShardHarness, steps: usize) {
    for _ in 0..steps {
        shard.wake();
    }
}

fn step_all(shard: &mut ShardHarness) {
    while shard.shard.next_wake().is_some() {
        shard.wake();
    }
}

/// All that is under way is over and committed.
fn finish(shard: &mut ShardHarness) {
    shard.world.holds_errands.set(false);
    shard.end_turn();
    step_all(shard);
    shard.commit_all();
    shard.world.holds_errands.set(true);
}

#[test]
fn they_answer_as_they_do_at_once() {
    let requests = [
        of_keys("MSET", MANY, " v"),
        "SET {t}k3 w PX 100000".to_owned(),
        of_keys("MGET {t}small {t}none", MANY, ""),
        of_keys("EXISTS", MANY, " {t}none"),
        of_keys("TOUCH", MANY, ""),
        of_keys("MSETNX", MANY, " x"),
        of_keys("DEL", MANY / 2, ""),
        of_keys("DEL", MANY / 2, ""),
        "SADD {t}k0 a b c".to_owned(),
        of_keys("SUNIONSTORE {t}k0", MANY / 2, ""),
        of_keys("SUNIONSTORE {t}k0", MANY, ""),
        of_keys("MGET", MANY, " {t}k399"),
        of_keys("PFCOUNT", MANY, ""),
        of_keys("UNLINK {t}k399", MANY, " {t}s"),
        "DBSIZE".to_owned(),
    ];
    let answers = |large_elements| {
        let (mut shard, client, _) = leader();
        shard.shard.reconfigure(|settings| settings.large_elements = large_elements);
        let mut told = Vec::new();
        for request in &requests {
            let at_once = shard.send(client, request);
            finish(&mut shard);
            told.push(at_once + &shard.read(client));
        }
        assert!(!shard.shard.store().has_lent());
        (told, shard.shard.keyspace().digest(), shard.shard.keyspace().deadlines().is_empty())
    };
    assert_eq!(answers(10), answers(usize::MAX));
}

#[test]
fn others_are_served_between_the_steps_and_who_needs_a_key_waits_for_it() {
    let (mut shard, client, other) = leader();
    let third = shard.connect();
    assert_eq!(shard.send(client, &of_keys("MSET", MANY, " v")), "");
    step(&mut shard, 2);
    assert_eq!(shard.send(other, "GET {t}small ; GET {t}k399 ; GET {t}k5"), "\"v\" nil", "that one is lent");
    step(&mut shard, STEPS - 2);
    assert_eq!(shard.send(third, "GET {t}k399 ; DBSIZE"), "", "by now all are");
    assert!(shard.shard.next_wake().is_none(), "it is on its errand");
    shard.world.holds_errands.set(false);
    shard.end_turn();
    step(&mut shard, 2);
    assert!(shard.proposals.is_empty(), "not all are back");
    let fourth = shard.connect();
    assert_eq!(shard.send(fourth, "GET {t}small ; DBSIZE"), "\"v\"", "what is about all keys waits");
    while shard.proposals.is_empty() {
        shard.wake();
    }
    assert_eq!(shard.proposals.len(), 1, "one batch");
    assert_eq!(shard.read(client) + &shard.read(other) + &shard.read(third) + &shard.read(fourth), "");
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
    assert_eq!(shard.read(other), "\"v\"");
    assert_eq!(shard.read(third), "\"v\" :405");
    assert_eq!(shard.read(fourth), ":405");
}

#[test]
fn what_was_read_of_many_keys_waits_for_the_batch_that_changed_one() {
    let (mut shard, client, other) = leader();
    shard.send(other, "SET {t}k7 new");
    assert_eq!(shard.proposals.len(), 1);
    shard.send(client, &of_keys("MGET", MANY, ""));
    step(&mut shard, STEPS);
    shard.world.holds_errands.set(false);
    shard.end_turn();
    step_all(&mut shard);
    assert_eq!(shard.read(client), "", "the batch is not committed");
    shard.commit_all();
    assert!(shard.read(client).contains("\"new\""));
}

#[test]
fn two_of_them_and_an_errand_wait_for_each_other_in_turn() {
    let (mut shard, client, other) = leader();
    let third = shard.connect();
    shard.send(client, "SPOP {t}s 20");
    shard.send(other, &of_keys("EXISTS {t}s", MANY, ""));
    shard.send(third, &of_keys("DEL {t}s", MANY, ""));
    step(&mut shard, 5);
    assert!(!shard.shard.store().is_lent(b"{t}k0"), "the first of its keys is lent to another");
    finish(&mut shard);
    finish(&mut shard);
    assert!(shard.read(client).starts_with('['));
    assert_eq!((shard.read(other), shard.read(third)), (":1".into(), ":1".into()));
}

#[test]
fn a_script_a_block_and_a_pause_wait_while_some_keys_are_back() {
    let (mut shard, client, other) = leader();
    shard.send(client, &of_keys("MSET", MANY, " v"));
    step(&mut shard, STEPS);
    shard.world.holds_errands.set(false);
    shard.end_turn();
    step(&mut shard, 1);
    let (third, fourth) = (shard.connect(), shard.connect());
    shard.send(other, "EVAL return(redis.call('GET','{t}k1')) 0");
    shard.send(third, "MULTI ; GET {t}k1 ; EXEC");
    shard.send(fourth, "CLIENT PAUSE 10 WRITE");
    shard.read(third);
    assert_eq!(shard.read(other) + &shard.read(third) + &shard.read(fourth), "");
    finish(&mut shard);
    assert_eq!(shard.read(client), "+OK");
    assert_eq!(shard.read(other), "\"v\"");
    assert_eq!(shard.read(third), "[\"v\"]");
    assert_eq!(shard.read(fourth), "+OK");
}

#[test]
fn a_script_calls_back_what_is_gathered_and_the_request_begins_anew() {
    let (mut shard, client, other) = leader();
    shard.send(client, &of_keys("MSET", MANY, " v"));
    step(&mut shard, 2);
    assert_eq!(shard.send(other, "EVAL return(redis.call('SET','{t}k1','mine')) 0"), "");
    assert!(!shard.shard.store().is_lent(b"{t}k1"));
    shard.commit_all();
    assert_eq!(shard.read(other), "+OK");
    finish(&mut shard);
    assert_eq!(shard.read(client), "+OK");
    assert_eq!(shard.send(other, "GET {t}k1"), "\"v\"");
}

#[test]
fn a_lost_leadership_leaves_nothing_of_it_wherever_it_was() {
    let total = {
        let (mut shard, client, _) = leader();
        shard.send(client, &of_keys("MSET", MANY, " v"));
        shard.world.holds_errands.set(false);
        (1..).find(|_| {
            shard.wake();
            shard.shard.next_wake().is_none() && !shard.proposals.is_empty()
        })
    };
    let total = total.expect("it ends");
    assert!(total > 2 * STEPS - 4, "{total} steps there and back");
    for steps in 0..=total {
        let (mut shard, client, other) = leader();
        let digest = shard.shard.keyspace().digest();
        shard.world.holds_errands.set(false);
        shard.send(client, &of_keys("MSET", MANY, " v"));
        step(&mut shard, steps);
        shard.lose_leadership(2);
        step_all(&mut shard); // what is much is taken back in steps
        assert!(!shard.shard.store().has_lent(), "after {steps} steps");
        assert_eq!(shard.shard.keyspace().digest(), digest, "after {steps} steps");
        shard.proposals.clear();
        shard.lead(3);
        shard.commit_all();
        shard.read(client);
        assert_eq!(shard.send(other, "EXISTS {t}k1 {t}k399"), ":0", "after {steps} steps");
    }
}

/// A follower whose client may read.
fn follower() -> (ShardHarness, SessionId, SessionId) {
    let (mut shard, client, other) = leader();
    shard.lose_leadership(2);
    for id in [client, other] {
        assert_eq!(shard.send(id, "READONLY"), "+OK");
    }
    (shard, client, other)
}

/// Entries of the next leader, the first of them empty.
fn committed(shard: &mut ShardHarness, batches: Vec<Bytes>) {
    let applied = shard.shard.applied().0;
    let all = std::iter::once(Bytes::new()).chain(batches).zip(applied + 1..);
    let entries = all.map(|(data, index)| CommittedEntry { index, term: 2, data, more: false });
    shard.handle(Event::Committed(entries.collect()));
}

#[test]
fn a_follower_lends_no_part_of_a_batch() {
    let (mut shard, client, other) = follower();
    // The set is the first key of the second step.
    let first = of_keys("EXISTS", 8 * AT_ONCE, "");
    shard.send(client, &of_keys(&format!("{first} {{t}}s {{t}}z"), MANY, "x"));
    step(&mut shard, 1);
    let members: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    let all = members.iter().map(|member| Effect::SetRemove { key: b"{t}s", member: member.as_bytes() });
    committed(&mut shard, vec![batch(&all.collect::<Vec<_>>())]);
    shard.world.holds_errands.set(false);
    step_all(&mut shard);
    assert_eq!(shard.read(client), ":1", "the set is gone");
    assert_eq!(shard.send(other, "EXISTS {t}s"), ":0");
}

#[test]
fn what_a_follower_holds_goes_on_when_all_keys_are_back_or_called_back() {
    for recalls in [false, true] {
        let (mut shard, client, other) = follower();
        shard.send(client, &of_keys("EXISTS", MANY, ""));
        step(&mut shard, if recalls { 2 } else { STEPS });
        committed(&mut shard, vec![batch(&[put(b"{t}k1", b"v")])]);
        assert_eq!(shard.send(other, "GET {t}k1"), "", "it is lent");
        if recalls {
            let third = shard.connect();
            shard.send(third, "READONLY ; CLIENT PAUSE 1 WRITE");
        }
        shard.world.holds_errands.set(false);
        shard.end_turn();
        step_all(&mut shard);
        shard.read(other);
        assert_eq!(shard.send(other, "GET {t}k1"), "\"v\"", "called back: {recalls}");
    }
}

/// A leader with two streams, and one who waits for what comes to their groups.
fn leader_with_waiter() -> (ShardHarness, SessionId, SessionId, SessionId) {
    let (mut shard, client, other) = leader();
    let waiter = shard.connect();
    shard.handle(Event::Readable { term: 1, format: NEWEST_FORMAT });
    shard.pass_ms(100);
    shard.commit_all();
    shard.send(
        other,
        "XADD {t}a 1-1 f v ; XADD {t}b 1-1 f v ; XGROUP CREATE {t}a g $ ; XGROUP CREATE {t}b g $",
    );
    shard.commit_all();
    shard.read(other);
    assert_eq!(shard.send(waiter, "XREADGROUP GROUP g c BLOCK 0 STREAMS {t}a {t}b > >"), "");
    (shard, client, other, waiter)
}

#[test]
fn who_waits_for_two_keys_that_come_back_is_served_once() {
    let (mut shard, client, other, waiter) = leader_with_waiter();
    shard.send(client, &of_keys("UNLINK {t}b", MANY, ""));
    step(&mut shard, STEPS);
    shard.world.holds_errands.set(false);
    shard.end_turn();
    step(&mut shard, 1);
    shard.send(other, "XADD {t}a 2-1 f v");
    step_all(&mut shard);
    shard.commit_all();
    assert_eq!(shard.read(client), ":1");
    let told = shard.read(waiter);
    assert!(told.starts_with("[[\"{t}a\"") || told.starts_with("-NOGROUP"), "{told}");
    assert_eq!(shard.send(waiter, "PING"), "+PONG", "it was answered once");
}

#[test]
fn two_that_come_back_are_settled_when_leadership_is_lost_whoever_waits() {
    let (mut shard, client, other, _) = leader_with_waiter();
    shard.send(client, &of_keys("UNLINK {t}a", MANY, "x"));
    step(&mut shard, STEPS);
    shard.send(other, &of_keys("UNLINK {t}b", MANY, "y"));
    step(&mut shard, STEPS);
    assert_eq!(shard.world.errands.borrow().len(), 2);
    shard.world.holds_errands.set(false);
    shard.end_turn();
    shard.lose_leadership(2);
    step_all(&mut shard);
    assert!(!shard.shard.store().has_lent());
}

#[test]
fn who_begins_to_keep_copies_meanwhile_hears_of_the_change() {
    let (mut shard, client, other) = leader();
    shard.send(other, "SET {t}k399 v");
    shard.commit_all();
    shard.read(other);
    shard.send(client, &of_keys("UNLINK", MANY, ""));
    step(&mut shard, 1);
    shard.send(other, "HELLO 3");
    assert_eq!(shard.send(other, "CLIENT TRACKING ON ; GET {t}k399"), "+OK \"v\"");
    finish(&mut shard);
    assert_eq!(shard.read(other), ">[\"invalidate\", [\"{t}k399\"]]");
}
