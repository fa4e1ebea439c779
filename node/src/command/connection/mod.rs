//! The connection itself: handshake, names, modes, its end.
//!
//! There is one user, `default`, who needs no password: `AUTH` answers as Redis
//! does while none is set.

mod list;
mod tracking;

use moonraft_proto::{Protocol, Reply};
use moonraft_router::Keys;

use super::{
    Arity, Client, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{integer, integer32, is, parse_integer},
    client::Pause,
    help::help,
    session::{ReplyMode, Session},
    subscribe,
};
use crate::keyspace::Tx;

/// What a client is told the server's version is: that of the Redis whose
/// commands these are.
pub const REDIS_VERSION: &str = "7.2.4";

/// A row of this family.
const ROW: Command =
    Command { family: Family::Connection, flags: &[Flag::Fast, Flag::Stale], ..Command::BASE };

/// A row of the handshake.
const HANDSHAKE: Command =
    Command { flags: &[Flag::NoScript, Flag::Stale, Flag::Fast, Flag::NoAuth, Flag::AllowBusy], ..ROW };

/// A row of `CLIENT`.
const CLIENT: Command =
    Command { parent: Some("client"), flags: &[Flag::NoScript, Flag::Stale, Flag::KeepsCaching], ..ROW };

/// A row of `CLIENT` for operators.
const ADMIN: Command =
    Command { flags: &[Flag::Admin, Flag::NoScript, Flag::Stale, Flag::KeepsCaching], ..CLIENT };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "ping",
        flags: &[Flag::Fast, Flag::Listening],
        run: Run::Session(ping),
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        ..ROW
    },
    Command { name: "echo", arity: Arity::Exactly(2), run: Run::Read(echo), ..ROW },
    Command { name: "hello", run: Run::Session(hello), secrets: Some(of_hello), ..HANDSHAKE },
    Command {
        name: "auth",
        arity: Arity::AtLeast(2),
        run: Run::Session(auth),
        secrets: Some(|words| 1..words.len()),
        ..HANDSHAKE
    },
    Command { name: "select", arity: Arity::Exactly(2), run: Run::Read(select), ..ROW },
    Command {
        name: "reset",
        arity: Arity::Exactly(1),
        flags: &[
            Flag::NoScript,
            Flag::Stale,
            Flag::Fast,
            Flag::NoAuth,
            Flag::AllowBusy,
            Flag::Immediate,
            Flag::Listening,
        ],
        run: Run::Session(reset),
        ..ROW
    },
    Command {
        name: "quit",
        flags: &[
            Flag::NoScript,
            Flag::Stale,
            Flag::Fast,
            Flag::NoAuth,
            Flag::AllowBusy,
            Flag::Immediate,
            Flag::Listening,
        ],
        run: Run::Session(|client, _| mark(client, |session| session.closing = true)),
        ..ROW
    },
    Command {
        name: "readonly",
        arity: Arity::Exactly(1),
        run: Run::Session(|client, _| mark(client, |session| session.read_only = true)),
        family: Family::Cluster,
        categories: &[Family::Connection],
        ..ROW
    },
    Command {
        name: "readwrite",
        arity: Arity::Exactly(1),
        run: Run::Session(|client, _| mark(client, |session| session.read_only = false)),
        family: Family::Cluster,
        categories: &[Family::Connection],
        ..ROW
    },
    Command {
        name: "asking",
        arity: Arity::Exactly(1),
        flags: &[Flag::Fast, Flag::Asking],
        // No slot is served by two shards at once, so there is nothing to ask for: as in Redis, a
        // node that imports no slot answers the next request as any other.
        run: Run::Session(|client, _| mark(client, |_| ())),
        family: Family::Cluster,
        categories: &[Family::Connection],
        ..ROW
    },
    Command { name: "client", arity: Arity::AtLeast(2), keys: Keys::None, flags: &[], ..ROW },
    Command { name: "caching", arity: Arity::Exactly(3), run: Run::Session(tracking::caching), ..CLIENT },
    Command { name: "getname", arity: Arity::Exactly(2), run: Run::Session(getname), ..CLIENT },
    Command { name: "getredir", arity: Arity::Exactly(2), run: Run::Session(tracking::getredir), ..CLIENT },
    Command {
        name: "help",
        arity: Arity::Exactly(2),
        flags: &[Flag::Stale, Flag::KeepsCaching],
        run: Run::Session(client_help),
        ..CLIENT
    },
    Command { name: "id", arity: Arity::Exactly(2), run: Run::Session(id), ..CLIENT },
    Command {
        name: "info",
        arity: Arity::Exactly(2),
        run: Run::Session(list::info),
        tips: &["nondeterministic_output"],
        ..CLIENT
    },
    Command { name: "kill", arity: Arity::AtLeast(3), run: Run::Session(list::kill), ..ADMIN },
    Command {
        name: "list",
        arity: Arity::AtLeast(2),
        run: Run::Session(list::list),
        tips: &["nondeterministic_output"],
        ..ADMIN
    },
    Command { name: "no-evict", arity: Arity::Exactly(3), run: Run::Session(no_evict), ..ADMIN },
    Command { name: "no-touch", arity: Arity::Exactly(3), run: Run::Session(no_touch), ..CLIENT },
    Command { name: "pause", arity: Arity::AtLeast(3), run: Run::Session(pause), ..ADMIN },
    Command {
        name: "reply",
        arity: Arity::Exactly(3),
        // One reply fewer inside that of `EXEC` would leave its client waiting: refused, as Valkey 9 does.
        flags: &[Flag::NoScript, Flag::Stale, Flag::NoMulti, Flag::KeepsCaching],
        run: Run::Session(reply),
        ..CLIENT
    },
    Command { name: "setinfo", arity: Arity::Exactly(4), run: Run::Session(setinfo), ..CLIENT },
    Command { name: "setname", arity: Arity::Exactly(3), run: Run::Session(setname), ..CLIENT },
    Command { name: "tracking", arity: Arity::AtLeast(3), run: Run::Session(tracking::tracking), ..CLIENT },
    Command {
        name: "trackinginfo",
        arity: Arity::Exactly(2),
        run: Run::Session(tracking::trackinginfo),
        ..CLIENT
    },
    Command { name: "unblock", arity: Arity::AtLeast(3), run: Run::Session(unblock), ..ADMIN },
    Command { name: "unpause", arity: Arity::Exactly(2), run: Run::Session(unpause), ..ADMIN },
];

