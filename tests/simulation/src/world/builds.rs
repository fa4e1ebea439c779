//! Nodes of different builds: the newest reads and writes the newest format, the one before the first only.
//!
//! Here both are the same code. The older build says of formats what builds from before there were formats say,
//! nothing, which means the first; and it would end at what it cannot read.
//!
//! In half of the runs all nodes begin with the older build, and are started with either after a crash. The operator
//! does as docs/operations.md says: a node is taken back only while another is of the older build. And once one was
//! taken back, none is upgraded any more: how long the word of a node counts that is not there any more depends on
//! pauses, and is not what is looked for here.

use moonraft::consensus::Input;
use moonraft_proto::entry::{FIRST_FORMAT, NEWEST_FORMAT};
use rand::RngExt;

use super::World;
use crate::marks::mark;

impl World {
    /// All nodes begin with one build.
    pub(super) fn draw_builds(&mut self) {
        let reads = if self.rng.random_bool(0.5) { FIRST_FORMAT } else { NEWEST_FORMAT };
        self.nodes.iter_mut().for_each(|node| node.reads = reads);
    }

    fn is_old(&self, node: usize) -> bool {
        self.nodes[node].reads < NEWEST_FORMAT
    }

    fn is_another_old(&self, node: usize) -> bool {
        (0..self.nodes.len()).any(|other| other != node && self.is_old(other))
    }

    /// A node is about to be started, with whichever build may be.
    pub(super) fn choose_build(&mut self, node: usize) {
        if self.nodes[node].life == 0 {
            return;
        }
        if self.is_old(node) {
            if !self.taken_back && self.rng.random_bool(0.7) {
                self.nodes[node].reads = NEWEST_FORMAT;
                self.upgraded = true;
            }
        } else if self.is_another_old(node) && self.rng.random_bool(0.3) {
            mark("node taken back to the older build");
            self.nodes[node].reads = FIRST_FORMAT;
            self.taken_back = true;
        }
    }

    /// What a node would agree on: it tells others, and itself.
    pub(super) fn own_format(&mut self, node: usize) -> u8 {
        let (id, format) = (self.nodes[node].id, self.nodes[node].reads);
        self.input(node, Input::Agrees { node: id, format });
        format
    }

    /// A replica has applied something: an older build that cannot read it would have ended.
    pub(super) fn check_format(&mut self, node: usize, shard: usize) {
        let Some(running) = &self.nodes[node].running else { return };
        let agreed = running.shards[shard].committed_format();
        let reads = self.nodes[node].reads;
        if agreed > reads {
            self.wrong = Some(format!("node {node} ended: format {agreed}, and it reads up to {reads}"));
        } else if agreed > FIRST_FORMAT && self.upgraded {
            mark("newer format agreed on after an upgrade");
        }
    }

    /// A leader proposes a batch.
    pub(super) fn note_proposal(&self, node: usize, data: &[u8]) {
        let is_first = data.first() == Some(&FIRST_FORMAT);
        if is_first && !self.is_old(node) && self.is_another_old(node) {
            mark("newer build led an older one");
        }
    }
}
