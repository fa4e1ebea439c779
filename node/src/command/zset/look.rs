//! Questions about single members, and members at random or one after another.

use hashbrown::HashSet;
use moonraft_proto::{Reply, reply::double_text};

use super::{
    super::{
        CommandError, Outcome,
        arguments::{Draw, is, room_for},
        generic::{cursor, scan_options, scan_reply},
    },
    members_reply,
};
use crate::keyspace::{SortedSet, Tx};

/// `ZCARD key`
pub fn zcard<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(tx.sorted(words[1])?.map_or(0, SortedSet::len)))
}

/// `ZSCORE key member`
pub fn zscore<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let score = tx.sorted(words[1])?.and_then(|sorted| sorted.score(words[2]));
    Ok(score.map_or(Reply::Null, Reply::Double))
}

/// `ZMSCORE key member…`
pub fn zmscore<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let sorted = tx.sorted(words[1])?;
    let score = |member: &&[u8]| sorted.and_then(|sorted| sorted.score(member));
    Ok(Reply::Array(
        words[2..].iter().map(|member| score(member).map_or(Reply::Null, Reply::Double)).collect(),
    ))
}

/// `ZRANK key member [WITHSCORE]`
pub fn zrank<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    rank(tx, words, "zrank", |rank, _| rank)
}

/// `ZREVRANK key member [WITHSCORE]`
pub fn zrevrank<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    rank(tx, words, "zrevrank", |rank, length| length - 1 - rank)
}

fn rank<'a>(
    tx: &'a Tx,
    words: &[&'a [u8]],
    name: &'static str,
    counted: fn(usize, usize) -> usize,
) -> Outcome<'a> {
    let (key, member) = (words[1], words[2]);
    let with_score = match &words[3..] {
        [] => false,
        [option] if is(option, "withscore") => true,
        [_] => return Err(CommandError::Syntax),
        _ => return Err(CommandError::Arity(name.into())),
    };
    let sorted = tx.sorted(key)?;
    let found = sorted.and_then(|sorted| Some((counted(sorted.rank(member)?, sorted.len()), sorted)));

    Ok(match found {
        None if with_score => Reply::NullArray,
        None => Reply::Null,
        Some((rank, sorted)) if with_score => {
            let score = sorted.score(member).map_or(Reply::Null, Reply::Double);
            Reply::Array(vec![Reply::count(rank), score])
        }
        Some((rank, _)) => Reply::count(rank),
    })
}

/// `ZRANDMEMBER key [count [WITHSCORES]]`
///
/// A negative count draws with repetition.
pub fn zrandmember<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    let Some(count) = words.get(2) else {
        let drawn = tx.sorted(key)?.and_then(|sorted| sorted.nth(tx.random_below(sorted.len())));
        return Ok(drawn.map_or(Reply::Null, |(member, _)| Reply::bulk(member)));
    };
    let draw = Draw::read(count)?;
    let with_scores = draw.in_pairs(&words[3..], "withscores")?;
    let Some(sorted) = tx.sorted(key)? else { return Ok(Reply::Array(Vec::new())) };

    let nth = |at| sorted.nth(at).expect("a position drawn is below the length");
    let length = sorted.len();
    if let Draw::Repeated(count) = draw {
        room_for(tx, count)?;
    }
    Ok(match draw {
        Draw::Repeated(count) => {
            let drawn = sorted.draw_repeated(count, |end| tx.random_below(end));
            members_reply(drawn.into_iter(), with_scores)
        }
        Draw::Distinct(count) if count >= length => members_reply(sorted.iter(), with_scores),
        Draw::Distinct(count) => {
            members_reply(draw_distinct(tx, length, count).into_iter().map(nth), with_scores)
        }
    })
}

/// `count` different numbers below `end`, any of them as likely as others
/// (Floyd's algorithm).
fn draw_distinct(tx: &Tx, end: usize, count: usize) -> Vec<usize> {
    let mut seen = HashSet::with_capacity_and_hasher(count, foldhash::fast::FixedState::default());
    let mut drawn = Vec::with_capacity(count);
    for last in end - count..end {
        let number = tx.random_below(last + 1);
        let number = if seen.insert(number) { number } else { last };
        seen.insert(number);
        drawn.push(number);
    }
    drawn
}

/// `ZSCAN key cursor [MATCH pattern] [COUNT count]`
pub fn zscan<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let from = cursor(words[2])?;
    let Some(sorted) = tx.sorted(words[1])? else { return Ok(scan_reply(0, Vec::new())) };
    let options = scan_options(&words[3..], false)?;

    let (pairs, next) = sorted.scan(from, options.count);
    let wanted = pairs.into_iter().filter(|(member, _)| options.matches(member));
    let replies = wanted.flat_map(|(member, score)| [Reply::bulk(member), Reply::text(double_text(score))]);
    Ok(scan_reply(next, replies.collect()))
}
