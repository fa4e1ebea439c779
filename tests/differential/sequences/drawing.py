"""Draws one request of a command from its arguments, as `COMMAND DOCS` tells them."""

from sequences.values import KEYS, OF_ONE_SCORE, SAME_SLOT

# Arguments that are drawn in one way wherever they stand: by command and name, by name alone, or by type.
WAYS = {
    # numbers
    "count": "count",
    "limit": "count",
    "num-matches": "count",
    "len": "count",
    "rank": "index",
    "index": "index",
    "start": "index",
    "stop": "index",
    "end": "index",
    "offset": "index",
    "increment": "integer",
    "decrement": "integer",
    "incrbyfloat increment": "double",
    "hincrbyfloat increment": "double",
    "zincrby increment": "double",
    "weight": "double",
    "score": "double",
    "zcount min": "score",
    "zcount max": "score",
    "zrangebyscore min": "score",
    "zrangebyscore max": "score",
    "zrevrangebyscore min": "score",
    "zrevrangebyscore max": "score",
    "zremrangebyscore min": "score",
    "zremrangebyscore max": "score",
    "min": "lex",
    "max": "lex",
    "setrange offset": "offset",
    "setbit offset": "offset",
    "getbit offset": "offset",
    "bitfield offset": "bit_offset",
    "bitfield_ro offset": "bit_offset",
    "bitfield value": "integer",
    "setbit value": "bit",
    "bit": "bit",
    "encoding": "encoding",
    "operation": "operation",
    # time
    "seconds": "seconds",
    "milliseconds": "milliseconds",
    "xread milliseconds": "wait_ms",
    "xreadgroup milliseconds": "wait_ms",
    "unix-time-seconds": "unix_seconds",
    "unix-time-milliseconds": "unix_milliseconds",
    "timeout": "timeout",
    "ttl": "ttl",
    "frequency": "count",
    # geo
    "radius": "radius",
    "width": "radius",
    "height": "radius",
    # streams
    "xadd id": "new_id",
    "xread id": "read_id",
    "xreadgroup id": "new_or_id",
    "id": "id",
    "last-id": "id",
    "xclaim lastid": "id",
    "xsetid last-id": "id",
    "max_deleted_entry_id": "id",
    "entries_read": "count",
    "entries_added": "count",
    "xrange start": "range_id",
    "xrange end": "range_id",
    "xrevrange start": "range_id",
    "xrevrange end": "range_id",
    "xpending start": "range_id",
    "xpending end": "range_id",
    "xautoclaim start": "range_id",
    "xadd threshold": "threshold",
    "xtrim threshold": "threshold",
    "min-idle-time": "idle",
    "ms": "milliseconds",
    "group": "group",
    "groupname": "group",
    "consumer": "consumer",
    "consumername": "consumer",
    # others
    "cursor": "cursor",
    "scan count": "scan_count",
    "sscan count": "scan_count",
    "hscan count": "scan_count",
    "zscan count": "scan_count",
    "serialized-value": "payload",
    "pattern": "pattern",
    "sort pattern": "sort_pattern",
    "sort_ro pattern": "sort_pattern",
    "db": "database",
    "destination-db": "database",
    "select index": "database",
    "wait numreplicas": "zero",
    "wait timeout": "zero",
    "slot": "slot",
    "library-name": "library",
    "library-name-pattern": "library",
    "scan type": "type",
}
# They go by the order of members of one score.
BY_MEMBER = ("zrangebylex", "zrevrangebylex", "zlexcount", "zremrangebylex")
RESULTS = ("destination", "destkey", "dst", "newkey", "key_store")

# How often an optional argument is there; how many times one that may be repeated.
OPTIONAL = 0.3
TIMES = (1, 1, 1, 2, 2, 3, 4)
MANY = (20, 70, 130, 140)


