//! Taking snapshots while serving, and becoming what a snapshot holds.
//!
//! A snapshot is taken by a walk of the keyspace ([`crate::keyspace::walk`]), a step at a time
//! ([`Core::walk`]). It begins between two batches: right after one was sealed, so it is the state as of
//! that batch, which is not committed yet. The walk goes on meanwhile, but what it wrote is published only
//! once the batch is committed and its index known. If the batch is taken back, or another state is
//! installed, the walk is given up and, if the log is still long, begun again later.
//!
//! What is written leaves as [`Output::SnapshotChunk`]; whoever takes it to the disk says so
//! ([`Core::snapshot_taken`]). If too much waits there, the walk pauses, and requests that may write, each
//! of which may need a key written first, are left unread. Who would change a large value that is not written
//! yet waits for that alone: see [`super::preparing`].
//!
//! A snapshot is installed chunk by chunk too, into an empty keyspace, while the thread goes on answering:
//! redirects, and what does not look at data. The old state goes first: a node that has memory for its data
//! need not have it twice.

use std::rc::Rc;

use bytes::Bytes;
use moonraft_proto::{DecodeError, entry::Batch};

use super::{Core, Output, PlantedFault, SessionId, Standing, admit::Reason, outbox::BatchId};
use crate::{command::Request, keyspace::Keyspace, marks};

/// After a snapshot that could not be kept (the disk is full), the next is tried so much later.
const RETRY_NS: u64 = 10_000_000_000;

/// Where the taking of snapshots stands.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// The log is long, and the walk has not begun.
    wanted: bool,
    /// Not before this, boot clock.
    not_before_ns: u64,
    /// Walks begun: the number of the one under way.
    number: u64,
    /// The state that is being written.
    point: Option<Point>,
    /// All of it has been written.
    complete: bool,
    /// Bytes of chunks that have left and have not been taken.
    pending_bytes: u64,
    /// Requests are left unread, or entries wait, for values that the walk has yet to write.
    pub(super) awaiting: bool,
}

/// A moment of the shard's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// After this batch of ours, which is in flight.
    Batch(BatchId),
    /// After this entry: index and term.
    Entry(u64, u64),
}

/// A snapshot that is being installed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Installing {
    index: u64,
    term: u64,
    stamp_ms: u64,
    /// No chunk has come yet.
    is_empty: bool,
}

impl Core {
    // ---- taking -------------------------------------------------------------------

    /// A snapshot is wanted. One that is under way will do.
    pub(super) fn take_snapshot(&mut self) {
        self.snapshots.wanted |= self.snapshots.point.is_none();
        self.begin_snapshot();
    }

    /// Begins the walk if one is wanted and the turn has nothing that is not in a batch.
    pub(super) fn begin_snapshot(&mut self) {
        let snapshots = &self.snapshots;
        let idle = !snapshots.wanted || snapshots.point.is_some() || self.installing.is_some();
        // Between parts of a batch there is no state.
        let idle = idle || !self.parts.is_empty() || !self.held_entries.is_empty();
        // What is lent is not there to be written.
        let idle = idle || self.store().has_lent() || !self.undoing.is_empty();
        if idle || self.store().has_effects() || self.surroundings.boot_ns() < snapshots.not_before_ns {
            return;
        }
        let serving = matches!(self.standing, Standing::Leading { serving: true, .. });
        let careless = self.settings.fault == Some(PlantedFault::SnapshotBeforeCommit);
        let (point, stamp_ms) = match self.speculation.newest().filter(|_| serving && !careless) {
            Some(newest) => (Point::Batch(newest.batch), newest.stamp_ms),
            None => (Point::Entry(self.applied.0, self.applied.1), self.clock.committed_ms()),
        };
        let at_once = self.settings.snapshot_at_once_bytes_max;
        self.store_mut().keyspace_mut().begin_walk(stamp_ms);
        self.store_mut().keyspace_mut().allow_at_once(at_once);
        if !self.snapshots.awaiting {
            self.store_mut().keyspace_mut().take_ready(); // nobody waited for the walk before
        }
        let snapshots = &mut self.snapshots;
        snapshots.wanted = false;
        snapshots.number += 1;
        snapshots.point = Some(point);
        snapshots.complete = false;
        snapshots.pending_bytes = 0;
        self.offer_errands();
    }

