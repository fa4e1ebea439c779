//! What holds of every command that works on data, drawn from the table with
//! words at random: its effects make a follower equal, rolling it back leaves
//! nothing, an error leaves nothing, and no words make it panic.

use moonraft_proto::{
    Effect, StreamChange, StreamId,
    entry::{Batch, NEWEST_FORMAT},
    reply::Protocol,
    stream::{Ids, Pairs},
};
use moonraft_router::SLOT_COUNT;
use proptest::prelude::*;

use super::{Command, Run, rows};
use crate::keyspace::{Keyspace, Store};

/// Words that mean something to some command: keys of one slot, values, options.
/// No number is large enough to make a string of gigabytes, or too large to.
const WORDS: &[&[u8]] = &[
    b"{k}a",
    b"{k}b",
    b"{k}c",
    b"{k}d",
    b"{k}e",
    b"{k}s",
    b"",
    b"0",
    b"1",
    b"2",
    b"-1",
    b"3",
    b"7",
    b"100",
    b"-3",
    b"1.5",
    b"-0.1",
    b"1e300",
    b"inf",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"nx",
    b"xx",
    b"get",
    b"ex",
    b"px",
    b"exat",
    b"pxat",
    b"keepttl",
    b"persist",
    b"idx",
    b"len",
    b"minmatchlen",
    b"withmatchlen",
    b"and",
    b"or",
    b"xor",
    b"not",
    b"bit",
    b"byte",
    b"set",
    b"incrby",
    b"overflow",
    b"sat",
    b"fail",
    b"wrap",
    b"u8",
    b"i5",
    b"i64",
    b"u63",
    b"#1",
    b"withvalues",
    b"withscores",
    b"match",
    b"count",
    b"f*",
    b"f",
    b"g",
    b"foobar",
    b"left",
    b"right",
    b"before",
    b"after",
    b"gt",
    b"lt",
    b"ch",
    b"incr",
    b"rank",
    b"maxlen",
    b"limit",
    b"weights",
    b"aggregate",
    b"sum",
    b"min",
    b"max",
    b"rev",
    b"byscore",
    b"bylex",
    b"(1",
    b"[a",
    b"+",
    b"-",
    b"store",
    b"by",
    b"asc",
    b"desc",
    b"alpha",
    b"replace",
    b"\xff\x00\x01",
    b"new",
    b"10",
    b"-inf",
    b"nan",
    b"\xff\x00\r\n",
    b"*",
    b"{a}*",
    b"nosort",
    b"#",
    b"type",
    b"absttl",
    b"db",
    b"samples",
    b"async",
    b"filterby",
    b"streams",
    b">",
    b"$",
    b"7-0",
    b"3-*",
    b"group",
    b"noack",
    b"~",
    b"minid",
    b"nomkstream",
    b"justid",
    b"force",
    b"idle",
    b"retrycount",
    b"mkstream",
    b"full",
    b"pattern",
];

/// The most words beyond those that a command must have.
const FURTHER_MAX: usize = 5;

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub row: &'static Command,
    words: Vec<usize>,
    keep: bool,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.full_name())
    }
}

pub(super) fn any_request() -> impl Strategy<Value = Request> {
    let rows: Vec<&'static Command> = rows().filter(|row| is_on_data(row)).collect();
    let row = prop::sample::select(rows);
    // The word behind the name is a key, most often.
    let first = prop_oneof![4 => 0..6_usize, 1 => 0..WORDS.len()];
    let further = prop::collection::vec(prop_oneof![0..15_usize, 0..WORDS.len()], FURTHER_MAX + 4);
    (row, first, further, 0..=FURTHER_MAX, prop::bool::weighted(0.8)).prop_map(
        |(row, first, further, count, keep)| {
            let least = row.arity.shown().unsigned_abs() as usize;
            let count = if row.arity.shown() > 0 { least } else { least + count };
            let names = 1 + usize::from(row.parent.is_some());
            let words = std::iter::once(first).chain(further.into_iter().cycle());
            Request { row, words: words.take(count.saturating_sub(names)).collect(), keep }
        },
    )
}

pub(super) fn words(request: &Request) -> Vec<&[u8]> {
    let names = request.row.parent.into_iter().chain([request.row.name]);
    names.map(str::as_bytes).chain(request.words.iter().map(|&at| WORDS[at])).collect()
}

fn digests(keyspace: &Keyspace) -> (String, String) {
    (keyspace.digest(), keyspace.shared_digest())
}

/// No keys; all that there is may be written.
fn empty() -> Keyspace {
    let mut keyspace = Keyspace::default();
    keyspace.apply(&Effect::AssignSlots { first: 0, last: SLOT_COUNT - 1 });
    keyspace.apply(&Effect::AgreeFormat { format: NEWEST_FORMAT });
    keyspace
}

