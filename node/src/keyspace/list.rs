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

    /// Bytes outside of this value, without what long elements hold outside of
    /// their places.
    pub fn heap_bytes(&self) -> usize {
        self.elements.capacity() * size_of::<Blob>()
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

    /// Puts elements before position `index`, which is at most the length. Takes
    /// time for them and for what is on the nearer side of them.
    pub fn insert_all(&mut self, index: usize, values: Vec<Blob>) {
        if index <= self.len() / 2 {
            let before: Vec<Blob> = self.elements.drain(..index).collect();
            let all = before.into_iter().chain(values);
            all.rev().for_each(|value| self.elements.push_front(value));
        } else {
            let behind = self.elements.split_off(index);
            self.elements.extend(values.into_iter().chain(behind));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_put_in_between_on_either_side_of_the_middle() {
        let all: Vec<Blob> = (0..10).map(|number: u8| Blob::new(&[number])).collect();
        for index in 0..=all.len() {
            let mut list = List::default();
            all.iter().rev().for_each(|element| list.insert(0, element.clone()));
            let taken = list.remove(index, (all.len() - index).min(3));
            list.insert_all(index, taken);
            assert!(list.iter().eq(all.iter().map(|element| &**element)), "{index}");
        }
    }
}
