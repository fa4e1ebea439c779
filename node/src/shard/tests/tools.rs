//! What operators' tools ask for: counts, slow requests, saving, the end.

use super::{ShardHarness, of_many};
use crate::shard::{Event, ShardSettings};

/// The lines of `INFO` that hold this, without times.
fn counted(shard: &mut ShardHarness, section: &str, holds: &str) -> Vec<String> {
    let client = shard.connect();
    let text = shard.send(client, &format!("INFO {section}"));
    let lines = text.trim_matches('"').split("\\r\\n").filter(|line| line.contains(holds));
    let without_times = |line: &str| {
        let kept = line.split(',').filter(|part| !part.starts_with("usec"));
        kept.collect::<Vec<_>>().join(",")
    };
    lines.map(without_times).collect()
}

#[test]
fn what_a_block_and_a_script_call_is_counted() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "RPUSH k 1 ; CONFIG RESETSTAT ; MULTI ; LLEN k ; GET k ; EXEC");
    let script =
        b"redis.pcall('INCR', KEYS[1]) redis.call('LLEN', KEYS[1]) return redis.call('INCR', KEYS[1])";
    shard.send_words(client, &[b"EVAL", script, b"1", b"k"]);
    shard.commit_all();
    let counts = |command, calls, failed| {
        format!("cmdstat_{command}:calls={calls},rejected_calls=0,failed_calls={failed}")
    };
    let stats = counted(&mut shard, "commandstats", "cmdstat_");
    for line in [
        counts("llen", 2, 0),
        counts("get", 1, 1),
        counts("exec", 1, 0),
        counts("incr", 2, 2),
        counts("eval", 1, 1),
    ] {
        assert!(stats.contains(&line), "{line} is not in {stats:?}");
    }
    // One in the block and two in the script, of which it handed on one.
    assert_eq!(counted(&mut shard, "errorstats", "errorstat"), ["errorstat_WRONGTYPE:count=3"]);
    assert_eq!(counted(&mut shard, "stats", "total_error"), ["total_error_replies:3"]);
    shard.read(client);
    let histogram = shard.send(client, "LATENCY HISTOGRAM llen nothing");
    assert_eq!(histogram, "[\"llen\", [\"calls\", :2, \"histogram_usec\", [:1, :2]]]");
}

#[test]
fn an_error_of_a_script_itself_is_counted_once() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let script = b"redis.pcall('LLEN') return redis.error_reply('MY fault')";
    shard.send_words(client, &[b"EVAL", script, b"0"]);
    let errors = counted(&mut shard, "errorstats", "errorstat");
    assert_eq!(errors, ["errorstat_ERR:count=1", "errorstat_MY:count=1"]);
    let rejected = counted(&mut shard, "commandstats", "cmdstat_llen");
    assert_eq!(rejected, ["cmdstat_llen:calls=0,rejected_calls=1,failed_calls=0"]);
}

#[test]
fn slow_requests_are_noted() {
    let settings = ShardSettings { slow_us: 0, slow_log_length_max: 2, ..ShardSettings::default() };
    let mut shard = ShardHarness::leading_with(settings);
    let client = shard.connect();
    shard.send(client, "CLIENT SETNAME me ; KEYS a ; KEYS b ; KEYS c");
    let entry =
        |id, key| format!("[:{id}, :1700000000, :0, [\"KEYS\", \"{key}\"], \"127.0.0.1:50000\", \"me\"]");
    assert_eq!(shard.send(client, "SLOWLOG GET"), format!("[{}, {}]", entry(3, "c"), entry(2, "b")));
    assert_eq!(shard.send(client, "SLOWLOG RESET"), "+OK");
    // The requests to the log itself are requests like others.
    assert_eq!(shard.send(client, "SLOWLOG LEN"), ":1");
}

#[test]
fn saving_is_done_when_it_is_asked_for() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    assert_eq!(shard.send(client, "LASTSAVE"), ":1700000000");
    shard.send(client, "SET k v");
    shard.commit_all();
    shard.read(client);
    assert_eq!(counted(&mut shard, "persistence", "rdb_changes"), ["rdb_changes_since_last_save:1"]);
    shard.pass_ms(5000);
    assert_eq!(shard.send(client, "BGSAVE ; LASTSAVE"), "+Background saving started :1700000005");
    assert_eq!(counted(&mut shard, "persistence", "rdb_changes"), ["rdb_changes_since_last_save:0"]);
}

