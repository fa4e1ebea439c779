//! The network between nodes: messages are lost, doubled, delayed and so reordered;
//! links are cut, one way or both; connections break.

use moonraft::{
    consensus::{Input, PeerMessage, ReplicaId},
    control::birth::Memory,
    keyspace::tx::Publication,
};
use rand::RngExt;

use super::{Event, MS, World};
use crate::{marks::mark, node::Told};

/// What a node sends to another.
#[derive(Clone)]
pub(super) enum Parcel {
    /// To one of its groups.
    Raft(PeerMessage),
    /// A node is fit to lead or is not, would agree on this format, wants to be a voter of these groups, and serves these
    /// shards, each in this term.
    Hints { replica: ReplicaId, is_fit: bool, format: u8, joining: Vec<u32>, serves: Vec<(u32, u64)> },
    /// Published on a shard.
    Published(u32, Vec<Publication>),
    /// A node, in this life, asks what is known of it.
    Recall(usize, u32),
    /// The answer, to that life of the asker: who answers, and what.
    Memory(u32, usize, Memory),
}

impl World {
    pub(super) fn send(&mut self, from: usize, messages: Vec<PeerMessage>) {
        for message in messages {
            let to = message.to.node() as usize - 1;
            self.send_parcel(from, to, &Parcel::Raft(message));
        }
    }

    pub(super) fn send_parcel(&mut self, from: usize, to: usize, parcel: &Parcel) {
        let copies = if self.draw(self.weather.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            if self.cut.contains(&(from, to)) || self.draw(self.weather.drop) {
                continue;
            }
            let delay = self.draw_delay();
            self.after(delay, Event::Deliver(to, Box::new(parcel.clone())));
        }
    }

    /// To all other nodes.
    pub(super) fn send_to_all(&mut self, from: usize, parcel: &Parcel) {
        for to in (0..self.nodes.len()).filter(|&to| to != from) {
            self.send_parcel(from, to, parcel);
        }
    }

    /// Nothing passes these links any more, and those that send there notice it sooner or later.
    pub(super) fn cut_links(&mut self, links: impl IntoIterator<Item = (usize, usize)>) {
        for (from, to) in links {
            if self.cut.insert((from, to)) {
                let delay = self.rng.random_range(1..2000) * MS;
                self.after(delay, Event::ConnectionBreaks(from, to));
            }
        }
    }

    /// The system of a node whose process ended closes its connections; one that lost its
    /// power closes none.
    pub(super) fn connections_close(&mut self, node: usize) {
        if self.rng.random_bool(0.3) {
            return;
        }
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            if !self.cut.contains(&(node, other)) {
                let delay = self.draw_delay();
                self.after(delay, Event::ConnectionBreaks(other, node));
            }
        }
    }

    /// It may be back by then, and the link whole: connections break without a reason too.
    pub(super) fn connection_breaks(&mut self, from: usize, to: usize) {
        let node = self.nodes[to].id;
        self.learn(from, |directory, _| directory.lost(node));
        self.input(from, Input::Unreachable { node });
    }

    /// How long something is on its way from a node to another.
    pub(super) fn draw_delay(&mut self) -> u64 {
        let (low, high) = self.weather.delay;
        let high = if self.calm { low * 10 } else { high };
        self.rng.random_range(low..high)
    }

    /// Whether something happens that does while there are faults.
    pub(super) fn draw(&mut self, likely: f64) -> bool {
        !self.calm && likely > 0.0 && self.rng.random_bool(likely)
    }

    pub(super) fn deliver(&mut self, node: usize, parcel: Box<Parcel>) {
        let is_paused = self.is_paused(node);
        let (paused_until, life) = (self.nodes[node].paused_until, self.nodes[node].life);
        let Some(running) = &mut self.nodes[node].running else { return };
        if is_paused {
            // A process that is stopped still has its sockets' buffers.
            return self.at(paused_until, Event::Deliver(node, parcel));
        }
        match *parcel {
            Parcel::Raft(message) => self.input(node, Input::Message(message)),
            Parcel::Hints { replica, is_fit, format, joining, serves } => {
                self.hear_hints(node, replica.node(), &serves);
                for group in joining {
                    self.input(node, Input::JoinWanted { group, replica });
                }
                self.input(node, Input::Fitness { node: replica.node(), fit: is_fit });
                self.input(node, Input::Agrees { node: replica.node(), format });
            }
            Parcel::Published(shard, publications) => {
                mark("message heard at another node");
                self.deliver_published(node, shard, &publications);
            }
            Parcel::Recall(from, life) => self.tell_consensus(node, Told::Recall(from, life)),
            Parcel::Memory(asked_in, from, memory) if asked_in == life => {
                running.birth.heard(from as u64 + 1, memory);
            }
            Parcel::Memory(..) => {}
        }
    }
}
