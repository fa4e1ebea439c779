//! What a script may reach. The keys `a` and `b` are of two slots of the shard under test, `x` of another shard's.

use super::{Bytes, DiskRoom, Event, SessionId, ShardHarness, ShardSettings, batch, put};
use crate::keyspace::scripts::sha1;

const OTHER_SLOT: &str = "ERR Script attempted to access keys that do not hash to the same slot";
const NOT_LOCAL: &str = "ERR Script attempted to access a non local key in a cluster node";

/// Sends a script with its keys, commits what it did, and returns the reply.
fn eval(shard: &mut ShardHarness, client: SessionId, text: &str, keys: &[&str]) -> String {
    ask(shard, client, "EVAL", text, keys)
}

fn ask(shard: &mut ShardHarness, client: SessionId, command: &str, text: &str, keys: &[&str]) -> String {
    let count = keys.len().to_string();
    let mut words = vec![command.as_bytes(), text.as_bytes(), count.as_bytes()];
    words.extend(keys.iter().map(|key| key.as_bytes()));
    let at_once = shard.send_words(client, &words);
    shard.commit_all();
    at_once + &shard.read(client)
}

#[test]
fn a_script_reaches_any_slot_of_its_shard() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let both = "redis.call('SET','a',1) redis.call('SET','b',2) return 1";
    assert_eq!(eval(&mut shard, client, both, &[]), ":1");
    assert_eq!(eval(&mut shard, client, both, &["c"]), ":1");
    assert_eq!(shard.send(client, "GET a ; GET b ; DBSIZE"), "\"1\" \"2\" :2");
    let clear = "for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('DEL', key) end return redis.call('DBSIZE')";
    assert_eq!(eval(&mut shard, client, clear, &[]), ":0");
    let both = "return {redis.call('GET','a'), redis.call('GET','b')}";
    assert_eq!(ask(&mut shard, client, "EVAL_RO", both, &["a"]), "[nil, nil]");
}

#[test]
fn what_a_script_did_in_several_slots_is_one_batch_and_is_taken_back_together() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let text =
        b"redis.call('SET','a',1,'PX',50) redis.call('INCR','b') return redis.call('RPUSH','{a}l',1,2)";
    assert_eq!(shard.send_words(client, &[b"EVAL", text, b"0"]), "");
    assert_eq!(shard.proposals.len(), 1);
    let (_, proposed) = shard.proposals[0].clone();
    shard.lose_leadership(2);
    shard.commit(2, Bytes::new());
    assert_eq!(shard.shard.store().keyspace().len(), 0, "all of it was taken back");
    // A follower has the same from the batch.
    let mut follower = ShardHarness::following_with(ShardSettings::default());
    follower.commit(1, proposed);
    assert_eq!(follower.shard.store().keyspace().len(), 3);
}

#[test]
fn a_change_in_any_slot_breaks_a_watch() {
    let mut shard = ShardHarness::leading();
    let (client, other) = (shard.connect(), shard.connect());
    shard.send(client, "WATCH b ; MULTI ; GET b");
    eval(&mut shard, other, "redis.call('SET','b',1)", &["a"]);
    assert_eq!(shard.send(client, "EXEC"), "nil");
}

#[test]
fn keys_of_one_command_or_declared_are_of_one_slot_and_of_this_shard() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let refused = eval(&mut shard, client, "return 1", &["a", "b"]);
    assert_eq!(refused, "-CROSSSLOT Keys in request don't hash to the same slot");
    assert_eq!(eval(&mut shard, client, "return 1", &["x"]), "-MOVED 16287 127.0.0.1:7102");
    for flags in ["", "#!lua\n", "#!lua flags=allow-cross-slot-keys\n"] {
        for call in ["'MSET','a',1,'b',2", "'SET','x',1", "'GET','x'", "'SPUBLISH','x','hi'"] {
            let text = format!("{flags}return redis.pcall({call})");
            assert_eq!(eval(&mut shard, client, &text, &[]), format!("-{NOT_LOCAL}"), "{text}");
        }
    }
    assert_eq!(shard.send(client, "DBSIZE"), ":0");
}

#[test]
fn a_script_that_declares_flags_keeps_to_one_slot() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let text = "#!lua\nreturn {redis.call('SET','a',1), redis.pcall('SET','b',2)}";
    assert_eq!(eval(&mut shard, client, text, &[]), format!("[+OK, -{OTHER_SLOT}]"));
    let refused = eval(&mut shard, client, text, &["b"]);
    assert!(refused.starts_with(&format!("-{OTHER_SLOT} script: ")), "{refused}");
    let text = text.replace("#!lua", "#!lua flags=allow-cross-slot-keys");
    assert_eq!(eval(&mut shard, client, &text, &["c"]), "[+OK, +OK]");
}

