//! A replica's life on its thread: its tasks, and its end.

use std::{rc::Rc, time::Duration};

use rustix::thread::gettid;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_local},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{Replica, clients::accept, inbox::listen};
use crate::{
    server::{clock, connection::Connection, listen::Doors, mailbox::ShardInbox},
    shard::Event,
};

/// How often the shard is told that time has passed: Redis's `hz 10`.
const TICK: Duration = Duration::from_millis(100);
/// What one step of a snapshot may cost: about 0.1 ms.
const WALK_STEP: usize = 16 << 10;
/// And how long it may go on. On a virtual machine each entry was seen to take up to 0.4 ms, with no fault that its kernel
/// knew of, and dozens of such steps in a row up to 8 ms each.
const WALK_STEP_NS: u64 = 500_000;
/// A step that takes longer is told of: something else had the processor, or the machine stood still.
const LONG_STEP_NS: u64 = 5_000_000;
/// A client that has sent nothing for so long will not notice that its connection is closed
/// while it waits for a reply.
const QUIET_NS: u64 = 100_000_000;
/// How often it looks.
const FAREWELL_STEP: Duration = Duration::from_millis(5);

impl Replica {
    /// Runs until it is told to stop, and its clients have their replies.
    pub async fn run(self: Rc<Self>, doors: Doors<TcpListener>, inbox: ShardInbox) {
        let accept_all = |(network, listener)| spawn_local(accept(Rc::clone(&self), network, listener));
        let mut tasks: Vec<_> = doors.into_iter().map(accept_all).collect();
        tasks.push(spawn_local(end_turns(Rc::clone(&self))));
        tasks.push(spawn_local(tick(Rc::clone(&self))));
        tasks.push(spawn_local(wake(Rc::clone(&self))));
        tasks.push(spawn_local(walk(Rc::clone(&self))));
        tasks.push(spawn_local(listen(Rc::clone(&self), inbox)));
        self.stop.notified().await;
        // Clients may come until the end: they are told where to go. A port that is open and
        // answers nobody would keep them waiting.
        self.farewell().await;
        tasks.iter().for_each(JoinHandle::abort);
    }

    /// Waits, not for ever, until every reply that is due has left, no client is in the midst of
    /// something, and those who had to learn it know from a redirect where to go; then closes.
    async fn farewell(self: &Rc<Self>) {
        let within_ns = self.farewell.get().as_nanos() as u64;
        let until = self.now_ns() + within_ns;
        while self.now_ns() < until && self.is_any_client_busy() {
            sleep(FAREWELL_STEP).await;
        }
        self.is_closed.set(true);
        for connection in self.clients.all() {
            connection.close();
        }
        let until = self.now_ns() + within_ns;
        while !self.clients.is_empty() && self.now_ns() < until {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the next step of a snapshot fits the rate, or somebody waits for it.
    async fn keep_walk_rate(&self) {
        loop {
            let wait_ns = self.walk_from_ns.get().saturating_sub(self.now_ns());
            if wait_ns == 0 || self.shard.borrow().is_walk_awaited() {
                return;
            }
            // Woken or not, it looks again.
            let _ = timeout(Duration::from_nanos(wait_ns), self.walk_awaited.notified()).await;
        }
    }

    fn is_any_client_busy(&self) -> bool {
        let (now, shard) = (self.now_ns(), self.shard.borrow());
        let is_busy = |connection: &Rc<Connection>| {
            shard.is_holding(connection.id) || now < connection.active_ns.get() + QUIET_NS
        };
        self.clients.all().iter().any(is_busy)
    }
}

async fn end_turns(replica: Rc<Replica>) {
    loop {
        replica.turn.notified().await;
        replica.shard.borrow_mut().end_turn();
        replica.carry_out_all();
        replica.flush_all();
        replica.is_turn_due.set(false);
        replica.drive(); // requests may have been left unread until now
    }
}

/// What a step of a snapshot took. The shard serves nobody meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    pub(super) took_ns: u64,
    /// Of that, the time in which the thread had a processor. What the host of a virtual machine takes away may
    /// count as such.
    pub(super) worked_ns: u64,
}

impl Step {
    /// Says so if it was long.
    fn report(self, shard: u32) {
        if self.took_ns > LONG_STEP_NS {
            let (took_us, worked_us) = (self.took_ns / 1000, self.worked_ns / 1000);
            let thread = gettid().as_raw_nonzero().get();
            tracing::info!(shard, took_us, worked_us, thread, "a step of a snapshot was long");
        }
    }
}

/// Goes on with a snapshot while there is one to take: a small step, and everybody else's turn.
async fn walk(replica: Rc<Replica>) {
    loop {
        replica.walking.notified().await;
        while replica.shard.borrow().wants_walk() {
            replica.keep_walk_rate().await;
            let (began_ns, processor_ns) = (replica.now_ns(), clock::processor_ns());
            replica.shard.borrow_mut().walk(WALK_STEP, began_ns + WALK_STEP_NS);
            let step = Step {
                took_ns: replica.now_ns() - began_ns,
                worked_ns: clock::processor_ns() - processor_ns,
            };
            step.report(replica.number);
            replica.longest_step.set(replica.longest_step.get().max(step));
            replica.drive();
            tokio::task::yield_now().await;
        }
    }
}

/// Wakes the shard when it wants it, to the millisecond: a tick would be too late.
async fn wake(replica: Rc<Replica>) {
    loop {
        let next = replica.shard.borrow().next_wake().unwrap_or(u64::MAX);
        let wait_ns = next.saturating_sub(replica.now_ns());
        replica.alarm_ns.set(next);
        if wait_ns > 0 {
            // Woken or not, it looks again.
            let _ = timeout(Duration::from_nanos(wait_ns), replica.alarm.notified()).await;
        } else {
            replica.shard.borrow_mut().handle(Event::Wake);
            replica.drive();
            tokio::task::yield_now().await; // what goes on in steps lets others come between
        }
    }
}

async fn tick(replica: Rc<Replica>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        replica.shard.borrow_mut().handle(Event::Tick);
        replica.drive();
        replica.check_clients();
        if replica.is_stuck() {
            replica.clients.all().iter().for_each(|connection| connection.close());
        }
    }
}
