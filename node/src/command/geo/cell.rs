//! A place as a number, and the cells that the numbers make.
//!
//! Halve the earth by longitude, the half by latitude, and so on, a bit each: after 26 halvings of either there are
//! 52 bits, which a double holds, and they are a member's score. The bits of few halvings are a **cell**; all places in
//! it have them for their first bits, and so their scores are an interval.

use std::ops::Range;

/// Degrees from one to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Degrees {
    pub least: f64,
    pub most: f64,
}

impl Degrees {
    const fn new(least: f64, most: f64) -> Self {
        Self { least, most }
    }

    /// Whether it is between them.
    pub fn contains(self, degrees: f64) -> bool {
        (self.least..=self.most).contains(&degrees)
    }

    /// Which part of `1 << steps` it is in.
    fn part(self, degrees: f64, steps: u32) -> u32 {
        let offset = (degrees - self.least) / (self.most - self.least);
        (offset * (1_u64 << steps) as f64) as u32
    }

    /// A part of `1 << steps`.
    fn of_part(self, part: u32, steps: u32) -> Self {
        let (scale, parts) = (self.most - self.least, (1_u64 << steps) as f64);
        let at = |part: u32| self.least + f64::from(part) / parts * scale;
        Self { least: at(part), most: at(part.wrapping_add(1)) }
    }

    fn middle(self) -> f64 {
        (self.least + self.most) / 2.0
    }
}

/// All longitudes.
pub const LONGITUDE: Degrees = Degrees::new(-180.0, 180.0);
/// Latitudes that are taken: those of a square map of the earth.
pub const LATITUDE: Degrees = Degrees::new(-85.051_128_78, 85.051_128_78);
/// All latitudes.
pub const LATITUDE_WHOLE: Degrees = Degrees::new(-90.0, 90.0);

/// Halvings of longitude, and of latitude, in a score.
pub const STEPS_MAX: u32 = 26;

/// Where something is, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub longitude: f64,
    pub latitude: f64,
}

impl Place {
    /// The middle of what a score says. A score may be any number: a member may have been added by `ZADD`.
    pub fn of_score(score: f64) -> Self {
        let cell = Cell { bits: unsigned(score), steps: STEPS_MAX };
        let (longitude, latitude) = cell.area();
        let inside = |all: Degrees, part: Degrees| part.middle().clamp(all.least, all.most);
        Self { longitude: inside(LONGITUDE, longitude), latitude: inside(LATITUDE, latitude) }
    }

    /// The score of a member that is here.
    pub fn score(self) -> f64 {
        self.cell(STEPS_MAX).bits as f64
    }

    /// The cell of so many halvings that it is in.
    pub fn cell(self, steps: u32) -> Cell {
        self.cell_of(LATITUDE, steps)
    }

    /// The same, where latitudes are between these.
    pub fn cell_of(self, latitudes: Degrees, steps: u32) -> Cell {
        let (x, y) = (LONGITUDE.part(self.longitude, steps), latitudes.part(self.latitude, steps));
        Cell { bits: spread(x) << 1 | spread(y), steps }
    }
}

/// See the module. Bits of longitudes have the odd places, those of latitudes the even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    bits: u64,
    steps: u32,
}

const OF_LONGITUDE: u64 = 0xaaaa_aaaa_aaaa_aaaa;
const OF_LATITUDE: u64 = !OF_LONGITUDE;

impl Cell {
    /// Its bits, those of the first halving highest.
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// Its longitudes and latitudes.
    pub fn area(self) -> (Degrees, Degrees) {
        let (x, y) = (gather(self.bits >> 1), gather(self.bits));
        (LONGITUDE.of_part(x, self.steps), LATITUDE.of_part(y, self.steps))
    }

    /// The scores of what is in it.
    pub fn scores(self) -> Range<f64> {
        let score = |bits: u64| (bits << (2 * (STEPS_MAX - self.steps))) as f64;
        score(self.bits)..score(self.bits + 1)
    }

    /// The cell so far to the east and north, in cells; beyond the edge of the map at its other side.
    pub const fn beside(self, east: i8, north: i8) -> Self {
        let bits = self.moved(east, OF_LONGITUDE) | self.moved(north, OF_LATITUDE);
        Self { bits, ..self }
    }

    /// Its bits of one kind, one more or less. With all bits of the other kind set, or none, a carry passes them. What
    /// is at the eastern or northern edge has a bit too many, which stays in place as in Redis.
    const fn moved(self, by: i8, kind: u64) -> u64 {
        let all = u64::MAX >> (u64::BITS - 2 * self.steps);
        let (own, other) = (self.bits & kind, !kind & all);
        let moved = match by {
            0 => return own,
            1.. => (own | other).wrapping_add(1),
            _ => own.wrapping_sub(1),
        };
        moved & kind & all
    }
}

/// The bits of a number at even places.
fn spread(number: u32) -> u64 {
    let mut bits = u64::from(number);
    for (shift, mask) in SPREADING {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// The bits at even places as a number.
fn gather(bits: u64) -> u32 {
    let mut bits = bits & OF_LATITUDE;
    for (&(shift, _), mask) in SPREADING.iter().rev().zip(GATHERED) {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

/// Groups of bits halve: how far the upper half goes, and what is set then.
const SPREADING: [(u32, u64); 5] = [
    (16, 0x0000_ffff_0000_ffff),
    (8, 0x00ff_00ff_00ff_00ff),
    (4, 0x0f0f_0f0f_0f0f_0f0f),
    (2, 0x3333_3333_3333_3333),
    (1, 0x5555_5555_5555_5555),
];

/// What is set after each step back.
const GATHERED: [u64; 5] = [
    0x3333_3333_3333_3333,
    0x0f0f_0f0f_0f0f_0f0f,
    0x00ff_00ff_00ff_00ff,
    0x0000_ffff_0000_ffff,
    0x0000_0000_ffff_ffff,
];

/// A double as C's conversion to an integer makes it on the usual processors, where it is out of range too.
pub fn signed(x: f64) -> i64 {
    const LIMIT: f64 = -(i64::MIN as f64);
    if (-LIMIT..LIMIT).contains(&x) { x as i64 } else { i64::MIN }
}

fn unsigned(x: f64) -> u64 {
    const HALF: f64 = -(i64::MIN as f64);
    if x < HALF { signed(x) as u64 } else { signed(x - HALF) as u64 ^ 1 << 63 }
}
