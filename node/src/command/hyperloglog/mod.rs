//! HyperLogLog: about how many different elements were added.
//!
//! A counter is a string, byte by byte as Redis has it (see [`form`]), so `GET`, `SET`, `DUMP` and snapshots know
//! nothing of it. What replicates is bytes of that string: those that an element changed, and those of the estimate
//! that `PFCOUNT` leaves in it, which an older leader's followers would else make anew.
//!
//! At a follower `PFCOUNT` leaves nothing.
//!
//! Source: `hyperloglog.c` of Redis 7.0, for replies, errors and what is written when.

mod estimate;
mod form;
mod hash;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, ops::Range};

use moonraft_proto::{Effect, Reply};
use moonraft_router::Keys;

use self::form::{Corrupted, Ranks};
use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::is,
    key_specs::{KeyFlag, uses},
    work,
};
use crate::keyspace::{Class, Tx};

/// A row of this family.
const ROW: Command = Command { family: Family::HyperLogLog, keys: Keys::ONE, ..Command::BASE };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "pfadd",
        arity: Arity::AtLeast(2),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::ADD],
        run: Run::Write(pfadd),
        ..ROW
    },
    Command {
        name: "pfcount",
        arity: Arity::AtLeast(2),
        keys: Keys::ALL,
        flags: &[Flag::NotesResult],
        key_flags: &[&[KeyFlag::ReadWrite, KeyFlag::Access]],
        run: Run::Write(pfcount),
        work: Some(work::counters),
        ..ROW
    },
    Command {
        name: "pfmerge",
        arity: Arity::AtLeast(2),
        keys: Keys::ALL,
        flags: &[Flag::DenyOom],
        key_flags: &[&[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Insert], uses::READ],
        run: Run::Write(pfmerge),
        work: Some(work::counters),
        ..ROW
    },
    Command {
        name: "pfdebug",
        arity: Arity::Exactly(3),
        keys: Keys::Range { first: 2, last: 2, step: 1 },
        flags: &[Flag::DenyOom, Flag::Admin],
        key_flags: &[&[KeyFlag::ReadWrite, KeyFlag::Access]],
        run: Run::Write(pfdebug),
        ..ROW
    },
    Command {
        name: "pfselftest",
        arity: Arity::Exactly(1),
        keys: Keys::None,
        flags: &[Flag::Admin],
        run: Run::Session(|_, _| self_test()),
        ..ROW
    },
];

const NOT_ONE: CommandError = CommandError::text("WRONGTYPE Key is not a valid HyperLogLog string value.");

impl From<Corrupted> for CommandError {
    fn from(_: Corrupted) -> Self {
        CommandError::text("INVALIDOBJ Corrupted HLL object detected")
    }
}

/// The counter a key holds.
fn counter<'a>(tx: &'a Tx, key: &[u8]) -> Result<Option<&'a [u8]>, CommandError> {
    match tx.string(key)? {
        Some(string) if !form::is_one(string) => Err(NOT_ONE),
        string => Ok(string),
    }
}

/// `PFADD key [element …]`
fn pfadd<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, elements) = (words[1], &words[2..]);
    let before = counter(tx, key)?;
    let mut after = before.map_or_else(|| Cow::Owned(form::empty()), Cow::Borrowed);

    let mut raised = before.is_none();
    for element in elements {
        let (register, rank) = hash::place(element);
        raised |= form::raise(&mut after, register, rank, tx.limits().sparse_bytes_max)?;
    }

    if raised {
        form::forget_estimate(after.to_mut());
        let after = after.into_owned();
        put(tx, key, &after);
        tx.notify(Class::String, "pfadd", key);
    }
    Ok(Reply::flag(raised))
}

/// `PFCOUNT key [key …]`
fn pfcount<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    if let keys @ [_, _, ..] = &words[1..] {
        tx.tell_misses(keys.iter().copied());
        let ranks = union(tx, keys)?.ranks;
        return Ok(Reply::Int(estimate::of(&ranks.histogram()) as i64));
    }
    tx.tell_misses([words[1]]);
    let Some(counter) = counter(tx, words[1])? else { return Ok(Reply::Int(0)) };
    if let Some(estimate) = form::estimate(counter) {
        return Ok(Reply::Int(estimate as i64));
    }

    let estimate = estimate::of(&form::histogram(counter)?);
    if tx.is_leading() {
        let offset = form::ESTIMATE.start as u64;
        tx.emit(Effect::PatchString { key: words[1], offset, bytes: &estimate.to_le_bytes() });
    }
    Ok(Reply::Int(estimate as i64))
}

/// What several counters are together.
struct Union {
    ranks: Ranks,
    /// One of them is dense.
    is_dense: bool,
}

fn union(tx: &Tx, keys: &[&[u8]]) -> Result<Union, CommandError> {
    let mut union = Union { ranks: Ranks::default(), is_dense: false };
    for key in keys {
        if let Some(counter) = counter(tx, key)? {
            union.is_dense |= form::is_dense(counter);
            union.ranks.merge(counter)?;
        }
    }
    Ok(union)
}

