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

/// The bytes of what a script ends with, as a RESP3 client reads them.
fn frame(script: &[u8]) -> Vec<u8> {
    let reply = match run_with(&mut engine(), script, Small::default()).1 {
        Outcome::Done(reply) => reply,
        Outcome::Failed(text) | Outcome::Killed(_, text) => Reply::Error(text),
    };
    let mut frame = Vec::new();
    reply.encode(Protocol::Resp3, &mut frame);
    frame
}

/// What is no text leaves as it is, a zero byte ends what is a text in C, and line ends
/// never end a frame. These are the answers of Redis 7.0.15 and of Valkey 9.1.2.
#[test]
fn bytes_leave_as_they_are_in_one_frame_each() {
    let cases: [(&str, &[u8]); 22] = [
        (r"return {ok='\255\254a'}", b"+\xff\xfea\r\n"),
        (r"return {ok='a\r\n+b'}", b"+a  +b\r\n"),
        (r"return {ok='a\0b'}", b"+a\r\n"),
        (r"return {err='\255\254a'}", b"-\xff\xfea\r\n"),
        (r"return {{err='a\r\n\255\0b'}, 1}", b"*2\r\n-a  \xff\r\n:1\r\n"),
        (r"return redis.error_reply('X \255\r\n')", b"-X \xff\r\n"),
        (r"return redis.error_reply('a\0b c')", b"-ERR a\r\n"),
        (r"return redis.status_reply('a\r\n\255')", b"+a  \xff\r\n"),
        (r"return redis.call('echo', '\255\0\r\n')", b"$4\r\n\xff\x00\r\n\r\n"),
        (r"redis.setresp(3) return {big_number='1\r\n\2552\0003'}", b"(1  \xff2\x003\r\n"),
        (r"return {err='a\r\n\r\n'}", b"-a\r\n"),
        (
            r"redis.setresp(3) return {verbatim_string={format='mkd', string='\255\0\r\n'}}",
            b"=8\r\nmkd:\xff\x00\r\n\r\n",
        ),
        (r"redis.setresp(3) return {verbatim_string={format='\255', string='x'}}", b"=5\r\n\xff  :x\r\n"),
        (r"redis.setresp(3) return {verbatim_string={format='abcd', string='x'}}", b"=5\r\nabc:x\r\n"),
        (r"local ok, e = pcall(error, '\255', 0) return e", b"$1\r\n\xff\r\n"),
        (r"local ok, e = pcall(error, {err='\255'}) return e", b"$1\r\n\xff\r\n"),
        (r"local f, e = loadstring('\255', '=x') return e", b"$31\r\nx:1: unexpected symbol near '\xff'\r\n"),
        (r"local ok, e = pcall(collectgarbage, '\255') return e:sub(-3)", b"$3\r\n\xff')\r\n"),
        (r"local ok, e = pcall(struct.pack, '\255', 1) return e:sub(-3)", b"$3\r\n\xff')\r\n"),
        (r"local ok, e = pcall(cjson.encode_keep_buffer, '\255') return e:sub(-3)", b"$3\r\n\xff')\r\n"),
        (r"local ok, e = pcall(function() return _G['\255'] end) return e:sub(-2)", b"$2\r\n\xff'\r\n"),
        (r"local f, e = load(function() error({err='\255'}) end) return e", b"-\xff\r\n"),
    ];
    for (script, expected) in cases {
        let found = frame(script.as_bytes());
        assert_eq!(found, expected, "{script}: {}", found.escape_ascii());
    }
}

/// The text of an error reply, without the script's name.
fn raised(script: &str) -> Vec<u8> {
    let frame = frame(script.as_bytes());
    let end = memchr::memmem::find(&frame, b" script: ").expect("it names the script");
    frame[..end].to_vec()
}

/// The answers of Valkey 9.1.2.
#[test]
fn error_objects_of_every_shape_have_a_text() {
    let cases: [(&str, &[u8]); 17] = [
        ("{err=1}", b"-1"),
        ("{err=1.5}", b"-1.5"),
        ("{err=1e17}", b"-1e+17"),
        ("{err=''}", b"-"),
        ("{err='x'}", b"-x"),
        ("{err='-x'}", b"--x"),
        (r"{err='a\r\nb'}", b"-a  b"),
        (r"{err='\255'}", b"-\xff"),
        (r"{err='a\0b'}", b"-a"),
        ("setmetatable({}, {__index={err='meta'}})", b"-meta"),
        ("setmetatable({}, {__index=function() return 'meta' end})", b"-meta"),
        ("1.5", b"-ERR user_script:1: 1.5"),
        ("0/0", b"-ERR user_script:1: -nan"),
        ("nil", b"-ERR nil"),
        ("true", b"-ERR true"),
        (r"'\255'", b"-ERR user_script:1: \xff"),
        (r"'a\0b'", b"-ERR user_script:1: a"),
    ];
    for (object, expected) in cases {
        let found = raised(&format!("error({object})"));
        assert_eq!(found, expected, "{object}: {}", found.escape_ascii());
        // A coroutine puts its own place before a text.
        if object.contains('\'') && !object.contains('{') || object.parse::<f64>().is_ok() || object == "0/0"
        {
            continue;
        }
        let again = raised(&format!("local c = coroutine.wrap(function() error({object}) end) c()"));
        assert_eq!(again, expected, "{object}: {}", again.escape_ascii());
    }
}

