//! Words of `DEBUG`: whose are heard, and what becomes of a shard.

use super::ShardHarness;
use crate::{config::DebugAccess, shard::ShardSettings};

fn heard(debug_access: DebugAccess) -> ShardHarness {
    ShardHarness::leading_with(ShardSettings { debug_access, ..ShardSettings::default() })
}

#[test]
fn words_are_heard_of_those_whom_the_setting_lets() {
    const REFUSED: &str = "-ERR DEBUG command not allowed.";
    for (access, address, is_let) in [
        (DebugAccess::No, "127.0.0.1:50000", false),
        (DebugAccess::Local, "127.0.0.1:50000", true),
        (DebugAccess::Local, "[::1]:50000", true),
        (DebugAccess::Local, "10.0.0.1:50000", false),
        (DebugAccess::Yes, "10.0.0.1:50000", true),
    ] {
        let mut shard = heard(access);
        let client = shard.connect();
        shard.shard.sessions[client].peer_address = address.to_owned();
        let told = shard.send(client, "DEBUG RELOAD");
        assert_eq!(told == "+OK", is_let, "{access:?}, {address}: {told}");
        assert_eq!(told.starts_with(REFUSED), !is_let, "{access:?}, {address}: {told}");
        assert_eq!(shard.send(client, "MULTI ; DEBUG RELOAD") == "+OK +QUEUED", is_let);
        // What compares data is for everyone.
        let other = shard.connect();
        assert!(shard.send(other, "DEBUG DIGEST").starts_with('+'));
    }
}

#[test]
fn who_sleeps_is_answered_later_and_others_are_served() {
    let mut shard = heard(DebugAccess::Yes);
    let (client, other) = (shard.connect(), shard.connect());
    assert_eq!(shard.send(client, "DEBUG SLEEP 0 ; DEBUG SLEEP 0.25 ; PING"), "+OK");
    assert_eq!(shard.send(other, "PING"), "+PONG");
    shard.pass_ms(200);
    assert_eq!(shard.read(client), "");
    shard.pass_ms(100);
    assert_eq!(shard.read(client), "+OK +PONG");
    // A block does not wait.
    assert_eq!(shard.send(client, "MULTI ; DEBUG SLEEP 10 ; EXEC"), "+OK +QUEUED [+OK]");
}

#[test]
fn what_nobody_asks_for_stays_while_nothing_expires_actively() {
    let mut shard = heard(DebugAccess::Yes);
    let client = shard.connect();
    assert_eq!(shard.send(client, "DEBUG SET-ACTIVE-EXPIRE 0"), "+OK");
    shard.send(client, "SET a 1 PX 10 ; SET b 1 PX 10");
    shard.commit_all();
    shard.pass_ms(1000);
    assert_eq!(shard.shard.keyspace().len(), 2);
    shard.send(client, "GET a");
    shard.commit_all();
    assert_eq!(shard.shard.keyspace().len(), 1, "who asks for it removes it");
    shard.send(client, "DEBUG SET-ACTIVE-EXPIRE 1");
    shard.pass_ms(1000);
    assert_eq!(shard.shard.keyspace().len(), 0);
}

#[test]
fn keys_that_are_made_are_of_the_shard_and_replicated() {
    let mut shard = heard(DebugAccess::Yes);
    let client = shard.connect();
    shard.send(client, "DEBUG POPULATE 3 p 10 ; SET key:1 mine ; DEBUG POPULATE 2");
    assert_eq!(shard.proposals.len(), 1);
    shard.commit_all();
    assert_eq!(shard.read(client), "+OK +OK +OK");
    let told =
        shard.send(client, "DBSIZE ; GET key:1 ; STRLEN p:2 ; DEBUG POPULATE 100001 ; DEBUG POPULATE -1");
    assert!(told.starts_with(":5 \"mine\" :10 -ERR DEBUG POPULATE creates 100000 keys"), "{told}");
}
