//! Trimming a stream: the leader reckons how many entries go, and everywhere the first so many go.

use moonraft_proto::StreamId;

use super::{Node, Stream, StreamUndo};

/// How far a stream is trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// So many entries stay.
    Length(u64),
    /// Entries stay from this id on.
    Id(StreamId),
}

/// How a stream is trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// How far.
    pub to: TrimTo,
    /// By whole nodes only.
    pub by_nodes: bool,
    /// At most so many entries go, as far as whole nodes do; 0: no limit.
    pub limit: u64,
}

/// Entries that were trimmed.
#[derive(Clone, Debug, Default)]
pub struct Trimmed {
    nodes: Vec<(StreamId, Node)>,
    /// Some of the next node: its base, the first id and how many, and their bytes.
    part: Option<(StreamId, StreamId, usize, Box<[u8]>)>,
    count: u64,
}

impl Trimmed {
    /// How many entries.
    pub const fn len(&self) -> usize {
        self.count as usize
    }
}

impl Stream {
    /// How many entries trimming takes.
    pub fn trimmed_by(&self, trim: Trim) -> u64 {
        let mut gone = 0;
        for (base, node) in self.all_nodes() {
            let (count, left) = (node.len() as u64, self.count - gone);
            let over = match trim.to {
                TrimTo::Length(length) => left.saturating_sub(length),
                // No entry is below the base.
                TrimTo::Id(id) if base >= id => 0,
                TrimTo::Id(id) => node.entries(base).take_while(|entry| entry.id < id).count() as u64,
            };
            if over == 0 || trim.limit > 0 && gone + count > trim.limit {
                break;
            }
            match over >= count {
                true => gone += count,
                false if trim.by_nodes => break,
                false => return gone + over,
            }
        }
        gone
    }

    /// Takes the first `count` entries out, which are there.
    pub(super) fn trim(&mut self, count: u64) -> StreamUndo {
        let mut trimmed = Trimmed { count, ..Trimmed::default() };
        let mut left = count as usize;
        while left > 0 {
            let (base, first) = match self.nodes.first_key_value() {
                Some((base, node)) => (*base, node),
                None => (self.last_base, &self.last),
            };
            assert!(!first.is_empty(), "what is trimmed is there");
            if first.len() <= left {
                left -= first.len();
                trimmed.nodes.push((base, self.take_node(base)));
            } else {
                let id = first.entries(base).next().expect("it is not empty").id;
                let entries = self.node_mut(base).cut_first(left);
                trimmed.part = Some((base, id, left, entries));
                left = 0;
            }
        }
        self.count -= count;
        StreamUndo::Trimmed(Box::new(trimmed))
    }

    /// Puts entries back that were trimmed.
    pub(super) fn restore_trimmed(&mut self, trimmed: Trimmed) {
        if let Some((base, id, count, entries)) = trimmed.part {
            self.node_mut(base).put_back(base, id, &entries, count);
        }
        for (base, node) in trimmed.nodes {
            self.put_node(base, node);
        }
        self.count += trimmed.count;
    }
}
