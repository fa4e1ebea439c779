//! What is done to the cluster.

use moonraft::{consensus::Input, replica::Intake};
use rand::RngExt;

use super::{Event, Fault, MS, World};
use crate::{
    disk::FREE_BYTES_MIN,
    marks::mark,
    node::{MEMORY_BYTES_MAX, Node},
    pick,
};

/// What can be done. The order is that of the weights in `weather`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// All links work again.
    Heal,
    Crash,
    /// The power of all nodes goes at once.
    CrashAll,
    Partition,
    IsolateLeader,
    CutOneWay,
    CutBridge,
    /// A node hears nothing until the others have no log for it any more.
    Outrun,
    /// All connections to a node break, though nothing is wrong with it.
    BreakConnections,
    Pause,
    /// The process stops between the execution of a read and the look at its lease.
    StallInRead,
    JumpClock,
    LeaveOneSupporter,
    Transfer,
    /// A leader hands over, and hears no more of it: neither do its busy shards.
    TransferUnheard,
    DiskError,
    DiskFull,
    DiskHangs,
    /// There is little room on a disk, or next to none.
    DiskShort,
    MemoryShort,
    LoseDisk,
    /// A node is down, and when it starts its disk lacks something that was there.
    LosePart,
}

const KINDS: [Kind; 22] = [
    Kind::Heal,
    Kind::Crash,
    Kind::CrashAll,
    Kind::Partition,
    Kind::IsolateLeader,
    Kind::CutOneWay,
    Kind::CutBridge,
    Kind::Outrun,
    Kind::BreakConnections,
    Kind::Pause,
    Kind::StallInRead,
    Kind::JumpClock,
    Kind::LeaveOneSupporter,
    Kind::Transfer,
    Kind::TransferUnheard,
    Kind::DiskError,
    Kind::DiskFull,
    Kind::DiskHangs,
    Kind::DiskShort,
    Kind::MemoryShort,
    Kind::LoseDisk,
    Kind::LosePart,
];

/// How many kinds there are.
pub(super) const FAULT_KINDS: usize = KINDS.len();

/// Faults that find a lease that promises too much.
pub(super) fn against_leases() -> [u32; FAULT_KINDS] {
    KINDS.map(|kind| match kind {
        Kind::LeaveOneSupporter => 12,
        Kind::TransferUnheard => 4,
        Kind::StallInRead => 2,
        Kind::Heal | Kind::IsolateLeader => 1,
        _ => 0,
    })
}

/// Disks are lost, if there are faults at all.
pub(super) fn add_change_of_members(weights: &mut [u32; FAULT_KINDS]) {
    if weights.iter().any(|&weight| weight > 0) {
        let lost = KINDS.iter().position(|&kind| kind == Kind::LoseDisk).expect("it is one of them");
        weights[lost] += 5;
    }
}

/// Memory and disks run short, if there are faults at all.
pub(super) fn add_shortages(weights: &mut [u32; FAULT_KINDS]) {
    if weights.iter().any(|&weight| weight > 0) {
        for (kind, weight) in KINDS.iter().zip(weights) {
            *weight += if matches!(kind, Kind::DiskShort | Kind::MemoryShort) { 5 } else { 0 };
        }
    }
}

impl World {
    pub(super) fn do_fault(&mut self) {
        if self.calm {
            return;
        }
        let (low, high) = self.weather.fault_every;
        let delay = self.rng.random_range(low..high);
        self.after(delay, Event::DoFault);
        if self.weather.weights.iter().all(|&weight| weight == 0) {
            return;
        }
        self.report.faults += 1;
        let kind = KINDS[pick(&mut self.rng, &self.weather.weights)];
        let node = self.rng.random_range(0..self.nodes.len());
        let now = self.now.get();
        match kind {
            Kind::Heal => self.cut.clear(),
            Kind::Crash => self.crash(node),
            Kind::CrashAll => (0..self.nodes.len()).for_each(|node| self.crash(node)),
            Kind::Partition => self.partition(),
            Kind::IsolateLeader => self.isolate_leader(),
            Kind::CutOneWay => self.cut_one_way(node),
            Kind::CutBridge => self.cut_bridge(),
            Kind::Outrun => self.outrun(node),
            Kind::BreakConnections => self.break_connections(node),
            Kind::Pause => self.nodes[node].paused_until = now + self.rng.random_range(50..2000) * MS,
            Kind::StallInRead => self.stall_in_read(),
            Kind::JumpClock => self.jump_clock(node),
            Kind::LeaveOneSupporter => self.leave_one_supporter(),
            Kind::Transfer => self.transfer(node),
            Kind::TransferUnheard => self.transfer_unheard(),
            Kind::DiskError => self.nodes[node].disk.broken = true,
            Kind::DiskFull => self.fill_disk(node),
            Kind::DiskHangs => {
                mark("disk hung");
                self.nodes[node].disk.hung_until = now + self.rng.random_range(50..3000) * MS;
            }
            Kind::DiskShort => self.run_short_of_disk(node),
            Kind::MemoryShort => self.run_short_of_memory(node),
            Kind::LoseDisk => self.lose_disk(node),
            Kind::LosePart => self.lose_part(node),
        }
    }