class Drawer:
    """Draws requests of the commands of one server's table."""

    def __init__(self, docs, draw, values):
        self.docs = docs
        self.draw = draw
        self.values = values

    def request(self, name):
        """A request of this command, as words."""
        documented = self.docs[name]
        self.name, self.group = name, documented["group"]
        self.keys, self.weights = None, 1
        words = name.upper().split("|")
        for argument in documented.get("arguments", []):
            words += self._maybe(argument)
        words = self._adjusted(words)
        return tuple(word if isinstance(word, bytes) else word.encode() for word in self._spoilt(words))

    def _maybe(self, argument):
        flags = argument.get("flags", ())
        if self.name in ("sort", "sort_ro") and argument.get("token") == "GET":
            return []  # refused by 7.0 in a cluster, whatever it names
        if "optional" in flags and self.draw.random() >= OPTIONAL:
            return []
        times = self._times() if "multiple" in flags else 1
        return self._several(argument, times)

    def _times(self):
        if self.draw.random() < 0.01:
            return self.draw.choice(MANY)
        return self.draw.choice(TIMES)

    def _several(self, argument, times):
        name, kind = argument["name"], argument["type"]
        token = [argument["token"]] if argument.get("token") else []
        if name == "numkeys":
            # It tells how many keys follow; seldom it does not.
            self.keys = self.draw.choice(TIMES[:-1])
            told = self.keys if self.draw.random() < 0.96 else self.draw.choice((0, 1, 2, 4, -1))
            return [*token, str(told)]
        if kind == "key" and "multiple" in argument.get("flags", ()) and self.keys is not None:
            times, self.keys = self.keys, None
            self.weights = times
        if name == "weight" and self.draw.random() < 0.9:
            times = self.weights
        if self.name in ("xread", "xreadgroup") and argument["type"] == "block" and token == ["STREAMS"]:
            return token + self._streams(argument["arguments"])
        if "multiple_token" in argument.get("flags", ()) or "multiple-token" in argument.get("flags", ()):
            return [word for _ in range(times) for word in token + self._one(argument)]
        return token + [word for _ in range(times) for word in self._one(argument)]

    def _streams(self, arguments):
        # As many ids as keys.
        times = self.draw.choice((1, 1, 2, 3))
        off = 0 if self.draw.random() < 0.97 else 1
        return self._several(arguments[0], times) + self._several(arguments[1], times + off)

    def _one(self, argument):
        kind = argument["type"]
        if kind == "pure-token":
            return []
        if kind == "oneof":
            choices = [choice for choice in argument["arguments"] if choice.get("token") != "*"]
            chosen = self.draw.choice(choices)
            return self._maybe({**chosen, "flags": _present(chosen)})
        if kind == "block":
            if argument["arguments"][0]["name"] == "longitude":
                place = list(self.values.place())
                return place + [word for below in argument["arguments"][2:] for word in self._maybe(below)]
            return [word for below in argument["arguments"] for word in self._maybe(below)]
        name = argument["name"]
        if kind == "key":
            return [self._key(argument)]
        if name in ("longitude", "latitude"):
            return [self.values.place()[name == "latitude"]]
        for known in (f"{self.name} {name}", name):
            if known in WAYS:
                return [self._value(WAYS[known])]
        ways = {"integer": "integer", "double": "double", "unix-time": "unix_milliseconds", "pattern": "pattern"}
        return [self._value(ways.get(kind, "text"))]

    def _key(self, argument):
        result = argument["name"] in RESULTS or argument.get("token", "").startswith("STORE")
        if result and self.draw.random() < 0.5:
            return self.draw.choice(list(SAME_SLOT))
        if self.name in BY_MEMBER and self.draw.random() < 0.95:
            return OF_ONE_SCORE
        group = self.group
        if group in ("generic", "server", "cluster", "transactions", "scripting"):
            group = self.draw.choice(list(KEYS))
        if self.name in ("sort", "sort_ro"):
            group = self.draw.choice(("list", "set", "sorted-set"))
        return self.values.key(group)

    def _value(self, way):
        own = OWN.get(way)
        if own is None:
            return getattr(self.values, way)()
        return self.values.pick(*own)

    def _adjusted(self, words):
        """What one word says of others."""
        if self.name in ("zrange", "zrangestore"):
            at = 2 if self.name == "zrange" else 3
            for mode, bound in (("BYSCORE", self.values.score), ("BYLEX", self.values.lex)):
                if mode in words and self.draw.random() < 0.95:
                    words[at : at + 2] = [bound(), bound()]
                    if mode == "BYLEX":
                        words[at - 1] = OF_ONE_SCORE
            if "BYSCORE" not in words and "BYLEX" not in words:
                words[at : at + 2] = [self.values.index(), self.values.index()]
        if self.name in ("scan", "sscan", "hscan", "zscan") and "COUNT" not in words:
            words += ["COUNT", "100000"]
        return words

    def _spoilt(self, words):
        """Seldom a word too few, too many, or another one."""
        if self.draw.random() > 0.02 or len(words) < 2:
            return words
        at = self.draw.randrange(1, len(words))
        if self.name in WAITS or self.name in IDS_FROM_CLOCK:
            return words[: at + 1]
        kind = self.draw.randrange(3)
        if kind == 0:
            return words[:at] + words[at + 1 :]
        new = self.values.text()
        if self.name in EXPIRES:
            return words[: at + 1]
        return words[:at] + [new] + words[at + (kind == 1) :]


