//! Which life of its disk a node is in, if the disk does not tell.
//!
//! A replica promises things: a vote, an entry it keeps. A node with an empty disk may have lost such promises, so it
//! must not act under an id that made any. It asks its peers what they remember of it ([`Memory`]), and is either in
//! its **first** life (incarnation 0, one of the voters its groups begin with), or it **joins** them under the
//! incarnation after the highest that was ever in a configuration (`consensus::join`). It waits until it can tell.
//! The decision is durable before anything else is done.
//!
//! # The first life
//!
//! All peers that share a shard with it must have answered, and none of them has begun: no group of theirs has a term
//! or a log. Let an earlier life of the node have made a promise that counts: a vote, or the keeping of an entry,
//! that some candidate or leader C counted. C had its term durable before it asked for votes, so before that life
//! made its promise, so before the disk was lost, so before this life asked anyone. C is a peer, it answered since,
//! and it had begun. A majority of answers would not do: an old request of a C that was not asked may still collect
//! other votes later.
//!
//! C's own disk may be lost as well, and C be asked after that. Then the promise counts only if it already made a
//! leader or a committed entry, in a majority of which all others (at least one, or the group has lost more disks
//! than it can bear) have begun; else C does not know of it any more, and nobody else ever did. What was on its way
//! to C went with the process: no stream outlives one of its ends.
//!
//! # Another life
//!
//! Some peer has begun. Let an earlier life have acted under incarnation j > 0. A leader sends to a member only, so a
//! configuration with (node, j) was committed while that life lasted: it is in the logs of a majority Q of the voters,
//! of which there is one a node, on `majority` nodes of the group. None of them is this node: its voter was of a life
//! before j, which had ended. Of the other `replicas - 1` nodes this life hears at least `replicas - majority`, so one
//! of Q; and it counts only those who vote (by what they have applied): they have their log since the group began, or
//! were brought up to the entry that made them voters, which is behind that configuration, as their disk was lost
//! after they had stored it. So that node tells of j, committed or not, and the incarnation taken is higher. Asked
//! before the loss, or answered late: neither happens, since the question is of this life.
//!
//! A peer whose replica of a group is closed (`server::housing`) tells that the group has begun, and does not count as one who
//! votes: its log is not looked through.
//!
//! # The begin
//!
//! A node in its first life does not begin (campaign, vote) before all its peers have decided, or one has begun:
//! else those who decide first would begin without the last, and make it a joiner. Safety does not need this.
//!
//! Deliberately left out: a majority of disks lost at once. What was acknowledged is lost then, whatever starts.

use std::collections::{BTreeMap, BTreeSet};

use super::Topology;
use crate::consensus::{Recollection, ShardId};

/// What a peer remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// It knows which life of its own disk it is in.
    pub decided: bool,
    /// By shard, of those it has a replica of.
    pub shards: BTreeMap<ShardId, Recollection>,
}

/// What a node with an empty disk makes of its peers' answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These peers must answer, or remember more, before it can tell.
    Wait(BTreeSet<u64>),
    /// It is in its first life.
    First,
    /// It joins, under this incarnation.
    Joins(u32),
}

impl Memory {
    /// Of a node that has not begun. It knows the whole past of its groups if it is one of their first voters.
    pub fn before_begin(decided: Option<u32>, shards: impl IntoIterator<Item = ShardId>) -> Self {
        let recollection = Recollection { begun: false, voter: decided == Some(0), incarnation: 0 };
        let shards = shards.into_iter().map(|shard| (shard, recollection)).collect();
        Self { decided: decided.is_some(), shards }
    }
}

/// The way of a node to its begin. Who drives it asks the peers, tells it their answers, and keeps its decision.
#[derive(Clone, Debug)]
pub struct Birth {
    me: u64,
    decided: Option<u32>,
    answers: BTreeMap<u64, Memory>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To ask all peers, once more: the word of these is missing.
    Ask(BTreeSet<u64>),
    /// To make this incarnation durable, and then to say so: [`Birth::decide`].
    Decide(u32),
    /// To begin, in the incarnation that was decided.
    Begin,
}

impl Birth {
    /// Of node `me`, whose disk says which life it is in, or does not.
    pub fn new(me: u64, decided: Option<u32>) -> Self {
        Self { me, decided, answers: BTreeMap::new() }
    }

    /// A peer has answered, as it must have done in this life of the process.
    pub fn heard(&mut self, peer: u64, memory: Memory) {
        self.answers.insert(peer, memory);
    }

