"""`INFO` and `CONFIG GET *`, field by field: what is missing here, or has another form or value."""

import re
from pathlib import Path

from sweeps.cases import Case, Reason, Step, Sweep

# Fields and settings that Moonraft has not, by pattern, and why.
NOT_HERE = {
    r"INFO (atomicvar_api|gcc_version|used_cpu_(sys|user)_main_thread)": "of Redis's own build and threads",
    r"INFO used_memory_(functions|vm_functions|vm_total(_human)?)": "there are no functions yet",
}

# Settings with another value than Redis's default, by pattern, and why.
OTHER_VALUE = {
    r"appendonly|appendfsync": "every write is synced on a majority",
    r"append(file|dir)name|dbfilename|cluster-config-file|pidfile|dir|port|bind|logfile": "files and addresses",
    r"client-output-buffer-limit|maxmemory-clients": "a client that reads nothing must not take the memory of others",
    r"cluster-require-full-coverage": "a shard serves whether or not others do",
    r"databases": "a cluster has one",
    r"disable-thp|set-proc-title": "whoever starts the node sees to it",
    r"cluster-(announce-ip|port|allow-replica-migration|(replica|slave)-validity-factor)": "the tests start Redis so",
    r"repl-(diskless-sync-delay|ping-(replica|slave)-period)": "the tests start Redis so",
    r"protected-mode": "the node listens where the cluster file says",
}

# Fields whose form may differ, and why.
OTHER_FORM = {
    r"INFO (redis_git_sha1|redis_build_id|os|executable|config_file)": "of the build and the machine",
    r"INFO (slave0|master_.*)": "of the cluster",
}

FORMS = (
    ("an integer", re.compile(r"-?\d+$")),
    ("a number", re.compile(r"-?\d+\.\d+$")),
    ("bytes for people", re.compile(r"\d+(\.\d+)?[BKMGTP]$")),
    ("percent", re.compile(r"\d+\.\d+%$")),
    ("nothing", re.compile(r"$")),
    ("text", re.compile(r".")),
)


def form(value):
    """What a value looks like."""
    return next(name for name, pattern in FORMS if pattern.match(value))


def fields(wire):
    """All fields of `INFO`, and all settings, by what is asked and name."""
    text = _text(wire.ask("INFO", "everything"))
    lines = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = {f"INFO {name}": value for name, value in lines}
    words = _bulks(wire.ask("CONFIG", "GET", "*"))
    found.update((f"CONFIG {name}", value) for name, value in zip(words[::2], words[1::2]))
    counted = ("INFO cmdstat_", "INFO errorstat_", "INFO latency_percentiles_", "INFO db")
    return {name: value for name, value in found.items() if not name.startswith(counted)}


def _body(bulk):
    return bulk.split(b"\r\n", 1)[1][:-2]


def _text(bulk):
    """Names of errors in it are the bytes that scripts raised."""
    return _body(bulk).decode(errors="backslashreplace")


def _bulks(array):
    """The elements of an array of short bulk strings without line ends."""
    return [line.decode() for line in array.split(b"\r\n")[2::2]]


def compare(redis_wire, other_wire):
    """How many fields there are, and what is wrong with which."""
    expected, found = fields(redis_wire), fields(other_wire)
    wrong = []
    for name, value in expected.items():
        why = next((why for pattern, why in NOT_HERE.items() if re.fullmatch(pattern, name)), None)
        if name not in found and not why:
            wrong.append(f"facts: {name} is missing ({value!r} there)")
        elif name in found and form(found[name]) != form(value):
            numbers = {form(found[name]), form(value)} <= {"an integer", "a number", "bytes for people"}
            known = any(re.fullmatch(it, name) for it in OTHER_FORM)
            if not name.startswith("CONFIG") and not known and not (numbers and name.endswith("_human")):
                wrong.append(f"facts: {name} is {found[name]!r} here, {value!r} there")
    for pattern in NOT_HERE:
        if not any(re.fullmatch(pattern, name) and name not in found for name in expected):
            wrong.append(f"facts: nothing is missing any more that is {pattern}")
    return len(expected), wrong + list(_other_values(expected, found))


