//! Bits of strings. Bit 0 is the highest of the first byte; a string is as if
//! zero bits without end followed it.

use std::ops::Range;

use moonraft_proto::{Effect, Reply};
use moonraft_router::Keys;

use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{integer, is, parse_integer},
    key_specs::{KeyFlag, uses},
    string::{STRING_BYTES_MAX, clamp},
    work,
};
use crate::keyspace::{Class, Tx};

mod field;

/// A row of this family.
const ROW: Command = Command { family: Family::Bitmap, keys: Keys::ONE, ..Command::BASE };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "setbit",
        arity: Arity::Exactly(4),
        flags: &[Flag::DenyOom],
        run: Run::Write(setbit),
        work: Some(work::grown_to_bit),
        ..ROW
    },
    Command { name: "getbit", arity: Arity::Exactly(3), flags: &[Flag::Fast], run: Run::Read(getbit), ..ROW },
    Command {
        name: "bitcount",
        arity: Arity::AtLeast(2),
        run: Run::Read(bitcount),
        work: Some(work::passed),
        ..ROW
    },
    Command {
        name: "bitpos",
        arity: Arity::AtLeast(3),
        run: Run::Read(bitpos),
        work: Some(work::passed),
        ..ROW
    },
    Command {
        name: "bitop",
        arity: Arity::AtLeast(4),
        keys: Keys::Range { first: 2, last: -1, step: 1 },
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE, uses::READ],
        run: Run::Write(bitop),
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "bitfield",
        arity: Arity::AtLeast(2),
        flags: &[Flag::DenyOom],
        key_flags: &[&[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update, KeyFlag::Variable]],
        narrowed_key_flags: Some(|words| {
            let changes = words[2..].iter().any(|word| is(word, "set") || is(word, "incrby"));
            if changes { uses::CHANGE } else { uses::READ }
        }),
        run: Run::Write(field::bitfield),
        work: Some(field::work),
        ..ROW
    },
    Command {
        name: "bitfield_ro",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Fast],
        run: Run::Read(field::bitfield_ro),
        ..ROW
    },
];

const BAD_OFFSET: CommandError = CommandError::text("ERR bit offset is not an integer or out of range");
const BAD_BIT: CommandError = CommandError::text("ERR bit is not an integer or out of range");

/// A position in bits, inside the longest string there may be.
fn offset(word: &[u8]) -> Result<usize, CommandError> {
    offset_in(word, 1)
}

/// A position counted in integers of `width` bits.
fn offset_in(word: &[u8], width: usize) -> Result<usize, CommandError> {
    let number = parse_integer(word).and_then(|number| usize::try_from(number).ok());
    let bits = number.and_then(|number| number.checked_mul(width));
    bits.filter(|bits| bits / 8 < STRING_BYTES_MAX).ok_or(BAD_OFFSET)
}

/// The byte that a bit is in, and the bit alone.
const fn place(offset: usize) -> (usize, u8) {
    (offset / 8, 0x80 >> (offset % 8))
}

/// `SETBIT key offset value`
fn setbit<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, (at, bit)) = (words[1], place(offset(words[2])?));
    let set = match words[3] {
        b"0" => false,
        b"1" => true,
        _ => return Err(BAD_BIT),
    };

    let string = tx.string(key)?.unwrap_or_default();
    let (longer, before) = (at >= string.len(), string.get(at).copied().unwrap_or(0));
    let after = if set { before | bit } else { before & !bit };

    if longer || after != before {
        tx.emit(Effect::PatchString { key, offset: at as u64, bytes: &[after] });
        tx.notify(Class::String, "setbit", key);
    }
    Ok(Reply::flag(before & bit != 0))
}

/// `GETBIT key offset`
fn getbit<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (at, bit) = place(offset(words[2])?);
    let string = tx.string(words[1])?.unwrap_or_default();
    Ok(Reply::flag(string.get(at).is_some_and(|byte| byte & bit != 0)))
}

/// Whether a range is given in bits rather than bytes.
fn in_bits(unit: Option<&&[u8]>) -> Result<bool, CommandError> {
    match unit {
        Some(word) if is(word, "bit") => Ok(true),
        Some(word) if !is(word, "byte") => Err(CommandError::Syntax),
        _ => Ok(false),
    }
}

