//! What is between two bounds: ranks, scores or names.

use std::ops::Range;

use moonraft_proto::{Effect, Reply};

use super::{
    super::{
        CommandError, Outcome, Request,
        arguments::{c_text, integer, is, nearest_float, room_for, span},
    },
    members_reply,
    put::emit_put,
};
use crate::keyspace::{Blob, Class, Keyspace, SortedSet, Tx, Value};

/// A bound of scores.
#[derive(Clone, Copy, Debug)]
struct ScoreBound {
    score: f64,
    exclusive: bool,
}

/// A bound of names.
#[derive(Clone, Copy, Debug)]
enum NameBound<'a> {
    /// `-`: below all names.
    Least,
    /// `+`: above all names.
    Greatest,
    /// `[name` or `(name`.
    At { name: &'a [u8], exclusive: bool },
}

/// Members between two bounds.
#[derive(Clone, Copy, Debug)]
enum Interval<'a> {
    /// First and last rank, negative ones from the end.
    Ranks(i64, i64),
    Scores(ScoreBound, ScoreBound),
    Names(NameBound<'a>, NameBound<'a>),
}

/// `1.5`, `(1.5`, `-inf`: what C's `strtod` reads, up to a zero byte; it reads nothing as 0.
fn score_bound(word: &[u8]) -> Result<ScoreBound, CommandError> {
    let (exclusive, number) = match word {
        [b'(', rest @ ..] => (true, rest),
        _ => (false, word),
    };
    let number = c_text(number);
    let score = if number.is_empty() { Some(0.0) } else { nearest_float(number.trim_ascii_start()) };
    let score = score.ok_or(CommandError::text("ERR min or max is not a float"))?;
    Ok(ScoreBound { score, exclusive })
}

fn name_bound(word: &[u8]) -> Result<NameBound<'_>, CommandError> {
    match word {
        [b'-'] => Ok(NameBound::Least),
        [b'+'] => Ok(NameBound::Greatest),
        [b'[', name @ ..] => Ok(NameBound::At { name, exclusive: false }),
        [b'(', name @ ..] => Ok(NameBound::At { name, exclusive: true }),
        _ => Err(CommandError::text("ERR min or max not valid string range item")),
    }
}

/// What the bounds of an interval are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Places in the order.
    Rank,
    /// Scores.
    Score,
    /// Names, of members with one score.
    Name,
}

impl<'a> Interval<'a> {
    fn parse(by: By, least: &'a [u8], greatest: &'a [u8]) -> Result<Self, CommandError> {
        Ok(match by {
            By::Rank => Interval::Ranks(integer(least)?, integer(greatest)?),
            By::Score => Interval::Scores(score_bound(least)?, score_bound(greatest)?),
            By::Name => Interval::Names(name_bound(least)?, name_bound(greatest)?),
        })
    }

    /// The positions it covers; ranks are counted from the end of `sorted` if
    /// `reverse`.
    fn positions(self, sorted: &SortedSet, reverse: bool) -> Range<usize> {
        let length = sorted.len();
        let (start, end) = match self {
            Interval::Ranks(first, last) => {
                let ranks = span(first, last, length);
                if reverse { (length - ranks.end, length - ranks.start) } else { (ranks.start, ranks.end) }
            }
            Interval::Scores(least, greatest) => (
                sorted.position_of_score(|score| {
                    if least.exclusive { score <= least.score } else { score < least.score }
                }),
                sorted.position_of_score(|score| {
                    if greatest.exclusive { score < greatest.score } else { score <= greatest.score }
                }),
            ),
            Interval::Names(least, greatest) => (
                first_name(
                    sorted,
                    least,
                    |name, bound, exclusive| if exclusive { name <= bound } else { name < bound },
                ),
                first_name(
                    sorted,
                    greatest,
                    |name, bound, exclusive| {
                        if exclusive { name < bound } else { name <= bound }
                    },
                ),
            ),
        };
        start..end.max(start)
    }
}

/// The first position whose name is not `below` the bound.
fn first_name(sorted: &SortedSet, bound: NameBound<'_>, below: fn(&[u8], &[u8], bool) -> bool) -> usize {
    match bound {
        NameBound::Least => 0,
        NameBound::Greatest => sorted.len(),
        NameBound::At { name, exclusive } => sorted.position(|_, other| below(other, name, exclusive)),
    }
}

