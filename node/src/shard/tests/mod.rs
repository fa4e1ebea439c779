//! What a shard promises, on a shard without IO.

mod admission;
mod blocked;
mod blocked_streams;
mod busy;
mod deadlines;
mod debug;
mod errands;
mod events;
mod eviction;
mod field_deadlines;
mod formats;
mod functions;
mod gathering;
mod harness;
mod large_blocks;
mod large_calls;
mod monitors;
mod networks;
mod pause;
mod preparing;
mod replies;
mod scripts;
mod slots;
mod survey;
mod tools;
mod tracking;
mod undoing;
mod waiting;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use moonraft_proto::{
    Effect,
    entry::{BatchWriter, Head, NEWEST_FORMAT},
};

pub(crate) use self::harness::{LAST_OWN_SLOT, ShardHarness};
use super::{DiskRoom, Event, SessionId, ShardSettings, State};
use crate::log::Fatal;

/// An entry of another leader: these effects.
fn batch(effects: &[Effect<'_>]) -> Bytes {
    let mut writer = BatchWriter::default();
    effects.iter().for_each(|effect| writer.push(effect));
    writer.seal(Head { stamp_ms: 1_700_000_000_000, sequence: 1 }, NEWEST_FORMAT)
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Effect<'a> {
    Effect::PutString { key, value, expires_at: None }
}

/// A request about this key with so many words more.
fn of_many(name: &str, key: &str, count: usize) -> String {
    (0..count).fold(format!("{name} {key}"), |request, number| format!("{request} {number}"))
}

#[test]
fn what_takes_long_to_free_is_freed_elsewhere_once_it_is_committed() {
    const MANY: usize = 6_000;
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let removals =
        ["DEL s", "SET s 1", "RENAME {s}other s", "FLUSHALL", "LTRIM l 1 0", "PEXPIREAT s 1", "SPOP s 6000"];
    for removal in removals {
        for count in [MANY, 10] {
            let before = shard.world.freed.get();
            shard.send(client, &of_many("SADD", "s", count));
            shard.send(client, &of_many("RPUSH", "l", count));
            shard.send(client, "SET {s}other 1");
            shard.commit_all();
            shard.send(client, removal);
            assert_eq!(shard.world.freed.get(), before, "{removal} may yet be taken back");
            shard.commit_all();
            let freed = usize::from(count == MANY);
            assert_eq!(shard.world.freed.get() - before, freed, "{removal} of {count}");
            shard.send(client, "FLUSHALL");
            shard.commit_all();
        }
    }
}

/// So that the request after it is served.
#[test]
fn what_is_removed_while_memory_is_short_is_freed_at_once() {
    let settings = ShardSettings { memory_bytes_max: 1 << 30, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let client = shard.connect();
    shard.send(client, &of_many("SADD", "s", 6_000));
    shard.commit_all();
    shard.world.used_bytes.set(2 << 30);
    shard.send(client, "FLUSHALL");
    shard.commit_all();
    assert_eq!(shard.world.freed.get(), 0);
}

#[test]
fn a_follower_has_freed_elsewhere_what_takes_long() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    let members: Vec<String> = (0..6_000).map(|number| number.to_string()).collect();
    let members = members.iter().map(String::as_bytes);
    let added: Vec<Effect<'_>> = members.map(|member| Effect::SetAdd { key: b"s", member }).collect();
    shard.commit(1, batch(&added));
    assert_eq!(shard.world.freed.get(), 0);
    shard.commit(1, batch(&[Effect::Remove { key: b"s" }]));
    assert_eq!(shard.world.freed.get(), 1);
}

// ---- the gate ---------------------------------------------------------------

#[test]
fn a_write_is_answered_once_it_is_committed() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "SET k v"), "");
    assert_eq!(shard.proposals.len(), 1);
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
}

#[test]
fn a_turn_is_one_batch_and_replies_leave_in_order() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "GET a ; SET a 1 ; PING ; GET b ; INCRBY a 2"), "nil");
    assert_eq!(shard.proposals.len(), 1);
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK +PONG nil :3");
}

#[test]
fn what_is_read_of_a_cleared_shard_waits_for_the_clearing() {
    let mut shard = ShardHarness::leading();
    let (writer, reader) = (shard.connect(), shard.connect());
    shard.send(writer, "SET k v");
    shard.commit_all();
    assert_eq!(shard.read(writer), "+OK");
    assert_eq!(shard.send(writer, "FLUSHALL"), "");
    assert_eq!(shard.send(reader, "GET k"), "", "that it is gone may yet be taken back");
    shard.commit_one();
    assert_eq!(shard.read(reader), "nil");
    shard.send(writer, "SET other 1");
    assert_eq!(shard.send(reader, "GET k"), "nil", "it is gone for good");
}

#[test]
fn a_read_waits_only_for_what_it_saw() {
    let mut shard = ShardHarness::leading();
    let (writer, reader) = (shard.connect(), shard.connect());
    shard.send(writer, "SET k 1");
    assert_eq!(shard.send(reader, "GET other"), "nil");
    assert_eq!(shard.send(reader, "GET k"), "");
    shard.send(writer, "SET later 1");
    shard.commit_one();
    assert_eq!(shard.read(reader), "\"1\"");
    assert_eq!(shard.read(writer), "+OK");
    assert_eq!(shard.send(reader, "GET k"), "\"1\"");
    shard.commit_all();
    assert_eq!(shard.read(writer), "+OK");
}

#[test]
fn a_refusal_that_saw_an_uncommitted_value_waits_for_it() {
    let mut shard = ShardHarness::leading();
    let (writer, other) = (shard.connect(), shard.connect());
    shard.send(writer, "SET k text");
    assert_eq!(shard.send(other, "INCRBY k 1"), "");
    shard.commit_all();
    assert_eq!(shard.read(other), "-ERR value is not an integer or out of range");
}

#[test]
fn a_unit_over_the_limit_is_refused_whole() {
    let settings = ShardSettings { unit_bytes_max: 100, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let client = shard.connect();
    let value = "v".repeat(60);
    let block = format!("MULTI ; SET {{k}}1 {value} ; SET {{k}}2 {value} ; EXEC");
    let refused = "-ERR the changes of this request exceed max-unit-bytes (100); nothing was changed";
    assert_eq!(shard.send(client, &block), format!("+OK +QUEUED +QUEUED {refused}"));
    assert!(shard.shard.keyspace().is_empty());
    assert!(shard.proposals.is_empty());
    shard.send(client, "GET {k}1 ; SET {k}1 small");
    shard.commit_all();
    assert_eq!(shard.read(client), "nil +OK");
}

#[test]
fn after_a_refused_unit_a_reader_of_its_keys_is_answered() {
    let settings = ShardSettings { unit_bytes_max: 100, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let (client, reader) = (shard.connect(), shard.connect());
    let large = format!("SET k {}", "v".repeat(200));
    assert!(shard.send(client, &large).contains("max-unit-bytes"));
    // It may wait for a batch, but then there is one.
    assert_eq!(shard.send(reader, "GET k"), "");
    shard.commit_all();
    assert_eq!(shard.read(reader), "nil");
}

#[test]
fn a_script_that_writes_without_end_is_stopped_at_the_limit() {
    let settings = ShardSettings { unit_bytes_max: 10_000, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let client = shard.connect();
    shard.send(client, "SET k before");
    shard.commit_all();
    shard.read(client);
    let script = b"while true do pcall(redis.call, 'RPUSH', KEYS[2], 'more') redis.call('DEL', KEYS[1]) end";
    let reply = shard.send_words(client, &[b"EVAL", script, b"2", b"k", b"{k}list"]);
    assert_eq!(reply, "", "it saw what it changed");
    shard.commit_all();
    let refused = "-ERR the changes of this request exceed max-unit-bytes (10000); nothing was changed";
    assert_eq!(shard.read(client), refused);
    assert_eq!(shard.send(client, "GET k ; EXISTS {k}list"), "\"before\" :0");
}

// ---- leadership lost ---------------------------------------------------------

#[test]
fn a_lost_write_becomes_a_redirect_and_leaves_nothing() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SET k old");
    shard.commit_all();
    shard.read(client);
    shard.send(client, "SET k new ; SET other 1");
    shard.lose_leadership(2);
    // The log has not told yet.
    assert_eq!(shard.read(client), "");
    assert_eq!(shard.shard.keyspace().len(), 1);
    shard.commit(2, Bytes::new());
    assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7101 -MOVED 11361 127.0.0.1:7101");
    assert_eq!(shard.send(client, "READONLY ; GET k"), "+OK \"old\"");
}

/// A page in a browser can make it post anything to any port: the first line gives it away.
#[test]
fn who_speaks_http_is_hung_up_on_and_nothing_of_it_is_executed() {
    for request in ["POST / HTTP/1.1\r\n\r\nSET k v\r\n", "GET / HTTP/1.1\r\nhOsT: here\r\n\r\nSET k v\r\n"] {
        let mut shard = ShardHarness::leading();
        let (browser, other) = (shard.connect(), shard.connect());
        assert_eq!(shard.send_bytes(browser, request.as_bytes()), "", "not a word");
        assert!(shard.shard.should_close(browser));
        assert_eq!(shard.send(other, "EXISTS k"), ":0");
    }
    // In a block and in a pipeline, too: what came before stays done, but is not answered any more.
    let mut shard = ShardHarness::leading();
    let browser = shard.connect();
    assert_eq!(shard.send(browser, "GET k ; MULTI ; POST / ; EXEC"), "");
    assert!(shard.shard.should_close(browser));
}

#[test]
fn what_turns_out_committed_keeps_its_reply() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "INCRBY k 1");
    shard.send(client, "INCRBY k 1");
    shard.lose_leadership(2);
    // The next leader had the first of them.
    shard.commit_one();
    assert_eq!(shard.read(client), ":1");
    shard.proposals.clear();
    shard.commit(2, Bytes::new());
    assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7101");
    assert_eq!(shard.send(client, "READONLY ; GET k"), "+OK \"1\"");
}

