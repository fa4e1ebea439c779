//! How many keys each slot has, added up so that the key of any ordinal is found, or the next slot that has keys, in
//! few steps, whatever the slots hold.
//!
//! Source: Fenwick, "A new data structure for cumulative frequency tables", 1994.

use moonraft_router::SLOT_COUNT;

const SLOTS: usize = SLOT_COUNT as usize;
const _: () = assert!(SLOTS.is_power_of_two());

/// See the module.
#[derive(Clone, Debug)]
pub struct SlotCounts {
    /// At `n`: the keys of the slots before `n`, as many slots as the lowest bit of `n` tells.
    sums: Box<[u64]>,
    total: usize,
}

impl Default for SlotCounts {
    fn default() -> Self {
        Self { sums: vec![0; SLOTS + 1].into(), total: 0 }
    }
}

impl SlotCounts {
    /// Keys in all slots.
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Keys have come to a slot, or gone.
    pub fn add(&mut self, slot: u16, change: isize) {
        self.total = self.total.wrapping_add_signed(change);
        let mut at = usize::from(slot) + 1;
        while at <= SLOTS {
            self.sums[at] = self.sums[at].wrapping_add_signed(change as i64);
            at += at & at.wrapping_neg();
        }
    }

    /// Keys of the slots before this one.
    fn before(&self, slot: u16) -> usize {
        let (mut at, mut sum) = (usize::from(slot), 0);
        while at > 0 {
            sum += self.sums[at];
            at &= at - 1;
        }
        sum as usize
    }

    /// The slot of the key that has so many before it, slot by slot; and how many of these are of the same slot.
    pub fn find(&self, ordinal: usize) -> (u16, usize) {
        assert!(ordinal < self.total(), "an ordinal is below the number of keys");
        let (mut at, mut left, mut step) = (0, ordinal as u64, SLOTS);
        while step > 0 {
            if at + step <= SLOTS && self.sums[at + step] <= left {
                at += step;
                left -= self.sums[at];
            }
            step /= 2;
        }
        (at as u16, left as usize)
    }

    /// The first slot from `slot` on that has a key.
    pub fn filled_from(&self, slot: u16) -> Option<u16> {
        let before = self.before(slot);
        (before < self.total()).then(|| self.find(before).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_their_ordinals_and_slots_that_have_some() {
        let mut counts = SlotCounts::default();
        assert_eq!(counts.filled_from(0), None);
        let filled = [(0, 3_usize), (1, 1), (5000, 1_000_000), (16_383, 2)];
        for (slot, count) in filled {
            counts.add(slot, count as isize);
        }
        let mut before = 0;
        for (slot, count) in filled {
            assert_eq!(counts.before(slot), before);
            assert_eq!(counts.find(before), (slot, 0));
            assert_eq!(counts.find(before + count - 1), (slot, count - 1));
            assert_eq!(counts.filled_from(slot), Some(slot));
            before += count;
        }
        assert_eq!(counts.total(), before);
        assert_eq!(counts.filled_from(2), Some(5000));
        counts.add(5000, -1_000_000);
        assert_eq!(counts.filled_from(2), Some(16_383));
        counts.add(16_383, -2);
        assert_eq!((counts.filled_from(2), counts.total()), (None, 4));
    }
}