// ---- ZRANGE and its older forms ----------------------------------------------

/// What a `ZRANGE` or one of its forms asks for.
struct RangeQuery<'a> {
    interval: Interval<'a>,
    reverse: bool,
    with_scores: bool,
    /// Members to pass over, and members wanted; negative: none, and all.
    limit: Option<(i64, i64)>,
}

/// What a form of `ZRANGE` leaves to its options: `None` is open.
#[derive(Clone, Copy)]
struct Form {
    by: Option<By>,
    reverse: Option<bool>,
    stores: bool,
}

impl<'a> RangeQuery<'a> {
    /// `min max` and options.
    fn parse(form: Form, words: &[&'a [u8]]) -> Result<Self, CommandError> {
        let Form { mut by, mut reverse, stores } = form;
        let (mut with_scores, mut limit) = (false, None);
        let mut rest = &words[2..];
        while let [option, tail @ ..] = rest {
            rest = tail;
            if is(option, "withscores") && !stores {
                with_scores = true;
            } else if is(option, "limit")
                && let [offset, count, tail @ ..] = rest
            {
                limit = Some((integer(offset)?, integer(count)?));
                rest = tail;
            } else if is(option, "rev") && reverse.is_none() {
                reverse = Some(true);
            } else if is(option, "bylex") && by.is_none() {
                by = Some(By::Name);
            } else if is(option, "byscore") && by.is_none() {
                by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if by == By::Rank && limit.is_some_and(|(_, count)| count != -1) {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if by == By::Name && with_scores {
            return Err(CommandError::text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let swapped = reverse && by != By::Rank;
        let (least, greatest) = if swapped { (words[1], words[0]) } else { (words[0], words[1]) };
        Ok(Self { interval: Interval::parse(by, least, greatest)?, reverse, with_scores, limit })
    }

    /// The positions asked for.
    fn positions(&self, sorted: &SortedSet) -> Range<usize> {
        let Range { start, end } = self.interval.positions(sorted, self.reverse);
        let Some((offset, count)) = self.limit.filter(|_| !matches!(self.interval, Interval::Ranks(..)))
        else {
            return start..end;
        };
        let length = end - start;
        let skipped = usize::try_from(offset).unwrap_or(length).min(length);
        let wanted = usize::try_from(count).unwrap_or(length).min(length - skipped);
        if self.reverse {
            end - skipped - wanted..end - skipped
        } else {
            start + skipped..start + skipped + wanted
        }
    }
}

fn query<'a>(tx: &'a Tx, words: &[&'a [u8]], by: Option<By>, reverse: Option<bool>) -> Outcome<'a> {
    let query = RangeQuery::parse(Form { by, reverse, stores: false }, &words[2..])?;
    let Some(sorted) = tx.sorted(words[1])? else { return Ok(Reply::Array(Vec::new())) };
    let Range { start, end } = query.positions(sorted);
    room_for(tx, (end - start) * if query.with_scores { 2 } else { 1 })?;
    let members = sorted.range(start, end);
    Ok(match query.reverse {
        false => members_reply(members, query.with_scores),
        true => members_reply(members.rev(), query.with_scores),
    })
}

/// `ZRANGE key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`
pub fn zrange<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    query(tx, words, None, None)
}

/// `ZREVRANGE key start stop [WITHSCORES]`
pub fn zrevrange<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    query(tx, words, Some(By::Rank), Some(true))
}

/// `ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]`
pub fn zrangebyscore<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    query(tx, words, Some(By::Score), Some(false))
}

/// `ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]`
pub fn zrevrangebyscore<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    query(tx, words, Some(By::Score), Some(true))
}

/// `ZRANGEBYLEX key min max [LIMIT offset count]`
pub fn zrangebylex<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    query(tx, words, Some(By::Name), Some(false))
}

/// `ZREVRANGEBYLEX key max min [LIMIT offset count]`
pub fn zrevrangebylex<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    query(tx, words, Some(By::Name), Some(true))
}

/// `ZRANGESTORE destination source start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count]`
pub fn zrangestore<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (destination, source) = (words[1], words[2]);
    let query = RangeQuery::parse(Form { by: None, reverse: None, stores: true }, &words[3..])?;
    tx.tell_misses([source]);
    let pairs: Vec<(f64, Blob)> = match tx.sorted(source)? {
        None => Vec::new(),
        Some(sorted) => {
            let Range { start, end } = query.positions(sorted);
            sorted.range(start, end).map(|(member, score)| (score, Blob::new(member))).collect()
        }
    };

