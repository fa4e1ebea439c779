//! Shards: what they are told, and what they want done.

use std::collections::VecDeque;

use moonraft::consensus::Input;
use moonraft::shard::{self, Event as ShardEvent};
use rand::RngExt;

use super::{
    Event, World,
    snapshots::{Install, Step, Task},
};
use crate::{
    marks::mark,
    node::{Mail, Running},
};

/// Whether what is of the log has to wait: for a snapshot to be installed, or, on a follower, to be written.
fn is_log_held(running: &Running, shard: usize) -> bool {
    let state = &running.shards[shard];
    running.intakes[shard].installing || !state.standing().is_leading() && state.is_writer_behind()
}

impl World {
    /// Consensus tells a shard something. The shard has a thread of its own, which may be
    /// busy: it hears in order, but not always at once.
    pub(super) fn post(&mut self, node: usize, shard: usize, event: ShardEvent) {
        self.post_mail(node, shard, Mail::Event(event));
    }

    pub(super) fn post_mail(&mut self, node: usize, shard: usize, mail: Mail) {
        if self.draw(self.weather.busy) {
            self.keep_busy(node, shard);
        }
        let Some(running) = &mut self.nodes[node].running else { return };
        match &mut running.intakes[shard].mailbox {
            Some(waiting) => waiting.push_back(mail),
            None => self.take_mail(node, shard, mail),
        }
    }

    /// The shard's thread does not look at what consensus tells it for a while.
    pub(super) fn keep_busy(&mut self, node: usize, shard: usize) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let mailbox = &mut running.intakes[shard].mailbox;
        if mailbox.is_none() {
            *mailbox = Some(VecDeque::new());
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
        for mail in running.intakes[shard].mailbox.take().into_iter().flatten() {
            self.take_mail(node, shard, mail);
        }
    }

    /// The shard hears something at once.
    pub(super) fn tell(&mut self, node: usize, shard: usize, event: ShardEvent) {
        self.take_mail(node, shard, Mail::Event(event));
    }

    /// The shard's thread takes a message, unless that is of the log and has to wait, and then what has waited for
    /// long enough.
    fn take_mail(&mut self, node: usize, shard: usize, mail: Mail) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let held = is_log_held(running, shard) || !running.intakes[shard].deferred.is_empty();
        match mail {
            Mail::Install { .. } | Mail::Event(ShardEvent::Committed(_)) if held => {
                let intake = &mut running.intakes[shard];
                if intake.installing && matches!(mail, Mail::Install { .. }) {
                    mark("snapshot superseded while it was installed");
                }
                mark(if intake.installing { "log waited for an install" } else { "log waited for a writer" });
                intake.deferred.push_back(mail);
            }
            mail => self.take_now(node, shard, mail),
        }
        self.take_deferred(node, shard);
        self.end_turn(node, shard);
    }

    pub(super) fn take_deferred(&mut self, node: usize, shard: usize) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let deferred = &mut running.intakes[shard].deferred;
        // What comes before another snapshot need not be taken any more, and its file may be gone.
        let newest = deferred.iter().rposition(|mail| matches!(mail, Mail::Install { .. }));
        deferred.drain(..newest.unwrap_or(0));
        loop {
            let Some(running) = &mut self.nodes[node].running else { return };
            if is_log_held(running, shard) {
                return;
            }
            let Some(mail) = running.intakes[shard].deferred.pop_front() else { return };
            self.take_now(node, shard, mail);
        }
    }

    fn take_now(&mut self, node: usize, shard: usize, mail: Mail) {
        let Some(running) = &mut self.nodes[node].running else { return };
        match mail {
            Mail::Event(event) => running.shards[shard].handle(event),
            Mail::Install { index, term } => {
                running.intakes[shard].installing = true;
                let life = self.nodes[node].life;
                let install = Install { index, term, step: Step::Begin };
                self.after(0, Event::InstallStep(node, life, shard, install));
                self.cut_in_install(node, shard as u32, index);
            }
        }
    }

    /// The end of a turn of a shard's thread.
    pub(super) fn end_turn(&mut self, node: usize, shard: usize) {
        let Some(running) = &mut self.nodes[node].running else { return };
        running.shards[shard].end_turn();
        running.shards[shard].walk(super::WALK_STEP, u64::MAX);
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
            shard::Output::Readers(present) => self.input(node, Input::Readers { group, present }),
            shard::Output::Applied { index } => {
                self.compare_at(node, shard);
                self.prune(node, shard);
                self.input(node, Input::Applied { group, index });
            }
            shard::Output::SnapshotChunk { number, data } => {
                self.have_written(node, Task::Chunk(group, number, data));
            }
            shard::Output::SnapshotGivenUp { number } => {
                self.have_written(node, Task::GiveUp(group, number));
            }
            shard::Output::Snapshot { number, index, term } => {
                self.have_written(node, Task::Publish { group, number, index, term });
            }
            shard::Output::Discard(_) => {}
            shard::Output::Flush(session) => self.flush(node, shard, session),
            shard::Output::Resume(session) => self.resume(node, shard, session),
            shard::Output::Close(session) => self.close(node, shard, session),
            shard::Output::Publish(_) => {}
        }
    }
}
