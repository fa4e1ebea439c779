//! Strings that are changed on a condition: compared with a value, or by the digest of theirs.
//!
//! What holds a lock or a version says with the change what it believes to be there, so no script is needed.
//!
//! A digest is the XXH3 of the bytes (64 bits, no seed), as 16 hexadecimal digits. It is no secret's: two values may
//! share one.
//!
//! Sources: `SET … IFEQ`, `DELEX`, `DIGEST`, `MSETEX` of Redis 8.4; `DELIFEQ` of Valkey 9.

use std::borrow::Cow;

use moonraft_proto::Reply;
use moonraft_router::Keys;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    super::{
        Arity, Command, CommandError, Flag, Outcome, Request, Run,
        arguments::{integer, is},
        key_specs::{KeyFlag, uses},
        work,
    },
    ROW,
    options::{Condition, Form, Options},
    put,
};
use crate::keyspace::{Keyspace, Tx, Value};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "delex",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Fast],
        key_flags: &[&[KeyFlag::ReadWrite, KeyFlag::Delete, KeyFlag::Variable]],
        narrowed_key_flags: Some(|words| if words.len() == 2 { uses::REMOVE } else { uses::TAKE }),
        run: Run::Write(delex),
        work: Some(digested),
        ..ROW
    },
    Command {
        name: "delifeq",
        arity: Arity::Exactly(3),
        flags: &[Flag::Fast],
        key_flags: &[uses::REMOVE],
        run: Run::Write(delifeq),
        work: Some(work::passed),
        ..ROW
    },
    Command {
        name: "digest",
        arity: Arity::Exactly(2),
        flags: &[Flag::Fast],
        run: Run::Read(digest),
        work: Some(work::passed),
        ..ROW
    },
    // No tip that a request may be split: it is to happen at once.
    Command {
        name: "msetex",
        arity: Arity::AtLeast(4),
        keys: Keys::CountedPairs { count: 1 },
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE],
        run: Run::Write(msetex),
        work: Some(work::brought),
        ..ROW
    },
];

/// Digits of a digest.
const DIGITS: usize = 16;

/// How a value is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// With a value.
    Value,
    /// By its digest, with a digest.
    Digest,
}

/// What a string is compared with, and whether it is to be equal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Comparison<'a> {
    by: By,
    equal: bool,
    other: &'a [u8],
}

impl<'a> Comparison<'a> {
    /// How this option compares, and whether it wants what is equal.
    fn option(word: &[u8]) -> Option<(By, bool)> {
        match () {
            () if is(word, "ifeq") => Some((By::Value, true)),
            () if is(word, "ifne") => Some((By::Value, false)),
            () if is(word, "ifdeq") => Some((By::Digest, true)),
            () if is(word, "ifdne") => Some((By::Digest, false)),
            () => None,
        }
    }

    /// Whether a word is an option that compares.
    pub fn is_one(word: &[u8]) -> bool {
        Self::option(word).is_some()
    }

    /// The comparison of an option with the word behind it.
    pub fn read(option: &[u8], other: &'a [u8]) -> Option<Self> {
        Self::option(option).map(|(by, equal)| Self { by, equal, other })
    }

    /// Whether it wants the value to be equal: to nothing that is not there.
    pub const fn wants_equal(self) -> bool {
        self.equal
    }

    /// Whether it holds for this value.
    ///
    /// # Errors
    /// What is to be a digest has not as many digits. As in Redis it is told only where there is something to
    /// compare it with, and what is no digit is not equal.
    pub fn holds(self, held: &[u8]) -> Result<bool, CommandError> {
        const DIGEST: CommandError = CommandError::text("ERR must be exactly 16 hexadecimal characters");
        let is_equal = match self.by {
            By::Value => held == self.other,
            By::Digest if self.other.len() != DIGITS => return Err(DIGEST),
            By::Digest => digest_of(held).as_bytes().eq_ignore_ascii_case(self.other),
        };
        Ok(is_equal == self.equal)
    }
}

fn digest_of(value: &[u8]) -> String {
    format!("{:0width$x}", xxh3_64(value), width = DIGITS)
}

/// How much is worked through for digests that a request compares.
pub fn digested(keyspace: &Keyspace, request: &Request<'_>) -> usize {
    let options = request.words.get(2..).unwrap_or_default();
    let digests = |word: &&[u8]| Comparison::option(word).is_some_and(|(by, _)| by == By::Digest);
    if options.iter().any(digests) { work::passed(keyspace, request) } else { 0 }
}

/// `DELEX key [IFEQ v | IFNE v | IFDEQ digest | IFDNE digest]`
fn delex<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    const NO_STRING: CommandError =
        CommandError::text("ERR Key should be of string type if conditions are specified");
    const NO_CONDITION: CommandError =
        CommandError::text("ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE");
    let key = words[1];
    let (option, other) = match words[2..] {
        [] => return Ok(Reply::flag(tx.remove_telling("del", key))),
        [option, other] => (option, other),
        _ => return Err(CommandError::Arity(Cow::Borrowed("delex"))),
    };
    let held = match tx.value(key) {
        None => return Ok(Reply::Int(0)),
        Some(Value::Str(held)) => held,
        Some(_) => return Err(NO_STRING),
    };
    let met = Comparison::read(option, other).ok_or(NO_CONDITION)?.holds(held)?;

    Ok(Reply::flag(met && tx.remove_telling("del", key)))
}

/// `DELIFEQ key value`
fn delifeq<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let met = tx.string(words[1])? == Some(words[2]);
    Ok(Reply::flag(met && tx.remove_telling("del", words[1])))
}

/// `DIGEST key`
fn digest<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(tx.string(words[1])?.map_or(Reply::Null, |held| Reply::text(digest_of(held))))
}

/// `MSETEX numkeys key value [key value …] [NX | XX] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`
///
/// A deadline that is over removes the keys, as with `SET`.
fn msetex<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    const COUNT: CommandError = CommandError::text("ERR invalid numkeys value");
    const PAIRS: CommandError = CommandError::text("ERR wrong number of key-value pairs");
    let count = integer(words[1]).ok().and_then(|count| i32::try_from(count).ok()).filter(|&count| count > 0);
    let count = count.ok_or(COUNT)? as usize;
    let (pairs, options) = words[2..].split_at_checked(count.saturating_mul(2)).ok_or(PAIRS)?;
    let options = Options::read(options, Form::MSetEx)?;
    let expires_at = options.deadline(tx, "msetex")?;
    let (pairs, _) = pairs.as_chunks();

    let met = pairs.iter().all(|[key, _]| match options.condition {
        Some(Condition::Absent) => !tx.exists(key),
        Some(Condition::Present) => tx.exists(key),
        _ => true,
    });
    if met {
        for &[key, value] in pairs {
            put(tx, key, value, expires_at);
        }
    }
    Ok(Reply::flag(met))
}
