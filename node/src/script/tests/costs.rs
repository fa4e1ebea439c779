//! What scripts cost is counted, whatever it is called: no work is long between two
//! questions, garbage is not what a script holds, and kept chunks are no garbage.
//!
//! Costs are counted here, not timed: the host's clock stands still.

use super::*;

/// What one question may stand for: the usual distance, and the longest text of these
/// tests, which is worked on at once.
const WORK_MAX: usize = 3 << 20;

/// Made before each of the scripts: texts of a megabyte, a table of a hundred thousand entries.
const PREPARED: &str = "
    local s = ('x'):rep(1000000)
    local a, b = s .. 'a', s .. 'b'
    local t = {} for i = 1, 100000 do t[i] = 'v' end
    local many = {} for i = 1, 100000 do many[i] = i end
";

/// Scripts of which each costs ten million bytes touched or steps made, or more.
const EXPENSIVE: [&str; 44] = [
    // Comparing.
    "for i = 1, 100 do local _ = a < b end",
    "for i = 1, 100 do local _ = a <= b end",
    "local l = {} for i = 1, 100 do l[i] = a end table.sort(l)",
    // Converting.
    "for i = 1, 100 do local _ = tonumber(s) end",
    "local d = ('1'):rep(1000000) for i = 1, 80 do local _ = d + 1 end",
    "for i = 1, 40 do local _ = tostring(s) .. i end",
    // Joining and making texts.
    "for i = 1, 100 do local _ = s .. i end",
    "for i = 1, 20 do table.concat({s, i}) end",
    "for i = 1, 20 do table.concat(t) table.concat(many, ',') end",
    "for i = 1, 20 do (s .. i):rep(2) end",
    "for i = 1, 100 do string.format('%s%d', s, i) end",
    "for i = 1, 40 do string.format('%q', s) end",
    "for i = 1, 20 do (s .. i):upper() end",
    "for i = 1, 20 do (s .. i):lower() end",
    "for i = 1, 20 do (s .. i):reverse() end",
    "for i = 1, 100 do s:sub(i) end",
    "for i = 1, 300 do s:byte(1, 100) end",
    "for i = 1, 20 do redis.sha1hex(s) end",
    // Tables.
    "for i = 1, 20 do table.insert(many, 1, i) end",
    "for i = 1, 20 do table.remove(many, 1) end",
    "for i = 1, 20 do table.maxn(many) end",
    "for i = 1, 20 do table.foreach(many, type and function() end) end",
    "for i = 1, 20 do table.foreachi(many, getmetatable) end",
    "for i = 1, 40 do for j = 1, 7900, 1 do end unpack(many, 1, 7900) end",
    "local l = {} for i = 1, 20000 do l[i] = i end table.sort(l, function(x, y) return x > y end)",
    // Patterns.
    "for i = 1, 20 do s:find('y', 1, true) end",
    "s:sub(1, 100000):find('[' .. ('y'):rep(100) .. ']')",
    "s:sub(1, 100):find('[^' .. ('y'):rep(2000) .. ']*y')",
    "local p = '%f[' .. ('y'):rep(100) .. ']' s:sub(1, 50000):find(p)",
    "for i = 1, 10 do s:sub(1, 100000):gsub('x', 'yy') s:sub(1, 100000):gsub('x', {x = 'z'}) end",
    "for i = 1, 3 do for _ in s:gmatch(('x'):rep(100)) do end end",
    "for i = 1, 3 do s:gsub(('x'):rep(100), function() return 'y' end) end",
    "for i = 1, 10 do s:sub(1, 3000):gsub('.+', ('%0'):rep(500)) end",
    // Documents.
    "for i = 1, 3 do cjson.encode(many) end",
    "local d = cjson.encode(many) for i = 1, 3 do cjson.decode(d) end",
    "for i = 1, 5 do cjson.decode(cjson.encode(('\\1'):rep(100000))) end",
    "for i = 1, 3 do cmsgpack.pack(many) end",
    "local d = cmsgpack.pack(many) for i = 1, 3 do cmsgpack.unpack(d) end",
    "for i = 1, 10 do struct.unpack('s', struct.pack('s', s)) end",
    // Texts to compile.
    "local p = {} for i = 1, 8000 do p[i] = 'a or ' end loadstring('return ' .. table.concat(p) .. 'a')",
    "local p = {} for i = 1, 20000 do p[i] = i .. ',' end for i = 1, 3 do loadstring('return {' .. table.concat(p) .. '}') end",
    // Commands, and what is returned.
    "redis.call('set', 'k', s) for i = 1, 20 do redis.call('get', 'k') end",
    "for i = 1, 20000 do redis.call('rpush', 'l', 'v') end for i = 1, 10 do redis.call('lrange', 'l', 0, -1) end",
    "return {many, t}",
];

