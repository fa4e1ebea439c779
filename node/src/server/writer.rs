//! The thread that writes snapshot files, so that neither clients nor consensus wait for them.
//!
//! A shard sends chunks as its walk yields them, and hears how many of them are written; it bounds what
//! waits here by that. What cannot be written is given up, and the shard tries again later: without the
//! snapshot nothing is lost, only the log stays long.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use crossbeam_channel as crossbeam;

use super::{
    mailbox::DriverMailbox,
    replicas::{Data, Replicas},
    snapshot_file,
    snapshots::{SnapshotFiles, SnapshotName},
};
use crate::{
    consensus::{Input, ShardId},
    shard::Event,
};

/// What the thread does.
#[derive(Debug)]
enum Task {
    /// Write the next chunk of a snapshot of a shard; the first of a number begins it.
    Chunk(ShardId, u64, Bytes),
    /// The snapshot of this number is complete: publish it, and tell consensus.
    Publish(SnapshotName, u64),
    /// The snapshot of this number is of no use.
    GiveUp(ShardId, u64),
    /// Let older files of a shard go: the log's newest snapshot is at this index.
    Prune(ShardId, u64),
    /// A replica has closed: give up what it had begun, and let its files go if its data do.
    Close(ShardId, Data, mpsc::SyncSender<io::Result<()>>),
}

/// Where snapshots are put to be written.
#[derive(Clone, Debug)]
pub struct SnapshotWriter {
    sender: crossbeam::Sender<Task>,
}

/// Starts the thread. It ends when nobody can send it any more.
///
/// # Errors
/// The system has no thread left.
pub fn spawn(
    node: u64,
    files: SnapshotFiles,
    driver: DriverMailbox,
    replicas: Arc<Replicas>,
) -> io::Result<(SnapshotWriter, std::thread::JoinHandle<()>)> {
    // What shards put there is bounded by them: see `snapshot_pending_bytes_max`.
    let (sender, receiver) = crossbeam::unbounded::<Task>();
    let mut writer = WriterThread { files, driver, replicas, open: BTreeMap::new() };
    let thread = std::thread::Builder::new().name(format!("snapshots-{node}")).spawn(move || {
        for task in receiver {
            match task {
                Task::Chunk(shard, number, data) => writer.write(shard, number, &data),
                Task::Publish(name, number) => writer.publish(name, number),
                Task::GiveUp(shard, number) => writer.give_up(shard, number),
                Task::Prune(shard, index) => {
                    if let Err(error) = writer.files.prune(shard, index) {
                        tracing::warn!(shard, "old snapshots cannot be removed: {error}");
                    }
                }
                Task::Close(shard, data, done) => drop(done.send(writer.close(shard, data))),
            }
        }
    })?;
    Ok((SnapshotWriter { sender }, thread))
}

/// What the thread works with.
struct WriterThread {
    files: SnapshotFiles,
    driver: DriverMailbox,
    replicas: Arc<Replicas>,
    /// The snapshot of each shard that is being written: its number; no file if it has failed.
    open: BTreeMap<ShardId, (u64, Option<snapshot_file::SnapshotWriter>)>,
}

impl WriterThread {
    fn write(&mut self, shard: ShardId, number: u64, data: &[u8]) {
        if let Err(error) = self.try_write(shard, number, data) {
            self.fail(shard, number, &error);
        }
        self.tell(shard, Event::SnapshotTaken { number, bytes: data.len() as u64 });
    }

    fn try_write(&mut self, shard: ShardId, number: u64, data: &[u8]) -> io::Result<()> {
        if self.open.get(&shard).is_none_or(|(open, _)| *open != number) {
            let file = self.files.create(shard, number)?;
            self.open.insert(shard, (number, Some(file)));
        }
        match self.open.get_mut(&shard) {
            Some((_, Some(file))) => file.push(data),
            _ => Ok(()), // it has failed, and the shard will hear of it
        }
    }

    fn fail(&mut self, shard: ShardId, number: u64, error: &io::Error) {
        tracing::warn!(shard, "a snapshot cannot be written, and is tried again later: {error}");
        let _ = self.files.discard(shard, number);
        self.open.insert(shard, (number, None));
        self.tell(shard, Event::SnapshotFailed { number });
    }

