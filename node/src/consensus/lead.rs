//! What a leader does: proposals, read rounds, handing its leadership over.

use bytes::Bytes;
use raft::Ready;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, Message, MessageType};

use crate::marks;

use super::group::{Attempt, Group};
use super::parts::Queue;
use super::settings::PlantedFault;
use super::types::*;

impl Group {
    pub(super) fn propose(&mut self, term: u64, sequence: u64, data: Bytes, outputs: &mut Vec<Output>) {
        let leads = self.leads() && self.term() == term;
        let fits = data.len() as u64 <= self.settings.entry_bytes_max && !data.is_empty();
        if leads && fits && !self.retiring {
            let is_large = data.len() > self.settings.part_bytes();
            if self.window.is_spent() {
                marks::reached("proposal waited for the next turn");
            }
            if is_large || !self.queue.is_empty() || self.window.is_spent() {
                return self.queue.push(term, sequence, data);
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

    /// Whether something of the queue can be appended now.
    pub(super) fn can_feed(&self) -> bool {
        self.queue.has_next(&self.settings)
    }

    /// Appends what waits, as far as the window allows: what is proposed in one turn is written and sent as one.
    pub(super) fn feed(&mut self, outputs: &mut Vec<Output>) {
        if self.queue.is_empty() {
            return;
        }
        if !self.leads() || self.retiring || self.term() != self.queue.term() {
            // The role that is told, or was, says as much to the shard.
            self.queue = Queue::default();
            return;
        }
        self.queue.committed(self.raw.raft.raft_log.committed);
        while !self.window.is_spent()
            && let Some((sequence, part)) = self.queue.next(&self.settings)
        {
            let bytes = part.data.len() as u64;
            if !self.append(part) {
                let (group, term) = (self.id, self.queue.term());
                self.queue = Queue::default();
                self.retire(outputs);
                outputs.push(Output::Refused { group, term, sequence });
                return;
            }
            self.queue.appended(self.raw.raft.raft_log.last_index(), bytes);
        }
    }

    /// Sends followers that lag what the log holds for them, each a message in its turn, as far as the window allows.
    pub(super) fn send_unsent(&mut self) {
        if !self.storage().begin_sending() {
            return;
        }
        let is_other = |(id, _): &(&u64, &raft::Progress)| **id != self.replica.0;
        let mut followers: Vec<u64> =
            self.raw.raft.prs().iter().filter(is_other).map(|(id, _)| *id).collect();
        followers.sort_unstable();
        while self.leads() && !followers.is_empty() {
            followers.retain(|id| self.send_next(*id));
        }
        self.storage().end_sending();
    }

    /// Whether there may be more to send to a follower: it has been sent something, and waits for no answer.
    fn send_next(&mut self, id: u64) -> bool {
        let raft = &mut self.raw.raft;
        let next = |raft: &raft::Raft<_>| raft.prs().get(id).map_or(0, |progress| progress.next_idx);
        let before = next(raft);
        if before > raft.raft_log.last_index() {
            return false;
        }
        raft.send_append(id);
        next(raft) > before
    }

    fn append(&mut self, entry: Entry) -> bool {
        self.window.spend(entry.data.len() as u64);
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
    pub(super) fn resign(&mut self) {
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
}
