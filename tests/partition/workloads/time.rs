//! `TIME` of a shard never goes back in real time, whoever leads it and whatever its clock says.
//!
//! Where wall clocks jump, some shard must say so: else the jumps do not reach the processes.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use moonraft_tests::value::Value;
use rand::RngExt as _;

use super::{Names, Reading, TOLD_MAX, Workload, falling, number};
use crate::{client::Client, nemesis::Fault};

/// Tags enough that every shard has one; readings of one tag are of one shard.
const TAGS: u64 = 6;
/// `TIME` of the shard of a key, not of whichever node is asked.
const READ: &str = "redis.call('exists', KEYS[1]) return redis.call('time')";

/// What a shard says of the wall clock, in `INFO server`, and how far that jumps at least in one phase, ms.
const BEHIND: &str = "moonraft_wall_clock_ahead_ms:";
const JUMPS_MS: i64 = 1000;

pub struct Time {
    names: Names,
    fault: Fault,
    /// The farthest that a wall clock was from a shard's time.
    apart_ms: Cell<i64>,
    readings: RefCell<BTreeMap<u64, Vec<Reading>>>,
}

impl Time {
    pub fn new(names: &Names, fault: Fault) -> Self {
        Self { names: names.clone(), fault, apart_ms: Cell::new(0), readings: RefCell::default() }
    }

    async fn look_at_wall_clock(&self, client: &mut Client, key: &str) {
        let ended = client.one(key, ["INFO", "server"]).await;
        let Some(Value::Bulk(text)) = ended.value() else { return };
        let text = String::from_utf8_lossy(text);
        let apart_ms = text.lines().find_map(|line| line.strip_prefix(BEHIND)?.trim().parse::<i64>().ok());
        self.apart_ms.set(self.apart_ms.get().max(apart_ms.unwrap_or(0).abs()));
    }
}

impl Workload for Time {
    fn name(&self) -> &'static str {
        "time"
    }
    fn workers(&self) -> u64 {
        3
    }

    async fn step(&self, client: &mut Client, _: u64) {
        let tag = client.rng.random_range(0..TAGS);
        let key = self.names.tag("time", tag);
        if client.rng.random_bool(0.1) {
            self.look_at_wall_clock(client, &key).await;
        }
        let ended = client.one(&key, ["EVAL", READ, "1", &key]).await;
        let Some(Value::Array(parts)) = ended.value() else { return };
        let parts: Vec<i64> = parts.iter().filter_map(number).collect();
        if let [seconds, micros] = parts[..] {
            let value = seconds * 1_000_000 + micros;
            let reading = Reading { called: ended.called, returned: ended.returned, value, grows: false };
            self.readings.borrow_mut().entry(tag).or_default().push(reading);
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        for _ in 0..TAGS {
            self.step(client, 0).await;
        }
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let readings = self.readings.borrow();
        let unseen = self.fault == Fault::ClockJump && self.apart_ms.get() < JUMPS_MS;
        let unseen = unseen.then(|| "no process has seen its wall clock jump".to_owned());
        readings.values().flat_map(|readings| falling(readings)).chain(unseen).take(TOLD_MAX).collect()
    }
}
