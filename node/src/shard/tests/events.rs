//! What is told of keys, by whom, and when: keyspace notifications.

use moonraft_proto::entry::NEWEST_FORMAT;

use super::{ShardHarness, batch, errands::finish, of_many, put};
use crate::{
    keyspace::tx::{Events, Eviction, Policy},
    shard::{Event, SessionId, ShardSettings},
};

fn settings(events: &str) -> ShardSettings {
    let events = Events::parse(events).expect("they are known");
    ShardSettings { events, ..ShardSettings::default() }
}

/// A leader that tells these events, one who listens to all, and a client.
fn leader(settings: ShardSettings) -> (ShardHarness, SessionId, SessionId) {
    let mut shard = ShardHarness::leading_with(settings);
    let (listener, client) = (shard.connect(), shard.connect());
    shard.send(listener, "PSUBSCRIBE __key*");
    (shard, listener, client)
}

/// What has been told, each as channel and message, in short.
fn told(shard: &mut ShardHarness, listener: SessionId) -> Vec<String> {
    let text = shard.read(listener);
    let messages = text.split("[\"pmessage\", \"__key*\", ").skip(1);
    let short =
        |message: &str| message.trim().replace(['"', ']', '_'], "").replace("@0", "").replace(", ", " ");
    messages.map(short).collect()
}

#[test]
fn events_leave_in_order_once_their_batch_is_committed() {
    let (mut shard, listener, client) = leader(settings("KEA"));
    shard.send(client, "SET k v ; LPUSH l a ; LPOP l");
    assert!(told(&mut shard, listener).is_empty());
    shard.commit_all();
    let expected = [
        "keyspace:k set",
        "keyevent:set k",
        "keyspace:l lpush",
        "keyevent:lpush l",
        "keyspace:l lpop",
        "keyevent:lpop l",
        "keyspace:l del",
        "keyevent:del l",
    ];
    assert_eq!(told(&mut shard, listener), expected);
}

#[test]
fn only_the_classes_that_are_set_are_told_and_none_by_default() {
    let (mut shard, listener, client) = leader(ShardSettings::default());
    shard.send(client, "SET k v");
    shard.commit_all();
    assert!(told(&mut shard, listener).is_empty() && shard.published.is_empty());
    shard.shard.reconfigure(|it| it.events = settings("Eln").events);
    shard.send(client, "SET k w ; RPUSH l 1 ; SET new v");
    shard.commit_all();
    assert_eq!(told(&mut shard, listener), ["keyevent:new l", "keyevent:rpush l", "keyevent:new new"]);
}

#[test]
fn nobody_hears_of_what_is_undone() {
    let (mut shard, listener, client) = leader(settings("KEAnm"));
    // A script that is killed, or a unit that is refused, has done nothing.
    shard.shard.reconfigure(|settings| settings.unit_bytes_max = 1000);
    let large = format!("MULTI ; SET {{t}}k v ; SET {{t}}l {} ; EXEC", "x".repeat(2000));
    let refused = shard.send(client, &large);
    assert!(refused.contains("-ERR"), "{refused}");
    shard.commit_all();
    assert!(told(&mut shard, listener).is_empty());
    // Nor has a batch that never commits.
    shard.send(client, "SET k v ; EXPIRE k 100");
    shard.lose_leadership(2);
    shard.lead(3);
    shard.send(client, "SET other v");
    shard.commit_all();
    let told = told(&mut shard, listener);
    assert!(!told.is_empty() && told.iter().all(|line| line.contains("other")), "{told:?}");
}

#[test]
fn what_a_follower_applies_it_does_not_tell() {
    let mut shard = ShardHarness::following_with(settings("KEA"));
    let listener = shard.connect();
    shard.send(listener, "PSUBSCRIBE __key*");
    shard.commit(1, batch(&[put(b"k", b"v")]));
    assert!(told(&mut shard, listener).is_empty() && shard.published.is_empty());
}

#[test]
fn keys_whose_time_comes_are_told_met_or_not() {
    let (mut shard, listener, client) = leader(settings("Kxm"));
    shard.send(client, "SET met v PX 10 ; SET idle v PX 20");
    shard.commit_all();
    shard.world.elapse_us(15_000);
    shard.send(client, "GET met");
    shard.commit_all();
    assert_eq!(told(&mut shard, listener), ["keyspace:met expired", "keyspace:met keymiss"]);
    shard.world.elapse_us(15_000);
    shard.shard.handle(Event::Tick);
    shard.end_turn();
    shard.commit_all();
    assert_eq!(told(&mut shard, listener), ["keyspace:idle expired"]);
}

