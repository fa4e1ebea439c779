//! Lists.
//!
//! What the blocking forms do when an element is there is in functions of their
//! own ([`pop_any`], [`pop_some`], [`shift`]): in `MULTI` and in scripts they are all
//! there is to them.

use moonraft_proto::{Effect, Reply};
use moonraft_router::Keys;

use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{count_or, integer, is, room_for, signed_count, span},
    key_specs::uses,
    work,
};
use crate::keyspace::{Class, List, Tx};

/// A row of this family.
const ROW: Command = Command { family: Family::List, keys: Keys::ONE, ..Command::BASE };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "lindex", arity: Arity::Exactly(3), run: Run::Read(lindex), ..ROW },
    Command {
        name: "linsert",
        arity: Arity::Exactly(5),
        flags: &[Flag::DenyOom],
        key_flags: &[uses::ADD],
        run: Run::Write(linsert),
        work: Some(work::passed),
        ..ROW
    },
    Command {
        name: "llen",
        arity: Arity::Exactly(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::LOOK],
        run: Run::Read(llen),
        ..ROW
    },
    Command {
        name: "lmove",
        arity: Arity::Exactly(5),
        keys: Keys::TWO,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::MOVE, uses::ADD],
        run: Run::Write(lmove),
        ..ROW
    },
    Command {
        name: "lmpop",
        arity: Arity::AtLeast(4),
        keys: Keys::Counted { count: 1, also: None },
        key_flags: &[uses::MOVE],
        run: Run::Write(lmpop),
        work: Some(work::popped),
        ..ROW
    },
    Command {
        name: "lpop",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::MOVE],
        run: Run::Write(lpop),
        work: Some(work::counted),
        ..ROW
    },
    Command { name: "lpos", arity: Arity::AtLeast(3), run: Run::Read(lpos), work: Some(work::passed), ..ROW },
    Command {
        name: "lpush",
        arity: Arity::AtLeast(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::ADD],
        run: Run::Write(lpush),
        ..ROW
    },
    Command {
        name: "lpushx",
        arity: Arity::AtLeast(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::ADD],
        run: Run::Write(lpushx),
        ..ROW
    },
    Command {
        name: "lrange",
        arity: Arity::Exactly(4),
        run: Run::Read(lrange),
        work: Some(work::spanned),
        ..ROW
    },
    Command {
        name: "lrem",
        arity: Arity::Exactly(4),
        key_flags: &[uses::TAKE],
        run: Run::Write(lrem),
        work: Some(work::passed),
        ..ROW
    },
    Command {
        name: "lset",
        arity: Arity::Exactly(4),
        flags: &[Flag::DenyOom],
        key_flags: &[uses::UPDATE],
        run: Run::Write(lset),
        ..ROW
    },
    Command {
        name: "ltrim",
        arity: Arity::Exactly(4),
        key_flags: &[uses::TAKE],
        run: Run::Write(ltrim),
        work: Some(work::trimmed),
        ..ROW
    },
    Command {
        name: "rpop",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::MOVE],
        run: Run::Write(rpop),
        work: Some(work::counted),
        ..ROW
    },
    Command {
        name: "rpoplpush",
        arity: Arity::Exactly(3),
        keys: Keys::TWO,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::MOVE, uses::ADD],
        run: Run::Write(rpoplpush),
        ..ROW
    },
    Command {
        name: "rpush",
        arity: Arity::AtLeast(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::ADD],
        run: Run::Write(rpush),
        ..ROW
    },
    Command {
        name: "rpushx",
        arity: Arity::AtLeast(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::ADD],
        run: Run::Write(rpushx),
        ..ROW
    },
];

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The first element's: `LEFT`.
    Head,
    /// The last element's: `RIGHT`.
    Tail,
}

impl End {
    /// The event of an element put in at this end.
    const fn pushed(self) -> &'static str {
        match self {
            End::Head => "lpush",
            End::Tail => "rpush",
        }
    }

    /// The event of an element taken from this end.
    const fn popped(self) -> &'static str {
        match self {
            End::Head => "lpop",
            End::Tail => "rpop",
        }
    }
}

/// `LEFT` or `RIGHT`.
pub(super) fn end(word: &[u8]) -> Result<End, CommandError> {
    match () {
        () if is(word, "left") => Ok(End::Head),
        () if is(word, "right") => Ok(End::Tail),
        () => Err(CommandError::Syntax),
    }
}

fn owned(element: &[u8]) -> Reply<'static> {
    Reply::bulk(element.to_vec())
}

/// The position that `index` names, if it is there: from the end if negative.
fn position(index: i64, length: usize) -> Option<usize> {
    let from_start = if index < 0 { index.checked_add(length as i64)? } else { index };
    usize::try_from(from_start).ok().filter(|&position| position < length)
}

// ---- pushing ---------------------------------------------------------------

