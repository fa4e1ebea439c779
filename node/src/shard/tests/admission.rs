//! One admission for all three ways by which a request comes: whatever the row, who asks hears the first reason of
//! the list. The list is written here once more, from the rows' facts.

use moonraft_proto::entry::NEWEST_FORMAT;

use super::{DiskRoom, Event, SessionId, ShardHarness, ShardSettings, batch, put};
use crate::{
    command::{Arity, Command, Flag, Request, Run, rows, session::Queue},
    shard::admit::{Admission, Home, Terms, Via},
};

/// What the shard is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Well,
    OutOfMemory,
    WithoutDisk,
    Follows,
}

const CONDITIONS: [Condition; 4] =
    [Condition::Well, Condition::OutOfMemory, Condition::WithoutDisk, Condition::Follows];

fn shard_in(condition: Condition) -> (ShardHarness, SessionId) {
    let mut shard = match condition {
        Condition::Follows => ShardHarness::following_with(ShardSettings::default()),
        _ => ShardHarness::leading(),
    };
    // What needs a newer format would wait for it.
    if condition != Condition::Follows {
        shard.handle(Event::Readable { term: 1, format: NEWEST_FORMAT });
        shard.handle(Event::Tick);
        shard.commit_all();
    }
    match condition {
        Condition::Well => {}
        Condition::OutOfMemory => shard.shard.reconfigure(|settings| settings.memory_bytes_max = 1),
        Condition::WithoutDisk => shard.handle(Event::DiskRoom(DiskRoom::Last)),
        Condition::Follows => {
            shard.lose_leadership(2);
            shard.commit(1, batch(&[put(b"a", b"1")]));
        }
    }
    shard.handle(Event::Tick);
    let client = shard.connect();
    (shard, client)
}

/// The shortest request for a row, every word of which is this one.
fn shortest(row: &'static Command, word: &'static [u8]) -> Vec<&'static [u8]> {
    let names = row.parent.into_iter().chain([row.name]).map(str::as_bytes);
    let count = match row.arity {
        Arity::Exactly(count) | Arity::AtLeast(count) => count,
    };
    names.chain(std::iter::repeat(word)).take(count.max(1 + usize::from(row.parent.is_some()))).collect()
}

/// Rows that stand for a request, and are not run by something else.
fn requests() -> impl Iterator<Item = &'static Command> {
    rows().filter(|row| !matches!(row.run, Run::Container))
}

fn told(admission: Result<Admission, crate::command::CommandError>) -> String {
    match admission {
        Ok(admission) => format!("{admission:?}"),
        Err(error) => error.to_string(),
    }
}

const READ_ONLY: &str = "READONLY You can't write against a read only replica.";
const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const NOT_IN_SCRIPT: &str = "ERR This Redis command is not allowed from script";
const NOT_IN_BLOCK: &str = "ERR Command not allowed inside a transaction";

/// The beginning of what is told of a request without keys beyond what the shard serves, or of the slot it keeps to.
fn lacking(row: &Command, condition: Condition) -> Option<&'static str> {
    match condition {
        Condition::Follows if row.changes_data() => Some(READ_ONLY),
        Condition::OutOfMemory if row.has(Flag::DenyOom) => Some(OOM),
        Condition::WithoutDisk if row.changes_data() => Some("MISCONF "),
        _ => None,
    }
}

fn check(row: &Command, via: &str, condition: Condition, told: &str, expected: Option<&str>) {
    let expected = expected.unwrap_or("Now");
    assert!(told.starts_with(expected), "'{}' by {via}, {condition:?}: {told}", row.full_name());
}

#[test]
fn a_wrong_number_of_words_is_the_first_reason_by_every_way() {
    let (mut shard, client) = shard_in(Condition::Follows);
    for row in requests().filter(|row| row.arity.shown().abs() > 1 + i64::from(row.parent.is_some())) {
        let mut words = shortest(row, b"x");
        words.pop();
        let request = Request::new(row, &words);
        let wrong = format!("ERR wrong number of arguments for '{}' command", row.full_name());
        let terms = Terms { read_only: true, ..Terms::default() };
        for (via, expected) in [
            (Via::Client, &*wrong),
            (Via::Block(&Home::default()), &wrong),
            (Via::Script(&terms), "ERR Wrong number of args calling Redis command from script"),
        ] {
            assert_eq!(told(shard.shard.admit(client, &request, via)), expected, "'{}'", row.full_name());
        }
    }
}