#[test]
fn a_read_of_a_lost_write_is_lost_too() {
    let mut shard = ShardHarness::leading();
    let (writer, reader) = (shard.connect(), shard.connect());
    shard.send(writer, "SET k new");
    shard.send(reader, "GET k");
    shard.lose_leadership(3);
    shard.commit(2, Bytes::new());
    assert_eq!(shard.read(reader), "-MOVED 7629 127.0.0.1:7201");
}

#[test]
fn what_was_not_proposed_is_lost_with_the_term() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send_bytes(client, b"");
    let mut packet = bytes::BytesMut::from("SET k v\r\n");
    shard.shard.receive(client, &mut packet);
    // No end of a turn: leadership goes first.
    shard.lose_leadership(2);
    assert!(shard.proposals.is_empty());
    assert!(shard.shard.keyspace().is_empty());
    assert_eq!(shard.read(client), "");
    shard.commit(2, Bytes::new());
    assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7101");
}

#[test]
fn a_leader_again_serves_what_the_log_says() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SET k lost");
    shard.lose_leadership(2);
    shard.commit(2, batch(&[put(b"k", b"theirs")]));
    shard.lead(3);
    assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7101");
    assert_eq!(shard.send(client, "GET k"), "\"theirs\"");
    shard.send(client, "SET k mine");
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
}

#[test]
fn a_lost_request_without_keys_is_redirected_too() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SET k v ; WAIT 1 0");
    shard.lose_leadership(2);
    shard.commit(2, Bytes::new());
    assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7101 -MOVED 0 127.0.0.1:7101");
}

#[test]
fn a_reply_that_cannot_be_settled_ends_the_connection() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SET k v");
    shard.handle(Event::Follow { leader: None });
    shard.pass_ms(1);
    assert!(shard.closed.is_empty());
    shard.pass_ms(10_001);
    assert_eq!(shard.closed, [client]);
}

// ---- parking -----------------------------------------------------------------

#[test]
fn a_request_without_a_leader_waits_and_is_then_served() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    let client = shard.connect();
    assert_eq!(shard.send(client, "PING ; SET k v ; GET k"), "+PONG");
    shard.pass_ms(1999);
    assert_eq!(shard.read(client), "");
    shard.lead(4);
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK \"v\"");
}

#[test]
fn a_request_without_a_leader_waits_and_is_then_redirected() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    let client = shard.connect();
    assert_eq!(shard.send(client, "SET k v"), "");
    shard.lose_leadership(3);
    assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7201");
}

#[test]
fn without_a_leader_for_too_long_the_cluster_is_down() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    let client = shard.connect();
    let down = "-CLUSTERDOWN The cluster is down";
    shard.send(client, "SET k v ; SET k w");
    shard.pass_ms(1999);
    assert_eq!(shard.read(client), "");
    shard.pass_ms(1);
    assert_eq!(shard.read(client), format!("{down} {down}"), "the second does not wait as long again");
    assert_eq!(shard.send(client, "SET k v"), down, "that there is no leader is proven");
    assert!(shard.send(client, "CLUSTER INFO").contains("cluster_state:fail"), "and told");
    shard.lose_leadership(3);
    assert!(shard.send(client, "CLUSTER INFO").contains("cluster_state:ok"));
    assert_eq!(shard.send(client, "SET k v"), "-MOVED 7629 127.0.0.1:7201");
    shard.handle(Event::Follow { leader: None });
    assert_eq!(shard.send(client, "SET k v"), "", "the next election is a new one");
}

#[test]
fn after_a_long_time_without_a_leader_requests_wait_for_the_first_entry_of_the_next() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    let client = shard.connect();
    let down = "-CLUSTERDOWN The cluster is down";
    shard.send(client, "SET k v");
    shard.pass_ms(2000);
    assert_eq!(shard.read(client), down);
    shard.handle(Event::Lead { term: 1 });
    assert_eq!(shard.send(client, "SET k v"), "", "it will serve in a moment");
    shard.commit(1, Bytes::new());
    shard.end_turn();
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
    shard.handle(Event::Follow { leader: None });
    shard.handle(Event::Lead { term: 3 });
    shard.send(client, "SET k v");
    shard.pass_ms(2000);
    assert_eq!(shard.read(client), down, "it does not wait for ever");
}

#[test]
fn consensus_knows_of_readers_here_until_none_was_heard_for_a_minute() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.lose_leadership(3);
    let reader = shard.connect();
    assert_eq!(shard.send(reader, "GET k ; PING"), "-MOVED 7629 127.0.0.1:7201 +PONG");
    assert!(shard.readers.is_empty(), "who is sent away reads nothing");
    assert_eq!(shard.send(reader, "READONLY ; GET k ; GET k"), "+OK nil nil");
    assert_eq!(shard.readers, [true], "told at once, and once");
    shard.pass_ms(50_000);
    shard.send(reader, "GET k");
    shard.pass_ms(100);
    shard.pass_ms(60_000);
    assert_eq!(shard.readers, [true]);
    shard.pass_ms(1);
    assert_eq!(shard.readers, [true, false]);
    shard.send(reader, "GET k");
    assert_eq!(shard.readers, [true, false, true]);
    let mut leader = ShardHarness::leading();
    let client = leader.connect();
    leader.send(client, "READONLY ; GET k");
    assert!(leader.readers.is_empty(), "what a leader knows is new");
}

#[test]
fn while_the_leader_does_not_answer_requests_wait_for_the_next() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.lose_leadership(3);
    let client = shard.connect();
    assert_eq!(shard.send(client, "GET k"), "-MOVED 7629 127.0.0.1:7201");
    shard.world.map.borrow_mut().learn_failure(3, true);
    assert_eq!(shard.send(client, "GET k"), "", "its port would refuse the client");
    let reader = shard.connect();
    assert_eq!(shard.send(reader, "READONLY ; GET k"), "+OK nil", "stale reads need no leader");
    shard.lose_leadership(2);
    assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7101");
}

#[test]
fn requests_that_wait_for_a_leader_go_on_when_it_answers_again() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.lose_leadership(3);
    shard.world.map.borrow_mut().learn_failure(3, true);
    let client = shard.connect();
    assert_eq!(shard.send(client, "GET k"), "");
    shard.handle(Event::MapChanged);
    assert_eq!(shard.read(client), "", "still away");
    shard.world.map.borrow_mut().learn_failure(3, false);
    shard.handle(Event::MapChanged);
    assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7201");
}

#[test]
fn clients_are_never_sent_to_a_leader_that_does_not_answer() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "GET x"), "-MOVED 16287 127.0.0.1:7102");
    shard.world.map.borrow_mut().learn_failure(2, true);
    assert_eq!(shard.send(client, "GET x"), "-MOVED 16287 127.0.0.1:7002");
    let slots = shard.send(client, "CLUSTER SLOTS");
    assert!(slots.contains("[:16001, :16383, [\"127.0.0.1\", :7002,"), "{slots}");
    let nodes = shard.send(client, "CLUSTER NODES");
    let line = |port: u16| nodes.split("\\n").find(|line| line.contains(&format!(":{port}@"))).unwrap();
    assert!(line(7002).contains(" master - ") && line(7002).ends_with(" 16001-16383"), "{nodes}");
    assert!(line(7102).contains(" slave,fail "), "{nodes}");
}

