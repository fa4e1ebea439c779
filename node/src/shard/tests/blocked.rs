//! Requests that wait until something comes to their keys: who is served, in which order, and who is told what.

use bytes::Bytes;
use moonraft_proto::Effect;

use super::{Event, SessionId, ShardHarness, ShardSettings};

const DOWN: &str = "-CLUSTERDOWN The cluster is down";

/// A leader, a client that pushes, and some that wait.
fn with_clients<const N: usize>() -> (ShardHarness, SessionId, [SessionId; N]) {
    let mut shard = ShardHarness::leading();
    let pusher = shard.connect();
    let waiting = std::array::from_fn(|_| shard.connect());
    (shard, pusher, waiting)
}

/// What these clients read once all is committed.
fn read_all<const N: usize>(shard: &mut ShardHarness, clients: [SessionId; N]) -> [String; N] {
    shard.commit_all();
    clients.map(|client| shard.read(client).replace("{t}", ""))
}

/// A client sends requests, and all is committed.
fn settled(shard: &mut ShardHarness, client: SessionId, requests: &str) -> String {
    let first = shard.send(client, requests);
    shard.commit_all();
    (first + &shard.read(client)).replace("{t}", "")
}

#[test]
fn who_came_first_is_served_first_whatever_its_command_in_the_batch_of_the_push() {
    let (mut shard, pusher, clients) = with_clients::<4>();
    for (client, request) in clients.iter().zip([
        "BLPOP {t}other {t}k 0",
        "BLMPOP 0 2 {t}k {t}other RIGHT COUNT 2",
        "BLMOVE {t}k {t}moved LEFT RIGHT 0",
        "BRPOP {t}k 0",
    ]) {
        assert_eq!(shard.send(*client, request), "");
    }
    assert_eq!(shard.send(pusher, "RPUSH {t}k 1 2 3 4"), "");
    assert_eq!(shard.proposals.len(), 1, "all in one batch");
    assert_eq!(clients.map(|client| shard.read(client)), [""; 4], "nothing is committed yet");
    let read = read_all(&mut shard, clients);
    assert_eq!(read, ["[\"k\", \"1\"]", "[\"k\", [\"4\", \"3\"]]", "\"2\"", ""]);
    assert_eq!(shard.read(pusher), ":4");
    let read = settled(&mut shard, pusher, "LPUSH {t}k 5 ; EXISTS {t}k ; LRANGE {t}moved 0 -1");
    assert_eq!(read, ":1 :0 [\"2\"]");
    assert_eq!(read_all(&mut shard, clients), ["", "", "", "[\"k\", \"5\"]"]);
}

#[test]
fn of_several_keys_that_counts_to_which_something_came_first() {
    let (mut shard, pusher, clients) = with_clients::<2>();
    shard.send(clients[0], "BLPOP {t}a {t}b 0");
    shard.send(clients[1], "BLMPOP 0 2 {t}a {t}b LEFT COUNT 9");
    settled(&mut shard, pusher, "SET {t}a x ; MULTI ; RPUSH {t}b 1 ; DEL {t}a ; RPUSH {t}a 2 3 ; EXEC");
    assert_eq!(read_all(&mut shard, clients), ["[\"b\", \"1\"]", "[\"a\", [\"2\", \"3\"]]"]);
}

#[test]
fn what_one_is_given_may_serve_the_next() {
    let (mut shard, pusher, clients) = with_clients::<4>();
    let chain = [
        "BLMOVE {t}b {t}c LEFT LEFT 0",
        "BRPOPLPUSH {t}c {t}a 0",
        "BLMOVE {t}a {t}b LEFT LEFT 0",
        "BLPOP {t}a 0",
    ];
    clients.iter().zip(chain).for_each(|(&client, request)| drop(shard.send(client, request)));
    shard.send(pusher, "RPUSH {t}a x");
    assert_eq!(shard.proposals.len(), 1);
    assert_eq!(read_all(&mut shard, clients), ["\"x\"", "\"x\"", "\"x\"", "[\"a\", \"x\"]"]);
}

