//! What a key costs in memory.

use anyhow::Context;

use crate::Options;
use crate::load::fill;
use crate::servers::{Machine, System};
use crate::workload::{KEY_BYTES, VALUE_BYTES};

/// Bytes that the keys added to one process.
pub struct Memory {
    /// Keys that were set.
    pub keys: u64,
    /// A Redis Cluster master.
    pub rival: Growth,
    /// The process that leads the shard.
    pub moonraft: Growth,
}

/// Growth of one process, in bytes a key.
pub struct Growth {
    /// Of what the kernel counts as resident.
    pub resident: f64,
    /// Of `used_memory`, if the server tells it.
    pub used: Option<f64>,
}

/// Fills a fresh server of each kind.
pub fn measure(
    machine: &Machine,
    options: &Options,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<Memory> {
    let growth = |system: System| {
        let growth = grow(&system, options, runtime);
        let growth = growth.with_context(|| format!("memory of {}", system.name))?;
        eprintln!("memory of {}: {:.0} bytes a key", system.name, growth.resident);
        anyhow::Ok(growth)
    };
    Ok(Memory {
        keys: options.memory_keys,
        rival: growth(machine.redis_master()?)?,
        moonraft: growth(machine.moonraft()?)?,
    })
}

fn grow(system: &System, options: &Options, runtime: &tokio::runtime::Runtime) -> anyhow::Result<Growth> {
    let (resident, used) = (system.resident_bytes()?, system.used_bytes()?);
    fill(runtime, system, options.memory_keys, options.connections)?;
    let a_key = |before: u64, after: u64| (after as f64 - before as f64) / options.memory_keys as f64;
    let used_after = system.used_bytes()?;
    Ok(Growth {
        resident: a_key(resident, system.resident_bytes()?),
        used: used.zip(used_after).map(|(before, after)| a_key(before, after)),
    })
}

/// `16 B key, 64 B value`
pub fn shape() -> String {
    format!("{KEY_BYTES} B key, {VALUE_BYTES} B value")
}
