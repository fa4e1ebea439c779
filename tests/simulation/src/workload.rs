//! What clients do: a request, its bytes, and how its reply is read.

use moonraft_router::{SlotMap, slot_of};
use rand::{RngExt, rngs::StdRng};

use crate::{
    history::{Action, Answer},
    streams::{self, Ask},
    value::{Value, read_value},
};

/// How the actions of a request are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each as a command of its own, all sent at once on one connection.
    Commands,
    /// In one `MULTI` block.
    Block,
    /// Of numbers: all written by one `MSET`, or read by one `MGET`.
    Together,
    /// In one script.
    Script,
    /// Read in one script, each if it is found among all keys of the shard.
    Listed,
    /// Keys are watched and read, then the changes are made in a block.
    Watch,
    /// One append, in a script that publishes the number as well.
    Announce,
    /// One number, which is what the function of a library returns: written by loading another, read by a call.
    Library,
}

/// A request in the making.
#[derive(Clone, Debug)]
pub enum Request {
    /// Actions on keys of one slot; those that read first.
    Keys(Way, Vec<(String, Action)>),
    /// `SET key owner NX PX milliseconds`, or the same of a field of a hash: a lock, which is never released.
    Lock(String, u64, u64),
    /// `TIME`, at a shard.
    Time(usize),
    /// A script that writes to the key and then runs until it is killed.
    Killed(String, u64),
    /// A script that draws a number and writes it to both keys, of which it declares the first.
    Draw([String; 2]),
    /// A script that reads both.
    Twins([String; 2]),
    /// Something with the jobs of a pair of lists.
    Jobs(u32, Jobs),
    /// Something with a stream and its group.
    Stream(u32, Ask),
    /// Something with a queue at which clients wait.
    Queue(u32, Queue),
}

/// Whether what stands for a lock is a field of a hash, rather than the key: of every other.
fn is_field_lock(key: &str) -> bool {
    key.bytes().last().is_some_and(|digit| digit % 2 == 1)
}

/// What is done with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// One more element, alone or by a script.
    Push {
        /// The element.
        element: u64,
        /// By a script.
        by_script: bool,
    },
    /// One is taken; if there is none, after a while.
    Take {
        /// Which command takes it.
        how: usize,
        /// Milliseconds.
        wait_ms: u64,
    },
    /// All of it is read.
    Look,
}

/// What is done with jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// One more is put into the first list.
    Add(u64),
    /// A script takes one from a list and puts it into the other; in a block, which then reads both, or not.
    Move {
        /// From the first to the second.
        forth: bool,
        /// In a block.
        in_block: bool,
    },
    /// One is moved by a command that waits for it, so many milliseconds.
    Await {
        /// From the first to the second.
        forth: bool,
        /// Milliseconds.
        wait_ms: u64,
    },
    /// A script reads both lists.
    Count,
}

/// What became of one action.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It was done, and gave this.
    Answer(Answer),
    /// It was not executed: a redirect.
    NotDone,
}

/// What the reply meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// One for each action of the request.
    Answers(Vec<Told>),
    /// The keys are watched and were read: the second part may be sent.
    Watched(Vec<Answer>),
    /// Whether the lock was given.
    Locked(bool),
    /// A clock reading, microseconds.
    Time(u64),
    /// What the twins hold.
    Twins(Option<u64>, Option<u64>),
    /// Not executed: go to the replica on this port.
    Moved(u16),
    /// Not executed: no leader.
    Again,
    /// Not executed: a watched key was changed.
    WatchBroken,
    /// The script was killed: it had no effect.
    Killed,
    /// Not executed: the node lacks memory or disk for it.
    Refused,
    /// It was done, and there is nothing to learn from it.
    Done,
    /// The jobs of a pair.
    Jobs(Vec<u64>),
    /// What was taken of a queue, or that nothing came in time.
    Taken(Option<u64>),
    /// What is in a queue.
    Queue(Vec<u64>),
    /// What was told of a stream.
    Stream(streams::Told),
    /// Something no client should ever be told.
    Wrong(String),
}

/// What a run's clients ask for.
#[derive(Clone, Debug)]
pub struct Mix {
    /// How common each kind of request is.
    pub weights: [u32; REQUEST_KINDS],
    /// Keys of each kind: few, so that operations meet.
    pub keys: u32,
    /// Values are texts of up to so many bytes.
    pub text_bytes: u64,
    /// Keys that expire live up to so long, milliseconds.
    pub life_ms: u64,
}

/// Kinds of requests that [`Request::draw`] knows.
pub const REQUEST_KINDS: usize = 19;
/// The places of jobs, announcements, streams, queues and libraries among them.
pub const JOBS: usize = 12;
/// See there.
pub const ANNOUNCEMENTS: usize = 13;
/// See there.
pub const STREAMS: usize = 16;
/// See there.
pub const LOCKS: usize = 14;
/// See there; from here on weights are not drawn with the others.
pub const QUEUES: usize = 17;
/// See there.
pub const LIBRARIES: usize = 18;

