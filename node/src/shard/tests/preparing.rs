//! Large values that change while a snapshot is taken: who would change one waits, and nobody else.

use bytes::Bytes;
use moonraft_proto::Effect;

use super::{ShardHarness, batch, digest_of, digests, leader_with_keys, put};
use crate::shard::{CommittedEntry, Event, SessionId, ShardSettings};

const LARGE_BYTES: usize = 1_000_000;
const MOVED: &str = "-MOVED 15891 127.0.0.1:7101";

/// Next to nothing is written at once.
fn settings() -> ShardSettings {
    ShardSettings { snapshot_at_once_bytes_max: 1000, ..Default::default() }
}

/// A leader with a large value among small ones, all of them committed.
pub(super) fn leader() -> (ShardHarness, SessionId) {
    let (mut shard, client) = leader_with_keys(settings());
    shard.send(client, &format!("SETRANGE {{t}}large {} x", LARGE_BYTES - 1));
    shard.commit_all();
    shard.read(client);
    (shard, client)
}

/// A follower with the same, of one entry, in the midst of a snapshot.
fn follower() -> (ShardHarness, (String, String)) {
    let mut shard = ShardHarness::following_with(settings());
    shard.handle(Event::Follow { leader: Some(2) });
    shard.commit(1, batch(&[put(b"{t}large", &[b'v'; LARGE_BYTES]), put(b"{t}small", b"old")]));
    shard.handle(Event::TakeSnapshot);
    let expected = digests(&shard);
    (shard, expected)
}

fn entry(index: u64, data: Bytes) -> CommittedEntry {
    CommittedEntry { index, term: 1, data, more: false }
}

/// The large value changes, and in the next entry a small one.
fn entries() -> Vec<CommittedEntry> {
    let large = Effect::PatchString { key: b"{t}large", offset: 0, bytes: b"new" };
    vec![entry(2, batch(&[large])), entry(3, batch(&[put(b"{t}small", b"new")]))]
}

/// Takes steps until something has happened. Returns how many.
pub(super) fn walk_until(shard: &mut ShardHarness, happened: impl Fn(&ShardHarness) -> bool) -> usize {
    let mut steps = 0;
    while !happened(shard) {
        let before = bytes(shard);
        shard.walk(1000);
        assert!(bytes(shard) - before < 300_000, "a step of {} bytes", bytes(shard) - before);
        steps += 1;
        assert!(steps < 1000, "nobody goes on");
    }
    steps
}

/// Bytes of the snapshot so far.
fn bytes(shard: &ShardHarness) -> usize {
    shard.chunks.1.iter().map(Bytes::len).sum()
}

fn finish(shard: &mut ShardHarness, expected: &(String, String)) {
    while shard.shard.wants_walk() {
        shard.walk(1 << 20);
    }
    assert_eq!(digest_of(&shard.snapshots[0]), *expected);
}

#[test]
fn only_requests_that_would_change_a_large_value_wait_for_it() {
    for requests in [
        "APPEND {t}large x",
        "DEL {t}0 {t}large",
        "RENAME {t}0 {t}large",
        "EVAL return(redis.call('append',KEYS[1],'x')) 1 {t}large",
        "MULTI ; SET {t}0 v ; APPEND {t}large x ; EXEC",
    ] {
        let (mut shard, waiter) = leader();
        let other = shard.connect();
        shard.handle(Event::TakeSnapshot);
        let expected = digests(&shard);
        shard.send(waiter, requests);
        assert!(shard.proposals.is_empty(), "{requests} does not wait");
        // What only reads it does not wait either, in a script or a block.
        let others = "SET {t}2 v ; STRLEN {t}large ; COPY {t}large {t}copy ; MULTI ; STRLEN {t}large ; EXEC \
                      ; EVAL_RO return(redis.call('strlen',KEYS[1])) 1 {t}large";
        shard.send(other, others);
        shard.commit_all();
        let large = format!(":{LARGE_BYTES}");
        assert_eq!(shard.read(other), format!("+OK {large} :1 +OK +QUEUED [{large}] {large}"));
        assert!(bytes(&shard) < 300_000, "it is written at once");
        let steps = walk_until(&mut shard, |shard| !shard.proposals.is_empty());
        assert!(steps >= 10, "{steps} steps");
        shard.commit_all();
        assert_ne!(shard.read(waiter), "");
        finish(&mut shard, &expected);
    }
}

