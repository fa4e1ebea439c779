//! The thread that writes snapshot files, so that neither clients nor consensus wait for them.

use bytes::Bytes;
use crossbeam_channel as crossbeam;

use super::{
    mailbox::DriverMailbox,
    snapshots::{SnapshotFiles, SnapshotName},
};
use crate::consensus::{Input, ShardId};

/// What the thread does.
#[derive(Debug)]
enum Task {
    /// Write a snapshot, and tell consensus.
    Write(SnapshotName, Bytes),
    /// Let older files of a shard go: the log's newest snapshot is at this index.
    Prune(ShardId, u64),
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
) -> std::io::Result<(SnapshotWriter, std::thread::JoinHandle<()>)> {
    // A shard takes the next snapshot only after this one: one a shard waits at most.
    let (sender, receiver) = crossbeam::unbounded::<Task>();
    let thread = std::thread::Builder::new().name(format!("snapshots-{node}")).spawn(move || {
        for task in receiver {
            match task {
                Task::Write(name, data) => write(&files, name, &data, &driver),
                Task::Prune(shard, index) => {
                    if let Err(error) = files.prune(shard, index) {
                        tracing::warn!(shard, "old snapshots cannot be removed: {error}");
                    }
                }
            }
        }
    })?;
    Ok((SnapshotWriter { sender }, thread))
}

/// A disk that fails stops the node.
fn write(files: &SnapshotFiles, name: SnapshotName, data: &[u8], driver: &DriverMailbox) {
    if let Err(error) = files.write(name, data) {
        panic!("a snapshot of shard {} cannot be written: {error}", name.shard);
    }
    tracing::info!(shard = name.shard, index = name.index, bytes = data.len(), "snapshot written");
    driver.send(Input::SnapshotPublished { group: name.shard, index: name.index });
}

impl SnapshotWriter {
    /// Puts a snapshot there.
    pub fn write(&self, name: SnapshotName, data: Bytes) {
        let _ = self.sender.send(Task::Write(name, data));
    }

    /// The log durably calls the snapshot at `index` the newest of `shard`.
    pub fn prune(&self, shard: ShardId, index: u64) {
        let _ = self.sender.send(Task::Prune(shard, index));
    }
}
