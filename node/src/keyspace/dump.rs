//! A keyspace as the effects that build it from nothing: what a snapshot holds
//! and what a slot travels as.

use moonraft_proto::Effect;

use super::{Entry, Keyspace, Object, Value};

impl Keyspace {
    /// Calls `emit` with the effects that make this state from an empty one.
    pub fn dump(&self, mut emit: impl FnMut(&Effect<'_>)) {
        self.dump_shared(&mut emit);
        self.entries().for_each(|entry| dump_entry(entry, &mut emit));
    }

    /// The part of [`Keyspace::dump`] that is about no key: slots and scripts.
    pub fn dump_shared(&self, emit: &mut impl FnMut(&Effect<'_>)) {
        for (first, last) in self.owned.ranges() {
            emit(&Effect::AssignSlots { first, last });
        }
        for (_, text) in self.scripts.iter() {
            emit(&Effect::ScriptLoad { text });
        }
    }
}

/// Calls `emit` with the effects that make this entry.
pub fn dump_entry(entry: &Entry, emit: &mut impl FnMut(&Effect<'_>)) {
    dump_object(&entry.key, &entry.object, emit);
}

/// Calls `emit` with the effects that make `key` hold this.
pub fn dump_object(key: &[u8], object: &Object, emit: &mut impl FnMut(&Effect<'_>)) {
    let expires_at = object.deadline();
    match &object.value {
        Value::Str(value) => return emit(&Effect::PutString { key, value, expires_at }),
        Value::List(list) => {
            for (index, value) in list.iter().enumerate() {
                emit(&Effect::ListInsert { key, index: index as u64, value });
            }
        }
        Value::Hash(hash) => {
            hash.iter().for_each(|(field, value)| emit(&Effect::HashPut { key, field, value }));
        }
        Value::Set(set) => set.iter().for_each(|member| emit(&Effect::SetAdd { key, member: &member })),
        Value::Sorted(sorted) => {
            sorted.iter().for_each(|(member, score)| emit(&Effect::SortedPut { key, member, score }));
        }
    }
    if expires_at.is_some() {
        emit(&Effect::SetExpiry { key, expires_at });
    }
}
