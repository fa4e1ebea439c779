//! Streams: nodes as listpacks under the ids that they begin with, then what groups know.
//!
//! Written is the form of Redis 7.0, which 7.2 reads, too; read are that, the one before and the one of 7.2.
//!
//! INVARIANT: ids rise, and what is pending is so for one consumer, or the payload is refused.

use std::collections::BTreeMap;

use moonraft_proto::{
    StreamChange, StreamId,
    stream::{Ids, Pairs},
};

use super::{
    bytes::Bytes,
    kind,
    listpack::{self, Element},
    write::{put_bytes, put_length},
};
use crate::keyspace::{
    Blob, Stream,
    integer::parse_integer,
    stream::{Entry, Group, NodeLimits},
};

/// Marks of an entry: it was deleted; it has the fields of its node.
const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// Stands for a number that is unknown.
const UNKNOWN: u64 = u64::MAX;

// ---- writing ----------------------------------------------------------------------

/// A stream.
pub fn put_stream(out: &mut Vec<u8>, stream: &Stream) {
    out.push(kind::STREAM_2);
    put_length(out, stream.node_count());
    for (base, entries) in stream.nodes() {
        put_bytes(out, &raw(base));
        put_bytes(out, &node(base, entries));
    }
    put_length(out, stream.len());
    for id in [stream.last_id(), stream.first_id(), stream.max_deleted()] {
        put_id(out, id);
    }
    put_number(out, stream.added());
    put_length(out, stream.groups().len());
    for (name, group) in stream.groups() {
        put_bytes(out, name);
        put_group(out, group);
    }
}

/// An id as the 16 bytes that sort as it does.
fn raw(id: StreamId) -> [u8; 16] {
    ((u128::from(id.ms) << 64) | u128::from(id.seq)).to_be_bytes()
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    put_length(out, number as usize);
}

fn put_id(out: &mut Vec<u8>, id: StreamId) {
    put_number(out, id.ms);
    put_number(out, id.seq);
}

fn push_integer(pack: &mut listpack::Writer, number: i64) {
    pack.push(itoa::Buffer::new().format(number).as_bytes());
}

fn node<'a>(base: StreamId, entries: impl Iterator<Item = Entry<'a>> + Clone) -> Vec<u8> {
    let fields: Vec<_> =
        entries.clone().next().into_iter().flat_map(Entry::pairs).map(|(field, _)| field).collect();
    let mut pack = listpack::Writer::default();
    push_integer(&mut pack, entries.clone().count() as i64);
    push_integer(&mut pack, 0);
    push_integer(&mut pack, fields.len() as i64);
    fields.iter().for_each(|field| pack.push(field));
    push_integer(&mut pack, 0);
    for entry in entries {
        let own = entry.pairs().map(|(field, _)| field);
        let same = entry.len() == fields.len() && own.eq(fields.iter().cloned());
        push_integer(&mut pack, if same { SAME_FIELDS } else { 0 });
        push_integer(&mut pack, entry.id.ms.wrapping_sub(base.ms) as i64);
        push_integer(&mut pack, entry.id.seq.wrapping_sub(base.seq) as i64);
        let mut parts = 3 + entry.len() as i64;
        if !same {
            push_integer(&mut pack, entry.len() as i64);
            parts += 1 + entry.len() as i64;
        }
        for (field, value) in entry.pairs() {
            if !same {
                pack.push(&field);
            }
            pack.push(&value);
        }
        push_integer(&mut pack, parts);
    }
    pack.finish()
}

fn put_group(out: &mut Vec<u8>, group: &Group) {
    put_id(out, group.last_id);
    put_number(out, group.read.unwrap_or(UNKNOWN));
    put_length(out, group.pending().len());
    for (id, pending) in group.pending().iter() {
        out.extend_from_slice(&raw(id));
        out.extend_from_slice(&pending.time_ms.to_le_bytes());
        put_number(out, pending.count);
    }
    put_length(out, group.consumer_count());
    for consumer in group.consumers_from(0) {
        put_bytes(out, &consumer.name);
        out.extend_from_slice(&consumer.seen_ms.to_le_bytes());
        put_length(out, consumer.pending_count());
        consumer.pending_from(StreamId::MIN).for_each(|id| out.extend_from_slice(&raw(id)));
    }
}

// ---- reading ----------------------------------------------------------------------

/// A stream in the form that `kind` says.
pub fn stream(kind: u8, bytes: &mut Bytes<'_>) -> Option<Stream> {
    let mut stream = Stream::default();
    for _ in 0..bytes.length()? {
        let base = raw_id(&bytes.string()?)?;
        add_node(&mut stream, base, &bytes.string()?)?;
    }
    let count = bytes.length()?;
    let last_id = id(bytes)?;
    let (mut max_deleted, mut added) = (StreamId::MIN, count);
    if kind != kind::STREAM {
        id(bytes)?; // the first: it is known
        max_deleted = id(bytes)?;
        added = bytes.length()?;
    }
    if count != stream.len() as u64 || last_id < stream.last_id() {
        return None;
    }
    stream.apply(StreamChange::Set { last_id, added, max_deleted });
    for _ in 0..bytes.length()? {
        let name = bytes.string()?;
        if stream.group(&name).is_some() {
            return None;
        }
        add_group(&mut stream, kind, &name, bytes)?;
    }
    Some(stream)
}

