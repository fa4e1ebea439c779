//! The order of a large sorted set: a B+ tree that counts.
//!
//! A leaf holds a run of the order as two parallel vectors, scores and member
//! numbers; the bytes of a member are in [`Members`] and looked at only where
//! scores tie. An inner node knows of each child its lowest entry and how many
//! entries are below it, so that everything is one descent: insert, remove, the
//! position of an entry, the entry at a position, the first position at which a
//! predicate turns false. A range finds its leaves by position, one descent a
//! leaf, forwards and backwards alike.
//!
//! Invariants:
//! * Entries ascend by score, then by the member's bytes; none comes twice.
//! * The lowest entry that an inner node keeps for a child *is* the child's
//!   first: numbers of members that are gone are nowhere in the tree.
//! * All leaves are at the same depth; no node but an empty root is empty.
//! * Of two neighbours under one parent, at most one is below [`SPARSE`] unless
//!   together they would fill a node over [`MERGED_MAX`].
//!
//! A node that overflows is split in the middle, but at either end of the order
//! only the new entry moves to a node of its own: scores that only grow (times,
//! sequence numbers) leave full leaves behind them.
//!
//! Why not a kept crate: `indexset` keeps its elements in one vector of runs and
//! rebuilds the whole index of positions at each split, wants the order in the
//! element's type, so that a member's bytes would be stored twice, and allocates
//! 1024 places a run. A skip list with spans, as Redis has, takes a cache miss a
//! step and twice the memory.

use std::{mem, ops, slice};

use super::members::Members;

/// Entries of a leaf and children of an inner node: 64 scores are 8 cache lines,
/// which a binary search and a shift by one cross in a few nanoseconds. Tests of
/// this crate take few, so that a thousand members make a tree of many levels.
const NODE_MAX: usize = if cfg!(test) { 6 } else { 64 };

/// A node below this looks for a neighbour to merge with.
const SPARSE: usize = NODE_MAX / 2;

/// A merged node is not fuller than this: the next insert must not split it again.
const MERGED_MAX: usize = NODE_MAX * 3 / 4;

/// Entries as parallel vectors: 12 bytes each.
#[derive(Clone, Debug, Default)]
struct Entries {
    scores: Vec<f64>,
    numbers: Vec<u32>,
}

/// What an entry is found by.
#[derive(Clone, Copy)]
struct Place<'a> {
    score: f64,
    name: &'a [u8],
}

impl Entries {
    const fn len(&self) -> usize {
        self.scores.len()
    }

    fn first(&self) -> (f64, u32) {
        (self.scores[0], self.numbers[0])
    }

    fn insert(&mut self, at: usize, (score, number): (f64, u32)) {
        self.scores.insert(at, score);
        self.numbers.insert(at, number);
    }

    fn remove(&mut self, at: usize) {
        self.scores.remove(at);
        self.numbers.remove(at);
    }

    fn set(&mut self, at: usize, (score, number): (f64, u32)) {
        self.scores[at] = score;
        self.numbers[at] = number;
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self { scores: self.scores.split_off(at), numbers: self.numbers.split_off(at) }
    }

    fn append(&mut self, mut other: Self) {
        self.scores.append(&mut other.scores);
        self.numbers.append(&mut other.numbers);
    }

    /// How many entries come before `place`.
    fn before(&self, members: &Members, place: Place<'_>) -> usize {
        self.tied(members, place, |name| name < place.name)
    }

    /// How many entries come before `place` or are there.
    fn through(&self, members: &Members, place: Place<'_>) -> usize {
        self.tied(members, place, |name| name <= place.name)
    }

    fn tied(&self, members: &Members, place: Place<'_>, low: impl Fn(&[u8]) -> bool) -> usize {
        let below = self.scores.partition_point(|&score| score < place.score);
        if self.scores.get(below) != Some(&place.score) {
            return below;
        }
        let equal = self.scores[below..].partition_point(|&score| score == place.score);
        let ties = &self.numbers[below..below + equal];
        below + ties.partition_point(|&number| low(members.name(number)))
    }