const COMPARE_AND_SET: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('set', KEYS[1], ARGV[2]) return 1 end return 0";

/// Does to each key what its two arguments say.
const DO_ALL: &str = "
local out = {}
for i, key in ipairs(KEYS) do
  local what, n = ARGV[2 * i - 1], ARGV[2 * i]
  if what == 'lrange' then out[i] = redis.call(what, key, 0, -1)
  elseif what == 'get' then out[i] = redis.call(what, key)
  else out[i] = redis.call(what, key, n) end
end
return out";

/// Nothing in it is the same when it is run again: only its effects may be.
const DRAW: &str = "
local time, n = redis.call('time'), math.random(1, 2 ^ 30)
redis.call('set', KEYS[1], n)
redis.call('set', ARGV[1], n)
return time";

const READ_BOTH: &str = "return {redis.call('get', KEYS[1]), redis.call('get', ARGV[1])}";

/// First what takes no room, then what does: in a shortage it must not begin, or it must end.
const MOVE_JOB: &str = "
local job = redis.call('lpop', KEYS[1])
if job then redis.call('rpush', KEYS[2], job) end
return job";

const PUSH: &str = "return redis.call('rpush', KEYS[1], ARGV[1])";

/// Who hears of the number must find it in the list.
const ANNOUNCE: &str = "
local length = redis.call('rpush', KEYS[1], ARGV[1])
redis.call('publish', ARGV[2], ARGV[3])
return length";

/// What is published.
pub const CHANNEL: &str = "news";

/// The group is there from the first request on that needs it.
const READ_STREAM: &str = "
local made = redis.pcall('xgroup', 'create', KEYS[1], 'g', '0', 'mkstream')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
local read = redis.call('xreadgroup', 'GROUP', 'g', ARGV[1], 'COUNT', 1, 'STREAMS', KEYS[1], '>')
return read and {read[1][2][1][1], read[1][2][1][2][2]}";

const FINISH_ENTRY: &str = "
local made = redis.pcall('xgroup', 'create', KEYS[1], 'g', '0', 'mkstream')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
local claimed = redis.call('xautoclaim', KEYS[1], 'g', ARGV[1], 0, '-', 'COUNT', 1)[2][1]
if not claimed then return false end
assert(redis.call('xack', KEYS[1], 'g', claimed[1]) == 1)
return {claimed[1], claimed[2][2]}";

const LOOK_AT_STREAM: &str = "
local entries, pending = {}, {}
for i, entry in ipairs(redis.call('xrange', KEYS[1], '-', '+')) do entries[i] = {entry[1], entry[2][2]} end
local listed = redis.pcall('xpending', KEYS[1], 'g', '-', '+', 1000000)
for i, one in ipairs(listed) do pending[i] = one[1] end
return {entries, pending}";

const COUNT_JOBS: &str =
    "return {redis.call('lrange', KEYS[1], 0, -1), redis.call('lrange', KEYS[2], 0, -1)}";
/// Whoever lists all keys leaves those alone that have expired, and removes none.
const READ_LISTED: &str = "
local out = {}
for i, key in ipairs(ARGV) do
  out[i] = #redis.call('keys', key) > 0 and redis.call('get', key)
end
return out";

const RUN_UNTIL_KILLED: &str = "
redis.call('set', KEYS[1], ARGV[1])
for _ = 1, 1e6 do end
return 'it was not killed'";

/// Numbers of one request are `unique`, `unique + 1`, …: fewer than this.
pub const NUMBERS_EACH: u64 = 8;

impl Request {
    /// Draws a request; `unique` and the numbers after it were in no request before.
    pub fn draw(rng: &mut StdRng, mix: &Mix, shards: usize, unique: u64) -> Self {
        let which = rng.random_range(0..mix.keys);
        let tag = |name: &str| format!("{{tag{which}}}{name}");
        let twins = || twins_of(which, shards);
        let one = |key: String, action: Action| Request::Keys(Way::Commands, vec![(key, action)]);
        let register = format!("register{which}");
        let fleeting = tag("fleeting");
        match crate::pick(rng, &mix.weights) {
            0 | 1 if (unique / NUMBERS_EACH).is_multiple_of(2) => together(which, unique),
            0 => one(register, Action::Write(unique)),
            1 => one(register, Action::Read),
            2 => {
                let old = unique.saturating_sub(NUMBERS_EACH * rng.random_range(1..12));
                one(register, Action::CompareAndSet(old, unique))
            }
            3 => one(fleeting, Action::WriteFleeting(unique, rng.random_range(1..=mix.life_ms))),
            4 => {
                let way = if rng.random_bool(0.5) { Way::Commands } else { Way::Listed };
                Request::Keys(way, vec![(fleeting, Action::Read)])
            }
            5 => one(tag("count"), Action::Add(1)),
            6 => one(tag("count"), Action::Read),
            7 => lists(rng, which, unique),
            8 => pipeline(rng, which, unique),
            9 => accounts(rng, which),
            10 => match rng.random_bool(0.5) {
                true => Request::Draw(twins()),
                false => Request::Twins(twins()),
            },
            11 => Request::Killed(register, unique),
            JOBS => Request::Jobs(which, jobs(rng, unique)),
            ANNOUNCEMENTS => Request::Keys(Way::Announce, vec![(tag("list0"), Action::Append(unique))]),
            STREAMS => Request::Stream(which, stream(rng, unique)),
            LOCKS => Request::Lock(format!("lock{which}"), unique, rng.random_range(100..1500)),
            QUEUES => queue(rng, which, unique),
            LIBRARIES => Request::Keys(Way::Library, vec![library(rng, which, unique)]),
            _ => Request::Time(rng.random_range(0..shards)),
        }
    }

