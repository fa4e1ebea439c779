//! From this node to the others, and the tasks that carry it.

use std::{collections::BTreeMap, convert::Infallible, io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use moonraft_proto::peer::{Envelope, Joining, LeaderHint, Publication as WirePublication, RaftMessage};
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::{Semaphore, mpsc, watch},
};
use tokio_util::codec::Decoder;
use tonic::transport::Endpoint;

use super::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Silence, frames, lanes::Lane, transfer};
use crate::{
    consensus::{Input, NodeId, PeerMessage, ReplicaId, ShardId},
    control::Topology,
    keyspace::tx::Publication,
    replica::publications::{for_others, meant_for},
    server::{
        clock,
        mailbox::DriverMailbox,
        shared::NodeShared,
        snapshots::{SnapshotFiles, SnapshotName},
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
    /// Where its lanes are.
    address: (String, u16),
    /// The same place, for calls of gRPC.
    endpoint: Endpoint,
}

struct Peer {
    target: Target,
    prompt: Arc<Lane>,
    bulk: Arc<Lane>,
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
    lanes: Vec<(Target, Arc<Lane>, bool)>,
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
        let address = (entry.announce.clone(), entry.peer_port);
        let target = Target { node: entry.id, address, endpoint };
        let (prompt, bulk) = (Arc::<Lane>::default(), Arc::<Lane>::default());
        lanes.push((target.clone(), Arc::clone(&prompt), true));
        lanes.push((target.clone(), Arc::clone(&bulk), false));
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
                peer.bulk.put(frames::envelope(&Envelope { raft: vec![wire], ..Envelope::default() }));
            }
        }
        for (node, raft) in parcels {
            if let Some(peer) = self.peers.get(&node) {
                peer.prompt.put(frames::envelope(&Envelope { raft, ..Envelope::default() }));
            }
        }
    }

    /// Sends published messages of `shard` to all nodes; sharded ones to those of the shard.
    pub fn send_publications(&self, shard: ShardId, publications: &[Publication]) {
        let wire = |message: &Publication| WirePublication {
            channel: message.channel.clone(),
            message: message.message.clone(),
            shard: meant_for(message, shard),
        };
        for (&node, peer) in &self.peers {
            let of_shard = self.topology.nodes_of(shard).any(|entry| entry.id == node);
            let heard = for_others(publications).filter(|it| of_shard || meant_for(it, shard).is_none());
            let publications: Vec<_> = heard.map(wire).collect();
            if !publications.is_empty() {
                let envelope = Envelope { publications, ..Envelope::default() };
                peer.prompt.put_publications(frames::envelope(&envelope));
            }
        }
    }

    /// Tells all nodes what this one leads, where it wants to join, whether it is fit to lead, and which format it would
    /// agree on; no word of it at all says that it lives.
    pub fn send_hints(&self, leaders: &[LeaderHint], joining: &[Joining], fit: bool, format: u8) {
        let (leaders, joining) = (leaders.to_vec(), joining.to_vec());
        let envelope =
            Envelope { leaders, joining, fit: Some(fit), agrees: Some(format.into()), ..Envelope::default() };
        let frame = frames::envelope(&envelope);
        for peer in self.peers.values() {
            peer.prompt.put(frame.clone());
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
        time: message.time,
        data: message.data,
        reads: message.reads,
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
        time: message.time,
        reads: message.reads,
        data: message.data,
    }
}

impl Carriers {
    /// Starts all tasks on the runtime of this thread.
    pub fn spawn(self, driver: &DriverMailbox, files: &SnapshotFiles, stopping: &watch::Receiver<bool>) {
        let hello = frames::hello(&self.cluster, self.me);
        for (target, lane, is_prompt) in self.lanes {
            let driver = is_prompt.then(|| driver.clone());
            let carrier = Carrier { target, lane, hello: hello.clone(), patience: self.silence_max };
            tokio::spawn(carrier.carry(driver, stopping.clone()));
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

/// Keeps one connection to one peer open.
struct Carrier {
    target: Target,
    lane: Arc<Lane>,
    hello: Bytes,
    /// How long a connection may take to open; also what [`Silence`] counts by.
    patience: Duration,
}

impl Carrier {
    /// Runs until the node stops.
    async fn carry(self, driver: Option<DriverMailbox>, mut stopping: watch::Receiver<bool>) {
        let mut failures = 0;
        loop {
            let outcome = tokio::select! {
                outcome = self.connect_and_serve(&mut failures) => outcome,
                _ = stopping.wait_for(|stopping| *stopping) => return self.lane.detach(),
            };
            let Err(error) = outcome;
            self.lane.detach();
            if let Some(driver) = &driver {
                if failures == 0 {
                    tracing::warn!(node = self.target.node, "a peer cannot be reached: {error}");
                }
                driver.send(Input::Unreachable { node: self.target.node });
            }
            let wait = BACKOFF[failures.min(BACKOFF.len() - 1)];
            failures += 1;
            tokio::time::sleep(wait).await;
            self.lane.detach();
        }
    }

    async fn connect_and_serve(&self, failures: &mut usize) -> Result<Infallible, CarryError> {
        let (host, port) = &self.target.address;
        let connecting = TcpStream::connect((host.as_str(), *port));
        let socket =
            tokio::time::timeout(self.patience, connecting).await.map_err(|_| CarryError::Silent)??;
        socket.set_nodelay(true)?;
        let socket = Arc::new(socket);
        self.lane.attach(&socket, self.hello.clone());
        let (mut heard, mut words) = (BytesMut::new(), frames::words());
        let mut silence = Silence::new(self.patience);
        loop {
            self.lane.write()?;
            let interest = match self.lane.is_waiting() {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::READABLE,
            };
            tokio::select! {
                ready = socket.ready(interest) => if ready?.is_readable() {
                    silence.broken();
                    read(&socket, &mut heard)?;
                },
                () = self.lane.changed() => {}
                () = silence.look() => match silence.lasts(heard.len()) {
                    true => return Err(CarryError::Silent),
                    false => self.lane.keep_alive(),
                },
            }
            while let Some(text) = words.decode(&mut heard)? {
                if !text.is_empty() {
                    return Err(CarryError::Refused(String::from_utf8_lossy(&text).into_owned()));
                }
                *failures = 0; // it knows this node
            }
        }
    }
}

/// Why a lane has lost its connection, or found none.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it says nothing")]
    Silent,
    #[error("{0}")]
    Refused(String),
}

fn read(socket: &TcpStream, heard: &mut BytesMut) -> io::Result<()> {
    match socket.try_read_buf(heard) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has closed the connection")),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// Tells the other nodes what this one leads: at every change, and every `interval`; and all, this one too, which
/// format it would agree on.
pub async fn tell_hints(node: Arc<NodeShared>, interval: Duration) {
    loop {
        let (fit, format) = (node.disk.is_fit(clock::boot_ns()), node.agreeable_format());
        node.outgoing.send_hints(&node.cluster.hints(), &node.cluster.joining(), fit, format);
        node.driver.send(Input::Agrees { node: node.node, format });
        let _ = tokio::time::timeout(interval, node.cluster.news()).await;
    }
}
