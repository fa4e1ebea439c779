//! Applying effects: the one door by which a keyspace changes.

use std::{num::NonZeroU64, sync::Arc};

use moonraft_proto::{Effect, StreamChange};
use moonraft_router::slot_of;

use super::{
    Blob, Entry, Hash, Keyspace, List, Object, Set, SortedSet, Stream, Undo, Value, libraries::Function,
};

/// An effect that does not fit: replicas have parted, and going on would hide it.
const UNFIT: &str = "an effect must fit the type of its key";

impl Keyspace {
    /// Changes the state as `effect` says. Returns what takes it back.
    ///
    /// # Panics
    /// The effect does not fit the state: see the invariants of this module.
    pub fn apply(&mut self, effect: &Effect<'_>) -> Undo {
        // Whose the slots are and what builds read is no change of the data.
        let is_of_data = !matches!(
            effect,
            Effect::AssignSlots { .. } | Effect::ReleaseSlots { .. } | Effect::AgreeFormat { .. }
        );
        self.changes += u64::from(is_of_data);
        match *effect {
            Effect::Copy { to, .. } => self.watched.announce(to),
            // These take from what is there, or alter it.
            Effect::SetExpiry { key, .. }
            | Effect::HashExpire { key, .. }
            | Effect::ListSet { key, .. }
            | Effect::ListRemove { key, .. }
            | Effect::HashRemove { key, .. }
            | Effect::SetRemove { key, .. }
            | Effect::SortedRemove { key, .. } => self.watched.touch(key),
            Effect::Stream { key, change } => self.hear_of_stream(key, change),
            _ => effect.key().into_iter().for_each(|key| self.watched.announce(key)),
        }
        match *effect {
            Effect::PutString { key, value, expires_at } => {
                let expires_at = expires_at.and_then(NonZeroU64::new);
                let object = Object { value: Value::Str(value.to_vec()), expires_at };
                Undo::Object { key: Blob::new(key), before: self.replace(key, Some(object)) }
            }
            Effect::Remove { key } => match self.replace(key, None) {
                None => Undo::Nothing,
                before => Undo::Object { key: Blob::new(key), before },
            },
            Effect::SetExpiry { key, expires_at } => {
                Undo::Expiry { key: Blob::new(key), before: self.set_expiry(key, expires_at) }
            }
            Effect::Rename { key, to } => self.rename(key, to),
            Effect::Copy { key, to } => {
                let copy = self.get(key).cloned();
                Undo::Object { key: Blob::new(to), before: self.replace(to, copy) }
            }
            Effect::PatchString { .. }
            | Effect::HashPut { .. }
            | Effect::SetAdd { .. }
            | Effect::SortedPut { .. }
            | Effect::ListInsert { .. } => self.apply_growing(effect),
            Effect::HashRemove { .. }
            | Effect::HashExpire { .. }
            | Effect::SetRemove { .. }
            | Effect::SortedRemove { .. }
            | Effect::ListRemove { .. }
            | Effect::ListSet { .. } => self.apply_shrinking(effect),
            Effect::ClearSlots { .. }
            | Effect::AssignSlots { .. }
            | Effect::ReleaseSlots { .. }
            | Effect::ScriptLoad { .. }
            | Effect::ScriptFlush
            | Effect::AgreeFormat { .. } => self.apply_unkeyed(effect),
            Effect::LibraryPut { .. } | Effect::FunctionPut { .. } | Effect::LibraryRemove { .. } => {
                self.apply_to_libraries(effect)
            }
            Effect::Stream { key, change } => self.apply_to_stream(key, change),
        }
    }

    /// Effects on a stream, which is created if it is not there, and stays when it is empty.
    fn apply_to_stream(&mut self, key: &[u8], change: StreamChange<'_>) -> Undo {
        self.or_create(
            key,
            || Value::Stream(Box::default()),
            |key, object| {
                let Value::Stream(stream) = object else { panic!("{UNFIT}") };
                Undo::Stream { key, change: stream.apply(change) }
            },
        )
    }

