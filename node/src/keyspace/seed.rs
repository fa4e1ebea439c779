//! What makes the hashes of a table unpredictable to clients, and so the order of
//! its items; and the half of a hash that is no secret, since all replicas share it.
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

/// The half of a hash that is the same in every process.
const SHARED_BITS: u64 = 0xffff_ffff << 32;

/// A hash that is the same on every replica and in every process, as far as all run one version.
pub fn shared_hash(name: &[u8]) -> u64 {
    foldhash::quality::FixedState::with_seed(0).hash_one(name) & SHARED_BITS
}

impl Seed {
    /// The hash of a name in a [`super::linear::LinearTable`]: its upper half is shared by all replicas, its
    /// lower half is this seed's.
    pub fn hash(&self, name: &[u8]) -> u64 {
        shared_hash(name) | self.hash_one(name) & !SHARED_BITS
    }
}

impl BuildHasher for Seed {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> FoldHasher<'static> {
        let shared = if self.0 & FIXED_BIT == 0 { SharedSeed::global_random() } else { &FIXED };
        FoldHasher::with_seed(self.0, shared)
    }
}
