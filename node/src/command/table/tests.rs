//! The table against a real server's, and each of its rows against all that a
//! client may send.

use std::collections::BTreeSet;

use moonraft_proto::{Effect, Protocol, entry::Batch};
use moonraft_router::SLOT_COUNT;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{super::*, *};
use crate::{
    command::facts::{Begin, Find, KeySpec},
    keyspace::{Keyspace, Tx},
};

/// Rows that Redis 7.0 has not, or has in another form.
const OWN: &[&str] = &[
    // Words of `DEBUG` that are no subcommands to Redis's table.
    "debug|digest",
    "debug|digest-value",
    "debug|object",
    "debug|help",
    // Of 7.2; the recorded server is 7.0.
    "client|no-touch",
    "client|setinfo",
    "cluster|myshardid",
];

/// Rows that differ on purpose, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("zrank", "WITHSCORE came with 7.2"),
    ("zrevrank", "WITHSCORE came with 7.2"),
    ("lolwut", "it reads no data"),
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

/// Families whose every fact is checked.
const IN_FULL: &[&[Command]] = &[
    bitmap::COMMANDS,
    database::COMMANDS,
    expiry::COMMANDS,
    generic::COMMANDS,
    hash::COMMANDS,
    inspect::COMMANDS,
    introspection::COMMANDS,
    lcs::COMMANDS,
    list::COMMANDS,
    restore::COMMANDS,
    set::COMMANDS,
    sort::COMMANDS,
    string::COMMANDS,
    zset::COMMANDS,
];

fn spec_text(spec: &KeySpec) -> String {
    let flags: Vec<&str> = spec.flags.iter().map(|flag| flag.name()).collect();
    let begin = match spec.begin {
        Begin::Index(at) => format!("index({at})"),
        Begin::Unknown => "unknown()".into(),
    };
    let find = match spec.find {
        Find::Range { last, step } => format!("range({last},{step},0)"),
        Find::Counted => "keynum(0,1,1)".into(),
        Find::Unknown => "unknown()".into(),
    };
    format!("{}:{begin}:{find}", flags.join(","))
}