    /// Whether a snapshot is to begin as soon as it can.
    pub(super) fn is_snapshot_due(&self) -> bool {
        let snapshots = &self.snapshots;
        snapshots.wanted
            && snapshots.point.is_none()
            && self.surroundings.boot_ns() >= snapshots.not_before_ns
    }

    /// Whether [`Core::walk`] has something to do.
    pub fn wants_walk(&self) -> bool {
        self.snapshots.point.is_some() && !self.snapshots.complete && !self.is_writer_behind()
    }

    /// Goes on with the snapshot until about `cost` bytes are written or looked at, but for no more than one entry,
    /// or slice of a large one, from `until_ns` on, boot clock: what is walked has been left alone for long, and
    /// the machine may have to fetch it.
    pub fn walk(&mut self, cost: usize, until_ns: u64) {
        if self.wants_walk() {
            let surroundings = Rc::clone(&self.surroundings);
            let has_time = || surroundings.boot_ns() < until_ns;
            self.snapshots.complete = self.store_mut().keyspace_mut().walk(cost, has_time);
        }
    }

    /// Whether more of a snapshot waits to be written than should, and more would come: a follower had better
    /// apply nothing now.
    pub fn is_writer_behind(&self) -> bool {
        let snapshots = &self.snapshots;
        let walking = snapshots.point.is_some() && !snapshots.complete;
        walking && snapshots.pending_bytes > self.settings.snapshot_pending_bytes_max
    }

    /// So many bytes of chunks of the snapshot of this number have been taken.
    pub fn snapshot_taken(&mut self, number: u64, bytes: u64) {
        if number == self.snapshots.number {
            self.snapshots.pending_bytes = self.snapshots.pending_bytes.saturating_sub(bytes);
        }
        self.resume_held();
    }

    /// The snapshot of this number cannot be kept.
    pub fn snapshot_failed(&mut self, number: u64) {
        if number == self.snapshots.number && self.snapshots.point.is_some() {
            self.snapshots.not_before_ns = self.surroundings.boot_ns() + RETRY_NS;
            self.give_up_snapshot();
        }
    }

    /// Whether a request is left unread until the writer has caught up.
    pub(super) fn is_held_by_writer(&self, id: SessionId, request: &Request<'_>) -> bool {
        self.is_writer_behind() && !self.is_queued(id, request.command) && self.may_change(id, request)
    }

    fn resume_held(&mut self) {
        if !self.is_writer_behind() {
            self.wake(&Reason::Writer);
        }
    }

    /// Ends the walk. It is begun again when it can be.
    pub(super) fn give_up_snapshot(&mut self) {
        self.store_mut().keyspace_mut().give_up_walk();
        if self.snapshots.point.take().is_some() {
            self.outputs.push(Output::SnapshotGivenUp { number: self.snapshots.number });
            self.snapshots.wanted = true;
            self.snapshots.pending_bytes = 0;
            self.resume_held();
        }
    }

    /// Leadership is lost, and what is speculative is about to be taken back.
    pub(super) fn give_up_speculative_snapshot(&mut self) {
        if matches!(self.snapshots.point, Some(Point::Batch(_))) {
            self.give_up_snapshot();
        }
    }

    /// A batch of ours is committed, as this entry.
    pub(super) fn settle_snapshot(&mut self, batch: BatchId, index: u64, term: u64) {
        if self.snapshots.point == Some(Point::Batch(batch)) {
            self.snapshots.point = Some(Point::Entry(index, term));
        }
    }

    /// Lets what the walk has written leave; at its end tells what it is.
    pub(super) fn collect_chunks(&mut self) {
        if self.snapshots.point.is_none() {
            return;
        }
        let at_once = self.settings.snapshot_at_once_bytes_max;
        let keyspace = self.store_mut().keyspace_mut();
        if !keyspace.is_walking() {
            return self.give_up_snapshot(); // an undo has ended it
        }
        keyspace.allow_at_once(at_once);
        let chunks = keyspace.take_chunks();
        let snapshots = &mut self.snapshots;
        let number = snapshots.number;
        for data in chunks {
            snapshots.pending_bytes += data.len() as u64;
            self.outputs.push(Output::SnapshotChunk { number, data });
        }
        if let (true, Some(Point::Entry(index, term))) = (snapshots.complete, snapshots.point) {
            snapshots.point = None;
            self.outputs.push(Output::Snapshot { number, index, term });
            self.store_mut().keyspace_mut().give_up_walk();
            self.note_saved();
        }
    }

