"""Requests drawn up from what `COMMAND` and `COMMAND DOCS` of the real server tell of each command."""

from dataclasses import dataclass

from harness.wire import Wire

# A key of each type, all of one slot; `n` is not there, and `d` is for results.
KEYS = {kind: "{k}" + kind for kind in ("s", "l", "h", "t", "z", "x", "n", "d")}
GROUP_KEYS = {
    "string": KEYS["s"],
    "bitmap": KEYS["s"],
    "generic": KEYS["s"],
    "list": KEYS["l"],
    "hash": KEYS["h"],
    "set": KEYS["t"],
    "sorted-set": KEYS["z"],
    "stream": KEYS["x"],
}
OF_OTHER_TYPE = {
    "sort": KEYS["l"],
    "sort_ro": KEYS["l"],
    "watch": KEYS["n"],
    "restore": KEYS["d"],
}
RESULTS = ("destination", "destkey", "newkey")

# Puts all keys into a known state.
RESET = (
    ("DEL", *KEYS.values()),
    ("SET", KEYS["s"], "10"),
    ("RPUSH", KEYS["l"], "1", "2", "3"),
    ("HSET", KEYS["h"], "f", "10", "g", "v"),
    ("SADD", KEYS["t"], "1", "2", "3"),
    ("ZADD", KEYS["z"], "1", "a", "2", "b", "3", "c"),
    ("XADD", KEYS["x"], "1-0", "f", "1"),
    ("XADD", KEYS["x"], "2-0", "f", "2"),
    ("XADD", KEYS["x"], "3-0", "f", "3"),
    ("XGROUP", "CREATE", KEYS["x"], "g", "0"),
    ("XREADGROUP", "GROUP", "g", "c", "COUNT", "2", "STREAMS", KEYS["x"], ">"),
)

# Shows it; whether a key has a deadline, too.
SHOW = (
    ("GET", KEYS["s"]),
    ("LRANGE", KEYS["l"], "0", "-1"),
    ("HGETALL", KEYS["h"]),
    ("SMEMBERS", KEYS["t"]),
    ("ZRANGE", KEYS["z"], "0", "-1", "WITHSCORES"),
    ("XINFO", "STREAM", KEYS["x"]),
    ("XINFO", "GROUPS", KEYS["x"]),
    ("TYPE", KEYS["d"]),
    ("DUMP", KEYS["n"]),
    *(("PERSIST", key) for key in KEYS.values()),
)

_SHAPE = "the cluster file tells the shape"
_MANY = "it has a reply a channel, or none"
_RAFT = "nobody replicates from a replica of Raft"

# What no sweep asks, and why.
NEVER_ASKED = {
    **dict.fromkeys(("bgsave", "bgrewriteaof"), "Redis may have a child at work"),
    "acl|genpass": "it is drawn at random",
    "script|debug": "it depends on how requests are sent",
    "client|kill": "it would hit the sweep's own connections",
    "client|pause": "nobody would be served",
    "client|reply": "replies would be missing",
    "client|tracking": "it can be switched off only",
    "debug": "it is not what clients use",
    "failover": "leaders are elected",
    "hello": "it may change the protocol",
    "migrate": "slots do not move",
    "monitor": "it never ends",
    "multi": "all that follows would be queued",
    "quit": "it ends the connection",
    "shutdown": "it ends the server",
    "xadd": "most of its forms take their id from the clock",
    "xinfo|consumers": "it tells milliseconds, and more since 7.2",
    "xpending": "it tells milliseconds",
    **dict.fromkeys(("psync", "replconf", "replicaof", "slaveof", "sync"), _RAFT),
    **dict.fromkeys(("subscribe", "psubscribe", "ssubscribe"), _MANY),
    **dict.fromkeys(("unsubscribe", "punsubscribe", "sunsubscribe"), _MANY),
    **{
        f"cluster|{name}": _SHAPE
        for name in (
            *("addslots", "addslotsrange", "bumpepoch", "delslots", "delslotsrange", "failover"),
            *("flushslots", "forget", "meet", "replicate", "reset", "saveconfig", "set-config-epoch"),
            "setslot",
        )
    },
}

# What stands for an argument: by command and name, by name, or by type.
VALUES = {
    "cursor": "0",
    "encoding": "i8",
    "field": "f",
    "max": "10",
    "member": "a",
    "min": "0",
    "numkeys": "1",
    "operation": "AND",
    "pattern": "*",
    "pivot": "2",
    "protover": "2",
    "script": "return 1",
    "sha1": "0" * 40,
    "ttl": "0",
    "zrangebylex min": "[a",
    "zrangebylex max": "[z",
    "zlexcount min": "[a",
    "zlexcount max": "[z",
    "zremrangebylex min": "[a",
    "zremrangebylex max": "[z",
    "zrevrangebylex min": "[a",
    "zrevrangebylex max": "[z",
    "hincrby field": "f",
    "lset index": "1",
    "getbit offset": "1",
    "zrange start": "0",
    "zrange stop": "2",
    "zrangestore min": "0",
    "zrangestore max": "2",
    "seconds": "1000",
    "milliseconds": "1000000",
    "wait numreplicas": "0",
    "copy destination-db": "0",
    "select index": "0",
    "swapdb index1": "0",
    "swapdb index2": "0",
    "string": "x",
    "integer": "1",
    "double": "1",
    "unix-time": "4000000000",
    "group": "g",
    "groupname": "g",
    "consumer": "c",
    "consumername": "c",
    **{f"{name} id": "2-0" for name in ("xack", "xclaim", "xdel", "xgroup|create", "xgroup|setid")},
    **{f"{name} start": "0-0" for name in ("xautoclaim", "xpending", "xrange", "xrevrange")},
    **{f"{name} end": "9-0" for name in ("xpending", "xrange", "xrevrange")},
    "last-id": "7-0",
    "max_deleted_entry_id": "3-0",
    "min-idle-time": "0",
    "xtrim threshold": "2",
}

