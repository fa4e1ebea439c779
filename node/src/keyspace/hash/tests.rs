//! Fields with deadlines against a map.

use std::{cell::Cell, collections::BTreeMap, num::NonZeroU64};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Hash, LiveHash};

#[derive(Clone, Debug)]
enum Change {
    Put(u16),
    Remove(u16),
    Expire(u16, Option<u64>),
}

/// Fields of which there are more than fit a small hash; deadlines of which many are the same.
fn any_change() -> impl Strategy<Value = Change> {
    let field = || 0_u16..700;
    prop_oneof![
        8 => field().prop_map(Change::Put),
        2 => field().prop_map(Change::Remove),
        6 => (field(), prop::option::weighted(0.8, 1_u64..40)).prop_map(|(field, at)| Change::Expire(field, at)),
    ]
}

type Model = BTreeMap<Vec<u8>, Option<u64>>;

fn change(hash: &mut Hash, model: &mut Model, change: &Change) {
    let &(Change::Put(number) | Change::Remove(number) | Change::Expire(number, _)) = change;
    let field = number.to_string().into_bytes();
    let before = model.get(&field).copied();
    let deadline = |at: Option<NonZeroU64>| at.map(NonZeroU64::get);
    match *change {
        Change::Put(_) => {
            let was = hash.put(&field, b"v").map(|former| deadline(former.expires_at));
            assert_eq!(was, before);
            model.insert(field, None);
        }
        Change::Remove(_) => {
            let was = hash.remove(&field).map(|former| deadline(former.expires_at));
            assert_eq!(was, before);
            model.remove(&field);
        }
        Change::Expire(_, at) => {
            let Some(before) = before else { return };
            assert_eq!(deadline(hash.set_deadline(&field, at.and_then(NonZeroU64::new))), before);
            model.insert(field, at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a change tells of a field takes it back.
    #[test]
    fn what_a_field_was_is_restored(
        changes in prop::collection::vec((any_change(), 0_u16..8), 0..60), is_large: bool,
    ) {
        let (mut hash, mut model) = (Hash::default(), Model::new());
        if is_large {
            hash.put(&[b'x'; 100], b"");
            model.insert(vec![b'x'; 100], None);
        }
        for (it, number) in &changes {
            let it = match *it {
                Change::Put(_) => Change::Put(*number),
                Change::Remove(_) => Change::Remove(*number),
                Change::Expire(_, at) => Change::Expire(*number, at),
            };
            let (field, before) = (number.to_string().into_bytes(), hash.clone());
            let former = match it {
                Change::Put(_) => hash.put(&field, b"new"),
                _ => hash.remove(&field),
            };
            hash.restore(&field, former);
            prop_assert_eq!(&hash, &before);
            prop_assert_eq!((hash.soonest(), hash.is_small()), (before.soonest(), before.is_small()));
            change(&mut hash, &mut model, &it);
        }
    }
}

#[test]
fn a_hash_without_deadlines_is_as_small_as_its_fields() {
    assert_eq!(size_of::<Hash>(), 32);
    let mut hash = Hash::default();
    hash.put(b"field", b"value");
    let bytes = hash.heap_bytes(10);
    hash.set_deadline(b"field", NonZeroU64::new(1));
    assert!(hash.has_deadlines() && hash.heap_bytes(10) > bytes);
    hash.set_deadline(b"field", None);
    assert!(!hash.has_deadlines());
    assert_eq!(hash.heap_bytes(10), bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fields_have_the_deadlines_that_a_map_has(
        changes in prop::collection::vec(any_change(), 0..1500), now_ms in 0_u64..45, count in 0_usize..900,
    ) {
        let (mut hash, mut model) = (Hash::default(), Model::new());
        for it in &changes {
            change(&mut hash, &mut model, it);
        }
        prop_assert_eq!(hash.len(), model.len());
        prop_assert_eq!(hash.soonest(), model.values().flatten().min().copied());
        prop_assert_eq!(hash.has_deadlines(), model.values().any(Option::is_some));
        prop_assert!(model.iter().all(|(field, at)| hash.deadline(field) == *at));
        let is_gone = |at: &Option<u64>| at.is_some_and(|at| at < now_ms);
        let mut due: Vec<&[u8]> = hash.due(now_ms).collect();
        prop_assert!(due.is_sorted_by_key(|field| model[*field]));
        due.sort_unstable();
        prop_assert_eq!(due, model.iter().filter(|it| is_gone(it.1)).map(|it| &**it.0).collect::<Vec<_>>());

        let found = Cell::new(false);
        let live = LiveHash::new(&hash, now_ms, &found);
        let left: Vec<&[u8]> = model.iter().filter(|it| !is_gone(it.1)).map(|it| &**it.0).collect();
        prop_assert!(model.iter().all(|(field, at)| live.get(field).is_none() == is_gone(at)));
        prop_assert_eq!(found.get(), left.len() < model.len());
        let mut seen: Vec<&[u8]> = live.iter().map(|(field, _)| field).collect();
        seen.sort_unstable();
        prop_assert_eq!(&seen, &left);

        let mut random = StdRng::seed_from_u64(count as u64);
        let mut below = |end| random.random_range(0..end);
        let drawn = live.draw_distinct(count, &mut below);
        prop_assert_eq!(drawn.len(), count.min(left.len()));
        let drawn = drawn.into_iter().chain(live.draw_repeated(count, &mut below)).chain(live.draw(&mut below));
        let mut drawn: Vec<&[u8]> = drawn.map(|(field, _)| field).collect();
        prop_assert_eq!(drawn.len(), if left.is_empty() { 0 } else { count.min(left.len()) + count + 1 });
        drawn.retain(|field| left.binary_search(field).is_err());
        prop_assert!(drawn.is_empty(), "{:?} are gone", drawn);
        let (mut scanned, mut cursor) = (Vec::new(), 0);
        loop {
            let (pairs, next) = live.scan(cursor, 10);
            scanned.extend(pairs.into_iter().map(|(field, _)| field));
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        scanned.sort_unstable();
        prop_assert_eq!(scanned, left);
    }
}
