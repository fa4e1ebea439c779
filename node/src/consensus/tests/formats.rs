//! What the shard of a leader is told that all members read.

use moonraft_proto::entry::FIRST_FORMAT;

use super::network::{Network, Plan};
use super::three;
use crate::consensus::*;

/// Between two times that a node says what it reads.
const SAID_MS: u64 = 250;

/// Time passes in which these nodes say which format they would agree on.
fn say(network: &mut Network, formats: &[(NodeId, u8)], ms: u64) {
    for _ in 0..ms / SAID_MS {
        for hearer in 1..=3 {
            for &(node, format) in formats {
                network.input(hearer, Input::Agrees { node, format });
            }
        }
        network.run_ms(SAID_MS);
    }
}

#[test]
fn a_format_is_readable_once_all_members_say_so_and_as_long_as_they_do() {
    let mut network = three();
    let leader = network.wait_for_leader(0);
    say(&mut network, &[(1, 2), (2, 2)], 1000);
    assert_eq!(network.readable, [(leader, FIRST_FORMAT)], "nothing is known of one");
    say(&mut network, &[(1, 2), (2, 2), (3, 3)], 2000);
    assert_eq!(network.readable[1..], [(leader, 2)]);
    // One says nothing any more: an older build may come in its place.
    say(&mut network, &[(1, 2), (2, 2)], 2000);
    assert_eq!(network.readable[2..], [(leader, FIRST_FORMAT)]);
    say(&mut network, &[(1, 3), (2, 3), (3, 3)], 2000);
    say(&mut network, &[(1, 3), (2, 1), (3, 3)], 2000);
    assert_eq!(network.readable[3..], [(leader, 3), (leader, FIRST_FORMAT)]);
}

#[test]
fn a_node_that_does_not_read_what_may_have_been_written_is_not_taken_in() {
    let mut network = Network::new(1, Plan::default());
    let leader = network.wait_for_leader(0);
    let lost = leader % 3 + 1;
    let all = |format| [(leader, 2), (6 - leader - lost, 2), (lost, format)];
    say(&mut network, &all(2), 1000);
    assert_eq!(network.readable.last(), Some(&(leader, 2)));
    network.wipe(lost);
    say(&mut network, &all(1), 5000);
    assert!(!network.votes(lost), "an old build");
    let status = network.status(leader, 0);
    assert!(status.members.learners.is_empty() && status.members.voters.len() == 3);
    say(&mut network, &all(2), 5000);
    assert!(network.votes(lost), "a build that reads it");
    assert_eq!(network.violations, Vec::<String>::new());
}
