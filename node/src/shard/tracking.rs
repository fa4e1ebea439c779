//! Clients that keep copies of what they read: `CLIENT TRACKING`. They are told to forget a key when it changes.
//!
//! In the default mode a table remembers which clients have read a key, and a change tells those, once; with `BCAST` a
//! client hears of each change of a key that begins like one of its prefixes. What changes is heard at the door of all
//! changes ([`crate::keyspace::watch`]), so it is the same whichever command, script, deadline or eviction it was, and
//! on a follower, which serves reads to `READONLY` clients, what it applies.
//!
//! While a unit runs, its reads and changes are noted in their order; when it has ended ([`Core::settle_unit`]) it is known
//! who is to forget what. That leaves when the batch is committed, beside its messages, and behind what the client was
//! answered before. So a client that asks again after it was told finds the change, or a later one.
//!
//! INVARIANTS:
//! * Who has read a key here, and was answered, is told when the state here changes in that key, or told to forget everything.
//! * Nobody is told by a unit that is undone. But a replica that loses leadership, takes changes back, or has its state replaced
//!   by a snapshot tells all its clients to forget everything: a copy that they have may be of what never was committed
//!   here, or of what another leader changes.
//!
//! What a client keeps may be old for as long as a leader that was cut off does not know it: it tells its clients when
//! it steps down, within an election timeout.
//!
//! Source: `tracking.c` of Redis 7.2.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hashbrown::HashTable;
use moonraft_proto::{Protocol, Reply};

use super::{Core, SessionId};
use crate::{
    command::{
        Command, Flag, Request,
        client::TrackingFigures,
        session::{Copies, Tracking},
    },
    keyspace::{Blob, Seed, watch::Heard},
    marks,
};

/// The channel at which a client of RESP2 hears what another is to forget.
const CHANNEL: &str = "__redis__:invalidate";

/// Readers of keys that are remembered, of all keys together: some 200 MiB.
const READERS_MAX: usize = 16 << 20;

/// Keys with those who have read them.
#[derive(Default)]
struct Table {
    seed: Seed,
    entries: Vec<Entry>,
    /// Where a key's entry is.
    places: HashTable<usize>,
    /// Readers of all keys.
    readers: usize,
}

struct Entry {
    key: Blob,
    /// Numbers of sessions, in their order.
    readers: Vec<u64>,
}

impl Table {
    fn place(&self, key: &[u8]) -> Option<usize> {
        self.places.find(self.seed.hash(key), |&at| *self.entries[at].key == *key).copied()
    }

    /// This session has read this key.
    fn insert(&mut self, key: &[u8], session: u64) {
        let at = self.place(key).unwrap_or_else(|| {
            let at = self.entries.len();
            self.entries.push(Entry { key: Blob::new(key), readers: Vec::new() });
            let Self { seed, entries, places, .. } = self;
            places.insert_unique(seed.hash(key), at, |&at| seed.hash(&entries[at].key));
            at
        });
        let readers = &mut self.entries[at].readers;
        if let Err(place) = readers.binary_search(&session) {
            readers.insert(place, session);
            self.readers += 1;
        }
    }

    /// Forgets a key. Returns who has read it.
    fn remove(&mut self, key: &[u8]) -> Vec<u64> {
        self.place(key).map_or(Vec::new(), |at| self.remove_at(at).readers)
    }

    fn remove_at(&mut self, at: usize) -> Entry {
        let Self { seed, entries, places, .. } = self;
        let last = entries.len() - 1;
        let hash = seed.hash(&entries[at].key);
        places.find_entry(hash, |&other| other == at).expect("each entry has a place").remove();
        if at != last {
            let hash = seed.hash(&entries[last].key);
            *places.find_mut(hash, |&other| other == last).expect("each entry has a place") = at;
        }
        let entry = entries.swap_remove(at);
        self.readers -= entry.readers.len();
        entry
    }

    fn clear(&mut self) {
        *self = Self { seed: self.seed.clone(), ..Self::default() };
    }
}

/// What somebody is to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    /// This session, by its number, forgets this key.
    One(u64, Blob),
    /// Who hears of all keys like this forgets it; but not, if it wants so, the session that changed it.
    Like(Blob, Option<u64>),
    /// All forget everything.
    All,
}

/// Who keeps copies on this replica.
#[derive(Default)]
pub(super) struct Trackers {
    /// By their numbers, where they are.
    clients: BTreeMap<u64, SessionId>,
    table: Table,
    /// Those who hear of all keys that begin so.
    prefixes: BTreeMap<Bytes, BTreeSet<u64>>,
}

impl Trackers {
    pub fn figures(&self) -> TrackingFigures {
        TrackingFigures {
            clients: self.clients.len(),
            keys: self.table.entries.len(),
            readers: self.table.readers,
            prefixes: self.prefixes.len(),
        }
    }