#[test]
fn what_is_written_waits_no_more() {
    let (mut shard, client) = leader();
    shard.handle(Event::TakeSnapshot);
    let expected = digests(&shard);
    shard.send(client, "APPEND {t}large x");
    walk_until(&mut shard, |shard| !shard.proposals.is_empty());
    shard.send(client, "APPEND {t}large x ; DEL {t}large ; SET {t}large x");
    shard.commit_all();
    assert_eq!(shard.read(client), ":1000001 :1000002 :1 +OK");
    finish(&mut shard, &expected);
}

#[test]
fn requests_of_one_packet_have_no_more_written_at_once_than_one() {
    let (mut shard, client) = leader();
    for number in 0..100 {
        shard.send(client, &format!("SETRANGE {{t}}{number} 9999 x"));
    }
    shard.commit_all();
    shard.read(client);
    shard.handle(Event::TakeSnapshot);
    let expected = digests(&shard);
    let requests: Vec<String> = (0..100).map(|number| format!("APPEND {{t}}{number} x")).collect();
    shard.send(client, &requests.join(" ; "));
    assert!(bytes(&shard) < 300_000);
    assert!(shard.shard.is_walk_awaited(), "none of them waits");
    finish(&mut shard, &expected);
    shard.commit_all();
    assert_eq!(shard.read(client).split(' ').count(), 100);
}

#[test]
fn a_follower_holds_the_log_for_a_large_value_and_keeps_its_order() {
    let (mut shard, expected) = follower();
    shard.handle(Event::Committed(entries()));
    assert_eq!(shard.shard.applied(), (1, 1));
    shard.handle(Event::Committed(vec![entry(4, batch(&[put(b"{t}small", b"last")]))]));
    assert_eq!(shard.shard.applied(), (1, 1), "an entry has overtaken another");
    let steps = walk_until(&mut shard, |shard| shard.shard.applied() == (4, 1));
    assert!(steps >= 10, "{steps} steps");
    let client = shard.connect();
    shard.send(client, "READONLY");
    assert_eq!(shard.send(client, "GET {t}small ; GETRANGE {t}large 0 3"), "\"last\" \"newv\"");
    finish(&mut shard, &expected);
}

#[test]
fn a_batch_in_parts_is_held_whole() {
    let (mut shard, expected) = follower();
    let data = batch(&[put(b"{t}large", &[b'n'; 100])]);
    let part = |index, data: Bytes, more| CommittedEntry { more, ..entry(index, data) };
    let parts = [(2, 0..20, true), (3, 20..50, true), (4, 50..data.len(), false)];
    let parts = parts.map(|(index, range, more)| part(index, data.slice(range), more));
    shard.handle(Event::Committed(parts.into()));
    assert_eq!(shard.shard.applied(), (3, 1));
    walk_until(&mut shard, |shard| shard.shard.applied() == (4, 1));
    let client = shard.connect();
    shard.send(client, "READONLY");
    assert_eq!(shard.send(client, "STRLEN {t}large"), ":100");
    finish(&mut shard, &expected);
}

#[test]
fn who_begins_to_lead_waits_for_no_value() {
    let (mut shard, expected) = follower();
    shard.handle(Event::Committed(entries()));
    shard.lead(2);
    assert_eq!(shard.shard.applied(), (4, 2));
    let client = shard.connect();
    assert_eq!(shard.send(client, "GET {t}small"), "\"new\"");
    finish(&mut shard, &expected);
}

#[test]
fn an_installation_takes_the_place_of_what_is_held() {
    let (mut shard, _) = follower();
    shard.handle(Event::Committed(entries()));
    let (mut other, client) = leader();
    other.send(client, "SET {t}small installed");
    other.commit_all();
    other.handle(Event::TakeSnapshot);
    other.walk(1 << 22);
    let (index, term, chunks) = other.snapshots[0].clone();
    shard.handle(Event::InstallSnapshot { index, term, chunks });
    assert_eq!(shard.shard.applied(), (index, term));
    assert_eq!(digests(&shard), digests(&other));
    shard.commit(term, batch(&[put(b"{t}small", b"later")]));
    assert_eq!(shard.shard.applied(), (index + 1, term));
}

