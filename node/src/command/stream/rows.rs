//! The rows of this family.

use moonraft_proto::effect::STREAMS_FORMAT;
use moonraft_router::Keys;

use super::{add, claim, group, info, pending, read, work};
use crate::command::{Arity, Command, Family, Flag, Run, key_specs::uses};

/// A row of this family.
const ROW: Command = Command { family: Family::Stream, keys: Keys::ONE, ..Command::BASE };

/// One that writes.
const WRITES: Command = Command { format: STREAMS_FORMAT, ..ROW };

/// A subcommand, whose key is behind its name.
const CHILD: Command = Command { keys: Keys::Range { first: 2, last: 2, step: 1 }, ..ROW };

const INFO: Command = Command { parent: Some("xinfo"), ..CHILD };

const GROUP: Command = Command { parent: Some("xgroup"), format: STREAMS_FORMAT, ..CHILD };

const VARIES: &[&str] = &["nondeterministic_output"];

/// What may stand before `STREAMS`, with the number of words that belong to each.
const READ_OPTIONS: &[(&str, usize)] = &[("block", 1), ("count", 1), ("group", 2), ("noack", 0)];

/// The commands of this family.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "xadd",
        arity: Arity::AtLeast(5),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::UPDATE],
        tips: VARIES,
        run: Run::Write(add::xadd),
        work: Some(work::add),
        ..WRITES
    },
    Command {
        name: "xlen",
        arity: Arity::Exactly(2),
        flags: &[Flag::Fast],
        key_flags: &[uses::LOOK],
        run: Run::Read(read::xlen),
        ..ROW
    },
    Command {
        name: "xrange",
        arity: Arity::AtLeast(4),
        run: Run::Read(read::xrange),
        work: Some(work::range),
        ..ROW
    },
    Command {
        name: "xrevrange",
        arity: Arity::AtLeast(4),
        run: Run::Read(read::xrevrange),
        work: Some(work::range_back),
        ..ROW
    },
    Command {
        name: "xread",
        arity: Arity::AtLeast(4),
        keys: Keys::FirstHalf { token: "streams", from: 1, options: READ_OPTIONS },
        flags: &[Flag::Blocking],
        asks_to_block: Some(read::xread_asks_to_block),
        run: Run::Read(read::xread),
        work: Some(work::read),
        ..ROW
    },
    Command {
        name: "xreadgroup",
        arity: Arity::AtLeast(7),
        keys: Keys::FirstHalf { token: "streams", from: 4, options: READ_OPTIONS },
        flags: &[Flag::Blocking],
        key_flags: &[uses::READ],
        asks_to_block: Some(read::xreadgroup_asks_to_block),
        run: Run::Write(read::xreadgroup),
        work: Some(work::read_group),
        ..WRITES
    },
    Command {
        name: "xdel",
        arity: Arity::AtLeast(3),
        flags: &[Flag::Fast],
        key_flags: &[uses::TAKE],
        run: Run::Write(add::xdel),
        ..WRITES
    },
    Command {
        name: "xtrim",
        arity: Arity::AtLeast(4),
        key_flags: &[uses::TAKE],
        tips: VARIES,
        run: Run::Write(add::xtrim),
        work: Some(work::trim),
        ..WRITES
    },
    Command {
        name: "xsetid",
        arity: Arity::AtLeast(3),
        flags: &[Flag::DenyOom, Flag::Fast],
        key_flags: &[uses::UPDATE],
        run: Run::Write(add::xsetid),
        ..WRITES
    },
    Command {
        name: "xack",
        arity: Arity::AtLeast(4),
        flags: &[Flag::Fast],
        key_flags: &[uses::UPDATE],
        run: Run::Write(group::xack),
        ..WRITES
    },
    Command {
        name: "xpending",
        arity: Arity::AtLeast(3),
        tips: VARIES,
        run: Run::Read(pending::xpending),
        work: Some(work::pending),
        ..ROW
    },
    Command {
        name: "xclaim",
        arity: Arity::AtLeast(6),
        flags: &[Flag::Fast],
        key_flags: &[uses::UPDATE],
        tips: VARIES,
        run: Run::Write(claim::xclaim),
        ..WRITES
    },
    Command {
        name: "xautoclaim",
        arity: Arity::AtLeast(6),
        flags: &[Flag::Fast],
        key_flags: &[uses::TAKE],
        tips: VARIES,
        run: Run::Write(claim::xautoclaim),
        work: Some(work::autoclaim),
        ..WRITES
    },
    Command { name: "xinfo", keys: Keys::None, arity: Arity::AtLeast(2), ..ROW },
    Command {
        name: "stream",
        arity: Arity::AtLeast(3),
        run: Run::Read(info::stream),
        work: Some(work::stream_info),
        ..INFO
    },
    Command {
        name: "groups",
        arity: Arity::Exactly(3),
        run: Run::Read(info::groups),
        work: Some(work::groups_info),
        ..INFO
    },
    Command {
        name: "consumers",
        arity: Arity::Exactly(4),
        tips: VARIES,
        run: Run::Read(info::consumers),
        work: Some(work::consumers_info),
        ..INFO
    },
    Command {
        name: "help",
        arity: Arity::Exactly(2),
        keys: Keys::None,
        flags: &[Flag::Stale],
        run: Run::Read(|_, _| Ok(info::help())),
        ..INFO
    },
    Command { name: "xgroup", keys: Keys::None, arity: Arity::AtLeast(2), ..ROW },
    Command {
        name: "create",
        arity: Arity::AtLeast(5),
        flags: &[Flag::DenyOom],
        key_flags: &[uses::ADD],
        run: Run::Write(group::create),
        ..GROUP
    },
    Command {
        name: "setid",
        arity: Arity::AtLeast(5),
        key_flags: &[uses::UPDATE],
        run: Run::Write(group::set_id),
        ..GROUP
    },
    Command {
        name: "destroy",
        arity: Arity::Exactly(4),
        key_flags: &[uses::TAKE],
        run: Run::Write(group::destroy),
        ..GROUP
    },
    Command {
        name: "createconsumer",
        arity: Arity::Exactly(5),
        flags: &[Flag::DenyOom],
        key_flags: &[uses::ADD],
        run: Run::Write(group::create_consumer),
        ..GROUP
    },
    Command {
        name: "delconsumer",
        arity: Arity::Exactly(5),
        key_flags: &[uses::TAKE],
        run: Run::Write(group::delete_consumer),
        work: Some(work::delete_consumer),
        ..GROUP
    },
    Command {
        name: "help",
        parent: Some("xgroup"),
        arity: Arity::Exactly(2),
        keys: Keys::None,
        flags: &[Flag::Stale],
        run: Run::Read(|_, _| Ok(group::help())),
        ..ROW
    },
];
