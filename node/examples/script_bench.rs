//! What a script costs, network and commands apart.
//!
//!     cargo run --release --example script_bench
//!
//! The host answers at once, so the figures are the engine's own: entering and
//! leaving a run, `KEYS` and `ARGV`, each `redis.call`, conversions. Measured in
//! processor time of the thread, so that a busy machine shows the same.

use std::hint::black_box;
use std::time::Duration;

use moonraft::script::{Engine, Host, Limits, LogLevel, Outcome, Script, Verdict, sha1_hex};
use moonraft_proto::{Protocol, Reply};
use rustix::time::{ClockId, clock_gettime};

struct Answering;

impl Host for Answering {
    fn call(&mut self, words: &[&[u8]]) -> Reply<'static> {
        match words[0] {
            b"get" => Reply::Bulk((&b"100"[..]).into()),
            b"set" => Reply::OK,
            b"sismember" => Reply::Int(0),
            _ => Reply::Int(1),
        }
    }

    fn random_seed(&self) -> u64 {
        1
    }

    fn poll(&mut self) -> Verdict {
        Verdict::Continue
    }

    fn log(&mut self, _: LogLevel, _: &[u8]) {}

    fn set_protocol(&mut self, _: Protocol) {}

    fn acl_check(&mut self, _: &[&[u8]]) -> Option<bool> {
        Some(true)
    }
}

const SCRIPTS: [(&str, &str); 12] = [
    ("nothing", "return 1"),
    ("one call", "return redis.call('get', KEYS[1])"),
    ("ten calls", "for i = 1, 10 do redis.call('get', KEYS[1]) end return 1"),
    (
        "get, set, incr",
        "local v = redis.call('get', KEYS[1]) redis.call('set', KEYS[1], v) return redis.call('incr', KEYS[2])",
    ),
    (
        "coupon",
        "if redis.call('sismember', KEYS[2], ARGV[1]) == 1 then return -1 end
         local left = tonumber(redis.call('get', KEYS[1]))
         if not left or left <= 0 then return 0 end
         redis.call('decr', KEYS[1])
         redis.call('sadd', KEYS[2], ARGV[1])
         return 1",
    ),
    (
        "lock release",
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end",
    ),
    ("array of ten", "return {1, 2, 3, 4, 5, 6, 7, 8, 9, 'ten'}"),
    ("pcall", "local ok, v = pcall(redis.call, 'get', KEYS[1]) return v"),
    ("gsub, find", "return (string.gsub('hello world', 'o', '0')) .. string.find('key:123', ':', 1, true)"),
    (
        "json",
        "local t = cjson.decode('{\"id\":7,\"tags\":[\"a\",\"b\"],\"price\":12.5}') return cjson.encode(t)",
    ),
    (
        "msgpack",
        "return cmsgpack.pack(cmsgpack.unpack('\\131\\162id\\7\\164tags\\146\\161a\\161b\\165price\\203@)\\0\\0\\0\\0\\0\\0'))",
    ),
    ("loop of 100,000", "local n = 0 for i = 1, 100000 do n = n + i end return n"),
];

/// Processor time of this thread so far.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long each script is run.
const SPAN: Duration = Duration::from_millis(700);

fn main() {
    let only = std::env::args().nth(1);
    let mut engine = Engine::new(Limits::default()).expect("the engine starts");
    for (name, text) in
        SCRIPTS.into_iter().filter(|(name, _)| only.as_deref().is_none_or(|only| *name == only))
    {
        let text = text.as_bytes();
        let sha = sha1_hex(text);
        let script = Script { sha: &sha, text };
        let (keys, arguments): ([&[u8]; 2], [&[u8]; 1]) =
            ([b"{shop}:stock", b"{shop}:buyers"], [b"user:12345"]);
        let (_, outcome) = engine.run(&script, &keys, &arguments, Answering);
        assert!(matches!(outcome, Outcome::Done(_)), "{name}: {outcome:?}");
        let (start, mut runs) = (now(), 0_u32);
        while now() - start < SPAN {
            for _ in 0..100 {
                black_box(engine.run(black_box(&script), &keys, &arguments, Answering));
            }
            runs += 100;
        }
        let each = (now() - start).as_secs_f64() * 1e6 / f64::from(runs);
        println!("{name:<16} {each:>9.3} us");
    }
}
