//! Publishing and subscribing.
//!
//! A session's own lists and the replica's [`Subscriptions`] say the same from
//! both sides; only this file, `RESET` and the end of a session change them.
//! What a subscription hears is sent by the shard once the publishing unit is
//! committed.
//!
//! A shard's channel belongs to its slot like a key, and is served by every
//! replica of the shard.

use bytes::Bytes;
use moonraft_proto::Reply;
use moonraft_router::Keys;

use super::{Arity, Client, Command, Family, Flag, Outcome, Run, help::help, key_specs::KeyFlag};
use crate::{
    glob,
    keyspace::Tx,
    subscriptions::{self, Listeners, Listening, Names, SessionId, Subscriptions},
};

/// A row of this family.
const ROW: Command = Command {
    family: Family::PubSub,
    flags: &[Flag::PubSub, Flag::NoScript, Flag::Stale, Flag::Listening],
    ..Command::BASE
};

/// A row of `PUBSUB`.
const PUBSUB: Command = Command { parent: Some("pubsub"), flags: &[Flag::PubSub, Flag::Stale], ..ROW };

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "subscribe",
        arity: Arity::AtLeast(2),
        run: Run::Session(|client, words| begin(client, &CHANNELS, &words[1..])),
        ..ROW
    },
    Command {
        name: "psubscribe",
        arity: Arity::AtLeast(2),
        run: Run::Session(|client, words| begin(client, &PATTERNS, &words[1..])),
        ..ROW
    },
    Command {
        name: "ssubscribe",
        arity: Arity::AtLeast(2),
        keys: Keys::ALL,
        key_flags: &[&[KeyFlag::NotKey]],
        run: Run::Session(|client, words| begin(client, &SHARD_CHANNELS, &words[1..])),
        ..ROW
    },
    Command {
        name: "unsubscribe",
        run: Run::Session(|client, words| end(client, &CHANNELS, &words[1..])),
        ..ROW
    },
    Command {
        name: "punsubscribe",
        run: Run::Session(|client, words| end(client, &PATTERNS, &words[1..])),
        ..ROW
    },
    Command {
        name: "sunsubscribe",
        keys: Keys::ALL,
        key_flags: &[&[KeyFlag::NotKey]],
        run: Run::Session(|client, words| end(client, &SHARD_CHANNELS, &words[1..])),
        ..ROW
    },
    Command {
        name: "publish",
        arity: Arity::Exactly(3),
        flags: &[Flag::PubSub, Flag::Stale, Flag::Fast],
        run: Run::Write(publish),
        ..ROW
    },
    Command {
        name: "spublish",
        arity: Arity::Exactly(3),
        keys: Keys::ONE,
        key_flags: &[&[KeyFlag::NotKey]],
        flags: &[Flag::PubSub, Flag::Stale, Flag::Fast],
        run: Run::Write(spublish),
        ..ROW
    },
    Command { name: "pubsub", arity: Arity::AtLeast(2), flags: &[], ..ROW },
    Command { name: "channels", arity: Arity::AtLeast(2), run: Run::Session(channels), ..PUBSUB },
    Command { name: "numsub", arity: Arity::AtLeast(2), run: Run::Session(numsub), ..PUBSUB },
    Command { name: "numpat", arity: Arity::Exactly(2), run: Run::Session(numpat), ..PUBSUB },
    Command { name: "shardchannels", arity: Arity::AtLeast(2), run: Run::Session(shardchannels), ..PUBSUB },
    Command { name: "shardnumsub", arity: Arity::AtLeast(2), run: Run::Session(shardnumsub), ..PUBSUB },
    Command {
        name: "help",
        arity: Arity::Exactly(2),
        family: Family::Server,
        flags: &[Flag::Stale],
        run: Run::Session(pubsub_help),
        ..PUBSUB
    },
];

/// A kind of subscription.
struct Kind {
    /// The first word of a confirmation, without `un`.
    verb: &'static str,
    /// The first word of its end.
    end: &'static str,
    /// A session's names of this kind.
    names: fn(&mut Listening) -> &mut Names,
    /// The replica's listeners of this kind.
    listeners: fn(&mut Subscriptions) -> &mut Listeners,
    /// What a confirmation counts.
    count: fn(&Listening) -> usize,
}

const CHANNELS: Kind = Kind {
    verb: "subscribe",
    end: "unsubscribe",
    names: |listening| &mut listening.channels,
    listeners: |subscriptions| &mut subscriptions.channels,
    count: |listening| listening.channels.len() + listening.patterns.len(),
};

const PATTERNS: Kind = Kind {
    verb: "psubscribe",
    end: "punsubscribe",
    names: |listening| &mut listening.patterns,
    listeners: |subscriptions| &mut subscriptions.patterns,
    count: CHANNELS.count,
};