#[test]
fn requests_wait_while_too_much_is_in_flight() {
    let settings = ShardSettings { in_flight_bytes_max: 50, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let client = shard.connect();
    shard.send(client, "SET a 0123456789012345678901234567890123456789");
    shard.send(client, "SET b 1");
    assert_eq!(shard.proposals.len(), 1);
    shard.commit_one();
    assert_eq!(shard.read(client), "+OK");
    assert_eq!(shard.proposals.len(), 1);
    shard.commit_one();
    assert_eq!(shard.read(client), "+OK");
}

#[test]
fn without_a_leader_requests_are_answered_whatever_is_still_in_flight() {
    let settings = ShardSettings { in_flight_bytes_max: 50, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let (writer, waiter, late) = (shard.connect(), shard.connect(), shard.connect());
    shard.send(writer, "SET a 0123456789012345678901234567890123456789");
    assert_eq!(shard.send(waiter, "SET b 1"), "", "too much is in flight");
    shard.handle(Event::Follow { leader: None });
    assert_eq!(shard.send(late, "PING ; GET b"), "+PONG", "the next leader may be there soon");
    shard.pass_ms(2000);
    let down = "-CLUSTERDOWN The cluster is down";
    assert_eq!([shard.read(waiter), shard.read(late)], [down, down]);
    assert_eq!(shard.read(writer), "", "nobody knows yet");
}

#[test]
fn a_client_that_leaves_replies_unread_waits_with_its_requests() {
    let settings = ShardSettings { outbox_bytes_full: 10, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let (client, other) = (shard.connect(), shard.connect());
    assert_eq!(shard.send(client, "PING ; PING ; INCR n ; INCR n"), "+PONG +PONG");
    assert_eq!(shard.send(other, "PING"), "+PONG");
    shard.end_turn();
    // Replies that are held count as well.
    shard.commit_all();
    assert_eq!(shard.read(client), ":1 :2");
}

#[test]
fn a_pause_holds_writes_until_it_ends() {
    let mut shard = ShardHarness::leading();
    let (client, operator) = (shard.connect(), shard.connect());
    assert_eq!(shard.send(operator, "CLIENT PAUSE 500 WRITE"), "+OK");
    assert_eq!(shard.send(client, "GET k ; SET k v ; PING"), "nil");
    shard.pass_ms(499);
    assert!(shard.proposals.is_empty());
    shard.pass_ms(1);
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK +PONG");
    shard.send(operator, "CLIENT PAUSE 500 WRITE");
    shard.send(client, "SET k v");
    assert_eq!(shard.send(operator, "CLIENT UNPAUSE"), "+OK");
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
}

// ---- leases ------------------------------------------------------------------

#[test]
fn without_a_lease_a_read_waits_for_a_round() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.world.lease.set(false);
    assert_eq!(shard.send(client, "PING"), "+PONG");
    assert_eq!(shard.send(client, "GET k"), "");
    assert_eq!(shard.rounds.len(), 1);
    assert_eq!(shard.send(client, "PING"), "");
    shard.confirm_rounds();
    assert_eq!(shard.read(client), "nil +PONG");
}

#[test]
fn a_read_that_was_never_confirmed_is_never_sent() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    // The redirect that comes in for the block is shorter than its reply.
    shard.send(client, "SET k 12345678901234567890123456789012345678901234567890");
    shard.send(client, "MULTI ; GET k ; GET k ; GET k ; EXEC");
    shard.world.lease.set(false);
    shard.send(client, "GET {k}other");
    shard.lose_leadership(2);
    shard.commit(2, Bytes::new());
    let moved = "-MOVED 7629 127.0.0.1:7101";
    assert_eq!(shard.read(client), format!("{moved} +OK +QUEUED +QUEUED +QUEUED {moved} {moved}"));
    shard.confirm_rounds();
    shard.pass_ms(1);
    assert_eq!((shard.read(client), shard.closed.len()), (String::new(), 0));
}

#[test]
fn a_read_that_was_not_confirmed_in_time_waits_for_the_new_leader() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.world.lease.set(false);
    shard.send(client, "GET k");
    shard.handle(Event::Follow { leader: None });
    shard.pass_ms(500);
    assert_eq!(shard.read(client), "");
    shard.lose_leadership(2);
    assert_eq!(shard.read(client), "-MOVED 7629 127.0.0.1:7101");
}

#[test]
fn a_read_that_nobody_can_confirm_is_told_that_there_is_no_leader() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.world.lease.set(false);
    shard.send(client, "GET k");
    shard.handle(Event::Follow { leader: None });
    shard.pass_ms(1);
    shard.pass_ms(2000);
    assert_eq!(shard.read(client), "");
    shard.pass_ms(1);
    assert_eq!(shard.read(client), "-CLUSTERDOWN The cluster is down");
    assert!(shard.closed.is_empty());
}

#[test]
fn an_unconfirmed_read_that_published_is_no_redirect() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.world.lease.set(false);
    let other = shard.connect();
    assert_eq!(shard.send(other, "PUBLISH channel message"), ":0", "any replica may");
    shard.send(client, "MULTI ; GET k ; PUBLISH channel message ; EXEC");
    assert_eq!(shard.published.len(), 2);
    shard.lose_leadership(2);
    assert_eq!(shard.closed, [client]);
}

#[test]
fn a_leader_without_a_lease_shows_no_time_that_its_successor_may_have_passed() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "TIME");
    shard.commit_all();
    let shown = shard.read(client);
    assert_ne!(shown, "");
    assert_eq!(shard.send(client, "TIME"), shown, "a stamp covers it, and the lease");
    shard.world.lease.set(false);
    assert_eq!(shard.send(client, "TIME"), "", "a stamp covers it, but there may be another leader");
    assert_eq!(shard.send(client, "MULTI ; TIME ; EXEC"), "");
    shard.confirm_rounds();
    assert_eq!(shard.read(client), format!("{shown} +OK +QUEUED [{shown}]"));
}

#[test]
fn a_write_needs_no_lease() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.world.lease.set(false);
    shard.send(client, "SET k v");
    assert!(shard.rounds.is_empty());
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
}

#[test]
fn read_index_asks_for_a_round_though_there_is_a_lease() {
    let settings = ShardSettings { read_index: true, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let client = shard.connect();
    assert_eq!(shard.send(client, "GET k"), "");
    shard.confirm_rounds();
    assert_eq!(shard.read(client), "nil");
}

// ---- routing -----------------------------------------------------------------

#[test]
fn keys_of_other_shards_are_redirected() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "GET x"), "-MOVED 16287 127.0.0.1:7102");
    assert_eq!(shard.send(client, "WATCH a b"), "-CROSSSLOT Keys in request don't hash to the same slot");
}

#[test]
fn a_follower_serves_reads_to_those_who_ask_for_it() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.lose_leadership(2);
    shard.commit(1, batch(&[put(b"k", b"v")]));
    let client = shard.connect();
    assert_eq!(shard.send(client, "GET k"), "-MOVED 7629 127.0.0.1:7101");
    assert_eq!(shard.send(client, "READONLY ; GET k"), "+OK \"v\"");
    assert_eq!(shard.send(client, "MULTI ; GET k ; EXEC"), "+OK +QUEUED [\"v\"]");
    assert_eq!(shard.send(client, "WATCH k ; UNWATCH"), "+OK +OK");
    assert_eq!(shard.send(client, "SET k w"), "-MOVED 7629 127.0.0.1:7101");
    assert_eq!(shard.send(client, "READWRITE ; GET k"), "+OK -MOVED 7629 127.0.0.1:7101");
}

// ---- transactions ------------------------------------------------------------

#[test]
fn a_block_is_one_batch_and_one_reply() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let block = "MULTI ; SET {k}1 a ; INCRBY {k}1 1 ; INCRBY {k}2 1 ; GET {k}1 ; EXEC";
    assert_eq!(shard.send(client, block), "+OK +QUEUED +QUEUED +QUEUED +QUEUED");
    assert_eq!(shard.proposals.len(), 1);
    shard.commit_all();
    let error = "-ERR value is not an integer or out of range";
    assert_eq!(shard.read(client), format!("[+OK, {error}, :1, \"a\"]"));
}

#[test]
fn a_refused_request_breaks_the_block() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    for (request, refusal) in [
        ("GET x", "-MOVED 16287 127.0.0.1:7102"),
        ("WATCH a b", "-CROSSSLOT Keys in request don't hash to the same slot"),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("NONE a", "-ERR unknown command 'NONE', with args beginning with: 'a' "),
    ] {
        let block = format!("MULTI ; PING ; {request} ; EXEC");
        assert_eq!(shard.send(client, &block), format!("+OK +QUEUED {refusal} {aborted}"));
    }
    assert!(shard.proposals.is_empty());
    assert_eq!(shard.send(client, "EXEC"), "-ERR EXEC without MULTI");
    assert_eq!(
        shard.send(client, "MULTI ; MULTI ; DISCARD ; DISCARD"),
        "+OK -ERR MULTI calls can not be nested +OK -ERR DISCARD without MULTI"
    );
}

#[test]
fn a_refused_exec_ends_the_block() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let block = "MULTI ; SET k v ; SET other v ; EXEC ; EXEC";
    let refusal = "-CROSSSLOT Keys in request don't hash to the same slot";
    let ended = "-ERR EXEC without MULTI";
    assert_eq!(shard.send(client, block), format!("+OK +QUEUED +QUEUED {refusal} {ended}"));

    let block = "WATCH k ; MULTI ; SET k v ; EXEC now ; EXEC";
    let refusal = "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command";
    assert_eq!(shard.send(client, block), format!("+OK +OK +QUEUED {refusal} {ended}"));

    let listens = "[\"subscribe\", \"c\", :1]";
    let refusal = "-EXECABORT Transaction discarded because of: Can't execute 'exec': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
    assert_eq!(shard.send(client, "SUBSCRIBE c ; EXEC"), format!("{listens} {refusal}"));
    assert!(shard.proposals.is_empty());
}

