//! Taking members from the ends of the order.
//!
//! What the blocking forms do when a member is there is in [`pop_some`] and
//! [`pop_any`].

use moonraft_proto::{Effect, Reply};

use super::super::{
    CommandError, Outcome,
    arguments::{count_or, is, room_for},
    list::{Popping, popping},
};
use crate::keyspace::{Class, Tx};

/// An end of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The lowest score's.
    Least,
    /// The highest score's.
    Greatest,
}

/// `MIN` or `MAX`.
pub fn end(word: &[u8]) -> Result<End, CommandError> {
    match () {
        () if is(word, "min") => Ok(End::Least),
        () if is(word, "max") => Ok(End::Greatest),
        () => Err(CommandError::Syntax),
    }
}

/// `ZPOPMIN key [count]`
pub fn zpopmin<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    pop(tx, words, End::Least)
}

/// `ZPOPMAX key [count]`
pub fn zpopmax<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    pop(tx, words, End::Greatest)
}

fn pop<'a>(tx: &mut Tx, words: &[&'a [u8]], from: End) -> Outcome<'a> {
    let count = match words {
        [_, _] => None,
        [_, _, count] => Some(count_or(count, "ERR value is out of range, must be positive")?),
        _ => return Err(CommandError::Syntax),
    };

    let popped = pop_some(tx, words[1], from, count.unwrap_or(1))?;
    Ok(match count {
        Some(_) => Reply::Pairs(popped),
        // One member and its score are not nested, whatever the protocol.
        None => Reply::Array(popped.into_iter().flat_map(|(member, score)| [member, score]).collect()),
    })
}

/// Takes up to `count` members with scores from an end, the outermost first.
/// None if there is no sorted set.
pub fn pop_some(
    tx: &mut Tx,
    key: &[u8],
    from: End,
    count: usize,
) -> Result<Vec<(Reply<'static>, Reply<'static>)>, CommandError> {
    let Some(sorted) = tx.sorted(key)? else { return Ok(Vec::new()) };
    let (length, count) = (sorted.len(), count.min(sorted.len()));
    room_for(tx, count.saturating_mul(2))?;
    let popped: Vec<(Vec<u8>, f64)> = match from {
        End::Least => sorted.range(0, count).map(|(member, score)| (member.to_vec(), score)).collect(),
        End::Greatest => {
            let last = sorted.range(length - count, length).rev();
            last.map(|(member, score)| (member.to_vec(), score)).collect()
        }
    };

    if count > 0 && count == length {
        tx.emit(Effect::Remove { key });
    } else {
        popped.iter().for_each(|(member, _)| tx.emit(Effect::SortedRemove { key, member }));
    }
    if count > 0 {
        tx.notify_taken(Class::Sorted, if from == End::Least { "zpopmin" } else { "zpopmax" }, key);
    }
    Ok(popped.into_iter().map(|(member, score)| (Reply::bulk(member), Reply::Double(score))).collect())
}

/// The first of these keys that holds a sorted set.
pub fn pop_any<'a>(tx: &Tx, keys: &[&'a [u8]]) -> Result<Option<&'a [u8]>, CommandError> {
    for key in keys {
        if tx.sorted(key)?.is_some() {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// `ZMPOP numkeys key… MIN | MAX [COUNT count]`
pub fn zmpop<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let Popping { keys, side: from, count } = popping(&words[1..], end)?;
    let Some(key) = pop_any(tx, keys)? else { return Ok(Reply::NullArray) };

    // Nested in either protocol.
    let popped = pop_some(tx, key, from, count)?.into_iter();
    let pairs = popped.map(|(member, score)| Reply::Array(vec![member, score])).collect();
    Ok(Reply::Array(vec![Reply::bulk(key), Reply::Array(pairs)]))
}