    /// A session hears of keys that begin so.
    fn enter(&mut self, number: u64, prefixes: &BTreeSet<Bytes>) {
        for prefix in prefixes {
            self.prefixes.entry(prefix.clone()).or_default().insert(number);
        }
    }

    /// A session hears of them no more.
    fn leave(&mut self, number: u64, prefixes: &BTreeSet<Bytes>) {
        for prefix in prefixes {
            if let Some(sessions) = self.prefixes.get_mut(prefix) {
                sessions.remove(&number);
                if sessions.is_empty() {
                    self.prefixes.remove(prefix);
                }
            }
        }
    }
}

impl Core {
    // ---- who keeps copies ---------------------------------------------------------

    /// A session keeps copies in this way from now on; `None`: it keeps none.
    pub(super) fn track(&mut self, id: SessionId, tracking: Option<Tracking>) {
        let number = self.sessions[id].number;
        if let Some(before) = self.sessions[id].tracking.take() {
            self.trackers.leave(number, &before.prefixes);
        }
        match &tracking {
            Some(tracking) => {
                self.trackers.enter(number, &tracking.prefixes);
                self.trackers.clients.insert(number, id);
            }
            // What the table has of it is passed over.
            None => drop(self.trackers.clients.remove(&number)),
        }
        self.sessions[id].tracking = tracking.map(Box::new);
        let is_heard = !self.trackers.clients.is_empty();
        if !is_heard {
            self.trackers.table.clear();
        }
        self.store_mut().keyspace_mut().watched.hear_all_changes(is_heard);
    }

    // ---- what is read and changed ---------------------------------------------------

    /// Notes the keys of a request that a session has executed, if it keeps copies of what it read.
    pub(super) fn note_copies(&mut self, id: SessionId, request: &Request<'_>) {
        if self.keeps_copies(id, request.command) {
            request.keys().for_each(|key| self.store_mut().note_read(key));
        }
    }

    /// Whether a session keeps copies of what this command reads.
    pub(super) fn keeps_copies(&self, id: SessionId, command: &Command) -> bool {
        let Some(tracking) = self.sessions.get(id).and_then(|session| session.tracking.as_deref()) else {
            return false;
        };
        let keeps = match tracking.copies {
            Copies::All => true,
            Copies::OptIn => tracking.caching,
            Copies::OptOut => !tracking.caching,
            Copies::Broadcast => false,
        };
        keeps && (command.is_read() || command.has(Flag::NotesResult)) && !command.has(Flag::PubSub)
    }

    /// A request is over: what `CLIENT CACHING` said was about it, unless the block goes on of which it is a part. One that waits
    /// is not over.
    pub(super) fn end_caching(&mut self, id: SessionId, command: Option<&Command>) {
        if self.blocked.holds(id) {
            return;
        }
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.queue.is_none()
            && !command.is_some_and(|command| command.has(Flag::KeepsCaching))
            && let Some(tracking) = &mut session.tracking
        {
            tracking.caching = false;
        }
    }

    /// Who is to forget what after this was read and changed, in this order, for a session.
    pub(super) fn resolve_heard(&mut self, heard: Vec<Heard>, client: Option<u64>) -> Vec<Forget> {
        let mut forgets = Vec::new();
        for heard in heard {
            match heard {
                Heard::Read(key) => {
                    if let Some(number) = client.filter(|number| self.trackers.clients.contains_key(number)) {
                        self.remember(&key, number, &mut forgets);
                    }
                }
                Heard::Changed { key, by_nobody } => {
                    if !self.trackers.prefixes.is_empty() {
                        forgets.push(Forget::Like(key.clone(), client.filter(|_| !by_nobody)));
                    }
                    for number in self.trackers.table.remove(&key) {
                        if client != Some(number) || !self.wants_no_own(number) {
                            forgets.push(Forget::One(number, key.clone()));
                        }
                    }
                }
                Heard::AllChanged => {
                    self.trackers.table.clear();
                    forgets.push(Forget::All);
                }
            }
        }
        forgets
    }

    /// Whether a session wants to hear nothing of what it has changed itself.
    fn wants_no_own(&self, number: u64) -> bool {
        self.tracker(number).is_some_and(|(_, tracking)| tracking.no_loop)
    }

    fn tracker(&self, number: u64) -> Option<(SessionId, &Tracking)> {
        let id = *self.trackers.clients.get(&number)?;
        Some((id, self.sessions.get(id)?.tracking.as_deref()?))
    }

