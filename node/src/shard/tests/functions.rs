//! Libraries of functions: state of the shard like any other.

use std::{cell::Cell, rc::Rc};

use moonraft_proto::entry::NEWEST_FORMAT;

use super::{
    Bytes, Event, SessionId, ShardHarness, ShardSettings,
    harness::{WhileBusy, encode, show_all},
};
use crate::shard::Busy;

const LIBRARY: &[u8] = b"#!lua name=lib
redis.register_function('put', function(keys, arguments) return redis.call('SET', keys[1], arguments[1]) end)
redis.register_function{function_name = 'get', callback = function(keys) return redis.call('GET', keys[1]) end, flags = {'no-writes'}}
local calls = 0
redis.register_function('calls', function() calls = calls + 1 return calls end)
redis.register_function('stay', function(keys) redis.call('SET', keys[1], 'written') while true do end end)";

/// Members of a shard that have agreed on the newest format.
fn agreed(mut shard: ShardHarness) -> ShardHarness {
    shard.handle(Event::Readable { term: 1, format: NEWEST_FORMAT });
    shard.pass_ms(100);
    shard.commit_all();
    shard
}

fn load(shard: &mut ShardHarness, client: SessionId, code: &[u8]) -> String {
    let at_once = shard.send_words(client, &[b"FUNCTION", b"LOAD", code]);
    assert!(!at_once.starts_with('"'), "it was not committed");
    shard.commit_all();
    at_once + &shard.read(client)
}

#[test]
fn a_library_waits_for_the_format_that_has_it() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let waiting = shard.connect();
    assert_eq!(
        shard.send_words(waiting, &[b"FUNCTION", b"LOAD", LIBRARY]),
        "",
        "the members may agree in a moment"
    );
    (0..100).for_each(|_| shard.pass_ms(100));
    let refused = "-ERR this request needs format 3";
    assert!(shard.read(waiting).starts_with(refused), "they did not");
    for words in [[&b"FUNCTION"[..], b"LOAD", LIBRARY], [b"FUNCTION", b"RESTORE", b"x"]] {
        let told = shard.send_words(client, &words);
        assert!(told.starts_with(refused), "{told}");
    }
    assert_eq!(shard.send(client, "FUNCTION FLUSH ; FUNCTION LIST"), "+OK []");
    let mut shard = agreed(shard);
    assert_eq!(load(&mut shard, client, LIBRARY), "\"lib\"");
}

#[test]
fn a_library_is_known_to_each_replica_and_after_a_failover() {
    let mut shard = agreed(ShardHarness::leading());
    let client = shard.connect();
    let told = shard.send_words(client, &[b"FUNCTION", b"LOAD", LIBRARY]);
    assert_eq!(told, "", "it is not committed");
    let (term, batch) = shard.proposals.front().cloned().expect("it was proposed");
    shard.commit_all();
    assert_eq!(shard.read(client), "\"lib\"");

    let mut other = ShardHarness::following_with(ShardSettings::default());
    let mut before = moonraft_proto::entry::BatchWriter::default();
    before.push(&moonraft_proto::Effect::AgreeFormat { format: NEWEST_FORMAT });
    other.commit(term, before.seal(moonraft_proto::entry::Head::default(), NEWEST_FORMAT));
    other.commit(term, batch);
    assert_eq!(other.shard.keyspace().shared_digest(), shard.shard.keyspace().shared_digest());
    other.lose_leadership(2);
    let reader = other.connect();
    other.send(reader, "READONLY");
    assert_eq!(other.send(reader, "FCALL_RO get 1 k"), "nil", "what only reads is served at a follower");
    assert!(other.send(reader, "FUNCTION FLUSH").starts_with("-READONLY "));
    other.lead(2);
    let writer = other.connect();
    assert_eq!(other.send(writer, "FCALL put 1 k v"), "");
    other.commit_all();
    assert_eq!(other.read(writer), "+OK");
}

#[test]
fn a_load_that_is_lost_is_taken_back_and_so_is_a_removal() {
    let mut shard = agreed(ShardHarness::leading());
    let client = shard.connect();
    load(&mut shard, client, LIBRARY);
    let before = shard.shard.keyspace().shared_digest();
    let other = b"#!lua name=lib\nredis.register_function('other', function() return 1 end)";
    shard.send_words(client, &[b"FUNCTION", b"LOAD", b"REPLACE", other]);
    shard.send(client, "FUNCTION FLUSH");
    assert_ne!(shard.shard.keyspace().shared_digest(), before);
    shard.lose_leadership(2);
    shard.commit(2, Bytes::new());
    assert_eq!(shard.shard.keyspace().shared_digest(), before);
    shard.lead(3);
    let client = shard.connect();
    assert_eq!(shard.send(client, "FCALL_RO get 1 k ; FCALL_RO other 0"), "nil -ERR Function not found");
}

