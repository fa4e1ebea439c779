//! The consensus thread of each node: its turns, its writes, what it tells.

use moonraft::{
    consensus::Input,
    control::birth::Memory,
    log::LogWrites,
    replica::{Dispatch, Install, Message, Notice},
    shard::Event as ShardEvent,
};
use rand::RngExt;

use super::{Event, World, network::Parcel};
use crate::{
    marks::mark,
    node::{Running, Told},
};

impl World {
    pub(super) fn input(&mut self, node: usize, input: Input) {
        self.tell_consensus(node, Told::Input(input));
    }

    pub(super) fn tell_consensus(&mut self, node: usize, told: Told) {
        if let Some(running) = &mut self.nodes[node].running {
            running.inbox.push_back(told);
            let life = self.nodes[node].life;
            let at = self.nodes[node].paused_until;
            self.at(at, Event::Process(node, life));
        }
    }

    /// Time has come for the consensus thread.
    pub(super) fn wake(&mut self, node: usize, life: u32) {
        if self.is_awake(node, life) {
            self.process(node);
        } else if self.nodes[node].life == life && self.nodes[node].running.is_some() {
            self.at(self.nodes[node].paused_until, Event::Wake(node, life));
        }
    }

    /// Turns of the consensus thread: all that waits, as far as a turn takes so much, then one write.
    pub(super) fn process(&mut self, node: usize) {
        loop {
            let now = self.nodes[node].clock.boot_ns();
            let Some(running) = &mut self.nodes[node].running else { return };
            if running.syncing.is_some() {
                return;
            }
            while let Some(told) = self.nodes[node].running.as_mut().and_then(Running::hear) {
                self.take(node, told, now);
            }
            let is_fit = self.nodes[node].running.as_ref().is_some_and(|running| running.health.is_fit(now));
            let Some(dispatch) = self.nodes[node].dispatch() else { return };
            dispatch.begin_turn(now, is_fit);
            if !dispatch.has_work() {
                self.carry_out(node);
                return self.sleep(node, now);
            }
            let (messages, writes) = dispatch.collect(now);
            self.send(node, messages);
            self.carry_out(node);
            if !writes.is_empty() {
                return self.write(node, writes);
            }
            self.persisted(node);
        }
    }

    /// Until something comes, or the next tick or time to tell is there.
    fn sleep(&mut self, node: usize, now: u64) {
        let Some(dispatch) = self.nodes[node].dispatch() else { return };
        // Its clock may be slower than true time.
        let wait = dispatch.next_wake().saturating_sub(now) * 21 / 20 + 1;
        let (now, life) = (self.now.get(), self.nodes[node].life);
        let Some(running) = &mut self.nodes[node].running else { return };
        if running.wakes_at <= now || running.wakes_at > now + wait {
            running.wakes_at = now + wait;
            self.after(wait, Event::Wake(node, life));
        }
    }

    fn take(&mut self, node: usize, told: Told, now: u64) {
        let (shards, decided) = (self.shards as u32, self.nodes[node].disk.identity);
        let Some(running) = &mut self.nodes[node].running else { return };
        match (told, &mut running.dispatch) {
            (Told::Input(input), Some(dispatch)) => dispatch.step(input, now),
            // Whoever wants something of groups that have not begun says it again.
            (Told::Input(_), None) => {}
            (Told::Recall(from, life), dispatch) => {
                let asker = from as u64 + 1;
                let memory = match dispatch {
                    None => Memory::before_begin(decided, 0..shards),
                    Some(dispatch) => {
                        let recall = |group| Some((group, dispatch.consensus().recollect(group, asker)?));
                        Memory { decided: true, shards: (0..shards).filter_map(recall).collect() }
                    }
                };
                self.send_parcel(node, from, &Parcel::Memory(life, node, memory));
            }
        }
    }

    /// Writes to the log. A write that fails stops the node: what is on the disk is
    /// only known again after a start.
    fn write(&mut self, node: usize, writes: LogWrites) {
        self.nodes[node].disk.log.write(&writes);
        if self.disk_fails(node) {
            return self.crash(node);
        }
        let delay = self.draw_sync(node);
        let life = self.nodes[node].life;
        let now = self.nodes[node].clock.boot_ns();
        let running = self.nodes[node].running.as_mut().expect("it is up");
        running.health.begin_write(now);
        running.syncing = Some(writes);
        self.after(delay, Event::Synced(node, life));
    }

    /// Whether a write of what a node cannot do without fails.
    pub(super) fn disk_fails(&mut self, node: usize) -> bool {
        let now = self.now.get();
        let disk = &mut self.nodes[node].disk;
        let full = disk.full_until > now;
        let fails = std::mem::take(&mut disk.broken) || full;
        if fails {
            mark(if full { "full disk stopped a node" } else { "disk error stopped a node" });
        }
        fails
    }

