//! raft's own log lines, for the tracing of the node: only what it deems a warning or worse.

use slog::{Discard, Drain, Level, Logger, OwnedKVList, Record, o};

/// A logger for `RawNode`.
pub(super) fn logger() -> Logger {
    // The filter is outermost, so that the lines of every message sent are dropped before they are formatted.
    Logger::root(Forward.ignore_res(), o!())
}

struct Forward;

impl Drain for Forward {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", record.msg()),
            Level::Warning => tracing::warn!(target: "raft", "{}", record.msg()),
            _ => return Discard.log(record, values),
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        level.is_at_least(Level::Warning)
    }
}