#[test]
fn whoever_waits_goes_on_when_there_is_no_snapshot_any_more() {
    let (mut shard, waiter) = leader();
    shard.handle(Event::TakeSnapshot);
    shard.send(waiter, "APPEND {t}large x");
    assert!(shard.proposals.is_empty());
    shard.handle(Event::SnapshotFailed { number: 1 });
    shard.commit_all();
    assert_eq!(shard.read(waiter), ":1000001");
    let (mut shard, _) = follower();
    shard.handle(Event::Committed(entries()));
    shard.handle(Event::SnapshotFailed { number: 1 });
    assert_eq!(shard.shard.applied(), (3, 1));
}

#[test]
fn whoever_waits_is_redirected_when_leadership_is_lost() {
    // Whether the snapshot is of what is committed, or of what is taken back.
    for speculative in [false, true] {
        let (mut shard, waiter) = leader();
        let other = shard.connect();
        if speculative {
            shard.receive_only(other, "SET {t}1 new");
        }
        shard.shard.handle(Event::TakeSnapshot);
        shard.end_turn();
        shard.send(waiter, "APPEND {t}large x");
        assert!(shard.shard.is_walk_awaited());
        shard.lose_leadership(2);
        assert_eq!(shard.read(waiter), MOVED);
        shard.handle(Event::Tick);
        while shard.shard.wants_walk() {
            shard.walk(1 << 20);
        }
        assert_eq!(digest_of(&shard.snapshots[0]), digests(&shard));
    }
}

#[test]
fn a_new_snapshot_forgets_nobody_who_waited_for_the_last() {
    let (mut shard, waiter) = leader();
    shard.handle(Event::TakeSnapshot);
    shard.send(waiter, "APPEND {t}large x");
    // One is given up and the next begun before anybody looks.
    shard.shard.handle(Event::SnapshotFailed { number: 1 });
    shard.world.boot_ns.set(shard.world.boot_ns.get() + 11_000_000_000);
    shard.shard.handle(Event::Tick);
    assert!(shard.shard.wants_walk());
    shard.end_turn();
    walk_until(&mut shard, |shard| !shard.proposals.is_empty());
    shard.commit_all();
    assert_eq!(shard.read(waiter), ":1000001");
}

#[test]
fn an_expired_value_goes_when_it_is_written() {
    let (mut shard, client) = leader();
    shard.send(client, "PEXPIRE {t}large 1000 ; SET {t}small v PX 900");
    shard.commit_all();
    shard.read(client);
    shard.handle(Event::TakeSnapshot);
    let expected = digests(&shard);
    shard.pass_ms(1100);
    assert!(shard.shard.keyspace().get(b"{t}small").is_none(), "it waits for the large one");
    assert!(shard.shard.keyspace().get(b"{t}large").is_some() && bytes(&shard) < 300_000);
    // Nobody meets it meanwhile.
    shard.commit_all();
    assert_eq!(shard.send(client, "STRLEN {t}large"), "");
    assert!(shard.proposals.is_empty());
    let steps = walk_until(&mut shard, |shard| !shard.proposals.is_empty());
    assert!(steps >= 10, "{steps} steps");
    shard.commit_all();
    assert_eq!(shard.read(client), ":0");
    assert!(shard.shard.keyspace().get(b"{t}large").is_none());
    finish(&mut shard, &expected);
}

#[test]
fn a_follower_removes_nothing_so_its_readers_do_not_wait() {
    let mut shard = ShardHarness::following_with(settings());
    shard.handle(Event::Follow { leader: Some(2) });
    let value = &[b'v'; LARGE_BYTES];
    let expired = Effect::PutString { key: b"{t}large", value, expires_at: Some(1_600_000_000_000) };
    shard.commit(1, batch(&[expired]));
    shard.handle(Event::TakeSnapshot);
    let client = shard.connect();
    shard.send(client, "READONLY");
    assert_eq!(shard.send(client, "GET {t}large"), "nil");
    assert!(!shard.shard.is_walk_awaited());
}
