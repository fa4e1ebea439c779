//! The servers under measurement, and what they take from the machine.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use moonraft_tests::processes::{Process, cluster_file, wait_until};

use crate::Options;

/// No server takes that long to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Nodes of a durable system, on both sides.
const NODES: usize = 3;

/// Processes that serve together, and the port on which they are asked.
pub struct System {
    /// For tables and errors.
    pub name: &'static str,
    /// The client port of the leader.
    pub port: u16,
    /// All processes; the leader's is the first.
    processes: Vec<Process>,
}

impl System {
    /// A connection for everything that is not measured.
    pub fn control(&self) -> anyhow::Result<redis::Connection> {
        control(self.port).with_context(|| format!("connecting to {}", self.name))
    }

    /// CPU time of all processes so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// Resident bytes of the process that leads.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.processes[0].resident_bytes()
    }

    /// `used_memory` of INFO, if the server tells it.
    pub fn used_bytes(&self) -> anyhow::Result<Option<u64>> {
        let info: String = redis::cmd("INFO").arg("memory").query(&mut self.control()?)?;
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        Ok(line.and_then(|value| value.trim().parse().ok()))
    }
}

fn control(port: u16) -> redis::RedisResult<redis::Connection> {
    redis::Client::open(("127.0.0.1", port))?.get_connection()
}

/// Starts systems.
pub struct Machine {
    moonraft: Option<PathBuf>,
    redis: PathBuf,
    /// Data of all servers; gone when this is dropped.
    directory: tempfile::TempDir,
}

impl Machine {
    /// Uses the binaries and the folder of the options.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        let moonraft = if options.rival_only { None } else { options.moonraft_binary.clone() };
        if let Some(binary) = moonraft.as_ref().filter(|binary| !binary.is_file()) {
            bail!("there is no server at {}", binary.display());
        }
        let directory = tempfile::tempdir_in(&options.dir)?;
        Ok(Self { moonraft, redis: options.redis_binary.clone(), directory })
    }

    /// What the servers call themselves.
    pub fn versions(&self) -> anyhow::Result<String> {
        let version = |binary: &Path| -> anyhow::Result<String> {
            let done = Command::new(binary).arg("--version").output();
            let done = done.with_context(|| format!("running {}", binary.display()))?;
            let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
            Ok(text.split(" sha=").next().unwrap_or_default().to_owned())
        };
        let redis = version(&self.redis)?;
        match &self.moonraft {
            Some(binary) => Ok(format!("{}; {redis}", version(binary)?)),
            None => Ok(format!("self-check, both sides are {redis}")),
        }
    }

    /// One Redis Cluster node that owns all slots; nothing on disk.
    pub fn redis_master(&self) -> anyhow::Result<System> {
        let [port, bus] = free_ports()?;
        let settings =
            format!("cluster-enabled yes\ncluster-port {bus}\ncluster-announce-ip 127.0.0.1\nsave \"\"\n");
        let process = self.start_redis(port, &settings)?;
        let mut client = wait_for_redis(port)?;
        redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383).exec(&mut client)?;
        wait_for_cluster(port)?;
        Ok(System { name: "Redis", port, processes: vec![process] })
    }

    /// A primary and two replicas, each of which syncs every write to disk.
    pub fn redis_durable(&self) -> anyhow::Result<System> {
        // No rewrite of the file in between: it would fork, and cost Redis CPU.
        let always = "appendonly yes\nappendfsync always\nauto-aof-rewrite-percentage 0\nsave \"\"\n";
        let ports: [u16; NODES] = free_ports()?;
        let mut processes = vec![self.start_redis(ports[0], always)?];
        wait_for_redis(ports[0])?;
        for &port in &ports[1..] {
            let settings = format!("{always}replicaof 127.0.0.1 {}\n", ports[0]);
            processes.push(self.start_redis(port, &settings)?);
            let mut replica = wait_for_redis(port)?;
            wait_until("a replica follows", START_TIMEOUT, || {
                let info: String = redis::cmd("INFO").arg("replication").query(&mut replica)?;
                Ok(info.contains("master_link_status:up"))
            })?;
        }
        Ok(System { name: "Redis with two replicas", port: ports[0], processes })
    }

    fn start_redis(&self, port: u16, settings: &str) -> anyhow::Result<Process> {
        let directory = self.directory.path().join(format!("redis-{port}"));
        std::fs::create_dir(&directory)?;
        let file = directory.join("redis.conf");
        let common = format!("port {port}\nbind 127.0.0.1\ndir {}\n", directory.display());
        std::fs::write(&file, common + "repl-diskless-sync-delay 0\n" + settings)?;
        let log = File::create(directory.join("log"))?;
        Process::start(Command::new(&self.redis).arg(&file).stdout(log).stdin(Stdio::null()))
    }

    /// Three nodes and one shard; in a self-check, Redis takes its place.
    pub fn moonraft(&self) -> anyhow::Result<System> {
        match &self.moonraft {
            Some(binary) => self.start_moonraft(binary),
            None => Ok(System { name: "Redis in Moonraft's place", ..self.redis_durable()? }),
        }
    }

    /// The same of another build.
    pub fn moonraft_before(&self, binary: &Path) -> anyhow::Result<System> {
        Ok(System { name: "Moonraft before", ..self.start_moonraft(binary)? })
    }

    fn start_moonraft(&self, binary: &Path) -> anyhow::Result<System> {
        let ports: [u16; 3 * NODES] = free_ports()?;
        let directory = self.directory.path().join(format!("moonraft-{}", ports[0]));
        std::fs::create_dir(&directory)?;
        let file = directory.join("cluster.toml");
        let (nodes, _) = ports.as_chunks::<3>();
        let nodes: Vec<_> = nodes.iter().map(|ports| ("127.0.0.1".to_owned(), *ports)).collect();
        let text = cluster_file("bench", 1, "", &nodes);
        std::fs::write(&file, text)?;

        let mut children = Vec::new();
        for number in 1..=NODES {
            let home = directory.join(format!("node-{number}"));
            let log = File::create(directory.join(format!("node-{number}.log")))?;
            let mut command = Command::new(binary);
            command.arg("server").arg("--cluster").arg(&file);
            command.arg("--node").arg(number.to_string()).arg("--dir").arg(home);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
            children.push(Process::start(&mut command)?);
        }
        for process in &mut children {
            wait_for_ready_line(process)?;
        }
        let leader = wait_for_leader(ports[0])?;
        wait_for_cluster(leader)?;
        let position = ports.iter().step_by(3).position(|&port| port == leader);
        children.swap(0, position.context("the leader is none of ours")?);
        Ok(System { name: "Moonraft", port: leader, processes: children })
    }
}

