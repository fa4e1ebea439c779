//! What `CLIENT PAUSE` holds, and what becomes of keys and reply modes meanwhile.

use super::*;

const READS: &[u8] = b"#!lua flags=no-writes\nreturn redis.call('EXISTS', KEYS[1])";
const WRITES: &[u8] = b"#!lua\nreturn redis.call('EXISTS', KEYS[1])";
const SAYS_NOTHING: &[u8] = b"return redis.call('EXISTS', KEYS[1])";

#[test]
fn a_pause_of_writes_holds_scripts_that_may_write_and_no_others() {
    let mut shard = ShardHarness::leading();
    let operator = shard.connect();
    let names = [READS, WRITES].map(|text| {
        shard.send_words(operator, &[b"SCRIPT", b"LOAD", text]);
        shard.commit_all();
        shard.read(operator).trim_matches('"').to_owned().into_bytes()
    });
    assert_eq!(shard.send(operator, "CLIENT PAUSE 100000 WRITE"), "+OK");
    let mut ask = |words: &[&[u8]]| {
        let client = shard.connect();
        let now = shard.send_words(client, words);
        shard.commit_all();
        now + &shard.read(client)
    };
    for served in [
        [b"EVAL", READS, b"1", b"k"],
        [b"EVAL_RO", SAYS_NOTHING, b"1", b"k"],
        [b"EVALSHA", &names[0], b"1", b"k"],
        [b"EVALSHA_RO", &names[0], b"1", b"k"],
    ] {
        assert_eq!(ask(&served), ":0");
    }
    let says_so = [[b"EVAL".as_slice(), WRITES], [b"EVALSHA", &names[1]], [b"EVAL_RO", WRITES]];
    for held in says_so.into_iter().chain([[b"EVAL".as_slice(), SAYS_NOTHING]]) {
        assert_eq!(ask(&[held[0], held[1], b"1", b"k"]), "");
    }
    assert_eq!(ask(&[b"PUBLISH", b"news", b"text"]), "");
    assert!(ask(&[b"SCRIPT", b"LOAD", b"return 1"]).starts_with('"'));
}

#[test]
fn a_block_waits_where_it_is_told_to_write() {
    let mut shard = ShardHarness::leading();
    let (operator, client) = (shard.connect(), shard.connect());
    shard.send(operator, "CLIENT PAUSE 100000 WRITE");
    shard.send(client, "MULTI");
    let reading = shard.send_words(client, &[b"EVAL", READS, b"1", b"k"]);
    assert_eq!(reading + " " + &shard.send(client, "EXEC"), "+QUEUED [:0]");
    assert_eq!(shard.send(client, "MULTI ; GET k ; SET k v ; EXEC"), "+OK +QUEUED");
    assert_eq!(shard.send(operator, "CLIENT UNPAUSE"), "+OK");
    shard.commit_all();
    assert_eq!(shard.read(client), "+QUEUED [nil, +OK]");
}

#[test]
fn keys_whose_time_comes_in_a_pause_are_seen_no_more_and_stay() {
    let mut shard = ShardHarness::leading();
    let (operator, client) = (shard.connect(), shard.connect());
    shard.send(client, "SET {t}gone 1 PX 100 ; SET {t}stays 1 ; WATCH {t}gone");
    shard.commit_all();
    shard.read(client);
    shard.send(operator, "CLIENT PAUSE 1000 WRITE");
    shard.pass_ms(200);
    assert!(shard.proposals.is_empty(), "nothing changes");
    let look = |shard: &mut ShardHarness, requests: &str| {
        let now = shard.send(client, requests);
        shard.commit_all();
        now + &shard.read(client)
    };
    assert_eq!(look(&mut shard, "GET {t}gone"), "nil");
    assert_eq!(look(&mut shard, "DBSIZE"), ":2");
    assert_eq!(look(&mut shard, "MULTI ; GET {t}stays ; EXEC"), "+OK +QUEUED nil", "what it watched is gone");
    // Now it was gone before.
    look(&mut shard, "WATCH {t}gone");
    shard.pass_ms(900);
    assert_eq!(look(&mut shard, "DBSIZE"), ":1", "the pause is over");
    assert_eq!(look(&mut shard, "MULTI ; GET {t}stays ; EXEC"), "+OK +QUEUED [\"1\"]");
}

#[test]
fn a_write_that_a_block_brings_into_its_own_pause_finds_no_expired_key() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SET k text PX 100");
    shard.commit_all();
    shard.read(client);
    shard.world.elapse_us(101_000);
    shard.send(client, "MULTI ; CLIENT PAUSE 1000 WRITE ; HSET k field value ; EXEC");
    shard.commit_all();
    assert_eq!(shard.read(client), "[+OK, :1]");
}

#[test]
fn reply_modes_do_not_change_inside_a_block() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let refused = "-ERR Command not allowed inside a transaction";
    for mode in ["ON", "OFF", "SKIP"] {
        assert_eq!(shard.send(client, "MULTI ; PING"), "+OK +QUEUED");
        assert_eq!(shard.send(client, &format!("CLIENT REPLY {mode}")), refused);
        let aborted = "-EXECABORT Transaction discarded because of previous errors.";
        assert_eq!(shard.send(client, "EXEC ; PING"), format!("{aborted} +PONG"));
    }
    // A mode from before holds for all of it.
    assert_eq!(shard.send(client, "CLIENT REPLY OFF ; MULTI ; PING ; EXEC ; CLIENT REPLY ON"), "+OK");
    assert_eq!(
        shard.send(client, "MULTI ; PING ; CLIENT REPLY OFF ; DISCARD ; PING"),
        format!("+OK +QUEUED {refused} +OK +PONG")
    );
    assert_eq!(shard.send(client, "CLIENT REPLY SKIP ; RESET ; PING"), "+PONG");
}
