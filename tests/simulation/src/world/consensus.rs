//! The consensus thread of each node: its turns, its writes, what it tells.

use std::sync::Arc;

use moonraft::{
    consensus::{Input, Output, ReplicaId, Role},
    log::LogWrites,
    shard::{self, Event as ShardEvent},
};
use moonraft_router::SlotMap;
use rand::RngExt;

use super::{Event, World};
use crate::marks::mark;

impl World {
    pub(super) fn input(&mut self, node: usize, input: Input) {
        if let Some(running) = &mut self.nodes[node].running {
            running.inbox.push_back(input);
            let life = self.nodes[node].life;
            let at = self.nodes[node].paused_until;
            self.at(at, Event::Process(node, life));
        }
    }

    /// A turn of the consensus thread: all that waits, then one write.
    pub(super) fn process(&mut self, node: usize) {
        loop {
            let now = self.nodes[node].clock.boot_ns();
            let Some(running) = &mut self.nodes[node].running else { return };
            if running.syncing {
                return;
            }
            while let Some(input) = running.inbox.pop_front() {
                running.consensus.step(input, now);
            }
            if !running.consensus.has_work() {
                return;
            }
            let work = running.consensus.collect(now);
            let writes = work.writes;
            self.send(node, work.messages);
            self.consensus_outputs(node, work.outputs);
            if !writes.is_empty() {
                return self.write(node, &writes);
            }
            self.persisted(node);
        }
    }

    /// Writes to the log. A write that fails stops the node: what is on the disk is
    /// only known again after a start.
    fn write(&mut self, node: usize, writes: &LogWrites) {
        let now = self.now.get();
        let disk = &mut self.nodes[node].disk;
        disk.log.write(writes);
        let full = disk.full_until > now;
        if std::mem::take(&mut disk.broken) || full {
            mark(if full { "full disk stopped a node" } else { "disk error stopped a node" });
            return self.crash(node);
        }
        let hung = disk.hung_until.saturating_sub(now);
        let (low, high) = self.weather.sync;
        let delay = hung + self.rng.random_range(low..high);
        let life = self.nodes[node].life;
        self.nodes[node].running.as_mut().expect("it is up").syncing = true;
        self.after(delay, Event::Synced(node, life));
    }

    pub(super) fn synced(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life || self.nodes[node].running.is_none() {
            return;
        }
        if self.is_paused(node) {
            return self.at(self.nodes[node].paused_until, Event::Synced(node, life));
        }
        self.nodes[node].disk.log.sync();
        self.nodes[node].running.as_mut().expect("it is up").syncing = false;
        self.persisted(node);
        self.process(node);
    }

    pub(super) fn persisted(&mut self, node: usize) {
        let now = self.nodes[node].clock.boot_ns();
        let Some(running) = &mut self.nodes[node].running else { return };
        let work = running.consensus.persisted(now);
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
                    mark("snapshot installed");
                    if self.nodes[node].running.as_ref().is_some_and(|running| running.led.contains(&group)) {
                        mark("snapshot installed by one that led before");
                    }
                    let file =
                        self.nodes[node].disk.snapshot(group, index).expect("it was kept before").clone();
                    assert_eq!(file.term, term, "a snapshot file is named by index and term");
                    let event = ShardEvent::InstallSnapshot { index, term, chunks: file.chunks };
                    self.post(node, group as usize, event);
                }
                Output::Members { members, .. } => self.members_changed(node, &members),
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
        if *self.leaders.entry((group, term)).or_insert(node) != node {
            self.wrong = Some(format!("two leaders of group {group} in term {term}"));
        }
        if self.retired.get(&(group, term - 1)).is_some_and(|&retired| retired != node) {
            mark("leadership handed over");
        }
    }
}
