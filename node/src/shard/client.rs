//! What a command about the session, the server or the cluster works with.

use std::sync::Arc;

use moonraft_router::{ReplicaPlace, SlotMap};

use super::{
    Output, Pause, ProcessFacts, SessionId, Shard, ShardSettings, Standing, Surroundings,
    session::{Session, WatchedKey},
    slow_log::SlowLog,
    statistics::{Details, Rates, Statistics},
    waits::Unblocked,
};
use crate::{keyspace::Tx, subscriptions::Subscriptions};

/// A client's turn: its session and its shard.
pub struct Client<'a> {
    pub(super) shard: &'a mut Shard,
    pub(super) id: SessionId,
    /// Not in a script or a `MULTI` block.
    pub(super) may_block: bool,
}

impl Client<'_> {
    /// The client's session.
    pub fn session(&self) -> &Session {
        &self.shard.sessions[self.id]
    }

    /// The client's session, to be changed.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.shard.sessions[self.id]
    }

    /// Its number among the shard's sessions.
    pub const fn session_id(&self) -> SessionId {
        self.id
    }

    /// Closes a session's connection: this one's after its reply, any other at once.
    pub fn close(&mut self, id: SessionId) {
        let Some(session) = self.shard.sessions.get_mut(id) else { return };
        session.closing = true;
        if id != self.id {
            self.shard.outputs.push(Output::Close(id));
        }
    }

    /// Whether a command may block the session until something happens.
    pub const fn may_block(&self) -> bool {
        self.may_block
    }

    /// Blocks the session until `wanted` followers have what was executed so far, or
    /// this time is over; 0: for ever. The command itself answers nothing.
    pub fn wait_for_followers(&mut self, wanted: usize, timeout_ms: u64) {
        assert!(self.may_block, "a script or a block of requests never waits");
        self.shard.wait_for_followers(self.id, wanted, timeout_ms);
    }

    /// Ends what blocks a session. Returns whether it was blocked.
    pub fn unblock(&mut self, id: SessionId, reason: Unblocked) -> bool {
        self.shard.unblock(id, reason)
    }

    /// Requests are left unread for a while, or are read again.
    pub fn pause(&mut self, pause: Option<Pause>) {
        self.shard.set_pause(pause);
    }

    /// The pause that lasts, if any.
    pub fn paused(&self) -> Option<Pause> {
        let now = self.shard.surroundings.boot_ns();
        self.shard.pause.filter(|pause| now < pause.until_ns)
    }

    /// Whether the data are not yet what the log held at the start, or a snapshot is being installed.
    pub fn is_loading(&self) -> bool {
        !self.shard.is_caught_up()
    }

    /// All sessions of this replica.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.shard.sessions.iter()
    }

    /// The data, with a unit open.
    pub fn tx(&self) -> &Tx {
        self.shard.tx()
    }

    /// The data, with a unit open, to be changed.
    pub fn tx_mut(&mut self) -> &mut Tx {
        self.shard.tx_mut()
    }

    /// Who listens to what on this replica.
    pub fn listeners(&mut self) -> &mut Subscriptions {
        self.shard.listeners_mut()
    }

    /// The session stops watching keys.
    pub fn unwatch(&mut self) {
        self.shard.unwatch(self.id);
    }

    /// The session watches a key from now on.
    pub fn watch(&mut self, key: &[u8]) {
        let known = self.session().watches.iter().any(|watched| *watched.key == *key);
        if !known {
            let was_there = self.tx().is_there(key);
            let change = self.tx_mut().keyspace_mut().watched.watch(key);
            self.session_mut().watches.push(WatchedKey { key: key.into(), change, was_there });
        }
    }

    /// The world around the shard.
    pub fn surroundings(&self) -> &dyn Surroundings {
        &*self.shard.surroundings
    }

    /// The cluster as this node knows it, with addresses that reach it from where
    /// the client is.
    pub fn map(&self) -> Arc<SlotMap> {
        self.shard.surroundings.map(self.session().network)
    }

    /// Whether the shard has had no leader for so long that requests are told so.
    pub fn is_leaderless(&self) -> bool {
        self.shard.is_leaderless_for_long(self.shard.surroundings.boot_ns())
    }

    /// The place of this replica in the map.
    pub fn place(&self, map: &SlotMap) -> Option<ReplicaPlace> {
        self.shard.place(map)
    }

    /// What does not change while the shard runs.
    pub const fn settings(&self) -> &ShardSettings {
        &self.shard.settings
    }

    /// What this replica is at the moment.
    pub const fn standing(&self) -> Standing {
        self.shard.standing
    }

    /// The last applied entry: index and term.
    pub const fn applied(&self) -> (u64, u64) {
        self.shard.applied
    }

    /// Counters.
    pub const fn statistics(&self) -> Statistics {
        self.shard.statistics
    }

    /// Counters by command and by error code.
    pub const fn details(&self) -> &Details {
        &self.shard.details
    }

    /// What happened in the last second.
    pub const fn rates(&self) -> Rates {
        self.shard.rates
    }

    /// Requests that took long.
    pub fn slow_log(&mut self) -> &mut SlowLog {
        &mut self.shard.slow_log
    }

    /// When the data were last saved, Unix microseconds, and changes since.
    pub fn saved(&self) -> (u64, u64) {
        let (at_us, changes) = self.shard.saved;
        (at_us, self.tx().keyspace().changes().saturating_sub(changes))
    }

    /// All there is is as good as saved now.
    pub fn note_saved(&mut self) {
        self.shard.note_saved();
    }

    /// All counters begin anew.
    pub fn reset_statistics(&mut self) {
        self.shard.statistics = Statistics::default();
        self.shard.details = Details::default();
        self.tx().reset_lookups();
    }

    /// Sessions whose requests wait for a leader, for room, for a pause to end, or
    /// for followers.
    pub fn waiting_count(&self) -> usize {
        self.shard.parked.len() + self.shard.blocked_count()
    }

    /// Bytes of batches that are proposed and not yet committed.
    pub fn in_flight_bytes(&self) -> usize {
        self.shard.speculation.bytes()
    }

    /// Facts about the process.
    pub fn facts(&self) -> ProcessFacts {
        self.shard.surroundings.facts()
    }
}
