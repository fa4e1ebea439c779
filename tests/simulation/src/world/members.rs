//! A node that lost its disk is replaced by itself in its next incarnation: it is taken in
//! as a learner, brought up, and made a voter in the place of the one it was, by joint
//! consensus. What asks for it, asks again until it is so: leaders change and nodes crash
//! meanwhile.

use moonraft::consensus::{GroupStatus, Input, ReplicaId, Role};
use rand::RngExt;

use super::{Event, MS, World};
use crate::marks::mark;

/// A learner that lacks no more entries than this is made a voter.
const LAG_ENTRIES_MAX: u64 = 8;

impl World {
    /// All groups are led by others, so that they can do without it and bring it up.
    pub(super) fn may_lose_disk(&self, node: usize) -> bool {
        (0..self.shards as u32).all(|group| {
            self.leader_of(group)
                .is_some_and(|(leader, status)| leader != node && status.members.outgoing.is_empty())
        })
    }

    /// The newest leader of a group, and where it stands.
    fn leader_of(&self, group: u32) -> Option<(usize, GroupStatus)> {
        let status = |node: usize| self.nodes[node].running.as_ref()?.consensus.status(group);
        let leaders = (0..self.nodes.len()).filter_map(|node| status(node).map(|status| (node, status)));
        leaders.filter(|(_, status)| status.role == Role::Leader).max_by_key(|(_, status)| status.term)
    }

    /// One step towards the members that there should be, in each group.
    pub(super) fn operate(&mut self) {
        let Some(node) = self.replaced else { return };
        let mut done = true;
        for group in 0..self.shards as u32 {
            done &= self.operate_on(group, node);
        }
        if done {
            self.replaced = None;
        } else {
            self.after(100 * MS, Event::Operate);
        }
    }

    /// Whether the group's members are as they should be.
    fn operate_on(&mut self, group: u32, node: usize) -> bool {
        let Some((leader, status)) = self.leader_of(group) else { return false };
        let replica = self.nodes[node].replica();
        let is_joiner = |id: &ReplicaId| *id == replica;
        let members = &status.members;
        let old = |id: &&ReplicaId| id.node() == replica.node() && !is_joiner(id);
        if members.voters.contains(&replica) && members.outgoing.is_empty() {
            return !members.voters.iter().any(|id| old(&id));
        }
        let (mut voters, mut learners) = (members.voters.clone(), members.learners.clone());
        if members.learners.contains(&replica) {
            let matched =
                status.matched.iter().find(|(id, _)| *id == replica).map_or(0, |(_, matched)| *matched);
            if matched + LAG_ENTRIES_MAX < status.last {
                return false;
            }
            voters.retain(|id| id.node() != replica.node());
            voters.push(replica);
            learners.retain(|id| id.node() != replica.node());
        } else {
            learners.push(replica);
        }
        let change = Input::ChangeMembers { group, term: status.term, sequence: 0, voters, learners };
        self.input(leader, change);
        false
    }

    /// The members of a group changed, as a replica of it sees them.
    pub(super) fn members_changed(&mut self, node: usize, members: &moonraft::consensus::Members) {
        if !members.outgoing.is_empty() && self.draw(self.weather.crash_in_change) {
            let delay = self.rng.random_range(0..3 * MS);
            self.after(delay, Event::Crash(node, self.nodes[node].life));
        }
        let new = |id: &ReplicaId| id.incarnation() > 0;
        if members.learners.iter().any(new) {
            mark("joiner became a learner");
        }
        if members.outgoing.is_empty() && members.voters.iter().any(new) {
            mark("learner became a voter");
        }
    }
}
