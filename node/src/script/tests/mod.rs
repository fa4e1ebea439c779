//! A small keyspace as the host, and the tests that use it.

mod costs;
mod golden;
mod hardening;
mod host;
mod stock;

use std::collections::BTreeMap;

use super::*;

/// A keyspace with the dozen commands that the tests' scripts call.
#[derive(Default)]
pub(super) struct Small {
    strings: BTreeMap<Vec<u8>, Vec<u8>>,
    lists: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    hashes: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>,
    protocol: Protocol,
    /// Questions answered so far.
    pub polls: usize,
    /// The question to answer with a kill.
    pub kill_at: Option<usize>,
    pub calls: Vec<Vec<Vec<u8>>>,
    pub logged: Vec<(LogLevel, Vec<u8>)>,
    pub seed: u64,
}

impl Small {
    /// One that kills the script at the given question.
    pub fn killing_at(question: usize) -> Self {
        Self { kill_at: Some(question), ..Self::default() }
    }

    fn add(&mut self, key: &[u8], delta: i64) -> Reply<'static> {
        let value = self.strings.entry(key.to_vec()).or_insert_with(|| b"0".to_vec());
        let Some(n) = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok()) else {
            return Reply::Error("ERR value is not an integer or out of range".into());
        };
        *value = (n + delta).to_string().into_bytes();
        Reply::Int(n + delta)
    }

    fn execute(&mut self, name: &str, words: &[&[u8]]) -> Option<Reply<'static>> {
        let owned = |bytes: Option<&Vec<u8>>| bytes.map_or(Reply::Null, |bytes| Reply::bulk(bytes.clone()));
        Some(match (name, words) {
            ("set", [key, value]) => {
                self.strings.insert(key.to_vec(), value.to_vec());
                Reply::OK
            }
            ("get", [key]) => owned(self.strings.get(*key)),
            ("incr", [key]) => self.add(key, 1),
            ("decr", [key]) => self.add(key, -1),
            ("del", [key]) => Reply::flag(self.strings.remove(*key).is_some()),
            ("rpush", [key, items @ ..]) => {
                let list = self.lists.entry(key.to_vec()).or_default();
                list.extend(items.iter().map(|item| item.to_vec()));
                Reply::count(list.len())
            }
            ("lrange", [key, _, _]) => Reply::bulks(self.lists.get(*key).cloned().unwrap_or_default()),
            ("hset", [key, pairs @ ..]) => {
                let hash = self.hashes.entry(key.to_vec()).or_default();
                hash.extend(pairs.chunks(2).map(|pair| (pair[0].to_vec(), pair[1].to_vec())));
                Reply::count(pairs.len() / 2)
            }
            ("hget", [key, field]) => owned(self.hashes.get(*key).and_then(|hash| hash.get(*field))),
            ("hgetall", [key]) => {
                let hash = self.hashes.get(*key).cloned().unwrap_or_default();
                Reply::Map(hash.into_iter().map(|(k, v)| (Reply::bulk(k), Reply::bulk(v))).collect())
            }
            // Just enough for the protocol's types.
            ("sadd" | "zadd", [..]) => Reply::Int(1),
            ("smembers", [_]) => Reply::Set(vec![Reply::text("m")]),
            ("zscore", [_, _]) => Reply::Double(1.5),
            ("incr", _) => Reply::Error("ERR Wrong number of args calling Redis command from script".into()),
            ("echo", [word]) => Reply::bulk(word.to_vec()),
            ("truth", []) => Reply::Bool(true),
            ("digits", []) => Reply::BigNumber("123".into()),
            ("verbatim", []) => Reply::Verbatim(*b"txt", "some text".into()),
            ("pairs", []) => Reply::Pairs(vec![(Reply::text("m"), Reply::Double(2.0))]),
            ("panic", []) => panic!("the host panics"),
            _ => return None,
        })
    }
}

impl Host for Small {
    fn call(&mut self, words: &[&[u8]]) -> Reply<'static> {
        self.calls.push(words.iter().map(|word| word.to_vec()).collect());
        let name = String::from_utf8_lossy(words[0]).to_ascii_lowercase();
        let unknown = || Reply::Error("ERR Unknown Redis command called from script".into());
        self.execute(&name, &words[1..]).unwrap_or_else(unknown)
    }

    fn random_seed(&self) -> u64 {
        self.seed
    }

    fn poll(&mut self) -> Verdict {
        self.polls += 1;
        match self.kill_at {
            Some(question) if self.polls >= question => Verdict::Kill(KillReason::User),
            _ => Verdict::Continue,
        }
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        self.logged.push((level, text.to_vec()));
    }

    fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    fn acl_check(&mut self, words: &[&[u8]]) -> Option<bool> {
        (words[0] != b"nosuchcommand").then_some(true)
    }
}

/// An engine with limits that tests reach quickly.
pub(super) fn engine() -> Engine {
    Engine::new(Limits { memory_bytes: 32 << 20, ..Limits::default() }).expect("an empty engine is small")
}

/// Runs a text with a host.
pub(super) fn run_with(engine: &mut Engine, text: &[u8], host: Small) -> (Small, Outcome) {
    let sha = sha1_hex(text);
    let (keys, arguments): ([&[u8]; 2], [&[u8]; 2]) = ([b"k1", b"k2"], [b"a1", b"a2"]);
    engine.run(&Script { sha: &sha, text }, &keys, &arguments, host)
}

/// Runs a text on an empty keyspace.
pub(super) fn run(engine: &mut Engine, text: &str) -> Outcome {
    run_with(engine, text.as_bytes(), Small::default()).1
}

/// The text a script returned.
pub(super) fn text(engine: &mut Engine, script: &str) -> String {
    match run(engine, script) {
        Outcome::Done(Reply::Bulk(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        other => panic!("{script}: {other:?}"),
    }
}

/// The error text of a script that failed.
pub(super) fn failure(engine: &mut Engine, script: &str) -> String {
    match run(engine, script) {
        Outcome::Failed(text) => text.to_string(),
        other => panic!("{script}: {other:?}"),
    }
}
