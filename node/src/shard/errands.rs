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
//! A block whose requests together work through much is one errand, if each of them could be one: see
//! [`super::large_blocks`]. Any other block, and a script, is executed here, and what it calls may be an errand:
//! see [`super::large_calls`].
//!
//! INVARIANTS:
//! * A key is lent to one errand at a time, and nobody looks at it or changes it meanwhile.
//! * An errand's outcome becomes part of the state under the leadership under which it was sent, or not at all.
//! * A request that is an errand is answered once, and those behind it after it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use hashbrown::HashSet;
use moonraft_proto::{Protocol, Reply, Weight};

use super::{
    Core, Output, SessionId, ShardSettings,
    admit::Reason,
    errand::{Asker, Errand, Outcome},
    monitors::Source,
    outbox::{Instead, ReadReply},
    receive::SMALL_BYTES,
};
use crate::{
    command::{Command, Flag, Request, Run, session::Queued, slow_requests::kept_words, work::STRING_BYTES},
    keyspace::{Blob, tx::Unit},
    marks,
};

/// Errands of a shard under way at once: each takes a thread.
const ERRANDS_MAX: usize = 4;
/// A request that names more keys is executed here, if it does little with each: to lend it takes about as long.
pub(super) const KEYS_MAX: usize = 1_000;
/// So much is worked through in the time that it takes to lend a key.
const WORK_A_KEY: usize = 16;

/// The errands of a shard.
#[derive(Default)]
pub(super) struct Errands {
    /// Counts all there ever were.
    sent: u64,
    under_way: BTreeMap<u64, Sent>,
}

/// A request that is executed elsewhere, or in steps, as its shard remembers it.
pub(super) struct Sent {
    /// Its session, and that one's number: the place may be another's by the time.
    pub session: (SessionId, u64),
    command: &'static Command,
    slot: Option<u16>,
    /// The first of its words, should it be slow.
    words: Vec<Bytes>,
    pub keys: Vec<Blob>,
    /// It runs the block that its session has queued.
    is_block: bool,
    needs_leader: bool,
    /// When it was sent, boot clock.
    at_ns: u64,
}

/// What its client is told.
pub(super) struct Answer {
    /// The reply, as it is written.
    pub reply: BytesMut,
    /// What it weighs.
    pub weight: Weight,
    /// It again, if it is an error.
    pub error: Option<Reply<'static>>,
}

impl Answer {
    /// A reply, written so if anybody is there to read it.
    pub fn of(error: Reply<'static>, protocol: Option<Protocol>) -> Self {
        let mut reply = BytesMut::new();
        if let Some(protocol) = protocol {
            error.encode(protocol, &mut reply);
        }
        Self { reply, weight: error.weight(), error: error.is_error().then_some(error) }
    }
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

    /// Has a request executed elsewhere, or in steps, if it works through much. Returns what it waits for then; `None`: it is
    /// executed here and now.
    pub(super) fn begin_elsewhere(&mut self, id: SessionId, request: &Request<'_>) -> Option<Reason> {
        let in_steps = self.survey_if_large(id, request);
        let sent = in_steps.or_else(|| self.send_if_large(id, request));
        sent.or_else(|| self.send_block_if_large(id, request))
    }

    /// Sends a request that works through much on an errand. Returns what it waits for then; `None`: it is executed
    /// here.
    pub(super) fn send_if_large(&mut self, id: SessionId, request: &Request<'_>) -> Option<Reason> {
        let most = self.settings.large_elements;
        let command = request.command;
        let work = command.work.map_or(0, |work| work(self.keyspace(), request));
        // What may wait is sent only if it will find something.
        let has_many_words = request.words.len() > most && !command.has(Flag::Blocking);
        let is_large = has_many_words || work > most;
        (is_large && may_be_sent(request, work)).then(|| self.send(id, request))
    }

    /// Sends a request on an errand, or lets it wait until that can be.
    pub(super) fn send(&mut self, id: SessionId, request: &Request<'_>) -> Reason {
        self.send_all(id, request, std::slice::from_ref(request), false)
    }

