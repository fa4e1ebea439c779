//! Requests that work through much, which would keep all others waiting: they are executed elsewhere, on the values
//! of their keys, and the shard goes on.
//!
//! Before a request is executed its row is asked how much that will be ([`crate::command::work`]). Beyond
//! [`super::ShardSettings::large_elements`] its keys' values are lent ([`crate::keyspace::tx::Loan`]) to an
//! [`Errand`], which the world carries out by the very handler that would have run here; its outcome is settled as one
//! ordinary unit. What a read answers may be large though little was worked through: then it is executed again there,
//! so that its reply is written there. Meanwhile the request stays in its client's buffer, as one that waits; when it is
//! answered, it is passed over.
//!
//! Who needs a key that is lent waits for it, and a snapshot waits for all of them to begin. Who cannot wait calls the
//! values back as they were, which takes as long as the errand does: whoever loses leadership or begins to lead,
//! scripts that touch what they did not declare, a pause. The request that was under way is still in its buffer, and
//! begins anew.
//!
//! Blocks and scripts are not errands: their requests are executed one after the other here.
//!
//! INVARIANTS:
//! * A key is lent to one errand at a time, and nobody looks at it or changes it meanwhile.
//! * An errand's outcome becomes part of the state under the leadership under which it was sent, or not at all.
//! * A request that is an errand is answered once, and those behind it after it.

use std::collections::BTreeMap;

use bytes::Bytes;
use hashbrown::HashSet;

use super::{
    Core, Output, SessionId, ShardSettings,
    admit::Reason,
    errand::{Errand, Outcome},
    monitors::Source,
    outbox::{Instead, ReadReply},
    receive::SMALL_BYTES,
};
use crate::{
    command::{
        Command, Flag, Request, Run,
        session::{Queued, ReplyMode},
        slow_requests::kept_words,
        work::STRING_BYTES,
    },
    keyspace::Blob,
    marks,
};

/// Errands of a shard under way at once: each takes a thread.
const ERRANDS_MAX: usize = 4;
/// A request that names more keys is executed here: to lend each takes about as long.
const KEYS_MAX: usize = 1_000;

/// The errands of a shard.
#[derive(Default)]
pub(super) struct Errands {
    /// Counts all there ever were.
    sent: u64,
    under_way: BTreeMap<u64, Sent>,
}

/// An errand under way, as its shard remembers it.
struct Sent {
    /// Its session, and that one's number: the place may be another's by the time.
    session: (SessionId, u64),
    command: &'static Command,
    slot: Option<u16>,
    /// The first of its words, should it be slow.
    words: Vec<Bytes>,
    keys: Vec<Blob>,
    needs_leader: bool,
    /// When it was sent, boot clock.
    at_ns: u64,
}

impl Core {
    // ---- who waits ------------------------------------------------------------------

    /// What a client's request waits for, as what it needs is lent.
    pub(super) fn held_by_loan(&self, id: SessionId, request: &Request<'_>) -> Option<Reason> {
        let command = request.command;
        if !self.store().has_lent() || self.is_queued(id, command) {
            return None;
        }
        match (command.run, &self.sessions[id].queue) {
            (Run::Exec, Some(queue)) => {
                let held = |it: &Queued| self.loan_for(&it.request(&it.words()));
                queue.requests.iter().find_map(held)
            }
            _ => self.loan_for(request),
        }
    }

    /// The loan that a request is in the way of.
    fn loan_for(&self, request: &Request<'_>) -> Option<Reason> {
        let command = request.command;
        // What is about a session asks at most whether a key is there.
        if matches!(command.run, Run::Session(_)) || command.has(Flag::PubSub) {
            return None;
        }
        let lent = request.keys().find(|key| self.store().is_lent(key));
        let needs_all = command.is_write() && request.keys.is_empty()
            || command.forms_keys.is_some_and(|forms_keys| forms_keys(request.words));
        match lent {
            Some(key) => Some(Reason::Loan(Blob::new(key))),
            None => needs_all.then_some(Reason::Loans),
        }
    }

