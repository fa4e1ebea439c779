//! A client is only ever told addresses of the network it comes from.
//!
//! In the harness a replica is at `127.0.0.1:port` inside, and a thousand ports
//! above at `outside.example` from outside.

use bytes::Bytes;
use moonraft_router::Network;

use super::ShardHarness;

/// Every request whose answer holds addresses.
const TELLING: [&str; 5] = ["CLUSTER SLOTS", "CLUSTER NODES", "CLUSTER SHARDS", "INFO replication", "ROLE"];

#[test]
fn no_answer_names_an_address_of_the_other_network() {
    let mut shard = ShardHarness::leading();
    let (inside, outside) = (shard.connect(), shard.connect_from(Network::Outside));
    for standing in ["leader", "follower"] {
        for request in TELLING {
            let told = shard.send(inside, request);
            assert!(told.contains("127.0.0.1"), "{standing}, {request}: {told}");
            assert!(!told.contains("outside.example"), "{standing}, {request}: {told}");
            let told = shard.send(outside, request);
            assert!(told.contains("outside.example"), "{standing}, {request}: {told}");
            assert!(!told.contains("127.0.0.1"), "{standing}, {request}: {told}");
        }
        shard.lose_leadership(2);
        shard.commit(2, Bytes::new());
    }
}

#[test]
fn redirects_lead_to_where_the_client_can_go() {
    let mut shard = ShardHarness::leading();
    let (inside, outside) = (shard.connect(), shard.connect_from(Network::Outside));
    assert_eq!(shard.send(inside, "GET x"), "-MOVED 16287 127.0.0.1:7102");
    assert_eq!(shard.send(outside, "GET x"), "-MOVED 16287 outside.example:8102");
    // A write that is lost is redirected long after it was asked.
    shard.send(inside, "SET k 1");
    shard.send(outside, "SET k 2");
    shard.lose_leadership(2);
    shard.commit(2, Bytes::new());
    assert_eq!(shard.read(inside), "-MOVED 7629 127.0.0.1:7101");
    assert_eq!(shard.read(outside), "-MOVED 7629 outside.example:8101");
}
