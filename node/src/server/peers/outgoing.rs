//! From this node to the others, and the tasks that carry it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use moonraft_proto::peer::{
    Joining, LeaderHint, Publication as WirePublication, RaftMessage, peer_client::PeerClient,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::transport::{Channel, Endpoint};

use super::{
    CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES,
    lanes::{Envelopes, Lane, LaneQueue, Parcel, lane},
    transfer,
};
use crate::{
    consensus::{Input, NodeId, PeerMessage, ReplicaId, ShardId},
    control::Topology,
    keyspace::tx::Publication,
    server::{
        clock,
        disk::DiskHealth,
        mailbox::DriverMailbox,
        snapshots::{SnapshotFiles, SnapshotName},
        view::View,
    },
};

/// Snapshots that are sent at once: more would only slow each other down.
const SNAPSHOTS_AT_ONCE: usize = 2;
/// A Raft message of more bytes takes the bulk lane: at 1 Gbit/s it is a millisecond.
const BULK_BYTES: usize = 128 << 10;
/// Waits between two attempts to reach a peer.
const BACKOFF: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
];
/// A peer, as the tasks that serve it need it.
#[derive(Clone)]
struct Target {
    node: NodeId,
    endpoint: Endpoint,
}

struct Peer {
    target: Target,
    prompt: Lane,
    bulk: Lane,
}

/// A snapshot that is to be sent.
struct Sending {
    target: Target,
    to: ReplicaId,
    name: SnapshotName,
    message: PeerMessage,
}

/// What this node sends to others. Shared by its threads; no call waits.
pub struct Outgoing {
    peers: BTreeMap<NodeId, Peer>,
    topology: Arc<Topology>,
    sendings: mpsc::UnboundedSender<Sending>,
}

/// The tasks' side of [`Outgoing`].
pub struct Carriers {
    lanes: Vec<(Target, LaneQueue, bool)>,
    sendings: mpsc::UnboundedReceiver<Sending>,
    cluster: String,
    me: NodeId,
    silence_max: Duration,
}

/// The outgoing side of node `me`, and what its runtime must run.
pub fn outgoing(topology: &Arc<Topology>, me: NodeId, silence_max: Duration) -> (Outgoing, Carriers) {
    let mut lanes = Vec::new();
    let mut peers = BTreeMap::new();
    for entry in topology.peers_of(me) {
        let host = match entry.announce.contains(':') {
            true => format!("[{}]", entry.announce),
            false => entry.announce.clone(),
        };
        let address = format!("http://{host}:{}", entry.peer_port);
        let endpoint = Endpoint::from_shared(address).expect("the cluster file's hosts make addresses");
        let endpoint = endpoint
            .connect_timeout(silence_max)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(silence_max)
            .keep_alive_timeout(silence_max)
            .keep_alive_while_idle(true);
        let target = Target { node: entry.id, endpoint };
        let (prompt, prompt_queue) = lane();
        let (bulk, bulk_queue) = lane();
        lanes.push((target.clone(), prompt_queue, true));
        lanes.push((target.clone(), bulk_queue, false));
        peers.insert(entry.id, Peer { target, prompt, bulk });
    }
    let (sender, sendings) = mpsc::unbounded_channel();
    let outgoing = Outgoing { peers, topology: Arc::clone(topology), sendings: sender };
    let cluster = topology.name().to_owned();
    (outgoing, Carriers { lanes, sendings, cluster, me, silence_max })
}

impl Outgoing {
    /// Sends messages of Raft groups, each to its node.
    pub fn send_raft(&self, messages: Vec<PeerMessage>) {
        if messages.is_empty() {
            return;
        }
        let mut parcels: BTreeMap<NodeId, Vec<RaftMessage>> = BTreeMap::new();
        for message in messages {
            let node = message.to.node();
            let wire = to_wire(message);
            if wire.data.len() <= BULK_BYTES {
                parcels.entry(node).or_default().push(wire);
            } else if let Some(peer) = self.peers.get(&node) {
                peer.bulk.put(Parcel { raft: vec![wire], ..Parcel::default() });
            }
        }
        for (node, raft) in parcels {
            if let Some(peer) = self.peers.get(&node) {
                peer.prompt.put(Parcel { raft, ..Parcel::default() });
            }
        }
    }

    /// Sends published messages of `shard` to all nodes; sharded ones to those of the shard.
    pub fn send_publications(&self, shard: ShardId, publications: &[Publication]) {
        let wire = |message: &Publication| WirePublication {
            channel: message.channel.clone(),
            message: message.message.clone(),
            shard: message.sharded.then_some(shard),
        };
        for (&node, peer) in &self.peers {
            let of_shard = self.topology.nodes_of(shard).any(|entry| entry.id == node);
            let heard = publications.iter().filter(|message| of_shard || !message.sharded);
            let publications: Vec<_> = heard.map(wire).collect();
            if !publications.is_empty() {
                peer.prompt.put_publications(publications);
            }
        }
    }

