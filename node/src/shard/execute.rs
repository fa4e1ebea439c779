//! The way of a request: parse, accept, route, execute.

use bytes::{Buf, BytesMut};
use moonraft_proto::{
    Reply, Text, Weight,
    resp::{self, Parsed},
};
use moonraft_router::{Redirect, single_slot};

use super::{
    Client, Output, SessionId, Shard, ShardSettings, Standing,
    outbox::{Instead, ReadReply, RoundId},
    place::Place,
    session::{Queued, ReplyMode, Session},
    slow_log::{SlowRequest, kept_words},
};
use crate::command::{self, Command, CommandError, Flag, Outcome, Run};
use crate::keyspace::{Tx, tx::DiskRoom};

/// What became of the bytes that were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The buffer must hold at least so many bytes before the next call.
    pub needed: usize,
    /// A request was left in the buffer: the next call follows [`Output::Resume`].
    pub parked: bool,
    /// It was left there because the client leaves too many replies unread. More may be read
    /// meanwhile: a client that sends all its requests before it reads would otherwise wait for
    /// this server while this server waits for it.
    pub reads: bool,
    /// The connection is to be closed once what is writable has been written.
    pub close: bool,
}

/// How often the traces tell that somebody speaks HTTP.
const HTTP_TOLD_NS: u64 = 60_000_000_000;

/// Whether a request was dealt with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Answered,
    /// It stays in the buffer until there is a leader, or none for too long.
    Parked,
}

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

/// What becomes of a request that is not refused.
enum Admission {
    /// It is executed here; the one slot of its keys.
    Now(Option<u16>),
    /// It stays in the buffer.
    Later,
}

/// A limit of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnitLimit {
    /// Of what it changes: the limit's name, and bytes.
    Changes(&'static str, usize),
    /// Of what it answers.
    Reply(usize),
}

impl UnitLimit {
    /// What the client of a unit that exceeds it is told.
    pub fn refusal(self) -> String {
        match self {
            Self::Changes(name, bytes) => {
                format!("ERR the changes of this request exceed {name} ({bytes}); nothing was changed")
            }
            Self::Reply(bytes) => CommandError::ReplyTooLarge(bytes).to_string(),
        }
    }
}

impl Shard {
    /// Executes the requests at the start of `input` and takes them out of it.
    pub fn receive(&mut self, id: SessionId, input: &mut BytesMut) -> Received {
        let received = self.take_requests(id, input);
        self.confirm_reads(id);
        received
    }

    /// The same, but for reads, which leave once they are confirmed.
    pub(super) fn take_requests(&mut self, id: SessionId, input: &mut BytesMut) -> Received {
        let mut received = Received { needed: 1, parked: false, reads: true, close: false };
        if !self.sessions.contains(id) {
            return Received { close: true, ..received };
        }
        let session = &mut self.sessions[id];
        session.active_us = self.surroundings.unix_us();
        session.query_bytes = (input.len(), input.capacity() - input.len());
        let (mut at, mut is_full) = (0, false);
        let mut unfinished = std::mem::take(&mut self.sessions[id].unfinished);
        while at < input.len() && !self.sessions[id].closing {
            if self.sessions[id].outbox.len() > self.settings.outbox_bytes_full {
                (received.parked, is_full) = (true, true);
                break;
            }
            if self.is_over_in_flight() || self.sessions[id].blocked {
                (received.parked, received.reads) = (true, false);
                break;
            }
            let mut unquoted = Vec::new();
            match resp::parse(&input[at..], &mut unquoted, &self.settings.requests, &mut unfinished) {
                Ok(Parsed::Request { words, consumed }) => {
                    if !words.is_empty() && self.request(id, &words) == Done::Parked {
                        (received.parked, received.reads) = (true, false);
                        break;
                    }
                    at += consumed;
                }
                Ok(Parsed::Incomplete { needed }) => {
                    received.needed = needed;
                    break;
                }
                Err(error) => {
                    self.answer(
                        id,
                        &Reply::Error(Text::joined(&[b"ERR Protocol error: ".as_slice(), &error.0])),
                    );
                    self.sessions[id].closing = true;
                }
            }
        }
        self.statistics.bytes_in += at as u64;
        input.advance(at);
        // One that is blocked is resumed by what it waits for.
        let session = &mut self.sessions[id];
        session.query_bytes = (input.len(), input.capacity() - input.len());
        session.unfinished = unfinished;
        session.is_full = is_full;
        if received.parked && !is_full && !session.blocked && !session.is_parked {
            session.is_parked = true;
            self.parked.push(id);
        }
        self.limit_outbox(id);
        received.close = self.sessions[id].closing;
        received
    }