/// `LPUSH key element…`
fn lpush<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    push(tx, words, End::Head, true)
}

/// `RPUSH key element…`
fn rpush<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    push(tx, words, End::Tail, true)
}

/// `LPUSHX key element…`
fn lpushx<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    push(tx, words, End::Head, false)
}

/// `RPUSHX key element…`
fn rpushx<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    push(tx, words, End::Tail, false)
}

fn push<'a>(tx: &mut Tx, words: &[&'a [u8]], at: End, create: bool) -> Outcome<'a> {
    let (key, elements) = (words[1], &words[2..]);
    let length = match tx.list(key)? {
        None if !create => return Ok(Reply::Int(0)),
        list => list.map_or(0, List::len),
    };

    for (offset, value) in elements.iter().enumerate() {
        let index = if at == End::Head { 0 } else { length + offset };
        tx.emit(Effect::ListInsert { key, index: index as u64, value });
    }
    tx.notify(Class::List, at.pushed(), key);
    Ok(Reply::count(length + elements.len()))
}

/// `LINSERT key BEFORE | AFTER pivot element`
fn linsert<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, pivot, value) = (words[1], words[3], words[4]);
    let behind = match () {
        () if is(words[2], "before") => 0,
        () if is(words[2], "after") => 1,
        () => return Err(CommandError::Syntax),
    };
    let Some(list) = tx.list(key)? else { return Ok(Reply::Int(0)) };
    let length = list.len();
    let Some(at) = list.iter().position(|element| element == pivot) else { return Ok(Reply::Int(-1)) };

    tx.emit(Effect::ListInsert { key, index: (at + behind) as u64, value });
    tx.notify(Class::List, "linsert", key);
    Ok(Reply::count(length + 1))
}

// ---- popping ---------------------------------------------------------------

/// `LPOP key [count]`
fn lpop<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    pop(tx, words, End::Head, "lpop")
}

/// `RPOP key [count]`
fn rpop<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    pop(tx, words, End::Tail, "rpop")
}

fn pop<'a>(tx: &mut Tx, words: &[&'a [u8]], from: End, name: &'static str) -> Outcome<'a> {
    let key = words[1];
    let count = match words {
        [_, _] => None,
        [_, _, count] => Some(count_or(count, "ERR value is out of range, must be positive")?),
        _ => return Err(CommandError::Arity(name.into())),
    };
    let there = tx.list(key)?.is_some();

    Ok(match count {
        None if there => pop_some(tx, key, from, 1)?.swap_remove(0),
        None => Reply::Null,
        Some(count) if there => Reply::Array(pop_some(tx, key, from, count)?),
        Some(_) => Reply::NullArray,
    })
}

/// Takes up to `count` elements from an end, the outermost first. None if there
/// is no list.
pub(super) fn pop_some(
    tx: &mut Tx,
    key: &[u8],
    from: End,
    count: usize,
) -> Result<Vec<Reply<'static>>, CommandError> {
    let Some(list) = tx.list(key)? else { return Ok(Vec::new()) };
    let (length, count) = (list.len(), count.min(list.len()));
    room_for(tx, count)?;
    let (index, popped) = match from {
        End::Head => (0, list.range(0, count).map(owned).collect()),
        End::Tail => (length - count, list.range(length - count, length).rev().map(owned).collect()),
    };

    if count > 0 {
        tx.emit(Effect::ListRemove { key, index: index as u64, count: count as u64 });
        tx.notify_taken(Class::List, from.popped(), key);
    }
    Ok(popped)
}

/// The first of these keys that holds a list.
pub(super) fn pop_any<'a>(tx: &Tx, keys: &[&'a [u8]]) -> Result<Option<&'a [u8]>, CommandError> {
    for key in keys {
        if tx.list(key)?.is_some() {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// `LMPOP numkeys key… LEFT | RIGHT [COUNT count]`
pub(super) fn lmpop<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let Popping { keys, side: from, count } = popping(&words[1..], end)?;
    let Some(key) = pop_any(tx, keys)? else { return Ok(Reply::NullArray) };

    let popped = pop_some(tx, key, from, count)?;
    Ok(Reply::Array(vec![Reply::bulk(key), Reply::Array(popped)]))
}

/// What `LMPOP` and `ZMPOP` have in common.
pub(super) struct Popping<'w, 'a, S> {
    /// The keys to look at, in this order.
    pub keys: &'w [&'a [u8]],
    /// Which end to take from.
    pub side: S,
    /// How many to take, at least 1.
    pub count: usize,
}

