//! What a leader that steps down takes back, it takes back in steps if it is much, and hears others between.
//!
//! Meanwhile its data are those of no entry. So who looks at data waits, as for a batch that is applied in steps, and
//! what is committed is held. Who begins to lead takes the rest back at once, for then nobody may wait; an installation
//! replaces all of it.
//!
//! INVARIANT: nothing is applied, read, lent or written to a snapshot before all is taken back.

use super::{Core, admit::Reason, waiting::Timer};
use crate::{
    keyspace::{Blob, Undo},
    marks,
};

/// Batches to take back, the last first, and of each the last effect first.
#[derive(Default)]
pub(super) struct Undoing(Vec<Vec<Undo>>);

impl Undoing {
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// What is taken back next.
    fn pop(&mut self) -> Option<Undo> {
        loop {
            let undo = self.0.last_mut()?.pop();
            if undo.is_some() {
                return undo;
            }
            self.0.pop();
        }
    }
}

impl Core {
    /// Whether the data are those of no entry: a batch is applied, or taken back, in part.
    pub(super) fn is_between_states(&self) -> bool {
        self.applying.is_some() || !self.undoing.is_empty()
    }

    /// Takes batches back: at once, if that is little.
    pub(super) fn undo_in_steps(&mut self, batches: Vec<Vec<Undo>>) {
        debug_assert!(self.undoing.is_empty(), "who takes back does not lead");
        self.undoing = Undoing(batches);
        match self.undoing.len() > self.settings.large_elements {
            true => {
                marks::reached("batch taken back in steps");
                self.time_undoing();
            }
            false => self.undo_all(),
        }
    }

    fn time_undoing(&mut self) {
        self.timers.set(Timer::Apply, Some(self.surroundings.boot_ns() + 1));
    }

    /// Takes all back that is left.
    pub(super) fn undo_all(&mut self) {
        if !self.undoing.is_empty() {
            self.undo_some(usize::MAX);
            self.wake(&Reason::Applying);
        }
    }

    fn undo_some(&mut self, most: usize) {
        for _ in 0..most {
            let Some(undo) = self.undoing.pop() else { break };
            if let Some(displaced) = self.store_mut().keyspace_mut().take_back(undo) {
                let displaced = Undo::Object { key: Blob::new(b""), before: Some(displaced) };
                if displaced.is_slow_to_drop() {
                    self.discard(vec![displaced]);
                }
            }
        }
        // Who keeps copies was told to forget all of them.
        drop(self.store_mut().keyspace_mut().watched.take_heard(0));
    }

    /// The state is replaced: nothing needs to be taken back.
    pub(super) fn forget_undoing(&mut self) {
        self.timers.set(Timer::Apply, None);
        let Undoing(batches) = std::mem::take(&mut self.undoing);
        batches.into_iter().for_each(|undos| self.discard(undos));
    }

    /// What is taken back or applied in steps goes on.
    pub(super) fn go_on_applying(&mut self) {
        if !self.undoing.is_empty() {
            self.undo_some(self.settings.large_elements.max(1));
            if !self.undoing.is_empty() {
                return self.time_undoing();
            }
            self.undoing = Undoing::default();
            self.wake(&Reason::Applying);
        }
        self.commit_held(true);
    }
}
