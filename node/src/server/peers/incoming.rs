//! From other nodes to this one: the gRPC service.

use std::sync::Arc;

use moonraft_proto::peer::{
    Delivered, Envelope, Publication as WirePublication, RaftMessage, SnapshotChunk, SnapshotReceipt,
    peer_server::Peer,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::{outgoing::from_wire, transfer};
use crate::{
    control::Topology,
    keyspace::tx::Publication,
    server::{
        clock,
        mailbox::{DriverMailbox, ShardMailbox},
        snapshots::SnapshotFiles,
        view::View,
    },
};

/// What a node does with what others send it.
pub struct Incoming {
    /// Who may send.
    pub topology: Arc<Topology>,
    /// This node.
    pub me: u64,
    /// For messages of Raft groups.
    pub driver: DriverMailbox,
    /// For published messages: the shards here, by number.
    pub shards: Vec<(u32, ShardMailbox)>,
    /// For hints.
    pub view: Arc<View>,
    /// For snapshots.
    pub files: SnapshotFiles,
    /// Turns true when the node stops: streams end then.
    pub stopping: watch::Receiver<bool>,
}

impl Incoming {
    /// The sender of a stream, by its first envelope.
    fn introduce(&self, envelope: &Envelope) -> Result<u64, Status> {
        if envelope.cluster != self.topology.name() {
            let (theirs, ours) = (&envelope.cluster, self.topology.name());
            let text = format!("this is cluster '{ours}', not '{theirs}'");
            return Err(Status::permission_denied(text));
        }
        match self.topology.node(envelope.node) {
            Some(entry) if entry.id != self.me => Ok(entry.id),
            _ => Err(Status::permission_denied(format!(
                "node {} is no peer of node {}",
                envelope.node, self.me
            ))),
        }
    }

    fn take(&self, sender: u64, envelope: Envelope) {
        let from_sender = |message: &RaftMessage| message.from & u64::from(u32::MAX) == sender;
        let raft: Vec<_> = envelope.raft.into_iter().filter(from_sender).map(from_wire).collect();
        if !raft.is_empty() {
            self.driver.send_peer(raft);
        }
        if !envelope.publications.is_empty() {
            self.deliver(&envelope.publications);
        }
        self.view.heard(sender, &envelope.leaders, clock::boot_ns());
    }

    fn deliver(&self, publications: &[WirePublication]) {
        for (shard, mailbox) in &self.shards {
            let heard = publications.iter().filter(|message| message.shard.is_none_or(|only| only == *shard));
            let publications: Vec<Publication> = heard
                .map(|message| Publication {
                    channel: message.channel.clone(),
                    message: message.message.clone(),
                    sharded: message.shard.is_some(),
                })
                .collect();
            if !publications.is_empty() {
                mailbox.deliver(publications);
            }
        }
    }
}

#[tonic::async_trait]
impl Peer for Incoming {
    async fn deliver(&self, request: Request<Streaming<Envelope>>) -> Result<Response<Delivered>, Status> {
        let mut stopping = self.stopping.clone();
        let mut stream = request.into_inner();
        let mut sender = None;
        loop {
            let envelope = tokio::select! {
                envelope = stream.message() => envelope?,
                _ = stopping.wait_for(|stopping| *stopping) => return Err(Status::unavailable("the node stops")),
            };
            let Some(envelope) = envelope else { return Ok(Response::new(Delivered {})) };
            let known = match &sender {
                Some((known, _)) => *known,
                None => {
                    let known = self.introduce(&envelope)?;
                    sender = Some((known, self.view.begin_stream(known)));
                    known
                }
            };
            self.take(known, envelope);
        }
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotReceipt>, Status> {
        let received = transfer::receive(self, request.into_inner()).await?;
        Ok(Response::new(SnapshotReceipt { received }))
    }
}
