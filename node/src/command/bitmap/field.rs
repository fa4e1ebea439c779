//! `BITFIELD`: a string as an array of integers of any width.
//!
//! Each operation sees what those before it did. A write is a patch of the few
//! bytes that the integer touches, so that a counter in a string of megabytes
//! costs as little as one in a short string.

use moonraft_proto::{Effect, Reply};

use super::offset_in;
use crate::{
    command::{
        CommandError, Outcome, Request,
        arguments::{integer, is, parse_integer},
        work::reached,
    },
    keyspace::{Class, Keyspace, Tx},
};

/// What becomes of a result that does not fit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

/// Where an integer stands, and of what kind it is.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    /// Bits: 1 to 64, or to 63 without a sign.
    width: usize,
    /// Position of its first bit.
    offset: usize,
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

#[derive(Clone, Copy)]
struct Operation {
    field: Field,
    action: Action,
    overflow: Overflow,
}

/// `BITFIELD key [GET encoding offset | [OVERFLOW WRAP | SAT | FAIL] SET encoding
/// offset value | INCRBY encoding offset increment] …`
pub(super) fn bitfield<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let key = words[1];
    let operations = read(&words[2..])?;
    tx.string(key)?;
    let reach = reach(&operations);
    if reach.is_none() {
        tx.tell_misses([key]);
    }
    let before = tx.unit_effects();

    let mut replies = Vec::with_capacity(operations.len());
    for Operation { field, action, overflow } in operations {
        let string = tx.string(key)?.unwrap_or_default();
        let before = field.get(string);
        let after = match action {
            Action::Get => Some(before),
            Action::Set(value) if field.signed => field.fit(value.into(), overflow),
            // A negative one is a large one, as it is in Redis.
            Action::Set(value) => field.fit((value as u64).into(), overflow),
            Action::Add(delta) => field.fit(before + i128::from(delta), overflow),
        };
        let shown = if matches!(action, Action::Set(_)) { after.map(|_| before) } else { after };
        replies.push(shown.map_or(Reply::Null, |value| Reply::Int(value as i64)));
        if let Some(after) = after.filter(|&after| after != before) {
            let bytes = field.bytes();
            let patched = field.put(string, after).to_be_bytes();
            let patch = &patched[patched.len() - bytes.len()..];
            tx.emit(Effect::PatchString { key, offset: bytes.start as u64, bytes: patch });
        }
    }
    // The string grows as far as any write reaches, even one that failed.
    let length = tx.string(key)?.map_or(0, <[u8]>::len);
    if let Some(reach) = reach.filter(|&reach| reach > length) {
        tx.emit(Effect::PatchString { key, offset: reach as u64 - 1, bytes: &[0] });
    }
    if tx.unit_effects() > before {
        tx.notify(Class::String, "setbit", key);
    }
    Ok(Reply::Array(replies))
}

/// `BITFIELD_RO key [GET encoding offset] …`
pub(super) fn bitfield_ro<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let operations = read(&words[2..])?;
    if operations.iter().any(|operation| !matches!(operation.action, Action::Get)) {
        return Err(CommandError::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }

    let string = tx.string(words[1])?.unwrap_or_default();
    let values = operations.iter().map(|operation| Reply::Int(operation.field.get(string) as i64));
    Ok(Reply::Array(values.collect()))
}

/// What a `BITFIELD` works through: the string, as far as it grows.
pub(super) fn work(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let operations = read(&request.words[2..]).unwrap_or_default();
    let reach = reach(&operations).unwrap_or(0);
    reached(keyspace, request.words[1], reach)
}

/// How far operations write.
fn reach(operations: &[Operation]) -> Option<usize> {
    let writes = operations.iter().filter(|operation| !matches!(operation.action, Action::Get));
    writes.map(|operation| operation.field.bytes().end).max()
}

