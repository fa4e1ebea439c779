//! The cluster as Redis Cluster tools see it.
//!
//! Every replica is a node of its own: the leader of a shard is a master with
//! the shard's slots, the others are its slaves. Epochs are terms: the term that
//! a leader leads is the configuration epoch of its shard, so that all nodes who
//! know the same leaders show the same epochs.
//!
//! Invariants:
//! * The slot map has no holes: a shard whose leader is not known, or does not
//!   answer, shows a replica that answers and holds requests until there is one
//!   (see `ShardPlace::master_place`). SLOTS, SHARDS, NODES and redirects agree on
//!   it, and answer at once: a reply held until the election is over would outlast
//!   the patience that ioredis (1 s) and others have for the map itself.
//! * Exactly one replica of a shard is a master.
//!
//! Slots, members and epochs follow from the cluster file and from elections;
//! subcommands that set them by hand are refused.
//!
//! Source: `cluster.c` of Redis 7.2.

mod cluster_view;

use moonraft_proto::Reply;
use moonraft_router::{SLOT_COUNT, slot_of};

use self::cluster_view::Member;
pub(super) use self::cluster_view::{ClusterView, Health, hexadecimal_id};
use super::{
    Arity, Client, Command, CommandError, Family, Flag, Outcome, Run, Survey, arguments::integer, help::help,
};

/// A row of this family.
const ROW: Command = Command {
    parent: Some("cluster"),
    family: Family::Cluster,
    flags: &[Flag::Stale, Flag::NotLoading],
    ..Command::BASE
};

/// A row for operators.
const ADMIN: Command = Command { flags: &[Flag::Admin, Flag::Stale, Flag::NotLoading], ..ROW };

