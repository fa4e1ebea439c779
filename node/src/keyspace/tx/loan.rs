//! Values that are lent: a request that works through much is executed on the values of its keys elsewhere, while
//! others are served.
//!
//! The values of a [`Loan`] are moved out of the keyspace. For each an empty value of its type stays, with its
//! deadline: so keys are counted, scanned, typed and drawn as before, while nobody looks at what they hold. The unit is
//! executed on a [`Borrowed`] store that holds just these keys. It ends in one of two ways: the
//! values come back as they have become, and what the unit did is part of the open unit ([`Store::take_back`]), as if it
//! had been executed here; or they come back as they were ([`Store::recall`]), and nothing was done.
//!
//! Of very many keys each takes its time, so they may be lent some at a time, and come back so
//! ([`Store::take_some_back`]): then none of them is looked at before the last is back.
//!
//! INVARIANTS, which whoever lends sees to:
//! * Nobody looks at a lent value, or changes it. A walk that has to write one has done so before it is lent, and none
//!   begins before it is back.
//! * A loan comes back before the leadership under which it was given is lost.
//! * A unit touches no key beside those that were lent to it.

use hashbrown::{HashMap, HashSet};
use moonraft_router::slot_of;

use super::{Events, Limits, Store, dirty::Hashes, unit::Moment};
use crate::keyspace::{Blob, Keyspace, Object, Seed, Value};

/// A unit that changes more keys has them marked together.
const MARKED_EACH_MAX: usize = 10_000;

/// Keys with their values, on their way to where a unit is executed on them.
pub struct Loan {
    number: u64,
    seed: Seed,
    format: u8,
    moment: Moment,
    keeps_expired: bool,
    limits: Limits,
    events: Events,
    random_seed: u64,
    hears_all: bool,
    values: Vec<(Blob, Option<Object>)>,
}

/// Values that are lent, as a store of their own. Its unit has begun.
pub struct Borrowed {
    number: u64,
    store: Store,
    /// The keys that are not back yet.
    keys: Vec<Blob>,
    /// What those who mind keys are to hear of them.
    told: HashMap<Blob, Told>,
    /// What the unit changed, if that is much.
    changed: Option<Hashes>,
}

/// What happened to a key.
#[derive(Default)]
struct Told {
    has_changed: bool,
    /// Something may have come to it: the how manieth such key it was.
    news: Option<usize>,
}

impl Loan {
    /// Where it came to.
    pub fn open(self) -> Borrowed {
        let mut keyspace = Keyspace { seed: self.seed, format: self.format, ..Keyspace::default() };
        keyspace.watched.hear_all_changes(self.hears_all);
        let mut keys = Vec::with_capacity(self.values.len());
        for (key, object) in self.values {
            keyspace.replace(&key, object);
            keyspace.watched.watch(&key);
            keyspace.watched.wait(&key); // what comes to it is news
            keys.push(key);
        }
        let mut store = Store::new(keyspace, self.random_seed);
        (store.keeps_expired, store.limits, store.events) = (self.keeps_expired, self.limits, self.events);
        store.begin_unit(self.moment.now_us, self.moment.leading);
        store.show_time(self.moment.shown_us);
        Borrowed { number: self.number, store, keys, told: HashMap::new(), changed: None }
    }
}

impl Borrowed {
    /// The store on which the unit is executed.
    pub const fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Effects of the unit.
    pub fn effects(&self) -> usize {
        self.store.unit_effects()
    }

    /// Keys that are not back yet.
    pub const fn keys_out(&self) -> usize {
        self.keys.len()
    }

    /// The unit is over: what can be done before it comes back is done here.
    pub fn close(&mut self) {
        let watched = &mut self.store.keyspace.watched;
        // No key had changed when the unit began.
        let changed = self.keys.iter().filter(|key| watched.last_change(key) != Some(0));
        self.told = changed.map(|key| (key.clone(), Told { has_changed: true, news: None })).collect();
        for nth in 0.. {
            let Some(key) = watched.take_news() else { break };
            self.told.entry(key).or_default().news = Some(nth);
        }
        let changed = &mut self.store.open.changed;
        if changed.len() > MARKED_EACH_MAX {
            self.changed = Some(changed.drain(..).collect());
        }
    }
}

