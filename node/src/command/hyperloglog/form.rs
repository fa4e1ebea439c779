//! A counter as bytes.
//!
//! ```text
//! "HYLL"  form  three bytes  estimate, 8 bytes, the lowest first  registers
//! ```
//!
//! The estimate is none if the highest bit of its last byte is set. There are 16384 registers, each with the highest
//! rank that an element of it had, or 0. In the **dense** form each has six bits, the lowest first. In the **sparse**
//! form registers stand in runs of equal ones:
//!
//! | bytes               | run                                          |
//! | ------------------- | -------------------------------------------- |
//! | `00llllll`          | `l + 1` registers that are 0                 |
//! | `01llllll llllllll` | the same, the high bits of `l` first         |
//! | `1vvvvvll`          | `l + 1` registers of rank `v + 1`            |
//!
//! A sparse counter becomes dense when it would grow beyond `hll-sparse-max-bytes`, or when a rank does not fit.
//! Which runs there are, where more than one way would do, is as in Redis: so the bytes are equal.
//!
//! INVARIANT: a client can write anything with `SET`; no bytes make anything here panic, or run for longer than the
//! bytes are many.
//!
//! Source: the head of `hyperloglog.c` of Redis 7.0.

use std::{borrow::Cow, fmt::Write as _, ops::Range};

/// Registers of a counter.
pub const REGISTERS: usize = 1 << 14;

/// How many registers have which rank.
pub type Histogram = [u32; 64];

/// Where the estimate stands.
pub const ESTIMATE: Range<usize> = 8..16;

const MAGIC: &[u8] = b"HYLL";
/// Where the form is told.
const FORM: usize = 4;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const HEAD_BYTES: usize = 16;
const RANK_BITS: usize = 6;
const DENSE_BYTES: usize = HEAD_BYTES + REGISTERS * RANK_BITS / 8;
/// Set in the last byte of an estimate that is none.
const NO_ESTIMATE: u8 = 0x80;

/// The registers of a counter are not those of any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupted;

/// A counter of nothing.
pub fn empty() -> Vec<u8> {
    let mut counter = [MAGIC, &[SPARSE], &[0; 11]].concat();
    put_run(&mut counter, 0, REGISTERS);
    counter
}

/// Whether a string looks like a counter.
pub fn is_one(string: &[u8]) -> bool {
    /// A register of its own for each run, which takes two bytes at most.
    const SPARSE_BYTES_MAX: usize = HEAD_BYTES + 2 * REGISTERS;
    let begins = string.len() >= HEAD_BYTES && string.starts_with(MAGIC);
    let is_sparse = || string[FORM] == SPARSE && string.len() <= SPARSE_BYTES_MAX;
    begins && (is_sparse() || string[FORM] == DENSE && string.len() == DENSE_BYTES)
}

/// Whether a counter is in the dense form.
pub fn is_dense(counter: &[u8]) -> bool {
    counter[FORM] == DENSE
}

/// The estimate that a counter carries.
pub fn estimate(counter: &[u8]) -> Option<u64> {
    let bytes: [u8; 8] = counter[ESTIMATE].try_into().expect("eight bytes");
    (bytes[7] & NO_ESTIMATE == 0).then_some(u64::from_le_bytes(bytes))
}

/// The estimate does not hold any more.
pub fn forget_estimate(counter: &mut [u8]) {
    counter[ESTIMATE.end - 1] |= NO_ESTIMATE;
}

/// Equal registers in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// Where its bytes are.
    at: usize,
    /// How many.
    bytes: usize,
    rank: u8,
    length: usize,
}

/// Ranks and lengths that a run of one byte can have, and a longer run of zeros.
const RUN_RANK_MAX: u8 = 32;
const RUN_LENGTH_MAX: usize = 4;
const ZEROS_SHORT_MAX: usize = 64;

fn span_at(counter: &[u8], at: usize) -> Span {
    let byte = counter[at];
    let low = usize::from(byte & 0x3f);
    match byte >> 6 {
        0 => Span { at, bytes: 1, rank: 0, length: low + 1 },
        1 => {
            let second = counter.get(at + 1).copied().unwrap_or(0);
            Span { at, bytes: 2, rank: 0, length: (low << 8 | usize::from(second)) + 1 }
        }
        _ => Span { at, bytes: 1, rank: (byte >> 2 & 0x1f) + 1, length: usize::from(byte & 3) + 1 },
    }
}

