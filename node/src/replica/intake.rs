//! What a shard's thread takes of what it is told: in order, but what is of the log may have to wait, for the snapshot
//! before it to be installed or, on a follower, for the writer of one.
//!
//! A leader does not wait for the writer: it has executed what is committed, and its clients wait for the reply.
//!
//! INVARIANT: entries and snapshots of the log reach the shard in the order in which they were told, none between the begin
//! and the end of an installation.

use std::collections::VecDeque;

use super::{Message, Progress};
use crate::{
    marks,
    shard::{CommittedEntry, Event, Shard, Standing},
};

/// A snapshot that a shard is to install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Install {
    /// The last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
}

/// The way to one shard. See the module.
#[derive(Debug, Default)]
pub struct Intake {
    /// A snapshot is being installed: what comes after it in the log waits.
    is_installing: bool,
    /// Messages of the log that wait, oldest first; bounded by what consensus hands over at once.
    deferred: VecDeque<Message>,
    /// Bytes of entries handed over and not yet reported as applied, and the newest of their terms.
    handed: (u64, u64),
    begins_term: bool,
}

impl Intake {
    /// Takes messages, oldest first. If a snapshot is returned, its installation is to be begun
    /// ([`begin_install`](crate::shard::Core::begin_install)) and, once all its chunks are in, ended by [`Intake::end_install`].
    #[must_use]
    pub fn take(
        &mut self,
        shard: &mut Shard,
        messages: impl IntoIterator<Item = Message>,
    ) -> Option<Install> {
        let mut install = None;
        for message in messages {
            let is_of_log = matches!(message, Message::Install(_) | Message::Event(Event::Committed(_)));
            if is_of_log && (self.is_log_held(shard) || !self.deferred.is_empty()) {
                self.note_held(&message);
                self.deferred.push_back(message);
            } else {
                install = install.or(self.take_now(shard, message));
            }
        }
        install.or_else(|| self.take_deferred(shard))
    }

    /// All of a snapshot is in. What has waited for it is taken, up to the next one, if there is.
    #[must_use]
    pub fn end_install(&mut self, shard: &mut Shard) -> Option<Install> {
        marks::reached("snapshot installed");
        shard.end_install();
        self.begins_term = true;
        self.is_installing = false;
        self.take_deferred(shard)
    }

    /// The shard has applied its log up to `index`. Whether consensus is to be told at once.
    #[must_use]
    pub fn applied(&mut self, index: u64, progress: &Progress) -> bool {
        let bytes = std::mem::take(&mut self.handed.0);
        progress.applied(index, bytes, std::mem::take(&mut self.begins_term))
    }

    /// Whether a snapshot is being installed.
    pub fn is_installing(&self) -> bool {
        self.is_installing
    }

    /// The newest term of entries that were handed over.
    pub fn newest_term(&self) -> u64 {
        self.handed.1
    }

    fn is_log_held(&self, shard: &Shard) -> bool {
        self.is_installing || !shard.standing().is_leading() && shard.is_writer_behind()
    }

    fn note_held(&self, message: &Message) {
        if self.is_installing && matches!(message, Message::Install(_)) {
            marks::reached("snapshot superseded while it was installed");
        }
        marks::reached(match self.is_installing {
            true => "log waited for an install",
            false => "log waited for a writer",
        });
    }

    /// Takes what has waited for long enough. What comes before another snapshot need not be taken any more, and the
    /// file of an older one may be gone.
    fn take_deferred(&mut self, shard: &mut Shard) -> Option<Install> {
        let newest = self.deferred.iter().rposition(|message| matches!(message, Message::Install(_)));
        self.deferred.drain(..newest.unwrap_or(0));
        while !self.is_log_held(shard) {
            let message = self.deferred.pop_front()?;
            if let Some(install) = self.take_now(shard, message) {
                return Some(install);
            }
        }
        None
    }

    fn take_now(&mut self, shard: &mut Shard, message: Message) -> Option<Install> {
        match message {
            Message::Event(event) => {
                if let Event::Committed(entries) = &event {
                    self.note_committed(entries);
                }
                shard.handle(event);
            }
            // Said of a term that is over already, it says nothing of the present one.
            Message::Retire { term } => {
                if matches!(shard.standing(), Standing::Leading { term: own, .. } if own == term) {
                    shard.handle(Event::Follow { leader: None });
                }
            }
            Message::Install(install) => {
                self.is_installing = true;
                return Some(install);
            }
        }
        None
    }