#[test]
fn scripts_of_a_block_that_declare_flags_keep_to_its_slot() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let set = |key: &str, flags: &str| format!("{flags}return redis.pcall('SET','{key}',1)");
    // What the block itself names decides, else the first key that such a script touches.
    for (first, names) in [(set("a", "#!lua\n"), "0"), (set("a", ""), "1")] {
        shard.send(client, "MULTI");
        shard.send_words(client, &[b"EVAL", first.as_bytes(), names.as_bytes(), b"a"]);
        for text in [set("b", "#!lua\n"), set("b", ""), set("a", "#!lua\n")] {
            shard.send_words(client, &[b"EVAL", text.as_bytes(), b"0"]);
        }
        shard.send(client, "EXEC");
        shard.commit_all();
        assert_eq!(shard.read(client), format!("[+OK, -{OTHER_SLOT}, +OK, +OK]"));
    }
}

#[test]
fn a_script_at_a_follower_reads_keys_for_those_who_asked_for_it() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.lose_leadership(2);
    shard.commit(1, batch(&[put(b"a", b"1"), put(b"b", b"2")]));
    let client = shard.connect();
    assert_eq!(eval(&mut shard, client, "return 1", &["a"]), "-MOVED 15495 127.0.0.1:7101");
    assert_eq!(eval(&mut shard, client, "return redis.call('DBSIZE')", &[]), ":2");
    let both = "return {redis.pcall('GET','a'), redis.pcall('GET','b')}";
    let refused = format!("[-{NOT_LOCAL}, -{NOT_LOCAL}]");
    assert_eq!(eval(&mut shard, client, both, &[]), refused);
    let asks_itself = format!("redis.call('READONLY') {both}");
    assert_eq!(eval(&mut shard, client, &asks_itself, &[]), refused);
    shard.send(client, "READONLY");
    assert_eq!(eval(&mut shard, client, both, &[]), "[\"1\", \"2\"]");
    assert_eq!(ask(&mut shard, client, "EVAL_RO", both, &["a"]), "[\"1\", \"2\"]");
    let writes = "return redis.pcall('SET','a',1)";
    let refused = "-READONLY You can't write against a read only replica.";
    assert_eq!(eval(&mut shard, client, writes, &[]), refused);
}

// ---- flags ------------------------------------------------------------------

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.";
const READ_ONLY: &str = "-READONLY You can't write against a read only replica.";

fn out_of_memory() -> (ShardHarness, SessionId) {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SET a 1");
    shard.commit_all();
    shard.read(client);
    shard.shard.reconfigure(|settings| settings.memory_bytes_max = 1);
    shard.handle(Event::Tick);
    (shard, client)
}

#[test]
fn without_memory_a_script_runs_as_far_as_its_flags_allow() {
    let (mut shard, client) = out_of_memory();
    assert_eq!(eval(&mut shard, client, "#!lua\nreturn 1", &[]), OOM, "before it has begun");
    let reads = "#!lua flags=no-writes\nreturn redis.call('GET','a')";
    assert_eq!(eval(&mut shard, client, reads, &["a"]), "\"1\"");
    let writes = "#!lua flags=allow-oom\nreturn redis.call('SET','a','2')";
    assert_eq!(eval(&mut shard, client, writes, &["a"]), "+OK");
    let both = "#!lua flags=allow-oom,no-writes\nreturn redis.pcall('SET','a','3')";
    let refused = "-ERR Write commands are not allowed from read-only scripts.";
    assert_eq!(eval(&mut shard, client, both, &["a"]), refused);
    // One without flags is refused by what it calls, until it has written.
    assert_eq!(eval(&mut shard, client, "return redis.pcall('SET','a','4')", &[]), OOM);
    let removes = "redis.call('DEL','a') return redis.call('SET','a','5')";
    assert_eq!(eval(&mut shard, client, removes, &[]), "+OK");
}

