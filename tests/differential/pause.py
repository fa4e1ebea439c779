"""Every command while clients are paused: which wait, which are served, and what becomes of keys meanwhile."""

from situation import END, ENDING, NEWER, Pair, question, rows, shown

from harness.processes import eventually

# Of a pause that somebody ends: longer than any run.
LONG_MS = 100_000

KEY = "{pause}key"

# Not sent, and why.
LEFT_OUT = {
    "client|pause": "it would change the pause",
    "client|unpause": "it would end the pause",
    "script|flush": "the scripts by name would be gone",
    "shutdown": "it would end both servers",
    "debug|populate": "to Redis no word of DEBUG is a write",
    **dict.fromkeys(ENDING, "it would end redis-server"),
    "migrate": "it is refused here, whatever goes on",
    "monitor": "its connection then hears of everything",
    "sync": "its connection becomes a replica's",
    "psync": "its connection becomes a replica's",
    "waitaof": "so does its shortest request",
    "wait": "its shortest request waits by itself, for a millisecond; below it is asked for no replica",
}

READS = "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])"
WRITES = "#!lua\nreturn redis.call('GET', KEYS[1])"
SCRIPTS = (
    ["EVAL", READS, "1", KEY],
    ["EVAL", WRITES, "1", KEY],
    ["EVAL", "return 1", "0"],
    ["EVAL", "#!lua flags=no-writes,nonsense\nreturn 1", "0"],
    ["EVAL", "#!lua flags=no-writes", "0"],
    ["EVAL_RO", "return 1", "0"],
    ["EVAL_RO", READS, "1", KEY],
    ["EVAL_RO", WRITES, "1", KEY],
    ["EVALSHA", "%(reads)s", "1", KEY],
    ["EVALSHA", "%(writes)s", "1", KEY],
    ["EVALSHA", "0" * 40, "0"],
    ["EVALSHA_RO", "%(reads)s", "1", KEY],
    ["EVALSHA_RO", "%(writes)s", "1", KEY],
    ["SCRIPT", "LOAD", "return 2"],
    ["PUBLISH", "news", "text"],
    ["SPUBLISH", "news", "text"],
    ["SORT", KEY],
    ["WAIT", "0", "1"],
    ["NO-SUCH", "command"],
)

HELD, SERVED = b"(waits)", b"(is served)"


def sweep(ports, comparison):
    """All rows in a pause of writes and in one of everything, alone and in blocks; then keys that expire."""
    operator = Pair(ports)
    names = {
        "reads": _name(operator.ask("SCRIPT", "LOAD", READS)),
        "writes": _name(operator.ask("SCRIPT", "LOAD", WRITES)),
    }
    requests = [row.request("1") for row in rows(ports[1]) if not _is_left_out(row)]
    requests += [[word % names if word[:2] == "%(" else word for word in words] for words in SCRIPTS]
    for before, after in (((), ()), ((["MULTI"],), (["EXEC"],))):
        _who_waits(ports, operator, requests, before, after, comparison)
    _keys_that_expire(ports, operator, comparison)
    operator.close()


def _is_left_out(row):
    # Operators' words for the cluster would take a real one apart.
    is_about_cluster = row.name.startswith("cluster|") and "admin" in row.flags
    # What 7.0 does not know it answers at once, whatever is paused.
    is_newer = row.name in NEWER and "write" in row.flags
    return is_about_cluster or is_newer or row.name in LEFT_OUT


def _name(answers):
    assert answers[0] == answers[1], answers
    return answers[0].split(b"\r\n")[1].decode()


def _who_waits(ports, operator, requests, before, after, comparison):
    """Which of these requests wait while writes are paused."""
    sessions = []
    for words in requests:
        session = Pair(ports)
        session.send(*before, [END])
        session.until_end()
        sessions.append((words, session))
    operator.ask("CLIENT", "PAUSE", LONG_MS, "WRITE")
    for words, session in sessions:
        session.send(words, *after, [END])
    # What the real server serves at once the other serves soon.
    _round_trips(operator)
    for words, session in sessions:
        expected, found = [_state(wire) for wire in session.wires]
        if expected == SERVED and found == HELD:
            found = _state(session.wires[1], within=2)
        text = shown([*sum(before, []), *words, *sum(after, [])])
        comparison.compare(question("pause", text), 2, expected, found)
    operator.ask("CLIENT", "UNPAUSE")
    for _, session in sessions:
        session.until_end()
        session.close()


def _round_trips(pair):
    """What was sent before on other connections has been read when these are answered."""
    for _ in range(5):
        pair.ask("ECHO", "once more")


def _state(wire, within=0.0001):
    """Whether something can be read."""
    return SERVED if wire.is_readable(within) else HELD


LOOKS = (
    ["GET", "{pause}gone"],
    ["EXISTS", "{pause}gone"],
    ["TTL", "{pause}gone"],
    ["TYPE", "{pause}gone"],
    ["STRLEN", "{pause}gone"],
    ["MGET", "{pause}gone", "{pause}stays"],
    ["TOUCH", "{pause}gone"],
    ["DUMP", "{pause}gone"],
    ["OBJECT", "ENCODING", "{pause}gone"],
    ["RANDOMKEY"],
    ["KEYS", "*"],
    ["SCAN", "0", "COUNT", "1000"],
    ["EVAL", READS, "1", "{pause}gone"],
    ["EVAL_RO", "return redis.call('EXISTS', KEYS[1])", "1", "{pause}gone"],
    ["WATCH", "{pause}gone"],
    ["MULTI"],
    ["GET", "{pause}gone"],
    ["EXEC"],
    # Nothing of it has gone.
    ["DBSIZE"],
)


def _keys_that_expire(ports, operator, comparison):
    """A key whose time comes in a pause is seen no more, and is there until the pause ends."""
    other = Pair(ports)
    other.ask("FLUSHALL")
    other.ask("SET", "{pause}stays", "1")
    other.ask("SET", "{pause}gone", "1", "PX", "30")
    other.ask("SET", "{pause}watched", "1", "PX", "30")
    operator.ask("CLIENT", "PAUSE", LONG_MS, "WRITE")
    eventually(lambda: other.ask("GET", "{pause}gone") == [b"$-1\r\n"] * 2, what="the key is seen no more")
    for words in LOOKS:
        comparison.compare(question("pause", shown(words)), 2, *other.ask(*words))
    # To whom it was gone already it does not change when it is removed.
    other.ask("WATCH", "{pause}watched")
    operator.ask("CLIENT", "UNPAUSE")
    eventually(lambda: operator.ask("DBSIZE") == [b":1\r\n"] * 2, what="expired keys go after the pause")
    for words in (["MULTI"], ["GET", "{pause}stays"], ["EXEC"]):
        comparison.compare(question("pause", f"then {shown(words)}"), 2, *other.ask(*words))
    other.close()
