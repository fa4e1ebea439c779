//! Sets.

mod algebra;
mod draw;

use moonraft_proto::{Effect, Reply};
use moonraft_router::Keys;

use super::{
    Arity, Command, Family, Flag, Outcome, Run,
    arguments::room_for,
    generic::{cursor, scan_options, scan_reply},
    key_specs::uses,
    work,
};
use crate::keyspace::{Class, Tx};

/// A row of this family.
const ROW: Command = Command { family: Family::Set, keys: Keys::ONE, ..Command::BASE };

/// A row that combines sets.
const COMBINES: Command = Command { arity: Arity::AtLeast(2), keys: Keys::ALL, tips: UNORDERED, ..ROW };

/// A row that stores a combination of sets.
const STORES: Command = Command {
    arity: Arity::AtLeast(3),
    keys: Keys::ALL,
    flags: &[Flag::DenyOom],
    key_flags: &[uses::STORE, uses::READ],
    ..ROW
};

const UNORDERED: &[&str] = &["nondeterministic_output_order"];
const RANDOM: &[&str] = &["nondeterministic_output"];

/// The commands of this folder.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "sadd",
        arity: Arity::AtLeast(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::ADD],
        run: Run::Write(sadd),
        ..ROW
    },
    Command {
        name: "srem",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        key_flags: &[uses::TAKE],
        run: Run::Write(srem),
        ..ROW
    },
    Command {
        name: "sismember",
        arity: Arity::Exactly(3),
        flags: &[Flag::Fast],
        key_flags: &[uses::LOOK],
        run: Run::Read(sismember),
        ..ROW
    },
    Command {
        name: "smismember",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        run: Run::Read(smismember),
        ..ROW
    },
    Command {
        name: "smembers",
        arity: Arity::Exactly(2),
        run: Run::Read(smembers),
        tips: UNORDERED,
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "scard",
        arity: Arity::Exactly(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::LOOK],
        run: Run::Read(scard),
        ..ROW
    },
    Command {
        name: "spop",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::MOVE],
        run: Run::Write(draw::spop),
        tips: RANDOM,
        work: Some(work::counted),
        ..ROW
    },
    Command {
        name: "srandmember",
        arity: Arity::AtLeast(2),
        run: Run::Read(draw::srandmember),
        tips: RANDOM,
        work: Some(work::counted),
        ..ROW
    },
    Command {
        name: "smove",
        arity: Arity::Exactly(4),
        keys: Keys::TWO,
        flags: &[Flag::Fast],
        key_flags: &[uses::MOVE, uses::ADD],
        run: Run::Write(smove),
        ..ROW
    },
    Command {
        name: "sscan",
        arity: Arity::AtLeast(3),
        run: Run::Read(sscan),
        tips: RANDOM,
        work: Some(work::scanned),
        ..ROW
    },
    Command { name: "sinter", run: Run::Read(algebra::sinter), work: Some(work::smallest), ..COMBINES },
    Command { name: "sunion", run: Run::Read(algebra::sunion), work: Some(work::values), ..COMBINES },
    Command { name: "sdiff", run: Run::Read(algebra::sdiff), work: Some(work::values), ..COMBINES },
    Command {
        name: "sintercard",
        arity: Arity::AtLeast(3),
        keys: Keys::Counted { count: 1, also: None },
        run: Run::Read(algebra::sintercard),
        work: Some(work::smallest),
        ..ROW
    },
    Command {
        name: "sinterstore",
        key_flags: &[uses::UPDATE, uses::READ],
        run: Run::Write(algebra::sinterstore),
        work: Some(work::smallest),
        ..STORES
    },
    Command {
        name: "sunionstore",
        run: Run::Write(algebra::sunionstore),
        work: Some(work::values),
        ..STORES
    },
    Command { name: "sdiffstore", run: Run::Write(algebra::sdiffstore), work: Some(work::values), ..STORES },
];

/// `SADD key member [member …]`
fn sadd<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    tx.set(key)?;

    let mut added = 0;
    for &member in &words[2..] {
        // A member named twice is there the second time.
        if !tx.set(key)?.is_some_and(|set| set.contains(member)) {
            tx.emit(Effect::SetAdd { key, member });
            added += 1;
        }
    }
    if added > 0 {
        tx.notify(Class::Set, "sadd", key);
    }
    Ok(Reply::count(added))
}

/// `SREM key member [member …]`
fn srem<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    tx.set(key)?;

    let mut removed = 0;
    for &member in &words[2..] {
        if tx.set(key)?.is_some_and(|set| set.contains(member)) {
            tx.emit(Effect::SetRemove { key, member });
            removed += 1;
        }
    }
    if removed > 0 {
        tx.notify_taken(Class::Set, "srem", key);
    }
    Ok(Reply::count(removed))
}

/// `SISMEMBER key member`
fn sismember<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::flag(tx.set(words[1])?.is_some_and(|set| set.contains(words[2]))))
}

/// `SMISMEMBER key member [member …]`
fn smismember<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let set = tx.set(words[1])?;
    let is_in = |member: &&[u8]| Reply::flag(set.is_some_and(|set| set.contains(member)));
    Ok(Reply::Array(words[2..].iter().map(is_in).collect()))
}

/// `SMEMBERS key`
fn smembers<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let set = tx.set(words[1])?;
    room_for(tx, set.map_or(0, |set| set.len()))?;
    Ok(Reply::Set(set.into_iter().flat_map(|set| set.iter()).map(Reply::bulk).collect()))
}

/// `SCARD key`
fn scard<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(tx.set(words[1])?.map_or(0, |set| set.len())))
}

/// `SMOVE source destination member`
fn smove<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (source, destination, member) = (words[1], words[2], words[3]);
    let Some(from) = tx.set(source)? else { return Ok(Reply::Int(0)) };
    let there = from.contains(member);
    let already = tx.set(destination)?.is_some_and(|set| set.contains(member));

    if there && source != destination {
        tx.emit(Effect::SetRemove { key: source, member });
        tx.notify_taken(Class::Set, "srem", source);
        if !already {
            tx.emit(Effect::SetAdd { key: destination, member });
            tx.notify(Class::Set, "sadd", destination);
        }
    }
    Ok(Reply::flag(there))
}

/// `SSCAN key cursor [MATCH pattern] [COUNT count]`
fn sscan<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let from = cursor(words[2])?;
    let set = tx.set(words[1])?;
    let Some(set) = set else { return Ok(scan_reply(0, Vec::new())) };
    let options = scan_options(&words[3..], false)?;

    let (members, next) = set.scan(from, options.count);
    let wanted = members.into_iter().filter(|member| options.matches(member));
    Ok(scan_reply(next, wanted.map(Reply::bulk).collect()))
}

#[cfg(test)]
mod tests;
