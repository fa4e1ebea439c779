//! Batches need no more of their readers than was agreed on.

use bytes::Bytes;
use moonraft_proto::entry::{Batch, FIRST_FORMAT, NEWEST_FORMAT};

use super::{ShardHarness, ShardSettings};
use crate::shard::Event;

const EVERY: Event = Event::Readable { term: 1, format: NEWEST_FORMAT };

fn formats(shard: &ShardHarness) -> Vec<u8> {
    shard.proposals.iter().map(|(_, data)| Batch::decode(data).unwrap().format).collect()
}

#[test]
fn a_leader_agrees_on_what_all_members_read_and_not_before() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SET k v");
    shard.pass_ms(100);
    assert_eq!(formats(&shard), [FIRST_FORMAT]);
    // Of another term, or what is agreed on anyhow.
    shard.handle(Event::Readable { term: 2, format: NEWEST_FORMAT });
    shard.pass_ms(100);
    shard.handle(Event::Readable { term: 1, format: FIRST_FORMAT });
    shard.pass_ms(100);
    // A member that read it came back as one that does not.
    shard.handle(EVERY);
    shard.handle(Event::Readable { term: 1, format: FIRST_FORMAT });
    shard.pass_ms(100);
    assert_eq!(formats(&shard), [FIRST_FORMAT]);

    shard.handle(EVERY);
    shard.pass_ms(100);
    shard.pass_ms(100);
    assert_eq!(formats(&shard), [FIRST_FORMAT, NEWEST_FORMAT], "once");
    assert_eq!((shard.shard.agreed_format(), shard.shard.committed_format()), (NEWEST_FORMAT, FIRST_FORMAT));
    shard.commit_all();
    assert_eq!(shard.shard.committed_format(), NEWEST_FORMAT);
}

#[test]
fn an_agreement_that_is_lost_is_taken_back_and_one_that_commits_all_the_same_counts() {
    for commits in [false, true] {
        let mut shard = ShardHarness::leading();
        shard.handle(EVERY);
        shard.pass_ms(100);
        let (term, data) = shard.proposals.pop_front().expect("it is proposed");
        shard.lose_leadership(2);
        assert_eq!(shard.shard.agreed_format(), FIRST_FORMAT);
        if commits {
            shard.commit(term, data);
        }
        shard.commit(2, Bytes::new());
        let expected = if commits { NEWEST_FORMAT } else { FIRST_FORMAT };
        assert_eq!((shard.shard.agreed_format(), shard.shard.committed_format()), (expected, expected));
        // What was readable in an earlier term says nothing.
        shard.lead(3);
        shard.pass_ms(100);
        assert!(shard.proposals.is_empty());
    }
}

#[test]
fn a_snapshot_is_of_the_format_that_is_agreed_on_in_it() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    shard.send(client, "SET k v");
    shard.commit_all();
    for agreed in [FIRST_FORMAT, NEWEST_FORMAT] {
        shard.handle(Event::TakeSnapshot);
        while shard.shard.wants_walk() {
            shard.walk(1 << 20);
        }
        let (index, term, chunks) = shard.snapshots.pop().expect("it was taken");
        // Its first chunk tells who does not read it.
        assert_eq!(Batch::decode(&chunks[0]).unwrap().format, agreed);
        let mut other = ShardHarness::following_with(ShardSettings::default());
        other.handle(Event::InstallSnapshot { index, term, chunks });
        assert_eq!((other.shard.agreed_format(), other.shard.committed_format()), (agreed, agreed));
        shard.handle(EVERY);
        shard.pass_ms(100);
        shard.commit_all();
    }
}
