//! Requests that a shard has executed elsewhere, each on a thread of its own: they take from some ten milliseconds on, a
//! thread some ten microseconds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::Builder,
    time::Duration,
};

use super::replicas::ReplicaHandle;
use crate::shard::{Errand, Event, Outcome};

/// The errands of one replica. See the module.
#[derive(Default)]
pub struct Errands {
    done: Mutex<BTreeMap<u64, Outcome>>,
    came: Condvar,
}

impl Errands {
    /// Carries an errand out; the replica hears of it.
    pub fn send(self: &Arc<Self>, errand: Box<Errand>, replica: &Arc<ReplicaHandle>) {
        let errand = Arc::new(Mutex::new(Some(errand)));
        let carry_out = {
            let (own, errand, replica) = (Arc::clone(self), Arc::clone(&errand), Arc::clone(replica));
            move || own.carry_out(&errand, &replica)
        };
        if let Err(error) = Builder::new().name("errand".to_owned()).spawn(carry_out) {
            tracing::warn!(%error, "no thread for a large request: the shard executes it");
            self.carry_out(&errand, replica);
        }
    }

    fn carry_out(&self, errand: &Mutex<Option<Box<Errand>>>, replica: &ReplicaHandle) {
        let errand = errand.lock().expect("no thread panics holding it").take();
        let outcome = errand.expect("it is carried out once").run();
        self.done().insert(outcome.number, outcome);
        self.came.notify_all();
        replica.mailbox.send(Event::ErrandsDone);
    }

    /// What has come, and was not taken before.
    pub fn take(&self) -> Vec<Outcome> {
        std::mem::take(&mut *self.done()).into_values().collect()
    }

    /// Waits for what comes of this errand.
    pub fn wait(&self, number: u64) -> Outcome {
        let mut done = self.done();
        loop {
            if let Some(outcome) = done.remove(&number) {
                return outcome;
            }
            done = self.came.wait(done).expect("no thread panics holding it");
        }
    }

    /// The same, but no longer than so long.
    pub fn wait_for(&self, number: u64, wait: Duration) -> Option<Outcome> {
        let is_under_way = |done: &mut BTreeMap<u64, Outcome>| !done.contains_key(&number);
        let waited = self.came.wait_timeout_while(self.done(), wait, is_under_way);
        waited.expect("no thread panics holding it").0.remove(&number)
    }

    fn done(&self) -> MutexGuard<'_, BTreeMap<u64, Outcome>> {
        self.done.lock().expect("no thread panics holding it")
    }
}
