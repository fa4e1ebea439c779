//! What is searched: a circle or a box around a place, and the cells that cover it.

use super::cell::{Cell, Place, STEPS_MAX};

/// Meters. The mean radius that Redis takes.
const EARTH_RADIUS: f64 = 6_372_797.560_856;

/// Meters: half of the equator, as a map of Mercator's has it.
const MAP_HALF: f64 = 20_037_726.37;

const RADIANS: f64 = std::f64::consts::PI / 180.0;

/// Meters between two places, on a globe.
pub fn distance(from: Place, to: Place) -> f64 {
    let half_sine = |from: f64, to: f64| ((to * RADIANS - from * RADIANS) / 2.0).sin();
    let v = half_sine(from.longitude, to.longitude);
    if v == 0.0 {
        return latitude_distance(from, to);
    }
    let u = half_sine(from.latitude, to.latitude);
    let cosines = (from.latitude * RADIANS).cos() * (to.latitude * RADIANS).cos();
    let chord = u * u + cosines * v * v;
    // Of places that face each other it may come out a little above 1.
    2.0 * EARTH_RADIUS * chord.sqrt().min(1.0).asin()
}

fn latitude_distance(from: Place, to: Place) -> f64 {
    EARTH_RADIUS * (to.latitude * RADIANS - from.latitude * RADIANS).abs()
}

/// See the module; lengths in meters.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
}

impl Shape {
    /// How far a place is from the middle, if it is inside.
    pub fn distance(self, middle: Place, place: Place) -> Option<f64> {
        let is_inside = match self {
            Shape::Circle { radius } => {
                let distance = distance(middle, place);
                return (distance <= radius).then_some(distance);
            }
            Shape::Box { width, height } => {
                let beside = Place { latitude: place.latitude, ..middle };
                latitude_distance(place, middle) <= height / 2.0 && distance(place, beside) <= width / 2.0
            }
        };
        is_inside.then(|| distance(middle, place))
    }

    /// Cells that cover it, that in the middle first, in the order in which Redis looks at them.
    pub fn cells(self, middle: Place) -> Vec<Cell> {
        let bounds = self.bounds(middle);
        let mut steps = self.steps(middle.latitude);
        if steps > 1 && !bounds.is_inside_neighbors(middle.cell(steps)) {
            steps -= 1;
        }
        let cell = middle.cell(steps);
        let (longitude, latitude) = cell.area();
        // With one step all four cells are looked at.
        let is_needed = |east: i8, north: i8| {
            let east_needed = match east {
                0 => true,
                1.. => longitude.most <= bounds.east,
                _ => longitude.least >= bounds.west,
            };
            let north_needed = match north {
                0 => true,
                1.. => latitude.most <= bounds.north,
                _ => latitude.least >= bounds.south,
            };
            steps < 2 || east_needed && north_needed
        };
        const AROUND: [(i8, i8); 8] = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        let around = AROUND.into_iter().filter(|&(east, north)| is_needed(east, north));
        let mut cells: Vec<Cell> = around.map(|(east, north)| cell.beside(east, north)).collect();
        // Where cells are half of the map, those on both sides are the same.
        cells.dedup();
        cells.insert(0, cell);
        cells
    }

    /// Half of its height and width.
    const fn halves(self) -> (f64, f64) {
        match self {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (height / 2.0, width / 2.0),
        }
    }

    /// Halvings of the map after which a cell is about as large.
    fn steps(self, latitude: f64) -> u32 {
        let mut reach = match self {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => (width * width / 4.0 + height * height / 4.0).sqrt(),
        };
        if reach == 0.0 {
            return STEPS_MAX;
        }
        let mut steps = 1;
        while reach < MAP_HALF {
            reach *= 2.0;
            steps += 1;
        }
        // Most of what is searched is then in the cell of its middle; towards the poles cells are narrower.
        let narrower = i32::from(latitude.abs() > 66.0) + i32::from(latitude.abs() > 80.0);
        (steps - 2 - narrower).clamp(1, STEPS_MAX as i32) as u32
    }

    fn bounds(self, middle: Place) -> Bounds {
        let (height, width) = self.halves();
        let latitudes = height / EARTH_RADIUS / RADIANS;
        // A degree of longitude is shortest at the edge that is nearer to a pole.
        let edge =
            if middle.latitude < 0.0 { middle.latitude - latitudes } else { middle.latitude + latitudes };
        let longitudes = width / EARTH_RADIUS / (edge * RADIANS).cos() / RADIANS;
        Bounds {
            west: middle.longitude - longitudes,
            south: middle.latitude - latitudes,
            east: middle.longitude + longitudes,
            north: middle.latitude + latitudes,
        }
    }
}

/// Degrees between which something is.
struct Bounds {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

impl Bounds {
    /// Whether the cells next to one reach beyond them on all sides.
    fn is_inside_neighbors(&self, cell: Cell) -> bool {
        let area = |east, north| cell.beside(east, north).area();
        area(0, 1).1.most >= self.north
            && area(0, -1).1.least <= self.south
            && area(1, 0).0.most >= self.east
            && area(-1, 0).0.least <= self.west
    }
}