    fn note_committed(&mut self, entries: &[CommittedEntry]) {
        let (bytes, term) = &mut self.handed;
        let newest = entries.last().map_or(0, |entry| entry.term);
        self.begins_term |= newest > *term;
        *bytes += entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
        *term = newest.max(*term);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        consensus::Settings,
        shard::{ShardSettings, tests::ShardHarness},
    };

    fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Message {
        let entry = |index| CommittedEntry { index, term, data: Bytes::new(), more: false };
        Event::Committed(indexes.map(entry).collect()).into()
    }

    fn install(index: u64) -> Message {
        Message::Install(Install { index, term: 1 })
    }

    fn follower() -> (ShardHarness, Intake) {
        (ShardHarness::following_with(ShardSettings::default()), Intake::default())
    }

    fn begin(shard: &mut Shard, wanted: Option<Install>) {
        let Install { index, term } = wanted.expect("a snapshot");
        shard.begin_install(index, term);
    }

    #[test]
    fn what_is_of_the_log_waits_for_the_snapshot_before_it_and_other_things_do_not() {
        let (mut harness, mut intake) = follower();
        let shard = &mut harness.shard;
        let wanted =
            intake.take(shard, [install(5), entries(6..=6, 1), Event::Follow { leader: Some(2) }.into()]);
        begin(shard, wanted);
        assert_eq!(shard.standing(), Standing::Following { leader: Some(2) });
        assert_eq!(intake.take(shard, [entries(7..=7, 1)]), None);
        assert_eq!(shard.applied().0, 0);
        assert_eq!(intake.end_install(shard), None);
        assert_eq!(shard.applied().0, 7);
    }

    #[test]
    fn of_what_waits_only_the_newest_snapshot_and_what_comes_after_it_is_taken() {
        let (mut harness, mut intake) = follower();
        let shard = &mut harness.shard;
        let wanted = intake.take(
            shard,
            [
                install(5),
                entries(6..=9, 1),
                install(20),
                entries(21..=21, 1),
                install(30),
                entries(31..=31, 1),
            ],
        );
        assert_eq!(wanted, Some(Install { index: 5, term: 1 }));
        begin(shard, wanted);
        let wanted = intake.end_install(shard);
        assert_eq!(wanted, Some(Install { index: 30, term: 1 }), "the files of those before may be gone");
        begin(shard, wanted);
        assert_eq!(intake.end_install(shard), None);
        assert_eq!(shard.applied().0, 31);
    }

    /// A proposal of a term that is over may be refused when the replica leads again.
    #[test]
    fn a_term_that_ends_is_not_a_later_one() {
        let (mut harness, mut intake) = follower();
        let shard = &mut harness.shard;
        let lead = || Message::Event(Event::Lead { term: 3 });
        assert_eq!(intake.take(shard, [lead(), entries(1..=1, 3), Message::Retire { term: 2 }]), None);
        assert_eq!(shard.standing(), Standing::Leading { term: 3, serving: true });
        assert_eq!(intake.take(shard, [Message::Retire { term: 3 }]), None);
        assert_eq!(shard.standing(), Standing::Following { leader: None });
        let follow = Message::Event(Event::Follow { leader: Some(2) });
        assert_eq!(intake.take(shard, [follow, Message::Retire { term: 3 }]), None);
        assert_eq!(shard.standing(), Standing::Following { leader: Some(2) }, "it knows who leads by now");
    }

    #[test]
    fn consensus_is_told_at_once_of_the_first_entry_of_a_term_and_of_an_installed_snapshot() {
        let (mut harness, mut intake) = follower();
        let shard = &mut harness.shard;
        let progress = Progress::new(0, &Settings::default());
        let _ = intake.take(shard, [entries(1..=1, 1)]);
        assert!(intake.applied(1, &progress));
        let _ = intake.take(shard, [entries(2..=2, 1)]);
        assert!(!intake.applied(2, &progress), "it looks when it is awake");
        let wanted = intake.take(shard, [install(5)]);
        begin(shard, wanted);
        let _ = intake.end_install(shard);
        assert!(intake.applied(5, &progress));
        assert_eq!((progress.index(), intake.newest_term()), (5, 1));
    }
}