/// Keys of every type, each with something to find.
pub(super) fn populated() -> Keyspace {
    let mut keyspace = empty();
    populate_stream(&mut keyspace);
    keyspace.apply(&Effect::PutString { key: b"{k}a", value: b"10", expires_at: None });
    keyspace.apply(&Effect::PutString {
        key: b"{k}expiring",
        value: b"text",
        expires_at: Some(1_000_000_002),
    });
    for (index, value) in [b"a".as_slice(), b"1", b"", b"a"].into_iter().enumerate() {
        keyspace.apply(&Effect::ListInsert { key: b"{k}b", index: index as u64, value });
    }
    for member in [b"a".as_slice(), b"1", b"", b"-1"] {
        keyspace.apply(&Effect::SetAdd { key: b"{k}c", member });
        keyspace.apply(&Effect::HashPut { key: b"{k}d", field: member, value: b"3" });
        keyspace.apply(&Effect::SortedPut { key: b"{k}e", member, score: member.len() as f64 });
    }
    for number in 0..150 {
        keyspace.apply(&Effect::SetAdd { key: b"{k}large", member: format!("m{number}").as_bytes() });
    }
    keyspace
}

/// A stream of which something is pending.
fn populate_stream(keyspace: &mut Keyspace) {
    let (key, group, consumer) = (b"{k}s".as_slice(), b"f".as_slice(), b"g".as_slice());
    let mut scratch = Vec::new();
    for (ms, value) in [(1, b"1".as_slice()), (2, b""), (3, b"foobar"), (7, b"-1")] {
        let fields = Pairs::write(&[b"f", value], &mut scratch);
        keyspace.apply(&StreamChange::Add { id: StreamId::new(ms, 0), fields, begins_node: ms == 3 }.of(key));
    }
    let last_id = StreamId::new(3, 0);
    keyspace.apply(&StreamChange::GroupSet { group, last_id, read: Some(3) }.of(key));
    keyspace.apply(&StreamChange::ConsumerSet { group, consumer, seen_ms: 5, active_ms: None }.of(key));
    let ids = Ids::write((1..4).map(|ms| StreamId::new(ms, 0)), &mut scratch);
    keyspace.apply(&StreamChange::PendingSet { group, consumer, time_ms: 5, count: 1, ids }.of(key));
}

/// Whether it runs on data alone.
fn is_on_data(row: &Command) -> bool {
    matches!(row.run, Run::Read(_) | Run::Write(_))
}

#[test]
fn every_row_takes_its_shortest_request() {
    for row in rows().filter(|row| is_on_data(row)) {
        for word in WORDS {
            let mut store = Store::new(populated(), 1);
            let names = row.parent.into_iter().chain([row.name]).map(str::as_bytes);
            let mut request: Vec<&[u8]> = names.collect();
            request.resize(row.arity.shown().unsigned_abs() as usize, word);
            assert!(row.check_arity(&request).is_ok());
            store.begin_unit(1_000_000_000_000, true);
            if let Ok(reply) = super::Request::new(row, &request).execute(&mut store.tx()) {
                reply.encode(Protocol::Resp2, &mut Vec::new());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_request_leaves_its_effects_and_nothing_else(
        begins_populated: bool,
        requests in prop::collection::vec(any_request(), 1..60),
        seconds in prop::collection::vec(0_u64..3, 60),
    ) {
        let begin = || if begins_populated { populated() } else { empty() };
        let (mut leader, mut follower) = (Store::new(begin(), 0), begin());
        let mut now_us = 1_000_000_000_000;
        for (request, seconds) in requests.iter().zip(seconds) {
            now_us += seconds * 1_000_000;
            let words = words(request);
            let before = digests(leader.keyspace());
            leader.begin_unit(now_us, true);
            if request.row.check_arity(&words).is_ok() {
                // A reply that cannot be written would be found out here.
                for protocol in [Protocol::Resp2, Protocol::Resp3] {
                    let mut out = Vec::new();
                    if let Ok(reply) = super::Request::new(request.row, &words).execute(&mut leader.tx()) {
                        reply.encode(protocol, &mut out);
                        prop_assert!(out.ends_with(b"\r\n"));
                    }
                }
            }
            if request.keep {
                let wrote = leader.unit_effects() > 0;
                prop_assert!(wrote || digests(leader.keyspace()) == before);
            } else {
                leader.roll_back_unit();
                prop_assert_eq!(digests(leader.keyspace()), before, "{:?} rolled back", request.row);
            }
            leader.end_unit();

            let (sequence, data, open) = leader.seal(now_us / 1000);
            let batch = Batch::decode(&data).expect("it was just sealed");
            batch.effects().for_each(|effect| drop(follower.apply(&effect.expect("it was just sealed"))));
            prop_assert_eq!(digests(leader.keyspace()), digests(&follower), "{:?}", request.row);
            leader.committed(sequence, &open.changed);
        }
    }
}
