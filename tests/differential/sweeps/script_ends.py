"""What a script finds, name by name, and what it ends with: values, errors and bytes of every shape."""

from sweeps.cases import Case, Reason, Step, Sweep

LIBRARIES = ("_G", "bit", "cjson", "cmsgpack", "coroutine", "math", "redis", "string", "struct", "table")

# Names that differ, each a case of its own.
DIFFERENT = {
    "_G": ("__server__err__handler", "os", "server"),
    "redis": ("REDIS_VERSION", "REDIS_VERSION_NUM"),
    "string": ("dump",),
}

# What a library holds: names, types, and what is no function or table itself.
MEMBERS = """
local library, left_out, found = ARGV[1], {}, {}
for at = 2, #ARGV do left_out[ARGV[at]] = true end
for name, value in pairs(rawget(_G, library)) do
  if not left_out[name] then
    local plain = type(value) == 'number' or type(value) == 'string'
    found[#found + 1] = name .. ' ' .. type(value) .. ' ' .. (plain and tostring(value) or '')
  end
end
table.sort(found)
return found
"""
MEMBER = """
local value = rawget(rawget(_G, ARGV[1]), ARGV[2])
return {type(value), tostring(type(value) ~= 'table' and type(value) ~= 'function' and value)}
"""

# Objects that have a text everywhere; the others are asked where they are caught.
WITH_TEXT = (
    *("{err='x'}", "{err='My Err'}", "{err='-My Err'}", "{err=''}", "{err='a\\r\\nb c'}", "{err='\\255\\254 a'}"),
    *("{err='a\\0b'}", "{err=1}", "{err=1.5}", "{err=1e17}", "{ok='x', err='y'}", "{err='x', source='s', line=3}"),
    *("setmetatable({}, {__index={err='meta'}})", "setmetatable({}, {__index=function() return 'meta' end})"),
    *("1", "1.5", "1e17", "-0.0", "0/0", "1/0", "nil", "true", "false", "'text'", "''", "'a\\r\\nb'", "'a\\0b'"),
    *("'\\255'", "'-x y'", "'ERR x y'", "redis.error_reply('Mine x')", "redis.error_reply('\\255')"),
    *("redis.pcall('nosuch')", "redis.pcall('get')", "redis.pcall('incr', KEYS[1], '\\255')"),
)
WITHOUT_TEXT = (
    *("{err=true}", "{err={}}", "{err={err='x'}}", "{err=function() end}", "{}", "{1, 2}", "{ok='x'}", "{double=1}"),
    *("setmetatable({}, {__tostring=function() return 'meta' end})", "redis.status_reply('\\255')"),
)
UNCAUGHT = (
    *("error(%s)", "error(%s, 0)", "error(%s, 2)", "assert(false, %s)", "local function f() error(%s) end f()"),
    *("local ok, e = pcall(error, %s) error(e)", "coroutine.wrap(function() error(%s) end)()"),
    *("local t = setmetatable({}, {__index=function() error(%s) end}) return t.x",),
    *("for k in function() error(%s) end do end", "string.gsub('a', 'a', function() error(%s) end)"),
    *("table.sort({1, 2}, function() error(%s) end)", "table.foreach({1}, function() error(%s) end)"),
)
CAUGHT = (
    *("local ok, e = pcall(error, %s) return {ok, type(e), e}", "local ok, e = pcall(function() error(%s) end) return e"),
    *("local ok, e = xpcall(function() error(%s) end, function(e) return e end) return {ok, type(e), e}",),
    *("local ok, e = xpcall(function() error(%s) end, function(e) error(e) end) return {ok, type(e)}",),
    *("local c = coroutine.create(function() error(%s) end) return {coroutine.resume(c)}",),
    *("local f, e = load(function() error(%s) end) return {type(f), type(e), e}",),
    *("return %s", "return {1, %s}"),
)

