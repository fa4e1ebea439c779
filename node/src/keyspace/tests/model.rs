//! What effects mean, written with the standard collections.

use std::collections::{BTreeMap, BTreeSet};

use moonraft_proto::Effect;
use moonraft_router::slot_of;

use super::stream_model::StreamModel;
use crate::keyspace::{Keyspace, Value, libraries::Library};

#[derive(Clone, Debug, PartialEq)]
enum Held {
    Str(Vec<u8>),
    List(Vec<Vec<u8>>),
    /// Fields with their values and deadlines.
    Hash(BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>),
    Set(BTreeSet<Vec<u8>>),
    /// In order: by score, then by member.
    Sorted(Vec<(f64, Vec<u8>)>),
    Stream(StreamModel),
}

impl Held {
    fn is_empty(&self) -> bool {
        match self {
            Held::Str(_) | Held::Stream(_) => false,
            Held::List(list) => list.is_empty(),
            Held::Hash(hash) => hash.is_empty(),
            Held::Set(set) => set.is_empty(),
            Held::Sorted(sorted) => sorted.is_empty(),
        }
    }

    fn change(&mut self, effect: &Effect<'_>) {
        match (self, *effect) {
            (Held::Str(string), Effect::PatchString { offset, bytes, .. }) => {
                let end = offset as usize + bytes.len();
                string.resize(string.len().max(end), 0);
                string[offset as usize..end].copy_from_slice(bytes);
            }
            (Held::List(list), Effect::ListInsert { index, value, .. }) => {
                list.insert(index as usize, value.to_vec());
            }
            (Held::List(list), Effect::ListSet { index, value, .. }) => list[index as usize] = value.to_vec(),
            (Held::List(list), Effect::ListRemove { index, count, .. }) => {
                list.drain(index as usize..(index + count) as usize);
            }
            (Held::Hash(hash), Effect::HashPut { field, value, .. }) => {
                hash.insert(field.to_vec(), (value.to_vec(), None));
            }
            (Held::Hash(hash), Effect::HashExpire { field, expires_at, .. }) => {
                hash.get_mut(field).expect("it is there").1 = expires_at;
            }
            (Held::Hash(hash), Effect::HashRemove { field, .. }) => drop(hash.remove(field)),
            (Held::Set(set), Effect::SetAdd { member, .. }) => drop(set.insert(member.to_vec())),
            (Held::Set(set), Effect::SetRemove { member, .. }) => drop(set.remove(member)),
            (Held::Sorted(sorted), Effect::SortedPut { member, score, .. }) => {
                sorted.retain(|(_, other)| other != member);
                sorted.push((score, member.to_vec()));
                sorted.sort_by(|left, right| left.partial_cmp(right).expect("no score is NaN"));
            }
            (Held::Sorted(sorted), Effect::SortedRemove { member, .. }) => {
                sorted.retain(|(_, other)| other != member);
            }
            (Held::Stream(stream), Effect::Stream { change, .. }) => stream.change(change),
            (held, effect) => panic!("{effect:?} does not fit {held:?}"),
        }
    }
}

/// A library's text, and its functions with their flags and descriptions.
type ModelLibrary = (Vec<u8>, BTreeMap<Vec<u8>, (u8, Option<Vec<u8>>)>);

fn of_library(library: &Library) -> ModelLibrary {
    let functions = library.functions().map(|(name, function)| {
        (name.to_vec(), (function.flags, function.description.as_deref().map(<[u8]>::to_vec)))
    });
    (library.code().to_vec(), functions.collect())
}

/// Keys with what they hold and their deadlines; slots, scripts and format.
#[derive(Debug, PartialEq)]
pub struct Model {
    keys: BTreeMap<Vec<u8>, (Held, Option<u64>)>,
    slots: BTreeSet<u16>,
    scripts: BTreeSet<Vec<u8>>,
    libraries: BTreeMap<Vec<u8>, ModelLibrary>,
    format: u8,
}

