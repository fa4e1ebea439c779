//! A cluster of real processes, one a host, and what can be done to each.
//!
//! Each process has its data on a small `tmpfs` of its own, so that its disk can be
//! full while the others' are not; a file of ballast fills it.
//!
//! INVARIANT: [`Cluster::become_like`] alone does anything to a process: it is told
//! what the world shall look like and makes it so, whatever it was before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::bail;
use moonraft_tests::{
    processes::{Process, cluster_file, wait_until},
    value::{Value, read_value},
};

use crate::{
    clocks::{Clock, Skew, compile},
    network::{Host, Network, Weather, address, perform},
};

/// Client port of shard 0 on every host.
const PORT: u16 = 7001;
/// How long a cluster may take to be ready, on a busy machine.
const READY: Duration = Duration::from_secs(60);
/// A node that answers at all answers its slots by then.
const ASK: Duration = Duration::from_millis(500);
/// Room for the log, its snapshots and what they replace: see the settings below.
const DISK: &str = "size=400m";
const STEP: Duration = Duration::from_millis(20);

/// What runs on the hosts.
#[derive(Clone, Debug)]
pub enum Product {
    /// `moonraft server` of this binary.
    Moonraft(PathBuf),
    /// The binary that breaks a promise, and which.
    Planted(PathBuf, &'static str),
    /// Debian's `redis-server`, half of them replicas.
    Redis,
}

/// What is wrong with the replicas of shards.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// Two that answer hold different data.
    pub differing: Vec<String>,
    /// Those that answer hold the same; others do not answer.
    pub silent: Vec<String>,
}

/// What the world shall be like.
#[derive(Clone, Debug, Default)]
pub struct Plight {
    /// The network.
    pub weather: Weather,
    /// Hosts whose process is killed.
    pub down: BTreeSet<Host>,
    /// Hosts whose process is stopped.
    pub paused: BTreeSet<Host>,
    /// Hosts whose disk is full.
    pub full: BTreeSet<Host>,
    /// Clocks that are off.
    pub skews: BTreeMap<Host, Skew>,
}

struct Node {
    host: Host,
    directory: PathBuf,
    clock: Clock,
    child: Option<Process>,
    paused: bool,
    full: bool,
    /// Its disk was full at some time since it started: it may end by itself.
    was_full: bool,
}

/// The processes.
pub struct Cluster {
    /// The network between them.
    pub network: Network,
    product: Product,
    /// How many shards.
    pub shards: usize,
    directory: PathBuf,
    shim: PathBuf,
    nodes: Vec<Node>,
    /// Processes that ended by themselves.
    pub deaths: Vec<String>,
}

impl Cluster {
    /// Starts `count` nodes with `shards` shards.
    pub fn start(
        product: Product,
        network: Network,
        count: usize,
        shards: usize,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        let shim = compile(directory)?;
        let mut nodes = Vec::new();
        for host in 1..=count {
            let data = directory.join(format!("node-{host}"));
            fs::create_dir_all(&data)?;
            perform(&["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", &data.display().to_string()])?;
            let clock = Clock::new(directory.join(format!("clock-{host}")))?;
            let (paused, full, was_full) = (false, false, false);
            nodes.push(Node { host, directory: data, clock, child: None, paused, full, was_full });
        }
        fs::write(directory.join("cluster.toml"), cluster_text(count, shards))?;
        let directory = directory.to_owned();
        let mut cluster = Self { network, product, shards, directory, shim, nodes, deaths: Vec::new() };
        cluster.become_like(&Plight::default())?;
        cluster.join()?;
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// The hosts of the nodes.
    pub fn hosts(&self) -> Vec<Host> {
        self.nodes.iter().map(|node| node.host).collect()
    }

    fn is_redis(&self) -> bool {
        matches!(self.product, Product::Redis)
    }

    /// All addresses that clients may use.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let ports = if self.is_redis() { 1 } else { self.shards as u16 };
        let of = |host| (0..ports).map(move |shard| SocketAddrV4::new(address(host), PORT + shard).into());
        self.hosts().into_iter().flat_map(of).collect()
    }