/// `numkeys key… side [COUNT count]`
pub(super) fn popping<'w, 'a, S>(
    words: &'w [&'a [u8]],
    side: fn(&[u8]) -> Result<S, CommandError>,
) -> Result<Popping<'w, 'a, S>, CommandError> {
    let key_count = positive(words[0], "ERR numkeys should be greater than 0")?;
    let (keys, rest) = words[1..].split_at_checked(key_count).ok_or(CommandError::Syntax)?;
    let (word, options) = rest.split_first().ok_or(CommandError::Syntax)?;
    let side = side(word)?;
    let count = match options {
        [] => 1,
        [option, count, rest @ ..] if is(option, "count") => {
            let count = positive(count, "ERR count should be greater than 0")?;
            if rest.is_empty() { count } else { return Err(CommandError::Syntax) }
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok(Popping { keys, side, count })
}

/// An integer above 0; `refusal` says that it is none.
fn positive(word: &[u8], refusal: &'static str) -> Result<usize, CommandError> {
    let count = count_or(word, refusal)?;
    if count == 0 { Err(CommandError::text(refusal)) } else { Ok(count) }
}

// ---- moving ----------------------------------------------------------------

/// `LMOVE source destination LEFT | RIGHT LEFT | RIGHT`
fn lmove<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (from, to) = (end(words[3])?, end(words[4])?);
    Ok(shift(tx, words[1], words[2], from, to)?.unwrap_or(Reply::Null))
}

/// `RPOPLPUSH source destination`
fn rpoplpush<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(shift(tx, words[1], words[2], End::Tail, End::Head)?.unwrap_or(Reply::Null))
}

/// Moves an element from an end of `source` to an end of `destination`, which
/// may be the same list. `None` if there is none.
pub(super) fn shift(
    tx: &mut Tx,
    source: &[u8],
    destination: &[u8],
    from: End,
    to: End,
) -> Result<Option<Reply<'static>>, CommandError> {
    let Some(list) = tx.list(source)? else { return Ok(None) };
    let length = list.len();
    let taken = if from == End::Head { 0 } else { length - 1 };
    let element = list.get(taken).expect("a list is never empty").to_vec();
    let onto = match tx.list(destination)? {
        Some(_) if source == destination => length - 1,
        list => list.map_or(0, List::len),
    };
    let put = if to == End::Head { 0 } else { onto };

    // Where nothing changes, a list of one would be gone for a moment, and its
    // deadline for good.
    tx.touch(destination);
    tx.touch(source);
    if source != destination || taken != put {
        tx.emit(Effect::ListRemove { key: source, index: taken as u64, count: 1 });
        tx.emit(Effect::ListInsert { key: destination, index: put as u64, value: &element });
    }
    tx.notify(Class::List, to.pushed(), destination);
    tx.notify_taken(Class::List, from.popped(), source);
    Ok(Some(Reply::bulk(element)))
}

// ---- looking ---------------------------------------------------------------

/// `LLEN key`
fn llen<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(tx.list(words[1])?.map_or(0, List::len)))
}

/// `LINDEX key index`
fn lindex<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let Some(list) = tx.list(words[1])? else { return Ok(Reply::Null) };
    let index = integer(words[2])?;
    Ok(Reply::bulk_or_null(position(index, list.len()).and_then(|at| list.get(at))))
}

/// `LRANGE key start stop`
fn lrange<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (start, stop) = (integer(words[2])?, integer(words[3])?);
    let Some(list) = tx.list(words[1])? else { return Ok(Reply::Array(Vec::new())) };
    let span = span(start, stop, list.len());
    room_for(tx, span.len())?;
    Ok(Reply::bulks(list.range(span.start, span.end)))
}

struct PositionOptions {
    /// Which match comes first; from the end if negative, never 0.
    rank: i64,
    /// Positions wanted, 0 for all; one, and not as an array, if `None`.
    count: Option<usize>,
    /// Elements looked at, at most.
    length_max: usize,
}

/// `LPOS key element [RANK rank] [COUNT count] [MAXLEN length]`
fn lpos<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, wanted) = (words[1], words[2]);
    let PositionOptions { rank, count, length_max } = position_options(&words[3..])?;
    let list = tx.list(key)?;

    let length = list.map_or(0, List::len);
    let looked_at = length.min(length_max);
    let skipped = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let limit = match count {
        None => 1,
        Some(0) => usize::MAX,
        Some(count) => count,
    };
    let found: Vec<usize> = match list {
        None => Vec::new(),
        Some(list) if rank > 0 => {
            let matches = list.range(0, looked_at).enumerate().filter(|(_, element)| *element == wanted);
            matches.skip(skipped).take(limit).map(|(at, _)| at).collect()
        }
        Some(list) => {
            let elements = list.range(length - looked_at, length).rev().enumerate();
            let matches = elements.filter(|(_, element)| *element == wanted);
            matches.skip(skipped).take(limit).map(|(at, _)| length - 1 - at).collect()
        }
    };

    Ok(match count {
        None => found.first().map_or(Reply::Null, |&at| Reply::count(at)),
        Some(_) => Reply::Array(found.into_iter().map(Reply::count).collect()),
    })
}

