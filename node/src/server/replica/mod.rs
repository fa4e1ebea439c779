//! The thread of one replica: a [`Shard`], its clients, and what connects it to the node.
//!
//! Everything here runs on one thread as local tasks: one a connection, one for
//! messages of other threads, one that ends turns, one that ticks, one that accepts.
//!
//! A turn is what the tasks that were ready executed. The first of them wakes the
//! turn's task, which comes after all of them in the queue, seals what they
//! did into one batch, and writes the replies that may leave.
//!
//! INVARIANT: the shard is borrowed for one call at a time and never across an `await`.

mod clients;
mod inbox;
mod run;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use moonraft_proto::resp;
use tokio::{sync::Notify, task::spawn_blocking};

use run::Step;

use super::{
    busy::Clients,
    clock,
    connection::{Connection, READ_BYTES},
    replicas::ReplicaHandle,
    shared::NodeShared,
    snapshots::SnapshotName,
};
use crate::{
    config::{Reads, Settings},
    consensus::{Input, ShardId},
    keyspace::{Limits, stream::NodeLimits, tx::Eviction, uses::Counting},
    replica::Intake,
    script,
    shard::{Output, Shard, ShardSettings, clock::Bounds},
};

/// A snapshot that was held up makes so much time good, and no more.
const WALK_BURST_NS: u64 = 10_000_000;

/// A replica on its thread.
pub struct Replica {
    /// Its state machine.
    pub shard: RefCell<Shard>,
    /// The buffer that connections read into; see `server::connection`.
    pub shared_input: RefCell<BytesMut>,
    /// `client-query-buffer-limit`
    pub query_bytes_max: Cell<usize>,
    clients: Rc<Clients>,
    node: Arc<NodeShared>,
    /// Itself, as other threads see it.
    handle: Arc<ReplicaHandle>,
    number: ShardId,
    is_turn_due: Cell<bool>,
    turn: Notify,
    /// Connections with replies that are written at the end of the turn.
    unsent: RefCell<Vec<Rc<Connection>>>,
    settings: RefCell<Arc<Settings>>,
    /// What its thread is told goes through it.
    intake: RefCell<Intake>,
    /// Wakes the task that goes on with a snapshot.
    walking: Notify,
    /// Wakes it when it waits for its rate, and somebody for a value.
    walk_awaited: Notify,
    /// Before this, boot clock, no more of it is written.
    walk_from_ns: Cell<u64>,
    /// Its longest step.
    longest_step: Cell<Step>,
    /// Wakes the task that wakes the shard in time, if its next time is before the one that task waits for, boot clock.
    alarm: Notify,
    alarm_ns: Cell<u64>,
    stop: Notify,
    /// How long clients have, once it is told to stop.
    farewell: Cell<Duration>,
    /// No client is taken in any more.
    is_closed: Cell<bool>,
}

/// What the shard's settings are under the node's.
pub fn shard_settings(base: ShardSettings, settings: &Settings) -> ShardSettings {
    let bytes = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let unlimited = |bytes_max: u64| if bytes_max == 0 { usize::MAX } else { bytes(bytes_max) };
    ShardSettings {
        clocks: Bounds {
            drift_percent: settings.lease_drift_percent,
            slew_per_mille: settings.clock_slew_per_mille,
        },
        read_index: settings.reads == Reads::ReadIndex,
        debug_access: settings.debug_access,
        // About two election timeouts: the longest that a failover takes when all goes well.
        park_ms: 2 * settings.node_timeout_ms,
        clients_max: bytes(settings.clients_max),
        unit_bytes_max: bytes(settings.unit_bytes_max),
        unit_copied_bytes_max: bytes(settings.unit_copied_bytes_max),
        large_elements: unlimited(settings.large_elements),
        limits: Limits {
            reply_bytes_max: bytes(settings.reply_bytes_max),
            sparse_bytes_max: bytes(settings.sparse_bytes_max),
            stream_nodes: NodeLimits::of(settings.stream_node_bytes_max, settings.stream_node_entries_max),
        },
        memory_bytes_max: if settings.memory_bytes_max == 0 { u64::MAX } else { settings.memory_bytes_max },
        eviction: Eviction {
            policy: settings.eviction_policy,
            samples: bytes(settings.eviction_samples),
            counting: Counting {
                log_factor: settings.lfu_log_factor,
                decay_minutes: settings.lfu_decay_minutes,
            },
        },
        tracked_keys_max: unlimited(settings.tracked_keys_max),
        events: settings.events,
        outbox_bytes_max: unlimited(settings.output_normal.hard_bytes),
        outbox_listening_bytes_max: unlimited(settings.output_pubsub.hard_bytes),
        busy_ms: if settings.busy_after_ms == 0 { u64::MAX / 1_000_000 } else { settings.busy_after_ms },
        slow_us: u64::try_from(settings.slow_us).unwrap_or(u64::MAX),
        slow_log_length_max: bytes(settings.slow_log_length_max),
        latency_ms: settings.latency_ms,
        scripts: script::Limits {
            memory_bytes: bytes(settings.script_memory_bytes_max),
            script_bytes: bytes(settings.script_bytes_max),
            chunk_bytes: bytes(settings.script_cache_bytes_max),
        },
        requests: resp::Limits { bulk_bytes_max: bytes(settings.bulk_bytes_max), ..base.requests },
        ..base
    }
}

