//! Shards: what they are told, and what they want done.

use std::collections::VecDeque;

use moonraft::consensus::Input;
use moonraft::replica::{Install, Message};
use moonraft::shard::{self, Event as ShardEvent};
use rand::RngExt;

use super::{
    Event, World,
    snapshots::{Installation, Step, Task},
};
use crate::marks::mark;

impl World {
    /// A shard is told something. It has a thread of its own, which may be busy: it hears in order, but not always at
    /// once.
    pub(super) fn post(&mut self, node: usize, shard: usize, message: impl Into<Message>) {
        let message = message.into();
        if self.draw(self.weather.busy) {
            self.keep_busy(node, shard);
        }
        let Some(running) = &mut self.nodes[node].running else { return };
        match &mut running.mailboxes[shard] {
            Some(waiting) => waiting.push_back(message),
            None => self.take_mail(node, shard, [message]),
        }
    }

    /// The shard's thread does not look at what it is told for a while.
    pub(super) fn keep_busy(&mut self, node: usize, shard: usize) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let mailbox = &mut running.mailboxes[shard];
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
        let waiting = running.mailboxes[shard].take();
        self.take_mail(node, shard, waiting.into_iter().flatten());
    }

    /// The shard hears something at once.
    pub(super) fn tell(&mut self, node: usize, shard: usize, event: ShardEvent) {
        self.take_mail(node, shard, [event.into()]);
    }

    /// The shard's thread takes messages, in one turn.
    fn take_mail(&mut self, node: usize, shard: usize, messages: impl IntoIterator<Item = Message>) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let wanted = running.intakes[shard].take(&mut running.shards[shard], messages);
        self.install_if(node, shard, wanted);
        self.end_turn(node, shard);
    }

    /// Begins to install the snapshot that is wanted, if one is.
    pub(super) fn install_if(&mut self, node: usize, shard: usize, wanted: Option<Install>) {
        if let Some(snapshot) = wanted {
            let life = self.nodes[node].life;
            let installation = Installation { snapshot, step: Step::Begin };
            self.after(0, Event::InstallStep(node, life, shard, installation));
            self.cut_in_install(node, shard as u32, snapshot.index);
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
        let Some(running) = &mut self.nodes[node].running else { return };
        let outputs = running.shards[shard].take_outputs();
        let sent = running.errands[shard].newly_sent();
        self.outputs.extend(outputs.into_iter().map(|output| (node, shard, output)));
        self.set_alarm(node, shard);
        for _ in 0..sent {
            let delay = self.rng.random_range(0..self.weather.errand);
            self.after(delay, Event::ErrandComes(node, self.nodes[node].life, shard));
        }
    }

    /// What a shard has had executed elsewhere is done.
    pub(super) fn errand_comes(&mut self, node: usize, life: u32, shard: usize) {
        if self.nodes[node].life == life && self.is_paused(node) {
            return self.at(self.nodes[node].paused_until, Event::ErrandComes(node, life, shard));
        }
        if self.nodes[node].life == life
            && let Some(running) = &mut self.nodes[node].running
        {
            running.errands[shard].come();
            self.post(node, shard, ShardEvent::ErrandsDone);
        }
    }

    /// Lets the next time happen that a shard waits for, if it does.
    fn set_alarm(&mut self, node: usize, shard: usize) {
        let state = &mut self.nodes[node];
        let Some(running) = &mut state.running else { return };
        let Some(next) = running.shards[shard].next_wake() else { return };
        let at = state.clock.time_of_boot(next).max(self.now.get());
        if at < running.alarms[shard] {
            running.alarms[shard] = at;
            let life = state.life;
            self.at(at, Event::ShardWakes(node, life, shard));
        }
    }

    /// A time has come that a shard waited for, unless it waits for an earlier one since.
    pub(super) fn shard_wakes(&mut self, node: usize, life: u32, shard: usize) {
        if self.nodes[node].life != life {
            return;
        }
        let now = self.now.get();
        let until = if self.is_paused(node) { self.nodes[node].paused_until } else { now };
        let Some(running) = &mut self.nodes[node].running else { return };
        if running.alarms[shard] != now {
            return;
        }
        if until > now {
            running.alarms[shard] = until;
            return self.at(until, Event::ShardWakes(node, life, shard));
        }
        running.alarms[shard] = u64::MAX;
        self.tell(node, shard, ShardEvent::Wake);
    }

    pub(super) fn shard_output(&mut self, node: usize, shard: usize, output: shard::Output) {
        let group = shard as u32;
        match output {
            shard::Output::Propose { term, sequence, data } => {
                self.note_proposal(node, &data);
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
                self.check_format(node, shard);
                self.report_applied(node, shard, index);
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
            shard::Output::Publish(publications) => self.send_published(node, group, publications),
        }
    }

    fn report_applied(&mut self, node: usize, shard: usize, index: u64) {
        let Some(running) = &mut self.nodes[node].running else { return };
        if running.intakes[shard].applied(index, &running.progress[shard]) {
            self.input(node, Input::Applied { group: shard as u32, index });
        }
    }
}
