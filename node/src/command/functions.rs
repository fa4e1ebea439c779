//! `FUNCTION` and `FCALL`: libraries of functions. Those are called by the shard, as scripts are.
//!
//! A library is state of the shard with all that it registered, so loading it, or restoring some, is one change:
//! their texts are run first, one after the other, and nothing is changed if one of them is refused.
//!
//! Source: `functions.c` of Redis 7.0, for the error texts and their order.

use moonraft_proto::{Effect, Reply, effect::LIBRARIES_FORMAT};
use moonraft_router::Keys;

use super::{
    Arity, Client, Command, CommandError, Eval, Family, Flag, Outcome, Run, Subject,
    arguments::is,
    help::{help, unknown_form},
    key_specs::{KeyFlag, uses},
    rdb::{self, BadLibraries},
    scripting,
};
use crate::{
    glob,
    keyspace::libraries::{Libraries, Library},
    script::{Metadata, RegisteredFunction},
};

/// A subcommand of `FUNCTION`.
const ROW: Command = Command {
    family: Family::Scripting,
    parent: Some("function"),
    arity: Arity::Exactly(2),
    flags: &[Flag::NoScript],
    ..Command::BASE
};

/// One that changes which libraries there are.
const CHANGE: Command = Command {
    flags: &[Flag::NoScript, Flag::OnData, Flag::Changes],
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    ..ROW
};

/// One that brings libraries.
const BRING: Command = Command {
    arity: Arity::AtLeast(3),
    flags: &[Flag::NoScript, Flag::OnData, Flag::Changes, Flag::DenyOom],
    format: LIBRARIES_FORMAT,
    ..CHANGE
};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    // `FCALL function numkeys [key …] [argument …]`
    Command {
        name: "fcall",
        key_flags: &[&[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update]],
        run: Run::Eval(Eval { subject: Subject::Function, read_only: false }),
        ..scripting::ROW
    },
    Command {
        name: "fcall_ro",
        key_flags: &[uses::READ],
        run: Run::Eval(Eval { subject: Subject::Function, read_only: true }),
        ..scripting::ROW
    },
    Command { name: "function", parent: None, arity: Arity::AtLeast(2), keys: Keys::None, flags: &[], ..ROW },
    Command { name: "load", run: Run::Session(load), ..BRING },
    Command { name: "restore", run: Run::Session(restore), ..BRING },
    Command { name: "delete", arity: Arity::Exactly(3), run: Run::Session(delete), ..CHANGE },
    Command { name: "flush", arity: Arity::AtLeast(2), run: Run::Session(flush), ..CHANGE },
    Command {
        name: "list",
        arity: Arity::AtLeast(2),
        flags: &[Flag::NoScript, Flag::OnData],
        run: Run::Session(list),
        tips: &["nondeterministic_output_order"],
        ..ROW
    },
    Command { name: "dump", flags: &[Flag::NoScript, Flag::OnData], run: Run::Session(dump), ..ROW },
    Command {
        name: "stats",
        flags: &[Flag::NoScript, Flag::AllowBusy],
        run: Run::Session(stats),
        tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
        ..ROW
    },
    Command {
        name: "kill",
        flags: &[Flag::NoScript, Flag::AllowBusy, Flag::Stale],
        run: Run::Session(kill),
        tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
        ..ROW
    },
    Command {
        name: "help",
        flags: &[Flag::Stale],
        run: Run::Session(|_, _| Ok(help("FUNCTION", HELP))),
        ..ROW
    },
];

/// A library whose text was run.
struct Loaded<'a> {
    name: Vec<u8>,
    code: &'a [u8],
    functions: Vec<RegisteredFunction>,
}

fn function_exists(name: &[u8]) -> CommandError {
    CommandError::about("ERR Function ", name, " already exists")
}

/// Makes the shard know a library.
fn put(client: &mut dyn Client, library: &Loaded<'_>) {
    let Loaded { name, code, functions } = library;
    client.tx().emit(Effect::LibraryPut { name, code });
    for RegisteredFunction { name: function, flags, description } in functions {
        client.tx().emit(Effect::FunctionPut {
            library: name,
            name: function,
            flags: flags.bits(),
            description: description.as_deref(),
        });
    }
}

