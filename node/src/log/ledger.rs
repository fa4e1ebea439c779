//! What the log must hold at the next start: the decision, and the books that lead to it.
//!
//! Files check out one by one (`inspect`), but a file that is gone, empty, or an older copy of itself checks out,
//! too. So a small file outside of the log's folder, the *ledger* (`ledger_file`), says for each file of the log
//!
//! * how **long** it is at least: room that was written ahead counts, and a file is never cut but by us;
//! * how much of it was **synced**, and a checksum of that: what is there must begin with it. It is that of the
//!   checksums that the writes have in the file: a CRC of bytes with their own CRC behind them is always the same.
//!
//! At a start every file that the ledger names must be there and be as it says; anything else that is there is no
//! loss. Both sides are compared here ([`Mark::loss`]); the simulator's disks use the same code.
//!
//! INVARIANT: a ledger that has ever been durable stays true until the next one is. So before a file is removed,
//! renamed or cut, the ledger that no longer asks for it is durable; a new file, more length and more synced bytes are
//! told to the ledger after they are durable. Hence a crash at any moment, and a ledger whose write it tore, leave
//! files that hold at least what the ledger asks for, and a healthy node starts.
//!
//! INVARIANT: nothing is acknowledged that lies in a file the ledger does not name, or beyond the length it names
//! ([`Book::lags`]). Room is written ahead in pieces of 2 MiB, and old files are used again at their full length, so
//! few writes have to wait for the ledger.
//!
//! What follows: a file that is gone, emptied or cut is noticed whatever the moment of the crash; a file of the same
//! length with older content (a copy that was put back) if it lacks what the ledger calls synced. That is told to the
//! ledger every second (`Log::keep_ledger`), at each change of the files and at a clean stop, since a second sync for
//! each write would cost as much as the write.
//!
//! Left out: a copy of everything, log and ledger, that is put back together. Nothing on this disk could tell.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use crc32fast::Hasher;

/// Of each kind the ledger names so many files, the newest: with those of usual size, 64 GB of log.
pub(super) const MARKS_MAX: usize = 1_000;

const HEADER: &str = "moonraft ledger, format 1";

/// The two sorts of files that the log is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// New entries are appended here.
    Append,
    /// What was still needed of old files is here.
    Rewrite,
}

impl Kind {
    pub(super) const ALL: [Kind; 2] = [Kind::Append, Kind::Rewrite];

    /// What the names of the files end with, after a dot.
    pub(super) const fn ending(self) -> &'static str {
        match self {
            Kind::Append => "raftlog",
            Kind::Rewrite => "rewrite",
        }
    }
}

/// A file of the log: its kind and its number, which grows by one from file to file.
pub(super) type Name = (Kind, u64);

/// What the ledger says of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes it has at least.
    pub(super) length: u64,
    /// Bytes of whole writes that were synced, from its begin.
    pub(super) synced: u64,
    /// CRC-32 of the checksums of these writes.
    pub(super) checksum: u32,
}

/// What is there of a file at a start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Its bytes.
    pub(super) length: u64,
    /// Where its last whole write ends.
    pub(super) whole: u64,
    /// CRC-32 of the checksums of those writes that the ledger calls synced; `None`: none ends there.
    pub(super) checksum: Option<u32>,
}

/// What a file lacks that it once had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// There is no such file.
    #[error("is missing")]
    Missing,
    /// Somebody cut it.
    #[error("has {length} bytes, but had {wanted}")]
    Shorter {
        /// What it has.
        length: u64,
        /// What it had.
        wanted: u64,
    },
    /// Its length is right, its end is not there.
    #[error("holds writes up to byte {whole}, but {synced} were on the disk")]
    Older {
        /// What is there.
        whole: u64,
        /// What was there.
        synced: u64,
    },
    /// It checks out, but other bytes were written.
    #[error("holds other writes than were written to it")]
    Other,
}