def _other_values(expected, found):
    """Settings that have another value, or the same where another is expected."""
    settings = [name.split()[1] for name in expected if name.startswith("CONFIG ") and name in found]
    other = [name for name in settings if expected[f"CONFIG {name}"] != found[f"CONFIG {name}"]]
    for name in other:
        if not any(re.fullmatch(pattern, name) for pattern in OTHER_VALUE):
            yield f"facts: {name} is {found[f'CONFIG {name}']!r} here, {expected[f'CONFIG {name}']!r} there"
    for pattern in OTHER_VALUE:
        if not any(re.fullmatch(pattern, name) for name in other):
            yield f"facts: no value differs any more of {pattern}"


# ---- settings that take numbers ----

NUMBERS = (
    *("0", "1", "-1", "1024", "00012", "+1", " 1", "1 ", "1.5", "1e3", "0x10", "", "x", "-", "%", "10%"),
    *("100%", "101%", "0%", "1%", "-1%", "1.5%", "10 %", "1b", "1B", "2k", "2K", "2kb", "2KB", "3m", "3mb"),
    *("1g", "1gb", "1gB", "1t", "1tb", "1p", "kb", "1 mb", "1kbb", "2147483647", "2147483648", "5.5mb"),
)
SMALL = Reason(
    r"CONFIG SET maxmemory-clients '(1|1024|00012|1b|1B|2k|2K|2kb|2KB|3m|3mb)'$",
    "so little would disconnect every client, also the one that would take it back",
)
TAKERS = (
    *("maxmemory", "maxmemory-clients", "timeout", "tcp-keepalive", "slowlog-log-slower-than"),
    *("maxmemory-samples", "lfu-log-factor", "lfu-decay-time"),
)


def settings_cases():
    """Each form of a number for each setting that takes one, and what it is then."""
    for name in TAKERS:
        for value in NUMBERS:
            yield _case(name, value)
        yield _case(name, "0")
    before = ("slowlog-log-slower-than", "10000", "maxmemory-samples", "5", "lfu-log-factor", "10", "lfu-decay-time", "1")
    yield Case("as it was", [_step("CONFIG", "SET", *before)])
    for words in (("CONFIG", "SET", "maxmemory"), ("CONFIG", "SET", "maxmemory", "1", "timeout")):
        yield Case(" ".join(words), [_step(*words)])


# ---- settings that change nothing, or are always the same ----

OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
VALUES = ("yes", "NO", "0", "1", "-1", "100", "1kb", "1000000", "2147483648", "9223372036854775808", "x", "=", "")
WORDS = ("save", "1 2", "1 2 3", "0 1", "nosave now", "save nosave", "swapdb", "PANIC", "allchannels", "clients")
# Those that Redis would follow.
TEXTS = r"requirepass|bind|bind-source-addr|.*announce-(ip|hostname)|tls-.*|notify-.*|proc-title-template"


def told(section):
    """The names of the settings in a section of the page for operators."""
    page = OPERATIONS.read_text().split(f"<!-- {section} -->")[1].split("<!-- end of")[0]
    lines = (line.split(" | ")[0] for line in page.splitlines())
    return [name for line in lines for name in re.findall(r"`([a-z0-9_-]+)`", line)]


def known_settings(wire):
    """Names of settings with their values, also of those that are shown to who names them."""
    names = told("kept") + told("refused")
    found = [(name, _bulks(wire.ask("CONFIG", "GET", name))) for name in names]
    return {name: pair[1] for name, pair in found if pair}


def compare_settings(redis_wire, other_wire):
    """How many settings there are that change nothing or do not change, and which of them take something else."""
    wrong = []
    known, sets = known_settings(redis_wire), 0
    for wire in (redis_wire, other_wire):
        for name, value in known.items():  # what the tests started it with
            wire.ask("CONFIG", "SET", name, value)
    for name, default in known.items():
        kept = name in told("kept")
        if not kept and re.fullmatch(TEXTS, name):
            continue
        for value in (*VALUES, *WORDS, default) if kept else ("=",):
            sets += 1
            answers = []
            for wire in (redis_wire, other_wire):
                answers.append((wire.ask("CONFIG", "SET", name, value), wire.ask("CONFIG", "GET", name)))
            same = answers[0] == answers[1] if kept else answers[0][0] == answers[1][0]
            if not same:
                wrong.append(f"CONFIG SET {name} {value!r}: {answers[0]} there, {answers[1]} here")
    return sets, wrong


