//! Clients that read what this replica has while another leads: consensus is told that there are some, so that they see
//! a write soon after it is acknowledged.

use super::{Core, Output, SessionId};

/// Readers of whom nothing was heard for so long are none, nanoseconds.
const READER_REST_NS: u64 = 60_000_000_000;

/// Whether there are readers.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// One was heard since the last tick.
    heard: bool,
    /// At which tick one was heard last, boot clock; `None`: consensus knows of none.
    last_ns: Option<u64>,
}

impl Core {
    /// A request of a session was executed here.
    pub(super) fn note_reader(&mut self, id: SessionId) {
        let reads = !self.standing.is_leading() && self.sessions.get(id).is_some_and(|it| it.read_only);
        if !reads {
            return;
        }
        self.readers.heard = true;
        if self.readers.last_ns.is_none() {
            self.readers.last_ns = Some(self.surroundings.boot_ns());
            self.outputs.push(Output::Readers(true));
        }
    }

    /// Notices that there have been none for a while.
    pub(super) fn tick_readers(&mut self) {
        let Some(last_ns) = self.readers.last_ns else { return };
        let now_ns = self.surroundings.boot_ns();
        if std::mem::take(&mut self.readers.heard) {
            self.readers.last_ns = Some(now_ns);
        } else if now_ns - last_ns > READER_REST_NS {
            self.readers.last_ns = None;
            self.outputs.push(Output::Readers(false));
        }
    }
}
