//! A `MULTI` block: its requests are queued, and `EXEC` runs them in one unit.
//!
//! A block that is not executed elsewhere ([`super::large_blocks`]) and goes on for longer than a script may is over its
//! time as a script is ([`super::busy`]): between two of its requests, and while a large one is executed elsewhere, others are told so, and who ends scripts ends it. Then
//! nothing of it is left.

use std::rc::Rc;

use moonraft_proto::Reply;
use moonraft_router::Redirect;

use super::{
    Busy, Core, SessionId, Shard,
    admit::{Home, Reason, Via, keeps_to},
    large_calls::await_call,
    monitors::Source,
};
use crate::command::{CommandError, Outcome, Request, Run, session::Queued};

impl Shard {
    /// `EXEC`
    ///
    /// All requests run in one unit. One that fails leaves no effect of its own; the others stand, as in Redis. None
    /// runs if one of them is not admitted: the node lacks memory or disk for it, or may lack it for a script.
    pub(super) fn exec(&mut self, id: SessionId) -> Outcome<'static> {
        let Some(queue) = self.sessions[id].queue.take() else {
            return Err(CommandError::text("ERR EXEC without MULTI"));
        };
        let broken_watch = self.is_watch_broken(id);
        self.unwatch(id);
        if queue.crosses_slots && !broken_watch {
            return Err(Redirect::CrossSlot.into());
        }
        if queue.broken {
            return Err(CommandError::text("EXECABORT Transaction discarded because of previous errors."));
        }
        let words: Vec<Vec<&[u8]>> = queue.requests.iter().map(Queued::words).collect();
        let requests: Vec<Request<'_>> =
            queue.requests.iter().zip(&words).map(|(queued, words)| queued.request(words)).collect();
        let home = Home::new(queue.slot);
        for request in &requests {
            if let Err(error) = self.admit(id, request, Via::Block(&home)) {
                let text = format!("EXECABORT Transaction discarded because of: {error}");
                return Err(CommandError::Text(text.into()));
            }
        }
        if broken_watch {
            return Ok(Reply::NullArray);
        }
        let replies = self.execute_block(id, &requests, &home);
        self.wake(&Reason::Script); // who came meanwhile
        replies
    }

    fn execute_block(&mut self, id: SessionId, requests: &[Request<'_>], home: &Home) -> Outcome<'static> {
        const KILLED: CommandError =
            CommandError::text("EXECABORT Transaction discarded because of: it was killed");
        let started_ns = self.surroundings.boot_ns();
        let mut replies = Vec::with_capacity(requests.len());
        for request in requests {
            if self.exceeded_limit().is_some() {
                break; // it will be refused whole
            }
            let goes_on = !self.is_block_to_end(started_ns);
            let reply = goes_on.then(|| self.execute_queued(id, request, home, started_ns)).flatten();
            let Some(reply) = reply else {
                self.store_mut().roll_back_unit();
                return Err(KILLED);
            };
            replies.push(reply);
        }
        Ok(Reply::Array(replies))
    }

    /// Lets clients be attended to if the block is over its time. Returns whether it is to end.
    fn is_block_to_end(&mut self, started_ns: u64) -> bool {
        let ran_ns = self.surroundings.boot_ns().saturating_sub(started_ns);
        let is_busy = ran_ns > self.settings.busy_ms * 1_000_000;
        let is_heard = is_busy || ran_ns > self.settings.heard_ms * 1_000_000;
        is_heard && self.attend_clients(is_busy) == Busy::Kill
    }

    /// Executes one request of the block. `None`: the block is to end.
    fn execute_queued(
        &mut self,
        id: SessionId,
        request: &Request<'_>,
        home: &Home,
        started_ns: u64,
    ) -> Option<Reply<'static>> {
        let call = self.begin_call(request.command, false);
        if let Run::Eval(_) = request.command.run {
            self.tell_monitors(Source::Client(id), request.command, request.words);
        }
        let outcome = match self.is_large_call(request) {
            true => self.call_from_block(id, request, started_ns)?,
            false => self.execute(id, request, Via::Block(home)),
        };
        let reply = match outcome {
            // Several replies in the place of one would break the frame of the array.
            Ok(Reply::Several(replies)) if replies.len() != 1 => Reply::Array(replies),
            Ok(reply) => reply,
            Err(error) => error.into(),
        };
        self.note_error(&reply);
        self.end_call(request.command, call, matches!(reply, Reply::Error(_)));
        self.tell_unless_script(id, request);
        Some(reply)
    }

    /// Executes a large request of the block elsewhere. `None`: the block is to end.
    fn call_from_block(
        &mut self,
        id: SessionId,
        request: &Request<'_>,
        started_ns: u64,
    ) -> Option<Outcome<'static>> {
        let number = self.send_call(request);
        let surroundings = Rc::clone(&self.surroundings);
        let (outcome, ends) = await_call(&*surroundings, number, || self.is_block_to_end(started_ns));
        if ends {
            self.recall_call(outcome);
            return None;
        }
        let outcome = self.take_call(outcome, true);
        self.note_copies(id, request);
        Some(outcome)
    }
}

impl Core {
    /// Keeps a request for `EXEC`.
    pub(super) fn queue(&mut self, id: SessionId, request: &Request<'_>) {
        let writes = self.may_change(id, request);
        let queue = self.sessions[id].queue.as_mut().expect("a request is queued in an open block");
        queue.bytes += Queued::bytes_of(request);
        if queue.bytes > self.settings.queue_bytes_max {
            let error = CommandError::text("ERR transaction is over the limit of its size");
            return self.refuse(id, &error);
        }
        let home = Home::new(queue.slot);
        // A block that is broken will not get as far.
        queue.crosses_slots |= request.slot().is_some_and(|slot| !keeps_to(&home, slot)) && !queue.broken;
        queue.slot = home.get();
        queue.writes |= writes;
        queue.words += request.words.len();
        queue.may_be_large |= request.command.work.is_some()
            || request.command.is_read()
            || queue.words > self.settings.large_elements;
        queue.requests.push(Queued::new(request));
        self.answer(id, &Reply::status("QUEUED"));
    }

    /// Whether a watched key has changed since, or its time has come.
    pub(super) fn is_watch_broken(&self, id: SessionId) -> bool {
        let (store, watched) = (self.store(), &self.keyspace().watched);
        self.sessions[id].watches.iter().any(|(key, seen)| {
            watched.last_change(key) != Some(seen.change) || seen.was_there && !store.is_there(key)
        })
    }
}
