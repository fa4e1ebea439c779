//! The clocks of a node: true time, seen through a rate and an offset.

use std::{cell::Cell, rc::Rc};

/// A node's clocks: true time through a rate and an offset.
#[derive(Debug)]
pub struct Clock {
    /// True time, nanoseconds; shared by all.
    pub now: Rc<Cell<u64>>,
    /// Parts per million that this clock runs faster.
    pub drift_ppm: i64,
    /// What the wall clock is off by, microseconds.
    pub wall_offset_us: Cell<i64>,
    /// When the boot clock began.
    pub boot_offset_ns: u64,
    /// The process is stopped for so long, nanoseconds, before it next asks for its lease.
    pub stall_ns: Cell<u64>,
    /// It was stopped for so long.
    met_stall_ns: Cell<u64>,
}

/// Unix microseconds at true time 0.
const EPOCH_US: i64 = 1_700_000_000_000_000;

impl Clock {
    /// A clock of a node, in a world whose time is `now`.
    pub fn new(now: &Rc<Cell<u64>>, drift_ppm: i64, wall_offset_us: i64, boot_offset_ns: u64) -> Self {
        Self {
            now: Rc::clone(now),
            drift_ppm,
            wall_offset_us: Cell::new(wall_offset_us),
            boot_offset_ns,
            stall_ns: Cell::new(0),
            met_stall_ns: Cell::new(0),
        }
    }

    fn rated(&self, nanoseconds: u64) -> u64 {
        let drift = i128::from(nanoseconds) * i128::from(self.drift_ppm) / 1_000_000;
        (i128::from(nanoseconds) + drift) as u64
    }

    /// The boot clock, nanoseconds.
    pub fn boot_ns(&self) -> u64 {
        self.boot_offset_ns + self.rated(self.now.get())
    }

    /// The true time at which the boot clock shows this, or a little later.
    pub fn time_of_boot(&self, boot_ns: u64) -> u64 {
        let rated = i128::from(boot_ns.saturating_sub(self.boot_offset_ns));
        // Rounded twice: neither must make it too early.
        (rated * 1_000_000 / i128::from(1_000_000 + self.drift_ppm)) as u64 + 2
    }

    /// The boot clock, read after the stop that is due.
    pub fn boot_ns_after_stall(&self) -> u64 {
        let stall = self.stall_ns.take();
        self.met_stall_ns.set(stall.max(self.met_stall_ns.get()));
        self.boot_offset_ns + self.rated(self.now.get() + stall)
    }

    /// How long the process was stopped, if it has been: then it goes on.
    pub fn stall_was_met(&self) -> u64 {
        self.met_stall_ns.take()
    }

    /// The wall clock, Unix microseconds.
    pub fn wall_us(&self) -> u64 {
        (EPOCH_US + (self.rated(self.now.get()) / 1000) as i64 + self.wall_offset_us.get()) as u64
    }
}
