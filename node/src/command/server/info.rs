//! `INFO`: sections of `name:value` lines.
//!
//! The fields are those of Redis 7.2 that tools read; what has no meaning here is
//! there with the value it has on an idle Redis. Fields of our own begin with
//! `moonraft_`.

use std::fmt::{Display, Write as _};

use moonraft_proto::{Reply, entry::NEWEST_FORMAT};

use super::super::{
    Client, Outcome,
    arguments::is,
    client::Standing,
    cluster::{ClusterView, Health, hexadecimal_id},
    connection::REDIS_VERSION,
};

/// A section: its name, whether `INFO` alone shows it, and what writes it.
struct Section {
    name: &'static str,
    by_default: bool,
    write: fn(&mut Lines, &dyn Client),
}

/// In the order they are shown.
const SECTIONS: &[Section] = &[
    Section { name: "Server", by_default: true, write: server },
    Section { name: "Clients", by_default: true, write: clients },
    Section { name: "Memory", by_default: true, write: memory },
    Section { name: "Persistence", by_default: true, write: persistence },
    Section { name: "Stats", by_default: true, write: stats },
    Section { name: "Replication", by_default: true, write: replication },
    Section { name: "CPU", by_default: true, write: cpu },
    Section { name: "Modules", by_default: true, write: |_, _| {} },
    Section { name: "Commandstats", by_default: false, write: commandstats },
    Section { name: "Errorstats", by_default: true, write: errorstats },
    Section { name: "Latencystats", by_default: false, write: latencystats },
    Section { name: "Cluster", by_default: true, write: |lines, _| lines.add("cluster_enabled", 1) },
    Section { name: "Keyspace", by_default: true, write: keyspace },
];

/// `INFO [section …]`
pub(super) fn info(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let asked = &words[1..];
    let names = |section: &str, word: &[u8]| word.eq_ignore_ascii_case(section.as_bytes());
    let all = asked.iter().any(|word| is(word, "all") || is(word, "everything"));
    let default = asked.is_empty() || asked.iter().any(|word| is(word, "default"));
    let shown = SECTIONS.iter().filter(|section| {
        all || default && section.by_default || asked.iter().any(|word| names(section.name, word))
    });

    let mut lines = Lines::default();
    for section in shown {
        lines.begin(section.name);
        (section.write)(&mut lines, client);
    }
    Ok(Reply::Verbatim(*b"txt", lines.text.into()))
}

#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn begin(&mut self, section: &str) {
        let blank = if self.text.is_empty() { "" } else { "\r\n" };
        write!(self.text, "{blank}# {section}\r\n").expect("a string takes all");
    }

    fn add(&mut self, name: &str, value: impl Display) {
        write!(self.text, "{name}:{value}\r\n").expect("a string takes all");
    }

    fn all(&mut self, fields: &[(&str, &dyn Display)]) {
        fields.iter().for_each(|(name, value)| self.add(name, value));
    }

    /// Fields that are always 0 here.
    fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.add(name, 0));
    }

    /// A number of bytes, and again for people to read.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.add(name, bytes);
        self.add(&format!("{name}_human"), human(bytes));
    }
}

/// `1.78M`, as Redis writes it.
fn human(bytes: u64) -> String {
    const UNITS: [(u64, char); 5] =
        [(1 << 50, 'P'), (1 << 40, 'T'), (1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, letter)) => format!("{:.2}{letter}", bytes as f64 / *size as f64),
        None => format!("{bytes}B"),
    }
}

fn server(lines: &mut Lines, client: &dyn Client) {
    let facts = client.facts();
    let now_us = client.unix_us();
    let up_s = now_us.saturating_sub(facts.started_us) / 1_000_000;
    let replica = client.replica();
    lines.all(&[
        ("redis_version", &REDIS_VERSION),
        ("redis_git_sha1", &"00000000"),
        ("redis_git_dirty", &0),
        ("redis_build_id", &"0000000000000000"),
        ("redis_mode", &"cluster"),
        ("server_name", &"moonraft"),
        ("moonraft_version", &env!("CARGO_PKG_VERSION")),
        ("moonraft_node", &replica.node),
        ("moonraft_shard", &replica.shard),
        ("moonraft_replica", &replica.replica),
        ("moonraft_agreed_format", &client.agreed_format()),
        ("moonraft_newest_format", &NEWEST_FORMAT),
        ("os", &facts.system),
        ("arch_bits", &usize::BITS),
        ("monotonic_clock", &"POSIX clock_gettime"),
        ("multiplexing_api", &"epoll"),
        ("process_id", &facts.process_id),
        ("process_supervised", &"no"),
        ("run_id", &facts.run_id),
        ("tcp_port", &facts.port),
        ("server_time_usec", &now_us),
        ("moonraft_wall_clock_ahead_ms", &client.wall_clock_ahead_ms()),
        ("uptime_in_seconds", &up_s),
        ("uptime_in_days", &(up_s / 86_400)),
        ("hz", &10),
        ("configured_hz", &10),
        // Seconds in 24 bits, as Redis counts them.
        ("lru_clock", &((now_us / 1_000_000) & 0xff_ffff)),
        ("executable", &facts.executable),
        ("config_file", &""),
        ("io_threads_active", &0),
    ]);
}

