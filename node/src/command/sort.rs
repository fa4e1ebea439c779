//! `SORT`: the elements of a list, set or sorted set in the order of their values,
//! or of those of other keys.
//!
//! Keys that `BY` and `GET` form from a pattern must be in the slot of the sorted
//! key, which a hash tag in the pattern proves; other patterns are refused, as
//! Redis refuses them in a cluster (before 7.4: all of them).

use std::{borrow::Cow, cmp::Ordering};

use moonraft_proto::{Effect, Reply, Weight};
use moonraft_router::{Keys, slot_of};

use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{c_text, integer, is, parse_float, room_for},
    key_specs::uses,
    work,
};
use crate::{
    glob,
    keyspace::{Class, Tx, Value},
};

/// A row of this family.
const ROW: Command = Command {
    family: Family::Generic,
    arity: Arity::AtLeast(2),
    categories: &[Family::Set, Family::SortedSet, Family::List],
    ..Command::BASE
};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "sort",
        keys: Keys::After { first: 1, token: "store", skips: PATTERNS },
        // The second is about keys formed from patterns.
        key_flags: &[uses::READ, uses::READ, uses::STORE],
        flags: &[Flag::DenyOom, Flag::Dangerous],
        forms_keys: Some(|words| forms_keys(words, true)),
        run: Run::Write(sort),
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "sort_ro",
        keys: Keys::After { first: 1, token: "", skips: PATTERNS },
        key_flags: &[uses::READ, uses::READ],
        flags: &[Flag::Dangerous],
        forms_keys: Some(|words| forms_keys(words, false)),
        run: Run::Read(sort_ro),
        work: Some(work::values),
        ..ROW
    },
];

/// Options with words of their own behind them.
const PATTERNS: &[(&str, usize)] = &[("by", 1), ("get", 1), ("limit", 2)];

/// Keys that one request forms from patterns at most: they are looked up here and now, and each costs as much as a request.
const FORMED_MAX: usize = 50_000;
/// A pattern that is longer by so much costs as much as a further key.
const FORMED_BYTES: usize = 1 << 10;
const TOO_MANY_FORMED: CommandError =
    CommandError::text("ERR SORT would look up more than 50000 keys that it forms from patterns");

/// By what to sort.
#[derive(Clone, Copy)]
enum By<'a> {
    /// The element itself.
    Itself,
    /// The value of the key, or field, that this pattern forms.
    Pattern(&'a [u8]),
    /// Nothing: keep the order there is.
    Nothing,
}

struct Options<'a> {
    by: By<'a>,
    /// What to return in place of each element.
    get: Vec<&'a [u8]>,
    /// The first element to return, and how many; a negative count is no limit.
    limit: Option<(i64, i64)>,
    descending: bool,
    alphabetic: bool,
    store: Option<&'a [u8]>,
}

/// `SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC | DESC] [ALPHA] [STORE destination]`
fn sort<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let options = options(words, true)?;
    tx.tell_misses([words[1]]);
    let found = result(tx, words[1], &options)?;
    if options.store.is_none() {
        room_for_all(tx, &found)?;
    }
    let owned = |value: Option<Cow<'_, [u8]>>| value.map(|value| Cow::Owned(value.into_owned()));
    let found: Vec<Option<Cow<'a, [u8]>>> = found.into_iter().map(owned).collect();

    let Some(key) = options.store else { return Ok(reply(found)) };
    let was_there = tx.remove(key);
    for (index, value) in found.iter().enumerate() {
        let value = value.as_deref().unwrap_or_default();
        tx.emit(Effect::ListInsert { key, index: index as u64, value });
    }
    tx.notify_stored(Class::List, "sortstore", key, was_there);
    Ok(Reply::count(found.len()))
}

/// `SORT_RO key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC | DESC] [ALPHA]`
fn sort_ro<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(reply(result(tx, words[1], &options(words, false)?)?))
}

/// Whether it looks at keys that it forms from patterns.
fn forms_keys(words: &[&[u8]], may_store: bool) -> bool {
    options(words, may_store).is_ok_and(|options| {
        matches!(options.by, By::Pattern(_)) || options.get.iter().any(|&pattern| pattern != b"#")
    })
}

