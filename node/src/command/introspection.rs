//! `COMMAND`: what the table says, told to clients.

use moonraft_proto::Reply;
use moonraft_router::Keys;

use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::is,
    documentation, find, find_child,
    key_specs::{Begin, Find, KeyFlag, KeySpec},
    object::help,
    resolve, rows,
    table::children,
};
use crate::{glob, keyspace::Tx};

/// Names that `COMMAND INFO` and `COMMAND DOCS` describe at once.
const NAMES_MAX: usize = 10_000;

/// A row of this family.
const ROW: Command = Command {
    family: Family::Server,
    categories: &[Family::Connection],
    flags: &[Flag::Stale],
    ..Command::BASE
};

const CHILD: Command = Command { parent: Some("command"), arity: Arity::AtLeast(2), ..ROW };

const UNORDERED: &[&str] = &["nondeterministic_output_order"];

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "command",
        run: Run::Read(|_, _| Ok(Reply::Array(top().map(described).collect()))),
        tips: UNORDERED,
        ..ROW
    },
    Command {
        name: "count",
        arity: Arity::Exactly(2),
        run: Run::Read(|_, _| Ok(Reply::count(top().count()))),
        ..CHILD
    },
    Command { name: "info", run: Run::Read(info), tips: UNORDERED, ..CHILD },
    Command { name: "list", run: Run::Read(list), tips: UNORDERED, ..CHILD },
    Command { name: "docs", run: Run::Read(docs), tips: UNORDERED, ..CHILD },
    Command {
        name: "getkeys",
        arity: Arity::AtLeast(4),
        run: Run::Read(|_, words| get_keys(words, false)),
        ..CHILD
    },
    Command {
        name: "getkeysandflags",
        arity: Arity::AtLeast(4),
        run: Run::Read(|_, words| get_keys(words, true)),
        ..CHILD
    },
    Command { name: "help", arity: Arity::Exactly(2), run: Run::Read(|_, _| Ok(help(HELP))), ..CHILD },
];

const HELP: &[&str] = &[
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    Return details about all Redis commands.",
    "COUNT",
    "    Return the total number of commands in this Redis server.",
    "LIST",
    "    Return a list of all commands in this Redis server.",
    "INFO [<command-name> ...]",
    "    Return details about multiple Redis commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "DOCS [<command-name> ...]",
    "    Return documentation details about multiple Redis commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "GETKEYS <full-command>",
    "    Return the keys from a full Redis command.",
    "GETKEYSANDFLAGS <full-command>",
    "    Return the keys and the access flags from a full Redis command.",
    "HELP",
    "    Prints this help.",
];

/// Rows that are no subcommands.
fn top() -> impl Iterator<Item = &'static Command> {
    rows().filter(|row| row.parent.is_none())
}

/// The row of a name, which is `parent|child` for a subcommand.
fn named(name: &[u8]) -> Option<&'static Command> {
    match name.iter().position(|&byte| byte == b'|') {
        None => find(name),
        Some(bar) => find_child(find(&name[..bar])?.name, &name[bar + 1..]),
    }
}

fn name_of(row: &Command) -> Reply<'static> {
    Reply::text(row.full_name())
}

fn statuses(names: Vec<&'static str>) -> Reply<'static> {
    Reply::Set(names.into_iter().map(Reply::status).collect())
}

fn flag_names(flags: &[KeyFlag]) -> Reply<'static> {
    statuses(flags.iter().map(|flag| flag.name()).collect())
}

fn map(pairs: Vec<(&'static str, Reply<'static>)>) -> Reply<'static> {
    Reply::Map(pairs.into_iter().map(|(name, value)| (Reply::text(name), value)).collect())
}

