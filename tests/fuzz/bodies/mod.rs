//! What each fuzz target does with its bytes: plain functions that panic where a promise is broken.
//!
//! Here they know nothing of a fuzzer: `corpus.rs` runs every file of the corpus through them in an
//! ordinary `cargo test`, `targets/` hands them what libFuzzer draws.

mod cluster_files;
mod effects;
mod frames;
mod payloads;
mod replies;
mod requests;
mod scripts;
mod snapshots;

/// A body: what it is called, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; the corpus of each is the folder of its name.
pub const TARGETS: &[Target] = &[
    ("requests", requests::run),
    ("replies", replies::run),
    ("effects", effects::run),
    ("snapshots", snapshots::run),
    ("payloads", payloads::run),
    ("cluster_files", cluster_files::run),
    ("frames", frames::run),
    ("scripts", scripts::run),
];