#[test]
fn no_work_is_long_between_two_questions() {
    for script in EXPENSIVE {
        let mut engine = engine();
        let (before, outcome) = run_with(&mut engine, PREPARED.as_bytes(), Small::default());
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        let text = format!("{PREPARED}{script}");
        let (host, outcome) = run_with(&mut engine, text.as_bytes(), Small::default());
        assert!(matches!(outcome, Outcome::Done(_)), "{script}: {outcome:?}");
        let questions = host.polls - before.polls;
        assert!(questions >= 10, "{script}: asked {questions} times more than for what it began with");
        assert!(engine.work_longest() <= WORK_MAX, "{script}: {}", engine.work_longest());
    }
}

#[test]
fn a_text_that_multiplies_is_asked_about_while_it_grows() {
    for replacement in ["('%0'):rep(100000)", "('%1'):rep(100000)", "{x = ('x'):rep(100000)}"] {
        let script = format!("return ('x'):rep(100000):gsub('(x+)', {replacement})");
        let script = if replacement.starts_with('{') { script.replace("(x+)", "x") } else { script };
        let (host, outcome) = run_with(&mut engine(), script.as_bytes(), Small::default());
        assert!(matches!(outcome, Outcome::Killed(KillReason::Memory, _)), "{outcome:?}");
        assert!(host.polls >= 20, "{script}: asked {} times", host.polls);
    }
}

/// Texts that the parser would take seconds for.
#[test]
fn compiling_is_asked_and_can_be_killed() {
    let nested = (0..40).fold(String::new(), |text, depth| {
        let names: Vec<String> = (0..150).map(|name| format!("a{depth}_{name}")).collect();
        format!("{text}local {} local f=function() ", names.join(","))
    });
    for text in [
        format!("return {}a", "a or ".repeat(10_000)),
        format!("if a then {} end", "elseif a then ".repeat(10_000)),
        format!("{nested} {} {}", "b=b ".repeat(5_000), "end ".repeat(40)),
        format!("return {{{}}}", (0..20_000).map(|n| format!("'{n}',")).collect::<String>()),
    ] {
        let (host, loaded) = engine().load(text.as_bytes(), Small::default());
        assert!(loaded.is_ok(), "{loaded:?}");
        assert!(host.polls * (8 << 10) >= text.len(), "asked {} times", host.polls);
        let (_, loaded) = engine().load(text.as_bytes(), Small::killing_at(host.polls / 2));
        assert!(matches!(loaded, Err(Outcome::Killed(KillReason::User, _))), "{loaded:?}");
        let (_, outcome) = run_with(&mut engine(), text.as_bytes(), Small::killing_at(host.polls / 2));
        assert!(matches!(outcome, Outcome::Killed(KillReason::User, _)), "{outcome:?}");
    }
}

