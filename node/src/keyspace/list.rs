//! A list: constant time at both ends and by position.

use std::{collections::VecDeque, iter::Map};

use super::Blob;

/// The elements of a list, first to last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    elements: VecDeque<Blob>,
}

/// Elements in order, from both ends.
pub type Range<'a> = Map<std::collections::vec_deque::Iter<'a, Blob>, fn(&'a Blob) -> &'a [u8]>;

impl List {
    /// How many elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The element at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.elements.get(index).map(|element| &**element)
    }

    /// All elements, first to last.
    pub fn iter(&self) -> Range<'_> {
        self.range(0, self.len())
    }

    /// Elements from position `start` up to but without `end`.
    pub fn range(&self, start: usize, end: usize) -> Range<'_> {
        self.elements.range(start..end).map(|element| element)
    }

    /// Puts an element before position `index`, which is at most the length.
    pub fn insert(&mut self, index: usize, value: Blob) {
        self.elements.insert(index, value);
    }

    /// Puts elements before position `index`, which is at most the length.
    pub fn insert_all(&mut self, index: usize, values: Vec<Blob>) {
        let mut rest = self.elements.split_off(index);
        self.elements.extend(values);
        self.elements.append(&mut rest);
    }

    /// Replaces the element at `index`, which is there. Returns the one before.
    pub fn set(&mut self, index: usize, value: Blob) -> Blob {
        std::mem::replace(&mut self.elements[index], value)
    }

    /// Takes `count` elements out, which are there, the first of them at `index`.
    pub fn remove(&mut self, index: usize, count: usize) -> Vec<Blob> {
        let removed = self.elements.drain(index..index + count).collect();
        // A queue that was long once and is short now gives its memory back.
        if self.elements.len() * 4 < self.elements.capacity() && self.elements.capacity() > 64 {
            self.elements.shrink_to(self.elements.len() * 2);
        }
        removed
    }
}
