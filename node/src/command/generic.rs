//! Keys, whatever they hold.

use moonraft_proto::{Effect, Reply, Weight};
use moonraft_router::Keys;

use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{integer, integer32, is, room_for},
    key_specs::{KeyFlag, uses},
    survey::Survey,
    work,
};
use crate::{
    glob,
    keyspace::{Class, Entry, Tx},
};

/// A row of this family.
const ROW: Command = Command { family: Family::Generic, keys: Keys::ONE, ..Command::BASE };

/// Clients split these by slot and add the replies up.
const SPLIT: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];

/// A row of commands on any number of keys.
const MANY: Command = Command { arity: Arity::AtLeast(2), keys: Keys::ALL, tips: SPLIT, ..ROW };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "del", key_flags: &[uses::REMOVE], run: Run::Write(del), ..MANY },
    Command {
        name: "unlink",
        key_flags: &[uses::REMOVE],
        flags: &[Flag::Fast],
        run: Run::Write(del),
        ..MANY
    },
    Command {
        name: "exists",
        key_flags: &[uses::LOOK],
        flags: &[Flag::Fast, Flag::Untouching],
        run: Run::Read(exists),
        ..MANY
    },
    Command {
        name: "touch",
        key_flags: &[uses::LOOK],
        flags: &[Flag::Fast, Flag::Touching],
        run: Run::Read(exists),
        ..MANY
    },
    Command {
        name: "type",
        arity: Arity::Exactly(2),
        key_flags: &[uses::LOOK],
        flags: &[Flag::Fast, Flag::Untouching],
        run: Run::Read(type_of),
        ..ROW
    },
    Command {
        name: "keys",
        arity: Arity::Exactly(2),
        keys: Keys::None,
        flags: &[Flag::Dangerous],
        survey: Some(|words| Some(Survey::matching(words[1]))),
        run: Run::Read(keys),
        tips: &["request_policy:all_shards", "nondeterministic_output_order"],
        ..ROW
    },
    Command {
        name: "scan",
        arity: Arity::AtLeast(2),
        keys: Keys::None,
        run: Run::Read(scan),
        tips: &["nondeterministic_output", "request_policy:special"],
        ..ROW
    },
    Command {
        name: "randomkey",
        arity: Arity::Exactly(1),
        keys: Keys::None,
        run: Run::Read(randomkey),
        tips: &["request_policy:all_shards", "nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "rename",
        arity: Arity::Exactly(3),
        keys: Keys::TWO,
        key_flags: &[uses::MOVE, uses::STORE],
        run: Run::Write(rename),
        ..ROW
    },
    Command {
        name: "renamenx",
        arity: Arity::Exactly(3),
        keys: Keys::TWO,
        key_flags: &[uses::MOVE, &[KeyFlag::Overwrite, KeyFlag::Insert]],
        flags: &[Flag::Fast],
        run: Run::Write(renamenx),
        ..ROW
    },
    Command {
        name: "copy",
        arity: Arity::AtLeast(3),
        keys: Keys::TWO,
        key_flags: &[uses::READ, uses::STORE],
        flags: &[Flag::DenyOom],
        run: Run::Write(copy),
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "move",
        arity: Arity::Exactly(3),
        flags: &[Flag::Fast],
        run: Run::Write(|_, _| Err(CommandError::text("ERR MOVE is not allowed in cluster mode"))),
        ..ROW
    },
];

/// `DEL key [key …]`, `UNLINK key [key …]`
///
/// What is removed is freed when the removal is committed, whichever was asked.
fn del<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let mut count = 0;
    for key in &words[1..] {
        count += usize::from(tx.remove_telling("del", key));
    }
    Ok(Reply::count(count))
}

/// `EXISTS key [key …]`, `TOUCH key [key …]`: a key named twice counts twice.
fn exists<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(words[1..].iter().filter(|key| tx.exists(key)).count()))
}

/// `TYPE key`
fn type_of<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::status(tx.value(words[1]).map_or("none", |value| value.type_name())))
}

/// `KEYS pattern`, of all keys at once: see [`super::survey`].
fn keys<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    // One more is too many.
    let parts_max = tx.limits().reply_bytes_max / Weight::PART_BYTES;
    let survey = Survey { count_max: parts_max.saturating_add(1), ..Survey::matching(words[1]) };
    let found = survey.all(tx);
    room_for(tx, found.len())?;
    Ok(Reply::Array(found.into_iter().map(|entry| Reply::bulk(&*entry.key)).collect()))
}

/// What `SCAN`, `SSCAN` and their like may be asked for.
pub(super) struct ScanOptions<'a> {
    /// `MATCH`: names that match; `None` for all.
    pub pattern: Option<&'a [u8]>,
    /// `COUNT`: about so many at a time.
    pub count: usize,
    /// `TYPE`: keys of this type, in any case.
    pub type_name: Option<&'a [u8]>,
}

impl ScanOptions<'_> {
    /// Whether `MATCH` lets this name pass.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.matches_counted(name, &mut 0)
    }

    fn matches_counted(&self, name: &[u8], steps: &mut usize) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches_counted(pattern, name, steps))
    }
}

/// The cursor of a `SCAN` or its like, as C's `strtoul` reads it: an empty word is 0.
pub(super) fn cursor(word: &[u8]) -> Result<u64, CommandError> {
    let (negative, digits) = match word.split_first() {
        Some((b'-', digits)) => (true, digits),
        Some((b'+', digits)) => (false, digits),
        _ => (false, word),
    };
    let number = match digits {
        [] if word.is_empty() => Some(0),
        [first, ..] if first.is_ascii_digit() => {
            std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u64>().ok())
        }
        _ => None,
    };
    let number = number.ok_or(CommandError::text("ERR invalid cursor"))?;
    Ok(if negative { number.wrapping_neg() } else { number })
}

