//! Requests that wait until something comes to a stream.

use bytes::Bytes;
use moonraft_proto::{StreamChange, StreamId, entry::NEWEST_FORMAT, stream::Pairs};

use super::{Event, SessionId, ShardHarness, ShardSettings, batch, put};
use crate::shard::CommittedEntry;

/// A leader whose members read all there is, and some clients, the first of which adds.
fn with_clients<const N: usize>() -> (ShardHarness, [SessionId; N]) {
    let mut shard = ShardHarness::leading();
    shard.handle(Event::Readable { term: 1, format: NEWEST_FORMAT });
    shard.pass_ms(100);
    shard.commit_all();
    let clients = std::array::from_fn(|_| shard.connect());
    (shard, clients)
}

fn settled(shard: &mut ShardHarness, client: SessionId, requests: &str) -> String {
    let first = shard.send(client, requests);
    shard.commit_all();
    (first + &shard.read(client)).replace("{t}", "")
}

fn read(shard: &mut ShardHarness, client: SessionId) -> String {
    shard.commit_all();
    shard.read(client).replace("{t}", "")
}

#[test]
fn all_who_wait_for_a_stream_read_what_came_since() {
    let (mut shard, [adder, one, other, third]) = with_clients();
    settled(&mut shard, adder, "XADD {t}s 1-0 n 1");
    assert_eq!(shard.send(one, "XREAD BLOCK 0 STREAMS {t}s $"), "");
    assert_eq!(shard.send(other, "XREAD COUNT 1 BLOCK 0 STREAMS {t}none {t}s 5 $"), "");
    assert_eq!(shard.send(third, "XREAD BLOCK 0 STREAMS {t}s 9-9"), "");
    shard.send(adder, "MULTI ; XADD {t}s 2-0 n 2 ; XADD {t}s 3-0 n 3 ; EXEC");
    assert_eq!(read(&mut shard, one), "[[\"s\", [[\"2-0\", [\"n\", \"2\"]], [\"3-0\", [\"n\", \"3\"]]]]]");
    assert_eq!(read(&mut shard, other), "[[\"s\", [[\"2-0\", [\"n\", \"2\"]]]]]");
    assert_eq!(read(&mut shard, third), "");
    settled(&mut shard, adder, "XADD {t}s 10-0 n 10");
    assert_eq!(read(&mut shard, third), "[[\"s\", [[\"10-0\", [\"n\", \"10\"]]]]]");
}

#[test]
fn of_a_group_the_first_who_waits_is_given_it_and_has_not_been_there_before() {
    let (mut shard, [adder, one, other]) = with_clients();
    settled(&mut shard, adder, "XGROUP CREATE {t}s g $ MKSTREAM");
    assert_eq!(shard.send(one, "XREADGROUP GROUP g one COUNT 1 BLOCK 0 STREAMS {t}s >"), "");
    assert_eq!(shard.send(other, "XREADGROUP GROUP g other COUNT 1 BLOCK 0 STREAMS {t}s >"), "");
    assert_eq!(settled(&mut shard, adder, "XINFO CONSUMERS {t}s g"), "[]");
    shard.send(adder, "XADD {t}s 1-0 n 1");
    assert_eq!(shard.proposals.len(), 1, "added and delivered in one batch");
    assert_eq!(read(&mut shard, one), "[[\"s\", [[\"1-0\", [\"n\", \"1\"]]]]]");
    assert_eq!(read(&mut shard, other), "");
    settled(&mut shard, adder, "XADD {t}s 2-0 n 2");
    assert_eq!(read(&mut shard, other), "[[\"s\", [[\"2-0\", [\"n\", \"2\"]]]]]");
    let pending = settled(&mut shard, adder, "XPENDING {t}s g");
    assert_eq!(pending, "[:2, \"1-0\", \"2-0\", [[\"one\", \"1\"], [\"other\", \"1\"]]]");
}

