//! What consensus tells, as tests hear it, and what must never be told.

use super::*;

impl Network {
    pub(super) fn output(&mut self, id: NodeId, output: Output) {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut answers = Vec::new();
        match output {
            Output::Role { group, term, role } => {
                let shard = node.shards.get_mut(&group).unwrap();
                assert!(term >= shard.term, "terms go back");
                shard.term = term;
                shard.role = Some(role);
                shard.retiring = false;
            }
            Output::Retiring { group, .. } => node.shards.get_mut(&group).unwrap().retiring = true,
            Output::Refused { group, sequence, .. } => {
                node.shards.get_mut(&group).unwrap().refused.push(sequence);
            }
            Output::RoundConfirmed { group, round, index, .. } => {
                node.shards.get_mut(&group).unwrap().rounds.push((round, Some(index)));
            }
            Output::RoundRefused { group, round, .. } => {
                node.shards.get_mut(&group).unwrap().rounds.push((round, None));
            }
            Output::Committed { group, entries } => {
                let shard = node.shards.get_mut(&group).unwrap();
                assert!(entries.last().is_some_and(|last| !last.more), "a batch is handed over whole");
                for entry in entries {
                    assert_eq!(
                        entry.index,
                        shard.state.last().map_or(0, |last| last.0) + 1,
                        "in order, once"
                    );
                    let known = self.committed.entry((group, entry.index));
                    let known = known.or_insert((entry.term, entry.data.clone()));
                    if *known != (entry.term, entry.data.clone()) {
                        self.violations
                            .push(format!("entry {} of group {group} differs on node {id}", entry.index));
                    }
                    let term = self.committed_term.entry(group).or_default();
                    *term = entry.term.max(*term);
                    shard.state.push((entry.index, entry.term, entry.data));
                }
                if !shard.hold_applied {
                    shard.applied = shard.state.last().unwrap().0;
                    answers.push(Input::Applied { group, index: shard.applied });
                }
            }
            Output::TakeSnapshot { group } => {
                let shard = node.shards.get_mut(&group).unwrap();
                shard.snapshots_asked += 1;
                let (index, term, _) = *shard.state.last().expect("asked with something applied");
                node.files.insert((group, index, term), shard.state.clone());
                answers.push(Input::SnapshotPublished { group, index, bytes: 0 });
            }
            Output::SendSnapshot { group, to, index, term, message } => {
                assert_eq!(snapshot_position(&message), Some((index, term)));
                let latency = self.span(self.plan.latency_ms) * 5;
                let position = (group, index, term);
                let to = to.node();
                self.at(self.time + latency, Event::File { from: id, to, position, message });
            }
            Output::InstallSnapshot { group, index, term } => {
                let shard = node.shards.get_mut(&group).unwrap();
                shard.state = node.files[&(group, index, term)].clone();
                shard.applied = index;
                shard.installed += 1;
                answers.push(Input::Applied { group, index });
            }
            Output::Followers { matched, .. } => self.followers.push(matched),
            Output::Readable { format, .. } => self.readable.push((id, format)),
            Output::Members { group, members, .. } => {
                node.shards.get_mut(&group).unwrap().members = Some(members);
            }
        }
        self.nodes.get_mut(&id).unwrap().inbox.extend(answers);
    }

    /// Whoever has a lease is the only one, and nobody has committed in a later term.
    pub(super) fn check_leases(&mut self) {
        for group in 0..self.plan.groups {
            let newest = self.committed_term.get(&group).copied().unwrap_or(0);
            let mut holders = Vec::new();
            for (id, node) in &self.nodes {
                let Some(consensus) = &node.consensus else {
                    continue;
                };
                let shard = &node.shards[&group];
                let lease = consensus.lease(group).unwrap();
                if lease.covers(shard.term, self.clock(*id)) {
                    holders.push((*id, shard.term));
                    let started = shard.state.last().is_some_and(|entry| entry.1 == shard.term);
                    if !started {
                        let text = format!("node {id} has a lease before an entry of its term");
                        self.violations.push(text);
                    }
                }
            }
            let stale = holders.iter().any(|(_, term)| *term < newest);
            if holders.len() > 1 || stale {
                let text =
                    format!("at {} ms: leases {holders:?}, committed in term {newest}", self.time / MS);
                self.violations.push(text);
            }
        }
    }

    /// The node that leads `group` in the highest term, if it has a lease.
    pub fn leader(&self, group: ShardId) -> Option<NodeId> {
        let leaders = self
            .nodes
            .values()
            .filter(|node| node.consensus.is_some() && node.shards[&group].role == Some(Role::Leader));
        let newest = leaders.max_by_key(|node| node.shards[&group].term)?;
        self.has_lease(newest.id, group).then_some(newest.id)
    }

    pub fn has_lease(&self, id: NodeId, group: ShardId) -> bool {
        let node = &self.nodes[&id];
        let Some(consensus) = &node.consensus else {
            return false;
        };
        consensus.lease(group).unwrap().covers(node.shards[&group].term, self.clock(id))
    }

    pub fn wait_for_leader(&mut self, group: ShardId) -> NodeId {
        let found = self.run_until_ms(20_000, |network| network.leader(group).is_some());
        assert!(found, "no leader; violations: {:?}", self.violations);
        self.leader(group).unwrap()
    }

    pub fn propose(&mut self, id: NodeId, group: ShardId, sequence: u64, data: impl Into<Bytes>) {
        let term = self.nodes[&id].shards[&group].term;
        let data = data.into();
        self.input(id, Input::Propose { group, term, sequence, data });
    }

    pub fn shard(&self, id: NodeId, group: ShardId) -> &Shard {
        &self.nodes[&id].shards[&group]
    }

    pub fn status(&self, id: NodeId, group: ShardId) -> GroupStatus {
        self.nodes[&id].consensus.as_ref().unwrap().status(group).unwrap()
    }

    /// What clients proposed, as applied on `id`.
    pub fn payloads(&self, id: NodeId, group: ShardId) -> Vec<Bytes> {
        let state = &self.shard(id, group).state;
        state.iter().map(|entry| entry.2.clone()).filter(|data| !data.is_empty()).collect()
    }
}
