//! Registers: `SET`, `GET` and a script that compares and sets. Each key is linearizable.

use std::cell::{Cell, RefCell};

use moonraft_tests::{
    checker,
    history::{Action, Answer, History, Operation},
    value::Value,
};
use rand::RngExt as _;

use super::{Names, Workload, number, settled};
use crate::client::{Client, Ended, words};

const COMPARE_AND_SET: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('set', KEYS[1], ARGV[2]) return 1 end return 0";
/// Keys in use at a time.
const KEYS: u64 = 4;
/// Operations on one key before it gives way to the next: what can be searched.
const OPERATIONS_MAX: u64 = 120;

pub struct Register {
    names: Names,
    begun: Cell<u64>,
    operations: RefCell<Vec<Operation>>,
}

impl Register {
    pub fn new(names: &Names) -> Self {
        Self { names: names.clone(), begun: Cell::new(0), operations: RefCell::default() }
    }

    /// Few keys at a time, so that operations meet; the next few after a while.
    fn key(&self, draw: u64) -> String {
        let begun = self.begun.replace(self.begun.get() + 1);
        self.names.tag("register", begun / (KEYS * OPERATIONS_MAX) * KEYS + draw)
    }

    fn note(&self, key: String, action: Action, ended: &Ended) {
        let answer = ended.value().and_then(|value| answer(&action, value));
        let read = action == Action::Read;
        if !ended.maybe() || read && answer.is_none() {
            return;
        }
        let (called, returned) = (ended.called, ended.returned);
        let mut operations = self.operations.borrow_mut();
        // Each is a unit of its own.
        let unit = operations.len() as u64;
        operations.push(Operation { key, action, called, returned, answer, unit });
    }
}

fn answer(action: &Action, value: &Value) -> Option<Answer> {
    Some(match (action, value) {
        (Action::Write(_), _) => Answer::Done,
        (Action::Read, Value::Nil) => Answer::Value(None),
        (Action::Read, value) => Answer::Value(Some(number(value)? as u64)),
        (_, value) => Answer::Number(number(value)?),
    })
}

impl Workload for Register {
    fn name(&self) -> &'static str {
        "register"
    }
    fn workers(&self) -> u64 {
        5
    }

    async fn step(&self, client: &mut Client, _: u64) {
        let draw = client.rng.random_range(0..KEYS);
        let (key, new) = (self.key(draw), self.names.unique());
        let text = new.to_string();
        match client.rng.random_range(0..10) {
            0..3 => {
                let ended = client.one(&key, ["SET", &key, &text]).await;
                self.note(key, Action::Write(new), &ended);
            }
            3..7 => {
                let ended = client.one(&key, ["GET", &key]).await;
                self.note(key, Action::Read, &ended);
            }
            _ => {
                let ended = client.one(&key, ["GET", &key]).await;
                let old = ended.value().and_then(number).unwrap_or(0);
                self.note(key.clone(), Action::Read, &ended);
                let request = ["EVAL", COMPARE_AND_SET, "1", &key, &old.to_string(), &text];
                let ended = client.one(&key, request).await;
                self.note(key, Action::CompareAndSet(old as u64, new), &ended);
            }
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        let mut keys: Vec<String> =
            self.operations.borrow().iter().map(|operation| operation.key.clone()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let ended = settled(client, &key, &[words(["GET", &key])]).await?;
            self.note(key, Action::Read, &ended);
        }
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let history = History { operations: self.operations.take(), ..History::default() };
        match checker::check(&history) {
            Ok(0) => Vec::new(),
            Ok(keys) => vec![format!("{keys} keys have histories too entangled to be checked")],
            Err(text) => vec![text],
        }
    }
}
