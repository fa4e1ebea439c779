//! Which slots the shard owns: state of its log, and nothing else.
//!
//! The first entry of a new shard's log assigns the slots that it is born with, which the cluster file says: its first
//! leader proposes it as soon as it serves. What is in flight may still be taken back, and until it is committed nobody else can know
//! of it. So for a slot whose ownership changes in a batch in flight nothing is served and nobody is sent elsewhere:
//! requests wait until the log has decided.
//!
//! Builds before this one gave each replica its slots outside of the log. A log whose first batch assigns none was begun
//! by such a build: its replicas own what they were born with from then on. It is the log that tells, so replicas of both
//! builds, restarted or new, are equal after each batch.
//!
//! INVARIANTS:
//! * A request on data of a slot is executed by a leader only if all of the log, and all in flight, says that the slot is
//!   the shard's.
//! * Replicas that have applied the same batches own the same slots.
//!
//! Deliberately left out: who decides that slots move. A unit that changes ownership is never rolled back by itself.

use moonraft_proto::{Effect, entry::Batch};

use super::{Core, admit::Reason};
use crate::marks;

/// Whose a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// This shard's.
    Own,
    /// Another's.
    Foreign,
    /// The log has not decided.
    Undecided,
}

impl Core {
    /// Whose a slot is.
    pub(super) fn ownership(&self, slot: u16) -> Ownership {
        if self.is_unborn() || self.store().is_changing_hands(slot) {
            Ownership::Undecided
        } else if self.keyspace().owned().contains(slot) {
            Ownership::Own
        } else {
            Ownership::Foreign
        }
    }

    /// Whether the applied log does not say yet what the shard owns.
    fn is_unborn(&self) -> bool {
        !self.is_born && !self.settings.born_with.is_empty()
    }

    /// A leader begins to serve: if it is the first, it proposes what the shard is born with, before all else.
    pub(super) fn give_birth(&mut self) {
        if !self.is_unborn() {
            return;
        }
        marks::reached("shard born");
        self.begin_unit();
        for (first, last) in self.settings.born_with.clone() {
            self.tx().emit(Effect::AssignSlots { first, last });
        }
        let unit = self.store_mut().end_unit();
        self.settle_unit(unit);
    }

    /// A batch is about to be applied. If it is the first of the log and assigns nothing, the log is of a build that gave
    /// replicas their slots outside of it.
    pub(super) fn assume_birth(&mut self, batch: &Batch<'_>) {
        let assigns = matches!(batch.effects().next(), Some(Ok(Effect::AssignSlots { .. })));
        if !self.is_unborn() || assigns {
            return;
        }
        marks::reached("log of a build that kept slots outside of it");
        for (first, last) in self.settings.born_with.clone() {
            self.store_mut().keyspace_mut().apply(&Effect::AssignSlots { first, last });
        }
    }

    /// A batch is committed: who waits to hear whose a slot is goes on, if the log has decided.
    pub(super) fn tell_owner(&mut self) {
        if !self.is_unborn() && !self.store().is_any_changing_hands() {
            self.wake(&Reason::Slots);
        }
    }

    /// The state is another, as of a snapshot with this stamp: it tells what is owned, unless it is of before the first batch.
    pub(super) fn note_born(&mut self, stamp_ms: u64) {
        self.is_born = stamp_ms > 0 || !self.keyspace().owned().is_empty();
    }
}
