//! Nodes that lose their disks, and come back without anybody's help.

use std::collections::BTreeSet;

use super::network::{Network, Plan};
use super::{text, three};
use crate::consensus::*;

/// The members of group 0 as `id` knows them: voters, and all others that are still named.
fn members(network: &Network, id: NodeId) -> (Vec<ReplicaId>, Vec<ReplicaId>) {
    let members = network.status(id, 0).members;
    (members.voters, [members.outgoing, members.learners].concat())
}

fn ids(pairs: &[(NodeId, u32)]) -> Vec<ReplicaId> {
    let mut ids: Vec<ReplicaId> = pairs.iter().map(|(node, life)| ReplicaId::new(*node, *life)).collect();
    ids.sort_unstable();
    ids
}

fn fill(network: &mut Network, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let leader = network.wait_for_leader(0);
        network.propose(leader, 0, number, text(number));
        network.run_ms(5);
    }
}

/// Runs until `id` votes again and has all that any other has.
fn wait_until_back(network: &mut Network, id: NodeId) {
    let back = network.run_until_ms(20_000, |network| {
        let longest = network.nodes.keys().filter(|other| network.nodes[other].consensus.is_some());
        let longest = longest.map(|other| network.shard(*other, 0).state.len()).max();
        network.votes(id) && longest == Some(network.shard(id, 0).state.len())
    });
    assert!(back, "node {id} is not back: {:?}", network.nodes[&id].incarnation);
    assert_eq!(network.violations, Vec::<String>::new());
}

fn follower_of(leader: NodeId) -> NodeId {
    leader % 3 + 1
}

#[test]
fn a_lost_disk_is_filled_from_the_log_and_the_old_id_is_gone() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    fill(&mut network, 1..20);
    let lost = follower_of(leader);
    network.wipe(lost);
    fill(&mut network, 20..40);
    wait_until_back(&mut network, lost);
    assert_eq!(network.shard(lost, 0).installed, 0, "the log reaches back to the begin");
    let lives: Vec<(NodeId, u32)> = (1..=3).map(|id| (id, u32::from(id == lost))).collect();
    network.run_ms(500);
    for id in 1..=3 {
        assert_eq!(members(&network, id), (ids(&lives), vec![]), "as node {id} knows them");
        assert_eq!(network.payloads(id, 0), (1..40).map(text).collect::<Vec<_>>());
    }
}

#[test]
fn a_lost_disk_is_filled_from_a_snapshot_that_knows_the_new_member() {
    let mut plan = Plan::default();
    (plan.settings.log_entries_max, plan.settings.slack_entries_max) = (10, 0);
    let mut network = Network::new(3, plan);
    let leader = network.wait_for_leader(0);
    fill(&mut network, 1..60);
    let lost = follower_of(leader);
    network.wipe(lost);
    wait_until_back(&mut network, lost);
    assert!(network.shard(lost, 0).installed > 0, "the begin of the log is gone");
    assert_eq!(network.payloads(lost, 0).len(), 59);
}

#[test]
fn a_replica_that_became_a_voter_in_what_a_snapshot_holds_is_told() {
    let mut plan = Plan::default();
    (plan.settings.log_entries_max, plan.settings.slack_entries_max) = (10, 0);
    let mut network = Network::new(3, plan);
    let leader = network.wait_for_leader(0);
    let lost = follower_of(leader);
    network.wipe(lost);
    let changes =
        network.run_until_ms(5_000, |network| !network.status(leader, 0).members.outgoing.is_empty());
    assert!(changes);
    network.isolate(lost);
    let settled =
        network.run_until_ms(5_000, |network| network.status(leader, 0).members.outgoing.is_empty());
    assert!(settled);
    fill(&mut network, 1..60);
    assert!(!network.votes(lost), "it has not heard");
    network.cut.clear();
    wait_until_back(&mut network, lost);
    assert!(network.shard(lost, 0).installed > 0);
    assert_eq!(network.shard(lost, 0).members, Some(network.status(lost, 0).members));
}

#[test]
fn who_has_seen_a_change_end_remembers_it_after_a_crash() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    fill(&mut network, 1..10);
    let lost = follower_of(leader);
    let other = 6 - leader - lost;
    network.wipe(lost);
    wait_until_back(&mut network, lost);
    // Nothing is written any more, with which the commit index would reach the disk.
    network.run_ms(1_000);
    for id in 1..=3 {
        let (status, synced) = (network.status(id, 0), network.nodes[&id].log.synced_commit(0));
        assert!(synced >= status.members_since, "node {id}: {synced} is on the disk: {status:?}");
    }
    network.isolate(leader);
    network.crash(other, 0);
    network.wipe(leader);
    network.start(other);
    // Those two are a majority of the new members, and not of the old, one of whom is gone and one cut off.
    let elected = network.run_until_ms(5_000, |network| network.leader(0).is_some_and(|id| id != leader));
    assert!(elected, "{:?}", network.status(other, 0));
    network.cut.clear();
    wait_until_back(&mut network, leader);
    assert_eq!(network.payloads(leader, 0), (1..10).map(text).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_is_lost_again_and_again_gives_a_new_id_each_time() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    fill(&mut network, 1..10);
    let lost = follower_of(leader);
    network.wipe(lost);
    let learns =
        network.run_until_ms(5_000, |network| !network.status(leader, 0).members.learners.is_empty());
    assert!(learns, "it is a learner first");
    // A learner that is gone before it voted, and one more that was never heard of.
    network.wipe(lost);
    network.run_ms(1);
    network.wipe(lost);
    wait_until_back(&mut network, lost);
    assert_eq!(network.nodes[&lost].incarnation, Some(2));
    network.wipe(lost);
    wait_until_back(&mut network, lost);
    assert_eq!(network.nodes[&lost].incarnation, Some(3));
    network.run_ms(500);
    let others: BTreeSet<NodeId> = [1, 2, 3].into_iter().filter(|id| *id != lost).collect();
    let lives: Vec<(NodeId, u32)> = others.iter().map(|id| (*id, 0)).chain([(lost, 3)]).collect();
    assert_eq!(members(&network, leader), (ids(&lives), vec![]));
}

