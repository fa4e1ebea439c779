//! Who listens to what, on one replica.
//!
//! It is kept from both sides: [`Listening`] are the names of one listener,
//! [`Subscriptions`] the listeners by name. A transaction asks how many hear a
//! message, and the shard sends it to them once it is committed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::glob;

/// A session's number in its shard. A number is used again after its session
/// has ended.
pub type SessionId = usize;

/// Names of one kind of subscription.
pub type Names = BTreeSet<Bytes>;

/// Names a session listens to.
#[derive(Default)]
pub struct Listening {
    /// `SUBSCRIBE`
    pub channels: Names,
    /// `PSUBSCRIBE`
    pub patterns: Names,
    /// `SSUBSCRIBE`
    pub shard_channels: Names,
}

impl Listening {
    /// How many names.
    pub fn count(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.shard_channels.len()
    }
}

/// Listeners by name, of one kind of subscription.
pub type Listeners = BTreeMap<Bytes, Vec<SessionId>>;

/// The listeners of a replica.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// `SUBSCRIBE`, by channel.
    pub channels: Listeners,
    /// `PSUBSCRIBE`, by pattern.
    pub patterns: Listeners,
    /// `SSUBSCRIBE`, by channel.
    pub shard_channels: Listeners,
}

/// Adds a listener, who does not listen to `name` yet.
pub fn add(listeners: &mut Listeners, name: &Bytes, id: SessionId) {
    listeners.entry(name.clone()).or_default().push(id);
}

/// Takes a listener away.
pub fn remove(listeners: &mut Listeners, name: &Bytes, id: SessionId) {
    if let Some(sessions) = listeners.get_mut(name) {
        sessions.retain(|&other| other != id);
        if sessions.is_empty() {
            listeners.remove(name);
        }
    }
}

impl Subscriptions {
    /// How many sessions hear a message to `channel`.
    pub fn count(&self, channel: &[u8], sharded: bool) -> usize {
        let named = if sharded { &self.shard_channels } else { &self.channels };
        let exact = named.get(channel).map_or(0, Vec::len);
        let matching =
            self.patterns.iter().filter(|(pattern, _)| !sharded && glob::matches(pattern, channel));
        exact + matching.map(|(_, sessions)| sessions.len()).sum::<usize>()
    }

    /// Whether anybody may hear what happens to keys.
    pub fn may_hear_events(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    /// A session has ended.
    pub fn forget(&mut self, id: SessionId, listening: &Listening) {
        listening.channels.iter().for_each(|name| remove(&mut self.channels, name, id));
        listening.patterns.iter().for_each(|name| remove(&mut self.patterns, name, id));
        listening.shard_channels.iter().for_each(|name| remove(&mut self.shard_channels, name, id));
    }
}