/// `PING [message]`
///
/// A RESP2 connection that listens is answered in the form of a message.
fn ping(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let message = match words {
        [_] => None,
        [_, message] => Some(message.to_vec()),
        _ => return Err(CommandError::Arity("ping".into())),
    };
    if client.session().is_listening_only() {
        return Ok(Reply::Array(vec![Reply::text("pong"), Reply::bulk(message.unwrap_or_default())]));
    }
    Ok(message.map_or(Reply::status("PONG"), Reply::bulk))
}

/// `ECHO message`
fn echo<'a>(_: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::bulk(words[1]))
}

/// What `HELLO` asks for beside the protocol.
#[derive(Default)]
struct Hello<'a> {
    user: Option<&'a [u8]>,
    name: Option<String>,
}

/// `HELLO [protover [AUTH username password] [SETNAME clientname]]`
fn hello(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let protocol = words.get(1).map(|word| protocol(word)).transpose()?;
    let asked = hello_options(words.get(2..).unwrap_or_default())?;
    if asked.user.is_some_and(|user| user != b"default") {
        return Err(WRONG_PASSWORD);
    }

    if let Some(name) = asked.name {
        client.session_mut().name = name;
    }
    if let Some(protocol) = protocol {
        client.session_mut().protocol = protocol;
    }
    let session = client.session();
    let number = if session.protocol == Protocol::Resp3 { 3 } else { 2 };
    let role = if client.standing().is_leading() { "master" } else { "replica" };
    Ok(Reply::Map(vec![
        (Reply::text("server"), Reply::text("redis")),
        (Reply::text("version"), Reply::text(REDIS_VERSION)),
        (Reply::text("proto"), Reply::Int(number)),
        (Reply::text("id"), Reply::Int(session.number as i64)),
        (Reply::text("mode"), Reply::text("cluster")),
        (Reply::text("role"), Reply::text(role)),
        (Reply::text("modules"), Reply::Array(vec![])),
    ]))
}

fn protocol(word: &[u8]) -> Result<Protocol, CommandError> {
    match parse_integer(word) {
        None => Err(CommandError::text("ERR Protocol version is not an integer or out of range")),
        Some(2) => Ok(Protocol::Resp2),
        Some(3) => Ok(Protocol::Resp3),
        Some(_) => Err(CommandError::text("NOPROTO unsupported protocol version")),
    }
}

