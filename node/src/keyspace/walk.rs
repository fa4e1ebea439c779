//! Writing the state of one moment out while it changes: a snapshot without fork.
//!
//! A walk goes slot by slot, a few entries a step. An entry that is about to change and has not been
//! written yet is written first, as it was: all changes pass [`Keyspace::apply`] and [`Keyspace::undo`],
//! and those ask [`Keyspace::preserve`]. So what a walk writes is the state at its beginning, each key
//! once, in no order that means anything; it is cut into chunks, each a batch of effects, which build that
//! state from nothing when they are applied in order.
//!
//! The unit of copying is the key rather than the slot: with slots, a load of random writes would touch
//! them all at once and have the whole data set copied in a moment.
//!
//! * An entry carries the number of the walk that has nothing (more) to write of it: it was written, or came
//!   later. In a slot that the walk is done with, and between walks, the number means nothing. So a walk
//!   that is given up leaves nothing to clean.
//! * A slot that is cleared is set aside whole, shared with the undo, and walked there.
//! * A large value is written in slices. Who is about to change one asks first ([`Keyspace::prepare_change`]):
//!   what can be written at once is; the rest is awaited, and its slices come before all else, the values in
//!   turn. Who did not ask, or could not, has it written to its end at once, however large it is.
//! * A slot is walked by the places of its table. Places are good until the bucket that the walk is in is
//!   rearranged: then the walk of this bucket begins again, and what it wrote is known by its number.
//!
//! INVARIANTS:
//! * As long as a slot is in `remaining`, each key that was in it when the walk began is in its table as it
//!   was then and without the walk's number, or is there as it was and is being sliced, or has been written.
//! * A slot is remaining as long as something in it is being sliced.
//! * What is written never depends on who asked before changing.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use hashbrown::HashMap;
use moonraft_proto::{
    Effect,
    entry::{BatchWriter, Head},
};
use moonraft_router::{SLOT_COUNT, slot_of};

use super::{
    Blob, Entry, Keyspace, Seed, SlotSet, SlotTable,
    dump::{Place, dump_slice},
    linear::PLACE_END,
};

/// A chunk is closed when it has so many bytes: it is what travels to the writer, is checked when it is
/// read, and is applied in one go when it is installed (about a millisecond).
const CHUNK_BYTES: usize = 128 << 10;

/// What a key costs a step beside its bytes: a few misses of the processor's cache.
const ENTRY_COST: usize = 64;

/// What passing to the next bucket costs a step.
const LOOK_COST: usize = 8;

/// Places of a table that are looked at before the cost is counted.
const PLACES_AT_ONCE: usize = 256;

/// A large value is not cut smaller than this, however little a step may write.
const SLICE_BYTES_MIN: usize = 4 << 10;

/// A walk under way.
pub struct Walk {
    /// Its number, as entries carry it.
    number: u32,
    /// The stamp of the state it writes.
    stamp_ms: u64,
    /// The format that was agreed on in that state.
    format: u8,
    /// Slots whose tables may hold what is to be written.
    remaining: SlotSet,
    /// Tables that were cleared before the walk reached them.
    aside: Vec<Arc<SlotTable>>,
    /// What is walked now.
    current: Option<Source>,
    /// The place in its table to go on from.
    place: usize,
    /// A value that the walk has come to, and of which a part is written.
    slicing: Option<Slicing>,
    /// Values that somebody waits to change.
    awaited: HashMap<Blob, Slicing, Seed>,
    /// Their keys in the order of their turns, and some that are written by now.
    turns: VecDeque<Blob>,
    /// Those that were awaited and have been written: see [`Keyspace::take_ready`].
    ready: Ready,
    /// Bytes that may still be written at once: see [`Keyspace::allow_at_once`].
    at_once: usize,
    writer: BatchWriter,
    chunks: Vec<Bytes>,
}

/// Where entries are.
#[derive(Clone)]
enum Source {
    /// In the keyspace.
    Slot(u16),
    /// In a table that was cleared.
    Aside(Arc<SlotTable>),
}

/// What may change now that was awaited.
#[derive(Debug, PartialEq, Eq)]
pub enum Ready {
    /// What these keys hold.
    Keys(Vec<Blob>),
    /// Whatever was awaited.
    All,
}

