//! What is done to the cluster, from a seed.
//!
//! A fault that is under way is a [`Deed`]: its share of the plight, and when it
//! ends. The world is made like the sum of all deeds, so any of them combine, and
//! the end of one undoes nothing of another.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};

use crate::{
    clocks::Skew,
    cluster::{Cluster, Plight},
    network::{CLIENTS, Host, Way, Weather},
};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Nothing happens.
    None,
    /// kill -9 of one node.
    Kill,
    /// SIGSTOP of one node, or of most.
    Pause,
    /// All nodes are killed and start again in a drawn order.
    RestartStorm,
    /// A majority here, a minority there.
    Halves,
    /// Packets pass one way only.
    OneWay,
    /// Two nodes do not hear each other, a third hears both.
    Bridge,
    /// A leader is cut off from the nodes; clients reach it.
    IsolateLeader,
    /// Clients are cut off from some nodes, which hear each other.
    ClientsCut,
    /// A quarter of the packets is lost.
    Loss,
    /// Packets are late and overtake each other.
    Delay,
    /// Wall clocks jump, forth and back.
    ClockJump,
    /// Clocks run at rates that differ by 9 %: less than `lease-drift-percent`.
    ClockRate,
    /// Clocks run at rates that differ by 40 %: more than is promised to be safe.
    ClockRateOver,
    /// A disk is full.
    FullDisk,
    /// Several of all at a time.
    All,
}

/// What `All` draws from: everything that is promised to be safe.
const EVERY: &[Fault] = &[
    Fault::Kill,
    Fault::Pause,
    Fault::RestartStorm,
    Fault::Halves,
    Fault::OneWay,
    Fault::Bridge,
    Fault::IsolateLeader,
    Fault::ClientsCut,
    Fault::Loss,
    Fault::Delay,
    Fault::ClockJump,
    Fault::ClockRate,
    Fault::FullDisk,
];

impl Fault {
    /// All that a full matrix runs.
    pub fn matrix() -> Vec<Fault> {
        [&[Fault::None], EVERY, &[Fault::All]].concat()
    }

    /// Its name in reports.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// By how much the fastest clock of a node is faster than that of the clients, in parts per million.
    pub fn fastest_ppm(self) -> u64 {
        match self {
            Fault::ClockRateOver => RATE_OVER_PPM as u64,
            Fault::ClockRate | Fault::All => RATE_PPM as u64,
            _ => 0,
        }
    }
}

/// By how much clocks are faster or slower than they should be: of two, the faster is 9 % above the slower at most.
const RATE_PPM: i64 = 43_000;
/// The same, beyond what is promised to be safe.
const RATE_OVER_PPM: i64 = 200_000;

/// A fault that is under way.
struct Deed {
    until: Instant,
    plight: Plight,
}

/// How long a fault lasts: shorter and longer than an election, which takes 0.5 to 1 s.
const LASTS_MS: std::ops::Range<u64> = 300..4500;
/// Between the end of one and the next.
const QUIET_MS: std::ops::Range<u64> = 100..2500;
const STEP: Duration = Duration::from_millis(10);

/// Does `fault` to the cluster, again and again, until `until`; then makes all well.
/// Tells what it did and when.
pub fn torment(
    cluster: &mut Cluster,
    fault: Fault,
    rng: &mut StdRng,
    start: Instant,
    until: Instant,
) -> anyhow::Result<Vec<String>> {
    let (mut deeds, mut told) = (Vec::<Deed>::new(), Vec::new());
    let at_once = if fault == Fault::All { 3 } else { 1 };
    let mut next = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        let now = Instant::now();
        let before = deeds.len();
        deeds.retain(|deed| deed.until > now);
        let mut changed = deeds.len() != before;
        if now >= next && deeds.len() < at_once && fault != Fault::None {
            let which = if fault == Fault::All { EVERY[rng.random_range(0..EVERY.len())] } else { fault };
            let lasts = Duration::from_millis(rng.random_range(LASTS_MS));
            if which == Fault::RestartStorm {
                told.push(format!("{} ms: restart storm", start.elapsed().as_millis()));
                storm(cluster, &sum(&deeds), rng)?;
            } else {
                let plight = draw(cluster, which, rng);
                told.push(format!("{} ms: {which:?} for {lasts:?}: {plight:?}", start.elapsed().as_millis()));
                deeds.push(Deed { until: now + lasts, plight });
            }
            let mut quiet = rng.random_range(QUIET_MS);
            if fault == Fault::All {
                quiet /= 2;
            } else {
                quiet += lasts.as_millis() as u64;
            }
            next = Instant::now() + Duration::from_millis(quiet);
            changed = true;
        }
        if changed || deeds.is_empty() {
            cluster.become_like(&sum(&deeds))?;
        }
        std::thread::sleep(STEP);
    }
    told.push(format!("{} ms: all is well", start.elapsed().as_millis()));
    cluster.become_like(&Plight::default())?;
    Ok(told)
}

