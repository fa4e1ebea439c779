//! A queue: jobs are pushed, taken by `LMOVE`, and done; each exactly once.

use std::{cell::RefCell, collections::BTreeMap};

use super::{Names, TOLD_MAX, Workload, had_none, lists, number};
use crate::client::{Client, Ended};

const DONE: &str = "if redis.call('lrem', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
redis.call('rpush', KEYS[2], ARGV[1]) return 1";

pub struct Queue {
    names: Names,
    pushed: RefCell<Vec<(i64, Ended)>>,
    taken: RefCell<Vec<i64>>,
    done: RefCell<Vec<i64>>,
    /// In the end: waiting, taken, done.
    last: RefCell<Vec<Vec<i64>>>,
}

impl Queue {
    pub fn new(names: &Names) -> Self {
        let (pushed, taken) = (RefCell::default(), RefCell::default());
        Self { names: names.clone(), pushed, taken, done: RefCell::default(), last: RefCell::default() }
    }

    fn keys(&self) -> [String; 3] {
        let tag = self.names.tag("queue", 0);
        ["waiting", "taken", "done"].map(|list| format!("{tag}{list}"))
    }
}

impl Workload for Queue {
    fn name(&self) -> &'static str {
        "queue"
    }
    fn workers(&self) -> u64 {
        4
    }

    async fn step(&self, client: &mut Client, worker: u64) {
        let [waiting, taken, done] = self.keys();
        if worker.is_multiple_of(2) {
            let job = self.names.unique();
            let ended = client.one(&waiting, ["RPUSH", &waiting, &job.to_string()]).await;
            self.pushed.borrow_mut().push((job as i64, ended));
            return;
        }
        let ended = client.one(&waiting, ["LMOVE", &waiting, &taken, "LEFT", "RIGHT"]).await;
        let Some(job) = ended.value().and_then(number) else { return };
        self.taken.borrow_mut().push(job);
        let ended = client.one(&waiting, ["EVAL", DONE, "2", &taken, &done, &job.to_string()]).await;
        if ended.value().and_then(number) == Some(1) {
            self.done.borrow_mut().push(job);
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        let lists = lists(client, &self.keys()).await?;
        *self.last.borrow_mut() = lists;
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let last = self.last.borrow();
        let [_, _, done] = &last[..] else { return Vec::new() };
        let mut times = BTreeMap::<i64, usize>::new();
        last.iter().flatten().for_each(|job| *times.entry(*job).or_default() += 1);
        let mut wrong = Vec::new();
        for (job, ended) in self.pushed.borrow().iter() {
            let found = times.remove(job).unwrap_or(0);
            if found > 1 || ended.value().is_some() && found == 0 || had_none(ended) && found > 0 {
                wrong.push(format!("job {job} is there {found} times: {ended:?}"));
            }
        }
        wrong.extend(times.keys().map(|job| format!("job {job} was never pushed")));
        let mut taken = self.taken.borrow().clone();
        taken.sort_unstable();
        let twice = taken.windows(2).filter(|pair| pair[0] == pair[1]);
        wrong.extend(twice.map(|pair| format!("job {} was given to two", pair[0])));
        let lost = self.done.borrow().iter().filter(|job| !done.contains(job)).count();
        if lost > 0 {
            wrong.push(format!("{lost} jobs were acknowledged as done and are not"));
        }
        wrong.truncate(TOLD_MAX);
        wrong
    }
}
