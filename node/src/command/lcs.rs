//! `LCS`: the longest common subsequence of two strings.
//!
//! The lengths of all pairs of prefixes are computed row by row; going back
//! through them finds the subsequence. Where two bytes differ, all that going
//! back asks is whether the prefix shorter in the first string has the longer
//! subsequence: one bit a pair is kept, where Redis keeps 32.

use moonraft_proto::Reply;
use moonraft_router::Keys;

use super::{
    Arity, Command, CommandError, Family, Outcome, Run,
    arguments::{integer, is},
    string::STRING_BYTES_MAX,
    work,
};
use crate::keyspace::Tx;

/// The commands of this file.
pub const COMMANDS: &[Command] = &[Command {
    name: "lcs",
    arity: Arity::AtLeast(3),
    keys: Keys::TWO,
    family: Family::String,
    run: Run::Read(lcs),
    work: Some(work::pairs),
    ..Command::BASE
}];

/// Bytes that Redis needs for a pair of prefixes: with [`STRING_BYTES_MAX`] the
/// bound of what is computed at all, in time too.
const PAIR_BYTES: usize = 4;

#[derive(Default)]
struct Options {
    length: bool,
    indexes: bool,
    match_length_min: i64,
    with_match_length: bool,
}

impl Options {
    fn read(words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match () {
                () if is(word, "idx") => options.indexes = true,
                () if is(word, "len") => options.length = true,
                () if is(word, "withmatchlen") => options.with_match_length = true,
                () if is(word, "minmatchlen") => {
                    options.match_length_min = integer(words.next().ok_or(CommandError::Syntax)?)?;
                }
                () => return Err(CommandError::Syntax),
            }
        }
        Ok(options)
    }
}

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]`
fn lcs<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let other_type = |_| CommandError::text("ERR The specified keys must contain string values");
    let left = tx.string(words[1]).map_err(other_type)?.unwrap_or_default();
    let right = tx.string(words[2]).map_err(other_type)?.unwrap_or_default();
    let options = Options::read(&words[3..])?;
    if options.indexes && options.length {
        return Err(CommandError::text("ERR If you want both the length and indexes, please just use IDX."));
    }
    let pairs = (left.len() + 1).checked_mul(right.len() + 1);
    if pairs.and_then(|pairs| pairs.checked_mul(PAIR_BYTES)).is_none_or(|bytes| bytes > STRING_BYTES_MAX) {
        return Err(CommandError::text(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }

    if options.length {
        return Ok(Reply::count(Table::new(left, right, false).length));
    }
    let table = Table::new(left, right, true);
    if !options.indexes {
        return Ok(Reply::bulk(table.subsequence(left)));
    }
    let matches = table.ranges(left).into_iter();
    let matches = matches.filter(|range| range.length as i64 >= options.match_length_min);
    let matches = matches.map(|range| range.reply(options.with_match_length)).collect();
    Ok(Reply::Map(vec![
        (Reply::text("matches"), Reply::Array(matches)),
        (Reply::text("len"), Reply::count(table.length)),
    ]))
}

/// Equal bytes that follow each other in both strings.
struct Range {
    left: usize,
    right: usize,
    length: usize,
}

impl Range {
    fn reply(&self, with_length: bool) -> Reply<'static> {
        let ends =
            |start: usize| Reply::Array(vec![Reply::count(start), Reply::count(start + self.length - 1)]);
        let mut items = vec![ends(self.left), ends(self.right)];
        if with_length {
            items.push(Reply::count(self.length));
        }
        Reply::Array(items)
    }
}

/// What is known of all pairs of prefixes.
struct Table<'a> {
    right: &'a [u8],
    /// For each pair of prefixes that end in different bytes: whether dropping
    /// the left one's last byte leaves more than dropping the right one's. Rows
    /// are prefixes of the left string. Empty if not asked for.
    drop_left: Vec<u64>,
    /// The length of the longest common subsequence.
    length: usize,
}

impl<'a> Table<'a> {
    fn new(left: &[u8], right: &'a [u8], remember: bool) -> Self {
        let words = if remember { (left.len() * right.len()).div_ceil(64) } else { 0 };
        let mut drop_left = vec![0_u64; words];
        // Lengths for the row before, overwritten from the left by those of this row.
        let mut lengths = vec![0_u32; right.len() + 1];
        for (row, byte) in left.iter().enumerate() {
            let mut diagonal = 0;
            let mut before = 0;
            for (column, other) in right.iter().enumerate() {
                let above = lengths[column + 1];
                let length = if byte == other { diagonal + 1 } else { above.max(before) };
                if remember && byte != other && above > before {
                    let bit = row * right.len() + column;
                    drop_left[bit / 64] |= 1 << (bit % 64);
                }
                lengths[column + 1] = length;
                (diagonal, before) = (above, length);
            }
        }
        Self { right, drop_left, length: lengths[right.len()] as usize }
    }

    /// Calls `found` with the positions of all bytes of the subsequence, last first.
    fn backwards(&self, left: &[u8], mut found: impl FnMut(usize, usize)) {
        let (mut row, mut column) = (left.len(), self.right.len());
        while row > 0 && column > 0 {
            let bit = (row - 1) * self.right.len() + column - 1;
            if left[row - 1] == self.right[column - 1] {
                (row, column) = (row - 1, column - 1);
                found(row, column);
            } else if self.drop_left[bit / 64] & (1 << (bit % 64)) != 0 {
                row -= 1;
            } else {
                column -= 1;
            }
        }
    }

    fn subsequence(&self, left: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length);
        self.backwards(left, |at, _| bytes.push(left[at]));
        bytes.reverse();
        bytes
    }

    /// The subsequence as ranges, last first.
    fn ranges(&self, left: &[u8]) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        self.backwards(left, |at, other| match ranges.last_mut() {
            Some(range) if (range.left, range.right) == (at + 1, other + 1) => {
                *range = Range { left: at, right: other, length: range.length + 1 };
            }
            _ => ranges.push(Range { left: at, right: other, length: 1 }),
        });
        ranges
    }
}
