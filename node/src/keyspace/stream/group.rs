//! A consumer group: how far it has read, what is pending, and for whom.
//!
//! INVARIANT: what is pending in the group is pending for one of its consumers, and the other way round.

use moonraft_proto::StreamId;

use super::{IdMap, put_exactly};
use crate::keyspace::Blob;

/// The place of a consumer in its group.
type Place = u32;

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// When it was delivered last, Unix milliseconds.
    pub time_ms: u64,
    /// How often.
    pub count: u64,
    consumer: Place,
}

/// Who reads for a group.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its name.
    pub name: Blob,
    /// When it asked last, Unix milliseconds.
    pub seen_ms: u64,
    /// When it was given something last; `None` if never.
    pub active_ms: Option<u64>,
    pending: IdMap<()>,
}

impl Consumer {
    /// How many entries are pending for it.
    pub const fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// The ids of those from `id` on.
    pub fn pending_from(&self, id: StreamId) -> impl Iterator<Item = StreamId> {
        self.pending.iter_from(id).map(|(id, ())| id)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The last entry that was delivered for the first time.
    pub last_id: StreamId,
    /// How many entries were delivered, up to there; `None` if unknown.
    pub read: Option<u64>,
    pending: IdMap<Pending>,
    /// Places that are free are taken again.
    consumers: Vec<Option<Box<Consumer>>>,
    /// The places of consumers in the order of their names.
    by_name: Vec<Place>,
}

/// A consumer that was removed, with what was pending for it.
#[derive(Clone, Debug)]
pub struct Removed {
    consumer: Consumer,
    pending: Vec<(StreamId, u64, u64)>,
}

/// What a change of what is pending has changed.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// These were not pending.
    added: Vec<StreamId>,
    /// These were pending so: for whom, since when, how often delivered.
    before: Vec<(StreamId, Blob, u64, u64)>,
}

impl Changed {
    /// How many entries.
    pub const fn len(&self) -> usize {
        self.added.len() + self.before.len()
    }
}

impl Removed {
    /// How many entries were pending for it.
    pub const fn len(&self) -> usize {
        self.pending.len()
    }
}

impl Group {
    /// One without consumers, that has read up to here.
    pub(super) fn new(last_id: StreamId, read: Option<u64>) -> Self {
        Self { last_id, read, ..Self::default() }
    }

    /// What is pending.
    pub const fn pending(&self) -> &IdMap<Pending> {
        &self.pending
    }

    /// For whom it is.
    pub fn consumer_of(&self, pending: Pending) -> &Consumer {
        self.at(pending.consumer)
    }

    fn at(&self, place: Place) -> &Consumer {
        self.consumers[place as usize].as_ref().expect("what is pending is so for somebody")
    }

    fn at_mut(&mut self, place: Place) -> &mut Consumer {
        self.consumers[place as usize].as_mut().expect("what is pending is so for somebody")
    }

    /// How many consumers.
    pub const fn consumer_count(&self) -> usize {
        self.by_name.len()
    }

    /// Its consumers in the order of their names, from the one at `from` on.
    pub fn consumers_from(&self, from: usize) -> impl ExactSizeIterator<Item = &Consumer> {
        self.by_name[from.min(self.by_name.len())..].iter().map(|&place| self.at(place))
    }

    fn search(&self, name: &[u8]) -> Result<usize, usize> {
        self.by_name.binary_search_by(|&place| (*self.at(place).name).cmp(name))
    }

    fn place(&self, name: &[u8]) -> Option<Place> {
        self.search(name).ok().map(|at| self.by_name[at])
    }

