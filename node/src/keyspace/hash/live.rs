//! A hash as it is seen at a moment: without the fields whose deadlines have passed.

use std::cell::Cell;

use super::{Hash, Pair};
use crate::keyspace::table::shuffle_first;

/// A draw that meets so many fields that are gone looks for those that are not.
const MISSES_MAX: usize = 64;

/// A hash at a moment.
#[derive(Clone, Copy, Debug)]
pub struct LiveHash<'a> {
    hash: &'a Hash,
    now_ms: u64,
    /// Set where a field is hidden: the reader found something expired.
    found_expired: &'a Cell<bool>,
}

impl<'a> LiveHash<'a> {
    /// At this moment; `found_expired` is set as soon as a field is hidden.
    pub const fn new(hash: &'a Hash, now_ms: u64, found_expired: &'a Cell<bool>) -> Self {
        Self { hash, now_ms, found_expired }
    }

    /// How many fields, those that are gone and not yet removed included, as Redis counts them.
    pub fn total(self) -> usize {
        self.hash.len()
    }

    /// Whether a field is gone.
    pub fn has_gone(self) -> bool {
        self.hash.soonest().is_some_and(|at| at < self.now_ms)
    }

    /// Whether this field is still there and gone.
    pub fn is_gone(self, field: &[u8]) -> bool {
        let is_gone = self.has_gone() && self.hash.deadline(field).is_some_and(|at| at < self.now_ms);
        if is_gone {
            self.found_expired.set(true);
        }
        is_gone
    }

    /// Whether all its fields are to be looked at, one by one: some are gone.
    fn hides(self) -> bool {
        let hides = self.has_gone();
        if hides {
            self.found_expired.set(true);
        }
        hides
    }

    /// The value of a field.
    pub fn get(self, field: &[u8]) -> Option<&'a [u8]> {
        self.hash.get(field).filter(|_| !self.is_gone(field))
    }

    /// The deadline of a field.
    pub fn deadline(self, field: &[u8]) -> Option<u64> {
        self.hash.deadline(field).filter(|_| !self.is_gone(field))
    }

    /// All fields with their values: as inserted if small, else in no order.
    pub fn iter(self) -> impl Iterator<Item = Pair<'a>> {
        let hides = self.hides();
        self.hash.iter().filter(move |(field, _)| !(hides && self.is_gone(field)))
    }

    /// A field drawn at random, with its value; `below` draws a number below its
    /// argument. Constant time if large, unless most fields are gone.
    pub fn draw(self, mut below: impl FnMut(usize) -> usize) -> Option<Pair<'a>> {
        let fields = self.hash.fields();
        if !self.hides() {
            return fields.draw(below);
        }
        for _ in 0..MISSES_MAX {
            let drawn = fields.draw(&mut below)?;
            if !self.is_gone(drawn.0) {
                return Some(drawn);
            }
        }
        self.draw_repeated(1, below).pop()
    }

    /// As many fields drawn at random, some perhaps more than once. None if there is none.
    pub fn draw_repeated(self, count: usize, mut below: impl FnMut(usize) -> usize) -> Vec<Pair<'a>> {
        if !self.hides() {
            return self.hash.fields().draw_repeated(count, below);
        }
        let left: Vec<_> = self.iter().collect();
        let count = if left.is_empty() { 0 } else { count };
        (0..count).map(|_| left[below(left.len())]).collect()
    }

    /// As many different fields drawn at random, or all if there are fewer.
    pub fn draw_distinct(self, count: usize, below: impl FnMut(usize) -> usize) -> Vec<Pair<'a>> {
        if !self.hides() {
            return self.hash.fields().draw_distinct(count, below);
        }
        let mut left: Vec<_> = self.iter().collect();
        if count < left.len() {
            shuffle_first(&mut left, count, below);
        }
        left
    }

    /// About `count` fields from `cursor` on, with their values, and the cursor to
    /// go on with; a small hash all at once.
    pub fn scan(self, cursor: u64, count: usize) -> (Vec<Pair<'a>>, u64) {
        let hides = self.hides();
        let (mut pairs, next) = self.hash.fields().scan(cursor, count);
        pairs.retain(|(field, _)| !(hides && self.is_gone(field)));
        (pairs, next)
    }
}
