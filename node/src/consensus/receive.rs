//! Messages from peers: what is believed of them, the guard of votes, and the echoes that leases count on.

use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use raft::{CAMPAIGN_TRANSFER, StateRole};

use crate::log::entries_lost;
use crate::marks;

use super::group::{Group, HOME_PATIENCE_TICKS_GIVEN};
use super::settings::PlantedFault;
use super::types::*;

/// The index and term of the snapshot that a message of [`Output::SendSnapshot`] is about: under these the
/// receiving shell keeps the payload. `None` if it is not such a message.
pub fn snapshot_position(message: &PeerMessage) -> Option<(u64, u64)> {
    let message = Message::parse_from_carllerche_bytes(&message.data).ok()?;
    let metadata = message.get_snapshot().get_metadata();
    let snapshot = message.get_msg_type() == MessageType::MsgSnapshot && metadata.index > 0;
    snapshot.then_some((metadata.index, metadata.term))
}

impl Group {
    /// Steps a message. Whatever is wrong with it, it is dropped: Raft copes with lost messages.
    pub(super) fn receive(&mut self, envelope: PeerMessage, with_snapshot: bool, now: BootTime) {
        let Ok(mut message) = Message::parse_from_carllerche_bytes(&envelope.data) else {
            tracing::warn!(group = self.id, from = %envelope.from, "a message that is not Raft's");
            return;
        };
        let addressed = envelope.to == self.replica
            && message.to == self.replica.0
            && message.from == envelope.from.0
            && message.from != self.replica.0
            && message.from != 0
            && message.term > 0;
        if !addressed
            || self.is_past(envelope.from)
            || !self.believable(&message, with_snapshot)
            || self.guarded(&message, now)
        {
            return;
        }
        if is_answer(message.get_msg_type()) {
            self.take_answer(&mut message, &envelope, now);
        }
        let (kind, from, term) = (message.get_msg_type(), message.from, message.term);
        if kind == MessageType::MsgTimeoutNow && self.home == Some(ReplicaId(from).node()) {
            self.home_patience = HOME_PATIENCE_TICKS_GIVEN;
        }
        // Errors are of unknown senders and of lost leaders: nothing to be done.
        let _ = self.raw.step(message);
        self.check_progress(from);
        if is_leaders(kind) {
            self.heard_leader(from, term, &envelope, now);
        }
    }

    /// Kinds that peers send each other, and contents that raft would stumble over.
    fn believable(&self, message: &Message, with_snapshot: bool) -> bool {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        match message.get_msg_type() {
            MessageType::MsgAppend => {
                let entries = &message.entries;
                let mut terms = message.log_term;
                message.index < u64::MAX / 2
                    && entries.iter().zip(message.index + 1..).all(|(entry, index)| {
                        let grows = entry.term >= terms && entry.term <= message.term;
                        terms = entry.term;
                        entry.index == index && grows
                    })
            }
            MessageType::MsgHeartbeat => {
                // A leader tells of commits only what this replica acknowledged: it must still have it.
                if message.term >= raft.term && message.commit > last {
                    entries_lost(format!(
                        "shard {}: entry {} was acknowledged by this node, but its log ends at {last}: entries were lost",
                        self.id, message.commit
                    ));
                }
                true
            }
            MessageType::MsgSnapshot => {
                let metadata = message.get_snapshot().get_metadata();
                with_snapshot && metadata.index > 0 && metadata.term <= message.term
            }
            MessageType::MsgAppendResponse => {
                message.term != raft.term || message.reject || message.index <= last
            }
            MessageType::MsgTimeoutNow => !self.stopping,
            MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse => true,
            // Local kinds, and forwarded proposals, reads and transfers: never sent here.
            _ => false,
        }
    }

    /// Whether the message asks for a vote that this replica may not give yet. See `lease`, case 1.
    fn guarded(&self, message: &Message, now: BootTime) -> bool {
        let asks =
            matches!(message.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        let guarded = asks && message.context != CAMPAIGN_TRANSFER && now < self.vote_guard;
        if guarded {
            marks::reached(match self.support.term {
                0 => "vote refused by the guard of a start",
                _ => "vote refused by the guard of a leader",
            });
        }
        guarded
    }

    /// The sender leads, as far as this replica knows too.
    fn heard_leader(&mut self, from: u64, term: u64, envelope: &PeerMessage, now: BootTime) {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Follower || raft.term != term || raft.leader_id != from {
            return;
        }
        self.vote_guard = self.vote_guard.max(now + self.settings.vote_guard_ns());
        self.take_heart(now);
        let before = match self.support.term == term {
            true => self.support.stamp,
            false => 0,
        };
        self.support.term = term;
        self.support.leader = from;
        self.support.stamp = envelope.stamp.max(before);
        self.lease.times.hear(term, envelope.time, now);
    }

    fn take_answer(&mut self, message: &mut Message, envelope: &PeerMessage, now: BootTime) {
        if !self.leads() || message.term != self.term() {
            return;
        }
        let Some(progress) = self.raw.raft.prs().get(message.from) else {
            return; // no member
        };
        match self.settings.fault {
            PlantedFault::LeaseWithoutMargin => self.echoes.record(message.term, message.from, now),
            // A stamp of the future was not sent from here.
            _ if envelope.echo > now => {}
            _ => self.echoes.record(message.term, message.from, envelope.echo),
        }
        let matched = progress.matched;
        self.heard_reader(message.from, envelope.reads);
        // Late rejections can make raft 0.7.0 probe below what the follower is known to have (its issue 557).
        if message.reject && message.reject_hint < matched {
            message.reject_hint = matched;
            message.log_term = 0;
        }
    }

    /// INVARIANT: a leader never sends again what a follower is known to have.
    fn check_progress(&mut self, from: u64) {
        if !self.leads() {
            return;
        }
        if let Some(progress) = self.raw.raft.mut_prs().get_mut(from) {
            progress.next_idx = progress.next_idx.max(progress.matched + 1);
        }
    }
}

fn is_leaders(kind: MessageType) -> bool {
    matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot)
}

fn is_answer(kind: MessageType) -> bool {
    matches!(kind, MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse)
}
