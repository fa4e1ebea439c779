//! What clients are answered while a script is over its time, and what becomes of their blocks.

use std::{cell::RefCell, rc::Rc};

use bytes::BytesMut;

use super::{
    harness::{ShardHarness, WhileBusy, encode, show_all},
    *,
};
use crate::shard::{Busy, BusyShard};

const REFUSED: &str =
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.";
const KILLED: &str = "Script killed by user with SCRIPT KILL";
/// Asks whether it may go on some hundred times, and ends.
const ENDS: &[u8] = b"redis.call('SET', KEYS[1], 'script') for i = 1, 1000000 do end return 'done'";
/// More often than it is asked before it has written.
const ASKED_BEFORE: usize = 50;
const NEVER_ENDS: &[u8] = b"redis.call('SET', KEYS[1], 'script') while true do end";

/// A leader whose scripts are over their time at once.
fn leading() -> ShardHarness {
    ShardHarness::leading_with(ShardSettings { busy_ms: 0, ..ShardSettings::default() })
}

/// The same where nobody is ever told so.
fn leading_silently() -> ShardHarness {
    let never = u64::MAX / 1_000_000;
    ShardHarness::leading_with(ShardSettings { busy_ms: never, heard_ms: 0, ..ShardSettings::default() })
}

fn packet(requests: &str) -> BytesMut {
    let packets = requests.split(" ; ").map(|request| {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        encode(&words)
    });
    packets.flatten().collect()
}

/// Runs `script` on the key `k` for a client of its own. Beside it, one after the other, clients send these
/// requests. What they read then, and what the script's client is answered once all is committed.
fn beside(shard: &mut ShardHarness, script: &[u8], requests: &[(SessionId, &str)]) -> (Vec<String>, String) {
    let mut waiting: Vec<_> = requests.iter().map(|&(id, text)| (id, packet(text))).rev().collect();
    let read = Rc::new(RefCell::new(Vec::new()));
    let replies = Rc::clone(&read);
    let mut asked = 0;
    let attend: WhileBusy = Box::new(move |busy: &mut BusyShard<'_>| {
        // It is asked while it is compiled, too: then it has changed nothing.
        asked += 1;
        if asked > ASKED_BEFORE
            && let Some((id, mut input)) = waiting.pop()
        {
            busy.receive(id, &mut input);
            let bytes = busy.writable(id).to_vec();
            busy.written(id, bytes.len());
            replies.borrow_mut().push(show_all(&bytes));
        }
        Busy::Continue
    });
    shard.world.while_busy.replace(Some(attend));
    let owner = shard.connect();
    let mut answer = shard.send_words(owner, &[b"EVAL", script, b"1", b"k"]);
    shard.world.while_busy.replace(None);
    shard.commit_all();
    answer += &shard.read(owner);
    let read = read.take();
    assert_eq!(read.len(), requests.len(), "the script ended before all had been heard: {answer}");
    (read, answer)
}

fn beside_one(shard: &mut ShardHarness, id: SessionId, requests: &str) -> String {
    let (read, answer) = beside(shard, ENDS, &[(id, requests)]);
    assert_eq!(answer, "\"done\"");
    read.concat()
}

#[test]
fn what_is_refused_beside_a_script_breaks_the_block() {
    let mut shard = leading();
    let (buyer, operator) = (shard.connect(), shard.connect());
    assert_eq!(shard.send(buyer, "MULTI ; SET {t}1 paid"), "+OK +QUEUED");
    let (read, answer) = beside(&mut shard, NEVER_ENDS, &[(buyer, "DECR {t}2"), (operator, "SCRIPT KILL")]);
    assert_eq!(read, [REFUSED, "+OK"]);
    assert!(answer.contains(KILLED), "{answer}");
    assert_eq!(shard.send(buyer, "EXEC"), ABORTED);
    assert!(shard.shard.keyspace().is_empty(), "neither the script nor half of the block is left");
}

#[test]
fn a_script_can_be_killed_where_nobody_is_told_that_it_runs() {
    let mut shard = leading_silently();
    let (buyer, operator) = (shard.connect(), shard.connect());
    assert_eq!(shard.send(buyer, "MULTI ; SET {t}1 paid"), "+OK +QUEUED");
    let (read, answer) = beside(&mut shard, NEVER_ENDS, &[(buyer, "DECR {t}2"), (operator, "SCRIPT KILL")]);
    assert_eq!(read, ["", "+OK"], "all else waits, and breaks no block");
    assert!(answer.contains(KILLED), "{answer}");
    assert_eq!(shard.send(buyer, "DECR {t}2"), "+QUEUED");
    assert!(shard.shard.keyspace().is_empty(), "the script was undone");
}