#[test]
fn a_clients_request_is_refused_for_the_first_reason_of_the_list() {
    for condition in CONDITIONS {
        let (mut shard, client) = shard_in(condition);
        for row in requests() {
            let words = shortest(row, b"a");
            let request = Request::new(row, &words);
            let moved = request.slot().is_some() && !row.has(Flag::PubSub);
            let expected = match condition {
                _ if row.has(Flag::Protected) => Some("ERR MODULE command not allowed."),
                _ if row.has(Flag::Debugging) => Some("ERR DEBUG command not allowed."),
                Condition::Follows if moved => Some("MOVED 15495 127.0.0.1:7101"),
                _ => lacking(row, condition),
            };
            check(
                row,
                "client",
                condition,
                &told(shard.shard.admit(client, &request, Via::Client)),
                expected,
            );
            // In an open block nothing is asked that is asked when the block is executed.
            shard.shard.sessions[client].queue = Some(Queue::default());
            let expected = match condition {
                _ if row.has(Flag::Protected) || row.has(Flag::Debugging) => expected,
                _ if row.has(Flag::NoMulti) => Some(NOT_IN_BLOCK),
                Condition::Follows if moved => expected,
                _ if row.has(Flag::Immediate) => expected,
                _ => None,
            };
            check(
                row,
                "open block",
                condition,
                &told(shard.shard.admit(client, &request, Via::Client)),
                expected,
            );
            shard.shard.sessions[client].queue = None;
        }
    }
}

#[test]
fn a_request_of_a_block_is_refused_for_the_first_reason_of_the_list() {
    for condition in CONDITIONS {
        let (mut shard, client) = shard_in(condition);
        for row in requests().filter(|row| !row.has(Flag::Immediate)) {
            let words = shortest(row, b"a");
            // What a script will do is not known before.
            let script_writes = matches!(row.run, Run::Eval(eval) if !eval.read_only);
            let expected = match condition {
                _ if row.has(Flag::NoMulti) => Some(NOT_IN_BLOCK),
                Condition::OutOfMemory if script_writes => Some(OOM),
                Condition::WithoutDisk if script_writes => Some("MISCONF "),
                _ => lacking(row, condition),
            };
            let admission =
                shard.shard.admit(client, &Request::new(row, &words), Via::Block(&Home::default()));
            check(row, "block", condition, &told(admission), expected);
        }
    }
}

#[test]
fn a_scripts_command_is_refused_for_the_first_reason_of_the_list() {
    const NOT_LOCAL: &str = "ERR Script attempted to access a non local key in a cluster node";
    for condition in CONDITIONS {
        let (mut shard, client) = shard_in(condition);
        for row in requests() {
            for (key, read_only) in [(b"a", false), (b"a", true), (b"x", false), (b"x", true)] {
                let words = shortest(row, key);
                let request = Request::new(row, &words);
                let serves = condition != Condition::Follows || row.has(Flag::PubSub);
                let is_local = request.slot().is_none() || key == b"a" && serves;
                let mut terms = Terms { read_only, ..Terms::default() };
                let own = lacking(row, condition);
                let expected = match () {
                    () if row.has(Flag::NoScript) => Some(NOT_IN_SCRIPT),
                    () if row.is_write() && read_only => {
                        Some("ERR Write commands are not allowed from read-only scripts.")
                    }
                    () if own.is_some() => own,
                    () if !is_local => Some(NOT_LOCAL),
                    () => None,
                };
                let mut by_script =
                    |terms: &Terms| told(shard.shard.admit(client, &request, Via::Script(terms)));
                check(row, "script", condition, &by_script(&terms), expected);
                // What it has begun is not stopped for want of room.
                terms.wrote.set(true);
                let is_room = matches!(expected, Some(text) if text == OOM || text == "MISCONF ");
                let expected = if is_room { (!is_local).then_some(NOT_LOCAL) } else { expected };
                check(row, "script that wrote", condition, &by_script(&terms), expected);
                // Its keys are of one slot, unless it may go beyond it.
                terms.home.set(Some(0));
                let keeps = (expected.is_none() && request.slot().is_some())
                    .then_some("ERR Script attempted to access keys that do not hash to the same slot");
                check(row, "script of a slot", condition, &by_script(&terms), keeps.or(expected));
                terms.any_slot = true;
                check(row, "script of all slots", condition, &by_script(&terms), expected);
            }
        }
    }
}

#[test]
fn keys_of_several_slots_are_refused_whoever_asks() {
    let (mut shard, client) = shard_in(Condition::Well);
    let words: [&[u8]; 3] = [b"DEL", b"a", b"b"];
    let request = Request::read(&words).expect("it is a command");
    let by_client = told(shard.shard.admit(client, &request, Via::Client));
    assert_eq!(by_client, "CROSSSLOT Keys in request don't hash to the same slot");
    for any_slot in [false, true] {
        let terms = Terms { any_slot, ..Terms::default() };
        let by_script = told(shard.shard.admit(client, &request, Via::Script(&terms)));
        let refused = "ERR Script attempted to access a non local key in a cluster node";
        assert_eq!(by_script, refused, "allow-cross-slot-keys is for different commands");
    }
}

/// The shard runs them whole, so a script cannot: it has the shard's engine, and its unit.
#[test]
fn what_the_shard_runs_whole_is_not_for_scripts() {
    for row in rows().filter(|row| matches!(row.run, Run::Exec | Run::Eval(_))) {
        assert!(row.has(Flag::NoScript), "'{}'", row.full_name());
    }
    for row in rows().filter(|row| matches!(row.run, Run::Exec)) {
        assert!(row.has(Flag::Immediate), "'{}' would be queued in what it ends", row.full_name());
    }
    for row in rows().filter(|row| matches!(row.run, Run::Container)) {
        assert!(!row.arity.allows(1), "'{}' is nothing by itself", row.full_name());
    }
}
