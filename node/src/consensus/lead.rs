//! What a leader does: proposals, read rounds, handing its leadership over, and sending it home.

use std::collections::BTreeSet;

use bytes::Bytes;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, Message, MessageType};
use raft::{Progress, ProgressState, Ready, StateRole};

use crate::marks;

use super::group::{Attempt, Group};
use super::parts::PART_BYTES;
use super::settings::PlantedFault;
use super::types::*;

/// The home replica must have kept up for this many ticks before it is handed the leadership: one that flaps
/// costs less as a follower.
pub(super) const HOME_PATIENCE_TICKS_MIN: u32 = 20;

/// Where the home replica itself gave the leadership away, it is about to stop: it gets it back once
/// it has come back, or if it still has not gone after this time.
pub(super) const HOME_PATIENCE_TICKS_GIVEN: u32 = 300;

/// After hand-overs that failed the patience doubles, up to a minute.
const HOME_PATIENCE_TICKS_MAX: u32 = 1200;

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
    pub(super) fn propose(&mut self, term: u64, sequence: u64, data: Bytes, outputs: &mut Vec<Output>) {
        let leads = self.leads() && self.term() == term;
        let fits = data.len() as u64 <= self.settings.entry_bytes_max && !data.is_empty();
        if leads && fits && !self.retiring {
            if data.len() > PART_BYTES || !self.queue.is_empty() {
                return self.queue(term, sequence, data);
            }
            if self.append(Entry { data, ..Entry::default() }) {
                return;
            }
        }
        let group = self.id;
        if leads {
            self.retire(outputs);
        }
        outputs.push(Output::Refused { group, term, sequence });
    }

    pub(super) fn append(&mut self, entry: Entry) -> bool {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.replica.0;
        message.mut_entries().push(entry);
        self.raw.raft.step(message).is_ok()
    }

    pub(super) fn propose_members(
        &mut self,
        (term, sequence): (u64, u64),
        voters: &[ReplicaId],
        learners: &[ReplicaId],
        outputs: &mut Vec<Output>,
    ) {
        let free = self.leads()
            && self.term() == term
            && !self.retiring
            && !voters.is_empty()
            && self.queue.is_empty()
            && !self.raw.raft.has_pending_conf()
            && self.raw.raft.prs().conf().to_conf_state().voters_outgoing.is_empty();
        let change = self.member_change(voters, learners);
        if free && self.raw.propose_conf_change(Vec::new(), change).is_ok() {
            return;
        }
        outputs.push(Output::Refused { group: self.id, term, sequence });
    }

    pub(super) fn member_change(&self, voters: &[ReplicaId], learners: &[ReplicaId]) -> ConfChangeV2 {
        let now = self.raw.raft.prs().conf().to_conf_state();
        let mut changes = Vec::new();
        let mut add = |kind: ConfChangeType, id: u64| {
            let mut change = ConfChangeSingle::default();
            change.set_change_type(kind);
            change.node_id = id;
            changes.push(change);
        };
        for voter in voters.iter().filter(|voter| !now.voters.contains(&voter.0)) {
            add(ConfChangeType::AddNode, voter.0);
        }
        for learner in learners.iter().filter(|learner| !now.learners.contains(&learner.0)) {
            add(ConfChangeType::AddLearnerNode, learner.0);
        }
        for id in now.voters.iter().chain(&now.learners) {
            if !voters.contains(&ReplicaId(*id)) && !learners.contains(&ReplicaId(*id)) {
                add(ConfChangeType::RemoveNode, *id);
            }
        }
        let mut change = ConfChangeV2::default();
        change.set_changes(changes.into());
        change
    }

    pub(super) fn read_round(&mut self, term: u64, round: u64, outputs: &mut Vec<Output>) {
        if self.leads() && self.term() == term {
            self.rounds_term = term;
            self.waiting_rounds.push(round);
            return;
        }
        outputs.push(Output::RoundRefused { group: self.id, term, round });
    }

    /// Begins one round for all reads that wait. Before the first commit of the term raft would drop the request
    /// without a word, so they wait for it. The context is never used twice: term and number of the attempt.
    pub(super) fn start_round(&mut self) {
        let possible = self.leads() && self.raw.raft.commit_to_current_term();
        if self.waiting_rounds.is_empty() || !possible {
            return;
        }
        self.next_attempt += 1;
        let mut context = self.term().to_be_bytes().to_vec();
        context.extend_from_slice(&self.next_attempt.to_be_bytes());
        self.attempts.push_back(Attempt {
            number: self.next_attempt,
            rounds: std::mem::take(&mut self.waiting_rounds),
        });
        self.raw.read_index(context);
    }

    pub(super) fn confirm_rounds(&mut self, ready: &mut Ready, outputs: &mut Vec<Output>) {
        for state in ready.take_read_states() {
            let Some((term, number)) = state.request_ctx.split_first_chunk::<8>() else {
                continue;
            };
            let number: Result<[u8; 8], _> = number.try_into();
            let (term, Ok(number)) = (u64::from_be_bytes(*term), number) else {
                continue;
            };
            let number = u64::from_be_bytes(number);
            if term != self.term() {
                continue;
            }
            while let Some(attempt) = self.attempts.front() {
                if attempt.number > number {
                    break;
                }
                let (group, index) = (self.id, state.index);
                outputs.extend(attempt.rounds.iter().map(|round| Output::RoundConfirmed {
                    group,
                    term,
                    round: *round,
                    index,
                }));
                self.attempts.pop_front();
            }
        }
    }

    /// The leadership in which the rounds were asked for is over.
    pub(super) fn refuse_rounds(&mut self, outputs: &mut Vec<Output>) {
        let attempted = self.attempts.drain(..).flat_map(|attempt| attempt.rounds);
        let rounds: Vec<u64> = attempted.chain(self.waiting_rounds.drain(..)).collect();
        let (group, term) = (self.id, self.rounds_term);
        outputs.extend(rounds.into_iter().map(|round| Output::RoundRefused { group, term, round }));
    }

    /// The leader takes no more proposals and has no lease, for the rest of its term. From here only a new term
    /// makes it a full leader again.
    pub(super) fn retire(&mut self, outputs: &mut Vec<Output>) {
        if self.retiring {
            return;
        }
        self.retiring = true;
        let term = self.term();
        if self.settings.fault != PlantedFault::LeaseKeptInTransfer {
            self.lease.publish(term, 0);
        }
        outputs.push(Output::Retiring { group: self.id, term });
    }

    /// Hands the leadership to `to`, or to the voter that has most of the log.
    pub(super) fn transfer(&mut self, to: Option<NodeId>, now: BootTime, outputs: &mut Vec<Output>) {
        if !self.leads() || self.retiring {
            return;
        }
        let raft = &self.raw.raft;
        let voters = raft.prs().conf().to_conf_state().voters;
        let heard = |id: u64| self.echoes.of(raft.term, id) + self.settings.vote_guard_ns() > now;
        let best = voters
            .into_iter()
            .filter(|id| *id != self.replica.0 && heard(*id))
            .filter(|id| to.is_none_or(|node| ReplicaId(*id).node() == node))
            .max_by_key(|id| (raft.prs().get(*id).map_or(0, |progress| progress.matched), *id));
        if let Some(target) = best {
            self.retire(outputs);
            self.raw.transfer_leader(target);
        }
    }

    /// Ends the term of a leader that has retired and could not hand over: it steps down and forces a campaign for
    /// the next term. Its own lease is gone for good, and a forced request for the next term cannot harm the lease
    /// of any later one (see `lease`).
    fn resign(&mut self) {
        let raft = &mut self.raw.raft;
        let alone = raft.prs().is_singleton();
        if alone && !raft.raft_log.unstable_entries().is_empty() {
            return; // raft wants a lone candidate's log durable; it is after this turn
        }
        marks::reached("leadership not handed over: resigned");
        let term = raft.term;
        raft.become_follower(term, raft::INVALID_ID);
        if self.stopping {
            return;
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgTimeoutNow);
        message.from = self.replica.0;
        message.to = self.replica.0;
        message.term = term;
        let _ = self.raw.raft.step(message);
    }

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
            marks::reached("leadership sent home");
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
