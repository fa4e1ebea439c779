//! Scripts: whatever a script does, it ends, holds no more than it may, and the next one sees nothing of it.

use std::sync::OnceLock;

use moonraft::script::{Engine, Host, KillReason, Limits, LogLevel, Outcome, Script, Verdict, sha1_hex};
use moonraft_proto::{Protocol, Reply};

/// Small, so that short scripts reach them.
const LIMITS: Limits = Limits { memory_bytes: 4 << 20, script_bytes: 64 << 10, chunk_bytes: 1 << 20 };
/// Questions after which a script is killed, and how many more it may be asked then.
const QUESTIONS: usize = 300;
const PATIENCE: usize = 300;
/// A reply is made when the script is over, of what it held; parts of tables are counted as more than they take there.
const REPLY_BYTES_MAX: usize = 4 * LIMITS.memory_bytes;

/// All that a script can reach by name, what is drawn, and what the libraries' settings do.
const LOOK: &[u8] = br#"
local seen, found = {}, {}
local function look(path, value)
  found[#found + 1] = path .. ' ' .. type(value)
  if type(value) == 'table' and not seen[value] then
    seen[value] = true
    local names = {}
    for name in pairs(value) do names[#names + 1] = tostring(name) end
    table.sort(names)
    for _, name in ipairs(names) do look(path .. '.' .. name, value[name]) end
  end
end
look('_G', _G)
for _, value in ipairs({'', 1, true, look}) do look('meta', getmetatable(value)) end
for _, name in ipairs({'io', 'debug', 'package', 'require', 'dofile', 'loadfile', 'newproxy', 'getfenv', 'setfenv'}) do
  found[#found + 1] = name .. ' ' .. type(rawget(_G, name))
end
found[#found + 1] = math.random(1000000) .. ' ' .. math.random(1000000)
found[#found + 1] = cjson.encode({0.1, {a = 1 / 3}, cjson.decode('[[[1]]]')})
found[#found + 1] = tostring(pcall(cjson.encode, {[1000] = 1}))
found[#found + 1] = cmsgpack.pack({1, 'a'}) .. #KEYS .. #ARGV .. KEYS[1] .. ARGV[1]
found[#found + 1] = tostring(redis.call('get', 'k')) .. type(redis.call('hgetall', 'k'))
return table.concat(found, '\n')
"#;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut engine = Engine::new(LIMITS).expect("an empty engine is small");
    let empty_bytes = engine.memory_bytes();
    let (host, outcome) = execute(&mut engine, bytes);
    assert!(host.questions <= QUESTIONS + PATIENCE, "asked {} times", host.questions);
    match outcome {
        Outcome::Done(reply) => {
            let bytes = reply.weight().bytes;
            assert!(bytes <= REPLY_BYTES_MAX, "a reply of {bytes} bytes");
        }
        Outcome::Killed(KillReason::User, _) => assert!(host.questions > QUESTIONS),
        Outcome::Failed(_) | Outcome::Killed(..) => {}
    }
    let held = engine.memory_bytes();
    let most = empty_bytes + 2 * LIMITS.memory_bytes + LIMITS.chunk_bytes;
    assert!(held <= most, "{held} bytes are held");
    assert_eq!(&looked(&mut engine), fresh(), "a script left something behind");
}

/// What a script finds in an engine that has run none.
fn fresh() -> &'static Outcome {
    static FRESH: OnceLock<Outcome> = OnceLock::new();
    FRESH.get_or_init(|| {
        let found = looked(&mut Engine::new(LIMITS).expect("an empty engine is small"));
        assert!(matches!(found, Outcome::Done(Reply::Bulk(_))), "{found:?}");
        found
    })
}

fn looked(engine: &mut Engine) -> Outcome {
    execute(engine, LOOK).1
}

fn execute(engine: &mut Engine, text: &[u8]) -> (Small, Outcome) {
    let sha = sha1_hex(text);
    engine.run(&Script { sha: &sha, text }, &[b"k", b"l"], &[b"a", b"b"], Small::default())
}

/// A host that answers a few commands, and kills a script that does not end.
#[derive(Default)]
struct Small {
    questions: usize,
}

impl Host for Small {
    fn call(&mut self, words: &[&[u8]]) -> Reply<'static> {
        let name = String::from_utf8_lossy(words[0]).to_ascii_lowercase();
        match (name.as_str(), &words[1..]) {
            ("get", [key]) => Reply::bulk(key.to_vec()),
            ("echo", [word]) => Reply::bulk(word.to_vec()),
            ("set", _) => Reply::OK,
            ("incr", _) => Reply::Int(i64::MAX),
            ("del", _) => Reply::Null,
            ("blpop", _) => Reply::NullArray,
            ("lrange", items) => Reply::bulks(items.iter().map(|item| item.to_vec())),
            ("hgetall", _) => Reply::Map(vec![(Reply::text("field"), Reply::text("value"))]),
            ("smembers", _) => Reply::Set(vec![Reply::text("member")]),
            ("zscore", _) => Reply::Double(f64::NEG_INFINITY),
            ("zrange", _) => Reply::Pairs(vec![(Reply::text("member"), Reply::Double(0.1))]),
            ("exists", _) => Reply::Bool(true),
            ("digits", _) => Reply::BigNumber("12345678901234567890".into()),
            ("info", _) => Reply::Verbatim(*b"txt", "some text".into()),
            _ => Reply::Error("ERR Unknown Redis command called from script".into()),
        }
    }

    fn random_seed(&self) -> u64 {
        7
    }

    fn poll(&mut self) -> Verdict {
        self.questions += 1;
        if self.questions > QUESTIONS { Verdict::Kill(KillReason::User) } else { Verdict::Continue }
    }

    fn log(&mut self, _: LogLevel, _: &[u8]) {}

    fn set_protocol(&mut self, _: Protocol) {}

    fn acl_check(&mut self, words: &[&[u8]]) -> Option<bool> {
        (words[0] == b"get").then_some(true)
    }
}