    fn command(&self, node: &Node) -> anyhow::Result<Command> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.network.namespace(node.host), "env"]);
        command.arg(format!("CLOCK_SHIM_FILE={}", node.clock.path.display()));
        command.arg(format!("LD_PRELOAD={}", self.shim.display()));
        let (file, data) = (self.directory.join("cluster.toml"), node.directory.join("data"));
        let (host, mut words) = (node.host.to_string(), Vec::new());
        match &self.product {
            Product::Moonraft(binary) => {
                command.arg(binary).arg("server");
            }
            Product::Planted(binary, fault) => {
                command.arg(binary).args(["--fault", fault]);
            }
            Product::Redis => {
                fs::create_dir_all(&data)?;
                command.arg("redis-server").arg("--dir").arg(&data);
                words = format!(
                    "--port {PORT} --bind {} --protected-mode no --cluster-enabled yes \
                     --cluster-node-timeout 1000 --cluster-replica-validity-factor 0 --appendonly yes \
                     --appendfsync always --repl-diskless-sync-delay 0",
                    address(node.host)
                )
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            }
        }
        if !self.is_redis() {
            command.args(["--node", &host]).arg("--cluster").arg(file).arg("--dir").arg(data);
        }
        let log = File::options().create(true).append(true).open(self.log(node.host))?;
        command.args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    /// What a node wrote.
    fn log(&self, host: Host) -> PathBuf {
        self.directory.join(format!("node-{host}.log"))
    }

    /// Makes the world so.
    pub fn become_like(&mut self, plight: &Plight) -> anyhow::Result<()> {
        self.network.become_like(&plight.weather)?;
        for at in 0..self.nodes.len() {
            let host = self.nodes[at].host;
            self.note_death(at)?;
            let node = &mut self.nodes[at];
            node.clock.set(plight.skews.get(&host).copied().unwrap_or_default())?;
            node.fill(plight.full.contains(&host))?;
            let down = plight.down.contains(&host);
            if down && node.child.take().is_some() {
                node.paused = false;
            }
            if !down && self.nodes[at].child.is_none() && !plight.full.contains(&host) {
                self.nodes[at].child = Some(Process::start(&mut self.command(&self.nodes[at])?)?);
                self.nodes[at].was_full = false;
            }
            self.nodes[at].pause(plight.paused.contains(&host))?;
        }
        Ok(())
    }

    /// A process that ended though nobody killed it is a fault, unless its disk was full.
    fn note_death(&mut self, at: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[at];
        let Some(child) = &mut node.child else { return Ok(()) };
        if let Some(status) = child.ended()? {
            node.child = None;
            node.paused = false;
            if !node.was_full {
                let host = node.host;
                let log = fs::read(self.log(host)).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let last: Vec<&str> = log.lines().rev().take(6).collect();
                self.deaths.push(format!("node {host} ended by itself, {status}: {}", last.join(" / ")));
            }
        }
        Ok(())
    }

    /// Makes one cluster of the processes; Moonraft's know it from their file.
    fn join(&self) -> anyhow::Result<()> {
        if !self.is_redis() {
            return Ok(());
        }
        let all: Vec<String> = self.addresses().iter().map(ToString::to_string).collect();
        wait_until("redis-server answers", READY, || {
            Ok(self.addresses().iter().all(|&address| ask(address, "PING").is_some()))
        })?;
        let mut command = vec!["redis-cli", "--cluster", "create"];
        command.extend(all.iter().map(String::as_str));
        command.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        perform(&command)
    }

    /// Waits until every node says that the cluster is whole.
    pub fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY;
        let whole = |address: &SocketAddr| match ask(*address, "CLUSTER INFO") {
            Some(Value::Bulk(text)) => String::from_utf8_lossy(&text).contains("cluster_state:ok"),
            _ => false,
        };
        loop {
            self.become_like(&Plight::default())?;
            if self.addresses().iter().all(whole) {
                return Ok(());
            }
            if Instant::now() > until {
                let bad: Vec<_> = self.addresses().into_iter().filter(|address| !whole(address)).collect();
                bail!("not every node says that the cluster is whole: {bad:?}; {:?}", self.deaths);
            }
            std::thread::sleep(STEP);
        }
    }

    /// The host that leads a shard, as the first that answers says.
    pub fn leader(&self, shard: usize) -> Option<Host> {
        let rows = self.addresses().into_iter().find_map(|address| match ask(address, "CLUSTER SLOTS") {
            Some(Value::Array(rows)) if !rows.is_empty() => Some(rows),
            _ => None,
        })?;
        let Value::Array(row) = rows.get(shard % rows.len())? else { return None };
        let Value::Array(leader) = row.get(2)? else { return None };
        let Value::Bulk(name) = leader.first()? else { return None };
        let name = String::from_utf8_lossy(name).into_owned();
        self.hosts().into_iter().find(|&host| address(host).to_string() == name)
    }

    /// Waits until all replicas of each shard answer that they hold the same; what is wrong if they
    /// never do.
    pub fn compare_replicas(&self, within: Duration) -> Levels {
        if self.is_redis() {
            return Levels::default();
        }
        let until = Instant::now() + within;
        loop {
            let mut levels = Levels::default();
            (0..self.shards).for_each(|shard| self.compare(shard, &mut levels));
            if levels.differing.is_empty() && levels.silent.is_empty() || Instant::now() > until {
                return levels;
            }
            std::thread::sleep(STEP);
        }
    }

    fn compare(&self, shard: usize, levels: &mut Levels) {
        let digest = |&host: &Host| {
            let port = PORT + shard as u16;
            match ask(SocketAddrV4::new(address(host), port).into(), "DEBUG DIGEST") {
                Some(Value::Error(_)) | None => None,
                digest => digest,
            }
        };
        let digests: Vec<_> = self.hosts().iter().map(digest).collect();
        let mut told = digests.iter().flatten();
        let first = told.next();
        if told.any(|digest| Some(digest) != first) {
            levels.differing.push(format!("replicas of shard {shard} differ: {digests:?}"));
        } else if digests.contains(&None) {
            levels.silent.push(format!("replicas of shard {shard} do not answer: {digests:?}"));
        }
    }
}

