//! A scan returns whatever is there from its first call to its last, whatever
//! else comes and goes meanwhile and whichever replica is asked, and it ends.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use moonraft_proto::Effect;
use proptest::prelude::*;

use crate::keyspace::{Keyspace, LiveHash, Value};

/// What is scanned.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Keys, every other one in one slot.
    Keys,
    /// Keys of one slot.
    Slot,
    Fields,
    Members,
    Scores,
}

const KINDS: [Kind; 5] = [Kind::Keys, Kind::Slot, Kind::Fields, Kind::Members, Kind::Scores];

/// The key whose elements are scanned.
const KEY: &[u8] = b"container";

/// Clients that keep a cursor as a double can tell it from its neighbours below this.
const CURSOR_END: u64 = 1 << 53;

/// How often each name was returned.
type Seen = BTreeMap<Vec<u8>, usize>;

/// A replica, of which one kind is looked at.
struct Replica {
    kind: Kind,
    keyspace: Keyspace,
}

impl Replica {
    fn new(kind: Kind) -> Self {
        Self { kind, keyspace: Keyspace::default() }
    }

    fn name(kind: Kind, number: usize) -> Vec<u8> {
        match kind {
            Kind::Keys if number.is_multiple_of(2) => format!("{{t}}{number}"),
            Kind::Slot => format!("{{t}}{number}"),
            // No integer: a set of those stays small for longer.
            Kind::Keys | Kind::Fields | Kind::Members | Kind::Scores => format!("n{number}"),
        }
        .into_bytes()
    }

    fn put(&mut self, number: usize) {
        let name = &*Self::name(self.kind, number);
        self.keyspace.apply(&match self.kind {
            Kind::Keys | Kind::Slot => Effect::PutString { key: name, value: b"", expires_at: None },
            Kind::Fields => Effect::HashPut { key: KEY, field: name, value: b"" },
            Kind::Members => Effect::SetAdd { key: KEY, member: name },
            Kind::Scores => Effect::SortedPut { key: KEY, member: name, score: (number % 7) as f64 },
        });
    }

    fn has(&self, name: &[u8]) -> bool {
        match (self.kind, self.keyspace.get(KEY).map(|object| &object.value)) {
            (Kind::Keys | Kind::Slot, _) => self.keyspace.get(name).is_some(),
            (_, None) => false,
            (_, Some(Value::Hash(hash))) => hash.get(name).is_some(),
            (_, Some(Value::Set(set))) => set.contains(name),
            (_, Some(Value::Sorted(sorted))) => sorted.score(name).is_some(),
            (_, Some(other)) => panic!("nobody made a {}", other.type_name()),
        }
    }

    fn remove(&mut self, number: usize) {
        let name = &*Self::name(self.kind, number);
        if !self.has(name) {
            return;
        }
        self.keyspace.apply(&match self.kind {
            Kind::Keys | Kind::Slot => Effect::Remove { key: name },
            Kind::Fields => Effect::HashRemove { key: KEY, field: name },
            Kind::Members => Effect::SetRemove { key: KEY, member: name },
            Kind::Scores => Effect::SortedRemove { key: KEY, member: name },
        });
    }

    /// One call: the names, and the cursor to go on with.
    fn scan(&self, cursor: u64, count: usize) -> (Vec<Vec<u8>>, u64) {
        let (names, next): (Vec<Vec<u8>>, u64) = match self.keyspace.get(KEY).map(|object| &object.value) {
            None => {
                let (entries, next) = self.keyspace.scan(cursor, count);
                (entries.iter().map(|entry| entry.key.to_vec()).collect(), next)
            }
            Some(Value::Hash(hash)) => {
                let found = Cell::new(false);
                let (pairs, next) = LiveHash::new(hash, 0, &found).scan(cursor, count);
                (pairs.iter().map(|(field, _)| field.to_vec()).collect(), next)
            }
            Some(Value::Set(set)) => {
                let (members, next) = set.scan(cursor, count);
                (members.iter().map(|member| member.to_vec()).collect(), next)
            }
            Some(Value::Sorted(sorted)) => {
                let (pairs, next) = sorted.scan(cursor, count);
                (pairs.iter().map(|(member, _)| member.to_vec()).collect(), next)
            }
            Some(other) => panic!("nobody made a {}", other.type_name()),
        };
        assert!(next < CURSOR_END, "{next} is no cursor for a client that keeps doubles");
        (names, next)
    }
}

/// Scans to the end. Returns what was seen and how many calls it took, at most `calls_max`.
fn scan_all(calls_max: usize, mut call: impl FnMut(u64) -> (Vec<Vec<u8>>, u64)) -> (Seen, usize) {
    let (mut seen, mut cursor) = (Seen::new(), 0);
    for calls in 1..=calls_max {
        let (names, next) = call(cursor);
        names.into_iter().for_each(|name| *seen.entry(name).or_default() += 1);
        cursor = next;
        if cursor == 0 {
            return (seen, calls);
        }
    }
    panic!("{calls_max} calls were not enough");
}