impl Model {
    /// What a keyspace holds.
    pub fn of(keyspace: &Keyspace) -> Self {
        let held = |value: &Value| match value {
            Value::Str(string) => Held::Str(string.to_vec()),
            Value::List(list) => Held::List(list.iter().map(|element| element.to_vec()).collect()),
            Value::Hash(hash) => {
                let of =
                    |(field, value): (&[u8], &[u8])| (field.to_vec(), (value.to_vec(), hash.deadline(field)));
                Held::Hash(hash.iter().map(of).collect())
            }
            Value::Set(set) => Held::Set(set.iter().map(|member| member.to_vec()).collect()),
            Value::Sorted(sorted) => {
                Held::Sorted(sorted.iter().map(|(member, score)| (score, member.to_vec())).collect())
            }
            Value::Stream(stream) => Held::Stream(StreamModel::of(stream)),
        };
        let keys = keyspace
            .entries()
            .map(|entry| (entry.key.to_vec(), (held(&entry.object.value), entry.object.deadline())));
        let ranges = keyspace.owned().ranges().into_iter();
        Self {
            keys: keys.collect(),
            slots: ranges.flat_map(|(first, last)| first..=last).collect(),
            scripts: keyspace.scripts().iter().map(|(_, text)| text.to_vec()).collect(),
            libraries: keyspace
                .libraries()
                .iter()
                .map(|(name, library)| (name.to_vec(), of_library(library)))
                .collect(),
            format: keyspace.agreed_format(),
        }
    }

    pub fn apply(&mut self, effect: &Effect<'_>) {
        match *effect {
            Effect::PutString { key, value, expires_at } => {
                self.keys.insert(key.to_vec(), (Held::Str(value.to_vec()), expires_at));
            }
            Effect::Remove { key } => drop(self.keys.remove(key)),
            Effect::SetExpiry { key, expires_at } => {
                self.keys.get_mut(key).expect("it is there").1 = expires_at;
            }
            Effect::Rename { key, to } => {
                let held = self.keys.remove(key).expect("it is there");
                self.keys.insert(to.to_vec(), held);
            }
            Effect::Copy { key, to } => {
                let held = self.keys[key].clone();
                self.keys.insert(to.to_vec(), held);
            }
            Effect::ClearSlots { first, last } => {
                self.keys.retain(|key, _| !(first..=last).contains(&slot_of(key)));
            }
            Effect::AssignSlots { first, last } => self.slots.extend(first..=last),
            Effect::ReleaseSlots { first, last } => {
                self.slots.retain(|slot| !(first..=last).contains(slot));
            }
            Effect::ScriptLoad { text } => drop(self.scripts.insert(text.to_vec())),
            Effect::ScriptFlush => self.scripts.clear(),
            Effect::AgreeFormat { format } => self.format = self.format.max(format),
            Effect::LibraryPut { name, code } => {
                self.libraries.insert(name.to_vec(), (code.to_vec(), BTreeMap::new()));
            }
            Effect::LibraryRemove { name } => drop(self.libraries.remove(name)),
            Effect::FunctionPut { library, name, flags, description } => {
                let (_, functions) = self.libraries.get_mut(library).expect("it is there");
                functions.insert(name.to_vec(), (flags, description.map(<[u8]>::to_vec)));
            }
            _ => self.change(effect),
        }
    }

    /// Effects inside of what a key holds.
    fn change(&mut self, effect: &Effect<'_>) {
        let key = effect.key().expect("it is about a key");
        let empty = || match effect {
            Effect::PatchString { .. } => Held::Str(Vec::new()),
            Effect::ListInsert { .. } => Held::List(Vec::new()),
            Effect::HashPut { .. } => Held::Hash(BTreeMap::new()),
            Effect::SetAdd { .. } => Held::Set(BTreeSet::new()),
            Effect::SortedPut { .. } => Held::Sorted(Vec::new()),
            Effect::Stream { .. } => Held::Stream(StreamModel::default()),
            _ => panic!("{effect:?} needs a key that is there"),
        };
        let (held, _) = self.keys.entry(key.to_vec()).or_insert_with(|| (empty(), None));
        held.change(effect);
        if held.is_empty() {
            self.keys.remove(key);
        }
    }
}
