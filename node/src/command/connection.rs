//! Requests about the connection that need nothing but their words.

use moonraft_proto::Reply;

use super::{Arity, Command, CommandError, Family, Flag, Outcome, Run};
use crate::keyspace::Tx;

/// A row of this family.
const ROW: Command = Command { family: Family::Connection, ..Command::BASE };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "ping",
        arity: Arity::AtLeast(1),
        flags: &[Flag::Fast],
        run: Run::Read(ping),
        summary: "Returns the server's liveliness response.",
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        ..ROW
    },
    Command {
        name: "echo",
        arity: Arity::Exactly(2),
        flags: &[Flag::Stale, Flag::Fast],
        run: Run::Read(echo),
        summary: "Returns the given string.",
        ..ROW
    },
];

/// `PING [message]`
fn ping<'a>(_tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    match *words {
        [_] => Ok(Reply::status("PONG")),
        [_, message] => Ok(Reply::bulk(message)),
        _ => Err(CommandError::Arity("ping".into())),
    }
}

/// `ECHO message`
fn echo<'a>(_tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::bulk(words[1]))
}
