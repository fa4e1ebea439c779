//! The end of a process: who asks for it, what time it has, and what becomes of one that does not end.
//!
//! A graceful end is a courtesy to clients: nothing that was acknowledged depends on it. So every wait in it has its
//! bound, and a script that runs is ended. What hangs all the same (a disk that does not return, somebody who does not
//! read what this process prints) is left behind: a thread that waits for nothing but signals and its clock ends the
//! process a little later.
//!
//! A signal that comes before the nodes run ends the process at once: there is nobody to be polite to.

use std::{
    io,
    sync::{Arc, OnceLock, mpsc},
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::node::Watched;

/// What the last resort waits for beyond `shutdown-timeout`.
const GRACE: Duration = Duration::from_secs(1);
/// How long its line may take: whoever reads standard error may have stopped reading.
const WORDS: Duration = Duration::from_millis(100);
/// The longest that each half of a farewell takes, see `replica::run`: clients look at the map after a redirect, and then
/// close what they have.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// The longest that the peers' runtime may take to end.
const PEERS_MAX: Duration = Duration::from_millis(500);

/// Shells' code for a process that an interrupt ended.
const EXIT_INTERRUPTED: i32 = 130;
/// It did not end in its time, and was ended.
const EXIT_OVERDUE: i32 = 1;

/// How `shutdown-timeout` is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// For handing leaderships over.
    pub hand_over: Duration,
    /// For clients to have their replies and to learn where to go, and as long again for their connections to close.
    pub farewell: Duration,
    /// For what is sent to peers to be given up.
    pub peers: Duration,
}

impl Times {
    /// Of so much in all.
    pub fn of(limit: Duration) -> Self {
        let (farewell, peers) = (FAREWELL_MAX.min(limit / 5), PEERS_MAX.min(limit / 10));
        Self { hand_over: limit - 2 * farewell - peers, farewell, peers }
    }
}

/// The signals that ask for the end: SIGINT and SIGTERM.
pub struct Signals {
    asked: mpsc::Receiver<()>,
    nodes: Arc<OnceLock<Vec<Watched>>>,
}

impl Signals {
    /// Heeds them from now on.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn heed() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = {
            let _here = runtime.enter();
            [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
        };
        let (sender, asked) = mpsc::channel();
        let nodes = Arc::new(OnceLock::new());
        let watched = Arc::clone(&nodes);
        let thread = std::thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || runtime.block_on(attend(signals, &sender, &watched)))?;
        Ok(Self { asked, nodes })
    }

    /// From now on these nodes run: they are stopped by whoever waits here, in the time that their settings give.
    pub fn begin(&self, nodes: Vec<Watched>) {
        assert!(self.nodes.set(nodes).is_ok(), "a process begins once");
    }

    /// Waits until the end is asked for.
    pub fn wait(&self) {
        let _ = self.asked.recv();
    }

    /// Waits for so long. Whether the end is asked for.
    pub fn wait_for(&self, patience: Duration) -> bool {
        self.asked.recv_timeout(patience) != Err(mpsc::RecvTimeoutError::Timeout)
    }
}

async fn attend(mut signals: [Signal; 2], asked: &mpsc::Sender<()>, nodes: &OnceLock<Vec<Watched>>) {
    any(&mut signals).await;
    let Some(nodes) = nodes.get() else {
        say("told to stop before the start was over");
        std::process::exit(0);
    };
    let limit = nodes.iter().map(Watched::shutdown_limit).max().unwrap_or_default();
    let _ = asked.send(());
    tokio::select! {
        () = any(&mut signals) => std::process::exit(EXIT_INTERRUPTED),
        () = tokio::time::sleep(limit + GRACE) => {}
    }
    let hangs: Vec<String> = nodes.iter().filter_map(Watched::hangs).collect();
    let hangs = if hangs.is_empty() { "no thread says why".to_owned() } else { hangs.join("; ") };
    say(&format!("not stopped within shutdown-timeout, {} s: {hangs}; ended all the same", limit.as_secs()));
    std::process::exit(EXIT_OVERDUE);
}

async fn any([first, second]: &mut [Signal; 2]) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}

/// A line on standard error, from a thread that may be left behind.
fn say(line: &str) {
    let line = format!("moonraft: {line}");
    let (said, done) = mpsc::channel();
    let thread = std::thread::Builder::new().name("last-words".to_owned());
    let speaking = thread.spawn(move || {
        eprintln!("{line}");
        let _ = said.send(());
    });
    if speaking.is_ok() {
        let _ = done.recv_timeout(WORDS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_stop_are_no_more_than_the_whole() {
        for limit in [0, 1, 2, 5, 10, 3600].map(Duration::from_secs) {
            let Times { hand_over, farewell, peers } = Times::of(limit);
            assert_eq!(hand_over + 2 * farewell + peers, limit);
            assert!(hand_over >= limit / 2);
        }
        assert_eq!(Times::of(Duration::from_secs(10)).farewell, FAREWELL_MAX);
    }
}
