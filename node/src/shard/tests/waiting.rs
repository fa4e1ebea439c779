//! Who waits is looked at again when what it waits for has come, and not before; times are kept to the millisecond.

use super::{
    Event, SessionId, ShardHarness, ShardSettings,
    preparing::{leader, walk_until},
};

fn parsed(shard: &ShardHarness) -> u64 {
    shard.shard.statistics.parsed
}

#[test]
fn a_pipeline_that_waits_for_a_large_value_is_parsed_once_and_once_more_when_it_is_written() {
    let (mut shard, waiter) = leader();
    let other = shard.connect();
    shard.handle(Event::TakeSnapshot);
    let before = parsed(&shard);
    shard.send(waiter, "APPEND {t}large x ; APPEND {t}large y ; GET {t}none");
    assert_eq!(parsed(&shard), before + 1);
    for number in 0..100 {
        shard.send(other, &format!("SET {{t}}other {number}"));
        shard.commit_all();
        shard.handle(Event::MapChanged);
        shard.pass_ms(1);
    }
    assert_eq!(parsed(&shard), before + 1 + 100, "nothing that happens has to do with it");
    shard.read(other);
    walk_until(&mut shard, |shard| !shard.proposals.is_empty());
    shard.commit_all();
    assert_eq!(shard.read(waiter), ":1000001 :1000002 nil");
    assert_eq!(parsed(&shard), before + 1 + 100 + 3);
}

#[test]
fn one_value_that_is_written_wakes_those_who_wait_for_it() {
    let (mut shard, first) = leader();
    shard.send(first, "SETRANGE {t}larger 1999999 x");
    shard.commit_all();
    shard.read(first);
    let second = shard.connect();
    shard.handle(Event::TakeSnapshot);
    shard.send(first, "APPEND {t}large x");
    shard.send(second, "APPEND {t}larger x");
    let before = parsed(&shard);
    walk_until(&mut shard, |shard| !shard.proposals.is_empty());
    assert_eq!(parsed(&shard), before + 1, "the other still waits");
    shard.commit_all();
    assert_eq!((shard.read(first), shard.read(second)), (":1000001".into(), String::new()));
    walk_until(&mut shard, |shard| !shard.proposals.is_empty());
    shard.commit_all();
    assert_eq!(shard.read(second), ":2000001");
}

#[test]
fn thousands_who_wait_are_looked_at_only_when_they_may_go_on() {
    const MANY: u64 = 5_000;
    let mut shard = ShardHarness::leading();
    let operator = shard.connect();
    shard.send(operator, "CLIENT PAUSE 60000 WRITE");
    let clients: Vec<SessionId> = (0..MANY).map(|_| shard.connect()).collect();
    clients.iter().for_each(|&client| drop(shard.send(client, "INCR n")));
    let before = parsed(&shard);
    for _ in 0..100 {
        shard.send(operator, "GET n");
        shard.pass_ms(100);
        shard.handle(Event::MapChanged);
    }
    assert_eq!(parsed(&shard), before + 100);
    let (gone, left) = clients.split_at(1000);
    gone.iter().for_each(|&client| shard.shard.disconnect(client));
    shard.send(operator, "CLIENT UNPAUSE");
    shard.commit_all();
    assert_eq!(parsed(&shard), before + 101 + left.len() as u64);
    // In the order in which they came.
    let replies: Vec<String> = left.iter().map(|&client| shard.read(client)).collect();
    let expected: Vec<String> = (1..=left.len()).map(|number| format!(":{number}")).collect();
    assert_eq!(replies, expected);
}

#[test]
fn times_are_kept_to_the_microsecond() {
    let mut shard = ShardHarness::leading();
    let (client, other) = (shard.connect(), shard.connect());
    shard.send(client, "WAIT 3 15");
    shard.send(other, "WAIT 3 7");
    assert_eq!((shard.wake(), shard.read(other), shard.read(client)), (7_000, ":0".into(), String::new()));
    assert_eq!((shard.wake(), shard.read(client)), (8_000, ":0".into()));
    shard.send(other, "CLIENT PAUSE 33 WRITE");
    shard.send(client, "SET k v");
    assert_eq!(shard.wake(), 33_000);
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK");
    // What has come before its time is not waited for.
    shard.send(client, "WAIT 3 1000");
    shard.shard.disconnect(client);
    shard.send(other, "CLIENT PAUSE 1000 WRITE ; CLIENT UNPAUSE");
    assert_eq!(shard.shard.next_wake(), None);
    shard.handle(Event::Follow { leader: None });
    shard.send(other, "SET k v");
    assert_eq!(shard.wake(), 2_000_000);
    assert_eq!(shard.read(other), "-CLUSTERDOWN The cluster is down");
}

#[test]
fn those_who_wait_for_an_elected_leader_do_not_wait_for_ever() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    let client = shard.connect();
    shard.send(client, "SET k v");
    shard.pass_ms(1500);
    shard.handle(Event::Lead { term: 1 });
    assert_eq!((shard.wake(), shard.read(client)), (2_000_000, "-CLUSTERDOWN The cluster is down".into()));
}

/// A leader with room in flight for one request, which is there.
fn leader_without_room() -> (ShardHarness, Vec<SessionId>) {
    let settings = ShardSettings { in_flight_bytes_max: 50, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let clients: Vec<SessionId> = (0..200).map(|_| shard.connect()).collect();
    shard.send(clients[0], "RPUSH list 0");
    (shard, clients)
}

#[test]
fn who_waits_for_room_in_flight_gets_it_in_turn_and_readers_need_none() {
    let (mut shard, clients) = leader_without_room();
    for (number, &client) in clients.iter().enumerate().skip(1) {
        assert_eq!(shard.send(client, &format!("RPUSH list {number} ; GET k")), "");
    }
    let reader = shard.connect();
    assert_eq!(shard.send(reader, "GET k ; PING ; MULTI ; SET k v"), "nil +PONG +OK +QUEUED");
    while !shard.proposals.is_empty() {
        let before = parsed(&shard);
        // Who comes now comes after all who wait.
        let late = shard.connect();
        assert_eq!(shard.send(late, "RPUSH list late"), "");
        shard.shard.disconnect(late);
        shard.commit_one();
        assert!(parsed(&shard) - before <= 4 * 64, "all are looked at each time");
    }
    let expected: Vec<String> = (0..200).map(|number| format!("\"{number}\"")).collect();
    assert_eq!(shard.send(reader, "DISCARD ; LRANGE list 0 -1"), format!("+OK [{}]", expected.join(", ")));
}

#[test]
fn whoever_is_called_for_room_and_goes_leaves_it_to_the_next() {
    let (mut shard, clients) = leader_without_room();
    clients[1..].iter().for_each(|&client| drop(shard.send(client, "RPUSH list x")));
    // Called, and gone before they are looked at.
    let (term, data) = shard.proposals.pop_front().expect("one is in flight");
    let index = shard.shard.applied().0 + 1;
    let entry = crate::shard::CommittedEntry { index, term, data, more: false };
    shard.shard.handle(Event::Committed(vec![entry]));
    clients[1..150].iter().for_each(|&client| shard.shard.disconnect(client));
    shard.end_turn();
    shard.commit_all();
    assert_eq!(clients[150..].iter().filter(|&&client| !shard.read(client).is_empty()).count(), 50);
}
