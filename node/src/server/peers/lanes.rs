//! Lanes: bounded queues in which messages wait for a stream to a peer.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use moonraft_proto::peer::{Envelope, Joining, LeaderHint, Publication as WirePublication, RaftMessage};
use tokio::sync::mpsc;
use tokio_stream::Stream;

use super::ENVELOPE_BYTES;
use crate::consensus::NodeId;

/// Parcels that wait for one lane.
const LANE_PARCELS_MAX: usize = 4096;
/// Bytes that wait for one lane: a few of the largest entries.
const LANE_BYTES_MAX: usize = 256 << 20;
/// Bytes that wait for one lane with which no more published messages are taken: those of Raft must
/// not be lost to them.
const LANE_PUBLICATION_BYTES_MAX: usize = 32 << 20;
/// Parcels that are kept free for messages of Raft.
const LANE_RAFT_PARCELS: usize = LANE_PARCELS_MAX / 2;
/// Parcels that are merged into one envelope at most.
const ENVELOPE_PARCELS_MAX: usize = 256;
/// What a message costs besides its payload.
const MESSAGE_OVERHEAD_BYTES: usize = 32;

/// What is sent together.
#[derive(Default)]
pub(super) struct Parcel {
    pub(super) raft: Vec<RaftMessage>,
    pub(super) publications: Vec<WirePublication>,
    pub(super) leaders: Vec<LeaderHint>,
    pub(super) joining: Vec<Joining>,
    pub(super) fit: Option<bool>,
}

impl Parcel {
    fn bytes(&self) -> usize {
        let raft = self.raft.iter().map(|message| message.data.len() + MESSAGE_OVERHEAD_BYTES);
        let publications = self.publications.iter();
        let publications =
            publications.map(|it| it.channel.len() + it.message.len() + MESSAGE_OVERHEAD_BYTES);
        let said = self.leaders.len() + self.joining.len();
        raft.chain(publications).sum::<usize>() + said * MESSAGE_OVERHEAD_BYTES
    }
}

/// One lane to one peer.
#[derive(Clone)]
pub(super) struct Lane {
    sender: mpsc::Sender<(usize, Parcel)>,
    bytes: Arc<AtomicUsize>,
}

/// The other end of a [`Lane`]. Streams come and go; it stays.
#[derive(Clone)]
pub(super) struct LaneQueue {
    receiver: Arc<Mutex<mpsc::Receiver<(usize, Parcel)>>>,
    bytes: Arc<AtomicUsize>,
}

/// Both ends of a lane.
pub(super) fn lane() -> (Lane, LaneQueue) {
    let (sender, receiver) = mpsc::channel(LANE_PARCELS_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    let queue = LaneQueue { receiver: Arc::new(Mutex::new(receiver)), bytes: Arc::clone(&bytes) };
    (Lane { sender, bytes }, queue)
}

impl Lane {
    /// Puts a parcel there, or drops it if too much waits.
    pub(super) fn put(&self, parcel: Parcel) {
        let bytes = parcel.bytes();
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let too_much = before > 0 && before + bytes > LANE_BYTES_MAX;
        if too_much || self.sender.try_send((bytes, parcel)).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Puts published messages there, or drops them if they would be in the way of Raft.
    pub(super) fn put_publications(&self, publications: Vec<WirePublication>) {
        let waiting = self.bytes.load(Ordering::Relaxed);
        if waiting < LANE_PUBLICATION_BYTES_MAX && self.sender.capacity() > LANE_RAFT_PARCELS {
            self.put(Parcel { publications, ..Parcel::default() });
        }
    }
}

impl LaneQueue {
    /// The next parcels, as many as make a good envelope. `None` when nothing comes any more.
    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Parcel>> {
        let mut receiver = self.receiver.lock().expect("no thread panics holding it");
        let Some((mut bytes, mut parcel)) = std::task::ready!(receiver.poll_recv(context)) else {
            return Poll::Ready(None);
        };
        let mut parcels = 1;
        while bytes < ENVELOPE_BYTES
            && parcels < ENVELOPE_PARCELS_MAX
            && let Ok((more_bytes, more)) = receiver.try_recv()
        {
            bytes += more_bytes;
            parcels += 1;
            parcel.raft.extend(more.raft);
            parcel.publications.extend(more.publications);
            if more.fit.is_some() {
                // What is said again replaces what was said.
                (parcel.leaders, parcel.joining, parcel.fit) = (more.leaders, more.joining, more.fit);
            }
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Poll::Ready(Some(parcel))
    }

    /// Drops what waits: it is too old to be of use.
    pub(super) fn drop_waiting(&self) {
        let mut receiver = self.receiver.lock().expect("no thread panics holding it");
        while let Ok((bytes, _)) = receiver.try_recv() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// The envelopes of one stream.
pub(super) struct Envelopes {
    pub(super) queue: LaneQueue,
    pub(super) cluster: String,
    pub(super) node: NodeId,
    pub(super) begun: bool,
}

impl Stream for Envelopes {
    type Item = Envelope;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Envelope>> {
        let parcel = if self.begun {
            std::task::ready!(self.queue.poll(context))
        } else {
            // The first says who speaks, at once.
            self.begun = true;
            let cluster = self.cluster.clone();
            return Poll::Ready(Some(Envelope { cluster, node: self.node, ..Envelope::default() }));
        };
        Poll::Ready(parcel.map(|parcel| Envelope {
            cluster: String::new(),
            node: self.node,
            raft: parcel.raft,
            publications: parcel.publications,
            leaders: parcel.leaders,
            joining: parcel.joining,
            fit: parcel.fit,
        }))
    }
}