    /// The same once more after it was not answered: it may have been done, so what it
    /// appends is another number.
    pub fn again(mut self, unique: u64) -> Self {
        match &mut self {
            Request::Keys(_, actions) => {
                for ((_, action), unique) in actions.iter_mut().zip(unique..) {
                    if let Action::Append(n) = action {
                        *n = unique;
                    }
                }
            }
            Request::Jobs(_, Jobs::Add(job)) => *job = unique,
            Request::Queue(_, Queue::Push { element, .. }) => *element = unique,
            Request::Stream(_, Ask::Add(number)) => *number = unique,
            _ => {}
        }
        self
    }

    /// Whether it changes nothing.
    pub fn only_reads(&self) -> bool {
        match self {
            Request::Keys(_, actions) => actions.iter().all(|(_, action)| action.only_reads()),
            Request::Twins(_)
            | Request::Jobs(_, Jobs::Count)
            | Request::Queue(_, Queue::Look)
            | Request::Stream(_, Ask::Look) => true,
            Request::Jobs(..)
            | Request::Queue(..)
            | Request::Stream(..)
            | Request::Time(_)
            | Request::Lock(..)
            | Request::Killed(..)
            | Request::Draw(_) => false,
        }
    }

    /// The slot of its keys, or the shard it is for.
    pub fn slot(&self) -> Result<u16, usize> {
        let key = match self {
            Request::Keys(_, actions) => &actions[0].0,
            Request::Killed(key, _)
            | Request::Lock(key, ..)
            | Request::Draw([key, _])
            | Request::Twins([key, _]) => key,
            Request::Jobs(pair, _) => &pair_of(*pair)[0],
            Request::Queue(which, _) => &queue_of(*which),
            Request::Stream(which, _) => &stream_of(*which),
            Request::Time(shard) => return Err(*shard),
        };
        Ok(slot_of(key.as_bytes()))
    }

    /// The actions that a checker looks at.
    pub fn actions(&self) -> &[(String, Action)] {
        match self {
            Request::Keys(_, actions) => actions,
            _ => &[],
        }
    }

    /// How it is asked for.
    pub const fn way(&self) -> Way {
        match self {
            Request::Keys(way, _) => *way,
            Request::Killed(..) | Request::Draw(_) | Request::Twins(_) => Way::Script,
            Request::Jobs(_, Jobs::Move { in_block: true, .. }) => Way::Block,
            Request::Jobs(_, Jobs::Move { .. } | Jobs::Count) => Way::Script,
            Request::Stream(_, Ask::Read | Ask::Finish | Ask::Look) => Way::Script,
            Request::Jobs(_, Jobs::Add(_) | Jobs::Await { .. })
            | Request::Queue(..)
            | Request::Stream(_, Ask::Add(_))
            | Request::Time(_)
            | Request::Lock(..) => Way::Commands,
        }
    }

    /// Whether it may wait at its keys: it is redirected then without having been executed.
    pub const fn may_wait(&self) -> bool {
        matches!(self, Request::Queue(_, Queue::Take { .. }) | Request::Jobs(_, Jobs::Await { .. }))
    }

    fn reads(&self) -> usize {
        self.actions().iter().filter(|(_, action)| action.only_reads()).count()
    }

