//! Sorted sets.
//!
//! Handlers are in files by what they do: [`put`] adds, rescores and removes by
//! name; [`look`] answers about single members; [`range`] works on what is between
//! two bounds; [`algebra`] combines several sets; [`pop`] takes from the ends.

mod algebra;
mod look;
mod pop;
mod put;
mod range;

#[cfg(test)]
mod tests;

use moonraft_proto::Reply;
use moonraft_router::Keys;

use super::{Arity, Command, Family, Flag, Run, facts::uses};
use crate::keyspace::Blob;

/// A row of this family.
const ROW: Command = Command { family: Family::SortedSet, keys: Keys::ONE, ..Command::BASE };

/// `numkeys key…`
const SEVERAL: Keys = Keys::Counted { count: 1, also: None };

/// `destination numkeys key…`
const STORED: Keys = Keys::Counted { count: 2, also: Some(1) };

/// The commands of this folder.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "zadd",
        arity: Arity::AtLeast(4),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::UPDATE],
        run: Run::Write(put::zadd),
        since: "1.2.0",
        summary: "Adds one or more members to a sorted set, or updates their scores. Creates the key if it doesn't exist.",
        ..ROW
    },
    Command {
        name: "zcard",
        arity: Arity::Exactly(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::LOOK],
        run: Run::Read(look::zcard),
        since: "1.2.0",
        summary: "Returns the number of members in a sorted set.",
        ..ROW
    },
    Command {
        name: "zcount",
        arity: Arity::Exactly(4),
        flags: &[Flag::Fast],
        run: Run::Read(range::zcount),
        since: "2.0.0",
        summary: "Returns the count of members in a sorted set that have scores within a range.",
        ..ROW
    },
    Command {
        name: "zdiff",
        arity: Arity::AtLeast(3),
        keys: SEVERAL,
        run: Run::Read(algebra::zdiff),
        since: "6.2.0",
        summary: "Returns the difference between multiple sorted sets.",
        ..ROW
    },
    Command {
        name: "zdiffstore",
        arity: Arity::AtLeast(4),
        keys: STORED,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE, uses::READ],
        run: Run::Write(algebra::zdiffstore),
        since: "6.2.0",
        summary: "Stores the difference of multiple sorted sets in a key.",
        ..ROW
    },
    Command {
        name: "zincrby",
        arity: Arity::Exactly(4),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(put::zincrby),
        since: "1.2.0",
        summary: "Increments the score of a member in a sorted set.",
        ..ROW
    },
    Command {
        name: "zinter",
        arity: Arity::AtLeast(3),
        keys: SEVERAL,
        run: Run::Read(algebra::zinter),
        since: "6.2.0",
        summary: "Returns the intersect of multiple sorted sets.",
        ..ROW
    },
    Command {
        name: "zintercard",
        arity: Arity::AtLeast(3),
        keys: SEVERAL,
        run: Run::Read(algebra::zintercard),
        since: "7.0.0",
        summary: "Returns the number of members of the intersect of multiple sorted sets.",
        ..ROW
    },
    Command {
        name: "zinterstore",
        arity: Arity::AtLeast(4),
        keys: STORED,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE, uses::READ],
        run: Run::Write(algebra::zinterstore),
        since: "2.0.0",
        summary: "Stores the intersect of multiple sorted sets in a key.",
        ..ROW
    },
    Command {
        name: "zlexcount",
        arity: Arity::Exactly(4),
        flags: &[Flag::Fast],
        run: Run::Read(range::zlexcount),
        since: "2.8.9",
        summary: "Returns the number of members in a sorted set within a lexicographical range.",
        ..ROW
    },
    Command {
        name: "zmpop",
        arity: Arity::AtLeast(4),
        keys: SEVERAL,
        key_flags: &[uses::MOVE],
        run: Run::Write(pop::zmpop),
        since: "7.0.0",
        summary: "Returns the highest- or lowest-scoring members from one or more sorted sets after removing them. Deletes the sorted set if the last member was popped.",
        ..ROW
    },
    Command {
        name: "zmscore",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        run: Run::Read(look::zmscore),
        since: "6.2.0",
        summary: "Returns the score of one or more members in a sorted set.",
        ..ROW
    },
    Command {
        name: "zpopmax",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::MOVE],
        run: Run::Write(pop::zpopmax),
        since: "5.0.0",
        summary: "Returns the highest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.",
        ..ROW
    },
    Command {
        name: "zpopmin",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::MOVE],
        run: Run::Write(pop::zpopmin),
        since: "5.0.0",
        summary: "Returns the lowest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.",
        ..ROW
    },
    Command {
        name: "zrandmember",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Random],
        run: Run::Read(look::zrandmember),
        since: "6.2.0",
        summary: "Returns one or more random members from a sorted set.",
        tips: &["nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "zrange",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrange),
        since: "1.2.0",
        summary: "Returns members in a sorted set within a range of indexes.",
        ..ROW
    },
    Command {
        name: "zrangebylex",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrangebylex),
        since: "2.8.9",
        summary: "Returns members in a sorted set within a lexicographical range.",
        ..ROW
    },
    Command {
        name: "zrangebyscore",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrangebyscore),
        since: "1.0.5",
        summary: "Returns members in a sorted set within a range of scores.",
        ..ROW
    },
    Command {
        name: "zrangestore",
        arity: Arity::AtLeast(5),
        keys: Keys::TWO,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE, uses::READ],
        run: Run::Write(range::zrangestore),
        since: "6.2.0",
        summary: "Stores a range of members from sorted set in a key.",
        ..ROW
    },
    Command {
        name: "zrank",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        run: Run::Read(look::zrank),
        since: "2.0.0",
        summary: "Returns the index of a member in a sorted set ordered by ascending scores.",
        ..ROW
    },
    Command {
        name: "zrem",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        key_flags: &[uses::TAKE],
        run: Run::Write(put::zrem),
        since: "1.2.0",
        summary: "Removes one or more members from a sorted set. Deletes the sorted set if all members were removed.",
        ..ROW
    },
    Command {
        name: "zremrangebylex",
        arity: Arity::Exactly(4),
        key_flags: &[uses::TAKE],
        run: Run::Write(range::zremrangebylex),
        since: "2.8.9",
        summary: "Removes members in a sorted set within a lexicographical range. Deletes the sorted set if all members were removed.",
        ..ROW
    },
    Command {
        name: "zremrangebyrank",
        arity: Arity::Exactly(4),
        key_flags: &[uses::TAKE],
        run: Run::Write(range::zremrangebyrank),
        since: "2.0.0",
        summary: "Removes members in a sorted set within a range of indexes. Deletes the sorted set if all members were removed.",
        ..ROW
    },
    Command {
        name: "zremrangebyscore",
        arity: Arity::Exactly(4),
        key_flags: &[uses::TAKE],
        run: Run::Write(range::zremrangebyscore),
        since: "1.2.0",
        summary: "Removes members in a sorted set within a range of scores. Deletes the sorted set if all members were removed.",
        ..ROW
    },
    Command {
        name: "zrevrange",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrevrange),
        since: "1.2.0",
        summary: "Returns members in a sorted set within a range of indexes in reverse order.",
        ..ROW
    },
    Command {
        name: "zrevrangebylex",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrevrangebylex),
        since: "2.8.9",
        summary: "Returns members in a sorted set within a lexicographical range in reverse order.",
        ..ROW
    },
    Command {
        name: "zrevrangebyscore",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrevrangebyscore),
        since: "2.2.0",
        summary: "Returns members in a sorted set within a range of scores in reverse order.",
        ..ROW
    },
    Command {
        name: "zrevrank",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        run: Run::Read(look::zrevrank),
        since: "2.0.0",
        summary: "Returns the index of a member in a sorted set ordered by descending scores.",
        ..ROW
    },
    Command {
        name: "zscan",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Random],
        run: Run::Read(look::zscan),
        since: "2.8.0",
        summary: "Iterates over members and scores of a sorted set.",
        tips: &["nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "zscore",
        arity: Arity::Exactly(3),
        flags: &[Flag::Fast],
        run: Run::Read(look::zscore),
        since: "1.2.0",
        summary: "Returns the score of a member in a sorted set.",
        ..ROW
    },
    Command {
        name: "zunion",
        arity: Arity::AtLeast(3),
        keys: SEVERAL,
        run: Run::Read(algebra::zunion),
        since: "6.2.0",
        summary: "Returns the union of multiple sorted sets.",
        ..ROW
    },
    Command {
        name: "zunionstore",
        arity: Arity::AtLeast(4),
        keys: STORED,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE, uses::READ],
        run: Run::Write(algebra::zunionstore),
        since: "2.0.0",
        summary: "Stores the union of multiple sorted sets in a key.",
        ..ROW
    },
];

/// Members, with their scores if asked for, as a reply.
fn members_reply<'a>(pairs: impl Iterator<Item = (&'a Blob, f64)>, with_scores: bool) -> Reply<'a> {
    if with_scores {
        Reply::Pairs(pairs.map(|(member, score)| (Reply::bulk(&**member), Reply::Double(score))).collect())
    } else {
        Reply::bulks(pairs.map(|(member, _)| &**member))
    }
}
