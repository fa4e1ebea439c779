//! How unkind the world is in a run: drawn from the seed before anything happens.
//!
//! Swarm testing (Groce and others, ISSTA 2012): in each run some kinds of faults and of
//! requests are common and some do not occur, for one kind often hides another.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    MS,
    faults::{self, FAULT_KINDS},
};
use crate::workload::{ANNOUNCEMENTS, JOBS, LOCKS, Mix, QUEUES, REQUEST_KINDS, STREAMS};

pub(super) struct Weather {
    /// How likely a message is lost, or arrives twice.
    pub(super) drop: f64,
    pub(super) duplicate: f64,
    /// Least and most time of a message's way, and of a sync.
    pub(super) delay: (u64, u64),
    pub(super) sync: (u64, u64),
    pub(super) fault_every: (u64, u64),
    /// How likely each kind of fault is, against the others.
    pub(super) weights: [u32; FAULT_KINDS],
    pub(super) read_index: bool,
    pub(super) mix: Mix,
    /// How likely a shard is too busy to hear consensus at once, and for how long at most.
    pub(super) busy: f64,
    pub(super) busy_for: u64,
    /// How likely a node crashes when it learns of a new configuration, joint or not.
    pub(super) crash_in_change: f64,
    /// How likely a client asks any replica rather than the one it knows.
    pub(super) stubborn: f64,
    /// How long clients think between requests, and when they give one up.
    pub(super) think: (u64, u64),
    pub(super) patience: u64,
    /// How far election timeouts of a group lie apart, in ticks.
    pub(super) election_spread: u32,
    /// Bytes of a chunk of a snapshot, and how likely the transfer ends before it.
    pub(super) chunk_bytes: usize,
    pub(super) chunk_loss: f64,
    /// How long a turn takes, at most, in which a shard takes in a part of a snapshot.
    pub(super) install_for: u64,
    /// How likely a node is cut off when it begins to: then the next snapshot comes before it has this one.
    pub(super) cut_in_install: f64,
    /// How likely a file of a snapshot cannot be written.
    pub(super) file_error: f64,
    /// How likely a leader hands over, in vain, while a client thinks about what it watches.
    pub(super) hand_over_in_watch: f64,
    /// Batches take many turns, in parts: whatever happens, happens between two of them.
    pub(super) in_parts: bool,
    /// How long it takes, at most, to execute a request elsewhere.
    pub(super) errand: u64,
}

/// A network so good that only leases stand between clients and a stale read.
fn lease_weather(rng: &mut StdRng) -> Weather {
    let mut mix = mix(rng);
    // What has nothing to do with leases would only leave less time for reads.
    [JOBS, ANNOUNCEMENTS, STREAMS].into_iter().for_each(|kind| mix.weights[kind] = 0);
    Weather {
        drop: 0.0,
        duplicate: 0.0,
        delay: (MS / 20, MS / 2),
        sync: (MS / 50, MS / 5),
        fault_every: (900 * MS, 2500 * MS),
        weights: faults::against_leases(),
        read_index: false,
        mix,
        busy: 0.05,
        busy_for: 300 * MS,
        crash_in_change: 0.0,
        stubborn: 0.9,
        think: (2 * MS, 15 * MS),
        patience: 1500 * MS,
        election_spread: 3,
        chunk_bytes: 4096,
        chunk_loss: 0.0,
        install_for: MS,
        cut_in_install: 0.0,
        file_error: 0.0,
        hand_over_in_watch: 0.0,
        in_parts: false,
        errand: MS,
    }
}

/// How common requests are that wait at queues, in `seed`. It is drawn by itself, so that what other seeds do stays as it is.
pub(super) fn weight_of_queues(seed: u64, weather: &Weather, always: bool) -> u32 {
    const OWN: u64 = 0x0051_e0e5;
    let mut rng = StdRng::seed_from_u64(seed ^ OWN);
    let is_for_leases = weather.mix.weights[JOBS] == 0 && weather.mix.weights[ANNOUNCEMENTS] == 0;
    if always || !is_for_leases && rng.random_bool(0.35) { rng.random_range(5..25) } else { 0 }
}

