//! The server: settings, role, replication.

mod info;

use std::collections::BTreeMap;

use moonraft_proto::Reply;

use super::{
    Arity, Client, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{integer, is},
    client::Standing,
    cluster::ClusterView,
    connection::{REDIS_VERSION, timeout},
    help::help,
};

/// A row of this family.
const ROW: Command = Command { family: Family::Server, ..Command::BASE };

/// A row of `CONFIG`, for operators.
const ADMIN: Command = Command { flags: &[Flag::Admin, Flag::NoScript, Flag::Stale], ..ROW };

/// A row of `CONFIG`.
const CONFIG: Command = Command { parent: Some("config"), ..ADMIN };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "info",
        flags: &[Flag::Stale, Flag::Dangerous],
        run: Run::Session(info::info),
        tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
        ..ROW
    },
    Command {
        name: "role",
        arity: Arity::Exactly(1),
        flags: &[Flag::Admin, Flag::NoScript, Flag::Stale, Flag::Fast],
        run: Run::Session(role),
        ..ROW
    },
    Command {
        name: "wait",
        arity: Arity::Exactly(3),
        family: Family::Generic,
        categories: &[Family::Connection],
        run: Run::Session(wait),
        tips: &["request_policy:all_shards", "response_policy:agg_min"],
        ..ROW
    },
    Command {
        name: "waitaof",
        arity: Arity::Exactly(4),
        flags: &[Flag::NoScript],
        family: Family::Generic,
        categories: &[Family::Connection],
        run: Run::Session(waitaof),
        tips: &["request_policy:all_shards", "response_policy:agg_min"],
        ..ROW
    },
    Command { name: "lolwut", flags: &[Flag::Fast], run: Run::Session(lolwut), ..ROW },
    Command { name: "config", arity: Arity::AtLeast(2), ..ROW },
    Command { name: "get", arity: Arity::AtLeast(3), run: Run::Session(config_get), ..CONFIG },
    Command {
        name: "set",
        arity: Arity::AtLeast(4),
        run: Run::Session(config_set),
        secrets: Some(of_config_set),
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        ..CONFIG
    },
    Command { name: "resetstat", arity: Arity::Exactly(2), run: Run::Session(config_resetstat), ..CONFIG },
    Command { name: "rewrite", arity: Arity::Exactly(2), run: Run::Session(config_rewrite), ..CONFIG },
    Command {
        name: "help",
        arity: Arity::Exactly(2),
        flags: &[Flag::Stale],
        run: Run::Session(config_help),
        ..CONFIG
    },
];

// ---- replication -----------------------------------------------------------

/// `ROLE`
///
/// The offset is the index of the last applied entry. Of a follower a leader
/// knows no more than that a majority has what is committed.
fn role(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let view = ClusterView::of(client);
    let offset = client.applied().0;
    let Some(shard) = view.my_shard() else { return Err(NOT_IN_THE_MAP) };
    if client.standing().is_leading() {
        let slaves = shard.members().filter(|member| !view.is_me(member)).map(|slave| {
            let address = &slave.place.address;
            let words = [address.host.clone(), address.port.to_string(), offset.to_string()];
            Reply::bulks(words.map(String::into_bytes))
        });
        let slaves = Reply::Array(slaves.collect());
        return Ok(Reply::Array(vec![Reply::text("master"), Reply::Int(offset as i64), slaves]));
    }
    let master = shard.master_place().map(|place| place.address.clone());
    let (host, port) = master.map_or((String::new(), 0), |address| (address.host, address.port));
    let linked = matches!(client.standing(), Standing::Following { leader: Some(_) });
    Ok(Reply::Array(vec![
        Reply::text("slave"),
        Reply::text(host),
        Reply::Int(port.into()),
        Reply::text(if linked { "connected" } else { "connect" }),
        Reply::Int(offset as i64),
    ]))
}

const NOT_IN_THE_MAP: CommandError = CommandError::text("ERR this replica is not in the slot map");

/// `WAIT numreplicas timeout`
///
/// What is committed a majority has: so many followers are promised at once, the
/// reply being held until it is so. For more of them the session is blocked, but not in a block or a script.
fn wait(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let wanted = integer(words[1])?;
    let timeout_ms = timeout(words[2])?;
    if matches!(client.standing(), Standing::Following { leader: Some(_) }) {
        return Err(CommandError::text(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated.",
        ));
    }
    Ok(await_followers(client, wanted, timeout_ms, Reply::count))
}

