//! How much a turn moves, whatever is proposed, lags or waits: large values and lagging replicas cost no leader its term.

use super::*;

/// A window of 4000 bytes in parts of 1000.
fn narrow(groups: u32) -> Plan {
    let settings = Settings { message_bytes_max: 1_000, turn_bytes_max: 4_000, ..Settings::default() };
    Plan { groups, settings, ..Plan::default() }
}

/// What a turn may move: the window, and what was begun in it.
const NARROW_MOST: u64 = 5_000;
/// The same, with raft's words around it.
const NARROW_SENT_MOST: u64 = 5_500;
/// What a turn may take in: as much as a window, and the message with which it is full.
const NARROW_TAKEN_MOST: u64 = 9_500;

/// Moves the leaderships of these groups to a node.
fn lead_all(network: &mut Network, leader: NodeId, groups: std::ops::Range<ShardId>) {
    for group in groups {
        let other = network.wait_for_leader(group);
        network.run_ms(500); // it hears its followers
        network.input(other, Input::Transfer { group, to: Some(leader) });
        assert!(network.run_until_ms(5_000, |network| network.leader(group) == Some(leader)));
    }
}

/// Proposes so many entries of so many bytes in group 0, one each 5 ms.
fn propose(network: &mut Network, leader: NodeId, count: u64, bytes: usize) {
    for number in 0..count {
        network.propose(leader, 0, number, vec![number as u8; bytes]);
        network.run_ms(5);
    }
}

fn others(leader: NodeId) -> [NodeId; 2] {
    [leader % 3 + 1, (leader + 1) % 3 + 1]
}

#[test]
fn proposals_that_come_together_are_written_a_window_at_a_time() {
    let mut network = Network::new(3, narrow(1));
    let leader = network.wait_for_leader(0);
    let expected: Vec<Bytes> = (0..100).map(|number| Bytes::from(vec![number; 900])).collect();
    for (number, data) in expected.iter().enumerate() {
        network.propose(leader, 0, number as u64, data.clone());
    }
    network.run_ms(2_000);
    for id in 1..=3 {
        assert!(network.payloads(id, 0) == expected, "in order, whole");
    }
    assert!(network.most.written <= NARROW_TAKEN_MOST, "{:?}", network.most);
    assert!(network.most.sent <= NARROW_SENT_MOST, "{:?}", network.most);
}

#[test]
fn a_follower_that_lags_is_sent_a_window_at_a_time() {
    let mut network = Network::new(4, narrow(1));
    let leader = network.wait_for_leader(0);
    let [late, _] = others(leader);
    network.isolate(late);
    propose(&mut network, leader, 300, 500);
    network.most = Default::default();
    network.cut.clear();
    network.run_ms(3_000);
    assert!(network.payloads(late, 0) == network.payloads(leader, 0));
    assert_eq!(network.payloads(late, 0).len(), 300);
    assert!(network.most.sent > 2_000, "it was sent many at once: {:?}", network.most);
    assert!(network.most.sent <= NARROW_SENT_MOST, "{:?}", network.most);
    assert!(network.most.written <= NARROW_TAKEN_MOST, "{:?}", network.most);
}

#[test]
fn a_follower_that_was_paused_takes_in_a_window_at_a_time() {
    let mut network = Network::new(5, narrow(1));
    let leader = network.wait_for_leader(0);
    let [late, _] = others(leader);
    network.pause(late, network.time + 400 * MS);
    propose(&mut network, leader, 60, 900);
    network.most = Default::default();
    network.run_ms(2_000);
    assert_eq!(network.payloads(late, 0).len(), 60);
    assert!(network.most.written > 2_000, "much waited for it: {:?}", network.most);
    assert!(network.most.written <= NARROW_TAKEN_MOST, "{:?}", network.most);
}

#[test]
fn what_a_shard_is_behind_is_read_a_window_at_a_time() {
    let mut plan = narrow(1);
    plan.settings.cache_bytes_max = 0;
    let mut network = Network::new(6, plan);
    let leader = network.wait_for_leader(0);
    let [late, _] = others(leader);
    network.nodes.get_mut(&late).unwrap().shards.get_mut(&0).unwrap().hold_applied = true;
    propose(&mut network, leader, 100, 900);
    network.crash(late, 0);
    network.most = Default::default();
    network.start(late);
    network.run_ms(3_000);
    assert_eq!(network.payloads(late, 0).len(), 100);
    assert!(network.most.handed > 2_000, "{:?}", network.most);
    assert!(network.most.handed <= NARROW_MOST, "{:?}", network.most);
}