    // ---- nodes ------------------------------------------------------------------

    pub(super) fn crash(&mut self, node: usize) {
        if self.nodes[node].running.is_none() {
            return;
        }
        self.mark_crash(node);
        let torn_is_taken = self.fault == Some(Fault::TornTailAccepted);
        self.nodes[node].crash(&mut self.rng, torn_is_taken);
        self.connections_close(node);
        let life = self.nodes[node].life;
        let quick = self.rng.random_bool(0.5);
        let down = if quick { self.rng.random_range(5..100) } else { self.rng.random_range(100..3000) };
        self.after(down * MS, Event::Start(node, life));
        self.listeners.retain(|connection, _| connection.0 != node);
        let gone: Vec<_> = self.waiting.keys().filter(|connection| connection.0 == node).copied().collect();
        for connection in gone {
            let (client, number) = self.waiting.remove(&connection).expect("it was listed");
            self.parked.remove(&connection);
            self.client_gives_up(client, number);
        }
    }

    fn mark_crash(&self, node: usize) {
        let Some(running) = &self.nodes[node].running else { return };
        let statuses = (0..self.shards as u32).filter_map(|group| self.nodes[node].status(group));
        if statuses.into_iter().any(|status| !status.members.outgoing.is_empty()) {
            mark("crash in a joint configuration");
        }
        if running.intakes.iter().any(Intake::is_installing) {
            mark("crash while a snapshot was installed");
        }
        if running.dispatch.is_none() {
            mark("crash before the groups began");
        }
        if !running.joining.is_empty() {
            mark("crash of a joiner");
        }
    }

    // ---- links ------------------------------------------------------------------

    fn partition(&mut self) {
        self.cut.clear();
        let side: Vec<bool> = self.nodes.iter().map(|_| self.rng.random_bool(0.5)).collect();
        for from in 0..self.nodes.len() {
            let away: Vec<usize> = (0..self.nodes.len()).filter(|&to| side[from] != side[to]).collect();
            self.cut_links(away.into_iter().map(|to| (from, to)));
        }
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &Node| {
            node.running.as_ref().is_some_and(|running| running.shards.iter().any(|shard| shard.is_serving()))
        };
        self.nodes.iter().position(leads)
    }