    fn publish(&mut self, name: SnapshotName, number: u64) {
        let Some((_, file)) = self.open.remove(&name.shard).filter(|(open, _)| *open == number) else {
            return;
        };
        let Some(file) = file else {
            // The shard had sent all of it before it could hear of the failure, and has forgotten it.
            self.driver.send(Input::SnapshotFailed { group: name.shard });
            return;
        };
        match self.files.publish(file, number, name) {
            Ok(bytes) => {
                tracing::info!(shard = name.shard, index = name.index, bytes, "snapshot written");
                self.driver.send(Input::SnapshotPublished { group: name.shard, index: name.index, bytes });
            }
            Err(error) => {
                tracing::warn!(
                    shard = name.shard,
                    "a snapshot cannot be written, and is tried again later: {error}"
                );
                let _ = self.files.discard(name.shard, number);
                self.driver.send(Input::SnapshotFailed { group: name.shard });
            }
        }
    }

    fn give_up(&mut self, shard: ShardId, number: u64) {
        if let Some((_, Some(_))) = self.open.remove(&shard).filter(|(open, _)| *open == number)
            && let Err(error) = self.files.discard(shard, number)
        {
            tracing::warn!(shard, "a snapshot that was given up cannot be removed: {error}");
        }
    }

    fn tell(&self, shard: ShardId, event: Event) {
        if let Some(replica) = self.replicas.get(shard) {
            replica.mailbox.send(event);
        }
    }

    fn close(&mut self, shard: ShardId, data: Data) -> io::Result<()> {
        if let Some((number, Some(_))) = self.open.remove(&shard) {
            self.files.discard(shard, number)?;
        }
        if data == Data::Removed { self.files.remove(shard) } else { Ok(()) }
    }
}

impl SnapshotWriter {
    /// Puts the next chunk of a snapshot there.
    pub fn write(&self, shard: ShardId, number: u64, data: Bytes) {
        let _ = self.sender.send(Task::Chunk(shard, number, data));
    }

    /// The chunks of this number are the snapshot of this name.
    pub fn publish(&self, name: SnapshotName, number: u64) {
        let _ = self.sender.send(Task::Publish(name, number));
    }

    /// The chunks of this number are of no use.
    pub fn give_up(&self, shard: ShardId, number: u64) {
        let _ = self.sender.send(Task::GiveUp(shard, number));
    }

    /// A replica has closed. Returns when nothing is written for it any more, and its files are gone if its data are.
    ///
    /// # Errors
    /// The disk's.
    pub fn close(&self, shard: ShardId, data: Data) -> io::Result<()> {
        let (done, closed) = mpsc::sync_channel(1);
        let _ = self.sender.send(Task::Close(shard, data, done));
        closed.recv().unwrap_or(Ok(())) // the node stops
    }

    /// The log durably calls the snapshot at `index` the newest of `shard`.
    pub fn prune(&self, shard: ShardId, index: u64) {
        let _ = self.sender.send(Task::Prune(shard, index));
    }
}

#[cfg(test)]
mod tests {
    use moonraft_proto::entry::{BatchWriter, Head, NEWEST_FORMAT};

    use super::*;
    use crate::server::mailbox::{DriverMessage, driver_mailbox};

    #[tokio::test]
    async fn consensus_hears_of_a_snapshot_that_failed_when_its_shard_had_sent_all_of_it() {
        let place = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(place.path()).unwrap();
        let (driver, inbox) = driver_mailbox();
        let mut writer = WriterThread { files, driver, replicas: Arc::default(), open: BTreeMap::new() };
        let chunk = BatchWriter::default().seal(Head { stamp_ms: 7, sequence: 0 }, NEWEST_FORMAT);
        let name = SnapshotName { shard: 2, index: 70, term: 3 };
        std::fs::remove_dir(place.path().join("snapshots")).unwrap();
        writer.write(name.shard, 1, &chunk);
        writer.publish(name, 1);
        let mut messages = Vec::new();
        inbox.receive(&mut messages, None).await;
        let told = matches!(messages[..], [DriverMessage::Input(Input::SnapshotFailed { group: 2 })]);
        assert!(told, "{messages:?}");
    }
}