/// `PFMERGE destination [source …]`
fn pfmerge<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    tx.tell_misses(words[1..].iter().copied());
    let Union { ranks, is_dense } = union(tx, &words[1..])?;
    let key = words[1];
    let mut after = counter(tx, key)?.map_or_else(|| Cow::Owned(form::empty()), Cow::Borrowed);
    if is_dense && !form::is_dense(&after) {
        after = Cow::Owned(form::dense(&after)?);
    }
    for (register, rank) in ranks.raised() {
        form::raise(&mut after, register, rank, tx.limits().sparse_bytes_max)?;
    }

    form::forget_estimate(after.to_mut());
    let after = after.into_owned();
    put(tx, key, &after);
    tx.notify(Class::String, "pfadd", key);
    Ok(Reply::OK)
}

/// Makes `key` hold this counter: by the bytes that differ, if they are fewer than all. It is another than before, or
/// is taken for it by those who watch.
fn put(tx: &mut Tx, key: &[u8], after: &[u8]) {
    /// Bytes of an effect beside its text, about.
    const EFFECT_BYTES: usize = 8;
    let (before, expires_at) = match tx.object(key) {
        Some(object) => (tx.string(key).ok().flatten(), object.deadline()),
        None => (None, None),
    };
    let changed = before.filter(|before| before.len() <= after.len()).map(|before| changes(before, after));
    let cost: Option<usize> =
        changed.as_ref().map(|changed| changed.iter().map(|range| range.len() + EFFECT_BYTES).sum());
    match changed {
        Some(changed) if changed.is_empty() => tx.touch(key),
        Some(changed) if cost.is_some_and(|cost| cost < after.len()) => {
            for range in changed {
                tx.emit(Effect::PatchString { key, offset: range.start as u64, bytes: &after[range] });
            }
        }
        _ => tx.emit(Effect::PutString { key, value: after, expires_at }),
    }
}

/// Where `after` differs from `before`, which is not longer: places near to each other are one.
fn changes(before: &[u8], after: &[u8]) -> Vec<Range<usize>> {
    /// So many equal bytes cost less than another effect.
    const NEAR: usize = 8;
    let mut changes: Vec<Range<usize>> = Vec::new();
    let differ = (0..after.len()).filter(|&at| before.get(at) != Some(&after[at]));
    for at in differ {
        match changes.last_mut() {
            Some(last) if at <= last.end + NEAR => last.end = at + 1,
            _ => changes.push(at..at + 1),
        }
    }
    changes
}

/// `PFDEBUG GETREG | DECODE | ENCODING | TODENSE key`
fn pfdebug<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (what, key) = (words[1], words[2]);
    let Some(counter) = counter(tx, key)? else {
        return Err(CommandError::text("ERR The specified key does not exist"));
    };
    let is_dense = form::is_dense(counter);
    let dense = |counter: &[u8]| if is_dense { Ok(None) } else { form::dense(counter).map(Some) };
    match () {
        () if is(what, "getreg") => {
            let mut ranks = Ranks::default();
            ranks.merge(counter)?;
            if let Some(dense) = dense(counter)? {
                put(tx, key, &dense);
            }
            Ok(Reply::Array(ranks.iter().map(|rank| Reply::Int(rank.into())).collect()))
        }
        () if is(what, "decode") && is_dense => Err(CommandError::text("ERR HLL encoding is not sparse")),
        () if is(what, "decode") => Ok(Reply::text(form::runs_told(counter))),
        () if is(what, "encoding") => Ok(Reply::status(if is_dense { "dense" } else { "sparse" })),
        () if is(what, "todense") => {
            if let Some(dense) = dense(counter)? {
                put(tx, key, &dense);
            }
            Ok(Reply::flag(!is_dense))
        }
        () => Err(CommandError::about("ERR Unknown PFDEBUG subcommand '", what, "'")),
    }
}

/// `PFSELFTEST`: the estimate of some elements, in both forms, and the registers of both, are what they must be.
fn self_test() -> Outcome<'static> {
    /// More than the sparse form holds with the usual bound.
    const ELEMENTS: u32 = 4000;
    const ERROR_MAX: f64 = 0.05;
    const FAILED: CommandError = CommandError::text("ERR TESTFAILED the forms of a HyperLogLog differ");
    let (mut dense, mut sparse) = (Cow::Owned(form::dense(&form::empty())?), Cow::Owned(form::empty()));
    for number in 0..ELEMENTS {
        let (register, rank) = hash::place(&number.to_le_bytes());
        form::raise(&mut dense, register, rank, 0)?;
        form::raise(&mut sparse, register, rank, usize::MAX)?;
    }
    let histogram = form::histogram(&dense)?;
    let error = (estimate::of(&histogram) as f64 / f64::from(ELEMENTS) - 1.0).abs();
    match histogram == form::histogram(&sparse)? && error < ERROR_MAX {
        true => Ok(Reply::OK),
        false => Err(FAILED),
    }
}
