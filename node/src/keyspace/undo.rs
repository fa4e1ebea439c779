//! What takes an effect back.
//!
//! An undo holds what the effect displaced, moved rather than copied; at commit
//! it is dropped. Undoing is done newest first, so each finds the state just as
//! its effect left it.

use std::{num::NonZeroU64, sync::Arc};

use super::{
    Blob, Deadlines, Keyspace, Object, SlotSet, SlotTable, Value,
    hash::Former,
    libraries::{Function, Library},
    scripts::Sha1,
    stream::StreamUndo,
};

/// The change that takes an effect back.
#[allow(missing_docs, reason = "a variant's sentence tells of its fields")]
#[derive(Debug)]
pub enum Undo {
    /// There was nothing to change.
    Nothing,
    /// The key held this, or nothing.
    Object { key: Blob, before: Option<Object> },
    /// The key had this deadline.
    Expiry { key: Blob, before: Option<u64> },
    /// The string was this long and had these bytes at `offset`.
    Patch { key: Blob, length: usize, offset: usize, before: Vec<u8> },
    /// The field had this value, or was not there.
    Field { key: Blob, field: Blob, before: Option<Former> },
    /// The field had this deadline, or none.
    FieldExpiry { key: Blob, field: Blob, before: Option<NonZeroU64> },
    /// The member was there, or not.
    Member { key: Blob, member: Blob, before: bool },
    /// The member had this score, or was not there.
    Score { key: Blob, member: Blob, before: Option<f64> },
    /// An element came in at `index`.
    Inserted { key: Blob, index: usize },
    /// The element at `index` was this one.
    Element { key: Blob, index: usize, before: Blob },
    /// These elements went, the first from `index`.
    Removed { key: Blob, index: usize, before: Vec<Blob> },
    /// Something was otherwise in the stream.
    Stream { key: Blob, change: StreamUndo },
    /// A container of this deadline went with its last element.
    Emptied { key: Blob, expires_at: Option<u64>, last: Box<Undo>, empty: Value },
    /// What is at `to` was at `key`; `to` held this.
    Rename { key: Blob, to: Blob, before: Option<Object> },
    /// These slots held these keys, which a walk may still have to write; when they and their fields expired, if no
    /// others are left.
    Slots { tables: Vec<(u16, Arc<SlotTable>)>, deadlines: Option<[Deadlines; 2]> },
    /// The shard served these slots.
    Owned { before: SlotSet },
    /// A script became known.
    ScriptLoaded { name: Sha1 },
    /// These scripts were known.
    ScriptsFlushed { texts: Vec<Arc<[u8]>> },
    /// This library had the name, or none.
    Library { name: Box<[u8]>, before: Option<Box<Library>> },
    /// The library had this function, or none of the name.
    Function { library: Box<[u8]>, name: Box<[u8]>, before: Option<Function> },
    /// This format was agreed on.
    Format { before: u8 },
}

/// Freeing fewer items than this takes less than a millisecond.
const FREED_AT_ONCE: usize = 5_000;

/// Dropping so many undos, each of little, takes no longer.
pub const UNDOS_FREED_AT_ONCE: usize = 20_000;

/// Bytes of a string that are given back as quickly as an item.
const STRING_BYTES: usize = 1 << 10;

impl Undo {
    /// Whether dropping it would take long: it holds many items, or the last of many.
    pub fn is_slow_to_drop(&self) -> bool {
        let items = match self {
            Self::Object { before: Some(object), .. } | Self::Rename { before: Some(object), .. } => {
                items(&object.value)
            }
            Self::Patch { before, .. } => before.len() / STRING_BYTES,
            Self::Removed { before, .. } => before.len(),
            Self::Stream { change, .. } => change.items(),
            Self::Emptied { last, .. } => return last.is_slow_to_drop(),
            Self::Slots { tables, .. } => {
                let entries = tables.iter().flat_map(|(_, table)| table.iter());
                let mut sum = 0;
                return entries.map(|entry| 1 + items(&entry.object.value)).any(|held| {
                    sum += held;
                    sum > FREED_AT_ONCE
                });
            }
            _ => 0,
        };
        items > FREED_AT_ONCE
    }
}

fn items(value: &Value) -> usize {
    match value {
        Value::Str(bytes) => bytes.len() / STRING_BYTES,
        Value::Stream(stream) => stream.items(),
        other => other.len(),
    }
}

