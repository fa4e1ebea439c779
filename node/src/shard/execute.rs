//! Execution of a request that was admitted, as one unit or as a part of one, and what is noted of it.

use std::rc::Rc;

use bytes::Bytes;
use moonraft_proto::{Reply, Weight};

use super::{
    Core, SessionId, Shard, ShardSettings,
    admit::{Reason, Via},
    client::Turn,
    errands::is_large_reply,
    monitors::Source,
    outbox::{Instead, ReadReply},
    receive::put_out,
};
use crate::{
    command::{
        Command, CommandError, Flag, Outcome, Request, Run,
        latency::Event,
        session::ReplyMode,
        slow_requests::{SlowRequest, kept_words},
    },
    keyspace::{Store, Wish, tx::Publication},
};

/// A call of a command that is under way.
#[derive(Clone, Copy)]
pub struct Call {
    /// The place of its counters.
    place: usize,
    /// Its time stands for those of others.
    is_sample: bool,
    /// When it began, boot clock, if it is timed.
    began_ns: Option<u64>,
}

/// A client's request that is being executed as one unit.
struct Running {
    /// Where its reply begins.
    start: u64,
    /// Its reply, if it has changed nothing, leaves only if this replica still leads.
    needs_leader: bool,
    call: Call,
}

/// What became of a request on data.
enum Ran {
    Answered {
        failed: bool,
    },
    /// It found nothing, and would wait.
    Waits(Wish),
    /// Its reply is so large that it is to be written elsewhere.
    TooLarge,
}

/// What becomes of a client's request on data once it has been executed.
pub(super) enum After {
    Answered,
    /// It waits for this.
    Waits(Wish),
    /// It is to be executed elsewhere.
    Elsewhere,
}

/// The limit that the open unit exceeds, with a reply of this weight.
pub(super) fn exceeded_limit(store: &Store, settings: &ShardSettings, reply: Weight) -> Option<CommandError> {
    if store.unit_bytes() > settings.unit_bytes_max {
        return Some(CommandError::ChangesTooLarge("max-unit-bytes", settings.unit_bytes_max));
    }
    if reply.counted() > settings.limits.reply_bytes_max {
        return Some(CommandError::ReplyTooLarge(settings.limits.reply_bytes_max));
    }
    let copied_bytes_max = settings.unit_copied_bytes_max;
    let too_much = store.unit_copied_bytes() > copied_bytes_max;
    too_much.then_some(CommandError::ChangesTooLarge("max-unit-copied-bytes", copied_bytes_max))
}

/// Adds what the reply to a call weighs to its unit's. Returns whether it is copied: one that is too large, with those of
/// the block before it, is not, for the unit will be refused whole.
///
/// # Errors
/// It is too large for a script, which ends.
pub(super) fn weigh_call(
    unit_reply: &mut Weight,
    reply: Weight,
    in_block: bool,
    settings: &ShardSettings,
) -> Result<bool, CommandError> {
    let weight = if in_block { unit_reply.and(reply) } else { reply };
    let is_too_large = weight.counted() > settings.limits.reply_bytes_max;
    if in_block || is_too_large {
        *unit_reply = weight;
    }
    match is_too_large && !in_block {
        true => Err(CommandError::ReplyTooLarge(settings.limits.reply_bytes_max)),
        false => Ok(!is_too_large),
    }
}

impl Shard {
    /// Executes a client's request here and now, as one unit, and after it those that waited for what it brought. Returns
    /// what it waits for if it is executed elsewhere instead.
    pub(super) fn run(&mut self, id: SessionId, request: &Request<'_>) -> Option<Reason> {
        match request.command.run {
            Run::Read(_) | Run::Write(_) => match self.run_on_data(id, request) {
                After::Answered => {}
                After::Waits(wish) => self.block(id, request, wish),
                After::Elsewhere => return Some(self.send(id, request, 0)),
            },
            // A session's command changes no data; the unit is for those that look at it.
            _ => {
                let running = self.begin_run(id, request);
                let failed = self.run_whole(id, request);
                self.end_run(id, request, &running, failed);
            }
        }
        self.serve_blocked();
        if self.store().batch_bytes() > self.settings.batch_bytes_max {
            self.end_turn();
            self.read_ns = None;
        }
        None
    }