    fn isolate_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.cut.clear();
        self.isolate(leader);
    }

    fn isolate(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.cut_both_ways(node, other);
        }
    }

    fn outrun(&mut self, node: usize) {
        let group = self.rng.random_range(0..self.shards) as u32;
        if let Some(status) = self.nodes[node].status(group) {
            self.cut_until_newer(node, group, status.last + self.consensus.slack_entries_max);
        }
    }

    /// A node that begins to install a snapshot is outrun by the next.
    pub(super) fn cut_in_install(&mut self, node: usize, group: u32, index: u64) {
        if !self.calm && self.draw(self.weather.cut_in_install) {
            self.cut_until_newer(node, group, index + self.consensus.slack_entries_max);
        }
    }

    /// A node hears nothing until there is a snapshot beyond this index, or for long enough.
    fn cut_until_newer(&mut self, node: usize, group: u32, index: u64) {
        self.isolate(node);
        let until = self.now.get() + self.rng.random_range(500..2000) * MS;
        self.after(0, Event::Reconnect { node, group, index, until });
    }

    pub(super) fn reconnect(&mut self, node: usize, group: u32, index: u64, until: u64) {
        let status = |other: &Node| other.status(group);
        if self.now.get() >= until || self.nodes.iter().filter_map(status).any(|other| other.snapshot > index)
        {
            return self.cut.retain(|&(from, to)| from != node && to != node);
        }
        // Clients do not write so much in so short a time that the log would be too long.
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            if self.nodes[other].status(group).is_some_and(|status| status.applied > index) {
                self.input(other, Input::CompactWanted { group });
            }
        }
        self.after(20 * MS, Event::Reconnect { node, group, index, until });
    }

    fn cut_both_ways(&mut self, one: usize, other: usize) {
        self.cut_links([(one, other), (other, one)]);
    }

    fn break_connections(&mut self, node: usize) {
        let node = if self.rng.random_bool(0.5) { self.leader().unwrap_or(node) } else { node };
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            let delay = self.draw_delay();
            self.after(delay, Event::ConnectionBreaks(other, node));
        }
    }

    fn cut_one_way(&mut self, node: usize) {
        let inward = self.rng.random_bool(0.5);
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.cut_links([if inward { (other, node) } else { (node, other) }]);
        }
    }

    /// The leader and one other do not hear each other, but all the rest do.
    fn cut_bridge(&mut self) {
        let Some(leader) = self.leader() else { return };
        let other = self.rng.random_range(0..self.nodes.len());
        if other != leader {
            self.cut_both_ways(leader, other);
        }
    }

    // ---- leaders and their leases -------------------------------------------------

    /// The leader is heard by just enough nodes; later one of those forgets that
    /// it heard it.
    fn leave_one_supporter(&mut self) {
        let Some(leader) = self.leader().filter(|_| self.nodes.len() > 1) else { return };
        self.cut.clear();
        let mut others: Vec<usize> = (0..self.nodes.len()).filter(|&other| other != leader).collect();
        let supporter = others.swap_remove(self.rng.random_range(0..others.len()));
        for &other in others.iter().take(self.nodes.len() / 2) {
            self.cut_both_ways(leader, other);
        }
        let delay = self.rng.random_range(600..1500) * MS;
        // A lull: the others have the whole log, so that nothing but the
        // supporter's promise keeps it from electing one of them.
        self.lull_until = self.now.get() + delay;
        self.after(delay, Event::RestartSupporter(leader, supporter));
    }

    pub(super) fn restart_supporter(&mut self, leader: usize, supporter: usize) {
        if self.calm || self.nodes[supporter].running.is_none() {
            return;
        }
        self.cut_both_ways(leader, supporter);
        self.crash(supporter);
        let life = self.nodes[supporter].life;
        let down = self.rng.random_range(1..5) * MS;
        self.after(down, Event::Start(supporter, life));
    }

    fn stall_in_read(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.nodes[leader].clock.stall_ns.set(self.rng.random_range(100..2000) * MS);
    }

    fn transfer(&mut self, node: usize) {
        let node = if self.rng.random_bool(0.5) { self.leader().unwrap_or(node) } else { node };
        if self.rng.random_bool(0.3) {
            return self.hand_over_in_vain(node);
        }
        let group = self.rng.random_range(0..self.shards) as u32;
        let to = self.rng.random_range(0..=self.nodes.len() as u64);
        self.input(node, Input::Transfer { group, to: Some(to).filter(|&to| to > 0) });
        if self.rng.random_bool(0.2) {
            self.cut_one_way(node);
        }
    }

    /// The one a leader hands over to is not heard. The others may elect the leader once more.
    pub(super) fn hand_over_in_vain(&mut self, node: usize) {
        let to = self.rng.random_range(0..self.nodes.len());
        if to == node {
            return;
        }
        self.cut_both_ways(node, to);
        for group in 0..self.shards as u32 {
            self.input(node, Input::Transfer { group, to: Some(to as u64 + 1) });
        }
    }

    /// There is no more space: for snapshots, and half of the time for the log.
    fn fill_disk(&mut self, node: usize) {
        let until = self.now.get() + self.rng.random_range(50..3000) * MS;
        let log_too = self.rng.random_bool(0.5);
        let disk = &mut self.nodes[node].disk;
        disk.files_full_until = until;
        if log_too {
            disk.full_until = until;
        }
        // Then a shorter log is wanted, which takes a snapshot.
        for group in 0..self.shards as u32 {
            self.input(node, Input::CompactWanted { group });
        }
    }

    fn run_short_of_disk(&mut self, node: usize) {
        let node = if self.rng.random_bool(0.5) { self.leader().unwrap_or(node) } else { node };
        let free = self.rng.random_range(0..FREE_BYTES_MIN);
        self.set_free(node, free);
        let lasts = self.rng.random_range(100..3000) * MS;
        self.after(lasts, Event::DiskFreed(node));
    }

    fn run_short_of_memory(&mut self, node: usize) {
        let node = if self.rng.random_bool(0.5) { self.leader().unwrap_or(node) } else { node };
        self.nodes[node].used_bytes.set(2 * MEMORY_BYTES_MAX);
        let lasts = self.rng.random_range(50..2000) * MS;
        self.after(lasts, Event::MemoryFreed(node));
    }

    fn transfer_unheard(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.cut.clear();
        let others = (0..self.nodes.len()).filter(|&other| other != leader);
        self.cut_links(others.map(|other| (other, leader)).collect::<Vec<_>>());
        for shard in 0..self.shards {
            self.keep_busy(leader, shard);
            self.input(leader, Input::Transfer { group: shard as u32, to: None });
        }
    }

    fn jump_clock(&mut self, node: usize) {
        // Clocks of two nodes are less than a minute apart: see `shard::clock` for what is promised at a stop of all.
        let offset_us = self.rng.random_range(-20_000_000..20_000_000);
        self.nodes[node].clock.wall_offset_us.set(offset_us);
    }
}