/// The runs of a sparse counter.
fn spans(counter: &[u8]) -> impl Iterator<Item = Span> {
    let mut at = HEAD_BYTES;
    std::iter::from_fn(move || {
        let span = (at < counter.len()).then(|| span_at(counter, at))?;
        at += span.bytes;
        Some(span)
    })
}

/// Appends the run of so many registers of this rank, which fit in one.
fn put_run(out: &mut Vec<u8>, rank: u8, length: usize) {
    let length = length - 1;
    match rank {
        0 if length < ZEROS_SHORT_MAX => out.push(length as u8),
        0 => out.extend([0x40 | (length >> 8) as u8, length as u8]),
        _ => out.push(run(rank, length + 1)),
    }
}

const fn run(rank: u8, length: usize) -> u8 {
    0x80 | (rank - 1) << 2 | (length - 1) as u8
}

/// The runs of a sparse counter, for people.
pub fn runs_told(counter: &[u8]) -> String {
    let mut told = String::new();
    for Span { rank, length, bytes, .. } in spans(counter) {
        let told_one = match (rank, bytes) {
            (0, 1) => write!(told, "z:{length} "),
            (0, _) => write!(told, "Z:{length} "),
            _ => write!(told, "v:{rank},{length} "),
        };
        told_one.expect("a string takes all");
    }
    told.trim_end().to_owned()
}

/// The rank of a register of a dense counter.
fn dense_rank(counter: &[u8], register: usize) -> u8 {
    let bit = register * RANK_BITS;
    let at = HEAD_BYTES + bit / 8;
    let two = u16::from_le_bytes([counter[at], counter.get(at + 1).copied().unwrap_or(0)]);
    (two >> (bit % 8)) as u8 & 0x3f
}

fn set_dense_rank(counter: &mut [u8], register: usize, rank: u8) {
    let bit = register * RANK_BITS;
    let at = HEAD_BYTES + bit / 8;
    let (mask, rank) = (0x3f_u16 << (bit % 8), u16::from(rank) << (bit % 8));
    let [low_mask, high_mask] = mask.to_le_bytes();
    let [low, high] = rank.to_le_bytes();
    counter[at] = counter[at] & !low_mask | low;
    if let Some(byte) = counter.get_mut(at + 1) {
        *byte = *byte & !high_mask | high;
    }
}

/// The dense form of a sparse counter.
///
/// # Errors
/// Its runs are not of so many registers as there are.
pub fn dense(counter: &[u8]) -> Result<Vec<u8>, Corrupted> {
    let mut dense = counter[..HEAD_BYTES].to_vec();
    dense[FORM] = DENSE;
    dense.resize(DENSE_BYTES, 0);
    let mut register = 0;
    for span in spans(counter) {
        let next = register + span.length;
        if next > REGISTERS {
            return Err(Corrupted);
        }
        if span.rank > 0 {
            (register..next).for_each(|register| set_dense_rank(&mut dense, register, span.rank));
        }
        register = next;
    }
    if register == REGISTERS { Ok(dense) } else { Err(Corrupted) }
}

/// How many registers of a counter have which rank.
///
/// # Errors
/// As [`dense`].
pub fn histogram(counter: &[u8]) -> Result<Histogram, Corrupted> {
    let mut histogram = [0; 64];
    if is_dense(counter) {
        (0..REGISTERS).for_each(|register| histogram[usize::from(dense_rank(counter, register))] += 1);
        return Ok(histogram);
    }
    let mut registers = 0;
    for span in spans(counter) {
        registers += span.length;
        if registers > REGISTERS {
            return Err(Corrupted);
        }
        histogram[usize::from(span.rank)] += span.length as u32;
    }
    if registers == REGISTERS { Ok(histogram) } else { Err(Corrupted) }
}

/// The registers of several counters, the highest rank of each.
pub struct Ranks(Box<[u8; REGISTERS]>);

impl Default for Ranks {
    fn default() -> Self {
        Self(Box::new([0; REGISTERS]))
    }
}

