//! The cluster file: nodes, shards and settings, the same file for all nodes.
//!
//! It is read by hand over the parsed TOML rather than derived, because what is
//! wrong must be told as file, line and mend: `three.toml:14: 'prot' is not a
//! key of [[node]]; did you mean 'port'?`.
//!
//! INVARIANT: of a [`ClusterFile`] all numbers are within range, ids and
//! addresses are unique, and every shard has as many nodes as it has replicas.

use std::{collections::BTreeMap, fmt, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Settings, nearest};

/// Slots are dealt to at most this many shards: more would have a handful each.
const SHARDS_MAX: u64 = 1024;
/// Voters of a group: each write waits for a majority, so more only cost.
const REPLICAS_MAX: u64 = 9;
/// Nodes of a cluster: every node talks to every other.
const NODES_MAX: usize = 1000;
/// Bytes of a name: it goes into every message between nodes that begins a stream.
const NAME_BYTES_MAX: usize = 64;

/// A cluster as its file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFile {
    /// Its name: what data directories and peers remember.
    pub name: String,
    /// How many shards.
    pub shards: u32,
    /// Voters a shard.
    pub replicas: u32,
    /// Settings of all nodes.
    pub settings: Settings,
    /// Its nodes, in the order of the file: the order in which they lead shards.
    pub nodes: Vec<NodeEntry>,
}

/// One node of a cluster file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its number, from 1.
    pub id: u64,
    /// Where it binds: an IP address or a host name.
    pub host: String,
    /// What clients and peers are told.
    pub announce: String,
    /// Client port of shard 0; shard `s` is at `port + s`.
    pub port: u16,
    /// Where clients from outside come in, if some do.
    pub outside: Option<OutsideEntry>,
    /// For the other nodes.
    pub peer_port: u16,
    /// Health and metrics.
    pub http_port: u16,
}

/// Where a node is reached from outside the network it shares with the others: by
/// ports that its network forwards under the same number, as Docker publishes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideEntry {
    /// What clients from there are told.
    pub host: String,
    /// Bound beside `port`, and like it the first of one port a shard.
    pub port: u16,
}

/// What is wrong with a cluster file: where, what, and the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1, if it is about one.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.problem),
            None => write!(f, "{}: {}", self.file, self.problem),
        }
    }
}

impl std::error::Error for FileError {}

impl ClusterFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(error) => {
                let problem = format!("cannot read the cluster file: {error}");
                Err(FileError { file, line: None, problem })
            }
        }
    }

    /// Checks the text of a file; `file` is its name in errors.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Self, FileError> {
        read_cluster(text).map_err(|Wrong { at, problem }| {
            let line = at.map(|at| 1 + text[..at.min(text.len())].matches('\n').count());
            FileError { file: file.to_owned(), line, problem }
        })
    }

    /// A whole cluster on this machine, as `moonraft dev` starts it: node `i` has
    /// its clients at `port + 100 * (i - 1)`, peers and HTTP 10,000 and 20,000 above.
    ///
    /// # Errors
    /// The numbers do not fit, in words for the command line.
    pub fn local(nodes: u32, shards: u32, port: u16) -> Result<Self, String> {
        /// Ports between two nodes: as many shards may they have at most.
        const STRIDE: u32 = 100;
        if nodes == 0 || u64::from(nodes) > REPLICAS_MAX {
            return Err(format!("--nodes must be between 1 and {REPLICAS_MAX}"));
        }
        if shards == 0 || shards > STRIDE {
            return Err(format!("--shards must be between 1 and {STRIDE}"));
        }
        let highest = u32::from(port) + STRIDE * (nodes - 1) + 20_000 + shards;
        if port == 0 || highest > u32::from(u16::MAX) {
            let most = u32::from(u16::MAX) - (highest - u32::from(port));
            return Err(format!(
                "--port must be between 1 and {most}: the ports up to 20000 above it are used"
            ));
        }
        let entry = |id: u32| {
            let port = port + (STRIDE * (id - 1)) as u16;
            NodeEntry {
                id: u64::from(id),
                host: "127.0.0.1".to_owned(),
                announce: "127.0.0.1".to_owned(),
                port,
                outside: None,
                peer_port: port + 10_000,
                http_port: port + 20_000,
            }
        };
        let nodes_list = (1..=nodes).map(entry).collect();
        let settings = Settings::default();
        Ok(Self { name: "dev".to_owned(), shards, replicas: nodes, settings, nodes: nodes_list })
    }

    /// The node of this number.
    pub fn node(&self, id: u64) -> Option<&NodeEntry> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// Something wrong, and the byte at which it is.
