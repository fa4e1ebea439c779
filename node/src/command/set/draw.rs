//! Members drawn at random. What was drawn is in the effects: replicas draw
//! nothing.

use moonraft_proto::{Effect, Reply};

use super::super::{
    CommandError, Outcome,
    arguments::{Draw, parse_integer, room_for},
};
use crate::keyspace::{Blob, Class, Tx};

/// `SPOP key [count]`
pub fn spop<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    match words {
        [_, key] => pop_one(tx, key),
        [_, key, count] => pop_many(tx, key, count),
        _ => Err(CommandError::Syntax),
    }
}

fn pop_one<'a>(tx: &mut Tx, key: &[u8]) -> Outcome<'a> {
    let drawn = tx.set(key)?.and_then(|set| set.draw(|end| tx.random_below(end)));
    let Some(member) = drawn.map(|member| member.to_vec()) else { return Ok(Reply::Null) };

    tx.emit(Effect::SetRemove { key, member: &member });
    tx.notify_taken(Class::Set, "spop", key);
    Ok(Reply::bulk(member))
}

fn pop_many<'a>(tx: &mut Tx, key: &[u8], count: &[u8]) -> Outcome<'a> {
    let count = parse_integer(count).and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(CommandError::text("ERR value is out of range, must be positive"))?;
    let Some(set) = tx.set(key)? else { return Ok(Reply::Set(Vec::new())) };
    room_for(tx, count.min(set.len()))?;
    let drawn = set.draw_distinct(count, |end| tx.random_below(end));
    let drawn: Vec<Blob> = drawn.iter().map(|member| Blob::new(member)).collect();

    if drawn.len() == set.len() {
        tx.emit(Effect::Remove { key });
    } else {
        for member in &drawn {
            tx.emit(Effect::SetRemove { key, member });
        }
    }
    if !drawn.is_empty() {
        tx.notify_taken(Class::Set, "spop", key);
    }
    Ok(Reply::Set(drawn.iter().map(|member| Reply::bulk(member.to_vec())).collect()))
}

/// `SRANDMEMBER key [count]`
pub fn srandmember<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let random = |end| tx.random_below(end);
    match words {
        [_, key] => Ok(tx.set(key)?.and_then(|set| set.draw(random)).map_or(Reply::Null, Reply::bulk)),
        [_, key, count] => {
            let count = Draw::read(count)?;
            let Some(set) = tx.set(key)? else { return Ok(Reply::Array(Vec::new())) };
            let members = match count {
                Draw::Distinct(count) => set.draw_distinct(count, random),
                Draw::Repeated(count) => {
                    room_for(tx, count)?;
                    set.draw_repeated(count, random)
                }
            };
            Ok(Reply::Array(members.into_iter().map(Reply::bulk).collect()))
        }
        _ => Err(CommandError::Syntax),
    }
}