# What a script returns: one frame each, whatever bytes are in it.
TEXTS = ("'x'", "''", "'a\\r\\nb'", "'\\r'", "'\\n'", "'a\\0b'", "'\\0'", "'\\255\\254'", "'-1'", "'\\195\\188'", "12", "{}")
RETURNED = (
    *("return %s", "return {%s}", "return {ok=%s}", "return {err=%s}", "return {{ok=%s}, {err=%s}}"),
    *("return redis.error_reply(%s)", "return redis.status_reply(%s)", "return {big_number=%s}"),
    *("return {verbatim_string={format='txt', string=%s}}", "return {verbatim_string={format=%s, string='x'}}"),
    *("return {map={[%s]=1}}", "return {set={[%s]=true}}", "return {double=%s}"),
    *("return redis.call('echo', %s)", "return redis.pcall(%s)", "return redis.sha1hex(%s)"),
    *("return {loadstring(%s)}", "local f, e = loadstring(%s) return e", "local f, e = loadstring('x=', %s) return e"),
    *("return _G[%s]", "return ({})[%s].x", "return struct.pack(%s, 1)", "return string.format('%%' .. %s, 1)"),
    *("return cjson.decode(%s)", "return cjson.encode_keep_buffer(%s)", "return collectgarbage(%s)"),
    *("collectgarbage(%s) return 1", "return rawequal(%s, %s)", "return tonumber(%s)"),
)

# Numbers that are handed on: `unpack`, bounds of `math.random`, seeds.
NUMBERS = ("0", "1", "7", "-1", "1.5", "2^31-1", "2^31", "-2^31", "2^32+5", "1e18", "-1e18", "1e300", "0/0", "'7'", "'x'", "nil")
NUMBERED = (
    *("math.randomseed(%s) return {tostring(math.random()), math.random(1000)}",),
    *("math.randomseed(3) return tostring(math.random(%s))", "math.randomseed(3) return tostring(math.random(-5, %s))"),
    *("math.randomseed(3) return tostring(math.random(%s, 5))", "return select('#', unpack({}, 1, %s))"),
    *("return select('#', unpack({}, %s))", "return select('#', unpack({}, %s, 2^31-1))"),
)
WHOLE = (
    # Not what would set the collector of the real server for good.
    *("return collectgarbage('collect')", "return collectgarbage('counts')", "return collectgarbage('count') > 1"),
)
LONG = (
    *("local n = select('#', unpack({}, 1, %d)) return n" % count for count in (7900, 7997, 7998)),
    *("local t = {} for i = 1, %d do t[i] = 'v' .. i end local n = select('#', unpack(t)) return n" % count for count in (7999, 8000)),
    "local t = {} for i = 1, 7900 do t[i] = 'v' .. i end return redis.call('del', KEYS[1], unpack(t))",
)

REASONS = [
    Reason("^_G.(os|server|__server__err__handler)$", "as in Valkey 9, of which os.clock is in Redis 7.4, too"),
    Reason("^redis.REDIS_VERSION", "the version whose behaviour scripts get"),
    Reason("^string.dump$", "no compiled code is taken"),
]


def _case(text, script, *arguments):
    return Case(text, [Step(words=("EVAL", script, "1", "{k}n", *arguments))])


def _scripts():
    for forms, objects in ((UNCAUGHT, WITH_TEXT), (CAUGHT, WITH_TEXT + WITHOUT_TEXT), (RETURNED, TEXTS), (NUMBERED, NUMBERS)):
        for form in forms:
            for value in objects:
                yield form % ((value,) * form.replace("%%", "").count("%s"))
    yield from WHOLE + LONG


def sweep(_commands, _known):
    """Names, then scripts in both protocols of replies."""
    cases = []
    for library in LIBRARIES:
        different = DIFFERENT.get(library, ())
        cases.append(_case(f"members of {library}", MEMBERS, library, *different))
        cases += [_case(f"{library}.{name}", MEMBER, library, name) for name in different]
    for protocol in ("2", "3"):
        cases.append(Case("HELLO", [Step(words=("HELLO", protocol), compare="nothing")]))
        for script in _scripts():
            cases.append(_case(script, script))
            if protocol == "3" and script.startswith("return {"):
                cases.append(_case(f"setresp {script}", f"redis.setresp(3) {script}"))
    return Sweep("ends of scripts", cases, REASONS)
