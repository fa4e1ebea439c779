//! Publishing. A message leaves when its unit commits, also one that a script or
//! a transaction publishes; so it runs as a change, though it changes no data.
//!
//! How many heard it is known to the shard alone, which counts its subscribers
//! when the message leaves; in a script or transaction the answer is 0.

use moonraft_proto::Reply;
use moonraft_router::Keys;

use super::{Arity, Command, Family, Flag, Outcome, Run, facts::KeyFlag};
use crate::keyspace::Tx;

/// A row of this family.
const ROW: Command = Command {
    family: Family::PubSub,
    arity: Arity::Exactly(3),
    flags: &[Flag::PubSub, Flag::Stale, Flag::Fast],
    ..Command::BASE
};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "publish",
        run: Run::Write(|tx, words| publish(tx, words, false)),
        since: "2.0.0",
        summary: "Posts a message to a channel.",
        ..ROW
    },
    Command {
        name: "spublish",
        keys: Keys::ONE,
        key_flags: &[&[KeyFlag::NotKey]],
        run: Run::Write(|tx, words| publish(tx, words, true)),
        since: "7.0.0",
        summary: "Post a message to a shard channel",
        ..ROW
    },
];

/// `PUBLISH channel message`, `SPUBLISH shardchannel message`
fn publish<'a>(tx: &mut Tx, words: &[&'a [u8]], sharded: bool) -> Outcome<'a> {
    tx.publish(words[1], words[2], sharded);
    Ok(Reply::Int(0))
}
