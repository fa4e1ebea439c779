//! `SLOWLOG`.

use moonraft_proto::Reply;

use super::{
    Arity, Client, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::parse_integer,
    help::{help, unknown_form},
    slow_requests::SlowRequest,
};

/// A row of `SLOWLOG`.
const ROW: Command = Command {
    family: Family::Server,
    parent: Some("slowlog"),
    arity: Arity::Exactly(2),
    flags: &[Flag::Admin, Flag::Stale],
    ..Command::BASE
};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command { name: "slowlog", parent: None, arity: Arity::AtLeast(2), flags: &[], ..ROW },
    Command {
        name: "get",
        arity: Arity::AtLeast(2),
        run: Run::Session(get),
        tips: &["request_policy:all_nodes", "nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "len",
        run: Run::Session(|client, _| Ok(Reply::count(client.slow_log().len()))),
        tips: &["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "reset",
        run: Run::Session(|client, _| {
            client.slow_log().clear();
            Ok(Reply::OK)
        }),
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        ..ROW
    },
    Command {
        name: "help",
        flags: &[Flag::Stale],
        run: Run::Session(|_, _| Ok(help("SLOWLOG", HELP))),
        ..ROW
    },
];

const HELP: &[&str] = &[
    "GET [<count>]",
    "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
    "    Entries are made of:",
    "    id, timestamp, time in microseconds, arguments array, client IP and port,",
    "    client name",
    "LEN",
    "    Return the length of the slowlog.",
    "RESET",
    "    Reset the slowlog.",
];

/// `SLOWLOG GET [count]`: the newest first; -1 for all.
fn get(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    const DEFAULT: usize = 10;
    const BAD: CommandError = CommandError::text("ERR count should be greater than or equal to -1");
    let count = match words[2..] {
        [] => DEFAULT,
        [count] => match parse_integer(count).ok_or(BAD)? {
            -1 => usize::MAX,
            count => usize::try_from(count).map_err(|_| BAD)?,
        },
        _ => return Err(unknown_form(words[1], "SLOWLOG")),
    };

    Ok(Reply::Array(client.slow_log().iter().take(count).map(entry).collect()))
}

fn entry(slow: &SlowRequest) -> Reply<'static> {
    Reply::Array(vec![
        Reply::Int(slow.id as i64),
        Reply::Int((slow.at_us / 1_000_000) as i64),
        Reply::Int(slow.took_us as i64),
        Reply::Array(slow.words.iter().map(|word| Reply::Bulk(word.to_vec().into())).collect()),
        Reply::text(&slow.peer_address),
        Reply::text(&slow.name),
    ])
}