#[test]
fn a_script_may_call_what_needs_no_session() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let mut eval = |script: &str| shard.send_words(client, &[b"EVAL", script.as_bytes(), b"0"]);
    assert_eq!(eval("return redis.call('PING')"), "+PONG");
    assert_eq!(eval("return redis.call('PING', 'hi')"), "\"hi\"");
    assert_eq!(eval("return redis.call('ECHO', 'hi')"), "\"hi\"");
    assert_eq!(eval("return redis.call('SELECT', 0)"), "+OK");
    assert_eq!(eval("return redis.call('READONLY')"), "+OK");
    let refused = eval("return redis.call('CLIENT', 'ID')");
    assert!(refused.starts_with("-ERR This Redis command is not allowed from script"), "{refused}");
    // What the clock said must be committed before it is told.
    assert_eq!(eval("return #redis.call('TIME')"), "");
    shard.commit_all();
    assert_eq!(shard.read(client), ":2");
}

#[test]
fn what_needs_no_data_is_answered_without_a_leader() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.handle(Event::Follow { leader: None });
    let client = shard.connect();
    assert_eq!(shard.send(client, "PING ; ECHO hi ; SELECT 0"), "+PONG \"hi\" +OK");
}

#[test]
fn a_redirected_exec_ends_the_block() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "WATCH k ; MULTI ; SET k v"), "+OK +OK +QUEUED");
    shard.lose_leadership(2);
    assert_eq!(shard.send(client, "EXEC"), "-MOVED 7629 127.0.0.1:7101");
    assert_eq!(shard.send(client, "EXEC"), "-ERR EXEC without MULTI");
    assert!(shard.proposals.is_empty());
}

#[test]
fn exec_fails_if_a_watched_key_changed() {
    let mut shard = ShardHarness::leading();
    let (client, other) = (shard.connect(), shard.connect());
    shard.send(client, "WATCH k ; MULTI ; SET k mine");
    shard.send(other, "SET k theirs");
    assert_eq!(shard.send(client, "EXEC"), "nil");
    shard.commit_all();
    // A change before WATCH is none, nor is one after UNWATCH.
    shard.send(client, "WATCH k ; MULTI ; SET k mine ; EXEC");
    shard.commit_all();
    assert_eq!(shard.read(client), "[+OK]");
    shard.send(client, "WATCH k ; UNWATCH ; MULTI");
    shard.send(other, "SET k theirs");
    shard.send(client, "GET k ; EXEC");
    shard.commit_all();
    assert_eq!(shard.read(client), "[\"theirs\"]");
}

#[test]
fn exec_fails_if_leadership_was_lost_and_regained_with_a_change() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "WATCH k ; MULTI ; SET k mine");
    shard.lose_leadership(2);
    shard.commit(2, batch(&[put(b"k", b"theirs")]));
    shard.lead(3);
    assert_eq!(shard.send(client, "EXEC"), "nil");
}

#[test]
fn exec_fails_if_a_value_seen_was_taken_back() {
    let mut shard = ShardHarness::leading();
    let (client, other) = (shard.connect(), shard.connect());
    shard.send(other, "SET k lost");
    shard.send(client, "WATCH k");
    shard.lose_leadership(2);
    shard.commit(2, Bytes::new());
    shard.lead(3);
    assert_eq!(shard.send(client, "MULTI ; SET k v ; EXEC"), "+OK +QUEUED nil");
    // Without any change in between it would not have failed.
    shard.send(client, "WATCH k ; MULTI ; SET k v");
    shard.lose_leadership(2);
    shard.lead(5);
    shard.send(client, "EXEC");
    shard.commit_all();
    assert!(shard.read(client).ends_with("[+OK]"));
}

#[test]
fn an_installed_snapshot_breaks_every_watch() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "WATCH k ; MULTI ; SET k v");
    shard.lose_leadership(2);
    let slots = Effect::AssignSlots { first: 0, last: LAST_OWN_SLOT };
    shard.handle(Event::InstallSnapshot { index: 50, term: 2, chunks: vec![batch(&[slots])] });
    shard.lead(3);
    assert_eq!(shard.send(client, "EXEC"), "nil");
}

// ---- messages ----------------------------------------------------------------

#[test]
fn a_message_leaves_when_its_block_is_committed() {
    let mut shard = ShardHarness::leading();
    let (listener, client) = (shard.connect(), shard.connect());
    assert_eq!(shard.send(listener, "SUBSCRIBE c"), "[\"subscribe\", \"c\", :1]");
    assert_eq!(
        shard.send(listener, "PSUBSCRIBE c* d*"),
        "[\"psubscribe\", \"c*\", :2] [\"psubscribe\", \"d*\", :3]"
    );
    shard.send(client, "MULTI ; SET k v ; PUBLISH c m ; EXEC");
    assert_eq!(shard.read(listener), "");
    shard.commit_all();
    assert_eq!(shard.read(listener), "[\"message\", \"c\", \"m\"] [\"pmessage\", \"c*\", \"c\", \"m\"]");
    assert_eq!(shard.read(client), "[+OK, :2]");
    // One without a change leaves at once.
    assert_eq!(shard.send(client, "PUBLISH d m"), ":1");
    assert_eq!(shard.read(listener), "[\"pmessage\", \"d*\", \"d\", \"m\"]");
}

#[test]
fn a_message_of_a_lost_block_is_never_sent() {
    let mut shard = ShardHarness::leading();
    let (listener, client) = (shard.connect(), shard.connect());
    shard.send(listener, "SUBSCRIBE c");
    shard.send(client, "MULTI ; SET k v ; PUBLISH c m ; EXEC");
    shard.lose_leadership(2);
    shard.commit(2, Bytes::new());
    shard.lead(3);
    assert_eq!(shard.read(listener), "");
    assert!(shard.published.is_empty());
}

#[test]
fn a_shard_channel_is_heard_at_every_replica_of_its_shard() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.lose_leadership(2);
    let (listener, client) = (shard.connect(), shard.connect());
    assert_eq!(shard.send(listener, "SSUBSCRIBE x"), "-MOVED 16287 127.0.0.1:7102");
    assert_eq!(
        shard.send(listener, "SSUBSCRIBE a b"),
        "-CROSSSLOT Keys in request don't hash to the same slot"
    );
    assert_eq!(shard.send(listener, "SSUBSCRIBE k"), "[\"ssubscribe\", \"k\", :1]");
    assert_eq!(shard.send(client, "PUBLISH k other ; SPUBLISH k m"), ":0 :1");
    assert_eq!(shard.read(listener), "[\"smessage\", \"k\", \"m\"]");
    assert_eq!(shard.send(listener, "SUNSUBSCRIBE"), "[\"sunsubscribe\", \"k\", :0]");
    assert_eq!(shard.send(client, "SPUBLISH k m"), ":0");
}

#[test]
fn a_listening_connection_may_do_little_unless_it_speaks_resp3() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SUBSCRIBE c");
    let refusal = "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
    assert_eq!(shard.send(client, "GET k"), refusal);
    assert!(shard.send(client, "PUBLISH c m").starts_with("-ERR Can't execute 'publish'"));
    assert_eq!(shard.send(client, "PING ; PING m"), "[\"pong\", \"\"] [\"pong\", \"m\"]");
    assert_eq!(
        shard.send(client, "UNSUBSCRIBE d c ; UNSUBSCRIBE ; GET k"),
        "[\"unsubscribe\", \"d\", :1] [\"unsubscribe\", \"c\", :0] [\"unsubscribe\", nil, :0] nil"
    );
    shard.send(client, "HELLO 3");
    assert_eq!(shard.send(client, "SUBSCRIBE c ; GET k ; PING"), ">[\"subscribe\", \"c\", :1] nil +PONG");
}

#[test]
fn pubsub_tells_who_listens() {
    let mut shard = ShardHarness::leading();
    let (one, two) = (shard.connect(), shard.connect());
    shard.send(one, "SUBSCRIBE news ; PSUBSCRIBE n* ; SSUBSCRIBE k");
    shard.send(two, "HELLO 3");
    shard.send(two, "SUBSCRIBE news old ; PSUBSCRIBE n*");
    assert_eq!(shard.send(two, "PUBSUB CHANNELS"), "[\"news\", \"old\"]");
    assert_eq!(shard.send(two, "PUBSUB CHANNELS o*"), "[\"old\"]");
    assert_eq!(shard.send(two, "PUBSUB NUMSUB news none"), "[\"news\", :2, \"none\", :0]");
    assert_eq!(shard.send(two, "PUBSUB NUMPAT"), ":1");
    assert_eq!(shard.send(two, "PUBSUB SHARDCHANNELS ; PUBSUB SHARDNUMSUB k"), "[\"k\"] [\"k\", :1]");
    shard.shard.disconnect(one);
    assert_eq!(shard.send(two, "PUBSUB NUMSUB news ; PUBSUB SHARDCHANNELS"), "[\"news\", :1] []");
}

// ---- the connection ----------------------------------------------------------

#[test]
fn reset_brings_a_connection_back_to_its_start() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "HELLO 3 SETNAME me ; READONLY ; WATCH k ; SUBSCRIBE c ; MULTI ; SET k v");
    assert_eq!(shard.send(client, "RESET"), "+RESET");
    assert_eq!(shard.send(client, "EXEC ; CLIENT GETNAME"), "-ERR EXEC without MULTI nil");
    assert_eq!(shard.send(client, "PUBSUB CHANNELS ; CONFIG GET maxmemory"), "[] [\"maxmemory\", \"0\"]");
    assert!(shard.send(client, "CLIENT INFO").contains(" flags=N "));
}

