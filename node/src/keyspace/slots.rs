//! A set of slots.

use moonraft_router::SLOT_COUNT;

/// Slots, as a bitmap of 2 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet {
    words: Box<[u64; SLOT_COUNT as usize / 64]>,
}

impl Default for SlotSet {
    fn default() -> Self {
        Self { words: Box::new([0; SLOT_COUNT as usize / 64]) }
    }
}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

impl SlotSet {
    /// Whether it has this slot.
    pub fn contains(&self, slot: u16) -> bool {
        self.words[usize::from(slot) / 64] & (1 << (slot % 64)) != 0
    }

    /// Adds a slot.
    pub fn insert(&mut self, slot: u16) {
        self.words[usize::from(slot) / 64] |= 1 << (slot % 64);
    }

    /// Takes a slot away.
    pub fn remove(&mut self, slot: u16) {
        self.words[usize::from(slot) / 64] &= !(1 << (slot % 64));
    }

    /// The lowest of them.
    pub fn first(&self) -> Option<u16> {
        let (at, word) = self.words.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some((at * 64) as u16 + word.trailing_zeros() as u16)
    }

    /// How many slots.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Its slots as ranges with both ends included, ascending.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in (0..SLOT_COUNT).filter(|&slot| self.contains(slot)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }
}