    /// Executes a client's request that is not on data alone. Returns whether it failed.
    pub(super) fn run_whole(&mut self, id: SessionId, request: &Request<'_>) -> bool {
        let outcome = self.execute(id, request, Via::Client);
        let reply = outcome.unwrap_or_else(Reply::from);
        let weight = reply.weight();
        if weight.counted() > self.settings.limits.reply_bytes_max {
            self.unit_reply = weight;
        }
        // What is refused whole is answered then.
        if self.sessions.contains(id) && self.exceeded_limit().is_none() {
            self.answer(id, &reply);
        }
        matches!(reply, Reply::Error(_))
    }

    /// Executes a request in the open unit.
    ///
    /// # Errors
    /// As the command's: nothing of it is left.
    pub(super) fn execute(&mut self, id: SessionId, request: &Request<'_>, via: Via<'_>) -> Outcome<'static> {
        let outcome = match request.command.run {
            Run::Read(_) | Run::Write(_) => {
                let outcome = self.execute_on_data(request, via);
                self.note_copies(id, request);
                return outcome;
            }
            Run::Session(_) => {
                let may_block = matches!(via, Via::Client);
                request.execute_for(&mut Turn { shard: self, id, may_block })
            }
            Run::Eval(eval) => self.eval(id, request, eval, via),
            Run::Exec => self.exec(id),
            Run::Container => unreachable!("a container is never found by itself"),
        };
        if let (Via::Block(_), Ok(reply)) = (via, &outcome) {
            self.unit_reply = self.unit_reply.and(reply.weight());
        }
        outcome
    }
}

impl Core {
    // ---- a request as one unit ------------------------------------------------------

    fn begin_run(&mut self, id: SessionId, request: &Request<'_>) -> Running {
        let command = request.command;
        let boot_ns = self.read_ns.take().unwrap_or_else(|| self.surroundings.boot_ns());
        let running = Running {
            start: self.sessions[id].outbox.end(),
            // Messages are published and heard at any replica: leadership has nothing to do with them.
            needs_leader: self.is_serving() && self.is_on_data(id, request) && !command.has(Flag::PubSub),
            call: self.begin_call_at(command, !command.has(Flag::Fast), || boot_ns),
        };
        self.begin_unit_at(boot_ns);
        let (untouching, number) = (self.sessions[id].no_touch, self.sessions[id].number);
        self.store_mut().set_client(number);
        self.store_mut().set_client_untouching(untouching);
        self.unit_reply = Weight::default();
        if let Run::Eval(_) = command.run {
            self.tell_monitors(Source::Client(id), command, request.words);
        }
        running
    }

    fn end_run(&mut self, id: SessionId, request: &Request<'_>, running: &Running, mut failed: bool) {
        if let Some(limit) = self.exceeded_limit() {
            self.refuse_unit(id, running.start, limit);
            failed = true;
        }
        let took_ns = self.end_call(request.command, running.call, failed);
        if running.call.began_ns.is_some() && took_ns / 1000 >= self.settings.slow_us {
            self.note_slow(id, kept_words(request.command, request.words), took_ns / 1000);
        }
        self.settle_run(id, request.slot(), running);
        self.tell_unless_script(id, request);
    }

    /// Tells who monitors of a request that was executed; of a script they have heard.
    pub(super) fn tell_unless_script(&mut self, id: SessionId, request: &Request<'_>) {
        if !matches!(request.command.run, Run::Eval(_)) {
            self.tell_monitors(Source::Client(id), request.command, request.words);
        }
    }

