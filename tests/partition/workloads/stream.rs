//! A stream with a group: each entry is there once, in the order of ids, given to one reader and acknowledged once.

use std::{cell::RefCell, collections::BTreeMap};

use moonraft_tests::value::Value;

use super::{Names, TOLD_MAX, Workload, had_none, number, settled};
use crate::client::{Client, Ended, words};

/// The group is there from the first request on that needs it.
const READ: &str = "redis.pcall('xgroup', 'create', KEYS[1], 'g', '0', 'mkstream')
local read = redis.call('xreadgroup', 'GROUP', 'g', ARGV[1], 'COUNT', 1, 'STREAMS', KEYS[1], '>')
return read and {read[1][2][1][1], read[1][2][1][2][2]}";

/// An id, as it sorts.
type Id = (u64, u64);

/// All entries, and what is pending.
type Rest = (Vec<(Id, i64)>, Vec<Id>);

pub struct Stream {
    names: Names,
    added: RefCell<Vec<(i64, Ended)>>,
    /// What readers were given, and when that was asked and answered.
    read: RefCell<Vec<(Id, i64, u64, u64)>>,
    acknowledged: RefCell<Vec<Id>>,
    /// In the end.
    last: RefCell<Rest>,
}

fn id(value: &Value) -> Option<Id> {
    let Value::Bulk(text) = value else { return None };
    let text = String::from_utf8_lossy(text);
    let (ms, seq) = text.split_once('-')?;
    Some((ms.parse().ok()?, seq.parse().ok()?))
}

/// An id with the number that the entry holds: by itself, or behind its field.
fn entry(value: &Value) -> Option<(Id, i64)> {
    let Value::Array(parts) = value else { return None };
    let [first, second] = &parts[..] else { return None };
    let held = match second {
        Value::Array(fields) => number(fields.get(1)?)?,
        plain => number(plain)?,
    };
    Some((id(first)?, held))
}

impl Stream {
    pub fn new(names: &Names) -> Self {
        Self {
            names: names.clone(),
            added: RefCell::default(),
            read: RefCell::default(),
            acknowledged: RefCell::default(),
            last: RefCell::default(),
        }
    }

    fn key(&self) -> String {
        self.names.tag("stream", 0)
    }

    fn check_added(&self, wrong: &mut Vec<String>) {
        let last = self.last.borrow();
        let mut found = BTreeMap::<i64, Vec<Id>>::new();
        last.0.iter().for_each(|(id, job)| found.entry(*job).or_default().push(*id));
        for (job, ended) in self.added.borrow().iter() {
            let ids = found.remove(job).unwrap_or_default();
            let told = ended.value().and_then(id);
            if ids.len() > 1
                || told.is_some() && ids.first() != told.as_ref()
                || had_none(ended) && !ids.is_empty()
            {
                wrong.push(format!("entry {job} is at {ids:?}: {ended:?}"));
            }
        }
        wrong.extend(found.keys().map(|job| format!("entry {job} was never added")));
        if !last.0.is_sorted_by(|(one, _), (other, _)| one < other) {
            wrong.push("ids do not rise".to_owned());
        }
    }

    fn check_read(&self, wrong: &mut Vec<String>) {
        let mut read = self.read.borrow().clone();
        read.sort_unstable();
        let twice = read.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        wrong.extend(twice.map(|pair| format!("entry {:?} was given to two", pair[0].0)));
        let before = |pair: &&[(Id, i64, u64, u64)]| pair[1].3 < pair[0].2;
        let late = read.windows(2).filter(before);
        wrong.extend(late.map(|pair| format!("entry {:?} was given before {:?}", pair[1].0, pair[0].0)));
        let pending = &self.last.borrow().1;
        let lost = self.acknowledged.borrow().iter().filter(|id| pending.contains(id)).count();
        if lost > 0 {
            wrong.push(format!("{lost} entries were acknowledged and are pending"));
        }
    }
}

impl Workload for Stream {
    fn name(&self) -> &'static str {
        "stream"
    }
    fn workers(&self) -> u64 {
        4
    }

    async fn step(&self, client: &mut Client, worker: u64) {
        let key = self.key();
        if worker.is_multiple_of(2) {
            let job = self.names.unique();
            let ended = client.one(&key, ["XADD", &key, "*", "job", &job.to_string()]).await;
            self.added.borrow_mut().push((job as i64, ended));
            return;
        }
        let ended = client.one(&key, ["EVAL", READ, "1", &key, &worker.to_string()]).await;
        let Some((id, job)) = ended.value().and_then(entry) else { return };
        self.read.borrow_mut().push((id, job, ended.called, ended.returned));
        let ended = client.one(&key, ["XACK", &key, "g", &format!("{}-{}", id.0, id.1)]).await;
        if ended.value().and_then(number) == Some(1) {
            self.acknowledged.borrow_mut().push(id);
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        let key = self.key();
        let all = |value: &Value| match value {
            Value::Array(items) => items.clone(),
            _ => Vec::new(),
        };
        let entries = settled(client, &key, &[words(["XRANGE", &key, "-", "+"])]).await?;
        let entries = entries.value().map(all).unwrap_or_default();
        // Nothing was read, maybe: then there is no group yet.
        settled(client, &key, &[words(["EVAL", READ, "1", &key, "last"])]).await?;
        let pending = settled(client, &key, &[words(["XPENDING", &key, "g", "-", "+", "1000000"])]).await?;
        let pending = pending.value().map(all).unwrap_or_default();
        let first = |one: &Value| all(one).first().and_then(id);
        *self.last.borrow_mut() =
            (entries.iter().filter_map(entry).collect(), pending.iter().filter_map(first).collect());
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.check_added(&mut wrong);
        self.check_read(&mut wrong);
        wrong.truncate(TOLD_MAX);
        wrong
    }
}
