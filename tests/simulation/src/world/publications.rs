//! Published messages: from a shard to the subscribers of all nodes, and what those make of them.
//!
//! A number that is published is appended to a list in the same unit. So who hears of it knows that this was done; and as a
//! request is sent again only if it was not executed, nobody hears of one twice.

use std::collections::BTreeSet;

use moonraft::{
    keyspace::tx::Publication,
    replica::publications::{for_others, heard_at},
    shard::Event as ShardEvent,
};
use moonraft_router::Network;
use rand::RngExt;

use super::{Event, MS, World, clients::Connection, network::Parcel};
use crate::{
    marks::mark,
    value::read_value,
    workload::{announced, subscription},
};

/// A subscriber on its connection.
#[derive(Default)]
pub(super) struct Listener {
    /// Bytes that have come and are no whole message.
    bytes: Vec<u8>,
    heard: BTreeSet<u64>,
}

impl World {
    /// A subscriber connects to a replica of a node, and stays until that ends.
    pub(super) fn listen(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life {
            return;
        }
        if self.is_paused(node) {
            return self.at(self.nodes[node].paused_until, Event::Listen(node, life));
        }
        let shard = self.rng.random_range(0..self.shards);
        let Some(running) = &mut self.nodes[node].running else { return };
        let session = running.shards[shard]
            .connect("listener:1".into(), "server:1".into(), Network::Inside)
            .expect("there are few clients");
        let connection = (node, life, shard, session);
        self.listeners.insert(connection, Listener::default());
        self.receive(connection, &subscription());
    }

    /// A shard publishes. A connection between nodes loses messages when it breaks, and doubles none.
    pub(super) fn send_published(&mut self, node: usize, shard: u32, publications: Vec<Publication>) {
        for to in (0..self.nodes.len()).filter(|&to| to != node) {
            if !self.cut.contains(&(node, to)) && !self.draw(self.weather.drop) {
                let delay = self.draw_delay();
                let parcel = Parcel::Published(shard, for_others(&publications).cloned().collect());
                self.after(delay, Event::Deliver(to, Box::new(parcel)));
            }
        }
        mark("message heard at the node of its publisher");
        self.deliver_published(node, shard, &publications);
    }

    pub(super) fn deliver_published(&mut self, node: usize, from: u32, publications: &[Publication]) {
        for shard in 0..self.shards {
            let heard = heard_at(shard as u32, from, publications);
            if !heard.is_empty() {
                self.post(node, shard, ShardEvent::Deliver(heard));
            }
        }
    }

    /// What a subscriber is told.
    pub(super) fn hear(&mut self, connection: Connection, bytes: &[u8]) {
        let now = self.now.get() + MS; // it is on its way for a while
        let Some(listener) = self.listeners.get_mut(&connection) else { return };
        listener.bytes.extend_from_slice(bytes);
        let all = std::mem::take(&mut listener.bytes);
        let mut rest = all.as_slice();
        while let Some(word) = (!rest.is_empty()).then(|| read_value(&mut rest)).flatten() {
            let Some(n) = announced(&word) else { continue };
            if !listener.heard.insert(n) {
                self.wrong = Some(format!("{n} was heard of twice on one connection"));
            }
            let at = self.history.heard.entry(n).or_insert(now);
            *at = now.min(*at);
        }
        listener.bytes = rest.to_vec();
    }
}
