"""Requests that wait, of several clients: who is served, in which order, by which key, and with what.

Each case is drawn: some clients send requests that wait, and another does what may bring something to their keys, or
take it away. Nothing is left to time: whether a client still waits both servers say themselves.
"""

import random

from situation import Pair, question, shown

from harness.processes import eventually

SEED = 7_0_15
CASES = 250
WAITING_MAX = 5

# Three keys that clients wait for, and two that hold something to begin with.
KEYS = ("{b}1", "{b}2", "{b}3")
LIST, SORTED = "{b}list", "{b}sorted"

# Streams with groups `g` and `h`.
STREAMS = ("{b}x1", "{b}x2")

PUSH_BOTH = "redis.call('rpush', KEYS[1], 's1') redis.call('lpush', KEYS[2], 's2') return redis.call('llen', KEYS[1])"
PUSH_AND_TAKE = "redis.call('rpush', KEYS[1], 's') return redis.call('lmpop', 1, KEYS[1], 'left')"
CHANGES_TYPE = "redis.call('set', KEYS[1], 's') redis.call('del', KEYS[1]) redis.call('zadd', KEYS[1], 1, 's', 2, 't') return 1"


def waiting(draw):
    """A request that waits, if there is nothing."""
    keys = draw.sample(KEYS, draw.choice((1, 1, 2, 3)))
    key, other = draw.choice(KEYS), draw.choice(KEYS)
    ends = [draw.choice(("LEFT", "RIGHT")) for _ in range(2)]
    count = draw.choice(((), (), ("COUNT", "2")))
    return draw.choice(
        (
            ["BLPOP", *keys, "0"],
            ["BRPOP", *keys, "0"],
            ["BLPOP", key, key, "0"],
            ["BLMOVE", key, other, *ends, "0"],
            ["BLMOVE", key, LIST, *ends, "0"],
            ["BLMOVE", key, SORTED, *ends, "0"],
            ["BRPOPLPUSH", key, other, "0"],
            ["BLMPOP", "0", str(len(keys)), *keys, ends[0], *count],
            ["BZPOPMIN", *keys, "0"],
            ["BZPOPMAX", *keys, "0"],
            ["BZMPOP", "0", str(len(keys)), *keys, draw.choice(("MIN", "MAX")), *count],
        )
    )