impl Keyspace {
    /// Takes the value of a key out and leaves an empty one.
    fn lend(&mut self, key: &[u8]) -> Option<Object> {
        let (hash, slot) = (self.hash(key), slot_of(key));
        let table = &mut self.tables[usize::from(slot)];
        let object = &mut table.find_mut(hash, |entry| *entry.key == *key)?.object;
        let empty = object.value.empty_like();
        // Its fields go with it.
        self.field_deadlines.replace(slot, hash, object.value.soonest_field(), None);
        Some(Object { value: std::mem::replace(&mut object.value, empty), expires_at: object.expires_at })
    }
}

impl Value {
    /// An empty value of the same type.
    fn empty_like(&self) -> Value {
        match self {
            Value::Str(_) => Value::Str(Vec::new()),
            Value::List(_) => Value::List(Box::default()),
            Value::Hash(_) => Value::Hash(Box::default()),
            Value::Set(_) => Value::Set(Box::default()),
            Value::Sorted(_) => Value::Sorted(Box::default()),
            Value::Stream(_) => Value::Stream(Box::default()),
        }
    }
}

impl Store {
    /// Begins a loan of about so many keys, for a unit at the time of the open one. No number is used again.
    pub fn begin_loan(&mut self, number: u64, keys: usize) -> Loan {
        self.lent.insert(number, HashSet::with_capacity(keys));
        Loan {
            number,
            seed: self.keyspace.seed.clone(),
            format: self.keyspace.format,
            moment: self.unit.moment,
            keeps_expired: self.keeps_expired,
            limits: self.limits,
            events: self.events,
            random_seed: self.random_seed(),
            hears_all: self.keyspace.watched.hears_all_changes(),
            values: Vec::with_capacity(keys),
        }
    }

    /// Lends what this key holds, too, unless it is lent to this loan already. It is to no other.
    pub fn lend(&mut self, loan: &mut Loan, key: Blob) {
        let lent = self.lent.get_mut(&loan.number).expect("a loan that has begun has not ended");
        if lent.insert(key.clone()) {
            let object = self.keyspace.lend(&key);
            loan.values.push((key, object));
        }
    }

    /// A loan whose keys were lent some at a time is for a unit at the time of the open one: what others want to hear of
    /// its keys is what they want by now.
    pub const fn renew_loan(&self, loan: &mut Loan) {
        loan.moment = self.unit.moment;
        loan.events = self.events;
        loan.hears_all = self.keyspace.watched.hears_all_changes();
    }

    /// Whether what this key holds, or does not, is lent.
    pub fn is_lent(&self, key: &[u8]) -> bool {
        self.lent.values().any(|lent| lent.contains(key))
    }

    /// The keys that are lent to this loan.
    pub fn lent_to(&self, number: u64) -> impl Iterator<Item = &Blob> {
        self.lent.get(&number).into_iter().flatten()
    }

    /// Whether it is lent to this loan.
    pub fn is_lent_to(&self, number: u64, key: &[u8]) -> bool {
        self.lent.get(&number).is_some_and(|lent| lent.contains(key))
    }

    /// Whether anything is.
    pub fn has_lent(&self) -> bool {
        !self.lent.is_empty()
    }

    /// The keys of a loan that is back: they are lent no more.
    pub fn end_loan(&mut self, number: u64) -> HashSet<Blob> {
        self.lent.remove(&number).unwrap_or_default()
    }

