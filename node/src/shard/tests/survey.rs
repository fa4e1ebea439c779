//! Requests that look at all keys, in steps between which others are served.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::ShardHarness;
use crate::{
    keyspace::{seed, tx::Limits},
    shard::{SessionId, ShardSettings},
};

const FEW: usize = 10;
const MANY: usize = 60;

/// A leader to which little is much, with keys of many slots and of one.
fn leader() -> (ShardHarness, SessionId, SessionId) {
    leader_with(ShardSettings::default())
}

fn leader_with(settings: ShardSettings) -> (ShardHarness, SessionId, SessionId) {
    seed::fix(7);
    let mut shard = ShardHarness::leading_with(ShardSettings { large_elements: FEW, ..settings });
    let (client, other) = (shard.connect(), shard.connect());
    for number in 0..MANY {
        shard.send(client, &format!("SET {{t}}{number} v"));
    }
    shard.commit_all();
    shard.read(client);
    (shard, client, other)
}

fn names(reply: &str) -> Vec<String> {
    let inner = reply.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let inner = inner.unwrap_or_else(|| panic!("{reply} is no array"));
    inner.split(", ").filter(|name| !name.is_empty()).map(|name| name.trim_matches('"').to_owned()).collect()
}

/// Steps until the client has its answer, and that.
fn finish(shard: &mut ShardHarness, client: SessionId) -> (usize, String) {
    for steps in 1..1000 {
        shard.wake();
        shard.commit_all();
        let reply = shard.read(client);
        if !reply.is_empty() {
            return (steps, reply);
        }
    }
    panic!("it goes on for ever")
}

#[test]
fn others_are_served_between_steps_and_a_pipeline_keeps_its_order() {
    for request in ["KEYS *", "KEYS {t}*", "CLUSTER GETKEYSINSLOT 15891 1000"] {
        let (mut shard, client, other) = leader();
        assert_eq!(shard.send(client, &format!("GET {{t}}1 ; {request} ; GET {{t}}2")), "\"v\"");
        assert_eq!(shard.send(other, "GET {t}1 ; DBSIZE"), "\"v\" :60");
        let (steps, reply) = finish(&mut shard, client);
        assert_eq!(steps, MANY / FEW, "{request}: a step looks at so many keys and at no more");
        let (keys, behind) = reply.rsplit_once(' ').expect("two replies");
        assert_eq!(behind, "\"v\"");
        let all: BTreeSet<String> = (0..MANY).map(|number| format!("{{t}}{number}")).collect();
        let told = names(keys);
        assert_eq!((told.len(), told.into_iter().collect::<BTreeSet<_>>()), (MANY, all), "{request}");
        assert!(shard.shard.next_wake().is_none(), "nothing goes on");
    }
}

#[test]
fn few_keys_a_block_and_a_script_are_looked_at_at_once() {
    let (mut shard, client, _) = leader();
    assert_eq!(shard.send(client, "KEYS {u}*"), "[]");
    assert_eq!(shard.send(client, "CLUSTER GETKEYSINSLOT 15891 3").matches("{t}").count(), 3);
    let block = shard.send(client, "MULTI ; KEYS {t}* ; EXEC");
    assert_eq!(block.matches("{t}").count(), MANY, "{block}");
    assert_eq!(shard.send(client, "EVAL return(#redis.call('KEYS','*')) 0"), ":60");
}

#[test]
fn a_key_that_is_there_all_the_time_is_told_once_and_none_that_never_was() {
    for seed in 0..40 {
        let (mut shard, client, other) = leader();
        let mut random = StdRng::seed_from_u64(seed);
        let name = |number: usize| match number % 2 {
            0 => format!("{{t}}{number}"),
            _ => format!("{number}"),
        };
        let mut there: BTreeSet<String> = (0..MANY).map(|number| format!("{{t}}{number}")).collect();
        let (mut always, mut ever) = (there.clone(), there.clone());
        assert_eq!(shard.send(client, "KEYS *"), "");
        let reply = loop {
            for _ in 0..random.random_range(0..20) {
                let key = name(random.random_range(0..200));
                if random.random_bool(0.5) {
                    if shard.send(other, &format!("SET {key} v")).contains("MOVED") {
                        continue;
                    }
                    there.insert(key.clone());
                    ever.insert(key);
                } else {
                    shard.send(other, &format!("DEL {key}"));
                    there.remove(&key);
                    always.remove(&key);
                }
            }
            shard.commit_all();
            shard.wake();
            shard.commit_all();
            let reply = shard.read(client);
            if !reply.is_empty() {
                break reply;
            }
        };
        let told = names(&reply);
        let set: BTreeSet<String> = told.iter().cloned().collect();
        assert_eq!(set.len(), told.len(), "each once");
        assert!(always.is_subset(&set), "seed {seed}: {:?} were there", always.difference(&set));
        let foreign: Vec<_> = set.difference(&ever).collect();
        assert!(foreign.is_empty(), "seed {seed}: {foreign:?} never were");
    }
}

