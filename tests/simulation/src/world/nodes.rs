//! Nodes come and go: how they are made, started, ticked, crashed.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use moonraft::{
    control::Topology,
    replica::Message,
    shard::{DiskRoom, Event as ShardEvent},
};
use moonraft_proto::entry::FIRST_FORMAT;
use rand::{RngExt, rngs::StdRng};

use super::{Event, MS, SHARD_TICK, World};
use crate::{
    clock::Clock,
    disk::{Disk, FREE_BYTES_MIN},
    marks::mark,
    node::{Node, Start},
};

/// How often a node looks at the room on its disk, as the server does.
const LOOK_INTERVAL: u64 = 250 * MS;

impl World {
    pub(super) fn start(&mut self, node: usize) {
        self.miss(node);
        self.choose_build(node);
        let seeds = (0..self.shards).map(|_| self.rng.random()).collect();
        let start = Start {
            shard: &self.shard_settings,
            consensus: &self.consensus,
            topology: &self.topology,
            silence_ns_max: self.silence_ns_max(),
            seeds,
        };
        let (has_begun, snapshots) = self.nodes[node].start(&start);
        let life = self.nodes[node].life;
        for (shard, install) in snapshots {
            self.post(node, shard, Message::Install(install));
        }
        self.after(SHARD_TICK, Event::ShardTick(node, life));
        self.after(0, Event::LookAtDisk(node, life));
        self.after(0, Event::Listen(node, life));
        if has_begun {
            self.groups_begin(node);
        } else {
            self.after(0, Event::BeBorn(node, life));
        }
    }

    /// Timeouts that differ between the replicas of a group: the crate's own draw
    /// is not from our seed.
    pub(super) fn draw_election_ticks(&mut self, node: usize) -> Vec<u32> {
        let min = self.consensus.election_ticks_min;
        let max = min + self.weather.election_spread;
        let step = ((max - min) / self.nodes.len() as u32).max(1);
        let node = node as u32;
        let mut draw = || min + ((node * step + self.rng.random_range(0..step)) % (max - min));
        (0..self.shards).map(|_| draw()).collect()
    }

    // ---- room -----------------------------------------------------------------------

    /// So much of a node's disk is free now. The node looks at it now and then.
    pub(super) fn set_free(&mut self, node: usize, bytes: u64) {
        self.nodes[node].disk.free_bytes = bytes;
        let (life, delay) = (self.nodes[node].life, self.rng.random_range(0..LOOK_INTERVAL));
        self.after(delay, Event::LookAtDisk(node, life));
    }

    pub(super) fn look_at_disk(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life {
            return;
        }
        if self.is_paused(node) {
            return self.at(self.nodes[node].paused_until, Event::LookAtDisk(node, life));
        }
        let free = self.nodes[node].disk.free_bytes;
        let Some(running) = &self.nodes[node].running else { return };
        if !running.health.note_free(free, FREE_BYTES_MIN) {
            return;
        }
        let room = running.health.room();
        mark(match room {
            DiskRoom::Enough => "disk had room again",
            DiskRoom::Short => "disk short of room",
            DiskRoom::Last => "disk with next to no room",
        });
        (0..self.shards).for_each(|shard| self.post(node, shard, ShardEvent::DiskRoom(room)));
        self.after(0, Event::Wake(node, life));
    }

    pub(super) fn is_awake(&mut self, node: usize, life: u32) -> bool {
        self.nodes[node].life == life && self.nodes[node].running.is_some() && !self.is_paused(node)
    }

    pub(super) fn is_paused(&self, node: usize) -> bool {
        self.nodes[node].paused_until > self.now.get()
    }

    pub(super) fn shard_tick(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life || self.nodes[node].running.is_none() {
            return;
        }
        let next = self.nodes[node].paused_until.max(self.now.get() + SHARD_TICK);
        self.at(next, Event::ShardTick(node, life));
        if !self.is_paused(node) {
            for shard in 0..self.shards {
                self.tell(node, shard, ShardEvent::Tick);
            }
        }
    }
}

/// A node that has never run.
pub(super) fn new_node(
    rng: &mut StdRng,
    now: &Rc<Cell<u64>>,
    index: usize,
    topology: &Topology,
    drifting: bool,
) -> Node {
    // Two clocks differ by less than the 10 % that leases allow for.
    let drift_ppm = if drifting { rng.random_range(-45_000..45_000) } else { 0 };
    let wall_offset_us = rng.random_range(-2_000_000..2_000_000);
    let boot_offset_ns = rng.random_range(1..1_000_000) * MS;
    let clock = Clock::new(now, drift_ppm, wall_offset_us, boot_offset_ns);
    Node {
        id: index as u64 + 1,
        life: 0,
        paused_until: 0,
        reads: FIRST_FORMAT,
        disk: Disk::default(),
        clock: Rc::new(clock),
        map: Rc::new(RefCell::new(Arc::new(topology.slot_map()))),
        kills: Rc::default(),
        used_bytes: Rc::default(),
        running: None,
    }
}