fn clients(lines: &mut Lines, client: &dyn Client) {
    let count = client.sessions().count();
    let subscribed = client.sessions().filter(|(_, session)| session.listening.count() > 0).count();
    let unread = client.sessions().map(|(id, _)| client.unread_bytes(id)).max().unwrap_or(0);
    lines.all(&[
        ("connected_clients", &count),
        ("cluster_connections", &0),
        ("maxclients", &client.replica().clients_max),
        ("client_recent_max_input_buffer", &0),
        ("client_recent_max_output_buffer", &unread),
        ("blocked_clients", &client.waiting_count()),
        ("tracking_clients", &client.tracking_figures().clients),
        ("pubsub_clients", &subscribed),
        ("clients_in_timeout_table", &client.waiters().with_timeout),
        ("total_blocking_keys", &client.waiters().keys),
        ("total_blocking_keys_on_nokey", &0),
    ]);
}

fn setting(client: &dyn Client, name: &str) -> Option<String> {
    let known = client.settings(name.as_bytes());
    known.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn memory(lines: &mut Lines, client: &dyn Client) {
    let facts = client.facts();
    let (used, resident) = (facts.used_bytes, facts.resident_bytes);
    let limit = setting(client, "maxmemory").and_then(|value| value.parse().ok()).unwrap_or(0);
    let scripts = client.store().keyspace().scripts().iter();
    let (script_count, script_bytes) =
        scripts.fold((0, 0), |(count, bytes), (_, text)| (count + 1, bytes + text.len()));
    let unread_bytes = client.sessions().map(|(id, _)| client.unread_bytes(id)).sum::<usize>();
    let overhead = (client.passing_bytes() + unread_bytes + script_bytes) as u64;
    let dataset_share = used.saturating_sub(overhead) as f64 / used.max(1) as f64;
    lines.bytes("used_memory", used);
    lines.bytes("used_memory_rss", resident);
    lines.bytes("used_memory_peak", used);
    lines.all(&[
        ("used_memory_peak_perc", &"100.00%"),
        ("used_memory_overhead", &overhead),
        ("used_memory_startup", &0),
        ("used_memory_dataset", &used.saturating_sub(overhead)),
        ("used_memory_dataset_perc", &format!("{:.2}%", dataset_share * 100.0)),
        ("allocator_allocated", &used),
        ("allocator_active", &used),
        ("allocator_resident", &resident),
    ]);
    lines.bytes("total_system_memory", facts.total_bytes);
    lines.bytes("used_memory_lua", 0);
    lines.add("used_memory_vm_eval", 0);
    lines.add("used_memory_scripts_eval", script_bytes);
    lines.bytes("used_memory_scripts", script_bytes as u64);
    lines.all(&[
        ("number_of_cached_scripts", &script_count),
        ("number_of_functions", &client.store().keyspace().libraries().function_count()),
        ("number_of_libraries", &client.store().keyspace().libraries().len()),
    ]);
    lines.bytes("maxmemory", limit);
    let policy = setting(client, "maxmemory-policy").unwrap_or_else(|| "noeviction".into());
    lines.all(&[
        ("maxmemory_policy", &policy),
        ("allocator_frag_ratio", &"1.00"),
        ("allocator_frag_bytes", &0),
        ("allocator_rss_ratio", &"1.00"),
        ("allocator_rss_bytes", &0),
        ("rss_overhead_ratio", &"1.00"),
        ("rss_overhead_bytes", &0),
        ("mem_fragmentation_ratio", &format!("{:.2}", resident as f64 / used.max(1) as f64)),
        ("mem_fragmentation_bytes", &resident.saturating_sub(used)),
        ("mem_not_counted_for_evict", &client.passing_bytes()),
        ("mem_replication_backlog", &client.in_flight_bytes()),
        ("mem_total_replication_buffers", &client.in_flight_bytes()),
        ("mem_clients_slaves", &0),
        ("mem_cluster_links", &0),
        ("mem_clients_normal", &unread_bytes),
        ("mem_aof_buffer", &0),
        ("mem_allocator", &"mimalloc"),
        ("active_defrag_running", &0),
        ("lazyfree_pending_objects", &0),
        ("lazyfreed_objects", &0),
    ]);
}

/// What is acknowledged is in the log of a majority: there is nothing to save.
fn persistence(lines: &mut Lines, client: &dyn Client) {
    lines.add("loading", u8::from(client.is_loading()));
    let (saved_us, changes) = client.saved();
    lines.zeros(&["async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    lines.add("current_fork_perc", "0.00");
    lines.zeros(&["current_save_keys_processed", "current_save_keys_total"]);
    lines.all(&[
        ("rdb_changes_since_last_save", &changes),
        ("rdb_bgsave_in_progress", &0),
        ("rdb_last_save_time", &(saved_us / 1_000_000)),
        ("rdb_last_bgsave_status", &"ok"),
        ("rdb_last_bgsave_time_sec", &-1),
        ("rdb_current_bgsave_time_sec", &-1),
        ("rdb_saves", &0),
        ("rdb_last_cow_size", &0),
        ("rdb_last_load_keys_expired", &0),
        ("rdb_last_load_keys_loaded", &0),
        ("aof_enabled", &1),
        ("aof_rewrite_in_progress", &0),
        ("aof_rewrite_scheduled", &0),
        ("aof_last_rewrite_time_sec", &-1),
        ("aof_current_rewrite_time_sec", &-1),
        ("aof_last_bgrewrite_status", &"ok"),
        ("aof_last_write_status", &"ok"),
        ("aof_current_size", &0),
        ("aof_base_size", &0),
        ("aof_pending_rewrite", &0),
        ("aof_buffer_length", &0),
        ("aof_pending_bio_fsync", &0),
        ("aof_delayed_fsync", &0),
        ("aof_rewrites", &0),
        ("aof_rewrites_consecutive_failures", &0),
        ("aof_last_cow_size", &0),
        ("module_fork_in_progress", &0),
        ("module_fork_last_cow_size", &0),
    ]);
}

fn stats(lines: &mut Lines, client: &dyn Client) {
    let (counted, tracked) = (client.statistics(), client.tracking_figures());
    let rates = client.rates();
    let (hits, misses) = client.store().lookups();
    let kilobytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    let listeners = client.listeners();
    lines.all(&[
        ("total_connections_received", &counted.connections),
        ("total_commands_processed", &counted.requests),
        ("instantaneous_ops_per_sec", &rates.requests),
        ("total_net_input_bytes", &counted.bytes_in),
        ("total_net_output_bytes", &counted.bytes_out),
        ("total_net_repl_input_bytes", &0),
        ("total_net_repl_output_bytes", &0),
        ("instantaneous_input_kbps", &kilobytes(rates.bytes_in)),
        ("instantaneous_output_kbps", &kilobytes(rates.bytes_out)),
        ("instantaneous_input_repl_kbps", &"0.00"),
        ("instantaneous_output_repl_kbps", &"0.00"),
        ("rejected_connections", &counted.refused),
        ("sync_full", &0),
        ("sync_partial_ok", &0),
        ("sync_partial_err", &0),
        ("expired_keys", &client.store().expired_keys()),
        ("expired_stale_perc", &"0.00"),
        ("expired_time_cap_reached_count", &0),
        ("expire_cycle_cpu_milliseconds", &0),
        ("evicted_keys", &client.store().evicted_keys()),
        ("evicted_clients", &0),
        ("total_eviction_exceeded_time", &0),
        ("current_eviction_exceeded_time", &0),
        ("keyspace_hits", &hits),
        ("keyspace_misses", &misses),
        ("pubsub_channels", &listeners.channels.len()),
        ("pubsub_patterns", &listeners.patterns.len()),
        ("pubsubshard_channels", &listeners.shard_channels.len()),
        ("latest_fork_usec", &0),
        ("total_forks", &0),
        ("migrate_cached_sockets", &0),
        ("slave_expires_tracked_keys", &0),
        ("active_defrag_hits", &0),
        ("active_defrag_misses", &0),
        ("active_defrag_key_hits", &0),
        ("active_defrag_key_misses", &0),
        ("total_active_defrag_time", &0),
        ("current_active_defrag_time", &0),
        ("tracking_total_keys", &tracked.keys),
        ("tracking_total_items", &tracked.readers),
        ("tracking_total_prefixes", &tracked.prefixes),
        ("unexpected_error_replies", &0),
        ("total_error_replies", &counted.errors),
        ("dump_payload_sanitizations", &0),
        ("total_reads_processed", &counted.requests),
        ("total_writes_processed", &counted.requests),
        ("io_threaded_reads_processed", &0),
        ("io_threaded_writes_processed", &0),
        ("reply_buffer_shrinks", &0),
        ("reply_buffer_expands", &0),
    ]);
}

/// Offsets are indexes of the shard's log.
fn replication(lines: &mut Lines, client: &dyn Client) {
    let view = ClusterView::of(client);
    let offset = client.applied().0;
    let leading = client.standing().is_leading();
    lines.add("role", if leading { "master" } else { "slave" });
    if leading {
        let members = view.my_shard().into_iter().flat_map(|shard| shard.into_members());
        let slaves: Vec<_> =
            members.filter(|member| !view.is_me(member) && member.health() == Health::Online).collect();
        lines.add("connected_slaves", slaves.len());
        for (number, slave) in slaves.iter().enumerate() {
            let (host, port) = (&slave.place.address.host, slave.place.address.port);
            let text = format!("ip={host},port={port},state=online,offset={offset},lag=0");
            lines.add(&format!("slave{number}"), text);
        }
    } else {
        let master = view.my_shard().and_then(|shard| shard.master_place().cloned());
        let (host, port) =
            master.map_or((String::new(), 0), |place| (place.address.host, place.address.port));
        let linked = matches!(client.standing(), Standing::Following { leader: Some(_) });
        lines.all(&[
            ("master_host", &host),
            ("master_port", &port),
            ("master_link_status", if linked { &"up" } else { &"down" }),
            ("master_last_io_seconds_ago", if linked { &0 } else { &-1 }),
            ("master_sync_in_progress", &0),
            ("slave_read_repl_offset", &offset),
            ("slave_repl_offset", &offset),
            ("slave_priority", &100),
            ("slave_read_only", &1),
            ("replica_announced", &1),
            ("connected_slaves", &0),
        ]);
    }
    lines.all(&[
        ("master_failover_state", &"no-failover"),
        ("master_replid", &hexadecimal_id(&format!("history of shard {}", client.replica().shard))),
        ("master_replid2", &"0".repeat(40)),
        ("master_repl_offset", &offset),
        ("second_repl_offset", &-1),
        ("repl_backlog_active", &1),
        ("repl_backlog_size", &client.replica().in_flight_bytes_max),
        ("repl_backlog_first_byte_offset", &0),
        ("repl_backlog_histlen", &0),
        ("moonraft_term", &view.my_term()),
        ("moonraft_applied_index", &offset),
    ]);
}

fn cpu(lines: &mut Lines, client: &dyn Client) {
    let (user, system) = client.facts().cpu_seconds;
    lines.all(&[
        ("used_cpu_sys", &format!("{system:.6}")),
        ("used_cpu_user", &format!("{user:.6}")),
        ("used_cpu_sys_children", &"0.000000"),
        ("used_cpu_user_children", &"0.000000"),
    ]);
}

fn commandstats(lines: &mut Lines, client: &dyn Client) {
    for (command, calls) in client.details().commands() {
        let text = format!(
            "calls={},usec={:.0},usec_per_call={:.2},rejected_calls={},failed_calls={}",
            calls.calls,
            calls.microseconds(),
            calls.microseconds_per_call(),
            calls.rejected,
            calls.failed
        );
        lines.add(&format!("cmdstat_{}", command.full_name()), text);
    }
}

fn latencystats(lines: &mut Lines, client: &dyn Client) {
    const SHOWN: [&str; 3] = ["50", "99", "99.9"];
    for (command, calls) in client.details().commands().into_iter().filter(|(_, calls)| calls.calls > 0) {
        let shown = SHOWN.map(|percent| {
            let microseconds = calls.percentile(percent.parse().expect("it is a number"));
            format!("p{percent}={microseconds:.3}")
        });
        lines.add(&format!("latency_percentiles_usec_{}", command.full_name()), shown.join(","));
    }
}

fn errorstats(lines: &mut Lines, client: &dyn Client) {
    for (code, count) in client.details().errors() {
        lines.add(&format!("errorstat_{code}"), format!("count={count}"));
    }
}

/// What is speculative is counted too: this is no read of data.
fn keyspace(lines: &mut Lines, client: &dyn Client) {
    let keyspace = client.store().keyspace();
    if !keyspace.is_empty() {
        let text = format!("keys={},expires={},avg_ttl=0", keyspace.len(), keyspace.deadlines().len());
        lines.add("db0", text);
    }
}