/// `WAITAOF numlocal numreplicas timeout`
///
/// What is committed is on the disks of a majority, of which any stands for this node's own.
fn waitaof(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    if !(0..=1).contains(&integer(words[1])?) {
        return Err(CommandError::text("ERR value is out of range, value must between 0 and 1"));
    }
    let wanted = integer(words[2])?;
    if wanted < 0 {
        return Err(CommandError::text("ERR value is out of range, must be positive"));
    }
    let timeout_ms = timeout(words[3])?;
    if matches!(client.standing(), Standing::Following { leader: Some(_) }) {
        return Err(CommandError::text(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and are not propagated.",
        ));
    }
    Ok(await_followers(client, wanted, timeout_ms, |count| {
        Reply::Array(vec![Reply::Int(1), Reply::count(count)])
    }))
}

/// What `answer` makes of the number of followers that have all that was executed so far, now or later.
fn await_followers(
    client: &mut dyn Client,
    wanted: i64,
    timeout_ms: u64,
    answer: fn(usize) -> Reply<'static>,
) -> Reply<'static> {
    let voters = ClusterView::of(client).my_shard().map_or(1, |shard| shard.members().count());
    // A majority of `voters` is `voters / 2 + 1`, this replica being one of it.
    let promised = voters / 2;
    match usize::try_from(wanted) {
        Ok(wanted) if wanted > promised && client.may_block() => {
            client.wait_for_followers(wanted, timeout_ms, answer);
            Reply::Nothing
        }
        _ => {
            client.store().whole();
            answer(promised)
        }
    }
}

/// `LOLWUT [VERSION version]`
fn lolwut(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    if let [_, option, version, ..] = words
        && is(option, "version")
    {
        integer(version)?;
    }
    let moon = concat!(
        "      _..._\n",
        "    .::::. `.\n",
        "   :::::::.  :\n",
        "   ::::::::  :\n",
        "   `::::::' .'\n",
        "     `'::'-'\n",
    );
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("{moon}\nRedis ver. {REDIS_VERSION}\nMoonraft ver. {version}\n");
    Ok(Reply::Verbatim(*b"txt", text.into()))
}

// ---- CONFIG ----------------------------------------------------------------

/// `CONFIG GET pattern [pattern …]`
fn config_get(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let matching = words[2..].iter().flat_map(|pattern| client.settings(pattern));
    // A setting that several patterns match is shown once.
    let settings: BTreeMap<String, String> = matching.collect();
    let pairs = settings.into_iter().map(|(name, value)| (Reply::text(name), Reply::text(value)));
    Ok(Reply::Map(pairs.collect()))
}

/// `CONFIG SET name value [name value …]`
fn config_set(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let pairs = words[2..].chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(CommandError::Syntax);
    }
    let changes: Vec<(&[u8], &[u8])> = pairs.map(|pair| (pair[0], pair[1])).collect();
    client.change_settings(&changes)?;
    Ok(Reply::OK)
}

/// `CONFIG RESETSTAT`
fn config_resetstat(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    client.reset_statistics();
    Ok(Reply::OK)
}

/// `CONFIG REWRITE`
fn config_rewrite(_: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Err(CommandError::text("ERR The server is running without a config file"))
}

/// `CONFIG HELP`
fn config_help(_: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Ok(help(
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
            "REWRITE",
            "    Rewrite the configuration file.",
        ],
    ))
}

// ---- LATENCY: no event is ever recorded --------------------------------------

/// Settings whose values are not told, as in Redis.
const SECRETS: &[&str] =
    &["requirepass", "masterauth", "masteruser", "tls-key-file-pass", "tls-client-key-file-pass"];

/// From the first secret of `CONFIG SET name value …` to the last; what stands between them goes with them.
fn of_config_set(words: &[&[u8]]) -> std::ops::Range<usize> {
    let is_secret = |at: &usize| SECRETS.iter().any(|name| is(words[*at], name));
    let mut names = (2..words.len()).step_by(2).filter(is_secret);
    let Some(first) = names.next() else { return 0..0 };
    first + 1..names.next_back().unwrap_or(first) + 2
}
