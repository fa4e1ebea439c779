//! The end of a run: the world heals, and must serve again; replicas must be equal
//! and what clients saw must make sense.

use std::collections::VecDeque;

use super::{Event, HEALED_WITHIN, MS, Report, World};
use crate::{
    checker, disk,
    history::Action,
    marks::mark,
    node::Node,
    streams::Ask,
    workload::{Jobs, NUMBERS_EACH, Queue, Request, Way, library_of, member_of, twins_of},
};

impl World {
    /// No more faults: all links work, all nodes run.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        self.cut.clear();
        for node in 0..self.nodes.len() {
            let state = &mut self.nodes[node];
            state.paused_until = 0;
            state.disk.broken = false;
            state.disk.full_until = 0;
            state.disk.files_full_until = 0;
            state.disk.hung_until = 0;
            state.used_bytes.set(0);
            state.clock.stall_ns.set(0);
            self.set_free(node, disk::PLENTY_BYTES);
            if self.nodes[node].running.is_none() {
                self.start(node);
            } else {
                let life = self.nodes[node].life;
                self.after(0, Event::Wake(node, life));
            }
        }
    }

    /// Every shard serves a write and a read, and all clients come to an end.
    pub(super) fn expect_service(&mut self) -> Result<(), String> {
        let deadline = self.now.get() + HEALED_WITHIN;
        let mut open = last_requests(self.weather.mix.keys, self.shards);
        while !open.is_empty() || self.clients.iter().any(|client| client.request.is_some()) {
            if self.now.get() > deadline {
                return Err(format!(
                    "no service after healing: {} requests left: {}",
                    open.len(),
                    self.describe()
                ));
            }
            if let Some(client) = self.clients.iter().position(|client| client.request.is_none())
                && let Some(request) = open.pop_front()
            {
                let before = self.report.unknown;
                self.begin(client, request.clone());
                while self.clients[client].request.is_some() {
                    self.next()?;
                }
                if self.report.unknown > before && self.now.get() < deadline {
                    self.unique += NUMBERS_EACH;
                    open.push_back(request.again(self.unique));
                }
            }
            self.next()?;
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> String {
        let show = |node: &Node| match &node.running {
            None => format!("{} down", node.id),
            Some(running) => {
                let shards =
                    running.shards.iter().enumerate().map(|(shard, state)| {
                        format!("{:?} {:?}", state.standing(), node.status(shard as u32))
                    });
                format!("{} {}", node.id, shards.collect::<Vec<_>>().join(" "))
            }
        };
        self.nodes.iter().map(show).collect::<Vec<_>>().join("\n")
    }

    /// Lets replicas catch up, then compares them and checks the history.
    pub(super) fn finish(mut self) -> Result<Report, String> {
        let deadline = self.now.get() + HEALED_WITHIN;
        while self.misses_a_voter() || !self.replicas_are_level() {
            if self.now.get() > deadline {
                return Err(format!("replicas do not catch up: {}", self.describe()));
            }
            self.next()?;
        }
        for shard in 0..self.shards {
            let digests: Vec<String> = self.nodes.iter().map(|node| digest(node, shard)).collect();
            if digests.iter().any(|digest| *digest != digests[0]) {
                return Err(format!("replicas of shard {shard} have parted: {digests:?}"));
            }
            self.report.digests.extend(digests);
        }
        self.history.believe_what_was_heard()?;
        self.report.undecided = checker::check(&self.history)?;
        self.report.virtual_ms = self.now.get() / MS;
        self.report.marks = moonraft::marks::take();
        Ok(self.report)
    }

    /// Replicas that have applied the same entries hold the same, all along. What a
    /// leader is ahead by is not compared.
    pub(super) fn compare_at(&mut self, node: usize, shard: usize) {
        let Some(running) = &self.nodes[node].running else { return };
        let state = &running.shards[shard];
        let index = state.applied().0;
        if index % COMPARED_EACH != 0 || state.is_speculating() || state.is_amidst() {
            return;
        }
        let found = digest(&self.nodes[node], shard);
        match self.levels.get(&(shard, index)) {
            None => drop(self.levels.insert((shard, index), found)),
            Some(other) if *other == found => mark("replicas compared at one index"),
            Some(other) => {
                self.wrong =
                    Some(format!("replicas of shard {shard} have parted at {index}: {other}, {found}"));
            }
        }
    }

    pub(super) fn replicas_are_level(&self) -> bool {
        (0..self.shards).all(|shard| {
            let applied = |node: &Node| node.running.as_ref().map(|running| running.shards[shard].applied());
            let first = applied(&self.nodes[0]);
            let settled = |node: &Node| {
                let state = node.running.as_ref().map(|running| &running.shards[shard]);
                state.is_some_and(|state| {
                    state.is_caught_up() && !state.is_speculating() && !state.is_amidst()
                })
            };
            first.is_some() && self.nodes.iter().all(|node| applied(node) == first && settled(node))
        })
    }
}

/// Replicas are compared when they have applied an entry whose index is a multiple of it.
const COMPARED_EACH: u64 = 4;

/// What is asked when all is well again: every key is written and read, so that what
/// was acknowledged must be there.
fn last_requests(keys: u32, shards: usize) -> VecDeque<Request> {
    let of_key = move |which: u32| {
        let tag = |name: &str| format!("{{tag{which}}}{name}");
        let unique = 1_000_000_000 + u64::from(which);
        let read = |key: String| (key, Action::Read);
        let lists = || (0..3).map(|list| (tag(&format!("list{list}")), Action::ReadList));
        [
            Request::Keys(
                Way::Block,
                vec![(tag("count"), Action::Add(1)), (tag("list0"), Action::Append(unique))],
            ),
            Request::Keys(Way::Script, lists().collect()),
            Request::Keys(Way::Block, vec![read(tag("account0")), read(tag("account1"))]),
            Request::Keys(Way::Together, (0..4).map(|at| read(member_of(which, at))).collect()),
            Request::Twins(twins_of(which, shards)),
            Request::Jobs(which, Jobs::Count),
            Request::Queue(which, Queue::Look),
            Request::Stream(which, Ask::Look),
            Request::Keys(Way::Library, vec![read(library_of(which))]),
            Request::Keys(Way::Commands, vec![read(format!("register{which}"))]),
            Request::Keys(Way::Commands, vec![read(tag("fleeting"))]),
        ]
    };
    (0..keys).flat_map(of_key).collect()
}

fn digest(node: &Node, shard: usize) -> String {
    let running = node.running.as_ref().expect("all nodes run at the end");
    let keyspace = running.shards[shard].keyspace();
    format!("{} {}", keyspace.digest(), keyspace.shared_digest())
}