#[test]
fn what_load_reads_ends() {
    let endless = "local f, e = load(function() return 'x = 1 ' end) return e";
    assert!(text(&mut engine(), endless).starts_with("script is longer than"));
    let read = "local f, e = load(function() error('x') end) return e.err";
    assert_eq!(text(&mut engine(), read), "ERR user_script:1: x");
    let numbers = "local n = 0 return load(function() n = n + 1 return ({'return ', 4, 2})[n] end)()";
    assert_eq!(run(&mut engine(), numbers), Outcome::Done(Reply::Int(42)));
}

#[test]
fn types_of_resp3_have_their_tables_and_come_back_whole() {
    let mut engine = engine();
    let cases = [
        ("return redis.call('truth')", Reply::Bool(true), Reply::Int(1)),
        ("return redis.call('digits')", Reply::BigNumber("123".into()), Reply::text("123")),
        (
            "return redis.call('verbatim')",
            Reply::Verbatim(*b"txt", "some text".into()),
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

/// The answers of Redis 7.0.15 and of Valkey 9.1.2.
#[test]
fn a_seed_gives_the_numbers_of_redis() {
    let mut engine = engine();
    let script = "math.randomseed(42) local t = {} for i = 1, 10 do t[i] = math.random(1000000) end return table.concat(t, ' ')";
    assert_eq!(
        text(&mut engine, script),
        "744526 342702 111086 422339 81112 856441 498800 478815 690813 834594"
    );
    let seeds = "local t = {} for i, s in ipairs({0, 1, -1, 2^31, 2^32, 1.5, -2^40, 1e300, '7'}) do
         math.randomseed(s) t[i] = tostring(math.random()) end return table.concat(t, ' ')";
    let expected = "0.17082803611217 0.041630344484761 0.30002572727391 0.670828036345 0.17082803611217 \
         0.041630344484761 0.17082803611217 0.17082803611217 0.26644419658298";
    assert_eq!(text(&mut engine, seeds), expected);
    let bounds = "math.randomseed(3) local t = {} for i, b in ipairs({{-2^31, 2^31-1}, {0, 2^31-1}, {-1, 2^31-1},
         {-2^31, 0}, {1, 2^31-1}, {1, 1}, {0, 1}}) do t[i] = ('%d'):format(math.random(b[1], b[2])) end return table.concat(t, ' ')";
    assert_eq!(text(&mut engine, bounds), "-2147483648 -1854724447 -669388571 -2720921130 1163638061 1 0");
}

#[test]
fn the_library_has_the_name_that_valkey_gives_it() {
    let same = "return server == redis and server.call == redis.call and type(os.clock()) == 'number' and os.time == nil";
    assert_eq!(run(&mut engine(), same), Outcome::Done(Reply::Int(1)));
}

/// As in Lua 5.1, which has 8,000 places for what a function in C is given and gives.
#[test]
fn thousands_of_values_are_handed_on() {
    let mut engine = engine();
    let list = "local t = {} for i = 1, N do t[i] = 'v' .. i end ";
    let with = |count: usize, rest: &str| list.replace('N', &count.to_string()) + rest;
    assert_eq!(
        run(&mut engine, &with(7999, "return select('#', unpack(t))")),
        Outcome::Done(Reply::Int(7999))
    );
    let refused = failure(&mut engine, &with(8000, "local n = select('#', unpack(t))"));
    assert!(refused.starts_with("ERR user_script:1: too many results to unpack"), "{refused}");
    assert_eq!(
        run(&mut engine, &with(7999, "return {unpack(t)}")),
        run(&mut engine, &with(7999, "return t"))
    );
    let pushed = run(&mut engine, &with(7948, "return redis.call('rpush', 'k', unpack(t))"));
    assert_eq!(pushed, Outcome::Done(Reply::Int(7948)));
    let whole = run(&mut engine, &with(7948, "return #redis.pcall('nosuch', 'k', unpack(t)).err"));
    assert!(matches!(whole, Outcome::Done(Reply::Int(_))), "there is room for a reply: {whole:?}");
    // Nothing of a command with too many words is executed.
    for value in ["'v' .. i", "i"] {
        let many = with(7949, "return redis.call('rpush', 'k', unpack(t))").replace("'v' .. i", value);
        let (host, outcome) = run_with(&mut engine, many.as_bytes(), Small::default());
        assert!(
            matches!(&outcome, Outcome::Failed(text) if text.starts_with(b"ERR Too many arguments")),
            "{outcome:?}"
        );
        assert!(host.calls.is_empty());
    }
}

/// Whatever is kept of scripts, it takes nothing of what calls need.
#[test]
fn as_many_scripts_as_there_may_be_are_kept() {
    let mut engine = engine();
    for number in 0..CHUNKS_MAX + 100 {
        let outcome = run(&mut engine, &format!("return {number}"));
        assert_eq!(outcome, Outcome::Done(Reply::count(number)));
    }
    assert!(engine.chunk_count() > CHUNKS_MAX / 2);
    let many =
        "local t = {} for i = 1, 7900 do t[i] = 'v' .. i end return redis.call('rpush', 'k', unpack(t))";
    assert_eq!(run(&mut engine, many), Outcome::Done(Reply::Int(7900)));
    engine.forget_all();
    assert_eq!(run(&mut engine, "return 7"), Outcome::Done(Reply::Int(7)));
}

/// `SCRIPT LOAD`
fn load(engine: &mut Engine, text: &[u8]) -> Result<[u8; 40], String> {
    match engine.load(text, Small::default()).1 {
        Ok(name) => Ok(name),
        Err(Outcome::Failed(text)) => Err(text.to_string()),
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
