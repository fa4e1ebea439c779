//! Intersections, unions and differences of sets.

use hashbrown::HashSet;
use moonraft_proto::{Effect, Reply};

use super::super::{
    CommandError, Outcome,
    arguments::{is, parse_integer},
};
use crate::keyspace::{
    Blob, Class, Seed, Set, Tx, WrongType,
    set::{Iter, Member},
};

type Members<'a> = HashSet<Member<'a>, Seed>;

/// The sets that keys hold, in the order of the keys; `None` where a key is not
/// there. All are checked for their type.
fn sets<'a>(tx: &'a Tx, keys: &[&[u8]]) -> Result<Vec<Option<&'a Set>>, WrongType> {
    keys.iter().map(|key| tx.set(key)).collect()
}

/// `SINTER key [key …]`
pub fn sinter<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(reply(intersection(tx, &words[1..])?))
}

/// `SUNION key [key …]`
pub fn sunion<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(reply(union(tx, &words[1..])?))
}

/// `SDIFF key [key …]`
pub fn sdiff<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(reply(difference(tx, &words[1..])?))
}

fn reply<'a>(members: impl Iterator<Item = Member<'a>>) -> Reply<'a> {
    Reply::Set(members.map(Reply::bulk).collect())
}

/// `SINTERSTORE destination key [key …]`
pub fn sinterstore<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    tx.tell_misses(words[2..].iter().copied());
    let members = owned(intersection(tx, &words[2..])?);
    Ok(store(tx, words[1], &members, "sinterstore"))
}

/// `SUNIONSTORE destination key [key …]`
pub fn sunionstore<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    tx.tell_misses(words[2..].iter().copied());
    let members = owned(union(tx, &words[2..])?);
    Ok(store(tx, words[1], &members, "sunionstore"))
}

/// `SDIFFSTORE destination key [key …]`
pub fn sdiffstore<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    tx.tell_misses(words[2..].iter().copied());
    let members = owned(difference(tx, &words[2..])?);
    Ok(store(tx, words[1], &members, "sdiffstore"))
}

/// The destination may be one of the sources, so the result stands by itself
/// before the destination changes.
fn owned<'a>(members: impl Iterator<Item = Member<'a>>) -> Vec<Blob> {
    members.map(|member| Blob::new(&member)).collect()
}

fn store(tx: &mut Tx, key: &[u8], members: &[Blob], event: &str) -> Reply<'static> {
    let was_there = tx.remove(key);
    for member in members {
        tx.emit(Effect::SetAdd { key, member });
    }
    tx.notify_stored(Class::Set, event, key, was_there);
    Reply::count(members.len())
}

/// `SINTERCARD numkeys key [key …] [LIMIT limit]`
pub fn sintercard<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let count = parse_integer(words[1]).and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|&count| count > 0);
    let count = count.ok_or(CommandError::text("ERR numkeys should be greater than 0"))?;
    let (keys, options) = words[2..]
        .split_at_checked(count)
        .ok_or(CommandError::text("ERR Number of keys can't be greater than number of args"))?;
    let limit = limit_option(options)?;

    let members = intersection(tx, keys)?;
    Ok(Reply::count(if limit == 0 { members.count() } else { members.take(limit).count() }))
}

/// `[LIMIT limit]`: 0 for no limit.
pub(in super::super) fn limit_option(options: &[&[u8]]) -> Result<usize, CommandError> {
    let mut limit = 0;
    for option in options.chunks(2) {
        let &[name, value] = option else { return Err(CommandError::Syntax) };
        if !is(name, "limit") {
            return Err(CommandError::Syntax);
        }
        let number = parse_integer(value).and_then(|number| usize::try_from(number).ok());
        limit = number.ok_or(CommandError::text("ERR LIMIT can't be negative"))?;
    }
    Ok(limit)
}

/// Members that all sets have: those of the smallest, looked up in the others,
/// small ones first.
fn intersection<'a>(
    tx: &'a Tx,
    keys: &[&[u8]],
) -> Result<impl Iterator<Item = Member<'a>> + use<'a>, CommandError> {
    let all: Option<Vec<&Set>> = sets(tx, keys)?.into_iter().collect();
    let mut sets = all.unwrap_or_default();
    sets.sort_by_key(|set| set.len());
    let smallest: Option<Iter<'a>> = sets.first().map(|set| set.iter());
    let others = sets.split_off(sets.len().min(1));
    Ok(smallest.into_iter().flatten().filter(move |member| others.iter().all(|set| set.contains(member))))
}

/// Members that any set has, each where it is met first.
fn union<'a>(tx: &'a Tx, keys: &[&[u8]]) -> Result<impl Iterator<Item = Member<'a>> + use<'a>, CommandError> {
    let sets: Vec<&Set> = sets(tx, keys)?.into_iter().flatten().collect();
    let alone = sets.len() < 2;
    let mut seen = Members::default();
    Ok(sets.into_iter().flat_map(Set::iter).filter(move |member| alone || seen.insert(*member)))
}

/// Members of the first set that no other has.
///
/// Each is looked up in the others; or the others are united first, if the
/// first set is so large that this costs less.
fn difference<'a>(
    tx: &'a Tx,
    keys: &[&[u8]],
) -> Result<impl Iterator<Item = Member<'a>> + use<'a>, CommandError> {
    let mut sets = sets(tx, keys)?.into_iter();
    let first = sets.next().flatten();
    let mut others: Vec<&Set> = sets.flatten().collect();
    let lookups = first.map_or(0, |set| set.len()).saturating_mul(others.len());
    let united: usize = others.iter().map(|set| set.len()).sum();
    // To put a member into a table costs about twice as much as to look it up.
    let excluded: Option<Members<'a>> = (lookups / 2 > united.saturating_add(first.map_or(0, Set::len)))
        .then(|| others.drain(..).flat_map(Set::iter).collect());
    // The largest is the likeliest to have it.
    others.sort_by_key(|set| std::cmp::Reverse(set.len()));
    let gone = move |member: &Member<'a>| match &excluded {
        Some(excluded) => excluded.contains(member),
        None => others.iter().any(|set| set.contains(member)),
    };
    Ok(first.into_iter().flat_map(Set::iter).filter(move |member| !gone(member)))
}
