//! Processes of servers: what they use, how they end, and waiting for what they do.

use std::{
    process::{Child, ChildStdout, Command, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Ticks a second in /proc/PID/stat: fixed at 100 on Linux, whatever the kernel's own rate.
const CPU_TICKS_PER_SECOND: u64 = 100;

/// Between two looks at a condition: short beside an election, long beside the cost of asking.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A process that ends when this is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn();
        Ok(Self(child.with_context(|| format!("starting {}", command.get_program().display()))?))
    }

    /// What it prints, if that is piped; once.
    ///
    /// # Errors
    /// It was taken before.
    pub fn output(&mut self) -> anyhow::Result<ChildStdout> {
        self.0.stdout.take().context("its output was taken")
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// The system's.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Stops it where it stands, or lets it go on. One that just ended is not missed.
    ///
    /// # Errors
    /// It has no number.
    pub fn pause(&self, paused: bool) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.0.id() as i32).context("a process has a number")?;
        let _ = kill_process(pid, if paused { Signal::STOP } else { Signal::CONT });
        Ok(())
    }

    /// The fields of /proc/PID/stat after the name of the program.
    fn stat(&self) -> anyhow::Result<Vec<u64>> {
        let path = format!("/proc/{}/stat", self.0.id());
        let text = std::fs::read_to_string(&path).context(path)?;
        // The name is in parentheses and may contain anything, also spaces.
        let (_, fields) = text.rsplit_once(") ").context("a line of /proc")?;
        Ok(fields.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect())
    }

    /// CPU time so far: of all threads, and of children that have ended.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        // proc(5): utime, stime, cutime and cstime are fields 14 to 17, counted from
        // 1; `stat` begins with field 3.
        let ticks: u64 = self.stat()?[11..15].iter().sum();
        Ok(Duration::from_millis(ticks * 1000 / CPU_TICKS_PER_SECOND))
    }

    /// Bytes of memory that are resident.
    ///
    /// # Errors
    /// It is gone.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.0.id());
        let text = std::fs::read_to_string(&path).context(path)?;
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
        Ok(kibibytes * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and that is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until the answer is yes; an error counts as "not yet", and is the reason when time is up.
///
/// # Errors
/// The answer stayed no.
#[allow(clippy::disallowed_methods, reason = "real servers live in real time")]
pub fn wait_until(
    what: &str,
    within: Duration,
    mut check: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let outcome = check();
        if matches!(outcome, Ok(true)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            outcome.with_context(|| format!("waiting until {what}"))?;
            bail!("waited in vain until {what}");
        }
        sleep(POLL_INTERVAL);
    }
}

/// A node of a cluster file: where it is, and its ports for clients (of shard 0), peers and HTTP.
pub type NodeAt = (String, [u16; 3]);

/// The text of a cluster file in which every node has a replica of each shard.
pub fn cluster_file(name: &str, shards: usize, settings: &str, nodes: &[NodeAt]) -> String {
    let mut text = format!("name = \"{name}\"\nshards = {shards}\nreplicas = {}\n", nodes.len());
    text += &format!("\n[settings]\n{settings}");
    for (number, (host, [port, peer_port, http_port])) in (1..).zip(nodes) {
        text += &format!(
            "\n[[node]]\nid = {number}\nhost = \"{host}\"\nport = {port}\npeer-port = {peer_port}\nhttp-port = {http_port}\n"
        );
    }
    text
}