# Numbers in all but their type, which says that they may be names as well.
NUMBERS = {"zrange start", "zrange stop", "zrangestore min", "zrangestore max"}

@dataclass(frozen=True)
class Word:
    """A word of a request: its text, and of which argument it is."""

    text: object
    kind: str
    name: str


@dataclass(frozen=True)
class Form:
    """A request as a command takes it."""

    command: str
    words: tuple

    def mode(self):
        """What decides the meaning of other words: an option without a value of its own."""
        return tuple(word.text for word in self.words if word.text in ("BYSCORE", "BYLEX"))

    def texts(self):
        """Its words as text."""
        return tuple(word.text for word in self.words)


class Commands:
    """What a server tells of its commands."""

    def __init__(self, port):
        with Wire(port) as wire:
            assert wire.ask("HELLO", "3")[:1] == b"%"
            self.facts = dict(_facts(_value(wire.ask("COMMAND"))))
            self.docs = dict(_flat(_value(wire.ask("COMMAND", "DOCS"))))
            self.payload = _dumped(wire)

    def forms(self, name):
        """The shortest request of a command, and one more for each argument that may be added to it."""
        builder = _Builder(self, name)
        arguments = self.docs[name].get("arguments", [])
        found = {}
        for path in [(), *_leaves(arguments)]:
            words = builder.words(arguments, path)
            found.setdefault(tuple(word.text for word in words), Form(name, tuple(words)))
        return list(found.values())

    def is_asked(self, name):
        """Whether sweeps ask it: not if it would block."""
        return name not in NEVER_ASKED and "blocking" not in self.facts[name]["flags"]

    def writes(self, name):
        """Whether it may change data."""
        return "write" in self.facts[name]["flags"] or name.startswith("eval")


def _dumped(wire):
    for words in (("SET", KEYS["d"], "10"), ("DUMP", KEYS["d"]), ("DEL", KEYS["d"])):
        answer = wire.ask(*words)
        if words[0] == "DUMP":
            payload = answer.split(b"\r\n", 1)[1][:-2]
    return payload


def _facts(rows):
    for row in rows:
        name, arity, flags = row[0], row[1], set(row[2])
        yield name, {"arity": arity, "flags": flags, "first_key": row[3], "container": bool(row[9])}
        yield from _facts(row[9])


def _flat(docs):
    for name, documented in docs.items():
        yield name, documented
        yield from _flat(documented.get("subcommands", {}))


def _value(raw):
    return _parsed(raw, 0)[0]


def _parsed(data, position):
    """A raw RESP3 reply as Python's own values."""
    end = data.index(b"\r\n", position)
    kind, rest = data[position : position + 1], data[position + 1 : end]
    end += 2
    if kind == b"$":
        count = int(rest)
        return data[end : end + count].decode(), end + count + 2
    if kind == b":":
        return int(rest), end
    if kind not in b"*~%":
        return rest.decode(), end
    items = []
    for _ in range(int(rest) * (2 if kind == b"%" else 1)):
        item, end = _parsed(data, end)
        items.append(item)
    return (dict(zip(items[::2], items[1::2])) if kind == b"%" else items), end


def _leaves(arguments, path=()):
    """The ways down to each argument that has no further ones."""
    for argument in arguments:
        below = argument.get("arguments")
        if below:
            yield from _leaves(below, (*path, argument))
        else:
            yield (*path, argument)


class _Builder:
    def __init__(self, commands, name):
        self.commands = commands
        self.name = name
        self.group = commands.docs[name]["group"]

    def words(self, arguments, path):
        """A request in which the argument at the end of `path` is, and else what must be."""
        command = [Word(part, "name", "") for part in self.name.upper().split("|")]
        return command + self._all(arguments, path)

    def _all(self, arguments, path):
        found = []
        for argument in arguments:
            wanted = bool(path) and argument is path[0]
            if wanted or "optional" not in argument.get("flags", []):
                found += self._one(argument, path[1:] if wanted else ())
        return found

    def _one(self, argument, path):
        kind, below = argument["type"], argument.get("arguments", [])
        words = [Word(argument["token"], "token", argument["name"])] if "token" in argument else []
        if kind == "pure-token":
            return words
        if kind == "oneof":
            chosen = path[0] if path else below[0]
            return words + self._one(chosen, path[1:])
        if kind == "block":
            return words + self._all(below, path)
        name = argument["name"]
        text = self._text(kind, name)
        kind = "integer" if f"{self.name} {name}" in NUMBERS else kind
        return [*words, Word(text, kind, name)]

    def _text(self, kind, name):
        if kind == "key":
            own = OF_OTHER_TYPE.get(self.name, GROUP_KEYS.get(self.group, KEYS["n"]))
            return KEYS["d"] if name in RESULTS else own
        if name == "serialized-value":
            return self.commands.payload
        for known in (f"{self.name} {name}", name, kind):
            if known in VALUES:
                return VALUES[known]
        raise AssertionError(f"{self.name}: nothing stands for {name}, a {kind}")
