//! A scan returns whatever is there from its first call to its last, whatever
//! else comes and goes meanwhile, and it ends.

use std::collections::BTreeMap;

use moonraft_proto::Effect;
use proptest::prelude::*;

use crate::keyspace::{Hash, Keyspace, scan::WHOLE_MAX};

/// How often each name was returned.
type Seen = BTreeMap<Vec<u8>, usize>;

fn put(keyspace: &mut Keyspace, key: &str) {
    keyspace.apply(&Effect::PutString { key: key.as_bytes(), value: b"", expires_at: None });
}

/// Scans to the end; `meanwhile` is called between calls. Returns what was seen
/// and how many calls it took, at most `calls_max`.
fn scan_all(calls_max: usize, mut call: impl FnMut(u64, &mut Seen) -> u64) -> (Seen, usize) {
    let (mut seen, mut cursor) = (Seen::new(), 0);
    for calls in 1..=calls_max {
        cursor = call(cursor, &mut seen);
        if cursor == 0 {
            return (seen, calls);
        }
    }
    panic!("{calls_max} calls were not enough");
}

#[test]
fn a_hundred_thousand_keys_of_one_slot_are_returned_once_each() {
    const KEYS: usize = 100_000;
    let mut keyspace = Keyspace::default();
    (0..KEYS).for_each(|number| put(&mut keyspace, &format!("{{t}}{number}")));
    for count in [10, 5000, usize::MAX] {
        let (seen, calls) = scan_all(2000, |cursor, seen| {
            let (entries, next) = keyspace.scan(cursor, count);
            entries.iter().for_each(|entry| *seen.entry(entry.key.to_vec()).or_default() += 1);
            next
        });
        assert_eq!(seen.len(), KEYS);
        assert!(seen.values().all(|&times| times == 1));
        assert!(calls <= 1 + KEYS.div_ceil(count.max(KEYS / 512)), "{calls} calls of {count}");
    }
}

#[test]
fn a_scan_goes_on_where_another_replica_left_it() {
    let replicas = [Keyspace::default(), Keyspace::default()].map(|mut keyspace| {
        (0..3000).for_each(|number| put(&mut keyspace, &format!("{{t}}{number}")));
        (0..500).for_each(|number| put(&mut keyspace, &number.to_string()));
        keyspace
    });
    let mut turn = 0;
    let (seen, _) = scan_all(2000, |cursor, seen| {
        turn += 1;
        let (entries, next) = replicas[turn % 2].scan(cursor, 10);
        entries.iter().for_each(|entry| *seen.entry(entry.key.to_vec()).or_default() += 1);
        next
    });
    assert_eq!(seen.len(), 3500);
    assert!(seen.values().all(|&times| times == 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn keys_that_stay_are_returned(
        stay in 1_usize..2 * WHOLE_MAX,
        come_and_go in prop::collection::vec((any::<bool>(), 0_u16..800, any::<bool>()), 1..600),
        churn in 1_usize..60,
        count in 1_usize..200,
    ) {
        let mut keyspace = Keyspace::default();
        // Half of them in one slot, which may have too many for one piece.
        let name = |kind: &str, number: usize| match number % 2 {
            0 => format!("{{t}}{kind}{number}"),
            _ => format!("{kind}{number}"),
        };
        (0..stay).for_each(|number| put(&mut keyspace, &name("stay", number)));
        let mut changes = come_and_go.iter().cycle();
        let (seen, _) = scan_all(20_000, |cursor, seen| {
            let (entries, next) = keyspace.scan(cursor, count);
            entries.iter().for_each(|entry| *seen.entry(entry.key.to_vec()).or_default() += 1);
            for &(come, number, wide) in changes.by_ref().take(churn) {
                let key = name("go", usize::from(number) * if wide { 1 } else { 2 });
                if come {
                    put(&mut keyspace, &key);
                } else {
                    keyspace.apply(&Effect::Remove { key: key.as_bytes() });
                }
            }
            next
        });
        for number in 0..stay {
            prop_assert!(seen.contains_key(name("stay", number).as_bytes()), "{} was missed", number);
        }
    }

    #[test]
    fn fields_that_stay_are_returned(
        stay in 1_usize..3 * WHOLE_MAX,
        come_and_go in prop::collection::vec((any::<bool>(), 0_u16..2000), 1..600),
        churn in 1_usize..60,
        count in 1_usize..200,
    ) {
        let mut hash = Hash::default();
        (0..stay).for_each(|number| drop(hash.put(number.to_string().as_bytes(), b"")));
        let mut changes = come_and_go.iter().cycle();
        let (seen, _) = scan_all(20_000, |cursor, seen| {
            let (pairs, next) = hash.scan(cursor, count);
            pairs.iter().for_each(|(field, _)| *seen.entry(field.to_vec()).or_default() += 1);
            for &(come, number) in changes.by_ref().take(churn) {
                let field = format!("go{number}");
                if come {
                    hash.put(field.as_bytes(), b"");
                } else {
                    hash.remove(field.as_bytes());
                }
            }
            next
        });
        prop_assert!((0..stay).all(|number| seen.contains_key(number.to_string().as_bytes())));
    }
}