/// `[MATCH pattern] [COUNT count] [TYPE type]`, the last for `SCAN` only.
pub(super) fn scan_options<'a>(words: &[&'a [u8]], typed: bool) -> Result<ScanOptions<'a>, CommandError> {
    /// What Redis takes.
    const COUNT_DEFAULT: usize = 10;
    let mut options = ScanOptions { pattern: None, count: COUNT_DEFAULT, type_name: None };
    for option in words.chunks(2) {
        let &[name, value] = option else { return Err(CommandError::Syntax) };
        if is(name, "count") {
            let count = usize::try_from(integer(value)?).unwrap_or(0);
            options.count = Some(count).filter(|&count| count > 0).ok_or(CommandError::Syntax)?;
        } else if is(name, "match") {
            options.pattern = (!glob::is_everything(value)).then_some(value);
        } else if is(name, "type") && typed {
            options.type_name = Some(value);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(options)
}

/// The reply of a `SCAN` or its like.
pub(super) fn scan_reply<'a>(next: u64, found: Vec<Reply<'a>>) -> Reply<'a> {
    Reply::Array(vec![Reply::text(next.to_string()), Reply::Array(found)])
}

/// Keys that one `SCAN` looks at, whatever its `COUNT`: the cursor tells that there are more.
const SCANNED_MAX: usize = 10_000;
/// Keys between which it looks whether `MATCH` has taken long, and ends early if so.
const SCANNED_IN_A_ROW: usize = 100;

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
fn scan<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let from = cursor(words[1])?;
    let options = scan_options(&words[2..], true)?;

    let of_type =
        |entry: &&Entry| options.type_name.is_none_or(|name| is(name, entry.object.value.type_name()));
    let (mut left, mut next, mut steps) = (options.count.min(SCANNED_MAX), from, 0);
    let mut found = Vec::new();
    loop {
        let (entries, to) = tx.whole().scan(next, left.min(SCANNED_IN_A_ROW));
        (left, next) = (left.saturating_sub(entries.len()), to);
        let wanted = entries.into_iter().filter(of_type);
        let wanted = wanted.filter(|entry| options.matches_counted(&entry.key, &mut steps));
        let live = wanted.filter(|entry| tx.is_live(&entry.object));
        found.extend(live.map(|entry| Reply::bulk(&*entry.key)));
        if next == 0 || left == 0 || steps > glob::STEPS_IN_A_ROW {
            return Ok(scan_reply(next, found));
        }
    }
}

/// `RANDOMKEY`
fn randomkey<'a>(tx: &'a Tx, _words: &[&'a [u8]]) -> Outcome<'a> {
    /// So many expired keys are met before any key that lives will do.
    const TRIES_MAX: usize = 100;
    /// And so many are looked at before it is as good as none: next to all have expired.
    const LOOKED_AT_MAX: usize = 10_000;
    let keyspace = tx.whole();
    for _ in 0..TRIES_MAX {
        let Some(entry) = keyspace.draw(|end| tx.random_below(end)) else { break };
        if tx.is_live(&entry.object) {
            return Ok(Reply::bulk(&*entry.key));
        }
    }
    let any = keyspace.entries().take(LOOKED_AT_MAX).find(|entry| tx.is_live(&entry.object));
    Ok(Reply::bulk_or_null(any.map(|entry| &*entry.key)))
}

/// `RENAME key newkey`
fn rename<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, to) = (words[1], words[2]);
    if !tx.exists(key) {
        return Err(CommandError::NoSuchKey);
    }

    if key != to {
        move_to(tx, key, to);
    }
    Ok(Reply::OK)
}

/// `RENAMENX key newkey`
fn renamenx<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, to) = (words[1], words[2]);
    if !tx.exists(key) {
        return Err(CommandError::NoSuchKey);
    }

    let free = !tx.exists(to);
    if free {
        move_to(tx, key, to);
    }
    Ok(Reply::flag(free))
}

fn move_to(tx: &mut Tx, key: &[u8], to: &[u8]) {
    tx.emit(Effect::Rename { key, to });
    tx.notify(Class::Generic, "rename_from", key);
    tx.notify(Class::Generic, "rename_to", to);
}

/// `COPY source destination [DB destination-db] [REPLACE]`
fn copy<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (key, to) = (words[1], words[2]);
    let replace = copy_options(&words[3..])?;
    if key == to {
        return Err(CommandError::text("ERR source and destination objects are the same"));
    }

    tx.tell_misses([key]);
    let copies = tx.exists(key) && (replace || !tx.exists(to));
    if copies {
        tx.emit(Effect::Copy { key, to });
        tx.notify(Class::Generic, "copy_to", to);
    }
    Ok(Reply::flag(copies))
}

/// Whether the destination may be replaced.
fn copy_options(words: &[&[u8]]) -> Result<bool, CommandError> {
    /// `databases`, of which a cluster uses the first only.
    const DATABASES: i32 = 16;
    let mut replace = false;
    let mut words = words.iter();
    let mut elsewhere = false;
    while let Some(word) = words.next() {
        if is(word, "replace") {
            replace = true;
        } else if is(word, "db") {
            let database = integer32(words.next().ok_or(CommandError::Syntax)?)?;
            if !(0..DATABASES).contains(&database) {
                return Err(CommandError::text("ERR DB index is out of range"));
            }
            elsewhere = database != 0;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if elsewhere {
        return Err(CommandError::text("ERR Copying to another database is not allowed in cluster mode"));
    }
    Ok(replace)
}
