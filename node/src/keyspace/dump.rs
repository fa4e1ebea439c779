//! A keyspace as the effects that build it from nothing: what a snapshot holds
//! and what a slot travels as.
//!
//! A large value comes in slices, each a few effects on what those before it built.

use moonraft_proto::{Effect, StreamId, entry::FIRST_FORMAT};

use super::{Entry, Keyspace, Object, Value, libraries::Function, stream};

/// Bytes of an effect beside those of the element in it, about.
pub(super) const EFFECT_BYTES: usize = 8;

/// A string of at most this many bytes is never cut.
const WHOLE_BYTES: usize = 64 << 10;

/// Where a slice of a value begins. The first begins at the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What is before it; of a stream, which part of it is being written.
    pub(super) part: usize,
    /// Where in that part of a stream.
    pub(super) id: StreamId,
}

impl Place {
    /// Of a value that is no stream.
    const fn after(part: usize) -> Self {
        Self { part, id: StreamId::MIN }
    }
}

impl Keyspace {
    /// Calls `emit` with the effects that make this state from an empty one.
    pub fn dump(&self, mut emit: impl FnMut(&Effect<'_>)) {
        self.dump_shared(&mut emit);
        self.entries().for_each(|entry| dump_entry(entry, &mut emit));
    }

    /// The part of [`Keyspace::dump`] that is about no key: format, slots, scripts and libraries. The format comes first:
    /// who does not read it is to know before all else.
    pub fn dump_shared(&self, emit: &mut impl FnMut(&Effect<'_>)) {
        if self.format > FIRST_FORMAT {
            emit(&Effect::AgreeFormat { format: self.format });
        }
        for (first, last) in self.owned.ranges() {
            emit(&Effect::AssignSlots { first, last });
        }
        for (_, text) in self.scripts.iter() {
            emit(&Effect::ScriptLoad { text });
        }
        for (name, library) in self.libraries.iter() {
            emit(&Effect::LibraryPut { name, code: library.code() });
            for (function, Function { flags, description }) in library.functions() {
                let description = description.as_deref();
                emit(&Effect::FunctionPut { library: name, name: function, flags: *flags, description });
            }
        }
    }
}

/// Calls `emit` with the effects that make this entry.
pub fn dump_entry(entry: &Entry, emit: &mut impl FnMut(&Effect<'_>)) {
    dump_object(&entry.key, &entry.object, emit);
}

/// Calls `emit` with the effects that make `key` hold this.
pub fn dump_object(key: &[u8], object: &Object, emit: &mut impl FnMut(&Effect<'_>)) {
    let more = dump_slice(key, object, Place::default(), usize::MAX, emit);
    assert!(more.is_none(), "without a limit there is one slice");
}

/// Calls `emit` with the effects of a slice of what `key` holds: the one that begins at `place`, of about
/// `bytes_max` bytes. Returns where the next begins. Places are good as long as the object does not change.
pub fn dump_slice(
    key: &[u8],
    object: &Object,
    place: Place,
    bytes_max: usize,
    emit: &mut impl FnMut(&Effect<'_>),
) -> Option<Place> {
    let expires_at = object.deadline();
    let next = match &object.value {
        Value::Str(value) if place == Place::default() && value.len() <= bytes_max.max(WHOLE_BYTES) => {
            emit(&Effect::PutString { key, value, expires_at });
            return None;
        }
        Value::Stream(stream) => stream::dump::dump_slice(key, stream, place, bytes_max, emit),
        other => dump_elements(key, other, place.part, bytes_max, emit).map(Place::after),
    };
    if next.is_none() && expires_at.is_some() {
        emit(&Effect::SetExpiry { key, expires_at });
    }
    next
}

/// The same for what is no stream; `place` tells what is before the slice.
fn dump_elements(
    key: &[u8],
    value: &Value,
    place: usize,
    bytes_max: usize,
    emit: &mut impl FnMut(&Effect<'_>),
) -> Option<usize> {
    let mut room = Room { left: bytes_max };
    match value {
        Value::Str(value) => slice_string(key, value, place, bytes_max.max(WHOLE_BYTES), emit),
        Value::List(list) => {
            let elements = (place..).zip(list.range(place, list.len()));
            room.fill(elements, |(index, value)| {
                emit(&Effect::ListInsert { key, index: index as u64, value });
                (index + 1, value.len())
            })
        }
        Value::Hash(hash) => room.fill(hash.iter_from(place), |(next, (field, value))| {
            emit(&Effect::HashPut { key, field, value });
            let expires_at = hash.deadline(field);
            if expires_at.is_some() {
                emit(&Effect::HashExpire { key, field, expires_at });
            }
            (next, field.len() + value.len())
        }),
        Value::Set(set) => room.fill(set.iter_from(place), |(next, member)| {
            emit(&Effect::SetAdd { key, member: &member });
            (next, member.len())
        }),
        Value::Sorted(sorted) => {
            let members = (place + 1..).zip(sorted.range(place, sorted.len()));
            room.fill(members, |(next, (member, score))| {
                emit(&Effect::SortedPut { key, member, score });
                (next, member.len() + size_of::<f64>())
            })
        }
        Value::Stream(_) => unreachable!("a stream is more than its elements"),
    }
}

/// A slice of a string that is cut; `place` is how many of its bytes have been written. The last come first,
/// so that the string that is built has its length from the start, and no room beyond.
fn slice_string(
    key: &[u8],
    value: &[u8],
    place: usize,
    bytes_max: usize,
    emit: &mut impl FnMut(&Effect<'_>),
) -> Option<usize> {
    let end = value.len() - place;
    let start = end.saturating_sub(bytes_max);
    emit(&Effect::PatchString { key, offset: start as u64, bytes: &value[start..end] });
    (start > 0).then_some(value.len() - start)
}

/// Bytes that a slice may still have.
struct Room {
    left: usize,
}

impl Room {
    /// Emits elements while there is room, one at least; `emit` tells the place after each and its bytes.
    /// Returns where to go on; `None` if there is no more.
    fn fill<T>(
        &mut self,
        elements: impl Iterator<Item = T>,
        mut emit: impl FnMut(T) -> (usize, usize),
    ) -> Option<usize> {
        let mut elements = elements.peekable();
        while let Some(element) = elements.next() {
            let (next, bytes) = emit(element);
            self.left = self.left.saturating_sub(bytes + EFFECT_BYTES);
            if self.left == 0 && elements.peek().is_some() {
                return Some(next);
            }
        }
        None
    }
}