#[test]
fn quit_is_answered_after_all_before_it_and_then_closes() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "SET k v ; QUIT ; SET k w"), "");
    assert!(!shard.shard.should_close(client));
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK +OK");
    assert!(shard.shard.should_close(client));
    let other = shard.connect();
    assert_eq!(shard.send(other, "GET k"), "\"v\"");
}

#[test]
fn hello_answers_in_the_protocol_it_sets() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let facts = |number: u32| {
        format!(
            "\"server\": \"redis\", \"version\": \"7.2.4\", \"proto\": :{number}, \"id\": :1, \"mode\": \"cluster\", \"role\": \"master\", \"modules\": []"
        )
    };
    assert_eq!(shard.send(client, "HELLO"), format!("[{}]", facts(2).replace("\": ", "\", ")));
    assert_eq!(shard.send(client, "HELLO 3 AUTH default any SETNAME me"), format!("{{{}}}", facts(3)));
    assert_eq!(shard.send(client, "CLIENT GETNAME ; GET none"), "\"me\" nil");
    for (request, refusal) in [
        ("HELLO x", "-ERR Protocol version is not an integer or out of range"),
        ("HELLO 4", "-NOPROTO unsupported protocol version"),
        ("HELLO 3 FOO", "-ERR Syntax error in HELLO option 'FOO'"),
        ("HELLO 3 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'"),
        ("HELLO 2 AUTH nobody x", "-WRONGPASS invalid username-password pair or user is disabled."),
        ("CLIENT MAINT_NOTIFICATIONS ON", "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP."),
        ("SELECT 1", "-ERR SELECT is not allowed in cluster mode"),
    ] {
        assert_eq!(shard.send(client, request), refusal);
    }
    let bad_name = shard.send_words(client, &[b"CLIENT", b"SETNAME", b"a b"]);
    assert_eq!(bad_name, "-ERR Client names cannot contain spaces, newlines or special characters.");
    let bad_library = shard.send_words(client, &[b"client", b"setinfo", b"lib-ver", b"1\n"]);
    assert_eq!(bad_library, "-ERR lib-ver cannot contain spaces, newlines or special characters.");
    assert_eq!(shard.send(client, "SELECT 0 ; CLIENT SETINFO lib-name py ; CLIENT ID"), "+OK +OK :1");
}

#[test]
fn replies_can_be_switched_off() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "CLIENT REPLY SKIP ; PING ; ECHO a"), "\"a\"");
    assert_eq!(
        shard.send(client, "CLIENT REPLY OFF ; PING ; SET k v ; SUBSCRIBE c"),
        "[\"subscribe\", \"c\", :1]"
    );
    assert_eq!(shard.send(client, "UNSUBSCRIBE c ; CLIENT REPLY ON"), "[\"unsubscribe\", \"c\", :0] +OK");
    // A lost write that was not to be answered is not.
    shard.send(client, "CLIENT REPLY OFF ; SET k v");
    shard.lose_leadership(2);
    shard.commit(2, Bytes::new());
    assert_eq!(shard.read(client), "");
}

#[test]
fn connections_are_listed_and_killed() {
    let mut shard = ShardHarness::leading();
    let (one, two) = (shard.connect(), shard.connect());
    shard.send(one, "CLIENT SETNAME one ; CLIENT SETINFO LIB-VER 1.2");
    let list = shard.send(two, "CLIENT LIST");
    assert_eq!(list.matches("\\n").count(), 2);
    assert!(list.contains("id=1 addr=127.0.0.1:50000 laddr=127.0.0.1:7001 fd=0 name=one age=0"));
    assert!(list.contains("cmd=client|setinfo user=default redir=-1 resp=2 lib-name= lib-ver=1.2"));
    assert!(shard.send(two, "CLIENT LIST ID 2").contains("cmd=client|list"));
    assert_eq!(shard.send(two, "CLIENT LIST TYPE pubsub"), "\"\"");
    assert_eq!(shard.send(two, "CLIENT KILL 1.1.1.1:1"), "-ERR No such client");
    assert_eq!(shard.send(two, "CLIENT KILL ID 2"), ":0");
    assert_eq!(shard.send(two, "CLIENT KILL TYPE normal"), ":1");
    assert_eq!(shard.closed, [one]);
    assert_eq!(shard.send(two, "CLIENT KILL ID 2 SKIPME no"), ":1");
    assert!(shard.shard.should_close(two));
}

// ---- cluster and server ------------------------------------------------------

#[test]
fn the_cluster_is_shown_from_the_leader() {
    let mut shard = ShardHarness::leading();
    shard.world.map.borrow_mut().learn_failure(3, true);
    let client = shard.connect();
    let id = |port: u16| format!("{port:040}");
    let nodes = format!(
        "{a} 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-16000\n\
         {b} 127.0.0.1:7101@17002 slave {a} 0 0 1 connected\n\
         {c} 127.0.0.1:7201@17003 slave,fail {a} 0 0 1 disconnected\n\
         {d} 127.0.0.1:7002@17001 slave {e} 0 0 1 connected\n\
         {e} 127.0.0.1:7102@17002 master - 0 0 1 connected 16001-16383\n\
         {f} 127.0.0.1:7202@17003 slave,fail {e} 0 0 1 disconnected\n",
        a = id(7001),
        b = id(7101),
        c = id(7201),
        d = id(7002),
        e = id(7102),
        f = id(7202),
    );
    assert_eq!(shard.send(client, "CLUSTER NODES"), format!("\"{}\"", nodes.escape_debug()));
    let node = |port: u16| format!("[\"127.0.0.1\", :{port}, \"{}\", []]", id(port));
    assert_eq!(
        shard.send(client, "CLUSTER SLOTS"),
        format!(
            "[[:0, :16000, {}, {}], [:16001, :16383, {}, {}]]",
            node(7001),
            node(7101),
            node(7102),
            node(7002)
        )
    );
    let info = shard.send(client, "CLUSTER INFO");
    for line in ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:6", "cluster_size:2"] {
        assert!(info.contains(line), "{info}");
    }
    assert_eq!(shard.send(client, "CLUSTER MYID ; CLUSTER KEYSLOT foo"), format!("\"{}\" :12182", id(7001)));
    let shards = shard.send(client, "CLUSTER SHARDS");
    assert!(shards.starts_with("[[\"slots\", [:0, :16000], \"nodes\", [[\"id\", "), "{shards}");
    assert_eq!(shards.matches("\"health\", \"fail\"").count(), 2);
    assert_eq!(shards.matches("\"role\", \"master\"").count(), 2);
    assert_eq!(shard.send(client, "CLUSTER REPLICAS x"), "-ERR Unknown node x");
    let replicas = shard.send(client, &format!("CLUSTER REPLICAS {}", id(7102)));
    assert_eq!(replicas.matches("slave").count(), 2);
}

#[test]
fn a_shard_without_a_known_leader_leaves_no_hole() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.world.map.borrow_mut().shards.values_mut().for_each(|shard| shard.leader = None);
    let client = shard.connect();
    let nodes = shard.send(client, "CLUSTER NODES");
    assert_eq!(nodes.matches("master").count(), 2);
    assert!(nodes.contains("connected 0-16000") && nodes.contains("connected 16001-16383"));
    for node in [2, 3] {
        shard.world.map.borrow_mut().learn_failure(node, true);
    }
    let info = shard.send(client, "CLUSTER INFO");
    assert!(info.contains("cluster_state:fail") && info.contains("cluster_slots_fail:16384"), "{info}");
}

#[test]
fn keys_of_a_slot_are_counted_once_they_are_committed() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SET k v");
    assert_eq!(shard.send(client, "CLUSTER COUNTKEYSINSLOT 7629 ; CLUSTER GETKEYSINSLOT 7629 9"), "");
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK :1 [\"k\"]");
    assert_eq!(shard.send(client, "CLUSTER COUNTKEYSINSLOT 16384"), "-ERR Invalid slot");
}

#[test]
fn wait_is_answered_after_the_writes_before_it() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "WAIT 1 100"), ":1");
    assert_eq!(shard.send(client, "SET k v ; WAIT 1 100"), "");
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK :1");
    assert_eq!(shard.send(client, "WAIT 1 -1"), "-ERR timeout is negative");
    assert_eq!(shard.send(client, "WAITAOF 1 1 -1"), "-ERR timeout is negative");
    assert_eq!(shard.send(client, "WAITAOF 2 1 0"), "-ERR value is out of range, value must between 0 and 1");
    assert_eq!(shard.send(client, "WAITAOF 1 -1 0"), "-ERR value is out of range, must be positive");
    assert_eq!(shard.send(client, "WAITAOF 0 1 0"), "[:1, :1]");
    shard.lose_leadership(2);
    assert!(shard.send(client, "WAIT 1 0").starts_with("-ERR WAIT cannot be used with replica instances."));
}

