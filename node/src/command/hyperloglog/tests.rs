use std::borrow::Cow;

use proptest::prelude::*;

use super::{estimate, form, hash};

/// Computed by redis-server 7.0.15: `PFADD` of these, then `PFDEBUG DECODE`.
#[test]
fn elements_count_where_redis_counts_them() {
    for (element, place) in
        [("", (5938, 2)), ("a", (12711, 2)), ("foobar12", (15489, 2)), ("a longer element", (1013, 1))]
    {
        assert_eq!(hash::place(element.as_bytes()), place, "{element:?}");
    }
}

fn any_places() -> impl Strategy<Value = Vec<(usize, u8)>> {
    // Registers near each other, so that runs meet.
    let register =
        prop_oneof![4 => 0_usize..60, 1 => 0..form::REGISTERS, 1 => form::REGISTERS - 10..form::REGISTERS];
    let rank = prop_oneof![6 => 1_u8..4, 1 => 1_u8..=51];
    prop::collection::vec((register, rank), 0..200)
}

proptest! {
    #[test]
    fn both_forms_tell_the_same(places in any_places(), bytes_max in 18_usize..200) {
        let mut dense = Cow::Owned(form::dense(&form::empty()).expect("it is whole"));
        let mut sparse = Cow::Owned(form::empty());
        for (register, rank) in places {
            let raised = form::raise(&mut dense, register, rank, 0);
            prop_assert_eq!(form::raise(&mut sparse, register, rank, bytes_max), raised);
            prop_assert!(form::is_one(&sparse) && (form::is_dense(&sparse) || sparse.len() <= bytes_max));
        }
        let histogram = form::histogram(&dense);
        prop_assert_eq!(form::histogram(&sparse), histogram);
        let mut ranks = form::Ranks::default();
        prop_assert_eq!(ranks.merge(&sparse), Ok(()));
        prop_assert_eq!(Ok(ranks.histogram()), histogram);
        if !form::is_dense(&sparse) {
            prop_assert_eq!(form::dense(&sparse), Ok(dense.into_owned()));
        }
    }

    #[test]
    fn no_bytes_do_harm(tail in prop::collection::vec(any::<u8>(), 0..100), register in 0..form::REGISTERS, rank in 1_u8..=51) {
        let mut counter = form::empty();
        counter.truncate(16);
        counter.extend(tail);
        let _ = form::histogram(&counter).map(|histogram| estimate::of(&histogram));
        let _ = form::Ranks::default().merge(&counter);
        form::runs_told(&counter);
        let _ = form::raise(&mut Cow::Owned(counter), register, rank, 3000);
    }
}
