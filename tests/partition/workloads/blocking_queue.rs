//! A queue whose takers wait: jobs are pushed in several ways, and taken by commands that block. Each job is given to one
//! taker at most, and none is lost that was acknowledged.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use moonraft_tests::value::Value;
use rand::RngExt as _;

use super::{Names, TOLD_MAX, Workload, had_none, lists, number};
use crate::client::{Client, Ended, Outcome, words};

const PUSH: &str = "return redis.call('rpush', KEYS[1], ARGV[1])";

pub struct BlockingQueue {
    names: Names,
    pushed: RefCell<Vec<(i64, Ended)>>,
    /// Jobs that were taken for good.
    taken: RefCell<Vec<i64>>,
    /// Jobs that were moved to the second list.
    moved: RefCell<Vec<i64>>,
    /// Takers that took a job for good, or none: nobody knows.
    unknown: Cell<usize>,
    /// In the end: both lists.
    last: RefCell<Vec<Vec<i64>>>,
}

impl BlockingQueue {
    pub fn new(names: &Names) -> Self {
        Self {
            names: names.clone(),
            pushed: RefCell::default(),
            taken: RefCell::default(),
            moved: RefCell::default(),
            unknown: Cell::new(0),
            last: RefCell::default(),
        }
    }

    fn keys(&self) -> [String; 2] {
        let tag = self.names.tag("blocking-queue", 0);
        ["waiting", "moved"].map(|list| format!("{tag}{list}"))
    }

    async fn push(&self, client: &mut Client, waiting: &str) {
        let job = self.names.unique() as i64;
        let text = job.to_string();
        let push = words(["RPUSH", waiting, &text]);
        let ended = match client.rng.random_range(0..3) {
            0 => client.call(waiting, &[push]).await,
            1 => client.call(waiting, &[words(["MULTI"]), push, words(["EXEC"])]).await,
            _ => client.one(waiting, ["EVAL", PUSH, "1", waiting, &text]).await,
        };
        self.pushed.borrow_mut().push((job, ended));
    }

    async fn take(&self, client: &mut Client, waiting: &str, moved: &str) {
        let seconds = format!("0.{:03}", client.rng.random_range(1..999));
        let (ended, moves) = match client.rng.random_range(0..4) {
            0 => (client.one(waiting, ["BLPOP", waiting, &seconds]).await, false),
            1 => (client.one(waiting, ["BRPOP", moved, waiting, &seconds]).await, false),
            2 => (client.one(waiting, ["BLMPOP", &seconds, "1", waiting, "LEFT"]).await, false),
            _ => {
                let request = ["BLMOVE", waiting, moved, "LEFT", "RIGHT", &seconds];
                (client.one(waiting, request).await, true)
            }
        };
        match (&ended.outcome, ended.value().and_then(job_of)) {
            (_, Some(job)) if moves => self.moved.borrow_mut().push(job),
            (_, Some(job)) => self.taken.borrow_mut().push(job),
            (Outcome::Unknown(_), _) if !moves => self.unknown.set(self.unknown.get() + 1),
            _ => {}
        }
    }
}

/// The job in the reply to a taker: alone, behind its list, or in an array behind its list.
fn job_of(value: &Value) -> Option<i64> {
    let Value::Array(items) = value else { return number(value) };
    match items.last()? {
        Value::Array(jobs) => jobs.first().and_then(number),
        job => number(job),
    }
}

impl Workload for BlockingQueue {
    fn name(&self) -> &'static str {
        "blocking queue"
    }
    fn workers(&self) -> u64 {
        5
    }

    async fn step(&self, client: &mut Client, worker: u64) {
        let [waiting, moved] = self.keys();
        match worker {
            0 | 1 => self.push(client, &waiting).await,
            _ => self.take(client, &waiting, &moved).await,
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        let lists = lists(client, &self.keys()).await?;
        *self.last.borrow_mut() = lists;
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let (taken, moved, last) = (self.taken.borrow(), self.moved.borrow(), self.last.borrow());
        let mut wrong = Vec::new();
        let mut given = taken.iter().chain(last.iter().flatten()).copied().collect::<Vec<_>>();
        given.sort_unstable();
        let twice = given.windows(2).filter(|pair| pair[0] == pair[1]);
        wrong.extend(twice.map(|pair| format!("job {} was given to two, or stayed", pair[0])));
        let mut once = moved.clone();
        once.sort_unstable();
        let twice = once.windows(2).filter(|pair| pair[0] == pair[1]);
        wrong.extend(twice.map(|pair| format!("job {} was moved twice", pair[0])));

        let mut there: BTreeMap<i64, ()> = given.into_iter().map(|job| (job, ())).collect();
        let mut lost = Vec::new();
        for (job, ended) in self.pushed.borrow().iter() {
            let is_there = there.remove(job).is_some();
            if is_there && had_none(ended) {
                wrong.push(format!("job {job} was refused and is there: {ended:?}"));
            } else if !is_there && ended.value().is_some() {
                lost.push(*job);
            }
        }
        wrong.extend(there.keys().map(|job| format!("job {job} was never pushed")));
        // Each taker that was not answered may have had one.
        if lost.len() > self.unknown.get() {
            let unknown = self.unknown.get();
            wrong.push(format!("jobs {lost:?} are lost, and only {unknown} takers were not answered"));
        }
        wrong.truncate(TOLD_MAX);
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_of_a_reply_is_read() {
        let bulk = |text: &str| Value::Bulk(text.into());
        assert_eq!(job_of(&Value::Array(vec![bulk("{k}list"), bulk("17")])), Some(17));
        assert_eq!(job_of(&Value::Array(vec![bulk("{k}list"), Value::Array(vec![bulk("17")])])), Some(17));
        assert_eq!((job_of(&bulk("17")), job_of(&Value::Nil)), (Some(17), None));
    }
}
