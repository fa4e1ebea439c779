//! Followers that clients read from hear of commits at once.
//!
//! Any other follower hears of a commit with the next append or heartbeat: a message of its own would double what a
//! replicated batch costs, and nobody there would notice (see `config` in `group`). Where clients read, they would see
//! what was acknowledged a heartbeat ago. So a follower with readers says so in its answers, and its leader sends it
//! an append without entries when a commit has advanced and no other append takes the news along.
//!
//! One such message at a time is on its way to a follower: the next leaves once something was answered. So a
//! follower hears of commits as fast as it can take them, in as many messages as it answers, whatever the load.

use raft::ProgressState;

use super::group::Group;

/// Followers of one term that clients read from.
#[derive(Debug, Default)]
pub(super) struct Readers {
    term: u64,
    followers: Vec<Reader>,
}

#[derive(Debug)]
struct Reader {
    id: u64,
    /// The last commit it was told of.
    told: u64,
    /// It was told something that it has not answered.
    awaited: bool,
}

impl Readers {
    /// An answer in `term` says whether clients read at follower `id`.
    fn heard(&mut self, term: u64, id: u64, reads: bool) {
        if self.term != term {
            self.term = term;
            self.followers.clear();
        }
        match self.followers.iter_mut().find(|reader| reader.id == id) {
            Some(reader) if reads => reader.awaited = false,
            None if reads => self.followers.push(Reader { id, told: 0, awaited: false }),
            Some(_) => self.followers.retain(|reader| reader.id != id),
            None => {}
        }
    }

    /// A message to `id` tells of commits up to `commit`.
    fn told(&mut self, id: u64, commit: u64) {
        if let Some(reader) = self.followers.iter_mut().find(|reader| reader.id == id) {
            reader.told = reader.told.max(commit);
        }
    }

    /// Who is to be told of a commit in `term` now.
    fn due(&self, term: u64, committed: u64) -> impl Iterator<Item = u64> {
        let is_due = move |reader: &&Reader| reader.told < committed && !reader.awaited;
        let followers = if self.term == term { &self.followers[..] } else { &[] };
        followers.iter().filter(is_due).map(|reader| reader.id)
    }
}

impl Group {
    /// Clients read at this replica, or none does any more.
    pub(super) fn note_readers(&mut self, present: bool) {
        self.reads_here = present;
    }

    /// A follower of this leader has answered.
    pub(super) fn heard_reader(&mut self, id: u64, reads: bool) {
        self.readers.heard(self.raw.raft.term, id, reads);
    }

    /// A message to a follower of this leader leaves.
    pub(super) fn told_reader(&mut self, id: u64, commit: u64) {
        self.readers.told(id, commit);
    }

    /// Whether a follower with readers has to be told of a commit.
    pub(super) fn has_news_for_readers(&self) -> bool {
        self.leads() && self.due_readers().next().is_some()
    }

    /// Tells them. Raft puts the news into an append that waits to be sent, if there is one.
    pub(super) fn tell_readers(&mut self) {
        if !self.leads() {
            return;
        }
        let due: Vec<u64> = self.due_readers().collect();
        for id in due {
            self.raw.raft.send_append(id);
            let reader = self.readers.followers.iter_mut().find(|reader| reader.id == id);
            reader.expect("it is due").awaited = true;
        }
    }

    /// One that lags is sent appends anyhow, and one that is probed must be left alone.
    fn due_readers(&self) -> impl Iterator<Item = u64> {
        let raft = &self.raw.raft;
        let keeps_up = move |id: &u64| {
            raft.prs().get(*id).is_some_and(|progress| {
                progress.state == ProgressState::Replicate && progress.next_idx > raft.raft_log.last_index()
            })
        };
        self.readers.due(raft.term, raft.raft_log.committed).filter(keeps_up)
    }
}
