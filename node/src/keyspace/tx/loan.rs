//! Values that are lent: a request that works through much is executed on the values of its keys elsewhere, while
//! others are served.
//!
//! The values of a [`Loan`] are moved out of the keyspace. For each an empty value of its type stays, with its
//! deadline: so keys are counted, scanned, typed and drawn as before, while nobody looks at what they hold. The unit is
//! executed on a [`Borrowed`] store that holds just these keys. It ends in one of two ways: the
//! values come back as they have become, and what the unit did is part of the open unit ([`Store::take_back`]), as if it
//! had been executed here; or they come back as they were ([`Store::recall`]), and nothing was done.
//!
//! INVARIANTS, which whoever lends sees to:
//! * Nobody looks at a lent value, or changes it. A walk that has to write one has done so before it is lent, and none
//!   begins before it is back.
//! * A loan comes back before the leadership under which it was given is lost.
//! * A unit touches no key beside those that were lent to it.

use super::{Limits, Store, unit::Moment};
use crate::keyspace::{Blob, Keyspace, Object, Seed, Value};

/// Keys with their values, on their way to where a unit is executed on them.
pub struct Loan {
    seed: Seed,
    format: u8,
    moment: Moment,
    keeps_expired: bool,
    limits: Limits,
    random_seed: u64,
    values: Vec<(Blob, Option<Object>)>,
}

/// Values that are lent, as a store of their own. Its unit has begun.
pub struct Borrowed {
    store: Store,
    /// The keys, each with the number of its last change before the unit.
    keys: Vec<(Blob, u64)>,
}

impl Loan {
    /// Where it came to.
    pub fn open(self) -> Borrowed {
        let mut keyspace = Keyspace { seed: self.seed, format: self.format, ..Keyspace::default() };
        let mut keys = Vec::with_capacity(self.values.len());
        for (key, object) in self.values {
            keyspace.replace(&key, object);
            let seen = keyspace.watched.watch(&key);
            keyspace.watched.wait(&key); // what comes to it is news
            keys.push((key, seen));
        }
        let mut store = Store::new(keyspace, self.random_seed);
        (store.keeps_expired, store.limits) = (self.keeps_expired, self.limits);
        store.begin_unit(self.moment.now_us, self.moment.leading);
        store.show_time(self.moment.shown_us);
        Borrowed { store, keys }
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
}

impl Keyspace {
    /// Takes the value of a key out and leaves an empty one.
    fn lend(&mut self, key: &[u8]) -> Option<Object> {
        let hash = self.hash(key);
        let table = &mut self.tables[usize::from(moonraft_router::slot_of(key))];
        let object = &mut table.find_mut(hash, |entry| *entry.key == *key)?.object;
        let empty = object.value.empty_like();
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
    /// Lends what these keys hold, for a unit at the time of the open one. No key is named twice.
    pub fn lend(&mut self, keys: &[Blob]) -> Loan {
        self.lent.extend(keys.iter().cloned());
        Loan {
            seed: self.keyspace.seed.clone(),
            format: self.keyspace.format,
            moment: self.unit.moment,
            keeps_expired: self.keeps_expired,
            limits: self.limits,
            random_seed: self.random_seed(),
            values: keys.iter().map(|key| (key.clone(), self.keyspace.lend(key))).collect(),
        }
    }

    /// Whether what this key holds, or does not, is lent.
    pub fn is_lent(&self, key: &[u8]) -> bool {
        !self.lent.is_empty() && self.lent.contains(key)
    }

    /// Whether anything is.
    pub fn has_lent(&self) -> bool {
        !self.lent.is_empty()
    }

    /// A loan comes back with what its unit did, which is part of the open unit now.
    pub fn take_back(&mut self, borrowed: Borrowed) {
        let Borrowed { store: mut from, keys } = borrowed;
        for (key, seen) in keys {
            self.lent.remove(&key);
            self.depend_on_key(&key);
            let has_changed = from.keyspace.watched.last_change(&key) != Some(seen);
            let object = from.keyspace.replace(&key, None);
            self.keyspace.replace(&key, object);
            if has_changed {
                self.keyspace.watched.touch(&key);
            }
        }
        while let Some(key) = from.keyspace.watched.take_news() {
            self.keyspace.watched.announce(&key);
        }
        self.keyspace.changes += from.keyspace.changes;
        for hash in from.open.changed.drain(..) {
            self.mark_hash_changed(hash);
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
        unit.publications.append(&mut theirs.publications);
        unit.showed_time.set(unit.showed_time.get() || theirs.showed_time.get());
        unit.copied_bytes = unit.copied_bytes.saturating_add(theirs.copied_bytes);
        unit.found_expired.set(unit.found_expired.get() || theirs.found_expired.get());
        self.lookups.add(&from.lookups);
    }

    /// A loan comes back as it was: its unit never happened.
    pub fn recall(&mut self, borrowed: Borrowed) {
        let Borrowed { store: mut from, keys } = borrowed;
        from.roll_back_unit();
        for (key, _) in keys {
            self.lent.remove(&key);
            let object = from.keyspace.replace(&key, None);
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
        let mut borrowed = store.lend(&[Blob::new(b"k")]).open();
        assert_eq!(borrowed.store().shown_us(), 1_200_000);
        store.take_back(borrowed);
        assert!(store.end_unit().showed_time, "the reply waits until no leader can show an earlier one");
    }
}