    /// Whether no more may be executed before something in flight commits. Only a leader adds to
    /// it: who has lost the lead answers that there is none, whatever is still undecided.
    fn is_over_in_flight(&self) -> bool {
        let leads = matches!(self.standing, Standing::Leading { .. });
        leads && self.speculation.bytes() > self.settings.in_flight_bytes_max
    }

    /// Reads were executed: they leave only if this replica still led afterwards.
    fn confirm_reads(&mut self, id: SessionId) {
        if self.reads.is_empty() {
            return;
        }
        let Standing::Leading { term, .. } = self.standing else { return self.reads.clear() };
        if self.settings.read_index || !self.surroundings.lease_covers(term) {
            self.round_wanted = true;
            let round = RoundId { term, round: self.next_round };
            self.sessions[id].outbox.bar(&self.reads, round);
        }
        self.reads.clear();
    }

    pub(super) fn limit_outbox(&mut self, id: SessionId) {
        let session = &self.sessions[id];
        if session.outbox.len() > session.outbox_bytes_max(&self.settings) {
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
        if !silent && !put_out(session, reply, reply.weight(), &self.settings) {
            self.cut_off(id);
        }
        self.statistics.note_error(&mut self.details, reply);
    }

    /// What speaks HTTP is no client, but a browser or a proxy that a third party makes use of: whatever
    /// else it sends are not its own words, so nothing more of it is executed or answered.
    fn hang_up(&mut self, id: SessionId) {
        self.drop_replies(id);
        let now_ns = self.surroundings.boot_ns();
        if self.told_of_http_ns.is_none_or(|told_ns| now_ns - told_ns >= HTTP_TOLD_NS) {
            self.told_of_http_ns = Some(now_ns);
            let peer = &self.sessions[id].peer_address;
            tracing::warn!(
                "possible attack: {peer} speaks HTTP to the port for clients (POST or Host:); closed, nothing of it was executed"
            );
        }
    }

    /// Deals with one request.
    fn request(&mut self, id: SessionId, words: &[&[u8]]) -> Done {
        let command = match command::resolve(words) {
            Ok(command) => command,
            Err(_) if command::is_http(words) => {
                self.hang_up(id);
                return self.done(id);
            }
            Err(error) => {
                self.refuse(id, &error);
                return self.done(id);
            }
        };
        match self.admit(id, command, words) {
            Ok(Admission::Later) => return Done::Parked,
            Ok(Admission::Now(slot)) => {
                self.sessions[id].last_command = Some(command);
                if self.is_queued(id, command) {
                    self.queue(id, command, words, slot);
                } else if self.is_busy() {
                    self.run_beside_script(id, command, words);
                } else {
                    self.run(id, command, words, slot);
                }
                self.note_reader(id);
            }
            Err(error) => self.reject(id, command, &error),
        }
        self.done(id)
    }

    /// Decides whether a request is executed or queued here and now. The order is that of Redis: a client
    /// hears the first reason there is against its request.
    fn admit(
        &mut self,
        id: SessionId,
        command: &Command,
        words: &[&[u8]],
    ) -> Result<Admission, CommandError> {
        command.check_arity(words)?;
        self.check_block(id, command)?;
        let slot = self.slot_of_request(id, command, words)?;
        let place = self.place_of(id, command, words, slot);
        if let Place::Elsewhere(redirect) = place {
            return Err(redirect.into());
        }
        self.check_listening(id, command)?;
        if self.waits_for_script(command)?
            || self.is_paused(id, command, words)
            || self.is_held_by_writer(id, command, words)
        {
            return Ok(Admission::Later);
        }
        match place {
            Place::Wait if self.may_wait() => Ok(Admission::Later),
            Place::Wait => Err(self.unserved()),
            _ if self.is_held_by_walk(id, command, words) => Ok(Admission::Later),
            _ => Ok(Admission::Now(slot)),
        }
    }

    /// A request has been answered, unless its session is blocked.
    pub(super) fn done(&mut self, id: SessionId) -> Done {
        if let Some(session) = self.sessions.get_mut(id).filter(|session| !session.blocked) {
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
        self.answer(id, &error.clone().into());
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

    /// Refuses what an open block cannot hold.
    fn check_block(&self, id: SessionId, command: &Command) -> Result<(), CommandError> {
        if self.sessions[id].queue.is_some() && command.has(Flag::NoMulti) {
            return Err(CommandError::text("ERR Command not allowed inside a transaction"));
        }
        Ok(())
    }

    /// Refuses what a RESP2 connection may not send while it listens.
    fn check_listening(&self, id: SessionId, command: &Command) -> Result<(), CommandError> {
        let session = &self.sessions[id];
        if session.is_listening_only() && !command.has(Flag::Listening) {
            let text = format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                command.full_name()
            );
            return Err(CommandError::Text(text.into()));
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
        let positions = command.key_positions(words);
        Ok(single_slot(positions.iter().map(|&at| words[at]))?)
    }

    /// Whether `CLIENT PAUSE` keeps a request waiting.
    fn is_paused(&self, id: SessionId, command: &Command, words: &[&[u8]]) -> bool {
        let Some(pause) = self.pause else { return false };
        let is_meant = !pause.writes_only || self.may_replicate(id, command, words);
        is_meant && self.surroundings.boot_ns() < pause.until_ns
    }

    /// Whether a request may change data or publish, now or when its block is executed.
    fn may_replicate(&self, id: SessionId, command: &Command, words: &[&[u8]]) -> bool {
        match (command.run, &self.sessions[id].queue) {
            (Run::Queue(_), queue) => queue.as_ref().is_some_and(|queue| queue.may_replicate),
            (Run::Script(..), _) => match self.declared_flags(command, words) {
                Some(flags) => !flags.no_writes,
                None => command.has(Flag::MayReplicate),
            },
            _ => command.is_write() || command.has(Flag::MayReplicate),
        }
    }

    /// Whether executing a request may change data.
    pub(super) fn may_write(&self, id: SessionId, command: &Command, words: &[&[u8]]) -> bool {
        match command.run {
            Run::Queue(_) => self.sessions[id].queue.as_ref().is_some_and(|queue| queue.writes),
            _ => !self.is_queued(id, command) && self.is_for_leader(command, words),
        }
    }

    /// Whether a request may change data, or its block when it is executed: what a script declares counts, else
    /// what its command allows.
    pub(super) fn is_for_leader(&self, command: &Command, words: &[&[u8]]) -> bool {
        match command.run {
            Run::Session(_) => false,
            Run::Script(..) => match self.declared_flags(command, words) {
                Some(flags) => !flags.no_writes,
                None => !command.is_read(),
            },
            _ => !command.is_read(),
        }
    }

    /// What a request is told that has waited for too long.
    fn unserved(&self) -> CommandError {
        // What has keys has been sent to a leader that answers; the rest is for this replica.
        match self.leader_answers() && !self.is_caught_up() {
            true => CommandError::text("LOADING Redis is loading the dataset in memory"),
            false => Redirect::Down.into(),
        }
    }

    /// Whether a request that nobody can serve now may wait: not if none could for long. All that
    /// wait share the time, or each request of a pipeline would wait as long again.
    fn may_wait(&mut self) -> bool {
        let now = self.surroundings.boot_ns();
        self.leaderless_since.get_or_insert(now);
        !self.is_leaderless_for_long(now)
    }

    pub(super) fn is_leaderless_for_long(&self, now: u64) -> bool {
        let park_ns = self.settings.park_ms * 1_000_000;
        self.leaderless_since.is_some_and(|since| now - since >= park_ns)
    }

    pub(super) fn is_queued(&self, id: SessionId, command: &Command) -> bool {
        self.sessions[id].queue.is_some() && !command.has(Flag::Immediate)
    }

    /// Keeps a request for `EXEC`.
    fn queue(&mut self, id: SessionId, command: &'static Command, words: &[&[u8]], slot: Option<u16>) {
        let may_replicate = self.may_replicate(id, command, words);
        let writes = self.is_for_leader(command, words);
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
        queue.may_replicate |= may_replicate;
        queue.writes |= writes;
        queue.requests.push(Queued::new(command, words));
        self.answer(id, &Reply::status("QUEUED"));
    }

    /// Executes a request here and now, as one unit.
    fn run(&mut self, id: SessionId, command: &'static Command, words: &[&[u8]], slot: Option<u16>) {
        let start = self.sessions[id].outbox.end();
        // Messages are published and heard at any replica: leadership has nothing to do with them.
        let needs_leader =
            self.is_serving() && self.is_on_data(id, command, slot) && !command.has(Flag::PubSub);
        let call = self.begin_call(command, !command.has(Flag::Fast));
        self.begin_unit();
        self.unit_reply = Weight::default();
        self.look_at_memory();
        let mut failed = match command.run {
            Run::Read(_) | Run::Write(_) => self.run_data(id, command, words),
            // Session commands change no data; the unit is for those that look at it.
            Run::Script(run, _) | Run::Queue(run) | Run::Session(run) => self.run_session(id, run, words),
            Run::Container => unreachable!("a container is never found by itself"),
        };
        if let Some(limit) = self.exceeded_limit() {
            self.refuse_unit(id, start, limit);
            failed = true;
        }
        let took_ns = self.end_call(command, call, failed);
        if call.began_ns.is_some() && took_ns / 1000 >= self.settings.slow_us {
            self.note_slow(id, words, took_ns / 1000);
        }
        let unit = self.tx_mut().end_unit();
        let (wrote, published) = (unit.wrote, !unit.publications.is_empty());
        // The shard's time is data too: a later leader may have shown a later one.
        let needs_leader = needs_leader || (unit.read_clock && self.is_serving());
        let batch = self.settle_unit(unit);
        if self.sessions.contains(id) {
            if let Some(batch) = batch {
                self.hold(id, start, batch, slot);
            }
            let end = self.sessions[id].outbox.end();
            if needs_leader && !wrote && end > start {
                let instead = if published { Instead::Close } else { Instead::Redirect(slot) };
                self.reads.push(ReadReply { start, end, instead });
            }
        }
        if self.tx().batch_bytes() > self.settings.batch_bytes_max {
            self.end_turn();
        }
    }

    /// The limit that the open unit exceeds.
    pub(super) fn exceeded_limit(&self) -> Option<UnitLimit> {
        let (tx, settings) = (self.tx(), &self.settings);
        if tx.unit_bytes() > settings.unit_bytes_max {
            return Some(UnitLimit::Changes("max-unit-bytes", settings.unit_bytes_max));
        }
        if self.unit_reply.counted() > settings.reply_bytes_max {
            return Some(UnitLimit::Reply(settings.reply_bytes_max));
        }
        let copied_bytes_max = settings.unit_copied_bytes_max;
        let too_much = tx.unit_copied_bytes() > copied_bytes_max;
        too_much.then_some(UnitLimit::Changes("max-unit-copied-bytes", copied_bytes_max))
    }

    /// A unit that does too much at once is refused whole.
    fn refuse_unit(&mut self, id: SessionId, start: u64, limit: UnitLimit) {
        self.tx_mut().roll_back_unit();
        let text = limit.refusal();
        if let Some(session) = self.sessions.get_mut(id) {
            session.outbox.truncate(start);
            self.answer(id, &Reply::Error(text.into()));
        }
    }

    /// A command is called: as a request, in a block, or by a script. It is timed now and then, or if it may be
    /// slow and slow ones are to be noted.
    pub(super) fn begin_call(&mut self, command: &'static Command, may_be_slow: bool) -> Call {
        let (place, is_sample) = self.details.begin(command);
        let is_timed = is_sample || may_be_slow && self.settings.slow_us != u64::MAX;
        Call { place, is_sample, began_ns: is_timed.then(|| self.surroundings.boot_ns()) }
    }

    /// A call has ended. Returns how long it took; 0 if it was not timed.
    pub(super) fn end_call(&mut self, command: &'static Command, call: Call, failed: bool) -> u64 {
        let now_ns = || self.surroundings.boot_ns();
        let took_ns = call.began_ns.map_or(0, |began_ns| now_ns().saturating_sub(began_ns));
        self.statistics.requests += 1;
        self.details.end(command, call.place, failed, call.is_sample.then_some(took_ns));
        took_ns
    }

    /// A request took longer than `slowlog-log-slower-than`.
    fn note_slow(&mut self, id: SessionId, words: &[&[u8]], took_us: u64) {
        let Some(session) = self.sessions.get(id) else { return };
        let slow = SlowRequest {
            id: 0,
            at_us: self.surroundings.unix_us(),
            took_us,
            words: kept_words(words),
            peer_address: session.peer_address.clone(),
            name: session.name.clone(),
        };
        self.slow_log.note(slow, self.settings.slow_log_length_max);
    }

    /// Executes a command on data. Returns whether it failed.
    fn run_data(&mut self, id: SessionId, command: &Command, words: &[&[u8]]) -> bool {
        let Self { tx, sessions, statistics, details, settings, unit_reply, .. } = self;
        let tx = tx.as_mut().expect("nothing is asked of a vacant shard");
        let outcome = Needs::of(command).check(tx).and_then(|()| run_on_data(tx, command, words));
        let reply = outcome.unwrap_or_else(Reply::from);
        statistics.note_error(details, &reply);
        let failed = reply.is_error();
        let session = &mut sessions[id];
        if matches!(session.reply_mode, ReplyMode::On | ReplyMode::SkipNext) {
            *unit_reply = reply.weight();
            let is_refused = unit_reply.counted() > settings.reply_bytes_max;
            if !is_refused && !put_out(session, &reply, *unit_reply, settings) {
                self.cut_off(id);
            }
        }
        failed
    }

    /// A client's replies exceed its limit: it is disconnected before they are written, and what it executed
    /// stays done.
    fn cut_off(&mut self, id: SessionId) {
        self.drop_replies(id);
        self.outputs.push(Output::Close(id));
    }

    /// Runs what is about the session, the server or the cluster. Returns whether it failed.
    pub(super) fn run_session(&mut self, id: SessionId, run: command::Session, words: &[&[u8]]) -> bool {
        let outcome = run(&mut Client { shard: self, id, may_block: true, slot: None }, words);
        let reply = outcome.unwrap_or_else(Reply::from);
        let weight = reply.weight();
        if weight.counted() > self.settings.reply_bytes_max {
            self.unit_reply = weight;
        }
        // What is refused whole is answered then.
        if self.sessions.contains(id) && self.exceeded_limit().is_none() {
            self.answer(id, &reply);
        }
        matches!(reply, Reply::Error(_))
    }
}

/// Bytes of a reply that is written before it is counted: the weight is an upper bound.
const SMALL_BYTES: usize = 64 << 10;

/// Puts a reply out, unless its client would leave more unread than it may.
fn put_out(session: &mut Session, reply: &Reply<'_>, weight: Weight, settings: &ShardSettings) -> bool {
    let bytes = session.outbox.len().saturating_add(weight.bytes);
    if weight.bytes > SMALL_BYTES && bytes > session.outbox_bytes_max(settings) {
        return false;
    }
    session.outbox.push(reply, session.protocol);
    true
}

/// Executes a command on data: what a single request, `EXEC` and scripts share.
pub(super) fn run_on_data<'a>(tx: &'a mut Tx, command: &Command, words: &[&'a [u8]]) -> Outcome<'a> {
    check_leader(tx, command.changes_data())?;
    command.execute(tx, words)
}

/// Refuses what writes at a follower.
pub(super) fn check_leader(tx: &Tx, writes: bool) -> Result<(), CommandError> {
    match writes && !tx.is_leading() {
        true => Err(CommandError::text("READONLY You can't write against a read only replica.")),
        false => Ok(()),
    }
}

/// What a command or a script needs that the node may lack.
#[derive(Clone, Copy, Default)]
pub(super) struct Needs {
    /// It may write.
    pub writes: bool,
    /// It may take more memory and disk.
    pub grows: bool,
    /// It runs however much memory is taken: a script with `allow-oom`.
    pub ignores_memory: bool,
}

impl Needs {
    /// Of a command.
    pub fn of(command: &Command) -> Self {
        let grows = command.has(Flag::DenyOom);
        Self { writes: command.changes_data(), grows, ignores_memory: false }
    }

    /// Refuses what must not run now: it would take memory or disk that the node lacks.
    pub fn check(self, tx: &Tx) -> Result<(), CommandError> {
        if self.grows && !self.ignores_memory && tx.is_out_of_memory() {
            return Err(CommandError::text("OOM command not allowed when used memory > 'maxmemory'."));
        }
        match tx.disk_room() {
            DiskRoom::Short if self.grows => Err(SHORT_OF_DISK),
            DiskRoom::Last if self.writes => Err(SHORT_OF_DISK),
            _ => Ok(()),
        }
    }
}

/// What is answered while less than `min-free-disk` is free.
const SHORT_OF_DISK: CommandError = CommandError::text(
    "MISCONF Moonraft is short of disk space: less than 'min-free-disk' is free on this node. Commands that may grow the data set are disabled until there is space again, and all writes when next to none is left.",
);
