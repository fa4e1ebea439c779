//! `MEMORY`: what the data take, and what the process does.

use moonraft_proto::Reply;
use moonraft_router::Keys;

use super::{
    Arity, Client, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{integer, is},
    help::help,
    key_specs::uses,
    work,
};
use crate::keyspace::{Object, Tx, entry_bytes};

/// A row of `MEMORY`.
const ROW: Command = Command {
    family: Family::Server,
    parent: Some("memory"),
    arity: Arity::Exactly(2),
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    ..Command::BASE
};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "memory", parent: None, arity: Arity::AtLeast(2), tips: &[], ..ROW },
    Command { name: "doctor", run: Run::Session(doctor), ..ROW },
    Command {
        name: "malloc-stats",
        run: Run::Session(|_, _| Ok(Reply::text("Stats not supported for the current allocator"))),
        ..ROW
    },
    Command {
        name: "purge",
        // The allocator gives back by itself what it can.
        run: Run::Session(|_, _| Ok(Reply::OK)),
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        ..ROW
    },
    Command { name: "stats", run: Run::Session(stats), ..ROW },
    Command {
        name: "usage",
        arity: Arity::AtLeast(3),
        keys: Keys::Range { first: 2, last: 2, step: 1 },
        key_flags: &[uses::LOOK],
        flags: &[Flag::Untouching, Flag::Unheard],
        run: Run::Read(usage),
        work: Some(work::sampled),
        tips: &[],
        ..ROW
    },
    Command {
        name: "help",
        flags: &[Flag::Stale],
        run: Run::Session(|_, _| Ok(help("MEMORY", HELP))),
        tips: &[],
        ..ROW
    },
];

const HELP: &[&str] = &[
    "DOCTOR",
    "    Return memory problems reports.",
    "MALLOC-STATS",
    "    Return internal statistics report from the memory allocator.",
    "PURGE",
    "    Attempt to purge dirty pages for reclamation by the allocator.",
    "STATS",
    "    Return information about the memory usage of the server.",
    "USAGE <key> [SAMPLES <count>]",
    "    Return memory in bytes used by <key> and its value. Nested values are",
    "    sampled up to <count> times (default: 5, 0 means sample all).",
];

/// `MEMORY DOCTOR`: nothing is known here that it could complain of.
fn doctor(_: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let text = "Hi Sam, I can't find any memory issue in your instance. I can only account for what occurs on this base.\n";
    Ok(Reply::Verbatim(*b"txt", text.into()))
}

/// `MEMORY STATS`
///
/// What the process has resident stands for what the allocator has given out; see `INFO`.
fn stats(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let used = client.facts().resident_bytes as i64;
    let replies = client.sessions().map(|(id, _)| client.unread_bytes(id)).sum::<usize>() as i64;
    let in_flight = client.in_flight_bytes() as i64;
    let keyspace = client.store().keyspace();
    let (keys, scripts) = (keyspace.len() as i64, keyspace.scripts().bytes() as i64);
    let libraries = keyspace.libraries().bytes() as i64;
    let one = || Reply::text("1");
    let database = [
        ("overhead.hashtable.main", 0),
        ("overhead.hashtable.expires", 0),
        ("overhead.hashtable.slot-to-keys", 0),
    ];
    let database = database.map(|(name, bytes)| (Reply::text(name), Reply::Int(bytes)));
    let facts = [
        ("peak.allocated", Reply::Int(used)),
        ("total.allocated", Reply::Int(used)),
        ("startup.allocated", Reply::Int(0)),
        ("replication.backlog", Reply::Int(in_flight)),
        ("clients.slaves", Reply::Int(0)),
        ("clients.normal", Reply::Int(replies)),
        ("cluster.links", Reply::Int(0)),
        ("aof.buffer", Reply::Int(0)),
        ("lua.caches", Reply::Int(scripts)),
        ("functions.caches", Reply::Int(libraries)),
        ("db.0", Reply::Map(database.to_vec())),
        ("overhead.total", Reply::Int(in_flight + replies + scripts + libraries)),
        ("keys.count", Reply::Int(keys)),
        ("keys.bytes-per-key", Reply::Int(if keys == 0 { 0 } else { used / keys })),
        ("dataset.bytes", Reply::Int(used)),
        ("dataset.percentage", Reply::text("100")),
        ("peak.percentage", Reply::text("100")),
        ("allocator.allocated", Reply::Int(used)),
        ("allocator.active", Reply::Int(used)),
        ("allocator.resident", Reply::Int(used)),
        ("allocator-fragmentation.ratio", one()),
        ("allocator-fragmentation.bytes", Reply::Int(0)),
        ("allocator-rss.ratio", one()),
        ("allocator-rss.bytes", Reply::Int(0)),
        ("rss-overhead.ratio", one()),
        ("rss-overhead.bytes", Reply::Int(0)),
        ("fragmentation", one()),
        ("fragmentation.bytes", Reply::Int(0)),
    ];
    Ok(Reply::Map(facts.into_iter().map(|(name, value)| (Reply::text(name), value)).collect()))
}

/// `MEMORY USAGE key [SAMPLES count]`
fn usage<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    /// What Redis takes.
    const SAMPLES_DEFAULT: usize = 5;
    let mut samples = SAMPLES_DEFAULT;
    for option in words[3..].chunks(2) {
        let &[name, count] = option else { return Err(CommandError::Syntax) };
        if !is(name, "samples") {
            return Err(CommandError::Syntax);
        }
        let count = usize::try_from(integer(count)?).map_err(|_| CommandError::Syntax)?;
        samples = if count == 0 { usize::MAX } else { count };
    }

    let key = words[2];
    let bytes = |object: &Object| object.heap_bytes(samples) + entry_bytes(key);
    Ok(tx.object(key).map_or(Reply::Null, |object| Reply::count(bytes(object))))
}