/// Refuses what is too large for a reply before it is copied.
fn room_for_all(tx: &Tx, found: &[Option<Cow<'_, [u8]>>]) -> Result<(), CommandError> {
    let lengths = found.iter().map(|value| value.as_ref().map_or(0, |value| value.len()));
    let longest = lengths.clone().max().unwrap_or(0);
    room_for(tx, (lengths.sum::<usize>() - longest) / Weight::PART_BYTES)
}

fn reply<'a>(found: Vec<Option<Cow<'a, [u8]>>>) -> Reply<'a> {
    Reply::Array(found.into_iter().map(|value| value.map_or(Reply::Null, Reply::Bulk)).collect())
}

fn options<'a>(words: &[&'a [u8]], may_store: bool) -> Result<Options<'a>, CommandError> {
    let mut options = Options {
        by: By::Itself,
        get: Vec::new(),
        limit: None,
        descending: false,
        alphabetic: false,
        store: None,
    };
    let mut rest = words[2..].iter().copied();
    let key = words[1];
    while let Some(word) = rest.next() {
        let mut value = || rest.next().ok_or(CommandError::Syntax);
        if is(word, "asc") {
            options.descending = false;
        } else if is(word, "desc") {
            options.descending = true;
        } else if is(word, "alpha") {
            options.alphabetic = true;
        } else if is(word, "limit") {
            let (offset, count) = (value()?, value()?);
            options.limit = Some((integer(offset)?, integer(count)?));
        } else if is(word, "store") && may_store {
            options.store = Some(value()?);
        } else if is(word, "by") {
            let pattern = value()?;
            // Once there is nothing to sort by, it stays so.
            options.by = if !pattern.contains(&b'*') || matches!(options.by, By::Nothing) {
                By::Nothing
            } else if forms_keys_beside(pattern, key) {
                By::Pattern(pattern)
            } else {
                return Err(CommandError::text("ERR BY option of SORT denied in Cluster mode."));
            };
        } else if is(word, "get") {
            let pattern = value()?;
            if pattern != b"#" && !forms_keys_beside(pattern, key) {
                return Err(CommandError::text("ERR GET option of SORT denied in Cluster mode."));
            }
            options.get.push(pattern);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(options)
}

/// Whether all keys that a pattern forms are in the slot of `key`.
fn forms_keys_beside(pattern: &[u8], key: &[u8]) -> bool {
    glob::slot_of_matches(pattern) == Some(slot_of(key))
}

/// The values to return or store.
fn result<'a>(
    tx: &'a Tx,
    key: &[u8],
    options: &Options<'_>,
) -> Result<Vec<Option<Cow<'a, [u8]>>>, CommandError> {
    let patterns = || options.get.iter().filter(|&&pattern| pattern != b"#");
    let elements = sorted(tx, key, options, patterns().next().is_some())?;
    room_for(tx, elements.len().saturating_mul(options.get.len().max(1)))?;
    check_formed(elements.len(), patterns().copied())?;
    if options.get.is_empty() {
        return Ok(elements.into_iter().map(Some).collect());
    }
    let mut found = Vec::with_capacity(elements.len().saturating_mul(options.get.len()));
    for element in elements {
        for &pattern in &options.get {
            found.push(match pattern {
                b"#" => Some(element.clone()),
                _ => formed(tx, pattern, &element).map(Cow::Borrowed),
            });
        }
    }
    Ok(found)
}

/// Refuses to form more keys, or longer ones, than others may wait for.
fn check_formed<'p>(elements: usize, patterns: impl Iterator<Item = &'p [u8]>) -> Result<(), CommandError> {
    let cost: usize = patterns.map(|pattern| 1 + pattern.len() / FORMED_BYTES).sum();
    match elements.saturating_mul(cost) > FORMED_MAX {
        true => Err(TOO_MANY_FORMED),
        false => Ok(()),
    }
}

