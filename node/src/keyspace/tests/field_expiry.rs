//! When fields go: against a map from keys to fields to deadlines.

use std::collections::BTreeMap;

use moonraft_proto::Effect;
use proptest::prelude::*;

use super::check;
use crate::keyspace::{Blob, Keyspace, Store};

type Model = BTreeMap<u8, BTreeMap<u8, Option<u64>>>;

/// Fields of hashes with their deadlines: few, so that many are due at once and some hashes lose all of theirs.
fn any_model() -> impl Strategy<Value = Model> {
    let fields = prop::collection::btree_map(0_u8..30, prop::option::weighted(0.7, 1_u64..60), 1..20);
    prop::collection::btree_map(0_u8..30, fields, 0..12)
}

fn built(model: &Model) -> Keyspace {
    let mut keyspace = Keyspace::default();
    for (key, fields) in model {
        for (field, &expires_at) in fields {
            let (key, field) = (std::slice::from_ref(key), std::slice::from_ref(field));
            keyspace.apply(&Effect::HashPut { key, field, value: b"v" });
            keyspace.apply(&Effect::HashExpire { key, field, expires_at });
        }
    }
    keyspace
}

/// Removes what is due, so many at a time. Returns how many.
fn remove_all(store: &mut Store, limit: usize) -> usize {
    let mut removed = 0;
    loop {
        let now = store.tx().remove_expired(limit);
        assert!(now <= limit, "{now} at once");
        removed += now;
        if now < limit {
            return removed;
        }
    }
}

proptest! {
    #[test]
    fn a_unit_sees_no_expired_field_and_a_leader_removes_it(
        model in any_model(), now_ms in 0_u64..70, limit in 1_usize..50,
    ) {
        let is_gone = |at: &Option<u64>| at.is_some_and(|at| at < now_ms);
        let gone: usize = model.values().map(|fields| fields.values().filter(|at| is_gone(at)).count()).sum();
        let mut store = Store::new(built(&model), 0);
        for (key, fields) in &model {
            for (field, at) in fields {
                store.begin_unit(now_ms * 1000, false);
                let hash = store.hash(&[*key]).expect("it is a hash").expect("it is there");
                prop_assert_eq!(hash.get(&[*field]).is_none(), is_gone(at));
                // Else a reader at the next leader might find it again.
                prop_assert_eq!(store.end_unit().found_expired, is_gone(at));
            }
        }
        store.begin_unit(now_ms * 1000, true);
        prop_assert_eq!(remove_all(&mut store, limit), gone);
        store.end_unit();
        let mut left = model.clone();
        left.values_mut().for_each(|fields| fields.retain(|_, at| !is_gone(at)));
        left.retain(|_, fields| !fields.is_empty());
        prop_assert_eq!(store.keyspace().digest(), built(&left).digest());
        check(store.keyspace());
    }

    /// What is lent is not removed; when it is back it is, whether its unit came to something or not.
    #[test]
    fn a_hash_that_is_lent_keeps_its_fields(model in any_model(), now_ms in 0_u64..70, is_kept: bool) {
        let keys: Vec<Blob> = model.keys().map(|key| Blob::new(&[*key])).collect();
        let mut store = Store::new(built(&model), 0);
        let before = store.keyspace().digest();
        store.begin_unit(now_ms * 1000, true);
        let mut loan = store.begin_loan(1, keys.len());
        keys.iter().for_each(|key| store.lend(&mut loan, key.clone()));
        let mut borrowed = loan.open();
        prop_assert_eq!(remove_all(&mut store, 10), 0);
        if let Some(key) = keys.first() {
            borrowed.store().tx().emit(Effect::HashPut { key, field: b"new", value: b"" });
            borrowed.store().tx().emit(Effect::HashExpire { key, field: b"new", expires_at: Some(1) });
        }
        if is_kept {
            store.take_back(&mut borrowed);
            check(store.keyspace());
            store.roll_back_unit();
        } else {
            store.recall(&mut borrowed);
        }
        store.end_loan(1);
        prop_assert_eq!(store.keyspace().digest(), before);
        check(store.keyspace());
        remove_all(&mut store, 10);
        check(store.keyspace());
    }
}