fn hello_options<'a>(mut words: &[&'a [u8]]) -> Result<Hello<'a>, CommandError> {
    let mut asked = Hello::default();
    loop {
        words = match words {
            [] => return Ok(asked),
            [option, user, _password, rest @ ..] if is(option, "auth") => {
                asked.user = Some(user);
                rest
            }
            [option, name, rest @ ..] if is(option, "setname") => {
                asked.name = Some(client_name(name)?);
                rest
            }
            [option, ..] => {
                return Err(CommandError::about("ERR Syntax error in HELLO option '", option, "'"));
            }
        }
    }
}

const WRONG_PASSWORD: CommandError =
    CommandError::text("WRONGPASS invalid username-password pair or user is disabled.");

/// `AUTH [username] password`
///
/// The default user needs no password, so that any is right.
fn auth(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    match words {
        [_, _] => Err(CommandError::text(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        )),
        [_, user, _] if *user == b"default" => Ok(Reply::OK),
        [_, _, _] => Err(WRONG_PASSWORD),
        _ => Err(CommandError::Syntax),
    }
}

/// `SELECT index`
fn select<'a>(_: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    match integer32(words[1])? {
        0 => Ok(Reply::OK),
        _ => Err(CommandError::text("ERR SELECT is not allowed in cluster mode")),
    }
}

/// `RESET`
///
/// The library's name and version stay, as in Redis.
fn reset(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    client.unwatch();
    client.monitor(false);
    client.track(None);
    subscribe::end_all(client);
    let session = client.session_mut();
    session.queue = None;
    session.name.clear();
    session.protocol = Protocol::Resp2;
    if session.reply_mode == ReplyMode::Off {
        session.reply_mode = ReplyMode::On;
    }
    session.read_only = false;
    session.no_evict = false;
    session.no_touch = false;
    Ok(Reply::status("RESET"))
}

/// Who `HELLO … AUTH user password` names, and by which word.
fn of_hello(words: &[&[u8]]) -> std::ops::Range<usize> {
    words.iter().position(|word| is(word, "auth")).map_or(0..0, |at| at + 1..at + 3)
}

/// `QUIT`, `READONLY`, `READWRITE`, `ASKING`: each sets a mark on the session.
fn mark(client: &mut dyn Client, set: impl FnOnce(&mut Session)) -> Outcome<'static> {
    set(client.session_mut());
    Ok(Reply::OK)
}

// ---- CLIENT ----------------------------------------------------------------

/// A name of a client or its library: it stands in the lines of `CLIENT LIST`.
fn plain_word(word: &[u8]) -> Option<String> {
    word.iter().all(u8::is_ascii_graphic).then(|| String::from_utf8_lossy(word).into_owned())
}

fn client_name(word: &[u8]) -> Result<String, CommandError> {
    const BAD: CommandError =
        CommandError::text("ERR Client names cannot contain spaces, newlines or special characters.");
    plain_word(word).ok_or(BAD)
}

/// `on` or `off`.
fn switch(word: &[u8]) -> Result<bool, CommandError> {
    match () {
        () if is(word, "on") => Ok(true),
        () if is(word, "off") => Ok(false),
        () => Err(CommandError::Syntax),
    }
}

/// `CLIENT GETNAME`
fn getname(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let name = &client.session().name;
    Ok(if name.is_empty() { Reply::Null } else { Reply::text(name) })
}

/// `CLIENT ID`
fn id(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Ok(Reply::Int(client.session().number as i64))
}

/// `CLIENT NO-EVICT ON | OFF`
fn no_evict(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    client.session_mut().no_evict = switch(words[2])?;
    Ok(Reply::OK)
}

/// `CLIENT NO-TOUCH ON | OFF`
fn no_touch(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    client.session_mut().no_touch = switch(words[2])?;
    Ok(Reply::OK)
}

