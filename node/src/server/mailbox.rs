//! The queues between threads, and what bounds each.
//!
//! * To a shard: what consensus commits is bounded there, by what the shard has
//!   not yet applied; published messages are bounded here and dropped beyond, as
//!   subscribers are promised no more than that.
//! * To consensus: what a shard proposes is bounded by the shard, by what it has in
//!   flight; messages of peers are bounded here and dropped beyond, which Raft
//!   is made for.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
        mpsc as blocking,
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot};

use super::replicas::{Data, Opening};
use crate::{
    consensus::{Input, NodeId, PeerMessage, ShardId},
    control::birth::Memory,
    keyspace::tx::Publication,
    replica::Message,
    shard::Event,
};

/// Bytes of published messages that wait for one shard.
const PUBLICATION_BYTES_MAX: usize = 64 << 20;
/// Bytes of messages of peers that wait for consensus: some turns of the largest
/// entries, far more than a thread that keeps up ever has.
const PEER_BYTES_MAX: usize = 512 << 20;
/// What a message costs besides its text.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// What the thread of a shard is told.
#[derive(Debug)]
pub enum ShardMessage {
    /// For the replica.
    Replica(Message),
    /// Answer the clients that are here, and end.
    Stop {
        /// How long that may take, and as long again until their connections are closed.
        within: Duration,
    },
}

/// Where messages for a shard's thread are put.
#[derive(Clone, Debug)]
pub struct ShardMailbox {
    sender: mpsc::UnboundedSender<ShardMessage>,
    publication_bytes: Arc<AtomicUsize>,
}

/// The other end of a [`ShardMailbox`].
#[derive(Debug)]
pub struct ShardInbox {
    receiver: mpsc::UnboundedReceiver<ShardMessage>,
    publication_bytes: Arc<AtomicUsize>,
}

/// A mailbox and its inbox.
pub fn shard_mailbox() -> (ShardMailbox, ShardInbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let publication_bytes = Arc::new(AtomicUsize::new(0));
    let inbox = ShardInbox { receiver, publication_bytes: Arc::clone(&publication_bytes) };
    (ShardMailbox { sender, publication_bytes }, inbox)
}

impl ShardMailbox {
    /// Puts a message there. A shard whose thread has ended needs none.
    pub fn send(&self, message: impl Into<Message>) {
        let _ = self.sender.send(ShardMessage::Replica(message.into()));
    }

    /// Tells the thread to end.
    pub fn stop(&self, within: Duration) {
        let _ = self.sender.send(ShardMessage::Stop { within });
    }

    /// Puts published messages there, or drops them if too many wait.
    pub fn deliver(&self, publications: Vec<Publication>) {
        let bytes = publication_bytes(&publications);
        let before = self.publication_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > PUBLICATION_BYTES_MAX {
            self.publication_bytes.fetch_sub(bytes, Ordering::Relaxed);
            tracing::warn!("{} published messages dropped: a shard does not keep up", publications.len());
            return;
        }
        self.send(Event::Deliver(publications));
    }
}

fn publication_bytes(publications: &[Publication]) -> usize {
    let bytes =
        |message: &Publication| message.channel.len() + message.message.len() + MESSAGE_OVERHEAD_BYTES;
    publications.iter().map(bytes).sum()
}

impl ShardInbox {
    /// The next messages, at most `limit`; none at all if nobody can send any more.
    pub async fn receive(&mut self, messages: &mut Vec<ShardMessage>, limit: usize) -> usize {
        let count = self.receiver.recv_many(messages, limit).await;
        for message in &messages[messages.len() - count..] {
            if let ShardMessage::Replica(Message::Event(Event::Deliver(publications))) = message {
                self.publication_bytes.fetch_sub(publication_bytes(publications), Ordering::Relaxed);
            }
        }
        count
    }
}

/// What consensus is told.
#[derive(Debug)]
pub enum DriverMessage {
    /// For consensus itself.
    Input(Input),
    /// Messages of a peer.
    Peer(Vec<PeerMessage>),
    /// What is remembered of a node whose disk is empty?
    Recall {
        /// The node.
        node: NodeId,
        /// Where the answer goes.
        reply: oneshot::Sender<Memory>,
    },
    /// The node is in this life of its disk: to be kept, for ever.
    Decide {
        /// The incarnation.
        incarnation: u32,
        /// Told when it is durable.
        done: oneshot::Sender<()>,
    },
    /// A replica is open: its group may begin with the others.
    Open(Box<Opening>),
    /// The replica of a shard has ended: its group closes.
    Close {
        /// The shard.
        shard: ShardId,
        /// What becomes of its log.
        data: Data,
        /// Told when that is durable.
        done: blocking::SyncSender<()>,
    },
    /// The groups may begin.
    Begin,
    /// End.
    Stop,
}

/// What waits for consensus, which takes all of it at once. Only who finds it
/// asleep wakes it.
#[derive(Debug, Default)]
struct DriverQueue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: Vec<DriverMessage>,
    /// Who puts a message there wakes it.
    asleep: bool,
}

impl DriverQueue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no thread panics holding it")
    }

    fn put(&self, message: DriverMessage) {
        let mut waiting = self.lock();
        waiting.messages.push(message);
        if std::mem::take(&mut waiting.asleep) {
            drop(waiting);
            self.arrived.notify_one();
        }
    }
}

/// Where messages for consensus are put.
#[derive(Clone, Debug)]
pub struct DriverMailbox {
    queue: Arc<DriverQueue>,
    peer_bytes: Arc<AtomicUsize>,
}

