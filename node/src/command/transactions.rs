//! `MULTI` and its like. A block itself is run by the shard.

use moonraft_proto::Reply;
use moonraft_router::Keys;

use super::{
    Arity, Client, Command, CommandError, Family, Flag, Outcome, Run, key_specs::uses, session::Queue,
};

/// Keys that a client may watch at once.
const WATCHED_KEYS_MAX: usize = 100_000;

/// A row of this family.
const ROW: Command = Command {
    family: Family::Transactions,
    flags: &[Flag::NoScript, Flag::Fast, Flag::Stale, Flag::AllowBusy, Flag::Immediate],
    ..Command::BASE
};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "multi", arity: Arity::Exactly(1), run: Run::Session(multi), ..ROW },
    Command {
        name: "exec",
        arity: Arity::Exactly(1),
        flags: &[Flag::NoScript, Flag::Stale, Flag::Immediate],
        run: Run::Exec,
        ..ROW
    },
    Command { name: "discard", arity: Arity::Exactly(1), run: Run::Session(discard), ..ROW },
    Command {
        name: "watch",
        arity: Arity::AtLeast(2),
        keys: Keys::ALL,
        key_flags: &[uses::LOOK],
        run: Run::Session(watch),
        ..ROW
    },
    Command {
        name: "unwatch",
        arity: Arity::Exactly(1),
        flags: &[Flag::NoScript, Flag::Fast, Flag::Stale, Flag::AllowBusy],
        run: Run::Session(unwatch),
        ..ROW
    },
];

/// `MULTI`
fn multi(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let session = client.session_mut();
    if session.queue.is_some() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    session.queue = Some(Queue::default());
    Ok(Reply::OK)
}

/// `DISCARD`
fn discard(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    if client.session_mut().queue.take().is_none() {
        return Err(CommandError::text("ERR DISCARD without MULTI"));
    }
    client.unwatch();
    Ok(Reply::OK)
}

/// `WATCH key [key …]`
///
/// That a key which has expired by now is gone at `EXEC` is no change. It is not removed here: while a script is
/// over its time, this is served beside it.
fn watch(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    if client.session().queue.is_some() {
        return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
    }
    let keys = &words[1..];
    if client.session().watches.len() + keys.len() > WATCHED_KEYS_MAX {
        return Err(CommandError::text("ERR too many watched keys"));
    }
    keys.iter().for_each(|key| client.watch(key));
    Ok(Reply::OK)
}

/// `UNWATCH`
fn unwatch(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    client.unwatch();
    Ok(Reply::OK)
}