impl Default for Ready {
    fn default() -> Self {
        Self::Keys(Vec::new())
    }
}

impl Ready {
    fn add(&mut self, key: Blob) {
        if let Self::Keys(keys) = self {
            keys.push(key);
        }
    }
}

/// A value that is being written in slices.
struct Slicing {
    key: Blob,
    source: Source,
    /// Where the next slice begins.
    place: Place,
    /// Somebody waits to change it.
    awaited: bool,
}

impl Slicing {
    /// Whether it is what this key holds now, rather than what it held before its slot was cleared.
    fn is_of(&self, key: &[u8]) -> bool {
        matches!(self.source, Source::Slot(_)) && *self.key == *key
    }
}

impl Walk {
    fn push(&mut self, effect: &Effect<'_>) {
        self.writer.push(effect);
        if self.writer.effect_bytes() >= CHUNK_BYTES {
            self.close_chunk();
        }
    }

    fn close_chunk(&mut self) {
        if !self.writer.is_empty() {
            self.seal_chunk();
        }
    }

    fn seal_chunk(&mut self) {
        let head = Head { stamp_ms: self.stamp_ms, sequence: 0 };
        self.chunks.push(self.writer.seal(head, self.format));
    }

    /// Writes a slice of an entry. Returns where the next begins.
    fn write(&mut self, entry: &Entry, place: Place, bytes_max: usize) -> Option<Place> {
        dump_slice(&entry.key, &entry.object, place, bytes_max, &mut |effect| self.push(effect))
    }

    /// Writes as much of an entry as may be written at once. Returns where the rest begins.
    fn write_at_once(&mut self, entry: &Entry) -> Option<Place> {
        if self.at_once == 0 {
            return Some(Place::default());
        }
        let before = self.bytes();
        let next = self.write(entry, Place::default(), self.at_once);
        let cost = ENTRY_COST + self.bytes().saturating_sub(before);
        self.at_once = self.at_once.saturating_sub(cost);
        next
    }

    /// The value whose next slice is due: what is awaited comes first.
    fn take_due(&mut self) -> Option<Slicing> {
        while let Some(key) = self.turns.pop_front() {
            if let Some(slicing) = self.awaited.remove(&key) {
                return Some(slicing);
            }
        }
        self.slicing.take()
    }

    /// Takes what is being sliced of this key.
    fn take_slicing(&mut self, key: &[u8]) -> Option<Slicing> {
        let own = self.slicing.take_if(|slicing| slicing.is_of(key));
        own.or_else(|| self.is_awaited(key).then(|| self.awaited.remove(key)).flatten())
    }

    /// A slice of a value has been written; the next begins at `next`.
    fn put_back(&mut self, slicing: Slicing, next: Option<Place>) {
        match next {
            None if slicing.awaited => self.ready.add(slicing.key),
            None => {}
            Some(place) if slicing.awaited => self.wait_for(Slicing { place, ..slicing }),
            Some(place) => self.slicing = Some(Slicing { place, ..slicing }),
        }
    }

    /// Somebody waits to change this value.
    fn wait_for(&mut self, slicing: Slicing) {
        self.turns.push_back(slicing.key.clone());
        self.awaited.insert(slicing.key.clone(), Slicing { awaited: true, ..slicing });
    }

    /// Whether somebody waits to change what this key holds.
    fn is_awaited(&self, key: &[u8]) -> bool {
        !self.awaited.is_empty() && self.awaited.get(key).is_some_and(|slicing| slicing.is_of(key))
    }

    /// Bytes written and not yet taken.
    fn bytes(&self) -> usize {
        self.writer.effect_bytes() + self.chunks.iter().map(Bytes::len).sum::<usize>()
    }

    /// What is walked now, or next; `None`: nothing is left.
    fn take_source(&mut self) -> Option<Source> {
        if let Some(current) = self.current.take() {
            return Some(current);
        }
        self.place = 0;
        match self.remaining.first() {
            Some(slot) => Some(Source::Slot(slot)),
            None => self.aside.pop().map(Source::Aside),
        }
    }