/// `CLIENT PAUSE timeout [WRITE | ALL]`
///
/// A pause never shortens one that lasts, as in Redis.
fn pause(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let writes_only = match words.get(3) {
        None => false,
        Some(word) if is(word, "write") => true,
        Some(word) if is(word, "all") => false,
        Some(_) => return Err(CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    if words.len() > 4 {
        return Err(super::help::unknown_form(words[1], "CLIENT"));
    }
    let timeout_ms = timeout(words[2])?;

    let until_ns = client.boot_ns().saturating_add(timeout_ms.saturating_mul(1_000_000));
    let before = client.paused();
    client.pause(Some(Pause {
        until_ns: before.map_or(until_ns, |before| before.until_ns.max(until_ns)),
        writes_only: writes_only && before.is_none_or(|before| before.writes_only),
    }));
    Ok(Reply::OK)
}

/// A time in milliseconds that is not negative.
pub(super) fn timeout(word: &[u8]) -> Result<u64, CommandError> {
    let number =
        parse_integer(word).ok_or(CommandError::text("ERR timeout is not an integer or out of range"))?;
    u64::try_from(number).map_err(|_| CommandError::text("ERR timeout is negative"))
}

/// `CLIENT UNPAUSE`
fn unpause(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    client.pause(None);
    Ok(Reply::OK)
}

/// `CLIENT REPLY ON | OFF | SKIP`
fn reply(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let session = client.session_mut();
    match () {
        () if is(words[2], "on") => {
            session.reply_mode = ReplyMode::On;
            return Ok(Reply::OK);
        }
        () if is(words[2], "off") => session.reply_mode = ReplyMode::Off,
        // To skip one of none changes nothing.
        () if is(words[2], "skip") && session.reply_mode == ReplyMode::Off => {}
        () if is(words[2], "skip") => session.reply_mode = ReplyMode::SkipNext,
        () => return Err(CommandError::Syntax),
    }
    Ok(Reply::Nothing)
}

/// `CLIENT SETINFO LIB-NAME | LIB-VER value`
fn setinfo(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let (attribute, value) = (words[2], plain_word(words[3]));
    let session = client.session_mut();
    let place = match () {
        () if is(attribute, "lib-name") => &mut session.library_name,
        () if is(attribute, "lib-ver") => &mut session.library_version,
        () => return Err(CommandError::about("ERR Unrecognized option '", attribute, "'")),
    };
    *place = value.ok_or_else(|| {
        let after = " cannot contain spaces, newlines or special characters.";
        CommandError::about("ERR ", attribute, after)
    })?;
    Ok(Reply::OK)
}

/// `CLIENT SETNAME name`
fn setname(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    client.session_mut().name = client_name(words[2])?;
    Ok(Reply::OK)
}

/// `CLIENT UNBLOCK client-id [TIMEOUT | ERROR]`
///
/// Only `WAIT` blocks.
fn unblock(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    const BAD_REASON: CommandError =
        CommandError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    if words.len() > 4 {
        return Err(super::help::unknown_form(words[1], "CLIENT"));
    }
    let with_error = match words.get(3) {
        None => false,
        Some(word) if is(word, "timeout") => false,
        Some(word) if is(word, "error") => true,
        Some(_) => return Err(BAD_REASON),
    };
    let number = integer(words[2])?;

    let named = client.sessions().find(|(_, session)| session.number as i64 == number);
    let target = named.map(|(id, _)| id);
    Ok(Reply::flag(target.is_some_and(|id| client.unblock(id, with_error))))
}

/// `CLIENT HELP`
fn client_help(_: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Ok(help(
        "CLIENT",
        &[
            "CACHING (YES|NO)",
            "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
            "GETREDIR",
            "    Return the client ID we are redirecting to when tracking is enabled.",
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "KILL <ip:port>",
            "    Kill connection made from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Kill connections. Options are:",
            "    * ADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made from the specified address",
            "    * LADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made to specified local address",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Kill connections by type.",
            "    * USER <username>",
            "      Kill connections authenticated by <username>.",
            "    * SKIPME (YES|NO)",
            "      Skip killing current connection (default: yes).",
            "LIST [options ...]",
            "    Return information about client connections. Options:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Return clients of specified type.",
            "UNPAUSE",
            "    Stop the current client pause, resuming traffic.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Suspend all, or just write, clients for <timeout> milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Control the replies sent to the current connection.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "SETINFO <option> <value>",
            "    Set client meta attr. Options are:",
            "    * LIB-NAME: the client lib name.",
            "    * LIB-VER: the client lib version.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    Unblock the specified blocked client.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
            "         [OPTIN] [OPTOUT] [NOLOOP]",
            "    Control server assisted client side caching.",
            "TRACKINGINFO",
            "    Report tracking status for the current connection.",
            "NO-EVICT (ON|OFF)",
            "    Protect current client connection from eviction.",
            "NO-TOUCH (ON|OFF)",
            "    Will not touch LRU/LFU stats when this mode is on.",
        ],
    ))
}