def happening(draw, payloads):
    """Requests of another client; several are a block."""
    key, other = draw.choice(KEYS), draw.choice(KEYS)
    values = [f"v{draw.randrange(100)}" for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    scores = [word for score, value in enumerate(values) for word in (str(score), value)]
    single = (
        ["RPUSH", key, *values],
        ["RPUSH", key, *values],
        ["LPUSH", key, *values],
        ["ZADD", key, *scores],
        ["ZADD", key, *scores],
        ["RPUSHX", key, *values],
        ["SET", key, "text"],
        ["SADD", key, *values],
        ["DEL", key],
        ["DEL", *KEYS],
        ["LPOP", key],
        ["ZPOPMIN", key],
        ["RENAME", other, key],
        ["RENAME", LIST, key],
        ["RENAMENX", SORTED, key],
        ["COPY", LIST, key],
        ["COPY", SORTED, key, "REPLACE"],
        ["COPY", other, key, "REPLACE"],
        ["LMOVE", LIST, key, "LEFT", "LEFT"],
        ["RPOPLPUSH", LIST, key],
        ["RPOPLPUSH", other, key],
        ["BLMOVE", LIST, key, "LEFT", "RIGHT", "0.01"],
        ["LMPOP", "1", key, "LEFT", "COUNT", "2"],
        ["SORT", "{b}none", "STORE", key],
        ["ZUNIONSTORE", key, "1", "{b}none"],
        ["ZINCRBY", key, "1", "v"],
        ["SUNIONSTORE", key, "{b}none"],
        ["RESTORE", key, "0", payloads[0]],
        ["RESTORE", key, "0", payloads[1], "REPLACE"],
        ["EXPIRE", key, "0"],
        ["EXPIRE", key, "1000"],
        ["LINSERT", key, "BEFORE", values[0], "v"],
        ["LTRIM", key, "1", "0"],
        ["EVAL", PUSH_BOTH, "2", key, other],
        ["EVAL", PUSH_AND_TAKE, "1", key],
        ["EVAL", CHANGES_TYPE, "1", key],
        ["FLUSHALL"],
    )
    # A key of another type that they overwrite would serve nobody in Redis until something is pushed to it.
    results = (
        ["SORT", LIST, "ALPHA", "STORE", key],
        ["ZUNIONSTORE", key, "1", SORTED],
        ["ZRANGESTORE", key, SORTED, "0", "1"],
    )
    if draw.random() < 0.1:
        return [["DEL", key], draw.choice(results)]
    how = draw.choice((1, 1, 1, 2, 3))
    chosen = [draw.choice(single) for _ in range(how)]
    if how == 1:
        return chosen
    if draw.random() < 0.3:
        chosen.append(waiting(draw))
    return [["MULTI"], *chosen, ["EXEC"]]


def waiting_for_entries(draw):
    """A request that waits for entries of streams."""
    keys = draw.sample(STREAMS, draw.choice((1, 1, 2)))
    count = draw.choice(((), (), ("COUNT", "1"), ("COUNT", "2")))
    if draw.random() < 0.4:
        ids = [draw.choice(("$", "$", "0-0", "3-0", "1000-0")) for _ in keys]
        return ["XREAD", *count, "BLOCK", "0", "STREAMS", *keys, *ids]
    group, consumer = draw.choice(("g", "g", "h")), draw.choice("cd")
    no_ack = draw.choice(((), (), ("NOACK",)))
    return ["XREADGROUP", "GROUP", group, consumer, *count, "BLOCK", "0", *no_ack, "STREAMS", *keys, *(">" for _ in keys)]


ADD_TWICE = "redis.call('xadd', KEYS[1], ARGV[1] .. '-*', 'f', 's') return redis.call('xadd', KEYS[1], ARGV[1] .. '-*', 'f', 't')"
# What comes and goes in one unit is not seen, as in 7.2; 7.0 answers with no entries.
TAKES_AWAY = ("XDEL", "XTRIM", "XSETID")


def happening_to_streams(draw):
    """Requests of another client about streams; several are a block. Groups stay: what comes when they go is not 7.0's."""
    key, other = draw.choice(STREAMS), draw.choice(STREAMS)
    at = str(draw.randrange(1, 12))
    ids = [f"{draw.randrange(1, 12)}-{draw.randrange(2)}" for _ in range(2)]
    single = (
        ["XADD", key, f"{at}-*", "f", "v"],
        ["XADD", key, f"{at}-*", "f", "v"],
        ["XADD", other, ids[0], "f", "w"],
        ["XADD", key, "MAXLEN", draw.choice("12"), f"{at}-*", "f", "v"],
        ["XADD", "{b}x9", "NOMKSTREAM", f"{at}-*", "f", "v"],
        ["XDEL", key, *ids],
        ["XTRIM", key, "MAXLEN", "1"],
        ["XTRIM", key, "MINID", ids[0]],
        ["XACK", key, "g", *ids],
        ["XSETID", key, "11-5"],
        ["XGROUP", "SETID", key, draw.choice("gh"), draw.choice(("0", "$", ids[0]))],
        ["XGROUP", "DELCONSUMER", key, "g", "c"],
        ["XCLAIM", key, "g", "d", "0", *ids],
        ["XAUTOCLAIM", key, "g", "c", "0", "0"],
        ["XREADGROUP", "GROUP", "g", "e", "COUNT", "1", "STREAMS", key, ">"],
        ["XREADGROUP", "GROUP", "g", "c", "STREAMS", key, "0"],
        ["EVAL", ADD_TWICE, "1", key, at],
        ["EXPIRE", key, "1000"],
    )
    how = draw.choice((1, 1, 1, 2, 3))
    chosen = [draw.choice(single) for _ in range(how)]
    if how > 1:
        chosen = [words for words in chosen if words[0] not in TAKES_AWAY]
    if how > 1 and draw.random() < 0.3:
        chosen.append(waiting_for_entries(draw))
    return chosen if how == 1 else [["MULTI"], *chosen, ["EXEC"]]


class Waiting:
    """A client that waits now and then, on both servers."""

    def __init__(self, ports, name, protocol):
        self.pair = Pair(ports)
        self.name = name
        if protocol == 3:
            self.pair.ask("HELLO", "3")
        self.ids = [int(answer[1:-2]) for answer in self.pair.ask("CLIENT", "ID")]
        self.request = None


class Case:
    """One draw."""

    def __init__(self, ports, number, comparison):
        self.draw = random.Random(SEED * 1000 + number)
        self.comparison = comparison
        self.number = number
        self.protocol = self.draw.choice((2, 3))
        self.actor = Pair(ports)
        self.clients = [
            Waiting(ports, name, self.protocol) for name in "abcde"[: self.draw.randint(2, WAITING_MAX)]
        ]
        self.told = []
        self.about_streams = self.draw.random() < 0.4

    def _waiting(self):
        return (waiting_for_entries if self.about_streams else waiting)(self.draw)

    def _happening(self):
        return happening_to_streams(self.draw) if self.about_streams else happening(self.draw, self.payloads)

    def run(self):
        """Draws what happens, and compares all of it."""
        self._begin()
        for client in self.clients:
            self._let_wait(client)
        for _ in range(self.draw.randint(2, 8)):
            self._happen(self._happening())
            free = [client for client in self.clients if client.request is None]
            if free and self.draw.random() < 0.6:
                self._let_wait(self.draw.choice(free))
        for key in (*KEYS, LIST, SORTED):
            for words in (["TYPE", key], ["LRANGE", key, "0", "-1"], ["ZRANGE", key, "0", "-1", "WITHSCORES"]):
                self._compare(f"then {shown(words)}", *self.actor.ask(*words))
        for key in STREAMS if self.about_streams else ():
            for words in (["XRANGE", key, "-", "+"], ["XPENDING", key, "g"], ["XPENDING", key, "h"]):
                self._compare(f"then {shown(words)}", *self.actor.ask(*words))
        self._end_waits()
        for client in self.clients:
            client.pair.close()
        self.actor.close()

    def _begin(self):
        for words in (["FLUSHALL"], ["RPUSH", LIST, "l1", "l2", "l3"], ["ZADD", SORTED, "1", "z1", "2", "z2"]):
            self.actor.ask(*words)
        for key in STREAMS:
            for group in "gh":
                self.actor.ask("XGROUP", "CREATE", key, group, "$", "MKSTREAM")
        # Those of the real server, for both.
        answers = [self.actor.ask("DUMP", key)[0] for key in (LIST, SORTED)]
        self.payloads = [answer.split(b"\r\n", 1)[1][:-2] for answer in answers]

    def _compare(self, text, expected, found):
        self.told.append(text)
        history = "; ".join(self.told)
        self.comparison.compare(question(f"blocking {self.number}", history), self.protocol, expected, found)

    def _let_wait(self, client):
        """It sends a request that may wait. Both servers have taken it up before anything else happens."""
        client.request = self._waiting()
        client.pair.send(client.request)
        for server, wire in enumerate(client.pair.wires):
            eventually(
                lambda wire=wire, server=server: wire.is_readable(0)
                or client.ids[server] in self._blocked(server),
                what=f"{client.request} is answered or waits",
            )
        self._look([client])

    def _happen(self, requests):
        for words in requests:
            self._compare(shown(words), *self.actor.ask(*words))
        self._look([client for client in self.clients if client.request])

    def _blocked(self, server):
        """Numbers of the clients that wait at a server, as it says itself."""
        lines = self.actor.wires[server].query("CLIENT", "LIST").decode().splitlines()
        clients = [dict(fact.split("=", 1) for fact in line.split(" ") if "=" in fact) for line in lines]
        return {int(client["id"]) for client in clients if "b" in client["flags"]}

    def _look(self, clients):
        """Compares which of these still wait, and the replies of the others."""
        blocked = [self._blocked(server) for server in (0, 1)]
        for client in clients:
            waits = [number in still for number, still in zip(client.ids, blocked, strict=True)]
            text = f"{client.name}: {shown(client.request)}"
            if all(waits):
                self.told.append(f"{client.name} waits: {shown(client.request)}")
                continue
            if any(waits):
                states = [b"(waits)" if still else b"(is answered)" for still in waits]
            else:
                states = [wire.receive() for wire in client.pair.wires]
            self._compare(text, *states)
            client.request = None

    def _end_waits(self):
        """Those who still wait are unblocked, one way or the other."""
        for client in self.clients:
            if not client.request:
                continue
            how = self.draw.choice(((), ("TIMEOUT",), ("ERROR",)))
            self.actor.send_each(*[["CLIENT", "UNBLOCK", number, *how] for number in client.ids])
            self._compare("CLIENT UNBLOCK", *[wire.receive() for wire in self.actor.wires])
            self._compare(f"{client.name} is unblocked", *[wire.receive() for wire in client.pair.wires])


def sweep(ports, comparison):
    """All cases, one after the other."""
    for number in range(CASES):
        Case(ports, number, comparison).run()
