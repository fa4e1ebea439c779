//! Writing a value.

use moonraft_proto::reply::double_text;

use super::{
    LISTPACK_BYTES_MAX, VERSION_OF_DEADLINES, VERSION_WRITTEN, kind, listpack, seal, seal_as,
    stream::put_stream,
};
use crate::keyspace::{Hash, List, Set, SortedSet, Value, integer::parse_integer};

/// The payload of a value.
pub fn dump(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Str(bytes) => {
            out.push(kind::STRING);
            put_string(&mut out, bytes);
        }
        Value::List(list) => put_list(&mut out, list),
        Value::Set(set) => put_set(&mut out, set),
        Value::Hash(hash) => put_hash(&mut out, hash),
        Value::Sorted(sorted) => put_sorted(&mut out, sorted),
        Value::Stream(stream) => put_stream(&mut out, stream),
    }
    seal_as(&mut out, if value.soonest_field().is_some() { VERSION_OF_DEADLINES } else { VERSION_WRITTEN });
    out
}

/// The payload of libraries of functions.
pub fn dump_libraries<'a>(codes: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for code in codes {
        out.push(kind::LIBRARY);
        put_string(&mut out, code);
    }
    seal(&mut out);
    out
}

pub(super) fn put_length(out: &mut Vec<u8>, length: usize) {
    match length {
        0..=0x3f => out.push(length as u8),
        0x40..=0x3fff => out.extend([0x40 | (length >> 8) as u8, length as u8]),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// A string; a small integer as its bytes.
fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    let number = parse_integer(string).and_then(|number| i32::try_from(number).ok());
    match number {
        Some(number @ -0x80..=0x7f) => out.extend([0xc0, number as u8]),
        Some(number @ -0x8000..=0x7fff) => {
            out.push(0xc1);
            out.extend_from_slice(&(number as i16).to_le_bytes());
        }
        Some(number) => {
            out.push(0xc2);
            out.extend_from_slice(&number.to_le_bytes());
        }
        None => put_bytes(out, string),
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// A list as listpacks of at most so many bytes each, but for single elements.
fn put_list(out: &mut Vec<u8>, list: &List) {
    /// The mark of a listpack.
    const PACKED: u8 = 2;
    let mut packs = Vec::new();
    let mut pack = listpack::Writer::default();
    for element in list.iter() {
        if !pack.is_empty() && pack.bytes() + listpack::entry_bytes(element) > LISTPACK_BYTES_MAX {
            packs.push(std::mem::take(&mut pack).finish());
        }
        pack.push(element);
    }
    packs.push(pack.finish());
    out.push(kind::LIST_OF_LISTPACKS);
    put_length(out, packs.len());
    for pack in packs {
        out.push(PACKED);
        put_bytes(out, &pack);
    }
}

fn put_set(out: &mut Vec<u8>, set: &Set) {
    let Some(numbers) = set.integers() else {
        out.push(kind::SET);
        put_length(out, set.len());
        return set.iter().for_each(|member| put_string(out, &member));
    };
    let fits = |least: i64, most: i64| numbers.iter().all(|number| (least..=most).contains(&number));
    let size: usize = match () {
        () if fits(i16::MIN.into(), i16::MAX.into()) => 2,
        () if fits(i32::MIN.into(), i32::MAX.into()) => 4,
        () => 8,
    };
    let mut block = Vec::with_capacity(8 + numbers.len() * size);
    block.extend_from_slice(&(size as u32).to_le_bytes());
    block.extend_from_slice(&(numbers.len() as u32).to_le_bytes());
    numbers.iter().for_each(|number| block.extend_from_slice(&number.to_le_bytes()[..size]));
    out.push(kind::SET_INTEGERS);
    put_bytes(out, &block);
}

/// A hash whose fields have deadlines, the soonest of which is this.
fn put_mortal_hash(out: &mut Vec<u8>, hash: &Hash, soonest: u64) {
    let deadline = |field| hash.deadline(field);
    if hash.is_small() {
        // Redis looks for them in this order: the soonest first, those that stay last.
        let mut fields: Vec<_> = hash.iter().collect();
        fields.sort_by_key(|(field, _)| deadline(field).unwrap_or(u64::MAX));
        let mut pack = listpack::Writer::default();
        for (field, value) in fields {
            pack.push(field);
            pack.push(value);
            pack.push(itoa::Buffer::new().format(deadline(field).unwrap_or(0)).as_bytes());
        }
        out.push(kind::HASH_DEADLINES_LISTPACK);
        out.extend_from_slice(&soonest.to_le_bytes());
        return put_bytes(out, &pack.finish());
    }
    out.push(kind::HASH_DEADLINES);
    out.extend_from_slice(&soonest.to_le_bytes());
    put_length(out, hash.len());
    for (field, value) in hash.iter() {
        // One more than what it is later, for 0 is none.
        put_length(out, deadline(field).map_or(0, |at| at - soonest + 1) as usize);
        put_string(out, field);
        put_string(out, value);
    }
}

fn put_hash(out: &mut Vec<u8>, hash: &Hash) {
    if let Some(soonest) = hash.soonest() {
        return put_mortal_hash(out, hash, soonest);
    }
    if hash.is_small() {
        let mut pack = listpack::Writer::default();
        for (field, value) in hash.iter() {
            pack.push(field);
            pack.push(value);
        }
        out.push(kind::HASH_LISTPACK);
        return put_bytes(out, &pack.finish());
    }
    out.push(kind::HASH);
    put_length(out, hash.len());
    for (field, value) in hash.iter() {
        put_string(out, field);
        put_string(out, value);
    }
}

fn put_sorted(out: &mut Vec<u8>, sorted: &SortedSet) {
    if sorted.is_small() {
        let mut pack = listpack::Writer::default();
        for (member, score) in sorted.iter() {
            pack.push(member);
            pack.push(double_text(score).as_bytes());
        }
        out.push(kind::SORTED_LISTPACK);
        return put_bytes(out, &pack.finish());
    }
    out.push(kind::SORTED);
    put_length(out, sorted.len());
    for (member, score) in sorted.iter() {
        put_string(out, member);
        out.extend_from_slice(&score.to_le_bytes());
    }
}
