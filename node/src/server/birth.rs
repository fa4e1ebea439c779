//! A node finds out which life of its disk it is in, and begins.
//!
//! Until then its groups do not exist: messages for them are dropped, requests of clients wait as they do without a
//! leader, and the peers that ask are told that it has not begun ([`Unborn`]). The rules, and why they are safe, are
//! `control::birth`'s.

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc, time::Duration};

use moonraft_proto::{
    entry::NEWEST_FORMAT,
    peer::{RecallRequest, peer_client::PeerClient},
};
use tonic::transport::Endpoint;

use super::{
    driver::Driver,
    mailbox::{DriverInbox, DriverMessage},
    replicas::{Data, Opening},
    shared::NodeShared,
};
use crate::{
    consensus::{Recollection, ShardId},
    control::{
        Topology,
        birth::{Birth, Memory, Step},
    },
    log::Log,
};

/// Between two rounds of questions, at first; then half as long again each time, as peers may be away for days.
const ASK_INTERVAL: Duration = Duration::from_millis(20);
/// The same at last.
const ASK_INTERVAL_MAX: Duration = Duration::from_millis(500);
/// There is nothing to do but wait; it looks up now and then.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the peers until the node may begin. `decided`: what its disk says of its life.
pub async fn settle(
    node: Arc<NodeShared>,
    topology: Arc<Topology>,
    decided: Option<u32>,
    patience: Duration,
) {
    let me = node.node;
    let mut birth = Birth::new(me, decided);
    let mut interval = ASK_INTERVAL;
    loop {
        match birth.next(&topology) {
            Step::Decide(incarnation) => {
                if incarnation > 0 {
                    tracing::warn!(
                        "node {me} joins its peers anew as {me}.{incarnation}: its disk is new, but it is not"
                    );
                }
                if node.driver.decide(incarnation).await.is_none() {
                    return; // the node stops
                }
                birth.decide(incarnation);
                continue;
            }
            Step::Begin => break,
            Step::Ask(peers) if birth.decided().is_none() => {
                tell(&node, "waits to hear", &peers, "before it knows whether it is new");
            }
            Step::Ask(peers) => tell(&node, "awaits", &peers, "before the cluster begins"),
        }
        let asked = node.outgoing.endpoints().map(|(peer, endpoint)| {
            let cluster = topology.name().to_owned();
            async move { (peer, tokio::time::timeout(patience, ask(endpoint, cluster, me)).await) }
        });
        for asking in asked.map(tokio::spawn).collect::<Vec<_>>() {
            if let Ok((peer, Ok(Ok(memory)))) = asking.await {
                birth.heard(peer, memory);
            }
        }
        tokio::time::sleep(interval).await;
        interval = (interval * 3 / 2).min(ASK_INTERVAL_MAX);
    }
    node.await_now(None);
    node.driver.begin();
}

fn tell(node: &NodeShared, what: &str, peers: &BTreeSet<u64>, why: &str) {
    let peers: Vec<String> = peers.iter().map(u64::to_string).collect();
    let line = format!("node {} {what} node {} {why}", node.node, peers.join(", "));
    if node.await_now(Some(line.clone())) {
        tracing::info!("{line}");
    }
}

async fn ask(endpoint: Endpoint, cluster: String, node: u64) -> Result<Memory, String> {
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let request = RecallRequest { cluster, node, reads: Some(NEWEST_FORMAT.into()) };
    let answer = PeerClient::new(channel).recall(request).await;
    let memory = answer.map_err(|status| status.message().to_owned())?.into_inner();
    let recollection = |it: moonraft_proto::peer::Recollection| {
        let known = Recollection { begun: it.begun, voter: it.voter, incarnation: it.incarnation };
        (it.shard, known)
    };
    Ok(Memory { decided: memory.decided, shards: memory.shards.into_iter().map(recollection).collect() })
}

/// The consensus of a node whose groups have not begun.
pub struct Unborn {
    /// The log, which keeps the decision.
    pub log: Log,
    /// What it is told.
    pub inbox: DriverInbox,
    /// The rest of the node.
    pub shared: Arc<NodeShared>,
    /// The replicas that are open: their groups begin together.
    pub openings: BTreeMap<ShardId, Opening>,
    /// The numbers of consensus.
    pub settings: crate::consensus::Settings,
}

impl Unborn {
    /// Runs until the node is told to stop.
    pub async fn run(mut self) {
        let mut messages = Vec::new();
        let mut begins = false;
        while !begins {
            self.inbox.receive(&mut messages, Some(PATIENCE)).await;
            for message in messages.drain(..) {
                match message {
                    // Peers say again what they want, and there is nobody else yet who wants anything.
                    DriverMessage::Input(_) => {}
                    DriverMessage::Peer(messages) => self.inbox.taken(&messages),
                    DriverMessage::Recall { reply, .. } => drop(reply.send(self.memory())),
                    DriverMessage::Decide { incarnation, done } => {
                        self.log.decide(incarnation);
                        let _ = done.send(());
                    }
                    DriverMessage::Open(opening) => drop(self.openings.insert(opening.group.group, *opening)),
                    DriverMessage::Close { shard, data, done } => {
                        self.close(shard, data);
                        let _ = done.send(());
                    }
                    DriverMessage::Begin => begins = true,
                    DriverMessage::Stop => return,
                }
            }
        }
        let Unborn { log, inbox, shared, openings, settings } = self;
        let mut driver = Driver::new(settings, log, inbox, &shared);
        openings.into_values().for_each(|opening| driver.open(opening));
        drop(shared);
        driver.run().await;
    }

    fn close(&mut self, shard: ShardId, data: Data) {
        let recovered = self.openings.remove(&shard).and_then(|opening| opening.group.recovered);
        match (data, recovered) {
            (Data::Removed, _) => self.log.remove(shard),
            (Data::Kept, Some(recovered)) => self.shared.replicas.keep(shard, recovered),
            (Data::Kept, None) => {}
        }
    }

    fn memory(&self) -> Memory {
        Memory::before_begin(self.log.identity().incarnation, self.openings.keys().copied())
    }
}
