//! One program for all targets: `FUZZ_TARGET` names the one.
#![no_main]

#[path = "../bodies/mod.rs"]
mod bodies;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static BODY: OnceLock<fn(&[u8])> = OnceLock::new();
    let named = || {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET is set");
        bodies::TARGETS.iter().find(|(other, _)| *other == name).expect("a target of this name").1
    };
    BODY.get_or_init(named)(bytes);
});