fn position_options(words: &[&[u8]]) -> Result<PositionOptions, CommandError> {
    const RANK_ZERO: CommandError = CommandError::text(
        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
    );
    let mut options = PositionOptions { rank: 1, count: None, length_max: usize::MAX };
    for pair in words.chunks(2) {
        let &[option, value] = pair else { return Err(CommandError::Syntax) };
        if is(option, "rank") {
            options.rank = signed_count(value)?;
            if options.rank == 0 {
                return Err(RANK_ZERO);
            }
        } else if is(option, "count") {
            options.count = Some(count_or(value, "ERR COUNT can't be negative")?);
        } else if is(option, "maxlen") {
            let length = count_or(value, "ERR MAXLEN can't be negative")?;
            options.length_max = if length == 0 { usize::MAX } else { length };
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(options)
}

// ---- changing in place -----------------------------------------------------

/// `LSET key index element`
fn lset<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, value) = (words[1], words[3]);
    let length = tx.list(key)?.ok_or(CommandError::NoSuchKey)?.len();
    let at = position(integer(words[2])?, length).ok_or(CommandError::IndexOutOfRange)?;

    tx.emit(Effect::ListSet { key, index: at as u64, value });
    tx.notify(Class::List, "lset", key);
    Ok(Reply::OK)
}

/// `LTRIM key start stop`
fn ltrim<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, start, stop) = (words[1], integer(words[2])?, integer(words[3])?);
    let Some(list) = tx.list(key)? else { return Ok(Reply::OK) };
    let length = list.len();
    let kept = span(start, stop, length);

    if kept.is_empty() {
        tx.emit(Effect::Remove { key });
        tx.notify_taken(Class::List, "ltrim", key);
        return Ok(Reply::OK);
    }
    tx.touch(key);
    let (before, behind) = (kept.start as u64, (length - kept.end) as u64);
    if behind > 0 {
        tx.emit(Effect::ListRemove { key, index: kept.end as u64, count: behind });
    }
    if before > 0 {
        tx.emit(Effect::ListRemove { key, index: 0, count: before });
    }
    tx.notify(Class::List, "ltrim", key);
    Ok(Reply::OK)
}

/// `LREM key count element`
fn lrem<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, count, wanted) = (words[1], integer(words[2])?, words[3]);
    let Some(list) = tx.list(key)? else { return Ok(Reply::Int(0)) };
    let limit = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
    let matches = |(_, element): &(usize, &[u8])| *element == wanted;
    // Last first: taking one out moves none of those still to be taken.
    let mut found: Vec<usize> = if count < 0 {
        list.iter().enumerate().rev().filter(matches).take(limit).map(|(at, _)| at).collect()
    } else {
        list.iter().enumerate().filter(matches).take(limit).map(|(at, _)| at).collect()
    };
    if count >= 0 {
        found.reverse();
    }

    if is_cheaper_anew(&found, list.len()) {
        rebuild_without(tx, key, &found)?;
    } else {
        for run in found.chunk_by(|behind, before| before + 1 == *behind) {
            let index = *run.last().expect("a run has an element") as u64;
            tx.emit(Effect::ListRemove { key, index, count: run.len() as u64 });
        }
    }
    if !found.is_empty() {
        tx.notify_taken(Class::List, "lrem", key);
    }
    Ok(Reply::count(found.len()))
}

/// Whether so many elements go that taking each out, which moves all between it
/// and the nearer end, costs more than making the list anew.
fn is_cheaper_anew(found: &[usize], length: usize) -> bool {
    /// What putting an element in costs, as effect, log and undo, in elements moved.
    const COST: usize = 100;
    let runs = found.chunk_by(|behind, before| before + 1 == *behind);
    let moved: usize = runs.map(|run| run[0].min(length - run[0])).sum();
    moved > COST * (length - found.len())
}

/// Makes the list anew without the elements at `found`, last first.
fn rebuild_without(tx: &mut Tx, key: &[u8], found: &[usize]) -> Result<(), CommandError> {
    let expires_at = tx.deadline(key);
    let Some(list) = tx.list(key)? else { return Ok(()) };
    let mut gone = found.iter().rev().copied().peekable();
    let kept = list.iter().enumerate().filter(|(at, _)| gone.next_if_eq(at).is_none());
    let kept: Vec<Vec<u8>> = kept.map(|(_, element)| element.to_vec()).collect();

    tx.emit(Effect::Remove { key });
    for (index, value) in kept.iter().enumerate() {
        tx.emit(Effect::ListInsert { key, index: index as u64, value });
    }
    if expires_at.is_some() && !kept.is_empty() {
        tx.emit(Effect::SetExpiry { key, expires_at });
    }
    Ok(())
}