    /// Effects that create their container if it is not there.
    fn apply_growing(&mut self, effect: &Effect<'_>) -> Undo {
        match *effect {
            Effect::PatchString { key, offset, bytes } => {
                self.or_create(key, || Value::Str(Vec::new()), |key, value| patch(key, value, offset, bytes))
            }
            Effect::HashPut { key, field, value } => self.or_create(
                key,
                || Value::Hash(Box::default()),
                |key, object| {
                    let Value::Hash(hash) = object else { panic!("{UNFIT}") };
                    Undo::Field { key, field: Blob::new(field), before: hash.put(field, value) }
                },
            ),
            Effect::SetAdd { key, member } => self.or_create(
                key,
                || Value::Set(Box::default()),
                |key, object| {
                    let Value::Set(set) = object else { panic!("{UNFIT}") };
                    Undo::Member { key, member: Blob::new(member), before: !set.add(member) }
                },
            ),
            Effect::SortedPut { key, member, score } => self.or_create(
                key,
                || Value::Sorted(Box::default()),
                |key, object| {
                    let Value::Sorted(sorted) = object else { panic!("{UNFIT}") };
                    Undo::Score { key, member: Blob::new(member), before: sorted.put(member, score) }
                },
            ),
            Effect::ListInsert { key, index, value } => self.or_create(
                key,
                || Value::List(Box::default()),
                |key, object| {
                    let Value::List(list) = object else { panic!("{UNFIT}") };
                    list.insert(index as usize, value);
                    Undo::Inserted { key, index: index as usize }
                },
            ),
            _ => unreachable!("only growing effects are passed on"),
        }
    }

    /// Effects on a container that is there, and goes with its last element.
    fn apply_shrinking(&mut self, effect: &Effect<'_>) -> Undo {
        match *effect {
            Effect::HashRemove { key, field } => self.or_remove(key, |key, object| {
                let Value::Hash(hash) = object else { panic!("{UNFIT}") };
                Undo::Field { key, field: Blob::new(field), before: hash.remove(field) }
            }),
            Effect::HashExpire { key, field, expires_at } => self.or_remove(key, |key, object| {
                let Value::Hash(hash) = object else { panic!("{UNFIT}") };
                assert!(hash.get(field).is_some(), "a field whose deadline changes is there");
                let before = hash.set_deadline(field, expires_at.and_then(NonZeroU64::new));
                Undo::FieldExpiry { key, field: Blob::new(field), before }
            }),
            Effect::SetRemove { key, member } => self.or_remove(key, |key, object| {
                let Value::Set(set) = object else { panic!("{UNFIT}") };
                Undo::Member { key, member: Blob::new(member), before: set.remove(member) }
            }),
            Effect::SortedRemove { key, member } => self.or_remove(key, |key, object| {
                let Value::Sorted(sorted) = object else { panic!("{UNFIT}") };
                Undo::Score { key, member: Blob::new(member), before: sorted.remove(member) }
            }),
            Effect::ListRemove { key, index, count } => self.or_remove(key, |key, object| {
                let Value::List(list) = object else { panic!("{UNFIT}") };
                let index = index as usize;
                Undo::Removed { key, index, before: list.remove(index, count as usize) }
            }),
            Effect::ListSet { key, index, value } => self.or_remove(key, |key, object| {
                let Value::List(list) = object else { panic!("{UNFIT}") };
                let index = index as usize;
                Undo::Element { key, index, before: list.set(index, value) }
            }),
            _ => unreachable!("only shrinking effects are passed on"),
        }
    }

    fn apply_unkeyed(&mut self, effect: &Effect<'_>) -> Undo {
        match *effect {
            Effect::ClearSlots { first, last } => self.clear_slots(first, last),
            Effect::AssignSlots { first, last } => {
                let before = self.owned.clone();
                (first..=last).for_each(|slot| self.owned.insert(slot));
                Undo::Owned { before }
            }
            Effect::ReleaseSlots { first, last } => {
                self.watched.hear_all_changed(); // others change them from now on
                let before = self.owned.clone();
                (first..=last).for_each(|slot| self.owned.remove(slot));
                Undo::Owned { before }
            }
            Effect::ScriptLoad { text } => match self.scripts.load(text) {
                Some(name) => Undo::ScriptLoaded { name },
                None => Undo::Nothing,
            },
            Effect::ScriptFlush => {
                let scripts = std::mem::take(&mut self.scripts);
                Undo::ScriptsFlushed { texts: scripts.iter().map(|(_, text)| text.clone()).collect() }
            }
            Effect::AgreeFormat { format } => {
                let agreed = self.format.max(format);
                Undo::Format { before: std::mem::replace(&mut self.format, agreed) }
            }
            _ => unreachable!("only effects without a key are passed on"),
        }
    }

    fn apply_to_libraries(&mut self, effect: &Effect<'_>) -> Undo {
        match *effect {
            Effect::LibraryPut { name, code } => {
                let before = self.libraries.put(name, code).map(Box::new);
                Undo::Library { name: name.into(), before }
            }
            Effect::LibraryRemove { name } => match self.libraries.replace(name, None) {
                None => Undo::Nothing,
                before => Undo::Library { name: name.into(), before: before.map(Box::new) },
            },
            Effect::FunctionPut { library, name, flags, description } => {
                let function = Function { flags, description: description.map(Box::from) };
                let before = self.libraries.replace_function(library, name, Some(function));
                Undo::Function { library: library.into(), name: name.into(), before }
            }
            _ => unreachable!("only effects about libraries are passed on"),
        }
    }

