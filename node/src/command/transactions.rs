//! `MULTI` and its like.

use moonraft_proto::Reply;
use moonraft_router::{Keys, Redirect};

use super::{Arity, Command, CommandError, Family, Flag, Outcome, Run, facts::uses};
use crate::shard::{
    Client,
    session::{Queue, Queued},
};

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
        run: Run::Queue(exec),
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
fn multi(client: &mut Client<'_>, _: &[&[u8]]) -> Outcome<'static> {
    let session = client.session_mut();
    if session.queue.is_some() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    session.queue = Some(Queue::default());
    Ok(Reply::OK)
}

/// `DISCARD`
fn discard(client: &mut Client<'_>, _: &[&[u8]]) -> Outcome<'static> {
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
fn watch(client: &mut Client<'_>, words: &[&[u8]]) -> Outcome<'static> {
    if client.session().queue.is_some() {
        return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
    }
    let keys = &words[1..];
    keys.iter().for_each(|key| client.watch(key));
    Ok(Reply::OK)
}

/// `UNWATCH`
fn unwatch(client: &mut Client<'_>, _: &[&[u8]]) -> Outcome<'static> {
    client.unwatch();
    Ok(Reply::OK)
}

/// `EXEC`
///
/// All requests run in one unit. One that fails leaves no effect of its own; the
/// others stand, as in Redis. None runs if the node lacks memory or disk for one of them, or may lack it for a script.
fn exec(client: &mut Client<'_>, _: &[&[u8]]) -> Outcome<'static> {
    let Some(queue) = client.session_mut().queue.take() else {
        return Err(CommandError::text("ERR EXEC without MULTI"));
    };
    let broken_watch = client.is_watch_broken();
    client.unwatch();
    if queue.crosses_slots && !broken_watch {
        return Err(Redirect::CrossSlot.into());
    }
    if queue.broken {
        return Err(CommandError::text("EXECABORT Transaction discarded because of previous errors."));
    }
    if let Some(error) = queue.requests.iter().find_map(|request| client.check_room(request).err()) {
        let text = format!("EXECABORT Transaction discarded because of: {error}");
        return Err(CommandError::Text(text.into()));
    }
    if broken_watch {
        return Ok(Reply::NullArray);
    }
    client.enter_block(queue.slot);
    let mut replies = Vec::with_capacity(queue.requests.len());
    for request in &queue.requests {
        if client.is_unit_too_large() {
            break; // It will be refused whole.
        }
        replies.push(execute(client, request));
    }
    Ok(Reply::Array(replies))
}

fn execute(client: &mut Client<'_>, request: &Queued) -> Reply<'static> {
    let words = request.words();
    let call = client.begin_call(request.command);
    let outcome = match request.command.run {
        Run::Read(_) | Run::Write(_) => client.execute(request.command, &words),
        Run::Session(run) | Run::Script(run, _) => run(client, &words).inspect(|reply| client.weigh(reply)),
        Run::Queue(_) | Run::Container => unreachable!("never queued"),
    };
    let reply = match outcome {
        // Several replies in the place of one would break the frame of the array.
        Ok(Reply::Several(replies)) if replies.len() != 1 => Reply::Array(replies),
        Ok(reply) => reply,
        Err(error) => error.into(),
    };
    client.end_call(request.command, call, &reply);
    reply
}