#[test]
fn a_hundred_thousand_are_returned_once_each_and_as_many_a_call_as_asked_for() {
    const ALL: usize = 100_000;
    for kind in KINDS {
        let mut replica = Replica::new(kind);
        (0..ALL).for_each(|number| replica.put(number));
        for count in [10, 5000, usize::MAX] {
            let (seen, calls) = scan_all(ALL, |cursor| {
                let (names, next) = replica.scan(cursor, count);
                assert!(names.len() <= count.saturating_add(3), "{} for {count}", names.len());
                (names, next)
            });
            assert_eq!(seen.len(), ALL);
            assert!(seen.values().all(|&times| times == 1));
            assert!(calls <= 1 + ALL.div_ceil(count), "{calls} calls of {count} for {kind:?}");
        }
    }
}

/// The two have nothing in common but what they hold: neither seeds, nor the order in which it came, nor
/// what their tables have grown to before.
#[test]
fn a_scan_goes_on_where_another_replica_left_it() {
    const ALL: usize = 3000;
    for kind in KINDS {
        let mut replicas = [Replica::new(kind), Replica::new(kind)];
        (0..ALL).for_each(|number| replicas[0].put(number));
        (0..20 * ALL).rev().for_each(|number| replicas[1].put(number));
        (ALL..20 * ALL).for_each(|number| replicas[1].remove(number));
        let mut turn = 0;
        let (seen, _) = scan_all(2 * ALL, |cursor| {
            turn += 1;
            replicas[turn % 2].scan(cursor, 10)
        });
        assert_eq!(seen.len(), ALL, "{kind:?}");
        assert!(seen.values().all(|&times| times == 1));
    }
}

/// A container that was large once stays so, but not on a replica that was built from a snapshot.
#[test]
fn a_scan_goes_on_at_a_replica_where_the_container_is_small() {
    for kind in [Kind::Fields, Kind::Members, Kind::Scores] {
        let (mut large, mut small) = (Replica::new(kind), Replica::new(kind));
        (0..2000).for_each(|number| large.put(number));
        (100..2000).for_each(|number| large.remove(number));
        (0..100).for_each(|number| small.put(number));
        let (first, cursor) = large.scan(0, 10);
        assert_ne!(cursor, 0);
        let (rest, end) = small.scan(cursor, 10);
        assert_eq!(end, 0);
        assert_eq!(first.into_iter().chain(rest).collect::<BTreeSet<_>>().len(), 100);
    }
}

#[test]
fn no_cursor_leads_anywhere_but_to_an_end() {
    let mut replica = Replica::new(Kind::Keys);
    (0..500).for_each(|number| replica.put(number));
    for cursor in [CURSOR_END - 1, CURSOR_END, u64::MAX, u64::MAX - 16384, 1 << 63] {
        for kind in KINDS {
            let mut other = Replica::new(kind);
            (0..500).for_each(|number| other.put(number));
            let mut next = other.scan(cursor, 10).1;
            while next != 0 {
                let after = other.scan(next, 10).1;
                assert!(after == 0 || after % 16384 != next % 16384 || after > next);
                next = after;
            }
        }
    }
}

/// What becomes of the numbers beside those that stay.
#[derive(Clone, Debug)]
enum Change {
    Put(usize),
    Remove(usize),
    /// All up to here come: the table grows.
    Grow(usize),
    /// All go: it shrinks.
    Shrink,
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        20 => (0..4000_usize).prop_map(Change::Put),
        20 => (0..4000_usize).prop_map(Change::Remove),
        1 => (0..4000_usize).prop_map(Change::Grow),
        1 => Just(Change::Shrink),
    ]
}

fn apply(replica: &mut Replica, stay: usize, change: &Change) {
    match *change {
        Change::Put(number) => replica.put(stay + number),
        Change::Remove(number) => replica.remove(stay + number),
        Change::Grow(end) => (0..end).for_each(|number| replica.put(stay + number)),
        Change::Shrink => (0..4000).for_each(|number| replica.remove(stay + number)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two replicas get the same changes, one of them after a history of its own; who asks is sent from one
    /// to the other at any time.
    #[test]
    fn what_stays_is_returned_whatever_comes_and_goes(
        kind in prop::sample::select(&KINDS[..]),
        stay in 1_usize..1200,
        before in prop::collection::vec(any_change(), 0..30),
        changes in prop::collection::vec((any_change(), any::<bool>()), 1..200),
        churn in 1_usize..20,
        count in 1_usize..100,
    ) {
        let mut replicas = [Replica::new(kind), Replica::new(kind)];
        before.iter().for_each(|change| apply(&mut replicas[1], stay, change));
        apply(&mut replicas[1], stay, &Change::Shrink);
        (0..stay).for_each(|number| replicas[0].put(number));
        (0..stay).rev().for_each(|number| replicas[1].put(number));
        let mut changes = changes.iter().cycle();
        let mut leader = 0;
        let (seen, _) = scan_all(20_000, |cursor| {
            let (names, next) = replicas[leader].scan(cursor, count);
            for (change, failover) in changes.by_ref().take(churn) {
                replicas.iter_mut().for_each(|replica| apply(replica, stay, change));
                leader = usize::from(*failover);
            }
            (names, next)
        });
        for number in 0..stay {
            prop_assert!(seen.contains_key(&Replica::name(kind, number)), "{} was missed", number);
        }
        prop_assert_eq!(replicas[0].keyspace.digest(), replicas[1].keyspace.digest());
    }
}
