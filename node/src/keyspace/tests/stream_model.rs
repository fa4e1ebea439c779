//! What effects on a stream mean, written with the standard collections.

use std::collections::BTreeMap;

use moonraft_proto::{StreamChange, StreamId};

use crate::keyspace::Stream;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Debug, Default, PartialEq)]
struct GroupModel {
    last_id: StreamId,
    read: Option<u64>,
    /// When they were seen and active.
    consumers: BTreeMap<Vec<u8>, (u64, Option<u64>)>,
    /// For whom, since when, how often delivered.
    pending: BTreeMap<StreamId, (Vec<u8>, u64, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamModel {
    entries: BTreeMap<StreamId, Fields>,
    last_id: StreamId,
    added: u64,
    max_deleted: StreamId,
    groups: BTreeMap<Vec<u8>, GroupModel>,
}

impl StreamModel {
    /// What a stream holds.
    pub fn of(stream: &Stream) -> Self {
        let fields = |(field, value): (_, _)| -> (Vec<u8>, Vec<u8>) {
            let (field, value): (std::borrow::Cow<'_, [u8]>, std::borrow::Cow<'_, [u8]>) = (field, value);
            (field.into_owned(), value.into_owned())
        };
        let groups = stream.groups().map(|(name, group)| {
            let consumers = group.consumers_from(0).map(|it| (it.name.to_vec(), (it.seen_ms, it.active_ms)));
            let pending = group
                .pending()
                .iter()
                .map(|(id, it)| (id, (group.consumer_of(it).name.to_vec(), it.time_ms, it.count)));
            for consumer in group.consumers_from(0) {
                let own = consumer.pending_from(StreamId::MIN);
                let in_group =
                    group.pending().iter().filter(|(_, it)| group.consumer_of(*it).name == consumer.name);
                assert!(own.eq(in_group.map(|(id, _)| id)));
                assert_eq!(consumer.pending_count(), consumer.pending_from(StreamId::MIN).count());
            }
            let model = GroupModel {
                last_id: group.last_id,
                read: group.read,
                consumers: consumers.collect(),
                pending: pending.collect(),
            };
            (name.to_vec(), model)
        });
        Self {
            entries: stream.iter().map(|entry| (entry.id, entry.pairs().map(fields).collect())).collect(),
            last_id: stream.last_id(),
            added: stream.added(),
            max_deleted: stream.max_deleted(),
            groups: groups.collect(),
        }
    }

    pub fn change(&mut self, change: StreamChange<'_>) {
        match change {
            StreamChange::Add { id, fields, .. } => {
                let fields = fields.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
                assert!(self.entries.insert(id, fields).is_none());
                (self.last_id, self.added) = (id, self.added + 1);
            }
            StreamChange::Delete { id } => {
                assert!(self.entries.remove(&id).is_some());
                self.max_deleted = self.max_deleted.max(id);
            }
            StreamChange::Trim { count } => (0..count).for_each(|_| drop(self.entries.pop_first())),
            StreamChange::Set { last_id, added, max_deleted } => {
                (self.last_id, self.added, self.max_deleted) = (last_id, added, max_deleted);
            }
            StreamChange::GroupSet { group, last_id, read } => {
                let group = self.groups.entry(group.to_vec()).or_default();
                (group.last_id, group.read) = (last_id, read);
            }
            StreamChange::GroupRemove { group } => drop(self.groups.remove(group)),
            _ => self.change_group(change),
        }
    }

    fn change_group(&mut self, change: StreamChange<'_>) {
        match change {
            StreamChange::ConsumerSet { group, consumer, seen_ms, active_ms } => {
                self.group(group).consumers.insert(consumer.to_vec(), (seen_ms, active_ms));
            }
            StreamChange::ConsumerRemove { group, consumer } => {
                self.group(group).consumers.remove(consumer);
                self.group(group).pending.retain(|_, (own, ..)| own != consumer);
            }
            StreamChange::PendingSet { group, consumer, time_ms, count, ids } => ids.iter().for_each(|id| {
                self.group(group).pending.insert(id, (consumer.to_vec(), time_ms, count));
            }),
            StreamChange::PendingRemove { group, ids } => ids.iter().for_each(|id| {
                self.group(group).pending.remove(&id);
            }),
            _ => panic!("{change:?} does not fit a stream"),
        }
    }

    fn group(&mut self, name: &[u8]) -> &mut GroupModel {
        self.groups.get_mut(name).expect("it is there")
    }
}
