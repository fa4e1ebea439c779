//! Snapshot files: written, sent chunk by chunk to those who lag, taken in.

use moonraft::consensus::{Input, PeerMessage, snapshot_position};
use moonraft::shard::Event as ShardEvent;
use rand::RngExt;

use super::{Event, MS, World};
use crate::{disk::SnapshotFile, marks::mark};

/// A transfer is done in so many chunks at most.
const CHUNKS_MAX: usize = 20;

/// A file on its way.
#[derive(Clone)]
pub(super) struct Transfer {
    /// The sender, its life.
    from: (usize, u32),
    /// The receiver, its life.
    to: (usize, u32),
    file: SnapshotFile,
    /// Raft's part, for the receiver's consensus.
    message: PeerMessage,
    /// How much has arrived.
    offset: usize,
}

impl World {
    /// A chunk of a snapshot that is being taken goes to the disk, which may be slow or full.
    pub(super) fn write_snapshot_chunk(&mut self, node: usize, shard: usize, number: u64, bytes: u64) {
        let hung = self.nodes[node].disk.hung_until.saturating_sub(self.now.get());
        let delay = hung + self.rng.random_range(0..5 * MS);
        let life = self.nodes[node].life;
        self.after(delay, Event::SnapshotChunkTaken(node, life, shard, number, bytes));
    }

    pub(super) fn snapshot_chunk_taken(
        &mut self,
        node: usize,
        life: u32,
        shard: usize,
        number: u64,
        bytes: u64,
    ) {
        if self.nodes[node].life != life {
            return;
        }
        if self.nodes[node].disk.files_full_until > self.now.get() {
            mark("snapshot without space");
            self.post(node, shard, ShardEvent::SnapshotFailed { number });
        }
        self.post(node, shard, ShardEvent::SnapshotTaken { number, bytes });
    }

    pub(super) fn snapshot_written(&mut self, node: usize, life: u32, group: u32, file: SnapshotFile) {
        let state = &mut self.nodes[node];
        if state.life != life {
            return;
        }
        mark("snapshot taken");
        let (index, bytes) = (file.index, file.bytes().len() as u64);
        state.disk.keep_snapshot(group, file);
        self.input(node, Input::SnapshotPublished { group, index, bytes });
    }

    pub(super) fn send_snapshot(&mut self, node: usize, index: u64, message: PeerMessage) {
        let to = message.to.node() as usize - 1;
        let (from, to) = ((node, self.nodes[node].life), (to, self.nodes[to].life));
        let Some(file) = self.nodes[node].disk.snapshot(message.group, index).cloned() else {
            return self.snapshot_sent(&message, from, false);
        };
        // The receiver is asked how much of it there is.
        let offset = self.nodes[to.0].disk.received(message.group, &file);
        if offset > 0 {
            mark("snapshot transfer resumed");
        }
        let delay = self.draw_delay() + self.draw_delay();
        self.after(delay, Event::SnapshotChunk(Box::new(Transfer { from, to, file, message, offset })));
    }

    /// A chunk arrives, or the connection is found to be broken.
    pub(super) fn snapshot_chunk(&mut self, mut transfer: Transfer) {
        let (from, to) = (transfer.from, transfer.to);
        let paused_until = self.nodes[from.0].paused_until.max(self.nodes[to.0].paused_until);
        if paused_until > self.now.get() {
            return self.at(paused_until, Event::SnapshotChunk(Box::new(transfer)));
        }
        let up =
            |(node, life): (usize, u32)| self.nodes[node].life == life && self.nodes[node].running.is_some();
        let connected =
            up(from) && up(to) && !self.cut.contains(&(from.0, to.0)) && !self.cut.contains(&(to.0, from.0));
        let group = transfer.message.group;
        let size = transfer.file.bytes().len();
        let left = size - transfer.offset.min(size);
        let bytes = left.min(self.weather.chunk_bytes.max(size / CHUNKS_MAX));
        let now = self.now.get();
        let lost = self.draw(self.weather.chunk_loss);
        let broken = !connected || lost || self.nodes[to.0].disk.files_full_until > now;
        if broken || !self.nodes[to.0].disk.receive(group, &transfer.file, transfer.offset, bytes) {
            mark("snapshot transfer broken off");
            return self.snapshot_sent(&transfer.message, from, false);
        }
        transfer.offset += bytes;
        if bytes < left {
            let delay = self.draw_delay();
            return self.after(delay, Event::SnapshotChunk(Box::new(transfer)));
        }
        let Transfer { file, message, .. } = transfer;
        let whole = self.nodes[to.0].disk.accept(group, &file);
        if whole {
            assert_eq!(snapshot_position(&message), Some((file.index, file.term)));
            self.input(to.0, Input::SnapshotReceived(message.clone()));
        }
        self.snapshot_sent(&message, from, whole);
    }

    /// The sender learns how the transfer ended, if it is still there.
    fn snapshot_sent(&mut self, message: &PeerMessage, from: (usize, u32), success: bool) {
        let (group, to) = (message.group, message.to);
        let delay = self.rng.random_range(MS..20 * MS);
        self.after(delay, Event::SnapshotDone(from.0, from.1, Input::SnapshotSent { group, to, success }));
    }
}