struct Wrong {
    at: Option<usize>,
    problem: String,
}

type Checked<T> = Result<T, Wrong>;

fn wrong<T>(span: Range<usize>, problem: impl Into<String>) -> Checked<T> {
    Err(Wrong { at: Some(span.start), problem: problem.into() })
}

fn read_cluster(text: &str) -> Checked<ClusterFile> {
    let parsed = DeTable::parse(text).map_err(|error| {
        let problem = format!("not valid TOML: {}", error.message().lines().collect::<Vec<_>>().join("; "));
        Wrong { at: error.span().map(|span| span.start), problem }
    })?;
    let table = Table { entries: parsed.get_ref(), name: "the cluster file", span: None };
    table.only(&["name", "shards", "replicas", "settings", "node"])?;

    let name = table.text("name")?.ok_or_else(|| table.missing("name", "name = \"my-cluster\""))?;
    let plain = |letter: char| letter.is_ascii_graphic();
    if name.get_ref().is_empty()
        || name.get_ref().len() > NAME_BYTES_MAX
        || !name.get_ref().chars().all(plain)
    {
        let range = format!("1 to {NAME_BYTES_MAX} ASCII letters, digits or signs, without blanks");
        return wrong(name.span(), format!("'name' must be {range}"));
    }
    let shards = table.required_number("shards", 1..=SHARDS_MAX, "shards = 3")?;
    let replicas = table.required_number("replicas", 1..=REPLICAS_MAX, "replicas = 3")?;
    let settings = read_settings(&table)?;
    let nodes = read_nodes(&table, *shards.get_ref())?;
    if *replicas.get_ref() > nodes.len() as u64 {
        let (replicas_of, count) = (replicas.get_ref(), nodes.len());
        let problem = format!(
            "'replicas' is {replicas_of}, but the file has {count} [[node]] sections; a shard has at most one replica on each node"
        );
        return wrong(replicas.span(), problem);
    }
    Ok(ClusterFile {
        name: name.into_inner(),
        shards: *shards.get_ref() as u32,
        replicas: *replicas.get_ref() as u32,
        settings,
        nodes,
    })
}

fn read_settings(table: &Table<'_>) -> Checked<Settings> {
    let mut settings = Settings::default();
    let Some(section) = table.entries.get("settings") else { return Ok(settings) };
    let Some(entries) = section.get_ref().as_table() else {
        return wrong(section.span(), "'settings' must be a section: [settings]");
    };
    for (name, value) in entries {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Boolean(yes) => if *yes { "yes" } else { "no" }.to_owned(),
            other => {
                let problem =
                    format!("setting '{}' must be a text or a number, not {}", name.get_ref(), kind(other));
                return wrong(value.span(), problem);
            }
        };
        if let Err(error) = settings.set_at_start(name.get_ref(), &text) {
            let span = match error {
                super::SettingError::Unknown(_) => name.span(),
                super::SettingError::Refused { .. } => value.span(),
            };
            return wrong(span, error.explain());
        }
    }
    Ok(settings)
}

fn read_nodes(table: &Table<'_>, shards: u64) -> Checked<Vec<NodeEntry>> {
    const EXAMPLE: &str = "add a [[node]] section with id, host, port, peer-port and http-port";
    let Some(list) = table.entries.get("node") else {
        return Err(Wrong { at: None, problem: format!("no node is declared; {EXAMPLE}") });
    };
    let Some(list) = list.get_ref().as_array() else {
        return wrong(list.span(), "nodes are declared in sections named [[node]], with two brackets");
    };
    if list.is_empty() || list.len() > NODES_MAX {
        let problem = format!("a cluster has 1 to {NODES_MAX} nodes; {EXAMPLE}");
        return Err(Wrong { at: None, problem });
    }
    let mut clashes = Clashes::default();
    let mut nodes = Vec::new();
    for item in list {
        let Some(entries) = item.get_ref().as_table() else {
            return wrong(item.span(), "nodes are declared in sections named [[node]]");
        };
        let section = Table { entries, name: "[[node]]", span: Some(item.span()) };
        nodes.push(read_node(&section, shards, &mut clashes)?);
        check_outside(&section, &nodes)?;
    }
    Ok(nodes)
}