#[test]
fn without_memory_a_block_is_refused_for_scripts_that_may_need_more() {
    let (mut shard, client) = out_of_memory();
    let refused = format!("-EXECABORT Transaction discarded because of: {}", &OOM[1..]);
    for (text, reply) in [
        ("return redis.call('SET','a','2')", &*refused),
        ("#!lua\nreturn redis.call('SET','a','2')", &refused),
        ("#!lua flags=allow-oom\nreturn redis.call('SET','a','2')", "[+OK]"),
        ("#!lua flags=no-writes\nreturn redis.call('GET','a')", "[\"2\"]"),
    ] {
        assert_eq!(shard.send(client, "MULTI"), "+OK");
        assert_eq!(eval(&mut shard, client, text, &["a"]), "+QUEUED");
        let at_once = shard.send(client, "EXEC");
        shard.commit_all();
        assert_eq!(at_once + &shard.read(client), reply, "{text}");
    }
}

#[test]
fn short_of_disk_a_script_that_declares_to_write_does_not_begin() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    for room in [DiskRoom::Short, DiskRoom::Last] {
        shard.handle(Event::DiskRoom(room));
        for flags in ["", " flags=allow-oom"] {
            let refused = eval(&mut shard, client, &format!("#!lua{flags}\nreturn 1"), &[]);
            assert!(refused.starts_with("-MISCONF "), "{refused}");
        }
        assert_eq!(eval(&mut shard, client, "#!lua flags=no-writes\nreturn 1", &[]), ":1");
        assert_eq!(eval(&mut shard, client, "return 1", &[]), ":1");
    }
}

#[test]
fn flags_that_ask_for_what_there_is_not_are_refused() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    for (flags, reply) in [
        ("", ":1"),
        ("allow-stale,no-writes", ":1"),
        ("no-cluster", "-ERR Can not run script on cluster, 'no-cluster' flag is set."),
        ("no-writes,no-cluster", "-ERR Can not run script on cluster, 'no-cluster' flag is set."),
        ("fast", "-ERR Unexpected flag in script shebang: fast"),
    ] {
        let text = format!("#!lua flags={flags}\nreturn 1");
        assert_eq!(eval(&mut shard, client, &text, &[]), reply, "{flags}");
    }
    let refused = "-ERR Can not execute a script with write flag using *_ro command.";
    for flags in ["", " flags=allow-oom"] {
        let text = format!("#!lua{flags}\nreturn 1");
        assert_eq!(ask(&mut shard, client, "EVAL_RO", &text, &["a"]), refused);
    }
    assert_eq!(ask(&mut shard, client, "EVAL_RO", "#!lua flags=no-writes\nreturn 1", &["a"]), ":1");
}

#[test]
fn a_follower_runs_scripts_that_declare_to_write_nothing() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.lose_leadership(2);
    shard.commit(1, batch(&[put(b"a", b"1")]));
    let client = shard.connect();
    let get = |flags: &str| format!("{flags}return redis.call('GET','a')");
    let (reads, writes) = (get("#!lua flags=no-writes\n"), get("#!lua\n"));
    let moved = "-MOVED 15495 127.0.0.1:7101";
    assert_eq!(eval(&mut shard, client, &reads, &["a"]), moved);
    assert_eq!(eval(&mut shard, client, &writes, &[]), READ_ONLY);
    shard.send(client, "READONLY");
    assert_eq!(eval(&mut shard, client, &reads, &["a"]), "\"1\"");
    assert_eq!(ask(&mut shard, client, "EVAL_RO", &reads, &["a"]), "\"1\"");
    assert_eq!(ask(&mut shard, client, "EVAL_RO", &get(""), &["a"]), "\"1\"");
    assert_eq!(ask(&mut shard, client, "EVAL_RO", &writes, &["a"]), moved);
    assert_eq!(eval(&mut shard, client, &writes, &["a"]), moved);
    assert_eq!(eval(&mut shard, client, &get(""), &["a"]), moved, "it may write");
    let name = ask_name(&mut shard, client, &reads);
    assert_eq!(ask(&mut shard, client, "EVALSHA", &name.to_uppercase(), &["a"]), "\"1\"");
    for (text, reply) in
        [(&reads, "[\"1\"]"), (&writes, "-EXECABORT Transaction discarded because of previous errors.")]
    {
        shard.send(client, "MULTI");
        eval(&mut shard, client, text, &["a"]);
        assert_eq!(shard.send(client, "EXEC"), reply);
    }
}

fn ask_name(shard: &mut ShardHarness, client: SessionId, text: &str) -> String {
    shard.send_words(client, &[b"SCRIPT", b"LOAD", text.as_bytes()]).trim_matches('"').to_owned()
}