#[test]
fn only_what_depends_on_a_change_in_flight_waits_for_it() {
    let mut shard = agreed(ShardHarness::leading());
    let (client, reader) = (shard.connect(), shard.connect());
    load(&mut shard, client, LIBRARY);
    shard.send(client, "SET other v");
    assert_eq!(shard.send(reader, "FCALL_RO get 1 k"), "nil", "neither function nor key are in flight");
    let more = b"#!lua name=more\nredis.register_function{function_name='more', callback=function() return 1 end, flags={'no-writes'}}";
    shard.send_words(client, &[b"FUNCTION", b"LOAD", more]);
    assert_eq!(shard.send(reader, "FCALL_RO get 1 k"), "nil");
    assert_eq!(shard.send(reader, "FCALL_RO more 0"), "", "it is in flight");
    shard.commit_all();
    assert_eq!(shard.read(reader), ":1");
    shard.send(client, "FUNCTION DELETE more");
    assert_eq!(shard.send(reader, "FCALL_RO more 0"), "", "that it is gone is in flight");
    shard.commit_all();
    assert_eq!(shard.read(reader), "-ERR Function not found");
}

#[test]
fn what_a_library_keeps_lives_until_it_is_loaded_anew() {
    let mut shard = agreed(ShardHarness::leading());
    let client = shard.connect();
    load(&mut shard, client, LIBRARY);
    assert_eq!(shard.send(client, "FCALL calls 0 ; FCALL CALLS 0"), ":1 :2");
    let again = shard.send_words(client, &[b"FUNCTION", b"LOAD", b"REPLACE", LIBRARY]);
    shard.commit_all();
    assert_eq!(again + &shard.read(client), "\"lib\"");
    assert_eq!(shard.send(client, "FCALL calls 0"), ":1");
}

#[test]
fn a_library_that_holds_too_much_is_run_anew_and_others_run_on() {
    let scripts = crate::script::Limits { memory_bytes: 16 << 20, ..Default::default() };
    let settings = ShardSettings { scripts, ..ShardSettings::default() };
    let mut shard = agreed(ShardHarness::leading_with(settings));
    let client = shard.connect();
    let hoards = b"#!lua name=hoards
local kept = {}
redis.register_function('keep', function() for i = 1, 300000 do kept[#kept + 1] = {i} end return #kept end)
redis.register_function('count', function() return #kept end)";
    load(&mut shard, client, hoards);
    let mut replies = (0..4).map(|_| shard.send(client, "FCALL keep 0"));
    assert!(replies.any(|reply| reply.starts_with("-ERR Script killed: not enough memory script: keep")));
    assert_eq!(shard.send(client, "FCALL count 0"), ":0");
}

#[test]
fn a_function_that_runs_too_long_is_told_of_and_killed_by_its_own_command() {
    let mut shard =
        agreed(ShardHarness::leading_with(ShardSettings { busy_ms: 0, ..ShardSettings::default() }));
    let (client, other) = (shard.connect(), shard.connect());
    load(&mut shard, client, LIBRARY);
    let asked = Rc::new(Cell::new(0));
    let said = Rc::new(std::cell::RefCell::new(Vec::new()));
    let (count, told) = (Rc::clone(&asked), Rc::clone(&said));
    let attend: WhileBusy = Box::new(move |busy| {
        let requests: [&[&[u8]]; 4] =
            [&[b"FUNCTION", b"STATS"], &[b"GET", b"k"], &[b"SCRIPT", b"KILL"], &[b"FUNCTION", b"KILL"]];
        if let Some(words) = requests.get(count.replace(count.get() + 1)) {
            let mut input = encode(words).into_iter().collect();
            busy.receive(other, &mut input);
            let bytes = busy.writable(other).to_vec();
            busy.written(other, bytes.len());
            told.borrow_mut().push(show_all(&bytes));
        }
        Busy::Continue
    });
    shard.world.while_busy.replace(Some(attend));
    let mut answer = shard.send(client, "FCALL stay 1 k");
    shard.world.while_busy.replace(None);
    shard.commit_all();
    answer += &shard.read(client);
    let said = said.take();
    assert!(said[0].contains("\"running_script\", [\"name\", \"stay\", \"command\", [\"FCALL\", \"stay\", \"1\", \"k\"], \"duration_ms\", :"), "{}", said[0]);
    let busy = "-BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";
    assert_eq!((&*said[1], &*said[2], &*said[3]), (busy, busy, "+OK"));
    assert!(answer.starts_with("-ERR Script killed by user with FUNCTION KILL... script: stay"), "{answer}");
    assert_eq!(
        shard.send(client, "GET k ; FUNCTION KILL"),
        "nil -NOTBUSY No scripts in execution right now."
    );
}
