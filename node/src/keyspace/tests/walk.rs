//! Whatever changes while a walk is under way, and is taken back or not: what it writes is the state at
//! its beginning, each key once.

use moonraft_proto::{Effect, entry::Batch};
use proptest::prelude::*;

use super::{
    check, digests, dump,
    effects::{Choice, KEYS, any_choice, any_choices},
};
use crate::keyspace::{Blob, Keyspace, Undo, stream::StreamUndo, walk::Ready};

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
    /// Somebody is about to change a key, and so many bytes may be written at once.
    Prepare(usize, usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_choice().prop_map(Step::Apply),
        4 => (0_u16..400).prop_map(Step::Insert),
        2 => (0_usize..20).prop_map(Step::Undo),
        1 => Just(Step::Commit),
        4 => (1_usize..6000).prop_map(Step::Walk),
        3 => (0..KEYS.len(), 0_usize..5000).prop_map(|(key, at_once)| Step::Prepare(key, at_once)),
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

/// Whether an effect on a stream made something that was not there before, or said how many entries it has had.
const fn is_new(change: &StreamUndo) -> bool {
    matches!(
        change,
        StreamUndo::Added { .. }
            | StreamUndo::Set { .. }
            | StreamUndo::Group { .. }
            | StreamUndo::Consumer { before: None, .. }
            | StreamUndo::Pending { .. }
    )
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
                Undo::FieldExpiry { before: None, .. } => {}
                Undo::Member { before: false, .. } | Undo::Score { before: None, .. } => {}
                Undo::Inserted { .. } | Undo::Patch { .. } | Undo::Expiry { .. } => {}
                Undo::Owned { .. } | Undo::ScriptLoaded { .. } | Undo::Format { before: 1 } => {}
                Undo::Stream { change, .. } if is_new(&change) => {}
                Undo::Library { before: None, .. } | Undo::Function { before: None, .. } => {}
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
                Step::Walk(cost) => drop(keyspace.walk(*cost, || true)),
                Step::Prepare(key, at_once) => {
                    keyspace.allow_at_once(*at_once);
                    let ready = keyspace.prepare_change(KEYS[*key]);
                    prop_assert!(ready || keyspace.is_awaited());
                }
            }
            chunks.extend(keyspace.take_chunks());
        }
        let given_up = !keyspace.is_walking();
        prop_assert!(!given_up || cleared, "only the return of what was cleared ends a walk");
        while !keyspace.walk(cost, || true) {
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
        while !keyspace.walk(cost, || true) {}
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
    while !keyspace.walk(10_000, || true) {
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
    keyspace.walk(20_000, || true);
    let undo = keyspace.apply(&Effect::ClearSlots { first: 0, last: 16_383 });
    chunks.extend(keyspace.take_chunks());
    let before: usize = chunks.iter().map(bytes::Bytes::len).sum();
    assert!(before < 30_000, "{before} bytes");
    drop(undo);
    while !keyspace.walk(20_000, || true) {}
    chunks.extend(keyspace.take_chunks());
    assert_eq!(digests(&build(&chunks)), expected);
    assert!(keyspace.is_empty());
}

/// So many elements of 8 bytes in one hash: `elements` * 30 bytes of a snapshot, about.
fn put_hash(keyspace: &mut Keyspace, key: &[u8], elements: u64) {
    for number in 0..elements {
        let field = number.to_be_bytes();
        keyspace.apply(&Effect::HashPut { key, field: &field, value: &field });
    }
}

/// A walk that somebody waits for, and all it has written.
struct Awaited {
    keyspace: Keyspace,
    chunks: Vec<bytes::Bytes>,
    expected: (String, String),
}

impl Awaited {
    /// Beside `keyspace`'s keys there are many small ones. A walk begins.
    fn begin(mut keyspace: Keyspace) -> Self {
        (0..10_000).for_each(|number| drop(insert(&mut keyspace, number)));
        let expected = digests(&keyspace);
        keyspace.begin_walk(77);
        keyspace.take_ready();
        let mut begun = Self { keyspace, chunks: Vec::new(), expected };
        begun.step(0);
        begun
    }

    /// Goes on by a step, after which 10 KB may be written at once.
    fn step(&mut self, cost: usize) {
        self.keyspace.walk(cost, || true);
        self.chunks.extend(self.keyspace.take_chunks());
        self.keyspace.allow_at_once(10_000);
    }

    /// Steps until a value that is awaited is written.
    fn steps_until_ready(&mut self) -> usize {
        let mut steps = 0;
        while self.keyspace.take_ready() == Ready::default() {
            self.step(10_000);
            steps += 1;
            assert!(steps < 2000, "nobody goes on");
        }
        steps
    }

    /// Bytes in chunks that are full.
    fn bytes(&mut self) -> usize {
        self.chunks.extend(self.keyspace.take_chunks());
        self.chunks.iter().map(bytes::Bytes::len).sum()
    }

    fn finish(mut self) {
        while !self.keyspace.walk(10_000, || true) {}
        self.chunks.extend(self.keyspace.take_chunks());
        assert_eq!(digests(&build(&self.chunks)), self.expected);
        check(&self.keyspace);
    }
}

#[test]
fn a_large_value_that_is_to_change_is_written_in_steps_before_all_else() {
    let mut keyspace = Keyspace::default();
    put_hash(&mut keyspace, b"large", 100_000);
    let mut begun = Awaited::begin(keyspace);
    assert!(!begun.keyspace.prepare_change(b"large"));
    assert!(begun.bytes() < 200_000, "more is written at once than may be");
    assert!(begun.keyspace.prepare_change(b"{t}1"), "a small one waits for the large");
    begun.keyspace.apply(&Effect::Remove { key: b"{t}1" });
    let mut before = begun.bytes();
    for _ in 0..100 {
        begun.step(10_000);
        let after = begun.bytes();
        assert!(after - before < 200_000, "a step of {} bytes", after - before);
        before = after;
    }
    assert!(begun.keyspace.is_awaited() && !begun.keyspace.prepare_change(b"large"));
    let steps = 100 + begun.steps_until_ready();
    assert!((120..400).contains(&steps), "{steps} steps for 2.5 MB");
    assert!(begun.keyspace.prepare_change(b"large") && !begun.keyspace.is_awaited());
    let before = begun.bytes();
    begun.keyspace.apply(&Effect::Remove { key: b"large" });
    assert!(begun.bytes() - before < 200_000, "it is written again");
    begun.finish();
}

#[test]
fn a_large_value_that_the_walk_is_at_is_awaited_too() {
    let mut keyspace = Keyspace::default();
    put_hash(&mut keyspace, b"large", 100_000);
    let expected = digests(&keyspace);
    keyspace.begin_walk(77);
    keyspace.walk(100_000, || true);
    keyspace.allow_at_once(10_000);
    assert!(!keyspace.prepare_change(b"large"));
    keyspace.walk(100_000, || true);
    let mut chunks = keyspace.take_chunks();
    assert!(chunks.iter().map(bytes::Bytes::len).sum::<usize>() < 400_000);
    assert!(!keyspace.prepare_change(b"large"));
    while !keyspace.prepare_change(b"large") {
        keyspace.walk(100_000, || true);
    }
    keyspace.apply(&Effect::Remove { key: b"large" });
    keyspace.walk(usize::MAX, || true);
    chunks.extend(keyspace.take_chunks());
    assert_eq!(digests(&build(&chunks)), expected);
}

#[test]
fn values_that_are_awaited_take_turns() {
    let mut keyspace = Keyspace::default();
    put_hash(&mut keyspace, b"huge", 100_000);
    put_hash(&mut keyspace, b"large", 2000);
    let mut begun = Awaited::begin(keyspace);
    assert!(!begun.keyspace.prepare_change(b"huge"));
    assert!(!begun.keyspace.prepare_change(b"large"), "both are written at once");
    let steps = begun.steps_until_ready();
    assert!(steps < 30, "{steps} steps for 60 KB");
    assert!(begun.keyspace.prepare_change(b"large") && !begun.keyspace.prepare_change(b"huge"));
    begun.finish();
}

#[test]
fn who_does_not_wait_for_a_large_value_has_it_written_at_once() {
    let mut keyspace = Keyspace::default();
    put_hash(&mut keyspace, b"large", 10_000);
    let mut begun = Awaited::begin(keyspace);
    assert!(!begun.keyspace.prepare_change(b"large"));
    begun.keyspace.apply(&Effect::Remove { key: b"large" });
    assert_eq!(begun.keyspace.take_ready(), Ready::Keys(vec![Blob::new(b"large")]));
    assert!(!begun.keyspace.is_awaited());
    begun.finish();
}

#[test]
fn a_large_value_that_is_cleared_while_it_is_awaited_is_written_where_it_is_set_aside() {
    let mut keyspace = Keyspace::default();
    put_hash(&mut keyspace, b"large", 10_000);
    let mut begun = Awaited::begin(keyspace);
    assert!(!begun.keyspace.prepare_change(b"large"));
    let undo = begun.keyspace.apply(&Effect::ClearSlots { first: 0, last: 16_383 });
    // What the key holds then is not in the snapshot.
    assert!(begun.keyspace.prepare_change(b"large"));
    put_hash(&mut begun.keyspace, b"large", 3);
    assert!(begun.keyspace.is_awaited() && begun.bytes() < 200_000, "clearing waits for nothing");
    drop(undo);
    assert!(begun.steps_until_ready() > 10);
    begun.finish();
}
