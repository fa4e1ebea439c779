"""(m) Errors in scripts, and what every Lua type becomes on the wire."""

import pytest
from redis.exceptions import ResponseError

CAREFUL = """
local reply = redis.pcall('INCR', KEYS[1])
if type(reply) == 'table' and reply['err'] then
  redis.call('RPUSH', KEYS[2], reply['err'])
  return 'failed'
end
return reply
"""


def test_pcall_gives_the_error_and_the_script_goes_on(client):
    client.set("{e}number", "not a number")
    careful = client.register_script(CAREFUL)
    keys = ["{e}number", "{e}errors"]
    assert careful(keys=keys) == "failed"
    client.set("{e}number", 41)
    assert careful(keys=keys) == 42
    client.delete("{e}number")
    client.lpush("{e}number", "now a list")
    assert careful(keys=keys) == "failed"
    errors = client.lrange("{e}errors", 0, -1)
    assert errors == [
        "ERR value is not an integer or out of range",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
    ]
    assert client.type("{e}number") == "list"


def test_lua_pcall_around_a_failing_call(client):
    client.set("{e}text", "abc")
    # Lua's own pcall gets a table in which the text of the error is `err`.
    script = """
    local ok, problem = pcall(redis.call, 'INCR', KEYS[1])
    local text = type(problem) == 'table' and problem.err or problem
    redis.call('RPUSH', KEYS[2], tostring(ok), text)
    return 'survived'
    """
    assert client.eval(script, 2, "{e}text", "{e}log") == "survived"
    ok, text = client.lrange("{e}log", 0, -1)
    assert ok == "false"
    assert "value is not an integer or out of range" in text


def test_an_uncaught_error_keeps_what_was_written_before(client):
    """Redis does not roll back; scripts that count on that exist, so neither do we."""
    client.set("{e}text", "abc")
    script = "redis.call('SET', KEYS[1], 'written'); return redis.call('INCR', KEYS[2])"
    with pytest.raises(ResponseError, match="value is not an integer or out of range"):
        client.eval(script, 2, "{e}before", "{e}text")
    assert client.get("{e}before") == "written"


@pytest.mark.parametrize(
    ("script", "pattern"),
    [
        ("return redis.error_reply('MYCODE told so')", "^MYCODE told so"),
        ("return {err='OTHER and so'}", "^OTHER and so"),
        ("error('thrown')", "thrown"),
        ("error({err='TABLE thrown'})", "TABLE thrown"),
        ("return redis.call('NOSUCH')", "Unknown Redis command called from script"),
        ("return redis.call('GET')", "Wrong number of args calling Redis command from script"),
        ("return redis.call()", "Please specify at least one argument for this redis lib call"),
        (
            "return nothing.at.all",
            "Script attempted to access nonexistent global variable 'nothing'",
        ),
        ("leak = 1", "Attempt to modify a readonly table|create global variable 'leak'"),
        ("this is not lua", "Error compiling script"),
    ],
)
def test_error_texts(client, script, pattern):
    with pytest.raises(ResponseError, match=pattern):
        client.eval(script, 1, "key")


@pytest.mark.parametrize("thrown", ["nil", "42", "{err=1}", "{err='x'}"])
def test_a_strange_error_is_still_an_error(client, thrown):
    with pytest.raises(ResponseError):
        client.eval(f"error({thrown})", 1, "key")
    assert client.ping()


@pytest.mark.moonraft_only("the clock of redis-server 7.0 goes on in a script")
def test_time_stands_still_in_a_script(client):
    script = """
    local first, last = redis.call('TIME'), nil
    for i = 1, 10000 do last = redis.call('TIME') end
    return {first[1] == last[1] and first[2] == last[2] and 'frozen' or 'moved'}
    """
    assert client.eval(script, 1, "key") == ["frozen"]


# What a client gets for each value a script can return.
RETURNED = [
    ("return 1", 1),
    ("return 3.99", 3),
    ("return -3.99", -3),
    ("return '3.99'", "3.99"),
    ("return 'text'", "text"),
    ("return ''", ""),
    ("return true", 1),
    ("return false", None),
    ("return nil", None),
    ("return", None),
    ("return {}", []),
    ("return {1, 2, {3, 'four'}}", [1, 2, [3, "four"]]),
    ("return {1, 2, nil, 4}", [1, 2]),
    ("return {1.5, true, false, 'x'}", [1, 1, None, "x"]),
    ("return {ok='FINE'}", "FINE"),
    ("return redis.status_reply('WELL')", "WELL"),
    ("return {name='ignored'}", []),
    ("return #ARGV", 0),
    ("return KEYS", ["key"]),
    ("return tostring(1e15)", "1e+15"),
    ("return tostring(0.1)", "0.1"),
    ("return redis.sha1hex('')", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    ("return redis.call('GET', 'absent{key}')", None),
]


@pytest.mark.parametrize(("script", "expected"), RETURNED, ids=[s for s, _ in RETURNED])
def test_return_types(client, script, expected):
    assert client.eval(script, 1, "key") == expected


# What a script sees for each kind of reply.
SEEN = [
    (["SET", "{key}", "v"], "table", "ok", "OK"),
    (["GET", "{key}absent"], "boolean", None, "false"),
    (["GET", "{key}"], "string", None, "v"),
    (["STRLEN", "{key}"], "number", None, "1"),
    (["MGET", "{key}", "{key}absent"], "table", 2, "false"),
]


@pytest.mark.parametrize(("call", "kind", "field", "value"), SEEN, ids=[c[0] for c, *_ in SEEN])
def test_types_a_script_sees(client, call, kind, field, value):
    client.set("{key}", "v")
    words = ", ".join(f"'{word}'" for word in call)
    access = {None: "reply", "ok": "reply.ok", 2: "reply[2]"}[field]
    script = f"local reply = redis.call({words}); return {{type(reply), tostring({access})}}"
    assert client.eval(script, 1, "{key}") == [kind, value]


def test_libraries_a_script_finds(client):
    script = """
    local packed = cmsgpack.pack({1, 'two', {three = 3}})
    local unpacked = cmsgpack.unpack(packed)
    local json = cjson.decode('{"a": [1, 2.5, null, true], "b": {"c": "d"}}')
    return {unpacked[2], unpacked[3].three, cjson.encode({1, 'x', {y = true}}), json.a[1],
            tostring(json.a[3] == cjson.null), json.b.c}
    """
    assert client.eval(script, 1, "key") == ["two", 3, '[1,"x",{"y":true}]', 1, "true", "d"]


def test_keys_of_two_slots_are_refused(cluster):
    with cluster.leader(0).connect() as leader:
        with pytest.raises(ResponseError, match="(?i)CROSSSLOT|same slot"):
            leader.eval("return 1", 2, cluster.key_on(0), cluster.key_on(1))