/// The other end of a [`DriverMailbox`].
#[derive(Debug)]
pub struct DriverInbox {
    queue: Arc<DriverQueue>,
    peer_bytes: Arc<AtomicUsize>,
}

/// A mailbox and its inbox.
pub fn driver_mailbox() -> (DriverMailbox, DriverInbox) {
    let queue = Arc::new(DriverQueue::default());
    let peer_bytes = Arc::new(AtomicUsize::new(0));
    let inbox = DriverInbox { queue: Arc::clone(&queue), peer_bytes: Arc::clone(&peer_bytes) };
    (DriverMailbox { queue, peer_bytes }, inbox)
}

impl DriverMailbox {
    /// Puts an input there. When consensus has ended it needs none.
    pub fn send(&self, input: Input) {
        self.queue.put(DriverMessage::Input(input));
    }

    /// What this node remembers of `node`; `None` if it stops.
    pub async fn recall(&self, node: NodeId) -> Option<Memory> {
        let (reply, answer) = oneshot::channel();
        self.queue.put(DriverMessage::Recall { node, reply });
        answer.await.ok()
    }

    /// Keeps which life of its disk the node is in. `None` if the node stops.
    pub async fn decide(&self, incarnation: u32) -> Option<()> {
        let (done, decided) = oneshot::channel();
        self.queue.put(DriverMessage::Decide { incarnation, done });
        decided.await.ok()
    }

    /// A replica is open.
    pub fn open(&self, opening: Opening) {
        self.queue.put(DriverMessage::Open(Box::new(opening)));
    }

    /// A replica has ended. Returns when its group is closed; to be called while consensus runs, on a thread that may
    /// wait for it.
    pub fn close(&self, shard: ShardId, data: Data) {
        let (done, closed) = blocking::sync_channel(1);
        self.queue.put(DriverMessage::Close { shard, data, done });
        let _ = closed.recv(); // it ends: then its groups have
    }

    /// Lets the groups begin.
    pub fn begin(&self) {
        self.queue.put(DriverMessage::Begin);
    }

    /// Ends consensus, after what was sent before.
    pub fn stop(&self) {
        self.queue.put(DriverMessage::Stop);
    }

    /// Puts messages of a peer there, or drops them if too many wait.
    pub fn send_peer(&self, messages: Vec<PeerMessage>) {
        let bytes = peer_bytes(&messages);
        let before = self.peer_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > PEER_BYTES_MAX {
            self.peer_bytes.fetch_sub(bytes, Ordering::Relaxed);
            tracing::warn!("{} messages of a peer dropped: consensus does not keep up", messages.len());
            return;
        }
        self.queue.put(DriverMessage::Peer(messages));
    }
}

impl DriverInbox {
    /// Puts all that waits into `messages`, which is empty. If nothing does, it
    /// waits for something, at most this long; `None`: not at all. Either way the thread's other tasks, which
    /// bring what peers say, have their turn.
    pub async fn receive(&self, messages: &mut Vec<DriverMessage>, patience: Option<Duration>) {
        let is_there = self.take(messages, patience.is_some());
        let Some(patience) = patience.filter(|_| !is_there) else {
            return tokio::task::yield_now().await;
        };
        let _ = tokio::time::timeout(patience, self.queue.arrived.notified()).await;
        self.take(messages, false);
    }

    fn take(&self, messages: &mut Vec<DriverMessage>, sleeps: bool) -> bool {
        let mut waiting = self.queue.lock();
        std::mem::swap(&mut waiting.messages, messages);
        waiting.asleep = sleeps && messages.is_empty();
        !messages.is_empty()
    }

    /// These messages of a peer wait no more.
    pub fn taken(&self, messages: &[PeerMessage]) {
        self.peer_bytes.fetch_sub(peer_bytes(messages), Ordering::Relaxed);
    }
}

fn peer_bytes(messages: &[PeerMessage]) -> usize {
    messages.iter().map(|message| message.data.len() + MESSAGE_OVERHEAD_BYTES).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::keyspace::tx::Audience;

    fn publication(bytes: usize) -> Vec<Publication> {
        vec![Publication {
            channel: "c".into(),
            message: Bytes::from(vec![0; bytes]),
            audience: Audience::Cluster,
        }]
    }

    #[tokio::test]
    async fn published_messages_over_the_bound_are_dropped_and_others_are_not() {
        let (mailbox, mut inbox) = shard_mailbox();
        mailbox.deliver(publication(PUBLICATION_BYTES_MAX)); // alone it may be as large as it likes
        mailbox.deliver(publication(1));
        mailbox.send(Event::Tick);
        let mut messages = Vec::new();
        assert_eq!(inbox.receive(&mut messages, 10).await, 2);
        assert!(matches!(messages[1], ShardMessage::Replica(Message::Event(Event::Tick))));
        mailbox.deliver(publication(1));
        assert_eq!(inbox.receive(&mut messages, 10).await, 1);
    }

    #[tokio::test]
    async fn sleeping_consensus_is_woken_by_the_first_message() {
        let (mailbox, inbox) = driver_mailbox();
        let sender = std::thread::spawn(move || {
            (0..10_000).for_each(|_| mailbox.send(Input::Tick));
            mailbox.stop();
        });
        let (mut messages, mut count) = (Vec::new(), 0);
        while !matches!(messages.last(), Some(DriverMessage::Stop)) {
            messages.clear();
            inbox.receive(&mut messages, Some(Duration::from_secs(60))).await;
            count += messages.len();
        }
        assert_eq!(count, 10_001);
        sender.join().unwrap();
    }
}