    /// The decision is durable.
    pub fn decide(&mut self, incarnation: u32) {
        assert_eq!(self.decided, None, "an incarnation is decided once");
        self.decided = Some(incarnation);
    }

    /// The incarnation, once it is durable.
    pub fn decided(&self) -> Option<u32> {
        self.decided
    }

    /// What is to be done, as far as the answers tell.
    pub fn next(&self, topology: &Topology) -> Step {
        let Some(incarnation) = self.decided else {
            return match verdict(topology, self.me, &self.answers) {
                Verdict::Wait(peers) => Step::Ask(peers),
                Verdict::First => Step::Decide(0),
                Verdict::Joins(incarnation) => Step::Decide(incarnation),
            };
        };
        let awaited = awaited(topology, self.me, &self.answers);
        if incarnation > 0 || awaited.is_empty() { Step::Begin } else { Step::Ask(awaited) }
    }
}

/// What the answers so far say of the life that node `me` is in.
pub fn verdict(topology: &Topology, me: u64, answers: &BTreeMap<u64, Memory>) -> Verdict {
    let remembered = shared(topology, me, answers);
    if !remembered.iter().any(|shard| shard.begun || shard.incarnation > 0) {
        let missing = missing(topology, me, |peer| answers.contains_key(&peer));
        return if missing.is_empty() { Verdict::First } else { Verdict::Wait(missing) };
    }
    let mut missing = BTreeSet::new();
    for shard in topology.shards_of(me) {
        let others: Vec<u64> =
            topology.nodes_of(shard).map(|entry| entry.id).filter(|&id| id != me).collect();
        let replicas = others.len() + 1;
        let majority = replicas / 2 + 1;
        let votes = |peer: &u64| {
            answers.get(peer).and_then(|memory| memory.shards.get(&shard)).is_some_and(|shard| shard.voter)
        };
        let (heard, silent): (Vec<u64>, Vec<u64>) = others.into_iter().partition(votes);
        if heard.len() < replicas - majority {
            missing.extend(silent);
        }
    }
    if !missing.is_empty() {
        return Verdict::Wait(missing);
    }
    let highest = remembered.iter().map(|shard| shard.incarnation).max().unwrap_or(0);
    Verdict::Joins(highest.checked_add(1).expect("no node loses its disk four billion times"))
}

/// The peers that keep a node in its first life from beginning; none: it may begin.
pub fn awaited(topology: &Topology, me: u64, answers: &BTreeMap<u64, Memory>) -> BTreeSet<u64> {
    if shared(topology, me, answers).iter().any(|shard| shard.begun) {
        return BTreeSet::new();
    }
    missing(topology, me, |peer| answers.get(&peer).is_some_and(|memory| memory.decided))
}

/// What is remembered of the shards that `me` has a replica of. Others may have begun without it.
fn shared(topology: &Topology, me: u64, answers: &BTreeMap<u64, Memory>) -> Vec<Recollection> {
    let mine: Vec<ShardId> = topology.shards_of(me).collect();
    let shards = answers.values().flat_map(|memory| &memory.shards);
    shards.filter(|(shard, _)| mine.contains(shard)).map(|(_, recollection)| *recollection).collect()
}

