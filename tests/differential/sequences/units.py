"""Draws sequences: single requests, blocks, watched blocks, scripts, functions, and what grows a value."""

import random

from sequences import scripts
from sequences.drawing import Drawer
from sequences.playing import Step
from sequences.values import KEYS, OF_ONE_SCORE, SAME_SLOT, Values

# Requests a sequence has, at least.
LENGTH = 150

# How often a group is drawn.
GROUPS = {
    "string": 8,
    "bitmap": 5,
    "generic": 9,
    "list": 9,
    "hash": 8,
    "set": 8,
    "sorted-set": 13,
    "stream": 20,
    "hyperloglog": 5,
    "geo": 8,
    "pubsub": 1,
    "scripting": 2,
    "connection": 1,
    "cluster": 1,
    "server": 1,
    "transactions": 1,
}
# Of groups that are mostly about the server, what is about data.
ONLY = {
    "scripting": {"function|delete", "function|flush", "function|list", "script|exists", "script|flush"},
    "connection": {"ping", "echo", "select", "client|getname"},
    "cluster": {"cluster|keyslot", "cluster|countkeysinslot", "cluster|getkeysinslot", "readonly", "readwrite"},
    "server": {"flushall", "flushdb", "dbsize"},
    "transactions": {"unwatch", "exec", "discard"},
}
SELDOM = {"flushall": 0.1, "flushdb": 0.1, "function|flush": 0.3, "script|flush": 0.3}
# What no sequence asks, and why.
NEVER = {
    "migrate": "nothing is sent to another server",
    "pfdebug": "it is not what clients use",
    "pfselftest": "it takes long and tells nothing",
    "object|help": "help is compared elsewhere",
    "xinfo|help": "help is compared elsewhere",
    "xgroup|help": "help is compared elsewhere",
    "object|freq": "it depends on the policy of eviction",
    "move": "there is one database",
    "dbsize": "keys whose time is over are counted until somebody looks",
    "randomkey": "it is drawn at random",
    "pubsub|help": "help is compared elsewhere",
    "pubsub|numsub": "it is compared elsewhere",
}
NEVER |= dict.fromkeys(("subscribe", "psubscribe", "ssubscribe"), "they have several replies, or none")
NEVER |= dict.fromkeys(("unsubscribe", "punsubscribe", "sunsubscribe"), "they have several replies, or none")
# What chance answers.
RANDOM = ("srandmember", "hrandfield", "zrandmember", "spop")

# Makes a value large, on either side of where it is no longer kept packed.
SIZES = (100, 127, 128, 129, 130, 511, 512, 513, 600)