#[test]
fn keys_that_go_because_memory_is_short_are_told() {
    let eviction = Eviction { policy: Policy::AllKeysRandom, ..Eviction::default() };
    let limit = 1 << 30;
    let (mut shard, listener, client) =
        leader(ShardSettings { memory_bytes_max: limit, eviction, ..settings("Ke") });
    shard.world.used_bytes.set(0);
    shard.send(client, "SET k v");
    shard.commit_all();
    let passing = shard.shard.passing_bytes() as u64;
    shard.world.used_bytes.set(limit + 1 + passing);
    shard.send(client, "SET l v");
    shard.commit_all();
    assert_eq!(told(&mut shard, listener), ["keyspace:k evicted"]);
}

#[test]
fn what_is_done_elsewhere_is_told_as_if_it_were_done_here() {
    let (mut shard, listener, client) = leader(ShardSettings { large_elements: 10, ..settings("KEAn") });
    shard.send(client, &of_many("SADD", "{t}s", 30));
    shard.commit_all();
    told(&mut shard, listener);
    shard.world.holds_errands.set(true);
    shard.send(client, "SUNIONSTORE {t}d {t}s");
    finish(&mut shard);
    assert!(told(&mut shard, listener).is_empty());
    shard.commit_all();
    let expected =
        ["keyspace:{t}d new", "keyevent:new {t}d", "keyspace:{t}d sunionstore", "keyevent:sunionstore {t}d"];
    assert_eq!(told(&mut shard, listener), expected);
}

#[test]
fn a_read_whose_event_has_left_may_still_be_sent_elsewhere() {
    let (mut shard, _, client) = leader(settings("Km"));
    shard.world.lease.set(false);
    shard.send(client, "GET missing");
    shard.lose_leadership(2);
    assert!(shard.closed.is_empty());
    assert!(shard.read(client).starts_with("-MOVED"));
}

/// As redis-server 8.2.3 told them.
#[test]
fn deadlines_of_fields_are_told_as_in_redis_8() {
    let (mut shard, listener, client) = leader(settings("EA"));
    shard.handle(Event::Readable { term: 1, format: NEWEST_FORMAT });
    shard.handle(Event::Tick);
    shard.commit_all();
    for (request, events) in [
        ("HSET h a 1 b 2 c 3", "hset"),
        ("HEXPIRE h 100 FIELDS 2 a x", "hexpire"),
        ("HEXPIRE h 100 NX FIELDS 1 a", ""),
        ("HEXPIRE h 100 FIELDS 1 x", ""),
        ("HEXPIREAT h 1 FIELDS 2 b a", "hdel"),
        ("HSET h a 1", "hset"),
        ("HEXPIRE h 100 FIELDS 1 a", "hexpire"),
        ("HPERSIST h FIELDS 1 a", "hpersist"),
        ("HPERSIST h FIELDS 1 a", ""),
        ("HGETEX h EX 100 FIELDS 2 a none", "hexpire"),
        ("HGETEX h PERSIST FIELDS 1 a", "hpersist"),
        ("HGETEX h PERSIST FIELDS 1 a", ""),
        ("HGETEX h FIELDS 1 a", ""),
        ("HGETEX h EXAT 1 FIELDS 1 a", "hdel"),
        ("HGETDEL h FIELDS 2 c zz", "hdel del"),
        ("HGETDEL h FIELDS 1 c", ""),
        ("HSETEX h FIELDS 2 a 1 b 2", "hset"),
        ("HSETEX h EX 100 FIELDS 1 a 1", "hset hexpire"),
        ("HSETEX h KEEPTTL FIELDS 1 a 1", "hset"),
        ("HSETEX h EXAT 1 FIELDS 1 a 1", "hset hdel"),
        ("HSETEX h EXAT 1 FIELDS 1 b 1", "hset hdel del"),
        ("HSET h a 1 b 2", "hset"),
        ("HEXPIREAT h 1 FIELDS 2 a b", "hdel del"),
        ("HSET h a 1 b 2", "hset"),
        ("HPEXPIRE h 20 FIELDS 1 a", "hexpire"),
        ("wait", "hexpired"),
        ("HPEXPIRE h 20 FIELDS 1 b", "hexpire"),
        ("wait", "hexpired del"),
    ] {
        match request {
            "wait" => shard.pass_ms(100),
            _ => drop(shard.send(client, request)),
        }
        shard.commit_all();
        shard.read(client);
        let told = told(&mut shard, listener);
        let told: Vec<_> = told.iter().map(|it| it["keyevent:".len()..].replace(" h", "")).collect();
        assert_eq!(told.join(" "), events, "{request}");
    }
}