/// The nodes that share a shard with `me`, without those that are `there`.
fn missing(topology: &Topology, me: u64, there: impl Fn(u64) -> bool) -> BTreeSet<u64> {
    let shards = topology.shards_of(me);
    let sharing = shards.flat_map(|shard| topology.nodes_of(shard).map(|entry| entry.id));
    sharing.filter(|&id| id != me && !there(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::topology;

    /// A peer that tells the same of all its shards.
    fn memory(topology: &Topology, peer: u64, recollection: Recollection) -> (u64, Memory) {
        let shards = topology.shards_of(peer).map(|shard| (shard, recollection)).collect();
        (peer, Memory { decided: true, shards })
    }

    const NEW: Recollection = Recollection { begun: false, voter: false, incarnation: 0 };
    const OLD: Recollection = Recollection { begun: true, voter: true, incarnation: 0 };

    fn wait(peers: &[u64]) -> Verdict {
        Verdict::Wait(peers.iter().copied().collect())
    }

    #[test]
    fn a_node_alone_is_in_its_first_life_at_once() {
        assert_eq!(verdict(&topology(1, 3, 1), 1, &BTreeMap::new()), Verdict::First);
        assert!(awaited(&topology(1, 3, 1), 1, &BTreeMap::new()).is_empty());
    }

    #[test]
    fn the_first_life_needs_an_answer_of_all_and_a_beginning_of_none() {
        for (nodes, replicas) in [(3, 3), (5, 5)] {
            let topology = topology(nodes, 3, replicas);
            let mut answers = BTreeMap::new();
            for peer in 2..u64::from(nodes) {
                answers.extend([memory(&topology, peer, NEW)]);
                assert!(matches!(verdict(&topology, 1, &answers), Verdict::Wait(_)), "{peer}");
            }
            answers.extend([memory(&topology, u64::from(nodes), NEW)]);
            assert_eq!(verdict(&topology, 1, &answers), Verdict::First);
            let begun = Recollection { begun: true, ..NEW };
            answers.extend([memory(&topology, 2, begun)]);
            assert_ne!(verdict(&topology, 1, &answers), Verdict::First);
        }
    }

    #[test]
    fn a_node_that_was_forgotten_takes_the_incarnation_after_the_highest_that_voters_know() {
        let topology = topology(3, 3, 3);
        let mut answers = BTreeMap::from([memory(&topology, 2, OLD)]);
        assert_eq!(verdict(&topology, 1, &answers), Verdict::Joins(1));
        answers.extend([memory(&topology, 3, Recollection { incarnation: 4, ..OLD })]);
        assert_eq!(verdict(&topology, 1, &answers), Verdict::Joins(5));
    }

    #[test]
    fn the_word_of_those_who_do_not_vote_is_not_enough() {
        let learner = Recollection { voter: false, ..OLD };
        let three = topology(3, 3, 3);
        let mut answers = BTreeMap::from([memory(&three, 2, learner)]);
        assert_eq!(verdict(&three, 1, &answers), wait(&[2, 3]));
        answers.extend([memory(&three, 3, OLD)]);
        assert_eq!(verdict(&three, 1, &answers), Verdict::Joins(1));

        let five = topology(5, 5, 5);
        let mut answers = BTreeMap::from([memory(&five, 2, OLD), memory(&five, 3, learner)]);
        assert_eq!(verdict(&five, 1, &answers), wait(&[3, 4, 5]), "one voter of five");
        answers.extend([memory(&five, 5, OLD)]);
        assert_eq!(verdict(&five, 1, &answers), Verdict::Joins(1));
    }

    #[test]
    fn what_has_begun_without_the_node_does_not_count() {
        let seven = topology(7, 7, 3);
        let mut answers: BTreeMap<u64, Memory> = (2..=7).map(|peer| memory(&seven, peer, NEW)).collect();
        answers.extend([memory(&seven, 4, OLD)]);
        assert!(!seven.shards_of(4).any(|shard| seven.shards_of(1).any(|mine| mine == shard)));
        assert_eq!(verdict(&seven, 1, &answers), Verdict::First);
        assert!(awaited(&seven, 1, &answers).is_empty(), "all have decided");
    }

    #[test]
    fn a_node_asks_decides_and_begins() {
        let topology = topology(3, 3, 3);
        let mut birth = Birth::new(1, None);
        assert_eq!(birth.next(&topology), Step::Ask(BTreeSet::from([2, 3])));
        for peer in [2, 3] {
            birth.heard(peer, Memory::before_begin(None, topology.shards_of(peer)));
        }
        assert_eq!(birth.next(&topology), Step::Decide(0));
        birth.decide(0);
        assert_eq!(birth.next(&topology), Step::Ask(BTreeSet::from([2, 3])), "they have not decided");
        birth.heard(2, memory(&topology, 2, OLD).1);
        assert_eq!(birth.next(&topology), Step::Begin);

        let mut birth = Birth::new(1, None);
        birth.heard(2, memory(&topology, 2, OLD).1);
        assert_eq!(birth.next(&topology), Step::Decide(1));
        birth.decide(1);
        assert_eq!(birth.next(&topology), Step::Begin, "its peers have begun");
        assert_eq!(Birth::new(1, Some(4)).next(&topology), Step::Begin);
    }

    #[test]
    fn a_begin_awaits_that_all_have_decided_or_one_has_begun() {
        let topology = topology(3, 3, 3);
        let undecided = Memory { decided: false, ..Memory::default() };
        let mut answers = BTreeMap::from([memory(&topology, 2, NEW), (3, undecided)]);
        assert_eq!(awaited(&topology, 1, &answers), BTreeSet::from([3]));
        answers.extend([memory(&topology, 3, NEW)]);
        assert!(awaited(&topology, 1, &answers).is_empty());
        let answers = BTreeMap::from([memory(&topology, 2, OLD)]);
        assert!(awaited(&topology, 1, &answers).is_empty());
    }
}