class Units:
    """Draws one sequence."""

    def __init__(self, docs, known, payloads, libraries, seed):
        self.draw = random.Random(seed)
        self.values = Values(self.draw, payloads)
        self.drawer = Drawer(docs, self.draw, self.values)
        self.libraries = libraries
        self.rows = _rows(docs, known)
        # What chance answers is drawn only where replies do not count.
        self.chance = [name for name in RANDOM if name in docs and name in known]
        self.groups = [group for group in GROUPS if self.rows.get(group)]
        self.weights = [GROUPS[group] for group in self.groups]
        # Some sequences are about a few groups only, so that their commands meet more often.
        if self.draw.random() < 0.6:
            kept = set(self.draw.sample(self.groups, 3)) | {"generic"}
            self.weights = [GROUPS[group] if group in kept else 0 for group in self.groups]
        self.protocol = self.draw.choice((2, 3))

    def sequence(self, by_chance=False):
        """All its steps; with what chance decides, if so wished."""
        self.is_by_chance = by_chance
        steps = []
        while len(steps) < LENGTH:
            steps += self._unit()
        return steps

    def _unit(self):
        chance = self.draw.random()
        if chance < 0.80:
            return [Step(self._request())]
        if chance < 0.86:
            return self._block()
        if chance < 0.89:
            return self._watched()
        if chance < 0.93:
            return [Step(words) for words in self._script()]
        if chance < 0.96:
            return [Step(words) for words in self._function()]
        return [Step(words) for words in (self._grown() if chance < 0.98 else self._by_chance())]

    def _request(self, nested=False):
        while True:
            if self.is_by_chance and self.draw.random() < 0.08:
                return self._undetermined()
            (group,) = self.draw.choices(self.groups, self.weights)
            name = self.draw.choice(self.rows[group])
            if self.draw.random() >= SELDOM.get(name, 1) or (nested and group == "transactions"):
                continue
            return self.drawer.request(name)

    def _undetermined(self):
        """What chance or a clock decides."""
        key = lambda group: self.draw.choice(KEYS[group]).encode()
        soon = b"%d" % self.draw.randrange(1, 60)
        of_time = (
            (b"XADD", key("stream"), b"*", b"f", b"v"),
            (b"SET", key("string"), b"v", b"PX", soon),
            (b"PEXPIRE", self._own_key(), soon),
            (b"XREADGROUP", b"GROUP", b"g", b"c", b"STREAMS", key("stream"), b">"),
        )
        if self.draw.random() < 0.4:
            return self.draw.choice(of_time)
        return self.drawer.request(self.draw.choice(self.chance))

    def _block(self):
        steps = [Step((b"MULTI",))]
        for _ in range(self.draw.choice((1, 2, 2, 3, 5))):
            chance = self.draw.random()
            if chance < 0.02:
                steps.append(Step(self.draw.choice(((b"WATCH", b"{k}s0"), (b"MULTI",), (b"NOTHING",), (b"GET",)))))
            elif chance < 0.12:
                steps += [Step(words) for words in self._script()]
            else:
                steps.append(Step(self._request(nested=True)))
        return [*steps, Step((b"DISCARD",) if self.draw.random() < 0.1 else (b"EXEC",))]

    def _watched(self):
        keys = [self._own_key() for _ in range(self.draw.choice((1, 1, 2)))]
        steps = [Step((b"WATCH", *keys))]
        if self.draw.random() < 0.2:
            steps.append(Step(self._request()))
        steps += [Step(self._request(), "b") for _ in range(self.draw.choice((0, 1, 1, 2)))]
        return steps + self._block()

    def _own_key(self):
        group = self.draw.choices(self.groups, self.weights)[0]
        return self.draw.choice(KEYS.get(group, SAME_SLOT)).encode()

    def _calls(self):
        calls = [self._request(nested=True) for _ in range(self.draw.choice((1, 1, 2, 3)))]
        # One that waits in a script answers at once.
        return scripts.packed(calls)

    def _script(self):
        keys = [b"{k}s0"] if self.draw.random() < 0.9 else []
        name = b"EVAL" if self.draw.random() < 0.85 else b"EVAL_RO"
        script = self.draw.choice(scripts.SCRIPTS).encode()
        return [(name, script, str(len(keys)).encode(), *keys, *self._calls())]

    def _function(self):
        chance = self.draw.random()
        if chance < 0.35:
            replace = [b"REPLACE"] * self.draw.choice((0, 1))
            return [(b"FUNCTION", b"LOAD", *replace, self.draw.choice(scripts.LIBRARIES).encode())]
        if chance < 0.45:
            how = self.draw.choice(((), (b"FLUSH",), (b"APPEND",), (b"REPLACE",), (b"X",)))
            return [(b"FUNCTION", b"RESTORE", self.draw.choice(self.libraries), *how)]
        name = b"FCALL" if self.draw.random() < 0.75 else b"FCALL_RO"
        function = self.draw.choice(scripts.FUNCTIONS).encode()
        return [(name, function, b"1", b"{k}s0", *self._calls())]

    def _grown(self):
        """A value with many elements, and a few taken away or put back."""
        size = self.draw.choice(SIZES)
        names = [f"m{number}".encode() for number in range(size)]
        numbers = [str(number).encode() for number in range(size)]
        if self.draw.random() < 0.15:
            members = [self.values.text() for _ in range(self.draw.choice((5, 20, 100)))]
            members = [member if isinstance(member, bytes) else member.encode() for member in members]
            return [(b"ZADD", OF_ONE_SCORE.encode(), *[word for member in members for word in (b"0", member)])]
        kind = self.draw.choice(("list", "hash", "set", "intset", "sorted-set", "stream", "hyperloglog", "geo"))
        key = self.draw.choice(KEYS["set" if kind == "intset" else kind]).encode()
        pairs = [word for pair in zip(names, numbers, strict=True) for word in pair]
        if kind == "list":
            return [(b"RPUSH", key, *names)]
        if kind == "hash":
            return [(b"HSET", key, *pairs)]
        if kind in ("set", "intset"):
            return [(b"SADD", key, *(names if kind == "set" else numbers))]
        if kind == "sorted-set":
            return [(b"ZADD", key, *[word for pair in zip(numbers, names, strict=True) for word in pair])]
        if kind == "hyperloglog":
            return [(b"PFADD", key, *names)]
        if kind == "geo":
            places = [word for at, name in enumerate(names) for word in (b"%d" % (at % 170), b"%d" % (at % 80), name)]
            return [(b"GEOADD", key, *places)]
        first = self.values.last_id + 1
        self.values.last_id += size
        return [(b"XADD", key, b"%d-0" % (first + at), b"f", b"v") for at in range(size)]

    def _by_chance(self):
        """What is taken at random is gone before anybody looks; how much there was, and is left, is known."""
        key = self.draw.choice(KEYS["set"]).encode()
        count = self.draw.choice((b"0", b"1", b"2", b"1000"))
        return [(b"SPOP", key, b"100000")] if count == b"1000" else [
            (b"SCARD", key), (b"SPOP", key, b"0"), (b"SRANDMEMBER", key, count), (b"HRANDFIELD", b"{k}h0", count),
            (b"ZRANDMEMBER", b"{k}z0", count, b"WITHSCORES"),
        ]  # fmt: skip


def _rows(docs, known):
    found = {}
    for name in sorted(known):
        if name not in docs or name in NEVER or name in RANDOM or docs[name].get("subcommands"):
            continue
        group = docs[name]["group"]
        if name in ONLY.get(group, (name,)):
            found.setdefault(group, []).append(name)
    return found
