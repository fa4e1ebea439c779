//! What `MONITOR` tells, and to whom.

use super::*;

/// The lines that a client has read, without times and addresses.
fn told(shard: &mut ShardHarness, id: SessionId) -> String {
    let text = shard.read(id);
    let words: Vec<&str> = text.split(' ').collect();
    let is_shown = |word: &&&str| !word.starts_with('+') && !word.starts_with("[0") && !word.ends_with(']');
    words.iter().filter(is_shown).copied().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_request_is_told_once_it_is_executed() {
    let mut shard = ShardHarness::leading();
    let (monitor, client) = (shard.connect(), shard.connect());
    assert_eq!(shard.send(monitor, "MONITOR"), "+OK");
    shard.send(client, "SET k v ; GET ; NOTHING ; MULTI ; GET k ; PING ; EXEC ; CONFIG GET x");
    assert_eq!(told(&mut shard, monitor), r#""SET" "k" "v" "MULTI" "GET" "k" "PING" "EXEC""#);
    shard.send_words(client, &[b"EVAL", b"redis.call('incr', KEYS[1]) return 1", b"1", b"n"]);
    let eval = told(&mut shard, monitor);
    assert!(eval.starts_with(r#""EVAL""#) && eval.ends_with(r#""incr" "n""#), "{eval}");
    // It is no part of what the log decides on.
    shard.lose_leadership(2);
    assert_eq!(told(&mut shard, monitor), "");
}

#[test]
fn who_monitors_reads_no_data_and_may_stop() {
    let mut shard = ShardHarness::leading();
    let (monitor, client) = (shard.connect(), shard.connect());
    assert_eq!(
        shard.send(client, "MULTI ; MONITOR ; EXEC"),
        "+OK +QUEUED [-ERR MONITOR isn't allowed for DENY BLOCKING client]"
    );
    assert_eq!(shard.send(monitor, "MONITOR ; MONITOR"), "+OK");
    let refused = "-ERR Replica can't interact with the keyspace";
    for request in ["GET k", "SET k v", "PUBLISH a b", "EVAL x 0"] {
        assert_eq!(shard.send(monitor, request), refused, "{request}");
    }
    assert!(shard.send(client, "CLIENT LIST").contains(" flags=O "));
    shard.read(monitor);
    assert_eq!(shard.send(monitor, "RESET"), "+RESET");
    shard.send(client, "PING");
    assert_eq!(told(&mut shard, monitor), "");
    shard.send(monitor, "MONITOR");
    shard.shard.disconnect(monitor);
    assert_eq!(shard.send(client, "PING"), "+PONG");
}