/// Reads the operations of a request.
fn read(words: &[&[u8]]) -> Result<Vec<Operation>, CommandError> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut rest = words;
    while let [name, behind @ ..] = rest {
        let (action, used) = match *behind {
            [kind, ..] if is(name, "overflow") => {
                overflow = read_overflow(kind)?;
                rest = &behind[1..];
                continue;
            }
            [_, _, ..] if is(name, "get") => (None, 2),
            [_, _, value, ..] if is(name, "set") => (Some((value, Action::Set as fn(i64) -> Action)), 3),
            [_, _, value, ..] if is(name, "incrby") => (Some((value, Action::Add as fn(i64) -> Action)), 3),
            _ => return Err(CommandError::Syntax),
        };
        let field = Field::read(behind[0], behind[1])?;
        let action = match action {
            Some((value, action)) => action(integer(value)?),
            None => Action::Get,
        };
        operations.push(Operation { field, action, overflow });
        rest = &behind[used..];
    }
    Ok(operations)
}

fn read_overflow(word: &[u8]) -> Result<Overflow, CommandError> {
    match word {
        word if is(word, "wrap") => Ok(Overflow::Wrap),
        word if is(word, "sat") => Ok(Overflow::Saturate),
        word if is(word, "fail") => Ok(Overflow::Fail),
        _ => Err(CommandError::text("ERR Invalid OVERFLOW type specified")),
    }
}

impl Field {
    /// Reads `i16`, `u8`, … and an offset, in bits or, after a `#`, in integers
    /// of that width.
    fn read(kind: &[u8], offset: &[u8]) -> Result<Self, CommandError> {
        const BAD_KIND: CommandError = CommandError::text(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        );
        let (signed, width) = match kind {
            [b'i', width @ ..] => (true, width),
            [b'u', width @ ..] => (false, width),
            _ => return Err(BAD_KIND),
        };
        let width = parse_integer(width).and_then(|width| usize::try_from(width).ok());
        let width_max = if signed { 64 } else { 63 };
        let width = width.filter(|width| (1..=width_max).contains(width)).ok_or(BAD_KIND)?;
        let offset = match offset {
            [b'#', count @ ..] => offset_in(count, width)?,
            _ => offset_in(offset, 1)?,
        };
        Ok(Self { signed, width, offset })
    }

    /// The bytes that it touches: nine at most.
    fn bytes(&self) -> std::ops::Range<usize> {
        self.offset / 8..(self.offset + self.width).div_ceil(8)
    }

    /// Bits of its last byte that are behind it.
    fn behind(&self) -> usize {
        self.bytes().end * 8 - self.offset - self.width
    }

    fn mask(&self) -> u128 {
        (1 << self.width) - 1
    }

    /// The bytes that it touches, as one number.
    fn window(&self, string: &[u8]) -> u128 {
        let byte = |at: usize| u128::from(string.get(at).copied().unwrap_or(0));
        self.bytes().fold(0, |window, at| window << 8 | byte(at))
    }

    fn get(&self, string: &[u8]) -> i128 {
        self.extend(self.window(string) >> self.behind())
    }

    /// The bytes that it touches, as one number, with `value` in its place.
    fn put(&self, string: &[u8], value: i128) -> u128 {
        let others = self.window(string) & !(self.mask() << self.behind());
        others | (value as u128 & self.mask()) << self.behind()
    }

    /// The value of its lowest `width` bits.
    fn extend(&self, bits: u128) -> i128 {
        let value = (bits & self.mask()) as i128;
        let negative = self.signed && value >> (self.width - 1) != 0;
        if negative { value - (1 << self.width) } else { value }
    }

    /// What is stored for `value`; `None` if nothing is.
    fn fit(&self, value: i128, overflow: Overflow) -> Option<i128> {
        let (least, most) = if self.signed {
            (-(1 << (self.width - 1)), (1 << (self.width - 1)) - 1)
        } else {
            (0, (1 << self.width) - 1)
        };
        match overflow {
            _ if (least..=most).contains(&value) => Some(value),
            Overflow::Wrap => Some(self.extend(value as u128)),
            Overflow::Saturate => Some(value.clamp(least, most)),
            Overflow::Fail => None,
        }
    }
}