#[test]
fn a_script_that_waits_for_followers_is_answered_once_a_majority_has_all() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let text = b"redis.call('SET','a',1) return redis.call('WAIT',2,0)";
    assert_eq!(shard.send_words(client, &[b"EVAL", text, b"0"]), "");
    shard.commit_all();
    assert_eq!(shard.read(client), ":1");
}

const NONE: &str = "-NOSCRIPT No matching script. Please use EVAL.";

/// Loads a script. Returns its name; that it is loaded is not committed.
fn load(shard: &mut ShardHarness, client: SessionId, text: &[u8]) -> String {
    shard.send_words(client, &[b"SCRIPT", b"LOAD", text]);
    sha1(text).escape_ascii().to_string()
}

#[test]
fn a_script_on_clean_keys_waits_for_nothing_that_is_in_flight() {
    let mut shard = ShardHarness::leading();
    let (writer, reader) = (shard.connect(), shard.connect());
    let reads = load(&mut shard, writer, b"return redis.call('GET', KEYS[1])");
    shard.send(writer, "SET clean 1 ; SET {clean}dirty 1");
    shard.commit_all();
    shard.read(writer);
    // Nothing of this commits.
    load(&mut shard, writer, b"return 2");
    shard.send(writer, "SET {clean}dirty 2 ; DEL {clean}3 ; SCRIPT EXISTS x");
    assert!(shard.shard.is_speculating());
    for way in ["EVALSHA", "EVALSHA_RO"] {
        assert_eq!(shard.send(reader, &format!("{way} {reads} 1 clean")), "\"1\"", "{way}");
        assert_eq!(shard.send(reader, &format!("{way} {} 0", "0".repeat(40))), NONE, "{way}");
    }
    let known = format!("SCRIPT EXISTS {} none", reads.to_uppercase());
    assert_eq!(shard.send(reader, &known), "[:1, :0]");
    let again = [b"SCRIPT".as_slice(), b"LOAD", b"return redis.call('GET', KEYS[1])"];
    assert_eq!(shard.send_words(reader, &again), format!("\"{reads}\""));
    // What it saw it waits for.
    assert_eq!(shard.send(reader, &format!("EVALSHA {reads} 1 {{clean}}dirty")), "");
    shard.commit_all();
    assert_eq!(shard.read(reader), "\"2\"");
}

#[test]
fn a_script_waits_for_its_own_loading_and_who_misses_it_for_its_being_forgotten() {
    let mut shard = ShardHarness::leading();
    let (loader, reader, other) = (shard.connect(), shard.connect(), shard.connect());
    let name = load(&mut shard, loader, b"return 1");
    load(&mut shard, loader, b"return 2");
    let (run, exists) = (format!("EVALSHA {name} 0"), format!("SCRIPT EXISTS {name}"));
    assert_eq!(shard.send(reader, &run), "");
    assert_eq!(shard.send(other, &exists), "");
    shard.commit_one();
    assert_eq!((shard.read(reader), shard.read(other)), (":1".into(), "[:1]".into()), "not for the second");
    shard.commit_all();
    shard.read(loader);
    assert_eq!(shard.send(loader, "SCRIPT FLUSH"), "");
    shard.send(loader, "SET k v");
    assert_eq!(shard.send(reader, &run), "");
    assert_eq!(shard.send(other, &exists), "");
    shard.commit_one();
    assert_eq!((shard.read(reader), shard.read(other)), (NONE.into(), "[:0]".into()), "not for the key");
    // Forgotten and loaded again, in flight both: it waits for the later.
    let name = load(&mut shard, loader, b"return 3");
    shard.commit_all();
    shard.send(loader, "SCRIPT FLUSH");
    load(&mut shard, loader, b"return 3");
    assert_eq!(shard.send(reader, &format!("EVALSHA {name} 0")), "");
    shard.commit_one();
    assert_eq!(shard.read(reader), "");
    // One that was sent with `EVAL` is known whatever becomes of them.
    shard.send(loader, "SCRIPT FLUSH");
    shard.send_words(loader, &[b"EVAL", b"return 4", b"0"]);
    let seen = sha1(b"return 4").escape_ascii().to_string();
    assert_eq!(shard.send(other, &format!("EVALSHA {seen} 0")), ":4");
    // It was loaded again in vain.
    shard.lose_leadership(2);
    shard.lead(3);
    assert!(shard.read(reader).starts_with("-MOVED "));
    assert_eq!(shard.send(reader, &format!("EVALSHA {name} 0")), NONE);
}