    /// How long a sync takes on a node's disk.
    pub(super) fn draw_sync(&mut self, node: usize) -> u64 {
        let hung = self.nodes[node].disk.hung_until.saturating_sub(self.now.get());
        let (low, high) = self.weather.sync;
        hung + self.rng.random_range(low..high)
    }

    pub(super) fn synced(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life || self.nodes[node].running.is_none() {
            return;
        }
        if self.is_paused(node) {
            return self.at(self.nodes[node].paused_until, Event::Synced(node, life));
        }
        let patience = u64::from(self.consensus.election_ticks_max) * self.consensus.tick_ns();
        let state = &mut self.nodes[node];
        let now = state.clock.boot_ns();
        state.disk.log.sync();
        if let Some(running) = &mut state.running
            && let (Some(writes), Some(dispatch)) = (running.syncing.take(), &mut running.dispatch)
        {
            dispatch.written(&writes);
            running.health.end_write(now, patience);
            if !running.health.is_fit(now) {
                mark("node not fit to lead");
            }
        }
        self.persisted(node);
        self.process(node);
    }

    fn persisted(&mut self, node: usize) {
        let now = self.nodes[node].clock.boot_ns();
        let Some(dispatch) = self.nodes[node].dispatch() else { return };
        let messages = dispatch.persisted(now);
        self.send(node, messages);
        self.carry_out(node);
    }

    fn carry_out(&mut self, node: usize) {
        let notices = self.nodes[node].dispatch().map(Dispatch::take_notices);
        notices.into_iter().flatten().for_each(|notice| self.carry_out_one(node, notice));
    }

    fn carry_out_one(&mut self, node: usize, notice: Notice) {
        match notice {
            Notice::Tell(group, message) => {
                self.look_at(node, group, &message);
                self.post(node, group as usize, message);
            }
            Notice::Leader { shard, term, node: leader } => {
                if leader == self.nodes[node].id {
                    self.note_leader(node, shard, term);
                }
                self.learn(node, |directory, _| directory.learn_leader(shard, term, leader));
                self.follow(node, shard, Some(term));
            }
            Notice::Follows(shard) => self.follow(node, shard, None),
            Notice::Serves { shard, term } => {
                let me = self.nodes[node].id;
                self.learn(node, |directory, _| directory.learn_serving(shard, term, me));
                if let Some(running) = &mut self.nodes[node].running {
                    running.serves.insert(shard, term);
                    self.say_hints(node);
                }
            }
            Notice::Members { group, members, joins, .. } => {
                self.members_changed(node, group, &members, joins.is_some());
            }
            Notice::SendSnapshot { snapshot, message, .. } => {
                self.send_snapshot(node, snapshot.index, message);
            }
            Notice::Prune(group, index) => self.nodes[node].disk.prune(group, index),
        }
    }

    /// What consensus tells a shard says something of what happens.
    fn look_at(&mut self, node: usize, group: u32, message: &Message) {
        match message {
            Message::Retire { term } => {
                self.retired.insert((group, *term), node);
            }
            Message::Event(ShardEvent::RoundConfirmed { .. }) => mark("round confirmed a read"),
            Message::Install(Install { index, term }) => {
                if self.nodes[node].running.as_ref().is_some_and(|running| running.led.contains(&group)) {
                    mark("snapshot installed by one that led before");
                }
                let file = self.nodes[node].disk.snapshot(group, *index).expect("it was kept before");
                assert_eq!(file.term, *term, "a snapshot file is named by index and term");
            }
            Message::Event(_) => {}
        }
    }

    /// A node serves a shard no more, unless it is in this term.
    fn follow(&mut self, node: usize, shard: u32, but_in: Option<u64>) {
        if let Some(running) = &mut self.nodes[node].running {
            running.serves.retain(|&other, term| other != shard || Some(*term) == but_in);
        }
    }

    /// There is one leader a term; a leader that retired is followed by another.
    fn note_leader(&mut self, node: usize, group: u32, term: u64) {
        if let Some(running) = &mut self.nodes[node].running {
            running.led.insert(group);
        }
        if self.lost.iter().any(|&lost| lost != node) {
            mark("leader elected while a node was joining");
        }
        if *self.leaders.entry((group, term)).or_insert(node) != node {
            self.wrong = Some(format!("two leaders of group {group} in term {term}"));
        }
        if self.retired.get(&(group, term - 1)).is_some_and(|&retired| retired != node) {
            mark("leadership handed over");
        }
    }
}
