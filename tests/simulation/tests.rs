//! Seeds that every change must survive, and mistakes that must be found.

use moonraft_tests::{Fault, Settings, run};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 200;
/// A planted fault is found within so many seeds.
const FOUND_WITHIN: u64 = 500;

fn settings(seed: u64, fault: Option<Fault>) -> Settings {
    Settings { seed, faulty_ms: 5000, fault }
}

#[test]
fn no_seed_breaks_a_promise() {
    for seed in 1..=SEEDS {
        if let Err(text) = run(&settings(seed, None)) {
            panic!("seed {seed}: {text}");
        }
    }
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