/// `FUNCTION LOAD [REPLACE] code`
fn load(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let (code, options) = words[2..].split_last().ok_or(CommandError::Syntax)?;
    if let Some(unknown) = options.iter().find(|option| !is(option, "replace")) {
        return Err(CommandError::about("ERR Unknown option given: ", unknown, ""));
    }
    let Metadata { name, .. } = Metadata::of(code).map_err(CommandError::Text)?;
    if options.is_empty() && client.store().whole().libraries().get(&name).is_some() {
        return Err(CommandError::about("ERR Library '", &name, "' already exists"));
    }
    let functions = client.load_library(code, client.loading_ends_ns())?;
    let libraries = client.store().whole().libraries();
    let taken =
        |function: &&RegisteredFunction| libraries.home(&function.name).is_some_and(|home| home != name);
    if let Some(function) = functions.iter().find(taken) {
        return Err(function_exists(&function.name));
    }

    let library = Loaded { name, code, functions };
    put(client, &library);
    Ok(Reply::bulk(library.name))
}

/// `FUNCTION DELETE library`
fn delete(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let name = words[2];
    if client.store().whole().libraries().get(name).is_none() {
        return Err(CommandError::text("ERR Library not found"));
    }
    client.tx().emit(Effect::LibraryRemove { name });
    Ok(Reply::OK)
}

/// `FUNCTION FLUSH [ASYNC | SYNC]`
fn flush(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    match words[2..] {
        [] => {}
        [word] if is(word, "async") || is(word, "sync") => {}
        [_] => return Err(CommandError::text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")),
        _ => return Err(unknown_form(words[1], "FUNCTION")),
    }
    client.forget_libraries();
    remove_all(client);
    Ok(Reply::OK)
}

fn remove_all(client: &mut dyn Client) {
    let libraries = client.store().whole().libraries();
    let names: Vec<Vec<u8>> = libraries.iter().map(|(name, _)| name.to_vec()).collect();
    for name in &names {
        client.tx().emit(Effect::LibraryRemove { name });
    }
}

/// `FUNCTION LIST [LIBRARYNAME pattern] [WITHCODE]`
fn list(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let (mut pattern, mut with_code) = (None, false);
    let mut rest = words[2..].iter();
    while let Some(word) = rest.next() {
        if !with_code && is(word, "withcode") {
            with_code = true;
        } else if pattern.is_none() && is(word, "libraryname") {
            const MISSING: CommandError = CommandError::text("ERR library name argument was not given");
            pattern = Some(*rest.next().ok_or(MISSING)?);
        } else {
            return Err(CommandError::about("ERR Unknown argument ", word, ""));
        }
    }
    let is_meant = |name: &[u8]| pattern.is_none_or(|pattern| glob::matches_any_case(pattern, name));
    let libraries = client.store().whole().libraries().iter().filter(|(name, _)| is_meant(name));
    Ok(Reply::Array(libraries.map(|(name, library)| told(name, library, with_code)).collect()))
}

/// What `FUNCTION LIST` tells of a library.
fn told(name: &[u8], library: &Library, with_code: bool) -> Reply<'static> {
    let key = |name: &str| Reply::text(name);
    let functions = library.functions().map(|(name, function)| {
        let description = function.description.as_ref();
        let flags = function.flags();
        Reply::Map(vec![
            (key("name"), Reply::bulk(name.to_vec())),
            (key("description"), description.map_or(Reply::Null, |text| Reply::bulk(text.to_vec()))),
            (key("flags"), Reply::Set(flags.names().map(Reply::status).collect())),
        ])
    });
    let mut facts = vec![
        (key("library_name"), Reply::bulk(name.to_vec())),
        (key("engine"), key("LUA")),
        (key("functions"), Reply::Array(functions.collect())),
    ];
    if with_code {
        facts.push((key("library_code"), Reply::bulk(library.code().to_vec())));
    }
    Reply::Map(facts)
}

/// `FUNCTION STATS`
fn stats(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let key = |name: &str| Reply::text(name);
    let running = client.running_function()?.map_or(Reply::Null, |running| {
        Reply::Map(vec![
            (key("name"), Reply::bulk(running.name)),
            (key("command"), Reply::bulks(running.words)),
            (key("duration_ms"), Reply::Int(running.ran_ms as i64)),
        ])
    });
    let libraries = client.store().whole().libraries();
    let counts = vec![
        (key("libraries_count"), Reply::count(libraries.len())),
        (key("functions_count"), Reply::count(libraries.function_count())),
    ];
    Ok(Reply::Map(vec![
        (key("running_script"), running),
        (key("engines"), Reply::Map(vec![(key("LUA"), Reply::Map(counts))])),
    ]))
}

/// `FUNCTION DUMP`
fn dump(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let libraries = client.store().whole().libraries();
    Ok(Reply::bulk(rdb::dump_libraries(libraries.iter().map(|(_, library)| &**library.code()))))
}

/// What becomes of libraries that are there when others are restored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// They stay, and none that is restored may have their names.
    Append,
    /// Those of the same names are replaced.
    Replace,
    /// They go.
    Flush,
}

