//! `TIME` of a shard never goes back in real time, whoever leads it and whatever its clock says.

use std::{cell::RefCell, collections::BTreeMap};

use moonraft_tests::value::Value;
use rand::RngExt as _;

use super::{Names, Reading, TOLD_MAX, Workload, falling, number};
use crate::client::Client;

/// Tags enough that every shard has one; readings of one tag are of one shard.
const TAGS: u64 = 6;
/// `TIME` of the shard of a key, not of whichever node is asked.
const READ: &str = "redis.call('exists', KEYS[1]) return redis.call('time')";

pub struct Time {
    names: Names,
    readings: RefCell<BTreeMap<u64, Vec<Reading>>>,
}

impl Time {
    pub fn new(names: &Names) -> Self {
        Self { names: names.clone(), readings: RefCell::default() }
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
        readings.values().flat_map(|readings| falling(readings)).take(TOLD_MAX).collect()
    }
}
