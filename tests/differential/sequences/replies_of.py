"""How replies to drawn requests are compared: exactly, but for what a command does not promise."""

import re

from replies import shape, unordered
from sequences import scripts

from harness.wire import trees

UNORDERED = {
    *("smembers", "sinter", "sunion", "sdiff", "hgetall", "hkeys", "hvals", "keys", "scan", "sscan", "hscan", "zscan"),
    *("spop", "function|list", "pubsub|channels", "pubsub|shardchannels"),
    *("georadius", "georadius_ro", "georadiusbymember", "georadiusbymember_ro", "geosearch", "sort", "sort_ro"),
    *("xinfo|stream", "xinfo|groups", "xinfo|consumers", "command|getkeysandflags"),
}
# Scores and distances are doubles: 7.0 writes them with 17 digits.
NUMBERS = {
    *("zadd", "zincrby", "zscore", "zmscore", "zrange", "zrangebyscore", "zrevrange", "zrevrangebyscore", "zscan"),
    *("zpopmin", "zpopmax", "zmpop", "bzmpop", "bzpopmin", "bzpopmax", "zinter", "zunion", "zdiff", "geopos"),
    *("georadius", "georadius_ro", "georadiusbymember", "georadiusbymember_ro", "geosearch"),
    *("incrbyfloat", "hincrbyfloat"),
}
# Random, or bytes of the server's own: only the shape counts.
SHAPE = {"srandmember", "hrandfield", "zrandmember", "dump", "function|dump", "randomkey", "object|idletime", "object|refcount", "cluster|getkeysinslot"}
# Times from now.
TIMES = {"ttl": 30, "pttl": 30_000, "expiretime": 30, "pexpiretime": 30_000}
# Milliseconds since something, in milliseconds.
IDLE = {"xpending", "xinfo|consumers", "xinfo|groups", "xinfo|stream"}
IDLE_MS = 60_000
# What 7.2 tells and 7.0 does not, and what is about how it is kept.
DROPPED = (b"inactive", b"active-time", b"seen-time", b"idle", b"radix-tree-keys", b"radix-tree-nodes")
SCRIPT_ROWS = {"eval": 3, "eval_ro": 3, "evalsha": 3, "evalsha_ro": 3, "fcall": 3, "fcall_ro": 3}
# Which encodings 7.2, and so the server under test, may have where 7.0 has another.
# They follow from the value, not from how it came about.
ENCODINGS = {
    b"quicklist": (b"listpack",),
    b"hashtable": (b"listpack", b"intset"),
    b"skiplist": (b"listpack",),
    b"raw": (b"embstr", b"int"),
    b"embstr": (b"raw", b"int"),
}


def row(words):
    """The name of a request's row."""
    name = words[0].decode(errors="replace").lower()
    if len(words) > 1 and name in CONTAINERS:
        return f"{name}|{words[1].decode(errors='replace').lower()}"
    return name


CONTAINERS = {"object", "xinfo", "xgroup", "function", "cluster", "pubsub", "script", "command", "client", "config"}


def _rows(words):
    """Rows of a request, and of what it has a script call."""
    name = row(words)
    found = {name}
    if name in SCRIPT_ROWS and len(words) > 2 and words[2].isdigit():
        for call in scripts.unpacked(words[3 + int(words[2]) :]):
            found |= {row(call)} if call else set()
    return found


class Queue:
    """What a connection has queued since `MULTI`, as its replies tell."""

    def __init__(self):
        self.queued = None
        # What was refused instead of being queued: by this `EXEC` fails.
        self.refused = []

    def hears(self, words, reply):
        """Takes a request and its reply in. Which requests the reply answers: several for `EXEC`."""
        name = row(words)
        queued, is_exec = self.queued, name == "exec"
        if name in ("exec", "discard", "reset"):
            self.queued = None
        elif name == "multi" and queued is None and reply == b"+OK\r\n":
            self.queued, self.refused = [], []
        elif queued is not None:
            (queued if reply == b"+QUEUED\r\n" else self.refused).append(words)
        return queued if is_exec and queued else None


def equal(words, block, expected, found):
    """Whether both replies say the same; `block` is what `EXEC` executed, or nothing."""
    if expected == found:
        return True
    one, other = trees(expected), trees(found)
    if len(one) != 1 or len(other) != 1:
        return False
    return _equal(words, block, one[0], other[0])


def _equal(words, block, one, other):
    if one == other:
        return True
    if block and isinstance(one[1], list) and isinstance(other[1], list) and len(one[1]) == len(other[1]) == len(block):
        return all(_equal(queued, None, *pair) for queued, *pair in zip(block, one[1], other[1]))
    rows = _rows(words)
    if one[0] != other[0] and not (rows & IDLE):
        return False
    if len(rows) == 1:
        (name,) = rows
        if name in TIMES:
            return _near(one, other, TIMES[name])
        if name == "object|encoding":
            return other[1] in ENCODINGS.get(one[1], ())
        if name == "xpending":
            return _pending(one) == _pending(other)
    if rows & SHAPE:
        return shape(one) == shape(other)
    views = [_idle] if rows & IDLE else []
    if rows & NUMBERS or any(name in SCRIPT_ROWS for name in rows):
        views.append(_numbers)
    if rows & UNORDERED:
        views.append(unordered)
    for view in views:
        one, other = view(one), view(other)
    if one == other:
        return True
    if len(rows) > 1 and rows & (set(TIMES) | {"object|encoding"}):
        return shape(one) == shape(other)
    return False


def _near(one, other, most):
    try:
        first, second = int(one[1]), int(other[1])
    except (TypeError, ValueError):
        return False
    return first > 0 < second and abs(first - second) <= most


def _pending(reply):
    """Without how long each entry has been pending."""
    kind, items = reply
    if not isinstance(items, list):
        return reply
    short = lambda item: (item[0], item[1][:2] + item[1][3:]) if isinstance(item[1], list) and len(item[1]) == 4 else item
    return kind, [short(item) for item in items]


def _idle(reply):
    """Without fields of times, and without the time at which each entry was delivered."""
    kind, items = reply
    if not isinstance(items, list):
        return reply
    flat = [half for item in items for half in (item[1] if item[0] == b"pair" else [item])]
    kept, drop = [], False
    for at, item in enumerate(flat):
        if drop or item[1] in DROPPED:
            drop = not drop
            continue
        # An entry of a list of pending ones: id, consumer, time, deliveries; or without the consumer.
        if _asked_only(item) or (at and flat[at - 1][1] == b"consumers" and item[0] == b":"):
            continue
        if item[0] == b":" and kind == b"*" and at == len(flat) - 2 and int(item[1]) > 10**12:
            continue
        kept.append(_idle(item))
    return b"*", kept


def _asked_only(item):
    """Whether it is a consumer that has nothing pending: since 7.2 it is there once it has asked."""
    if not isinstance(item[1], list):
        return False
    flat = [half for part in item[1] for half in (part[1] if part[0] == b"pair" else [part])]
    names = [half[1] for half in flat[::2]]
    if names[:1] != [b"name"] or b"consumers" in names:
        return False
    return any(half[1] in (b"pending", b"pel-count") and flat[at + 1][1] == b"0" for at, half in enumerate(flat[:-1]))


def _numbers(reply):
    kind, payload = reply
    if isinstance(payload, list):
        return kind, [_numbers(item) for item in payload]
    if kind in b"$,+" and re.fullmatch(rb"-?(\d+(\.\d*)?(e[+-]?\d+)?|inf)", payload):
        return kind, float(payload)
    return reply
