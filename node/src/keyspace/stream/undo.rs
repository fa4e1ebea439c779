//! What takes a change of a stream back.

use moonraft_proto::StreamId;

use super::{
    Group, Node, Stream,
    group::{Changed, Removed},
    node::Pushed,
    put_exactly,
    trim::Trimmed,
};
use crate::keyspace::Blob;

/// The change that takes an effect on a stream back.
#[allow(missing_docs, reason = "a variant's sentence tells of its fields")]
#[derive(Debug)]
pub enum StreamUndo {
    /// An entry came in, and maybe its node; the last id was this.
    Added { last_id: StreamId, pushed: Pushed, begins: bool },
    /// An entry of a node was deleted.
    Deleted { base: StreamId, id: StreamId, entry: Box<[u8]>, max_deleted: StreamId },
    /// The only entry of a node was deleted.
    DeletedNode { base: StreamId, node: Box<Node>, max_deleted: StreamId },
    /// These entries were trimmed.
    Trimmed(Box<Trimmed>),
    /// It had had these ids and this many entries.
    Set { last_id: StreamId, added: u64, max_deleted: StreamId },
    /// The group was there up to here, or it was not there.
    Group { name: Blob, before: Option<(StreamId, Option<u64>)> },
    /// The group was there.
    GroupRemoved { name: Blob, group: Box<Group> },
    /// The consumer had these times, or was not there.
    Consumer { group: Blob, name: Blob, before: Option<(u64, Option<u64>)> },
    /// The consumer was there.
    ConsumerRemoved { group: Blob, removed: Box<Removed> },
    /// Other entries were pending.
    Pending { group: Blob, changed: Changed },
}

impl StreamUndo {
    /// How many items it holds: what takes time to drop.
    pub fn items(&self) -> usize {
        match self {
            Self::Trimmed(trimmed) => trimmed.len() / 8,
            Self::GroupRemoved { group, .. } => group.pending().len() / 8,
            Self::ConsumerRemoved { removed, .. } => removed.len() / 8,
            Self::Pending { changed, .. } => changed.len() / 8,
            _ => 0,
        }
    }
}

impl Stream {
    /// Takes the newest change back that has not been taken back yet.
    pub(in crate::keyspace) fn undo(&mut self, undo: StreamUndo) {
        match undo {
            StreamUndo::Added { last_id, pushed, begins } => {
                if begins {
                    self.take_node(self.last_base);
                } else {
                    self.last.take_back(pushed);
                }
                self.last_id = last_id;
                self.count -= 1;
                self.added = self.added.wrapping_sub(1);
            }
            StreamUndo::Deleted { base, id, entry, max_deleted } => {
                self.node_mut(base).put_back(base, id, &entry, 1);
                self.max_deleted = max_deleted;
                self.count += 1;
            }
            StreamUndo::DeletedNode { base, node, max_deleted } => {
                self.put_node(base, *node);
                self.max_deleted = max_deleted;
                self.count += 1;
            }
            StreamUndo::Trimmed(trimmed) => self.restore_trimmed(*trimmed),
            StreamUndo::Set { last_id, added, max_deleted } => {
                (self.last_id, self.added, self.max_deleted) = (last_id, added, max_deleted);
            }
            other => self.undo_of_groups(other),
        }
    }

    fn undo_of_groups(&mut self, undo: StreamUndo) {
        match undo {
            StreamUndo::Group { name, before: Some((last_id, read)) } => {
                let group = self.group_mut(&name);
                (group.last_id, group.read) = (last_id, read);
            }
            StreamUndo::Group { name, before: None } => {
                let at = self.search(&name).expect("a group that came is there");
                self.groups.remove(at);
            }
            StreamUndo::GroupRemoved { name, group } => {
                let at = self.search(&name).expect_err("a group that went is not there");
                put_exactly(&mut self.groups, at, (name, group));
            }
            StreamUndo::Consumer { group, name, before: Some((seen_ms, active_ms)) } => {
                self.group_mut(&group).set_consumer(&name, seen_ms, active_ms);
            }
            StreamUndo::Consumer { group, name, before: None } => {
                self.group_mut(&group).remove_consumer(&name);
            }
            StreamUndo::ConsumerRemoved { group, removed } => {
                self.group_mut(&group).restore_consumer(*removed);
            }
            StreamUndo::Pending { group, changed } => self.group_mut(&group).restore_pending(changed),
            other => unreachable!("{other:?} is not about a group"),
        }
    }
}
