//! Large values that a snapshot has yet to write: who would change one waits for it, and for nothing else.
//!
//! What is about to change is written first, as it was ([`crate::keyspace::walk`]). Of a value of millions of
//! elements that takes longer than others should wait. So a request is looked at before it is executed, and an
//! entry before it is applied: which keys may it change, and are they written? What little is missing is written
//! at once ([`super::ShardSettings::snapshot_at_once_bytes_max`], anew each time that outputs are taken). For
//! more, the request is left unread, and a follower holds the entry and those after it; the walk writes the value
//! in its steps, before all else and whatever its rate, and they go on.
//!
//! This is for speed only. Whatever changes without having been asked for is written at once, however large
//! it is: what a script touches beside its declared keys, what is taken back, what is committed when a replica
//! begins to lead, which must not wait. Expired keys are removed when they are written.
//!
//! INVARIANTS:
//! * Entries are applied in order, each once, held or not; [`Output::Applied`](super::Output::Applied) follows
//!   when none is held.
//! * Who leads holds no entry.
//! * Whoever waits goes on when the value is written, and when the walk ends, however it does.

use moonraft_proto::{Effect, entry::Batch};

use super::{CommittedEntry, Core, SessionId, admit::Reason};
use crate::{
    command::{Eval, Request, Run, key_specs::KeyFlag, session::Queued},
    keyspace::{Blob, Keyspace, walk::Ready},
    marks,
};

impl Core {
    /// The key of a large value that a request would change: it is left unread until the walk has written it.
    pub(super) fn held_by_walk(&mut self, id: SessionId, request: &Request<'_>) -> Option<Blob> {
        let command = request.command;
        // Requests change nothing on a follower, not even what has expired.
        let is_about_session = matches!(command.run, Run::Session(_));
        if !self.is_serving()
            || !self.keyspace().is_walking()
            || is_about_session
            || self.is_queued(id, command)
        {
            return None;
        }
        let may_change = self.may_change(id, request);
        let now_ms = self.read_clock().now_us / 1000;
        let Self { store, sessions, .. } = self;
        let keyspace = store.keyspace_mut();
        let awaited = match (command.run, &sessions[id].queue) {
            // All are asked for before it waits for one, so that they are written side by side.
            (Run::Exec, Some(queue)) => {
                let awaited = |it: &Queued| prepare(keyspace, &it.request(&it.words()), true, now_ms);
                queue.requests.iter().filter_map(awaited).last()
            }
            _ => prepare(keyspace, request, may_change, now_ms),
        };
        if awaited.is_some() {
            marks::reached("request waited for a large value of a snapshot");
            self.snapshots.awaiting = true;
        }
        awaited
    }

    /// Whether an entry, of a whole batch, can be applied without a large value being written at once.
    pub(super) fn is_entry_ready(&mut self, entry: &CommittedEntry) -> bool {
        let has_lent = self.store.has_lent();
        if self.standing.is_leading() || entry.more || !self.keyspace().is_walking() && !has_lent {
            return true;
        }
        // Whoever applies it tells what is wrong with it.
        let Ok(batch) = Batch::decode(&entry.data) else { return true };
        if has_lent && self.changes_lent(&batch) {
            return false; // it is looked at again when that is back
        }
        let keyspace = self.store.keyspace_mut();
        let mut ready = true;
        let mut last: Option<&[u8]> = None;
        for effect in batch.effects().map_while(Result::ok) {
            for key in changed_keys(&effect).into_iter().flatten().filter(|&key| last != Some(key)) {
                ready &= keyspace.prepare_change(key);
            }
            last = effect.key();
        }
        if !ready {
            marks::reached("log waited for a large value of a snapshot");
            self.snapshots.awaiting = true;
        }
        ready
    }

    /// Whether a batch changes what is lent, or looks at it.
    fn changes_lent(&self, batch: &Batch<'_>) -> bool {
        let mut last: Option<&[u8]> = None;
        batch.effects().map_while(Result::ok).any(|effect| {
            let before = std::mem::replace(&mut last, effect.key());
            match effect {
                Effect::Copy { key, to } | Effect::Rename { key, to } => {
                    self.store.is_lent(key) || self.store.is_lent(to)
                }
                Effect::ClearSlots { .. } => true,
                _ => effect.key().is_some_and(|key| before != Some(key) && self.store.is_lent(key)),
            }
        })
    }

    /// What waited for a value that is written now goes on; it may have to wait for another.
    pub(super) fn resume_awaiting(&mut self) {
        if !self.snapshots.awaiting {
            return;
        }
        match self.store_mut().keyspace_mut().take_ready() {
            Ready::All => self.wake_walks(),
            Ready::Keys(keys) if keys.is_empty() => return,
            Ready::Keys(keys) => keys.into_iter().for_each(|key| self.wake(&Reason::Walk(key))),
        }
        if !self.held_entries.is_empty() {
            self.commit_held(true);
        }
        self.snapshots.awaiting = self.waiting.awaits_walk() || !self.held_entries.is_empty();
    }

    /// Whether somebody waits for [`Core::walk`] to go on, which can.
    pub fn is_walk_awaited(&self) -> bool {
        self.wants_walk() && self.keyspace().is_awaited()
    }
}

/// Asks for the keys that a request changes, if it `may_change` any. Returns the last that has to be waited for.
fn prepare(keyspace: &mut Keyspace, request: &Request<'_>, may_change: bool, now_ms: u64) -> Option<Blob> {
    let command = request.command;
    let writes =
        may_change && matches!(command.run, Run::Write(_) | Run::Eval(Eval { read_only: false, .. }));
    if !writes && keyspace.deadlines().soonest().is_none_or(|at| at > now_ms) {
        return None;
    }
    let mut awaited = None;
    for (nth, key) in request.keys().enumerate() {
        let changes = writes && !command.key_flags_of(nth).contains(&KeyFlag::ReadOnly);
        // A request that meets an expired key removes it.
        let changes = changes || keyspace.get(key).is_some_and(|object| object.is_expired(now_ms));
        if changes && !keyspace.prepare_change(key) {
            awaited = Some(Blob::new(key));
        }
    }
    awaited
}

fn changed_keys<'a>(effect: &Effect<'a>) -> [Option<&'a [u8]>; 2] {
    match *effect {
        Effect::Copy { to, .. } => [None, Some(to)],
        Effect::Rename { key, to } => [Some(key), Some(to)],
        _ => [effect.key(), None],
    }
}
