//! Which life of its disk a node is in, and how it gets back into its groups: the ways of the product
//! (`control::birth`, `consensus::join`), driven as the server drives them. Which node loses its disk, and when, is
//! drawn here; leaders change, nodes crash and links are cut meanwhile.

use moonraft::{
    consensus::{GroupStatus, Members, ReplicaId, Role},
    control::birth::Step,
};
use rand::RngExt;

use super::{Event, Fault, MS, World, network::Parcel};
use crate::{disk::Disk, marks::mark};

/// Between two rounds of questions.
const ASK_INTERVAL_MS: (u64, u64) = (20, 200);
/// Ticks between two words to all other nodes: a quarter of the longest election timeout.
const HINT_TICKS: u64 = 5;

impl World {
    // ---- the begin ----------------------------------------------------------------

    /// The next step of a node that has not begun.
    pub(super) fn be_born(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life {
            return;
        }
        if self.is_paused(node) {
            return self.at(self.nodes[node].paused_until, Event::BeBorn(node, life));
        }
        let Some(running) = &self.nodes[node].running else { return };
        match running.birth.next(&self.topology) {
            Step::Ask(_) => {
                self.send_to_all(node, &Parcel::Recall(node, life));
                let (low, high) = ASK_INTERVAL_MS;
                let delay = self.rng.random_range(low..high) * MS;
                self.after(delay, Event::BeBorn(node, life));
            }
            Step::Decide(incarnation) => {
                let delay = self.draw_sync(node);
                self.after(delay, Event::Decided(node, life, incarnation));
            }
            Step::Begin => self.groups_begin(node),
        }
    }

    /// The decision has been written, if the disk does that.
    pub(super) fn decided(&mut self, node: usize, life: u32, incarnation: u32) {
        if self.nodes[node].life != life {
            return;
        }
        let fails = self.disk_fails(node);
        let state = &mut self.nodes[node];
        let Some(running) = &mut state.running else { return };
        if fails {
            mark("crash before the incarnation was durable");
            return self.crash(node);
        }
        state.disk.identity = Some(incarnation);
        running.birth.decide(incarnation);
        self.be_born(node, life);
    }

    /// The groups of a node begin.
    pub(super) fn groups_begin(&mut self, node: usize) {
        let election_ticks = self.draw_election_ticks(node);
        self.nodes[node].begin(&self.consensus, &self.topology, &election_ticks);
        let life = self.nodes[node].life;
        self.after(0, Event::Wake(node, life));
        self.after(0, Event::TellHints(node, life));
    }

    // ---- joining --------------------------------------------------------------------

    /// A node says whether it is fit to lead, what it reads, and of which groups it wants to be a voter.
    pub(super) fn tell_hints(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life {
            return;
        }
        if self.is_paused(node) {
            return self.at(self.nodes[node].paused_until, Event::TellHints(node, life));
        }
        self.learn(node, |directory, now| directory.check_silence(now));
        self.say_hints(node);
        self.after(HINT_TICKS * self.consensus.tick_ms * MS, Event::TellHints(node, life));
    }

    /// To all other nodes, now.
    pub(super) fn say_hints(&mut self, node: usize) {
        let format = self.own_format(node);
        let replica = self.nodes[node].replica();
        let Some(running) = &self.nodes[node].running else { return };
        let is_fit = running.health.is_fit(self.nodes[node].clock.boot_ns());
        let joining = running.joining.iter().copied().collect();
        let serves = running.serves.iter().map(|(&shard, &term)| (shard, term)).collect();
        self.send_to_all(node, &Parcel::Hints { replica, is_fit, format, joining, serves });
    }

