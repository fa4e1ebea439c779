//! Commands that wait until something comes to their keys.
//!
//! Each is what its plain form is, where there is something. Where there is nothing it says for what it would wait
//! ([`Tx::wait_for`]) and answers what stands in a block or a script, where nothing waits: the shard keeps the request, and
//! executes it again when something has come. When its time is over the answer is a null array, whatever the command.

use std::ops::Range;

use moonraft_proto::Reply;
use moonraft_router::Keys;

use super::{
    Arity, Command, Family, Flag, Outcome, Run,
    arguments::timeout_ms,
    key_specs::uses,
    list::{self, pop_any, pop_some, popping, shift},
    work,
    zset::pop as sorted,
};
use crate::keyspace::{Awaited, Tx, Wish};

/// Keys, and behind them the time to wait.
const KEYS: Keys = Keys::Range { first: 1, last: -2, step: 1 };
/// Behind the time a count and so many keys.
const COUNTED: Keys = Keys::Counted { count: 2, also: None };

/// A row on lists.
const LIST: Command = Command {
    family: Family::List,
    arity: Arity::AtLeast(3),
    keys: KEYS,
    flags: &[Flag::NoScript, Flag::Blocking],
    key_flags: &[uses::MOVE],
    ..Command::BASE
};
/// A row on an element that moves from one list to another.
const MOVE: Command = Command {
    keys: Keys::TWO,
    flags: &[Flag::DenyOom, Flag::NoScript, Flag::Blocking],
    key_flags: &[uses::MOVE, uses::ADD],
    ..LIST
};
/// A row on sorted sets.
const SORTED: Command =
    Command { family: Family::SortedSet, flags: &[Flag::NoScript, Flag::Blocking, Flag::Fast], ..LIST };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "blmove", arity: Arity::Exactly(6), run: Run::Write(blmove), ..MOVE },
    Command {
        name: "blmpop",
        arity: Arity::AtLeast(5),
        keys: COUNTED,
        flags: &[Flag::Blocking],
        run: Run::Write(blmpop),
        work: Some(work::popped),
        ..LIST
    },
    Command { name: "blpop", run: Run::Write(|tx, words| pop(tx, words, list::End::Head)), ..LIST },
    Command { name: "brpop", run: Run::Write(|tx, words| pop(tx, words, list::End::Tail)), ..LIST },
    Command { name: "brpoplpush", arity: Arity::Exactly(4), run: Run::Write(brpoplpush), ..MOVE },
    Command {
        name: "bzmpop",
        arity: Arity::AtLeast(5),
        keys: COUNTED,
        flags: &[Flag::Blocking],
        run: Run::Write(bzmpop),
        work: Some(work::popped),
        ..SORTED
    },
    Command {
        name: "bzpopmax",
        run: Run::Write(|tx, words| bzpop(tx, words, sorted::End::Greatest)),
        ..SORTED
    },
    Command { name: "bzpopmin", run: Run::Write(|tx, words| bzpop(tx, words, sorted::End::Least)), ..SORTED },
];

/// Waits until one of the keys, which are words of the request, holds this.
fn wait(tx: &Tx, awaited: Awaited, keys: Range<usize>, timeout_ms: u64) {
    tx.wait_for(Wish { awaited, keys, timeout_ms, words: Vec::new() });
}

// ---- lists -----------------------------------------------------------------------

/// `BLPOP key [key …] timeout`, `BRPOP …`
fn pop<'a>(tx: &mut Tx, words: &[&'a [u8]], from: list::End) -> Outcome<'a> {
    let keys = 1..words.len() - 1;
    let timeout_ms = timeout_ms(tx, words[keys.end])?;
    let Some(key) = pop_any(tx, &words[keys.clone()])? else {
        wait(tx, Awaited::List, keys, timeout_ms);
        return Ok(Reply::NullArray);
    };

    let mut popped = pop_some(tx, key, from, 1)?;
    popped.insert(0, Reply::bulk(key));
    Ok(Reply::Array(popped))
}

/// `BLMPOP timeout numkeys key [key …] LEFT | RIGHT [COUNT count]`
fn blmpop<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key_count = popping(&words[2..], list::end)?.keys.len();
    let timeout_ms = timeout_ms(tx, words[1])?;

    let outcome = list::lmpop(tx, &words[1..])?;
    if outcome == Reply::NullArray {
        wait(tx, Awaited::List, 3..3 + key_count, timeout_ms);
    }
    Ok(outcome)
}

/// `BLMOVE source destination LEFT | RIGHT LEFT | RIGHT timeout`
fn blmove<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (from, to) = (list::end(words[3])?, list::end(words[4])?);
    move_one(tx, words, from, to)
}

/// `BRPOPLPUSH source destination timeout`
fn brpoplpush<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    move_one(tx, words, list::End::Tail, list::End::Head)
}

fn move_one<'a>(tx: &mut Tx, words: &[&'a [u8]], from: list::End, to: list::End) -> Outcome<'a> {
    let timeout_ms = timeout_ms(tx, words[words.len() - 1])?;
    let moved = shift(tx, words[1], words[2], from, to)?;
    if moved.is_none() {
        wait(tx, Awaited::List, 1..2, timeout_ms);
    }
    Ok(moved.unwrap_or(Reply::Null))
}

// ---- sorted sets -----------------------------------------------------------------

/// `BZPOPMIN key [key …] timeout`, `BZPOPMAX …`
fn bzpop<'a>(tx: &mut Tx, words: &[&'a [u8]], from: sorted::End) -> Outcome<'a> {
    let keys = 1..words.len() - 1;
    let timeout_ms = timeout_ms(tx, words[keys.end])?;
    let Some(key) = sorted::pop_any(tx, &words[keys.clone()])? else {
        wait(tx, Awaited::SortedSet, keys, timeout_ms);
        return Ok(Reply::NullArray);
    };

    let popped = sorted::pop_some(tx, key, from, 1)?;
    let popped = popped.into_iter().flat_map(|(member, score)| [member, score]);
    Ok(Reply::Array(std::iter::once(Reply::bulk(key)).chain(popped).collect()))
}

/// `BZMPOP timeout numkeys key [key …] MIN | MAX [COUNT count]`
fn bzmpop<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key_count = popping(&words[2..], sorted::end)?.keys.len();
    let timeout_ms = timeout_ms(tx, words[1])?;

    let outcome = sorted::zmpop(tx, &words[1..])?;
    if outcome == Reply::NullArray {
        wait(tx, Awaited::SortedSet, 3..3 + key_count, timeout_ms);
    }
    Ok(outcome)
}