#[test]
fn garbage_is_not_what_a_script_holds() {
    let mut engine = engine();
    for script in [
        "for i = 1, 8 do local t = {} for j = 1, 300000 do t[j] = j end end return 1",
        "for i = 1, 10 do local t = {} for j = 1, 40000 do t['k' .. j] = j end end return 1",
        "redis.call('set', 'k', ('x'):rep(1000000)) for i = 1, 100 do local s = redis.call('get', 'k') .. i end return 1",
        "local c, s = ('x'):rep(10000), '' for i = 1, 400 do s = s .. c end return s:len() / 4000000",
        "local s = '' for i = 1, 1000 do s = s .. ('x'):rep(1000) end return s:len() / 1000000",
        "local s = 'x' for i = 1, 22 do s = s .. s end return 1",
        "local s = ('x'):rep(3000000) for i = 1, 30 do local _ = s:upper() .. i end return 1",
        "local s = ('x'):rep(2000000) for i = 1, 60 do local _ = s:sub(i) end return 1",
        "local s = ('x'):rep(2000000) for i = 1, 60 do local _ = string.format('%s%d', s, i) end return 1",
        "for i = 1, 100 do local _ = ('x'):rep(1000000 + i) end return 1",
        "for i = 1, 40 do cjson.decode(cjson.encode({('x'):rep(200000 + i)})) end return 1",
        "for i = 1, 40 do pcall(function() local t = {} for j = 1, 20000 do t[j] = {} end error('x') end) end return 1",
        "for i = 1, 20000 do coroutine.wrap(function() end)() end return 1",
    ] {
        for _ in 0..2 {
            assert_eq!(run(&mut engine, script), Outcome::Done(Reply::Int(1)), "{script}");
        }
    }
    let literal = format!("local s = '' for i = 1, 400 do s = s .. '{}' end return 1", "x".repeat(10_000));
    assert_eq!(run(&mut engine, &literal), Outcome::Done(Reply::Int(1)));
}

#[test]
fn what_a_script_holds_is_bounded_to_the_limit() {
    let mut engine = engine();
    let holding = |megabytes: usize| {
        format!("local t = {{}} for i = 1, {megabytes} do t[i] = ('x'):rep(1000000) .. i end return #t")
    };
    assert_eq!(run(&mut engine, &holding(28)), Outcome::Done(Reply::Int(28)));
    for _ in 0..3 {
        let outcome = run(&mut engine, &holding(40));
        assert!(matches!(outcome, Outcome::Killed(KillReason::Memory, _)), "{outcome:?}");
        assert_eq!(run(&mut engine, &holding(28)), Outcome::Done(Reply::Int(28)), "after one that failed");
    }
}

#[test]
fn many_scripts_are_kept_and_slow_none_down() {
    let mut engine = engine();
    for number in 0..2_000 {
        let text = format!("local n = {number} --{}\nreturn n", "x".repeat(1_000));
        assert_eq!(run(&mut engine, &text), Outcome::Done(Reply::Int(number)));
    }
    run(&mut engine, "return 1");
    for _ in 0..100 {
        let (host, outcome) = run_with(&mut engine, b"return 1", Small::default());
        assert_eq!(outcome, Outcome::Done(Reply::Int(1)));
        assert_eq!(host.polls, 0, "nothing is collected, which would be asked for");
    }
}

#[test]
fn compiled_scripts_are_bounded_in_bytes_and_the_least_used_go_first() {
    let limits = Limits { memory_bytes: 32 << 20, chunk_bytes: 8 << 20, ..Limits::default() };
    let mut engine = Engine::new(limits).expect("it starts");
    for number in 0..52 {
        let text = format!("local s = '{}' return {number}", "x".repeat(1_000_000));
        assert_eq!(run(&mut engine, &text), Outcome::Done(Reply::Int(number)));
        assert_eq!(run(&mut engine, "return 'used'"), Outcome::Done(Reply::text("used")));
        assert!(engine.chunk_count() >= 2, "the one that is used, and the last");
        assert!(engine.memory_bytes() < 24 << 20, "{} bytes", engine.memory_bytes());
    }
    let holding = "local t = {} for i = 1, 28 do t[i] = ('x'):rep(1000000) .. i end return #t";
    assert_eq!(
        run(&mut engine, holding),
        Outcome::Done(Reply::Int(28)),
        "kept chunks take nothing of a script's"
    );
}