    /// How many entries `low` holds for, which it does for a prefix only.
    fn prefix(&self, low: &impl Fn(f64, u32) -> bool) -> usize {
        let mut range = 0..self.len();
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            if low(self.scores[middle], self.numbers[middle]) {
                range.start = middle + 1;
            } else {
                range.end = middle;
            }
        }
        range.start
    }

    fn slice(&self, range: ops::Range<usize>) -> Run<'_> {
        Run { scores: self.scores[range.clone()].iter(), numbers: self.numbers[range].iter() }
    }
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Entries),
    Inner(Box<Inner>),
}

#[derive(Clone, Debug)]
struct Inner {
    /// The lowest entry of each child.
    lowest: Entries,
    /// How many entries each child has.
    counts: Vec<u32>,
    children: Vec<Node>,
}

/// Which ends of the whole order a node is at.
#[derive(Clone, Copy)]
struct Ends {
    first: bool,
    last: bool,
}

impl Ends {
    /// Where to split a node of `count` into which one goes at `at`: the second
    /// half begins there.
    const fn split(self, at: usize, count: usize) -> usize {
        if self.last && at == count {
            count
        } else if self.first && at == 0 {
            0
        } else {
            count / 2
        }
    }

    const fn of_child(self, at: usize, count: usize) -> Self {
        Self { first: self.first && at == 0, last: self.last && at + 1 == count }
    }
}

impl Node {
    /// Entries of a leaf or children of an inner node.
    const fn width(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.len(),
            Node::Inner(inner) => inner.children.len(),
        }
    }

    /// Entries in it and below it.
    fn count(&self) -> u32 {
        match self {
            Node::Leaf(entries) => entries.len() as u32,
            Node::Inner(inner) => inner.counts.iter().sum(),
        }
    }

    fn lowest(&self) -> (f64, u32) {
        match self {
            Node::Leaf(entries) => entries.first(),
            Node::Inner(inner) => inner.lowest.first(),
        }
    }

    /// Inserts an entry. Returns the second half if the node was split.
    fn insert(&mut self, members: &Members, place: Place<'_>, number: u32, ends: Ends) -> Option<Node> {
        let inner = match self {
            Node::Leaf(entries) => {
                let (at, count) = (entries.before(members, place), entries.len());
                let mut rest = (count >= NODE_MAX).then(|| entries.split_off(ends.split(at, count)));
                let kept = entries.len();
                match &mut rest {
                    Some(rest) if at > kept || kept == count => rest.insert(at - kept, (place.score, number)),
                    _ => entries.insert(at, (place.score, number)),
                }
                return rest.map(Node::Leaf);
            }
            Node::Inner(inner) => inner,
        };
        let at = inner.lowest.through(members, place).saturating_sub(1);
        let count = inner.children.len();
        let rest = inner.children[at].insert(members, place, number, ends.of_child(at, count));
        inner.counts[at] += 1;
        inner.lowest.set(at, inner.children[at].lowest());
        let rest = rest?;
        inner.counts[at] -= rest.count();
        let mut half = (count >= NODE_MAX).then(|| inner.split_off(ends.split(at + 1, count)));
        let kept = inner.children.len();
        match &mut half {
            Some(half) if at + 1 > kept || kept == count => half.insert(at + 1 - kept, rest),
            _ => inner.insert(at + 1, rest),
        }
        half.map(|half| Node::Inner(Box::new(half)))
    }

    /// Removes an entry, which is there.
    fn remove(&mut self, members: &Members, place: Place<'_>) {
        match self {
            Node::Leaf(entries) => entries.remove(entries.before(members, place)),
            Node::Inner(inner) => {
                let at = inner.lowest.through(members, place) - 1;
                inner.children[at].remove(members, place);
                inner.counts[at] -= 1;
                inner.mend(at);
            }
        }
    }

    /// Appends what comes after all of this node's entries.
    fn append(&mut self, other: Node) {
        match (self, other) {
            (Node::Leaf(entries), Node::Leaf(other)) => entries.append(other),
            (Node::Inner(inner), Node::Inner(mut other)) => {
                inner.lowest.append(other.lowest);
                inner.counts.append(&mut other.counts);
                inner.children.append(&mut other.children);
            }
            _ => unreachable!("all leaves are at the same depth"),
        }
    }
}