    /// Some keys of a loan come back with what they have become; they are lent until all are back, and the open unit
    /// does not know of them before.
    pub fn take_some_back(&mut self, borrowed: &mut Borrowed, most: usize) {
        let from = &mut borrowed.store.keyspace;
        for key in borrowed.keys.drain(borrowed.keys.len().saturating_sub(most)..) {
            let object = from.replace(&key, None);
            self.keyspace.replace(&key, object);
        }
    }

    /// A loan comes back with what its unit did, which is part of the open unit now.
    pub fn take_back(&mut self, borrowed: &mut Borrowed) {
        match self.lent.get(&borrowed.number) {
            Some(lent) if lent.len() == borrowed.keys.len() => {
                borrowed.keys.iter().for_each(|key| self.depend_on_key(key));
            }
            // Those that are back are not looked through again.
            _ => self.unit.depend_on(self.dirty.newest),
        }
        self.take_some_back(borrowed, usize::MAX);
        let Borrowed { store: from, told, changed, .. } = borrowed;
        self.keyspace.watched.hear_more(from.keyspace.watched.take_heard(0));
        self.tell_minders(told);
        self.keyspace.changes += from.keyspace.changes;
        for hash in from.open.changed.drain(..) {
            self.mark_hash_changed(hash);
        }
        if let Some(changed) = changed.take() {
            self.dirty.mark_many(changed, self.sequence);
        }
        if !from.open.undos.is_empty() {
            self.dirty.newest = self.sequence;
        }
        match self.open.undos.is_empty() {
            // Millions are not copied.
            true => self.open.undos = std::mem::take(&mut from.open.undos),
            false => self.open.undos.append(&mut from.open.undos),
        }
        self.batch.append(std::mem::take(&mut from.batch));
        let (unit, theirs) = (&mut self.unit, &mut from.unit);
        unit.showed_time.set(unit.showed_time.get() || theirs.showed_time.get());
        unit.copied_bytes = unit.copied_bytes.saturating_add(theirs.copied_bytes);
        unit.found_expired.set(unit.found_expired.get() || theirs.found_expired.get());
        unit.publications.get_mut().append(theirs.publications.get_mut());
        self.lookups.add(&from.lookups);
    }

    /// Those who mind keys hear what happened to them. They may be few and the keys many, or the other way round.
    fn tell_minders(&mut self, told: &HashMap<Blob, Told>) {
        let watched = &mut self.keyspace.watched;
        let minded: Vec<(&Blob, &Told)> = match watched.keys().len() < told.len() {
            true => watched.keys().filter_map(|key| told.get_key_value(key)).collect(),
            false => told.iter().collect(),
        };
        minded.iter().filter(|(_, it)| it.has_changed).for_each(|(key, _)| watched.touch_unheard(key));
        let mut news: Vec<(usize, &Blob)> =
            minded.into_iter().filter_map(|(key, it)| Some((it.news?, key))).collect();
        news.sort_unstable();
        news.into_iter().for_each(|(_, key)| watched.tell(key));
    }

    /// A loan comes back as it was: its unit never happened.
    pub fn recall(&mut self, borrowed: &mut Borrowed) {
        borrowed.store.roll_back_unit();
        for key in borrowed.keys.drain(..) {
            let object = borrowed.store.keyspace.replace(&key, None);
            self.keyspace.replace(&key, object);
        }
    }

    /// The same of one that was not opened.
    pub fn recall_loan(&mut self, loan: Loan) {
        for (key, object) in loan.values {
            self.keyspace.replace(&key, object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_executed_elsewhere_shows_the_time_that_its_unit_shows() {
        let mut store = Store::new(Keyspace::default(), 1);
        store.begin_unit(1_000_000, true);
        store.show_time(1_200_000);
        let mut loan = store.begin_loan(1, 1);
        store.lend(&mut loan, Blob::new(b"k"));
        let mut borrowed = loan.open();
        assert_eq!(borrowed.store().shown_us(), 1_200_000);
        store.take_back(&mut borrowed);
        assert!(store.end_unit().showed_time, "the reply waits until no leader can show an earlier one");
    }
}
