//! Random effects that fit the state they meet.

use moonraft_proto::{
    Effect, StreamChange, StreamId,
    entry::NEWEST_FORMAT,
    stream::{Ids, Pairs},
};
use moonraft_router::SLOT_COUNT;
use proptest::prelude::*;

use crate::keyspace::{Keyspace, Stream, Value};

/// Few enough to meet often; two slots are shared, and one key is not inline.
pub const KEYS: &[&[u8]] =
    &[b"{t}a", b"{t}b", b"{u}a", b"{u}b", b"c", b"", b"a key that is longer than what fits inline"];

/// What to do, if it fits; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub struct Choice {
    kind: u8,
    key: usize,
    to: usize,
    name: Vec<u8>,
    value: Vec<u8>,
    number: u64,
    count: u64,
    score: f64,
    /// The bytes of fields and of ids.
    fields: Vec<u8>,
    ids: Vec<u8>,
}

/// Kinds of effects, as [`Choice::fit`] numbers them.
const KINDS: u8 = 46;

pub fn any_choice() -> impl Strategy<Value = Choice> {
    // Few names, so that they are met again; numbers make sets of integers, and
    // the long one makes any container a large one.
    let name = prop_oneof![
        4 => (0_u8..12).prop_map(|number| number.to_string().into_bytes()),
        4 => prop::collection::vec(b'a'..b'd', 0..3),
        1 => prop::collection::vec(any::<u8>(), 20..30),
        1 => Just(vec![b'x'; 70]),
    ];
    let value =
        prop_oneof![prop::collection::vec(any::<u8>(), 0..6), prop::collection::vec(any::<u8>(), 20..90),];
    let score = prop_oneof![(-3_i8..3).prop_map(f64::from), -1e3..1e3, Just(f64::INFINITY), Just(-0.0)];
    let numbers = (any::<u64>(), any::<u64>(), score);
    (0..KINDS, 0..KEYS.len(), 0..KEYS.len(), name, value, numbers).prop_map(
        |(kind, key, to, name, value, (number, count, score))| {
            let (mut fields, mut ids) = (Vec::new(), Vec::new());
            let words: [&[u8]; 4] = [b"f", &value, &name, &value];
            Pairs::write(&words[..if number.is_multiple_of(5) { 4 } else { 2 }], &mut fields);
            // Small ones, and in no order; some twice.
            Ids::write([number, count, score as u64].map(|ms| StreamId::new(ms % 40, ms % 2)), &mut ids);
            Choice { kind, key, to, name, value, number, count, score, fields, ids }
        },
    )
}

pub fn any_choices() -> impl Strategy<Value = Vec<Choice>> {
    prop::collection::vec(any_choice(), 0..150)
}

