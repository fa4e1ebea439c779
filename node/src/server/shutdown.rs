//! `SHUTDOWN`: a client asks the process to end.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// Ends the process as whoever supervises it would, by the signal that [`super::run`] waits for: so there is one
/// way to end. Once only, for a second signal ends it at once.
pub fn request() {
    // Of the process, like the signal: several nodes may be in it.
    static REQUESTED: AtomicBool = AtomicBool::new(false);
    if !REQUESTED.swap(true, Ordering::Relaxed) {
        tracing::info!("a client asks to shut down");
        kill_process(getpid(), Signal::TERM).expect("a process may signal itself");
    }
}
