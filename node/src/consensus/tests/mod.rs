//! Scenarios on a small deterministic cluster. Names say what a user would notice if it broke.

mod formats;
mod join;
mod network;
mod random;
mod window;

use bytes::Bytes;

use super::*;
use network::{MS, Network, Plan};

fn text(number: u64) -> Bytes {
    Bytes::from(format!("entry {number}"))
}

/// Virtual milliseconds after which what was waited for will not happen: heartbeats, elections and
/// transfers are all done by then.
const PATIENCE_MS: u64 = 5_000;

fn three() -> Network {
    Network::new(1, Plan::default())
}

#[test]
fn everything_proposed_is_applied_in_order_everywhere() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    for number in 0..100 {
        network.propose(leader, 0, number, text(number));
        network.run_ms(1);
    }
    network.run_ms(500);
    let expected: Vec<Bytes> = (0..100).map(text).collect();
    for id in 1..=3 {
        assert_eq!(network.payloads(id, 0), expected);
    }
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn a_group_closes_and_opens_again_while_another_goes_on() {
    let mut network = Network::new(1, Plan { groups: 2, ..Plan::default() });
    let leaders = [0, 1].map(|group| network.wait_for_leader(group));
    let follower = (1..=3).find(|id| *id != leaders[0]).unwrap();
    for (number, id) in [follower, leaders[0]].into_iter().enumerate() {
        let number = number as u64;
        let leader = network.wait_for_leader(0);
        network.propose(leader, 0, number, text(number));
        network.propose(network.leader(1).unwrap(), 1, number, text(number));
        network.run_ms(500);
        network.reopen(id, 0);
        network.run_ms(PATIENCE_MS);
    }
    for id in 1..=3 {
        assert_eq!(network.payloads(id, 0), [text(0), text(1)], "{id} applied its log from the begin");
        assert_eq!(network.payloads(id, 1), [text(0), text(1)]);
    }
    assert_eq!(network.leader(1), Some(leaders[1]));
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn one_turn_is_one_message_to_each_follower_and_one_write() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    network.run_ms(20);
    let before = network.sent;
    for number in 0..100 {
        network.propose(leader, 0, number, text(number));
    }
    network.run_ms(12);
    assert_eq!(network.payloads(leader, 0).len(), 100);
    // Appends, answers, the news of the commit and its answers, and perhaps one round of heartbeats. All inputs of
    // one instant but the first, which wakes the node, wait for the first sync.
    assert!(network.sent - before <= 2 * (2 + 2 + 2 + 2) + 4, "{} messages", network.sent - before);
}

