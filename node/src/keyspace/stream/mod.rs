//! A stream: entries with rising ids, each some fields with values, and groups of those who read them.
//!
//! Entries stand in nodes ([`node`]), the nodes in a tree by their bases; the last one, which takes what is added,
//! beside it. Nodes begin where the leader has decided, by `stream-node-max-*`, and go with their last entry: so
//! `~` trims here as in Redis, by whole nodes, and all replicas have the same ones.
//!
//! INVARIANTS:
//! * Ids rise. The last id that was ever given, the highest that was deleted and the number of entries that were
//!   ever added are state: no id comes twice, whoever leads and whatever was deleted.
//! * No node in the tree is empty; the last one is, if there are no entries. A node's base is not above its first id,
//!   and above all ids of the node before.
//! * Unlike other containers it may be empty.

pub mod dump;
mod group;
mod id_map;
mod node;
#[cfg(test)]
mod tests;
mod trim;
mod undo;

use std::{cmp::Ordering, collections::BTreeMap, ops::Bound};

use moonraft_proto::{StreamChange, StreamId, stream::Pairs};

use self::node::Node;
pub use self::{
    group::{Consumer, Group, Pending},
    id_map::IdMap,
    node::{Entry, NodeLimits},
    trim::{Trim, TrimTo},
    undo::StreamUndo,
};
use super::{Blob, weight::sampled};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// All nodes but the last, by their bases.
    nodes: BTreeMap<StreamId, Node>,
    last: Node,
    last_base: StreamId,
    count: u64,
    last_id: StreamId,
    max_deleted: StreamId,
    added: u64,
    /// In the order of their names.
    groups: Vec<(Blob, Box<Group>)>,
}

impl Stream {
    /// Entries that are there.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The last id that was given to an entry, or set by hand.
    pub const fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The highest id of those that were deleted one by one.
    pub const fn max_deleted(&self) -> StreamId {
        self.max_deleted
    }

    /// Entries that were ever added.
    pub const fn added(&self) -> u64 {
        self.added
    }

    /// The id of the first entry; 0-0 if there is none.
    pub fn first_id(&self) -> StreamId {
        self.iter().next().map_or(StreamId::MIN, |entry| entry.id)
    }

    /// Its nodes with their bases.
    fn all_nodes(&self) -> impl DoubleEndedIterator<Item = (StreamId, &Node)> {
        let last = (!self.last.is_empty()).then_some((self.last_base, &self.last));
        self.nodes.iter().map(|(base, node)| (*base, node)).chain(last)
    }

    /// The nodes that may hold ids of a range, both ends included.
    fn nodes_between(
        &self,
        from: StreamId,
        to: StreamId,
    ) -> impl DoubleEndedIterator<Item = (StreamId, &Node)> {
        let is_in_last = |id| !self.last.is_empty() && self.last_base <= id;
        let last = is_in_last(to).then_some((self.last_base, &self.last));
        let first = self.nodes.range(..=from).next_back().map_or(from, |(base, _)| *base);
        let others = match is_in_last(from) || first > to {
            true => (Bound::Excluded(to), Bound::Included(to)),
            false => (Bound::Included(first), Bound::Included(to)),
        };
        self.nodes.range(others).map(|(base, node)| (*base, node)).chain(last)
    }

    /// Entries with ids of a range, both ends included.
    pub fn range(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        let (from, to) = if from <= to { (from, to) } else { (StreamId::MAX, StreamId::MIN) };
        let nodes = self.nodes_between(from, to);
        let entries = nodes.flat_map(|(base, node)| node.entries(base));
        entries.skip_while(move |entry| entry.id < from).take_while(move |entry| entry.id <= to)
    }

    /// How many entries the nodes have that hold ids of a range, or KiB if those are more; counted no further than `most`.
    pub fn count_about(&self, from: StreamId, to: StreamId, most: usize) -> usize {
        const KIB: usize = 1 << 10;
        let mut count = 0;
        for (_, node) in self.nodes_between(from, to) {
            count += node.len().max(node.heap_bytes() / KIB);
            if count >= most {
                break;
            }
        }
        count
    }

    /// The same from the last to the first.
    pub fn range_back(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        let (from, to) = if from <= to { (from, to) } else { (StreamId::MAX, StreamId::MIN) };
        let nodes = self.nodes_between(from, to).rev();
        let entries = nodes.flat_map(|(base, node)| {
            let entries: Vec<Entry<'_>> = node.entries(base).collect();
            entries.into_iter().rev()
        });
        entries.skip_while(move |entry| entry.id > to).take_while(move |entry| entry.id >= from)
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.all_nodes().flat_map(|(base, node)| node.entries(base))
    }

