//! Which format of batches all members of a group would agree on: see `shard::formats`.
//!
//! Nodes say it to each other again and again, as an older build may come back in the place of a newer one. So a word
//! counts for as long as a follower waits for its leader; who has not been heard since, and a build that knows
//! nothing of formats, reads the first.
//!
//! INVARIANT: whoever is taken in agrees on all that the shard of this leader has been told.

use std::collections::BTreeMap;

use moonraft_proto::entry::FIRST_FORMAT;

use super::group::Group;
use super::types::*;

/// What nodes have said.
#[derive(Debug)]
pub(super) struct Formats {
    /// By node: the newest format, and when it was said.
    said: BTreeMap<NodeId, (u8, BootTime)>,
    /// For how long a word counts.
    patience_ns: u64,
}

/// What the shard of a leader was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ToldFormats {
    term: u64,
    last: u8,
    /// In this term.
    highest: u8,
}

impl Formats {
    pub(super) fn new(patience_ns: u64) -> Formats {
        Formats { said: BTreeMap::new(), patience_ns }
    }

    pub(super) fn note(&mut self, node: NodeId, format: u8, now: BootTime) {
        self.said.insert(node, (format, now));
    }

    fn of(&self, node: NodeId, now: BootTime) -> u8 {
        let recent = |&&(_, said): &&(u8, BootTime)| now.saturating_sub(said) <= self.patience_ns;
        self.said.get(&node).filter(recent).map_or(FIRST_FORMAT, |&(format, _)| format)
    }
}

impl Group {
    /// Tells the shard what all members would agree on, if that is news.
    pub(super) fn tell_readable(&mut self, formats: &Formats, now: BootTime, outputs: &mut Vec<Output>) {
        if !self.has_reported_lead() {
            return;
        }
        let conf = self.raw.raft.prs().conf().to_conf_state();
        let members = [&conf.voters, &conf.voters_outgoing, &conf.learners, &conf.learners_next];
        let nodes = members.into_iter().flatten().map(|&id| ReplicaId(id).node());
        let format = nodes.map(|node| formats.of(node, now)).min().unwrap_or(FIRST_FORMAT);
        let term = self.term();
        let before = Some(self.told_formats).filter(|told| told.term == term);
        let highest = before.map_or(format, |told| told.highest.max(format));
        self.told_formats = ToldFormats { term, last: format, highest };
        if before.is_none_or(|told| told.last != format) {
            outputs.push(Output::Readable { group: self.id, term, format });
        }
    }

    /// Whether the node of a replica that wants to join reads what the shard may have written.
    pub(super) fn can_read(&self, replica: ReplicaId, formats: &Formats, now: BootTime) -> bool {
        self.told_formats.term != self.term() || formats.of(replica.node(), now) >= self.told_formats.highest
    }
}