/// The plight of all deeds together.
fn sum(deeds: &[Deed]) -> Plight {
    let mut all = Plight::default();
    for Deed { plight, .. } in deeds {
        let plight = plight.clone();
        all.weather.cut.extend(plight.weather.cut);
        all.weather.lossy.extend(plight.weather.lossy);
        all.weather.slow.extend(plight.weather.slow);
        all.down.extend(plight.down);
        all.paused.extend(plight.paused);
        all.full.extend(plight.full);
        all.skews.extend(plight.skews);
    }
    all
}

/// Kills all, starts them one after the other.
fn storm(cluster: &mut Cluster, others: &Plight, rng: &mut StdRng) -> anyhow::Result<()> {
    let mut order = cluster.hosts();
    order.shuffle(rng);
    let mut plight = others.clone();
    plight.down.extend(&order);
    cluster.become_like(&plight)?;
    for host in order {
        std::thread::sleep(Duration::from_millis(rng.random_range(0..600)));
        if !others.down.contains(&host) {
            plight.down.remove(&host);
        }
        cluster.become_like(&plight)?;
    }
    Ok(())
}

/// Both ways between two groups.
fn between(some: &[Host], others: &[Host]) -> impl Iterator<Item = Way> {
    let pairs: Vec<Way> = some.iter().flat_map(|&a| others.iter().map(move |&b| (a, b))).collect();
    pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)])
}

fn draw(cluster: &Cluster, fault: Fault, rng: &mut StdRng) -> Plight {
    let mut hosts = cluster.hosts();
    hosts.shuffle(rng);
    let leader = cluster.leader(rng.random_range(0..cluster.shards));
    // Half of the time it is a leader that is hit.
    if let Some(leader) = leader.filter(|_| rng.random_bool(0.5) || fault == Fault::IsolateLeader) {
        hosts.retain(|&host| host != leader);
        hosts.insert(0, leader);
    }
    let (one, minority) = (hosts[0], (hosts.len() - 1) / 2);
    let most = hosts.len() - minority;
    let everyone: Vec<Host> = [&hosts[..], &[CLIENTS]].concat();
    let mut plight = Plight::default();
    match fault {
        Fault::Kill => plight.down = [one].into(),
        Fault::Pause if rng.random_bool(0.3) => plight.paused = hosts[..most].iter().copied().collect(),
        Fault::Pause => plight.paused = [one].into(),
        Fault::FullDisk => plight.full = [one].into(),
        Fault::ClockJump | Fault::ClockRate | Fault::ClockRateOver => {
            plight.skews = hosts.iter().map(|&host| (host, skew(fault, rng))).collect::<BTreeMap<_, _>>();
        }
        _ => plight.weather = weather(fault, &hosts, &everyone, rng),
    }
    plight
}

fn skew(fault: Fault, rng: &mut StdRng) -> Skew {
    let rates = if fault == Fault::ClockRateOver { RATE_OVER_PPM } else { RATE_PPM };
    match fault {
        Fault::ClockJump => Skew { jump_ms: rng.random_range(-20_000..20_000), rate_ppm: 0 },
        _ => Skew { jump_ms: 0, rate_ppm: if rng.random_bool(0.5) { rates } else { -rates } },
    }
}

fn weather(fault: Fault, hosts: &[Host], everyone: &[Host], rng: &mut StdRng) -> Weather {
    let (first, rest) = hosts.split_at(1);
    let (minority, majority) = hosts.split_at((hosts.len() - 1) / 2);
    let mut weather = Weather::default();
    match fault {
        Fault::Halves => weather.cut.extend(between(minority, majority)),
        Fault::OneWay => {
            let (from, to) = if rng.random_bool(0.5) { (first, rest) } else { (rest, first) };
            weather.cut.extend(from.iter().flat_map(|&a| to.iter().map(move |&b| (a, b))));
        }
        Fault::Bridge => {
            let half = hosts.len() / 2;
            weather.cut.extend(between(&hosts[..half], &hosts[hosts.len() - half..]));
        }
        Fault::IsolateLeader => weather.cut.extend(between(first, rest)),
        Fault::ClientsCut => weather.cut.extend(between(&[CLIENTS], first)),
        Fault::Loss => {
            // Sometimes only between nodes, so that clients keep asking at full speed.
            let who = if rng.random_bool(0.5) { hosts } else { everyone };
            weather.lossy.extend(between(who, who).filter(|(a, b)| a != b));
        }
        _ => {
            let who = if rng.random_bool(0.5) { hosts } else { everyone };
            weather.slow.extend(between(who, who).filter(|(a, b)| a != b));
        }
    }
    weather
}
