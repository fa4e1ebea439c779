//! What clients do: an operation, its bytes, and how its reply is read.

use moonraft_router::slot_of;
use rand::{RngExt, rngs::StdRng};

use crate::{
    history::{Action, Answer},
    value::{Value, read_value},
};

/// A request in the making.
#[derive(Clone, Debug)]
pub enum Request {
    /// On one key.
    Key(String, Action),
    /// In one `MULTI` block: increment the first, append to the second.
    Both(String, String, u64),
    /// `TIME`, at a shard.
    Time(usize),
}

/// What the reply meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// Answers, one for each key of the request.
    Answers(Vec<Answer>),
    /// A clock reading, microseconds.
    Time(u64),
    /// Not executed: go to the replica on this port.
    Moved(u16),
    /// Not executed: try again.
    Again,
    /// Something no client should ever be told.
    Wrong(String),
}

/// Keys of each kind: few, so that operations meet.
const KEYS_EACH: u32 = 2;

const COMPARE_AND_SET: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('set', KEYS[1], ARGV[2]) return 1 end return 0";

impl Request {
    /// Draws a request; `unique` is a number that none had before.
    pub fn draw(rng: &mut StdRng, shards: usize, unique: u64) -> Self {
        let which = rng.random_range(0..KEYS_EACH);
        match rng.random_range(0..100) {
            0..15 => Request::Key(format!("register{which}"), Action::Write(unique)),
            15..35 => Request::Key(format!("register{which}"), Action::Read),
            35..45 => {
                let old = unique.saturating_sub(rng.random_range(1..12));
                Request::Key(format!("register{which}"), Action::CompareAndSet(old, unique))
            }
            45..60 => Request::Key(format!("{{tag{which}}}list"), Action::Append(unique)),
            60..75 => Request::Key(format!("{{tag{which}}}list"), Action::ReadList),
            75..82 => Request::Key(format!("{{tag{which}}}count"), Action::Increment),
            82..88 => Request::Key(format!("{{tag{which}}}count"), Action::Read),
            88..95 => Request::Both(format!("{{tag{which}}}count"), format!("{{tag{which}}}list"), unique),
            _ => Request::Time(rng.random_range(0..shards)),
        }
    }

    /// Whether it changes nothing.
    pub const fn only_reads(&self) -> bool {
        matches!(self, Request::Key(_, Action::Read | Action::ReadList))
    }

    /// The slot of its keys, or the shard it is for.
    pub fn slot(&self) -> Result<u16, usize> {
        match self {
            Request::Key(key, _) | Request::Both(key, ..) => Ok(slot_of(key.as_bytes())),
            Request::Time(shard) => Err(*shard),
        }
    }

    /// The keys with what is done to each.
    pub fn actions(&self) -> Vec<(String, Action)> {
        match self {
            Request::Key(key, action) => vec![(key.clone(), action.clone())],
            Request::Both(count, list, unique) => {
                vec![(count.clone(), Action::Increment), (list.clone(), Action::Append(*unique))]
            }
            Request::Time(_) => vec![],
        }
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Request::Key(key, action) => pack(&mut out, &words(key, action)),
            Request::Both(count, list, unique) => {
                pack(&mut out, &["MULTI".into()]);
                pack(&mut out, &words(count, &Action::Increment));
                pack(&mut out, &words(list, &Action::Append(*unique)));
                pack(&mut out, &["EXEC".into()]);
            }
            Request::Time(_) => pack(&mut out, &["TIME".into()]),
        }
        out
    }

    /// Reads the reply, if all of it is there.
    pub fn meaning(&self, bytes: &[u8]) -> Option<Meaning> {
        let count = if matches!(self, Request::Both(..)) { 4 } else { 1 };
        let mut rest = bytes;
        let mut replies = Vec::new();
        for _ in 0..count {
            replies.push(read_value(&mut rest)?);
        }
        let last = replies.pop().expect("one reply at least");
        let redirect = replies.iter().chain([&last]).find_map(redirect);
        Some(match (redirect, self) {
            (Some(meaning), _) => meaning,
            (None, Request::Time(_)) => time(&last),
            (None, Request::Key(_, action)) => answers(&[(action.clone(), last)]),
            (None, Request::Both(_, _, unique)) => match last {
                Value::Array(both) if both.len() == 2 => {
                    let mut both = both.into_iter();
                    let pairs =
                        [Action::Increment, Action::Append(*unique)].map(|action| (action, both.next()));
                    answers(&pairs.map(|(action, value)| (action, value.expect("there are two"))))
                }
                other => Meaning::Wrong(format!("{other:?}")),
            },
        })
    }
}

