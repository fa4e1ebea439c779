//! Requests that are executed elsewhere while others are served.

use bytes::Bytes;
use moonraft_proto::{Effect, entry::NEWEST_FORMAT};

use super::{ShardHarness, of_many};
use crate::{
    keyspace::seed,
    shard::{CommittedEntry, Event, SessionId, ShardSettings, tests::batch, tests::put},
};

const FEW: usize = 10;
const MANY: usize = 30;

/// A leader to which little is much, with large values, whose errands wait until [`finish`] lets them come.
fn leader() -> (ShardHarness, SessionId, SessionId) {
    leader_with(ShardSettings::default())
}

pub(super) fn leader_with(settings: ShardSettings) -> (ShardHarness, SessionId, SessionId) {
    seed::fix(7);
    let mut shard = ShardHarness::leading_with(ShardSettings { large_elements: FEW, ..settings });
    let (client, other) = (shard.connect(), shard.connect());
    for key in ["{t}s", "{t}u"] {
        shard.send(client, &of_many("SADD", key, MANY));
    }
    shard.send(client, &of_many("RPUSH", "{t}l", MANY));
    shard.send(client, "ZADD {t}z 1 a 2 b 3 c ; SET {t}small v");
    shard.commit_all();
    shard.read(client);
    shard.world.holds_errands.set(true);
    (shard, client, other)
}

/// All errands have been carried out.
pub(super) fn finish(shard: &mut ShardHarness) {
    shard.world.holds_errands.set(false);
    shard.end_turn();
    shard.world.holds_errands.set(true);
}

#[test]
fn others_are_served_meanwhile_and_a_pipeline_keeps_its_order() {
    let (mut shard, client, other) = leader();
    assert_eq!(
        shard.send(client, "GET {t}small ; SCARD {t}s ; SORT {t}l DESC LIMIT 0 1 ; GET {t}small"),
        "\"v\" :30"
    );
    assert_eq!(shard.send(other, "GET {t}small ; SET {t}small w"), "\"v\"");
    shard.commit_all();
    assert_eq!(shard.read(other), "+OK");
    // Who needs the key waits for it, and for nothing else; what is only about the key space does not.
    assert_eq!(shard.send(other, "DBSIZE ; TYPE {t}s ; LLEN {t}l"), ":5 +set");
    assert_eq!(shard.read(client), "");
    finish(&mut shard);
    assert_eq!(shard.read(client), "[\"29\"] \"w\"");
    assert_eq!(shard.read(other), ":30");
}

#[test]
fn what_is_changed_elsewhere_is_one_batch_with_its_effects() {
    let (mut shard, client, other) = leader();
    assert_eq!(shard.send(client, "SUNIONSTORE {t}d {t}s {t}u ; SCARD {t}d"), "");
    assert!(shard.proposals.is_empty());
    finish(&mut shard);
    assert_eq!(shard.proposals.len(), 1);
    assert_eq!(shard.read(client), "", "its batch is not committed");
    assert_eq!(shard.send(other, "SCARD {t}d"), "", "nor is what another sees of it");
    shard.commit_all();
    assert_eq!(shard.read(client), ":30 :30");
    assert_eq!(shard.read(other), ":30");
    // What is removed there is removed here, with its deadline.
    shard.send(client, "PEXPIRE {t}d 1000 ; SPOP {t}d 30 ; EXISTS {t}d");
    finish(&mut shard);
    shard.commit_all();
    assert!(shard.read(client).ends_with(":0"));
    assert!(shard.shard.keyspace().deadlines().is_empty());
}

