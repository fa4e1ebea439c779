//! Whatever changes while a walk is under way, and is taken back or not: what it writes is the state at
//! its beginning, each key once.

use moonraft_proto::{Effect, entry::Batch};
use proptest::prelude::*;

use super::{
    check, digests, dump,
    effects::{Choice, KEYS, any_choice, any_choices},
};
use crate::keyspace::{Keyspace, Undo};

#[derive(Clone, Debug)]
enum Step {
    Apply(Choice),
    /// A new key in a slot of many: its table grows, and what is in it moves.
    Insert(u16),
    /// That many of the newest changes are taken back.
    Undo(usize),
    /// Changes so far cannot be taken back any more.
    Commit,
    Walk(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_choice().prop_map(Step::Apply),
        4 => (0_u16..400).prop_map(Step::Insert),
        2 => (0_usize..20).prop_map(Step::Undo),
        1 => Just(Step::Commit),
        4 => (1_usize..6000).prop_map(Step::Walk),
    ]
}

fn insert(keyspace: &mut Keyspace, number: u16) -> Undo {
    let key = format!("{{t}}{number}");
    keyspace.apply(&Effect::PutString { key: key.as_bytes(), value: b"v", expires_at: None })
}

/// Values that are written in slices.
fn put_large(keyspace: &mut Keyspace, kind: u8) {
    let key = KEYS[usize::from(kind) % KEYS.len()];
    keyspace.apply(&Effect::Remove { key });
    for number in 0..700_u64 {
        let name = format!("{number:020}");
        let name = name.as_bytes();
        keyspace.apply(&match kind % 5 {
            0 => Effect::HashPut { key, field: name, value: b"v" },
            1 => Effect::SetAdd { key, member: name },
            2 => Effect::SortedPut { key, member: name, score: (number % 7) as f64 },
            3 => Effect::ListInsert { key, index: number / 2, value: name },
            _ => Effect::PatchString { key, offset: number * 300, bytes: name },
        });
    }
    keyspace.apply(&Effect::SetExpiry { key, expires_at: Some(7) });
}

/// What chunks build, if each makes something that was not there before.
fn build(chunks: &[bytes::Bytes]) -> Keyspace {
    let mut copy = Keyspace::default();
    for chunk in chunks {
        let batch = Batch::decode(chunk).expect("it was written just so");
        assert_eq!(batch.stamp_ms, 77);
        for effect in batch.effects() {
            let effect = effect.expect("it was written just so");
            match copy.apply(&effect) {
                Undo::Object { before: None, .. } | Undo::Field { before: None, .. } => {}
                Undo::Member { before: false, .. } | Undo::Score { before: None, .. } => {}
                Undo::Inserted { .. } | Undo::Patch { .. } | Undo::Expiry { .. } => {}
                Undo::Owned { .. } | Undo::ScriptLoaded { .. } => {}
                undo => panic!("{effect:?} comes twice: {undo:?}"),
            }
        }
    }
    copy
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_walk_writes_the_state_at_its_beginning(
        before in any_choices(),
        large in prop::collection::vec(any::<u8>(), 0..3),
        many in 0_u16..300,
        speculative in prop::collection::vec(any_choice(), 0..10),
        steps in prop::collection::vec(any_step(), 0..60),
        cost in 1_usize..20_000,
    ) {
        let mut keyspace = Keyspace::default();
        for choice in &before {
            if let Some(effect) = choice.fit(&keyspace) {
                keyspace.apply(&effect);
            }
        }
        large.iter().for_each(|&kind| put_large(&mut keyspace, kind));
        (0..many).for_each(|number| drop(insert(&mut keyspace, number)));
        let mut undos = Vec::new();
        for choice in &speculative {
            if let Some(effect) = choice.fit(&keyspace) {
                undos.push(keyspace.apply(&effect));
            }
        }
        let (expected, parts) = (digests(&keyspace), dump_all(&keyspace));

        keyspace.begin_walk(77);
        let mut chunks = Vec::new();
        let mut cleared = false;
        for step in &steps {
            match step {
                Step::Apply(choice) => {
                    if let Some(effect) = choice.fit(&keyspace) {
                        undos.push(keyspace.apply(&effect));
                    }
                }
                Step::Insert(number) => undos.push(insert(&mut keyspace, *number)),
                Step::Undo(count) => {
                    for undo in undos.drain(undos.len().saturating_sub(*count)..).rev().collect::<Vec<_>>() {
                        cleared |= matches!(undo, Undo::Slots { .. });
                        keyspace.undo(undo);
                    }
                }
                Step::Commit => undos.clear(),
                Step::Walk(cost) => drop(keyspace.walk(*cost)),
            }
            chunks.extend(keyspace.take_chunks());
        }
        let given_up = !keyspace.is_walking();
        prop_assert!(!given_up || cleared, "only the return of what was cleared ends a walk");
        while !keyspace.walk(cost) {
            chunks.extend(keyspace.take_chunks());
        }
        chunks.extend(keyspace.take_chunks());
        keyspace.give_up_walk();
        check(&keyspace);
        if !given_up {
            let copy = build(&chunks);
            prop_assert_eq!(digests(&copy), expected);
            prop_assert_eq!(dump_all(&copy), parts);
            check(&copy);
        }
        // A walk after it knows nothing of it.
        let expected = digests(&keyspace);
        keyspace.begin_walk(77);
        while !keyspace.walk(cost) {}
        prop_assert_eq!(digests(&build(&keyspace.take_chunks())), expected);
    }
}

/// Keys in all, beside those that [`dump`] looks at.
fn dump_all(keyspace: &Keyspace) -> (super::Dump, usize) {
    (dump(keyspace), keyspace.len())
}

#[test]
fn a_step_is_bounded_however_large_a_value_is() {
    let mut keyspace = Keyspace::default();
    for number in 0..100_000_u64 {
        let field = number.to_be_bytes();
        keyspace.apply(&Effect::HashPut { key: b"k", field: &field, value: &field });
    }
    let expected = digests(&keyspace);
    keyspace.begin_walk(77);
    let (mut chunks, mut steps) = (keyspace.take_chunks(), 0);
    while !keyspace.walk(10_000) {
        let step = keyspace.take_chunks();
        assert!(step.iter().map(bytes::Bytes::len).sum::<usize>() < 200_000);
        chunks.extend(step);
        steps += 1;
    }
    chunks.extend(keyspace.take_chunks());
    assert!(steps > 100, "{steps} steps");
    assert_eq!(digests(&build(&chunks)), expected);
}

#[test]
fn clearing_all_writes_nothing_at_once() {
    let mut keyspace = Keyspace::default();
    (0..10_000).for_each(|number| drop(insert(&mut keyspace, number)));
    let expected = digests(&keyspace);
    keyspace.begin_walk(77);
    let mut chunks = keyspace.take_chunks();
    keyspace.walk(20_000);
    let undo = keyspace.apply(&Effect::ClearSlots { first: 0, last: 16_383 });
    chunks.extend(keyspace.take_chunks());
    let before: usize = chunks.iter().map(bytes::Bytes::len).sum();
    assert!(before < 30_000, "{before} bytes");
    drop(undo);
    while !keyspace.walk(20_000) {}
    chunks.extend(keyspace.take_chunks());
    assert_eq!(digests(&build(&chunks)), expected);
    assert!(keyspace.is_empty());
}
