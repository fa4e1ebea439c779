//! The way of a request: parse, accept, route, execute.

use bytes::{Buf, Bytes, BytesMut};
use moonraft_proto::{
    Reply,
    resp::{self, Parsed},
};
use moonraft_router::{Redirect, single_slot};

use super::{
    Client, Output, SessionId, Shard, Standing,
    session::{Queued, ReplyMode},
};
use crate::command::{self, Command, CommandError, Flag, Outcome, Run};

/// What became of the bytes that were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The buffer must hold at least so many bytes before the next call.
    pub needed: usize,
    /// A request was left in the buffer: the next call follows [`Output::Resume`].
    pub parked: bool,
    /// The connection is to be closed once what is writable has been written.
    pub close: bool,
}

/// Whether a request was dealt with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Answered,
    /// It stays in the buffer until there is a leader, or none for too long.
    Parked,
}

/// Where a request is executed.
enum Place {
    Here,
    Elsewhere(Redirect),
    /// Nobody knows yet.
    Wait,
}

impl Shard {
    /// Executes the requests at the start of `input` and takes them out of it.
    pub fn receive(&mut self, id: SessionId, input: &mut BytesMut) -> Received {
        let mut received = Received { needed: 1, parked: false, close: false };
        if !self.sessions.contains(id) {
            return Received { close: true, ..received };
        }
        self.sessions[id].active_us = self.surroundings.unix_us();
        let first = self.sessions[id].outbox.end();
        let mut read_here = false;
        let mut at = 0;
        while at < input.len() && !self.sessions[id].closing {
            if self.speculation.bytes() > self.settings.in_flight_bytes_max {
                received.parked = true;
                break;
            }
            match resp::parse(&input[at..], &self.settings.requests) {
                Ok(Parsed::Request { words, consumed }) => {
                    if !words.is_empty() && self.request(id, &words, &mut read_here) == Done::Parked {
                        received.parked = true;
                        break;
                    }
                    at += consumed;
                }
                Ok(Parsed::Incomplete { needed }) => {
                    received.needed = needed;
                    break;
                }
                Err(error) => {
                    self.answer(id, &Reply::Error(format!("ERR {error}").into()));
                    self.sessions[id].closing = true;
                }
            }
        }
        self.statistics.bytes_in += at as u64;
        input.advance(at);
        if received.parked && !self.parked.contains(&id) {
            self.parked.push(id);
        }
        if read_here {
            self.confirm_reads(id, first);
        }
        self.limit_outbox(id);
        received.close = self.sessions[id].closing;
        received
    }

    /// Reads were executed: they leave only if this replica still led afterwards.
    fn confirm_reads(&mut self, id: SessionId, first: u64) {
        let Standing::Leading { term, .. } = self.standing else { return };
        if !self.settings.read_index && self.surroundings.lease_covers(term) {
            return;
        }
        self.round_wanted = true;
        self.sessions[id].outbox.bar(first, term, self.next_round);
    }

    pub(super) fn limit_outbox(&mut self, id: SessionId) {
        if self.sessions[id].outbox.len() > self.settings.outbox_bytes_max {
            self.outputs.push(Output::Close(id));
        }
    }

    /// Appends a reply to a session's own request.
    pub(super) fn answer(&mut self, id: SessionId, reply: &Reply<'_>) {
        let session = &mut self.sessions[id];
        let silent = match session.reply_mode {
            ReplyMode::On => false,
            // What says to whom a client listens is a message, not a reply.
            ReplyMode::Off | ReplyMode::Skip => !matches!(reply, Reply::Several(_)),
            ReplyMode::SkipNext => false,
        };
        if !silent {
            session.outbox.push(reply, session.protocol);
        }
        self.statistics.note_error(&mut self.details, reply);
    }

