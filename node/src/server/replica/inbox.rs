//! What other threads tell a replica, in order; see [`crate::replica::Intake`].

use std::rc::Rc;

use tokio::{
    sync::mpsc,
    task::{spawn_blocking, spawn_local},
};

use super::Replica;
use crate::{
    replica::Install,
    server::{
        mailbox::{ShardInbox, ShardMessage},
        snapshot_file::SnapshotError,
        snapshots::SnapshotName,
    },
};

/// Messages of other threads that are taken together.
const MESSAGES_MAX: usize = 256;
/// Chunks of a snapshot that are read ahead of its installation.
const CHUNKS_AHEAD: usize = 8;

pub(super) async fn listen(replica: Rc<Replica>, mut inbox: ShardInbox) {
    let mut messages = Vec::new();
    while inbox.receive(&mut messages, MESSAGES_MAX).await > 0 {
        let for_replica = messages.drain(..).filter_map(|message| match message {
            ShardMessage::Replica(message) => Some(message),
            ShardMessage::Stop { within } => {
                replica.farewell.set(within);
                replica.stop.notify_one();
                None
            }
        });
        let wanted = replica.intake.borrow_mut().take(&mut replica.shard.borrow_mut(), for_replica);
        replica.install_if(wanted);
        replica.drive();
    }
}

impl Replica {
    fn install_if(self: &Rc<Self>, wanted: Option<Install>) {
        if let Some(install) = wanted {
            spawn_local(self::install(Rc::clone(self), install));
        }
    }
}

/// Installs a snapshot, which is on the disk and has been checked; clients are answered meanwhile. One
/// that cannot be read stops the node: the log before it is gone.
async fn install(replica: Rc<Replica>, Install { index, term }: Install) {
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
    if let Err(error) = read {
        panic!("shard {shard}: {error}");
    }
    let wanted = replica.intake.borrow_mut().end_install(&mut replica.shard.borrow_mut());
    replica.install_if(wanted);
    replica.drive();
}