def _present(argument):
    return [flag for flag in argument.get("flags", ()) if flag != "optional"]


# A word put elsewhere could make these wait for ever, or take an id from the clock.
WAITS = {"blpop", "brpop", "blmove", "brpoplpush", "blmpop", "bzpopmin", "bzpopmax", "bzmpop", "xread", "xreadgroup", "wait"}
IDS_FROM_CLOCK = {"xadd"}
# Or let a key go in some milliseconds, which is sooner here or there.
EXPIRES = {"expire", "pexpire", "set", "setex", "psetex", "getex", "restore"}

# Usual values, rare ones, and how often those.
OWN = {
    # One beyond all times is kept here, and past there.
    "ttl": (("0", "100000000", "4000000000000"), ("-1", "x"), 0.1),
    "bit": (("0", "1"), ("2", "-1", "x"), 0.05),
    "bit_offset": (("0", "1", "7", "8", "#0", "#1", "#2", "100"), ("-1", "#-1", "x", "4294967296"), 0.05),
    "encoding": (("u8", "i8", "u4", "i5", "u1", "i64", "u63", "i16"), ("u64", "i65", "u0", "x", "i0"), 0.06),
    "operation": (("AND", "OR", "XOR", "NOT"), ("x",), 0.03),
    "wait_ms": (("1",), ("2",), 0.1),
    "timeout": (("0.01",), ("-1", "x", "inf", "nan"), 0.1),
    "radius": (("100", "200", "1000", "20000", "0", "1"), ("-1", "x", "1e10"), 0.08),
    "read_id": (("0", "0-0", "1-0", "2-0", "5-0", "$"), ("x", "-", "+", ">"), 0.05),
    "new_or_id": ((">", ">", ">", "0", "0-0", "1-0", "3-0"), ("$", "x", "-", "+"), 0.05),
    "threshold": (("0", "1", "2", "5", "10", "2-0", "5-0", "100"), ("-1", "x", ""), 0.05),
    "idle": (("0", "0", "0", "100000000"), ("-1", "x", "9223372036854775807"), 0.08),
    "group": (("g", "g", "h"), ("", "nope"), 0.05),
    "consumer": (("c", "c", "d"), ("", "e"), 0.1),
    "cursor": (("0",), ("x",), 0.04),
    "scan_count": (("100000",), ("0", "-1", "x"), 0.08),
    "pattern": (("*", "a*", "m1*", "?", "[a-c]", "{k}*"), ("", "[", "\\", "*x*"), 0.2),
    # Those of keys of one slot are taken here, and refused there.
    "sort_pattern": (("nosort", "x", "#"), ("w_*",), 0.2),
    "database": (("0",), ("1", "x", "-1"), 0.2),
    "zero": (("0",), ("x", "-1"), 0.05),
    "slot": (("0", "7629", "16383"), ("16384", "-1", "x"), 0.1),
    "library": (("lib1", "lib2"), ("nope", "*", "l?b1"), 0.2),
    "type": (("string", "list", "set", "zset", "hash", "stream"), ("x", "STRING"), 0.1),
}
