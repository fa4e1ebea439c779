//! Clocks that are off, process by process: the writer's side of `clock.c`.
//!
//! The wall clock of a process can jump either way; the rate of all its clocks,
//! CLOCK_BOOTTIME with them, can be a little off. The server must read its clocks
//! through libc for this (`rustix` with `use-libc`): [`Clock::new`] cannot see
//! that, but the phase `clock-jump` fails if no shard ever says that the wall clock is far from its time.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rustix::time::{ClockId, clock_gettime};

use crate::network;

/// How a clock is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// The wall clock, by so many milliseconds.
    pub jump_ms: i64,
    /// The rate of all clocks, in parts per million.
    pub rate_ppm: i64,
}

/// The clock of one process.
pub struct Clock {
    file: File,
    /// What the process is told to map.
    pub path: PathBuf,
    sequence: u64,
    now: Skew,
    since_ns: i64,
    drifted_ns: i64,
}

/// Compiles the shim into `directory`; its path.
pub fn compile(directory: &Path) -> anyhow::Result<PathBuf> {
    let source = directory.join("clock.c");
    std::fs::write(&source, include_str!("clock.c"))?;
    let library = directory.join("clock.so");
    let (from, to) = (source.display().to_string(), library.display().to_string());
    network::perform(&["gcc", "-O2", "-shared", "-fPIC", "-o", &to, &from, "-ldl"])?;
    Ok(library)
}

fn monotonic_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

impl Clock {
    /// A clock that is right.
    pub fn new(path: PathBuf) -> anyhow::Result<Self> {
        let file = File::create(&path)?;
        let since_ns = monotonic_ns();
        let mut clock = Self { file, path, sequence: 0, now: Skew::default(), since_ns, drifted_ns: 0 };
        clock.write()?;
        Ok(clock)
    }

    /// Puts it off. What it drifted so far stays.
    pub fn set(&mut self, skew: Skew) -> anyhow::Result<()> {
        if skew == self.now {
            return Ok(());
        }
        let now = monotonic_ns();
        let drift = i128::from(now - self.since_ns) * i128::from(self.now.rate_ppm) / 1_000_000;
        self.drifted_ns += drift as i64;
        self.since_ns = now;
        self.now = skew;
        self.write()
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let mut body = Vec::new();
        for number in [self.now.jump_ms * 1_000_000, self.now.rate_ppm, self.since_ns, self.drifted_ns] {
            body.extend(number.to_ne_bytes());
        }
        self.file.write_all_at(&(self.sequence + 1).to_ne_bytes(), 0)?;
        self.file.write_all_at(&body, 8)?;
        self.sequence += 2;
        self.file.write_all_at(&self.sequence.to_ne_bytes(), 0)?;
        Ok(())
    }
}
