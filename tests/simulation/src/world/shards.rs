//! Shards: what they are told, and what they want done.

use std::collections::VecDeque;

use moonraft::consensus::Input;
use moonraft::shard::{self, Event as ShardEvent};
use rand::RngExt;

use super::{Event, MS, World};
use crate::{disk::SnapshotFile, marks::mark};

impl World {
    /// Consensus tells a shard something. The shard has a thread of its own, which may be
    /// busy: it hears in order, but not always at once.
    pub(super) fn post(&mut self, node: usize, shard: usize, event: ShardEvent) {
        if self.draw(self.weather.busy) {
            self.keep_busy(node, shard);
        }
        let Some(running) = &mut self.nodes[node].running else { return };
        match &mut running.mailboxes[shard] {
            Some(waiting) => waiting.push_back(event),
            None => self.tell(node, shard, event),
        }
    }

    /// The shard's thread does not look at what consensus tells it for a while.
    pub(super) fn keep_busy(&mut self, node: usize, shard: usize) {
        let Some(running) = &mut self.nodes[node].running else { return };
        if running.mailboxes[shard].is_none() {
            running.mailboxes[shard] = Some(VecDeque::new());
            let delay = self.rng.random_range(0..self.weather.busy_for);
            self.after(delay, Event::ReadMail(node, self.nodes[node].life, shard));
        }
    }

    /// The shard's thread has time again.
    pub(super) fn read_mail(&mut self, node: usize, life: u32, shard: usize) {
        if self.nodes[node].life != life {
            return;
        }
        if self.is_paused(node) {
            return self.at(self.nodes[node].paused_until, Event::ReadMail(node, life, shard));
        }
        let Some(running) = &mut self.nodes[node].running else { return };
        for event in running.mailboxes[shard].take().into_iter().flatten() {
            self.tell(node, shard, event);
        }
    }

    pub(super) fn tell(&mut self, node: usize, shard: usize, event: ShardEvent) {
        let Some(running) = &mut self.nodes[node].running else { return };
        running.shards[shard].handle(event);
        running.shards[shard].end_turn();
        running.shards[shard].walk(super::WALK_STEP);
        self.drive(node, shard);
    }

    /// Does what a shard wants done, in order: what comes of it is done after it.
    pub(super) fn drive(&mut self, node: usize, shard: usize) {
        self.gather(node, shard);
        if self.driving {
            return;
        }
        self.driving = true;
        while let Some((node, shard, output)) = self.outputs.pop_front() {
            self.shard_output(node, shard, output);
            self.gather(node, shard);
        }
        self.driving = false;
    }

    pub(super) fn gather(&mut self, node: usize, shard: usize) {
        if let Some(running) = &mut self.nodes[node].running {
            let outputs = running.shards[shard].take_outputs();
            self.outputs.extend(outputs.into_iter().map(|output| (node, shard, output)));
        }
    }

    pub(super) fn shard_output(&mut self, node: usize, shard: usize, output: shard::Output) {
        let group = shard as u32;
        match output {
            shard::Output::Propose { term, sequence, data } => {
                self.input(node, Input::Propose { group, term, sequence, data });
            }
            shard::Output::ReadRound { term, round } => {
                mark("read waited for a round");
                self.input(node, Input::ReadRound { group, term, round })
            }
            shard::Output::WatchFollowers(watched) => {
                self.input(node, Input::WatchFollowers { group, watched });
            }
            shard::Output::Applied { index } => {
                self.compare_at(node, shard);
                self.input(node, Input::Applied { group, index });
            }
            shard::Output::SnapshotChunk { number, data } => {
                let bytes = data.len() as u64;
                if let Some(running) = &mut self.nodes[node].running {
                    let (open, chunks) = running.taking.entry(group).or_default();
                    if *open != number {
                        (*open, *chunks) = (number, Vec::new());
                    }
                    chunks.push(data);
                }
                self.write_snapshot_chunk(node, shard, number, bytes);
            }
            shard::Output::SnapshotGivenUp { .. } | shard::Output::Discard(_) => {}
            shard::Output::Snapshot { number, index, term } => {
                let taken = self.nodes[node].running.as_mut().and_then(|it| it.taking.remove(&group));
                let (_, chunks) = taken.filter(|(open, _)| *open == number).expect("its chunks came before");
                let life = self.nodes[node].life;
                let hung = self.nodes[node].disk.hung_until.saturating_sub(self.now.get());
                let delay = hung + self.rng.random_range(MS..100 * MS);
                let file = SnapshotFile { index, term, chunks };
                self.after(delay, Event::SnapshotWritten(node, life, group, file));
            }
            shard::Output::Flush(session) => self.flush(node, shard, session),
            shard::Output::Resume(session) => self.resume(node, shard, session),
            shard::Output::Close(session) => self.close(node, shard, session),
            shard::Output::Publish(_) => {}
        }
    }
}
