//! Snapshots, the truncation of the log behind them, and the members they carry.
//!
//! When is the next snapshot taken? The log since the last one is what a restart replays, and what a snapshot costs is
//! its size. With little data the log may grow to the settings' limits. With much data that would write the data over
//! and over: so the log may grow to the size of the last snapshot, which at most doubles what is written, but never
//! beyond what is replayed in about ten seconds ([`REPLAY_BYTES_MAX`], [`REPLAY_ENTRIES_MAX`]).

use protobuf::Message as _;
use raft::SnapshotStatus;
use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType};

use crate::log::cannot_go_on;

use super::group::{Group, HOME_PATIENCE_TICKS_MIN};
use super::settings::Settings;
use super::types::*;

/// How long a snapshot that could not be written is left alone: taking one stops the shard for a while.
const SNAPSHOT_RETRY_NS: u64 = 5_000_000_000;
/// Bytes of a log that a restart replays within ten seconds if it does 26 MB/s. A node has several groups, and while the
/// next snapshot is written the log grows on.
const REPLAY_BYTES_MAX: u64 = 256 << 20;
/// Entries of a log that a restart replays within ten seconds if each takes 2.5 us, however small they are.
const REPLAY_ENTRIES_MAX: u64 = 4_000_000;

/// The log since a snapshot of `snapshot_bytes`, in bytes and entries, before the next is due.
fn snapshot_distance(settings: &Settings, snapshot_bytes: u64) -> (u64, u64) {
    let (bytes_max, entries_max) = (settings.log_bytes_max, settings.log_entries_max);
    let bytes = bytes_max.max(snapshot_bytes.min(REPLAY_BYTES_MAX));
    let scaled = u128::from(entries_max) * u128::from(bytes) / u128::from(bytes_max);
    let entries = u64::try_from(scaled).unwrap_or(u64::MAX).min(REPLAY_ENTRIES_MAX);
    (bytes, entries.max(entries_max))
}

impl Group {
    /// Asks the shard for a snapshot if raft needs one or the log has grown long; once, and again each time it has
    /// grown as much once more.
    pub(super) fn ask_for_snapshot(&mut self, outputs: &mut Vec<Output>) {
        let storage = self.storage();
        let wanted = storage.snapshot_wanted.replace(false);
        let entries = storage.last() - storage.snapshot.index;
        let (bytes_max, entries_max) = snapshot_distance(&self.settings, self.snapshot_bytes);
        let growth = (storage.bytes_after_snapshot / bytes_max).max(entries / entries_max);
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
    pub(super) fn snapshot_published(&mut self, index: u64, bytes: u64) {
        self.snapshot_asked = false;
        self.snapshot_asked_growth = 0;
        self.snapshot_bytes = bytes;
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
        let slack_entries = self.slack_entries();
        self.own_write.snapshot = Some(self.raw.mut_store().published(index, members).clone());
        let truncate = self.truncation(index, slack_entries);
        if truncate > self.storage().truncated.index {
            self.own_write.truncate = Some(self.raw.mut_store().truncate(truncate));
        }
    }

    /// The shard's snapshot could not be written: the disk is full. What it takes the place of stays.
    pub(super) fn snapshot_failed(&mut self, now: BootTime) {
        self.snapshot_retry = Some(now + SNAPSHOT_RETRY_NS);
    }

    /// Forgets that a snapshot was asked for, once it may be tried again: then whoever still needs it asks anew.
    pub(super) fn retry_snapshot(&mut self, now: BootTime) {
        if self.snapshot_retry.is_some_and(|due| due <= now) {
            self.snapshot_retry = None;
            self.snapshot_asked = false;
            self.snapshot_asked_growth = 0;
        }
    }

    /// How many entries before a snapshot a follower is waited for: so many, but not more bytes than a log may have.
    /// To be asked before the snapshot counts.
    fn slack_entries(&self) -> u64 {
        let storage = self.storage();
        let entries = (storage.last() - storage.snapshot.index).max(1);
        let entry_bytes = (storage.bytes_after_snapshot / entries).max(1);
        self.settings.slack_entries_max.min(self.settings.log_bytes_max / entry_bytes)
    }

    /// Up to where the log may go after a snapshot at `index`: not beyond what the slowest follower that is alive
    /// has, but a follower is waited for only so long.
    fn truncation(&self, index: u64, slack_entries: u64) -> u64 {
        let slack = index.saturating_sub(slack_entries);
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

    pub(super) fn unreachable(&mut self, node: NodeId, now: BootTime) {
        if !self.leads() {
            return self.mourn(node, now);
        }
        if self.home == Some(node) {
            // It has stopped: when it is back, it is as good as any that kept up.
            self.home_patience = HOME_PATIENCE_TICKS_MIN;
            self.home_ticks = 0;
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
        let misfit = |error: &dyn std::fmt::Display| {
            cannot_go_on(format!("shard {}, entry {} changes members: {error}", self.id, entry.index))
        };
        let members: ConfState = match applied {
            Ok(Ok(members)) => members,
            Ok(Err(error)) => misfit(&error),
            Err(error) => misfit(&error),
        };
        outputs.push(Output::Members {
            group: self.id,
            index: entry.index,
            members: Members::from_raft(&members),
        });
        self.members.push_back((entry.index, members));
        // That it is committed must outlive a crash: who does not know that a change has ended needs a majority of
        // the old members to be elected, and those may be gone. Nothing else may ever be written here.
        self.own_write.hard_state = Some(self.storage().hard_state.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_may_grow_with_the_data_but_not_beyond_what_a_restart_replays() {
        let settings =
            Settings { log_bytes_max: 64 << 20, log_entries_max: 1_000_000, ..Settings::default() };
        let distance = |snapshot_bytes| snapshot_distance(&settings, snapshot_bytes);
        assert_eq!(distance(0), (64 << 20, 1_000_000));
        assert_eq!(distance(64 << 20), (64 << 20, 1_000_000));
        assert_eq!(distance(128 << 20), (128 << 20, 2_000_000));
        assert_eq!(distance(5 << 30), (REPLAY_BYTES_MAX, REPLAY_ENTRIES_MAX));
        // Who asks for more gets it.
        let settings = Settings { log_bytes_max: 1 << 30, log_entries_max: 9_000_000, ..settings };
        assert_eq!(snapshot_distance(&settings, 5 << 30), (1 << 30, 9_000_000));
    }
}
