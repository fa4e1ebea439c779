//! A list. A short one is one block of elements; a longer one a row of such blocks, its nodes, as Redis's
//! quicklist is. Both ends take constant time, a position takes time for the nodes before or behind it.
//!
//! INVARIANTS:
//! * No node is empty, and none has more than [`NODE_BYTES`], but for one with a single element.
//! * Of two neighbours that fit one node, neither was changed last: where elements went, what is left is joined.

use std::collections::{VecDeque, vec_deque};

use super::{
    Blob,
    packed::{Items, Packed, item_bytes},
};

/// Bytes of a node: a change inside one moves about half as many. Redis's nodes have twice as many.
const NODE_BYTES: usize = 4 << 10;

/// The elements of a list, first to last.
#[derive(Clone, Debug)]
pub struct List {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// What fits one node.
    One(Packed),
    /// Two nodes or more.
    Many(Box<Nodes>),
}

#[derive(Clone, Debug, Default)]
struct Nodes {
    /// Elements of all nodes.
    len: usize,
    nodes: VecDeque<Packed>,
}

impl Default for List {
    fn default() -> Self {
        Self { form: Form::One(Packed::default()) }
    }
}

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Elements in order, from both ends.
#[derive(Clone, Debug, Default)]
pub struct Range<'a> {
    front: Items<'a>,
    nodes: vec_deque::Iter<'a, Packed>,
    back: Items<'a>,
    /// Elements to come.
    left: usize,
}

impl<'a> Iterator for Range<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some(element) = self.front.next() {
                return Some(element);
            }
            match self.nodes.next() {
                Some(node) => self.front = node.iter(),
                None => return self.back.next(),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some(element) = self.back.next_back() {
                return Some(element);
            }
            match self.nodes.next_back() {
                Some(node) => self.back = node.iter(),
                None => return self.front.next_back(),
            }
        }
    }
}

impl ExactSizeIterator for Range<'_> {}

impl List {
    /// How many elements.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::One(node) => node.len(),
            Form::Many(many) => many.len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes outside of this value.
    pub fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::One(node) => node.heap_bytes(),
            Form::Many(many) => {
                let places = many.nodes.capacity() * size_of::<Packed>();
                size_of_val(&**many) + places + many.nodes.iter().map(Packed::heap_bytes).sum::<usize>()
            }
        }
    }

    /// The element at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        match &self.form {
            Form::One(node) => node.get(index),
            Form::Many(many) if index < many.len => {
                let (at, within) = many.find(index);
                many.nodes[at].get(within)
            }
            Form::Many(_) => None,
        }
    }

    /// All elements, first to last.
    pub fn iter(&self) -> Range<'_> {
        self.range(0, self.len())
    }

    /// Elements from position `start` up to but without `end`.
    pub fn range(&self, start: usize, end: usize) -> Range<'_> {
        assert!(start <= end && end <= self.len(), "a range is inside the list");
        match &self.form {
            Form::One(node) => Range { front: node.range(start, end), left: end - start, ..Range::default() },
            Form::Many(_) if start == end => Range::default(),
            Form::Many(many) => many.range(start, end),
        }
    }

    /// Puts an element before position `index`, which is at most the length.
    pub fn insert(&mut self, index: usize, value: &[u8]) {
        match &mut self.form {
            Form::One(node) if node.is_empty() || node.bytes() + item_bytes(value.len()) <= NODE_BYTES => {
                node.insert(index, value);
            }
            _ => self.change_nodes(|many| many.insert(index, value)),
        }
    }

    /// Puts elements before position `index`, which is at most the length. Takes
    /// time for them and for the nodes behind them.
    pub fn insert_all(&mut self, index: usize, values: Vec<Blob>) {
        self.change_nodes(|many| many.insert_all(index, &values));
    }

    /// Replaces the element at `index`, which is there. Returns the one before.
    pub fn set(&mut self, index: usize, value: &[u8]) -> Blob {
        let before = Blob::new(self.get(index).expect("what is replaced is there"));
        match &mut self.form {
            Form::One(node) if node.bytes() + item_bytes(value.len()) <= NODE_BYTES => node.set(index, value),
            _ => self.change_nodes(|many| {
                many.remove(index, 1);
                many.insert(index, value);
            }),
        }
        before
    }

    /// Takes `count` elements out, which are there, the first of them at `index`.
    pub fn remove(&mut self, index: usize, count: usize) -> Vec<Blob> {
        let removed = self.range(index, index + count).map(Blob::new).collect();
        match &mut self.form {
            Form::One(node) => node.remove(index, count),
            Form::Many(_) => self.change_nodes(|many| many.remove(index, count)),
        }
        removed
    }

    /// Changes the list as a row of nodes, and makes it one again if there is no more than that.
    fn change_nodes(&mut self, change: impl FnOnce(&mut Nodes)) {
        if let Form::One(node) = &mut self.form {
            let node = std::mem::take(node);
            let mut many = Box::new(Nodes { len: node.len(), ..Nodes::default() });
            if !node.is_empty() {
                many.nodes.push_back(node);
            }
            self.form = Form::Many(many);
        }
        let Form::Many(many) = &mut self.form else { unreachable!("it has just been made so") };
        change(many);
        if many.nodes.len() <= 1 {
            self.form = Form::One(many.nodes.pop_front().unwrap_or_default());
        }
    }
}

