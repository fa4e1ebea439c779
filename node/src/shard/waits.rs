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

use std::collections::BTreeSet;

use hashbrown::HashMap;
use moonraft_proto::Reply;

use super::{Core, Output, SessionId, Standing, admit::Reason, outbox::BatchId, waiting::Timer};

/// A session that is blocked.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// So many followers.
    wanted: usize,
    until: Until,
    /// What it is answered, of how many have it.
    answer: fn(usize) -> Reply<'static>,
}

/// What followers must have.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// The newest batch when it asked: its fate is not known.
    Batch(BatchId),
    /// All up to this entry.
    Entry(u64),
}

/// Sessions that wait for followers.
#[derive(Debug, Default)]
pub(super) struct Waits {
    sessions: HashMap<SessionId, Waiting>,
    /// Those that wait for a batch.
    by_batch: BTreeSet<(BatchId, SessionId)>,
    /// Those that wait for an entry, by how many followers it takes.
    by_entry: BTreeSet<(usize, u64, SessionId)>,
    /// The last entry that each follower is known to have in the present term, the latest first.
    matched: Vec<u64>,
}

impl Waits {
    fn insert(&mut self, id: SessionId, waiting: Waiting) {
        self.sessions.insert(id, waiting);
        match waiting.until {
            Until::Batch(batch) => self.by_batch.insert((batch, id)),
            Until::Entry(index) => self.by_entry.insert((waiting.wanted, index, id)),
        };
    }

    fn remove(&mut self, id: SessionId) -> Option<Waiting> {
        let waiting = self.sessions.remove(&id)?;
        match waiting.until {
            Until::Batch(batch) => self.by_batch.remove(&(batch, id)),
            Until::Entry(index) => self.by_entry.remove(&(waiting.wanted, index, id)),
        };
        Some(waiting)
    }

    /// How many followers have what a session waits for.
    fn reached(&self, waiting: Waiting) -> usize {
        match waiting.until {
            Until::Batch(_) => 0,
            Until::Entry(index) => self.matched.iter().filter(|&&matched| matched >= index).count(),
        }
    }

    /// Sessions whose followers are there.
    fn over(&self) -> Vec<SessionId> {
        let over = (1..).zip(&self.matched).flat_map(|(wanted, &index)| {
            self.by_entry.range((wanted, 0, SessionId::MIN)..=(wanted, index, SessionId::MAX))
        });
        over.map(|&(.., id)| id).collect()
    }

    fn all(&self) -> Vec<SessionId> {
        let by_batch = self.by_batch.iter().map(|&(_, id)| id);
        by_batch.chain(self.by_entry.iter().map(|&(.., id)| id)).collect()
    }

    /// These wait for an entry from now on.
    fn settle(&mut self, sessions: Vec<SessionId>, index: u64) {
        for id in sessions {
            let waiting = self.remove(id).expect("it waits");
            self.insert(id, Waiting { until: Until::Entry(index), ..waiting });
        }
    }

    /// A batch is committed, in the entry at `index`.
    pub fn committed(&mut self, batch: BatchId, index: u64) {
        if !self.by_batch.is_empty() {
            let waiting = self.by_batch.range((batch, SessionId::MIN)..=(batch, SessionId::MAX));
            self.settle(waiting.map(|&(_, id)| id).collect(), index);
        }
    }

    /// A term begins, or a snapshot took the place of entries: whatever was in flight
    /// is settled by what is applied up to `index`, and nothing is known of followers.
    pub fn begin_anew(&mut self, index: u64) {
        self.matched.clear();
        self.settle(self.all(), index);
    }
}

/// Why a session is blocked no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblocked {
    /// So many followers have it, asked for or not, in time or when that was over.
    Reached,
    /// `CLIENT UNBLOCK … ERROR`
    ByClient,
    /// Another replica leads.
    NotLeading,
}

impl Core {
    /// Blocks a session until `wanted` followers have what was executed so far.
    /// 0 milliseconds: for ever.
    pub(super) fn wait_for_followers(
        &mut self,
        id: SessionId,
        wanted: usize,
        timeout_ms: u64,
        answer: fn(usize) -> Reply<'static>,
    ) {
        let now_ns = self.surroundings.boot_ns();
        let until_ns = (timeout_ms > 0).then(|| now_ns.saturating_add(timeout_ms.saturating_mul(1_000_000)));
        let open = match self.standing {
            Standing::Leading { term, serving: true } if self.store().has_effects() => {
                Some(BatchId { term, sequence: self.store().open_sequence() })
            }
            _ => self.speculation.newest().map(|newest| newest.batch),
        };
        let until = open.map_or(Until::Entry(self.applied.0), Until::Batch);
        if self.waits.sessions.is_empty() {
            self.outputs.push(Output::WatchFollowers(true));
        }
        self.waits.insert(id, Waiting { wanted, until, answer });
        self.waiting.enter(id, Reason::Followers);
        self.timers.set(Timer::Session(id), until_ns);
    }

    /// Consensus tells what followers have.
    pub(super) fn followers(&mut self, of_term: u64, mut matched: Vec<u64>) {
        if matches!(self.standing, Standing::Leading { term, .. } if term == of_term) {
            matched.sort_unstable_by(|one, other| other.cmp(one));
            self.waits.matched = matched;
            self.check_waits();
        }
    }

    /// Answers those whose wait is over.
    pub(super) fn check_waits(&mut self) {
        if self.waits.sessions.is_empty() {
            return;
        }
        let (reason, over) = match self.standing {
            Standing::Following { leader: Some(_) } => (Unblocked::NotLeading, self.waits.all()),
            _ => (Unblocked::Reached, self.waits.over()),
        };
        for id in over {
            self.unblock(id, reason);
        }
    }

    /// Answers a blocked session; it reads requests again. Returns whether it was
    /// blocked.
    pub(super) fn unblock(&mut self, id: SessionId, reason: Unblocked) -> bool {
        let Some(waiting) = self.end_wait(id) else { return false };
        let reply = match reason {
            Unblocked::Reached => (waiting.answer)(self.waits.reached(waiting)),
            Unblocked::ByClient => Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into()),
            Unblocked::NotLeading => Reply::Error(
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)".into(),
            ),
        };
        self.answer(id, &reply);
        self.done(id);
        self.outputs.extend([Output::Flush(id), Output::Resume(id)]);
        true
    }

    /// The time of a wait is over.
    pub(super) fn end_wait_in_time(&mut self, id: SessionId) {
        self.unblock(id, Unblocked::Reached);
    }

    /// A session waits no more, whatever the reason.
    pub(super) fn forget_wait(&mut self, id: SessionId) {
        self.end_wait(id);
    }

    fn end_wait(&mut self, id: SessionId) -> Option<Waiting> {
        let waiting = self.waits.remove(id)?;
        self.waiting.leave(id);
        self.timers.set(Timer::Session(id), None);
        if self.waits.sessions.is_empty() {
            self.outputs.push(Output::WatchFollowers(false));
        }
        Some(waiting)
    }
}