impl Replica {
    /// A replica with no clients yet.
    pub fn new(
        shard: Shard,
        clients: Rc<Clients>,
        node: Arc<NodeShared>,
        handle: Arc<ReplicaHandle>,
    ) -> Rc<Self> {
        let settings = node.settings.load_full();
        Rc::new(Self {
            shard: RefCell::new(shard),
            shared_input: RefCell::new(BytesMut::with_capacity(READ_BYTES)),
            query_bytes_max: Cell::new(settings.query_bytes_max as usize),
            clients,
            node,
            number: handle.shard,
            handle,
            is_turn_due: Cell::new(false),
            turn: Notify::new(),
            unsent: RefCell::default(),
            settings: RefCell::new(settings),
            intake: RefCell::default(),
            walking: Notify::new(),
            walk_awaited: Notify::new(),
            walk_from_ns: Cell::new(0),
            longest_step: Cell::default(),
            alarm: Notify::new(),
            alarm_ns: Cell::new(u64::MAX),
            stop: Notify::new(),
            farewell: Cell::default(),
            is_closed: Cell::new(false),
        })
    }

    /// The boot clock.
    pub fn now_ns(&self) -> u64 {
        clock::boot_ns()
    }

    /// Does what the shard wants done.
    pub fn drive(self: &Rc<Self>) {
        self.welcome();
        self.carry_out_all();
        self.schedule_turn();
    }

    fn carry_out_all(self: &Rc<Self>) {
        loop {
            let outputs = self.shard.borrow_mut().take_outputs();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.carry_out(output);
            }
        }
    }

    /// The turn's task comes after the tasks that are ready.
    fn end_turn_soon(&self) {
        if !self.is_turn_due.replace(true) {
            self.turn.notify_one();
        }
    }

    /// So many bytes of a snapshot are on their way: the next step waits until they fit the rate, unless
    /// somebody waits for it.
    fn pace_walk(&self, bytes: usize) {
        let rate = self.settings.borrow().snapshot_rate;
        let took = (bytes as u64 * 1_000_000_000).checked_div(rate).unwrap_or(0);
        let from = self.walk_from_ns.get().max(self.now_ns().saturating_sub(WALK_BURST_NS));
        self.walk_from_ns.set(from + took);
    }

    /// Wakes the task that ends turns, if this one has something to seal; that of the snapshot, and that of the
    /// shard's times.
    fn schedule_turn(&self) {
        self.refresh_settings();
        if self.shard.borrow().wants_walk() {
            self.walking.notify_one();
        }
        if self.shard.borrow().is_walk_awaited() {
            self.walk_awaited.notify_one();
        }
        if self.shard.borrow().next_wake().is_some_and(|at| at < self.alarm_ns.get()) {
            self.alarm.notify_one();
        }
        if self.shard.borrow().wants_turn() {
            self.end_turn_soon();
        }
    }

    fn carry_out(self: &Rc<Self>, output: Output) {
        let group = self.number;
        match output {
            Output::Propose { term, sequence, data } => {
                self.node.driver.send(Input::Propose { group, term, sequence, data });
            }
            Output::ReadRound { term, round } => {
                self.node.driver.send(Input::ReadRound { group, term, round });
            }
            Output::WatchFollowers(watched) => {
                self.node.driver.send(Input::WatchFollowers { group, watched });
            }
            Output::Readers(present) => self.node.driver.send(Input::Readers { group, present }),
            Output::Publish(publications) => self.node.publish(group, publications),
            Output::Flush(id) => {
                if let Some(connection) = self.clients.get(id) {
                    self.flush(&connection);
                }
            }
            Output::Resume(id) => {
                if let Some(connection) = self.clients.get(id) {
                    connection.active_ns.set(self.now_ns()); // what it waited is not its own idleness
                    connection.resume();
                }
            }
            Output::Close(id) => {
                if let Some(connection) = self.clients.get(id) {
                    // A reply may be lost: those behind it would be taken for it.
                    connection.is_unsent.set(false);
                    connection.close();
                }
            }
            Output::Applied { index } => self.report_applied(index),
            Output::SnapshotChunk { number, data } => {
                self.pace_walk(data.len());
                self.node.writer.write(group, number, data);
            }
            Output::Snapshot { number, index, term } => {
                let Step { took_ns, worked_ns } = self.longest_step.take();
                let (longest_step_us, worked_us) = (took_ns / 1000, worked_ns / 1000);
                tracing::info!(shard = group, index, longest_step_us, worked_us, "snapshot taken");
                self.node.writer.publish(SnapshotName { shard: group, index, term }, number);
            }
            Output::SnapshotGivenUp { number } => self.node.writer.give_up(group, number),
            Output::Discard(state) => drop(spawn_blocking(move || drop(state))),
        }
    }

    fn report_applied(&self, index: u64) {
        let group = self.number;
        let mut intake = self.intake.borrow_mut();
        if intake.applied(index, &self.handle.progress) {
            self.node.driver.send(Input::Applied { group, index });
        }
        let figures = &self.handle.figures;
        figures.applied.store(index, Ordering::Relaxed);
        figures.term.store(intake.newest_term(), Ordering::Relaxed);
        let shard = self.shard.borrow();
        figures.is_serving.store(shard.is_serving(), Ordering::Relaxed);
        self.node.note_format(shard.committed_format());
    }

    /// Notes how many clients there are.
    fn count_clients(&self) {
        self.handle.figures.clients.store(self.clients.len() as u64, Ordering::Relaxed);
    }

    /// Whether the node's disk hangs: others lead by now, and this node cannot tell who; see `disk`.
    fn is_stuck(&self) -> bool {
        self.node.is_disk_hanging()
    }

    /// Takes settings over that have changed.
    fn refresh_settings(&self) {
        let current = self.node.settings.load();
        if Arc::ptr_eq(&current, &self.settings.borrow()) {
            return;
        }
        let current = Arc::clone(&current);
        self.query_bytes_max.set(current.query_bytes_max as usize);
        self.shard
            .borrow_mut()
            .reconfigure(|settings| *settings = shard_settings(settings.clone(), &current));
        *self.settings.borrow_mut() = current;
    }
}
