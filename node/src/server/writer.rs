//! The thread that writes snapshot files, so that neither clients nor consensus wait for them.

use bytes::Bytes;
use crossbeam_channel as crossbeam;

use super::{
    mailbox::DriverMailbox,
    snapshots::{SnapshotFiles, SnapshotName},
};
use crate::consensus::Input;

/// Where snapshots are put to be written.
#[derive(Clone, Debug)]
pub struct SnapshotWriter {
    sender: crossbeam::Sender<(SnapshotName, Bytes)>,
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
    let (sender, receiver) = crossbeam::unbounded::<(SnapshotName, Bytes)>();
    let thread = std::thread::Builder::new().name(format!("snapshots-{node}")).spawn(move || {
        for (name, data) in receiver {
            if let Err(error) = files.write(name, &data) {
                panic!("a snapshot of shard {} cannot be written: {error}", name.shard);
            }
            tracing::info!(shard = name.shard, index = name.index, bytes = data.len(), "snapshot written");
            driver.send(Input::SnapshotPublished { group: name.shard, index: name.index });
        }
    })?;
    Ok((SnapshotWriter { sender }, thread))
}

impl SnapshotWriter {
    /// Puts a snapshot there.
    pub fn write(&self, name: SnapshotName, data: Bytes) {
        let _ = self.sender.send((name, data));
    }
}
