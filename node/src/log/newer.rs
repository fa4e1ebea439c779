//! What a newer build wrote: the process ends with a line that names it, rather than misread it.
//!
//! Found at a start, it refuses the start (`OpenError::Newer`). A replica that is handed such an entry or snapshot
//! by a newer leader panics with [`Newer`]; the shell's panic hook asks [`newer_of`] and ends the process before
//! anything unwinds, so nothing is made of it. What was appended stays, for a build that reads it.

use std::any::Any;

use moonraft_proto::entry;

use super::GroupId;

/// The line for the user: what is of a newer format, which, and which this build reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Newer(pub String);

impl Newer {
    /// If an entry's data, not the later part of a batch, is of a newer format.
    pub fn in_entry(group: GroupId, index: u64, data: &[u8]) -> Option<Newer> {
        let format = entry::newer_format(data)?;
        let known = entry::NEWEST_FORMAT;
        Some(Newer(format!(
            "shard {group}, entry {index} of the log is of format {format}; this build reads up to format {known}. Start the build that wrote it, or a newer one"
        )))
    }

    /// The node cannot go on.
    #[track_caller]
    pub fn stop(self) -> ! {
        std::panic::panic_any(self)
    }
}

/// The line for the user, if a panic with this payload is about a newer format.
pub fn newer_of(payload: &(dyn Any + Send)) -> Option<String> {
    payload.downcast_ref::<Newer>().map(Newer::to_string)
}
