//! Adding members, changing scores, removing members by name.

use moonraft_proto::{Effect, Reply};

use super::super::{
    CommandError, Outcome,
    arguments::{float, is},
};
use crate::keyspace::{Class, SortedSet, Tx};

const NOT_A_NUMBER: CommandError = CommandError::text("ERR resulting score is not a number (NaN)");

/// How members are added.
#[derive(Clone, Copy, Default)]
pub struct AddOptions {
    /// `NX`
    pub only_new: bool,
    /// `XX`
    pub only_known: bool,
    only_greater: bool,
    only_less: bool,
    /// `CH`
    pub count_changed: bool,
    increment: bool,
}

/// `ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member…`
pub fn zadd<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (options, pairs) = add_options(&words[2..])?;
    add(tx, words[1], options, &parsed(pairs)?)
}

/// `ZINCRBY key increment member`
pub fn zincrby<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let options = AddOptions { increment: true, ..AddOptions::default() };
    add(tx, words[1], options, &parsed(&words[2..])?)
}

/// The options at the start of `words`, and the rest: scores with members.
fn add_options<'w, 'a>(words: &'w [&'a [u8]]) -> Result<(AddOptions, &'w [&'a [u8]]), CommandError> {
    let mut options = AddOptions::default();
    let mut rest = words;
    while let [word, tail @ ..] = rest {
        let option = match () {
            () if is(word, "nx") => &mut options.only_new,
            () if is(word, "xx") => &mut options.only_known,
            () if is(word, "gt") => &mut options.only_greater,
            () if is(word, "lt") => &mut options.only_less,
            () if is(word, "ch") => &mut options.count_changed,
            () if is(word, "incr") => &mut options.increment,
            () => break,
        };
        *option = true;
        rest = tail;
    }
    let AddOptions { only_new, only_known, only_greater, only_less, .. } = options;
    if rest.is_empty() || !rest.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    if only_new && only_known {
        return Err(CommandError::text("ERR XX and NX options at the same time are not compatible"));
    }
    if (only_new && (only_greater || only_less)) || (only_greater && only_less) {
        return Err(CommandError::text("ERR GT, LT, and/or NX options at the same time are not compatible"));
    }
    if options.increment && rest.len() > 2 {
        return Err(CommandError::text("ERR INCR option supports a single increment-element pair"));
    }
    Ok((options, rest))
}

/// Scores with their members.
fn parsed<'a>(pairs: &[&'a [u8]]) -> Result<Vec<(f64, &'a [u8])>, CommandError> {
    pairs.chunks_exact(2).map(|pair| Ok((float(pair[0])?, pair[1]))).collect()
}

/// Adds `pairs` of scores and members. The effects carry scores, not increments.
pub fn add(tx: &mut Tx, key: &[u8], options: AddOptions, pairs: &[(f64, &[u8])]) -> Outcome<'static> {
    tx.sorted(key)?;

    let (mut added, mut changed, mut latest) = (0, 0, None);
    for &(given, member) in pairs {
        let before = tx.sorted(key)?.and_then(|sorted| sorted.score(member));
        let Some(score) = new_score(options, before, given)? else { continue };
        latest = Some(score);
        if before != Some(score) {
            added += usize::from(before.is_none());
            changed += 1;
            emit_put(tx, key, member, score);
        }
    }
    if changed > 0 {
        tx.notify(Class::Sorted, if options.increment { "zincr" } else { "zadd" }, key);
    }
    Ok(match options {
        AddOptions { increment: true, .. } => latest.map_or(Reply::Null, Reply::Double),
        AddOptions { count_changed: true, .. } => Reply::count(changed),
        _ => Reply::count(added),
    })
}

/// Emits the effect that gives a member this score. The negative zero is stored
/// as zero: Redis does so in small sets, and a score must not depend on the form.
pub fn emit_put(tx: &mut Tx, key: &[u8], member: &[u8], score: f64) {
    tx.emit(Effect::SortedPut { key, member, score: score + 0.0 });
}

/// The score that a member is to have, `None` if the options forbid a change.
///
/// Only a request of one pair can fail here, before its only effect: it takes an
/// increment to make what is no number.
fn new_score(options: AddOptions, before: Option<f64>, given: f64) -> Result<Option<f64>, CommandError> {
    let Some(before) = before else { return Ok((!options.only_known).then_some(given)) };
    if options.only_new {
        return Ok(None);
    }
    let score = if options.increment { before + given } else { given };
    if score.is_nan() {
        return Err(NOT_A_NUMBER);
    }
    let refused = (options.only_greater && score <= before) || (options.only_less && score >= before);
    Ok((!refused).then_some(score))
}

/// `ZREM key member…`
pub fn zrem<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, members) = (words[1], &words[2..]);
    let mut left = tx.sorted(key)?.map_or(0, SortedSet::len);

    let mut removed = 0;
    for member in members {
        if left > 0 && tx.sorted(key)?.is_some_and(|sorted| sorted.score(member).is_some()) {
            tx.emit(Effect::SortedRemove { key, member });
            removed += 1;
            left -= 1;
        }
    }
    if removed > 0 {
        tx.notify_taken(Class::Sorted, "zrem", key);
    }
    Ok(Reply::count(removed))
}
