//! Requests that are blocked: `BLPOP` and its like, which found nothing and wait until something comes to their keys.
//!
//! The handler says for what it would wait ([`Wish`]); nothing was executed. The shard keeps the request itself, by its
//! keys, first come first served; its session is in the waiting room and is read no further. The keyspace hears what
//! comes to these keys ([`crate::keyspace::watch`]), whichever command brings it. When the unit that brought it is over,
//! a block or a script being one unit, the shard executes the first request that waits there again, as a unit of its
//! own in the same batch, then the next, as long as the key holds what they wait for; and so on with the keys that those
//! have changed, in the order in which there was news of them.
//!
//! The replies pass the ordinary gate: an element is committed as taken before anybody sees it, and if leadership is
//! lost it is put back with its batch. Whoever is told that its time is over waits for what it saw to be committed, too.
//!
//! INVARIANTS:
//! * A blocked request has had no effect, and is answered once.
//! * After each turn no key holds what a request waits for that could be executed here.
//! * While nothing comes to a key its waiters cost nothing: nothing is parsed, woken or looked at.
//! * Who cannot be served here any more is sent elsewhere, never told that its time is over.
//!
//! Deliberately left out: room in flight, `CLIENT PAUSE`, and lack of memory do not stop a request that waited. It was
//! admitted when it came; what it moves somebody else's request has brought, which was admitted too; and each serves
//! once, so that there is no more of it than there are clients. What it changes of a large value is written at once for a
//! snapshot.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use hashbrown::HashMap;
use moonraft_proto::Reply;

use super::{
    Core, Output, PlantedFault, SessionId, admit::Reason, execute::After, outbox::Fate, place::Place,
    waiting::Timer,
};
use crate::{
    command::{CommandError, Request, client::Waiters, session::Queued},
    keyspace::{Awaited, Blob, Object, Wish},
    marks,
};

/// The order in which requests came.
type Ticket = u64;

/// What a key costs a request that waits for it: its places in two tables, and a copy of it in each.
const KEY_BYTES: usize = 256;

const TOO_LARGE: CommandError =
    CommandError::text("ERR a request of so many keys or bytes cannot wait; nothing was changed");
const UNBLOCKED: CommandError = CommandError::text("UNBLOCKED client unblocked via CLIENT UNBLOCK");

/// A request that waits.
struct Waiter {
    request: Rc<Queued>,
    wish: Wish,
    ticket: Ticket,
    /// When its time is over, boot clock.
    until_ns: Option<u64>,
    /// It is about to be answered, whatever comes.
    is_ending: bool,
}

impl Waiter {
    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.wish.keys.clone().map(|at| self.request.word(at))
    }

    fn bytes(&self) -> usize {
        self.request.bytes() + self.wish.keys.len() * KEY_BYTES
    }
}

/// Those who wait for one key, by what they wait for.
#[derive(Default)]
struct Queues([BTreeMap<Ticket, SessionId>; Awaited::ALL.len()]);

/// Requests that wait. See the module.
#[derive(Default)]
pub(super) struct Blocked {
    /// Counts all that ever came.
    tickets: Ticket,
    waiters: HashMap<SessionId, Box<Waiter>>,
    queues: HashMap<Blob, Queues>,
    /// Those to be answered without waiting on, and whether with an error.
    ending: VecDeque<(SessionId, bool)>,
}

impl Blocked {
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Whether this session's request waits.
    pub fn holds(&self, id: SessionId) -> bool {
        self.waiters.contains_key(&id)
    }

    /// Bytes that a session's request takes.
    pub fn bytes(&self, id: SessionId) -> usize {
        self.waiters.get(&id).map_or(0, |waiter| waiter.bytes())
    }

    /// What is told of all.
    pub fn figures(&self) -> Waiters {
        Waiters {
            clients: self.waiters.len(),
            keys: self.queues.len(),
            with_timeout: self.waiters.values().filter(|waiter| waiter.until_ns.is_some()).count(),
        }
    }

