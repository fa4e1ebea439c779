//! What a node is told from outside: the cluster file and the settings.
//!
//! * [`settings`]: every setting that works and its default; [`rows`]: its name, its kind and its
//!   meaning; [`kept`] and [`refused`]: settings of Redis that change nothing, or cannot be changed;
//!   [`form`]: what values look like; [`change`]: `CONFIG GET` and `CONFIG SET` read and write the same tables.
//! * [`cluster_file`]: the TOML file that is the same for all nodes.
//!
//! INVARIANT: what has been read has been checked. No other module asks again
//! whether a port is free of clashes or a number within its range.

pub mod change;
pub mod cluster_file;
pub mod form;
pub mod kept;
pub mod refused;
pub mod rows;
pub mod settings;
#[cfg(test)]
mod told;

pub use change::SettingError;
pub use cluster_file::{ClusterFile, FileError, NodeEntry, OutsideEntry};
pub use settings::{DebugAccess, OutputLimit, Reads, Settings};

/// The known name that someone who wrote `unknown` probably meant.
pub(crate) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One mistake in three letters is still a slip of the hand; more is another word.
    let far = unknown.len() / 3 + 1;
    let ranked = known.into_iter().map(|name| (distance(unknown, name), name));
    ranked.min().filter(|(distance, _)| *distance <= far).map(|(_, name)| name)
}

/// How many letters must be put in, taken out or changed to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_recognised() {
        let known = ["maxclients", "maxmemory", "timeout"];
        assert_eq!(nearest("max-clients", known), Some("maxclients"));
        assert_eq!(nearest("time-out", known), Some("timeout"));
        assert_eq!(nearest("appendonly", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "ab"), 2);
    }
}
