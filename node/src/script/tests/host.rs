//! What passes between a script and its host, and what a run leaves behind.

use super::*;

#[test]
fn words_reach_the_host_as_they_were_given() {
    let mut engine = engine();
    let (host, outcome) = run_with(
        &mut engine,
        b"redis.call('SeT', KEYS[1], 12.5) return redis.call('get', KEYS[1])",
        Small::default(),
    );
    assert_eq!(outcome, Outcome::Done(Reply::text("12.5")));
    assert_eq!(host.calls[0], [&b"SeT"[..], b"k1", b"12.5"]);
    let (_, outcome) = run_with(&mut engine, b"return redis.call('echo', 'a\\0b\\255')", Small::default());
    assert_eq!(outcome, Outcome::Done(Reply::bulk(&b"a\0b\xff"[..])));
}

#[test]
fn types_of_resp3_have_their_tables_and_come_back_whole() {
    let mut engine = engine();
    let cases = [
        ("return redis.call('truth')", Reply::Bool(true), Reply::Int(1)),
        ("return redis.call('digits')", Reply::BigNumber("123".into()), Reply::text("123")),
        (
            "return redis.call('verbatim')",
            Reply::Verbatim("txt", "some text".into()),
            Reply::text("some text"),
        ),
        ("return redis.call('zscore', 'k', 'm')", Reply::Double(1.5), Reply::text("1.5")),
        (
            "return redis.call('pairs')",
            Reply::Array(vec![Reply::Array(vec![Reply::text("m"), Reply::Double(2.0)])]),
            Reply::Array(vec![Reply::text("m"), Reply::text("2")]),
        ),
        (
            "redis.call('hset', 'k', 'f', 'v') return redis.call('hgetall', 'k')",
            Reply::Map(vec![(Reply::text("f"), Reply::text("v"))]),
            Reply::Array(vec![Reply::text("f"), Reply::text("v")]),
        ),
    ];
    for (script, resp3, resp2) in cases {
        assert_eq!(run(&mut engine, script), Outcome::Done(resp2), "{script}");
        let script = format!("redis.setresp(3) {script}");
        assert_eq!(run(&mut engine, &script), Outcome::Done(resp3), "{script}");
    }
    let (host, _) = run_with(&mut engine, b"redis.setresp(3)", Small::default());
    assert_eq!(host.protocol, Protocol::Resp3);
}

#[test]
fn logs_reach_the_host() {
    let (host, _) =
        run_with(&mut engine(), b"redis.log(redis.LOG_WARNING, 'a', 1, {}, 'b')", Small::default());
    assert_eq!(host.logged, [(LogLevel::Warning, b"a 1 b".to_vec())]);
}

#[test]
fn random_numbers_follow_the_seed_of_the_run() {
    let mut engine = engine();
    let script = b"return {math.random(1000000), math.random(1000000)}";
    let mut with = |seed| run_with(&mut engine, script, Small { seed, ..Small::default() }).1;
    let first = with(7);
    assert_eq!(first, with(7));
    assert_ne!(first, with(8));
    assert_eq!(first, with(7), "a run in between changed nothing");
}