    /// The members of a group changed, as a replica of it sees them.
    pub(super) fn members_changed(&mut self, node: usize, group: u32, members: &Members, joins: bool) {
        let life = self.nodes[node].life;
        if let Some(running) = &mut self.nodes[node].running {
            if joins {
                running.joining.insert(group)
            } else {
                running.joining.remove(&group)
            };
        }
        // In a joint configuration, or when one ends.
        if self.draw(self.weather.crash_in_change) {
            let delay = self.rng.random_range(0..3 * MS);
            self.after(delay, Event::Crash(node, life));
        }
        let new = |id: &ReplicaId| id.incarnation() > 0;
        if members.learners.iter().any(new) {
            mark("joiner became a learner");
        }
        if members.outgoing.is_empty() && members.voters.iter().any(new) {
            mark("learner became a voter");
        }
    }

    /// The newest leader of a group, and where it stands.
    fn leader_of(&self, group: u32) -> Option<GroupStatus> {
        let statuses = self.nodes.iter().filter_map(|node| node.status(group));
        statuses.filter(|status| status.role == Role::Leader).max_by_key(|status| status.term)
    }

    /// Whether a node votes in all its groups and none is between two configurations, as the leader and a majority
    /// have applied it and would again after a crash: it is as good as it was before it lost its disk. Who does not
    /// know that a change has ended needs a majority of the old members too to be elected.
    fn is_back(&self, node: usize) -> bool {
        if self.nodes[node].disk.identity.is_none() || self.nodes[node].disk.harmed {
            return false;
        }
        let replica = self.nodes[node].replica();
        let votes =
            |status: &GroupStatus| status.members.is_voter(replica) && status.members.outgoing.is_empty();
        (0..self.shards as u32).all(|group| {
            let remembers = |node: &&crate::node::Node| {
                let status = node.status(group);
                status.is_some_and(|it| votes(&it) && node.disk.log.synced_commit(group) >= it.members_since)
            };
            2 * self.nodes.iter().filter(remembers).count() > self.nodes.len()
                && self.leader_of(group).is_some_and(|status| votes(&status))
        })
    }

    /// Whether some node has lost its disk and has not come back.
    pub(super) fn misses_a_voter(&mut self) -> bool {
        let mut lost = std::mem::take(&mut self.lost);
        lost.retain(|&node| !self.is_back(node));
        self.lost = lost;
        !self.lost.is_empty()
    }

    // ---- losing ---------------------------------------------------------------------

    /// The disk is gone for good, and the node starts with an empty one.
    pub(super) fn lose_disk(&mut self, node: usize) {
        if !self.may_lose(node) {
            return;
        }
        mark("disk lost");
        if !self.lost.insert(node) {
            mark("disk lost again before its node was back");
        }
        if !(0..self.shards as u32).any(|group| self.leader_of(group).is_some()) {
            mark("disk lost while nobody led");
        }
        self.crash(node);
        self.replace_disk(node);
    }

    /// The disk loses something while its node is down.
    pub(super) fn lose_part(&mut self, node: usize) {
        if !self.may_lose(node) {
            return;
        }
        self.crash(node);
        if self.nodes[node].disk.lose_part(&mut self.rng) {
            self.nodes[node].disk.harmed = true;
            self.lost.insert(node);
        }
    }

    /// A start looks whether the disk has what it had; if not, the node is rebuilt: it starts with an empty one.
    pub(super) fn miss(&mut self, node: usize) {
        let of_log = self.fault != Some(Fault::LossUnnoticed);
        self.nodes[node].disk.harmed = false;
        match self.nodes[node].disk.missing(of_log) {
            Some(noticed) => {
                mark(noticed);
                self.replace_disk(node);
            }
            None => self.nodes[node].disk.log.take_for_good(),
        }
    }

    /// No more disks may be lost at a time than leave a majority, but the same one again, before it is back.
    fn may_lose(&mut self, node: usize) -> bool {
        self.misses_a_voter();
        let others = self.lost.iter().filter(|&&other| other != node).count();
        !self.calm && others < (self.nodes.len() - 1) / 2
    }

    fn replace_disk(&mut self, node: usize) {
        let identity = self.nodes[node].disk.identity;
        self.nodes[node].disk = Disk::default();
        if self.fault == Some(Fault::IncarnationReused) {
            self.nodes[node].disk.identity = identity;
        }
    }
}