    /// A session has read a key, by its number. Where more are remembered than may be, others are forgotten, and their readers told so.
    fn remember(&mut self, key: &[u8], number: u64, forgets: &mut Vec<Forget>) {
        self.trackers.table.insert(key, number);
        let keys_max = self.settings.tracked_keys_max;
        loop {
            let table = &self.trackers.table;
            let keys = table.entries.len();
            if keys <= keys_max && (table.readers <= READERS_MAX || keys == 1) {
                return;
            }
            let drawn = self.store().random_below(keys);
            let Entry { key, readers } = self.trackers.table.remove_at(drawn);
            forgets.extend(readers.into_iter().map(|number| Forget::One(number, key.clone())));
        }
    }

    // ---- telling ---------------------------------------------------------------------

    /// What was applied as a follower has changed: it is committed.
    pub(super) fn tell_applied(&mut self) {
        let heard = self.store_mut().keyspace_mut().watched.take_heard(0);
        if !heard.is_empty() {
            marks::reached("client told of what a follower applied");
            let forgets = self.resolve_heard(heard, None);
            self.tell_trackers(forgets);
        }
    }

    /// The state is another, in ways that nobody tells: all forget everything. Should what is in flight be committed after all, it
    /// is applied, and told to those who have read since.
    pub(super) fn forget_copies(&mut self) {
        drop(self.store_mut().keyspace_mut().watched.take_heard(0));
        self.speculation.drop_forgets();
        if !self.trackers.clients.is_empty() {
            marks::reached("clients told to forget everything");
            self.trackers.table.clear();
            self.tell_trackers(vec![Forget::All]);
        }
    }

    /// Tells who is to forget what: each key by itself to who has read it, then those together that begin in a way.
    pub(super) fn tell_trackers(&mut self, forgets: Vec<Forget>) {
        let mut changed: BTreeMap<Blob, Option<u64>> = BTreeMap::new();
        for forget in forgets {
            match forget {
                Forget::One(number, key) => {
                    let reads = self.tracker(number).is_some_and(|(_, it)| it.copies != Copies::Broadcast);
                    if reads {
                        self.tell_tracker(number, &Reply::Array(vec![Reply::bulk(key.to_vec())]));
                    }
                }
                // Who has changed it, too, is told of the other's change.
                Forget::Like(key, by) => {
                    let known =
                        changed.entry(key).and_modify(|known| *known = known.filter(|_| *known == by));
                    known.or_insert(by);
                }
                Forget::All => {
                    let all: Vec<u64> = self.trackers.clients.keys().copied().collect();
                    all.into_iter().for_each(|number| self.tell_tracker(number, &Reply::Null));
                }
            }
        }
        if !changed.is_empty() {
            self.broadcast(&changed);
        }
    }

    fn broadcast(&mut self, changed: &BTreeMap<Blob, Option<u64>>) {
        let mut told = Vec::new();
        for (prefix, numbers) in &self.trackers.prefixes {
            let like = || changed.range(Blob::new(prefix)..).take_while(|(key, _)| key.starts_with(prefix));
            if like().next().is_none() {
                continue;
            }
            for &number in numbers {
                let no_own = self.wants_no_own(number);
                let keys = like().filter(|(_, by)| !no_own || **by != Some(number));
                let keys: Vec<Reply<'static>> = keys.map(|(key, _)| Reply::bulk(key.to_vec())).collect();
                told.push((number, keys));
            }
        }
        for (number, keys) in told {
            if !keys.is_empty() {
                self.tell_tracker(number, &Reply::Array(keys));
            }
        }
    }

    /// Tells a session, or whom it named for that, what it is to forget.
    fn tell_tracker(&mut self, number: u64, what: &Reply<'static>) {
        let Some((id, tracking)) = self.tracker(number) else { return };
        let is_resp3 = |protocol| protocol == Protocol::Resp3;
        let Some(redirect) = tracking.redirect else {
            if is_resp3(self.sessions[id].protocol) {
                let message = Reply::Push(vec![Reply::text("invalidate"), what.clone()]);
                self.push_message(id, &message);
            }
            return;
        };
        let Some(to) = self.session_of(redirect) else {
            if let Some(tracking) = &mut self.sessions[id].tracking {
                tracking.is_broken = true;
            }
            if is_resp3(self.sessions[id].protocol) {
                let broken = vec![Reply::text("tracking-redir-broken"), Reply::Int(redirect.1 as i64)];
                self.push_message(id, &Reply::Push(broken));
            }
            return;
        };
        let session = &self.sessions[to];
        if is_resp3(session.protocol) {
            self.push_message(to, &Reply::Push(vec![Reply::text("invalidate"), what.clone()]));
        } else if session.listening.count() > 0 {
            let message = vec![Reply::text("message"), Reply::text(CHANNEL), what.clone()];
            self.push_message(to, &Reply::Push(message));
        }
    }
}
