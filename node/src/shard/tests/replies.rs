//! Replies that would be too large, and clients that would have too much unread.

use super::ShardHarness;
use crate::{
    keyspace::Limits,
    shard::{SessionId, ShardSettings},
};

const REPLY_BYTES_MAX: usize = 10_000;

/// A leader whose replies may weigh 10,000 bytes.
fn terse() -> ShardHarness {
    ShardHarness::leading_with(ShardSettings {
        limits: Limits { reply_bytes_max: REPLY_BYTES_MAX, ..Default::default() },
        ..Default::default()
    })
}

/// What is there of replies, to be written or held.
fn waiting_bytes(shard: &ShardHarness, client: SessionId) -> usize {
    shard.shard.backlog(client).bytes
}

/// Whatever makes a reply large, its request is refused whole before the reply is written.
#[test]
fn a_reply_that_would_be_too_large_is_never_built() {
    let mut shard = terse();
    let client = shard.connect();
    let large = vec![b'x'; 4_000];
    for number in 0..8_u8 {
        let (name, member) = ([b'm', b'0' + number], [&large[..], &[b'0' + number]].concat());
        shard.send_words(client, &[b"HSET", b"{k}h", &name, &large]);
        shard.send_words(client, &[b"RPUSH", b"{k}l", &large]);
        shard.send_words(client, &[b"RPUSH", b"{k}names", b"v"]);
        shard.send_words(client, &[b"SADD", b"{k}s", &member]);
        shard.send_words(client, &[b"ZADD", b"{k}z", b"1", &member]);
    }
    shard.send_words(client, &[b"SET", b"{k}v", &large]);
    let many: Vec<Vec<u8>> = (0..400).map(|number: u32| number.to_string().into_bytes()).collect();
    let words: Vec<&[u8]> =
        [&b"RPUSH"[..], b"{k}many"].into_iter().chain(many.iter().map(|n| &n[..])).collect();
    shard.send_words(client, &words);
    shard.commit_all();
    shard.read(client);

    let refusal = "-ERR the reply to this request exceeds max-reply-bytes (10000); nothing was changed";
    let before = shard.shard.keyspace().digest();
    for request in [
        "MGET {k}v {k}v {k}v {k}v",
        "HMGET {k}h m0 m1 m2 m3",
        "HGETALL {k}h",
        "HVALS {k}h",
        "LRANGE {k}l 0 -1",
        "LRANGE {k}many 0 -1",
        "SMEMBERS {k}s",
        "ZRANGE {k}z 0 -1 WITHSCORES",
        "SORT {k}names BY nosort GET {k}v",
        "SORT_RO {k}names BY nosort GET {k}v",
        "DUMP {k}l",
        "LPOP {k}l 8",
        "SPOP {k}s 8",
        "ZPOPMIN {k}z 8",
        // So many that nobody makes them first and counts them then.
        "SRANDMEMBER {k}s -1000000",
        "HRANDFIELD {k}h -1000000",
        "ZRANDMEMBER {k}z -1000000",
        "EVAL return(redis.call('MGET',KEYS[1],KEYS[1],KEYS[1],KEYS[1])) 1 {k}v",
        "EVAL redis.call('SET',KEYS[1],'x')return(redis.call('LPOP',KEYS[2],8)) 2 {k}v {k}l",
        "EVAL return({redis.call('GET',KEYS[1]),redis.call('GET',KEYS[1]),redis.call('GET',KEYS[1]),redis.call('GET',KEYS[1])}) 1 {k}v",
    ] {
        let pattern = request.contains("SORT").then(|| request.replace("GET {k}v", "GET {k}*"));
        let at_once = shard.send(client, &pattern.unwrap_or_else(|| request.to_owned()));
        // A key that was changed and changed back is still waited for.
        shard.commit_all();
        assert_eq!(at_once + &shard.read(client), refusal, "{request}");
        assert!(waiting_bytes(&shard, client) < 100, "{request}");
    }
    let block = "MULTI ; DEL {k}l ; GET {k}v ; GET {k}v ; GET {k}v ; GET {k}v ; EXEC";
    let reply = shard.send(client, block);
    assert_eq!(reply, format!("+OK{} {refusal}", " +QUEUED".repeat(5)));
    assert_eq!(shard.shard.keyspace().digest(), before, "nothing of them was done");
    assert!(shard.closed.is_empty(), "and their client goes on");
}

#[test]
fn a_value_can_be_read_however_large_it_is() {
    let mut shard = terse();
    let client = shard.connect();
    let large = vec![b'x'; 50_000];
    shard.send_words(client, &[b"SET", b"{k}v", &large]);
    shard.send_words(client, &[b"RPUSH", b"{k}l", &large, b"small"]);
    shard.commit_all();
    shard.read(client);
    for request in ["GET {k}v", "MGET {k}v {k}w", "LRANGE {k}l 0 -1", "LPOP {k}l"] {
        let at_once = shard.send(client, request);
        shard.commit_all();
        assert!((at_once + &shard.read(client)).len() >= 50_000, "{request}");
    }
}

/// A client that may not leave so much unread is disconnected instead, as in Redis: but before
/// the reply is written. What it has executed stays done.
#[test]
fn a_reply_over_its_clients_limit_is_not_built_either() {
    let settings = ShardSettings { outbox_bytes_max: 100_000, ..Default::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let (client, other) = (shard.connect(), shard.connect());
    shard.send_words(client, &[b"SET", b"k", &[b'x'; 30_000]]);
    shard.commit_all();
    shard.read(client);
    assert_eq!(shard.send(client, "PING ; GET k ; INCR n ; MGET k k k k ; INCR n"), "");
    assert_eq!(shard.closed, [client]);
    shard.commit_all();
    assert_eq!(shard.send(other, "GET n"), "\"1\"");
}