/// `BITCOUNT key [start end [BYTE | BIT]]`
fn bitcount<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    // Redis 7 looks at the key before it looks at the range.
    let Some(string) = tx.string(words[1])? else { return Ok(Reply::Int(0)) };
    let range = match words[2..] {
        [] => Some(0..string.len() * 8),
        [start, end, ref unit @ ..] if unit.len() <= 1 => {
            let (start, end) = (integer(start)?, integer(end)?);
            let unit = if in_bits(unit.first())? { 1 } else { 8 };
            let backwards = start < 0 && end < 0 && start > end;
            clamp(start, end, string.len() * 8 / unit)
                .filter(|_| !backwards)
                .map(|range| range.start * unit..range.end * unit)
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok(Reply::count(range.map_or(0, |range| ones(string, range))))
}

/// How many bits of a range are set. The range lies in the string.
fn ones(string: &[u8], range: Range<usize>) -> usize {
    if range.is_empty() {
        return 0;
    }
    let ((first, _), (last, _)) = (place(range.start), place(range.end - 1));
    let bytes = &string[first..=last];
    let (words, rest) = bytes.as_chunks::<8>();
    let in_words: usize = words.iter().map(|word| u64::from_ne_bytes(*word).count_ones() as usize).sum();
    let in_rest: usize = rest.iter().map(|byte| byte.count_ones() as usize).sum();
    // Bits of the two outer bytes that the range leaves out.
    let before = string[first] & !(0xff >> (range.start % 8));
    let behind = string[last] & (0x7f >> ((range.end - 1) % 8));
    in_words + in_rest - (before.count_ones() + behind.count_ones()) as usize
}

/// `BITPOS key bit [start [end [BYTE | BIT]]]`
fn bitpos<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let bit = match integer(words[2])? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::text("ERR The bit argument must be 1 or 0.")),
    };
    // Redis 7 looks at the key before it looks at the range.
    let Some(string) = tx.string(words[1])? else { return Ok(Reply::Int(if bit { -1 } else { 0 })) };
    let (range, end_given) = match words[3..] {
        [] => (0..string.len() * 8, false),
        [start, ref rest @ ..] if rest.len() <= 2 => {
            let start = integer(start)?;
            let unit = if in_bits(rest.get(1))? { 1 } else { 8 };
            let end = rest.first().map_or(Ok(-1), |end| integer(end))?;
            let range = clamp(start, end, string.len() * 8 / unit).unwrap_or(0..0);
            (range.start * unit..range.end * unit, !rest.is_empty())
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok(Reply::Int(match first(string, range.clone(), bit) {
        Some(at) => at as i64,
        // Without an end, the zeros behind the string count too.
        None if !bit && !end_given && !range.is_empty() => range.end as i64,
        None => -1,
    }))
}

/// The first bit of a range that is as asked. The range lies in the string.
fn first(string: &[u8], range: Range<usize>, bit: bool) -> Option<usize> {
    if range.is_empty() {
        return None;
    }
    // With the wanted bits set and those before the range clear, it is the first that is set.
    let wanted = |byte: u8| if bit { byte } else { !byte };
    let start = range.start / 8;
    let head = wanted(string[start]) & (0xff >> (range.start % 8));
    let tail = &string[start + 1..range.end.div_ceil(8)];
    let found = if head != 0 {
        Some((start, head))
    } else {
        let skipped = if bit { 0 } else { 0xff };
        let at = skip(tail, skipped);
        tail.get(at).map(|&byte| (start + 1 + at, wanted(byte)))
    };
    let at = found.map(|(at, byte)| at * 8 + byte.leading_zeros() as usize);
    at.filter(|at| range.contains(at))
}

/// How many bytes at the start are `skipped`: eight at a time.
fn skip(bytes: &[u8], skipped: u8) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let whole = words.iter().take_while(|word| **word == [skipped; 8]).count() * 8;
    whole + bytes[whole..].iter().take_while(|byte| **byte == skipped).count()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

/// `BITOP AND | OR | XOR | NOT destination key [key …]`
fn bitop<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (destination, sources) = (words[2], &words[3..]);
    let operation = match words[1] {
        word if is(word, "and") => Operation::And,
        word if is(word, "or") => Operation::Or,
        word if is(word, "xor") => Operation::Xor,
        word if is(word, "not") => Operation::Not,
        _ => return Err(CommandError::Syntax),
    };
    if operation == Operation::Not && sources.len() != 1 {
        return Err(CommandError::text("ERR BITOP NOT must be called with a single source key."));
    }

    tx.tell_misses(sources.iter().copied());
    let strings = sources.iter().map(|key| Ok(tx.string(key)?.unwrap_or_default()));
    let strings = strings.collect::<Result<Vec<&[u8]>, CommandError>>()?;
    let result = match operation {
        Operation::And => combine(&strings, |left, right| left & right),
        Operation::Or => combine(&strings, |left, right| left | right),
        Operation::Xor => combine(&strings, |left, right| left ^ right),
        Operation::Not => strings[0].iter().map(|byte| !byte).collect(),
    };

    if result.is_empty() {
        tx.remove_telling("del", destination);
    } else {
        tx.emit(Effect::PutString { key: destination, value: &result, expires_at: None });
        tx.notify(Class::String, "set", destination);
    }
    Ok(Reply::count(result.len()))
}

/// All strings combined byte by byte, as long as the longest: shorter ones are
/// as if zeros followed. There is one at least.
fn combine(strings: &[&[u8]], operation: impl Fn(u8, u8) -> u8) -> Vec<u8> {
    let length = strings.iter().map(|string| string.len()).max().unwrap_or(0);
    let mut result = Vec::with_capacity(length);
    result.extend_from_slice(strings[0]);
    result.resize(length, 0);
    for string in &strings[1..] {
        let (both, alone) = result.split_at_mut(string.len());
        both.iter_mut().zip(*string).for_each(|(byte, other)| *byte = operation(*byte, *other));
        alone.iter_mut().for_each(|byte| *byte = operation(*byte, 0));
    }
    result
}
