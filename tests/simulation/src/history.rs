//! What clients asked and were told, with the time of both.

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

/// All that happened in a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Operations on keys.
    pub operations: Vec<Operation>,
    /// Readings of clocks.
    pub times: Vec<TimeReading>,
    /// Two keys that are always written together, with one number drawn in a
    /// script, as they were read together.
    pub twins: Vec<(Option<u64>, Option<u64>)>,
}