#[test]
fn all_kinds_of_large_requests_answer_as_they_do_here() {
    let requests = [
        "SUNION {t}s {t}u",
        "SINTER {t}s {t}u",
        "SDIFF {t}s {t}z0",
        "SMEMBERS {t}s",
        "SORT {t}l ALPHA",
        "SORT_RO {t}l",
        "SUNIONSTORE {t}d {t}s",
        "SMEMBERS {t}d",
        "SORT {t}l STORE {t}d2",
        "LRANGE {t}d2 0 -1",
        "ZUNIONSTORE {t}z2 1 {t}s",
        "ZRANGE {t}z2 0 -1 WITHSCORES",
        "ZRANGESTORE {t}z3 {t}z2 0 20",
        "ZPOPMIN {t}z3 15",
        "ZCARD {t}z3",
        "ZREMRANGEBYRANK {t}z2 0 15",
        "ZCARD {t}z2",
        "COPY {t}z2 {t}z4",
        "ZCARD {t}z4",
        "LTRIM {t}l 20 25",
        "LRANGE {t}l 0 -1",
        "SETRANGE {t}str 20000 x",
        "STRLEN {t}str",
        "GETRANGE {t}str 19990 20010",
        "BITOP NOT {t}not {t}str",
        "BITCOUNT {t}not",
        "SMEMBERS {t}small",
        "ZUNION 1 {t}small",
        "GETDEL {t}str",
        "DUMP {t}d",
        "SINTERCARD 2 {t}s {t}u",
    ];
    let answers = |large_elements| {
        let (mut shard, client, _) = leader_with(ShardSettings::default());
        shard.shard.reconfigure(|settings| settings.large_elements = large_elements);
        shard.world.holds_errands.set(false);
        let sent = crate::marks::take();
        drop(sent);
        let answer = |request: &&str| {
            shard.send(client, request);
            shard.commit_all();
            let reply = shard.read(client);
            // Sets have no order.
            let mut members: Vec<String> =
                reply.split(' ').map(|it| it.trim_matches(['[', ']']).to_owned()).collect();
            if reply.starts_with('[')
                && !request.starts_with('Z')
                && !request.starts_with("SORT")
                && !request.starts_with('L')
            {
                members.sort();
            }
            members.join(" ")
        };
        let answers: Vec<String> = requests.iter().map(answer).collect();
        let digest = shard.shard.keyspace().digest();
        (answers, digest)
    };
    assert_eq!(answers(FEW), answers(usize::MAX));
}

#[test]
fn leadership_that_is_lost_meanwhile_leaves_nothing_and_keeps_the_values() {
    for request in ["SUNIONSTORE {t}d {t}s", "SPOP {t}s 20", "SMEMBERS {t}s"] {
        let (mut shard, client, _) = leader();
        let before = shard.shard.keyspace().digest();
        shard.send(client, request);
        shard.lose_leadership(2);
        assert_eq!(shard.shard.keyspace().digest(), before);
        assert!(shard.read(client).starts_with("-MOVED"), "{request}");
        // What came of it is of no use to anybody.
        finish(&mut shard);
        assert_eq!(shard.shard.keyspace().digest(), before);
        shard.lead(3);
        assert_eq!(shard.send(client, "SCARD {t}s"), ":30");
    }
}

#[test]
fn what_was_settled_is_taken_back_with_its_batch() {
    let (mut shard, client, _) = leader();
    let before = shard.shard.keyspace().digest();
    shard.send(client, "SUNIONSTORE {t}d {t}s");
    finish(&mut shard);
    shard.send(client, "SPOP {t}s 20");
    finish(&mut shard);
    assert_ne!(shard.shard.keyspace().digest(), before);
    shard.lose_leadership(2);
    while shard.shard.is_amidst() {
        shard.wake();
    }
    assert_eq!(shard.shard.keyspace().digest(), before);
}

#[test]
fn a_watched_key_is_changed_when_the_errand_is_settled() {
    let (mut shard, client, other) = leader();
    shard.send(other, "WATCH {t}d {t}s");
    shard.send(client, "SUNION {t}s {t}u");
    finish(&mut shard);
    assert_eq!(shard.send(other, "MULTI ; GET {t}small ; EXEC"), "+OK +QUEUED [\"v\"]", "it only read");
    shard.read(client);
    shard.send(other, "WATCH {t}d ; MULTI ; GET {t}small");
    shard.read(other);
    shard.send(client, "SUNIONSTORE {t}d {t}s");
    finish(&mut shard);
    shard.commit_all();
    assert_eq!(shard.send(other, "EXEC"), "nil");
}

