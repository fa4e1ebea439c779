//! Snapshots: written to files, sent chunk by chunk to those who lag, installed chunk by chunk.

use std::collections::VecDeque;

use bytes::Bytes;
use moonraft::consensus::{Input, PeerMessage, snapshot_position};
use moonraft::replica::Install;
use moonraft::shard::Event as ShardEvent;
use rand::RngExt;

use super::{Event, Fault, MS, World};
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

/// A snapshot that a shard takes in.
pub(super) struct Installation {
    pub(super) snapshot: Install,
    pub(super) step: Step,
}

/// What is done next of an installation.
pub(super) enum Step {
    Begin,
    Open,
    Chunks(VecDeque<Bytes>),
}

/// What the thread that writes snapshots is to do, as in the server.
pub(super) enum Task {
    /// Write the next chunk of a group's snapshot of this number.
    Chunk(u32, u64, Bytes),
    /// That snapshot is complete.
    Publish { group: u32, number: u64, index: u64, term: u64 },
    /// It is of no use.
    GiveUp(u32, u64),
}

impl World {
    // ---- writing ------------------------------------------------------------------

    /// The writer does one thing after the other, and the disk may be slow.
    pub(super) fn have_written(&mut self, node: usize, task: Task) {
        let hung = self.nodes[node].disk.hung_until.saturating_sub(self.now.get());
        let longest = if matches!(task, Task::Publish { .. }) { 100 * MS } else { 5 * MS };
        let delay = hung + self.rng.random_range(0..longest);
        let life = self.nodes[node].life;
        if let (Some(Fault::SnapshotUnsynced), &Task::Publish { group, index, .. }) = (self.fault, &task) {
            self.input(node, Input::SnapshotPublished { group, index, bytes: 0 });
        }
        let Some(running) = &mut self.nodes[node].running else { return };
        running.written_at = running.written_at.max(self.now.get()) + delay;
        let at = running.written_at;
        self.at(at, Event::WriteSnapshot(node, life, Box::new(task)));
    }

    pub(super) fn write_snapshot(&mut self, node: usize, life: u32, task: Task) {
        if self.nodes[node].life != life {
            return;
        }
        let full = self.nodes[node].disk.files_full_until > self.now.get();
        let fails = full || self.draw(self.weather.file_error);
        let Some(running) = &mut self.nodes[node].running else { return };
        match task {
            Task::Chunk(group, number, data) => {
                let (open, chunks) = running.writing.entry(group).or_default();
                if *open != number {
                    (*open, *chunks) = (number, Some(Vec::new()));
                }
                let bytes = data.len() as u64;
                match chunks {
                    Some(_) if fails => {
                        mark(if full { "snapshot without space" } else { "snapshot not written" });
                        *chunks = None;
                        self.post(node, group as usize, ShardEvent::SnapshotFailed { number });
                    }
                    Some(chunks) => chunks.push(data),
                    None => {}
                }
                self.post(node, group as usize, ShardEvent::SnapshotTaken { number, bytes });
            }
            Task::Publish { group, number, index, term } => {
                let open = running.writing.remove(&group).filter(|(open, _)| *open == number);
                let Some((_, chunks)) = open else { return };
                if chunks.is_none() {
                    mark("snapshot failed after its walk had ended");
                }
                match chunks.filter(|_| !fails) {
                    Some(chunks) => self.publish(node, group, SnapshotFile { index, term, chunks }),
                    None => {
                        mark("snapshot not published");
                        self.input(node, Input::SnapshotFailed { group });
                    }
                }
            }
            Task::GiveUp(group, number) => {
                if running.writing.get(&group).is_some_and(|(open, _)| *open == number) {
                    running.writing.remove(&group);
                }
            }
        }
    }

    fn publish(&mut self, node: usize, group: u32, file: SnapshotFile) {
        mark("snapshot taken");
        let (index, bytes) = (file.index, file.bytes().len() as u64);
        self.nodes[node].disk.keep_snapshot(group, file);
        self.input(node, Input::SnapshotPublished { group, index, bytes });
    }

    // ---- installing ---------------------------------------------------------------

    /// A shard takes in a snapshot, one turn after the other: much happens meanwhile.
    pub(super) fn install_step(&mut self, node: usize, life: u32, shard: usize, install: Installation) {
        if self.nodes[node].life != life {
            return;
        }
        if self.is_paused(node) {
            let until = self.nodes[node].paused_until;
            return self.at(until, Event::InstallStep(node, life, shard, install));
        }
        let state = &mut self.nodes[node];
        let Some(running) = &mut state.running else { return };
        let machine = &mut running.shards[shard];
        let step = match install.step {
            Step::Begin => {
                machine.begin_install(install.snapshot.index, install.snapshot.term);
                Some(Step::Open)
            }
            // From here on it is read, whether it keeps its name or not.
            Step::Open => {
                let file = state.disk.snapshot(shard as u32, install.snapshot.index);
                file.map(|file| Step::Chunks(file.chunks.clone().into()))
            }
            Step::Chunks(mut chunks) => match chunks.pop_front() {
                Some(chunk) => {
                    machine.install_chunk(&chunk).expect("a snapshot was written just so");
                    Some(Step::Chunks(chunks))
                }
                None => return self.installed(node, shard),
            },
        };
        match step {
            Some(step) => {
                let hung = self.nodes[node].disk.hung_until.saturating_sub(self.now.get());
                let longest = if self.calm { MS } else { self.weather.install_for };
                let delay = hung + self.rng.random_range(0..longest);
                self.after(delay, Event::InstallStep(node, life, shard, Installation { step, ..install }));
            }
            None => {
                self.wrong = Some(format!("snapshot {} of shard {shard} is gone", install.snapshot.index))
            }
        }
        self.end_turn(node, shard);
    }

    /// What came after the snapshot is taken now.
    fn installed(&mut self, node: usize, shard: usize) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let wanted = running.intakes[shard].end_install(&mut running.shards[shard]);
        self.install_if(node, shard, wanted);
        self.end_turn(node, shard);
    }

    // ---- sending ------------------------------------------------------------------

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
        let receiver = &mut self.nodes[to.0].disk;
        let full = receiver.files_full_until > now;
        if connected && full {
            // Half of a snapshot is of no use there.
            receiver.parts.remove(&group);
        }
        let broken = !connected || lost || full;
        if broken || !receiver.receive(group, &transfer.file, transfer.offset, bytes) {
            mark("snapshot transfer broken off");
            return self.snapshot_sent(&transfer.message, from, false);
        }
        transfer.offset += bytes;
        if bytes < left {
            let delay = self.draw_delay();
            return self.after(delay, Event::SnapshotChunk(Box::new(transfer)));
        }
        let Transfer { file, message, .. } = transfer;
        mark("snapshot received");
        let kept = self.weather.file_error == 0.0 || !self.draw(0.3);
        let whole = kept && self.nodes[to.0].disk.accept(group, &file);
        if !kept {
            mark("received snapshot not kept");
        }
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