    /// A consumer.
    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.place(name).map(|place| self.at(place))
    }

    /// Bytes outside of this value, about.
    pub fn heap_bytes(&self) -> usize {
        let consumers = self.consumers.iter().flatten();
        let own: usize = consumers
            .map(|consumer| {
                size_of::<Consumer>() + consumer.name.heap_bytes() + consumer.pending.heap_bytes()
            })
            .sum();
        let places =
            self.consumers.capacity() * size_of::<usize>() + self.by_name.capacity() * size_of::<Place>();
        own + places + self.pending.heap_bytes()
    }

    /// Sets the times of a consumer, which is created if it is not there. Returns those before.
    pub(super) fn set_consumer(
        &mut self,
        name: &[u8],
        seen_ms: u64,
        active_ms: Option<u64>,
    ) -> Option<(u64, Option<u64>)> {
        match self.place(name) {
            Some(place) => {
                let consumer = self.at_mut(place);
                let before = (consumer.seen_ms, consumer.active_ms);
                (consumer.seen_ms, consumer.active_ms) = (seen_ms, active_ms);
                Some(before)
            }
            None => {
                let (name, pending) = (Blob::new(name), IdMap::default());
                self.add_consumer(Consumer { name, seen_ms, active_ms, pending });
                None
            }
        }
    }

    fn add_consumer(&mut self, consumer: Consumer) -> Place {
        let at = self.search(&consumer.name).expect_err("a consumer is added once");
        if self.by_name.len() == self.consumers.len() {
            let end = self.consumers.len();
            put_exactly(&mut self.consumers, end, None);
        }
        let free = self.consumers.iter().rposition(Option::is_none);
        let place = free.expect("there are more places than consumers");
        self.consumers[place] = Some(Box::new(consumer));
        put_exactly(&mut self.by_name, at, place as Place);
        place as Place
    }

    /// Removes a consumer that is there.
    pub(super) fn remove_consumer(&mut self, name: &[u8]) -> Removed {
        let at = self.search(name).expect("a consumer that is removed is there");
        let place = self.by_name.remove(at);
        let consumer = *self.consumers[place as usize].take().expect("its name was found");
        let pending = consumer.pending.iter().map(|(id, ())| {
            let pending = self.pending.remove(id).expect("it is pending in the group, too");
            (id, pending.time_ms, pending.count)
        });
        let pending = pending.collect();
        Removed { consumer, pending }
    }

    /// Puts a consumer back that was removed.
    pub(super) fn restore_consumer(&mut self, removed: Removed) {
        let consumer = self.add_consumer(removed.consumer);
        for (id, time_ms, count) in removed.pending {
            self.pending.insert(id, Pending { time_ms, count, consumer });
        }
    }

    /// Makes entries pending for a consumer that is there.
    pub(super) fn set_pending(
        &mut self,
        name: &[u8],
        ids: impl Iterator<Item = StreamId>,
        time_ms: u64,
        count: u64,
    ) -> Changed {
        let consumer = self.place(name).expect("what is pending is so for a consumer that is there");
        let mut changed = Changed::default();
        for id in ids {
            let before = self.pending.insert(id, Pending { time_ms, count, consumer });
            if before.is_none_or(|before| before.consumer != consumer) {
                self.at_mut(consumer).pending.insert(id, ());
            }
            let Some(before) = before else {
                changed.added.push(id);
                continue;
            };
            if before.consumer != consumer {
                self.at_mut(before.consumer).pending.remove(id);
            }
            let name = self.at(before.consumer).name.clone();
            changed.before.push((id, name, before.time_ms, before.count));
        }
        changed
    }

    /// Entries that were pending are not any more.
    pub(super) fn remove_pending(&mut self, ids: impl Iterator<Item = StreamId>) -> Changed {
        let mut changed = Changed::default();
        for id in ids {
            let Some(before) = self.pending.remove(id) else { continue };
            let consumer = self.at_mut(before.consumer);
            consumer.pending.remove(id);
            changed.before.push((id, consumer.name.clone(), before.time_ms, before.count));
        }
        changed
    }

    /// Takes a change of what is pending back.
    pub(super) fn restore_pending(&mut self, changed: Changed) {
        // Newest first: an id may have been named twice.
        for (id, name, time_ms, count) in changed.before.into_iter().rev() {
            self.set_pending(&name, std::iter::once(id), time_ms, count);
        }
        self.remove_pending(changed.added.into_iter());
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        let pending = |group: &Self| -> Vec<_> {
            let all = group.pending.iter();
            all.map(|(id, it)| (id, it.time_ms, it.count, group.at(it.consumer).name.clone())).collect()
        };
        let consumers = |group: &Self| -> Vec<_> {
            group.consumers_from(0).map(|it| (it.name.clone(), it.seen_ms, it.active_ms)).collect()
        };
        let own = |group: &Self| (group.last_id, group.read);
        own(self) == own(other) && consumers(self) == consumers(other) && pending(self) == pending(other)
    }
}
