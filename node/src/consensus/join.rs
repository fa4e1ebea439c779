//! How a node whose disk is new gets back into its groups.
//!
//! It comes under an incarnation that no configuration has ever named (`control::birth`), and asks to be taken in.
//! The leader moves one step further with each time it is asked, and keeps no note of how far it is: the
//! configuration itself tells.
//!
//! 1. The replica is no member: it becomes a learner, in the place of any other learner of its node.
//! 2. It is a learner, is heard, and has nearly all of the log: it becomes a voter, and the voter that its node was
//!    before ceases to be one, in one joint change. So the number of voters stays, and with it what a majority is.
//! 3. It votes: nothing is left to do.
//!
//! So a request that is lost, late or repeated, a leader that changes in between, and a node that loses its disk
//! again before it is done, need no case of their own.
//!
//! INVARIANT: for each node, the highest incarnation in the configuration never falls: a member only goes when a
//! higher incarnation of its node comes, or stays. `Recollection::incarnation` relies on it.

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType};

use crate::log::RecoveredGroup;

use super::formats::Formats;
use super::group::Group;
use super::types::*;

/// Entries that are looked through for configurations at once.
const SCAN_BYTES: u64 = 4 << 20;

impl Recollection {
    /// Of a group that is closed here: it does not vote, so its word alone lets nobody take an incarnation.
    pub fn of_closed(recovered: &RecoveredGroup, node: NodeId) -> Recollection {
        let incarnation = highest(recovered.snapshot.get_conf_state(), node);
        Recollection { begun: recovered.has_begun(), voter: false, incarnation }
    }
}

impl Group {
    /// See the module.
    pub(super) fn join_wanted(&mut self, replica: ReplicaId, formats: &Formats, now: BootTime) {
        let raft = &self.raw.raft;
        let settled = self.leads()
            && !self.retiring
            && raft.apply_to_current_term()
            && !raft.has_pending_conf()
            && raft.prs().conf().to_conf_state().voters_outgoing.is_empty();
        if !settled || !self.can_read(replica, formats, now) {
            return; // it will ask again
        }
        let members = Members::from_raft(&raft.prs().conf().to_conf_state());
        let Members { voters, learners, .. } = &members;
        let of_node = |member: &&ReplicaId| member.node() == replica.node();
        let newest = voters.iter().chain(learners).filter(of_node).max();
        // Nodes that never belonged to the group are not its own to take in.
        let Some(newest) = newest.filter(|newest| **newest <= replica && !voters.contains(&replica)) else {
            return;
        };
        let others = |list: &[ReplicaId]| -> Vec<ReplicaId> {
            list.iter().copied().filter(|member| member.node() != replica.node()).collect()
        };
        let (mut next_voters, mut next_learners) = (voters.clone(), others(learners));
        if *newest < replica {
            next_learners.push(replica);
        } else if self.keeps_up(replica, now) {
            next_voters = others(voters);
            next_voters.push(replica);
        } else {
            return;
        }
        let change = self.member_change(&next_voters, &next_learners);
        match self.raw.propose_conf_change(Vec::new(), change) {
            Ok(()) => tracing::info!(shard = self.id, %replica, ?next_voters, ?next_learners, "joins"),
            Err(error) => tracing::warn!(shard = self.id, %replica, "cannot join now: {error}"),
        }
    }

    /// Whether a later life of its node is a member: then nobody may rely on what this one says.
    pub(super) fn is_past(&self, replica: ReplicaId) -> bool {
        let (_, members) = &self.members[self.members.len() - 1];
        highest(members, replica.node()) > replica.incarnation()
    }

    /// See [`Recollection`].
    pub(super) fn recollect(&self, node: NodeId) -> Recollection {
        let raft = &self.raw.raft;
        let (_, members) = &self.members[self.members.len() - 1];
        // Configurations take effect as their entries are handed over.
        let (first, last) = (self.handed + 1, self.storage().last());
        Recollection {
            begun: raft.term > 0 || last > 0,
            voter: members.voters.contains(&self.replica.0),
            incarnation: highest(members, node).max(self.highest_in_log(node, first, last)),
        }
    }

    /// The highest incarnation of `node` that a configuration in entries `low..=high` adds.
    fn highest_in_log(&self, node: NodeId, mut low: u64, high: u64) -> u32 {
        let mut found = 0;
        while low <= high {
            let entries = self.storage().read(low, high + 1, SCAN_BYTES);
            low += entries.len() as u64;
            found = entries
                .iter()
                .flat_map(named)
                .filter(|id| id.node() == node)
                .fold(found, |found, id| found.max(id.incarnation()));
        }
        found
    }
}

/// The highest incarnation of `node` in a configuration; 0 if it has none.
fn highest(members: &ConfState, node: NodeId) -> u32 {
    let lists = [&members.voters, &members.voters_outgoing, &members.learners, &members.learners_next];
    let ids = lists.into_iter().flatten().map(|id| ReplicaId(*id));
    ids.filter(|id| id.node() == node).map(ReplicaId::incarnation).max().unwrap_or(0)
}

/// The replicas that an entry names, if it changes the configuration.
fn named(entry: &Entry) -> Vec<ReplicaId> {
    match entry.entry_type {
        EntryType::EntryNormal => Vec::new(),
        EntryType::EntryConfChange => ConfChange::parse_from_carllerche_bytes(&entry.data)
            .map_or_else(|_| Vec::new(), |change| vec![ReplicaId(change.node_id)]),
        EntryType::EntryConfChangeV2 => ConfChangeV2::parse_from_carllerche_bytes(&entry.data).map_or_else(
            |_| Vec::new(),
            |change| change.changes.iter().map(|single| ReplicaId(single.node_id)).collect(),
        ),
    }
}
