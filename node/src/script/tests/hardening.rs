//! Scripts that mean harm: each is stopped, refused or harmless.

use super::*;

/// More questions than any script here may be asked after it was told to stop.
const PATIENCE: usize = 50;

/// Runs a script that would not end, and kills it at the third question.
fn killed(script: &str) {
    let mut engine = engine();
    let (host, outcome) = run_with(&mut engine, script.as_bytes(), Small::killing_at(3));
    match outcome {
        Outcome::Killed(KillReason::User, text) => {
            assert!(text.starts_with(b"ERR Script killed by user with SCRIPT KILL..."), "{text}");
        }
        other => panic!("{script}: {other:?}"),
    }
    assert!(host.polls < 3 + PATIENCE, "{script}: asked {} times", host.polls);
    assert_eq!(run(&mut engine, "return 1"), Outcome::Done(Reply::Int(1)), "the engine lives on");
}

/// An engine whose memory is soon used up.
fn tight() -> Engine {
    Engine::new(Limits { memory_bytes: 8 << 20, ..Limits::default() }).expect("an empty engine is small")
}

#[test]
fn endless_scripts_are_killed_whatever_they_catch() {
    for script in [
        "while true do end",
        "repeat until false",
        "for i = 1, math.huge do end",
        "local function f() return f() end f()",
        "local function f(...) return f(1, ...) end f()",
        "while true do pcall(function() while true do end end) end",
        "while true do pcall(error) end",
        "local function f() pcall(f) while true do end end f()",
        "xpcall(function() while true do end end, function() while true do end end)",
        "while true do xpcall(function() error('x') end, function() while true do end end) end",
        "xpcall(function() local x = nil + 1 end, function() while true do end end)",
        "local function h() while true do end end xpcall(function() xpcall(function() while true do end end, h) end, h)",
        "coroutine.wrap(function() while true do end end)()",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "while true do coroutine.wrap(function() pcall(function() while true do end end) end)() end",
        "local c = coroutine.wrap(function() while true do coroutine.yield() end end) while true do c() end",
        "local function f() return coroutine.wrap(function() while true do pcall(f) end end)() end f()",
        "while true do redis.call('get', 'k') end",
        "while true do pcall(redis.call, 'nosuch') end",
        "setmetatable({}, {__index = function() while true do end end}).x()",
        "local t = setmetatable({}, {__tostring = function() while true do end end}) return tostring(t)",
        "string.gsub('x', 'x', function() while true do end end)",
        "table.sort({1, 2, 3}, function() while true do end end)",
        "load(function() return ' ' end)",
        "for _ in string.gmatch(('x'):rep(100), '()') do while true do end end",
        "loadstring('while true do end')()",
        "while true do loadstring('return 1') end",
        "while true do collectgarbage() end",
        "while true do cjson.decode('[[[]]]') end",
    ] {
        killed(script);
    }
}

/// In these the time goes by in one call of a library function, where stock Lua
/// calls no hook.
#[test]
fn long_calls_are_killed_in_their_middle() {
    for script in [
        "string.find(('x'):rep(3000), '.-.-.-.-.-.-.-.-y')",
        "string.match(('x'):rep(3000), '(.-)(.-)(.-)(.-)y')",
        "string.gsub(('x'):rep(3000), '.-.-.-.-y', '')",
        "for _ in string.gmatch(('x'):rep(3000), '.-.-.-.-y') do end",
        "string.find(('('):rep(30000), '%b()' .. ('.-'):rep(3) .. 'y')",
        "string.find(('x'):rep(100000), ('x*'):rep(20) .. 'y')",
        "while true do string.rep('', 2^31 - 1) string.rep('x', 1000000) end",
        "local t, s = {}, ('x'):rep(1000000) for i = 1, 100000 do t[i] = s end table.sort(t)",
        "local s = ('x'):rep(5000000) while true do s:find('y', 1, true) end",
        "local s = ('x'):rep(5000000) while true do redis.sha1hex(s) end",
        "local t = {} for i = 1, 16 do t = {t, t, t, t, t, t} end cmsgpack.pack(t)",
        "cjson.encode_sparse_array(true, 0) while true do cjson.encode({[100000] = 1}) end",
    ] {
        killed(script);
    }
}

