//! Facts about this process and its machine, for `INFO` and metrics.
//!
//! Source: proc(5) for the files under `/proc/self`; where they are not there,
//! the figures are zero.

use std::sync::OnceLock;

use super::clock;
use crate::shard::ProcessFacts;

/// Ticks of the kernel a second in `/proc/self/stat`: fixed for user space.
const KERNEL_TICKS: f64 = 100.0;

/// What does not change while the process runs.
struct Fixed {
    run_id: String,
    started_us: u64,
    system: String,
    executable: String,
}

fn fixed() -> &'static Fixed {
    static FIXED: OnceLock<Fixed> = OnceLock::new();
    FIXED.get_or_init(|| {
        let started_us = clock::unix_us();
        let drawn: [u8; 16] = rand::random();
        let identity = [&drawn[..], &started_us.to_le_bytes(), &std::process::id().to_le_bytes()].concat();
        let name = rustix::system::uname();
        let part = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        Fixed {
            run_id: sha1_smol::Sha1::from(identity).digest().to_string(),
            started_us,
            system: [part(name.sysname()), part(name.release()), part(name.machine())].join(" "),
            executable: std::env::current_exe()
                .map_or_else(|_| String::new(), |path| path.display().to_string()),
        }
    })
}

/// Notes when the process started. To be called first.
pub fn note_start() {
    fixed();
}

/// The facts now, for the replica at `port`.
pub fn facts(port: u16) -> ProcessFacts {
    let fixed = fixed();
    let memory = rustix::system::sysinfo();
    ProcessFacts {
        process_id: std::process::id(),
        run_id: fixed.run_id.clone(),
        started_us: fixed.started_us,
        used_bytes: moonraft_allocator::taken(),
        resident_bytes: resident_bytes(),
        total_bytes: memory.totalram as u64 * u64::from(memory.mem_unit),
        cpu_seconds: cpu_seconds(),
        port,
        system: fixed.system.clone(),
        executable: fixed.executable.clone(),
    }
}

/// `VmRSS` of `/proc/self/status`.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// User and kernel time of the process: fields 14 and 15 of `/proc/self/stat`.
fn cpu_seconds() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, the name, may hold blanks; it ends with the last bracket.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = |field: usize| {
        let text = rest.split(' ').nth(field - 3);
        text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) as f64 / KERNEL_TICKS
    };
    (ticks(14), ticks(15))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_has_memory_and_a_name() {
        let facts = super::facts(7001);
        assert_eq!(facts.process_id, std::process::id());
        assert_eq!(facts.run_id.len(), 40);
        assert!(facts.resident_bytes > 1 << 20 && facts.total_bytes > facts.resident_bytes);
        assert_eq!(super::facts(7002).run_id, facts.run_id);
    }
}
