//! What blocks and scripts call that works through much is executed elsewhere, and clients are heard meanwhile.

use std::{cell::Cell, rc::Rc};

use bytes::BytesMut;

use super::{
    errands::leader_with,
    harness::{ShardHarness, WhileBusy, encode, show_all},
};
use crate::{
    marks,
    shard::{Busy, BusyShard, SessionId, ShardSettings},
};

const REFUSED: &str =
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";

/// A leader to which little is much, and whose scripts are over their time at once; with a client and another.
fn leader() -> (ShardHarness, SessionId, SessionId) {
    leader_with(ShardSettings { busy_ms: 0, ..ShardSettings::default() })
}

fn eval(shard: &mut ShardHarness, client: SessionId, script: &str) -> String {
    let at_once = shard.send_words(client, &[b"EVAL", script.as_bytes(), b"1", b"{t}s"]);
    shard.commit_all();
    at_once + &shard.read(client)
}

/// While the next large call is under way, this client sends a request, once. What it reads.
fn asked_meanwhile(shard: &ShardHarness, client: SessionId, request: &'static str) -> Rc<Cell<String>> {
    let read = Rc::new(Cell::new(String::new()));
    let (told, world) = (Rc::clone(&read), Rc::clone(&shard.world));
    let mut asked = false;
    let attend: WhileBusy = Box::new(move |busy: &mut BusyShard<'_>| {
        // The call has been waited for in vain once.
        if world.call_takes.get() == 1 && !std::mem::replace(&mut asked, true) {
            let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            busy.receive(client, &mut BytesMut::from(&encode(&words)[..]));
            let bytes = busy.writable(client).to_vec();
            busy.written(client, bytes.len());
            told.set(show_all(&bytes));
        }
        Busy::Continue
    });
    shard.world.call_takes.set(2);
    shard.world.while_busy.replace(Some(attend));
    read
}

#[test]
fn they_answer_as_they_do_here() {
    let calls = [
        "return redis.call('SUNIONSTORE', '{t}d', KEYS[1], '{t}u', '{t}d')",
        "redis.call('SADD', KEYS[1], 'new') redis.call('SUNIONSTORE', '{t}d', KEYS[1]) redis.call('SREM', '{t}d', 1) \
         return {redis.call('SISMEMBER', '{t}d', 'new'), redis.call('SCARD', '{t}d')}",
        "return redis.pcall('SINTER', '{t}u', KEYS[1], '{t}small')",
        "return redis.call('SUNIONSTORE', '{t}d', '{t}u', '{t}l')",
        "local all = redis.call('SMEMBERS', KEYS[1]) table.sort(all) return all",
        "return redis.call('SORT', '{t}l', 'DESC', 'LIMIT', 0, 2)",
        "redis.call('COPY', KEYS[1], '{t}copy') redis.call('SPOP', '{t}copy', 31) return redis.call('EXISTS', '{t}copy')",
        "redis.call('LTRIM', '{t}l', 20, -1) redis.call('ZUNIONSTORE', '{t}z', 2, KEYS[1], '{t}z') error('on purpose')",
        "return {redis.call('LLEN', '{t}l'), redis.call('ZCARD', '{t}z')}",
    ];
    let answers = |large_elements| {
        let (mut shard, client, _) = leader();
        shard.shard.reconfigure(|settings| settings.large_elements = large_elements);
        let told: Vec<String> = calls.iter().map(|call| eval(&mut shard, client, call)).collect();
        assert!(!shard.shard.store().has_lent());
        (told, shard.shard.keyspace().digest())
    };
    marks::take();
    let elsewhere = answers(10);
    assert_eq!(marks::take().get("call executed elsewhere"), Some(&9));
    assert_eq!(elsewhere, answers(usize::MAX));
    assert_eq!(marks::take().get("call executed elsewhere"), None);
}

#[test]
fn clients_are_heard_while_a_script_waits_for_its_call() {
    let (mut shard, client, other) = leader();
    let read = asked_meanwhile(&shard, other, "GET {t}small");
    assert_eq!(eval(&mut shard, client, "return redis.call('SUNIONSTORE', '{t}d', KEYS[1])"), ":30");
    assert_eq!(read.take(), REFUSED);
    assert_eq!(shard.send(other, "GET {t}small ; SCARD {t}d"), "\"v\" :30");
}

#[test]
fn a_script_that_is_killed_meanwhile_leaves_nothing_even_if_it_goes_on() {
    let (mut shard, client, other) = leader();
    let digest = shard.shard.keyspace().digest();
    let read = asked_meanwhile(&shard, other, "SCRIPT KILL");
    let script = "redis.call('SADD', KEYS[1], 'new') redis.pcall('SUNIONSTORE', '{t}d', KEYS[1]) \
                  redis.pcall('SADD', KEYS[1], 'newer') while true do redis.pcall('SADD', KEYS[1], 'newest') end";
    let answer = eval(&mut shard, client, script);
    assert_eq!(read.take(), "+OK");
    assert!(answer.contains("Script killed by user with SCRIPT KILL"), "{answer}");
    assert_eq!(shard.shard.keyspace().digest(), digest);
    assert!(!shard.shard.store().has_lent());
}

#[test]
fn clients_are_heard_while_a_block_waits_for_its_call_and_may_end_it() {
    const BLOCK: &str = "MULTI ; SADD {t}s new ; PING ; SUNIONSTORE {t}d {t}s ; EXEC";
    let (mut shard, client, other) = leader();
    shard.world.look_ns.set(1);
    let read = asked_meanwhile(&shard, other, "GET {t}small");
    shard.send(client, BLOCK);
    shard.commit_all();
    assert_eq!(read.take(), REFUSED);
    assert_eq!(shard.read(client), "[:1, +PONG, :31]");
    let digest = shard.shard.keyspace().digest();
    let read = asked_meanwhile(&shard, other, "SCRIPT KILL");
    let answer = shard.send(client, &BLOCK.replace("new", "newer"));
    assert_eq!(read.take(), "+OK");
    assert!(answer.ends_with("-EXECABORT Transaction discarded because of: it was killed"), "{answer}");
    assert_eq!(shard.shard.keyspace().digest(), digest);
}

#[test]
fn a_reply_that_is_too_large_is_refused_as_it_is_here() {
    let answers = |large_elements| {
        let (mut shard, client, _) = leader();
        shard.shard.reconfigure(|settings| {
            settings.large_elements = large_elements;
            settings.limits.reply_bytes_max = 200;
        });
        let script = "redis.call('SET', '{t}new', 1) return redis.call('SORT', '{t}l', 'LIMIT', 0, 29)";
        let answer = eval(&mut shard, client, script);
        assert!(answer.contains("max-reply-bytes"), "{answer}");
        let block = shard.send(client, "MULTI ; SET {t}newer 1 ; PING ; SORT {t}l LIMIT 0 29 ; EXEC");
        (answer, block, shard.send(client, "EXISTS {t}new {t}newer"))
    };
    assert_eq!(answers(10), answers(usize::MAX));
}