#[test]
fn a_limit_that_is_exceeded_elsewhere_leaves_all_as_before() {
    let (mut shard, client, _) = leader();
    shard
        .shard
        .reconfigure(|settings| (settings.unit_bytes_max, settings.limits.reply_bytes_max) = (50, 1000));
    let before = shard.shard.keyspace().digest();
    for (request, limit) in [
        ("SORT {t}l STORE {t}d", "-ERR the changes of this request exceed max-unit-bytes"),
        ("SORT {t}l GET # GET # GET #", "-ERR the reply"),
    ] {
        shard.send(client, request);
        finish(&mut shard);
        let reply = shard.read(client);
        assert!(reply.starts_with(limit), "{reply}");
        assert_eq!(shard.shard.keyspace().digest(), before);
        assert!(shard.proposals.is_empty());
    }
}

#[test]
fn an_expired_key_that_is_lent_goes_when_it_is_back() {
    let (mut shard, client, other) = leader();
    shard.send(client, "PEXPIRE {t}s 100");
    shard.commit_all();
    shard.read(client);
    shard.send(client, "SMEMBERS {t}s");
    shard.pass_ms(1000);
    assert_eq!(shard.send(other, "EXISTS {t}s"), "");
    finish(&mut shard);
    shard.commit_all();
    assert!(shard.read(client).len() > 30, "it was there when it was asked for");
    assert_eq!(shard.read(other), ":0");
    shard.pass_ms(100);
    assert_eq!(shard.send(other, "DBSIZE"), ":4");
}

#[test]
fn a_snapshot_begins_when_all_is_back_and_none_is_lent_before() {
    let (mut shard, client, other) = leader();
    shard.send(client, "SPOP {t}s 20");
    shard.handle(Event::TakeSnapshot);
    assert!(!shard.shard.wants_walk());
    assert_eq!(shard.send(other, "SMEMBERS {t}u"), "");
    assert_eq!(shard.world.errands.borrow().len(), 1, "it waits for the snapshot to begin");
    finish(&mut shard);
    assert!(shard.shard.wants_walk());
    // What is lent meanwhile is written before.
    shard.walk(usize::MAX);
    finish(&mut shard);
    shard.commit_all();
    shard.walk(usize::MAX);
    let (index, term, chunks) = shard.snapshots.pop().expect("a snapshot");
    let state = crate::shard::State::from_snapshot(index, term, &chunks).expect("it can be read");
    assert_eq!(state.keyspace.digest(), shard.shard.keyspace().digest());
    assert!(shard.read(other).len() > 30);
}

#[test]
fn a_client_that_is_gone_has_its_request_executed_and_no_other_hears_of_it() {
    let (mut shard, client, other) = leader();
    shard.send(client, "SPOP {t}s 20");
    shard.shard.disconnect(client);
    let next = shard.connect();
    finish(&mut shard);
    shard.commit_all();
    assert_eq!(shard.read(next), "");
    assert_eq!(shard.send(other, "SCARD {t}s"), ":10");
}

#[test]
fn scripts_and_blocks_call_back_what_they_did_not_declare() {
    let (mut shard, client, other) = leader();
    shard.send(client, "SPOP {t}s 20");
    // Declared, it is waited for.
    assert_eq!(shard.send(other, "EVAL return(redis.call('scard',KEYS[1])) 1 {t}s"), "");
    assert_eq!(shard.read(client), "");
    finish(&mut shard);
    shard.commit_all();
    assert_eq!(shard.read(other), ":10");
    shard.read(client);
    shard.send(client, "SPOP {t}u 20");
    assert_eq!(shard.send(other, "EVAL return(redis.call('scard','{t}u')) 0"), ":30", "it was called back");
    // Its client's request began anew.
    finish(&mut shard);
    shard.commit_all();
    assert!(shard.read(client).len() > 30);
    assert_eq!(shard.send(other, "SCARD {t}u"), ":10");
    shard.send(client, "SORT {t}l");
    assert_eq!(shard.send(other, "MULTI ; LLEN {t}l ; EXEC"), "+OK +QUEUED");
    finish(&mut shard);
    shard.commit_all();
    assert_eq!(shard.read(other), "[:30]");
}