#[test]
fn a_block_or_a_script_serves_when_it_is_over_and_waits_for_nothing_itself() {
    let (mut shard, pusher, clients) = with_clients::<2>();
    clients.iter().for_each(|&client| drop(shard.send(client, "BLPOP k 0")));
    settled(&mut shard, pusher, "MULTI ; RPUSH k gone ; DEL k ; EXEC ; MULTI ; RPUSH k gone ; LPOP k ; EXEC");
    assert_eq!(read_all(&mut shard, clients), ["", ""]);
    let script =
        b"redis.call('RPUSH', KEYS[1], 1) redis.call('RPUSH', KEYS[1], 2) return redis.call('LPOP', KEYS[1])";
    shard.send_words(pusher, &[b"EVAL", script, b"1", b"k"]);
    shard.commit_all();
    assert_eq!(shard.read(pusher), "\"1\"");
    assert_eq!(read_all(&mut shard, clients), ["[\"k\", \"2\"]", ""]);
    settled(&mut shard, pusher, "MULTI ; RPUSH k 3 ; RPUSH k 4 ; LPOP k ; EXEC");
    assert_eq!(read_all(&mut shard, clients), ["", "[\"k\", \"4\"]"]);
    let block = "MULTI ; BLPOP k 0 ; BLMOVE k k LEFT LEFT 0 ; BLMPOP 0 1 k LEFT ; BZPOPMIN k 0 ; EXEC";
    assert!(settled(&mut shard, pusher, block).ends_with("[nil, nil, nil, nil]"));
    let script = b"return redis.call('BLMPOP', 0, 1, KEYS[1], 'LEFT')";
    assert_eq!(shard.send_words(pusher, &[b"EVAL", script, b"1", b"k"]), "nil");
}

#[test]
fn the_key_counts_and_not_the_command_that_made_it() {
    let (mut shard, pusher, clients) = with_clients::<2>();
    shard.send(clients[0], "BLPOP {t}k 0");
    shard.send(clients[1], "BZPOPMIN {t}k 0");
    let list = ["", "[\"k\", \"3\"]"];
    for requests in [
        "SET {t}k x ; DEL {t}k ; SADD {t}k x ; DEL {t}k",
        "RPUSH {t}a 3 ; RENAME {t}a {t}k",
        "RPUSH {t}a 3 ; COPY {t}a {t}k ; DEL {t}a",
        "SADD {t}a 3 ; SORT {t}a STORE {t}k ; DEL {t}a",
        "RPUSH {t}a 3 ; LMOVE {t}a {t}k LEFT LEFT",
    ] {
        settled(&mut shard, pusher, requests);
        let read = read_all(&mut shard, clients);
        assert_eq!(read, [list[usize::from(!requests.starts_with("SET"))], ""], "{requests}");
        if !read[0].is_empty() {
            shard.send(clients[0], "BLPOP {t}k 0");
        }
    }
    settled(&mut shard, pusher, "ZADD {t}a 3 a ; ZUNIONSTORE {t}k 1 {t}a");
    assert_eq!(read_all(&mut shard, clients), ["", "[\"k\", \"a\", \"3\"]"]);
    shard.send(clients[1], "BLMOVE {t}b {t}a LEFT LEFT 0");
    settled(&mut shard, pusher, "RPUSH {t}b stays");
    let [_, refused] = read_all(&mut shard, clients);
    assert!(refused.starts_with("-WRONGTYPE"), "{refused}");
    assert_eq!(settled(&mut shard, pusher, "LRANGE {t}b 0 -1"), "[\"stays\"]");
}

#[test]
fn time_is_kept_to_the_millisecond_and_what_was_seen_is_committed_before_it_is_told() {
    let (mut shard, pusher, [client]) = with_clients::<1>();
    assert_eq!(shard.send(client, "BLPOP k 0.01"), "");
    assert_eq!((shard.wake(), shard.read(client)), (10_000, "nil".into()));
    for (request, wait_us) in [("BLMOVE {t}k {t}l LEFT LEFT 0.0001", 1000), ("BZMPOP 1.5 1 k MIN", 1_500_000)]
    {
        shard.send(client, request);
        assert_eq!((shard.wake(), shard.read(client)), (wait_us, "nil".into()));
    }
    shard.send(client, "BRPOPLPUSH {t}k {t}l 0");
    shard.pass_ms(3_600_000);
    assert_eq!(shard.read(client), "");
    settled(&mut shard, pusher, "RPUSH {t}k x");
    assert_eq!(read_all(&mut shard, [client]), ["\"x\""]);
    // It sees that the list is gone, which may still be taken back.
    settled(&mut shard, pusher, "RPUSH k x");
    shard.send(pusher, "DEL k");
    shard.send(client, "BLPOP k 1");
    shard.wake();
    assert_eq!(shard.read(client), "");
    assert_eq!(read_all(&mut shard, [client]), ["nil"]);
    // Without a lease a round tells whether it still led.
    shard.world.lease.set(false);
    shard.send(client, "BLPOP k 1");
    shard.wake();
    assert_eq!(shard.read(client), "");
    shard.confirm_rounds();
    assert_eq!(shard.read(client), "nil");
}

