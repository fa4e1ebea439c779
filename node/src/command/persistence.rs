//! Saving, copying and ending, as tools of Redis ask for them.
//!
//! What is acknowledged is on the disks of a majority: there is never anything to save. So `SAVE` and its like
//! are done as soon as they are asked for, and `LASTSAVE` is when that was, or when a snapshot was taken. Copies
//! are what Raft makes: what would make a replica of this server by Redis's own protocol says so.

use moonraft_proto::Reply;

use super::{Arity, Client, Command, CommandError, Family, Flag, Outcome, Run, arguments::is, help::help};

/// A row of this family.
const ROW: Command = Command {
    family: Family::Server,
    arity: Arity::Exactly(1),
    flags: &[Flag::Admin, Flag::NoScript, Flag::NotAsyncLoading],
    ..Command::BASE
};

/// A row of what replicates in Redis.
const REPLICATES: Command =
    Command { flags: &[Flag::Admin, Flag::NoScript, Flag::NotAsyncLoading, Flag::NoMulti], ..ROW };

/// `REPLICAOF`, by both of its names.
const REPLICAOF: Command = Command {
    arity: Arity::Exactly(3),
    flags: &[Flag::Admin, Flag::NoScript, Flag::Stale, Flag::NotLoading, Flag::NotAsyncLoading],
    run: Run::Session(|_, _| Err(CommandError::text("ERR REPLICAOF not allowed in cluster mode."))),
    ..ROW
};

/// What changes modules, of which there are none.
const MODULE: Command = Command {
    parent: Some("module"),
    arity: Arity::AtLeast(3),
    flags: &[Flag::Admin, Flag::NoScript, Flag::NotAsyncLoading, Flag::Protected],
    run: Run::Session(|_, _| Err(CommandError::ModulesNotAllowed)),
    ..ROW
};

const MODULE_HELP: &[&str] = &[
    "LIST",
    "    Return a list of loaded modules.",
    "LOAD <path> [<arg> ...]",
    "    Load a module library from <path>, passing to it any optional arguments.",
    "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
    "    Load a module library from <path>, while passing it module configurations and optional arguments.",
    "UNLOAD <name>",
    "    Unload a module.",
];

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "save", run: Run::Session(save), ..REPLICATES },
    Command { name: "bgsave", arity: Arity::AtLeast(1), run: Run::Session(bgsave), ..ROW },
    Command {
        name: "bgrewriteaof",
        run: Run::Session(|_, _| Ok(Reply::status("Background append only file rewriting started"))),
        ..ROW
    },
    Command {
        name: "lastsave",
        // In the category of operators, though not so flagged.
        flags: &[Flag::Admin, Flag::Stale, Flag::Fast],
        run: Run::Session(|client, _| Ok(Reply::Int((client.saved().0 / 1_000_000) as i64))),
        tips: &["nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "shutdown",
        arity: Arity::AtLeast(1),
        flags: &[Flag::Admin, Flag::NoScript, Flag::Stale, Flag::NoMulti, Flag::AllowBusy],
        run: Run::Session(shutdown),
        ..ROW
    },
    Command { name: "sync", run: Run::Session(not_replicated), ..REPLICATES },
    Command { name: "psync", arity: Arity::AtLeast(3), run: Run::Session(not_replicated), ..REPLICATES },
    Command {
        name: "replconf",
        arity: Arity::AtLeast(1),
        flags: &[Flag::Admin, Flag::NoScript, Flag::Stale, Flag::AllowBusy],
        run: Run::Session(not_replicated),
        ..ROW
    },
    Command { name: "replicaof", ..REPLICAOF },
    Command { name: "slaveof", ..REPLICAOF },
    Command {
        name: "failover",
        arity: Arity::AtLeast(1),
        flags: &[Flag::Admin, Flag::NoScript, Flag::Stale, Flag::NotLoading],
        run: Run::Session(|_, _| {
            Err(CommandError::text(
                "ERR FAILOVER not allowed in cluster mode. Use CLUSTER FAILOVER command instead.",
            ))
        }),
        ..ROW
    },
    Command { name: "module", arity: Arity::AtLeast(2), flags: &[], run: Run::Container, ..ROW },
    Command { name: "load", ..MODULE },
    Command { name: "loadex", ..MODULE },
    Command { name: "unload", arity: Arity::Exactly(3), ..MODULE },
    Command {
        name: "list",
        parent: Some("module"),
        arity: Arity::Exactly(2),
        flags: &[Flag::Admin, Flag::NoScript],
        run: Run::Session(|_, _| Ok(Reply::Array(Vec::new()))),
        tips: &["nondeterministic_output_order"],
        ..ROW
    },
    Command {
        name: "help",
        parent: Some("module"),
        arity: Arity::Exactly(2),
        flags: &[Flag::Stale],
        run: Run::Session(|_, _| Ok(help("MODULE", MODULE_HELP))),
        ..ROW
    },
];

/// `SAVE`
fn save(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    client.note_saved();
    Ok(Reply::OK)
}

/// `BGSAVE [SCHEDULE]`
fn bgsave(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    match words {
        [_] => {}
        [_, option] if is(option, "schedule") => {}
        _ => return Err(CommandError::Syntax),
    }
    client.note_saved();
    Ok(Reply::status("Background saving started"))
}

/// `SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]`
///
/// The node ends as if it had been sent `SIGTERM`, whatever is asked beside: it never loses what is acknowledged,
/// so that there is nothing to choose. One that is ending cannot be stopped from it.
fn shutdown(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let asked = |option| words[1..].iter().filter(move |word| is(word, option)).count() > 0;
    let known = ["nosave", "save", "now", "force", "abort"];
    let all_known = words[1..].iter().all(|word| known.iter().any(|option| is(word, option)));
    if !all_known || asked("nosave") && asked("save") || asked("abort") && words.len() > 2 {
        return Err(CommandError::Syntax);
    }
    if asked("abort") {
        return Err(CommandError::text("ERR No shutdown in progress."));
    }

    client.shut_down();
    // The end of the connection is the answer.
    Ok(Reply::Nothing)
}

/// `SYNC`, `PSYNC`, `REPLCONF`
fn not_replicated(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let name = String::from_utf8_lossy(words[0]).to_ascii_uppercase();
    let text =
        format!("ERR {name} is not supported: replicas are those of the cluster file, and follow by Raft");
    Err(CommandError::Text(text.into()))
}