    /// A block or a script that has begun waits for nothing: what it needs comes back.
    pub(super) fn recall_for(&mut self, request: &Request<'_>) {
        while self.store().has_lent() {
            match self.loan_for(request) {
                None => return,
                Some(Reason::Loan(key)) => {
                    marks::reached("lent value called back by a block or a script");
                    self.recall_where(|sent| sent.keys.contains(&key));
                }
                Some(_) => self.recall_all(),
            }
        }
    }

    // ---- sending --------------------------------------------------------------------

    /// Sends a request that works through much on an errand. Returns what it waits for then; `None`: it is executed
    /// here.
    pub(super) fn send_if_large(&mut self, id: SessionId, request: &Request<'_>) -> Option<Reason> {
        let most = self.settings.large_elements;
        let work = request.command.work;
        let is_large =
            request.words.len() > most || work.is_some_and(|work| work(self.keyspace(), request) > most);
        (is_large && may_be_sent(request)).then(|| self.send(id, request))
    }

    /// Sends a request on an errand, or lets it wait until that can be.
    pub(super) fn send(&mut self, id: SessionId, request: &Request<'_>) -> Reason {
        if !self.may_send() {
            return Reason::Helper;
        }
        let mut keys: Vec<Blob> = Vec::new();
        let mut known = HashSet::new();
        for key in request.keys().filter(|&key| known.insert(key)) {
            if !self.store_mut().keyspace_mut().prepare_change(key) {
                self.snapshots.awaiting = true;
                return Reason::Walk(Blob::new(key));
            }
            keys.push(Blob::new(key));
        }
        self.begin_unit();
        let loan = self.store_mut().lend(&keys);
        self.store_mut().end_unit();
        let (number, at_ns) = (self.errands.sent, self.surroundings.boot_ns());
        let session = &mut self.sessions[id];
        session.last_command = Some(request.command);
        let is_answered = matches!(session.reply_mode, ReplyMode::On | ReplyMode::SkipNext);
        let protocol = is_answered.then_some(session.protocol);
        let sent = Sent {
            session: (id, session.number),
            command: request.command,
            slot: request.slot(),
            words: kept_words(request.words),
            keys,
            needs_leader: self.is_serving(),
            at_ns,
        };
        self.errands.under_way.insert(number, sent);
        self.errands.sent += 1;
        self.note_reader(id);
        let settings = self.settings.clone();
        self.surroundings.send(Box::new(Errand::new(number, request, loan, settings, protocol)));
        self.tell_monitors(Source::Client(id), request.command, request.words);
        marks::reached("request sent on an errand");
        Reason::Errand
    }

    /// Whether another errand may be sent: not before those who wait for all to be back.
    fn may_send(&self) -> bool {
        self.errands.under_way.len() < ERRANDS_MAX
            && self.waiting.count(&Reason::Loans) == 0
            && !self.is_snapshot_due()
    }

    /// Those who wait to be sent are looked at again, if they may be.
    pub(super) fn offer_errands(&mut self) {
        if self.waiting.count(&Reason::Helper) > 0 && self.may_send() {
            self.wake(&Reason::Helper);
        }
    }

    // ---- coming back ----------------------------------------------------------------

    /// Errands have been carried out.
    pub(super) fn end_errands(&mut self) {
        for outcome in self.surroundings.outcomes() {
            // What was called back is known no more.
            if let Some(sent) = self.errands.under_way.remove(&outcome.number) {
                self.settle_errand(sent, outcome);
            }
        }
        if !self.held_entries.is_empty() {
            self.commit_held(true);
        }
        self.begin_snapshot();
        self.offer_errands();
    }