    /// Looks for an entry from `place` on and writes it, or a first slice of it. Returns the place where it
    /// was, if it was found.
    fn look(&mut self, source: &Source, table: &SlotTable, bytes_max: usize) -> Option<usize> {
        let (found, next) = table.look(self.place, PLACES_AT_ONCE);
        self.place = next;
        let (at, entry) = found?;
        if entry.walked != self.number {
            let next = self.write(entry, Place::default(), bytes_max);
            let (key, source) = (entry.key.clone(), source.clone());
            self.slicing = next.map(|place| Slicing { key, source, place, awaited: false });
        }
        Some(at)
    }
}

impl Keyspace {
    /// Begins to write the present state, which is that of the log up to `stamp_ms`.
    pub fn begin_walk(&mut self, stamp_ms: u64) {
        assert!(self.walk.is_none(), "one walk at a time");
        self.walks = self.walks.checked_add(1).expect("a process does not live for so many snapshots");
        let mut remaining = SlotSet::default();
        (0..SLOT_COUNT).filter(|&slot| self.slot_len(slot) > 0).for_each(|slot| remaining.insert(slot));
        let mut walk = Walk {
            number: self.walks,
            stamp_ms,
            format: self.format,
            remaining,
            aside: Vec::new(),
            current: None,
            place: 0,
            slicing: None,
            awaited: HashMap::default(),
            turns: VecDeque::new(),
            ready: Ready::All, // whoever waited for the walk before need not any more
            at_once: 0,
            writer: BatchWriter::default(),
            chunks: Vec::new(),
        };
        self.dump_shared(&mut |effect| walk.push(effect));
        // Even a state without anything is a chunk: it carries the stamp.
        walk.seal_chunk();
        self.walk = Some(Box::new(walk));
    }

    /// Ends the walk; what it wrote is of no use.
    pub fn give_up_walk(&mut self) {
        self.walk = None;
    }

    /// Whether a walk is under way.
    pub const fn is_walking(&self) -> bool {
        self.walk.is_some()
    }

    /// Goes on with the walk until it has written or looked at about `cost` bytes, or has no more time: that is
    /// asked after each entry. Returns whether it is at its end.
    pub fn walk(&mut self, cost: usize, has_time: impl Fn() -> bool) -> bool {
        let Some(mut walk) = self.walk.take() else { return true };
        let mut left = cost;
        let mut ended = false;
        while left > 0 && !ended {
            let before = walk.bytes();
            let looked = self.walk_on(&mut walk, left);
            ended = looked.is_none();
            left = left.saturating_sub(looked.unwrap_or(0) + walk.bytes() - before);
            if !has_time() {
                break;
            }
        }
        if ended {
            walk.close_chunk();
        }
        self.walk = Some(walk);
        ended
    }

    /// Writes the next slice or entry, or passes to the next table. Returns the cost of what was looked at;
    /// `None` at the end.
    fn walk_on(&mut self, walk: &mut Walk, bytes_max: usize) -> Option<usize> {
        let bytes_max = bytes_max.max(SLICE_BYTES_MIN);
        if let Some(slicing) = walk.take_due() {
            let table = self.table_of(&slicing.source);
            let entry = table.find(self.hash(&slicing.key), |entry| entry.key == slicing.key);
            let entry = entry.expect("a value that is to go is finished before");
            let next = walk.write(entry, slicing.place, bytes_max);
            walk.put_back(slicing, next);
            return Some(ENTRY_COST);
        }
        let source = walk.take_source()?;
        let table = self.table_of(&source);
        let found = walk.look(&source, table, bytes_max);
        let ended = walk.place == PLACE_END;
        match source {
            Source::Slot(slot) if ended => walk.remaining.remove(slot),
            _ if ended => {}
            source => {
                if let (Source::Slot(slot), Some(at)) = (&source, found) {
                    let entry = self.tables[usize::from(*slot)].at_mut(at);
                    entry.expect("it was looked at just now").walked = walk.number;
                }
                walk.current = Some(source);
            }
        }
        Some(if found.is_some() { ENTRY_COST } else { LOOK_COST })
    }

    fn table_of<'a>(&'a self, source: &'a Source) -> &'a SlotTable {
        match source {
            Source::Slot(slot) => &self.tables[usize::from(*slot)],
            Source::Aside(table) => table,
        }
    }