    /// Tells all nodes what this one leads, where it wants to join, and whether it is fit to lead; no word of it
    /// at all says that it lives.
    pub fn send_hints(&self, leaders: &[LeaderHint], joining: &[Joining], fit: bool) {
        for peer in self.peers.values() {
            let (leaders, joining) = (leaders.to_vec(), joining.to_vec());
            peer.prompt.put(Parcel { leaders, joining, fit: Some(fit), ..Parcel::default() });
        }
    }

    /// Where the other nodes are.
    pub fn endpoints(&self) -> impl Iterator<Item = (NodeId, Endpoint)> {
        self.peers.values().map(|peer| (peer.target.node, peer.target.endpoint.clone()))
    }

    /// Moves a snapshot file to `to`, and its message after it.
    pub fn send_snapshot(&self, shard: ShardId, to: ReplicaId, at: (u64, u64), message: PeerMessage) {
        let Some(peer) = self.peers.get(&to.node()) else { return };
        let name = SnapshotName { shard, index: at.0, term: at.1 };
        let target = peer.target.clone();
        let _ = self.sendings.send(Sending { target, to, name, message });
    }
}

fn to_wire(message: PeerMessage) -> RaftMessage {
    RaftMessage {
        shard: message.group,
        from: message.from.0,
        to: message.to.0,
        stamp: message.stamp,
        echo: message.echo,
        data: message.data,
    }
}

/// A message of a Raft group, as consensus takes it.
pub(super) fn from_wire(message: RaftMessage) -> PeerMessage {
    PeerMessage {
        group: message.shard,
        from: ReplicaId(message.from),
        to: ReplicaId(message.to),
        stamp: message.stamp,
        echo: message.echo,
        data: message.data,
    }
}

impl Carriers {
    /// Starts all tasks on the runtime of this thread.
    pub fn spawn(self, driver: &DriverMailbox, files: &SnapshotFiles, stopping: &watch::Receiver<bool>) {
        for (target, queue, is_prompt) in self.lanes {
            let envelopes = Envelopes { queue, cluster: self.cluster.clone(), node: self.me, begun: false };
            let driver = is_prompt.then(|| driver.clone());
            tokio::spawn(carry(target, envelopes, driver, stopping.clone()));
        }
        let (driver, files, mut sendings) = (driver.clone(), files.clone(), self.sendings);
        let (cluster, patience) = (self.cluster, self.silence_max);
        let places = Arc::new(Semaphore::new(SNAPSHOTS_AT_ONCE));
        tokio::spawn(async move {
            while let Some(Sending { target, to, name, message }) = sendings.recv().await {
                let (driver, files, cluster) = (driver.clone(), files.clone(), cluster.clone());
                let places = Arc::clone(&places);
                tokio::spawn(async move {
                    let _place = places.acquire().await;
                    let group = name.shard;
                    let sent =
                        transfer::send(&target.endpoint, &cluster, &files, name, &message, patience).await;
                    if let Err(error) = &sent {
                        tracing::warn!(shard = group, %to, "a snapshot could not be sent: {error}");
                    }
                    driver.send(Input::SnapshotSent { group, to, success: sent.is_ok() });
                });
            }
        });
    }
}

/// Keeps one stream to one peer open, for ever.
async fn carry(
    target: Target,
    template: Envelopes,
    driver: Option<DriverMailbox>,
    stopping: watch::Receiver<bool>,
) {
    let mut failures = 0;
    loop {
        let queue = template.queue.clone();
        let cluster = template.cluster.clone();
        let envelopes = Envelopes { queue: queue.clone(), cluster, node: template.node, begun: false };
        let outcome = match target.endpoint.connect().await {
            Ok(channel) => {
                failures = 0;
                deliver(channel, envelopes).await
            }
            Err(error) => Err(error.to_string()),
        };
        let Err(error) = outcome else { return }; // nothing comes any more: the node stops
        if *stopping.borrow() {
            return;
        }
        if let Some(driver) = &driver {
            if failures == 0 {
                tracing::warn!(node = target.node, "a peer cannot be reached: {error}");
            }
            driver.send(Input::Unreachable { node: target.node });
        }
        let wait = BACKOFF[failures.min(BACKOFF.len() - 1)];
        failures += 1;
        queue.drop_waiting();
        tokio::time::sleep(wait).await;
        queue.drop_waiting();
    }
}

async fn deliver(channel: Channel, envelopes: Envelopes) -> Result<(), String> {
    let mut client = PeerClient::new(channel);
    client.deliver(envelopes).await.map(drop).map_err(|status| status.message().to_owned())
}

/// Tells the other nodes what this one leads: at every change, and every `interval`.
pub async fn tell_hints(view: Arc<View>, outgoing: Arc<Outgoing>, disk: Arc<DiskHealth>, interval: Duration) {
    loop {
        outgoing.send_hints(&view.hints(), &view.joining(), disk.is_fit(clock::boot_ns()));
        let _ = tokio::time::timeout(interval, view.news()).await;
    }
}