    /// Entries from an id on, each with whether it is the first of its node.
    pub fn entries_from(&self, from: StreamId) -> impl Iterator<Item = (bool, Entry<'_>)> {
        let nodes = self.nodes_between(from, StreamId::MAX);
        let entries = nodes.flat_map(|(base, node)| (0..).map(|at| at == 0).zip(node.entries(base)));
        entries.skip_while(move |(_, entry)| entry.id < from)
    }

    /// Its nodes, each with its base and its entries.
    pub fn nodes(&self) -> impl Iterator<Item = (StreamId, impl Iterator<Item = Entry<'_>> + Clone)> {
        self.all_nodes().map(|(base, node)| (base, node.entries(base)))
    }

    /// How many nodes it has.
    pub fn node_count(&self) -> usize {
        self.nodes.len() + usize::from(!self.last.is_empty())
    }

    /// The bases of its nodes.
    pub fn node_bases(&self) -> impl Iterator<Item = StreamId> {
        self.all_nodes().map(|(base, _)| base)
    }

    /// The entry of an id.
    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        let (base, node) = self.node_of(id)?;
        node.find(base, id).map(|(_, entry)| entry)
    }

    fn node_of(&self, id: StreamId) -> Option<(StreamId, &Node)> {
        if !self.last.is_empty() && self.last_base <= id {
            return Some((self.last_base, &self.last));
        }
        self.nodes.range(..=id).next_back().map(|(base, node)| (*base, node))
    }

    /// Whether an entry of these texts begins a node: the last one is full, or there is none.
    pub fn begins_node(&self, text_bytes: usize, limits: NodeLimits) -> bool {
        self.last.is_empty() || self.last.is_full(text_bytes, limits)
    }

    /// A group.
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.search(name).ok().map(|at| &*self.groups[at].1)
    }

    /// Its groups in the order of their names, with these.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&[u8], &Group)> {
        self.groups.iter().map(|(name, group)| (&**name, &**group))
    }

    fn search(&self, name: &[u8]) -> Result<usize, usize> {
        self.groups.binary_search_by(|(own, _)| (**own).cmp(name))
    }

    fn group_mut(&mut self, name: &[u8]) -> &mut Group {
        let at = self.search(name).expect("a group that is changed is there");
        &mut self.groups[at].1
    }

    /// Entries, and what is pending: what takes time to drop.
    pub fn items(&self) -> usize {
        self.len() / 8 + self.groups.iter().map(|(_, group)| group.pending().len() / 8).sum::<usize>()
    }

    /// Bytes outside of this value; the nodes are as large as the first `samples` of them.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        let sizes = self.nodes.values().map(Node::heap_bytes);
        let nodes = sampled(sizes, self.nodes.len(), samples);
        // The leaves of a tree that grows at its end are half full.
        let places = self.nodes.len() * 2 * size_of::<(StreamId, Node)>();
        let groups = self.groups.iter().map(|(name, group)| {
            size_of::<(Blob, Group)>() + name.heap_bytes() + group.heap_bytes() + size_of::<usize>()
        });
        nodes + places + self.last.heap_bytes() + groups.sum::<usize>()
    }

    // ---- what groups count ---------------------------------------------------------

    /// How many entries were ever added up to `id`, if that can be told: see `entries-read` of `XINFO GROUPS`.
    pub fn read_up_to(&self, id: StreamId) -> Option<u64> {
        if self.added == 0 {
            return Some(0);
        }
        if self.is_empty() && id <= self.last_id || id == self.last_id {
            return Some(self.added);
        }
        let first = self.first_id();
        if id > self.last_id || self.max_deleted >= first && self.max_deleted != StreamId::MIN {
            return None;
        }
        let before_first = self.added.wrapping_sub(self.count);
        match id.cmp(&first) {
            Ordering::Less => Some(before_first),
            Ordering::Equal => Some(before_first + 1),
            Ordering::Greater => None,
        }
    }

    /// Whether an entry from `id` on may have been deleted: then entries cannot be counted from there. What was deleted
    /// before the first leaves no gap.
    pub fn has_gaps_from(&self, id: StreamId) -> bool {
        !self.is_empty() && self.max_deleted != StreamId::MIN && self.max_deleted >= id.max(self.first_id())
    }

    // ---- changes ----------------------------------------------------------------

    /// Changes the stream as this says. Returns what takes it back.
    pub fn apply(&mut self, change: StreamChange<'_>) -> StreamUndo {
        match change {
            StreamChange::Add { id, fields, begins_node } => self.add(id, fields, begins_node),
            StreamChange::Delete { id } => self.delete(id),
            StreamChange::Trim { count } => self.trim(count),
            StreamChange::Set { last_id, added, max_deleted } => {
                let before = (self.last_id, self.added, self.max_deleted);
                (self.last_id, self.added, self.max_deleted) = (last_id, added, max_deleted);
                StreamUndo::Set { last_id: before.0, added: before.1, max_deleted: before.2 }
            }
            StreamChange::GroupSet { group: name, last_id, read } => self.set_group(name, last_id, read),
            StreamChange::GroupRemove { group: name } => {
                let at = self.search(name).expect("a group that is removed is there");
                let (name, group) = self.groups.remove(at);
                StreamUndo::GroupRemoved { name, group }
            }
            StreamChange::ConsumerSet { group: name, consumer, seen_ms, active_ms } => {
                let before = self.group_mut(name).set_consumer(consumer, seen_ms, active_ms);
                StreamUndo::Consumer { group: Blob::new(name), name: Blob::new(consumer), before }
            }
            StreamChange::ConsumerRemove { group: name, consumer } => {
                let removed = self.group_mut(name).remove_consumer(consumer);
                StreamUndo::ConsumerRemoved { group: Blob::new(name), removed: Box::new(removed) }
            }
            StreamChange::PendingSet { group: name, consumer, time_ms, count, ids } => {
                let changed = self.group_mut(name).set_pending(consumer, ids.iter(), time_ms, count);
                StreamUndo::Pending { group: Blob::new(name), changed }
            }
            StreamChange::PendingRemove { group: name, ids } => {
                let changed = self.group_mut(name).remove_pending(ids.iter());
                StreamUndo::Pending { group: Blob::new(name), changed }
            }
        }
    }

    fn add(&mut self, id: StreamId, fields: Pairs<'_>, begins_node: bool) -> StreamUndo {
        assert!(id > self.last_id, "the ids of a stream rise: {id} after {}", self.last_id);
        let begins = begins_node || self.last.is_empty();
        if begins {
            self.put_node(id, Node::default());
        }
        let pushed = self.last.push(self.last_base, id, fields);
        let before = std::mem::replace(&mut self.last_id, id);
        self.count += 1;
        self.added = self.added.wrapping_add(1);
        StreamUndo::Added { last_id: before, pushed, begins }
    }

    /// Puts a node where it belongs, which is behind all others if it is empty.
    fn put_node(&mut self, base: StreamId, node: Node) {
        if self.last.is_empty() {
            (self.last_base, self.last) = (base, node);
        } else if base > self.last_base {
            let mut full = std::mem::replace(&mut self.last, node);
            full.shrink();
            self.nodes.insert(self.last_base, full);
            self.last_base = base;
        } else {
            self.nodes.insert(base, node);
        }
    }

    /// Takes a node out.
    fn take_node(&mut self, base: StreamId) -> Node {
        if self.last.is_empty() || base != self.last_base {
            return self.nodes.remove(&base).expect("a node that is taken is there");
        }
        let (base, node) = self.nodes.pop_last().unwrap_or_default();
        self.last_base = base;
        std::mem::replace(&mut self.last, node)
    }

    fn node_mut(&mut self, base: StreamId) -> &mut Node {
        if !self.last.is_empty() && base == self.last_base {
            return &mut self.last;
        }
        self.nodes.get_mut(&base).expect("a node that is changed is there")
    }

    fn delete(&mut self, id: StreamId) -> StreamUndo {
        let (base, node) = self.node_of(id).expect("an entry that is deleted is there");
        let (place, _) = node.find(base, id).expect("an entry that is deleted is there");
        let max_deleted = self.max_deleted;
        self.max_deleted = max_deleted.max(id);
        self.count -= 1;
        if self.node_mut(base).len() == 1 {
            let node = Box::new(self.take_node(base));
            return StreamUndo::DeletedNode { base, node, max_deleted };
        }
        let entry = self.node_mut(base).cut(place);
        StreamUndo::Deleted { base, id, entry, max_deleted }
    }

    fn set_group(&mut self, name: &[u8], last_id: StreamId, read: Option<u64>) -> StreamUndo {
        let before = match self.search(name) {
            Ok(at) => {
                let group = &mut self.groups[at].1;
                let before = (group.last_id, group.read);
                (group.last_id, group.read) = (last_id, read);
                Some(before)
            }
            Err(at) => {
                let group = Group::new(last_id, read);
                put_exactly(&mut self.groups, at, (Blob::new(name), Box::new(group)));
                None
            }
        };
        StreamUndo::Group { name: Blob::new(name), before }
    }
}

/// Puts an item into a row that mostly has few: it grows by halves, from one on, where a `Vec` begins with four.
fn put_exactly<T>(row: &mut Vec<T>, at: usize, item: T) {
    if row.len() == row.capacity() {
        row.reserve_exact(row.len() / 2 + 1);
    }
    row.insert(at, item);
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        let own = |stream: &Self| (stream.count, stream.last_id, stream.max_deleted, stream.added);
        let same = |(one, two): (Entry<'_>, Entry<'_>)| one.id == two.id && one.pairs().eq(two.pairs());
        own(self) == own(other) && self.groups == other.groups && self.iter().zip(other.iter()).all(same)
    }
}
