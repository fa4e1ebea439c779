//! How many elements the registers tell of.
//!
//! Source: Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), algorithm 6. The order
//! of operations is Redis's, so that no estimate differs in its last digit.

use super::form::{Histogram, REGISTERS};

/// The highest rank of an element that is told apart from the next: bits of a hash less those that name a register.
const RANK_MAX: usize = 50;

/// 1 / (2 ln 2)
const ALPHA: f64 = 0.721_347_520_444_481_7;

/// The estimate, of how many registers have which rank.
pub fn of(histogram: &Histogram) -> u64 {
    let registers = REGISTERS as f64;
    let of_rank = |rank: usize| f64::from(histogram[rank]);
    let mut sum = registers * tau((registers - of_rank(RANK_MAX + 1)) / registers);
    for rank in (1..=RANK_MAX).rev() {
        sum += of_rank(rank);
        sum *= 0.5;
    }
    sum += registers * sigma(of_rank(0) / registers);
    let estimate = (ALPHA * registers * registers / sum).round();
    // Registers that no element can make: C's conversion gives this.
    if estimate.is_finite() { estimate as u64 } else { 1 << 63 }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * y;
        y += y;
        if sum == before {
            return sum;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        y *= 0.5;
        sum -= (1.0 - x).powi(2) * y;
        if sum == before {
            return sum / 3.0;
        }
    }
}
