//! The way of a request in and of its answer out: parse, admit, execute; answer.

use bytes::{Buf, BytesMut};
use moonraft_proto::{
    Reply, Text, Weight,
    resp::{self, Parsed},
};

use super::{
    Core, Output, SessionId, Shard, ShardSettings, Standing,
    admit::{Admission, Reason, Via},
    outbox::RoundId,
    session::Session,
};
use crate::command::{self, Command, CommandError, Request, Run, session::ReplyMode};

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
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Done {
    Answered,
    /// It stays in the buffer.
    Later(Reason),
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
        let now_us = self.surroundings.unix_us();
        let session = &mut self.sessions[id];
        session.active_us = now_us;
        session.query_bytes = (input.len(), input.capacity() - input.len());
        if let Some(reason) = self.waiting.reason(id) {
            // It will be looked at when that is gone.
            let (reads, close) = (*reason == Reason::Unread, self.sessions[id].closing);
            return Received { parked: true, reads, close, ..received };
        }
        let (mut at, mut waits_for) = (0, None);
        let mut unfinished = std::mem::take(&mut self.sessions[id].unfinished);
        while at < input.len() && !self.sessions[id].closing {
            if self.sessions[id].outbox.len() > self.settings.outbox_bytes_full {
                waits_for = Some(Reason::Unread);
                break;
            }
            if std::mem::take(&mut self.sessions[id].is_answered) {
                at += self.sessions[id].left_bytes; // it was executed elsewhere: it is not read again
                self.done(id);
                continue;
            }
            let mut unquoted = Vec::new();
            match resp::parse(&input[at..], &mut unquoted, &self.settings.requests, &mut unfinished) {
                Ok(Parsed::Request { words, consumed }) => {
                    self.statistics.parsed += 1;
                    if !words.is_empty()
                        && let Done::Later(reason) = self.request(id, &words)
                    {
                        self.sessions[id].left_bytes = consumed;
                        waits_for = Some(reason);
                        break;
                    }
                    at += consumed;
                    if self.waiting.reason(id).is_some() {
                        break; // it is answered later, and those behind it after it
                    }
                }
                Ok(Parsed::Incomplete { needed }) => {
                    received.needed = needed;
                    break;
                }
                Err(error) => {
                    let text = [b"ERR Protocol error: ".as_slice(), &error.0];
                    self.answer(id, &Reply::Error(Text::joined(&text)));
                    self.sessions[id].closing = true;
                }
            }
        }
        self.read_ns = None;
        self.statistics.bytes_in += at as u64;
        input.advance(at);
        let session = &mut self.sessions[id];
        session.query_bytes = (input.len(), input.capacity() - input.len());
        session.unfinished = unfinished;
        if let Some(reason) = waits_for {
            (received.parked, received.reads) = (true, reason == Reason::Unread);
            self.waiting.enter(id, reason);
        } else if !input.is_empty() && self.waiting.reason(id).is_some() {
            (received.parked, received.reads) = (true, false);
        }
        self.answer_call(id);
        self.limit_outbox(id);
        received.close = self.sessions[id].closing;
        received
    }

    /// Deals with one request.
    fn request(&mut self, id: SessionId, words: &[&[u8]]) -> Done {
        let mut request = match Request::read(words) {
            Ok(request) => request,
            Err(_) if command::is_http(words) => {
                self.hang_up(id);
                return self.done(id);
            }
            Err(error) => {
                self.refuse(id, &error);
                self.end_caching(id, None);
                return self.done(id);
            }
        };
        if let (Run::Exec, Some(queue)) = (request.command.run, &self.sessions[id].queue) {
            request.slots = queue.slot.into();
        }
        match self.admit(id, &request, Via::Client) {
            Ok(Admission::Later(reason)) => return Done::Later(reason),
            Ok(Admission::Now) => {
                if let Some(reason) = self.act(id, &request) {
                    return Done::Later(reason);
                }
            }
            Err(error) => self.reject(id, request.command, &error),
        }
        self.end_caching(id, Some(request.command));
        self.done(id)
    }

    /// Executes a client's request that was admitted, or keeps it for `EXEC`. Returns what it waits for if it is
    /// executed elsewhere.
    fn act(&mut self, id: SessionId, request: &Request<'_>) -> Option<Reason> {
        self.sessions[id].last_command = Some(request.command);
        if self.is_queued(id, request.command) {
            self.queue(id, request);
        } else if self.is_busy() {
            self.run_beside_script(id, request);
        } else {
            let stays = self.sessions[id].stays_here;
            let elsewhere = if stays { None } else { self.begin_elsewhere(id, request) };
            // What was let pass to gather its keys, and does not, waits for them as any other does.
            let elsewhere = elsewhere.or_else(|| self.held_by_loan(id, request));
            if elsewhere.is_none() {
                self.sessions[id].stays_here = false;
            }
            let elsewhere = elsewhere.or_else(|| self.run(id, request));
            if elsewhere.is_some() {
                return elsewhere;
            }
        }
        self.note_reader(id);
        None
    }
}

impl Core {
    /// Reads were executed: they leave only if this replica still led afterwards.
    pub(super) fn confirm_reads(&mut self, id: SessionId) {
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
        self.note_error(reply);
    }

    /// Counts a reply that is an error.
    pub(super) fn note_error(&mut self, reply: &Reply<'_>) {
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

    /// A request has been answered, unless its answer comes later.
    pub(super) fn done(&mut self, id: SessionId) -> Done {
        let is_answered = self.waiting.reason(id).is_none();
        if let Some(session) = self.sessions.get_mut(id).filter(|_| is_answered) {
            session.reply_mode = match session.reply_mode {
                ReplyMode::SkipNext => ReplyMode::Skip,
                ReplyMode::Skip => ReplyMode::On,
                mode => mode,
            };
        }
        Done::Answered
    }

    /// Answers with an error before execution: an open `MULTI` is broken by it.
    pub(super) fn refuse(&mut self, id: SessionId, error: &CommandError) {
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
            (Run::Exec, CommandError::Redirect(_)) => self.refuse(id, error),
            (Run::Exec, _) => {
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

    /// A client's replies exceed its limit: it is disconnected before they are written, and what it executed
    /// stays done.
    pub(super) fn cut_off(&mut self, id: SessionId) {
        self.drop_replies(id);
        self.outputs.push(Output::Close(id));
    }
}

/// Bytes of a reply that is written before it is counted: the weight is an upper bound.
pub(super) const SMALL_BYTES: usize = 64 << 10;

/// Puts a reply out, unless its client would leave more unread than it may.
pub(super) fn put_out(
    session: &mut Session,
    reply: &Reply<'_>,
    weight: Weight,
    settings: &ShardSettings,
) -> bool {
    let bytes = session.outbox.len().saturating_add(weight.bytes);
    if weight.bytes > SMALL_BYTES && bytes > session.outbox_bytes_max(settings) {
        return false;
    }
    let protocol = session.protocol;
    session.outbox.push(reply, protocol);
    true
}
