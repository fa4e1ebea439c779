use proptest::prelude::*;

use super::{
    cell::{Cell, LATITUDE, LONGITUDE, Place},
    shape::{Shape, distance},
};

fn any_place() -> impl Strategy<Value = Place> {
    let edge = |all: super::cell::Degrees| prop_oneof![6 => all.least..=all.most, 1 => Just(all.least), 1 => Just(all.most), 1 => Just(0.0)];
    (edge(LONGITUDE), edge(LATITUDE)).prop_map(|(longitude, latitude)| Place { longitude, latitude })
}

/// Away from the edges of the map.
fn inner_place() -> impl Strategy<Value = Place> {
    (-150.0..150.0_f64, -60.0..60.0_f64).prop_map(|(longitude, latitude)| Place { longitude, latitude })
}

/// What it covers can be seen from its middle.
fn near_shape() -> impl Strategy<Value = Shape> {
    let length = || prop_oneof![4 => 0.0..7e5_f64, 2 => 0.0..1e3_f64, 1 => Just(0.0)];
    prop_oneof![
        length().prop_map(|radius| Shape::Circle { radius }),
        (length(), length()).prop_map(|(width, height)| Shape::Box { width, height }),
    ]
}

fn is_in(cell: Cell, place: Place) -> bool {
    cell.scores().contains(&place.score())
}

proptest! {
    #[test]
    fn a_score_tells_the_place_to_a_meter(place in any_place()) {
        let told = Place::of_score(place.score());
        prop_assert!(distance(place, told) < 1.0, "{place:?} {told:?}");
        // What was told is told again, but at the edges, where a place belongs to the cell beyond.
        let inside = place.longitude < LONGITUDE.most && place.latitude < LATITUDE.most;
        prop_assert!(!inside || Place::of_score(told.score()) == told);
    }

    #[test]
    fn any_number_is_a_place(bits: u64) {
        let score = f64::from_bits(bits);
        let place = Place::of_score(if score.is_nan() { 0.0 } else { score });
        prop_assert!(LONGITUDE.contains(place.longitude) && LATITUDE.contains(place.latitude));
    }

    #[test]
    fn a_place_is_in_its_cell(place in any_place(), steps in 1_u32..=26) {
        let edge = place.longitude == LONGITUDE.most || place.latitude == LATITUDE.most;
        prop_assert!(edge || is_in(place.cell(steps), place));
    }

    #[test]
    fn cells_beside_cells_lead_back(place in any_place(), steps in 1_u32..=26, east in -1_i8..=1, north in -1_i8..=1) {
        let cell = place.cell(steps);
        let edge = place.longitude == LONGITUDE.most || place.latitude == LATITUDE.most;
        prop_assert!(edge || cell.beside(east, north).beside(-east, -north) == cell);
    }

    #[test]
    fn distances_are_those_of_a_globe(from in any_place(), to in any_place()) {
        let there = distance(from, to);
        prop_assert!((0.0..2.003e7).contains(&there));
        prop_assert!((there - distance(to, from)).abs() < 0.01);
    }

    /// What is near is found: away from the edges of the map and of what can be seen, cells cover what is searched.
    #[test]
    fn cells_cover_what_is_searched(
        middle in inner_place(),
        shape in near_shape(),
        angle in 0.0..std::f64::consts::TAU,
        part in 0.0..1.0_f64,
    ) {
        let reach = match shape {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => width.hypot(height) / 2.0,
        };
        let degrees = reach * part / 111_000.0;
        let place = Place {
            longitude: middle.longitude + degrees * angle.cos(),
            latitude: middle.latitude + degrees * angle.sin(),
        };
        let place = Place::of_score(place.score());
        if shape.distance(middle, place).is_some() {
            prop_assert!(shape.cells(middle).into_iter().any(|cell| is_in(cell, place)));
        }
    }
}