def _case(name, value):
    # From a known value, should this one be refused.
    steps = [_step("CONFIG", "SET", name, "0"), _step("CONFIG", "SET", name, value), _step("CONFIG", "GET", name)]
    return Case(f"CONFIG SET {name} {value!r}", steps)


def _step(*words):
    return Step(words=words)


# ---- what is counted ----

COUNTED = (
    "eval 'return redis.call(\"incr\", KEYS[1])' 1 {k}l",
    "eval 'return redis.pcall(\"incr\", KEYS[1])' 1 {k}l",
    "eval 'redis.pcall(\"incr\", KEYS[1]) return 1' 1 {k}l",
    "eval 'redis.pcall(\"nothing\") return redis.call(\"get\")' 1 {k}l",
    "eval 'redis.pcall(\"incr\", KEYS[1]) error(\"other\")' 1 {k}l",
    "eval 'return redis.error_reply(\"MY err\")' 0",
    "eval 'error(\"x\")' 0",
    "eval 'syntax error' 0",
    "eval 'redis.call(\"set\", KEYS[1], 1) return redis.call(\"get\", KEYS[1])' 1 {k}s",
    "eval 'return redis.call(\"config\", \"get\", \"x\")' 0",
    "evalsha x 0 ; evalsha 0000000000000000000000000000000000000000 0",
    "multi ; incr {k}l ; set {k}s 1 ; get {k}s ; exec",
    "multi ; nothing ; get ; exec",
    "multi ; eval 'return redis.call(\"get\", KEYS[1])' 1 {k}s ; eval 'return redis.call(\"incr\", KEYS[1])' 1 {k}l ; exec",
    "multi ; get {k}s ; discard",
    "get ; nothing ; get {k}l ; get {k}s ; object nothing ; config",
    "exec ; discard ; unwatch",
    "set {k}s 1 ; get {k}s ; mget {k}s {k}l",
)


def counted(wire, requests):
    """What `INFO` and `LATENCY HISTOGRAM` have counted after some requests."""
    reset = (("DEL", "{k}s", "{k}l"), ("RPUSH", "{k}l", "1"), ("SET", "{k}s", "x"), ("CONFIG", "RESETSTAT"))
    for words in reset:
        wire.ask(*words)
    for request in requests.split(" ; "):
        wire.ask(*_words(request))
    lines = _text(wire.ask("INFO", "commandstats", "errorstats")).splitlines()
    found = [re.sub(r"usec=\d+,usec_per_call=[\d.]+,", "", line) for line in lines if "stat_" in line]
    histogram = wire.ask("LATENCY", "HISTOGRAM", "get", "set", "eval", "incr", "multi")
    return sorted(line for line in found if "config" not in line), _calls(histogram)


def _words(request):
    parts = request.split("'")
    return [word for odd, part in enumerate(parts) for word in ([part] if odd % 2 else part.split())]


def _calls(histogram):
    """How many calls of which command a histogram tells of."""
    lines = histogram.decode().split("\r\n")
    # $n, the command's name; *4; $5, calls; :n
    return sorted((lines[at - 2], lines[at + 1]) for at, line in enumerate(lines) if line == "calls")


def compare_counts(redis_wire, other_wire):
    """How many situations there are, and what is counted otherwise in which."""
    wrong = []
    for requests in COUNTED:
        expected, found = counted(redis_wire, requests), counted(other_wire, requests)
        if expected != found:
            wrong.append(f"counts differ: {requests}\n    redis    {expected}\n    moonraft {found}")
    return len(COUNTED), wrong


def sweep(_commands, _known):
    """The sweep of settings."""
    return Sweep("settings", list(settings_cases()), [SMALL])
