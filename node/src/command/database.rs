//! All keys of the shard at once, and its clock.

use moonraft_proto::{Effect, Reply};

use super::{Arity, Command, CommandError, Family, Flag, Outcome, Run, arguments::is};
use crate::keyspace::Tx;

/// A row of this family.
const ROW: Command = Command { family: Family::Server, ..Command::BASE };

/// A row that removes all keys.
const FLUSH: Command = Command {
    arity: Arity::AtLeast(1),
    flags: &[Flag::Dangerous],
    categories: &[Family::Generic],
    run: Run::Write(flush),
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    ..ROW
};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "dbsize",
        arity: Arity::Exactly(1),
        flags: &[Flag::Fast],
        categories: &[Family::Generic],
        run: Run::Read(dbsize),
        tips: &["request_policy:all_shards", "response_policy:agg_sum"],
        ..ROW
    },
    Command { name: "flushall", ..FLUSH },
    Command { name: "flushdb", ..FLUSH },
    Command {
        name: "swapdb",
        arity: Arity::Exactly(3),
        flags: &[Flag::Fast, Flag::Dangerous],
        categories: &[Family::Generic],
        run: Run::Write(|_, _| Err(CommandError::text("ERR SWAPDB is not allowed in cluster mode"))),
        ..ROW
    },
    Command {
        name: "time",
        arity: Arity::Exactly(1),
        flags: &[Flag::Stale, Flag::Fast],
        run: Run::Read(time),
        tips: &["nondeterministic_output"],
        ..ROW
    },
];

/// `DBSIZE`: as in Redis, keys count until they have been removed.
fn dbsize<'a>(tx: &'a Tx, _words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(tx.whole().len()))
}

/// `FLUSHALL [ASYNC | SYNC]`, `FLUSHDB [ASYNC | SYNC]`
///
/// The keys go in one step and are freed when that is committed, whichever was
/// asked.
fn flush<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    match words {
        [_] => {}
        [_, how] if is(how, "async") || is(how, "sync") => {}
        _ => return Err(CommandError::Syntax),
    }

    let keyspace = tx.whole();
    let mut ranges = keyspace.owned().ranges();
    ranges.retain(|&(first, last)| (first..=last).any(|slot| keyspace.slot_len(slot) > 0));

    for (first, last) in ranges {
        tx.emit(Effect::ClearSlots { first, last });
    }
    tx.touch_all(); // as in Redis, whether or not there was anything
    Ok(Reply::OK)
}

/// `TIME`: seconds, and microseconds of the next one.
fn time<'a>(tx: &'a Tx, _words: &[&'a [u8]]) -> Outcome<'a> {
    /// Microseconds of a second.
    const SECOND: u64 = 1_000_000;
    let now = tx.shown_us();
    Ok(Reply::Array(vec![Reply::text((now / SECOND).to_string()), Reply::text((now % SECOND).to_string())]))
}
