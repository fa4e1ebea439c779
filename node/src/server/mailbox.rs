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
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    consensus::{Input, PeerMessage, ShardId},
    keyspace::tx::Publication,
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
    /// For the shard itself.
    Event(Event),
    /// Its state is to become that of a snapshot file.
    Install {
        /// The last entry in it.
        index: u64,
        /// That entry's term.
        term: u64,
    },
    /// Consensus takes no proposals of this term any more.
    Retire {
        /// The term.
        term: u64,
    },
    /// No more clients; answer those that are here, and end.
    Stop,
}

impl From<Event> for ShardMessage {
    fn from(event: Event) -> Self {
        ShardMessage::Event(event)
    }
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
    pub fn send(&self, message: ShardMessage) {
        let _ = self.sender.send(message);
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
        self.send(Event::Deliver(publications).into());
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
            if let ShardMessage::Event(Event::Deliver(publications)) = message {
                self.publication_bytes.fetch_sub(publication_bytes(publications), Ordering::Relaxed);
            }
        }
        count
    }
}

/// What the consensus thread is told.
#[derive(Debug)]
pub enum DriverMessage {
    /// For consensus itself.
    Input(Input),
    /// Messages of a peer.
    Peer(Vec<PeerMessage>),
    /// End.
    Stop,
}

/// What waits for the consensus thread.
///
/// The thread sleeps between two turns, thousands of times a second, and takes
/// all that waits at once. A channel that spins and yields for a while before it
/// sleeps, as most do, would spend more there than the turns themselves.
#[derive(Debug, Default)]
struct DriverQueue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: Vec<DriverMessage>,
    /// The thread sleeps: who puts a message there wakes it.
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

/// Where messages for the consensus thread are put.
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
    /// Puts an input there. A thread that has ended needs none.
    pub fn send(&self, input: Input) {
        self.queue.put(DriverMessage::Input(input));
    }

    /// Ends the thread, after what was sent before.
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
    /// waits for something, at most this long.
    pub fn receive(&self, messages: &mut Vec<DriverMessage>, patience: Duration) {
        let mut waiting = self.queue.lock();
        if waiting.messages.is_empty() {
            waiting.asleep = true;
            let woken = self.queue.arrived.wait_timeout_while(waiting, patience, |waiting| waiting.asleep);
            waiting = woken.expect("no thread panics holding it").0;
            waiting.asleep = false;
        }
        std::mem::swap(&mut waiting.messages, messages);
    }

    /// These messages of a peer wait no more.
    pub fn taken(&self, messages: &[PeerMessage]) {
        self.peer_bytes.fetch_sub(peer_bytes(messages), Ordering::Relaxed);
    }
}

fn peer_bytes(messages: &[PeerMessage]) -> usize {
    messages.iter().map(|message| message.data.len() + MESSAGE_OVERHEAD_BYTES).sum()
}

/// Bytes of entries after which a shard tells at once that it applied them.
const TOLD_BYTES: u64 = 1 << 20;

/// How far a shard has applied its log, for consensus.
///
/// Consensus looks when it is awake anyhow; waking it for each entry would cost a
/// switch of threads. Only much at once, and the first entries of a term, which
/// begin a lease, are told.
#[derive(Debug)]
pub struct Progress {
    shard: ShardId,
    applied: AtomicU64,
    untold_bytes: AtomicU64,
}

impl Progress {
    /// Of a shard that has applied its log up to `applied`.
    pub fn new(shard: ShardId, applied: u64) -> Self {
        Self { shard, applied: AtomicU64::new(applied), untold_bytes: AtomicU64::new(0) }
    }

    /// The shard has applied its log up to `index`, `bytes` more than before.
    pub fn applied(&self, index: u64, bytes: u64, begins_term: bool, driver: &DriverMailbox) {
        self.applied.store(index, Ordering::Release);
        let untold = self.untold_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if begins_term || untold >= TOLD_BYTES {
            self.untold_bytes.store(0, Ordering::Relaxed);
            driver.send(Input::Applied { group: self.shard, index });
        }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// How far it is.
    pub fn index(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn publication(bytes: usize) -> Vec<Publication> {
        vec![Publication { channel: "c".into(), message: Bytes::from(vec![0; bytes]), sharded: false }]
    }

    #[tokio::test]
    async fn published_messages_over_the_bound_are_dropped_and_others_are_not() {
        let (mailbox, mut inbox) = shard_mailbox();
        mailbox.deliver(publication(PUBLICATION_BYTES_MAX)); // alone it may be as large as it likes
        mailbox.deliver(publication(1));
        mailbox.send(Event::Tick.into());
        let mut messages = Vec::new();
        assert_eq!(inbox.receive(&mut messages, 10).await, 2);
        assert!(matches!(messages[1], ShardMessage::Event(Event::Tick)));
        mailbox.deliver(publication(1));
        assert_eq!(inbox.receive(&mut messages, 10).await, 1);
    }

    #[test]
    fn progress_wakes_consensus_only_for_much_or_for_a_new_term() {
        let (mailbox, inbox) = driver_mailbox();
        let progress = Progress::new(0, 5);
        let told = || {
            let mut messages = Vec::new();
            inbox.receive(&mut messages, Duration::ZERO);
            messages.len()
        };
        progress.applied(6, 100, false, &mailbox);
        assert_eq!((progress.index(), told()), (6, 0));
        progress.applied(7, 0, true, &mailbox);
        progress.applied(8, TOLD_BYTES, false, &mailbox);
        progress.applied(9, 1, false, &mailbox);
        assert_eq!((progress.index(), told()), (9, 2));
    }

    #[test]
    fn a_sleeping_consensus_thread_is_woken_by_the_first_message() {
        let (mailbox, inbox) = driver_mailbox();
        let thread = std::thread::spawn(move || {
            let mut messages = Vec::new();
            let mut count = 0;
            loop {
                inbox.receive(&mut messages, Duration::from_secs(60));
                for message in messages.drain(..) {
                    match message {
                        DriverMessage::Stop => return count,
                        _ => count += 1,
                    }
                }
            }
        });
        (0..10_000).for_each(|_| mailbox.send(Input::Tick));
        mailbox.stop();
        assert_eq!(thread.join().unwrap(), 10_000);
    }
}
