//! The table against a real server's.

use std::collections::BTreeSet;

use super::*;
use crate::command::{
    Flag, Run,
    key_specs::{Begin, Find, KeySpec},
};

/// Rows that Redis 7.0 has not, or has in another form.
const OWN: &[&str] = &[
    // Words of `DEBUG` that are no subcommands to Redis's table.
    "debug|digest",
    "debug|digest-value",
    "debug|object",
    "debug|help",
    "debug|sleep",
    "debug|set-active-expire",
    "debug|pause-cron",
    "debug|reload",
    "debug|loadaof",
    "debug|change-repl-id",
    "debug|dict-resizing",
    "debug|quicklist-packed-threshold",
    "debug|replybuffer",
    "debug|protocol",
    "debug|error",
    "debug|log",
    "debug|structsize",
    "debug|htstats",
    "debug|htstats-key",
    "debug|listpack",
    "debug|quicklist",
    "debug|populate",
    "debug|assert",
    "debug|crash-and-recover",
    "debug|leak",
    "debug|oom",
    "debug|panic",
    "debug|replicate",
    "debug|restart",
    "debug|segfault",
    // Of 7.2; the recorded server is 7.0.
    "client|no-touch",
    "client|setinfo",
    "cluster|myshardid",
    "waitaof",
    // Of 7.4.
    "hexpire",
    "hpexpire",
    "hexpireat",
    "hpexpireat",
    "httl",
    "hpttl",
    "hexpiretime",
    "hpexpiretime",
    "hpersist",
    // Of 8.0.
    "hgetex",
    "hsetex",
    "hgetdel",
    // Of 8.4, and of Valkey 9.
    "delex",
    "digest",
    "msetex",
    "delifeq",
];

/// Rows that differ on purpose, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("zrank", "WITHSCORE came with 7.2"),
    ("zrevrank", "WITHSCORE came with 7.2"),
    ("lolwut", "it reads no data"),
    ("migrate", "it is refused, whatever its keys"),
];

/// Flags that say how Redis behaves, where this server does not.
const FOR_REDIS_ONLY: &[(&str, &str)] = &[
    // There is no such log.
    ("exec", "skip_slowlog"),
    // A replica without a leader has data that may be old.
    ("eval", "stale"),
    ("eval_ro", "stale"),
    ("evalsha", "stale"),
    ("evalsha_ro", "stale"),
    ("fcall", "stale"),
    ("fcall_ro", "stale"),
    // What is loaded while nobody leads would be known to one node only.
    ("script|load", "stale"),
    // As 7.2: a script that calls it is answered at once.
    ("wait", "noscript"),
];

/// Flags that a real server does not tell of a command.
const OWN_FLAGS: &[(&str, &str)] = &[
    // In the category of operators, though not so flagged.
    ("role", "admin"),
    ("lastsave", "admin"),
    // Answered without a leader, too.
    ("script|kill", "loading"),
    ("script|kill", "stale"),
    ("function|kill", "loading"),
    ("function|kill", "stale"),
    // As in Valkey 9.
    ("client|reply", "no_multi"),
];

/// What `COMMAND` of a real server says of a command.
struct Recorded {
    arity: i64,
    flags: Vec<&'static str>,
    range: (i64, i64, i64),
    categories: Vec<&'static str>,
    tips: Vec<&'static str>,
    key_specs: Vec<&'static str>,
}

fn recorded() -> HashMap<&'static str, Recorded> {
    let lines = include_str!("redis-7.0.15-commands.tsv").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    let read = |line: &'static str| {
        let parts: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| parts[at].parse().expect("a number");
        let list = |at: usize, by: char| -> Vec<&str> {
            if parts[at] == "-" { Vec::new() } else { parts[at].split(by).collect() }
        };
        let recorded = Recorded {
            arity: number(1),
            flags: list(2, ','),
            range: (number(3), number(4), number(5)),
            categories: list(6, ','),
            tips: list(7, ','),
            key_specs: list(8, ' '),
        };
        (parts[0], recorded)
    };
    lines.map(read).collect()
}

