//! Sorted sets.
//!
//! Handlers are in files by what they do: [`put`] adds, rescores and removes by
//! name; [`look`] answers about single members; [`range`] works on what is between
//! two bounds; [`algebra`] combines several sets; [`pop`] takes from the ends.

mod algebra;
mod look;
pub(super) mod pop;
pub(super) mod put;
pub(super) mod range;

#[cfg(test)]
mod tests;

use moonraft_proto::Reply;
use moonraft_router::Keys;

use super::{Arity, Command, Family, Flag, Run, key_specs::uses, work};
use range::By;

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
        ..ROW
    },
    Command {
        name: "zcard",
        arity: Arity::Exactly(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::LOOK],
        run: Run::Read(look::zcard),
        ..ROW
    },
    Command {
        name: "zcount",
        arity: Arity::Exactly(4),
        flags: &[Flag::Fast],
        run: Run::Read(range::zcount),
        ..ROW
    },
    Command {
        name: "zdiff",
        arity: Arity::AtLeast(3),
        keys: SEVERAL,
        run: Run::Read(algebra::zdiff),
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "zdiffstore",
        arity: Arity::AtLeast(4),
        keys: STORED,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE, uses::READ],
        run: Run::Write(algebra::zdiffstore),
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "zincrby",
        arity: Arity::Exactly(4),
        flags: &[Flag::DenyOom, Flag::Fast],
        run: Run::Write(put::zincrby),
        ..ROW
    },
    Command {
        name: "zinter",
        arity: Arity::AtLeast(3),
        keys: SEVERAL,
        run: Run::Read(algebra::zinter),
        work: Some(work::smallest),
        ..ROW
    },
    Command {
        name: "zintercard",
        arity: Arity::AtLeast(3),
        keys: SEVERAL,
        run: Run::Read(algebra::zintercard),
        work: Some(work::smallest),
        ..ROW
    },
    Command {
        name: "zinterstore",
        arity: Arity::AtLeast(4),
        keys: STORED,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE, uses::READ],
        run: Run::Write(algebra::zinterstore),
        work: Some(work::smallest),
        ..ROW
    },
    Command {
        name: "zlexcount",
        arity: Arity::Exactly(4),
        flags: &[Flag::Fast],
        run: Run::Read(range::zlexcount),
        ..ROW
    },
    Command {
        name: "zmpop",
        arity: Arity::AtLeast(4),
        keys: SEVERAL,
        key_flags: &[uses::MOVE],
        run: Run::Write(pop::zmpop),
        work: Some(work::popped),
        ..ROW
    },
    Command {
        name: "zmscore",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        run: Run::Read(look::zmscore),
        ..ROW
    },
    Command {
        name: "zpopmax",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::MOVE],
        run: Run::Write(pop::zpopmax),
        work: Some(work::counted),
        ..ROW
    },
    Command {
        name: "zpopmin",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::MOVE],
        run: Run::Write(pop::zpopmin),
        work: Some(work::counted),
        ..ROW
    },
    Command {
        name: "zrandmember",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Random],
        run: Run::Read(look::zrandmember),
        tips: &["nondeterministic_output"],
        work: Some(work::counted),
        ..ROW
    },
    Command {
        name: "zrange",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrange),
        work: Some(range::work),
        ..ROW
    },
    Command {
        name: "zrangebylex",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrangebylex),
        work: Some(|keyspace, it| range::work_by(keyspace, it, By::Name, false)),
        ..ROW
    },
    Command {
        name: "zrangebyscore",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrangebyscore),
        work: Some(|keyspace, it| range::work_by(keyspace, it, By::Score, false)),
        ..ROW
    },
    Command {
        name: "zrangestore",
        arity: Arity::AtLeast(5),
        keys: Keys::TWO,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE, uses::READ],
        run: Run::Write(range::zrangestore),
        work: Some(range::work_stored),
        ..ROW
    },
    Command {
        name: "zrank",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        run: Run::Read(look::zrank),
        ..ROW
    },
    Command {
        name: "zrem",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        key_flags: &[uses::TAKE],
        run: Run::Write(put::zrem),
        ..ROW
    },
    Command {
        name: "zremrangebylex",
        arity: Arity::Exactly(4),
        key_flags: &[uses::TAKE],
        run: Run::Write(range::zremrangebylex),
        work: Some(|keyspace, it| range::work_by(keyspace, it, By::Name, false)),
        ..ROW
    },
    Command {
        name: "zremrangebyrank",
        arity: Arity::Exactly(4),
        key_flags: &[uses::TAKE],
        run: Run::Write(range::zremrangebyrank),
        work: Some(|keyspace, it| range::work_by(keyspace, it, By::Rank, false)),
        ..ROW
    },
    Command {
        name: "zremrangebyscore",
        arity: Arity::Exactly(4),
        key_flags: &[uses::TAKE],
        run: Run::Write(range::zremrangebyscore),
        work: Some(|keyspace, it| range::work_by(keyspace, it, By::Score, false)),
        ..ROW
    },
    Command {
        name: "zrevrange",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrevrange),
        work: Some(|keyspace, it| range::work_by(keyspace, it, By::Rank, true)),
        ..ROW
    },
    Command {
        name: "zrevrangebylex",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrevrangebylex),
        work: Some(|keyspace, it| range::work_by(keyspace, it, By::Name, true)),
        ..ROW
    },
    Command {
        name: "zrevrangebyscore",
        arity: Arity::AtLeast(4),
        run: Run::Read(range::zrevrangebyscore),
        work: Some(|keyspace, it| range::work_by(keyspace, it, By::Score, true)),
        ..ROW
    },
    Command {
        name: "zrevrank",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        run: Run::Read(look::zrevrank),
        ..ROW
    },
    Command {
        name: "zscan",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Random],
        run: Run::Read(look::zscan),
        work: Some(work::scanned),
        tips: &["nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "zscore",
        arity: Arity::Exactly(3),
        flags: &[Flag::Fast],
        run: Run::Read(look::zscore),
        ..ROW
    },
    Command {
        name: "zunion",
        arity: Arity::AtLeast(3),
        keys: SEVERAL,
        run: Run::Read(algebra::zunion),
        work: Some(work::values),
        ..ROW
    },
    Command {
        name: "zunionstore",
        arity: Arity::AtLeast(4),
        keys: STORED,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE, uses::READ],
        run: Run::Write(algebra::zunionstore),
        work: Some(work::values),
        ..ROW
    },
];

/// Members, with their scores if asked for, as a reply.
fn members_reply<'a>(pairs: impl Iterator<Item = (&'a [u8], f64)>, with_scores: bool) -> Reply<'a> {
    if with_scores {
        Reply::Pairs(pairs.map(|(member, score)| (Reply::bulk(member), Reply::Double(score))).collect())
    } else {
        Reply::bulks(pairs.map(|(member, _)| member))
    }
}