/// Blocks until the node says `ready:`, then lets it write on into the void.
fn wait_for_ready_line(process: &mut Process) -> anyhow::Result<()> {
    let output = process.output()?;
    let (found, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line.starts_with("ready:") {
                let _ = found.send(());
            }
        }
    });
    ready.recv_timeout(START_TIMEOUT).context("moonraft did not say `ready:`")
}

/// Blocks until the node calls its cluster complete.
fn wait_for_cluster(port: u16) -> anyhow::Result<()> {
    wait_until("the cluster is up", START_TIMEOUT, || {
        let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut control(port)?)?;
        Ok(info.contains("cluster_state:ok"))
    })
}

/// The port of the leader of the only shard.
fn wait_for_leader(port: u16) -> anyhow::Result<u16> {
    let mut leader = 0;
    wait_until("the shard has a leader", START_TIMEOUT, || {
        // Rows are [first slot, last slot, leader, follower…], a node is [host, port, id, …].
        let slots = redis::cmd("CLUSTER").arg("SLOTS").query(&mut control(port)?)?;
        let rows: Vec<Vec<redis::Value>> = redis::from_redis_value(slots)?;
        let owner = rows.first().and_then(|row| row.get(2)).context("no slots yet")?;
        let owner: Vec<redis::Value> = redis::from_redis_value(owner.clone())?;
        leader = redis::from_redis_value(owner.get(1).context("no port")?.clone())?;
        Ok(true)
    })?;
    Ok(leader)
}

fn wait_for_redis(port: u16) -> anyhow::Result<redis::Connection> {
    let mut connection = None;
    wait_until("redis-server answers", START_TIMEOUT, || {
        let mut client = control(port)?;
        redis::cmd("PING").exec(&mut client)?;
        connection = Some(client);
        Ok(true)
    })?;
    connection.context("redis-server answers")
}

/// Ports on which nobody listens.
fn free_ports<const COUNT: usize>() -> anyhow::Result<[u16; COUNT]> {
    // All are held until all are found, so they differ.
    let mut listeners = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
