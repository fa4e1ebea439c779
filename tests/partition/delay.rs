//! Packets that are late: a netfilter queue read by a thread of ours.
//!
//! What the router marks as slow waits here for a drawn time each, so packets
//! also overtake each other, as with `netem`.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nfq::{Message, Queue, Verdict};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::network;

/// Of one packet. A round trip of two of the longest is an eighth of the node timeout.
const DELAY_US: std::ops::Range<u64> = 2_000..60_000;
/// How exact a delay is.
const STEP: Duration = Duration::from_millis(1);
/// Packets that may wait: more than all windows of all connections hold.
const PACKETS_MAX: u32 = 20_000;

/// The thread; it ends when this is dropped.
pub struct Delay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// Serves the queue of the router's namespace.
    pub fn start(router: String, seed: u64) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let (told, opened) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let queue = network::enter(&router).and_then(|()| Ok(open()?));
            match queue {
                Ok(queue) => {
                    let _ = told.send(Ok(()));
                    serve(queue, seed, &seen);
                }
                Err(error) => drop(told.send(Err(error))),
            }
        });
        opened.recv()??;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open() -> io::Result<Queue> {
    let mut queue = Queue::open()?;
    queue.bind(0)?;
    queue.set_queue_max_len(0, PACKETS_MAX)?;
    queue.set_copy_range(0, 0)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

fn serve(mut queue: Queue, seed: u64, stop: &AtomicBool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut waiting: Vec<Option<Message>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut due: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        // An error is an empty queue, or packets that the kernel dropped: loss, which is allowed.
        while let Ok(message) = queue.recv() {
            let place = free.pop().unwrap_or_else(|| {
                waiting.push(None);
                waiting.len() - 1
            });
            waiting[place] = Some(message);
            due.push(Reverse((now + Duration::from_micros(rng.random_range(DELAY_US)), place)));
        }
        while due.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, place))) = due.pop() else { break };
            if let Some(mut message) = waiting[place].take() {
                message.set_verdict(Verdict::Accept);
                let _ = queue.verdict(message);
                free.push(place);
            }
        }
        std::thread::sleep(STEP);
    }
}
