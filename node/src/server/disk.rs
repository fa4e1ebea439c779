//! How the node's disk does: how much room it has, and whether it is slow.
//!
//! A disk that runs full stops taking writes of clients while there is still room for what is committed already
//! (`min-free-disk`); a disk that is full ends the process like one that fails (`log::disk_failed`).
//!
//! A disk that hangs: consensus waits in its write and sends no heartbeats, so others lead within an election timeout;
//! what was executed meanwhile stays unacknowledged and the lease lapses. The process is not ended: the system cannot
//! end one that waits for a disk, and one that waits does no harm and goes on when the disk does. It hears nothing of
//! its peers meanwhile, so it cannot tell clients who leads: it closes their connections, and they ask other nodes.
//! What is kept of it all, and when a node is fit to lead, is in [`DiskHealth`](crate::replica::DiskHealth).

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustix::fs::statvfs;

use super::shared::NodeShared;
use crate::shard::{DiskRoom, Event};

/// How often the room is looked at. At 1 GB a second the default of `min-free-disk` lasts a quarter of a second;
/// logs are synced one batch after the other, and do not reach that.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Looks at the disk of `directory` now and then, and tells the shards.
pub async fn watch(node: Arc<NodeShared>, directory: PathBuf) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        looks.tick().await;
        let path = directory.clone();
        // On a thread of its own: a disk that hangs may not answer.
        let Ok(Ok(disk)) = tokio::task::spawn_blocking(move || statvfs(&path)).await else { continue };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let wanted = node.settings.load().disk_bytes_min;
        if !node.disk.note_free(free, wanted) {
            continue;
        }
        let room = node.disk.room();
        match room {
            DiskRoom::Enough => tracing::info!(free, "the disk has room again: writes are taken"),
            DiskRoom::Short => {
                tracing::warn!(free, wanted, "the disk is short of room: what may grow the data is refused");
            }
            DiskRoom::Last => {
                tracing::warn!(free, wanted, "the disk has next to no room: writes are refused")
            }
        }
        node.replicas.tell_all(|| Event::DiskRoom(room));
    }
}