#[test]
fn a_client_may_end_the_node() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    for wrong in ["SHUTDOWN x", "SHUTDOWN SAVE NOSAVE", "SHUTDOWN ABORT NOW"] {
        assert_eq!(shard.send(client, wrong), "-ERR syntax error", "{wrong}");
    }
    assert_eq!(shard.send(client, "SHUTDOWN ABORT"), "-ERR No shutdown in progress.");
    assert!(!shard.world.is_shut_down.get());
    assert_eq!(shard.send(client, "SHUTDOWN NOSAVE NOW"), "");
    assert!(shard.world.is_shut_down.get());
}

#[test]
fn who_watches_hears_of_changes_that_redis_tells_of() {
    let mut shard = ShardHarness::leading();
    let (watcher, other) = (shard.connect(), shard.connect());
    shard.send(other, "SET {k}s 1 ; RPUSH {k}l 1 2");
    shard.commit_all();
    let mut is_broken = |key: &str, change: &str| {
        shard.send(watcher, &format!("WATCH {key} ; MULTI"));
        shard.send_words(
            other,
            &change.split(' ').map(|word| word.trim_matches('"').as_bytes()).collect::<Vec<_>>(),
        );
        shard.commit_all();
        shard.read(other);
        shard.send(watcher, "EXEC").ends_with("nil")
    };
    assert!(is_broken("{k}s", "APPEND {k}s \"\""));
    assert!(is_broken("{k}l", "LTRIM {k}l 0 -1"));
    assert!(is_broken("{k}l", "LMOVE {k}l {k}l LEFT LEFT"));
    assert!(!is_broken("{k}s", "COPY {k}s {k}d"), "the source of a copy stays as it is");
    assert!(is_broken("{k}d", "COPY {k}s {k}d REPLACE"));
    assert!(!is_broken("{k}none", "FLUSHALL"), "what is not there is not flushed");
    assert!(!is_broken("{k}s", "FLUSHALL"), "nor what is gone");
}

#[test]
fn a_client_watches_as_many_keys_as_it_may() {
    let mut shard = ShardHarness::leading();
    let (watcher, other) = (shard.connect(), shard.connect());
    let keys: Vec<String> = (0..100_000).map(|number| format!("{{k}}{number}")).collect();
    let watch_all = |shard: &mut ShardHarness| {
        for keys in keys.chunks(50_000) {
            let words = std::iter::once("WATCH").chain(keys.iter().map(String::as_str));
            assert_eq!(shard.send_words(watcher, &words.map(str::as_bytes).collect::<Vec<_>>()), "+OK");
        }
    };
    watch_all(&mut shard);
    assert_eq!(shard.send(watcher, "WATCH {k}more"), "-ERR too many watched keys");
    shard.send(other, "SET {k}more 1");
    shard.commit_all();
    assert_eq!(shard.send(watcher, "MULTI ; PING ; EXEC"), "+OK +QUEUED [+PONG]", "that one is not watched");
    watch_all(&mut shard);
    shard.send(other, "SET {k}99999 1");
    shard.commit_all();
    assert_eq!(shard.send(watcher, "MULTI ; PING ; EXEC"), "+OK +QUEUED nil", "the last of them is");
    assert_eq!(shard.send(watcher, "WATCH {k}more"), "+OK", "EXEC has ended that");
}

#[test]
fn what_can_only_be_executed_here_has_no_more_words_than_it_may() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let mut told = |name: &str, count: usize| {
        let words: Vec<&[u8]> = name.split(' ').map(str::as_bytes).collect();
        let words: Vec<&[u8]> = words.into_iter().chain((0..count).map(|_| b"{k}1".as_slice())).collect();
        let at_once = shard.send_words(client, &words);
        shard.end_turn();
        shard.commit_all();
        at_once + &shard.read(client)
    };
    let refused = "-ERR too many words in one request of this command";
    for name in ["SUBSCRIBE", "SSUBSCRIBE", "SCRIPT EXISTS", "BLPOP", "PUBSUB NUMSUB", "WATCH", "CLIENT KILL"]
    {
        assert_eq!(told(name, 100_000), refused, "{name}");
    }
    assert_eq!(told("COMMAND INFO", 9_999), "-ERR too many names");
    assert_eq!(told("SADD {k}s", 100_000), ":1", "this can be executed elsewhere");
    assert_eq!(told("EVAL return(#ARGV) 0", 100_000), ":100000", "a script answers for itself");
}