#[test]
fn an_exec_beside_a_script_ends_the_block() {
    let mut shard = leading();
    let client = shard.connect();
    shard.send(client, "WATCH {t}1 ; MULTI ; SET {t}1 paid");
    let refused = format!("-EXECABORT Transaction discarded because of: {}", &REFUSED[1..]);
    assert_eq!(beside_one(&mut shard, client, "EXEC ; EXEC"), format!("{refused} {refused}"));
    assert_eq!(shard.send(client, "EXEC ; GET {t}1"), "-ERR EXEC without MULTI nil");
}

#[test]
fn a_block_may_begin_and_end_beside_a_script() {
    let mut shard = leading();
    let client = shard.connect();
    let read =
        beside_one(&mut shard, client, "WATCH a ; MULTI ; WATCH b ; MULTI ; DISCARD ; UNWATCH ; DISCARD");
    let nested = "-ERR WATCH inside MULTI is not allowed -ERR MULTI calls can not be nested";
    assert_eq!(read, format!("+OK +OK {nested} +OK +OK -ERR DISCARD without MULTI"));
    // What was begun beside it goes on after it.
    assert_eq!(beside_one(&mut shard, client, "MULTI ; AUTH default x"), "+OK +QUEUED");
    assert_eq!(shard.send(client, "SET {t}1 paid ; EXEC"), "+QUEUED");
    shard.commit_all();
    assert_eq!(shard.read(client), "[+OK, +OK]");
}

#[test]
fn a_mistake_beside_a_script_is_told_as_ever() {
    let mut shard = leading();
    let client = shard.connect();
    let read = beside_one(&mut shard, client, "NOPE ; GET ; GET x ; MSET a 1 b 2 ; PING");
    let told = [
        "-ERR unknown command 'NOPE', with args beginning with: ",
        "-ERR wrong number of arguments for 'get' command",
        "-MOVED 16287 127.0.0.1:7102",
        "-CROSSSLOT Keys in request don't hash to the same slot",
        REFUSED,
    ];
    assert_eq!(read, told.join(" "));
    for mistake in ["NOPE", "GET", "GET x", "MSET a 1 b 2", "PING"] {
        shard.send(client, "MULTI ; SET a 1");
        beside_one(&mut shard, client, mistake);
        assert_eq!(shard.send(client, "EXEC"), ABORTED, "{mistake}");
    }
}

#[test]
fn reply_modes_hold_beside_a_script() {
    let mut shard = leading();
    let (silent, skipping) = (shard.connect(), shard.connect());
    shard.send(silent, "CLIENT REPLY OFF");
    shard.send(skipping, "CLIENT REPLY SKIP");
    let (read, _) = beside(&mut shard, ENDS, &[(silent, "GET k ; MULTI"), (skipping, "GET k ; GET k")]);
    assert_eq!(read, ["", REFUSED]);
    assert_eq!(beside_one(&mut shard, silent, "RESET ; GET k"), format!("+RESET {REFUSED}"));
}

#[test]
fn who_listens_hears_beside_a_script_what_it_may_not_send() {
    let mut shard = leading();
    let client = shard.connect();
    shard.send(client, "SUBSCRIBE news");
    let read = beside_one(&mut shard, client, "PING ; GET k ; RESET ; GET k");
    assert!(read.starts_with(&format!("{REFUSED} -ERR Can't execute 'get'")), "{read}");
    assert!(read.ends_with(&format!("+RESET {REFUSED}")), "{read}");
}

#[test]
fn a_held_reply_stays_before_what_is_told_beside_a_script() {
    let mut shard = leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "SET a 1"), "");
    let (read, answer) = beside(&mut shard, NEVER_ENDS, &[(client, "GET a ; SCRIPT KILL")]);
    assert_eq!(read, [""]);
    assert!(answer.contains(KILLED), "{answer}");
    assert_eq!(shard.read(client), format!("+OK {REFUSED} +OK"));
}

#[test]
fn a_kill_in_a_block_waits_for_its_exec() {
    let mut shard = leading();
    let client = shard.connect();
    assert_eq!(beside_one(&mut shard, client, "MULTI ; SCRIPT KILL"), "+OK +QUEUED");
    assert_eq!(shard.send(client, "EXEC"), "[-NOTBUSY No scripts in execution right now.]");
}

#[test]
fn the_world_may_end_a_script() {
    let mut shard = leading();
    shard.world.while_busy.replace(Some(Box::new(|_| Busy::Kill)));
    let client = shard.connect();
    let mut answer = shard.send_words(client, &[b"EVAL", NEVER_ENDS, b"1", b"k"]);
    shard.commit_all();
    answer += &shard.read(client);
    assert!(answer.contains(KILLED), "{answer}");
    assert!(shard.shard.keyspace().is_empty(), "it was undone");
}