#[test]
fn who_waits_for_a_group_is_told_that_it_is_gone() {
    const NO_GROUP: &str = "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option";
    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    for (change, told) in [
        ("XGROUP DESTROY {t}s g", NO_GROUP),
        ("DEL {t}s", NO_GROUP),
        ("RENAME {t}s {t}other", NO_GROUP),
        ("SET {t}s x", WRONG_TYPE),
        ("XGROUP DESTROY {t}s other", ""),
        ("MULTI ; DEL {t}s ; XGROUP CREATE {t}s g 0 MKSTREAM ; EXEC", ""),
    ] {
        let (mut shard, [changer, client, reader]) = with_clients();
        settled(&mut shard, changer, "XGROUP CREATE {t}s g $ MKSTREAM ; XGROUP CREATE {t}s other $");
        assert_eq!(shard.send(client, "XREADGROUP GROUP g c BLOCK 0 STREAMS {t}s >"), "");
        assert_eq!(shard.send(reader, "XREAD BLOCK 0 STREAMS {t}s $"), "");
        settled(&mut shard, changer, change);
        assert_eq!(read(&mut shard, client), told, "{change}");
        // A stream may come again.
        assert_eq!(read(&mut shard, reader), "", "{change}");
    }
}

#[test]
fn a_wait_for_a_stream_ends_in_time_and_what_was_given_is_taken_back_with_its_batch() {
    let (mut shard, [adder, one, other]) = with_clients();
    settled(&mut shard, adder, "XGROUP CREATE {t}s g $ MKSTREAM");
    shard.send(one, "XREADGROUP GROUP g one BLOCK 50 STREAMS {t}s >");
    shard.send(other, "XREADGROUP GROUP g other BLOCK 0 STREAMS {t}s >");
    shard.pass_ms(51);
    assert_eq!(read(&mut shard, one), "nil");
    shard.send(adder, "XADD {t}s 1-0 n 1");
    shard.lose_leadership(2);
    shard.commit(2, Bytes::new());
    let group = shard.shard.keyspace().get(b"{t}s").map(|object| object.value.clone());
    let Some(crate::keyspace::Value::Stream(stream)) = group else { panic!("it was there before") };
    assert_eq!((stream.len(), stream.group(b"g").map(|group| group.pending().len())), (0, Some(0)));
    assert!(shard.read(other).starts_with("-MOVED"));
}

#[test]
fn what_needs_a_newer_format_waits_a_moment_for_it_and_is_refused_then() {
    let refused = "-ERR this request needs format 3 of the log, which the members of the shard have not agreed on yet; nothing was changed";
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "XADD s 1-0 n 1"), "");
    shard.handle(Event::Readable { term: 1, format: NEWEST_FORMAT });
    shard.pass_ms(100);
    assert_eq!(read(&mut shard, client), "\"1-0\"");

    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "XADD s 1-0 n 1 ; SET k v"), "");
    (0..100).for_each(|_| shard.pass_ms(100));
    assert_eq!(read(&mut shard, client), format!("{refused} +OK"));
    assert_eq!(shard.send(client, "XADD s 1-0 n 1"), refused);
}

#[test]
fn who_waits_at_a_follower_sees_no_part_of_a_batch() {
    let settings = ShardSettings { large_elements: 2, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let (waiter, other) = (shard.connect(), shard.connect());
    shard.lose_leadership(2);
    assert_eq!(shard.send(waiter, "READONLY ; XREAD BLOCK 0 STREAMS s $"), "+OK");
    let mut scratch = Vec::new();
    let fields = Pairs::write(&[b"f", b"v"], &mut scratch);
    let add = |ms| StreamChange::Add { id: StreamId::new(ms, 0), fields, begins_node: ms == 1 }.of(b"s");
    let mut effects = vec![add(1)];
    effects.extend((0..6).map(|_| put(b"other", b"v")));
    effects.push(add(2));
    let (applied, data) = (shard.shard.applied().0, batch(&effects));
    let entries = [(applied + 1, Bytes::new()), (applied + 2, data)];
    let entries = entries.map(|(index, data)| CommittedEntry { index, term: 2, data, more: false });
    shard.handle(Event::Committed(entries.into()));
    assert_eq!(shard.send(other, "PING"), "+PONG");
    assert_eq!(shard.read(waiter), "", "it is half way");
    while shard.shard.next_wake().is_some() {
        shard.wake();
    }
    assert_eq!(shard.read(waiter).matches("\"f\"").count(), 2, "both, or neither");
}