    /// Sends what a request executes on an errand: itself, or its block.
    pub(super) fn send_all(
        &mut self,
        id: SessionId,
        request: &Request<'_>,
        parts: &[Request<'_>],
        is_block: bool,
    ) -> Reason {
        if !self.may_send() {
            return Reason::Helper;
        }
        let mut keys: Vec<Blob> = Vec::new();
        let mut known = HashSet::new();
        for key in parts.iter().flat_map(Request::keys).filter(|&key| known.insert(key)) {
            if !self.store_mut().keyspace_mut().prepare_change(key) {
                self.snapshots.awaiting = true;
                return Reason::Walk(Blob::new(key));
            }
            keys.push(Blob::new(key));
        }
        self.begin_unit();
        let loan = self.store_mut().lend(&keys);
        self.store_mut().end_unit();
        let session = &self.sessions[id];
        let asker = Asker::Client(session.is_answering().then_some(session.protocol));
        let (number, sent) = (self.number_errand(), self.note_sent(id, request, keys));
        let needs_leader = self.is_serving();
        self.errands.under_way.insert(number, Sent { is_block, needs_leader, ..sent });
        let settings = self.settings.clone();
        self.surroundings.send(Box::new(Errand::new(number, parts, is_block, loan, settings, asker)));
        for part in parts.iter().chain(is_block.then_some(request)) {
            self.tell_monitors(Source::Client(id), part.command, part.words);
        }
        marks::reached("request sent on an errand");
        Reason::Errand
    }

    /// The number of one more errand.
    pub(super) fn number_errand(&mut self) -> u64 {
        self.errands.sent += 1;
        self.errands.sent
    }

    /// Notes a request that is executed elsewhere, or in steps, with the keys that are lent to it.
    pub(super) fn note_sent(&mut self, id: SessionId, request: &Request<'_>, keys: Vec<Blob>) -> Sent {
        let needs_leader = self.is_serving() && self.is_on_data(id, request);
        let at_ns = self.surroundings.boot_ns();
        self.note_reader(id);
        let session = &mut self.sessions[id];
        session.last_command = Some(request.command);
        let (command, slot, words) =
            (request.command, request.slot(), kept_words(request.command, request.words));
        let session = (id, session.number);
        Sent { session, command, slot, words, keys, is_block: false, needs_leader, at_ns }
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
        if outcome.waits {
            return self.execute_here_instead(&sent, outcome);
        }
        if sent.is_block && !self.may_still_execute(sent.session) {
            return self.give_block_up(sent, outcome);
        }
        let Outcome { borrowed, reply, weight, error, called, .. } = outcome;
        if borrowed.effects() > self.settings.large_elements {
            self.end_turn(); // so that its effects, a batch by themselves, are not copied
        }
        self.begin_unit();
        self.store_mut().take_back(borrowed);
        let unit = self.store_mut().end_unit();
        self.wake_borrowers(&sent.keys);
        if sent.is_block {
            self.end_block_elsewhere(sent.session.0, called);
        }
        self.answer_sent(sent, Answer { reply, weight, error }, unit);
        self.serve_blocked();
        if self.store().batch_bytes() > self.settings.batch_bytes_max {
            self.end_turn();
        }
    }

    /// A request has found nothing elsewhere, and would wait, which it does here.
    fn execute_here_instead(&mut self, sent: &Sent, outcome: Outcome) {
        self.store_mut().recall(outcome.borrowed);
        self.wake_borrowers(&sent.keys);
        if let Some(id) = self.session_of(sent.session) {
            self.sessions[id].stays_here = true;
            self.wake_one(id);
        }
    }

    /// A request that was executed elsewhere, or in steps, is answered; its unit has ended.
    pub(super) fn answer_sent(&mut self, sent: Sent, answer: Answer, unit: Unit) {
        let Answer { reply, weight, error } = answer;
        let Sent { command, slot, .. } = sent;
        let wrote = unit.wrote;
        let batch = self.settle_unit(unit);
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
            } else if self.sessions[id].is_answering() {
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
    }

    /// The session of an errand, unless it is gone.
    pub(super) fn session_of(&self, (id, number): (SessionId, u64)) -> Option<SessionId> {
        self.sessions.get(id).is_some_and(|session| session.number == number).then_some(id)
    }

    /// These keys are lent no more.
    pub(super) fn wake_borrowers(&mut self, keys: &[Blob]) {
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
    is_large
        && request.command.is_read()
        && !request.command.has(Flag::Blocking)
        && may_be_sent(request, bytes / STRING_BYTES)
}

/// Whether a request that works through so much can be executed on nothing but what its keys hold.
pub(super) fn may_be_sent(request: &Request<'_>, work: usize) -> bool {
    let (command, keys) = (request.command, request.keys.len());
    matches!(command.run, Run::Read(_) | Run::Write(_))
        && keys > 0
        && keys <= KEYS_MAX.max(work / WORK_A_KEY)
        && !command.has(Flag::PubSub)
        && !command.forms_keys.is_some_and(|forms_keys| forms_keys(request.words))
}
