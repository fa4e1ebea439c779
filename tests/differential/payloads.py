"""`DUMP` and `RESTORE` between both servers: what one holds the other takes, and gives back.

Values of all types and sizes are drawn, filled in on either server, carried to the other and back again. What
they hold is compared, deadlines too. And a payload whose checksum was flipped is refused by both in the same
words.
"""

import random

from situation import question

from harness.wire import Wire

SEED = 7
# Values of each kind, for each server to begin with.
EACH = 12
SIZES = (1, 2, 7, 60, 129, 200, 513, 700)
# Unix milliseconds, far away.
DEADLINE = 4_102_444_800_000

HERE, THERE, BACK = "{p}here", "{p}there", "{p}back"


def text(rng):
    """A member, field or value of any form that there is in a payload."""
    return rng.choice(
        (
            lambda: b"%d" % rng.randrange(-200, 200),
            lambda: b"%d" % rng.randrange(-(2**15), 2**15),
            lambda: b"%d" % rng.randrange(-(2**31), 2**31),
            lambda: b"%d" % rng.randrange(-(2**63), 2**63),
            lambda: b"",
            lambda: rng.randbytes(rng.randrange(1, 12)),
            lambda: rng.randbytes(rng.choice((63, 64, 65, 253, 254))),
            lambda: b"again and " * rng.randrange(3, 60),
            lambda: b"0%d" % rng.randrange(99),
        )
    )()


def number(rng):
    """A score."""
    return rng.choice(
        (
            str(rng.randrange(-5, 5)),
            str(rng.randrange(-(2**53), 2**53)),
            repr(rng.uniform(-1e3, 1e3)),
            "inf",
            "-inf",
            "1e300",
            "-0.5",
        )
    )


def texts(rng, size):
    """So many different ones."""
    found = set()
    while len(found) < size:
        found.add(text(rng) or b"empty")
    return sorted(found)


def strings(rng, _):
    """Strings: short and long, numbers, bytes that can be packed."""
    yield "SET", HERE, rng.choice((text(rng), b"x" * 20_000, rng.randbytes(5000), b"12345678901234567890"))


def lists(rng, size):
    """Lists of one listpack and of several; with elements that stand alone."""
    yield "RPUSH", HERE, *(text(rng) for _ in range(size))
    if rng.random() < 0.3:
        yield "LPUSH", HERE, rng.randbytes(9000)


def hashes(rng, size):
    """Hashes, packed and not."""
    yield "HSET", HERE, *(word for field in texts(rng, size) for word in (field, text(rng)))


def sets(rng, size):
    """Sets of anything."""
    yield "SADD", HERE, *texts(rng, size)


def integers(rng, size):
    """Sets of integers of each width, and more of them than a set of integers holds."""
    width = rng.choice((15, 31, 63))
    yield "SADD", HERE, *{rng.randrange(-(2**width), 2**width) for _ in range(size)}


def sorted_sets(rng, size):
    """Sorted sets, packed and not."""
    yield "ZADD", HERE, *(word for member in texts(rng, size) for word in (number(rng), member))


