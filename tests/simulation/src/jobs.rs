//! Jobs are taken from one list and put into the other, by scripts: none is lost, doubled or made up.
//!
//! A script that is stopped between the two leaves a job that is nowhere, whatever each list says of itself.

use std::collections::{BTreeMap, BTreeSet};

/// A job that was added: to which pair of lists, and its number.
#[derive(Clone, Copy, Debug)]
pub struct Added {
    /// The pair.
    pub pair: u32,
    /// The job.
    pub job: u64,
    /// When that was asked, nanoseconds of true time.
    pub called: u64,
    /// When it was answered; `u64::MAX` if it never was.
    pub returned: u64,
}

/// Both lists of a pair, as they were read in one unit.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The pair.
    pub pair: u32,
    /// When that was asked.
    pub called: u64,
    /// When it was answered.
    pub returned: u64,
    /// What is in them.
    pub jobs: Vec<u64>,
}

/// Checks that every job is in exactly one list of its pair.
///
/// # Errors
/// What is wrong, for a reader.
pub fn check(added: &[Added], seen: &[Seen]) -> Result<(), String> {
    let mut by_pair: BTreeMap<u32, Vec<&Added>> = BTreeMap::new();
    added.iter().for_each(|job| by_pair.entry(job.pair).or_default().push(job));
    seen.iter().try_for_each(|seen| check_one(by_pair.get(&seen.pair).map_or(&[], Vec::as_slice), seen))
}

fn check_one(added: &[&Added], seen: &Seen) -> Result<(), String> {
    let found: BTreeSet<u64> = seen.jobs.iter().copied().collect();
    if found.len() < seen.jobs.len() {
        return Err(format!("a job is there twice: {seen:?}"));
    }
    if let Some(lost) = added.iter().find(|job| job.returned < seen.called && !found.contains(&job.job)) {
        return Err(format!("a job is lost: {lost:?} is not in {seen:?}"));
    }
    let known: BTreeSet<u64> =
        added.iter().filter(|job| job.called < seen.returned).map(|job| job.job).collect();
    match found.difference(&known).next() {
        Some(job) => Err(format!("nobody added job {job}, or it was refused: {seen:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_lost_doubled_or_made_up_is_found() {
        let job = |job, returned| Added { pair: 0, job, called: 10, returned };
        let added = [job(1, 20), job(2, u64::MAX), Added { pair: 1, ..job(3, 20) }];
        let seen = |jobs: &[u64]| Seen { pair: 0, called: 30, returned: 40, jobs: jobs.to_vec() };
        let found = |jobs: &[u64]| check(&added, &[seen(jobs)]).is_err();
        assert!(!found(&[1]) && !found(&[2, 1]), "the second may have been done");
        assert!(found(&[]) && found(&[2]), "lost");
        assert!(found(&[1, 1]), "doubled");
        assert!(found(&[1, 3]) && found(&[1, 4]), "of another pair, or of nobody");
        let early = Seen { called: 15, ..seen(&[]) };
        assert!(check(&added, &[early]).is_ok(), "it was not answered before this was asked");
    }
}
