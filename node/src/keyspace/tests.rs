//! Properties of the keyspace as a whole, on random sequences of effects that
//! fit: against a model made of standard collections, against its own undo,
//! against a replica that follows, against its dump; and that a scan misses
//! nothing.

mod draws;
mod effects;
mod expiry;
mod field_expiry;
mod model;
mod scan;
mod stream_model;
mod values;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use moonraft_proto::entry::Batch;
use moonraft_router::slot_of;
use proptest::prelude::*;

use self::{
    effects::{Choice, KEYS, any_choices},
    model::Model,
};
use super::{Keyspace, Store, dump::dump_entry};

/// Effects of a key, or of no key, each as bytes.
type Dump = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

/// All that a keyspace holds, in an order that no hash table shows in.
fn dump(keyspace: &Keyspace) -> Dump {
    let encoded = |effect: &moonraft_proto::Effect<'_>| {
        let mut bytes = Vec::new();
        effect.encode(None, &mut bytes);
        bytes
    };
    let mut all = Dump::new();
    // Not all 16384 slots: that would be most of the time these tests take.
    let slots: BTreeSet<u16> = KEYS.iter().map(|key| slot_of(key)).collect();
    for entry in slots.into_iter().flat_map(|slot| keyspace.slot_entries(slot)) {
        let mut parts = Vec::new();
        dump_entry(entry, &mut |effect| parts.push(encoded(effect)));
        if !matches!(entry.object.value, super::Value::List(_) | super::Value::Stream(_)) {
            parts.sort_unstable();
        }
        assert!(all.insert(entry.key.to_vec(), parts).is_none(), "{:?} is there twice", entry.key);
    }
    assert_eq!(all.len(), keyspace.len(), "a key is in a slot that it does not belong to");
    let mut shared = Vec::new();
    keyspace.dump_shared(&mut |effect| shared.push(encoded(effect)));
    shared.sort_unstable();
    // No key is so long.
    all.insert(vec![0xff; 99], shared);
    all
}

/// What must hold of any keyspace.
fn check(keyspace: &Keyspace) {
    assert_eq!(keyspace.len(), keyspace.entries().count());
    let in_slots: usize = (0..moonraft_router::SLOT_COUNT).map(|slot| keyspace.slot_len(slot)).sum();
    assert_eq!(keyspace.len(), in_slots);
    let mut before = 0;
    for (slot, table) in keyspace.tables.iter().enumerate().filter(|(_, table)| !table.is_empty()) {
        assert_eq!(keyspace.counts.find(before), (slot as u16, 0));
        before += table.len();
        assert_eq!(keyspace.counts.find(before - 1), (slot as u16, table.len() - 1));
    }
    let (mut mortal, mut with_mortal_fields) = (0, 0);
    for entry in keyspace.entries() {
        assert!(keyspace.slot_entries(slot_of(&entry.key)).any(|other| other.key == entry.key));
        assert!(keyspace.get(&entry.key).is_some(), "{:?} is not found", entry.key);
        let may_be_empty = matches!(entry.object.value, super::Value::Str(_) | super::Value::Stream(_));
        assert!(may_be_empty || !entry.object.value.is_empty(), "{:?} is empty", entry.key);
        mortal += usize::from(entry.object.expires_at.is_some());
        with_mortal_fields += usize::from(entry.object.value.soonest_field().is_some());
    }
    assert_eq!(keyspace.deadlines().len(), mortal);
    assert_eq!(keyspace.expired(u64::MAX, usize::MAX).len(), mortal);
    assert_eq!(keyspace.field_deadlines.len(), with_mortal_fields);
    assert_eq!(keyspace.keys_of_expired_fields(u64::MAX, usize::MAX).len(), with_mortal_fields);
}

fn digests(keyspace: &Keyspace) -> (String, String) {
    (keyspace.digest(), keyspace.shared_digest())
}