#[test]
fn info_and_role_tell_leaders_from_followers() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SET k v ; GET k ; GET none ; NONE");
    shard.commit_all();
    shard.read(client);
    let info = shard.send(client, "INFO");
    for line in [
        "# Server\\r\\nredis_version:7.2.4\\r\\n",
        "role:master\\r\\nconnected_slaves:2\\r\\nslave0:ip=127.0.0.1,port=7101,state=online,offset=2,lag=0",
        "keyspace_hits:1\\r\\nkeyspace_misses:1\\r\\n",
        "maxmemory_policy:noeviction",
        "errorstat_ERR:count=1",
        "cluster_enabled:1",
        "db0:keys=1,expires=0,avg_ttl=0",
    ] {
        assert!(info.contains(line), "{line} is not in {info}");
    }
    assert!(!info.contains("cmdstat_"));
    let stats = shard.send(client, "INFO commandstats cpu");
    assert!(stats.starts_with("\"# CPU\\r\\n") && stats.contains("cmdstat_get:calls=2,usec="), "{stats}");
    assert_eq!(
        shard.send(client, "ROLE"),
        "[\"master\", :2, [[\"127.0.0.1\", \"7101\", \"2\"], [\"127.0.0.1\", \"7201\", \"2\"]]]"
    );
    assert_eq!(shard.send(client, "CONFIG RESETSTAT"), "+OK");
    assert!(shard.send(client, "INFO stats").contains("keyspace_hits:0"));
    shard.lose_leadership(2);
    shard.world.map.borrow_mut().learn_leader(0, 2, 2);
    assert_eq!(shard.send(client, "ROLE"), "[\"slave\", \"127.0.0.1\", :7101, \"connected\", :2]");
    let info = shard.send(client, "INFO replication");
    assert!(info.contains("role:slave\\r\\nmaster_host:127.0.0.1\\r\\nmaster_port:7101"), "{info}");
}

#[test]
fn settings_are_read_and_changed() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(
        shard.send(client, "CONFIG SET maxmemory 100 ; CONFIG GET max* *memory"),
        "+OK [\"maxmemory\", \"100\", \"maxmemory-policy\", \"noeviction\"]"
    );
    for (request, refusal) in [
        ("CONFIG SET maxmemory 1 b", "-ERR syntax error"),
        ("CONFIG SET none 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'none'"),
        ("CONFIG REWRITE", "-ERR The server is running without a config file"),
    ] {
        assert_eq!(shard.send(client, request), refusal);
    }
}

/// A snapshot does not tell which batches are in it: a redirect would make the
/// client do twice what was done. Found by the simulator.
#[test]
fn an_installed_snapshot_settles_nothing() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "INCR n"), "");
    shard.lose_leadership(2);
    let (index, term) = shard.shard.applied();
    let slots = Effect::AssignSlots { first: 0, last: LAST_OWN_SLOT };
    let chunks = vec![batch(&[slots, put(b"n", b"1")])];
    shard.handle(Event::InstallSnapshot { index: index + 9, term: term + 1, chunks });
    assert_eq!(shard.read(client), "");
    assert_eq!(shard.closed, [client]);
}

#[test]
fn short_memory_refuses_what_needs_more() {
    let mut shard = ShardHarness::leading_with(ShardSettings { memory_bytes_max: 1, ..Default::default() });
    let client = shard.connect();
    shard.handle(Event::Tick);
    let refused = "-OOM command not allowed when used memory > 'maxmemory'.";
    assert_eq!(shard.send(client, "SET k v ; GET k ; DEL k"), format!("{refused} nil :0"));
    // What is taken decides, at once: no tick passes.
    shard.world.used_bytes.set(1);
    shard.send(client, "SET k v");
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
    shard.world.used_bytes.set(2);
    assert_eq!(shard.send(client, "SET k v"), refused);
    shard.shard.reconfigure(|settings| settings.memory_bytes_max = u64::MAX);
    shard.send(client, "SET k v");
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
}

// ---- WAIT -------------------------------------------------------------------

#[test]
fn more_followers_than_a_majority_are_waited_for() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "SET k v ; WAIT 2 0 ; PING"), "");
    assert!(shard.followers_watched);
    shard.commit_all();
    let index = shard.shard.applied().0;
    assert_eq!(shard.read(client), "+OK");
    shard.handle(Event::Followers { term: 1, matched: vec![index, index - 1] });
    shard.handle(Event::Followers { term: 9, matched: vec![index, index] });
    shard.pass_ms(60_000);
    assert_eq!(shard.read(client), "");
    shard.handle(Event::Followers { term: 1, matched: vec![index, index] });
    assert_eq!(shard.read(client), ":2 +PONG");
    assert!(!shard.followers_watched);
}

#[test]
fn a_wait_ends_with_its_time_and_tells_what_there_is() {
    let mut shard = ShardHarness::leading();
    let (client, other) = (shard.connect(), shard.connect());
    assert_eq!(shard.send(client, "WAIT 3 1000"), "");
    let index = shard.shard.applied().0;
    shard.handle(Event::Followers { term: 1, matched: vec![index, index] });
    assert!(shard.send(other, "CLIENT LIST").contains("flags=b "));
    shard.pass_ms(999);
    assert_eq!(shard.read(client), "");
    shard.pass_ms(1);
    assert_eq!(shard.read(client), ":2");
    assert_eq!(shard.send(client, "WAITAOF 1 3 10"), "");
    shard.pass_ms(10);
    assert_eq!(shard.read(client), "[:1, :2]");
    // What is not committed no follower has for good.
    assert_eq!(shard.send(client, "SET k v ; WAIT 2 100"), "");
    shard.pass_ms(100);
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK :0");
}

#[test]
fn a_wait_outlives_an_election_but_not_another_leader() {
    let mut shard = ShardHarness::leading();
    let (client, other) = (shard.connect(), shard.connect());
    shard.send(client, "WAIT 2 0");
    shard.handle(Event::Follow { leader: None });
    shard.lead(2);
    assert_eq!(shard.read(client), "");
    shard.handle(Event::Followers { term: 2, matched: vec![9, 9] });
    assert_eq!(shard.read(client), ":2");
    shard.send(client, "WAIT 2 0");
    shard.send(other, "WAIT 3 0");
    shard.shard.disconnect(other);
    shard.lose_leadership(2);
    assert!(shard.read(client).starts_with("-UNBLOCKED force unblock from blocking operation"));
    assert!(!shard.followers_watched);
}

#[test]
fn a_blocked_client_is_unblocked_by_another() {
    let mut shard = ShardHarness::leading();
    let (client, other) = (shard.connect(), shard.connect());
    let number = shard.send(client, "CLIENT ID").trim_start_matches(':').to_owned();
    for (reason, answer) in [("", ":0"), ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK")] {
        shard.send(client, "WAIT 2 0");
        let request = format!("CLIENT UNBLOCK {number} {reason}");
        assert_eq!(shard.send(other, request.trim()), ":1");
        assert_eq!(shard.read(client), answer);
    }
    assert_eq!(shard.send(other, &format!("CLIENT UNBLOCK {number}")), ":0");
}

#[test]
fn a_block_of_requests_never_waits() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "MULTI ; WAIT 2 0 ; EXEC"), "+OK +QUEUED [:1]");
}

// ---- scripts ----------------------------------------------------------------

#[test]
fn a_follower_takes_a_script_that_is_sent_to_every_node() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    let (client, reader) = (shard.connect(), shard.connect());
    let text = b"return ARGV[1]";
    let name = b"098e0f0d1448c0a81dafe820f66d460eb09263da";
    let shown = format!("\"{}\"", name.escape_ascii());
    assert_eq!(shard.send_words(client, &[b"SCRIPT", b"LOAD", text]), "", "it waits: nobody leads");
    shard.lose_leadership(2);
    shard.commit(1, Bytes::new());
    assert_eq!(shard.read(client), shown);
    assert_eq!(shard.send_words(client, &[b"SCRIPT", b"EXISTS", name]), "[:1]");
    shard.send(reader, "READONLY");
    assert_eq!(shard.send_words(reader, &[b"EVALSHA_RO", name, b"1", b"k", b"hello"]), "\"hello\"");
    // It leads now, and nobody who led before was asked.
    shard.lead(2);
    assert_eq!(shard.send_words(client, &[b"EVALSHA", name, b"1", b"k", b"hello"]), "\"hello\"");
    assert!(shard.proposals.is_empty(), "what a follower took is not replicated");
}

#[test]
fn a_follower_forgets_what_it_took_itself() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.lose_leadership(2);
    shard.commit(1, batch(&[Effect::ScriptLoad { text: b"return 2" }]));
    let client = shard.connect();
    let load = |shard: &mut ShardHarness, text: &[u8]| {
        let name = shard.send_words(client, &[b"SCRIPT", b"LOAD", text]);
        name.trim_matches('"').to_owned()
    };
    let (own, loaded) = (load(&mut shard, b"return 1"), load(&mut shard, b"return 2"));
    let known = format!("SCRIPT EXISTS {own} {loaded}");
    assert_eq!(shard.send(client, &known), "[:1, :1]");
    assert_eq!(shard.send(client, "SCRIPT FLUSH"), "+OK");
    assert_eq!(shard.send(client, &known), "[:0, :1]", "the leader was not asked");
    // What is loaded here stays, though it is loaded already and the leader had forgotten it just before.
    load(&mut shard, b"return 2");
    shard.commit(1, batch(&[Effect::ScriptFlush]));
    assert_eq!(shard.send(client, &known), "[:0, :1]");
}