/// `FUNCTION RESTORE payload [FLUSH | APPEND | REPLACE]`
fn restore(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    const BAD_POLICY: CommandError = CommandError::text(
        "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
    );
    let policy = match words[3..] {
        [] => Policy::Append,
        [word] if is(word, "append") => Policy::Append,
        [word] if is(word, "replace") => Policy::Replace,
        [word] if is(word, "flush") => Policy::Flush,
        [_] => return Err(BAD_POLICY),
        _ => return Err(unknown_form(words[1], "FUNCTION")),
    };
    let codes = rdb::restore_libraries(words[2]).map_err(|bad| {
        CommandError::text(match bad {
            BadLibraries::Footer => "ERR DUMP payload version or checksum are wrong",
            BadLibraries::OtherKind => "ERR given type is not a function",
            BadLibraries::Draft => "ERR Pre-GA function format not supported",
            BadLibraries::Content => "ERR failed loading the given functions payload",
        })
    })?;
    let ends_ns = client.loading_ends_ns();
    let mut loaded: Vec<Loaded<'_>> = Vec::new();
    for code in &codes {
        let library = load_another(client, code, &loaded, ends_ns)?;
        loaded.push(library);
    }
    if policy != Policy::Flush {
        check_beside(client.store().whole().libraries(), &loaded, policy)?;
    }

    if policy == Policy::Flush {
        remove_all(client);
    }
    loaded.iter().for_each(|library| put(client, library));
    Ok(Reply::OK)
}

/// Runs the text of a library that comes with others.
fn load_another<'a>(
    client: &mut dyn Client,
    code: &'a [u8],
    others: &[Loaded<'_>],
    ends_ns: u64,
) -> Result<Loaded<'a>, CommandError> {
    let Metadata { name, .. } = Metadata::of(code).map_err(CommandError::Text)?;
    if others.iter().any(|other| other.name == name) {
        return Err(CommandError::about("ERR Library '", &name, "' already exists"));
    }
    let functions = client.load_library(code, ends_ns)?;
    let known = |name: &[u8]| {
        let mut functions = others.iter().flat_map(|other| &other.functions);
        functions.any(|function| function.name.eq_ignore_ascii_case(name))
    };
    match functions.iter().find(|function| known(&function.name)) {
        Some(function) => Err(function_exists(&function.name)),
        None => Ok(Loaded { name, code, functions }),
    }
}

/// Refuses libraries that cannot stand beside those that are there.
fn check_beside(libraries: &Libraries, loaded: &[Loaded<'_>], policy: Policy) -> Result<(), CommandError> {
    let comes = |name: &[u8]| loaded.iter().any(|library| library.name == name);
    for library in loaded {
        if policy == Policy::Append && libraries.get(&library.name).is_some() {
            return Err(CommandError::about("ERR Library ", &library.name, " already exists"));
        }
    }
    let mut functions = loaded.iter().flat_map(|library| &library.functions);
    let taken = |name: &[u8]| libraries.home(name).is_some_and(|home| !comes(home));
    match functions.find(|function| taken(&function.name)) {
        Some(function) => Err(function_exists(&function.name)),
        None => Ok(()),
    }
}

/// `FUNCTION KILL`
fn kill(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    scripting::killed(client.kill_script(true))
}

const HELP: &[&str] = &[
    "LOAD [REPLACE] <FUNCTION CODE>",
    "    Create a new library with the given library name and code.",
    "DELETE <LIBRARY NAME>",
    "    Delete the given library.",
    "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
    "    Return general information on all the libraries:",
    "    * Library name",
    "    * The engine used to run the Library",
    "    * Library description",
    "    * Functions list",
    "    * Library code (if WITHCODE is given)",
    "    It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
    "STATS",
    "    Return information about the current function running:",
    "    * Function name",
    "    * Command used to run the function",
    "    * Duration in MS that the function is running",
    "    If no function is running, return nil",
    "    In addition, returns a list of available engines.",
    "KILL",
    "    Kill the current running function.",
    "FLUSH [ASYNC|SYNC]",
    "    Delete all the libraries.",
    "    When called without the optional mode argument, the behavior is determined by the",
    "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
    "    * ASYNC: Asynchronously flush the libraries.",
    "    * SYNC: Synchronously flush the libraries.",
    "DUMP",
    "    Return a serialized payload representing the current libraries, can be restored using FUNCTION RESTORE command",
    "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
    "    Restore the libraries represented by the given payload, it is possible to give a restore policy to",
    "    control how to handle existing libraries (default APPEND):",
    "    * FLUSH: delete all existing libraries.",
    "    * APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
    "    * REPLACE: appends the restored libraries to the existing libraries, On collision, replace the old",
    "      libraries with the new libraries (notice that even on this option there is a chance of failure",
    "      in case of functions name collision with another library).",
];