#[test]
fn a_cut_off_leader_has_no_lease_when_its_successor_commits() {
    let mut network = three();
    let old = network.wait_for_leader(0);
    network.propose(old, 0, 1, text(1));
    network.run_ms(50);
    network.isolate(old);
    let term = network.shard(old, 0).term;
    network.propose(old, 0, 2, text(2)); // will be lost
    let replaced =
        network.run_until_ms(5_000, |network| network.leader(0).is_some_and(|leader| leader != old));
    assert!(replaced);
    let new = network.leader(0).unwrap();
    network.propose(new, 0, 3, text(3));
    network.run_ms(100);
    assert!(!network.has_lease(old, 0));
    assert_eq!(network.payloads(new, 0), [text(1), text(3)]);

    network.cut.clear();
    network.run_ms(2_000);
    assert_eq!(network.payloads(old, 0), [text(1), text(3)]);
    assert!(network.shard(old, 0).term > term);
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn a_paused_leader_wakes_without_a_lease() {
    let mut network = three();
    let old = network.wait_for_leader(0);
    network.run_ms(300);
    assert!(network.has_lease(old, 0));
    network.pause(old, network.time + 3_000 * MS);
    network.run_ms(2_900);
    assert!(!network.has_lease(old, 0), "the clock went on, so the lease is over before it runs again");
    network.run_ms(3_000);
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn what_was_not_synced_is_lost_and_comes_back_from_the_others() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    for number in 0..20 {
        network.propose(leader, 0, number, text(number));
    }
    network.run_ms(200);
    let follower = if leader == 1 { 2 } else { 1 };
    network.propose(leader, 0, 20, text(20));
    network.run_ms(3);
    network.crash(follower, 0);
    network.run_ms(200);
    network.start(follower);
    network.run_ms(2_000);
    let expected: Vec<Bytes> = (0..21).map(text).collect();
    assert_eq!(network.payloads(follower, 0), expected);
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn a_crash_of_all_loses_nothing_acknowledged() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    for number in 0..50 {
        network.propose(leader, 0, number, text(number));
        network.run_ms(2);
    }
    let acknowledged = network.payloads(leader, 0);
    assert!(acknowledged.len() > 30);
    for id in 1..=3 {
        network.crash(id, 0);
    }
    for id in 1..=3 {
        network.start(id);
    }
    let leader = network.wait_for_leader(0);
    network.run_ms(500);
    for id in 1..=3 {
        assert!(network.payloads(id, 0).starts_with(&acknowledged), "node {id}");
    }
    network.propose(leader, 0, 100, text(100));
    network.run_ms(100);
    assert_eq!(network.payloads(leader, 0).last(), Some(&text(100)));
}

#[test]
fn a_transfer_takes_a_moment_and_the_old_leader_refuses_meanwhile() {
    let mut network = three();
    let old = network.wait_for_leader(0);
    network.run_ms(300);
    let target = if old == 3 { 2 } else { 3 };
    network.input(old, Input::Transfer { group: 0, to: Some(target) });
    network.propose(old, 0, 9, text(9));
    network.run_ms(0);
    assert!(!network.has_lease(old, 0), "given up before anything is sent");
    assert!(network.shard(old, 0).retiring);
    assert_eq!(network.shard(old, 0).refused, [9]);
    let handed = network.run_until_ms(100, |network| network.leader(0) == Some(target));
    assert!(handed, "an election would have taken half a second at least");
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn a_transfer_to_a_dead_node_ends_in_a_new_term_of_the_old_leader() {
    let mut network = three();
    let old = network.wait_for_leader(0);
    network.run_ms(300);
    let term = network.shard(old, 0).term;
    let target = if old == 3 { 2 } else { 3 };
    network.crash(target, 0);
    network.input(old, Input::Transfer { group: 0, to: Some(target) });
    network.run_ms(400);
    assert!(!network.has_lease(old, 0));
    assert_eq!(network.shard(old, 0).term, term, "the target may still act on the transfer");
    let back = network.run_until_ms(1_000, |network| network.leader(0) == Some(old));
    assert!(back);
    assert_eq!(network.shard(old, 0).term, term + 1);
    network.propose(old, 0, 1, text(1));
    network.run_ms(100);
    assert_eq!(network.payloads(old, 0), [text(1)]);
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn a_stopping_node_hands_over_all_it_leads_and_stays_out() {
    let mut network = Network::new(3, Plan { groups: 6, home: true, ..Plan::default() });
    network.run_ms(3_000);
    assert_eq!(network.nodes[&2].consensus.as_ref().unwrap().led(), 2);
    network.input(2, Input::TransferAll);
    let handed = network.run_until_ms(200, |network| {
        (0..6).all(|group| network.leader(group).is_some_and(|leader| leader != 2))
    });
    assert!(handed);
    let terms = |network: &Network| (0..6).map(|group| network.status(1, group).term).collect::<Vec<_>>();
    let before = terms(&network);
    network.run_ms(10_000);
    assert_eq!(network.nodes[&2].consensus.as_ref().unwrap().led(), 0);
    assert_eq!(terms(&network), before, "nobody tries to give its groups back while it is still there");

    // Nothing is written meanwhile: it lacks nothing when it is back.
    network.crash(2, 0);
    for node in [1, 3] {
        network.input(node, Input::Unreachable { node: 2 });
    }
    network.run_ms(100);
    network.start(2);
    let returned =
        network.run_until_ms(4_000, |network| [1, 4].iter().all(|group| network.leader(*group) == Some(2)));
    let status = |group| [1, 2, 3].map(|node| network.status(node, group));
    assert!(returned, "it need not wait longer than any other: {:?} {:?}", status(1), status(4));
}

#[test]
fn a_leader_whose_connections_broke_is_replaced_as_soon_as_the_promise_to_it_ends() {
    for seed in 0..100 {
        let mut network =
            Network::new(seed, Plan { nodes: 3 + 2 * (seed % 2), breaks: true, ..Plan::default() });
        let old = network.wait_for_leader(0);
        network.run_ms(300 + seed);
        network.crash(old, 0);
        let replaced = |network: &Network| network.leader(0).is_some_and(|leader| leader != old);
        assert!(!network.run_until_ms(350, replaced), "seed {seed}: its lease may still be valid");
        // At most two heartbeats may have been on their way, and one more round be needed.
        assert!(network.run_until_ms(600, replaced), "seed {seed}: a timeout was waited for");
        assert_eq!(network.violations, Vec::<String>::new());
    }
}

#[test]
fn a_broken_connection_to_a_leader_that_lives_costs_it_nothing() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    network.run_ms(300);
    let term = network.shard(leader, 0).term;
    for _ in 0..50 {
        for node in (1..=3).filter(|node| *node != leader) {
            network.input(node, Input::Unreachable { node: leader });
        }
        network.run_ms(100);
        assert_eq!((network.leader(0), network.shard(leader, 0).term), (Some(leader), term));
    }
}

#[test]
fn a_new_cluster_is_led_from_home_at_once_and_after_a_return() {
    let mut network = Network::new(5, Plan { groups: 3, home: true, ..Plan::default() });
    let at_home = |network: &Network| (0..3).all(|group| network.leader(group) == Some(1 + u64::from(group)));
    assert!(network.run_until_ms(300, at_home), "before any election timeout");
    network.crash(2, 0);
    let served = network.run_until_ms(3_000, |network| network.leader(1).is_some_and(|leader| leader != 2));
    assert!(served);
    network.start(2);
    assert!(network.run_until_ms(5_000, at_home), "leadership goes home");
    network.run_ms(5_000);
    assert!(at_home(&network), "and stays there");
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn a_round_is_confirmed_by_a_quorum_and_refused_to_a_cut_off_leader() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    let term = network.shard(leader, 0).term;
    network.input(leader, Input::ReadRound { group: 0, term, round: 1 });
    network.input(leader, Input::ReadRound { group: 0, term, round: 2 });
    network.input(leader, Input::ReadRound { group: 0, term: term - 1, round: 3 });
    network.run_ms(50);
    let applied = network.shard(leader, 0).applied;
    assert_eq!(network.shard(leader, 0).rounds, [(3, None), (1, Some(applied)), (2, Some(applied))]);

    network.isolate(leader);
    network.input(leader, Input::ReadRound { group: 0, term, round: 4 });
    network.run_ms(3_000);
    assert_eq!(network.shard(leader, 0).rounds[3..], [(4, None)]);
}

#[test]
fn a_round_before_the_first_commit_of_a_term_waits_for_it() {
    let mut network = three();
    // The leader learns of its election before anything of its term can be committed.
    let elected = network
        .run_until_ms(5_000, |network| (1..=3).any(|id| network.shard(id, 0).role == Some(Role::Leader)));
    assert!(elected);
    let leader = (1..=3).find(|id| network.shard(*id, 0).role == Some(Role::Leader)).unwrap();
    assert_eq!(network.shard(leader, 0).applied, 0);
    let term = network.shard(leader, 0).term;
    network.input(leader, Input::ReadRound { group: 0, term, round: 7 });
    network.run_ms(0);
    assert_eq!(network.shard(leader, 0).rounds, []);
    network.run_ms(100);
    assert_eq!(network.shard(leader, 0).rounds, [(7, Some(1))]);
}

#[test]
fn once_a_proposal_is_refused_no_later_one_of_the_term_is_taken() {
    let mut plan = Plan::default();
    plan.settings.entry_bytes_max = 100;
    let mut network = Network::new(1, plan);
    let leader = network.wait_for_leader(0);
    network.run_ms(200);
    let term = network.shard(leader, 0).term;
    network.propose(leader, 0, 1, text(1));
    network.propose(leader, 0, 2, vec![0; 101]);
    network.propose(leader, 0, 3, text(3));
    network.run_ms(20);
    network.propose(leader, 0, 4, text(4));
    network.run_ms(0);
    assert_eq!(network.shard(leader, 0).refused, [2, 3, 4]);
    network.run_ms(1_000);
    assert!(network.shard(leader, 0).term > term, "a term begins in which it may propose again");
    let leader = network.wait_for_leader(0);
    network.propose(leader, 0, 5, text(5));
    network.run_ms(100);
    assert_eq!(network.payloads(leader, 0), [text(1), text(5)]);
}

#[test]
fn a_follower_refuses_and_forwards_nothing() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    network.run_ms(300);
    let follower = if leader == 1 { 2 } else { 1 };
    network.propose(follower, 0, 1, text(1));
    network.run_ms(300);
    assert_eq!(network.shard(follower, 0).refused, [1]);
    assert_eq!(network.payloads(leader, 0), Vec::<Bytes>::new());
}

#[test]
fn a_single_voter_serves_alone_and_survives_a_crash() {
    let mut network = Network::new(1, Plan { nodes: 1, home: true, ..Plan::default() });
    assert!(network.run_until_ms(200, |network| network.leader(0) == Some(1)));
    network.propose(1, 0, 1, text(1));
    network.run_ms(10);
    assert_eq!(network.payloads(1, 0), [text(1)]);
    network.run_ms(2_000);
    assert!(network.has_lease(1, 0));
    let term = network.shard(1, 0).term;
    network.input(1, Input::ReadRound { group: 0, term, round: 1 });
    network.input(1, Input::Transfer { group: 0, to: None });
    network.run_ms(10);
    assert_eq!(network.shard(1, 0).rounds, [(1, Some(2))]);
    assert!(network.has_lease(1, 0), "there is nobody to hand over to");

    network.crash(1, 0);
    network.start(1);
    assert!(network.run_until_ms(200, |network| network.leader(0) == Some(1)), "nobody to be patient with");
    assert_eq!(network.payloads(1, 0), [text(1)]);
}

fn small_log() -> Plan {
    let mut plan = Plan::default();
    plan.settings.log_entries_max = 50;
    plan.settings.slack_entries_max = 10;
    plan.settings.cache_bytes_max = 200;
    plan
}

#[test]
fn the_log_stays_short_and_a_far_behind_replica_gets_a_snapshot() {
    let mut network = Network::new(2, small_log());
    let leader = network.wait_for_leader(0);
    let behind = if leader == 1 { 2 } else { 1 };
    network.crash(behind, 0);
    for number in 0..400 {
        network.propose(leader, 0, number, text(number));
        network.run_ms(3);
    }
    let status = network.status(leader, 0);
    assert!(status.last - status.first < 120, "{status:?}");
    assert!(network.shard(leader, 0).snapshots_asked >= 5);

    network.start(behind);
    let expected: Vec<Bytes> = (0..400).map(text).collect();
    let caught_up = network.run_until_ms(5_000, |network| network.payloads(behind, 0) == expected);
    assert!(caught_up);
    assert_eq!(network.shard(behind, 0).installed, 1);

    // What the snapshot brought is durable, and the log goes on behind it.
    network.propose(leader, 0, 400, text(400));
    network.run_ms(100);
    network.crash(behind, 0);
    network.start(behind);
    network.run_ms(3_000);
    assert_eq!(network.payloads(behind, 0).len(), 401);
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn entries_out_of_memory_are_read_back_for_a_follower() {
    let mut plan = small_log();
    plan.settings.log_entries_max = 10_000;
    let mut network = Network::new(2, plan);
    let leader = network.wait_for_leader(0);
    let behind = if leader == 1 { 2 } else { 1 };
    network.crash(behind, 0);
    for number in 0..300 {
        network.propose(leader, 0, number, text(number));
        network.run_ms(3);
    }
    network.start(behind);
    network.run_ms(2_000);
    let expected: Vec<Bytes> = (0..300).map(text).collect();
    assert_eq!(network.payloads(behind, 0), expected);
    assert_eq!(network.shard(behind, 0).installed, 0);
}

#[test]
fn a_slow_shard_is_not_buried_in_entries() {
    let mut plan = Plan::default();
    plan.settings.unapplied_bytes_max = 1_000;
    let mut network = Network::new(2, plan);
    let leader = network.wait_for_leader(0);
    network.run_ms(200);
    let slow = if leader == 1 { 2 } else { 1 };
    network.nodes.get_mut(&slow).unwrap().shards.get_mut(&0).unwrap().hold_applied = true;
    for number in 0..100 {
        network.propose(leader, 0, number, vec![number as u8 + 1; 100]);
        network.run_ms(5);
    }
    assert!(network.run_until_ms(PATIENCE_MS, |network| network.payloads(leader, 0).len() == 100));
    let last = network.status(leader, 0).last;
    let knows_all = |network: &Network| network.status(slow, 0).committed == last;
    assert!(
        network.run_until_ms(PATIENCE_MS, knows_all),
        "it has every entry and knows that it may apply it"
    );
    assert_eq!(network.payloads(slow, 0).len(), 10);
    let shard = network.nodes.get_mut(&slow).unwrap().shards.get_mut(&0).unwrap();
    shard.hold_applied = false;
    let index = shard.state.last().unwrap().0;
    network.input(slow, Input::Applied { group: 0, index });
    let level = |network: &Network| network.payloads(slow, 0) == network.payloads(leader, 0);
    assert!(network.run_until_ms(PATIENCE_MS, level));
}

#[test]
fn members_change_while_the_group_serves() {
    let mut network = Network::new(4, Plan { nodes: 4, ..Plan::default() });
    let leader = network.wait_for_leader(0);
    network.run_ms(200);
    let gone = if leader == 4 { 3 } else { 4 };
    let kept: Vec<ReplicaId> = (1..=4).filter(|id| *id != gone).map(|id| ReplicaId::new(id, 0)).collect();
    let term = network.shard(leader, 0).term;
    let change = |sequence, voters: Vec<ReplicaId>, learners| Input::ChangeMembers {
        group: 0,
        term,
        sequence,
        voters,
        learners,
    };
    // To a learner and in the same step nobody else's vote is touched: two changes, hence joint.
    let learner = vec![ReplicaId::new(gone, 0)];
    network.input(leader, change(1, kept.clone(), learner.clone()));
    network.input(leader, change(2, kept.clone(), vec![]));
    network.propose(leader, 0, 3, text(3));
    network.run_ms(300);
    assert_eq!(network.shard(leader, 0).refused, [2], "one change at a time");
    let members = network.status(leader, 0).members;
    assert_eq!((members.voters, members.outgoing, members.learners), (kept.clone(), vec![], learner));
    assert_eq!(network.payloads(leader, 0), [text(3)]);

    network.input(leader, change(4, kept.clone(), vec![]));
    network.run_ms(300);
    network.crash(gone, 0);
    for id in (1..=4).filter(|id| *id != gone && *id != leader).take(1) {
        network.crash(id, 0);
    }
    network.propose(leader, 0, 5, text(5));
    network.run_ms(300);
    assert_eq!(network.payloads(leader, 0), [text(3), text(5)], "two of three are a majority");
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn a_replica_that_lacks_what_it_acknowledged_ends_with_a_line() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    for sequence in 1..=20 {
        network.propose(leader, 0, sequence, text(sequence));
        network.run_ms(50);
    }
    let other = if leader == 1 { 2 } else { 1 };
    network.crash(other, 0);
    assert!(network.nodes[&other].log.lose(crate::log::Harm::LogPutBack));
    network.start(other);
    let run = std::panic::AssertUnwindSafe(|| network.run_ms(2_000));
    let end = std::panic::catch_unwind(run).expect_err("it does not go on");
    let Some(crate::log::Fatal::Lost(line)) = crate::log::Fatal::of(&*end) else { panic!("it says why") };
    assert!(line.contains("was acknowledged by this node, but its log ends at"), "{line}");
}

#[test]
fn ticks_that_come_in_a_burst_count_once() {
    let log = crate::log::MemoryLog::new();
    let group = GroupSettings {
        group: 0,
        replica: ReplicaId::new(1, 0),
        voters: vec![ReplicaId::new(1, 0), ReplicaId::new(2, 0)],
        home: None,
        election_ticks: Some(10),
        lease: Arc::default(),
        recovered: None,
    };
    let mut consensus = Consensus::new(Settings::default(), vec![group], Arc::new(log), 0);
    for now in [50 * MS, 60 * MS, 99 * MS, 1_000 * MS, 1_001 * MS, 1_049 * MS] {
        for _ in 0..20 {
            consensus.step(Input::Tick, now);
        }
    }
    assert_eq!(consensus.status(0).unwrap().role, Role::Follower { leader: None });
    for tick in 2..=9 {
        consensus.step(Input::Tick, (1_000 + tick * 50) * MS);
    }
    assert_eq!(consensus.status(0).unwrap().role, Role::Candidate);
}

#[test]
fn garbage_from_a_peer_is_dropped() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    network.run_ms(200);
    let term = network.shard(leader, 0).term;
    let mut random = network::Random(7);
    let other = if leader == 1 { 2 } else { 1 };
    for round in 0..2_000 {
        let length = random.below(60) as usize;
        let mut data: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        if round % 2 == 0 {
            // A plausible frame around the noise: kind, to, from, term.
            let mut message = raft::eraftpb::Message::default();
            let kinds = raft::eraftpb::MessageType::MsgRequestPreVoteResponse as u64 + 1;
            let kind = protobuf::ProtobufEnum::from_i32(random.below(kinds) as i32);
            message.set_msg_type(kind.unwrap());
            message.to = leader;
            message.from = other;
            message.term = random.below(term + 1);
            message.index = random.below(20);
            message.log_term = random.below(3);
            message.commit = random.below(2);
            message.reject = random.chance(50);
            message.reject_hint = random.below(20);
            data = protobuf::Message::write_to_bytes(&message).unwrap();
        }
        let message = PeerMessage {
            group: random.below(2) as u32,
            from: ReplicaId::new(other, 0),
            to: ReplicaId::new(leader, 0),
            stamp: random.next(),
            echo: random.next(),
            time: random.next(),
            reads: random.chance(50),
            data: data.into(),
        };
        network.input(leader, Input::Message(message));
    }
    network.run_ms(500);
    let leader = network.wait_for_leader(0);
    network.propose(leader, 0, 1, text(1));
    network.run_ms(200);
    assert_eq!(network.payloads(leader, 0), [text(1)]);
}

#[test]
fn answers_of_strangers_are_not_remembered() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    let me = ReplicaId::new(leader, 0);
    let (term, now) = (network.shard(leader, 0).term, network.clock(leader));
    let consensus = network.nodes.get_mut(&leader).unwrap().consensus.as_mut().unwrap();
    let mut answer = |from: ReplicaId| {
        let mut message = raft::eraftpb::Message::default();
        message.set_msg_type(raft::eraftpb::MessageType::MsgHeartbeatResponse);
        (message.to, message.from, message.term) = (me.0, from.0, term);
        let data = protobuf::Message::write_to_bytes(&message).unwrap().into();
        let message =
            PeerMessage { group: 0, from, to: me, stamp: 0, echo: now, time: 0, reads: false, data };
        consensus.step(Input::Message(message), now);
        consensus.groups[&0].echoes.of(term, from.0)
    };
    assert_eq!(answer(ReplicaId::new(leader % 3 + 1, 0)), now);
    assert_eq!(answer(ReplicaId::new(leader % 3 + 1, 7)), 0, "a life that is no member");
    assert_eq!(answer(ReplicaId::new(9, 0)), 0);
}

