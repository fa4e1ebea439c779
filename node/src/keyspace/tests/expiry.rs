//! When keys go: against a map from keys to deadlines.

use std::collections::BTreeMap;

use moonraft_proto::Effect;
use proptest::prelude::*;

use crate::keyspace::{Keyspace, Store, deadlines::DEADLINE_MAX};

/// A key gets a deadline, loses it, or goes.
#[derive(Clone, Debug)]
enum Change {
    Put(u8, Option<u64>),
    Expire(u8, Option<u64>),
    Remove(u8),
    Rename(u8, u8),
    Clear,
}

fn any_change() -> impl Strategy<Value = Change> {
    let at = || prop::option::of(prop_oneof![1_u64..60, Just(DEADLINE_MAX), Just(u64::MAX)]);
    prop_oneof![
        8 => (0..40_u8, at()).prop_map(|(key, at)| Change::Put(key, at)),
        6 => (0..40_u8, at()).prop_map(|(key, at)| Change::Expire(key, at)),
        3 => (0..40_u8).prop_map(Change::Remove),
        3 => (0..40_u8, 0..40_u8).prop_map(|(key, to)| Change::Rename(key, to)),
        1 => Just(Change::Clear),
    ]
}

fn changed(changes: &[Change]) -> (Keyspace, BTreeMap<u8, Option<u64>>) {
    let (mut keyspace, mut model) = (Keyspace::default(), BTreeMap::new());
    for change in changes {
        match *change {
            Change::Put(key, expires_at) => {
                model.insert(key, expires_at);
                keyspace.apply(&Effect::PutString { key: &[key], value: b"", expires_at });
            }
            Change::Expire(key, expires_at) => {
                let Some(at) = model.get_mut(&key) else { continue };
                *at = expires_at;
                keyspace.apply(&Effect::SetExpiry { key: &[key], expires_at });
            }
            Change::Remove(key) => {
                model.remove(&key);
                keyspace.apply(&Effect::Remove { key: &[key] });
            }
            Change::Rename(key, to) => {
                let Some(at) = model.remove(&key) else { continue };
                model.insert(to, at);
                keyspace.apply(&Effect::Rename { key: &[key], to: &[to] });
            }
            Change::Clear => {
                model.clear();
                keyspace.apply(&Effect::ClearSlots { first: 0, last: 16383 });
            }
        }
    }
    (keyspace, model)
}

/// The deadlines of keys that are gone at `now_ms`, soonest first.
fn gone(model: &BTreeMap<u8, Option<u64>>, now_ms: u64) -> Vec<(u64, u8)> {
    let mortal = model.iter().filter_map(|(&key, &at)| Some((at?, key)));
    let mut gone: Vec<_> = mortal.filter(|&(at, _)| at < now_ms).collect();
    gone.sort_unstable();
    gone
}

proptest! {
    #[test]
    fn expired_keys_are_those_whose_time_has_come(
        changes in prop::collection::vec(any_change(), 0..120),
        now_ms in prop_oneof![0_u64..70, Just(DEADLINE_MAX), Just(u64::MAX)],
        limit in 0_usize..50,
    ) {
        let (keyspace, model) = changed(&changes);
        let gone = gone(&model, now_ms);
        let deadline = |key: u8| model[&key].expect("only mortal keys expire");

        let mut all: Vec<_> = keyspace.expired(now_ms, usize::MAX).iter().map(|key| (deadline(key[0]), key[0])).collect();
        // The order of deadlines beyond what the index holds does not matter.
        let clipped = |&(at, _): &(u64, u8)| at.min(DEADLINE_MAX);
        prop_assert!(all.is_sorted_by_key(clipped), "{:?}", all);
        all.sort_unstable();
        prop_assert_eq!(&all, &gone);
        prop_assert_eq!(keyspace.expired(now_ms, limit).len(), limit.min(gone.len()));
        let soonest = model.values().flatten().min().map(|&at| at.min(DEADLINE_MAX));
        prop_assert_eq!(keyspace.deadlines().soonest(), soonest);
    }

    #[test]
    fn a_unit_sees_no_expired_key_and_a_leader_removes_it(
        changes in prop::collection::vec(any_change(), 0..120),
        now_ms in 0_u64..70,
        limit in 1_usize..50,
    ) {
        let (keyspace, model) = changed(&changes);
        let gone = gone(&model, now_ms);
        let mut store = Store::new(keyspace, 0);
        store.begin_unit(now_ms * 1000, false);
        for &key in model.keys() {
            let is_gone = gone.iter().any(|&(_, other)| other == key);
            prop_assert_eq!(store.object(&[key]).is_none(), is_gone);
        }
        store.tx().expire(model.keys().map(std::slice::from_ref));
        prop_assert!(!store.end_unit().wrote, "a follower removes nothing");

        store.begin_unit(now_ms * 1000, true);
        let mut removed = 0;
        loop {
            let now = store.tx().remove_expired(limit);
            removed += now;
            if now < limit {
                break;
            }
        }
        store.end_unit();
        prop_assert_eq!(removed, gone.len());
        prop_assert_eq!(store.keyspace().len(), model.len() - gone.len());
    }
}
