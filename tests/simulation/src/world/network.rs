//! The network between nodes: messages are lost, doubled, delayed and so reordered;
//! links are cut, one way or both; connections break.

use moonraft::consensus::{Input, PeerMessage};
use rand::RngExt;

use super::{Event, MS, World};

impl World {
    pub(super) fn send(&mut self, from: usize, messages: Vec<PeerMessage>) {
        for message in messages {
            let to = message.to.node() as usize - 1;
            let copies = if self.draw(self.weather.duplicate) { 2 } else { 1 };
            for _ in 0..copies {
                if self.cut.contains(&(from, to)) || self.draw(self.weather.drop) {
                    continue;
                }
                let delay = self.draw_delay();
                self.after(delay, Event::Deliver(to, message.clone()));
            }
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

    pub(super) fn deliver(&mut self, node: usize, message: PeerMessage) {
        if self.nodes[node].running.is_none() {
            return;
        }
        if self.is_paused(node) {
            // A process that is stopped still has its sockets' buffers.
            return self.at(self.nodes[node].paused_until, Event::Deliver(node, message));
        }
        self.input(node, Input::Message(message));
    }
}