    /// What is heard of a change of a stream. As in Redis, who watches it minds its entries, not its groups nor ids; who
    /// reads as a member of a group that goes is told so.
    fn hear_of_stream(&mut self, key: &[u8], change: StreamChange<'_>) {
        match change {
            StreamChange::Add { .. } => self.watched.announce(key),
            StreamChange::Delete { .. } | StreamChange::Trim { .. } => self.watched.touch(key),
            _ if self.get(key).is_none() => self.watched.announce(key),
            StreamChange::Set { .. } | StreamChange::GroupRemove { .. } => self.watched.tell(key),
            _ => {}
        }
    }

    fn rename(&mut self, key: &[u8], to: &[u8]) -> Undo {
        self.watched.announce(to);
        if key == to {
            return Undo::Nothing;
        }
        let Some(object) = self.replace(key, None) else { return Undo::Nothing };
        let before = self.replace(to, Some(object));
        Undo::Rename { key: Blob::new(key), to: Blob::new(to), before }
    }

    fn clear_slots(&mut self, first: u16, last: u16) -> Undo {
        // A key that is not there does not change.
        let mut watched = std::mem::take(&mut self.watched);
        watched.announce_where(|key| (first..=last).contains(&slot_of(key)) && self.get(key).is_some());
        self.watched = watched;
        self.watched.hear_all_changed();
        let mut tables = Vec::new();
        for slot in first..=last {
            let table = &mut self.tables[usize::from(slot)];
            if !table.is_empty() {
                let table = Arc::new(std::mem::take(table));
                self.count_keys(slot, -(table.len() as isize));
                self.set_aside(slot, &table);
                tables.push((slot, table));
            }
        }
        // Of many keys one by one takes long.
        let all = [&mut self.deadlines, &mut self.field_deadlines];
        let deadlines = match self.counts.total() {
            0 => Some(all.map(std::mem::take)),
            _ => {
                all.into_iter().for_each(|deadlines| deadlines.clear_slots(first, last));
                None
            }
        };
        Undo::Slots { tables, deadlines }
    }

    /// Makes `key` hold `object`, or nothing. Returns what it held.
    pub(super) fn replace(&mut self, key: &[u8], object: Option<Object>) -> Option<Object> {
        let (hash, slot) = (self.hash(key), slot_of(key));
        let walked = self.preserve(hash, slot, key);
        let after = object.as_ref().and_then(Object::deadline);
        let field_after = object.as_ref().and_then(|object| object.value.soonest_field());
        let table = &mut self.tables[usize::from(slot)];
        let is_it = |entry: &Entry| *entry.key == *key;
        let rehash = |entry: &Entry| self.seed.hash(&entry.key);
        let before = match (table.find_mut(hash, |entry| is_it(entry)), object) {
            (Some(entry), Some(object)) => {
                entry.walked = walked;
                self.uses.renew(&entry.used);
                Some(std::mem::replace(&mut entry.object, object))
            }
            (Some(_), None) => {
                let removed = table.remove(hash, |entry| is_it(entry), |entry| rehash(entry));
                self.count_keys(slot, -1);
                removed.map(|entry| entry.object)
            }
            (None, Some(object)) => {
                let entry = Entry { key: Blob::new(key), object, walked, used: self.uses.fresh() };
                table.insert_unique(hash, Box::new(entry), |entry| rehash(entry));
                self.count_keys(slot, 1);
                None
            }
            (None, None) => None,
        };
        let was = before.as_ref().and_then(Object::deadline);
        self.deadlines.replace(slot, hash, was, after);
        let field_was = before.as_ref().and_then(|object| object.value.soonest_field());
        self.field_deadlines.replace(slot, hash, field_was, field_after);
        before
    }

    /// Changes a value of a key by `change`, and notes when the first of its fields goes.
    /// If there is no such key, `change` comes back.
    fn change_value<T, F>(&mut self, key: &[u8], change: F) -> Result<T, F>
    where
        F: FnOnce(&mut Value) -> T,
    {
        let Some(value) = self.value_mut(key) else { return Err(change) };
        let was = value.soonest_field();
        let changed = change(value);
        let is = value.soonest_field();
        if was != is {
            self.field_deadlines.replace(slot_of(key), self.hash(key), was, is);
        }
        Ok(changed)
    }