/// A row for what is not set by hand.
const BY_HAND: Command = Command {
    flags: &[Flag::Admin, Flag::Stale, Flag::NotLoading, Flag::NotAsyncLoading],
    run: Run::Session(not_by_hand),
    ..ADMIN
};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "cluster",
        parent: None,
        arity: Arity::AtLeast(2),
        flags: &[],
        run: Run::Container,
        ..ROW
    },
    Command { name: "addslots", arity: Arity::AtLeast(3), ..BY_HAND },
    Command { name: "addslotsrange", arity: Arity::AtLeast(4), ..BY_HAND },
    Command { name: "bumpepoch", arity: Arity::Exactly(2), tips: &["nondeterministic_output"], ..BY_HAND },
    Command {
        name: "count-failure-reports",
        arity: Arity::Exactly(3),
        run: Run::Session(count_failure_reports),
        tips: &["nondeterministic_output"],
        ..ADMIN
    },
    Command { name: "countkeysinslot", arity: Arity::Exactly(3), run: Run::Session(countkeysinslot), ..ROW },
    Command { name: "delslots", arity: Arity::AtLeast(3), ..BY_HAND },
    Command { name: "delslotsrange", arity: Arity::AtLeast(4), ..BY_HAND },
    Command { name: "failover", arity: Arity::AtLeast(2), ..BY_HAND },
    Command { name: "flushslots", arity: Arity::Exactly(2), ..BY_HAND },
    Command { name: "forget", arity: Arity::Exactly(3), ..BY_HAND },
    Command {
        name: "getkeysinslot",
        arity: Arity::Exactly(4),
        survey: Some(|words| keys_of_slot(words).ok()),
        run: Run::Session(getkeysinslot),
        tips: &["nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "help",
        arity: Arity::Exactly(2),
        flags: &[Flag::Stale],
        run: Run::Session(cluster_help),
        ..ROW
    },
    Command {
        name: "info",
        arity: Arity::Exactly(2),
        run: Run::Session(info),
        tips: &["nondeterministic_output"],
        ..ROW
    },
    Command { name: "keyslot", arity: Arity::Exactly(3), run: Run::Session(keyslot), ..ROW },
    Command {
        name: "links",
        arity: Arity::Exactly(2),
        run: Run::Session(links),
        tips: &["nondeterministic_output"],
        ..ROW
    },
    Command { name: "meet", arity: Arity::AtLeast(4), ..BY_HAND },
    Command { name: "myid", arity: Arity::Exactly(2), run: Run::Session(myid), ..ROW },
    Command { name: "myshardid", arity: Arity::Exactly(2), run: Run::Session(myshardid), ..ROW },
    Command {
        name: "nodes",
        arity: Arity::Exactly(2),
        run: Run::Session(nodes),
        tips: &["nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "replicas",
        arity: Arity::Exactly(3),
        run: Run::Session(replicas),
        tips: &["nondeterministic_output"],
        ..ADMIN
    },
    Command { name: "replicate", arity: Arity::Exactly(3), ..BY_HAND },
    Command {
        name: "reset",
        arity: Arity::AtLeast(2),
        flags: &[Flag::Admin, Flag::NoScript, Flag::Stale, Flag::NotLoading],
        ..BY_HAND
    },
    Command { name: "saveconfig", arity: Arity::Exactly(2), run: Run::Session(saveconfig), ..BY_HAND },
    Command { name: "set-config-epoch", arity: Arity::Exactly(3), ..BY_HAND },
    Command { name: "setslot", arity: Arity::AtLeast(4), ..BY_HAND },
    Command {
        name: "shards",
        arity: Arity::Exactly(2),
        run: Run::Session(shards),
        tips: &["nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "slaves",
        arity: Arity::Exactly(3),
        run: Run::Session(replicas),
        tips: &["nondeterministic_output"],
        ..ADMIN
    },
    Command {
        name: "slots",
        arity: Arity::Exactly(2),
        run: Run::Session(slots),
        tips: &["nondeterministic_output"],
        ..ROW
    },
];

/// A subcommand that would set what follows from the cluster file or elections.
fn not_by_hand(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let name = String::from_utf8_lossy(words[1]).to_uppercase();
    let text = format!(
        "ERR CLUSTER {name} is not supported: slots and members follow from the cluster file, epochs from elections"
    );
    Err(CommandError::Text(text.into()))
}

// ---- slots and keys --------------------------------------------------------

/// `CLUSTER KEYSLOT key`
fn keyslot(_: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    Ok(Reply::Int(slot_of(words[2]).into()))
}

fn slot(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|&slot| slot < SLOT_COUNT)
}

/// `CLUSTER COUNTKEYSINSLOT slot`
fn countkeysinslot(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let slot = slot(integer(words[2])?).ok_or(CommandError::text("ERR Invalid slot"))?;
    Ok(Reply::count(client.store().whole().slot_len(slot)))
}

/// What `CLUSTER GETKEYSINSLOT` asks for.
fn keys_of_slot(words: &[&[u8]]) -> Result<Survey, CommandError> {
    const BAD: CommandError = CommandError::text("ERR Invalid slot or number of keys");
    let (number, count) = (integer(words[2])?, integer(words[3])?);
    let slot = slot(number).ok_or(BAD)?;
    let count = usize::try_from(count).map_err(|_| BAD)?;
    Ok(Survey { slot: Some(slot), pattern: None, count_max: count, expired_too: true })
}

/// `CLUSTER GETKEYSINSLOT slot count`
fn getkeysinslot(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let survey = keys_of_slot(words)?;
    Ok(Reply::bulks(survey.all(client.store()).into_iter().map(|entry| entry.key.to_vec())))
}

// ---- nodes -----------------------------------------------------------------

/// `CLUSTER MYID`
fn myid(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let map = client.map();
    let place = client.place(&map);
    Ok(Reply::text(place.map_or_else(String::new, |place| place.name)))
}

/// `CLUSTER MYSHARDID`
fn myshardid(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Ok(Reply::text(cluster_view::shard_id(client.replica().shard)))
}

/// `CLUSTER NODES`
fn nodes(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let view = ClusterView::of(client);
    let lines: Vec<String> = view.members().map(|member| line(&view, &member) + "\n").collect();
    Ok(Reply::Verbatim(*b"txt", lines.concat().into()))
}

/// `id ip:port@bus flags master ping pong epoch link slots…`
fn line(view: &ClusterView, member: &Member<'_>) -> String {
    let address = &member.place.address;
    let hostname =
        if cluster_view::is_ip(&address.host) { String::new() } else { format!(",{}", address.host) };
    let mut line = format!(
        "{} {}@{}{hostname} {} {} 0 0 {} {}",
        member.place.name,
        address,
        member.place.peer_port,
        flags(view, member),
        member.master().map_or("-", |master| &master.name),
        member.shard.term,
        if member.health() == Health::Online { "connected" } else { "disconnected" },
    );
    if member.is_master() {
        for (first, last) in &member.shard.place.slots {
            line.push(' ');
            line += &if first == last { first.to_string() } else { format!("{first}-{last}") };
        }
    }
    line
}

fn flags(view: &ClusterView, member: &Member<'_>) -> String {
    let mut flags = vec![if member.is_master() { "master" } else { "slave" }];
    if view.is_me(member) {
        flags.insert(0, "myself");
    }
    if member.health() == Health::Failed {
        flags.push("fail");
    }
    flags.join(",")
}

/// The node of this name.
fn member<'a>(view: &'a ClusterView, name: &[u8]) -> Result<Member<'a>, CommandError> {
    let known = view.members().find(|member| member.place.name.as_bytes() == name);
    known.ok_or_else(|| CommandError::about("ERR Unknown node ", name, ""))
}

