//! Seeds that every change must survive, and mistakes that must be found.

use std::collections::BTreeSet;

use moonraft_tests::{Fault, Settings, marks, run};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 1000;
/// A planted fault is found within so many seeds: of the rarest, one in 280 shows it.
const FOUND_WITHIN: u64 = 1000;

fn settings(seed: u64, fault: Option<Fault>) -> Settings {
    // A lease is all that these two faults break.
    let lease_weather = matches!(fault, Some(Fault::LeaseWithoutMargin | Fault::VoteAfterRestart));
    // Their moment is rare: such runs are longer.
    let faulty_ms = if lease_weather { 20_000 } else { 5000 };
    Settings { seed, faulty_ms, fault, lease_weather }
}

#[test]
fn no_seed_breaks_a_promise_and_all_rare_paths_are_taken() {
    let mut reached = BTreeSet::new();
    for seed in 1..=SEEDS {
        match run(&settings(seed, None)) {
            Ok(report) => {
                assert_eq!(report.undecided, 0, "seed {seed}: nobody knows");
                reached.extend(report.marks.into_keys());
            }
            Err(text) => panic!("seed {seed}: {text}"),
        }
    }
    let all: BTreeSet<_> = marks::ALL.iter().copied().collect();
    let missed: Vec<_> = all.difference(&reached).collect();
    assert!(missed.is_empty(), "no seed took these paths: {missed:?}");
    let unlisted: Vec<_> = reached.difference(&all).collect();
    assert!(unlisted.is_empty(), "these paths are not in the list: {unlisted:?}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 1..=3 {
        assert_eq!(run(&settings(seed, None)), run(&settings(seed, None)), "seed {seed}");
    }
}

fn is_found(fault: Fault) {
    let found = (1..=FOUND_WITHIN).find(|&seed| run(&settings(seed, Some(fault))).is_err());
    assert!(found.is_some(), "{fault:?} was not found within {FOUND_WITHIN} seeds");
}

#[test]
fn a_reply_before_commit_is_found() {
    is_found(Fault::ReplyBeforeCommit);
}

#[test]
fn a_lease_without_margin_is_found() {
    is_found(Fault::LeaseWithoutMargin);
}

#[test]
fn a_vote_right_after_restart_is_found() {
    is_found(Fault::VoteAfterRestart);
}

#[test]
fn a_skipped_undo_is_found() {
    is_found(Fault::UndoSkipped);
}

#[test]
fn a_dropped_effect_is_found() {
    is_found(Fault::EffectDropped);
}

#[test]
fn a_lease_kept_in_a_transfer_is_found() {
    is_found(Fault::LeaseKeptInTransfer);
}

#[test]
fn a_snapshot_before_commit_is_found() {
    is_found(Fault::SnapshotBeforeCommit);
}

#[test]
fn a_clock_that_goes_back_is_found() {
    is_found(Fault::ClockBackwards);
}

#[test]
fn a_new_leader_that_begins_ahead_is_found() {
    is_found(Fault::LeaderAhead);
}

#[test]
fn deadlines_that_go_by_the_wall_clock_are_found() {
    is_found(Fault::ExpiryByWall);
}

#[test]
fn a_torn_tail_that_is_taken_is_found() {
    is_found(Fault::TornTailAccepted);
}

#[test]
fn a_snapshot_that_counts_before_it_is_durable_is_found() {
    is_found(Fault::SnapshotUnsynced);
}

#[test]
fn an_incarnation_that_comes_back_is_found() {
    is_found(Fault::IncarnationReused);
}

#[test]
fn a_script_that_a_shortage_stops_half_way_is_found() {
    is_found(Fault::ScriptStoppedHalfWay);
}

#[test]
fn a_message_before_commit_is_found() {
    is_found(Fault::MessageBeforeCommit);
}

#[test]
fn what_is_done_elsewhere_under_a_leadership_that_was_lost_is_found() {
    is_found(Fault::OutcomeOfOtherTerm);
}

#[test]
fn a_waiter_that_is_served_before_commit_is_found() {
    is_found(Fault::ServedBeforeCommit);
}

#[test]
fn a_format_that_not_all_members_read_is_found() {
    is_found(Fault::FormatNotReadable);
}

#[test]
fn a_loss_that_is_not_looked_for_is_found() {
    is_found(Fault::LossUnnoticed);
}