impl Ranks {
    /// Adds a counter's.
    ///
    /// # Errors
    /// As [`dense`].
    pub fn merge(&mut self, counter: &[u8]) -> Result<(), Corrupted> {
        if is_dense(counter) {
            for (register, known) in self.0.iter_mut().enumerate() {
                *known = dense_rank(counter, register).max(*known);
            }
            return Ok(());
        }
        let mut register = 0;
        for span in spans(counter) {
            let next = register + span.length;
            let known = self.0.get_mut(register..next).ok_or(Corrupted)?;
            known.iter_mut().for_each(|known| *known = span.rank.max(*known));
            register = next;
        }
        if register == REGISTERS { Ok(()) } else { Err(Corrupted) }
    }

    /// All ranks.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        self.0.iter().copied()
    }

    /// Registers that are not 0, with their ranks.
    pub fn raised(&self) -> impl Iterator<Item = (usize, u8)> {
        self.iter().enumerate().filter(|(_, rank)| *rank > 0)
    }

    /// How many have which rank.
    pub fn histogram(&self) -> Histogram {
        let mut histogram = [0; 64];
        self.iter().for_each(|rank| histogram[usize::from(rank)] += 1);
        histogram
    }
}

/// Gives a register at least this rank. Returns whether it had less.
///
/// # Errors
/// The runs of a sparse counter end before the register, or are too many for the dense form.
pub fn raise(
    counter: &mut Cow<'_, [u8]>,
    register: usize,
    rank: u8,
    sparse_bytes_max: usize,
) -> Result<bool, Corrupted> {
    if is_dense(counter) {
        let is_less = dense_rank(counter, register) < rank;
        if is_less {
            set_dense_rank(counter.to_mut(), register, rank);
        }
        return Ok(is_less);
    }
    let raised = match rank {
        ..=RUN_RANK_MAX => raise_in_runs(counter, register, rank, sparse_bytes_max)?,
        _ => Raised::NoRoom,
    };
    if raised == Raised::NoRoom {
        let mut dense = dense(counter)?;
        set_dense_rank(&mut dense, register, rank);
        *counter = Cow::Owned(dense);
    }
    Ok(raised != Raised::No)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raised {
    No,
    Yes,
    /// The sparse form cannot tell of it.
    NoRoom,
}

fn raise_in_runs(
    counter: &mut Cow<'_, [u8]>,
    register: usize,
    rank: u8,
    bytes_max: usize,
) -> Result<Raised, Corrupted> {
    let (mut first, mut before, mut found) = (0, None, None);
    for span in spans(counter) {
        if register < first + span.length {
            found = Some(span);
            break;
        }
        before = Some(span.at);
        first += span.length;
    }
    let span = found.ok_or(Corrupted)?;
    if span.rank >= rank {
        return Ok(Raised::No);
    }

    // The run falls into what is before the register, the register, and what is behind it.
    let mut runs = Vec::with_capacity(5);
    let (ahead, behind) = (register - first, first + span.length - 1 - register);
    for (rank, length) in [(span.rank, ahead), (rank, 1), (span.rank, behind)] {
        if length > 0 {
            put_run(&mut runs, rank, length);
        }
    }
    if runs.len() > span.bytes && counter.len() + runs.len() - span.bytes > bytes_max {
        return Ok(Raised::NoRoom);
    }
    let counter = counter.to_mut();
    let end = (span.at + span.bytes).min(counter.len());
    counter.splice(span.at..end, runs);
    join_runs(counter, before.unwrap_or(HEAD_BYTES));
    Ok(Raised::Yes)
}

/// Joins runs of equal rank, from the one at `at` on, as far as a change can have made any: the run before it, up to
/// three that it fell into, and the one behind.
fn join_runs(counter: &mut Vec<u8>, mut at: usize) {
    const LOOKED_AT: usize = 5;
    for _ in 0..LOOKED_AT {
        if at >= counter.len() {
            return;
        }
        let span = span_at(counter, at);
        let next = (at + 1 < counter.len()).then(|| span_at(counter, at + 1));
        match next {
            Some(next)
                if span.rank > 0 && next.rank == span.rank && span.length + next.length <= RUN_LENGTH_MAX =>
            {
                counter[at + 1] = run(span.rank, span.length + next.length);
                counter.remove(at);
            }
            _ => at += span.bytes,
        }
    }
}
