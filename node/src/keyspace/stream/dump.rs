//! A stream as the effects that build it: entries, then groups, of each its consumers and what is pending.

use moonraft_proto::{
    Effect, StreamChange, StreamId,
    stream::{Ids, Pairs},
};

use super::{Group, Stream};
use crate::keyspace::dump::{EFFECT_BYTES, Place};

/// Entries of one effect at most.
const RUN_MAX: usize = 1024;

/// Bytes of an id in an effect, about.
const ID_BYTES: usize = 4;

/// The part of the entries; that of a group's consumers, from which that of its pending entries follows.
const ENTRIES: usize = 0;
const fn consumers_of(group: usize) -> usize {
    1 + 2 * group
}

/// A slice that is being written.
struct Slice<'e, E> {
    key: &'e [u8],
    left: usize,
    emit: &'e mut E,
}

impl<E: FnMut(&Effect<'_>)> Slice<'_, E> {
    fn emit(&mut self, effect: &Effect<'_>, bytes: usize) {
        (self.emit)(effect);
        self.left = self.left.saturating_sub(bytes + EFFECT_BYTES);
    }
}

/// Calls `emit` with the effects of the slice that begins at `place`: see [`crate::keyspace::dump::dump_slice`].
pub fn dump_slice(
    key: &[u8],
    stream: &Stream,
    place: Place,
    bytes_max: usize,
    emit: &mut impl FnMut(&Effect<'_>),
) -> Option<Place> {
    let mut slice = Slice { key, left: bytes_max, emit };
    let mut place = place;
    if place.part == ENTRIES {
        if let Some(id) = entries(stream, place.id, &mut slice) {
            return Some(Place { part: ENTRIES, id });
        }
        let (last_id, added, max_deleted) = (stream.last_id(), stream.added(), stream.max_deleted());
        slice.emit(&StreamChange::Set { last_id, added, max_deleted }.of(key), 0);
        place = Place { part: consumers_of(0), id: StreamId::MIN };
    }
    let first = (place.part - consumers_of(0)) / 2;
    for (at, (name, group)) in stream.groups().enumerate().skip(first) {
        let part = consumers_of(at);
        if place.part == part {
            if let Some(next) = consumers(name, group, place.id.ms as usize, &mut slice) {
                return Some(Place { part, id: StreamId::new(next as u64, 0) });
            }
            place.id = StreamId::MIN;
        }
        if let Some(id) = pending(name, group, place.id, &mut slice) {
            return Some(Place { part: part + 1, id });
        }
        place = Place { part: consumers_of(at + 1), id: StreamId::MIN };
    }
    None
}

/// Entries from an id on. Returns that of the next.
fn entries<E: FnMut(&Effect<'_>)>(
    stream: &Stream,
    from: StreamId,
    slice: &mut Slice<'_, E>,
) -> Option<StreamId> {
    let mut scratch = Vec::new();
    for (begins_node, entry) in stream.entries_from(from) {
        if slice.left == 0 {
            return Some(entry.id);
        }
        let texts: Vec<_> = entry.pairs().flat_map(|(field, value)| [field, value]).collect();
        let words: Vec<&[u8]> = texts.iter().map(|text| &**text).collect();
        let fields = Pairs::write(&words, &mut scratch);
        let effect = StreamChange::Add { id: entry.id, fields, begins_node }.of(slice.key);
        slice.emit(&effect, fields.bytes().len());
    }
    None
}

/// A group and its consumers from the one at `from` on. Returns the place of the next.
fn consumers<E: FnMut(&Effect<'_>)>(
    name: &[u8],
    group: &Group,
    from: usize,
    slice: &mut Slice<'_, E>,
) -> Option<usize> {
    let key = slice.key;
    if from == 0 {
        let effect = StreamChange::GroupSet { group: name, last_id: group.last_id, read: group.read }.of(key);
        slice.emit(&effect, name.len());
    }
    for (at, consumer) in (from..).zip(group.consumers_from(from)) {
        if slice.left == 0 {
            return Some(at);
        }
        let (seen_ms, active_ms) = (consumer.seen_ms, consumer.active_ms);
        let bytes = name.len() + consumer.name.len();
        let consumer = &*consumer.name;
        slice.emit(&StreamChange::ConsumerSet { group: name, consumer, seen_ms, active_ms }.of(key), bytes);
    }
    None
}

/// What is pending in a group from an id on, in runs that were delivered together. Returns the id of the next.
fn pending<E: FnMut(&Effect<'_>)>(
    name: &[u8],
    group: &Group,
    from: StreamId,
    slice: &mut Slice<'_, E>,
) -> Option<StreamId> {
    let key = slice.key;
    let mut all = group.pending().iter_from(from).peekable();
    let (mut run, mut scratch) = (Vec::new(), Vec::new());
    while let Some((id, first)) = all.next() {
        if slice.left == 0 {
            return Some(id);
        }
        run.clear();
        run.push(id);
        while let Some((id, _)) = all.next_if(|(_, next)| *next == first && run.len() < RUN_MAX) {
            run.push(id);
        }
        let consumer = &*group.consumer_of(first).name;
        let bytes = name.len() + consumer.len() + run.len() * ID_BYTES;
        let ids = Ids::write(run.iter().copied(), &mut scratch);
        let (time_ms, count) = (first.time_ms, first.count);
        slice.emit(&StreamChange::PendingSet { group: name, consumer, time_ms, count, ids }.of(key), bytes);
    }
    None
}