/// As many bytes as make this many parts, each part another letter.
fn large(parts: u8) -> Bytes {
    (0..parts)
        .flat_map(|part| vec![b'a' + part; Settings::default().part_bytes()])
        .collect::<Vec<u8>>()
        .into()
}

#[test]
fn a_large_proposal_is_handed_over_whole_and_costs_no_term() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    let term = network.shard(leader, 0).term;
    network.propose(leader, 0, 1, large(10));
    network.propose(leader, 0, 2, text(2));
    network.run_ms(1_000);
    for id in 1..=3 {
        let payloads = network.payloads(id, 0);
        assert_eq!(payloads.len(), 11);
        assert!(payloads[..10].concat() == large(10), "the parts make what was proposed");
        assert_eq!(payloads[10], text(2));
    }
    assert_eq!(network.shard(leader, 0).term, term);
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn parts_of_a_leader_that_lost_its_term_come_to_nothing() {
    let mut network = three();
    let old = network.wait_for_leader(0);
    network.propose(old, 0, 1, text(1));
    network.run_ms(50);
    network.propose(old, 0, 2, large(120));
    network.run_ms(8);
    network.isolate(old);
    network.run_until_ms(5_000, |network| network.leader(0).is_some_and(|leader| leader != old));
    let new = network.leader(0).unwrap();
    network.propose(new, 0, 3, text(3));
    network.run_ms(500);
    assert!(network.payloads(new, 0) == [text(1), text(3)]);
    let given_up = network.shard(new, 0).state.iter().filter(|(_, _, data)| data.is_empty()).count();
    assert!(given_up > 2, "some parts were in the log");
    network.cut.clear();
    network.run_ms(2_000);
    assert!(network.payloads(old, 0) == [text(1), text(3)]);
    assert_eq!(network.violations, Vec::<String>::new());
}

