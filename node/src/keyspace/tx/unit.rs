//! A unit: the effects of one transaction, what it saw, and how it is taken back.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use moonraft_proto::entry::Mark;

use super::Store;
use crate::keyspace::{Blob, Wish, watch::Heard};

/// Who hears a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All subscribers of the cluster: `PUBLISH`.
    Cluster,
    /// Those at replicas of the shard: `SPUBLISH`.
    Shard,
    /// Those at the replica where it happened: an event of a key.
    Replica,
}

/// A message that leaves when its unit commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The channel.
    pub channel: Bytes,
    /// The message.
    pub message: Bytes,
    /// Who hears it.
    pub audience: Audience,
}

impl Publication {
    /// Whether a client has published it: it is not told again, as what happens to a key would be.
    pub fn is_of_client(&self) -> bool {
        self.audience != Audience::Replica
    }
}

/// What a finished unit did and saw.
#[derive(Debug, Default)]
pub struct Unit {
    /// It emitted effects: its reply waits for the open batch.
    pub wrote: bool,
    /// The newest batch whose changes it saw; 0 if none.
    pub depends_on: u64,
    /// It showed the time.
    pub showed_time: bool,
    /// It found a key expired.
    pub found_expired: bool,
    /// Messages to send when it commits.
    pub publications: Vec<Publication>,
    /// What it read and changed, if somebody keeps copies, in this order.
    pub heard: Vec<Heard>,
    /// The number of the session for which it was executed; `None`: for nobody.
    pub client: Option<u64>,
}

/// A point in a unit to go back to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Savepoint {
    mark: Mark,
    undo_count: usize,
    publication_count: usize,
    heard_count: usize,
    copied_bytes: usize,
}

/// The moment at which a unit stands still.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    /// Unix microseconds: by it keys expire.
    pub now_us: u64,
    /// What the unit shows for the time.
    pub shown_us: u64,
    /// Whether expired keys may be removed: on a leader.
    pub leading: bool,
}

/// The unit that is open.
#[derive(Default)]
pub(super) struct OpenUnit {
    pub moment: Moment,
    client: Option<u64>,
    is_open: bool,
    /// Where it begins.
    begin: Savepoint,
    pub depends_on: Cell<u64>,
    pub showed_time: Cell<bool>,
    pub found_expired: Cell<bool>,
    pub publications: RefCell<Vec<Publication>>,
    /// Keys that the command has removed so far, if that matters to whether they are new later on: see [`super::events`].
    pub displaced: Vec<Blob>,
    /// Bytes of effects that the open batch had before.
    bytes_before: usize,
    /// Bytes that were added to memory and stand in no effect.
    pub copied_bytes: usize,
    /// What the request waits for that was executed last, if it found nothing.
    pub wish: RefCell<Option<Wish>>,
}

impl OpenUnit {
    /// Its reply waits for this batch.
    pub fn depend_on(&self, sequence: u64) {
        self.depends_on.set(self.depends_on.get().max(sequence));
    }
}

impl Store {
    /// Begins a unit at this time.
    pub fn begin_unit(&mut self, now_us: u64, leading: bool) {
        let (mark, undo_count) = (self.batch.mark(), self.open.undos.len());
        self.keyspace.uses.set_time(now_us);
        self.lookups.begin_unit();
        self.unit = OpenUnit {
            moment: Moment { now_us, shown_us: now_us, leading },
            is_open: true,
            begin: Savepoint { mark, undo_count, ..Savepoint::default() },
            bytes_before: self.batch.effect_bytes(),
            ..OpenUnit::default()
        };
    }

    /// The unit is executed for this session, by its number.
    pub const fn set_client(&mut self, number: u64) {
        self.unit.client = Some(number);
    }

    /// Its client has read a key, and may keep a copy.
    pub fn note_read(&mut self, key: &[u8]) {
        self.keyspace.watched.hear_read(key);
    }

    /// The unit shows another time than that by which keys expire.
    pub const fn show_time(&mut self, shown_us: u64) {
        self.unit.moment.shown_us = shown_us;
    }

    /// Ends the unit: its effects are part of the open batch.
    pub fn end_unit(&mut self) -> Unit {
        let wrote = self.unit_effects() > 0;
        self.unit.is_open = false;
        Unit {
            wrote,
            depends_on: if wrote { self.sequence } else { self.unit.depends_on.get() },
            showed_time: self.unit.showed_time.get(),
            found_expired: self.unit.found_expired.get(),
            publications: std::mem::take(self.unit.publications.get_mut()),
            heard: self.keyspace.watched.take_heard(0),
            client: self.unit.client,
        }
    }

    /// Takes back all that the unit did, and begins it anew at the same time.
    pub fn roll_back_unit(&mut self) {
        assert!(self.unit.is_open, "a unit that is rolled back has begun");
        self.roll_back_to(self.unit.begin);
    }

    /// A point in the unit to go back to.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            mark: self.batch.mark(),
            undo_count: self.open.undos.len(),
            publication_count: self.unit.publications.borrow().len(),
            heard_count: self.keyspace.watched.heard_len(),
            copied_bytes: self.unit.copied_bytes,
        }
    }

    /// Takes back all that the unit did since then.
    pub fn roll_back_to(&mut self, savepoint: Savepoint) {
        while self.open.undos.len() > savepoint.undo_count {
            let undo = self.open.undos.pop().expect("its length was compared");
            self.keyspace.undo(undo);
        }
        // A key that was changed stays marked: that costs a wait, no more.
        self.batch.rewind(savepoint.mark);
        drop(self.keyspace.watched.take_heard(savepoint.heard_count));
        self.unit.publications.get_mut().truncate(savepoint.publication_count);
        self.unit.copied_bytes = savepoint.copied_bytes;
    }

    /// For tests of the tests: what the unit did since then is done here, and stands in no batch.
    pub fn lose_effects(&mut self, savepoint: Savepoint) {
        self.batch.rewind(savepoint.mark);
    }

    /// Effects of the open unit so far.
    pub fn unit_effects(&self) -> usize {
        self.open.undos.len() - self.unit.begin.undo_count
    }

    /// Bytes of effects of the open unit so far.
    pub fn unit_bytes(&self) -> usize {
        self.batch.effect_bytes().saturating_sub(self.unit.bytes_before)
    }

    /// Bytes that the unit added to memory and that stand in none of its effects:
    /// values it copied, gaps it made in strings.
    pub const fn unit_copied_bytes(&self) -> usize {
        self.unit.copied_bytes
    }
}