#[test]
fn memory_is_bounded_and_its_lack_cannot_be_caught() {
    for script in [
        "local s = 'x' while true do s = s .. s end",
        "local t = {} while true do t[#t + 1] = {} end",
        "local t = {} while true do t[#t + 1] = #t .. ':' .. #t end",
        "while true do pcall(function() local s = 'x' while true do s = s .. s end end) end",
        "while true do xpcall(function() local s = 'x' while true do s = s .. s end end, function() end) end",
        "while true do pcall(coroutine.wrap(function() local s = 'x' while true do s = s .. s end end)) end",
        "while true do coroutine.resume(coroutine.create(function() local s = 'x' while true do s = s .. s end end)) end",
        "local t = {} while true do t[#t + 1] = string.rep('x', 100000 + #t) end",
        "local t = {} while true do t[#t + 1] = redis.call('echo', ('x'):rep(100000) .. #t) end",
        "local t, s = {}, ('x'):rep(1000000) for i = 1, 1000 do t[i] = s end return table.concat(t)",
        "return (('x'):rep(10000)):gsub('x', ('y'):rep(10000))",
        "return (('x'):rep(10000)):gsub('x', function() return ('y'):rep(10000) end)",
        "return string.format(('%s'):rep(100), unpack((function() local t = {} for i = 1, 100 do t[i] = ('x'):rep(1000000) end return t end)()))",
        "local t = {} for i = 1, 30 do t = {t, t} end return t",
        "local t = {} for i = 1, 30 do t = {t, t} end return cjson.encode(t)",
        "cjson.encode_sparse_array(true, 0) return cjson.encode({[2^31 - 1] = 1})",
        "local t = {} for i = 1, 1000 do t[i] = coroutine.create(function() end) end while true do t[#t + 1] = coroutine.create(function() end) end",
        "local t = {} t[1] = ('x'):rep(5000000) t[2] = t[1]:upper() return t",
        "local s = ('x'):rep(5000000) return loadstring(s .. 'y'), s",
    ] {
        let mut engine = tight();
        match run(&mut engine, script) {
            Outcome::Killed(KillReason::Memory, text) => {
                assert!(text.to_string().contains("not enough memory"), "{text}")
            }
            other => panic!("{script}: {other:?}"),
        }
        let next = run(&mut engine, "return ('x'):rep(5000000):len()");
        assert_eq!(next, Outcome::Done(Reply::Int(5_000_000)), "after {script}");
    }
}

#[test]
fn what_one_script_held_is_there_for_the_next() {
    let mut engine = engine();
    for _ in 0..20 {
        let outcome =
            run(&mut engine, "local t = {} for i = 1, 20 do t[i] = ('x'):rep(1000000 + i) end return #t");
        assert_eq!(outcome, Outcome::Done(Reply::Int(20)));
    }
}

#[test]
fn there_is_no_way_out() {
    let mut engine = engine();
    for name in [
        "io", "debug", "package", "require", "module", "dofile", "loadfile", "print", "newproxy", "getfenv",
        "setfenv", "arg",
    ] {
        let script = format!("return tostring(rawget(_G, '{name}'))");
        assert_eq!(text(&mut engine, &script), "nil", "{name}");
    }
    assert_eq!(text(&mut engine, "return tostring(string.dump) .. tostring(('').dump)"), "nilnil");
}

/// CVE-2022-24735 and CVE-2025-46818: what all scripts share cannot be changed.
#[test]
fn metatables_of_basic_types_are_out_of_reach() {
    let mut engine = engine();
    for value in ["''", "nil", "true", "1", "pcall", "coroutine.create(pcall)", "cjson.null"] {
        let script = format!("local m = getmetatable({value}) return type(m)");
        assert!(["nil", "boolean"].contains(&text(&mut engine, &script).as_str()), "{value}");
        let script = format!("return setmetatable({value}, {{}})");
        assert!(matches!(run(&mut engine, &script), Outcome::Failed(_)), "{value}");
    }
}

/// CVE-2025-49844: the parser does not hold on to its chunk's name, so nothing may
/// be collected while it works. Here it needs several times what makes the collector
/// run, and what only a weak table knows must still be there right after.
#[test]
fn the_collector_rests_while_a_chunk_is_compiled() {
    let script = "
        local parts = {}
        for i = 1, 70000 do parts[i] = \"'s\" .. i .. \"'\" end
        local text = 'return {' .. table.concat(parts, ',') .. '}'
        parts = nil
        collectgarbage()
        local weak = setmetatable({}, {__mode = 'v'})
        for i = 1, 100 do weak[i] = {} end
        local before = collectgarbage('count')
        local chunk = loadstring(text)
        local left = #weak
        return {left, collectgarbage('count') - before > 4000, type(chunk)}";
    let expected = [Reply::Int(100), Reply::Int(1), Reply::text("function")];
    assert_eq!(run(&mut engine(), script), Outcome::Done(Reply::Array(expected.to_vec())));
}