/// What who watches a key minds of it: of a stream its entries, not its groups nor ids. `None` if it is not there.
fn minded<'a>(dump: &'a Dump, key: &[u8]) -> Option<Vec<&'a [u8]>> {
    /// Tags of what is said of a stream beside its entries.
    const BESIDE: RangeInclusive<u8> = 35..=41;
    let parts = dump.get(key)?.iter().map(Vec::as_slice);
    Some(parts.filter(|part| !BESIDE.contains(&part[0])).collect())
}

/// Whether every watched key that differs between two dumps was heard of.
fn assert_heard(before: (&Dump, &[Option<u64>]), after: (&Dump, &[Option<u64>])) {
    for (at, key) in KEYS.iter().enumerate() {
        if minded(before.0, key) != minded(after.0, key) {
            assert_ne!(before.1[at], after.1[at], "{} changed unheard", key.escape_ascii());
        }
    }
}

fn heard(keyspace: &Keyspace) -> Vec<Option<u64>> {
    KEYS.iter().map(|key| keyspace.watched.last_change(key)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn applying_does_what_a_model_does(choices in any_choices()) {
        let (mut keyspace, mut model) = (Keyspace::default(), Model::of(&Keyspace::default()));
        for choice in &choices {
            if let Some(effect) = choice.fit(&keyspace) {
                keyspace.apply(&effect);
                model.apply(&effect);
            }
        }
        prop_assert_eq!(Model::of(&keyspace), model);
        check(&keyspace);
    }

    #[test]
    fn undoing_what_was_applied_changes_nothing(choices in any_choices(), back in 0.0..1.0_f64) {
        let mut keyspace = Keyspace::default();
        for key in KEYS {
            keyspace.watched.watch(key);
        }
        let mut steps = Vec::new();
        for choice in &choices {
            let Some(effect) = choice.fit(&keyspace) else { continue };
            let (before, digests, heard_before) = (dump(&keyspace), digests(&keyspace), heard(&keyspace));
            steps.push((before, digests, keyspace.apply(&effect)));
            let (before, ..) = steps.last().expect("one was just pushed");
            assert_heard((before, &heard_before), (&dump(&keyspace), &heard(&keyspace)));
        }
        let keep = (steps.len() as f64 * back) as usize;
        while steps.len() > keep {
            let (before, digests_before, undo) = steps.pop().expect("its length was compared");
            let (after, heard_before) = (dump(&keyspace), heard(&keyspace));
            keyspace.undo(undo);
            prop_assert_eq!(&dump(&keyspace), &before);
            prop_assert_eq!(digests(&keyspace), digests_before);
            assert_heard((&after, &heard_before), (&before, &heard(&keyspace)));
        }
        check(&keyspace);
    }

    #[test]
    fn a_dump_builds_the_same_from_nothing(choices in any_choices()) {
        let (mut keyspace, mut copy) = (Keyspace::default(), Keyspace::default());
        for choice in &choices {
            if let Some(effect) = choice.fit(&keyspace) {
                keyspace.apply(&effect);
            }
        }
        keyspace.dump(|effect| drop(copy.apply(effect)));
        prop_assert_eq!(digests(&copy), digests(&keyspace));
        prop_assert_eq!(dump(&copy), dump(&keyspace));
        check(&copy);
    }

    #[test]
    fn followers_have_what_the_leader_committed(turns in prop::collection::vec(any_turn(), 1..8)) {
        let mut leader = Leader::new();
        let mut follower = Keyspace::default();
        for turn in &turns {
            leader.run(turn);
            match turn.end {
                End::Commit => {
                    for data in leader.commit() {
                        let batch = Batch::decode(&data).expect("it was just sealed");
                        batch.effects().for_each(|effect| drop(follower.apply(&effect.expect("it was sealed"))));
                    }
                }
                End::Wait => leader.seal(),
                End::Depose => leader.depose(),
            }
        }
        leader.depose();
        prop_assert_eq!(digests(leader.store.keyspace()), digests(&follower));
        prop_assert_eq!(dump(leader.store.keyspace()), dump(&follower));
        check(&follower);
        check(leader.store.keyspace());
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// All that is in flight commits.
    Commit,
    /// The batch is in flight.
    Wait,
    /// Leadership is lost with all that is in flight.
    Depose,
}

/// Units, each kept or rolled back, and what becomes of them.
#[derive(Clone, Debug)]
struct Turn {
    units: Vec<(Vec<Choice>, bool)>,
    end: End,
}

fn any_turn() -> impl Strategy<Value = Turn> {
    let choices = prop::collection::vec(effects::any_choice(), 0..12);
    let unit = (choices, prop::bool::weighted(0.8));
    let end = prop_oneof![3 => Just(End::Commit), 3 => Just(End::Wait), 1 => Just(End::Depose)];
    (prop::collection::vec(unit, 1..4), end).prop_map(|(units, end)| Turn { units, end })
}

/// A leader with what it has in flight.
struct Leader {
    store: Store,
    in_flight: Vec<(u64, bytes::Bytes, super::tx::OpenBatch)>,
    /// The newest batch that changed a key and is not committed.
    changed_by: BTreeMap<Vec<u8>, u64>,
}

impl Leader {
    fn new() -> Self {
        let mut store = Store::new(Keyspace::default(), 0);
        store.begin_term();
        Self { store, in_flight: Vec::new(), changed_by: BTreeMap::new() }
    }

    fn run(&mut self, turn: &Turn) {
        for (choices, keep) in &turn.units {
            let before = dump(self.store.keyspace());
            self.store.begin_unit(1, true);
            for choice in choices {
                if let Some(effect) = choice.fit(self.store.keyspace()) {
                    self.store.tx().emit(effect);
                }
            }
            if *keep {
                let after = dump(self.store.keyspace());
                let differ = KEYS.iter().filter(|key| before.get(**key) != after.get(**key));
                let sequence = self.store.open_sequence();
                self.changed_by.extend(differ.map(|key| (key.to_vec(), sequence)));
            } else {
                self.store.roll_back_unit();
                assert_eq!(dump(self.store.keyspace()), before, "a unit rolled back leaves nothing");
                assert_eq!(self.store.unit_effects(), 0);
            }
            assert_eq!(self.store.end_unit().wrote, *keep && self.store.unit_effects() > 0);
            self.assert_readers_wait();
        }
    }

    /// Whoever sees a change that is not committed waits for it.
    fn assert_readers_wait(&mut self) {
        for key in KEYS {
            self.store.begin_unit(1, true);
            self.store.object(key);
            let depends_on = self.store.end_unit().depends_on;
            let changed_by = self.changed_by.get(*key).copied().unwrap_or(0);
            assert!(depends_on >= changed_by, "a reader of {} waits for nothing", key.escape_ascii());
        }
    }

    fn seal(&mut self) {
        let batch = self.store.seal(0);
        self.in_flight.push(batch);
        self.assert_readers_wait();
    }

    /// Commits all, oldest first. Returns the batches.
    fn commit(&mut self) -> Vec<bytes::Bytes> {
        self.seal();
        let in_flight = std::mem::take(&mut self.in_flight);
        let committed = in_flight.into_iter().map(|(sequence, data, open)| {
            self.store.committed(sequence, &open.changed);
            data
        });
        let committed = committed.collect();
        self.changed_by.clear();
        for key in KEYS {
            self.store.begin_unit(1, true);
            self.store.object(key);
            assert_eq!(self.store.end_unit().depends_on, 0, "{} is clean", key.escape_ascii());
        }
        committed
    }

    fn depose(&mut self) {
        let undos = self.store.abandon();
        undos.into_iter().rev().for_each(|undo| self.store.keyspace_mut().undo(undo));
        for (_, _, open) in std::mem::take(&mut self.in_flight).into_iter().rev() {
            open.undos.into_iter().rev().for_each(|undo| self.store.keyspace_mut().undo(undo));
        }
        self.changed_by.clear();
        self.store.begin_term();
    }
}