    /// Deals with one request.
    fn request(&mut self, id: SessionId, words: &[&[u8]], read_here: &mut bool) -> Done {
        let command = match command::resolve(words) {
            Ok(command) => command,
            Err(error) => {
                self.refuse(id, &error);
                return self.done(id);
            }
        };
        let slot = match self.check(id, command, words) {
            Ok(slot) => slot,
            Err(error) => {
                self.reject(id, command, &error);
                return self.done(id);
            }
        };
        if self.is_paused(id, command) {
            return Done::Parked;
        }
        match self.place_of(id, command, slot) {
            Place::Wait if self.park(id) => return Done::Parked,
            Place::Wait => self.reject(id, command, &Redirect::Down.into()),
            Place::Elsewhere(redirect) => self.reject(id, command, &redirect.into()),
            Place::Here => {
                *read_here |= self.is_serving() && self.is_on_data(id, command, slot);
                self.sessions[id].last_command = Some(command);
                self.statistics.requests += 1;
                if self.is_queued(id, command) {
                    self.queue(id, command, words, slot);
                } else {
                    self.run(id, command, words, slot);
                }
            }
        }
        self.done(id)
    }

    /// A request has been answered.
    fn done(&mut self, id: SessionId) -> Done {
        if let Some(session) = self.sessions.get_mut(id) {
            session.parked_until = None;
            let asking = session.last_command.is_some_and(|command| command.has(Flag::Asking));
            session.asking &= asking;
            session.reply_mode = match session.reply_mode {
                ReplyMode::SkipNext => ReplyMode::Skip,
                ReplyMode::Skip => ReplyMode::On,
                mode => mode,
            };
        }
        Done::Answered
    }

    /// Answers with an error before execution: an open `MULTI` is broken by it.
    fn refuse(&mut self, id: SessionId, error: &CommandError) {
        if let Some(queue) = &mut self.sessions[id].queue {
            queue.broken = true;
        }
        self.answer(id, &Reply::Error(error.to_string().into()));
    }

    /// Refuses a request whose command is known. An `EXEC` that is refused ends the
    /// block; after a redirect the client asks again elsewhere, from its `WATCH` on.
    fn reject(&mut self, id: SessionId, command: &'static Command, error: &CommandError) {
        self.details.rejected(command);
        match (command.run, error) {
            (Run::Queue(_), CommandError::Redirect(_)) => self.refuse(id, error),
            (Run::Queue(_), _) => {
                let text = error.to_string();
                let reason = text.strip_prefix("ERR ").unwrap_or(&text);
                let text = format!("EXECABORT Transaction discarded because of: {reason}");
                self.refuse(id, &CommandError::Text(text.into()));
            }
            _ => return self.refuse(id, error),
        }
        self.sessions[id].queue = None;
        self.unwatch(id);
    }

    /// Checks a request before it is placed, and gives the one slot of its keys.
    fn check(&self, id: SessionId, command: &Command, words: &[&[u8]]) -> Result<Option<u16>, CommandError> {
        command.check_arity(words)?;
        let slot = self.slot_of_request(id, command, words)?;
        self.check_mode(id, command)?;
        Ok(slot)
    }