#[test]
fn every_fact_of_these_families_is_that_of_a_real_server() {
    let recorded = recorded();
    let mut wrong = Vec::new();
    for row in IN_FULL.iter().copied().flatten() {
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
        let mut flags = real.flags.clone();
        let mut key_specs = real.key_specs.clone();
        if *name == *"sort_ro" {
            // Its patterns are keys there, which a cluster does not allow.
            flags.retain(|flag| *flag != "movablekeys");
            key_specs.truncate(1);
        }
        check("flags", texts(row.flag_names()), &flags);
        check("categories", texts(row.category_names()), &real.categories);
        check("tips", texts(row.tips.to_vec()), &real.tips);
        check("key specs", row.key_specs().iter().map(spec_text).collect(), &key_specs);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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

/// Words that mean something somewhere, or nothing anywhere.
const WORDS: &[&[u8]] = &[
    b"string",
    b"list",
    b"set",
    b"hash",
    b"sorted",
    b"new",
    b"large",
    b"expiring",
    b"",
    b"0",
    b"1",
    b"2",
    b"3",
    b"-1",
    b"10",
    b"1.5",
    b"-inf",
    b"nan",
    b"(1",
    b"[a",
    b"+",
    b"-",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"\xff\x00\r\n",
    b"*",
    b"{a}*",
    b"nx",
    b"xx",
    b"gt",
    b"lt",
    b"ch",
    b"incr",
    b"get",
    b"ex",
    b"px",
    b"keepttl",
    b"store",
    b"by",
    b"nosort",
    b"#",
    b"limit",
    b"asc",
    b"desc",
    b"alpha",
    b"match",
    b"count",
    b"type",
    b"withscores",
    b"withvalues",
    b"weights",
    b"aggregate",
    b"sum",
    b"min",
    b"max",
    b"rev",
    b"byscore",
    b"bylex",
    b"left",
    b"right",
    b"before",
    b"after",
    b"rank",
    b"maxlen",
    b"replace",
    b"absttl",
    b"db",
    b"samples",
    b"async",
    b"filterby",
    b"pattern",
    b"persist",
    b"idx",
];

/// A transaction on keys of every type.
fn populated() -> Tx {
    let mut keyspace = Keyspace::default();
    keyspace.apply(&Effect::AssignSlots { first: 0, last: SLOT_COUNT - 1 });
    keyspace.apply(&Effect::PutString { key: b"string", value: b"10", expires_at: None });
    keyspace.apply(&Effect::PutString { key: b"expiring", value: b"text", expires_at: Some(1_500) });
    for (index, value) in [b"a".as_slice(), b"1", b"", b"a"].into_iter().enumerate() {
        keyspace.apply(&Effect::ListInsert { key: b"list", index: index as u64, value });
    }
    for member in [b"a".as_slice(), b"1", b"", b"-1"] {
        keyspace.apply(&Effect::SetAdd { key: b"set", member });
        keyspace.apply(&Effect::HashPut { key: b"hash", field: member, value: b"3" });
        keyspace.apply(&Effect::SortedPut { key: b"sorted", member, score: member.len() as f64 });
    }
    for number in 0..150 {
        keyspace.apply(&Effect::SetAdd { key: b"large", member: format!("m{number}").as_bytes() });
    }
    Tx::new(keyspace, 1)
}

fn runs_on_data(row: &Command) -> bool {
    matches!(row.run, Run::Read(_) | Run::Write(_))
}

/// Executes one request as a unit of its own, at this time.
fn run(tx: &mut Tx, now_ms: u64, row: &Command, request: &[&[u8]]) {
    tx.begin_unit(now_ms * 1000, true);
    if let Ok(reply) = row.execute(tx, request) {
        reply.encode(Protocol::Resp2, &mut Vec::new());
    }
}

#[test]
fn every_row_takes_its_shortest_request() {
    for row in rows().filter(|row| runs_on_data(row)) {
        for word in WORDS {
            let mut tx = populated();
            let names = row.parent.into_iter().chain([row.name]).map(str::as_bytes);
            let mut request: Vec<&[u8]> = names.collect();
            let (Arity::Exactly(count) | Arity::AtLeast(count)) = row.arity;
            request.resize(count, word);
            assert!(row.check_arity(&request).is_ok());
            run(&mut tx, 1_000, row, &request);
        }
    }
}

fn any_request<'a>(row: &'a Command, random: &mut StdRng) -> Vec<&'a [u8]> {
    let names = row.parent.into_iter().chain([row.name]).map(str::as_bytes);
    let mut request: Vec<&[u8]> = names.collect();
    let (Arity::Exactly(count) | Arity::AtLeast(count)) = row.arity;
    let more = if matches!(row.arity, Arity::AtLeast(_)) { random.random_range(0..5) } else { 0 };
    while request.len() < count + more {
        request.push(WORDS.choose(random).expect("there are words"));
    }
    request
}

#[test]
fn followers_and_undo_follow_whatever_is_asked() {
    /// Enough that each row is asked a few dozen times.
    const REQUESTS: usize = 6_000;
    /// So many are asked of the same keys.
    const TOGETHER: usize = 30;
    let all: Vec<&Command> = rows().filter(|row| runs_on_data(row)).collect();
    let mut random = StdRng::seed_from_u64(3);
    let (mut tx, mut follower) = (populated(), populated());
    let mut written = 0;
    for turn in 0..REQUESTS {
        if turn % TOGETHER == 0 {
            (tx, follower) = (populated(), populated());
        }
        let row = all.choose(&mut random).expect("there are rows");
        let request = any_request(row, &mut random);
        let before = tx.keyspace().digest();
        // The expiring key expires on the way.
        run(&mut tx, 1_000 + (turn % TOGETHER * 40) as u64, row, &request);
        let effects = tx.unit_effects();
        if effects == 0 {
            assert_eq!(tx.keyspace().digest(), before, "changed without an effect: {request:?}");
        } else if random.random_bool(0.5) {
            tx.roll_back_unit();
            assert_eq!(tx.keyspace().digest(), before, "rolled back: {request:?}");
        }
        tx.end_unit();
        let (sequence, data, open) = tx.seal(0);
        for effect in Batch::decode(&data).expect("it was just sealed").effects() {
            follower.keyspace_mut().apply(&effect.expect("it was just sealed"));
            written += 1;
        }
        tx.committed(sequence, &open.changed);
        if effects > 0 {
            let (leader, follower) = (tx.keyspace().digest(), follower.keyspace().digest());
            assert_eq!(leader, follower, "a follower differs: {request:?}");
        }
    }
    assert!(written > REQUESTS / 20, "only {written} effects");
}