def streams(rng, size):
    """Streams with gaps, groups, consumers and what is pending."""
    same = [b"a", b"b"]
    for entry in range(1, size + 1):
        fields = same if rng.random() < 0.7 else texts(rng, rng.randrange(1, 4))
        pairs = (word for field in fields for word in (field, text(rng)))
        yield "XADD", HERE, f"{entry * 3}-{entry % 2}", *pairs
    for entry in rng.sample(range(1, size + 1), size // 5):
        yield "XDEL", HERE, f"{entry * 3}-{entry % 2}"
    for group in range(rng.randrange(3)):
        yield "XGROUP", "CREATE", HERE, f"g{group}", "0"
        yield "XGROUP", "CREATECONSUMER", HERE, f"g{group}", "idle"
        for consumer in range(rng.randrange(3)):
            count = rng.randrange(1, 20)
            yield "XREADGROUP", "GROUP", f"g{group}", f"c{consumer}", "COUNT", count, "STREAMS", HERE, ">"
    if rng.random() < 0.3:
        yield "XTRIM", HERE, "MAXLEN", size // 2
    if rng.random() < 0.3:
        yield "XSETID", HERE, f"{size * 3 + 9}-1", "ENTRIESADDED", size + 5, "MAXDELETEDID", "3-1"


def counters(rng, size):
    """HyperLogLogs, sparse and dense."""
    for _ in range(rng.choice((1, 30))):
        yield "PFADD", HERE, *(rng.randrange(10**9) for _ in range(size))


KINDS = (strings, lists, hashes, sets, integers, sorted_sets, streams, counters)


def pairs(flat):
    """A flat list of names and values as a dictionary."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def scored(flat):
    """Members in order with their scores, which may be written in other digits."""
    return [(member, float(score)) for member, score in pairs(flat).items()]


def stream(wire, key):
    """What a stream holds, but for what tells milliseconds."""
    facts = pairs(wire.query("XINFO", "STREAM", key))
    known = ("length", "last-generated-id", "max-deleted-entry-id", "entries-added")
    groups = []
    for group in wire.query("XINFO", "GROUPS", key):
        name = pairs(group)[b"name"]
        consumers = [pairs(consumer) for consumer in wire.query("XINFO", "CONSUMERS", key, name)]
        held = sorted((consumer[b"name"], consumer[b"pending"]) for consumer in consumers)
        pending = wire.query("XPENDING", key, name, "-", "+", "100000")
        groups.append((group, held, [(ident, who, count) for ident, who, _, count in pending]))
    return wire.query("XRANGE", key, "-", "+"), [facts[name.encode()] for name in known], groups


def content(wire, key):
    """What a key holds, in a form that is the same on both servers."""
    kind = wire.query("TYPE", key).decode()
    flat = {
        "none": lambda: None,
        "string": lambda: wire.query("GET", key),
        "list": lambda: wire.query("LRANGE", key, "0", "-1"),
        "hash": lambda: sorted(pairs(wire.query("HGETALL", key)).items()),
        "set": lambda: sorted(wire.query("SMEMBERS", key)),
        "zset": lambda: scored(wire.query("ZRANGE", key, "0", "-1", "WITHSCORES")),
        "stream": lambda: stream(wire, key),
    }[kind]()
    return repr((kind, flat, wire.query("PEXPIRETIME", key))).encode()


def sweep(ports, comparison):
    """Carries drawn values from each server to the other and back."""
    rng = random.Random(SEED)
    with Wire(ports[0]) as redis, Wire(ports[1]) as other:
        for name, origin, target in (("redis", redis, other), ("moonraft", other, redis)):
            for kind in KINDS:
                for turn in range(EACH):
                    size = SIZES[turn % len(SIZES)]
                    about = f"{kind.__name__} of {size}, number {turn}, from {name}"
                    _carry(rng, kind, size, origin, target, about, comparison)


def _carry(rng, kind, size, origin, target, about, comparison):
    for wire in (origin, target):
        wire.query("DEL", HERE, THERE, BACK)
    for words in kind(rng, size):
        origin.query(*words)
    is_mortal = rng.random() < 0.3
    if is_mortal:
        origin.query("PEXPIREAT", HERE, DEADLINE)
    ttl = (DEADLINE, "ABSTTL") if is_mortal else (0,)
    expected = content(origin, HERE)

    def compare(what, found):
        comparison.compare(question("payloads", f"{about}: {what}"), 2, expected, found)

    payload = origin.query("DUMP", HERE)
    target.query("RESTORE", THERE, ttl[0], payload, *ttl[1:])
    compare("carried over", content(target, THERE))
    origin.query("RESTORE", BACK, ttl[0], target.query("DUMP", THERE), *ttl[1:])
    compare("and back", content(origin, BACK))
    origin.query("RESTORE", HERE, ttl[0], origin.query("DUMP", BACK), "REPLACE", *ttl[1:])
    compare("and restored where it was", content(origin, HERE))
    flipped = payload[:-1] + bytes([payload[-1] ^ 1])
    refusals = [wire.ask("RESTORE", "{p}damaged", "0", flipped) for wire in (origin, target)]
    refused = question("payloads", f"{about}: a flipped checksum")
    comparison.compare(refused, 2, b"-ERR DUMP payload version or checksum are wrong\r\n", refusals[0])
    comparison.compare(refused, 2, refusals[0], refusals[1])