#[test]
fn what_is_about_all_keys_waits_for_all_that_is_lent_and_comes_first() {
    let (mut shard, client, other) = leader();
    let third = shard.connect();
    shard.send(client, "SMEMBERS {t}s");
    assert_eq!(shard.send(other, "FLUSHALL"), "");
    assert_eq!(shard.send(third, "SMEMBERS {t}u"), "");
    assert_eq!(shard.world.errands.borrow().len(), 1, "no more is lent while somebody waits for all");
    finish(&mut shard);
    shard.commit_all();
    assert!(shard.read(client).len() > 30);
    assert_eq!(shard.read(other), "+OK");
    assert_eq!(shard.read(third), "[]");
}

#[test]
fn a_pause_calls_back_what_would_be_changed() {
    let (mut shard, client, other) = leader();
    shard.send(client, "SPOP {t}s 20");
    assert_eq!(shard.send(other, "CLIENT PAUSE 1000 WRITE"), "+OK");
    finish(&mut shard);
    assert_eq!(shard.send(other, "SCARD {t}s"), ":30");
    shard.wake();
    finish(&mut shard);
    shard.commit_all();
    assert_eq!(shard.send(other, "SCARD {t}s"), ":10");
}

#[test]
fn a_reply_that_is_large_is_written_elsewhere() {
    let (mut shard, client, other) = leader();
    shard.send(client, "SETRANGE {t}str 20000 x");
    finish(&mut shard);
    shard.commit_all();
    shard.read(client);
    assert_eq!(shard.send(client, "GET {t}str ; GET {t}small"), "");
    assert_eq!(shard.send(other, "GET {t}small"), "\"v\"");
    finish(&mut shard);
    assert!(shard.read(client).ends_with(" \"v\""));
}

#[test]
fn a_follower_applies_a_large_batch_in_steps_and_hears_others_between() {
    let (mut shard, client, other) = leader();
    shard.lose_leadership(2);
    shard.send(client, "READONLY");
    shard.read(client);
    let members: Vec<Vec<u8>> = (0..MANY).map(|number| format!("new{number}").into_bytes()).collect();
    let mut effects: Vec<_> = members.iter().map(|member| Effect::SetAdd { key: b"{t}n", member }).collect();
    effects.push(put(b"{t}small", b"w"));
    let applied = shard.shard.applied().0;
    let entry = |index: u64, data: Bytes| CommittedEntry { index, term: 2, data, more: false };
    shard.handle(Event::Committed(vec![
        entry(applied + 1, Bytes::new()),
        entry(applied + 2, batch(&effects)),
        entry(applied + 3, batch(&[put(b"{t}small", b"x")])),
    ]));
    assert_eq!(shard.shard.applied().0, applied + 1);
    assert!(shard.shard.is_amidst());
    // Who looks at data waits for the whole of it; others do not.
    assert_eq!(shard.send(client, "GET {t}small"), "");
    assert_eq!(shard.send(other, "PING ; GET {t}small").split(' ').next(), Some("+PONG"));
    let steps = (0..).find(|_| {
        shard.wake();
        !shard.shard.is_amidst()
    });
    assert_eq!(steps, Some(2));
    assert_eq!(shard.shard.applied().0, applied + 3);
    assert_eq!(shard.read(client), "\"x\"");
    assert_eq!(shard.send(client, "SCARD {t}n"), ":30");
}

#[test]
fn who_begins_to_lead_applies_the_rest_of_a_batch_at_once() {
    let (mut shard, client, _) = leader();
    shard.lose_leadership(2);
    let members: Vec<Vec<u8>> = (0..MANY).map(|number| format!("new{number}").into_bytes()).collect();
    let effects: Vec<_> = members.iter().map(|member| Effect::SetAdd { key: b"{t}n", member }).collect();
    let index = shard.shard.applied().0 + 1;
    shard.handle(Event::Committed(vec![CommittedEntry {
        index,
        term: 2,
        data: batch(&effects),
        more: false,
    }]));
    assert!(shard.shard.is_amidst());
    shard.lead(3);
    assert!(!shard.shard.is_amidst());
    assert_eq!(shard.send(client, "SCARD {t}n"), ":30");
}