#[test]
fn a_watch_beside_a_script_sees_what_becomes_of_the_key() {
    let mut shard = leading();
    let (client, operator) = (shard.connect(), shard.connect());
    // The script has changed the key, and is undone.
    beside(&mut shard, NEVER_ENDS, &[(client, "WATCH k"), (operator, "SCRIPT KILL")]);
    assert_eq!(shard.send(client, "MULTI ; GET k ; EXEC"), "+OK +QUEUED nil");
    // It leaves another alone.
    assert_eq!(beside_one(&mut shard, client, "WATCH other"), "+OK");
    assert_eq!(shard.send(client, "MULTI ; GET k ; EXEC"), "+OK +QUEUED [\"script\"]");
}

#[test]
fn a_watch_of_an_expired_key_changes_nothing() {
    let mut shard = leading();
    let client = shard.connect();
    shard.send(client, "SET {w}gone 1 PX 100 ; SET {w}going 1 PX 1000");
    shard.commit_all();
    shard.read(client);
    shard.world.elapse_us(101_000);
    let read = beside_one(&mut shard, client, "WATCH {w}gone");
    assert_eq!(read, "+OK");
    assert_eq!(shard.shard.keyspace().len(), 3, "it is served beside the script's unit");
    shard.pass_ms(1);
    shard.commit_all();
    assert_eq!(shard.shard.keyspace().len(), 2);
    assert_eq!(shard.send(client, "MULTI ; PING ; EXEC"), "+OK +QUEUED [+PONG]");
    // Whose time comes later has changed.
    for removed_before in [false, true] {
        shard.send(client, "SET {w}going 1 PX 1000 ; WATCH {w}going");
        shard.commit_all();
        shard.read(client);
        shard.world.elapse_us(1_001_000);
        if removed_before {
            shard.pass_ms(1);
            shard.commit_all();
        }
        let answered = shard.send(client, "MULTI ; PING ; EXEC");
        // That its time has come is known to no later leader before it is committed.
        assert_eq!(answered, if removed_before { "+OK +QUEUED nil" } else { "+OK +QUEUED" });
        shard.commit_all();
        assert_eq!(shard.read(client), if removed_before { "" } else { "nil" });
    }
}

/// A client's block of some requests, over its time at once; what others are answered between them.
fn beside_block(shard: &mut ShardHarness, asks: &[&str]) -> (Vec<String>, String) {
    let (owner, other) = (shard.connect(), shard.connect());
    let mut waiting: Vec<BytesMut> = asks.iter().map(|text| packet(text)).rev().collect();
    let read = Rc::new(RefCell::new(Vec::new()));
    let replies = Rc::clone(&read);
    let attend: WhileBusy = Box::new(move |busy: &mut BusyShard<'_>| {
        if let Some(mut input) = waiting.pop() {
            busy.receive(other, &mut input);
            let bytes = busy.writable(other).to_vec();
            busy.written(other, bytes.len());
            replies.borrow_mut().push(show_all(&bytes));
        }
        Busy::Continue
    });
    shard.world.while_busy.replace(Some(attend));
    shard.world.look_ns.set(1);
    let mut answer = shard.send(owner, "MULTI ; SET {t}a 1 ; INCR {t}a ; GET {t}a ; EXEC");
    shard.world.look_ns.set(0);
    shard.world.while_busy.replace(None);
    shard.commit_all();
    answer += &shard.read(owner);
    (read.take(), answer)
}

#[test]
fn a_block_over_its_time_lets_others_hear_so_and_goes_on() {
    let mut shard = leading();
    let (read, answer) = beside_block(&mut shard, &["GET {t}a", "PING"]);
    assert_eq!(read, [REFUSED, REFUSED], "between its requests");
    assert!(answer.ends_with("[+OK, :2, \"2\"]"), "{answer}");
}

#[test]
fn a_block_over_its_time_can_be_killed_and_nothing_of_it_is_left() {
    let mut shard = leading();
    let (read, answer) = beside_block(&mut shard, &["GET {t}a", "SCRIPT KILL"]);
    assert_eq!(read, [REFUSED, "+OK"]);
    assert!(answer.ends_with("-EXECABORT Transaction discarded because of: it was killed"), "{answer}");
    assert!(shard.shard.keyspace().is_empty());
    let client = shard.connect();
    assert_eq!(shard.send(client, "SCRIPT KILL"), "-NOTBUSY No scripts in execution right now.");
    shard.send(client, "GET {t}a");
    shard.commit_all(); // what was rolled back stays marked
    assert_eq!(shard.read(client), "nil");
}
