//! Values against the standard collections.

use std::{cell::Cell, collections::BTreeMap, hash::BuildHasher};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::keyspace::{Blob, Hash, List, LiveHash, small};

/// Around the length up to which a blob is inline, and short.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        prop::collection::vec(0_u8..2, 21..26),
        prop::collection::vec(0_u8..2, 62..67),
    ]
}

/// Names of which more than [`small::FIELDS_MAX`] differ.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0_u16..600).prop_map(|number| number.to_string().into_bytes()),
        1 => (0_u16..300).prop_map(|number| format!("n{number}").into_bytes()),
        1 => any_bytes(),
    ]
}

proptest! {
    #[test]
    fn a_blob_is_its_bytes(left in any_bytes(), right in any_bytes()) {
        let (blob, other) = (Blob::new(&left), Blob::new(&right));
        prop_assert_eq!(&*blob, left.as_slice());
        prop_assert_eq!(blob == other, left == right);
        prop_assert_eq!(blob.cmp(&other), left.cmp(&right));
        prop_assert_eq!(&*blob.clone(), left.as_slice());
        prop_assert_eq!(blob.heap_bytes() == 0, left.len() <= 23 || left.capacity() == 0);
        let state = foldhash::fast::FixedState::default();
        prop_assert_eq!(state.hash_one(&blob), state.hash_one(left.as_slice()));
    }

    #[test]
    fn a_hash_is_a_map(
        changes in prop::collection::vec((prop::bool::weighted(0.8), any_name(), any_bytes()), 0..1_500),
        seed: u64,
        count in 0_usize..300,
    ) {
        let (mut hash, mut model) = (Hash::default(), BTreeMap::new());
        let mut was_large = false;
        for (put, field, value) in changes {
            if put {
                let before = hash.put(&field, &value);
                was_large |= field.len().max(value.len()) > small::BYTES_MAX;
                prop_assert_eq!(before.map(|former| former.value.to_vec()), model.insert(field, value));
            } else {
                prop_assert_eq!(hash.remove(&field).map(|former| former.value.to_vec()), model.remove(&field));
            }
            was_large |= model.len() > small::FIELDS_MAX;
            prop_assert_eq!(hash.is_small(), !was_large);
        }
        let listed: Vec<(Vec<u8>, Vec<u8>)> =
            hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
        prop_assert_eq!(listed.len(), hash.len());
        prop_assert_eq!(&listed.into_iter().collect::<BTreeMap<_, _>>(), &model);
        for (field, value) in &model {
            prop_assert_eq!(hash.get(field).map(|value| value.to_vec()), Some(value.clone()));
        }

        let mut random = StdRng::seed_from_u64(seed);
        let mut below = |end| random.random_range(0..end);
        let found = Cell::new(false);
        let hash = LiveHash::new(&hash, 0, &found);
        let drawn: BTreeMap<Vec<u8>, Vec<u8>> = hash
            .draw_distinct(count, &mut below)
            .into_iter()
            .map(|(field, value)| (field.to_vec(), value.to_vec()))
            .collect();
        prop_assert_eq!(drawn.len(), count.min(model.len()));
        prop_assert!(drawn.iter().all(|(field, value)| model.get(field) == Some(value)));
        prop_assert_eq!(hash.draw(&mut below).is_some(), !model.is_empty());
    }

    #[test]
    fn a_small_hash_keeps_the_order_of_coming(fields in prop::collection::vec(0_u8..40, 0..60)) {
        let (mut hash, mut model) = (Hash::default(), Vec::new());
        for field in fields {
            if hash.put(&[field], b"").is_none() {
                model.push(field);
            }
        }
        prop_assert_eq!(hash.iter().map(|(field, _)| field[0]).collect::<Vec<_>>(), model);
    }

    #[test]
    fn a_list_is_a_vector(changes in prop::collection::vec((0_u8..4, 0..100_usize, 1..20_usize), 0..300)) {
        let (mut list, mut model) = (List::default(), Vec::new());
        for (turn, (kind, at, count)) in changes.into_iter().enumerate() {
            let value = turn.to_string().into_bytes();
            let (length, at) = (model.len(), at % (model.len() + 1));
            match kind {
                0 | 1 => {
                    list.insert(at, &value);
                    model.insert(at, value);
                }
                2 if at < length => {
                    let before = list.set(at, &value);
                    prop_assert_eq!(before.to_vec(), std::mem::replace(&mut model[at], value));
                }
                _ => {
                    let count = count.min(length - at);
                    let removed: Vec<Vec<u8>> = list.remove(at, count).iter().map(|value| value.to_vec()).collect();
                    prop_assert_eq!(removed, model.drain(at..at + count).collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(list.get(at).map(|value| value.to_vec()), model.get(at).cloned());
        }
        prop_assert_eq!(list.len(), model.len());
        prop_assert_eq!(list.iter().map(|value| value.to_vec()).collect::<Vec<_>>(), model);
    }
}