#[test]
fn what_was_given_is_put_back_with_its_batch_and_who_waits_is_sent_to_the_new_leader() {
    let (mut shard, pusher, clients) = with_clients::<2>();
    clients.iter().for_each(|&client| drop(shard.send(client, "BLPOP k 0 ; PING")));
    settled(&mut shard, pusher, "SET other x");
    shard.send(pusher, "RPUSH k x");
    shard.lose_leadership(2);
    let moved = "-MOVED 7629 127.0.0.1:7101";
    assert_eq!(clients.map(|client| shard.read(client)), ["".to_owned(), format!("{moved} +PONG")]);
    shard.commit(2, Bytes::new());
    assert_eq!(shard.read(clients[0]), format!("{moved} +PONG"));
    // The same once more, and this time the batch is committed after all.
    shard.lead(3);
    clients.iter().for_each(|&client| drop(shard.send(client, "BLPOP k 0")));
    shard.send(pusher, "RPUSH k y");
    let (term, data) = shard.proposals.pop_front().expect("it is proposed");
    shard.lose_leadership(2);
    shard.commit(term, data);
    shard.commit(4, Bytes::new());
    assert_eq!(clients.map(|client| shard.read(client)), ["[\"k\", \"y\"]", moved]);
}

#[test]
fn while_nobody_leads_they_wait_for_the_next_leader_but_not_for_ever() {
    let (mut shard, pusher, clients) = with_clients::<3>();
    let [client, hasty, late] = clients;
    shard.send(client, "BLPOP k 0");
    shard.send(hasty, "BLPOP k 1");
    shard.handle(Event::Follow { leader: None });
    shard.pass_ms(1999);
    assert_eq!(read_all(&mut shard, clients), [""; 3], "that nothing came nobody knows");
    // The same replica leads again, and another one had brought something meanwhile.
    shard.commit(2, super::batch(&[Effect::ListInsert { key: b"k", index: 0, value: b"x" }]));
    shard.lead(3);
    assert_eq!(read_all(&mut shard, clients), ["[\"k\", \"x\"]", "nil", ""]);
    shard.send(late, "BLPOP k 0");
    shard.handle(Event::Follow { leader: None });
    shard.pass_ms(2000);
    assert_eq!(read_all(&mut shard, clients), ["", "", DOWN]);
    // Its leader does not answer: an election is due.
    shard.lead(4);
    shard.send(late, "BLPOP k 0");
    shard.world.map.borrow_mut().learn_failure(3, true);
    shard.lose_leadership(3);
    assert_eq!(shard.read(late), "");
    shard.world.map.borrow_mut().learn_failure(3, false);
    shard.handle(Event::MapChanged);
    assert_eq!(shard.read(late), "-MOVED 7629 127.0.0.1:7201");
    assert_eq!(shard.send(pusher, "BLPOP k 0"), "-MOVED 7629 127.0.0.1:7201");
}

#[test]
fn who_waits_for_a_key_of_a_slot_that_goes_is_sent_after_it() {
    let (mut shard, _, [client, other]) = with_clients::<2>();
    shard.send(client, "BLPOP k 0");
    shard.send(other, "BLPOP {t}k 0");
    shard.shard.begin_unit();
    shard.shard.tx().emit(Effect::ReleaseSlots { first: 7629, last: 7629 });
    let unit = shard.shard.store_mut().end_unit();
    shard.shard.settle_unit(unit);
    for (at, slots) in [(0, (0, 7628)), (1, (7629, 7629))] {
        shard.world.map.borrow_mut().shards.get_mut(&at).unwrap().slots = vec![slots];
    }
    shard.end_turn();
    assert_eq!(shard.read(client), "", "it may be taken back");
    shard.commit_all();
    assert_eq!((shard.read(client), shard.read(other)), ("-MOVED 7629 127.0.0.1:7102".into(), String::new()));
}

#[test]
fn in_a_pause_time_goes_on_and_what_is_brought_waits_until_it_ends() {
    let (mut shard, operator, [pusher, client, hasty, late]) = with_clients::<4>();
    shard.send(client, "BLPOP k 0");
    shard.send(hasty, "BLPOP k 1");
    shard.send(operator, "CLIENT PAUSE 60000 WRITE");
    shard.send(late, "BLPOP k 0");
    shard.send(pusher, "RPUSH k 1 2");
    shard.wake();
    assert_eq!(read_all(&mut shard, [client, hasty, late, pusher]), ["", "nil", "", ""]);
    shard.send(operator, "CLIENT UNPAUSE");
    let read = read_all(&mut shard, [client, late, pusher]);
    assert_eq!(read, ["[\"k\", \"1\"]", "[\"k\", \"2\"]", ":2"]);
}

