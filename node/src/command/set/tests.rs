use std::collections::BTreeSet;

use moonraft_proto::{Effect, Reply};
use proptest::prelude::*;

use super::super::Request;
use crate::keyspace::{Keyspace, Store};

type Model = BTreeSet<Vec<u8>>;

/// Sets of every form, which overlap: few numbers, some words, many numbers.
fn any_set() -> impl Strategy<Value = Model> {
    let numbers = |end: u32, most: usize| {
        prop::collection::btree_set((0..end).prop_map(|number| number.to_string().into_bytes()), 0..most)
    };
    prop_oneof![
        numbers(30, 10),
        numbers(1000, 700),
        prop::collection::btree_set("[a-c]{0,2}".prop_map(String::into_bytes), 0..10),
    ]
}

/// The members that a command answers.
fn asked(store: &mut Store, request: &[&[u8]]) -> Model {
    let mut tx = store.tx();
    let reply = Request::read(request).expect("it is there").execute(&mut tx).expect("it is right");
    let Reply::Set(members) = reply else { panic!("{reply:?} is no set") };
    let count = members.len();
    let members: Model = members
        .into_iter()
        .map(|member| match member {
            Reply::Bulk(bytes) => bytes.into_owned(),
            other => panic!("{other:?} is no member"),
        })
        .collect();
    assert_eq!(members.len(), count, "each member once");
    members
}

proptest! {
    #[test]
    fn combinations_are_those_of_a_model(sets in prop::collection::vec(any_set(), 1..9)) {
        let mut store = Store::new(Keyspace::default(), 1);
        let keys: Vec<Vec<u8>> = (0..sets.len()).map(|at| format!("{{t}}{at}").into_bytes()).collect();
        store.begin_unit(0, true);
        for (key, members) in keys.iter().zip(&sets) {
            members.iter().for_each(|member| store.tx().emit(Effect::SetAdd { key, member }));
        }
        let (first, others) = sets.split_first().expect("one at least");
        let models: [(&str, Model); 3] = [
            ("inter", others.iter().fold(first.clone(), |left, right| &left & right)),
            ("union", others.iter().fold(first.clone(), |left, right| &left | right)),
            ("diff", others.iter().fold(first.clone(), |left, right| &left - right)),
        ];
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        for (name, model) in models {
            let read = format!("s{name}");
            let request = [&[read.as_bytes()], &keys[..]].concat();
            prop_assert_eq!(&asked(&mut store, &request), &model, "{}", name);
            let storing = format!("s{name}store");
            let request = [&[storing.as_bytes(), b"{t}result"], &keys[..]].concat();
            let mut tx = store.tx();
            let reply = Request::read(&request).expect("it is there").execute(&mut tx);
            prop_assert_eq!(reply, Ok(Reply::count(model.len())));
            prop_assert_eq!(asked(&mut store, &[b"smembers", b"{t}result"]), model);
        }
    }

    #[test]
    fn what_is_popped_was_there_and_is_gone(members in any_set(), count in 0_usize..800, seed: u64) {
        let mut store = Store::new(Keyspace::default(), seed);
        store.begin_unit(0, true);
        members.iter().for_each(|member| store.tx().emit(Effect::SetAdd { key: b"s", member }));
        let popped = asked(&mut store, &[b"spop", b"s", count.to_string().as_bytes()]);
        prop_assert_eq!(popped.len(), count.min(members.len()));
        prop_assert_eq!(asked(&mut store, &[b"smembers", b"s"]), &members - &popped);
        prop_assert!(popped.is_subset(&members));
    }
}