#[test]
fn what_followers_have_is_told_while_it_is_watched() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    network.propose(leader, 0, 1, text(1));
    network.run_ms(100);
    assert_eq!(network.followers, Vec::<Vec<u64>>::new());
    network.input(leader, Input::WatchFollowers { group: 0, watched: true });
    network.propose(leader, 0, 2, text(2));
    network.run_ms(100);
    let last = network.shard(leader, 0).state.last().unwrap().0;
    assert_eq!(network.followers.last(), Some(&vec![last, last]));
    network.input(leader, Input::WatchFollowers { group: 0, watched: false });
    let told = network.followers.len();
    network.propose(leader, 0, 3, text(3));
    network.run_ms(100);
    assert_eq!(network.followers.len(), told);
}

/// How long a follower, on which clients read or not, knows less than its leader after each of twenty writes in a
/// second, at most; and how many messages all that took.
fn follow_twenty_writes(reads: bool) -> (u64, u64) {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    let follower = leader % 3 + 1;
    network.input(follower, Input::Readers { group: 0, present: reads });
    network.run_ms(300);
    let (before, mut slowest) = (network.sent, 0);
    for number in 0..20_usize {
        let end = network.time + 50 * MS;
        network.propose(leader, 0, number as u64, text(number as u64));
        let has = |id: NodeId| move |network: &Network| network.payloads(id, 0).len() == number + 1;
        assert!(network.run_until_ms(50, has(leader)));
        let committed = network.time;
        network.run_until_ms((end - committed) / MS, has(follower));
        slowest = slowest.max(network.time - committed);
        network.run_ms((end - network.time) / MS);
    }
    assert_eq!(network.violations, Vec::<String>::new());
    (slowest / MS, network.sent - before)
}

