//! Where an element counts: MurmurHash64A, as its author published it, with the seed that Redis takes. No crate that
//! is kept has this variant.

use super::form::REGISTERS;

/// Fixed for all time: counters of different servers can be merged.
const SEED: u64 = 0xadc8_3b19;

/// Bits of a hash that name a register.
const REGISTER_BITS: u32 = REGISTERS.trailing_zeros();

/// The register of an element, and its rank there: the place of the first set bit of the rest of its hash, from 1.
pub fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur(element);
    let register = hash as usize % REGISTERS;
    // A bit behind the last: there always is one.
    let rest = hash >> REGISTER_BITS | 1 << (u64::BITS - REGISTER_BITS);
    (register, rest.trailing_zeros() as u8 + 1)
}

fn murmur(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        word ^= word >> SHIFT;
        hash = (hash ^ word.wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let rest = rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        hash = (hash ^ rest).wrapping_mul(FACTOR);
    }
    hash ^= hash >> SHIFT;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ hash >> SHIFT
}
