//! Snapshot files from node to node, in chunks, resumed where a transfer broke off.
//!
//! A call begins with a chunk without data, to which the receiver answers, by
//! ending the call, how much it has. The next call goes on from there. The last
//! chunk carries Raft's own message, which the receiver hands to its consensus
//! once the file is whole, checked and durable.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    time::Duration,
};

use bytes::Bytes;
use moonraft_proto::peer::{SnapshotChunk, peer_client::PeerClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::Incoming;
use crate::{
    consensus::{Input, PeerMessage, ReplicaId, snapshot_position},
    server::snapshots::{SnapshotFiles, SnapshotName},
};

/// Bytes of a chunk: other streams to the peer wait no longer than for one.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are read ahead of the network.
const CHUNKS_AHEAD: usize = 4;
/// Calls for one snapshot before it is given up; Raft asks again.
const ATTEMPTS_MAX: usize = 5;
/// Snapshots larger than this are refused before a byte is written.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 40;

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The file cannot be read.
    #[error("its file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The peer is not there.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(#[from] tonic::transport::Error),
    /// The peer refused it, or the call broke.
    #[error("{0}")]
    Refused(#[from] Status),
    /// It takes more calls than it should.
    #[error("the peer does not get on with it")]
    NoProgress,
}

/// Sends a snapshot, the message last.
///
/// # Errors
/// It did not arrive, after some attempts.
pub(super) async fn send(
    peer: &Endpoint,
    cluster: &str,
    files: &SnapshotFiles,
    name: SnapshotName,
    message: &PeerMessage,
    patience: Duration,
) -> Result<(), TransferError> {
    let path = files.path(name);
    let total = std::fs::metadata(&path)?.len();
    let first = SnapshotChunk {
        cluster: cluster.to_owned(),
        shard: name.shard,
        from: message.from.0,
        to: message.to.0,
        index: name.index,
        term: name.term,
        total,
        ..SnapshotChunk::default()
    };
    let mut last_error = TransferError::NoProgress;
    for attempt in 0..ATTEMPTS_MAX {
        if attempt > 0 {
            tokio::time::sleep(patience).await;
        }
        let outcome = async {
            let mut client = PeerClient::new(peer.connect().await?);
            let received = client.send_snapshot(tokio_stream::once(first.clone())).await?;
            let offset = received.into_inner().received.min(total);
            send_from(client, File::open(&path)?, &first, offset, message).await
        };
        match outcome.await {
            Ok(received) if received == total => return Ok(()),
            Ok(_) => last_error = TransferError::NoProgress,
            Err(TransferError::Io(error)) => return Err(error.into()),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

async fn send_from(
    mut client: PeerClient<Channel>,
    file: File,
    first: &SnapshotChunk,
    offset: u64,
    message: &PeerMessage,
) -> Result<u64, TransferError> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let (template, raft_message) = (first.clone(), message.data.clone());
    // Files are read on a thread that may wait for the disk.
    let reading =
        tokio::task::spawn_blocking(move || read_chunks(file, &template, offset, raft_message, &sender));
    let receipt = client.send_snapshot(ReceiverStream::new(receiver)).await;
    reading.await.map_err(io::Error::other)??;
    Ok(receipt?.into_inner().received)
}

fn read_chunks(
    mut file: File,
    template: &SnapshotChunk,
    mut offset: u64,
    raft_message: Bytes,
    sender: &mpsc::Sender<SnapshotChunk>,
) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    loop {
        let length = (template.total - offset).min(CHUNK_BYTES as u64) as usize;
        let mut data = vec![0; length];
        file.read_exact(&mut data)?;
        let is_last = offset + length as u64 == template.total;
        let chunk = SnapshotChunk {
            offset,
            checksum: crc32fast::hash(&data),
            message: if is_last { raft_message.clone() } else { Bytes::new() },
            data: data.into(),
            ..template.clone()
        };
        offset += length as u64;
        if sender.blocking_send(chunk).is_err() || is_last {
            return Ok(()); // the call has ended, one way or the other
        }
    }
}

/// Takes the chunks of one call. Returns how much of the file is here.
pub(super) async fn receive(
    incoming: &Incoming,
    mut chunks: Streaming<SnapshotChunk>,
) -> Result<u64, Status> {
    let Some(first) = chunks.message().await? else { return Ok(0) };
    let name = check(incoming, &first)?;
    let failed = |error: io::Error| Status::internal(format!("the snapshot cannot be kept: {error}"));
    if incoming.files.path(name).exists() {
        // It came whole before, but Raft may not have heard of it.
        finish(incoming, name, &last_message(first.clone(), &mut chunks).await?);
        return Ok(first.total);
    }
    let part = incoming.files.part(name);
    let mut file = OpenOptions::new().create(true).append(true).open(&part).map_err(failed)?;
    let mut received = file.metadata().map_err(failed)?.len();
    if received > first.total {
        file.set_len(0).map_err(failed)?;
        received = 0;
    }
    let mut chunk = first;
    loop {
        if !chunk.data.is_empty() {
            let whole = crc32fast::hash(&chunk.data) == chunk.checksum;
            if chunk.offset != received || !whole || check(incoming, &chunk)? != name {
                return Err(Status::data_loss("a chunk of a snapshot is not the one that was awaited"));
            }
            received += chunk.data.len() as u64;
            file = append(file, chunk.data.clone()).await.map_err(|error| {
                // Half of a snapshot is of no use on a disk that is full. Raft asks for it again.
                let _ = std::fs::remove_file(&part);
                failed(error)
            })?;
        }
        if !chunk.message.is_empty() && received == chunk.total {
            let (files, total) = (incoming.files.clone(), chunk.total);
            let accepted = tokio::task::spawn_blocking(move || files.accept(name)).await;
            accepted.map_err(io::Error::other).and_then(|accepted| accepted).map_err(failed)?;
            finish(incoming, name, &chunk);
            return Ok(total);
        }
        match chunks.message().await? {
            Some(next) => chunk = next,
            None => return Ok(received),
        }
    }
}

/// On another thread: even the page cache may make a writer wait.
async fn append(mut file: File, data: Bytes) -> io::Result<File> {
    let written = tokio::task::spawn_blocking(move || file.write_all(&data).map(|()| file));
    written.await.map_err(io::Error::other)?
}

fn check(incoming: &Incoming, chunk: &SnapshotChunk) -> Result<SnapshotName, Status> {
    let known = chunk.cluster == incoming.topology.name()
        && incoming.replicas.get(chunk.shard).is_some()
        && ReplicaId(chunk.to).node() == incoming.me
        && incoming.topology.node(ReplicaId(chunk.from).node()).is_some();
    if !known || chunk.total > SNAPSHOT_BYTES_MAX {
        return Err(Status::permission_denied("this snapshot is not for this node"));
    }
    Ok(SnapshotName { shard: chunk.shard, index: chunk.index, term: chunk.term })
}

/// The chunk that carries Raft's message; a call that only asks has none.
async fn last_message(
    first: SnapshotChunk,
    chunks: &mut Streaming<SnapshotChunk>,
) -> Result<SnapshotChunk, Status> {
    let mut last = first;
    while let Some(chunk) = chunks.message().await? {
        last = chunk;
    }
    Ok(last)
}

/// The file is here: Raft hears of it.
fn finish(incoming: &Incoming, name: SnapshotName, chunk: &SnapshotChunk) {
    if chunk.message.is_empty() {
        return;
    }
    let message = PeerMessage {
        group: chunk.shard,
        from: ReplicaId(chunk.from),
        to: ReplicaId(chunk.to),
        stamp: 0,
        echo: 0,
        time: 0,
        reads: false,
        data: chunk.message.clone(),
    };
    if snapshot_position(&message) == Some((name.index, name.term)) {
        incoming.driver.send(Input::SnapshotReceived(message));
    }
}
