//! The consensus thread of each node: its turns, its writes, what it tells.

use std::sync::Arc;

use moonraft::{
    consensus::{Input, Output, ReplicaId, Role},
    control::birth::Memory,
    log::LogWrites,
    shard::{self, Event as ShardEvent},
};
use moonraft_router::SlotMap;
use rand::RngExt;

use super::{Event, World, network::Parcel};
use crate::{
    marks::mark,
    node::{Mail, Running, Told},
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

    /// A turn of the consensus thread: all that waits, as far as it takes so much, then one write.
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
            let Some(running) = &mut self.nodes[node].running else { return };
            let Some(consensus) = running.consensus.as_mut().filter(|it| it.has_work()) else { return };
            let work = consensus.collect(now);
            let writes = work.writes;
            self.send(node, work.messages);
            self.consensus_outputs(node, work.outputs);
            if !writes.is_empty() {
                return self.write(node, &writes);
            }
            self.persisted(node);
        }
    }

    fn take(&mut self, node: usize, told: Told, now: u64) {
        let (shards, decided) = (self.shards as u32, self.nodes[node].disk.identity);
        let Some(running) = &mut self.nodes[node].running else { return };
        match (told, &mut running.consensus) {
            (Told::Input(input), Some(consensus)) => consensus.step(input, now),
            // Whoever wants something of groups that have not begun says it again.
            (Told::Input(_), None) => {}
            (Told::Recall(from, life), consensus) => {
                let asker = from as u64 + 1;
                let memory = match consensus {
                    None => Memory::before_begin(decided, 0..shards),
                    Some(consensus) => {
                        let recall = |group| Some((group, consensus.recollect(group, asker)?));
                        Memory { decided: true, shards: (0..shards).filter_map(recall).collect() }
                    }
                };
                self.send_parcel(node, from, &Parcel::Memory(life, node, memory));
            }
        }
    }

    /// Writes to the log. A write that fails stops the node: what is on the disk is
    /// only known again after a start.
    fn write(&mut self, node: usize, writes: &LogWrites) {
        self.nodes[node].disk.log.write(writes);
        if self.disk_fails(node) {
            return self.crash(node);
        }
        let delay = self.draw_sync(node);
        let life = self.nodes[node].life;
        let newest = writes.groups.iter().filter_map(|it| Some((it.group, it.snapshot.as_ref()?.index)));
        self.nodes[node].running.as_mut().expect("it is up").syncing = Some(newest.collect());
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
        let state = &mut self.nodes[node];
        state.disk.log.sync();
        let newest = state.running.as_mut().and_then(|running| running.syncing.take());
        if let Some(running) = &mut state.running {
            running.newest_snapshots.extend(newest.into_iter().flatten());
        }
        for group in 0..self.shards {
            self.prune(node, group);
        }
        self.persisted(node);
        self.process(node);
    }

    /// Snapshots older than the newest go, once the shard needs none of them.
    pub(super) fn prune(&mut self, node: usize, shard: usize) {
        let (state, group) = (&mut self.nodes[node], shard as u32);
        let Some(running) = &mut state.running else { return };
        let Some(&index) = running.newest_snapshots.get(&group) else { return };
        if index <= running.shards[shard].applied().0 {
            running.newest_snapshots.remove(&group);
            state.disk.prune(group, index);
        }
    }

    pub(super) fn persisted(&mut self, node: usize) {
        let now = self.nodes[node].clock.boot_ns();
        let running = self.nodes[node].running.as_mut();
        let Some(consensus) = running.and_then(|running| running.consensus.as_mut()) else { return };
        let work = consensus.persisted(now);
        self.send(node, work.messages);
        self.consensus_outputs(node, work.outputs);
    }

    pub(super) fn consensus_outputs(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Role { group, term, role } => self.role(node, group, term, role),
                Output::Retiring { group, term } => {
                    self.retired.insert((group, term), node);
                    self.post(node, group as usize, ShardEvent::Follow { leader: None });
                }
                Output::Committed { group, entries } => {
                    let entries = entries.into_iter().map(|entry| shard::CommittedEntry {
                        index: entry.index,
                        term: entry.term,
                        data: entry.data,
                        more: entry.more,
                    });
                    let event = ShardEvent::Committed(entries.collect());
                    self.post(node, group as usize, event);
                }
                Output::RoundConfirmed { group, term, round, .. } => {
                    mark("round confirmed a read");
                    self.post(node, group as usize, ShardEvent::RoundConfirmed { term, round });
                }
                Output::Followers { group, term, matched } => {
                    self.post(node, group as usize, ShardEvent::Followers { term, matched });
                }
                Output::TakeSnapshot { group } => self.post(node, group as usize, ShardEvent::TakeSnapshot),
                Output::SendSnapshot { index, message, .. } => self.send_snapshot(node, index, message),
                Output::InstallSnapshot { group, index, term } => {
                    if self.nodes[node].running.as_ref().is_some_and(|running| running.led.contains(&group)) {
                        mark("snapshot installed by one that led before");
                    }
                    let file = self.nodes[node].disk.snapshot(group, index).expect("it was kept before");
                    assert_eq!(file.term, term, "a snapshot file is named by index and term");
                    self.post_mail(node, group as usize, Mail::Install { index, term });
                }
                Output::Members { group, members, .. } => self.members_changed(node, group, &members),
                Output::Refused { .. } | Output::RoundRefused { .. } => {}
            }
        }
    }

    pub(super) fn role(&mut self, node: usize, group: u32, term: u64, role: Role) {
        let leader = match role {
            Role::Leader => Some(self.nodes[node].id),
            Role::Follower { leader } => leader.map(ReplicaId::node),
            Role::Candidate => None,
        };
        self.note_leader(node, group, term, role);
        if let Some(leader) = leader {
            let mut map = SlotMap::clone(&self.nodes[node].map.borrow());
            if map.learn_leader(group as usize, term, leader) {
                *self.nodes[node].map.borrow_mut() = Arc::new(map);
            }
        }
        let event = match role {
            Role::Leader => ShardEvent::Lead { term },
            Role::Follower { leader } => ShardEvent::Follow { leader: leader.map(ReplicaId::node) },
            Role::Candidate => ShardEvent::Follow { leader: None },
        };
        self.post(node, group as usize, event);
    }

    /// There is one leader a term; a leader that retired is followed by another.
    fn note_leader(&mut self, node: usize, group: u32, term: u64, role: Role) {
        if role != Role::Leader {
            return;
        }
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
