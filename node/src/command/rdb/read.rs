//! Reading a value.

use std::num::NonZeroU64;

use super::{bytes::Bytes, kind, listpack, stream::stream};
use crate::{
    command::{
        arguments::{parse_float, parse_integer},
        hash::expiry::FIELD_DEADLINE_MAX,
    },
    keyspace::{Hash, List, Set, SortedSet, Value},
};

/// The value that is all of `content`.
pub fn value(content: &[u8]) -> Option<Value> {
    let mut bytes = Bytes::new(content);
    let kind = bytes.byte()?;
    let value = match kind {
        kind::STRING => return whole(bytes.string()?.into_owned(), bytes).map(Value::Str),
        kind::LIST | kind::LIST_ZIPLIST | kind::LIST_OF_ZIPLISTS | kind::LIST_OF_LISTPACKS => {
            Value::List(Box::new(list(kind, &mut bytes)?))
        }
        kind::SET | kind::SET_INTEGERS | kind::SET_LISTPACK => Value::Set(Box::new(set(kind, &mut bytes)?)),
        kind::HASH | kind::HASH_ZIPLIST | kind::HASH_LISTPACK => {
            Value::Hash(Box::new(hash(kind, &mut bytes)?))
        }
        kind::HASH_DEADLINES | kind::HASH_DEADLINES_LISTPACK => {
            Value::Hash(Box::new(mortal_hash(kind, &mut bytes)?))
        }
        kind::SORTED_TEXT | kind::SORTED | kind::SORTED_ZIPLIST | kind::SORTED_LISTPACK => {
            Value::Sorted(Box::new(sorted(kind, &mut bytes)?))
        }
        kind::STREAM | kind::STREAM_2 | kind::STREAM_3 => {
            let stream = Box::new(stream(kind, &mut bytes)?);
            return whole(Value::Stream(stream), bytes);
        }
        _ => return None,
    };
    whole(value, bytes).filter(|value| !value.is_empty())
}

/// `value`, if nothing is left behind it.
fn whole<T>(value: T, bytes: Bytes<'_>) -> Option<T> {
    bytes.is_empty().then_some(value)
}

/// Calls `each` for as many times as a length says.
fn counted(bytes: &mut Bytes<'_>, mut each: impl FnMut(&mut Bytes<'_>) -> Option<()>) -> Option<()> {
    // Each takes a byte at least, so the bytes end before a false count does.
    (0..bytes.length()?).try_for_each(|_| each(bytes))
}

fn list(kind: u8, bytes: &mut Bytes<'_>) -> Option<List> {
    /// An element of a list by itself, too large for a listpack; a listpack.
    const PLAIN: u64 = 1;
    const PACKED: u64 = 2;
    let mut list = List::default();
    let mut push = |element: &[u8]| list.insert(list.len(), element);
    match kind {
        kind::LIST => counted(bytes, |bytes| bytes.string().map(|element| push(&element)))?,
        kind::LIST_ZIPLIST => {
            let block = bytes.string()?;
            listpack::ziplist(&block)?.iter().for_each(|element| push(element));
        }
        kind::LIST_OF_ZIPLISTS => counted(bytes, |bytes| {
            let block = bytes.string()?;
            listpack::ziplist(&block)?.iter().for_each(|element| push(element));
            Some(())
        })?,
        _ => counted(bytes, |bytes| {
            let form = bytes.length()?;
            let block = bytes.string()?;
            match form {
                PLAIN => push(&block),
                PACKED => listpack::listpack(&block)?.iter().for_each(|element| push(element)),
                _ => return None,
            }
            Some(())
        })?,
    }
    Some(list)
}

fn set(kind: u8, bytes: &mut Bytes<'_>) -> Option<Set> {
    let mut set = Set::default();
    let mut add = |member: &[u8]| set.add(member).then_some(());
    match kind {
        kind::SET => counted(bytes, |bytes| bytes.string().and_then(|member| add(&member)))?,
        kind::SET_LISTPACK => {
            let block = bytes.string()?;
            listpack::listpack(&block)?.iter().try_for_each(|member| add(member))?;
        }
        _ => {
            let block = bytes.string()?;
            let mut block = Bytes::new(&block);
            let (size, count) = (block.little(4)? as usize, block.little(4)?);
            if !matches!(size, 2 | 4 | 8) {
                return None;
            }
            for _ in 0..count {
                let unused = 64 - 8 * size as u32;
                let number = (block.little(size)? << unused) as i64 >> unused;
                add(itoa::Buffer::new().format(number).as_bytes())?;
            }
            whole((), block)?;
        }
    }
    Some(set)
}

/// Calls `each` with the elements of a block, two at a time.
fn pairs(elements: &[listpack::Element<'_>], mut each: impl FnMut(&[u8], &[u8]) -> Option<()>) -> Option<()> {
    elements.chunks(2).try_for_each(|pair| match pair {
        [first, second] => each(first, second),
        _ => None,
    })
}

/// The elements of a block in the form that `kind` has, which is a ziplist or not.
fn block_elements<'a>(block: &'a [u8], is_ziplist: bool) -> Option<Vec<listpack::Element<'a>>> {
    if is_ziplist { listpack::ziplist(block) } else { listpack::listpack(block) }
}

fn hash(kind: u8, bytes: &mut Bytes<'_>) -> Option<Hash> {
    let mut hash = Hash::default();
    let mut put = |field: &[u8], value: &[u8]| hash.put(field, value).is_none().then_some(());
    if kind == kind::HASH {
        counted(bytes, |bytes| {
            let field = bytes.string()?;
            put(&field, &bytes.string()?)
        })?;
    } else {
        let block = bytes.string()?;
        pairs(&block_elements(&block, kind == kind::HASH_ZIPLIST)?, put)?;
    }
    Some(hash)
}

/// A hash whose fields have deadlines. One that says that it has, and none of whose fields does, is a hash like others.
fn mortal_hash(kind: u8, bytes: &mut Bytes<'_>) -> Option<Hash> {
    let mut hash = Hash::default();
    let mut put = |field: &[u8], value: &[u8], at: u64| {
        let is_new = hash.put(field, value).is_none();
        hash.set_deadline(field, NonZeroU64::new(at));
        (is_new && at <= FIELD_DEADLINE_MAX).then_some(())
    };
    let soonest = bytes.little(8)?;
    if kind == kind::HASH_DEADLINES {
        counted(bytes, |bytes| {
            let later = bytes.length()?;
            let at = if later == 0 { 0 } else { soonest.checked_add(later - 1)? };
            let field = bytes.string()?;
            put(&field, &bytes.string()?, at)
        })?;
    } else {
        let block = bytes.string()?;
        listpack::listpack(&block)?.chunks(3).try_for_each(|parts| match parts {
            [field, value, at] => put(field, value, u64::try_from(parse_integer(at)?).ok()?),
            _ => None,
        })?;
    }
    Some(hash)
}

fn sorted(kind: u8, bytes: &mut Bytes<'_>) -> Option<SortedSet> {
    let mut sorted = SortedSet::default();
    let mut put = |member: &[u8], score: f64| sorted.put(member, score).is_none().then_some(());
    match kind {
        kind::SORTED | kind::SORTED_TEXT => counted(bytes, |bytes| {
            let member = bytes.string()?;
            let score = if kind == kind::SORTED { bytes.score()? } else { bytes.score_text()? };
            put(&member, score)
        })?,
        _ => {
            let block = bytes.string()?;
            let elements = block_elements(&block, kind == kind::SORTED_ZIPLIST)?;
            pairs(&elements, |member, score| put(member, parse_float(score)?))?;
        }
    }
    Some(sorted)
}
