//! Snapshots, the truncation of the log behind them, and the members they carry.

use protobuf::Message as _;
use raft::SnapshotStatus;
use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType};

use crate::log::fatal;

use super::group::Group;
use super::types::*;

impl Group {
    /// Asks the shard for a snapshot if raft needs one or the log has grown long; once, and again each time it has
    /// grown as much once more.
    pub(super) fn ask_for_snapshot(&mut self, outputs: &mut Vec<Output>) {
        let storage = self.storage();
        let wanted = storage.snapshot_wanted.replace(false);
        let entries = storage.last() - storage.snapshot.index;
        let growth = (storage.bytes_after_snapshot / self.settings.log_bytes_max)
            .max(entries / self.settings.log_entries_max);
        let grown = growth > self.snapshot_asked_growth;
        let possible = self.applied > storage.snapshot.index;
        if possible && (grown || (wanted && !self.snapshot_asked)) {
            self.snapshot_asked_growth = growth;
            self.snapshot_asked = true;
            outputs.push(Output::TakeSnapshot { group: self.id });
        }
    }

    /// The log as a whole is too long, and this group is to blame.
    pub(super) fn compact_wanted(&mut self, outputs: &mut Vec<Output>) {
        if self.applied > self.storage().snapshot.index && !self.snapshot_asked {
            self.snapshot_asked = true;
            outputs.push(Output::TakeSnapshot { group: self.id });
        }
    }

    /// The shard's snapshot at `index` is durable. One that is older than what is known came too late.
    pub(super) fn snapshot_published(&mut self, index: u64) {
        self.snapshot_asked = false;
        self.snapshot_asked_growth = 0;
        if index <= self.storage().snapshot.index {
            return;
        }
        assert!(
            index <= self.applied,
            "group {}: a snapshot at {index}, beyond what is applied ({})",
            self.id,
            self.applied
        );
        while self.members.len() > 1 && self.members[1].0 <= index {
            self.members.pop_front();
        }
        let members = self.members[0].1.clone();
        self.own_write.snapshot = Some(self.raw.mut_store().published(index, members).clone());
        let truncate = self.truncation(index);
        if truncate > self.storage().truncated.index {
            self.own_write.truncate = Some(self.raw.mut_store().truncate(truncate));
        }
    }

    /// Up to where the log may go after a snapshot at `index`: not beyond what the slowest follower that is alive
    /// has, but a follower is waited for only so long.
    fn truncation(&self, index: u64) -> u64 {
        let slack = index.saturating_sub(self.settings.slack_entries_max);
        if !self.leads() {
            return slack; // this replica may lead next, and does not know what the others have
        }
        let alive = self.raw.raft.prs().iter().filter(|(_, progress)| progress.recent_active);
        // A follower that is being sent a snapshot will go on from there.
        let has = |progress: &raft::Progress| progress.matched.max(progress.pending_snapshot);
        let slowest = alive.map(|(_, progress)| has(progress)).min();
        slowest.map_or(index, |matched| matched.min(index)).max(slack)
    }

    pub(super) fn snapshot_sent(&mut self, to: ReplicaId, success: bool) {
        let status = match success {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.raw.report_snapshot(to.0, status);
    }

    pub(super) fn unreachable(&mut self, node: NodeId) {
        if !self.leads() {
            return;
        }
        let ids: Vec<u64> = self.raw.raft.prs().iter().map(|(id, _)| *id).collect();
        for id in ids.into_iter().filter(|id| ReplicaId(*id).node() == node) {
            self.raw.report_unreachable(id);
        }
    }

    /// A committed change of members takes effect here.
    pub(super) fn change_members(&mut self, entry: &Entry, outputs: &mut Vec<Output>) {
        use raft::prelude::ConfState;
        let applied = match entry.entry_type {
            EntryType::EntryConfChange => ConfChange::parse_from_carllerche_bytes(&entry.data)
                .map(|change| self.raw.apply_conf_change(&change)),
            _ => ConfChangeV2::parse_from_carllerche_bytes(&entry.data)
                .map(|change| self.raw.apply_conf_change(&change)),
        };
        let members: ConfState = match applied {
            Ok(Ok(members)) => members,
            Ok(Err(error)) => fatal(&format!("group {}: entry {}: {error}", self.id, entry.index)),
            Err(error) => fatal(&format!("group {}: entry {}: {error}", self.id, entry.index)),
        };
        outputs.push(Output::Members {
            group: self.id,
            index: entry.index,
            members: Members::from_raft(&members),
        });
        self.members.push_back((entry.index, members));
    }
}