    /// Sessions, first come first.
    fn all(&self) -> Vec<SessionId> {
        let mut all: Vec<_> = self.waiters.iter().map(|(&id, waiter)| (waiter.ticket, id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// The first behind `after` that waits for what a key holds.
    fn next(&self, key: &[u8], object: Option<&Object>, after: Ticket) -> Option<(Ticket, SessionId)> {
        let queues = self.queues.get(key)?;
        let met = Awaited::ALL.iter().zip(&queues.0).filter(|(awaited, _)| awaited.is_met(object));
        let firsts = met.filter_map(|(_, queue)| queue.range(after + 1..).next());
        firsts.map(|(&ticket, &id)| (ticket, id)).min()
    }

    fn enter(&mut self, id: SessionId, waiter: Waiter) {
        for key in waiter.keys() {
            let queues = self.queues.entry(Blob::new(key)).or_default();
            queues.0[waiter.wish.awaited as usize].insert(waiter.ticket, id);
        }
        let before = self.waiters.insert(id, Box::new(waiter));
        assert!(before.is_none(), "a session waits with one request");
    }

    fn leave(&mut self, id: SessionId) -> Option<Box<Waiter>> {
        let waiter = self.waiters.remove(&id)?;
        for key in waiter.keys() {
            let Some(queues) = self.queues.get_mut(key) else { continue }; // it was named twice
            queues.0[waiter.wish.awaited as usize].remove(&waiter.ticket);
            if queues.0.iter().all(BTreeMap::is_empty) {
                self.queues.remove(key);
            }
        }
        Some(waiter)
    }
}

impl Core {
    // ---- how a request begins and ends to wait ---------------------------------------

    /// Keeps a request that was executed, has found nothing, and wishes to wait.
    pub(super) fn block(&mut self, id: SessionId, request: &Request<'_>, wish: Wish) {
        let now_ns = self.surroundings.boot_ns();
        let until_ns =
            (wish.timeout_ms > 0).then(|| now_ns.saturating_add(wish.timeout_ms.saturating_mul(1_000_000)));
        let request = Rc::new(Queued::with(request, &wish.words));
        self.blocked.tickets += 1;
        let ticket = self.blocked.tickets;
        let waiter = Waiter { request, wish, ticket, until_ns, is_ending: false };
        if waiter.bytes() > self.settings.blocked_bytes_max {
            return self.answer(id, &TOO_LARGE.into());
        }
        let watched = &mut self.store.keyspace_mut().watched;
        waiter.keys().for_each(|key| watched.wait(key));
        self.blocked.enter(id, waiter);
        self.waiting.enter(id, Reason::Key);
        self.timers.set(Timer::Session(id), until_ns);
    }

    /// A session's request waits no more, whatever the reason.
    pub(super) fn forget_blocked(&mut self, id: SessionId) {
        let Some(waiter) = self.blocked.leave(id) else { return };
        let watched = &mut self.store.keyspace_mut().watched;
        waiter.keys().for_each(|key| watched.end_wait(key));
        self.waiting.leave(id);
        self.timers.set(Timer::Session(id), None);
    }

    /// A blocked request has its reply: its session reads on.
    fn end_block(&mut self, id: SessionId) {
        self.forget_blocked(id);
        self.end_caching(id, None);
        self.done(id);
        self.limit_outbox(id);
        self.outputs.extend([Output::Flush(id), Output::Resume(id)]);
    }

    // ---- being served ---------------------------------------------------------------

    /// Serves those whose keys have come to hold what they wait for, and ends the wait of those who are to wait no
    /// more. No unit is open. Between two states nobody is served: news stay until there is one.
    pub(super) fn serve_blocked(&mut self) {
        while !self.is_between_states() {
            if let Some((id, with_error)) = self.blocked.ending.pop_front() {
                self.end_early(id, with_error);
            } else if let Some(key) = self.store_mut().keyspace_mut().watched.take_news() {
                self.serve_key(&key);
            } else {
                return;
            }
        }
    }

    fn serve_key(&mut self, key: &[u8]) {
        let mut after = 0;
        while let Some((ticket, id)) = self.blocked.next(key, self.keyspace().get(key), after) {
            self.try_again(id, key);
            after = ticket;
            if self.store().batch_bytes() > self.settings.batch_bytes_max {
                self.end_turn();
            }
        }
    }

    /// Executes a blocked request again, for there is news of one of its keys, if that is done here. Of several keys it is
    /// served by the one to which something came first, as Redis promises it, and not by the first that it names.
    fn try_again(&mut self, id: SessionId, key: &[u8]) {
        let waiter = &self.blocked.waiters[&id];
        if waiter.is_ending {
            return;
        }
        let kept = Rc::clone(&waiter.request);
        let mut words = kept.words();
        if waiter.wish.awaited.is_of_one_key() {
            words[waiter.wish.keys.clone()].fill(key);
        }
        let request = kept.request(&words);
        if !matches!(self.place_of(id, &request), Place::Here) {
            return;
        }
        let reads = std::mem::take(&mut self.reads);
        self.recall_for(&request);
        let waits_on = matches!(self.run_on_data(id, &request), After::Waits(_));
        self.confirm_reads(id);
        self.reads = reads;
        if !waits_on {
            marks::reached("blocked request served");
            if self.settings.fault == Some(PlantedFault::ServedBeforeCommit) {
                self.sessions[id].outbox.release(|_| Fate::Committed);
            }
            self.end_block(id);
        }
    }

    // ---- waiting no longer ------------------------------------------------------------

    /// The time of a blocked request is over. Where nobody serves, its client will be told where to go, or that nobody
    /// does.
    pub(super) fn end_blocked_in_time(&mut self, id: SessionId) {
        self.end_soon(id, false);
        self.serve_blocked();
    }

    /// Ends the wait of a session's request when no unit is open, as if its time were over, or with an error. Returns
    /// whether it waited.
    pub(super) fn end_soon(&mut self, id: SessionId, with_error: bool) -> bool {
        let waiter = self.blocked.waiters.get_mut(&id).filter(|waiter| !waiter.is_ending);
        let Some(waiter) = waiter else { return false };
        waiter.is_ending = true;
        self.blocked.ending.push_back((id, with_error));
        true
    }

    /// Answers a request that found nothing all the time, or with an error. What it saw must be committed before.
    fn end_early(&mut self, id: SessionId, with_error: bool) {
        let Some(waiter) = self.blocked.waiters.get_mut(&id).filter(|waiter| waiter.is_ending) else {
            return;
        };
        let kept = Rc::clone(&waiter.request);
        let words = kept.words();
        let request = kept.request(&words);
        if !matches!(self.place_of(id, &request), Place::Here) && !with_error {
            self.blocked.waiters.get_mut(&id).expect("it was there").is_ending = false;
            return;
        }
        let reads = std::mem::take(&mut self.reads);
        self.recall_for(&request);
        let reply = if with_error { UNBLOCKED.into() } else { Reply::NullArray };
        self.answer_after_look(id, &request, &reply);
        self.confirm_reads(id);
        self.reads = reads;
        self.end_block(id);
    }

    /// Answers a request without executing it.
    fn dismiss(&mut self, id: SessionId, error: CommandError) {
        marks::reached("blocked request sent away");
        self.answer(id, &error.into());
        self.end_block(id);
    }

    // ---- another leader, other slots ----------------------------------------------------

    fn place_of_blocked(&self, id: SessionId) -> Place {
        let kept = &self.blocked.waiters[&id].request;
        self.place_of(id, &kept.request(&kept.words()))
    }

    /// Who is served here may have changed: those who are served elsewhere are sent there.
    pub(super) fn send_blocked_away(&mut self) {
        for id in self.blocked.all() {
            if let Place::Elsewhere(redirect) = self.place_of_blocked(id) {
                self.dismiss(id, redirect.into());
            }
        }
    }

    /// Nobody has served for long: those who wait are told so.
    pub(super) fn give_blocked_up(&mut self) {
        for id in self.blocked.all() {
            if let Place::Wait = self.place_of_blocked(id) {
                self.dismiss(id, self.unserved());
            }
        }
    }

    /// Requests are served here again, on a state that may be another: all are looked at.
    pub(super) fn resume_blocked(&mut self) {
        if self.blocked.is_empty() {
            return;
        }
        self.send_blocked_away();
        self.store_mut().keyspace_mut().watched.announce_all();
        let now_ns = self.surroundings.boot_ns();
        for id in self.blocked.all() {
            if self.blocked.waiters[&id].until_ns.is_some_and(|until_ns| until_ns <= now_ns) {
                self.end_soon(id, false);
            }
        }
        self.serve_blocked();
    }
}
