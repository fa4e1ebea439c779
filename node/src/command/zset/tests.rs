//! Whatever is asked of lists and sorted sets: what was done can be undone, and
//! a follower that applies the effects has the leader's data.

use moonraft_proto::{Effect, Reply, entry::Batch};
use proptest::prelude::*;

use super::super::Request;
use crate::keyspace::{Keyspace, Store};

/// Requests with words that fit often enough; others are refused, which must
/// have no effect.
fn requests() -> impl Strategy<Value = Vec<String>> {
    let key = prop::sample::select(vec!["a", "b", "c"]);
    let number = -4..6_i8;
    let put =
        (key.clone(), prop::collection::vec((number.clone(), 0..200_u8), 1..40)).prop_map(|(key, pairs)| {
            let pairs: Vec<String> =
                pairs.iter().map(|(score, member)| format!("{score} m{member}")).collect();
            format!("zadd {key} {}", pairs.join(" "))
        });
    let one = (key.clone(), number.clone(), number.clone()).prop_flat_map(|(key, x, y)| {
        prop::sample::select(vec![
            format!("zincrby {key} {x} m{y}"),
            format!("zrem {key} m{x} m{y}"),
            format!("zremrangebyrank {key} {x} {y}"),
            format!("zremrangebyscore {key} {x} {y}"),
            format!("zpopmin {key} {x}"),
            format!("zpopmax {key}"),
            format!("zrangestore a {key} {x} {y}"),
            format!("rpush {key} {x} {y} {x}"),
            format!("lpush {key} {y} {x}"),
            format!("lrem {key} {x} {y}"),
            format!("ltrim {key} {x} {y}"),
            format!("lset {key} {x} {y}"),
            format!("linsert {key} before {x} {y}"),
            format!("lpop {key} {x}"),
            format!("rpop {key}"),
        ])
    });
    let two = (key.clone(), key, number).prop_flat_map(|(from, to, x)| {
        prop::sample::select(vec![
            format!("zunionstore {to} 2 {from} b weights {x} 2"),
            format!("zinterstore {to} 2 {from} b"),
            format!("zdiffstore {to} 2 {from} b"),
            format!("lmove {from} {to} left right"),
            format!("lmove {from} {to} right left"),
            format!("rpoplpush {from} {to}"),
            format!("lmpop 2 {from} {to} right count {x}"),
            format!("zmpop 2 {from} {to} max count {x}"),
        ])
    });
    prop::collection::vec(prop_oneof![2 => put, 5 => one, 3 => two], 1..60)
}

fn execute(store: &mut Store, request: &str) -> Option<Reply<'static>> {
    let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
    Request::read(&words).expect("it is a command").execute(&mut store.tx()).map(Reply::into_owned).ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_done_can_be_undone_and_a_follower_follows(requests in requests(), kept in any::<prop::sample::Index>()) {
        let mut store = Store::new(Keyspace::default(), 0);
        let mut follower = Keyspace::default();
        let (first, second) = requests.split_at(kept.index(requests.len()));

        store.begin_unit(0, true);
        first.iter().for_each(|request| drop(execute(&mut store, request)));
        store.end_unit();
        let before = store.keyspace().digest();
        store.begin_unit(0, true);
        let replies: Vec<_> = second.iter().map(|request| execute(&mut store, request)).collect();
        let after = store.keyspace().digest();
        store.roll_back_unit();
        prop_assert_eq!(store.keyspace().digest(), before);

        // Undone and done again: the same replies, the same data.
        let again: Vec<_> = second.iter().map(|request| execute(&mut store, request)).collect();
        prop_assert_eq!(replies, again);
        prop_assert_eq!(store.keyspace().digest(), after.clone());
        store.end_unit();

        let (_, data, _) = store.seal(0);
        for effect in Batch::decode(&data).expect("it was just sealed").effects() {
            follower.apply(&effect.expect("it was just sealed"));
        }
        prop_assert_eq!(follower.digest(), after);
    }
}

/// Large enough for the large form, in which a result must be the same.
#[test]
fn ranges_do_not_depend_on_the_form() {
    let mut store = Store::new(Keyspace::default(), 0);
    store.begin_unit(0, true);
    for member in 0..100 {
        execute(&mut store, &format!("zadd small {} m{member:03}", member % 7));
        execute(&mut store, &format!("zadd large {} m{member:03}", member % 7));
    }
    for member in 0..500 {
        execute(&mut store, &format!("zadd large 99 x{member}"));
    }
    for request in [
        "zrange KEY 2 (5 byscore withscores",
        "zrange KEY 5 2 byscore rev limit 3 10",
        "zcount KEY -inf (4",
        "zrank KEY m003 withscore",
        "zrange KEY 0 50 withscores",
        "zmscore KEY m001 m099 nobody",
        "zremrangebyscore KEY (1 3",
        "zpopmin KEY 7",
        "zrange KEY 0 20",
    ] {
        let small = execute(&mut store, &request.replace("KEY", "small"));
        assert!(small.is_some(), "{request}");
        assert_eq!(small, execute(&mut store, &request.replace("KEY", "large")), "{request}");
    }
}

#[test]
fn a_random_draw_has_no_member_twice_and_reaches_all() {
    let mut store = Store::new(Keyspace::default(), 0);
    store.begin_unit(0, true);
    for member in 0..10 {
        execute(&mut store, &format!("zadd z {member} m{member}"));
    }
    let mut seen = std::collections::BTreeMap::<Vec<u8>, usize>::new();
    const DRAWS: usize = 3000;
    for _ in 0..DRAWS {
        let Some(Reply::Array(drawn)) = execute(&mut store, "zrandmember z 4") else { panic!("members") };
        let mut names: Vec<Vec<u8>> = drawn
            .into_iter()
            .map(|reply| if let Reply::Bulk(name) = reply { name.into_owned() } else { panic!("a member") })
            .collect();
        names.iter().for_each(|name| *seen.entry(name.clone()).or_default() += 1);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 4);
    }
    // Each is in four of ten draws: 1200, give or take five standard deviations.
    assert_eq!(seen.len(), 10);
    assert!(seen.values().all(|count| count.abs_diff(DRAWS * 4 / 10) < 135), "{seen:?}");
}

/// Thousands of elements among others: taking each out would move all the others
/// each time, so the list is made anew, its deadline kept.
#[test]
fn removing_every_other_element_of_a_long_list_keeps_the_rest_in_order() {
    const COUNT: usize = 4000;
    let mut store = Store::new(Keyspace::default(), 0);
    store.begin_unit(0, true);
    for number in 0..COUNT {
        execute(&mut store, &format!("rpush l {number} x"));
    }
    store.tx().emit(Effect::SetExpiry { key: b"l", expires_at: Some(5000) });
    let before = store.keyspace().digest();
    store.end_unit();

    store.begin_unit(0, true);
    assert_eq!(execute(&mut store, "lrem l 0 x"), Some(Reply::count(COUNT)));
    assert!(store.unit_effects() == COUNT + 2, "it is made anew");
    let left = execute(&mut store, "lrange l 0 -1");
    assert_eq!(left, Some(Reply::bulks((0..COUNT).map(|number| number.to_string().into_bytes()))));
    assert_eq!(store.deadline(b"l"), Some(5000));
    store.roll_back_unit();
    assert_eq!(store.keyspace().digest(), before);
}
