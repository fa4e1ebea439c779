//! A `MULTI` block whose requests together work through much is executed elsewhere, as one: see [`super::errands`].
//!
//! `EXEC` stays in its client's buffer meanwhile, and the block and the watched keys stay its session's: whoever calls the
//! block back finds all as it was. When the block comes back the watched keys are looked at again, for others were
//! served: if one has changed, nothing was executed.
//!
//! How much a request will work through is not known if one before it makes what it works through: then that is
//! reckoned from what the one before was given. A block with requests that cannot be executed on the values of their keys
//! alone (`PUBLISH`, `EVAL`, `KEYS` …) is executed here.
//!
//! INVARIANT: a block is executed whole or not at all, and only if no watched key has changed until it takes effect.

use hashbrown::HashMap;
use moonraft_proto::Reply;

use super::{
    Core, Outcome, SessionId,
    admit::{Admission, Home, Reason, Via},
    errands::{Answer, Sent, may_be_sent},
};
use crate::{
    command::{
        Command, Request, Run,
        key_specs::KeyFlag,
        session::{Queue, Queued},
        work,
    },
    keyspace::{Keyspace, Value},
    marks,
};

impl Core {
    /// Sends the block that a request runs on an errand, if it works through much. Returns what it waits for then;
    /// `None`: it is executed here.
    pub(super) fn send_block_if_large(&mut self, id: SessionId, request: &Request<'_>) -> Option<Reason> {
        if !matches!(request.command.run, Run::Exec) || self.is_watch_broken(id) {
            return None;
        }
        let queue = self.sessions[id].queue.take()?;
        let reason = self.send_queue_if_large(id, request, &queue);
        self.sessions[id].queue = Some(queue);
        reason
    }

    fn send_queue_if_large(&mut self, id: SessionId, exec: &Request<'_>, queue: &Queue) -> Option<Reason> {
        if queue.broken || queue.crosses_slots || !queue.may_be_large {
            return None;
        }
        let words: Vec<Vec<&[u8]>> = queue.requests.iter().map(Queued::words).collect();
        let parts: Vec<Request<'_>> =
            queue.requests.iter().zip(&words).map(|(queued, words)| queued.request(words)).collect();
        let most = self.settings.large_elements;
        let keys: usize = parts.iter().map(|part| part.keys.len()).sum();
        if keys > self.settings.lent_at_once_max || !parts.iter().all(may_be_sent) {
            return None;
        }
        if work_of(self.keyspace(), &parts, most) <= most {
            return None;
        }
        let home = Home::new(queue.slot);
        let is_admitted =
            parts.iter().all(|part| self.admit(id, part, Via::Block(&home)) == Ok(Admission::Now));
        is_admitted.then(|| self.send_all(id, exec, &parts, true))
    }

    /// Whether a block that was executed elsewhere may take effect: its client is there, and no watched key has
    /// changed.
    pub(super) fn may_still_execute(&mut self, session: (SessionId, u64)) -> bool {
        self.begin_unit();
        let may = self.session_of(session).is_some_and(|id| !self.is_watch_broken(id));
        self.store_mut().end_unit();
        may
    }

    /// A block was executed elsewhere and takes effect.
    pub(super) fn end_block_elsewhere(
        &mut self,
        id: SessionId,
        called: Vec<(&'static Command, Option<Reply<'static>>)>,
    ) {
        marks::reached("block executed elsewhere");
        for (command, error) in called {
            let call = self.begin_call(command, false);
            if let Some(error) = &error {
                self.note_error(error);
            }
            self.end_call(command, call, error.is_some());
        }
        self.sessions[id].queue = None;
        self.unwatch(id);
    }

    /// A block was executed elsewhere in vain: nothing of it is left.
    pub(super) fn give_block_up(&mut self, sent: Sent, mut outcome: Outcome) {
        self.store_mut().recall(&mut outcome.borrowed);
        self.end_loan(outcome.number);
        self.begin_unit();
        let session = self.session_of(sent.session);
        // If it is as a watched key has expired, the reply waits until no later leader finds it there.
        session.map(|id| self.is_watch_broken(id));
        let unit = self.store_mut().end_unit();
        if let Some(id) = session {
            self.sessions[id].queue = None;
            self.unwatch(id);
        }
        let protocol = session.map(|id| self.sessions[id].protocol);
        self.answer_sent(sent, Answer::of(Reply::NullArray, protocol), unit);
    }
}

/// What a request tells of strings, if that is all that it does: here nobody looks at its reply before.
fn told(keyspace: &Keyspace, part: &Request<'_>) -> usize {
    if !part.command.is_read() {
        return 0;
    }
    let text = |key: &[u8]| match keyspace.get(key).map(|object| &object.value) {
        Some(Value::Str(text)) => text.len() / work::STRING_BYTES,
        _ => 0,
    };
    part.keys().map(text).sum()
}

/// How much the requests of a block work through together; reckoned no further than `most`.
fn work_of(keyspace: &Keyspace, parts: &[Request<'_>], most: usize) -> usize {
    // What each key holds at most that was written before.
    let mut held: HashMap<&[u8], usize> = HashMap::new();
    let size = |held: &HashMap<&[u8], usize>, key: &[u8]| {
        held.get(key).copied().unwrap_or_else(|| work::elements_of(keyspace, key))
    };
    let mut total = 0_usize;
    for part in parts {
        let command = part.command;
        let work = command.work.map_or_else(|| told(keyspace, part), |work| work(keyspace, part));
        let own = work.saturating_add(part.words.len());
        let narrowed = command.narrowed_key_flags.map(|narrowed| narrowed(part.words));
        let is_read =
            |nth: usize| !narrowed.unwrap_or_else(|| command.key_flags_of(nth)).contains(&KeyFlag::Overwrite);
        let read: Vec<&[u8]> =
            part.keys().enumerate().filter(|(nth, _)| is_read(*nth)).map(|(_, key)| key).collect();
        let remade = read.iter().filter(|key| held.contains_key(**key)).map(|key| size(&held, key));
        let remade = remade.fold(0, usize::saturating_add);
        total = total.saturating_add(own);
        if command.work.is_some() {
            total = total.saturating_add(remade);
        }
        if total > most {
            return total;
        }
        if command.is_write() {
            let taken = read.iter().map(|key| size(&held, key)).fold(own, usize::saturating_add);
            for (nth, key) in part.keys().enumerate() {
                let becomes = if is_read(nth) { size(&held, key).saturating_add(own) } else { taken };
                held.insert(key, becomes);
            }
        }
    }
    total
}