impl Keyspace {
    /// The same. Returns what its key held, if that was replaced as a whole: it may be slow to drop.
    pub fn take_back(&mut self, undo: Undo) -> Option<Object> {
        let Undo::Object { key, before } = undo else {
            self.undo(undo);
            return None;
        };
        self.changes += 1;
        self.watched.touch(&key);
        self.replace(&key, before)
    }

    /// Takes the newest effect back that has not been taken back yet.
    pub fn undo(&mut self, undo: Undo) {
        self.changes += 1;
        match undo {
            Undo::Nothing => {}
            Undo::Object { key, before } => {
                self.watched.touch(&key);
                self.replace(&key, before);
            }
            Undo::Expiry { key, before } => {
                self.set_expiry(&key, before);
            }
            Undo::Rename { key, to, before } => {
                self.watched.touch(&key);
                self.watched.touch(&to);
                let object = self.replace(&to, before);
                self.replace(&key, object);
            }
            Undo::Emptied { key, expires_at, last, empty } => {
                self.watched.touch(&key);
                self.replace(&key, Some(Object { value: empty, expires_at: None }));
                self.set_expiry(&key, expires_at);
                self.undo(*last);
            }
            Undo::Slots { tables, deadlines } => self.restore_slots(tables, deadlines),
            Undo::Owned { before } => self.owned = before,
            Undo::Format { before } => self.format = before,
            Undo::ScriptLoaded { name } => self.scripts.unload(&name),
            Undo::Library { name, before } => drop(self.libraries.replace(&name, before.map(|it| *it))),
            Undo::Function { library, name, before } => {
                self.libraries.replace_function(&library, &name, before);
            }
            Undo::ScriptsFlushed { texts } => texts.iter().for_each(|text| {
                self.scripts.load(text);
            }),
            inner => self.undo_inside(inner),
        }
    }

    /// Undoes a change inside a value, which is there.
    fn undo_inside(&mut self, undo: Undo) {
        match undo {
            Undo::Patch { key, length, offset, before } => self.change_string(&key, |string| {
                string.truncate(length);
                string[offset..offset + before.len()].copy_from_slice(&before);
            }),
            Undo::Field { key, field, before } => {
                self.change_hash(&key, |hash| hash.restore(&field, before));
            }
            Undo::FieldExpiry { key, field, before } => self.change_hash(&key, |hash| {
                hash.set_deadline(&field, before);
            }),
            Undo::Member { key, member, before } => self.change_set(&key, |set| {
                if before {
                    set.add(&member)
                } else {
                    set.remove(&member)
                };
            }),
            Undo::Score { key, member, before } => self.change_sorted(&key, |sorted| {
                match before {
                    Some(score) => sorted.put(&member, score),
                    None => sorted.remove(&member),
                };
            }),
            Undo::Inserted { key, index } => self.change_list(&key, |list| drop(list.remove(index, 1))),
            Undo::Element { key, index, before } => self.change_list(&key, |list| {
                list.set(index, &before);
            }),
            Undo::Removed { key, index, before } => {
                self.change_list(&key, |list| list.insert_all(index, before));
            }
            Undo::Stream { key, change } => self.change_stream(&key, |stream| stream.undo(change)),
            other => unreachable!("{other:?} is no change inside a value"),
        }
    }

    fn restore_slots(&mut self, tables: Vec<(u16, Arc<SlotTable>)>, deadlines: Option<[Deadlines; 2]>) {
        self.watched.announce_all();
        if tables.iter().any(|(_, table)| Arc::strong_count(table) > 1) {
            // Rare enough that the walk may begin again rather than know of tables that return.
            self.give_up_walk();
        }
        for (slot, table) in tables {
            let table = Arc::try_unwrap(table).expect("only a walk shares a table with an undo");
            self.pass_slot(slot);
            self.count_keys(slot, table.len() as isize);
            for entry in table.iter().filter(|_| deadlines.is_none()) {
                let (at, field_at) = (entry.object.deadline(), entry.object.value.soonest_field());
                if at.or(field_at).is_some() {
                    let hash = self.seed.hash(&entry.key);
                    self.deadlines.replace(slot, hash, None, at);
                    self.field_deadlines.replace(slot, hash, None, field_at);
                }
            }
            let cleared = std::mem::replace(&mut self.tables[usize::from(slot)], table);
            assert!(cleared.is_empty(), "a cleared slot is empty when its clearing is undone");
        }
        if let Some(deadlines) = deadlines {
            [self.deadlines, self.field_deadlines] = deadlines;
        }
    }
}
