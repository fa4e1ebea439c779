//! A client's turn on the shard: what a command about the session, the server or the cluster works with.

use std::sync::Arc;

use moonraft_proto::Reply;
use moonraft_router::{ReplicaPlace, SlotMap};

use super::{
    Output, SessionId, Shard, Standing, admit::Reason, script::LIBRARIES_LOAD_NS_MAX, waits::Unblocked,
};
use crate::{
    command::{
        Client, CommandError,
        client::{Kill, Pause, ProcessFacts, ReplicaFacts, RunningFunction, TrackingFigures, Waiters},
        latency::Latency,
        session::{Session, Tracking, WatchedKey},
        slow_requests::SlowLog,
        statistics::{Details, Rates, Statistics},
    },
    keyspace::{Store, Tx, scripts::Sha1},
    script::RegisteredFunction,
    subscriptions::Subscriptions,
};

/// See the module.
pub(super) struct Turn<'a> {
    pub shard: &'a mut Shard,
    pub id: SessionId,
    /// Not in a script or a `MULTI` block.
    pub may_block: bool,
}

impl Client for Turn<'_> {
    fn session(&self) -> &Session {
        &self.shard.sessions[self.id]
    }

    fn session_mut(&mut self) -> &mut Session {
        &mut self.shard.sessions[self.id]
    }

    fn session_id(&self) -> SessionId {
        self.id
    }

    fn sessions(&self) -> Box<dyn Iterator<Item = (SessionId, &Session)> + '_> {
        Box::new(self.shard.sessions.iter().map(|(id, session)| (id, &**session)))
    }

    fn unread_bytes(&self, id: SessionId) -> usize {
        self.shard.sessions.get(id).map_or(0, |session| session.outbox.len())
    }

    fn waiting_count(&self) -> usize {
        self.shard.waiting.len() - self.shard.waiting.count(&Reason::Unread)
    }

    fn is_blocked(&self, id: SessionId) -> bool {
        self.shard.is_blocked(id)
    }

    fn waiters(&self) -> Waiters {
        self.shard.blocked.figures()
    }

    fn close(&mut self, id: SessionId) {
        let Some(session) = self.shard.sessions.get_mut(id) else { return };
        session.closing = true;
        self.shard.forget_blocked(id); // nothing is given to who is gone
        if id != self.id {
            self.shard.outputs.push(Output::Close(id));
        }
    }

    fn may_block(&self) -> bool {
        self.may_block
    }

    fn wait_for_followers(&mut self, wanted: usize, timeout_ms: u64, answer: fn(usize) -> Reply<'static>) {
        assert!(self.may_block, "a script or a block of requests never waits");
        self.shard.wait_for_followers(self.id, wanted, timeout_ms, answer);
    }

    fn unblock(&mut self, id: SessionId, with_error: bool) -> bool {
        if self.shard.end_soon(id, with_error) {
            return true;
        }
        self.shard.unblock(id, if with_error { Unblocked::ByClient } else { Unblocked::Reached })
    }

    fn monitor(&mut self, listens: bool) {
        self.shard.monitor(self.id, listens);
    }

    fn track(&mut self, tracking: Option<Tracking>) {
        self.shard.track(self.id, tracking);
    }

    fn tracking_figures(&self) -> TrackingFigures {
        self.shard.trackers.figures()
    }

    fn pause(&mut self, pause: Option<Pause>) {
        self.shard.set_pause(pause);
    }

    fn paused(&self) -> Option<Pause> {
        let now = self.shard.surroundings.boot_ns();
        self.shard.pause.filter(|pause| now < pause.until_ns)
    }

    fn expire_actively(&mut self, expires: bool) {
        self.shard.expires_actively = expires;
    }

    fn listeners(&self) -> &Subscriptions {
        &self.shard.listeners
    }

    fn listeners_mut(&mut self) -> &mut Subscriptions {
        &mut self.shard.listeners
    }

    fn store(&self) -> &Store {
        self.shard.store()
    }

    fn tx(&mut self) -> Tx<'_> {
        self.shard.tx()
    }

    fn watch(&mut self, key: &[u8]) {
        if !self.session().watches.contains_key(key) {
            let was_there = self.store().is_there(key);
            let change = self.shard.store_mut().keyspace_mut().watched.watch(key);
            self.session_mut().watches.insert(key.into(), WatchedKey { change, was_there });
        }
    }

    fn unwatch(&mut self) {
        self.shard.unwatch(self.id);
    }

    fn saved(&self) -> (u64, u64) {
        let (at_us, changes) = self.shard.saved;
        (at_us, self.store().keyspace().changes().saturating_sub(changes))
    }

    fn note_saved(&mut self) {
        self.shard.note_saved();
    }

    fn load_script(&mut self, text: &[u8]) -> Result<Sha1, CommandError> {
        self.shard.load_script(self.id, text)
    }

    fn knows_script(&self, name: &[u8]) -> bool {
        let name: Option<Sha1> = name.to_ascii_lowercase().try_into().ok();
        name.is_some_and(|name| self.shard.find_script(&name).is_some())
    }

    fn remember_script(&mut self, name: Sha1, text: &[u8]) {
        self.shard.seen_scripts.remember(name, text);
    }

    fn forget_scripts(&mut self) {
        self.shard.forget_scripts();
    }

    fn loading_ends_ns(&self) -> u64 {
        self.shard.surroundings.boot_ns() + LIBRARIES_LOAD_NS_MAX
    }

    fn load_library(&mut self, code: &[u8], ends_ns: u64) -> Result<Vec<RegisteredFunction>, CommandError> {
        self.shard.load_library(self.id, code, ends_ns)
    }

    fn forget_libraries(&mut self) {
        self.shard.forget_libraries();
    }

    fn running_function(&self) -> Result<Option<RunningFunction>, CommandError> {
        self.shard.running_function()
    }

    fn kill_script(&mut self, is_function: bool) -> Kill {
        self.shard.kill_script(is_function)
    }

    fn replica(&self) -> ReplicaFacts {
        let settings = &self.shard.settings;
        ReplicaFacts {
            shard: settings.shard,
            replica: settings.replica,
            node: settings.node,
            clients_max: settings.clients_max,
            in_flight_bytes_max: settings.in_flight_bytes_max,
        }
    }

    fn standing(&self) -> Standing {
        self.shard.standing
    }

    fn applied(&self) -> (u64, u64) {
        self.shard.applied
    }

    fn agreed_format(&self) -> u8 {
        self.shard.committed_format()
    }

    fn is_loading(&self) -> bool {
        !self.shard.is_caught_up()
    }

    fn is_leaderless(&self) -> bool {
        self.shard.is_leaderless_for_long(self.shard.surroundings.boot_ns())
    }

    fn passing_bytes(&self) -> usize {
        self.shard.passing_bytes()
    }

    fn in_flight_bytes(&self) -> usize {
        self.shard.speculation.bytes()
    }

    fn map(&self) -> Arc<SlotMap> {
        self.shard.surroundings.map(self.session().network)
    }

    fn place(&self, map: &SlotMap) -> Option<ReplicaPlace> {
        self.shard.place(map)
    }

    fn statistics(&self) -> Statistics {
        self.shard.statistics
    }

    fn details(&self) -> &Details {
        &self.shard.details
    }

    fn rates(&self) -> Rates {
        self.shard.rates
    }

    fn reset_statistics(&mut self) {
        self.shard.statistics = Statistics::default();
        self.shard.details = Details::default();
        self.store().reset_lookups();
    }

    fn latency(&self) -> &Latency {
        &self.shard.latency
    }

    fn latency_mut(&mut self) -> &mut Latency {
        &mut self.shard.latency
    }

    fn slow_log(&mut self) -> &mut SlowLog {
        &mut self.shard.slow_log
    }

    fn unix_us(&self) -> u64 {
        self.shard.surroundings.unix_us()
    }

    fn wall_clock_ahead_ms(&self) -> i64 {
        let surroundings = &self.shard.surroundings;
        self.shard.clock.behind_ms(surroundings.boot_ns(), surroundings.unix_us())
    }

    fn boot_ns(&self) -> u64 {
        self.shard.surroundings.boot_ns()
    }

    fn facts(&self) -> ProcessFacts {
        self.shard.surroundings.facts()
    }

    fn settings(&self, pattern: &[u8]) -> Vec<(String, String)> {
        self.shard.surroundings.settings(pattern)
    }

    fn change_settings(&self, changes: &[(&[u8], &[u8])]) -> Result<(), CommandError> {
        let changed = self.shard.surroundings.change_settings(changes);
        changed.map_err(|text| CommandError::Text(text.into()))
    }

    fn shut_down(&self) {
        self.shard.surroundings.shut_down();
    }
}