    /// Ends the unit: what its reply waits for is known.
    fn settle_run(&mut self, id: SessionId, slot: Option<u16>, running: &Running) {
        let unit = self.store_mut().end_unit();
        let (wrote, published) = (unit.wrote, unit.publications.iter().any(Publication::is_of_client));
        // The shard's time is data too: a later leader may have shown a later one.
        let needs_leader = running.needs_leader || (unit.showed_time && self.is_serving());
        // What it is to forget comes behind its reply, and is no part of it.
        let end = self.sessions.get(id).map_or(0, |session| session.outbox.end());
        let batch = self.settle_unit(unit);
        if self.sessions.contains(id) {
            let start = running.start;
            if let Some(batch) = batch {
                self.hold(id, start, batch, slot);
            }
            if needs_leader && !wrote && end > start {
                let instead = if published { Instead::Close } else { Instead::Redirect(slot) };
                self.reads.push(ReadReply { start, end, instead });
            }
        }
    }

    /// Executes a client's request on data, as one unit. If it has found nothing, and would wait, or is to be executed
    /// elsewhere, it is not answered, and is no call yet.
    pub(super) fn run_on_data(&mut self, id: SessionId, request: &Request<'_>) -> After {
        let running = self.begin_run(id, request);
        let ran = self.answer_from_data(id, request);
        self.note_copies(id, request);
        match ran {
            Ran::Answered { failed } => {
                self.end_run(id, request, &running, failed);
                After::Answered
            }
            Ran::Waits(wish) => {
                self.settle_run(id, request.slot(), &running);
                After::Waits(wish)
            }
            Ran::TooLarge => {
                self.settle_run(id, request.slot(), &running); // it may have removed what has expired
                After::Elsewhere
            }
        }
    }

    /// Answers a request on data that is not executed: as if it had looked at its keys.
    pub(super) fn answer_after_look(&mut self, id: SessionId, request: &Request<'_>, reply: &Reply<'_>) {
        let running = self.begin_run(id, request);
        self.store().count_lookups(false);
        request.keys().for_each(|key| {
            self.store().object(key);
        });
        self.answer(id, reply);
        self.end_run(id, request, &running, reply.is_error());
    }

    /// Executes a client's request on data in the open unit; its reply is put out from where it lies, unless that would
    /// take long.
    fn answer_from_data(&mut self, id: SessionId, request: &Request<'_>) -> Ran {
        let Self { store, listeners, sessions, statistics, details, settings, unit_reply, .. } = self;
        let mut tx = store.tx().heard_by(listeners);
        let mut reply = request.execute(&mut tx).unwrap_or_else(Reply::from);
        if request.command.has(Flag::Blocking) && matches!(reply, Reply::Null | Reply::NullArray) {
            reply = reply.into_owned();
            if let Some(wish) = tx.take_wish() {
                return Ran::Waits(wish);
            }
        }
        let failed = reply.is_error();
        let session = &mut sessions[id];
        if matches!(session.reply_mode, ReplyMode::On | ReplyMode::SkipNext) {
            *unit_reply = reply.weight();
            let is_refused = unit_reply.counted() > settings.limits.reply_bytes_max;
            if !is_refused && is_large_reply(settings, request, unit_reply.bytes) {
                return Ran::TooLarge;
            }
            statistics.note_error(details, &reply);
            if !is_refused && !put_out(session, &reply, *unit_reply, settings) {
                self.cut_off(id);
            }
        } else {
            statistics.note_error(details, &reply);
        }
        Ran::Answered { failed }
    }

