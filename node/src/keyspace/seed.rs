//! What makes the hashes of a table unpredictable to clients, and so the order of
//! its items.
//!
//! A simulation wants the order repeated: [`fix`] makes all seeds of its thread
//! follow from one number. Nothing but a simulation calls it.

use std::{cell::Cell, hash::BuildHasher};

use foldhash::{SharedSeed, quality::FoldHasher};

/// Of fixed seeds; those that are drawn share one that is drawn at the start.
static FIXED: SharedSeed = SharedSeed::from_u64(0);
/// Marks a seed as fixed.
const FIXED_BIT: u64 = 1;

thread_local! {
    static NEXT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// All seeds that this thread takes from now on follow from `seed`.
pub fn fix(seed: u64) {
    NEXT.set(Some(seed));
}

/// The seed of one table.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        match NEXT.get() {
            None => Self(rand::random::<u64>() & !FIXED_BIT),
            Some(seed) => {
                NEXT.set(Some(seed.wrapping_add(2)));
                Self(seed | FIXED_BIT)
            }
        }
    }
}

impl BuildHasher for Seed {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> FoldHasher<'static> {
        let shared = if self.0 & FIXED_BIT == 0 { SharedSeed::global_random() } else { &FIXED };
        FoldHasher::with_seed(self.0, shared)
    }
}
