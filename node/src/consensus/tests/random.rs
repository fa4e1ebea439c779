//! Seeds: faults of all kinds at random, then peace; safety throughout, and service once faults end.

use bytes::Bytes;

use super::network::{MS, Network, Plan, Random};
use crate::consensus::*;

/// A plan of the seed's own.
fn plan(random: &mut Random, fault: PlantedFault) -> Plan {
    let mut settings = Settings { fault, ..Settings::default() };
    if random.chance(50) {
        settings.log_entries_max = 20 + random.below(100);
        settings.slack_entries_max = random.below(30);
        settings.cache_bytes_max = random.below(500);
        settings.unapplied_bytes_max = 50 + random.below(2_000);
        settings.message_bytes_max = 5 + random.below(100);
        settings.turn_bytes_max = 1 + random.below(300);
    }
    let latency = random.below(20);
    Plan {
        nodes: if random.chance(70) { 3 } else { 5 },
        groups: 1 + random.below(2) as u32,
        settings,
        latency_ms: (0, 1 + latency * latency / 3),
        sync_ms: (0, 1 + random.below(30)),
        disk_bytes_per_ms: None,
        drop_percent: random.below(15),
        repeat_percent: random.below(30),
        drift_percent: random.below(6) * 10 / 11, // two clocks each off by up to 4 or 5 percent
        home: random.chance(50),
        breaks: random.chance(50),
    }
}

/// One turn of misfortune.
fn disturb(network: &mut Network, random: &mut Random) {
    let nodes = network.plan.nodes;
    let id = 1 + random.below(nodes);
    match random.below(14) {
        0 | 1 => network.isolate(id),
        2 => {
            let other = 1 + random.below(nodes);
            network.cut.insert((id, other));
        }
        3 | 4 => {
            if network.nodes[&id].consensus.is_some() {
                network.crash(id, random.below(2) as usize);
                if random.chance(60) {
                    network.start(id); // quickly enough to meet promises it made before
                }
            }
        }
        5 => network.pause(id, network.time + random.below(2_000) * MS),
        6 => network.input(id, Input::Transfer { group: 0, to: None }),
        7 => {
            let to = Some(1 + random.below(nodes));
            network.input(id, Input::Transfer { group: 0, to });
        }
        8 => network.input(id, Input::Readers { group: 0, present: true }),
        9 | 10 => network.cut.clear(),
        11 => restart_supporter(network, random),
        12 => lose_disk(network, id),
        _ => {
            for id in 1..=nodes {
                if network.nodes[&id].consensus.is_none() {
                    network.start(id);
                }
            }
        }
    }
}

/// A disk is lost, if no more are missing by then than a majority can bear.
fn lose_disk(network: &mut Network, id: u64) {
    let nodes = network.plan.nodes;
    let whole = |other: &u64| {
        // One that is down has its disk, unless it has not yet been told who it is.
        let node = &network.nodes[other];
        match node.consensus {
            Some(_) => network.votes(*other),
            None => node.incarnation == Some(0),
        }
    };
    let others = (1..=nodes).filter(|other| *other != id).filter(whole).count() as u64;
    if others > nodes / 2 {
        network.wipe(id);
    }
}

/// The one follower a leader still has restarts, and is cut off from it at that moment, while the others look for a
/// leader: what it promised before must hold.
fn restart_supporter(network: &mut Network, random: &mut Random) {
    let Some(leader) = network.leader(0) else {
        return;
    };
    let follower = 1 + random.below(network.plan.nodes);
    if follower == leader || network.nodes[&follower].consensus.is_none() {
        return;
    }
    network.run_ms(200); // the others have the whole log, so nothing but the promise keeps them from votes
    network.isolate(leader);
    network.cut.remove(&(leader, follower));
    network.cut.remove(&(follower, leader));
    network.run_ms(random.below(1_500));
    network.crash(follower, 0);
    network.start(follower);
    network.isolate(leader);
    network.run_ms(500);
}

