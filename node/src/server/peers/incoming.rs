//! From other nodes to this one: what is done with it, and the gRPC service.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use moonraft_proto::{
    entry::FIRST_FORMAT,
    peer::{
        Envelope, Joining, Memory as WireMemory, Publication as WirePublication, RaftMessage, RecallRequest,
        Recollection as WireRecollection, SnapshotChunk, SnapshotReceipt, peer_server::Peer,
    },
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::{outgoing::from_wire, transfer};
use crate::{
    consensus::{Input, Recollection, ReplicaId},
    control::{Topology, birth::Memory},
    keyspace::tx::{Audience, Publication},
    replica::publications::is_heard_at,
    server::{
        clock, known_cluster::KnownCluster, mailbox::DriverMailbox, replicas::Replicas,
        snapshots::SnapshotFiles,
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
    /// For published messages: the replicas here.
    pub replicas: Arc<Replicas>,
    /// For hints.
    pub cluster: Arc<KnownCluster>,
    /// The newest format that a shard of this node has agreed on.
    pub agreed: Arc<AtomicU8>,
    /// For snapshots.
    pub files: SnapshotFiles,
    /// Turns true when the node stops: connections end then.
    pub stopping: watch::Receiver<bool>,
}

impl Incoming {
    /// The peer that says it is this one, and reads entries up to this format.
    ///
    /// # Errors
    /// Why it is not believed, or cannot be heard.
    pub(super) fn introduce(&self, cluster: &str, node: u64, reads: Option<u32>) -> Result<u64, String> {
        let ours = self.topology.name();
        if cluster != ours {
            return Err(format!("this is cluster '{ours}', not '{cluster}'"));
        }
        match self.topology.node(node) {
            Some(entry) if entry.id != self.me => self.check_format(entry.id, reads),
            _ => Err(format!("node {node} is no peer of node {}", self.me)),
        }
    }

    /// A node of an old build would end at the first entry of what the others have agreed on.
    fn check_format(&self, node: u64, reads: Option<u32>) -> Result<u64, String> {
        let reads = reads.unwrap_or_else(|| FIRST_FORMAT.into());
        let agreed = u32::from(self.agreed.load(Ordering::Relaxed));
        if reads < agreed {
            return Err(format!(
                "the cluster has agreed on format {agreed}, and node {node} reads up to format {reads}. Start a newer build there"
            ));
        }
        Ok(node)
    }

    /// Does what `sender`, a peer, asks for.
    pub(super) fn take(&self, sender: u64, envelope: Envelope) {
        let from_sender = |message: &RaftMessage| message.from & u64::from(u32::MAX) == sender;
        let raft: Vec<_> = envelope.raft.into_iter().filter(from_sender).map(from_wire).collect();
        if !raft.is_empty() {
            self.driver.send_peer(raft);
        }
        if !envelope.publications.is_empty() {
            self.deliver(&envelope.publications);
        }
        self.take_joining(sender, &envelope.joining);
        if let Some(fit) = envelope.fit {
            self.driver.send(Input::Fitness { node: sender, fit });
            let format = envelope.agrees.map_or(FIRST_FORMAT, |format| format.try_into().unwrap_or(u8::MAX));
            self.driver.send(Input::Agrees { node: sender, format });
        }
        self.cluster.heard(sender, &envelope.leaders, clock::boot_ns());
    }

    /// A replica may ask for its own place only, in a shard that the cluster file puts on its node.
    fn take_joining(&self, sender: u64, joining: &[Joining]) {
        for &Joining { shard, replica } in joining {
            let replica = ReplicaId(replica);
            let of_shard = self.topology.nodes_of(shard).any(|entry| entry.id == sender);
            if self.topology.shards().contains(&shard) && of_shard && replica.node() == sender {
                self.driver.send(Input::JoinWanted { group: shard, replica });
            }
        }
    }

    fn deliver(&self, publications: &[WirePublication]) {
        for (shard, replica) in self.replicas.all().iter() {
            let heard = publications.iter().filter(|message| is_heard_at(*shard, message.shard));
            let publications: Vec<Publication> = heard
                .map(|message| Publication {
                    channel: message.channel.clone(),
                    message: message.message.clone(),
                    audience: if message.shard.is_some() { Audience::Shard } else { Audience::Cluster },
                })
                .collect();
            if !publications.is_empty() {
                replica.mailbox.deliver(publications);
            }
        }
    }
}

#[tonic::async_trait]
impl Peer for Incoming {
    async fn recall(&self, request: Request<RecallRequest>) -> Result<Response<WireMemory>, Status> {
        let RecallRequest { cluster, node, reads } = request.into_inner();
        let node = self.introduce(&cluster, node, reads).map_err(Status::permission_denied)?;
        let memory = self.driver.recall(node).await;
        let Memory { decided, shards } = memory.ok_or_else(|| Status::unavailable("the node stops"))?;
        let wire = |(shard, Recollection { begun, voter, incarnation })| WireRecollection {
            shard,
            begun,
            voter,
            incarnation,
        };
        Ok(Response::new(WireMemory { decided, shards: shards.into_iter().map(wire).collect() }))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotReceipt>, Status> {
        let received = transfer::receive(self, request.into_inner()).await?;
        Ok(Response::new(SnapshotReceipt { received }))
    }
}