const NODE_KEYS: [&str; 8] =
    ["id", "host", "announce", "port", "outside", "outside-port", "peer-port", "http-port"];

fn read_node(section: &Table<'_>, shards: u64, clashes: &mut Clashes) -> Checked<NodeEntry> {
    section.only(&NODE_KEYS)?;
    let id = section.required_number("id", 1..=u64::from(u32::MAX), "id = 1")?;
    let node = *id.get_ref();
    if !clashes.ids.insert(node) {
        return wrong(id.span(), format!("node {node} is declared twice; give each node its own id"));
    }
    let host = section.text("host")?.ok_or_else(|| section.missing("host", "host = \"127.0.0.1\""))?;
    check_host("host", &host)?;
    let announce = section.text("announce")?;
    if let Some(announce) = &announce {
        check_host("announce", announce)?;
    }
    let told = announce.as_ref().unwrap_or(&host);
    if is_wildcard(told.get_ref()) {
        let problem = format!(
            "clients and peers of node {node} cannot be told the address {}; set 'announce' to the one they reach it at",
            told.get_ref()
        );
        return wrong(told.span(), problem);
    }
    let port_max = u64::from(u16::MAX) + 1 - shards;
    let port = section.required_number("port", 1..=port_max, "port = 7001")?;
    let outside = read_outside(section, port_max)?;
    let peer_port = section.required_number("peer-port", 1..=65_535, "peer-port = 17001")?;
    let http_port = section.required_number("http-port", 1..=65_535, "http-port = 27001")?;
    // Two nodes that bind everywhere are on machines of their own if they are told apart.
    let machine = if is_wildcard(host.get_ref()) { told.get_ref() } else { host.get_ref() };
    for shard in 0..shards {
        let use_of = format!("the client port of shard {shard} of node {node}");
        clashes.claim(machine, *port.get_ref() + shard, use_of, &port)?;
        if let Some((told, port)) = &outside {
            let use_of = format!("the outside port of shard {shard} of node {node}");
            clashes.claim(machine, *port.get_ref() + shard, use_of.clone(), port)?;
            clashes.tell(told.get_ref(), *port.get_ref() + shard, use_of, port)?;
        }
    }
    clashes.claim(machine, *peer_port.get_ref(), format!("the peer port of node {node}"), &peer_port)?;
    clashes.claim(machine, *http_port.get_ref(), format!("the HTTP port of node {node}"), &http_port)?;
    let announce = told.get_ref().clone();
    let outside =
        outside.map(|(told, port)| OutsideEntry { host: told.into_inner(), port: *port.get_ref() as u16 });
    Ok(NodeEntry {
        id: node,
        announce,
        host: host.into_inner(),
        port: *port.get_ref() as u16,
        outside,
        peer_port: *peer_port.get_ref() as u16,
        http_port: *http_port.get_ref() as u16,
    })
}

/// `outside` and `outside-port`: both or neither.
fn read_outside(section: &Table<'_>, port_max: u64) -> Checked<Option<(Spanned<String>, Spanned<u64>)>> {
    let Some(told) = section.text("outside")? else {
        return match section.entries.get("outside-port") {
            None => Ok(None),
            Some(port) => wrong(
                port.span(),
                "'outside-port' needs 'outside', the address under which clients from outside reach it; \
                 add a line like: outside = \"127.0.0.1\"",
            ),
        };
    };
    check_host("outside", &told)?;
    if is_wildcard(told.get_ref()) {
        let problem = format!(
            "clients from outside cannot be told the address {}; 'outside' is the one they reach the node at",
            told.get_ref()
        );
        return wrong(told.span(), problem);
    }
    if !section.entries.contains_key("outside-port") {
        let problem = "'outside' needs 'outside-port', where clients from outside come in; \
                       add a line like: outside-port = 7001";
        return wrong(told.span(), problem);
    }
    let port = section.required_number("outside-port", 1..=port_max, "outside-port = 7001")?;
    Ok(Some((told, port)))
}