/// The ten elements that `COMMAND` tells of each command.
fn described(row: &'static Command) -> Reply<'static> {
    let (first, last, step) = row.key_range();
    let tips = row.tips.iter().map(|tip| Reply::text(*tip)).collect();
    let below: Vec<_> =
        if row.parent.is_none() { children(row.name).map(described).collect() } else { vec![] };
    Reply::Array(vec![
        name_of(row),
        Reply::Int(row.arity.shown()),
        statuses(row.flag_names()),
        Reply::Int(first),
        Reply::Int(last),
        Reply::Int(step),
        statuses(row.category_names()),
        Reply::Set(tips),
        Reply::Set(
            row.key_specs().iter().enumerate().map(|(nth, spec)| key_spec(spec, row.key_note(nth))).collect(),
        ),
        // As Redis: a list of those there are, or the empty set.
        if below.is_empty() { Reply::Set(below) } else { Reply::Array(below) },
    ])
}

fn key_spec(spec: &KeySpec, note: Option<&'static str>) -> Reply<'static> {
    let (begin, begin_spec) = match spec.begin {
        Begin::Index(at) => ("index", vec![("index", Reply::count(at))]),
        Begin::Keyword(token, from) => (
            "keyword",
            vec![("keyword", Reply::text(token.to_ascii_uppercase())), ("startfrom", Reply::count(from))],
        ),
        Begin::Unknown => ("unknown", vec![]),
    };
    let range = |last: isize, step, limit| {
        let last = ("lastkey", Reply::Int(last as i64));
        vec![last, ("keystep", Reply::count(step)), ("limit", Reply::Int(limit))]
    };
    let keynum =
        |step| vec![("keynumidx", Reply::Int(0)), ("firstkey", Reply::Int(1)), ("keystep", Reply::Int(step))];
    let (find, find_spec) = match spec.find {
        Find::Range { last, step } => ("range", range(last, step, 0)),
        Find::FirstHalf => ("range", range(-1, 1, 2)),
        Find::Counted => ("keynum", keynum(1)),
        Find::CountedPairs => ("keynum", keynum(2)),
        Find::Unknown => ("unknown", vec![]),
    };
    let place = |kind: &'static str, spec| map(vec![("type", Reply::text(kind)), ("spec", map(spec))]);
    let mut facts: Vec<_> = note.map(|note| ("notes", Reply::text(note))).into_iter().collect();
    facts.extend([
        ("flags", flag_names(spec.flags)),
        ("begin_search", place(begin, begin_spec)),
        ("find_keys", place(find, find_spec)),
    ]);
    map(facts)
}

/// Refuses more names than are described in a moment.
const fn check_names(words: &[&[u8]]) -> Result<(), CommandError> {
    match words.len() > NAMES_MAX {
        true => Err(CommandError::text("ERR too many names")),
        false => Ok(()),
    }
}

/// `COMMAND INFO [name …]`: null for a name that is none.
fn info<'a>(_tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    check_names(words)?;
    if words.len() == 2 {
        return Ok(Reply::Array(top().map(described).collect()));
    }
    let told = words[2..].iter().map(|name| named(name).map_or(Reply::Null, described));
    Ok(Reply::Array(told.collect()))
}

/// `COMMAND DOCS [name …]`: nothing for a name that is none.
fn docs<'a>(_tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    check_names(words)?;
    let documented = |row: &'static Command| (name_of(row), documentation::of(row));
    Ok(Reply::Map(match words.len() {
        2 => top().map(documented).collect(),
        _ => words[2..].iter().filter_map(|name| named(name)).map(documented).collect(),
    }))
}

/// `COMMAND LIST [FILTERBY <MODULE name | ACLCAT category | PATTERN pattern>]`
fn list<'a>(_tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let in_category =
        |row: &Command, category: &[u8]| row.category_names().iter().any(|name| is(category, &name[1..]));
    let wanted: Box<dyn Fn(&Command) -> bool + '_> = match words[2..] {
        [] => Box::new(|_| true),
        [filter, by, _] if is(filter, "filterby") && is(by, "module") => Box::new(|_| false),
        [filter, by, category] if is(filter, "filterby") && is(by, "aclcat") => {
            Box::new(move |row| in_category(row, category))
        }
        [filter, by, pattern] if is(filter, "filterby") && is(by, "pattern") => {
            Box::new(move |row| glob::matches_any_case(pattern, row.full_name().as_bytes()))
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok(Reply::Array(rows().filter(|row| wanted(row)).map(name_of).collect()))
}

/// `COMMAND GETKEYS command [word …]`, `COMMAND GETKEYSANDFLAGS command [word …]`
fn get_keys<'a>(words: &[&'a [u8]], with_flags: bool) -> Outcome<'a> {
    let request = &words[2..];
    let row = resolve(request).map_err(|_| CommandError::text("ERR Invalid command specified"))?;
    if row.keys == Keys::None || row.key_flags_of(0).contains(&KeyFlag::NotKey) {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    row.check_arity(request)
        .map_err(|_| CommandError::text("ERR Invalid number of arguments specified for command"))?;
    let positions = match (row.keys.positions_by_place(request), row.run) {
        (Ok(positions), _) if !positions.is_empty() || !matches!(row.keys, Keys::FirstHalf { .. }) => {
            positions
        }
        (Err(_), Run::Eval(_)) => return Ok(Reply::Array(Vec::new())),
        _ => return Err(CommandError::text("ERR Invalid arguments specified for command")),
    };
    let narrowed = row.narrowed_key_flags.map(|narrow| narrow(request));
    let flags_of = |nth| narrowed.unwrap_or_else(|| row.key_flags_of(nth));
    let key = |(nth, &at): (usize, &usize)| {
        let key = Reply::bulk(request[at]);
        if with_flags { Reply::Array(vec![key, flag_names(flags_of(nth))]) } else { key }
    };
    Ok(Reply::Array(positions.iter().enumerate().map(key).collect()))
}
