//! Who leads next: what each tick asks of a replica, who seeks votes when a leader is gone, and how leadership gets home.

use std::collections::BTreeSet;

use raft::{Progress, ProgressState, StateRole};

use crate::marks;

use super::group::{Group, HOME_PATIENCE_TICKS_MAX};
use super::types::*;

/// A follower this close to the end of the log has caught up: the rest is in flight.
const HOME_LAG_ENTRIES_MAX: u64 = 64;

/// A replica that does not wait for its timeout asks for votes this often: its first request is lost if the peers
/// are still starting, or if they heard the old leader a little later.
const EAGER_TICKS: u32 = 4;

/// Ticks between the replicas of a group that ask for votes after the loss of their leader: an election takes less,
/// so that they do not take each other's votes.
const ORPHAN_STEP_TICKS: u32 = 3;

/// Whether a follower has caught up with a log that ends at `last`. One that was away is sent nothing
/// while nothing is new, so raft does not find out that it could be sent more; but it lacks nothing.
fn is_level(progress: &Progress, last: u64) -> bool {
    let lag_max = match progress.state {
        ProgressState::Replicate => HOME_LAG_ENTRIES_MAX,
        ProgressState::Probe | ProgressState::Snapshot => 0,
    };
    progress.matched + lag_max >= last
}

impl Group {
    /// One tick.
    pub(super) fn tick(&mut self, now: BootTime, unfit: &BTreeSet<NodeId>) {
        self.retry_snapshot(now);
        if self.leads() {
            self.raw.tick();
            if self.leads() && self.retiring && self.raw.raft.lead_transferee.is_none() {
                self.resign();
            }
            self.look_for_home(now, unfit);
            return;
        }
        if self.stopping || now < self.sleep_until {
            return;
        }
        if self.orphaned.is_some() && !self.is_eager(now) {
            // Others are before this replica: its own timeout must not get in their way.
            self.raw.raft.election_elapsed += 1;
            return;
        }
        self.raw.tick();
        self.ask_eagerly(now);
    }

    /// The connection to `node` broke. If the leader was there, its process has most likely ended: then the followers
    /// wait no longer than their promise to it lasts, and ask for votes one after the other. A timeout drawn at random
    /// would be up to twice as long, and two that are drawn alike cost another one.
    ///
    /// This breaks no lease: no vote is asked for or given before the promise has run out (see `lease`), and while the
    /// leader is heard all the same, the promise never does.
    pub(super) fn mourn(&mut self, node: NodeId, now: BootTime) {
        let leader = self.raw.raft.leader_id;
        if leader == raft::INVALID_ID || ReplicaId(leader).node() != node {
            return;
        }
        let mut voters = self.raw.raft.prs().conf().to_conf_state().voters;
        voters.sort_by_key(|id| (*id <= leader, *id));
        let rank = voters.iter().position(|id| *id == self.replica.0);
        self.orphaned = rank.map(|rank| (now, 1 + rank as u32 * ORPHAN_STEP_TICKS));
        self.eager_ticks = 0;
    }

    /// The leader was heard. Its last words may come after its end is known, but not two heartbeats later: then it
    /// was the connection only.
    pub(super) fn take_heart(&mut self, now: BootTime) {
        let heartbeats_ns = 2 * u64::from(self.settings.heartbeat_ticks) * self.settings.tick_ns();
        if self.orphaned.is_some_and(|(since, _)| now > since + heartbeats_ns) {
            marks::reached("leader heard though the connection to it broke");
            self.orphaned = None;
        }
    }

    /// Whether this replica asks for votes now though its timeout is not over. At its start, and until a leader was
    /// seen, the home replica does; and those whose leader's node is gone.
    fn is_eager(&self, now: BootTime) -> bool {
        match self.orphaned {
            Some((_, ticks)) => now >= self.vote_guard + u64::from(ticks) * self.settings.tick_ns(),
            None => self.home == Some(self.replica.node()) && !self.leader_seen && now >= self.eager_from,
        }
    }

    /// Pre-votes make this harmless: peers that hear a leader do not answer.
    fn ask_eagerly(&mut self, now: BootTime) {
        let idle = matches!(self.raw.raft.state, StateRole::Follower | StateRole::PreCandidate);
        if !idle || !self.raw.raft.promotable() || !self.is_eager(now) {
            return;
        }
        if self.eager_ticks == 0 {
            self.eager_ticks = EAGER_TICKS;
            if self.orphaned.is_some() {
                marks::reached("votes asked for when the connection to the leader broke");
            }
            let _ = self.raw.campaign();
        }
        self.eager_ticks -= 1;
    }

    /// Counts for how long there has been a better leader that keeps up: the home replica, or, where this node or
    /// the home is not fit to lead, one that is.
    fn look_for_home(&mut self, now: BootTime, unfit: &BTreeSet<NodeId>) {
        let better = self.better_leader(now, unfit).is_some();
        self.home_ticks = if better { self.home_ticks + 1 } else { 0 };
    }

    /// Who should lead instead of this leader, if there is one that keeps up.
    fn better_leader(&self, now: BootTime, unfit: &BTreeSet<NodeId>) -> Option<NodeId> {
        let me = self.replica.node();
        let at_home = self.home.is_none_or(|home| home == me || unfit.contains(&home));
        let settled = at_home && !unfit.contains(&me);
        if settled || !self.leads() || self.retiring || !self.raw.raft.apply_to_current_term() {
            return None;
        }
        let voters = self.members[self.members.len() - 1].1.voters.iter().map(|id| ReplicaId(*id));
        let fit = voters.filter(|voter| voter.node() != me && !unfit.contains(&voter.node()));
        let wanted = fit.filter(|voter| unfit.contains(&me) || Some(voter.node()) == self.home);
        let level = wanted.filter(|voter| self.keeps_up(*voter, now));
        level.max_by_key(|voter| Some(voter.node()) == self.home).map(ReplicaId::node)
    }

    /// Leadership goes to a better leader once that has kept up for a while. Whether it does now.
    pub(super) fn send_home(
        &mut self,
        now: BootTime,
        unfit: &BTreeSet<NodeId>,
        outputs: &mut Vec<Output>,
    ) -> bool {
        if !self.leads() || self.home_ticks < self.home_patience {
            return false;
        }
        self.home_ticks = 0;
        self.home_patience = (self.home_patience * 2).min(HOME_PATIENCE_TICKS_MAX);
        let target = self.better_leader(now, unfit);
        if target.is_some() {
            let is_unfit = unfit.contains(&self.replica.node());
            marks::reached(if is_unfit {
                "leadership left a node that is not fit"
            } else {
                "leadership sent home"
            });
            self.transfer(target, now, outputs);
        }
        target.is_some()
    }

    /// Whether this leader hears `replica`, and it has nearly all of the log.
    pub(super) fn keeps_up(&self, replica: ReplicaId, now: BootTime) -> bool {
        let raft = &self.raw.raft;
        let heard = self.echoes.of(raft.term, replica.0) + self.settings.vote_guard_ns() > now;
        let last = raft.raft_log.last_index();
        heard && raft.prs().get(replica.0).is_some_and(|progress| is_level(progress, last))
    }
}