impl Choice {
    /// The effect that it is on this state; `None` if it does not fit.
    pub fn fit(&self, keyspace: &Keyspace) -> Option<Effect<'_>> {
        let (key, to) = (KEYS[self.key], KEYS[self.to]);
        let held = keyspace.get(key).map(|object| &object.value);
        // 0 is no deadline.
        let expires_at = Some(self.number % 9).filter(|&at| at != 0);
        let (name, value) = (self.name.as_slice(), self.value.as_slice());
        let slots = || {
            let first = self.number % u64::from(SLOT_COUNT);
            let last = first + self.count % (u64::from(SLOT_COUNT) - first);
            (first as u16, last as u16)
        };
        Some(match self.kind {
            0 => Effect::PutString { key, value, expires_at },
            1 => Effect::Remove { key },
            2 if held.is_some() => Effect::SetExpiry { key, expires_at },
            3 if held.is_some() => Effect::Rename { key, to },
            4 if held.is_some() => Effect::Copy { key, to },
            5..=14 => return self.fit_inside(key, held),
            15 => {
                let (first, last) = slots();
                Effect::ClearSlots { first, last }
            }
            16 => {
                let (first, last) = slots();
                Effect::AssignSlots { first, last }
            }
            17 => {
                let (first, last) = slots();
                Effect::ReleaseSlots { first, last }
            }
            18 => Effect::ScriptLoad { text: name },
            19 if self.count.is_multiple_of(4) => Effect::ScriptFlush,
            20 => Effect::AgreeFormat { format: NEWEST_FORMAT },
            21.. if keyspace.agreed_format() < NEWEST_FORMAT => Effect::AgreeFormat { format: NEWEST_FORMAT },
            43.. => return self.fit_field(key, held),
            40.. => return self.fit_libraries(keyspace),
            21.. => return self.fit_stream(key, held),
            _ => return None,
        })
    }

    /// The deadline of a field.
    fn fit_field<'a>(&'a self, key: &'a [u8], held: Option<&Value>) -> Option<Effect<'a>> {
        let Some(Value::Hash(hash)) = held else { return None };
        let (field, expires_at) = (self.name.as_slice(), Some(self.number % 9).filter(|&at| at != 0));
        hash.get(field).map(|_| Effect::HashExpire { key, field, expires_at })
    }

    /// Effects on libraries: of each name one function that no other library has, in two cases.
    fn fit_libraries(&self, keyspace: &Keyspace) -> Option<Effect<'_>> {
        const LIBRARIES: [(&[u8], [&[u8]; 2]); 2] = [(b"one", [b"f", b"F"]), (b"two", [b"g", b"G"])];
        let (name, functions) = LIBRARIES[self.key % LIBRARIES.len()];
        Some(match self.kind {
            40 => Effect::LibraryPut { name, code: &self.value },
            41 if keyspace.libraries().get(name).is_some() => Effect::FunctionPut {
                library: name,
                name: functions[self.to % functions.len()],
                flags: self.number as u8,
                description: self.count.is_multiple_of(2).then_some(&self.name),
            },
            42 => Effect::LibraryRemove { name },
            _ => return None,
        })
    }

    /// Effects on what a key holds.
    fn fit_inside<'a>(&'a self, key: &'a [u8], held: Option<&Value>) -> Option<Effect<'a>> {
        let (name, value) = (self.name.as_slice(), self.value.as_slice());
        let index = |end: usize| (end > 0).then(|| self.number % end as u64);
        Some(match (self.kind, held) {
            (5, None | Some(Value::Str(_))) => {
                Effect::PatchString { key, offset: self.number % 100, bytes: value }
            }
            (6, None | Some(Value::Hash(_))) => Effect::HashPut { key, field: name, value },
            (7, Some(Value::Hash(_))) => Effect::HashRemove { key, field: name },
            (8, None | Some(Value::Set(_))) => Effect::SetAdd { key, member: name },
            (9, Some(Value::Set(_))) => Effect::SetRemove { key, member: name },
            (10, None | Some(Value::Sorted(_))) => Effect::SortedPut { key, member: name, score: self.score },
            (11, Some(Value::Sorted(_))) => Effect::SortedRemove { key, member: name },
            (12, None) => Effect::ListInsert { key, index: 0, value },
            (12, Some(Value::List(list))) => Effect::ListInsert { key, index: index(list.len() + 1)?, value },
            (13, Some(Value::List(list))) => Effect::ListSet { key, index: index(list.len())?, value },
            (14, Some(Value::List(list))) => {
                let index = index(list.len())?;
                let count = 1 + self.count % (list.len() as u64 - index);
                Effect::ListRemove { key, index, count }
            }
            _ => return None,
        })
    }

    /// Effects on a stream. Ids rise by few, so that they are met again; entries are added most often.
    fn fit_stream<'a>(&'a self, key: &'a [u8], held: Option<&Value>) -> Option<Effect<'a>> {
        let nothing = Stream::default();
        let stream = match held {
            None => &nothing,
            Some(Value::Stream(stream)) => stream,
            Some(_) => return None,
        };
        let (number, count) = (self.number, self.count);
        let fields = Pairs::read(&self.fields).expect("it was written");
        // Few groups and consumers.
        let (group, consumer): (&[u8], &[u8]) =
            (&b"gh"[(number % 2) as usize..], &b"cde"[(count % 3) as usize..]);
        let entry = || stream.iter().nth((number % stream.len().max(1) as u64) as usize);
        let known = || stream.group(group).filter(|group| group.consumer(consumer).is_some());
        let some = Some(count % 9).filter(|&number| number > 0);
        Some(match self.kind {
            21..=27 => {
                let last = stream.last_id();
                let id = StreamId::new(
                    last.ms + count % 2,
                    if count.is_multiple_of(2) { last.seq + 1 } else { number % 3 },
                );
                StreamChange::Add { id, fields, begins_node: number.is_multiple_of(7) }.of(key)
            }
            28 | 29 => StreamChange::Delete { id: entry()?.id }.of(key),
            30 if held.is_some() => StreamChange::Trim { count: number % (stream.len() as u64 + 1) }.of(key),
            31 => {
                let last_id = StreamId::new(stream.last_id().ms + number % 3, stream.last_id().seq);
                let max_deleted = StreamId::new(count % 9, 0);
                StreamChange::Set { last_id, added: stream.added() + count % 3, max_deleted }.of(key)
            }
            32 | 33 => {
                StreamChange::GroupSet { group, last_id: StreamId::new(count % 9, 0), read: some }.of(key)
            }
            34 if stream.group(group).is_some() && count.is_multiple_of(4) => {
                StreamChange::GroupRemove { group }.of(key)
            }
            35 | 36 if stream.group(group).is_some() => {
                StreamChange::ConsumerSet { group, consumer, seen_ms: number % 9, active_ms: some }.of(key)
            }
            37 if known().is_some() && number.is_multiple_of(3) => {
                StreamChange::ConsumerRemove { group, consumer }.of(key)
            }
            38 if known().is_some() => {
                let ids = Ids::read(&self.ids).expect("it was written");
                StreamChange::PendingSet { group, consumer, time_ms: number % 9, count: count % 4, ids }
                    .of(key)
            }
            39 if stream.group(group).is_some() => {
                StreamChange::PendingRemove { group, ids: Ids::read(&self.ids).expect("it was written") }
                    .of(key)
            }
            _ => return None,
        })
    }
}