    /// What an errand did is part of the state, as one unit, and its client is answered.
    fn settle_errand(&mut self, sent: Sent, outcome: Outcome) {
        let Outcome { borrowed, reply, weight, error, .. } = outcome;
        let Sent { command, slot, keys, .. } = sent;
        if borrowed.effects() > self.settings.large_elements {
            self.end_turn(); // so that its effects, a batch by themselves, are not copied
        }
        self.begin_unit();
        self.store_mut().take_back(borrowed);
        let unit = self.store_mut().end_unit();
        let wrote = unit.wrote;
        let batch = self.settle_unit(unit);
        self.wake_borrowers(&keys);
        if let Some(error) = &error {
            self.note_error(error);
        }
        let took_ns = self.end_errand_call(command, sent.at_ns, error.is_some());
        if let Some(id) = self.session_of(sent.session) {
            if took_ns / 1000 >= self.settings.slow_us {
                self.note_slow(id, sent.words, took_ns / 1000);
            }
            let start = self.sessions[id].outbox.end();
            let bytes = self.sessions[id].outbox.len().saturating_add(weight.bytes);
            if weight.bytes > SMALL_BYTES && bytes > self.sessions[id].outbox_bytes_max(&self.settings) {
                self.cut_off(id);
            } else {
                self.sessions[id].outbox.push_encoded(reply);
            }
            let end = self.sessions[id].outbox.end();
            if let Some(batch) = batch {
                self.hold(id, start, batch, slot);
            }
            if sent.needs_leader && !wrote && end > start {
                self.reads.push(ReadReply { start, end, instead: Instead::Redirect(slot) });
            }
            self.confirm_reads(id);
            self.sessions[id].is_answered = true;
            self.outputs.push(Output::Flush(id));
            self.wake_one(id);
        }
        self.serve_blocked();
        if self.store().batch_bytes() > self.settings.batch_bytes_max {
            self.end_turn();
        }
    }

    /// The session of an errand, unless it is gone.
    fn session_of(&self, (id, number): (SessionId, u64)) -> Option<SessionId> {
        self.sessions.get(id).is_some_and(|session| session.number == number).then_some(id)
    }

    /// These keys are lent no more.
    fn wake_borrowers(&mut self, keys: &[Blob]) {
        keys.iter().for_each(|key| self.wake(&Reason::Loan(key.clone())));
        if !self.store().has_lent() {
            self.wake(&Reason::Loans);
        }
    }

    /// All that is lent comes back as it was.
    pub(super) fn recall_all(&mut self) {
        self.recall_where(|_| true);
    }

    fn recall_where(&mut self, is_meant: impl Fn(&Sent) -> bool) {
        let meant = self.errands.under_way.iter().filter(|(_, sent)| is_meant(sent));
        let meant: Vec<u64> = meant.map(|(&number, _)| number).collect();
        for number in meant {
            let sent = self.errands.under_way.remove(&number).expect("it is under way");
            let outcome = self.surroundings.await_outcome(number);
            self.store_mut().recall(outcome.borrowed);
            marks::reached("errand called back");
            self.wake_borrowers(&sent.keys);
            if let Some(id) = self.session_of(sent.session) {
                self.wake_one(id);
            }
        }
        self.offer_errands();
    }
}

/// Whether the reply to a request is so large that it had better be written elsewhere.
pub(super) fn is_large_reply(settings: &ShardSettings, request: &Request<'_>, bytes: usize) -> bool {
    let is_large = bytes > settings.large_elements.saturating_mul(STRING_BYTES);
    is_large && request.command.is_read() && may_be_sent(request)
}

/// Whether a request can be executed on nothing but what its keys hold.
fn may_be_sent(request: &Request<'_>) -> bool {
    let command = request.command;
    matches!(command.run, Run::Read(_) | Run::Write(_))
        && (1..=KEYS_MAX).contains(&request.keys.len())
        && !command.has(Flag::PubSub)
        && !command.has(Flag::Blocking)
        && !command.forms_keys.is_some_and(|forms_keys| forms_keys(request.words))
}