fn words(key: &str, action: &Action) -> Vec<String> {
    let key = key.to_owned();
    match action {
        Action::Write(n) => vec!["SET".into(), key, n.to_string()],
        Action::Read => vec!["GET".into(), key],
        Action::CompareAndSet(old, new) => {
            vec!["EVAL".into(), COMPARE_AND_SET.into(), "1".into(), key, old.to_string(), new.to_string()]
        }
        Action::Append(n) => vec!["RPUSH".into(), key, n.to_string()],
        Action::ReadList => vec!["LRANGE".into(), key, "0".into(), "-1".into()],
        Action::Increment => vec!["INCR".into(), key],
    }
}

fn pack(out: &mut Vec<u8>, words: &[String]) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    words.iter().for_each(|word| out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
}

/// What an error reply tells the client to do; `None` if it is no error.
fn redirect(value: &Value) -> Option<Meaning> {
    let Value::Error(error) = value else { return None };
    let port = || error.rsplit(':').next().and_then(|port| port.parse().ok());
    Some(match error.split(' ').next().unwrap_or_default() {
        "MOVED" => port().map_or_else(|| Meaning::Wrong(error.clone()), Meaning::Moved),
        "CLUSTERDOWN" | "TRYAGAIN" => Meaning::Again,
        // Follows from the redirect of a request inside the block.
        "EXECABORT" => Meaning::Again,
        _ => Meaning::Wrong(error.clone()),
    })
}

fn time(value: &Value) -> Meaning {
    let part = |value: &Value| match value {
        Value::Bulk(text) => String::from_utf8_lossy(text).parse::<u64>().ok(),
        _ => None,
    };
    let parts = match value {
        Value::Array(parts) => parts.iter().map(part).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    match parts.as_deref() {
        Some([seconds, micros]) => Meaning::Time(seconds * 1_000_000 + micros),
        _ => Meaning::Wrong(format!("{value:?}")),
    }
}

fn answers(pairs: &[(Action, Value)]) -> Meaning {
    let all: Option<Vec<_>> = pairs.iter().map(|(action, value)| answer(action, value)).collect();
    all.map_or_else(|| Meaning::Wrong(format!("{pairs:?}")), Meaning::Answers)
}

fn answer(action: &Action, value: &Value) -> Option<Answer> {
    let number = |bytes: &[u8]| String::from_utf8_lossy(bytes).parse::<u64>().ok();
    match (action, value) {
        (Action::Write(_), Value::Status(text)) if text == "OK" => Some(Answer::Done),
        (Action::Read, Value::Nil) => Some(Answer::Value(None)),
        (Action::Read, Value::Bulk(bytes)) => Some(Answer::Value(Some(number(bytes)?))),
        (Action::ReadList, Value::Array(items)) => {
            let element = |item: &Value| match item {
                Value::Bulk(bytes) => number(bytes),
                _ => None,
            };
            items.iter().map(element).collect::<Option<_>>().map(Answer::List)
        }
        (Action::CompareAndSet(..) | Action::Append(_) | Action::Increment, Value::Int(n)) => {
            Some(Answer::Number(*n))
        }
        _ => None,
    }
}