    /// Executes what a block or a script has called, on data.
    fn execute_on_data(&mut self, request: &Request<'_>, via: Via<'_>) -> Outcome<'static> {
        let Self { store, listeners, unit_reply, settings, .. } = self;
        let mut tx = store.tx().heard_by(listeners);
        let reply = request.execute(&mut tx)?;
        let in_block = matches!(via, Via::Block(_));
        match weigh_call(unit_reply, reply.weight(), in_block, settings)? {
            true => Ok(reply.into_owned()),
            false => Ok(Reply::Nothing),
        }
    }

    // ---- limits of a unit --------------------------------------------------------

    /// The limit that the open unit exceeds.
    pub(super) fn exceeded_limit(&self) -> Option<CommandError> {
        exceeded_limit(self.store(), &self.settings, self.unit_reply)
    }

    /// A unit that does too much at once is refused whole.
    fn refuse_unit(&mut self, id: SessionId, start: u64, limit: CommandError) {
        self.store_mut().roll_back_unit();
        if let Some(session) = self.sessions.get_mut(id) {
            session.outbox.truncate(start);
            self.answer(id, &limit.into());
        }
    }

    // ---- what is noted of a call ---------------------------------------------------

    /// A command is called: as a request, in a block, or by a script. It is timed now and then, or if it may be
    /// slow and slow ones are to be noted.
    pub(super) fn begin_call(&mut self, command: &'static Command, may_be_slow: bool) -> Call {
        let surroundings = Rc::clone(&self.surroundings);
        self.begin_call_at(command, may_be_slow, || surroundings.boot_ns())
    }

    /// The same, where the boot clock can be told.
    fn begin_call_at(
        &mut self,
        command: &'static Command,
        may_be_slow: bool,
        boot_ns: impl FnOnce() -> u64,
    ) -> Call {
        let (place, is_sample) = self.details.begin(command);
        let is_timed = is_sample || may_be_slow && self.settings.slow_us != u64::MAX || self.latency.is_on();
        Call { place, is_sample, began_ns: is_timed.then(boot_ns) }
    }

    /// A call has ended. Returns how long it took; 0 if it was not timed.
    pub(super) fn end_call(&mut self, command: &'static Command, call: Call, failed: bool) -> u64 {
        // When one request has ended, the next one of its client begins.
        self.read_ns = call.began_ns.map(|_| self.surroundings.boot_ns());
        let took_ns = call.began_ns.zip(self.read_ns).map_or(0, |(began, ended)| ended.saturating_sub(began));
        self.statistics.requests += 1;
        self.details.end(command, call.place, failed, call.is_sample.then_some(took_ns));
        let event = if command.has(Flag::Fast) { Event::FastCommand } else { Event::Command };
        self.latency.note(event, took_ns, || self.surroundings.unix_us());
        took_ns
    }

    /// An errand has come back, which began at this time. Returns how long it took.
    pub(super) fn end_errand_call(&mut self, command: &'static Command, began_ns: u64, failed: bool) -> u64 {
        let call = Call { began_ns: Some(began_ns), ..self.begin_call(command, false) };
        self.end_call(command, call, failed)
    }

    /// An event begins that may take long. When, boot clock, if somebody wants to know.
    pub(super) fn begin_event(&self) -> Option<u64> {
        self.latency.is_on().then(|| self.surroundings.boot_ns())
    }

    /// It has ended.
    pub(super) fn end_event(&mut self, event: Event, began_ns: Option<u64>) {
        if let Some(began_ns) = began_ns {
            let took_ns = self.surroundings.boot_ns().saturating_sub(began_ns);
            self.latency.note(event, took_ns, || self.surroundings.unix_us());
        }
    }

    /// A request took longer than `slowlog-log-slower-than`.
    pub(super) fn note_slow(&mut self, id: SessionId, words: Vec<Bytes>, took_us: u64) {
        let Some(session) = self.sessions.get(id) else { return };
        let slow = SlowRequest {
            id: 0,
            at_us: self.surroundings.unix_us(),
            took_us,
            words,
            peer_address: session.peer_address.clone(),
            name: session.name.clone(),
        };
        self.slow_log.note(slow, self.settings.slow_log_length_max);
    }
}