#[test]
fn a_follower_with_readers_hears_of_commits_at_once_and_others_cost_nothing() {
    let (slowest, messages) = follow_twenty_writes(false);
    // Appends and their answers; heartbeats and theirs.
    let plain = 20 * 4 + 11 * 4;
    assert!(messages <= plain, "{messages} messages");
    assert!(slowest > 20, "{slowest} ms: it hears of a commit with what comes next");
    let (slowest, messages) = follow_twenty_writes(true);
    assert!(messages <= plain + 20 * 2, "{messages} messages");
    // A way of three, and two syncs of two; the turns of the network's clock.
    assert!(slowest <= 10, "{slowest} ms");
}

#[test]
fn under_load_followers_with_readers_cost_no_more_messages_than_they_answer() {
    let sent = |reads: bool| {
        let mut network = three();
        let leader = network.wait_for_leader(0);
        network.input(leader % 3 + 1, Input::Readers { group: 0, present: reads });
        network.run_ms(300);
        let before = network.sent;
        for number in 0..1_000 {
            network.propose(leader, 0, number, text(number));
            network.run_ms(1);
        }
        assert_eq!(network.violations, Vec::<String>::new());
        network.sent - before
    };
    // Nearly all news travel with the next append.
    let (without, with) = (sent(false), sent(true));
    assert!(with <= without + without / 4, "{with} messages instead of {without}");
}