impl Inner {
    fn insert(&mut self, at: usize, child: Node) {
        self.lowest.insert(at, child.lowest());
        self.counts.insert(at, child.count());
        self.children.insert(at, child);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            lowest: self.lowest.split_off(at),
            counts: self.counts.split_off(at),
            children: self.children.split_off(at),
        }
    }

    fn remove(&mut self, at: usize) -> Node {
        self.lowest.remove(at);
        self.counts.remove(at);
        self.children.remove(at)
    }

    /// Restores the invariants after a child lost an entry.
    fn mend(&mut self, at: usize) {
        let width = self.children[at].width();
        if width == 0 {
            self.remove(at);
            return;
        }
        self.lowest.set(at, self.children[at].lowest());
        if width >= SPARSE {
            return;
        }
        let fits = |left: &Node, right: &Node| left.width() + right.width() <= MERGED_MAX;
        let left = match at {
            0 => 0,
            _ if fits(&self.children[at - 1], &self.children[at]) => at - 1,
            _ => at,
        };
        if left + 1 < self.children.len() && fits(&self.children[left], &self.children[left + 1]) {
            let count = self.counts[left + 1];
            let right = self.remove(left + 1);
            self.children[left].append(right);
            self.counts[left] += count;
        }
    }

    /// The child that has the entry at `position`, and how many come before it.
    fn child_at(&self, position: usize) -> (usize, usize) {
        let mut before = 0;
        for (at, &count) in self.counts.iter().enumerate() {
            if position < before + count as usize {
                return (at, before);
            }
            before += count as usize;
        }
        unreachable!("a position is below the number of entries")
    }

    fn count_before(&self, at: usize) -> usize {
        self.counts[..at].iter().map(|&count| count as usize).sum()
    }
}

/// The order of all members.
#[derive(Clone, Debug)]
pub struct Order {
    root: Node,
}

impl Default for Order {
    fn default() -> Self {
        Self { root: Node::Leaf(Entries::default()) }
    }
}

impl Order {
    /// Adds a member, which is not in the order yet, with its present score.
    pub fn insert(&mut self, members: &Members, number: u32) {
        let (score, name) = members.get(number);
        let ends = Ends { first: true, last: true };
        if let Some(rest) = self.root.insert(members, Place { score, name }, number, ends) {
            let empty = Inner { lowest: Entries::default(), counts: Vec::new(), children: Vec::new() };
            let half = mem::replace(&mut self.root, Node::Inner(Box::new(empty)));
            let Node::Inner(root) = &mut self.root else { unreachable!("it was made just now") };
            root.insert(0, half);
            root.insert(1, rest);
        }
    }

    /// Takes a member out, which stands where its present score puts it.
    pub fn remove(&mut self, members: &Members, number: u32) {
        let (score, name) = members.get(number);
        self.root.remove(members, Place { score, name });
        while let Node::Inner(inner) = &mut self.root
            && inner.children.len() == 1
        {
            self.root = inner.children.remove(0);
        }
    }