const SHARD_CHANNELS: Kind = Kind {
    verb: "ssubscribe",
    end: "sunsubscribe",
    names: |listening| &mut listening.shard_channels,
    listeners: |subscriptions| &mut subscriptions.shard_channels,
    count: |listening| listening.shard_channels.len(),
};

fn confirmation(verb: &'static str, name: Option<&[u8]>, count: usize) -> Reply<'static> {
    let name = name.map_or(Reply::Null, |name| Reply::bulk(name.to_vec()));
    Reply::Push(vec![Reply::text(verb), name, Reply::count(count)])
}

fn begin(client: &mut dyn Client, kind: &Kind, names: &[&[u8]]) -> Outcome<'static> {
    let mut replies = Vec::with_capacity(names.len());
    for name in names {
        let owned = Bytes::copy_from_slice(name);
        if (kind.names)(&mut client.session_mut().listening).insert(owned.clone()) {
            let id = client.session_id();
            subscriptions::add((kind.listeners)(client.listeners_mut()), &owned, id);
        }
        replies.push(confirmation(kind.verb, Some(name), (kind.count)(&client.session().listening)));
    }
    Ok(Reply::Several(replies))
}

/// Ends the subscriptions to these names; to all of the kind if none is named.
fn end(client: &mut dyn Client, kind: &Kind, names: &[&[u8]]) -> Outcome<'static> {
    let names: Vec<Bytes> = match names {
        [] => (kind.names)(&mut client.session_mut().listening).iter().cloned().collect(),
        named => named.iter().map(|name| Bytes::copy_from_slice(name)).collect(),
    };
    if names.is_empty() {
        let count = (kind.count)(&client.session().listening);
        return Ok(Reply::Several(vec![confirmation(kind.end, None, count)]));
    }
    let mut replies = Vec::with_capacity(names.len());
    for name in &names {
        if (kind.names)(&mut client.session_mut().listening).remove(name) {
            let id: SessionId = client.session_id();
            subscriptions::remove((kind.listeners)(client.listeners_mut()), name, id);
        }
        replies.push(confirmation(kind.end, Some(name), (kind.count)(&client.session().listening)));
    }
    Ok(Reply::Several(replies))
}

/// Ends all subscriptions of a session, silently: `RESET`.
pub(super) fn end_all(client: &mut dyn Client) {
    let listening = std::mem::take(&mut client.session_mut().listening);
    let id = client.session_id();
    client.listeners_mut().forget(id, &listening);
}

/// `PUBLISH channel message`
///
/// Answers how many sessions of this replica will hear it, as Redis Cluster does.
fn publish<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(tx.publish(words[1], words[2], false)))
}

/// `SPUBLISH channel message`
fn spublish<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    Ok(Reply::count(tx.publish(words[1], words[2], true)))
}

fn active(listeners: &Listeners, pattern: Option<&&[u8]>) -> Outcome<'static> {
    let shown = listeners.keys().filter(|name| pattern.is_none_or(|pattern| glob::matches(pattern, name)));
    Ok(Reply::bulks(shown.map(|name| name.to_vec())))
}

fn counts(listeners: &Listeners, names: &[&[u8]]) -> Outcome<'static> {
    let count = |name: &[u8]| Reply::count(listeners.get(name).map_or(0, Vec::len));
    let pairs = names.iter().flat_map(|&name| [Reply::bulk(name.to_vec()), count(name)]);
    Ok(Reply::Array(pairs.collect()))
}

/// `PUBSUB CHANNELS [pattern]`
fn channels(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    at_most_one_pattern(words, "PUBSUB")?;
    active(&client.listeners().channels, words.get(2))
}

/// `PUBSUB SHARDCHANNELS [pattern]`
fn shardchannels(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    at_most_one_pattern(words, "PUBSUB")?;
    active(&client.listeners().shard_channels, words.get(2))
}

/// `PUBSUB NUMSUB [channel …]`
fn numsub(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    counts(&client.listeners().channels, &words[2..])
}

/// `PUBSUB SHARDNUMSUB [channel …]`
fn shardnumsub(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    counts(&client.listeners().shard_channels, &words[2..])
}

/// `PUBSUB NUMPAT`
fn numpat(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Ok(Reply::count(client.listeners().patterns.len()))
}

fn at_most_one_pattern(words: &[&[u8]], container: &str) -> Result<(), super::CommandError> {
    if words.len() > 3 { Err(super::help::unknown_form(words[1], container)) } else { Ok(()) }
}

/// `PUBSUB HELP`
fn pubsub_help(_: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Ok(help(
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the currently active channels matching a <pattern> (default: '*').",
            "NUMPAT",
            "    Return number of subscriptions to patterns.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers for the specified channels, excluding",
            "    pattern subscriptions(default: no channels).",
            "SHARDCHANNELS [<pattern>]",
            "    Return the currently active shard level channels matching a <pattern> (default: '*').",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Return the number of subscribers for the specified shard level channel(s)",
        ],
    ))
}