impl Mark {
    /// What a file has lost, of which this is said and that is there.
    pub(super) fn loss(&self, found: Option<Found>) -> Option<Loss> {
        let Mark { length: wanted, synced, checksum } = *self;
        match found {
            None => Some(Loss::Missing),
            Some(Found { length, .. }) if length < wanted => Some(Loss::Shorter { length, wanted }),
            Some(Found { whole, .. }) if whole < synced => Some(Loss::Older { whole, synced }),
            Some(found) => (found.checksum != Some(checksum)).then_some(Loss::Other),
        }
    }
}

/// The files of one kind: consecutive numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Queue {
    /// The number of the first; of no meaning if there is none.
    first: u64,
    marks: VecDeque<Mark>,
}

/// What ought to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    append: Queue,
    rewrite: Queue,
}

impl Ledger {
    fn queue(&self, kind: Kind) -> &Queue {
        match kind {
            Kind::Append => &self.append,
            Kind::Rewrite => &self.rewrite,
        }
    }

    fn queue_mut(&mut self, kind: Kind) -> &mut Queue {
        match kind {
            Kind::Append => &mut self.append,
            Kind::Rewrite => &mut self.rewrite,
        }
    }

    /// What it says of a file, if it names it.
    pub(super) fn mark(&self, (kind, number): Name) -> Option<&Mark> {
        let queue = self.queue(kind);
        queue.marks.get(usize::try_from(number.checked_sub(queue.first)?).ok()?)
    }

    /// All that it names, oldest first.
    pub(super) fn marks(&self) -> impl Iterator<Item = (Name, &Mark)> {
        Kind::ALL.into_iter().flat_map(|kind| {
            let queue = self.queue(kind);
            (queue.first..).zip(&queue.marks).map(move |(number, mark)| ((kind, number), mark))
        })
    }

    /// A file is named from now on, or more is said of it. It comes after the others, or is one of them.
    pub(super) fn set(&mut self, (kind, number): Name, mark: Mark) {
        let queue = self.queue_mut(kind);
        if queue.marks.is_empty() || number < queue.first || number - queue.first > queue.marks.len() as u64 {
            *queue = Queue { first: number, marks: VecDeque::new() };
        }
        let place = (number - queue.first) as usize;
        if place == queue.marks.len() {
            queue.marks.push_back(mark)
        } else {
            queue.marks[place] = mark
        }
        if queue.marks.len() > MARKS_MAX {
            queue.marks.pop_front();
            queue.first += 1;
        }
    }

    /// A file and all that are older are named no longer. Whether they were.
    pub(super) fn drop_through(&mut self, (kind, number): Name) -> bool {
        let queue = self.queue_mut(kind);
        let gone = (number + 1).saturating_sub(queue.first).min(queue.marks.len() as u64);
        queue.marks.drain(..gone as usize);
        queue.first += gone;
        gone > 0
    }

    /// As text; the other way is [`Ledger::parse`].
    pub(super) fn render(&self, generation: u64) -> String {
        let mut text = format!("{HEADER}\ngeneration {generation}\n");
        for kind in Kind::ALL {
            let queue = self.queue(kind);
            let _ = write!(text, "{} {}", kind.ending(), queue.first); // into a string
            for Mark { length, synced, checksum } in &queue.marks {
                let _ = write!(text, " {length}:{synced}:{checksum:08x}");
            }
            text.push('\n');
        }
        let checksum = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "checksum {checksum:08x}");
        text
    }

    /// A ledger and its generation, from the begin of `text`; `None` if it is not whole.
    pub(super) fn parse(text: &str) -> Option<(u64, Ledger)> {
        let mut lines = text.lines().skip(1);
        let generation = lines.next()?.strip_prefix("generation ")?.parse().ok()?;
        let mut queue = |kind: Kind| {
            let mut words = lines.next()?.strip_prefix(kind.ending())?.split_whitespace();
            let first = words.next()?.parse().ok()?;
            Some(Queue { first, marks: words.map(parse_mark).collect::<Option<_>>()? })
        };
        let ledger = Ledger { append: queue(Kind::Append)?, rewrite: queue(Kind::Rewrite)? };
        text.starts_with(&ledger.render(generation)).then_some((generation, ledger))
    }
}