#[test]
fn what_took_long_is_told_by_kind_of_event() {
    let mut shard = ShardHarness::leading_with(ShardSettings { latency_ms: 5, ..ShardSettings::default() });
    let client = shard.connect();
    shard.send(client, "SET k v PX 10");
    shard.commit_all();
    shard.read(client);
    assert_eq!(shard.send(client, "LATENCY LATEST ; LATENCY HISTORY command"), "[] []");
    // Each look at the clock takes 7 ms: that at the end of a command is the only one behind its begin.
    shard.world.look_ns.set(7_000_000);
    shard.send(client, "GET k ; KEYS *");
    shard.world.elapse_us(50_000);
    shard.handle(Event::Tick);
    shard.world.look_ns.set(0);
    shard.end_turn();
    shard.commit_all();
    shard.read(client);
    let now = shard.world.unix_us.get() / 1_000_000;
    let told = shard.send(client, "LATENCY LATEST");
    for (event, took) in [("command", 7), ("expire-cycle", 14), ("fast-command", 7)] {
        assert!(told.contains(&format!("[\"{event}\", :{now}, :{took}, :{took}]")), "{event} in {told}");
    }
    assert_eq!(shard.send(client, "LATENCY HISTORY fast-command"), format!("[[:{now}, :7]]"));
    assert!(shard.send(client, "LATENCY GRAPH command").contains("command - high 7 ms, low 7 ms"));
    assert!(shard.send(client, "LATENCY DOCTOR").contains("3. fast-command: 1 latency spikes"));
    assert_eq!(shard.send(client, "LATENCY RESET command nothing ; LATENCY RESET"), ":1 :2");
    assert_eq!(shard.send(client, "LATENCY GRAPH command"), "-ERR No samples available for event 'command'");
}

#[test]
fn a_difference_is_the_same_whether_members_are_looked_up_or_put_together() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let members: String = (0..100).map(|number| format!(" {number} m{number}")).collect();
    shard.send(client, &format!("ZADD {{t}}all{members}"));
    for number in 0..60 {
        shard.send(client, &format!("ZADD {{t}}{number} 1 m{number}"));
    }
    shard.commit_all();
    shard.read(client);
    let few = "ZDIFF 3 {t}all {t}0 {t}1";
    let many =
        (0..60).fold("ZDIFF 61 {t}all".to_owned(), |request, number| format!("{request} {{t}}{number}"));
    for (request, from) in [(few, 2), (&many, 60)] {
        let left: Vec<String> = (from..100).map(|number| format!("\"m{number}\"")).collect();
        assert_eq!(shard.send(client, request), format!("[{}]", left.join(", ")));
    }
}

#[test]
fn sort_forms_no_more_keys_nor_longer_ones_than_others_may_wait_for() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    for _ in 0..6 {
        shard.send(client, &of_many("RPUSH", "{t}l", 9_000));
    }
    shard.send(client, &of_many("RPUSH", "{t}few", 100));
    shard.commit_all();
    shard.read(client);
    let refused = "-ERR SORT would look up more than 50000 keys that it forms from patterns";
    let long = "x".repeat(600 << 10);
    for request in [
        "SORT {t}l LIMIT 0 1 GET {t}*".to_owned(),
        "SORT_RO {t}l BY {t}*".to_owned(),
        format!("SORT {{t}}few BY {{t}}{long}*"),
        format!("SORT {{t}}few BY nosort GET {{t}}{long}*"),
    ] {
        assert_eq!(shard.send(client, &request), refused);
    }
    assert_eq!(shard.send(client, "SORT {t}l BY nosort LIMIT 0 1 GET {t}*"), "[nil]");
}

#[test]
fn words_of_no_bytes_count_in_a_block() {
    let mut shard =
        ShardHarness::leading_with(ShardSettings { queue_bytes_max: 10_000, ..ShardSettings::default() });
    let client = shard.connect();
    assert_eq!(shard.send(client, "MULTI"), "+OK");
    let words: Vec<&[u8]> =
        std::iter::once(b"DEL".as_slice()).chain((0..500).map(|_| b"".as_slice())).collect();
    assert_eq!(shard.send_words(client, &words), "-ERR transaction is over the limit of its size");
}

#[test]
fn a_counter_is_no_longer_than_its_registers_need() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let begin =
        |length: usize| [b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80".as_slice(), &vec![0x80; length]].concat();
    for (length, told) in [(16_384, ":"), (16_385, "-INVALIDOBJ"), (40_000, "-WRONGTYPE")] {
        shard.send_words(client, &[b"SET", b"k", &begin(length)]);
        shard.commit_all();
        shard.read(client);
        let reply = shard.send(client, "PFCOUNT k");
        shard.commit_all();
        assert!((reply + &shard.read(client)).starts_with(told), "{length}");
    }
}