    /// Sets the deadline of a key that is there. Returns the one before.
    pub(super) fn set_expiry(&mut self, key: &[u8], expires_at: Option<u64>) -> Option<u64> {
        self.watched.touch(key);
        let (hash, slot) = (self.hash(key), slot_of(key));
        let walked = self.preserve(hash, slot, key);
        let entry = self.tables[usize::from(slot)].find_mut(hash, |entry| *entry.key == *key);
        let entry = entry.expect("a key whose deadline changes is there");
        entry.walked = walked;
        let object = &mut entry.object;
        let was = object.deadline();
        object.expires_at = expires_at.and_then(NonZeroU64::new);
        self.deadlines.replace(slot, hash, was, expires_at);
        was
    }

    fn value_mut(&mut self, key: &[u8]) -> Option<&mut Value> {
        let (hash, slot) = (self.hash(key), slot_of(key));
        let walked = self.preserve(hash, slot, key);
        let entry = self.tables[usize::from(slot)].find_mut(hash, |entry| *entry.key == *key)?;
        entry.walked = walked;
        Some(&mut entry.object.value)
    }

    /// Changes the value of `key`, which begins as `empty` if it is not there.
    fn or_create(
        &mut self,
        key: &[u8],
        empty: impl FnOnce() -> Value,
        change: impl FnOnce(Blob, &mut Value) -> Undo,
    ) -> Undo {
        let change = match self.change_value(key, |value| change(Blob::new(key), value)) {
            Ok(undo) => return undo,
            Err(change) => change,
        };
        let mut value = empty();
        change(&mut value);
        self.replace(key, Some(Object { value, expires_at: None }));
        Undo::Object { key: Blob::new(key), before: None }
    }

    /// Changes the value of `key`, which is there and goes if it becomes empty.
    fn or_remove(&mut self, key: &[u8], change: impl FnOnce(Blob, &mut Value) -> Undo) -> Undo {
        let change = |value: &mut Value| (change(Blob::new(key), value), value.is_empty());
        let Ok((undo, is_empty)) = self.change_value(key, change) else {
            panic!("what is taken from is there")
        };
        if !is_empty {
            return undo;
        }
        let object = self.replace(key, None).expect("it was changed just now");
        let expires_at = object.deadline();
        Undo::Emptied { key: Blob::new(key), expires_at, last: Box::new(undo), empty: object.value }
    }

    pub(super) fn change_string(&mut self, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
        self.watched.touch(key);
        let Some(Value::Str(string)) = self.value_mut(key) else { panic!("{UNFIT}") };
        change(string);
    }

    pub(super) fn change_hash(&mut self, key: &[u8], change: impl FnOnce(&mut Hash)) {
        self.watched.touch(key);
        let changed = self.change_value(key, |value| match value {
            Value::Hash(hash) => change(hash),
            _ => panic!("{UNFIT}"),
        });
        assert!(changed.is_ok(), "{UNFIT}");
    }

    pub(super) fn change_set(&mut self, key: &[u8], change: impl FnOnce(&mut Set)) {
        self.watched.touch(key);
        let Some(Value::Set(set)) = self.value_mut(key) else { panic!("{UNFIT}") };
        change(set);
    }

    pub(super) fn change_sorted(&mut self, key: &[u8], change: impl FnOnce(&mut SortedSet)) {
        self.watched.touch(key);
        let Some(Value::Sorted(sorted)) = self.value_mut(key) else { panic!("{UNFIT}") };
        change(sorted);
    }

    pub(super) fn change_stream(&mut self, key: &[u8], change: impl FnOnce(&mut Stream)) {
        self.watched.touch(key);
        let Some(Value::Stream(stream)) = self.value_mut(key) else { panic!("{UNFIT}") };
        change(stream);
    }

    pub(super) fn change_list(&mut self, key: &[u8], change: impl FnOnce(&mut List)) {
        self.watched.touch(key);
        let Some(Value::List(list)) = self.value_mut(key) else { panic!("{UNFIT}") };
        change(list);
    }
}

/// Puts `bytes` at `offset` of a string, which grows with zeros as needed.
fn patch(key: Blob, value: &mut Value, offset: u64, bytes: &[u8]) -> Undo {
    let Value::Str(string) = value else { panic!("{UNFIT}") };
    let (offset, length) = (offset as usize, string.len());
    let end = offset + bytes.len();
    let kept = offset.min(length)..end.min(length);
    let before = string[kept.clone()].to_vec();
    if end > length {
        string.resize(end, 0);
    }
    string[offset..end].copy_from_slice(bytes);
    Undo::Patch { key, length, offset: kept.start, before }
}