/// CVE-2025-46817: ranges that overflow.
#[test]
fn unpack_checks_its_range() {
    let mut engine = engine();
    for range in ["-2147483648, 2147483647", "1, 2147483647", "0, 2147483647", "1, 7998"] {
        let text = failure(&mut engine, &format!("return unpack({{}}, {range})"));
        assert!(text.contains("too many results to unpack"), "{range}: {text}");
    }
    // Places are C ints: what does not fit loses its upper bits, as in Redis.
    for (range, count) in
        [("1, 7997", 7997), ("2^31-1, 2^31-1", 1), ("2^31-1, 2^31", 0), ("1, 1e18", 0), ("1, 2^32+5", 5)]
    {
        let given = run(&mut engine, &format!("return select('#', unpack({{}}, {range}))"));
        assert_eq!(given, Outcome::Done(Reply::count(count)), "{range}");
    }
}

/// CVE-2025-46819: long brackets; and texts that nest or grow without end.
#[test]
fn texts_are_bounded_in_length_and_nesting() {
    let mut engine = engine();
    let long = format!("return [{}[x]{}]", "=".repeat(400_000), "=".repeat(400_000));
    assert_eq!(run(&mut engine, &long), Outcome::Done(Reply::text("x")));
    let unfinished = format!("return [{}[x", "=".repeat(800_000));
    assert!(matches!(run(&mut engine, &unfinished), Outcome::Failed(_)));
    let longer = format!("return '{}'", "x".repeat(1 << 20));
    assert!(failure(&mut engine, &longer).contains("script is longer than 1048576 bytes"));
    for (open, close) in
        [("(", ")"), ("{", "}"), ("do ", " end"), ("function() return ", " end"), ("not ", ""), ("-", "")]
    {
        let nested = format!("local x = {}1{}", open.repeat(5000), close.repeat(5000));
        assert!(matches!(run(&mut engine, &nested), Outcome::Failed(_)), "{open}");
    }
    let chain = format!("local x = 'a'{}", " .. 'a'".repeat(5000));
    assert!(matches!(run(&mut engine, &chain), Outcome::Failed(_)));
    assert_eq!(run(&mut engine, "return 1"), Outcome::Done(Reply::Int(1)));
}

#[test]
fn bytecode_is_not_loaded() {
    let mut engine = engine();
    let lua = mlua::Lua::new();
    let binary = lua.load("return 1").into_function().expect("it compiles").dump(false);
    assert!(binary.starts_with(b"\x1bLua"));
    let (_, outcome) = run_with(&mut engine, &binary, Small::default());
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    let as_text: String = binary.iter().map(|byte| format!("\\{byte:03}")).collect();
    let script = format!("local f, e = loadstring('{as_text}') return tostring(f)");
    assert_eq!(text(&mut engine, &script), "nil");
    let script = format!(
        "local done local f = load(function() if not done then done = 1 return '{as_text}' end end) return tostring(f)"
    );
    assert_eq!(text(&mut engine, &script), "nil");
}

/// CVE-2024-31449 and its kind: odd numbers for the libraries.
#[test]
fn odd_numbers_do_no_harm() {
    let mut engine = engine();
    for number in
        ["0", "-1", "2^31", "-2^31", "2^63", "-2^63", "1e308", "-1e308", "1/0", "-1/0", "0/0", "0.5", "'7'"]
    {
        for call in [
            "bit.tohex(1, N)",
            "bit.tohex(N, N)",
            "bit.lshift(N, N)",
            "bit.rol(1, N)",
            "bit.bswap(N)",
            "string.rep('x', N)",
            "string.sub('abc', N, N)",
            "string.byte('abc', N, N)",
            "string.find('abc', 'b', N)",
            "string.find('abc', 'b', N, true)",
            "string.gsub('abc', 'b', 'x', N)",
            "string.char(N)",
            "string.format('%d', N)",
            "string.format('%c', N)",
            "string.format('%5.1f', N)",
            "table.concat({}, '', N, N)",
            "table.insert({1, 2}, N, 1)",
            "table.remove({1, 2}, N)",
            "unpack({1, 2}, N, N)",
            "unpack({1, 2}, 1, N)",
            "math.random(N)",
            "math.random(N, N)",
            "math.randomseed(N)",
            "select(N, 1, 2)",
            "tonumber('7', N)",
            "cmsgpack.pack(N)",
            "cmsgpack.unpack_limit('\\1\\2', N)",
            "cmsgpack.unpack_one('\\1\\2', N)",
            "struct.pack('i8', N)",
            "struct.pack('>I3', N)",
            "struct.unpack('i', 'abcd', N)",
            "cjson.encode(N)",
            "cjson.encode({[1] = N})",
            "cjson.encode_max_depth(N)",
            "cjson.encode_sparse_array(true, N, N)",
            "redis.call('set', 'k', N)",
            "redis.log(N, 'x')",
            "redis.setresp(N)",
            "redis.set_repl(N)",
            "error('x', N)",
            "setmetatable({}, {__index = function() return N end}).x",
            "KEYS[N]",
            "collectgarbage('step', N)",
        ] {
            let script = format!("return {}", call.replace('N', &format!("({number})")));
            match run(&mut engine, &script) {
                Outcome::Killed(KillReason::Memory, _) | Outcome::Done(_) | Outcome::Failed(_) => {}
                other => panic!("{script}: {other:?}"),
            }
        }
    }
}

