//! What clients asked and were told, with the time of both.

use std::collections::BTreeMap;

use crate::{
    jobs::{Added, Seen},
    queues::Queues,
    streams,
};

/// What a client asked of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `SET key n`
    Write(u64),
    /// `SET key n PX milliseconds`
    WriteFleeting(u64, u64),
    /// `GET key`
    Read,
    /// A script: set to the second if it is the first.
    CompareAndSet(u64, u64),
    /// `RPUSH key n`
    Append(u64),
    /// `LRANGE key 0 -1`
    ReadList,
    /// `INCRBY key n`
    Add(i64),
}

impl Action {
    /// Whether it changes nothing.
    pub const fn only_reads(&self) -> bool {
        matches!(self, Action::Read | Action::ReadList)
    }
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done; `1` of a script that set, a length, a count.
    Number(i64),
    /// The value of a register.
    Value(Option<u64>),
    /// The value of a counter.
    Count(i64),
    /// The elements of a list.
    List(Vec<u64>),
    /// `OK`
    Done,
}

/// One operation on one key.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The key.
    pub key: String,
    /// What was asked.
    pub action: Action,
    /// When it was first sent, nanoseconds of true time.
    pub called: u64,
    /// When it was answered; `u64::MAX` if it never was: it may or may not have
    /// happened, at any time since.
    pub returned: u64,
    /// What was answered.
    pub answer: Option<Answer>,
    /// The unit it was part of: operations of one unit are atomic.
    pub unit: u64,
}

/// A reading of `TIME`.
#[derive(Clone, Copy, Debug)]
pub struct TimeReading {
    /// The shard whose clock was read.
    pub shard: usize,
    /// When it was asked.
    pub called: u64,
    /// When it was answered.
    pub returned: u64,
    /// What was shown, microseconds.
    pub shown: u64,
}

/// A lock that a client was given: `SET key owner NX PX milliseconds`.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The lock.
    pub key: String,
    /// When the request that got it was sent; none before it was executed.
    pub sent: u64,
    /// When the answer came.
    pub returned: u64,
    /// Nobody else may be given it for so long after it was given, nanoseconds of true time: all its time, by the
    /// fastest of the cluster's clocks.
    pub life: u64,
}

/// All that happened in a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Operations on keys.
    pub operations: Vec<Operation>,
    /// Readings of clocks.
    pub times: Vec<TimeReading>,
    /// Locks that were given.
    pub locks: Vec<Grant>,
    /// Two keys that are always written together, with one number drawn in a
    /// script, as they were read together.
    pub twins: Vec<(Option<u64>, Option<u64>)>,
    /// When subscribers first heard of a number, nanoseconds of true time. It is appended to a list in the same unit.
    pub heard: BTreeMap<u64, u64>,
    /// Jobs that were added.
    pub jobs_added: Vec<Added>,
    /// Jobs as they were seen.
    pub jobs_seen: Vec<Seen>,
    /// What was done with queues at which clients wait.
    pub queues: Queues,
    /// What was asked of streams.
    pub streams: Vec<streams::Asked>,
}

impl History {
    /// What was heard of had been done by then, answered or not.
    ///
    /// # Errors
    /// It was never done.
    pub fn believe_what_was_heard(&mut self) -> Result<(), String> {
        let mut heard = std::mem::take(&mut self.heard);
        for operation in &mut self.operations {
            if let Action::Append(n) = operation.action
                && let Some(at) = heard.remove(&n)
            {
                operation.returned = operation.returned.min(at);
            }
        }
        heard.keys().next().map_or(Ok(()), |n| Err(format!("{n} was heard of, and was not done")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_of_was_done_by_then() {
        let append = |n| Operation {
            key: "k".into(),
            action: Action::Append(n),
            called: 5,
            returned: u64::MAX,
            answer: None,
            unit: 0,
        };
        let mut history = History { operations: vec![append(1), append(2)], ..History::default() };
        history.heard.insert(1, 20);
        assert_eq!(history.believe_what_was_heard(), Ok(()));
        assert_eq!([history.operations[0].returned, history.operations[1].returned], [20, u64::MAX]);
        history.heard.insert(3, 20);
        assert!(history.believe_what_was_heard().is_err());
    }
}