    /// The bytes on the wire; of the second part once the keys are watched.
    pub fn bytes(&self, second: bool, text_bytes: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |words: &[&str]| pack(&mut out, words.iter().map(|word| (*word).to_owned()));
        match self {
            Request::Keys(way, actions) => return keys_bytes(*way, actions, second, text_bytes),
            Request::Time(_) => put(&["TIME"]),
            Request::Lock(key, owner, ms) => {
                let (owner, ms) = (owner.to_string(), ms.to_string());
                match is_field_lock(key) {
                    true => put(&["HSETEX", key, "FNX", "PX", &ms, "FIELDS", "1", "owner", &owner]),
                    false => put(&["SET", key, &owner, "NX", "PX", &ms]),
                }
            }
            Request::Killed(key, n) => put(&["EVAL", RUN_UNTIL_KILLED, "1", key, &n.to_string()]),
            Request::Draw([a, b]) => put(&["EVAL", DRAW, "1", a, b]),
            Request::Twins([a, b]) => put(&["EVAL_RO", READ_BOTH, "1", a, b]),
            Request::Stream(which, ask) => {
                let words = stream_words(*which, *ask);
                put(&words.iter().map(String::as_str).collect::<Vec<_>>());
            }
            Request::Jobs(pair, what) => jobs_words(*pair, *what).iter().for_each(|words| {
                put(&words.iter().map(String::as_str).collect::<Vec<_>>());
            }),
            Request::Queue(which, what) => {
                let words = queue_words(&queue_of(*which), *what);
                put(&words.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
        out
    }

    /// Reads the reply, if all of it is there.
    pub fn meaning(&self, second: bool, bytes: &[u8]) -> Option<Meaning> {
        let actions = self.actions();
        let count = match self.way() {
            Way::Script | Way::Listed | Way::Announce | Way::Together => 1,
            Way::Commands => actions.len().max(1),
            Way::Block if actions.is_empty() => 5, // a job is moved, and both lists are read
            Way::Block => actions.len() + 2,
            Way::Library => 4, // a key is read before, which says where the block belongs
            Way::Watch if second => actions.len() - self.reads() + 2,
            Way::Watch => 1 + self.reads(),
        };
        let mut rest = bytes;
        let mut replies = Vec::new();
        for _ in 0..count {
            replies.push(read_value(&mut rest)?);
        }
        let redirected = replies.iter().filter(|reply| redirect(reply).is_some()).count();
        let part_of_pipeline = self.way() == Way::Commands && redirected < count;
        if let (false, Some(meaning)) = (part_of_pipeline, replies.iter().find_map(redirect)) {
            return Some(meaning);
        }
        Some(match self {
            Request::Keys(way, _) => keys_meaning(*way, actions, self.reads(), second, replies),
            Request::Time(_) | Request::Draw(_) => time(&replies[0]),
            Request::Twins(_) => twins(&replies[0]),
            Request::Jobs(_, what) => jobs_meaning(*what, &replies),
            Request::Queue(_, what) => queue_meaning(*what, &replies[0]),
            Request::Stream(_, ask) => stream_told(*ask, &replies[0])
                .map_or_else(|| Meaning::Wrong(format!("{replies:?}")), Meaning::Stream),
            Request::Lock(..) => match &replies[0] {
                Value::Status(text) if text == "OK" => Meaning::Locked(true),
                Value::Nil => Meaning::Locked(false),
                Value::Int(given) => Meaning::Locked(*given == 1),
                other => Meaning::Wrong(format!("{other:?}")),
            },
            Request::Killed(..) => match &replies[0] {
                Value::Error(text) if text.starts_with("ERR Script killed by user") => Meaning::Killed,
                other => Meaning::Wrong(format!("{other:?}")),
            },
        })
    }
}

/// Two keys of two slots of one shard: only a script reaches both.
pub fn twins_of(which: u32, shards: usize) -> [String; 2] {
    let shard_of = |slot| (0..shards).find(|&shard| slot <= SlotMap::even_range(shard, shards).1);
    let one = format!("twin{which}");
    let slot = slot_of(one.as_bytes());
    let fits = |other: &String| {
        let other = slot_of(other.as_bytes());
        other != slot && shard_of(other) == shard_of(slot)
    };
    let other = (0..).map(|n| format!("{one}-{n}")).find(fits).expect("a shard has many slots");
    [one, other]
}

/// The two lists of a pair.
fn pair_of(pair: u32) -> [String; 2] {
    ["todo", "done"].map(|name| format!("{{tag{pair}}}{name}"))
}

/// The key beside which a library is kept: what its function returns counts as the key's value.
pub fn library_of(which: u32) -> String {
    format!("{{tag{which}}}library")
}

fn library(rng: &mut StdRng, which: u32, unique: u64) -> (String, Action) {
    (library_of(which), if rng.random_bool(0.4) { Action::Write(unique) } else { Action::Read })
}

/// Loads a library or calls its function, in a block that a key sends where its shard is.
fn library_words(key: &str, action: &Action) -> [Vec<String>; 4] {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<String>>();
    // Names of libraries hold letters and digits only.
    let name: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let what = match action {
        Action::Write(number) => {
            let body = format!("callback=function() return '{number}' end, flags={{'no-writes'}}");
            let text =
                format!("#!lua name={name}\nredis.register_function{{function_name='{name}', {body}}}");
            words(&["FUNCTION", "LOAD", "REPLACE", &text])
        }
        _ => words(&["FCALL_RO", &name, "1", key]),
    };
    [words(&["MULTI"]), words(&["GET", key]), what, words(&["EXEC"])]
}

/// What the block told: a library that was never loaded holds nothing.
fn library_meaning(actions: &[(String, Action)], mut executed: Vec<Value>) -> Meaning {
    let told = match executed.pop() {
        Some(Value::Bulk(_)) if !actions[0].1.only_reads() => Value::Status("OK".into()),
        Some(Value::Error(error)) if error == "ERR Function not found" => Value::Nil,
        other => other.unwrap_or(Value::Nil),
    };
    answers(actions, vec![told])
}

fn queue_of(which: u32) -> String {
    format!("{{tag{which}}}queue")
}

/// Something with a queue, or a job that is waited for.
fn queue(rng: &mut StdRng, which: u32, unique: u64) -> Request {
    let wait_ms = rng.random_range(1..1500);
    match rng.random_range(0..10) {
        0..=3 => Request::Queue(which, Queue::Push { element: unique, by_script: rng.random_bool(0.3) }),
        4..=7 => Request::Queue(which, Queue::Take { how: rng.random_range(0..3), wait_ms }),
        8 => Request::Queue(which, Queue::Look),
        _ => Request::Jobs(which, Jobs::Await { forth: rng.random_bool(0.6), wait_ms }),
    }
}

fn queue_words(queue: &str, what: Queue) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    match what {
        Queue::Push { element, by_script: false } => words(&["RPUSH", queue, &element.to_string()]),
        Queue::Push { element, by_script: true } => words(&["EVAL", PUSH, "1", queue, &element.to_string()]),
        Queue::Look => words(&["LRANGE", queue, "0", "-1"]),
        Queue::Take { how: 0, wait_ms } => words(&["BLPOP", queue, &seconds(wait_ms)]),
        Queue::Take { how: 1, wait_ms } => {
            words(&["BRPOP", &format!("{queue}-empty"), queue, &seconds(wait_ms)])
        }
        Queue::Take { wait_ms, .. } => words(&["BLMPOP", &seconds(wait_ms), "1", queue, "LEFT"]),
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

fn queue_meaning(what: Queue, reply: &Value) -> Meaning {
    let meaning = match (what, reply) {
        (Queue::Push { .. }, Value::Int(_)) => Some(Meaning::Done),
        (Queue::Take { .. }, Value::Nil) => Some(Meaning::Taken(None)),
        (Queue::Take { .. }, Value::Array(parts)) => {
            let element = match parts.last() {
                Some(Value::Array(elements)) => elements.first(),
                other => other,
            };
            element.and_then(number).map(|element| Meaning::Taken(Some(element)))
        }
        (Queue::Look, Value::Array(items)) => {
            items.iter().map(number).collect::<Option<_>>().map(Meaning::Queue)
        }
        _ => None,
    };
    meaning.unwrap_or_else(|| Meaning::Wrong(format!("{reply:?}")))
}

fn jobs(rng: &mut StdRng, unique: u64) -> Jobs {
    match rng.random_range(0..6) {
        0 | 1 => Jobs::Add(unique),
        2 => Jobs::Count,
        kind => Jobs::Move { forth: rng.random_bool(0.6), in_block: kind == 3 },
    }
}

fn jobs_words(pair: u32, what: Jobs) -> Vec<Vec<String>> {
    let [todo, done] = pair_of(pair);
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<String>>();
    let read = |list: &str| words(&["LRANGE", list, "0", "-1"]);
    match what {
        Jobs::Add(job) => vec![words(&["RPUSH", &todo, &job.to_string()])],
        Jobs::Count => vec![words(&["EVAL_RO", COUNT_JOBS, "2", &todo, &done])],
        Jobs::Await { forth, wait_ms } => {
            let (from, to) = if forth { (&todo, &done) } else { (&done, &todo) };
            vec![words(&["BLMOVE", from, to, "LEFT", "RIGHT", &seconds(wait_ms)])]
        }
        Jobs::Move { forth, in_block } => {
            let (from, to) = if forth { (&todo, &done) } else { (&done, &todo) };
            let moves = words(&["EVAL", MOVE_JOB, "2", from, to]);
            match in_block {
                true => vec![words(&["MULTI"]), moves, read(&todo), read(&done), words(&["EXEC"])],
                false => vec![moves],
            }
        }
    }
}

fn jobs_meaning(what: Jobs, replies: &[Value]) -> Meaning {
    let meaning = match (what, replies.last()) {
        (Jobs::Add(_), Some(Value::Int(_))) => Some(Meaning::Done),
        (Jobs::Move { in_block: false, .. } | Jobs::Await { .. }, Some(Value::Bulk(_) | Value::Nil)) => {
            Some(Meaning::Done)
        }
        (Jobs::Move { in_block: true, .. }, Some(Value::Array(all))) => all.get(1..).and_then(all_jobs),
        (Jobs::Count, Some(Value::Array(both))) => all_jobs(both),
        _ => None,
    };
    meaning.unwrap_or_else(|| Meaning::Wrong(format!("{replies:?}")))
}

/// The jobs of two lists.
fn all_jobs(lists: &[Value]) -> Option<Meaning> {
    let list = |list: &Value| match list {
        Value::Array(jobs) => jobs.iter().map(number).collect::<Option<Vec<u64>>>(),
        _ => None,
    };
    let both = lists.iter().map(list).collect::<Option<Vec<_>>>()?;
    (both.len() == 2).then(|| Meaning::Jobs(both.concat()))
}

fn stream_of(which: u32) -> String {
    format!("{{tag{which}}}stream")
}

fn stream(rng: &mut StdRng, unique: u64) -> Ask {
    match rng.random_range(0..8) {
        0..3 => Ask::Add(unique),
        3..5 => Ask::Read,
        5..7 => Ask::Finish,
        _ => Ask::Look,
    }
}

fn stream_words(which: u32, ask: Ask) -> Vec<String> {
    let (key, number) = (stream_of(which), if let Ask::Add(number) = ask { number } else { 0 });
    let number = number.to_string();
    let words = match ask {
        Ask::Add(_) => vec!["XADD", &key, "*", "n", &number],
        Ask::Read => vec!["EVAL", READ_STREAM, "1", &key, "reader"],
        Ask::Finish => vec!["EVAL", FINISH_ENTRY, "1", &key, "finisher"],
        Ask::Look => vec!["EVAL_RO", LOOK_AT_STREAM, "1", &key],
    };
    words.into_iter().map(str::to_owned).collect()
}

fn stream_id(value: &Value) -> Option<(u64, u64)> {
    let text = number::<String>(value)?;
    let (ms, seq) = text.split_once('-')?;
    Some((ms.parse().ok()?, seq.parse().ok()?))
}

fn stream_entry(value: &Value) -> Option<streams::Entry> {
    match value {
        Value::Array(parts) if parts.len() == 2 => Some((stream_id(&parts[0])?, number(&parts[1])?)),
        _ => None,
    }
}

fn stream_told(ask: Ask, value: &Value) -> Option<streams::Told> {
    match (ask, value) {
        (Ask::Add(number), value) => Some(streams::Told::Entry(Some((stream_id(value)?, number)))),
        (Ask::Look, Value::Array(both)) => {
            let [Value::Array(entries), Value::Array(pending)] = &both[..] else { return None };
            let entries = entries.iter().map(stream_entry).collect::<Option<_>>()?;
            let pending = pending.iter().map(stream_id).collect::<Option<_>>()?;
            Some(streams::Told::All(entries, pending))
        }
        (_, Value::Nil) => Some(streams::Told::Entry(None)),
        (_, value) => stream_entry(value).map(|entry| streams::Told::Entry(Some(entry))),
    }
}

/// One action on a list, or several on lists of one tag.
fn lists(rng: &mut StdRng, which: u32, unique: u64) -> Request {
    let ways = [Way::Commands, Way::Commands, Way::Block, Way::Script, Way::Watch];
    let way = ways[rng.random_range(0..ways.len())];
    let count = if way == Way::Commands { 1 } else { rng.random_range(2..=4) };
    let mut actions: Vec<(String, Action)> = (0..count)
        .map(|at| {
            let key = format!("{{tag{which}}}list{}", rng.random_range(0..3));
            (key, if rng.random_bool(0.5) { Action::Append(unique + at) } else { Action::ReadList })
        })
        .collect();
    // What is read before a block is the state that the block begins with.
    actions.sort_by_key(|(_, action)| !action.only_reads());
    Request::Keys(way, actions)
}

/// Several commands at once, on one connection.
fn pipeline(rng: &mut StdRng, which: u32, unique: u64) -> Request {
    let count = rng.random_range(2..=5);
    let action = |at| {
        let list = format!("{{tag{which}}}list0");
        match rng.random_range(0..4) {
            0 => (list, Action::Append(unique + at)),
            1 => (list, Action::ReadList),
            2 => (format!("{{tag{which}}}count"), Action::Add(1)),
            _ => (format!("{{tag{which}}}count"), Action::Read),
        }
    };
    Request::Keys(Way::Commands, (0..count).map(action).collect())
}

/// Writes numbers to keys of one tag, or reads them, in one request.
fn together(which: u32, unique: u64) -> Request {
    let is_read = (unique / NUMBERS_EACH).is_multiple_of(4);
    let action = |at| if is_read { Action::Read } else { Action::Write(unique + at) };
    Request::Keys(Way::Together, (0..4).map(|at| (member_of(which, at), action(at))).collect())
}

/// One of the keys that are written together.
pub fn member_of(which: u32, at: u64) -> String {
    format!("{{tag{which}}}member{at}")
}

/// Moves something from one account to the other, or reads both: the sum is always 0.
fn accounts(rng: &mut StdRng, which: u32) -> Request {
    let [a, b] = ["account0", "account1"].map(|name| format!("{{tag{which}}}{name}"));
    let way = if rng.random_bool(0.5) { Way::Block } else { Way::Script };
    let by = if rng.random_bool(0.5) { 1 } else { -1 };
    match rng.random_bool(0.5) {
        true => Request::Keys(way, vec![(a, Action::Add(by)), (b, Action::Add(-by))]),
        false => Request::Keys(way, vec![(a, Action::Read), (b, Action::Read)]),
    }
}

fn keys_bytes(way: Way, actions: &[(String, Action)], second: bool, text_bytes: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let command = |out: &mut Vec<u8>, (key, action): &(String, Action)| {
        pack(out, words(key, action, text_bytes).into_iter());
    };
    let plain = |out: &mut Vec<u8>, word: &str| pack(out, std::iter::once(word.to_owned()));
    let (reads, writes): (Vec<_>, Vec<_>) = actions.iter().partition(|(_, action)| action.only_reads());
    match (way, second) {
        (Way::Commands, _) => actions.iter().for_each(|action| command(&mut out, action)),
        (Way::Together, _) => {
            // Together they are no larger than what others write.
            let is_read = writes.is_empty();
            let all = actions.iter().flat_map(|(key, action)| {
                words(key, action, text_bytes / actions.len() as u64).into_iter().skip(1)
            });
            let name = if is_read { "MGET" } else { "MSET" };
            pack(&mut out, std::iter::once(name.to_owned()).chain(all).collect::<Vec<_>>().into_iter());
        }
        (Way::Block, _) => {
            plain(&mut out, "MULTI");
            actions.iter().for_each(|action| command(&mut out, action));
            plain(&mut out, "EXEC");
        }
        (Way::Watch, false) => {
            let keys = actions.iter().map(|(key, _)| key.clone());
            pack(&mut out, std::iter::once("WATCH".to_owned()).chain(keys).collect::<Vec<_>>().into_iter());
            reads.into_iter().for_each(|action| command(&mut out, action));
        }
        (Way::Watch, true) => {
            plain(&mut out, "MULTI");
            writes.into_iter().for_each(|action| command(&mut out, action));
            plain(&mut out, "EXEC");
        }
        (Way::Announce, _) => {
            let (key, action) = &actions[0];
            let words = words(key, action, text_bytes);
            let Action::Append(n) = action else { unreachable!("only appends are announced") };
            let all = ["EVAL", ANNOUNCE, "1", key, &words[2], CHANNEL, &n.to_string()];
            pack(&mut out, all.map(str::to_owned).into_iter());
        }
        (Way::Library, _) => {
            let (key, action) = &actions[0];
            library_words(key, action).into_iter().for_each(|words| pack(&mut out, words.into_iter()));
        }
        (Way::Listed, _) => {
            // What a script declares is removed before it looks, if it has expired.
            let declared = format!("{}-", actions[0].0);
            let words = ["EVAL_RO", READ_LISTED, "1", &declared].map(str::to_owned);
            let keys = actions.iter().map(|(key, _)| key.clone());
            pack(&mut out, words.into_iter().chain(keys).collect::<Vec<_>>().into_iter());
        }
        (Way::Script, _) => {
            let mut all = vec!["EVAL".to_owned(), DO_ALL.to_owned(), actions.len().to_string()];
            all.extend(actions.iter().map(|(key, _)| key.clone()));
            for (key, action) in actions {
                let words = words(key, action, text_bytes);
                all.push(words[0].to_lowercase());
                all.push(words.get(2).cloned().unwrap_or_default());
            }
            pack(&mut out, all.into_iter());
        }
    }
    out
}

fn keys_meaning(
    way: Way,
    actions: &[(String, Action)],
    reads: usize,
    second: bool,
    mut replies: Vec<Value>,
) -> Meaning {
    let wrong = |replies: &[Value]| Meaning::Wrong(format!("{replies:?}"));
    match (way, second) {
        (Way::Commands | Way::Announce, _) => answers(actions, replies),
        (Way::Watch, false) => {
            replies.remove(0);
            let all: Option<Vec<Answer>> =
                actions.iter().zip(&replies).map(|((_, action), value)| answer(action, value)).collect();
            all.map_or_else(|| wrong(&replies), Meaning::Watched)
        }
        (Way::Together, _) if matches!(replies[0], Value::Status(_)) => {
            let all: Vec<Value> = actions.iter().map(|_| replies[0].clone()).collect();
            answers(actions, all)
        }
        _ => match replies.pop() {
            Some(Value::Array(all)) if way == Way::Library => library_meaning(actions, all),
            Some(Value::Array(all)) => {
                answers(if way == Way::Watch { &actions[reads..] } else { actions }, all)
            }
            Some(Value::Nil) if way == Way::Watch => Meaning::WatchBroken,
            last => {
                replies.extend(last);
                wrong(&replies)
            }
        },
    }
}

/// A number as a text of a length of its own, so that values differ in size.
fn text(n: u64, text_bytes: u64) -> String {
    let length = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % (text_bytes + 1);
    format!("{n:0length$}", length = length as usize)
}

fn words(key: &str, action: &Action, text_bytes: u64) -> Vec<String> {
    let key = key.to_owned();
    let text = |n: u64| text(n, text_bytes);
    match action {
        Action::Write(n) => vec!["SET".into(), key, text(*n)],
        Action::WriteFleeting(n, ms) => vec!["SET".into(), key, text(*n), "PX".into(), ms.to_string()],
        Action::Read => vec!["GET".into(), key],
        Action::CompareAndSet(old, new) => {
            vec!["EVAL".into(), COMPARE_AND_SET.into(), "1".into(), key, text(*old), text(*new)]
        }
        Action::Append(n) => vec!["RPUSH".into(), key, text(*n)],
        Action::ReadList => vec!["LRANGE".into(), key, "0".into(), "-1".into()],
        Action::Add(n) => vec!["INCRBY".into(), key, n.to_string()],
    }
}

fn pack(out: &mut Vec<u8>, words: impl ExactSizeIterator<Item = String>) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    words.for_each(|word| out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
}

/// What an error reply tells the client to do; `None` if it is no error.
fn redirect(value: &Value) -> Option<Meaning> {
    let Value::Error(error) = value else { return None };
    let port = || error.rsplit(':').next().and_then(|port| port.parse().ok());
    Some(match error.split(' ').next().unwrap_or_default() {
        "MOVED" => port().map_or_else(|| Meaning::Wrong(error.clone()), Meaning::Moved),
        "CLUSTERDOWN" | "TRYAGAIN" => Meaning::Again,
        "OOM" | "MISCONF" => Meaning::Refused,
        "EXECABORT" if error.contains("because of: OOM ") || error.contains("because of: MISCONF ") => {
            Meaning::Refused
        }
        // Follows from the redirect of a request inside the block.
        "EXECABORT" => Meaning::Again,
        _ if error.starts_with("ERR Script killed") => return None,
        // Nodes of an older build are among the members.
        _ if error.starts_with("ERR this request needs format") => Meaning::Refused,
        _ => Meaning::Wrong(error.clone()),
    })
}

/// The number in a message to a subscriber; `None` if it is another word to it.
pub fn announced(word: &Value) -> Option<u64> {
    match word {
        Value::Array(parts) if parts.first() == Some(&Value::Bulk(b"message".to_vec())) => {
            number(parts.last()?)
        }
        _ => None,
    }
}

/// The request of a subscriber.
pub fn subscription() -> Vec<u8> {
    let mut out = Vec::new();
    pack(&mut out, ["SUBSCRIBE", CHANNEL].map(str::to_owned).into_iter());
    out
}

fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    match value {
        Value::Bulk(text) => String::from_utf8_lossy(text).parse().ok(),
        _ => None,
    }
}

fn time(value: &Value) -> Meaning {
    let parts = match value {
        Value::Array(parts) => parts.iter().map(number::<u64>).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    match parts.as_deref() {
        Some([seconds, micros]) => Meaning::Time(seconds * 1_000_000 + micros),
        _ => Meaning::Wrong(format!("{value:?}")),
    }
}

fn twins(value: &Value) -> Meaning {
    match value {
        Value::Array(both) if both.len() == 2 => Meaning::Twins(number(&both[0]), number(&both[1])),
        _ => Meaning::Wrong(format!("{value:?}")),
    }
}

fn answers(actions: &[(String, Action)], values: Vec<Value>) -> Meaning {
    let told = |((_, action), value): (&(String, Action), &Value)| match redirect(value) {
        Some(Meaning::Moved(_) | Meaning::Again | Meaning::Refused) => Some(Told::NotDone),
        _ => answer(action, value).map(Told::Answer),
    };
    let all: Option<Vec<_>> = actions.iter().zip(&values).map(told).collect();
    let whole = all.filter(|all| all.len() == actions.len() && values.len() == actions.len());
    whole.map_or_else(|| Meaning::Wrong(format!("{actions:?}: {values:?}")), Meaning::Answers)
}

fn answer(action: &Action, value: &Value) -> Option<Answer> {
    match (action, value) {
        (Action::Write(_) | Action::WriteFleeting(..), Value::Status(text)) if text == "OK" => {
            Some(Answer::Done)
        }
        (Action::Read, Value::Nil) => Some(Answer::Value(None)),
        (Action::Read, Value::Bulk(_)) => {
            number(value).map(|n| Answer::Value(Some(n))).or_else(|| number(value).map(Answer::Count))
        }
        (Action::ReadList, Value::Array(items)) => {
            items.iter().map(number).collect::<Option<_>>().map(Answer::List)
        }
        (Action::CompareAndSet(..) | Action::Append(_) | Action::Add(_), Value::Int(n)) => {
            Some(Answer::Number(*n))
        }
        _ => None,
    }
}