fn parse_mark(word: &str) -> Option<Mark> {
    let mut numbers = word.split(':');
    Some(Mark {
        length: numbers.next()?.parse().ok()?,
        synced: numbers.next()?.parse().ok()?,
        checksum: u32::from_str_radix(numbers.next()?, 16).ok()?,
    })
}

/// A file that is written.
#[derive(Clone, Debug, Default)]
struct Writing {
    /// Its bytes, room that was written ahead included.
    length: u64,
    /// Bytes of writes.
    written: u64,
    hash: Hasher,
}

/// What is on the disk, as far as it is known, and what the ledger says of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// What may be told to the ledger: it is durable.
    current: Ledger,
    /// What the ledger says.
    durable: Ledger,
    writing: BTreeMap<Name, Writing>,
    lags: bool,
}

impl Book {
    /// The book of files that are there, of which this much is durable.
    pub(super) fn new(current: Ledger) -> Book {
        let resume = |(name, mark): (Name, &Mark)| {
            let hash = Hasher::new_with_initial_len(mark.checksum, mark.synced);
            (name, Writing { length: mark.length, written: mark.synced, hash })
        };
        let writing = current.marks().map(resume).collect();
        Book { current, durable: Ledger::default(), writing, lags: false }
    }

    /// A file is there, of this length; if it is not known yet, nothing of worth is in it.
    pub(super) fn begin(&mut self, name: Name, length: u64) {
        self.writing.entry(name).or_insert_with(|| Writing { length, ..Writing::default() });
    }

    /// So many bytes, with these checksums in them, were written at the end of what was written.
    pub(super) fn wrote(&mut self, name: Name, bytes: u64, checksums: [&[u8]; 2]) {
        if let Some(file) = self.writing.get_mut(&name) {
            checksums.iter().for_each(|bytes| file.hash.update(bytes));
            file.written += bytes;
            file.length = file.length.max(file.written);
        }
    }

    /// The next write is at `position`. Whether the book can go on from there: at the end, or from the begin.
    pub(super) fn seek(&mut self, name: Name, position: u64) -> bool {
        let Some(file) = self.writing.get_mut(&name) else { return true };
        if position == 0 {
            (file.written, file.hash) = (0, Hasher::new());
        }
        position == file.written
    }

    /// Room was written ahead up to here.
    pub(super) fn grown(&mut self, name: Name, length: u64) {
        if let Some(file) = self.writing.get_mut(&name) {
            file.length = file.length.max(length);
        }
    }

    /// All that was written to a file is on the disk.
    pub(super) fn synced(&mut self, name: Name) {
        let Some(file) = self.writing.get(&name) else { return };
        let (length, synced, checksum) = (file.length, file.written, file.hash.clone().finalize());
        self.current.set(name, Mark { length, synced, checksum });
        self.lags |= self.durable.mark(name).is_none_or(|mark| mark.length < synced);
    }

    /// A file is to be cut to this length. Whether the ledger must be written before.
    pub(super) fn shorten(&mut self, name: Name, length: u64) -> bool {
        if let Some(file) = self.writing.get_mut(&name) {
            file.length = length;
        }
        if let Some(mark) = self.current.mark(name).copied() {
            assert!(mark.synced <= length, "what was synced is not cut");
            self.current.set(name, Mark { length: mark.length.min(length), ..mark });
        }
        self.durable.mark(name).is_some_and(|mark| mark.length > length)
    }

    /// A file is to be removed, and all that are older are needed no longer. Whether the ledger must be written before.
    pub(super) fn drop_through(&mut self, name: Name) -> bool {
        self.writing.retain(|&other, _| other.0 != name.0 || other.1 > name.1);
        self.current.drop_through(name);
        self.durable.marks().any(|(other, _)| other.0 == name.0 && other.1 <= name.1)
    }

    /// Whether something was synced that must not be acknowledged before the ledger is written.
    pub(super) fn lags(&self) -> bool {
        self.lags
    }

    /// What the ledger has to say, if it says something else.
    pub(super) fn news(&self) -> Option<&Ledger> {
        (self.current != self.durable).then_some(&self.current)
    }

    /// The ledger says it.
    pub(super) fn told(&mut self) {
        self.durable.clone_from(&self.current);
        self.lags = false;
    }
}