/// `CLUSTER REPLICAS node-id`, `CLUSTER SLAVES node-id`
fn replicas(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let view = ClusterView::of(client);
    let master = member(&view, words[2])?;
    if !master.is_master() {
        return Err(CommandError::text("ERR The specified node is not a master"));
    }
    let slaves = view.members().filter(|member| member.master() == Some(master.place));
    Ok(Reply::bulks(slaves.map(|member| line(&view, &member).into_bytes())))
}

/// `CLUSTER COUNT-FAILURE-REPORTS node-id`
///
/// Nodes do not vote on failures: there is this node's own word, or none.
fn count_failure_reports(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let view = ClusterView::of(client);
    Ok(Reply::flag(member(&view, words[2])?.health() == Health::Failed))
}

/// `CLUSTER LINKS`
///
/// One stream goes to each node that answers and one comes from it; they serve all replicas there.
fn links(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let view = ClusterView::of(client);
    let since_ms = client.facts().started_us / 1000;
    let peers = view
        .members()
        .filter(|member| member.place.node != client.replica().node && member.health() == Health::Online);
    let link = |member: &Member<'_>, direction| {
        Reply::Map(vec![
            (Reply::text("direction"), Reply::text(direction)),
            (Reply::text("node"), Reply::text(&member.place.name)),
            (Reply::text("create-time"), Reply::Int(since_ms as i64)),
            (Reply::text("events"), Reply::text("rw")),
            (Reply::text("send-buffer-allocated"), Reply::Int(0)),
            (Reply::text("send-buffer-used"), Reply::Int(0)),
        ])
    };
    Ok(Reply::Array(peers.flat_map(|peer| ["to", "from"].map(|direction| link(&peer, direction))).collect()))
}

/// `CLUSTER SAVECONFIG`
///
/// What a node knows of the cluster is always on its disk.
fn saveconfig(_: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Ok(Reply::OK)
}

// ---- the map ---------------------------------------------------------------

/// `CLUSTER SLOTS`
///
/// For each range its master, then the slaves that answer.
fn slots(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let view = ClusterView::of(client);
    let mut ranges: Vec<_> =
        view.shards().flat_map(|shard| shard.place.slots.iter().map(move |&range| (range, shard))).collect();
    ranges.sort_unstable_by_key(|&(range, _)| range);
    let node = |member: Member<'_>| {
        Reply::Array(vec![
            Reply::text(&member.place.address.host),
            Reply::Int(member.place.address.port.into()),
            Reply::text(&member.place.name),
            // Further addresses of the node: there are none.
            Reply::Map(vec![]),
        ])
    };
    let entry = |((first, last), shard): ((u16, u16), cluster_view::Shard<'_>)| {
        let mut entry = vec![Reply::Int(first.into()), Reply::Int(last.into())];
        let (masters, slaves): (Vec<_>, Vec<_>) = shard.members().partition(Member::is_master);
        let answering = slaves.into_iter().filter(|slave| slave.health() == Health::Online);
        entry.extend(masters.into_iter().chain(answering).map(node));
        Reply::Array(entry)
    };
    Ok(Reply::Array(ranges.into_iter().map(entry).collect()))
}

