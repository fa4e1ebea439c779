//! Hosts as network namespaces, and the router between them.
//!
//! Every host has a namespace of its own with one interface; the far end of each
//! is in a namespace that only forwards. Cuts, loss and delay are done there, by
//! address pairs in one direction, so any shape can be made: a one-way link, a
//! bridge, a leader that clients reach and its followers do not. Host 0 is where
//! the clients are; this process moves into it.
//!
//! Cuts and loss are nftables' (`numgen`). Delay needs `netem` in most tools, which
//! many kernels lack: instead the packets of slow pairs wait in a netfilter queue
//! ([`crate::delay`]). nftables' own `queue` is missing as often, so the marked
//! packets are handed over by iptables' NFQUEUE target.
//!
//! Nothing outside the namespaces is touched. Their names begin with a prefix that
//! is given, so that whoever started this process can clean up after it.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    net::Ipv4Addr,
    os::fd::AsFd as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A host; 0 is that of the clients.
pub type Host = usize;
/// Packets from the first host to the second.
pub type Way = (Host, Host);

/// The clients' host.
pub const CLIENTS: Host = 0;
/// The mark of packets that wait in the queue.
const SLOW_MARK: &str = "0x51";

/// What is wrong with the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing passes.
    pub cut: BTreeSet<Way>,
    /// Packets are lost, [`LOSS_PERCENT`] of them.
    pub lossy: BTreeSet<Way>,
    /// Packets are late, and overtake each other.
    pub slow: BTreeSet<Way>,
}

/// Of the packets of a lossy way: enough that some heartbeats fail thrice in a row.
const LOSS_PERCENT: u32 = 25;

/// The namespaces.
pub struct Network {
    prefix: String,
    hosts: usize,
    weather: Weather,
}

/// The address of a host.
pub fn address(host: Host) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, host as u8, 2)
}

/// Runs a command of the system; its error output is the error.
pub fn perform(words: &[&str]) -> anyhow::Result<()> {
    feed(words, "")
}

fn feed(words: &[&str], input: &str) -> anyhow::Result<()> {
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {}", words[0]))?;
    child.stdin.take().context("its input is ours")?.write_all(input.as_bytes())?;
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("{}: {}", words.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// Moves this thread, and those it will start, into a namespace.
pub fn enter(name: &str) -> anyhow::Result<()> {
    let link = File::open(format!("/run/netns/{name}")).with_context(|| format!("namespace {name}"))?;
    move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

impl Network {
    /// Makes the namespaces of the clients and of `nodes` hosts.
    pub fn new(prefix: &str, nodes: usize) -> anyhow::Result<Self> {
        let network = Self { prefix: prefix.to_owned(), hosts: nodes + 1, weather: Weather::default() };
        let router = network.router();
        perform(&["ip", "netns", "add", &router])?;
        perform(&["ip", "netns", "exec", &router, "sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        for host in 0..network.hosts {
            network.add(host)?;
        }
        network.route_packets()?;
        Ok(network)
    }

    /// The namespace of a host.
    pub fn namespace(&self, host: Host) -> String {
        format!("{}-h{host}", self.prefix)
    }

    /// The namespace that forwards.
    pub fn router(&self) -> String {
        format!("{}-router", self.prefix)
    }

    fn add(&self, host: Host) -> anyhow::Result<()> {
        let (name, router, end) = (self.namespace(host), self.router(), format!("to{host}"));
        let here = format!("{}/24", address(host));
        let there = Ipv4Addr::new(10, 77, host as u8, 1);
        let gateway = format!("{there}/24");
        perform(&["ip", "netns", "add", &name])?;
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &name];
        perform(&[&["ip", "-n", &router, "link", "add", &end][..], &pair].concat())?;
        perform(&["ip", "-n", &router, "addr", "add", &gateway, "dev", &end])?;
        perform(&["ip", "-n", &router, "link", "set", &end, "up"])?;
        perform(&["ip", "-n", &name, "addr", "add", &here, "dev", "eth0"])?;
        perform(&["ip", "-n", &name, "link", "set", "eth0", "up"])?;
        perform(&["ip", "-n", &name, "link", "set", "lo", "up"])?;
        perform(&["ip", "-n", &name, "route", "add", "default", "via", &there.to_string()])
    }

    fn route_packets(&self) -> anyhow::Result<()> {
        let router = self.router();
        let table = format!(
            "table ip weather {{
              set cut {{ type ipv4_addr . ipv4_addr; }}
              set lossy {{ type ipv4_addr . ipv4_addr; }}
              set slow {{ type ipv4_addr . ipv4_addr; }}
              chain forward {{
                type filter hook forward priority -10; policy accept;
                ip saddr . ip daddr @cut drop
                ip saddr . ip daddr @lossy numgen random mod 100 < {LOSS_PERCENT} drop
                ip saddr . ip daddr @slow meta mark set {SLOW_MARK}
              }}
            }}"
        );
        feed(&["ip", "netns", "exec", &router, "nft", "-f", "-"], &table)
            .context("this kernel must have nf_tables with numgen")?;
        let queue = ["-A", "FORWARD", "-m", "mark", "--mark", SLOW_MARK, "-j", "NFQUEUE", "--queue-num", "0"];
        perform(&[&["ip", "netns", "exec", &router, "iptables-legacy"][..], &queue].concat())
            .context("this kernel must have the NFQUEUE target")
    }

    /// Makes the network so, in one transaction of nftables.
    pub fn become_like(&mut self, weather: &Weather) -> anyhow::Result<()> {
        if self.weather == *weather {
            return Ok(());
        }
        let mut rules = String::new();
        for (set, ways) in [("cut", &weather.cut), ("lossy", &weather.lossy), ("slow", &weather.slow)] {
            rules += &format!("flush set ip weather {set}\n");
            for &(from, to) in ways {
                let pair = format!("{} . {}", address(from), address(to));
                rules += &format!("add element ip weather {set} {{ {pair} }}\n");
            }
        }
        feed(&["ip", "netns", "exec", &self.router(), "nft", "-f", "-"], &rules)?;
        self.weather = weather.clone();
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let hosts = (0..self.hosts).map(|host| self.namespace(host));
        for name in hosts.chain([self.router()]) {
            let _ = perform(&["ip", "netns", "del", &name]);
        }
    }
}