    /// What is written and full, to be taken to where the snapshot is kept.
    pub fn take_chunks(&mut self) -> Vec<Bytes> {
        self.walk.as_mut().map_or(Vec::new(), |walk| std::mem::take(&mut walk.chunks))
    }

    /// From here on so many bytes may be written at once for those who are about to change something.
    pub fn allow_at_once(&mut self, bytes: usize) {
        if let Some(walk) = &mut self.walk {
            walk.at_once = bytes;
        }
    }

    /// Somebody is about to change what a key holds: a walk that has not written it does so, as far as it may
    /// at once. Returns whether that was all of it. If not, what is left is awaited from now on, and whoever
    /// asked had better wait until it is written ([`Keyspace::take_ready`]).
    pub fn prepare_change(&mut self, key: &[u8]) -> bool {
        if self.walk.is_none() {
            return true;
        }
        let (hash, slot) = (self.hash(key), slot_of(key));
        let Some(walk) = &mut self.walk else { return true };
        if !walk.remaining.contains(slot) {
            return true;
        }
        if let Some(slicing) = walk.slicing.take_if(|slicing| slicing.is_of(key)) {
            walk.wait_for(slicing);
        }
        let table = &mut self.tables[usize::from(slot)];
        let Some(entry) = table.find_mut(hash, |entry| *entry.key == *key) else { return true };
        if entry.walked == walk.number {
            return !walk.is_awaited(key);
        }
        entry.walked = walk.number;
        let Some(place) = walk.write_at_once(entry) else { return true };
        let key = entry.key.clone();
        walk.wait_for(Slicing { key, source: Source::Slot(slot), place, awaited: true });
        false
    }

    /// Whether somebody waits for the walk.
    pub fn is_awaited(&self) -> bool {
        self.walk.as_ref().is_some_and(|walk| !walk.awaited.is_empty())
    }

    /// What was awaited and may change now that could not when this was asked last.
    pub fn take_ready(&mut self) -> Ready {
        self.walk.as_mut().map_or(Ready::All, |walk| std::mem::take(&mut walk.ready))
    }

    /// A key is changing: a walk that has not written it does so. Returns what the entry is to carry.
    pub(super) fn preserve(&mut self, hash: u64, slot: u16, key: &[u8]) -> u32 {
        let Some(walk) = &mut self.walk else { return 0 };
        if !walk.remaining.contains(slot) {
            return 0;
        }
        let table = &self.tables[usize::from(slot)];
        let is_current = matches!(walk.current, Some(Source::Slot(current)) if current == slot);
        if is_current {
            walk.place = table.keep_place(walk.place, hash);
        }
        let Some(entry) = table.find(hash, |entry| *entry.key == *key) else { return walk.number };
        if entry.walked != walk.number {
            walk.write(entry, Place::default(), usize::MAX);
        } else if let Some(slicing) = walk.take_slicing(key) {
            let next = walk.write(entry, slicing.place, usize::MAX);
            walk.put_back(slicing, next);
        }
        walk.number
    }

    /// A slot gets its keys of before the walk back. What it had when the walk began has been taken back since,
    /// and written before.
    pub(super) fn pass_slot(&mut self, slot: u16) {
        let Some(walk) = &mut self.walk else { return };
        walk.remaining.remove(slot);
        if matches!(walk.current, Some(Source::Slot(current)) if current == slot) {
            walk.current = None;
        }
    }

    /// A slot is cleared whose keys were in `table`.
    pub(super) fn set_aside(&mut self, slot: u16, table: &Arc<SlotTable>) {
        let Some(walk) = &mut self.walk else { return };
        if !walk.remaining.contains(slot) {
            return;
        }
        walk.remaining.remove(slot);
        for slicing in walk.slicing.iter_mut().chain(walk.awaited.values_mut()) {
            if matches!(slicing.source, Source::Slot(own) if own == slot) {
                slicing.source = Source::Aside(Arc::clone(table));
            }
        }
        match &mut walk.current {
            Some(Source::Slot(current)) if *current == slot => {
                walk.current = Some(Source::Aside(Arc::clone(table)));
            }
            _ => walk.aside.push(Arc::clone(table)),
        }
    }
}
