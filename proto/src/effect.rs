//! The typed changes of a keyspace, and their bytes.
//!
//! An effect says *what the state becomes*, never what was asked: it holds no
//! condition, no clock reading that has not been taken, no choice left open. The
//! leader executes a command once and emits effects; followers apply them, the
//! log stores them, and a snapshot is nothing but the effects that build the
//! state from nothing.
//!
//! Invariants:
//! * Applying an effect cannot fail and depends on nothing but the state before
//!   it: an effect that does not fit its key's type is a broken invariant.
//! * An effect changes one thing (one field, one member, one element), so that
//!   its undo costs what the change costs. A command that changes many emits
//!   many; bytes of a key repeated from the effect before are left out.
//! * A tag is never used again with another meaning. A new effect is a new tag
//!   and a new [`crate::entry::NEWEST_FORMAT`], which [`Effect::format`] tells: so
//!   a leader does not emit it before all members of its group know it, and an older
//!   node that meets it stops with a clear message instead of misreading it.
//!
//! A container comes into being with its first element and goes with its last.

mod stream;

use bytes::BufMut;

pub use self::stream::StreamChange;

use crate::{
    DecodeError,
    entry::FIRST_FORMAT,
    wire::{self, Reader},
};

/// A change of the keyspace. Byte strings are borrowed: from the request where
/// it is emitted, from the entry where it is applied.
///
/// Deadlines are Unix times in milliseconds.
#[allow(missing_docs, reason = "a variant's sentence tells of its fields")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect<'a> {
    /// The key holds this string and this deadline, whatever it held before.
    PutString { key: &'a [u8], value: &'a [u8], expires_at: Option<u64> },
    /// The key is gone.
    Remove { key: &'a [u8] },
    /// The key has this deadline, or none.
    SetExpiry { key: &'a [u8], expires_at: Option<u64> },
    /// These bytes stand at `offset` of the string, which is created and grows
    /// with zero bytes as needed.
    PatchString { key: &'a [u8], offset: u64, bytes: &'a [u8] },
    /// The hash has this field with this value, and without a deadline.
    HashPut { key: &'a [u8], field: &'a [u8], value: &'a [u8] },
    /// The hash lacks this field.
    HashRemove { key: &'a [u8], field: &'a [u8] },
    /// The field of the hash, which is there, has this deadline, or none.
    HashExpire { key: &'a [u8], field: &'a [u8], expires_at: Option<u64> },
    /// The set has this member.
    SetAdd { key: &'a [u8], member: &'a [u8] },
    /// The set lacks this member.
    SetRemove { key: &'a [u8], member: &'a [u8] },
    /// The sorted set has this member with this score (never NaN).
    SortedPut { key: &'a [u8], member: &'a [u8], score: f64 },
    /// The sorted set lacks this member.
    SortedRemove { key: &'a [u8], member: &'a [u8] },
    /// The element comes in before position `index` (0: first; length: last).
    ListInsert { key: &'a [u8], index: u64, value: &'a [u8] },
    /// The element at `index` becomes this one.
    ListSet { key: &'a [u8], index: u64, value: &'a [u8] },
    /// `count` elements go, the first of them at `index`.
    ListRemove { key: &'a [u8], index: u64, count: u64 },
    /// What `key` holds, deadline included, moves to `to` and replaces what was there.
    Rename { key: &'a [u8], to: &'a [u8] },
    /// What `key` holds, deadline included, is also at `to`.
    Copy { key: &'a [u8], to: &'a [u8] },
    /// All keys of these slots are gone. Ends included.
    ClearSlots { first: u16, last: u16 },
    /// The shard serves these slots from now on. Ends included.
    AssignSlots { first: u16, last: u16 },
    /// The shard serves these slots no more. Ends included.
    ReleaseSlots { first: u16, last: u16 },
    /// The script is known by the SHA-1 of its text.
    ScriptLoad { text: &'a [u8] },
    /// No script is known.
    ScriptFlush,
    /// All members of the group read this format, so from here on the log may hold it.
    AgreeFormat { format: u8 },
    /// The library is known by this name, with this text and no functions yet.
    LibraryPut { name: &'a [u8], code: &'a [u8] },
    /// The library, which is known, has this function; the flags are bits.
    FunctionPut { library: &'a [u8], name: &'a [u8], flags: u8, description: Option<&'a [u8]> },
    /// No library is known by this name.
    LibraryRemove { name: &'a [u8] },
    /// The stream, which is created if it is not there, changes so.
    Stream { key: &'a [u8], change: StreamChange<'a> },
}

mod tag {
    pub const PUT_STRING: u8 = 1;
    pub const REMOVE: u8 = 2;
    pub const SET_EXPIRY: u8 = 3;
    pub const PATCH_STRING: u8 = 4;
    pub const HASH_PUT: u8 = 5;
    pub const HASH_REMOVE: u8 = 6;
    pub const SET_ADD: u8 = 7;
    pub const SET_REMOVE: u8 = 8;
    pub const SORTED_PUT: u8 = 9;
    pub const SORTED_REMOVE: u8 = 10;
    pub const LIST_INSERT: u8 = 11;
    pub const LIST_SET: u8 = 12;
    pub const LIST_REMOVE: u8 = 13;
    pub const RENAME: u8 = 14;
    pub const COPY: u8 = 15;
    pub const CLEAR_SLOTS: u8 = 16;
    pub const ASSIGN_SLOTS: u8 = 17;
    pub const RELEASE_SLOTS: u8 = 18;
    pub const SCRIPT_LOAD: u8 = 19;
    pub const SCRIPT_FLUSH: u8 = 20;
    pub const AGREE_FORMAT: u8 = 21;
    pub const LIBRARY_PUT: u8 = 48;
    pub const FUNCTION_PUT: u8 = 49;
    pub const LIBRARY_REMOVE: u8 = 50;
    pub const HASH_EXPIRE: u8 = 51;
    /// Set on a tag whose key is that of the effect before.
    pub const SAME_KEY: u8 = 0x80;
}

/// The [format](crate::entry) that came with streams.
pub const STREAMS_FORMAT: u8 = 3;
/// The [format](crate::entry) that came with libraries of functions.
pub const LIBRARIES_FORMAT: u8 = 3;
/// The [format](crate::entry) that came with deadlines of fields.
pub const FIELD_DEADLINES_FORMAT: u8 = 4;

impl<'a> Effect<'a> {
    /// The key that it changes; the source of a rename or copy. `None` if it is
    /// about slots, scripts, libraries or formats.
    pub const fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Effect::PutString { key, .. }
            | Effect::Remove { key }
            | Effect::SetExpiry { key, .. }
            | Effect::PatchString { key, .. }
            | Effect::HashPut { key, .. }
            | Effect::HashRemove { key, .. }
            | Effect::HashExpire { key, .. }
            | Effect::SetAdd { key, .. }
            | Effect::SetRemove { key, .. }
            | Effect::SortedPut { key, .. }
            | Effect::SortedRemove { key, .. }
            | Effect::ListInsert { key, .. }
            | Effect::ListSet { key, .. }
            | Effect::ListRemove { key, .. }
            | Effect::Rename { key, .. }
            | Effect::Copy { key, .. }
            | Effect::Stream { key, .. } => Some(key),
            _ => None,
        }
    }

    const fn tag(&self) -> u8 {
        match self {
            Effect::PutString { .. } => tag::PUT_STRING,
            Effect::Remove { .. } => tag::REMOVE,
            Effect::SetExpiry { .. } => tag::SET_EXPIRY,
            Effect::PatchString { .. } => tag::PATCH_STRING,
            Effect::HashPut { .. } => tag::HASH_PUT,
            Effect::HashRemove { .. } => tag::HASH_REMOVE,
            Effect::HashExpire { .. } => tag::HASH_EXPIRE,
            Effect::SetAdd { .. } => tag::SET_ADD,
            Effect::SetRemove { .. } => tag::SET_REMOVE,
            Effect::SortedPut { .. } => tag::SORTED_PUT,
            Effect::SortedRemove { .. } => tag::SORTED_REMOVE,
            Effect::ListInsert { .. } => tag::LIST_INSERT,
            Effect::ListSet { .. } => tag::LIST_SET,
            Effect::ListRemove { .. } => tag::LIST_REMOVE,
            Effect::Rename { .. } => tag::RENAME,
            Effect::Copy { .. } => tag::COPY,
            Effect::ClearSlots { .. } => tag::CLEAR_SLOTS,
            Effect::AssignSlots { .. } => tag::ASSIGN_SLOTS,
            Effect::ReleaseSlots { .. } => tag::RELEASE_SLOTS,
            Effect::ScriptLoad { .. } => tag::SCRIPT_LOAD,
            Effect::ScriptFlush => tag::SCRIPT_FLUSH,
            Effect::AgreeFormat { .. } => tag::AGREE_FORMAT,
            Effect::LibraryPut { .. } => tag::LIBRARY_PUT,
            Effect::FunctionPut { .. } => tag::FUNCTION_PUT,
            Effect::LibraryRemove { .. } => tag::LIBRARY_REMOVE,
            Effect::Stream { change, .. } => change.tag(),
        }
    }

    /// The oldest [format](crate::entry) that has it. That of an agreement is the one that is agreed on: who does
    /// not read that must not go on.
    pub const fn format(&self) -> u8 {
        match *self {
            Effect::AgreeFormat { format } => format,
            Effect::LibraryPut { .. } | Effect::FunctionPut { .. } | Effect::LibraryRemove { .. } => {
                LIBRARIES_FORMAT
            }
            Effect::Stream { .. } => STREAMS_FORMAT,
            Effect::HashExpire { .. } => FIELD_DEADLINES_FORMAT,
            _ => FIRST_FORMAT,
        }
    }

    /// Appends the effect, its key left out if it is `previous`, the key of the
    /// keyed effect before it in the same sequence.
    pub fn encode(&self, previous: Option<&[u8]>, out: &mut impl BufMut) {
        match self.key() {
            Some(key) if previous == Some(key) => out.put_u8(self.tag() | tag::SAME_KEY),
            Some(key) => {
                out.put_u8(self.tag());
                wire::put_bytes(out, key);
            }
            None => out.put_u8(self.tag()),
        }
        match *self {
            Effect::PutString { value, expires_at, .. } => {
                put_deadline(out, expires_at);
                wire::put_bytes(out, value);
            }
            Effect::SetExpiry { expires_at, .. } => put_deadline(out, expires_at),
            Effect::PatchString { offset, bytes, .. } => {
                wire::put_uint(out, offset);
                wire::put_bytes(out, bytes);
            }
            Effect::HashPut { field, value, .. } => {
                wire::put_bytes(out, field);
                wire::put_bytes(out, value);
            }
            Effect::HashExpire { field, expires_at, .. } => {
                put_deadline(out, expires_at);
                wire::put_bytes(out, field);
            }
            Effect::HashRemove { field: name, .. }
            | Effect::SetAdd { member: name, .. }
            | Effect::SetRemove { member: name, .. }
            | Effect::SortedRemove { member: name, .. }
            | Effect::Rename { to: name, .. }
            | Effect::Copy { to: name, .. }
            | Effect::ScriptLoad { text: name }
            | Effect::LibraryRemove { name } => wire::put_bytes(out, name),
            Effect::SortedPut { member, score, .. } => {
                wire::put_bytes(out, member);
                out.put_f64_le(score);
            }
            Effect::ListInsert { index, value, .. } | Effect::ListSet { index, value, .. } => {
                wire::put_uint(out, index);
                wire::put_bytes(out, value);
            }
            Effect::ListRemove { index, count, .. } => {
                wire::put_uint(out, index);
                wire::put_uint(out, count);
            }
            Effect::ClearSlots { first, last }
            | Effect::AssignSlots { first, last }
            | Effect::ReleaseSlots { first, last } => {
                wire::put_uint(out, first.into());
                wire::put_uint(out, last.into());
            }
            Effect::AgreeFormat { format } => out.put_u8(format),
            Effect::LibraryPut { name, code } => {
                wire::put_bytes(out, name);
                wire::put_bytes(out, code);
            }
            Effect::FunctionPut { library, name, flags, description } => {
                wire::put_bytes(out, library);
                wire::put_bytes(out, name);
                out.put_u8(flags);
                out.put_u8(description.is_some().into());
                description.into_iter().for_each(|text| wire::put_bytes(out, text));
            }
            Effect::Remove { .. } | Effect::ScriptFlush => {}
            Effect::Stream { change, .. } => change.encode(out),
        }
    }
}

/// A deadline is never 0, so 0 stands for none.
fn put_deadline(out: &mut impl BufMut, expires_at: Option<u64>) {
    wire::put_uint(out, expires_at.unwrap_or(0));
}

/// Reads a sequence of effects.
#[derive(Clone, Copy, Debug)]
pub struct Effects<'a> {
    format: u8,
    reader: Reader<'a>,
    previous: Option<&'a [u8]>,
}

impl<'a> Effects<'a> {
    /// Reads the effects that fill `bytes`, which are of this format.
    pub const fn new(format: u8, bytes: &'a [u8]) -> Self {
        Self { format, reader: Reader::new(bytes), previous: None }
    }

    /// Reads on from a place where others stopped.
    pub(crate) const fn resumed(format: u8, bytes: &'a [u8], previous: Option<&'a [u8]>) -> Self {
        Self { format, reader: Reader::new(bytes), previous }
    }

    /// The bytes that are left, and the key of the last effect that had one.
    pub(crate) const fn state(&self) -> (&'a [u8], Option<&'a [u8]>) {
        (self.reader.rest(), self.previous)
    }

    fn decode(&mut self) -> Result<Effect<'a>, DecodeError> {
        let byte = self.reader.byte()?;
        let kind = byte & !tag::SAME_KEY;
        let keyed = (tag::PUT_STRING..=tag::COPY).contains(&kind)
            || kind == tag::HASH_EXPIRE
            || stream::is_of_stream(kind);
        if !keyed {
            return self.decode_unkeyed(byte);
        }
        let key = if byte & tag::SAME_KEY == 0 {
            self.reader.bytes()?
        } else {
            self.previous.ok_or(DecodeError::new("an effect repeats a key that is not there"))?
        };
        self.previous = Some(key);
        self.decode_keyed(kind, key)
    }

    fn decode_keyed(&mut self, kind: u8, key: &'a [u8]) -> Result<Effect<'a>, DecodeError> {
        let reader = &mut self.reader;
        Ok(match kind {
            tag::PUT_STRING => {
                let expires_at = deadline(reader)?;
                Effect::PutString { key, value: reader.bytes()?, expires_at }
            }
            tag::REMOVE => Effect::Remove { key },
            tag::SET_EXPIRY => Effect::SetExpiry { key, expires_at: deadline(reader)? },
            tag::PATCH_STRING => Effect::PatchString { key, offset: reader.uint()?, bytes: reader.bytes()? },
            tag::HASH_PUT => Effect::HashPut { key, field: reader.bytes()?, value: reader.bytes()? },
            tag::HASH_REMOVE => Effect::HashRemove { key, field: reader.bytes()? },
            tag::HASH_EXPIRE => {
                let expires_at = deadline(reader)?;
                Effect::HashExpire { key, field: reader.bytes()?, expires_at }
            }
            tag::SET_ADD => Effect::SetAdd { key, member: reader.bytes()? },
            tag::SET_REMOVE => Effect::SetRemove { key, member: reader.bytes()? },
            tag::SORTED_PUT => Effect::SortedPut { key, member: reader.bytes()?, score: reader.double()? },
            tag::SORTED_REMOVE => Effect::SortedRemove { key, member: reader.bytes()? },
            tag::LIST_INSERT => Effect::ListInsert { key, index: reader.uint()?, value: reader.bytes()? },
            tag::LIST_SET => Effect::ListSet { key, index: reader.uint()?, value: reader.bytes()? },
            tag::LIST_REMOVE => Effect::ListRemove { key, index: reader.uint()?, count: reader.uint()? },
            tag::RENAME => Effect::Rename { key, to: reader.bytes()? },
            tag::COPY => Effect::Copy { key, to: reader.bytes()? },
            _ => Effect::Stream { key, change: StreamChange::decode(kind, reader)? },
        })
    }

    fn decode_unkeyed(&mut self, kind: u8) -> Result<Effect<'a>, DecodeError> {
        Ok(match kind {
            tag::CLEAR_SLOTS => {
                let (first, last) = slots(&mut self.reader)?;
                Effect::ClearSlots { first, last }
            }
            tag::ASSIGN_SLOTS => {
                let (first, last) = slots(&mut self.reader)?;
                Effect::AssignSlots { first, last }
            }
            tag::RELEASE_SLOTS => {
                let (first, last) = slots(&mut self.reader)?;
                Effect::ReleaseSlots { first, last }
            }
            tag::SCRIPT_LOAD => Effect::ScriptLoad { text: self.reader.bytes()? },
            tag::SCRIPT_FLUSH => Effect::ScriptFlush,
            tag::AGREE_FORMAT => Effect::AgreeFormat { format: self.reader.byte()? },
            tag::LIBRARY_PUT => Effect::LibraryPut { name: self.reader.bytes()?, code: self.reader.bytes()? },
            tag::FUNCTION_PUT => {
                let (library, name) = (self.reader.bytes()?, self.reader.bytes()?);
                let (flags, is_described) = (self.reader.byte()?, self.reader.byte()? != 0);
                let description = if is_described { Some(self.reader.bytes()?) } else { None };
                Effect::FunctionPut { library, name, flags, description }
            }
            tag::LIBRARY_REMOVE => Effect::LibraryRemove { name: self.reader.bytes()? },
            _ => return Err(unknown(kind)),
        })
    }
}

impl<'a> Iterator for Effects<'a> {
    type Item = Result<Effect<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let format = self.format;
        let effect = self.decode().and_then(|effect| match effect.format() {
            needed if needed <= format => Ok(effect),
            needed => Err(too_new(needed, format)),
        });
        if effect.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(effect)
    }
}

fn deadline(reader: &mut Reader<'_>) -> Result<Option<u64>, DecodeError> {
    Ok(Some(reader.uint()?).filter(|&at| at != 0))
}

fn slots(reader: &mut Reader<'_>) -> Result<(u16, u16), DecodeError> {
    const LAST: u64 = 16383;
    let (first, last) = (reader.uint()?, reader.uint()?);
    if first > last || last > LAST {
        return Err(DecodeError::new("slots out of range"));
    }
    Ok((first as u16, last as u16))
}

/// A build that only knows the batch's format would misread it.
fn too_new(needed: u8, format: u8) -> DecodeError {
    DecodeError(format!("an effect of format {needed} in a batch of format {format}").into())
}

fn unknown(kind: u8) -> DecodeError {
    DecodeError(format!("unknown effect {kind}").into())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        entry::NEWEST_FORMAT,
        stream::{Ids, Pairs, StreamId},
    };

    /// An effect that owns what it says, to be generated.
    #[derive(Clone, Debug)]
    pub(crate) struct Owned(u8, Vec<u8>, Vec<u8>, Vec<u8>, u64, u64, f64, Sequences);

    /// The bytes of fields and of ids.
    #[derive(Clone, Debug)]
    struct Sequences {
        fields: Vec<u8>,
        ids: Vec<u8>,
    }

    impl Owned {
        pub(crate) fn effect(&self) -> Effect<'_> {
            let Owned(kind, key, a, b, n, m, score, sequences) = self;
            let (key, &index, &count, &score) = (key.as_slice(), n, m, score);
            let expires_at = Some(index).filter(|&at| at != 0);
            let (first, last) = ((n % 16384) as u16, 16383);
            match kind {
                0 => Effect::PutString { key, value: a, expires_at },
                1 => Effect::Remove { key },
                2 => Effect::SetExpiry { key, expires_at },
                3 => Effect::PatchString { key, offset: index, bytes: a },
                4 => Effect::HashPut { key, field: a, value: b },
                5 => Effect::HashRemove { key, field: a },
                6 => Effect::SetAdd { key, member: a },
                7 => Effect::SetRemove { key, member: a },
                8 => Effect::SortedPut { key, member: a, score },
                9 => Effect::SortedRemove { key, member: a },
                10 => Effect::ListInsert { key, index, value: a },
                11 => Effect::ListSet { key, index, value: a },
                12 => Effect::ListRemove { key, index, count },
                13 => Effect::Rename { key, to: a },
                14 => Effect::Copy { key, to: a },
                15 => Effect::ClearSlots { first, last },
                16 => Effect::AssignSlots { first, last },
                17 => Effect::ReleaseSlots { first, last },
                18 => Effect::ScriptLoad { text: a },
                19 => Effect::AgreeFormat { format: 2 },
                20 => Effect::ScriptFlush,
                31 => Effect::LibraryPut { name: a, code: b },
                32 => {
                    let description = (n % 2 == 0).then_some(&**b);
                    Effect::FunctionPut { library: key, name: a, flags: *m as u8, description }
                }
                33 => Effect::LibraryRemove { name: a },
                34 => Effect::HashExpire { key, field: a, expires_at },
                _ => self.effect_of_stream(sequences),
            }
        }

        fn effect_of_stream<'a>(&'a self, sequences: &'a Sequences) -> Effect<'a> {
            let Owned(kind, key, a, b, n, m, ..) = self;
            let (key, group, consumer) = (key.as_slice(), a.as_slice(), b.as_slice());
            let (id, known) = (StreamId::new(*n, *m), Some(*n).filter(|n| n.is_multiple_of(2)));
            let fields = Pairs::read(&sequences.fields).expect("it was written");
            let ids = Ids::read(&sequences.ids).expect("it was written");
            let change = match kind {
                21 => StreamChange::Add { id, fields, begins_node: n.is_multiple_of(2) },
                22 => StreamChange::Delete { id },
                23 => StreamChange::Trim { count: *n },
                24 => StreamChange::Set { last_id: id, added: *n, max_deleted: id },
                25 => StreamChange::GroupSet { group, last_id: id, read: known },
                26 => StreamChange::GroupRemove { group },
                27 => StreamChange::ConsumerSet { group, consumer, seen_ms: *m, active_ms: known },
                28 => StreamChange::ConsumerRemove { group, consumer },
                29 => StreamChange::PendingSet { group, consumer, time_ms: *n, count: *m, ids },
                _ => StreamChange::PendingRemove { group, ids },
            };
            change.of(key)
        }
    }

    pub(crate) fn any_effect() -> impl Strategy<Value = Owned> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..20);
        let key = prop_oneof![Just(b"k".to_vec()), bytes()];
        let number = prop_oneof![0_u64..3, any::<u64>()];
        (0_u8..35, key, bytes(), bytes(), number, any::<u64>(), -1e9..1e9).prop_map(
            |(kind, key, a, b, n, m, score)| {
                let (mut fields, mut ids) = (Vec::new(), Vec::new());
                Pairs::write(&[&*a, &*b], &mut fields);
                Ids::write([StreamId::new(n, m), StreamId::new(m, n)], &mut ids);
                Owned(kind, key, a, b, n, m, score, Sequences { fields, ids })
            },
        )
    }

    proptest! {
        #[test]
        fn decoding_gives_what_was_encoded(effects in prop::collection::vec(any_effect(), 0..20)) {
            let mut out = Vec::new();
            let mut previous = None;
            for owned in &effects {
                owned.effect().encode(previous, &mut out);
                previous = owned.effect().key().or(previous);
            }
            let decoded: Result<Vec<_>, _> = Effects::new(NEWEST_FORMAT, &out).collect();
            let expected: Vec<_> = effects.iter().map(Owned::effect).collect();
            prop_assert_eq!(decoded, Ok(expected));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            for effect in Effects::new(NEWEST_FORMAT, &bytes) {
                let _ = effect;
            }
        }
    }
}