struct Client {
    sequence: u64,
    rounds: u64,
}

/// Every node that thinks it leads is given something to do.
fn work(network: &mut Network, client: &mut Client) {
    for group in 0..network.plan.groups {
        for id in 1..=network.plan.nodes {
            let leads =
                network.nodes[&id].consensus.is_some() && network.shard(id, group).role == Some(Role::Leader);
            if !leads {
                continue;
            }
            client.sequence += 1;
            network.propose(id, group, client.sequence, Bytes::from(client.sequence.to_string()));
            client.rounds += 1;
            let (term, round) = (network.shard(id, group).term, client.rounds);
            network.input(id, Input::ReadRound { group, term, round });
        }
    }
}

/// The run of a seed: what went wrong.
pub fn run(seed: u64, fault: PlantedFault, turns: u64) -> Vec<String> {
    let mut random = Random(seed);
    let plan = plan(&mut random, fault);
    let (nodes, groups) = (plan.nodes, plan.groups);
    let mut network = Network::new(random.next(), plan);
    let mut client = Client { sequence: 0, rounds: 0 };
    for _ in 0..turns {
        for _ in 0..1 + random.below(10) {
            let pace = random.below(40);
            network.run_ms(pace);
            work(&mut network, &mut client);
        }
        disturb(&mut network, &mut random);
        if !network.violations.is_empty() {
            return network.violations;
        }
    }

    // Peace: everything committed is everywhere, and the cluster serves.
    network.cut.clear();
    network.plan.drop_percent = 0;
    for id in 1..=nodes {
        if network.nodes[&id].consensus.is_none() {
            network.start(id);
        }
    }
    network.run_ms(20_000); // whoever lost a disk is taken in, one after the other
    for id in 1..=nodes {
        if !network.votes(id) {
            network.violations.push(format!("node {id} is no voter after 20 s of peace"));
        }
    }
    for group in 0..groups {
        let Some(leader) = network.leader(group) else {
            network.violations.push(format!("group {group} has no leader after 10 s of peace"));
            continue;
        };
        network.propose(leader, group, u64::MAX, &b"peace"[..]);
        network.run_ms(1_000);
        for id in 1..=nodes {
            let state = network.shard(id, group).state.clone();
            if state.last().is_none_or(|entry| &entry.2[..] != b"peace") {
                network.violations.push(format!("node {id} does not follow in group {group}"));
            }
            let complete = network.committed.iter().filter(|((of, _), _)| *of == group).all(
                |((_, index), (term, data))| {
                    state.get(*index as usize - 1) == Some(&(*index, *term, data.clone()))
                },
            );
            if !complete {
                network.violations.push(format!("node {id} lost a committed entry of group {group}"));
            }
        }
    }
    network.violations
}

fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

#[test]
fn no_seed_breaks_a_promise() {
    let from = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    for seed in from..from + seeds() {
        let violations = run(seed, PlantedFault::None, 60);
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    let trace = |seed| {
        let mut random = Random(seed);
        let plan = plan(&mut random, PlantedFault::None);
        let mut network = Network::new(random.next(), plan);
        let mut client = Client { sequence: 0, rounds: 0 };
        for _ in 0..20 {
            network.run_ms(50);
            work(&mut network, &mut client);
            disturb(&mut network, &mut random);
        }
        (network.sent, network.committed.clone(), network.random.next())
    };
    assert_eq!(trace(11), trace(11));
}

fn caught(fault: PlantedFault) -> bool {
    let seed = (0..200).find(|seed| !run(*seed, fault, 60).is_empty());
    println!("{fault:?}: found by seed {seed:?}");
    seed.is_some()
}

#[test]
fn a_lease_without_margin_is_caught() {
    assert!(caught(PlantedFault::LeaseWithoutMargin));
}

#[test]
fn votes_right_after_a_restart_are_caught() {
    assert!(caught(PlantedFault::VoteAfterRestart));
}
