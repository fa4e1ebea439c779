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
//! Of a request that names very many keys they are lent some at a time: see [`super::gathering`].
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
use moonraft_proto::{Protocol, Reply, Weight};

use super::{
    Core, Output, SessionId, ShardSettings,
    admit::Reason,
    errand::{Asker, Errand, Outcome, Part},
    monitors::Source,
    outbox::{Instead, ReadReply},
    receive::SMALL_BYTES,
};
use crate::{
    command::{Command, Flag, Request, Run, session::Queued, slow_requests::kept_words, work::STRING_BYTES},
    keyspace::{Blob, Store, tx::Unit},
    marks,
};

/// Errands of a shard under way at once: each takes a thread.
const ERRANDS_MAX: usize = 4;
/// So much is worked through in the time that it takes to lend a key.
const WORK_A_KEY: usize = 16;

/// The errands of a shard.
#[derive(Default)]
pub(super) struct Errands {
    /// Counts all there ever were.
    sent: u64,
    under_way: BTreeMap<u64, Sent>,
    /// What came and is not settled yet: while one is, another may be called back.
    come: BTreeMap<u64, Outcome>,
}

/// A request that is executed elsewhere, or in steps, as its shard remembers it.
pub(super) struct Sent {
    /// Its session, and that one's number: the place may be another's by the time.
    pub session: (SessionId, u64),
    command: &'static Command,
    slot: Option<u16>,
    /// The first of its words, should it be slow.
    words: Vec<Bytes>,
    /// It runs the block that its session has queued.
    is_block: bool,
    pub needs_leader: bool,
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
        if self.gathering.is_returning() && needs_whole_state(request) {
            return Some(Reason::Loans);
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
                    self.recall_where(|store, number| store.is_lent_to(number, &key));
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
        self.is_sent(request).map(|work| self.send(id, request, work))
    }

    /// How much a request works through, if it is sent on an errand.
    pub(super) fn is_sent(&self, request: &Request<'_>) -> Option<usize> {
        let most = self.settings.large_elements;
        let command = request.command;
        let work = command.work.map_or(0, |work| work(self.keyspace(), request));
        // What may wait is sent only if it will find something.
        let has_many_words = request.words.len() > most && !command.has(Flag::Blocking);
        let is_large = has_many_words || work > most;
        (is_large && may_be_sent(request)).then_some(work)
    }

    /// Sends a request that works through so much on an errand, or lets it wait until that can be.
    pub(super) fn send(&mut self, id: SessionId, request: &Request<'_>, work: usize) -> Reason {
        match self.lends_at_once(request, work) {
            true => self.send_all(id, request, std::slice::from_ref(request), false),
            false => self.gather(id, request),
        }
    }

    /// Whether the keys of a request that works through so much are lent in one go: they are few, or to lend them takes
    /// little of the time that it does.
    pub(super) fn lends_at_once(&self, request: &Request<'_>, work: usize) -> bool {
        let keys = request.keys.len();
        keys <= self.settings.lent_at_once_max || keys <= work / WORK_A_KEY
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
        let unwritten = |key: &&[u8]| !self.store_mut().keyspace_mut().prepare_change(key);
        if let Some(key) = parts.iter().flat_map(Request::keys).find(unwritten) {
            self.snapshots.awaiting = true;
            return Reason::Walk(Blob::new(key));
        }
        let number = self.number_errand();
        self.begin_unit();
        let keys = parts.iter().map(|part| part.keys.len()).sum();
        let mut loan = self.store_mut().begin_loan(number, keys);
        for key in parts.iter().flat_map(Request::keys) {
            self.store_mut().lend(&mut loan, Blob::new(key));
        }
        self.store_mut().end_unit();
        let (sent, asker) = (self.note_sent(id, request), self.asker(id));
        let owned = parts.iter().map(Part::new).collect();
        let errand = Errand::new(number, owned, is_block, loan, self.settings.clone(), asker);
        self.send_errand(errand, Sent { is_block, needs_leader: self.is_serving(), ..sent });
        for part in parts.iter().chain(is_block.then_some(request)) {
            self.tell_monitors(Source::Client(id), part.command, part.words);
        }
        Reason::Errand
    }