fn id(bytes: &mut Bytes<'_>) -> Option<StreamId> {
    Some(StreamId::new(bytes.length()?, bytes.length()?))
}

fn raw_id(bytes: &[u8]) -> Option<StreamId> {
    let number = u128::from_be_bytes(bytes.try_into().ok()?);
    Some(StreamId::new((number >> 64) as u64, number as u64))
}

/// The next element, which is an integer.
fn integer<'a>(elements: &mut impl Iterator<Item = Element<'a>>) -> Option<i64> {
    parse_integer(&elements.next()?)
}

/// A count that the elements that follow can have.
fn count<'a>(elements: &mut (impl ExactSizeIterator<Item = Element<'a>> + Clone)) -> Option<usize> {
    let count = usize::try_from(parse_integer(&elements.next()?)?).ok()?;
    (count <= elements.len()).then_some(count)
}

/// Adds the entries of a listpack, which are a node.
fn add_node(stream: &mut Stream, base: StreamId, block: &[u8]) -> Option<()> {
    let mut elements = listpack::listpack(block)?.into_iter();
    let (live, deleted) = (integer(&mut elements)?, integer(&mut elements)?);
    let shared_count = count(&mut elements)?;
    let shared: Vec<_> = elements.by_ref().take(shared_count).collect();
    let mut scratch = Vec::new();
    (integer(&mut elements)? == 0).then_some(())?;
    let (mut seen, mut gone) = (0, 0);
    while elements.len() > 0 {
        let marks = integer(&mut elements)?;
        let (ms, seq) = (integer(&mut elements)?, integer(&mut elements)?);
        let id = StreamId::new(base.ms.wrapping_add(ms as u64), base.seq.wrapping_add(seq as u64));
        let same = marks & SAME_FIELDS != 0;
        let own_count = if same { shared_count } else { count(&mut elements)? };
        let own: Vec<_> = elements.by_ref().take(if same { own_count } else { own_count * 2 }).collect();
        integer(&mut elements)?; // for walking backwards
        if marks & DELETED != 0 {
            gone += 1;
            continue;
        }
        let words: Vec<&[u8]> = match same {
            true => shared.iter().zip(&own).flat_map(|(field, value)| [&**field, &**value]).collect(),
            false => own.iter().map(|text| &**text).collect(),
        };
        if words.is_empty() || words.len() != own_count * 2 || id <= stream.last_id() {
            return None;
        }
        let fields = Pairs::write(&words, &mut scratch);
        // No node is larger than one that entries are added to, whatever the payload's are.
        let text_bytes = words.iter().map(|word| word.len()).sum();
        let begins_node = seen == 0 || stream.begins_node(text_bytes, NodeLimits::LARGEST);
        stream.apply(StreamChange::Add { id, fields, begins_node });
        seen += 1;
    }
    (seen == live && gone == deleted && seen + gone > 0).then_some(())
}

fn add_group(stream: &mut Stream, kind: u8, group: &[u8], bytes: &mut Bytes<'_>) -> Option<()> {
    let last_id = id(bytes)?;
    let read = match kind {
        kind::STREAM => stream.read_up_to(last_id),
        _ => Some(bytes.length()?).filter(|&read| i64::try_from(read).is_ok()),
    };
    stream.apply(StreamChange::GroupSet { group, last_id, read });

    let mut pending = BTreeMap::new();
    for _ in 0..bytes.length()? {
        let id = raw_id(bytes.take(16)?)?;
        let delivered = (bytes.little(8)?, bytes.length()?);
        pending.insert(id, delivered).is_none().then_some(())?;
    }
    let mut scratch = Vec::new();
    for _ in 0..bytes.length()? {
        let consumer = Blob::new(&bytes.string()?);
        let seen_ms = bytes.little(8)?;
        let active_ms = match kind {
            // As Redis takes it for what does not tell.
            kind::STREAM | kind::STREAM_2 => Some(seen_ms),
            _ => Some(bytes.little(8)?).filter(|&at| at != UNKNOWN),
        };
        if stream.group(group)?.consumer(&consumer).is_some() {
            return None;
        }
        stream.apply(StreamChange::ConsumerSet { group, consumer: &consumer, seen_ms, active_ms });
        for _ in 0..bytes.length()? {
            let id = raw_id(bytes.take(16)?)?;
            let (time_ms, count) = pending.remove(&id)?;
            let ids = Ids::write([id], &mut scratch);
            stream.apply(StreamChange::PendingSet { group, consumer: &consumer, time_ms, count, ids });
        }
    }
    pending.is_empty().then_some(())
}