#[test]
fn a_script_reaches_what_is_about_the_server() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let mut eval = |text: &str| shard.send_words(client, &[b"EVAL", text.as_bytes(), b"0"]);
    assert_eq!(eval("return redis.call('cluster', 'keyslot', 'k')"), ":7629");
    assert_eq!(eval("return redis.call('cluster', 'myid')"), format!("\"{:040}\"", 7001));
    assert!(eval("return redis.call('info', 'server')").contains("redis_version:"));
    assert_eq!(eval("return redis.call('pubsub', 'numpat')"), ":0");
    assert_eq!(eval("return redis.call('ping')"), "+PONG");
    assert_eq!(eval("return redis.call('readonly')"), "+OK");
    for refused in ["'client', 'id'", "'config', 'get', 'x'", "'role'", "'multi'"] {
        let reply = eval(&format!("return redis.call({refused})"));
        assert!(reply.starts_with("-ERR This Redis command is not allowed from script"), "{reply}");
    }
    // What a script did to its own modes is gone with it.
    assert!(shard.send(client, "CLIENT LIST").contains("flags=N "));
}

#[test]
fn copies_of_one_unit_are_bounded() {
    let settings = ShardSettings { unit_copied_bytes_max: 10_000, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let client = shard.connect();
    shard.send_words(client, &[b"SET", b"{k}", &[b'v'; 3_000]]);
    shard.commit_all();
    shard.read(client);
    let refused =
        "-ERR the changes of this request exceed max-unit-copied-bytes (10000); nothing was changed";
    let script = "for i = 1, 1e9 do redis.pcall('COPY', KEYS[1], KEYS[1] .. i) end";
    shard.send_words(client, &[b"EVAL", script.as_bytes(), b"1", b"{k}"]);
    shard.commit_all();
    assert_eq!(shard.read(client), refused);
    let copies = "COPY {k} {k}1 ; COPY {k} {k}2 ; COPY {k} {k}3 ; COPY {k} {k}4";
    let queued = "+OK +QUEUED +QUEUED +QUEUED +QUEUED";
    let received = shard.send(client, &format!("MULTI ; {copies} ; EXEC"));
    shard.commit_all();
    assert_eq!([received, shard.read(client)].join(" ").trim(), format!("{queued} {refused}"));
    for (request, reply) in [("SETRANGE {k}gap 20000 x", refused), ("DBSIZE", ":1"), ("COPY {k} {k}1", ":1")]
    {
        let received = shard.send(client, request);
        shard.commit_all();
        assert_eq!([received, shard.read(client)].concat(), reply);
    }
}

#[test]
fn a_batch_that_comes_in_parts_is_applied_with_its_last() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.handle(Event::Follow { leader: Some(2) });
    let (data, index) = (batch(&[put(b"k", &[b'v'; 100])]), shard.shard.applied().0);
    let part =
        |number: u64, data: Bytes, more| super::CommittedEntry { index: index + number, term: 1, data, more };
    let first = part(1, data.slice(..20), true);
    let entries = vec![first, part(2, data.slice(20..50), true), part(3, data.slice(50..), false)];
    shard.handle(Event::Committed(entries));
    assert_eq!(shard.shard.applied(), (index + 3, 1));
    assert!(shard.shard.keyspace().get(b"k").is_some());
}

#[test]
fn parts_of_a_leader_that_was_lost_are_not_joined_with_the_next_batch() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.handle(Event::Follow { leader: Some(2) });
    let (lost, next) = (batch(&[put(b"lost", b"v")]), batch(&[put(b"next", b"v")]));
    let index = shard.shard.applied().0;
    let entry = |number: u64, term, data: &Bytes, more| {
        vec![super::CommittedEntry { index: index + number, term, data: data.clone(), more }]
    };
    let none = Bytes::new();
    // A change of members ended between two parts: they did not come together.
    shard
        .handle(Event::Committed([entry(1, 1, &lost.slice(..10), true), entry(2, 1, &none, false)].concat()));
    assert!(shard.snapshots.is_empty());
    shard.handle(Event::TakeSnapshot);
    shard.walk(1000);
    assert!(shard.snapshots.is_empty(), "between two parts there is no state");
    shard.handle(Event::Committed(entry(3, 2, &next, false)));
    assert!(shard.shard.keyspace().get(b"next").is_some());
    assert!(shard.shard.keyspace().get(b"lost").is_none());
    shard
        .handle(Event::Committed([entry(4, 2, &lost.slice(..10), true), entry(5, 2, &none, false)].concat()));
    shard.handle(Event::Committed(entry(6, 2, &lost.slice(10..), false)));
    assert!(shard.shard.keyspace().get(b"lost").is_some(), "in its term the rest may come later");
}

// ---- snapshots ---------------------------------------------------------------

/// What a snapshot makes of a new replica.
fn digest_of((index, term, chunks): &(u64, u64, Vec<Bytes>)) -> (String, String) {
    let state = State::from_snapshot(*index, *term, chunks).expect("it was written just so");
    (state.keyspace.digest(), state.keyspace.shared_digest())
}

fn digests(shard: &ShardHarness) -> (String, String) {
    (shard.shard.keyspace().digest(), shard.shard.keyspace().shared_digest())
}

/// A leader with some committed keys, enough for some steps of a walk.
fn leader_with_keys(settings: ShardSettings) -> (ShardHarness, SessionId) {
    let mut shard = ShardHarness::leading_with(settings);
    let client = shard.connect();
    for number in 0..200 {
        shard.send(client, &format!("SET {{t}}{number} {}", "v".repeat(100)));
    }
    shard.commit_all();
    shard.read(client);
    (shard, client)
}

#[test]
fn a_snapshot_is_of_the_batch_it_began_after_whatever_comes_then() {
    let (mut shard, client) = leader_with_keys(ShardSettings::default());
    shard.receive_only(client, "SET {t}1 new");
    shard.shard.handle(Event::TakeSnapshot);
    let index = shard.shard.applied().0 + 1;
    shard.end_turn();
    let expected = digests(&shard);
    shard.walk(1000);
    shard.send(client, "SET {t}1 newer ; DEL {t}2 ; RENAME {t}3 {t}4 ; FLUSHALL ; SET {t}5 last");
    while shard.shard.wants_walk() {
        shard.walk(1000);
        shard.send(client, "INCR {t}n");
    }
    assert!(shard.snapshots.is_empty(), "its batch is not committed");
    shard.commit_one();
    assert_eq!((shard.snapshots[0].0, shard.snapshots[0].1), (index, 1));
    assert_eq!(digest_of(&shard.snapshots[0]), expected);
}

#[test]
fn a_step_of_a_snapshot_that_has_no_time_left_writes_one_entry() {
    let (mut shard, _) = leader_with_keys(ShardSettings::default());
    let expected = digests(&shard);
    shard.handle(Event::TakeSnapshot);
    let (mut steps, now_ns) = (0, shard.world.boot_ns.get());
    while shard.shard.wants_walk() {
        shard.walk_until(usize::MAX, now_ns);
        steps += 1;
    }
    assert!(steps > 200, "{steps} steps for 200 keys");
    assert_eq!(digest_of(&shard.snapshots[0]), expected);
    shard.handle(Event::TakeSnapshot);
    shard.walk_until(usize::MAX, now_ns + 1);
    assert_eq!(shard.snapshots.len(), 2, "it has time for all");
}

#[test]
fn a_snapshot_of_what_is_taken_back_is_given_up_and_taken_again() {
    let (mut shard, client) = leader_with_keys(ShardSettings::default());
    shard.receive_only(client, "SET {t}1 new");
    shard.shard.handle(Event::TakeSnapshot);
    shard.end_turn();
    shard.walk(1000);
    assert!(shard.shard.wants_walk() && shard.snapshots.is_empty());
    shard.lose_leadership(2);
    let expected = digests(&shard);
    // The next one begins between two entries of the new leader.
    shard.handle(Event::Tick);
    shard.walk(1000);
    shard.commit(2, batch(&[put(b"{t}1", b"of the new leader")]));
    while shard.shard.wants_walk() {
        shard.walk(1000);
    }
    assert_eq!(shard.snapshots.len(), 1);
    assert_eq!(digest_of(&shard.snapshots[0]), expected);
}

#[test]
fn a_snapshot_of_committed_state_survives_the_loss_of_leadership() {
    let (mut shard, client) = leader_with_keys(ShardSettings::default());
    shard.handle(Event::TakeSnapshot);
    let (expected, applied) = (digests(&shard), shard.shard.applied());
    shard.walk(1000);
    shard.send(client, "SET {t}1 new ; DEL {t}2");
    shard.lose_leadership(2);
    while shard.shard.wants_walk() {
        shard.walk(1000);
    }
    assert_eq!((shard.snapshots[0].0, shard.snapshots[0].1), applied);
    assert_eq!(digest_of(&shard.snapshots[0]), expected);
}