/// `CLUSTER SHARDS`
fn shards(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let view = ClusterView::of(client);
    let node = |member: Member<'_>| {
        let host = &member.place.address.host;
        let mut node = vec![
            (Reply::text("id"), Reply::text(&member.place.name)),
            (Reply::text("port"), Reply::Int(member.place.address.port.into())),
            (Reply::text("ip"), Reply::text(host)),
            (Reply::text("endpoint"), Reply::text(host)),
            (Reply::text("role"), Reply::text(if member.is_master() { "master" } else { "replica" })),
            (Reply::text("replication-offset"), Reply::Int(view.offset(&member) as i64)),
            (Reply::text("health"), Reply::text(member.health().text())),
        ];
        if !cluster_view::is_ip(host) {
            node.insert(4, (Reply::text("hostname"), Reply::text(host)));
        }
        Reply::Map(node)
    };
    let shard = |shard: cluster_view::Shard<'_>| {
        let ends = shard.place.slots.iter().flat_map(|&(first, last)| [first, last]);
        Reply::Map(vec![
            (Reply::text("slots"), Reply::Array(ends.map(|slot| Reply::Int(slot.into())).collect())),
            (Reply::text("nodes"), Reply::Array(shard.members().map(node).collect())),
        ])
    };
    Ok(Reply::Array(view.shards().map(shard).collect()))
}

/// `CLUSTER INFO`
fn info(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let view = ClusterView::of(client);
    let count = |shards: &mut dyn Iterator<Item = cluster_view::Shard<'_>>| -> usize {
        let slots = shards.flat_map(|shard| &shard.place.slots);
        slots.map(|(first, last)| usize::from(last - first) + 1).sum()
    };
    let assigned = count(&mut view.shards());
    let failed = count(&mut view.shards().filter(|shard| !view.is_served(shard)));
    let covered = assigned == usize::from(SLOT_COUNT);
    let lines = [
        ("cluster_state", if covered && failed == 0 { "ok".into() } else { "fail".into() }),
        ("cluster_slots_assigned", assigned.to_string()),
        ("cluster_slots_ok", (assigned - failed).to_string()),
        ("cluster_slots_pfail", "0".into()),
        ("cluster_slots_fail", failed.to_string()),
        ("cluster_known_nodes", view.members().count().to_string()),
        ("cluster_size", view.shards().filter(|shard| !shard.place.slots.is_empty()).count().to_string()),
        ("cluster_current_epoch", view.shards().map(|shard| shard.term).max().unwrap_or(0).to_string()),
        ("cluster_my_epoch", view.my_term().to_string()),
        ("cluster_stats_messages_sent", "0".into()),
        ("cluster_stats_messages_received", "0".into()),
        ("total_cluster_links_buffer_limit_exceeded", "0".to_owned()),
    ];
    let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
    Ok(Reply::Verbatim(*b"txt", text.concat().into()))
}

/// `CLUSTER HELP`
fn cluster_help(_: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Ok(help(
        "CLUSTER",
        &[
            "COUNT-FAILURE-REPORTS <node-id>",
            "    Return number of failure reports for <node-id>.",
            "COUNTKEYSINSLOT <slot>",
            "    Return the number of keys in <slot>.",
            "GETKEYSINSLOT <slot> <count>",
            "    Return key names stored by current node in a slot.",
            "INFO",
            "    Return information about the cluster.",
            "KEYSLOT <key>",
            "    Return the hash slot for <key>.",
            "MYID",
            "    Return the node id.",
            "MYSHARDID",
            "    Return the node's shard id.",
            "NODES",
            "    Return cluster configuration seen by node. Output format:",
            "    <id> <ip:port@bus-port[,hostname]> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
            "REPLICAS <node-id>",
            "    Return <node-id> replicas.",
            "SAVECONFIG",
            "    Force saving cluster configuration on disk.",
            "SLOTS",
            "    Return information about slots range mappings. Each range is made of:",
            "    start, end, master and replicas IP addresses, ports and ids",
            "SHARDS",
            "    Return information about slot range mappings and the nodes associated with them.",
            "LINKS",
            "    Return information about all network links between this node and its peers.",
            "    Output format is an array where each array element is a map containing attributes of a link",
        ],
    ))
}
