//! Blocks that work through much are executed elsewhere, each as one.

use super::{ShardHarness, errands::finish, of_many};
use crate::{
    keyspace::seed,
    shard::{SessionId, ShardSettings},
};

const FEW: usize = 10;
const MANY: usize = 30;

fn leader() -> (ShardHarness, SessionId, SessionId) {
    leader_with(ShardSettings::default())
}

fn leader_with(settings: ShardSettings) -> (ShardHarness, SessionId, SessionId) {
    seed::fix(7);
    let mut shard = ShardHarness::leading_with(ShardSettings { large_elements: FEW, ..settings });
    let (client, other) = (shard.connect(), shard.connect());
    for key in ["{t}s", "{t}u"] {
        shard.send(client, &of_many("SADD", key, MANY));
    }
    shard.send(client, "SET {t}small v ; ZADD {t}z 1 a 2 b ; SET {t}n 1");
    shard.commit_all();
    shard.read(client);
    shard.world.holds_errands.set(true);
    (shard, client, other)
}

const BLOCK: &str = "MULTI ; SUNIONSTORE {t}d {t}s {t}u ; INCR {t}small ; SCARD {t}d ; INCR {t}n ; EXEC";
const QUEUED: &str = "+OK +QUEUED +QUEUED +QUEUED +QUEUED";

#[test]
fn others_are_served_while_a_block_is_executed_and_it_takes_effect_as_one() {
    let (mut shard, client, other) = leader();
    assert_eq!(shard.send(client, BLOCK), QUEUED);
    shard.send(client, "GET {t}n");
    assert_eq!(shard.send(other, "SET {t}other w ; EXISTS {t}other"), "");
    shard.commit_all();
    assert_eq!(shard.read(other), "+OK :1");
    assert_eq!(shard.send(other, "GET {t}n"), "", "what the block needs is waited for");
    assert!(shard.proposals.is_empty());
    finish(&mut shard);
    assert_eq!(shard.proposals.len(), 1, "one batch");
    assert_eq!(shard.read(client), "");
    shard.commit_all();
    let reply = shard.read(client);
    assert_eq!(reply, "[:30, -ERR value is not an integer or out of range, :30, :2] \"2\"");
    assert_eq!(shard.read(other), "\"2\"");
    assert_eq!(shard.send(client, "EXEC"), "-ERR EXEC without MULTI", "it has ended");
}

#[test]
fn it_answers_as_it_does_here() {
    let blocks = [
        BLOCK,
        "MULTI ; SMEMBERS {t}z ; ZRANGESTORE {t}y {t}z 0 -1 ; COPY {t}s {t}c ; SCARD {t}c ; SPOP {t}c 30 ; EXISTS {t}c ; EXEC",
        "MULTI ; GET {t}small ; SDIFFSTORE {t}s {t}s {t}u ; EXISTS {t}s ; EXEC",
        "MULTI ; PUBLISH a b ; SINTERCARD 2 {t}u {t}u ; EXEC",
    ];
    let answers = |large_elements| {
        let (mut shard, client, _) = leader();
        shard.shard.reconfigure(|settings| settings.large_elements = large_elements);
        shard.world.holds_errands.set(false);
        let mut answers = Vec::new();
        for block in blocks {
            shard.send(client, block);
            shard.commit_all();
            let reply = shard.read(client);
            // What is drawn is another each time.
            answers.push(if block.contains("SPOP") { reply.len().to_string() } else { reply });
        }
        (answers, shard.shard.keyspace().digest())
    };
    assert_eq!(answers(FEW), answers(usize::MAX));
}