/// `SCRIPT LOAD`
fn load(engine: &mut Engine, text: &[u8]) -> Result<[u8; 40], String> {
    match engine.load(text, Small::default()).1 {
        Ok(name) => Ok(name),
        Err(Outcome::Failed(text)) => Err(text),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn scripts_are_compiled_once_and_forgotten_when_asked() {
    let mut engine = engine();
    for script in ["return 1", "return 2", "return 1"] {
        run(&mut engine, script);
    }
    assert_eq!(engine.chunk_count(), 2);
    assert_eq!(load(&mut engine, b"return 3"), Ok(sha1_hex(b"return 3")));
    assert_eq!(engine.chunk_count(), 3);
    engine.forget_all();
    assert_eq!(engine.chunk_count(), 0);
    assert_eq!(run(&mut engine, "return 1"), Outcome::Done(Reply::Int(1)));
}

#[test]
fn texts_that_do_not_compile_say_why() {
    let mut engine = engine();
    assert_eq!(
        load(&mut engine, b"return ("),
        Err("ERR Error compiling script (new function): user_script:1: unexpected symbol near '<eof>'".into())
    );
    assert_eq!(
        load(&mut engine, b"#!lua flags=no-writes\n\nreturn )"),
        Err("ERR Error compiling script (new function): user_script:3: unexpected symbol near ')'".into())
    );
    assert_eq!(load(&mut engine, b"#!lua flags=x\n"), Err("ERR Unexpected flag in script shebang: x".into()));
    assert_eq!(engine.chunk_count(), 0);
}

#[test]
fn flags_are_told_to_the_caller() {
    let flags =
        Engine::flags(b"#!lua flags=no-writes,allow-cross-slot-keys\nreturn 1").expect("they are known");
    assert!(flags.no_writes && flags.allow_cross_slot_keys && !flags.allow_oom && !flags.undeclared);
    assert!(Engine::flags(b"return 1").expect("there are none").undeclared);
}

#[test]
fn names_are_those_of_sha1() {
    assert_eq!(&sha1_hex(b""), b"da39a3ee5e6b4b0d3255bfef95601890afd80709");
}

#[test]
fn a_panic_of_the_host_is_not_caught_by_a_script() {
    for script in [
        "pcall(redis.call, 'panic')",
        "xpcall(function() redis.call('panic') end, function() end)",
        "coroutine.resume(coroutine.create(function() redis.call('panic') end))",
    ] {
        let mut engine = engine();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut engine, script)));
        assert!(ran.is_err(), "{script}");
    }
}

/// What one script changes, the next must not see.
#[test]
fn nothing_leaks_from_one_run_to_the_next() {
    let mut engine = engine();
    let attempts = [
        "x = 1",
        "_G.x = 1",
        "rawset(_G, 'x', 1)",
        "table.insert(_G, 1)",
        "setmetatable(_G, {})",
        "setmetatable(string, {})",
        "getmetatable(_G).__index = nil",
        "getmetatable('').__index = {}",
        "string.mine = 1",
        "table.insert(string, 'mine')",
        "table.sort(redis, 1)",
        "for k in pairs(_G) do _G[k] = nil end",
        "local _, t = pairs(_G) t.x = 1 error('done')",
        "local _, t = pairs(string) t.x = 1 t.format = nil error('done')",
        "cjson.encode_max_depth(1) cjson.encode_sparse_array(true) cjson.decode_invalid_numbers(false) error('done')",
        "KEYS.x = 1 ARGV.x = 1 error('done')",
        "collectgarbage('stop') math.randomseed(1) redis.setresp(3) error('done')",
        "redis.call = nil",
        "math.pi = 3",
        "coroutine.wrap(function() string.x = 1 end)()",
        "loadstring('x = 1')()",
        "table.foreach(string, function() end) table.remove(string) table.setn(string, 1)",
        "local s = '' s.x = 1",
    ];
    let check = "
        assert(rawget(_G, 'x') == nil and rawget(string, 'x') == nil and rawget(string, 'mine') == nil)
        assert(rawget(_G, 1) == nil and rawget(string, 1) == nil and #string == 0)
        assert(('x'):rep(2) == 'xx' and string.format('%d', 1) == '1' and math.pi > 3.1)
        assert(KEYS.x == nil and #KEYS == 2 and ARGV.x == nil)
        assert(cjson.encode_max_depth() == 1000 and cjson.encode_sparse_array() == false)
        assert(cjson.decode('0x10') == 16 and getmetatable('') == false and getmetatable(_G) == false)
        assert(redis.call('get', 'nothing') == false)
        local names = 0
        for _ in pairs(_G) do names = names + 1 end
        return names";
    let before = run(&mut engine, check);
    assert!(matches!(before, Outcome::Done(Reply::Int(_))), "{before:?}");
    for attempt in attempts {
        assert!(matches!(run(&mut engine, attempt), Outcome::Failed(_)), "{attempt}");
        assert_eq!(run(&mut engine, check), before, "after {attempt}");
    }
}