    /// An errand is on its way.
    pub(super) fn send_errand(&mut self, errand: Errand, sent: Sent) {
        marks::reached("request sent on an errand");
        self.errands.under_way.insert(errand.number, sent);
        self.surroundings.send(Box::new(errand));
    }

    /// A client, and how its reply is written.
    pub(super) fn asker(&self, id: SessionId) -> Asker {
        let session = &self.sessions[id];
        Asker::Client(session.is_answering().then_some(session.protocol))
    }

    /// The number of one more errand.
    pub(super) fn number_errand(&mut self) -> u64 {
        self.errands.sent += 1;
        self.errands.sent
    }

    /// Notes a request that is executed elsewhere, or in steps.
    pub(super) fn note_sent(&mut self, id: SessionId, request: &Request<'_>) -> Sent {
        let needs_leader = self.is_serving() && self.is_on_data(id, request);
        let at_ns = self.surroundings.boot_ns();
        self.note_reader(id);
        let session = &mut self.sessions[id];
        session.last_command = Some(request.command);
        let (command, slot, words) =
            (request.command, request.slot(), kept_words(request.command, request.words));
        let session = (id, session.number);
        Sent { session, command, slot, words, is_block: false, needs_leader, at_ns }
    }

    /// Whether another errand may be sent: not before those who wait for all to be back.
    pub(super) fn may_send(&self) -> bool {
        self.errands.under_way.len() + self.gathering.len() < ERRANDS_MAX
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
        let come = self.surroundings.outcomes();
        self.errands.come.extend(come.into_iter().map(|outcome| (outcome.number, outcome)));
        while let Some((number, outcome)) = self.errands.come.pop_first() {
            // What was called back is known no more.
            if let Some(sent) = self.errands.under_way.remove(&number) {
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
        if outcome.borrowed.keys_out() > self.settings.lent_at_once_max && !sent.is_block {
            return self.begin_return(sent, outcome);
        }
        self.settle_outcome(sent, outcome);
        self.serve_after_errand();
    }

    /// An errand was settled: those who waited for what it brought are served.
    pub(super) fn serve_after_errand(&mut self) {
        self.serve_blocked();
        if self.store().batch_bytes() > self.settings.batch_bytes_max {
            self.end_turn();
        }
    }

    /// What came of an errand is part of the state once its keys are back, or few are not, and its client is answered.
    /// Who settles it serves those who wait for what it brought.
    pub(super) fn settle_outcome(&mut self, sent: Sent, outcome: Outcome) {
        let Outcome { number, mut borrowed, reply, weight, error, called, .. } = outcome;
        if borrowed.effects() > self.settings.large_elements {
            self.end_turn(); // so that its effects, a batch by themselves, are not copied
        }
        self.begin_unit();
        if sent.is_block {
            self.note_copies_of_sent(&sent, number); // what it has read before it changed it
        }
        self.store_mut().take_back(&mut borrowed);
        self.note_copies_of_sent(&sent, number);
        let unit = self.store_mut().end_unit();
        self.end_loan(number);
        self.surroundings.free(Box::new(borrowed));
        if sent.is_block {
            self.end_block_elsewhere(sent.session.0, called);
        }
        self.answer_sent(sent, Answer { reply, weight, error }, unit);
    }

    /// Notes what the client of an errand has read, if it keeps copies.
    fn note_copies_of_sent(&mut self, sent: &Sent, number: u64) {
        let Some(id) = self.session_of(sent.session) else { return };
        self.store_mut().set_client(sent.session.1);
        let Some(queue) = self.sessions[id].queue.as_ref().filter(|_| sent.is_block) else {
            if self.keeps_copies(id, sent.command) {
                let keys: Vec<Blob> = self.store().lent_to(number).cloned().collect();
                keys.iter().for_each(|key| self.store_mut().note_read(key));
            }
            return;
        };
        let kept = queue.requests.iter().filter(|queued| self.keeps_copies(id, queued.command()));
        let words: Vec<_> = kept.map(|queued| (queued.words(), queued)).collect();
        let keys = words.iter().flat_map(|(words, queued)| queued.request(words).keys().collect::<Vec<_>>());
        let keys: Vec<Blob> = keys.map(Blob::new).collect();
        keys.iter().for_each(|key| self.store_mut().note_read(key));
    }

    /// A request has found nothing elsewhere, and would wait, which it does here.
    fn execute_here_instead(&mut self, sent: &Sent, mut outcome: Outcome) {
        self.store_mut().recall(&mut outcome.borrowed);
        self.end_loan(outcome.number);
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
            self.end_caching(id, Some(command));
            self.sessions[id].is_answered = true;
            self.outputs.push(Output::Flush(id));
            self.wake_one(id);
        }
    }

    /// The session of an errand, unless it is gone.
    pub(super) fn session_of(&self, (id, number): (SessionId, u64)) -> Option<SessionId> {
        self.sessions.get(id).is_some_and(|session| session.number == number).then_some(id)
    }

    /// The keys of this loan are lent no more: who waits for one of them is looked at again.
    pub(super) fn end_loan(&mut self, number: u64) {
        let keys = self.store_mut().end_loan(number);
        self.wake_borrowers(&keys);
        if !self.store().has_lent() {
            self.wake(&Reason::Loans);
        }
        if keys.len() > self.settings.lent_at_once_max {
            self.surroundings.free(Box::new(keys));
        }
    }

    /// All that is lent comes back as it was.
    pub(super) fn recall_all(&mut self) {
        self.recall_where(|_, _| true);
    }

    fn recall_where(&mut self, is_meant: impl Fn(&Store, u64) -> bool) {
        self.recall_gathered(&is_meant);
        let numbers = self.errands.under_way.keys().copied();
        let meant: Vec<u64> = numbers.filter(|&number| is_meant(self.store(), number)).collect();
        for number in meant {
            let sent = self.errands.under_way.remove(&number).expect("it is under way");
            let come = self.errands.come.remove(&number);
            let mut outcome = come.unwrap_or_else(|| self.surroundings.await_outcome(number));
            self.store_mut().recall(&mut outcome.borrowed);
            marks::reached("errand called back");
            self.end_loan(number);
            if let Some(id) = self.session_of(sent.session) {
                self.wake_one(id);
            }
        }
        self.offer_errands();
    }
}

/// Whether a request may look at any key, or settles what others may do: while some keys of an errand are back and
/// others are not, it waits.
fn needs_whole_state(request: &Request<'_>) -> bool {
    let command = request.command;
    let is_on_all =
        request.keys.is_empty() && (command.reads_data() || command.is_write() || command.survey.is_some());
    is_on_all || matches!(command.run, Run::Eval(_) | Run::Exec) || command.has(Flag::Admin)
}

/// Whether the reply to a request is so large that it had better be written elsewhere.
pub(super) fn is_large_reply(settings: &ShardSettings, request: &Request<'_>, bytes: usize) -> bool {
    let is_large = bytes > settings.large_elements.saturating_mul(STRING_BYTES);
    is_large && request.command.is_read() && !request.command.has(Flag::Blocking) && may_be_sent(request)
}

/// Whether a request can be executed on nothing but what its keys hold.
pub(super) fn may_be_sent(request: &Request<'_>) -> bool {
    let command = request.command;
    matches!(command.run, Run::Read(_) | Run::Write(_))
        && !request.keys.is_empty()
        && !command.has(Flag::PubSub)
        && !command.forms_keys.is_some_and(|forms_keys| forms_keys(request.words))
}