    /// Whether the state of the session allows the command.
    fn check_mode(&self, id: SessionId, command: &Command) -> Result<(), CommandError> {
        let session = &self.sessions[id];
        if session.is_listening_only() && !command.has(Flag::Listening) {
            let text = format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                command.full_name()
            );
            return Err(CommandError::Text(text.into()));
        }
        if session.queue.is_some() && command.has(Flag::NoMulti) {
            return Err(CommandError::text("ERR Command not allowed inside a transaction"));
        }
        Ok(())
    }

    /// The one slot of a request's keys; of the whole block for what runs a queue.
    fn slot_of_request(
        &self,
        id: SessionId,
        command: &Command,
        words: &[&[u8]],
    ) -> Result<Option<u16>, CommandError> {
        let queue = self.sessions[id].queue.as_ref();
        if let Run::Queue(_) = command.run {
            return Ok(queue.and_then(|queue| queue.slot));
        }
        let positions = command.key_positions(words)?;
        Ok(single_slot(positions.iter().map(|&at| words[at]))?)
    }

    /// Whether `CLIENT PAUSE` keeps a request waiting.
    fn is_paused(&self, id: SessionId, command: &Command) -> bool {
        let Some(pause) = self.pause else { return false };
        let writes = match command.run {
            Run::Queue(_) => self.sessions[id].queue.as_ref().is_some_and(|queue| queue.writes),
            Run::Write(_) | Run::Script(_, false) => !self.is_queued(id, command),
            _ => false,
        };
        (writes || !pause.writes_only) && self.surroundings.boot_ns() < pause.until_ns
    }

    /// Whether a request looks at data: that asks for leadership, or for leave to
    /// read what a follower has.
    fn is_on_data(&self, id: SessionId, command: &Command, slot: Option<u16>) -> bool {
        match command.run {
            // `TIME` and its like are answered from the request alone.
            Run::Read(_) => slot.is_some() || command.reads_data(),
            Run::Write(_) | Run::Script(..) => true,
            Run::Queue(_) => self.sessions[id].queue.as_ref().is_some_and(|queue| !queue.requests.is_empty()),
            Run::Session(_) | Run::Container => slot.is_some(),
        }
    }

    /// Where a request with keys in `slot` is executed.
    fn place_of(&self, id: SessionId, command: &Command, slot: Option<u16>) -> Place {
        let owned = slot.is_none_or(|slot| self.keyspace().owned().contains(slot));
        if !self.is_on_data(id, command, slot) || self.is_serving() && owned {
            return Place::Here;
        }
        let Some(slot) = slot else { return self.place_of_keyless(command) };
        if !owned {
            return Place::Elsewhere(self.redirect(Some(slot)));
        }
        if command.has(Flag::PubSub) {
            // Messages of a shard are heard at each of its replicas.
            return Place::Here;
        }
        match self.standing {
            Standing::Following { leader: Some(_) } if self.reads_here(id, command) => Place::Here,
            Standing::Following { leader: Some(_) } if self.leader_answers() => {
                Place::Elsewhere(self.redirect(Some(slot)))
            }
            _ => Place::Wait,
        }
    }

    /// Whether the leader that is followed can be sent clients: its node answers.
    /// If it does not, an election is due, and its port would refuse them.
    pub(super) fn leader_answers(&self) -> bool {
        let Standing::Following { leader: Some(leader) } = self.standing else { return false };
        let map = self.surroundings.map();
        let Some(place) = map.shards.get(self.settings.shard as usize) else { return true };
        let node = place.replicas.iter().find(|it| it.replica == leader).map(|it| it.node);
        node.is_none_or(|node| !place.failed.contains(&node))
    }

    /// Commands without keys are for the replica that was asked.
    fn place_of_keyless(&self, command: &Command) -> Place {
        match self.standing {
            _ if command.has(Flag::Stale) => Place::Here,
            Standing::Following { leader: Some(_) } => Place::Here,
            _ => Place::Wait,
        }
    }

    /// Whether a follower serves this request: the client asked for stale reads.
    fn reads_here(&self, id: SessionId, command: &Command) -> bool {
        let session = &self.sessions[id];
        let reads = match (&session.queue, command.run) {
            (Some(queue), Run::Queue(_)) => !queue.writes,
            // `WATCH` of a reader.
            (_, Run::Session(_)) => true,
            _ => command.is_read(),
        };
        session.read_only && reads
    }

    /// Parks the session's next request. Returns whether there is time left.
    fn park(&mut self, id: SessionId) -> bool {
        let now = self.surroundings.boot_ns();
        let until = now + self.settings.park_ms * 1_000_000;
        now < *self.sessions[id].parked_until.get_or_insert(until)
    }

    fn is_queued(&self, id: SessionId, command: &Command) -> bool {
        self.sessions[id].queue.is_some() && !command.has(Flag::Immediate)
    }

    /// Keeps a request for `EXEC`.
    fn queue(&mut self, id: SessionId, command: &'static Command, words: &[&[u8]], slot: Option<u16>) {
        let queue = self.sessions[id].queue.as_mut().expect("a request is queued in an open block");
        queue.bytes += words.iter().map(|word| word.len()).sum::<usize>();
        if queue.bytes > self.settings.queue_bytes_max {
            let error = CommandError::text("ERR transaction is over the limit of its size");
            return self.refuse(id, &error);
        }
        // A block that is broken will not get as far.
        queue.crosses_slots |=
            !queue.broken && slot.is_some() && queue.slot.is_some_and(|first| Some(first) != slot);
        queue.slot = queue.slot.or(slot);
        queue.writes |= !command.is_read() && !matches!(command.run, Run::Session(_));
        let words = words.iter().map(|word| Bytes::copy_from_slice(word)).collect();
        queue.requests.push(Queued { command, words });
        self.answer(id, &Reply::status("QUEUED"));
    }

    /// Executes a request here and now, as one unit.
    fn run(&mut self, id: SessionId, command: &'static Command, words: &[&[u8]], slot: Option<u16>) {
        let start = self.sessions[id].outbox.end();
        let bytes = self.tx().batch_bytes();
        let errors = self.statistics.errors;
        let began_ns = self.details.begin(command).then(|| self.surroundings.boot_ns());
        self.begin_unit();
        match command.run {
            Run::Read(_) | Run::Write(_) => self.run_data(id, command, words),
            // Session commands change no data; the unit is for those that look at it.
            Run::Script(run, _) | Run::Queue(run) | Run::Session(run) => self.run_session(id, run, words),
            Run::Container => unreachable!("a container is never found by itself"),
        }
        if self.tx().batch_bytes() - bytes > self.settings.unit_bytes_max {
            self.refuse_unit(id, start);
        }
        if self.statistics.errors != errors {
            self.details.failed(command);
        }
        if let Some(began_ns) = began_ns {
            let now_ns = self.surroundings.boot_ns();
            self.details.took(command, now_ns.saturating_sub(began_ns));
        }
        let unit = self.tx_mut().end_unit();
        if let Some(batch) = self.settle_unit(unit)
            && self.sessions.contains(id)
        {
            self.hold(id, start, batch, slot);
        }
        if self.tx().batch_bytes() > self.settings.batch_bytes_max {
            self.end_turn();
        }
    }

    /// A unit too large to be one entry is refused whole.
    fn refuse_unit(&mut self, id: SessionId, start: u64) {
        self.tx_mut().roll_back_unit();
        let text = self.unit_refusal();
        if let Some(session) = self.sessions.get_mut(id) {
            session.outbox.truncate(start);
            self.answer(id, &Reply::Error(text.into()));
        }
    }

    /// What the client of a unit that is too large is told.
    pub(super) fn unit_refusal(&self) -> String {
        let limit = self.settings.unit_bytes_max;
        format!("ERR the changes of this request exceed max-unit-bytes ({limit}); nothing was changed")
    }

    fn run_data(&mut self, id: SessionId, command: &Command, words: &[&[u8]]) {
        let Self { tx, sessions, statistics, details, .. } = self;
        let tx = tx.as_mut().expect("the transaction is at home but while a script runs");
        let outcome = run_on_data(tx, command, words);
        let reply = outcome.unwrap_or_else(|error| Reply::Error(error.to_string().into()));
        statistics.note_error(details, &reply);
        let session = &mut sessions[id];
        if matches!(session.reply_mode, ReplyMode::On | ReplyMode::SkipNext) {
            session.outbox.push(&reply, session.protocol);
        }
    }

    fn run_session(&mut self, id: SessionId, run: command::Session, words: &[&[u8]]) {
        let outcome = run(&mut Client { shard: self, id }, words);
        let reply = outcome.unwrap_or_else(|error| Reply::Error(error.to_string().into()));
        if self.sessions.contains(id) {
            self.answer(id, &reply);
        }
    }
}

/// Executes a command on data: what a single request, `EXEC` and scripts share.
pub(super) fn run_on_data<'a>(
    tx: &'a mut crate::keyspace::Tx,
    command: &Command,
    words: &[&'a [u8]],
) -> Outcome<'a> {
    if command.is_write() && !tx.is_leading() && !command.has(Flag::PubSub) {
        return Err(CommandError::text("READONLY You can't write against a read only replica."));
    }
    if tx.is_out_of_memory() && command.has(Flag::DenyOom) {
        return Err(CommandError::text("OOM command not allowed when used memory > 'maxmemory'."));
    }
    command.execute(tx, words)
}