/// All nodes can be reached from outside, or none: else clients there would be
/// sent to addresses that mean nothing to them.
fn check_outside(section: &Table<'_>, nodes: &[NodeEntry]) -> Checked<()> {
    let [first, .., last] = nodes else { return Ok(()) };
    if first.outside.is_some() == last.outside.is_some() {
        return Ok(());
    }
    let (with, without) = if first.outside.is_some() { (first, last) } else { (last, first) };
    let problem = format!(
        "node {} has 'outside', node {} has not; give it to all nodes or to none",
        with.id, without.id
    );
    Err(Wrong { at: section.span.as_ref().map(|span| span.start), problem })
}

fn is_wildcard(host: &str) -> bool {
    matches!(host, "0.0.0.0" | "::")
}

fn check_host(key: &str, host: &Spanned<String>) -> Checked<()> {
    let text = host.get_ref();
    let legal = |letter: char| letter.is_ascii_alphanumeric() || ".-:_".contains(letter);
    let one_colon = text.matches(':').count() == 1;
    if text.is_empty() || !text.chars().all(legal) || one_colon {
        let problem = format!("'{key}' must be an IP address or a host name without a port, not '{text}'");
        return wrong(host.span(), problem);
    }
    Ok(())
}

/// What has been given away already.
#[derive(Default)]
struct Clashes {
    ids: std::collections::BTreeSet<u64>,
    /// Ports that are bound, by machine.
    ports: BTreeMap<(String, u64), String>,
    /// Addresses that clients from outside are told.
    told: BTreeMap<(String, u64), String>,
}

impl Clashes {
    fn claim(&mut self, host: &str, port: u64, use_of: String, given: &Spanned<u64>) -> Checked<()> {
        take(&mut self.ports, host, port, use_of, given)
    }

    fn tell(&mut self, host: &str, port: u64, use_of: String, given: &Spanned<u64>) -> Checked<()> {
        take(&mut self.told, host, port, use_of, given)
    }
}

fn take(
    taken: &mut BTreeMap<(String, u64), String>,
    host: &str,
    port: u64,
    use_of: String,
    given: &Spanned<u64>,
) -> Checked<()> {
    if let Some(other) = taken.get(&(host.to_owned(), port)) {
        let problem = format!("port {port} on {host} would be both {other} and {use_of}; move one of them");
        return wrong(given.span(), problem);
    }
    taken.insert((host.to_owned(), port), use_of);
    Ok(())
}

/// A table of the file, and how to call it in an error.
struct Table<'a> {
    entries: &'a DeTable<'a>,
    name: &'static str,
    span: Option<Range<usize>>,
}

impl Table<'_> {
    fn only(&self, known: &[&str]) -> Checked<()> {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let mend = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("it has {}", known.join(", ")),
            };
            return wrong(key.span(), format!("'{name}' is not a key of {}; {mend}", self.name));
        }
        Ok(())
    }

    fn missing(&self, key: &str, example: &str) -> Wrong {
        let problem = format!("{} has no '{key}'; add a line like: {example}", self.name);
        Wrong { at: self.span.as_ref().map(|span| span.start), problem }
    }

    fn text(&self, key: &str) -> Checked<Option<Spanned<String>>> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::String(text) => Ok(Some(Spanned::new(value.span(), text.to_string()))),
            other => {
                let problem = format!("'{key}' must be a text in quotes, not {}", kind(other));
                wrong(value.span(), problem)
            }
        }
    }

    fn required_number(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        example: &str,
    ) -> Checked<Spanned<u64>> {
        let value = self.entries.get(key).ok_or_else(|| self.missing(key, example))?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            other => {
                let problem = format!("'{key}' must be a number, not {}", kind(other));
                return wrong(value.span(), problem);
            }
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Spanned::new(value.span(), number)),
            None => {
                let problem = format!("'{key}' must be between {} and {}", range.start(), range.end());
                wrong(value.span(), problem)
            }
        }
    }
}

/// What a value is, in words.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

#[cfg(test)]
#[path = "cluster_file_tests.rs"]
mod tests;
