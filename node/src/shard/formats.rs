//! Which format of batches the group has agreed on, and how it comes to agree on a newer one.
//!
//! Nodes are upgraded one by one, so for a while some cannot read what others could write. Each says which format it
//! reads; consensus tells the leader's shard the lowest of all members ([`Event::Readable`](super::Event::Readable)).
//! Once that is newer than what was agreed on, the leader commits [`Effect::AgreeFormat`], and all that
//! comes after it in the log may be of that format. So agreement is state of the shard like any other: it is in
//! snapshots, is taken back if its batch is lost, and never falls.
//!
//! INVARIANTS:
//! * A batch newer than [`FIRST_FORMAT`](moonraft_proto::entry::FIRST_FORMAT) comes after, or holds, an agreement on its
//!   format.
//! * An agreement is proposed only if every member of the group has said a moment ago that it reads that format.

use moonraft_proto::{Effect, entry::NEWEST_FORMAT};

use super::{Core, PlantedFault, Standing, admit::Reason};
use crate::{command::Command, marks};

/// What a replica knows of formats.
#[derive(Debug)]
pub(super) struct Formats {
    /// What all members read, as its consensus said in this term.
    readable: (u64, u8),
    /// What the applied part of the log has agreed on.
    agreed: u8,
    /// Until then, boot clock, what needs a newer format waits: a leader has just begun, and hears soon what its members
    /// read. Later it is refused.
    patient_until_ns: u64,
}

impl Formats {
    /// Of a replica whose state has agreed on this.
    pub fn of(agreed: u8) -> Self {
        Self { readable: (0, 0), agreed, patient_until_ns: 0 }
    }
}

impl Core {
    /// The format that the group has agreed on: what needs a newer one is not to be written. A leader may write it as
    /// soon as it has proposed the agreement, which comes before it in the log.
    pub fn agreed_format(&self) -> u8 {
        self.keyspace().agreed_format()
    }

    /// What of that is committed and applied.
    pub const fn committed_format(&self) -> u8 {
        self.formats.agreed
    }

    /// This replica begins to serve.
    pub(super) fn await_formats(&mut self) {
        let patience_ns = self.settings.park_ms.saturating_mul(1_000_000);
        self.formats.patient_until_ns = self.surroundings.boot_ns().saturating_add(patience_ns);
    }

    /// Whether what a command writes needs a format on which the members may agree in a moment.
    pub(super) fn awaits_format(&self, command: &Command) -> bool {
        command.format > self.agreed_format() && self.is_patient()
    }

    fn is_patient(&self) -> bool {
        self.is_serving() && self.surroundings.boot_ns() < self.formats.patient_until_ns
    }

    /// All members of the group read this format, says the consensus of this term.
    pub(super) fn note_readable(&mut self, term: u64, format: u8) {
        self.formats.readable = (term, format);
    }

    /// Proposes to agree on the newest format that all members read, if it is newer than what they have agreed on.
    pub(super) fn tick_formats(&mut self) {
        if !self.is_patient() {
            self.wake(&Reason::Formats);
        }
        let Standing::Leading { term, serving: true } = self.standing else { return };
        let (told_in, readable) = match self.settings.fault {
            Some(PlantedFault::FormatNotReadable) => (term, NEWEST_FORMAT),
            _ => self.formats.readable,
        };
        let format = readable.min(NEWEST_FORMAT);
        if told_in != term || format <= self.agreed_format() {
            return;
        }
        self.begin_unit();
        self.tx().emit(Effect::AgreeFormat { format });
        let unit = self.store_mut().end_unit();
        self.settle_unit(unit);
        self.wake(&Reason::Formats);
    }

    /// A batch of this format, or a snapshot in which it was agreed on, is applied.
    pub(super) fn note_format(&mut self, format: u8) {
        if format > self.formats.agreed {
            marks::reached("newer format agreed on");
            self.formats.agreed = format;
            tracing::info!(
                shard = self.settings.shard,
                format,
                "the members have agreed on a newer format: builds that do not read it are of no use here any more"
            );
        }
    }
}