#[test]
fn a_watched_key_that_changes_meanwhile_breaks_it() {
    let (mut shard, client, other) = leader();
    shard.send(client, "WATCH {t}seen {t}s");
    assert_eq!(shard.send(client, BLOCK), QUEUED);
    finish(&mut shard);
    shard.commit_all();
    assert!(shard.read(client).starts_with("[:30"), "nobody changed it");
    assert_eq!(shard.send(other, "GET {t}n"), "\"2\"");

    shard.send(client, "WATCH {t}seen {t}s");
    assert_eq!(shard.send(client, BLOCK), QUEUED);
    shard.send(other, "SET {t}seen w");
    shard.commit_all();
    shard.read(other);
    finish(&mut shard);
    assert_eq!(shard.read(client), "nil");
    assert!(shard.proposals.is_empty());
    assert_eq!(shard.send(other, "GET {t}n ; SCARD {t}s"), "\"2\" :30", "nothing was executed");
    // The next block watches nothing.
    assert_eq!(shard.send(client, "MULTI ; GET {t}small ; EXEC"), "+OK +QUEUED [\"v\"]");
}

#[test]
fn leadership_that_is_lost_meanwhile_leaves_nothing_of_it() {
    let (mut shard, client, _) = leader();
    let before = shard.shard.keyspace().digest();
    shard.send(client, BLOCK);
    shard.lose_leadership(2);
    assert_eq!(shard.shard.keyspace().digest(), before);
    assert!(shard.read(client).starts_with("-MOVED"));
    finish(&mut shard);
    assert_eq!(shard.shard.keyspace().digest(), before);
    shard.lead(3);
    assert_eq!(shard.send(client, "SCARD {t}s ; EXISTS {t}d ; GET {t}n"), ":30 :0 \"1\"");
}

#[test]
fn of_a_client_that_is_gone_nothing_is_executed() {
    let (mut shard, client, other) = leader();
    let before = shard.shard.keyspace().digest();
    shard.send(client, BLOCK);
    shard.shard.disconnect(client);
    finish(&mut shard);
    assert_eq!(shard.shard.keyspace().digest(), before);
    assert_eq!(shard.send(other, "GET {t}n ; SCARD {t}s"), "\"1\" :30");
}

#[test]
fn what_a_block_makes_itself_is_reckoned() {
    let (mut shard, client, other) = leader();
    let is_sent = |shard: &mut ShardHarness, block: &str| {
        shard.send(client, &format!("MULTI ; {block} ; EXEC"));
        let sent = !shard.world.errands.borrow().is_empty();
        finish(shard);
        shard.commit_all();
        shard.read(client);
        shard.send(other, "DEL {t}a {t}b {t}c");
        shard.commit_all();
        shard.read(other);
        sent
    };
    assert!(!is_sent(&mut shard, "SADD {t}a 1 2 3 ; INCR {t}n"));
    // Each is little by what is there now; together they are not.
    assert!(is_sent(&mut shard, "SADD {t}a 1 2 3 ; SUNIONSTORE {t}b {t}a ; SUNIONSTORE {t}c {t}b"));
    assert!(is_sent(&mut shard, "RENAME {t}s {t}a ; SMEMBERS {t}a"));
    assert!(is_sent(&mut shard, "SMEMBERS {t}u ; GET {t}n"));
    assert!(!is_sent(&mut shard, "SET {t}n 1 ; SET {t}n 2"));
    // What needs more than the values of its keys is executed here.
    assert!(!is_sent(&mut shard, "SMEMBERS {t}u ; PING"));
    assert!(!is_sent(&mut shard, "SMEMBERS {t}u ; EVAL return(1) 0"));
}

#[test]
fn limits_are_as_they_are_here() {
    let (mut shard, client, _) = leader();
    (shard.shard).reconfigure(|settings| settings.limits.reply_bytes_max = 1000);
    let before = shard.shard.keyspace().digest();
    shard.send(client, "MULTI ; SUNIONSTORE {t}d {t}s ; SMEMBERS {t}s ; EXEC");
    finish(&mut shard);
    let reply = shard.read(client);
    assert!(reply.starts_with("-ERR the reply"), "{reply}");
    assert_eq!(shard.shard.keyspace().digest(), before);
    assert!(shard.proposals.is_empty());
}