#[test]
fn the_rows_are_those_of_a_real_server() {
    let recorded = recorded();
    let mut wrong = Vec::new();
    for row in rows() {
        let name = row.full_name();
        let Some(real) = recorded.get(&*name) else {
            if !OWN.contains(&&*name) {
                wrong.push(format!("no real server has '{name}'"));
            }
            continue;
        };
        let kind = |flag: &&str| ["write", "readonly"].contains(flag);
        let sorted = |tips: &[&'static str]| -> Vec<&str> {
            tips.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
        };
        let kinds = |flags: &[&'static str]| -> Vec<&str> { flags.iter().copied().filter(kind).collect() };
        let ours = (row.arity.shown(), row.key_range(), kinds(&row.flag_names()), sorted(row.tips));
        let theirs = (real.arity, real.range, kinds(&real.flags), sorted(&real.tips));
        let different = DIFFERENT.iter().any(|(row, _)| *row == name);
        if different == (ours == theirs) {
            wrong.push(format!("{name}: {ours:?} here, {theirs:?} there"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn spec_text(spec: &KeySpec) -> String {
    let flags: Vec<&str> = spec.flags.iter().map(|flag| flag.name()).collect();
    let begin = match spec.begin {
        Begin::Index(at) => format!("index({at})"),
        Begin::Keyword(token, from) => format!("keyword({},{from})", token.to_ascii_uppercase()),
        Begin::Unknown => "unknown()".into(),
    };
    let find = match spec.find {
        Find::Range { last, step } => format!("range({last},{step},0)"),
        Find::FirstHalf => "range(-1,1,2)".into(),
        Find::Counted => "keynum(0,1,1)".into(),
        Find::CountedPairs => "keynum(0,1,2)".into(),
        Find::Unknown => "unknown()".into(),
    };
    format!("{}:{begin}:{find}", flags.join(","))
}

#[test]
fn every_fact_of_every_row_is_that_of_a_real_server() {
    let recorded = recorded();
    let mut wrong = Vec::new();
    for row in rows() {
        let name = row.full_name();
        let Some(real) = recorded.get(&*name) else { continue };
        let mut check = |what: &str, mut ours: Vec<String>, theirs: &[&str]| {
            let mut theirs = theirs.to_vec();
            ours.sort();
            theirs.sort_unstable();
            if ours != theirs {
                wrong.push(format!("{name}: {what} {ours:?} here, {theirs:?} there"));
            }
        };
        let texts = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        if DIFFERENT.iter().any(|(row, _)| *row == name) {
            continue;
        }
        let mut flags = real.flags.clone();
        flags.retain(|flag| !FOR_REDIS_ONLY.contains(&(&*name, *flag)) && *flag != "skip_monitor");
        let mut own_flags = row.flag_names();
        own_flags.retain(|flag| !OWN_FLAGS.contains(&(&*name, *flag)));
        check("flags", texts(own_flags), &flags);
        check("categories", texts(row.category_names()), &real.categories);
        check("tips", texts(row.tips.to_vec()), &real.tips);
        check("key specs", row.key_specs().iter().map(spec_text).collect(), &real.key_specs);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_served_beside_a_script_is_about_sessions_alone() {
    for row in rows().filter(|row| row.has(Flag::AllowBusy)) {
        assert!(matches!(row.run, Run::Session(_)), "'{}' would use the script's unit", row.full_name());
    }
}

#[test]
fn a_request_finds_its_row() {
    let resolve = |request: &str| {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        resolve(&words).map(|row| row.full_name().into_owned()).map_err(|error| error.to_string())
    };
    assert_eq!(resolve("GeT k").as_deref(), Ok("get"));
    assert_eq!(resolve("object Encoding k").as_deref(), Ok("object|encoding"));
    assert_eq!(resolve("object").as_deref(), Ok("object"));
    assert_eq!(resolve("command").as_deref(), Ok("command"));
    assert_eq!(resolve("command count").as_deref(), Ok("command|count"));
    let error = resolve("command nope").expect_err("there is none");
    assert_eq!(error, "ERR unknown subcommand 'nope'. Try COMMAND HELP.");
    let error = resolve("nope a b").expect_err("there is none");
    assert_eq!(error, "ERR unknown command 'nope', with args beginning with: 'a' 'b' ");
    let long = format!("nope {} b", "x".repeat(200));
    let error = resolve(&long).expect_err("there is none");
    assert_eq!(
        error,
        format!("ERR unknown command 'nope', with args beginning with: '{}' ", "x".repeat(128))
    );
}

/// Rows with keys that say no work, and why that is little whatever their keys hold.
const LITTLE: &[(&str, &[&str])] = &[
    (
        "a value is moved or set aside as a whole, or not looked into",
        &[
            "del",
            "unlink",
            "exists",
            "touch",
            "type",
            "rename",
            "renamenx",
            "move",
            "expire",
            "pexpire",
            "expireat",
            "pexpireat",
            "ttl",
            "pttl",
            "expiretime",
            "pexpiretime",
            "persist",
            "watch",
        ],
    ),
    (
        "an element is found by its name, its end or its place: by words, of which many are reason enough",
        &[
            "lindex",
            "llen",
            "lmove",
            "blmove",
            "lpush",
            "lpushx",
            "lset",
            "rpoplpush",
            "brpoplpush",
            "rpush",
            "rpushx",
            "blpop",
            "brpop",
            "hset",
            "hmset",
            "hsetnx",
            "hget",
            "hmget",
            "hdel",
            "hlen",
            "hexists",
            "hstrlen",
            "hexpire",
            "hpexpire",
            "hexpireat",
            "hpexpireat",
            "httl",
            "hpttl",
            "hexpiretime",
            "hpexpiretime",
            "hpersist",
            "hgetex",
            "hsetex",
            "hgetdel",
            "hincrby",
            "hincrbyfloat",
            "sadd",
            "srem",
            "sismember",
            "smismember",
            "scard",
            "smove",
            "zadd",
            "zcard",
            "zincrby",
            "zmscore",
            "zrem",
            "zscore",
            "zrank",
            "zrevrank",
            "zcount",
            "zlexcount",
            "bzpopmax",
            "bzpopmin",
            "geoadd",
            "geodist",
            "geohash",
            "geopos",
            "xlen",
            "xdel",
            "xsetid",
            "xack",
            "xclaim",
            "xgroup|create",
            "xgroup|setid",
            "xgroup|createconsumer",
        ],
    ),
    ("a group is set aside as a whole", &["xgroup|destroy"]),
    (
        "a string is not copied until its reply is written, which is reason enough where it is large",
        &["get", "mget", "getrange", "substr"],
    ),
    (
        "some bytes of a string are looked at, however many it has",
        &["strlen", "incr", "decr", "incrby", "decrby", "incrbyfloat", "getbit", "bitfield_ro"],
    ),
    ("a counter has 16 KiB at most", &["pfadd", "pfdebug"]),
    (
        "some blocks or bytes of a value are looked at",
        &[
            "object|encoding",
            "object|refcount",
            "object|idletime",
            "object|freq",
            "debug|htstats-key",
            "debug|listpack",
            "debug|quicklist",
        ],
    ),
    ("messages, not values", &["spublish", "ssubscribe", "sunsubscribe"]),
];

#[test]
fn every_row_with_keys_says_its_work_or_is_known_to_need_none() {
    let has_keys = |row: &&Command| {
        row.keys != moonraft_router::Keys::None
            && !matches!(row.run, Run::Eval(_) | Run::Exec | Run::Container)
    };
    let silent = rows().filter(has_keys).filter(|row| row.work.is_none());
    let silent: BTreeSet<String> = silent.map(|row| row.full_name().into_owned()).collect();
    let listed = LITTLE.iter().flat_map(|(_, names)| names.iter().map(|&name| name.to_owned()));
    let listed: BTreeSet<String> = listed.collect();
    let missing: Vec<_> = silent.difference(&listed).collect();
    let needless: Vec<_> = listed.difference(&silent).collect();
    assert!(
        missing.is_empty() && needless.is_empty(),
        "not listed: {missing:?}; listed in vain: {needless:?}"
    );
}