    store(tx, destination, &pairs, "zrangestore");
    Ok(Reply::count(pairs.len()))
}

/// Makes `key` hold these members, in order, or nothing if there are none. `event` tells of it.
pub fn store(tx: &mut Tx, key: &[u8], pairs: &[(f64, impl AsRef<[u8]>)], event: &str) {
    let was_there = tx.remove(key);
    for (score, member) in pairs {
        emit_put(tx, key, member.as_ref(), *score);
    }
    tx.notify_stored(Class::Sorted, event, key, was_there);
}

// ---- how much that is ---------------------------------------------------------

/// With fewer members there is no need to look for the bounds.
const FEW: usize = 1_000;

fn members_in(keyspace: &Keyspace, key: &[u8], form: Form, words: &[&[u8]]) -> usize {
    let Some(Value::Sorted(sorted)) = keyspace.get(key).map(|object| &object.value) else { return 0 };
    if sorted.len() <= FEW {
        return sorted.len();
    }
    RangeQuery::parse(form, words).map_or(0, |query| query.positions(sorted).len())
}

/// How many members a `ZRANGE` works through.
pub fn work(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let form = Form { by: None, reverse: None, stores: false };
    members_in(keyspace, request.words[1], form, &request.words[2..])
}

/// How many members a `ZRANGESTORE` works through.
pub fn work_stored(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let form = Form { by: None, reverse: None, stores: true };
    members_in(keyspace, request.words[2], form, &request.words[3..])
}

/// How many members one of the older forms works through, or one that removes a range.
pub fn work_by(keyspace: &Keyspace, request: &Request<'_>, by: By, reverse: bool) -> usize {
    let form = Form { by: Some(by), reverse: Some(reverse), stores: false };
    members_in(keyspace, request.words[1], form, &request.words[2..])
}

// ---- counting and removing ---------------------------------------------------

/// `ZCOUNT key min max`
pub fn zcount<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    count(tx, words, By::Score)
}

/// `ZLEXCOUNT key min max`
pub fn zlexcount<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    count(tx, words, By::Name)
}

fn count<'a>(tx: &'a Tx, words: &[&'a [u8]], by: By) -> Outcome<'a> {
    let interval = Interval::parse(by, words[2], words[3])?;
    let sorted = tx.sorted(words[1])?;
    Ok(Reply::count(sorted.map_or(0, |sorted| interval.positions(sorted, false).len())))
}

/// `ZREMRANGEBYRANK key start stop`
pub fn zremrangebyrank<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    remove(tx, words, By::Rank, "zremrangebyrank")
}

/// `ZREMRANGEBYSCORE key min max`
pub fn zremrangebyscore<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    remove(tx, words, By::Score, "zremrangebyscore")
}

/// `ZREMRANGEBYLEX key min max`
pub fn zremrangebylex<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    remove(tx, words, By::Name, "zremrangebylex")
}

fn remove<'a>(tx: &mut Tx, words: &[&'a [u8]], by: By, event: &str) -> Outcome<'a> {
    let key = words[1];
    let interval = Interval::parse(by, words[2], words[3])?;
    let Some(sorted) = tx.sorted(key)? else { return Ok(Reply::Int(0)) };
    let positions = interval.positions(sorted, false);

    if positions.len() == sorted.len() {
        tx.emit(Effect::Remove { key });
    } else {
        let members = sorted.range(positions.start, positions.end);
        let members: Vec<Blob> = members.map(|(member, _)| Blob::new(member)).collect();
        members.iter().for_each(|member| tx.emit(Effect::SortedRemove { key, member }));
    }
    if !positions.is_empty() {
        tx.notify_taken(Class::Sorted, event, key);
    }
    Ok(Reply::count(positions.len()))
}
