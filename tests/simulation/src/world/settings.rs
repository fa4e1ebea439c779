//! What a run is asked for, what came of it, and the product's settings in it.

use std::collections::BTreeMap;

use moonraft::{
    consensus,
    shard::{self, ShardSettings, clock::Bounds},
};
use rand::{RngExt, rngs::StdRng};

use super::weather::Weather;

/// A fault planted in the product or its disk, which a run must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Replies leave before their batch is committed.
    ReplyBeforeCommit,
    /// A lease without its margin.
    LeaseWithoutMargin,
    /// A leader that hands over keeps its lease.
    LeaseKeptInTransfer,
    /// A node that has just started votes at once.
    VoteAfterRestart,
    /// What was speculative stays when leadership is lost.
    UndoSkipped,
    /// An effect is dropped where it is applied.
    EffectDropped,
    /// A snapshot is taken though changes in it are not committed.
    SnapshotBeforeCommit,
    /// The shard's clock shows what the node's clock shows.
    ClockBackwards,
    /// A new leader begins at what its predecessor may have shown, not at what its clock was.
    LeaderAhead,
    /// Deadlines go by the node's wall clock.
    ExpiryByWall,
    /// Of a write that was torn by a crash, the part that is there is taken.
    TornTailAccepted,
    /// A node that lost its disk comes back as the replica it was.
    IncarnationReused,
    /// A snapshot counts, and the log before it goes, while it is not on the disk.
    SnapshotUnsynced,
    /// A leader agrees on what not all members read.
    FormatNotReadable,
    /// A start does not look whether the log is what it was.
    LossUnnoticed,
    /// A script that has written is refused the next write when memory or disk is short.
    ScriptStoppedHalfWay,
    /// Published messages leave before their batch is committed.
    MessageBeforeCommit,
    /// What was lent before leadership was lost comes back as it has become meanwhile.
    OutcomeOfOtherTerm,
    /// The reply to a request that waited leaves before its batch is committed.
    ServedBeforeCommit,
}

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// All that is drawn, is drawn from it.
    pub seed: u64,
    /// Virtual milliseconds with faults.
    pub faulty_ms: u64,
    /// A fault of the product itself.
    pub fault: Option<Fault>,
    /// Always the weather in which nothing but leases stands between clients and a stale read.
    pub lease_weather: bool,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations that were answered.
    pub answered: usize,
    /// Keys whose history is too entangled to be checked.
    pub undecided: usize,
    /// Operations whose outcome stayed unknown.
    pub unknown: usize,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// Faults done to the cluster.
    pub faults: usize,
    /// Events in all.
    pub events: u64,
    /// The digests of all replicas at the end.
    pub digests: Vec<String>,
    /// Rare paths that were taken, and how often. See [`marks`](crate::marks).
    pub marks: BTreeMap<&'static str, u64>,
}

/// The settings of consensus and of shards: small limits, so that they are met.
pub(super) fn product_settings(
    rng: &mut StdRng,
    fault: Option<Fault>,
    weather: &Weather,
) -> (consensus::Settings, ShardSettings) {
    let mut draw = |usual: u64, small: (u64, u64)| {
        if rng.random_bool(0.7) { usual } else { rng.random_range(small.0..small.1) }
    };
    let usual = consensus::Settings::default();
    let mut consensus = consensus::Settings {
        cache_bytes_max: draw(usual.cache_bytes_max, (0, 2000)),
        message_bytes_max: draw(usual.message_bytes_max, (10, 1000)),
        turn_bytes_max: draw(usual.turn_bytes_max, (1, 2000)),
        inflight_max: draw(usual.inflight_max as u64, (2, 10)) as usize,
        unapplied_bytes_max: draw(usual.unapplied_bytes_max, (100, 2000)),
        log_bytes_max: draw(usual.log_bytes_max, (500, 20_000)),
        ..usual
    };
    let usual = ShardSettings::default();
    let mut shard = ShardSettings {
        read_index: weather.read_index,
        batch_bytes_max: draw(usual.batch_bytes_max as u64, (20, 500)) as usize,
        in_flight_bytes_max: draw(usual.in_flight_bytes_max as u64, (200, 2000)) as usize,
        snapshot_pending_bytes_max: draw(usual.snapshot_pending_bytes_max, (0, 50)),
        snapshot_at_once_bytes_max: draw(usual.snapshot_at_once_bytes_max as u64, (0, 100)) as usize,
        settle_ms: draw(usual.settle_ms, (500, 3000)),
        clocks: Bounds { slew_per_mille: draw(usual.clocks.slew_per_mille, (0, 200)), ..usual.clocks },
        // A script asks at once whether it is to be killed.
        busy_ms: 0,
        memory_bytes_max: crate::node::MEMORY_BYTES_MAX,
        ..usual
    };
    if weather.in_parts {
        consensus.message_bytes_max = rng.random_range(5..50);
        consensus.turn_bytes_max = rng.random_range(1..50);
    }
    // A node that is cut off needs the next snapshot if the log is short.
    let short = rng.random_bool(0.5) || weather.cut_in_install > 0.0;
    consensus.log_entries_max = rng.random_range(5..if short { 30 } else { 200 });
    consensus.slack_entries_max = rng.random_range(0..if short { 5 } else { 30 });
    match fault {
        Some(Fault::LeaseWithoutMargin) => consensus.fault = consensus::PlantedFault::LeaseWithoutMargin,
        Some(Fault::LeaseKeptInTransfer) => consensus.fault = consensus::PlantedFault::LeaseKeptInTransfer,
        Some(Fault::VoteAfterRestart) => consensus.fault = consensus::PlantedFault::VoteAfterRestart,
        Some(Fault::ReplyBeforeCommit) => shard.fault = Some(shard::PlantedFault::ReplyBeforeCommit),
        Some(Fault::UndoSkipped) => shard.fault = Some(shard::PlantedFault::UndoSkipped),
        Some(Fault::EffectDropped) => shard.fault = Some(shard::PlantedFault::EffectDropped),
        Some(Fault::SnapshotBeforeCommit) => shard.fault = Some(shard::PlantedFault::SnapshotBeforeCommit),
        Some(Fault::MessageBeforeCommit) => shard.fault = Some(shard::PlantedFault::MessageBeforeCommit),
        Some(Fault::ServedBeforeCommit) => shard.fault = Some(shard::PlantedFault::ServedBeforeCommit),
        Some(Fault::ScriptStoppedHalfWay) => {
            shard.fault = Some(shard::PlantedFault::ScriptStoppedHalfWay);
        }
        Some(Fault::FormatNotReadable) => shard.fault = Some(shard::PlantedFault::FormatNotReadable),
        Some(Fault::ClockBackwards) => shard.fault = Some(shard::PlantedFault::ClockBackwards),
        Some(Fault::LeaderAhead) => shard.fault = Some(shard::PlantedFault::LeaderAhead),
        Some(Fault::OutcomeOfOtherTerm) => shard.fault = Some(shard::PlantedFault::OutcomeOfOtherTerm),
        Some(Fault::ExpiryByWall) => shard.fault = Some(shard::PlantedFault::ExpiryByWall),
        Some(
            Fault::TornTailAccepted
            | Fault::IncarnationReused
            | Fault::SnapshotUnsynced
            | Fault::LossUnnoticed,
        )
        | None => {}
    }
    (consensus, shard)
}