#[test]
fn writers_wait_while_the_disk_is_behind_and_readers_do_not() {
    let settings = ShardSettings { snapshot_pending_bytes_max: 1000, ..Default::default() };
    let (mut shard, client) = leader_with_keys(settings);
    for number in 0..200 {
        shard.send(client, &format!("SET {{t}}{number} {}", "v".repeat(2000)));
    }
    shard.commit_all();
    shard.read(client);
    shard.is_disk_slow = true;
    shard.handle(Event::TakeSnapshot);
    let expected = digests(&shard);
    shard.walk(1 << 18);
    assert!(!shard.shard.wants_walk() && shard.snapshots.is_empty());
    let reader = shard.connect();
    assert_eq!(shard.send(reader, "STRLEN {t}1"), ":2000");
    assert_eq!(shard.send(client, "SET {t}1 new"), "");
    assert!(shard.proposals.is_empty(), "a request was executed that should wait");
    let bytes = shard.chunks.1.iter().map(|chunk| chunk.len() as u64).sum();
    shard.handle(Event::SnapshotTaken { number: shard.chunks.0, bytes });
    assert_eq!(shard.proposals.len(), 1);
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
    shard.is_disk_slow = false;
    shard.walk(1 << 20);
    assert_eq!(digest_of(&shard.snapshots[0]), expected);
}

#[test]
fn a_snapshot_that_cannot_be_kept_is_tried_again_later() {
    let (mut shard, _) = leader_with_keys(ShardSettings::default());
    shard.handle(Event::TakeSnapshot);
    shard.handle(Event::SnapshotFailed { number: 1 });
    shard.pass_ms(9_000);
    assert!(!shard.shard.wants_walk());
    shard.pass_ms(1_100);
    shard.walk(1 << 20);
    assert_eq!(shard.snapshots.len(), 1);
    assert_eq!(digest_of(&shard.snapshots[0]), digests(&shard));
}

#[test]
fn while_a_snapshot_is_installed_nothing_of_it_is_read() {
    let (mut leader, _) = leader_with_keys(ShardSettings::default());
    leader.handle(Event::TakeSnapshot);
    leader.walk(1 << 20);
    let (index, term, chunks) = leader.snapshots[0].clone();
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    let client = shard.connect();
    shard.handle(Event::Follow { leader: Some(2) });
    shard.send(client, "READONLY");
    assert_eq!(shard.send(client, "GET {t}1"), "nil");
    shard.shard.begin_install(index, term);
    for chunk in &chunks {
        assert_eq!(shard.send(client, "GET {t}1"), "-MOVED 15891 127.0.0.1:7101");
        shard.shard.install_chunk(chunk).unwrap();
    }
    shard.shard.end_install();
    assert_eq!(shard.shard.applied(), (index, term));
    assert_eq!(shard.send(client, "STRLEN {t}1"), ":100");
    assert_eq!(digests(&shard), digests(&leader));
}

#[test]
fn a_replica_that_has_started_is_read_only_when_it_has_what_its_log_held() {
    let mut shard = ShardHarness::starting_with_log((3, 2));
    let client = shard.connect();
    shard.handle(Event::Follow { leader: Some(2) });
    shard.send(client, "READONLY");
    let moved = "-MOVED 15891 127.0.0.1:7101";
    shard.commit(1, batch(&[put(b"{t}1", b"old")]));
    assert_eq!(shard.send(client, "GET {t}1"), moved);
    shard.commit(2, Bytes::new());
    assert_eq!(shard.send(client, "GET {t}1"), moved);
    shard.commit(2, batch(&[put(b"{t}1", b"new")]));
    assert_eq!(shard.send(client, "GET {t}1"), "\"new\"");
    // What it held may have been replaced by a later term.
    let mut shard = ShardHarness::starting_with_log((9, 2));
    let client = shard.connect();
    shard.handle(Event::Follow { leader: Some(2) });
    shard.send(client, "READONLY");
    assert_eq!(shard.send(client, "GET {t}1"), moved);
    shard.commit(3, batch(&[put(b"{t}1", b"of term 3")]));
    assert_eq!(shard.send(client, "GET {t}1"), "\"of term 3\"");
}

#[test]
fn a_replica_that_has_not_caught_up_is_loading() {
    let loading = |shard: &mut ShardHarness, client| {
        let info = shard.send(client, "INFO persistence");
        info[info.find("loading:").unwrap()..].starts_with("loading:1")
    };
    let mut shard = ShardHarness::starting_with_log((2, 1));
    let client = shard.connect();
    shard.handle(Event::Follow { leader: Some(2) });
    assert!(loading(&mut shard, client));
    // What has keys is sent on. What is for this replica waits, but not for ever.
    assert_eq!(shard.send(client, "GET {t}1"), "-MOVED 15891 127.0.0.1:7101");
    assert_eq!(shard.send(client, "DBSIZE"), "");
    shard.pass_ms(1900);
    assert_eq!(shard.read(client), "");
    shard.pass_ms(200);
    assert_eq!(shard.read(client), "-LOADING Redis is loading the dataset in memory");
    let other = shard.connect();
    assert_eq!(shard.send(other, "DBSIZE"), "-LOADING Redis is loading the dataset in memory");
    shard.commit(1, batch(&[put(b"{t}1", b"v")]));
    assert!(loading(&mut shard, client));
    shard.commit(1, batch(&[put(b"{t}2", b"v")]));
    assert!(!loading(&mut shard, client));
    assert_eq!(shard.send(client, "DBSIZE"), ":2");
}

#[test]
fn short_of_disk_what_grows_the_data_is_refused_and_at_last_every_write() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SADD {k}s a b ; SET k v");
    shard.commit_all();
    shard.read(client);
    let refused = |reply: String| reply.starts_with("-MISCONF ");
    shard.handle(Event::DiskRoom(DiskRoom::Short));
    for grows in ["SET k w", "SADD {k}s c", "EVAL return(redis.call('SET',KEYS[1],'w')) 1 k"] {
        assert!(refused(shard.send(client, grows)), "{grows}");
    }
    assert_eq!(shard.send(client, "GET k"), "\"v\"");
    let block = shard.send(client, "MULTI ; SREM {k}s a ; SET k w ; EXEC");
    let aborted = "+OK +QUEUED +QUEUED -EXECABORT Transaction discarded because of: MISCONF ";
    assert!(block.starts_with(aborted), "{block}");
    assert_eq!(shard.send(client, "SCARD {k}s"), ":2", "a block that cannot run whole does not run");
    assert_eq!(shard.send(client, "SREM {k}s a"), "");
    shard.commit_all();
    assert_eq!(shard.read(client), ":1");
    shard.handle(Event::DiskRoom(DiskRoom::Last));
    assert!(refused(shard.send(client, "SREM {k}s b")));
    assert_eq!(shard.send(client, "GET k"), "\"v\"");
    // What others have written is applied all the same.
    shard.handle(Event::DiskRoom(DiskRoom::Enough));
    assert_eq!(shard.send(client, "SET k w"), "");
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
}

#[test]
fn a_script_that_has_written_is_not_stopped_half_way_by_a_shortage() {
    let moves = "EVAL redis.call('SREM',KEYS[1],'a')return(redis.call('SADD',KEYS[2],'a')) 2 {k}s {k}t";
    let grows = "EVAL redis.call('SADD',KEYS[2],'b')return(redis.call('SREM',KEYS[1],'b')) 2 {k}s {k}t";
    for shortage in ["disk", "memory"] {
        let mut shard = ShardHarness::leading();
        let client = shard.connect();
        shard.send(client, "SADD {k}s a b");
        shard.commit_all();
        shard.read(client);
        match shortage {
            "disk" => shard.handle(Event::DiskRoom(DiskRoom::Short)),
            _ => {
                shard.shard.reconfigure(|settings| settings.memory_bytes_max = 1);
                shard.handle(Event::Tick);
            }
        }
        let refusal = if shortage == "disk" { "MISCONF " } else { "OOM " };
        assert!(shard.send(client, grows).starts_with(&format!("-{refusal}")), "{shortage}");
        let block = shard.send(client, &format!("MULTI ; {grows} ; SREM {{k}}s a ; EXEC"));
        let aborted = format!("-EXECABORT Transaction discarded because of: {refusal}");
        assert!(block.contains(&aborted), "what a script in a block will do is not known before: {block}");
        assert_eq!(shard.send(client, "SCARD {k}s ; SCARD {k}t"), ":2 :0", "{shortage}: nothing was done");
        assert_eq!(shard.send(client, moves), "");
        shard.commit_all();
        assert_eq!(shard.read(client), ":1", "{shortage}");
        assert_eq!(shard.send(client, "SCARD {k}s ; SCARD {k}t"), ":1 :1", "{shortage}: all was done");
        shard.handle(Event::DiskRoom(DiskRoom::Last));
        assert!(shard.send(client, moves).starts_with('-'), "{shortage}: no write may begin");
        assert_eq!(shard.send(client, "SCARD {k}s ; SCARD {k}t"), ":1 :1", "{shortage}");
    }
}

#[test]
fn an_entry_of_a_newer_leader_stops_the_node_by_name() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.commit(1, batch(&[put(b"k", b"v")]));
    let mut newer = batch(&[put(b"k", b"w")]).to_vec();
    newer[0] = NEWEST_FORMAT + 1;
    let stopped = catch_unwind(AssertUnwindSafe(|| shard.commit(2, newer.into()))).unwrap_err();
    let line = format!(
        "shard 0, entry 2 of the log is of format {}; this build reads up to format {NEWEST_FORMAT}. Start the build that wrote it, or a newer one",
        NEWEST_FORMAT + 1
    );
    assert_eq!(Fatal::of(&*stopped), Some(Fatal::Newer(line)));
}