/// The same of libraries of functions.
pub(super) fn weight_of_libraries(seed: u64, weather: &Weather) -> u32 {
    const OWN: u64 = 0x11b2_a21e;
    let mut rng = StdRng::seed_from_u64(seed ^ OWN);
    let is_for_leases = weather.mix.weights[JOBS] == 0 && weather.mix.weights[ANNOUNCEMENTS] == 0;
    if !is_for_leases && rng.random_bool(0.3) { rng.random_range(5..20) } else { 0 }
}

/// Clients ask for little but locks, and for the same few: a lock that is lost too early is seen by little else.
pub(super) fn favour_locks(mix: &mut Mix) {
    mix.weights.iter_mut().for_each(|weight| *weight = (*weight).min(1));
    mix.weights[LOCKS] = 20;
    mix.keys = 1;
}

/// Draws the weather of a run; `for_leases`: that of leases, always.
pub(super) fn weather(rng: &mut StdRng, for_leases: bool) -> Weather {
    if rng.random_bool(0.2) || for_leases {
        return lease_weather(rng);
    }
    let mut weights = draw_weights(rng);
    let (in_parts, mut mix) = (rng.random_bool(0.4), mix(rng));
    if in_parts {
        mix.text_bytes = 1 << rng.random_range(7..11);
        faults::add_change_of_members(&mut weights);
    }
    if rng.random_bool(0.15) {
        faults::add_shortages(&mut weights);
        mix.weights[JOBS] += 10;
    }
    let (slow_disk, near) = (rng.random_bool(0.2), rng.random_bool(0.5));
    let quiet = weights.iter().all(|&weight| weight == 0);
    let cut_in_install: f64 = if quiet || rng.random_bool(0.7) { 0.0 } else { rng.random_range(0.3..1.0) };
    let install_ms = if cut_in_install > 0.0 { 300..1500 } else { 1..if slow_disk { 500 } else { 50 } };
    let mut draw_up_to = |most: f64| if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..most) };
    let (drop, duplicate) = if quiet { (0.0, 0.0) } else { (draw_up_to(0.15), draw_up_to(0.1)) };
    Weather {
        drop,
        duplicate,
        delay: (MS / 10, if near { 2 * MS } else { rng.random_range(2..40) * MS }),
        sync: (MS / 20, if slow_disk { 60 * MS } else { MS }),
        fault_every: (20 * MS, rng.random_range(100..1500) * MS),
        weights,
        read_index: rng.random_bool(0.2),
        mix,
        busy: if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.3) },
        busy_for: rng.random_range(1..200) * MS,
        crash_in_change: rng.random_range(0.0..0.8),
        stubborn: rng.random_range(0.0..0.8),
        think: (MS, rng.random_range(20..100) * MS),
        patience: rng.random_range(1000..4000) * MS,
        election_spread: 10,
        chunk_bytes: 1 << rng.random_range(4..12),
        chunk_loss: if quiet || rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.3) },
        install_for: rng.random_range(install_ms) * MS,
        cut_in_install,
        file_error: if quiet || rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.15) },
        hand_over_in_watch: if quiet || rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.2) },
        in_parts,
        errand: MS,
    }
}

/// No kind of fault (clocks still differ), one, all, or some.
fn draw_weights(rng: &mut StdRng) -> [u32; FAULT_KINDS] {
    let mut weights = [0; FAULT_KINDS];
    match rng.random_range(0..20) {
        0 => {}
        1..=4 => weights[rng.random_range(0..FAULT_KINDS)] = 5,
        5..=7 => weights.iter_mut().for_each(|weight| *weight = rng.random_range(1..10)),
        _ => weights
            .iter_mut()
            .for_each(|weight| *weight = if rng.random_bool(0.5) { 0 } else { rng.random_range(1..10) }),
    }
    if weights.iter().any(|&weight| weight > 0) {
        weights[0] += 1;
    }
    weights
}

fn mix(rng: &mut StdRng) -> Mix {
    let mut weights = [0; REQUEST_KINDS];
    for weight in &mut weights[..QUEUES] {
        *weight = if rng.random_bool(0.3) { 0 } else { rng.random_range(1..10) };
    }
    // Reads of what is written, whatever else there is.
    weights[0] += 1;
    weights[1] += 2;
    Mix {
        weights,
        keys: rng.random_range(1..=4),
        text_bytes: if rng.random_bool(0.7) { 0 } else { 1 << rng.random_range(3..11) },
        life_ms: rng.random_range(5..2000),
    }
}