impl Node {
    fn pause(&mut self, paused: bool) -> anyhow::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        if paused != self.paused {
            // One that just ended is noticed at the next look.
            child.pause(paused)?;
            self.paused = paused;
        }
        Ok(())
    }

    fn fill(&mut self, full: bool) -> anyhow::Result<()> {
        let ballast = self.directory.join("ballast");
        if full && !self.full {
            self.was_full = true;
            let mut file = File::create(&ballast)?;
            let block = vec![0; 1 << 16];
            while file.write_all(&block).is_ok() {}
        } else if !full && self.full {
            fs::remove_file(&ballast)?;
        }
        self.full = full;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.child = None;
            let _ = perform(&["umount", &node.directory.display().to_string()]);
        }
    }
}

/// The cluster file: all shards on all nodes, a log so short that snapshots are
/// taken and sent all the time, files that fit their small disk.
fn cluster_text(count: usize, shards: usize) -> String {
    const SETTINGS: &str = "log-entries-max = 1000\nlog-bytes-max = 1048576\nlog-purge-bytes = \"64mb\"\n";
    let nodes: Vec<_> = (1..=count).map(|host| (address(host).to_string(), [PORT, 17001, 27001])).collect();
    cluster_file("partition", shards, SETTINGS, &nodes)
}

/// One command and its reply, on a connection of its own; nothing if that is not quick.
fn ask(address: SocketAddr, command: &str) -> Option<Value> {
    let mut stream = TcpStream::connect_timeout(&address, ASK).ok()?;
    stream.set_read_timeout(Some(ASK)).ok()?;
    stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|&count| count > 0)?;
        bytes.extend(&buffer[..count]);
        if let Some(value) = read_value(&mut bytes.as_slice()) {
            return Some(value);
        }
    }
}