#[test]
fn a_shard_that_has_room_again_is_handed_a_window_at_a_time() {
    let mut plan = narrow(1);
    plan.settings.unapplied_bytes_max = 20_000;
    let mut network = Network::new(12, plan);
    let leader = network.wait_for_leader(0);
    let [late, _] = others(leader);
    network.nodes.get_mut(&late).unwrap().shards.get_mut(&0).unwrap().hold_applied = true;
    propose(&mut network, leader, 60, 900);
    network.most = Default::default();
    let shard = network.nodes.get_mut(&late).unwrap().shards.get_mut(&0).unwrap();
    shard.hold_applied = false;
    let index = shard.state.last().unwrap().0;
    network.input(late, Input::Applied { group: 0, index });
    network.run_ms(1_000);
    assert_eq!(network.payloads(late, 0).len(), 60);
    assert!(network.most.handed > 2_000, "{:?}", network.most);
    assert!(network.most.handed <= NARROW_MOST, "{:?}", network.most);
}

#[test]
fn a_large_proposal_of_one_group_does_not_keep_the_others_waiting() {
    let mut plan = narrow(3);
    plan.disk_bytes_per_ms = Some(40); // a window takes 100 ms
    let mut network = Network::new(7, plan);
    let leader = network.wait_for_leader(0);
    lead_all(&mut network, leader, 1..3);
    network.propose(leader, 0, 1, vec![1; 200_000]);
    network.run_ms(200);
    for round in 0..3 {
        for group in 1..3 {
            network.propose(leader, group, round, text(round));
        }
        network.run_ms(1_000);
        for group in 1..3 {
            assert_eq!(network.payloads(leader, group).len() as u64, round + 1, "group {group}");
        }
        assert!(network.payloads(leader, 0).is_empty(), "it is still under way");
    }
    network.run_ms(6_000);
    assert_eq!(network.payloads(leader, 0).concat().len(), 200_000);
}

#[test]
fn large_proposals_of_two_groups_take_turns() {
    let mut network = Network::new(10, narrow(2));
    let leader = network.wait_for_leader(0);
    lead_all(&mut network, leader, 1..2);
    let before = [0, 1].map(|group| network.status(leader, group).last);
    network.propose(leader, 0, 1, vec![1; 400_000]);
    network.propose(leader, 1, 1, vec![1; 400_000]);
    network.run_until_ms(5_000, |network| network.status(leader, 0).last >= before[0] + 200);
    let appended = network.status(leader, 1).last - before[1];
    assert!((150..=250).contains(&appended), "{appended} parts of one, 200 of the other");
}

#[test]
fn parts_that_no_majority_has_are_bounded() {
    let mut network = Network::new(11, narrow(1));
    let leader = network.wait_for_leader(0);
    network.isolate(leader);
    network.propose(leader, 0, 1, vec![1; 100_000]);
    network.run_ms(300);
    let status = network.status(leader, 0);
    let ahead = status.last - status.committed;
    assert!((8..=12).contains(&ahead), "{ahead} parts of 1000 bytes: two turns' worth");
}

/// Disks that take 20 MB in a second, and the settings of the product.
fn slow_disks() -> Plan {
    Plan { disk_bytes_per_ms: Some(20_000), ..Plan::default() }
}

#[test]
fn large_values_cost_no_term_on_slow_disks() {
    let mut network = Network::new(8, slow_disks());
    let leader = network.wait_for_leader(0);
    let term = network.shard(leader, 0).term;
    for number in 0..3 {
        network.propose(leader, 0, number, vec![number as u8; 20 << 20]);
    }
    network.run_ms(10_000);
    for id in 1..=3 {
        assert_eq!(network.payloads(id, 0).iter().map(Bytes::len).sum::<usize>(), 60 << 20);
    }
    assert!((1..=3).all(|id| network.shard(id, 0).term == term), "nobody was elected meanwhile");
}

#[test]
fn a_lagging_follower_costs_no_term_on_slow_disks() {
    let mut network = Network::new(9, slow_disks());
    let leader = network.wait_for_leader(0);
    let [late, _] = others(leader);
    network.pause(late, network.time + 4_000 * MS);
    for number in 0..40 {
        network.propose(leader, 0, number, vec![number as u8; 1 << 20]);
        network.run_ms(100);
    }
    let term = network.shard(leader, 0).term;
    network.run_ms(8_000);
    assert_eq!(network.payloads(late, 0).len(), 40 * 4, "each in four parts");
    assert!((1..=3).all(|id| network.shard(id, 0).term == term), "nobody was elected meanwhile");
}