#[test]
fn while_another_node_is_down_a_lost_disk_does_not_vote_and_comes_back_with_it() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    fill(&mut network, 1..10);
    let (lost, down) = (follower_of(leader), follower_of(follower_of(leader)));
    network.crash(down, 0);
    network.wipe(lost);
    network.run_ms(20_000);
    assert_eq!(network.nodes[&lost].incarnation, Some(1), "one voter of the two others remembers enough");
    assert!(!network.votes(lost));
    assert_eq!(network.leader(0), None, "one disk of three is no majority");
    network.start(down);
    wait_until_back(&mut network, lost);
    assert_eq!(network.payloads(lost, 0), (1..10).map(text).collect::<Vec<_>>());
}

#[test]
fn a_leader_change_in_the_middle_is_no_matter() {
    for seed in 0..20 {
        let mut network = Network::new(seed, Plan::default());
        let leader = network.wait_for_leader(0);
        fill(&mut network, 1..20);
        let lost = follower_of(leader);
        network.wipe(lost);
        network.run_ms(20 * seed); // from before it is known to after it votes
        network.crash(leader, 0);
        network.run_ms(100);
        network.start(leader);
        wait_until_back(&mut network, lost);
        assert_eq!(network.payloads(lost, 0), (1..20).map(text).collect::<Vec<_>>());
    }
}

#[test]
fn leadership_goes_home_to_a_node_whose_disk_is_new() {
    let mut network = Network::new(5, Plan { home: true, ..Plan::default() });
    assert_eq!(network.wait_for_leader(0), 1);
    fill(&mut network, 1..10);
    network.wipe(1);
    let home = network.run_until_ms(30_000, |network| network.leader(0) == Some(1));
    assert!(home, "leader: {:?}", network.leader(0));
    assert_eq!(network.nodes[&1].incarnation, Some(1));
}

#[test]
fn who_is_no_member_of_the_shape_or_of_the_past_is_not_taken_in() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    let lost = follower_of(leader);
    network.wipe(lost);
    wait_until_back(&mut network, lost);
    network.run_ms(500);
    let before = members(&network, leader);
    for replica in [ReplicaId::new(9, 0), ReplicaId::new(lost, 0), ReplicaId::new(lost, 1)] {
        network.input(leader, Input::JoinWanted { group: 0, replica });
        network.run_ms(300);
        assert_eq!(members(&network, leader), before, "{replica}");
    }
}

#[test]
fn a_message_of_an_earlier_life_is_not_believed() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    let lost = follower_of(leader);
    network.wipe(lost);
    wait_until_back(&mut network, lost);
    network.run_ms(500);
    // A forced request for votes in the name of the life that ended: it would depose the leader.
    let (from, to) = (ReplicaId::new(lost, 0), ReplicaId::new(leader, 0));
    let term = network.status(leader, 0).term;
    let mut request = raft::eraftpb::Message::default();
    request.set_msg_type(raft::eraftpb::MessageType::MsgRequestVote);
    (request.from, request.to, request.term, request.index) = (from.0, to.0, term + 5, 1 << 40);
    request.context = bytes::Bytes::from_static(raft::CAMPAIGN_TRANSFER);
    let data = protobuf::Message::write_to_bytes(&request).unwrap().into();
    let message = PeerMessage { group: 0, from, to, stamp: 0, echo: 0, time: 0, reads: false, data };
    network.input(leader, Input::Message(message));
    network.run_ms(300);
    assert_eq!((network.leader(0), network.status(leader, 0).term), (Some(leader), term));
}

#[test]
fn a_node_that_is_not_fit_hands_its_leadership_over_and_gets_it_back_when_it_is() {
    let mut network = Network::new(5, Plan { home: true, ..Plan::default() });
    assert_eq!(network.wait_for_leader(0), 1);
    let tell = |network: &mut Network, fit| {
        (1..=3).for_each(|id| network.input(id, Input::Fitness { node: 1, fit }));
    };
    tell(&mut network, false);
    assert!(network.run_until_ms(5_000, |network| network.leader(0).is_some_and(|leader| leader != 1)));
    network.run_ms(10_000);
    assert_ne!(network.leader(0), Some(1), "not while it is not fit");
    tell(&mut network, true);
    // It was handed over on purpose, so it is not sent home before some patience.
    assert!(network.run_until_ms(60_000, |network| network.leader(0) == Some(1)));
    // Nobody is fitter: it stays where it is.
    for node in 1..=3 {
        (1..=3).for_each(|id| network.input(id, Input::Fitness { node, fit: false }));
    }
    let term = network.status(1, 0).term;
    network.run_ms(10_000);
    assert_eq!((network.leader(0), network.status(1, 0).term), (Some(1), term));
    assert_eq!(network.violations, Vec::<String>::new());
}