    /// Gives a member another score. Returns whether it could stay in its leaf,
    /// between its neighbours there; if not, nothing is changed.
    pub fn rescore(&mut self, members: &Members, number: u32, score: f64) -> bool {
        let (before, name) = members.get(number);
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.lowest.through(members, Place { score: before, name }) - 1;
                    node = &mut inner.children[at];
                }
                Node::Leaf(entries) => {
                    let at = entries.before(members, Place { score: before, name });
                    // An entry that others know as their lowest is not changed in place.
                    let follows = at > 0 && entries.scores[at - 1] < score;
                    let precedes = entries.scores.get(at + 1).is_some_and(|&next| score < next);
                    if follows && precedes {
                        entries.scores[at] = score;
                    }
                    return follows && precedes;
                }
            }
        }
    }

    /// The member at `number` is to be known as `to`. Both numbers still name it.
    pub fn renumber(&mut self, members: &Members, number: u32, to: u32) {
        let (score, name) = members.get(number);
        let place = Place { score, name };
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.lowest.through(members, place) - 1;
                    if inner.lowest.numbers[at] == number {
                        inner.lowest.numbers[at] = to;
                    }
                    node = &mut inner.children[at];
                }
                Node::Leaf(entries) => {
                    let at = entries.before(members, place);
                    assert_eq!(entries.numbers[at], number, "a member stands where its score puts it");
                    entries.numbers[at] = to;
                    return;
                }
            }
        }
    }

    /// The position of a member.
    pub fn rank(&self, members: &Members, number: u32) -> usize {
        let (score, name) = members.get(number);
        let place = Place { score, name };
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.lowest.through(members, place) - 1;
                    rank += inner.count_before(at);
                    node = &inner.children[at];
                }
                Node::Leaf(entries) => return rank + entries.before(members, place),
            }
        }
    }

    /// How many entries `low` holds for, which it does for a prefix only.
    pub fn prefix(&self, low: impl Fn(f64, u32) -> bool) -> usize {
        let (mut node, mut position) = (&self.root, 0);
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.lowest.prefix(&low).saturating_sub(1);
                    position += inner.count_before(at);
                    node = &inner.children[at];
                }
                Node::Leaf(entries) => return position + entries.prefix(&low),
            }
        }
    }

    /// Entries at these positions, which are there, in order.
    pub fn range(&self, positions: ops::Range<usize>) -> Range<'_> {
        Range { order: self, ahead: positions, front: Run::default(), back: Run::default() }
    }

    /// The leaf that has the entry at `position`, and where in it that is.
    fn leaf_at(&self, mut position: usize) -> (&Entries, usize) {
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let (at, before) = inner.child_at(position);
                    position -= before;
                    node = &inner.children[at];
                }
                Node::Leaf(entries) => return (entries, position),
            }
        }
    }
}

/// A run of entries inside a leaf.
#[derive(Clone, Default)]
struct Run<'a> {
    scores: slice::Iter<'a, f64>,
    numbers: slice::Iter<'a, u32>,
}

/// Entries in order, from both ends.
#[derive(Clone)]
pub struct Range<'a> {
    order: &'a Order,
    /// Positions that are in neither run yet.
    ahead: ops::Range<usize>,
    front: Run<'a>,
    back: Run<'a>,
}

impl Iterator for Range<'_> {
    type Item = (f64, u32);

    fn next(&mut self) -> Option<(f64, u32)> {
        loop {
            if let Some((&score, &number)) = self.front.scores.next().zip(self.front.numbers.next()) {
                return Some((score, number));
            }
            if self.ahead.is_empty() {
                return self.back.scores.next().zip(self.back.numbers.next()).map(|(&s, &n)| (s, n));
            }
            let (entries, start) = self.order.leaf_at(self.ahead.start);
            let end = entries.len().min(start + self.ahead.len());
            self.front = entries.slice(start..end);
            self.ahead.start += end - start;
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.front.scores.len() + self.ahead.len() + self.back.scores.len();
        (left, Some(left))
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<(f64, u32)> {
        loop {
            let back = &mut self.back;
            if let Some((&score, &number)) = back.scores.next_back().zip(back.numbers.next_back()) {
                return Some((score, number));
            }
            if self.ahead.is_empty() {
                let front = &mut self.front;
                return front.scores.next_back().zip(front.numbers.next_back()).map(|(&s, &n)| (s, n));
            }
            let (entries, last) = self.order.leaf_at(self.ahead.end - 1);
            let start = (last + 1).saturating_sub(self.ahead.len());
            self.back = entries.slice(start..last + 1);
            self.ahead.end -= last + 1 - start;
        }
    }
}

impl ExactSizeIterator for Range<'_> {}