impl Nodes {
    /// The node of the element at `index`, and its place in there. Of the position after the last: the last node.
    fn find(&self, index: usize) -> (usize, usize) {
        if index < self.len / 2 {
            let mut before = index;
            for (at, node) in self.nodes.iter().enumerate() {
                match before.checked_sub(node.len()) {
                    Some(rest) => before = rest,
                    None => return (at, before),
                }
            }
        } else {
            let mut behind = self.len - index;
            for (at, node) in self.nodes.iter().enumerate().rev() {
                match node.len().checked_sub(behind) {
                    Some(place) => return (at, place),
                    None => behind -= node.len(),
                }
            }
        }
        (0, 0)
    }

    /// Elements from `start` up to but without `end`, which is another.
    fn range(&self, start: usize, end: usize) -> Range<'_> {
        let ((first, from), (last, to)) = (self.find(start), self.find(end - 1));
        let left = end - start;
        if first == last {
            return Range { front: self.nodes[first].range(from, to + 1), left, ..Range::default() };
        }
        let (front, back) = (&self.nodes[first], &self.nodes[last]);
        let (front, back) = (front.range(from, front.len()), back.range(0, to + 1));
        Range { front, nodes: self.nodes.range(first + 1..last), back, left }
    }

    fn insert(&mut self, index: usize, value: &[u8]) {
        let fits = |node: &Packed| node.bytes() + item_bytes(value.len()) <= NODE_BYTES;
        let alone: fn(&[u8]) -> Packed = |value| [value].into_iter().collect();
        let (at, place) = self.find(index);
        self.len += 1;
        let before = at.checked_sub(1).filter(|&before| fits(&self.nodes[before]));
        match self.nodes.get_mut(at) {
            None => self.nodes.push_back(alone(value)),
            Some(node) if fits(node) => node.insert(place, value),
            Some(node) if place == node.len() => {
                // What is full stays as it is, most likely.
                node.shrink();
                self.nodes.insert(at + 1, alone(value));
            }
            Some(node) if place == 0 => match before {
                Some(before) => self.nodes[before].push(value),
                None => {
                    node.shrink();
                    self.nodes.insert(at, alone(value));
                }
            },
            Some(node) => {
                let behind = node.split_off(place);
                self.nodes.insert(at + 1, behind);
                self.nodes.insert(at + 1, alone(value));
                self.join(at + 1);
                self.join(at);
            }
        }
    }

    fn insert_all(&mut self, index: usize, values: &[Blob]) {
        let at = self.cut(index);
        let behind = self.nodes.split_off(at);
        let first = self.nodes.len();
        for value in values {
            match self.nodes.back_mut() {
                Some(node) if node.bytes() + item_bytes(value.len()) <= NODE_BYTES => node.push(value),
                last => {
                    last.into_iter().for_each(Packed::shrink);
                    self.nodes.push_back([&**value].into_iter().collect());
                }
            }
            self.len += 1;
        }
        let seam = self.nodes.len();
        self.nodes.extend(behind);
        for at in [seam, first] {
            if let Some(before) = at.checked_sub(1) {
                self.join(before);
            }
        }
    }

    fn remove(&mut self, index: usize, count: usize) {
        let (mut at, place) = self.find(index);
        let mut left = count;
        self.len -= count;
        // Of the first node its end, then whole nodes, then the start of one.
        if place > 0 {
            let within = left.min(self.nodes[at].len() - place);
            self.nodes[at].remove(place, within);
            left -= within;
            at += 1;
        }
        let mut end = at;
        while left > 0 && self.nodes[end].len() <= left {
            left -= self.nodes[end].len();
            end += 1;
        }
        self.nodes.drain(at..end);
        if left > 0 {
            self.nodes[at].remove(0, left);
        }
        if self.nodes.len() * 4 < self.nodes.capacity() {
            // A queue that was long once and is short now gives its memory back.
            self.nodes.shrink_to(self.nodes.len() * 2);
        }
        self.join(at);
        if let Some(before) = at.checked_sub(1) {
            self.join(before);
        }
    }

    /// Makes a node begin at `index`. Returns its number; the number of nodes for the end.
    fn cut(&mut self, index: usize) -> usize {
        if index == self.len {
            return self.nodes.len();
        }
        let (at, place) = self.find(index);
        if place == 0 {
            return at;
        }
        let behind = self.nodes[at].split_off(place);
        self.nodes.insert(at + 1, behind);
        at + 1
    }

    /// Joins a node with the one behind it, if there are such and they fit one.
    fn join(&mut self, at: usize) {
        let (Some(node), Some(behind)) = (self.nodes.get(at), self.nodes.get(at + 1)) else { return };
        if node.bytes() + behind.bytes() <= NODE_BYTES {
            let behind = self.nodes.remove(at + 1).expect("there is one behind");
            self.nodes[at].append(&behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize, Vec<u8>),
        Append(u16),
        Set(usize, Vec<u8>),
        Remove(usize, usize),
        TakeAndPutBack(usize, usize),
        PopFirst(u8),
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        // Short ones, some that fill a node by few, some that no node holds beside another.
        prop_oneof![
            12 => prop::collection::vec(any::<u8>(), 0..20),
            3 => prop::collection::vec(any::<u8>(), 900..1_400),
            1 => prop::collection::vec(any::<u8>(), 4_000..9_000),
        ]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (any::<usize>(), text()).prop_map(|(at, value)| Step::Insert(at, value)),
            3 => any::<u16>().prop_map(|count| Step::Append(count % 500)),
            3 => (any::<usize>(), text()).prop_map(|(at, value)| Step::Set(at, value)),
            3 => (any::<usize>(), 1..40_usize).prop_map(|(at, count)| Step::Remove(at, count)),
            1 => (any::<usize>(), 1..2_000_usize).prop_map(|(at, count)| Step::Remove(at, count)),
            2 => (any::<usize>(), 1..900_usize).prop_map(|(at, count)| Step::TakeAndPutBack(at, count)),
            1 => any::<u8>().prop_map(Step::PopFirst),
        ];
        prop::collection::vec(step, 0..60)
    }

    fn take(list: &mut List, model: &mut Vec<Vec<u8>>, step: Step) {
        let span = |at: usize, count: usize, length: usize| {
            let at = at % (length + 1);
            (at, count.min(length - at))
        };
        match step {
            Step::Insert(at, value) => {
                let at = at % (model.len() + 1);
                list.insert(at, &value);
                model.insert(at, value);
            }
            Step::Append(count) => (0..count).for_each(|number| {
                let value = number.to_string().into_bytes();
                list.insert(list.len(), &value);
                model.push(value);
            }),
            Step::Set(at, value) if !model.is_empty() => {
                let at = at % model.len();
                assert_eq!(*list.set(at, &value), *model[at]);
                model[at] = value;
            }
            Step::Set(..) => {}
            Step::Remove(at, count) => {
                let (at, count) = span(at, count, model.len());
                let removed = list.remove(at, count);
                assert!(removed.iter().map(|value| &**value).eq(model.drain(at..at + count)));
            }
            Step::TakeAndPutBack(at, count) => {
                let (at, count) = span(at, count, model.len());
                let removed = list.remove(at, count);
                list.insert_all(at, removed);
            }
            Step::PopFirst(count) => (0..usize::from(count).min(model.len())).for_each(|_| {
                assert_eq!(*list.remove(0, 1)[0], *model.remove(0));
            }),
        }
    }

    fn check_nodes(list: &List) {
        let Form::Many(many) = &list.form else { return };
        assert!(many.nodes.len() > 1);
        assert_eq!(many.nodes.iter().map(Packed::len).sum::<usize>(), many.len);
        for node in &many.nodes {
            assert!(!node.is_empty() && (node.bytes() <= NODE_BYTES || node.len() == 1));
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_vector_holds(steps in steps(), from: usize, to: usize) {
            let (mut list, mut model) = (List::default(), Vec::new());
            for step in steps {
                take(&mut list, &mut model, step);
                check_nodes(&list);
                prop_assert_eq!(list.len(), model.len());
            }
            prop_assert!(list.iter().eq(model.iter().map(|value| &**value)));
            prop_assert!(list.iter().rev().eq(model.iter().rev().map(|value| &**value)));
            let (from, to) = (from % (model.len() + 1), to % (model.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            prop_assert!(list.range(from, to).eq(model[from..to].iter().map(|value| &**value)));
            prop_assert!(list.range(from, to).rev().eq(model[from..to].iter().rev().map(|value| &**value)));
            prop_assert!((0..=model.len()).all(|at| list.get(at) == model.get(at).map(|value| &**value)));
            // From both ends in turn.
            let (mut both, mut count) = (list.range(from, to), 0);
            while let Some(element) = both.next() {
                prop_assert_eq!(element, &*model[from + count]);
                count += 1;
                if let Some(element) = both.next_back() {
                    prop_assert_eq!(element, &*model[to - count]);
                }
            }
            prop_assert_eq!(count, (to - from).div_ceil(2));
        }
    }

    #[test]
    fn an_element_costs_little_more_than_its_bytes() {
        let mut list = List::default();
        (0..100_000).for_each(|number: u32| list.insert(list.len(), format!("element:{number}").as_bytes()));
        let bytes: usize = list.iter().map(<[u8]>::len).sum();
        assert!(list.heap_bytes() < bytes + 4 * list.len(), "{} for {bytes}", list.heap_bytes());
        // And those that stay do not keep what the others had.
        (0..99_990).for_each(|_| drop(list.remove(0, 1)));
        assert!(list.heap_bytes() < 2_000, "{}", list.heap_bytes());
    }
}
