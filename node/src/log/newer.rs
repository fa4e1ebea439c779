//! What a newer build wrote: the process ends with a line that names it, rather than misread it.
//!
//! Found at a start, it refuses the start (`OpenError::Newer`). A replica that is handed such an entry or snapshot
//! by a newer leader ends with [`super::Fatal::Newer`]. What was appended stays, for a build that reads it.

use moonraft_proto::entry;

use super::GroupId;

/// The line for the user if an entry's data, not the later part of a batch, is of a newer format: what is, of which,
/// and which this build reads.
pub fn newer_entry(group: GroupId, index: u64, data: &[u8]) -> Option<String> {
    let format = entry::newer_format(data)?;
    let known = entry::NEWEST_FORMAT;
    Some(format!(
        "shard {group}, entry {index} of the log is of format {format}; this build reads up to format {known}. Start the build that wrote it, or a newer one"
    ))
}
