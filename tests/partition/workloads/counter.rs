//! A counter: every acknowledged `INCR` counts once, and the count never falls.

use std::{cell::RefCell, collections::BTreeMap};

use rand::RngExt as _;

use super::{Names, Reading, TOLD_MAX, Workload, falling, number, settled};
use crate::client::{Client, words};

const KEYS: u64 = 3;

#[derive(Default)]
struct Count {
    readings: Vec<Reading>,
    done: i64,
    unknown: i64,
    last: i64,
}

pub struct Counter {
    names: Names,
    counts: RefCell<BTreeMap<String, Count>>,
}

impl Counter {
    pub fn new(names: &Names) -> Self {
        let key = |number| (names.tag("counter", number), Count::default());
        Self { names: names.clone(), counts: RefCell::new((0..KEYS).map(key).collect()) }
    }
}

impl Workload for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }
    fn workers(&self) -> u64 {
        3
    }

    async fn step(&self, client: &mut Client, _: u64) {
        let key = self.names.tag("counter", client.rng.random_range(0..KEYS));
        let grows = client.rng.random_bool(0.7);
        let ended = client.one(&key, [if grows { "INCR" } else { "GET" }, &key]).await;
        let mut counts = self.counts.borrow_mut();
        let count = counts.get_mut(&key).expect("there are so many keys");
        match ended.value() {
            Some(value) => {
                let value = number(value).unwrap_or(0);
                count.readings.push(Reading { called: ended.called, returned: ended.returned, value, grows });
                count.done += i64::from(grows);
            }
            None => count.unknown += i64::from(grows && ended.maybe()),
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        for number_of_key in 0..KEYS {
            let key = self.names.tag("counter", number_of_key);
            let ended = settled(client, &key, &[words(["GET", &key])]).await?;
            let last = ended.value().and_then(number).unwrap_or(0);
            self.counts.borrow_mut().get_mut(&key).expect("there are so many keys").last = last;
        }
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (key, count) in self.counts.borrow().iter() {
            let most = count.done + count.unknown;
            if count.last < count.done || count.last > most {
                wrong
                    .push(format!("{key} is {}, between {} and {most} were counted", count.last, count.done));
            }
            wrong.extend(falling(&count.readings).into_iter().take(TOLD_MAX));
            let mut counted: Vec<i64> =
                count.readings.iter().filter(|reading| reading.grows).map(|reading| reading.value).collect();
            counted.sort_unstable();
            let twice = counted.windows(2).find(|pair| pair[0] == pair[1]);
            wrong.extend(twice.map(|pair| format!("{key}: two INCR were answered {}", pair[0])));
        }
        wrong
    }
}