/// The elements in order, limited. If keys are formed of them, all of it is done here and now.
fn sorted<'a>(
    tx: &'a Tx,
    key: &[u8],
    options: &Options<'_>,
    forms_keys: bool,
) -> Result<Vec<Cow<'a, [u8]>>, CommandError> {
    let mut alphabetic = options.alphabetic;
    let mut by = options.by;
    let mut elements: Vec<Cow<'a, [u8]>> = match tx.value(key) {
        None => Vec::new(),
        Some(Value::List(list)) => {
            let mut elements: Vec<_> = list.iter().map(Cow::Borrowed).collect();
            if matches!(by, By::Nothing) && options.descending {
                elements.reverse();
            }
            elements
        }
        Some(Value::Set(set)) => {
            // A set has no order to keep, and what is stored should have one.
            if matches!(by, By::Nothing) && options.store.is_some() {
                (by, alphabetic) = (By::Itself, true);
            }
            set.iter().map(Cow::from).collect()
        }
        Some(Value::Sorted(sorted)) => {
            let members = sorted.iter().map(|(member, _)| Cow::Borrowed(member));
            if matches!(by, By::Nothing) && options.descending {
                members.rev().collect()
            } else {
                members.collect()
            }
        }
        Some(_) => return Err(CommandError::WrongType),
    };

    if let By::Pattern(pattern) = by {
        check_formed(elements.len(), std::iter::once(pattern))?;
    }
    if forms_keys && !matches!(by, By::Nothing) && elements.len() > FORMED_MAX {
        return Err(TOO_MANY_FORMED);
    }
    let weigh: &dyn Fn(&[u8]) -> Option<&'a [u8]> = &|element| match by {
        By::Pattern(pattern) => formed(tx, pattern, element),
        By::Itself | By::Nothing => None,
    };
    match by {
        By::Nothing => {}
        By::Itself if alphabetic => elements.sort(),
        By::Itself | By::Pattern(_) if !alphabetic => {
            let weight = |element: Cow<'a, [u8]>| {
                let text: Option<Cow<'_, [u8]>> = match by {
                    By::Pattern(_) => weigh(&element).map(Cow::Borrowed),
                    _ => Some(Cow::Borrowed(&element)),
                };
                Ok((number(text.as_deref())?, element))
            };
            let mut weighed: Vec<(f64, Cow<'a, [u8]>)> =
                elements.into_iter().map(weight).collect::<Result<_, CommandError>>()?;
            weighed.sort_by(|(left, first), (right, second)| {
                let weights = left.partial_cmp(right).unwrap_or(Ordering::Equal);
                weights.then_with(|| first.cmp(second))
            });
            elements = weighed.into_iter().map(|(_, element)| element).collect();
        }
        By::Itself | By::Pattern(_) => {
            // A key that is not there comes before all others.
            elements.sort_by_cached_key(|element| weigh(element));
        }
    }
    if options.descending && !matches!(by, By::Nothing) {
        elements.reverse();
    }
    Ok(limited(elements, options.limit))
}

/// The number to sort by: 0 for a key that is not there. To C those next to 0 are out of range.
fn number(text: Option<&[u8]>) -> Result<f64, CommandError> {
    let text = c_text(text.unwrap_or_default());
    if text.is_empty() {
        return Ok(0.0);
    }
    let number = parse_float(text.trim_ascii_start()).filter(|number| !number.is_subnormal());
    number.ok_or(CommandError::text("ERR One or more scores can't be converted into double"))
}

fn limited<T>(mut elements: Vec<T>, limit: Option<(i64, i64)>) -> Vec<T> {
    let Some((offset, count)) = limit else { return elements };
    let start = usize::try_from(offset).unwrap_or(0).min(elements.len());
    elements.drain(..start);
    elements.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    elements
}

/// The value of the key that a pattern forms with an element in place of its first
/// `*`, or of the field behind a `->` that follows it.
fn formed<'a>(tx: &'a Tx, pattern: &[u8], element: &[u8]) -> Option<&'a [u8]> {
    let star = pattern.iter().position(|&byte| byte == b'*')?;
    let (before, after) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = after.windows(2).position(|pair| pair == b"->").filter(|at| at + 2 < after.len());
    let (after, field) = match arrow {
        Some(at) => (&after[..at], Some(&after[at + 2..])),
        None => (after, None),
    };
    let key = [before, element, after].concat();
    match (tx.value(&key)?, field) {
        (Value::Str(string), None) => Some(string),
        (Value::Hash(hash), Some(field)) => tx.live(hash).get(field),
        _ => None,
    }
}