#[test]
fn a_follower_holds_the_log_for_what_is_lent() {
    let (mut shard, client, other) = leader();
    shard.lose_leadership(2);
    shard.send(client, "READONLY ; SMEMBERS {t}s");
    shard.send(other, "READONLY");
    shard.read(other);
    assert_eq!(shard.send(other, "GET {t}small"), "\"v\"");
    let entry = |index: u64, data: Bytes| CommittedEntry { index, term: 2, data, more: false };
    let applied = shard.shard.applied().0;
    let entries = vec![
        entry(applied + 1, Bytes::new()),
        entry(applied + 2, batch(&[put(b"{t}small", b"w")])),
        entry(applied + 3, batch(&[put(b"{t}s", b"w")])),
        entry(applied + 4, batch(&[put(b"{t}small", b"x")])),
    ];
    shard.handle(Event::Committed(entries));
    assert_eq!(shard.shard.applied().0, applied + 2);
    finish(&mut shard);
    assert_eq!(shard.shard.applied().0, applied + 4);
    assert!(shard.read(client).len() > 30);
    assert_eq!(shard.send(other, "GET {t}s ; GET {t}small"), "\"w\" \"x\"");
}

#[test]
fn what_would_wait_is_executed_elsewhere_only_if_it_finds_much() {
    let (mut shard, client, other) = leader();
    shard.handle(Event::Readable { term: 1, format: NEWEST_FORMAT });
    shard.pass_ms(100);
    shard.commit_all();
    for number in 1..=MANY {
        shard.send(client, &format!("XADD {{t}}x {number}-0 f v"));
    }
    shard.commit_all();
    shard.read(client);
    assert_eq!(shard.send(client, "XREAD BLOCK 0 STREAMS {t}x 0"), "");
    assert_eq!(shard.world.errands.borrow().len(), 1);
    finish(&mut shard);
    assert!(shard.read(client).len() > MANY);
    // Its node holds many, of which none is new.
    assert_eq!(shard.send(client, "XREAD BLOCK 0 STREAMS {t}x 30"), "");
    assert!(shard.world.errands.borrow().is_empty());
    // The last is gone: what seems to be there is not.
    shard.send(other, "XADD {t}x 31-0 f v");
    shard.commit_all();
    shard.read(other);
    assert!(shard.read(client).contains("31-0"));
    shard.send(other, "XDEL {t}x 31-0");
    shard.commit_all();
    shard.read(other);
    assert_eq!(shard.send(client, "XREAD BLOCK 0 STREAMS {t}x 30"), "");
    assert_eq!(shard.world.errands.borrow().len(), 1, "it was sent in vain");
    finish(&mut shard);
    assert_eq!(shard.read(client), "", "it waits");
    shard.send(other, "XADD {t}x 32-0 f v");
    shard.commit_all();
    assert!(shard.read(client).contains("32-0"));
}

/// What comes to a waiting request may call back what came together with it.
#[test]
fn an_errand_that_has_come_may_be_called_back_while_another_is_settled() {
    let (mut shard, client, other) = leader();
    let waiter = shard.connect();
    shard.send(waiter, "BLMOVE {t}src {t}s2 LEFT LEFT 0");
    shard.send(client, &of_many("RPUSH", "{t}s2", MANY));
    finish(&mut shard);
    shard.commit_all();
    shard.read(client);
    shard.send(client, &of_many("RPUSH", "{t}src", MANY));
    shard.send(other, "LRANGE {t}s2 0 -1");
    assert_eq!(shard.world.errands.borrow().len(), 2);
    finish(&mut shard);
    finish(&mut shard);
    shard.commit_all();
    assert_eq!(shard.read(waiter), "\"0\"");
    assert_eq!(shard.read(client), ":30");
    assert_eq!(shard.read(other).matches(", ").count(), MANY, "it has begun anew, and finds one more");
}