#[test]
fn deep_values_end_in_an_error_not_in_the_stack() {
    let mut engine = engine();
    let deep = "local t = {} for i = 1, 100000 do t = {t} end ";
    let Outcome::Done(mut reply) = run(&mut engine, &format!("{deep} return t")) else {
        panic!("it is answered")
    };
    for _ in 0..json::settings::NESTING_MAX {
        let Reply::Array(items) = reply else { panic!("so deep it is an array") };
        reply = items.into_iter().next().expect("of one");
    }
    assert_eq!(reply, Reply::Error("ERR reached lua stack limit".into()));
    let cycle = "local t = {} t[1] = t return t";
    assert!(matches!(run(&mut engine, cycle), Outcome::Done(Reply::Array(_))));
    assert!(failure(&mut engine, &format!("{deep} return cjson.encode(t)")).contains("excessive nesting"));
    let text = "cjson.encode_max_depth(1000000) cjson.decode_max_depth(1000000)";
    assert!(
        failure(&mut engine, &format!("{text} {deep} return cjson.encode(t)")).contains("excessive nesting")
    );
    let decode = "return cjson.decode(('['):rep(100000))";
    assert!(failure(&mut engine, &format!("{text} {decode}")).contains("too many nested"));
    assert!(
        failure(&mut engine, "return cmsgpack.unpack(('\\145'):rep(100000))").contains("Bad data format")
    );
    assert_eq!(
        run(&mut engine, &format!("{deep} return cmsgpack.pack(t):len()")),
        Outcome::Done(Reply::Int(17))
    );
    let recursion = "local function f() return 1 + f() end f()";
    assert!(failure(&mut engine, recursion).contains("stack overflow"));
    let nested = "local function f() return pcall(f) end return tostring(f())";
    assert!(matches!(run(&mut engine, nested), Outcome::Done(_) | Outcome::Failed(_)));
    let handlers = "local function f() error(f) end xpcall(f, function() error('x') end) return 1";
    assert_eq!(run(&mut engine, handlers), Outcome::Done(Reply::Int(1)));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// No text, however odd, does more than fail.
    #[test]
    fn any_text_ends(words in proptest::collection::vec(0_usize..40, 0..30)) {
        const WORDS: [&str; 40] = [
            "local ", "x", "=", "function", "(", ")", " end ", " do ", " while ", " true ", "{", "}", "[", "]", "..",
            "'a'", "1", "pcall", "error", ",", ".", ":", "string.rep", "redis.call", " return ", " if ", " then ",
            " for ", " in ", "pairs", "[[", "]]", "--", "\n", "coroutine.wrap", "loadstring", "#", "nil", "cjson.encode", "unpack",
        ];
        let script: String = words.iter().map(|word| WORDS[*word]).collect();
        run_with(&mut engine(), script.as_bytes(), Small::killing_at(1000));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
        let text: String = bytes.iter().map(|byte| format!("\\{byte:03}")).collect();
        for call in ["cmsgpack.unpack('T')", "cjson.decode('T')", "struct.unpack('T', 'abcdefgh')", "struct.pack('T', 1, 2, 3)", "struct.size('T')"] {
            let script = format!("return pcall(function() return {} end)", call.replace('T', &text));
            run(&mut engine(), &script);
        }
    }
}