#[test]
fn a_client_is_unblocked_by_another_once() {
    let (mut shard, other, [client]) = with_clients::<1>();
    let number = shard.send(client, "CLIENT ID").trim_start_matches(':').to_owned();
    let unblocked = "-UNBLOCKED client unblocked via CLIENT UNBLOCK";
    for (reason, answer) in [("TIMEOUT", "nil"), ("ERROR", unblocked)] {
        shard.send(client, "BZPOPMAX k 0 ; PING");
        assert!(shard.send(other, "CLIENT LIST").contains("flags=b "));
        let ask = format!("CLIENT UNBLOCK {number} {reason}");
        let read = shard.send(other, &format!("MULTI ; {ask} ; {ask} ; EXEC"));
        assert!(read.ends_with("[:1, :0]"), "{read}");
        assert_eq!(shard.read(client), format!("{answer} +PONG"));
    }
    assert_eq!(shard.send(other, &format!("CLIENT UNBLOCK {number}")), ":0");
}

#[test]
fn nothing_is_given_to_a_client_that_is_gone() {
    let (mut shard, pusher, [gone, killed, rest]) = with_clients::<3>();
    let number = shard.send(killed, "CLIENT ID").trim_start_matches(':').to_owned();
    [gone, killed, rest].iter().for_each(|&client| drop(shard.send(client, "BLPOP k 0")));
    shard.shard.disconnect(gone);
    let read = settled(&mut shard, pusher, &format!("MULTI ; CLIENT KILL ID {number} ; RPUSH k x ; EXEC"));
    assert!(read.ends_with("[:1, :1]"), "{read}");
    assert_eq!(read_all(&mut shard, [rest]), ["[\"k\", \"x\"]"]);
    assert_eq!(shard.closed, [killed]);
    assert!(shard.shard.blocked.is_empty() && shard.shard.waiting.len() == 0);
}

#[test]
fn ten_thousand_who_wait_cost_nothing_while_nothing_comes() {
    const MANY: usize = 10_000;
    let mut shard = ShardHarness::leading_with(ShardSettings { clients_max: 20_000, ..Default::default() });
    let other = shard.connect();
    let clients: Vec<SessionId> = (0..MANY).map(|_| shard.connect()).collect();
    for (number, &client) in clients.iter().enumerate() {
        shard.send(client, &format!("BLPOP {{t}}k {{t}}{number} {}", if number % 2 == 0 { 0 } else { 3600 }));
    }
    assert!(shard.send(other, "INFO clients").contains("blocked_clients:10000"));
    let before = (shard.shard.statistics.parsed, shard.shard.statistics.requests);
    for _ in 0..100 {
        shard.receive_only(other, "SET {t}x 1");
        shard.receive_only(other, "RPUSH {t}x2 1");
        shard.end_turn();
        shard.commit_all();
        shard.pass_ms(100);
    }
    let counted = (shard.shard.statistics.parsed, shard.shard.statistics.requests);
    assert_eq!((counted.0 - before.0, counted.1 - before.1), (200, 200), "only what the other sent");
    shard.read(other);
    settled(&mut shard, other, "RPUSH {t}k 1 2 3");
    assert_eq!(shard.shard.statistics.requests - counted.1, 4);
    assert_eq!(clients.iter().filter(|&&client| !shard.read(client).is_empty()).count(), 3);
    // All go, each in a few steps.
    clients.iter().for_each(|&client| shard.shard.disconnect(client));
    assert!(shard.shard.blocked.is_empty() && shard.shard.next_wake().is_none());
    assert!(!shard.shard.keyspace().watched.has_news());
}

#[test]
fn what_one_request_may_take_while_it_waits_has_a_limit() {
    let settings = ShardSettings { blocked_bytes_max: 2_000, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let client = shard.connect();
    let keys: Vec<String> = (0..20).map(|number| format!("{{t}}{number}")).collect();
    let refused = shard.send(client, &format!("BLPOP {} 0", keys.join(" ")));
    assert!(refused.starts_with("-ERR a request of so many keys"), "{refused}");
    assert_eq!(shard.send(client, &format!("BLPOP {} 0 ; PING", keys[..3].join(" "))), "");
    assert_eq!(shard.shard.backlog(client).queued_bytes, shard.shard.blocked.bytes(client));
    assert!(shard.shard.backlog(client).is_blocked);
}

#[test]
fn a_call_is_counted_when_it_is_answered_and_only_with_the_time_it_took() {
    let (mut shard, pusher, [client]) = with_clients::<1>();
    settled(&mut shard, pusher, "CONFIG RESETSTAT");
    shard.send(client, "BLPOP k 0");
    assert!(!shard.send(pusher, "INFO commandstats").contains("cmdstat_blpop"));
    shard.pass_ms(60_000);
    settled(&mut shard, pusher, "RPUSH k x");
    let told = shard.send(pusher, "INFO commandstats");
    assert!(told.contains("cmdstat_blpop:calls=1,usec=0,"), "{told}");
    assert_eq!(shard.send(pusher, "SLOWLOG LEN"), ":0");
}
