//! What is going to happen, in order: by time, then by when it was put there.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Events to come.
pub(super) struct Queue<T> {
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// Counts what was ever put here.
    order: u64,
    /// The heap holds places in here, for events have no order of their own.
    events: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Queue<T> {
    pub(super) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), order: 0, events: Vec::new(), free: Vec::new() }
    }

    pub(super) fn push(&mut self, time: u64, event: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.order += 1;
        self.heap.push(Reverse((time, self.order, place)));
    }

    /// The next event, with its time.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((time, _, place)) = self.heap.pop()?;
        self.free.push(place);
        self.events[place].take().map(|event| (time, event))
    }
}
