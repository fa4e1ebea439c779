//! What other threads tell a replica, in order: what is of the log may have to wait for a snapshot.

use std::rc::Rc;

use tokio::{
    sync::mpsc,
    task::{spawn_blocking, spawn_local},
};

use super::Replica;
use crate::{
    server::{
        mailbox::{ShardInbox, ShardMessage},
        snapshot_file::SnapshotError,
        snapshots::SnapshotName,
    },
    shard::{CommittedEntry, Event, Standing},
};

/// Messages of other threads that are taken together.
const MESSAGES_MAX: usize = 256;
/// Chunks of a snapshot that are read ahead of its installation.
const CHUNKS_AHEAD: usize = 8;

pub(super) async fn listen(replica: Rc<Replica>, mut inbox: ShardInbox) {
    let mut messages = Vec::new();
    while inbox.receive(&mut messages, MESSAGES_MAX).await > 0 {
        for message in messages.drain(..) {
            replica.take(message);
        }
        replica.take_deferred();
        replica.drive();
    }
}

impl Replica {
    /// Takes a message, unless it is of the log and has to wait: for the snapshot before it, or, on a
    /// follower, for the writer of one.
    fn take(self: &Rc<Self>, message: ShardMessage) {
        let is_of_log =
            matches!(message, ShardMessage::Install { .. } | ShardMessage::Event(Event::Committed(_)));
        if is_of_log && (self.is_log_held() || !self.deferred.borrow().is_empty()) {
            self.deferred.borrow_mut().push_back(message);
        } else {
            self.take_now(message);
        }
    }

    fn is_log_held(&self) -> bool {
        let shard = self.shard.borrow();
        self.is_installing.get() || !shard.standing().is_leading() && shard.is_writer_behind()
    }

    /// Takes what has waited for long enough. What comes before another snapshot need not be taken any more.
    fn take_deferred(self: &Rc<Self>) {
        {
            let mut deferred = self.deferred.borrow_mut();
            let newest = deferred.iter().rposition(|message| matches!(message, ShardMessage::Install { .. }));
            deferred.drain(..newest.unwrap_or(0));
        }
        while !self.is_log_held() {
            let Some(message) = self.deferred.borrow_mut().pop_front() else { return };
            self.take_now(message);
        }
    }

    fn take_now(self: &Rc<Self>, message: ShardMessage) {
        let event = match message {
            ShardMessage::Event(event) => event,
            ShardMessage::Retire { term } => {
                let leads = matches!(self.shard.borrow().standing(), Standing::Leading { term: own, .. } if own == term);
                if !leads {
                    return;
                }
                Event::Follow { leader: None }
            }
            ShardMessage::Install { index, term } => {
                self.is_installing.set(true);
                spawn_local(install(Rc::clone(self), index, term));
                return;
            }
            ShardMessage::Stop { within } => {
                self.farewell.set(within);
                self.stop.notify_one();
                return;
            }
        };
        if let Event::Committed(entries) = &event {
            self.note_committed(entries);
        }
        self.shard.borrow_mut().handle(event);
    }

    fn note_committed(&self, entries: &[CommittedEntry]) {
        let (bytes, term) = self.handed.get();
        let newest = entries.last().map_or(0, |entry| entry.term);
        let more: usize = entries.iter().map(|entry| entry.data.len()).sum();
        self.begins_term.set(self.begins_term.get() || newest > term);
        self.handed.set((bytes + more as u64, newest.max(term)));
    }
}

/// Installs a snapshot, which is on the disk and has been checked; clients are answered meanwhile. One
/// that cannot be read stops the node: the log before it is gone.
async fn install(replica: Rc<Replica>, index: u64, term: u64) {
    let shard = replica.number;
    let name = SnapshotName { shard, index, term };
    let (sender, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
    let files = replica.node.files.clone();
    // On a thread that may wait for the disk.
    let reading = spawn_blocking(move || -> Result<(), SnapshotError> {
        let mut reader = files.read(name)?;
        while let Some(chunk) = reader.next_chunk()? {
            if sender.blocking_send(chunk).is_err() {
                break; // the replica stops
            }
        }
        Ok(())
    });
    replica.shard.borrow_mut().begin_install(index, term);
    while let Some(chunk) = chunks.recv().await {
        let installed = replica.shard.borrow_mut().install_chunk(&chunk);
        installed.unwrap_or_else(|error| panic!("shard {shard}, snapshot {index}: {error}"));
        replica.drive();
        tokio::task::yield_now().await;
    }
    let read = reading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    match read {
        Ok(()) => replica.shard.borrow_mut().end_install(),
        Err(error) => panic!("shard {shard}: {error}"),
    }
    replica.begins_term.set(true);
    replica.is_installing.set(false);
    replica.take_deferred();
    replica.drive();
}
