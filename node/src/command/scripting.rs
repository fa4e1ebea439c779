//! Lua scripts. They are run by the shard.

use moonraft_proto::{Effect, Reply};
use moonraft_router::Keys;

use super::{
    Arity, Client, Command, CommandError, Eval, Family, Flag, Outcome, Run, Subject, arguments::is,
    client::Kill,
};

/// A row of this family: a script with its keys.
pub(super) const ROW: Command = Command {
    family: Family::Scripting,
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 2, also: None },
    flags: &[Flag::NoScript],
    ..Command::BASE
};

/// A subcommand of `SCRIPT`.
const CHILD: Command =
    Command { family: Family::Scripting, parent: Some("script"), flags: &[Flag::NoScript], ..Command::BASE };

/// A subcommand of `SCRIPT` that works with the scripts the shard knows.
const KNOWN: Command = Command { flags: &[Flag::NoScript, Flag::OnData], ..CHILD };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    // `EVAL script numkeys [key …] [argument …]`
    Command { name: "eval", run: Run::Eval(Eval { subject: Subject::Text, read_only: false }), ..ROW },
    // `EVALSHA sha1 numkeys [key …] [argument …]`
    Command { name: "evalsha", run: Run::Eval(Eval { subject: Subject::Sha1, read_only: false }), ..ROW },
    Command { name: "eval_ro", run: Run::Eval(Eval { subject: Subject::Text, read_only: true }), ..ROW },
    Command { name: "evalsha_ro", run: Run::Eval(Eval { subject: Subject::Sha1, read_only: true }), ..ROW },
    Command { name: "script", arity: Arity::AtLeast(2), keys: Keys::None, flags: &[], ..ROW },
    Command {
        name: "load",
        arity: Arity::Exactly(3),
        run: Run::Session(load),
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        ..KNOWN
    },
    Command { name: "debug", arity: Arity::Exactly(3), run: Run::Session(debug), ..CHILD },
    Command {
        name: "exists",
        arity: Arity::AtLeast(3),
        run: Run::Session(exists),
        tips: &["request_policy:all_shards", "response_policy:agg_logical_and"],
        ..KNOWN
    },
    Command {
        name: "flush",
        arity: Arity::AtLeast(2),
        run: Run::Session(flush),
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        ..KNOWN
    },
    Command {
        name: "kill",
        arity: Arity::Exactly(2),
        flags: &[Flag::NoScript, Flag::AllowBusy, Flag::Stale],
        run: Run::Session(kill),
        tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
        ..CHILD
    },
    Command {
        name: "help",
        arity: Arity::Exactly(2),
        flags: &[Flag::Stale],
        run: Run::Session(help),
        ..CHILD
    },
];

/// `SCRIPT LOAD script`
///
/// At a leader the script becomes part of the shard's state. Clients ask every node, so that a
/// follower answers too: it remembers the script as a leader does one that `EVAL` sent, for
/// `EVALSHA_RO` here, and for `EVALSHA` should it lead one day.
fn load(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let text = words[2];
    let name = client.load_script(text)?;
    if !client.store().is_leading() {
        // Even if it is loaded: the leader may have been told to forget it since.
        client.remember_script(name, text);
    } else if client.store().script(&name).is_none() {
        client.tx().emit(Effect::ScriptLoad { text });
    }
    Ok(Reply::Bulk(name.to_vec().into()))
}

/// `SCRIPT EXISTS sha1 [sha1 …]`
fn exists(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let known = words[2..].iter().map(|name| Reply::flag(client.knows_script(name)));
    Ok(Reply::Array(known.collect()))
}

/// `SCRIPT FLUSH [ASYNC | SYNC]`
///
/// A follower forgets what it has seen itself; what was loaded goes when its leader is asked.
fn flush(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let known = words.len() == 2 || words.len() == 3 && (is(words[2], "async") || is(words[2], "sync"));
    if !known {
        return Err(CommandError::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    client.forget_scripts();
    if client.store().is_leading() && !client.store().whole().scripts().is_empty() {
        client.tx().emit(Effect::ScriptFlush);
    }
    Ok(Reply::OK)
}

/// `SCRIPT DEBUG YES | SYNC | NO`
///
/// There is no debugger: a script that stood still would hold its shard.
fn debug(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    match words[2] {
        word if is(word, "no") => Ok(Reply::OK),
        word if is(word, "yes") || is(word, "sync") => Err(CommandError::text(
            "ERR there is no debugger of scripts: one that stands still would hold its shard",
        )),
        _ => Err(CommandError::text("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
    }
}

/// `SCRIPT KILL`
///
/// Heard of only while a script is over its time; before, the request waits.
fn kill(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    killed(client.kill_script(false))
}

/// What `SCRIPT KILL` and `FUNCTION KILL` answer.
pub(super) fn killed(kill: Kill) -> Outcome<'static> {
    match kill {
        Kill::Done => Ok(Reply::OK),
        Kill::NotBusy => Err(CommandError::text("NOTBUSY No scripts in execution right now.")),
        Kill::Other(busy) => Err(busy),
    }
}

/// `SCRIPT HELP`
fn help(_: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    const LINES: &[&str] = &[
        "SCRIPT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "EXISTS <sha1> [<sha1> ...]",
        "    Return information about the existence of the scripts in the script cache.",
        "FLUSH [ASYNC|SYNC]",
        "    Flush the Lua scripts cache. Very dangerous on replicas.",
        "KILL",
        "    Kill the currently executing Lua script, even if it has written: its effects are undone.",
        "LOAD <script>",
        "    Load a script into the scripts cache without executing it.",
        "HELP",
        "    Prints this help.",
    ];
    Ok(Reply::Array(LINES.iter().map(|&line| Reply::status(line)).collect()))
}
