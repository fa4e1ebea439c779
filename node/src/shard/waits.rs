//! `WAIT` for more followers than a majority needs.
//!
//! What is committed a majority has: a promise of so many followers costs nothing
//! more. Who asks for more is blocked: its session reads no requests until as many
//! followers have all that was executed before it, or its time is over. Only while
//! somebody waits so, consensus is asked to tell what followers have.
//!
//! Redis counts the offset of the client's own last write. Here it is the entry of
//! everything executed so far: the shard need not remember an index for each client,
//! and what a follower has of the log it has up to there.

use moonraft_proto::Reply;

use super::{Core, Output, SessionId, Standing, outbox::BatchId};

/// A session that is blocked.
#[derive(Debug)]
struct Waiting {
    id: SessionId,
    /// So many followers.
    wanted: usize,
    /// The newest batch when it asked, until its fate is known.
    batch: Option<BatchId>,
    /// The last entry that followers must have, once no batch is open.
    index: u64,
    /// Nanoseconds of the boot clock; `None`: for ever.
    until_ns: Option<u64>,
}

/// Sessions that wait for followers.
#[derive(Debug, Default)]
pub(super) struct Waits {
    sessions: Vec<Waiting>,
    /// The last entry that each follower is known to have, in the present term.
    matched: Vec<u64>,
}

impl Waits {
    fn reached(&self, waiting: &Waiting) -> usize {
        let has_all = |matched: &&u64| waiting.batch.is_none() && **matched >= waiting.index;
        self.matched.iter().filter(has_all).count()
    }

    /// A batch is committed, in the entry at `index`.
    pub fn committed(&mut self, batch: BatchId, index: u64) {
        for waiting in self.sessions.iter_mut().filter(|waiting| waiting.batch == Some(batch)) {
            (waiting.batch, waiting.index) = (None, index);
        }
    }

    /// A term begins, or a snapshot took the place of entries: whatever was in flight
    /// is settled by what is applied up to `index`, and nothing is known of followers.
    pub fn begin_anew(&mut self, index: u64) {
        self.matched.clear();
        for waiting in &mut self.sessions {
            (waiting.batch, waiting.index) = (None, index);
        }
    }
}

/// Why a session is blocked no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblocked {
    /// So many followers have it, asked for or not.
    Reached,
    /// `CLIENT UNBLOCK … ERROR`
    ByClient,
    /// Another replica leads.
    NotLeading,
}

impl Core {
    /// Blocks a session until `wanted` followers have what was executed so far.
    /// 0 milliseconds: for ever.
    pub(super) fn wait_for_followers(&mut self, id: SessionId, wanted: usize, timeout_ms: u64) {
        let now_ns = self.surroundings.boot_ns();
        let until_ns = (timeout_ms > 0).then(|| now_ns.saturating_add(timeout_ms.saturating_mul(1_000_000)));
        let open = match self.standing {
            Standing::Leading { term, serving: true } if self.tx().has_effects() => {
                Some(BatchId { term, sequence: self.tx().open_sequence() })
            }
            _ => self.speculation.newest().map(|newest| newest.batch),
        };
        if self.waits.sessions.is_empty() {
            self.outputs.push(Output::WatchFollowers(true));
        }
        let waiting = Waiting { id, wanted, batch: open, index: self.applied.0, until_ns };
        self.waits.sessions.push(waiting);
        self.sessions[id].blocked = true;
    }

    /// Consensus tells what followers have.
    pub(super) fn followers(&mut self, of_term: u64, matched: Vec<u64>) {
        if matches!(self.standing, Standing::Leading { term, .. } if term == of_term) {
            self.waits.matched = matched;
            self.check_waits();
        }
    }

    /// Answers those whose wait is over.
    pub(super) fn check_waits(&mut self) {
        if self.waits.sessions.is_empty() {
            return;
        }
        let now_ns = self.surroundings.boot_ns();
        let reason = match self.standing {
            Standing::Following { leader: Some(_) } => Unblocked::NotLeading,
            _ => Unblocked::Reached,
        };
        let is_over = |waiting: &Waiting| {
            reason == Unblocked::NotLeading
                || waiting.until_ns.is_some_and(|until| until <= now_ns)
                || self.waits.reached(waiting) >= waiting.wanted
        };
        let over = self.waits.sessions.iter().filter(|waiting| is_over(waiting));
        for id in over.map(|waiting| waiting.id).collect::<Vec<_>>() {
            self.unblock(id, reason);
        }
    }

    /// Answers a blocked session; it reads requests again. Returns whether it was
    /// blocked.
    pub(super) fn unblock(&mut self, id: SessionId, reason: Unblocked) -> bool {
        let Some(waiting) = self.end_wait(id) else { return false };
        let reply = match reason {
            Unblocked::Reached => Reply::count(self.waits.reached(&waiting)),
            Unblocked::ByClient => Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into()),
            Unblocked::NotLeading => Reply::Error(
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)".into(),
            ),
        };
        self.sessions[id].blocked = false;
        self.answer(id, &reply);
        self.done(id);
        self.outputs.extend([Output::Flush(id), Output::Resume(id)]);
        true
    }

    /// A session waits no more, whatever the reason.
    pub(super) fn forget_wait(&mut self, id: SessionId) {
        self.end_wait(id);
    }

    fn end_wait(&mut self, id: SessionId) -> Option<Waiting> {
        let at = self.waits.sessions.iter().position(|waiting| waiting.id == id)?;
        let waiting = self.waits.sessions.swap_remove(at);
        if self.waits.sessions.is_empty() {
            self.outputs.push(Output::WatchFollowers(false));
        }
        Some(waiting)
    }

    /// How many sessions are blocked.
    pub(super) fn blocked_count(&self) -> usize {
        self.waits.sessions.len()
    }
}