#[test]
fn it_waits_for_what_it_saw_and_shows_nothing_that_is_taken_back() {
    let (mut shard, client, other) = leader();
    assert_eq!(shard.send(client, "KEYS *"), "");
    shard.send(other, "SET {t}new v");
    while shard.shard.next_wake().is_some() {
        shard.wake();
    }
    assert_eq!(shard.read(client), "", "a key that it saw is not committed");
    shard.commit_all();
    assert_eq!(names(&shard.read(client)).len(), MANY + 1);
    // What was seen and then taken back is not told.
    shard.read(other);
    shard.send(other, "SET {t}lost v");
    assert_eq!(shard.send(client, "KEYS *"), "");
    for _ in 1..MANY / FEW {
        shard.wake();
    }
    shard.lose_leadership(2);
    shard.lead(3);
    let reply = match shard.read(client) {
        reply if reply.is_empty() => finish(&mut shard, client).1,
        reply => reply,
    };
    assert!(!reply.contains("lost"), "{reply}");
}

#[test]
fn expired_keys_are_passed_and_the_slot_is_told_all() {
    let (mut shard, client, _) = leader();
    shard.send(client, "CLIENT PAUSE 100000 WRITE"); // nothing removes them
    shard.send(client, "CLIENT UNPAUSE ; PEXPIRE {t}1 100");
    shard.commit_all();
    shard.read(client);
    assert_eq!(shard.send(client, "CLIENT PAUSE 100000 WRITE"), "+OK");
    shard.pass_ms(1000);
    shard.send(client, "KEYS *");
    let (_, reply) = finish(&mut shard, client);
    assert_eq!(names(&reply).len(), MANY - 1);
    shard.send(client, "CLUSTER GETKEYSINSLOT 15891 1000");
    let (_, reply) = finish(&mut shard, client);
    assert_eq!(names(&reply).len(), MANY);
}

#[test]
fn a_reply_over_the_limit_is_an_error_and_who_is_gone_is_forgotten() {
    let (mut shard, client, other) = leader_with(ShardSettings {
        limits: Limits { reply_bytes_max: 1000, ..Limits::default() },
        ..ShardSettings::default()
    });
    shard.send(client, "KEYS *");
    let (steps, reply) = finish(&mut shard, client);
    assert!(reply.starts_with("-ERR the reply"), "{reply}");
    assert!(steps < MANY / FEW, "it is given up as soon as it is too large");
    shard.send(other, "KEYS *");
    shard.shard.disconnect(other);
    assert!(shard.shard.next_wake().is_none());
}

#[test]
fn no_more_than_some_go_on_at_once_and_each_is_answered() {
    let (mut shard, _, _) = leader();
    let clients: Vec<SessionId> = (0..10).map(|_| shard.connect()).collect();
    for &client in &clients {
        assert_eq!(shard.send(client, "KEYS *"), "");
    }
    let mut told = 0;
    while shard.shard.next_wake().is_some() {
        shard.wake();
        told += clients.iter().filter(|&&client| !shard.read(client).is_empty()).count();
    }
    assert_eq!(told, clients.len());
}

/// Each name takes as many steps as a match may.
#[test]
fn a_pattern_that_takes_long_for_each_name_lets_others_be_served() {
    let pattern = format!("{{t}}*{}b", "a".repeat(100));
    let (mut shard, client, _) = leader();
    for number in 0..350 {
        shard.send(client, &format!("SET {{t}}{number}{} v", "a".repeat(1500)));
    }
    shard.commit_all();
    shard.read(client);
    let reply = shard.send(client, &format!("SCAN 0 COUNT 10000 MATCH {pattern}"));
    assert!(!reply.starts_with("[\"0\""), "it ends before it has looked at all: {reply}");
    shard.shard.reconfigure(|settings| settings.large_elements = 300);
    assert_eq!(shard.send(client, &format!("KEYS {pattern}")), "");
    let (steps, reply) = finish(&mut shard, client);
    assert_eq!((steps > 410 / 300 + 1, reply.as_str()), (true, "[]"), "{steps} steps");
}
