//! What a shard sees of the real world.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::{Arc, LazyLock, atomic::Ordering, mpsc},
    time::Duration,
};

use moonraft_router::{Network, SlotMap};

use super::{
    busy::Clients, clock, errands::Errands, process, replicas::ReplicaHandle, shared::NodeShared, shutdown,
};
use crate::{
    config::SettingError,
    consensus::{LeaseCell, ShardTimes},
    shard::{Busy, BusyShard, Errand, Outcome, ProcessFacts, Surroundings},
};

/// What a thread of its own frees: for giving ten million keys back to the allocator a shard would need seconds.
static FREED: LazyLock<mpsc::Sender<Box<dyn Send>>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name("freed".to_owned());
    if let Err(error) = thread.spawn(move || receiver.into_iter().for_each(drop)) {
        tracing::warn!(%error, "no thread that frees what is large: shards do it");
    }
    sender
});

/// What is around one replica.
pub struct NodeSurroundings {
    /// Its node.
    pub node: Arc<NodeShared>,
    /// Itself, as others see it.
    pub replica: Arc<ReplicaHandle>,
    /// Its lease.
    pub lease: Arc<LeaseCell>,
    /// Its clients.
    pub clients: Rc<Clients>,
    /// Its requests that are executed elsewhere.
    pub errands: Arc<Errands>,
    /// Its client port.
    pub port: u16,
    /// The address at which it listens there.
    pub bind: IpAddr,
}

impl Surroundings for NodeSurroundings {
    fn unix_us(&self) -> u64 {
        clock::unix_us()
    }

    fn boot_ns(&self) -> u64 {
        clock::boot_ns()
    }

    fn lease_covers(&self, term: u64) -> bool {
        self.lease.covers(term, clock::boot_ns())
    }

    fn times(&self) -> Option<&ShardTimes> {
        Some(&self.lease.times)
    }

    fn map(&self, network: Network) -> Arc<SlotMap> {
        self.node.cluster.map(network)
    }

    fn used_bytes(&self) -> u64 {
        moonraft_allocator::taken()
    }

    fn facts(&self) -> ProcessFacts {
        process::facts(self.port)
    }

    fn settings(&self, pattern: &[u8]) -> Vec<(String, String)> {
        let found = self.node.settings.load().get(pattern, |name| match name {
            "port" => self.port.to_string(),
            "bind" => self.bind.to_string(),
            _ => {
                let directory = self.node.files.data_directory();
                std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned()).display().to_string()
            }
        });
        found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn change_settings(&self, changes: &[(&[u8], &[u8])]) -> Result<(), String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs: Vec<(String, String)> =
            changes.iter().map(|(name, value)| (text(name), text(value))).collect();
        let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let _alone = self.node.settings_change.lock().expect("no thread panics holding it");
        let mut settings = (*self.node.settings.load_full()).clone();
        settings.set_all(pairs).map_err(|error: SettingError| format!("ERR {error}"))?;
        self.node.settings.store(Arc::new(settings));
        Ok(())
    }

    fn while_busy(&self, shard: &mut BusyShard<'_>) -> Busy {
        self.clients.while_busy(shard, || self.node.has_room_for_client());
        Busy::Continue
    }

    fn ends_scripts(&self) -> bool {
        clock::boot_ns() >= self.replica.scripts_until_ns.load(Ordering::Relaxed)
    }

    fn free(&self, large: Box<dyn Send>) {
        // Without its thread it is freed here, a little later.
        let _ = FREED.send(large);
    }

    fn send(&self, errand: Box<Errand>) {
        self.errands.send(errand, &self.replica);
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.errands.take()
    }

    fn await_outcome(&self, number: u64) -> Outcome {
        self.errands.wait(number)
    }

    fn outcome_within(&self, number: u64, wait: Duration) -> Option<Outcome> {
        self.errands.wait_for(number, wait)
    }

    fn shut_down(&self) {
        shutdown::request();
    }
}