    /// All there is is as good as saved now.
    pub(super) fn note_saved(&mut self) {
        self.saved = (self.surroundings.unix_us(), self.keyspace().changes());
    }

    // ---- installing ---------------------------------------------------------------

    /// Begins to replace the state by a snapshot's, which is ahead of it.
    ///
    /// A snapshot does not tell which batches are in it. So nobody can know any
    /// more what became of those that were in flight: their clients' connections
    /// are closed, never redirected.
    pub fn begin_install(&mut self, index: u64, term: u64) {
        assert!(index > self.applied.0, "a snapshot is installed only if it is ahead");
        self.step_down();
        self.recall_all();
        self.restart_surveys();
        if !self.speculation.is_empty() {
            marks::reached("snapshot installed with replies held");
        }
        for batch in self.speculation.forget() {
            self.outputs.extend(batch.waiting.into_iter().map(Output::Close));
        }
        self.give_up_snapshot();
        self.snapshots.wanted = false;
        self.parts.clear();
        self.held_entries.clear();
        self.applying = None;
        self.forget_undoing();
        self.wake(&Reason::Applying);
        // Until the first chunk tells, redirects go by the slots that were owned.
        let empty = Keyspace::owning(self.keyspace().owned().clone());
        let old = self.store_mut().replace_keyspace(empty);
        self.forget_copies();
        self.outputs.push(Output::Discard(Box::new(old)));
        self.installing = Some(Installing { index, term, stamp_ms: 0, is_empty: true });
    }

    /// The next chunk of the snapshot.
    ///
    /// # Errors
    /// It is no chunk of a snapshot, or of a newer format. This replica cannot go on.
    pub fn install_chunk(&mut self, data: &[u8]) -> Result<(), DecodeError> {
        let batch = Batch::decode(data)?;
        let installing = self.installing.as_mut().expect("an installation has begun");
        installing.stamp_ms = batch.stamp_ms;
        if std::mem::take(&mut installing.is_empty) {
            self.store_mut().replace_keyspace(Keyspace::default());
        }
        for effect in batch.effects() {
            self.store_mut().keyspace_mut().apply(&effect?);
        }
        // Those who keep copies were told to forget them all.
        self.store_mut().keyspace_mut().watched.take_heard(0);
        Ok(())
    }

    /// The last chunk has been installed.
    pub fn end_install(&mut self) {
        let installing = self.installing.take().expect("an installation has begun");
        self.store_mut().keyspace_mut().watched.announce_all();
        self.forget_copies();
        self.clock.committed(installing.term, installing.stamp_ms, self.surroundings.boot_ns());
        self.note_born(installing.stamp_ms);
        self.note_format(self.agreed_format());
        self.note_saved();
        self.applied = (installing.index, installing.term);
        self.waits.begin_anew(installing.index);
        self.outputs.push(Output::Applied { index: installing.index });
        self.look_for_leader();
        self.serve_blocked();
    }

    /// Whether the state is at least what this replica had acknowledged before it was started. Before, no
    /// reader may see it.
    pub fn is_caught_up(&self) -> bool {
        let (last, last_term) = self.acknowledged;
        let (index, term) = self.applied;
        // An entry of a later term comes after all that was committed before it; what else was in the
        // log then has been replaced.
        self.installing.is_none() && (index >= last || term > last_term)
    }

    /// All of an installation at once.
    pub(super) fn install(&mut self, index: u64, term: u64, chunks: &[Bytes]) {
        self.begin_install(index, term);
        for chunk in chunks {
            let shard = self.settings.shard;
            self.install_chunk(chunk)
                .unwrap_or_else(|error| panic!("shard {shard}, snapshot {index}: {error}"));
        }
        self.end_install();
    }
}
