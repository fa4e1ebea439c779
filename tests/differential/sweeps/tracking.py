"""`CLIENT TRACKING`: what clients that keep copies are told to forget, by whom it was changed, in every mode."""

import itertools

from situation import question
from sweeps import watched
from sweeps.drawn import KEYS, RESET

from harness.wire import Wire, request

SECONDS_MAX = 20

# How a client reads all keys, after `CLIENT TRACKING ON` in a mode.
READS = (
    ("GET", KEYS["s"]),
    ("LRANGE", KEYS["l"], "0", "-1"),
    ("HGETALL", KEYS["h"]),
    ("SMEMBERS", KEYS["t"]),
    ("ZRANGE", KEYS["z"], "0", "-1"),
    ("XRANGE", KEYS["x"], "-", "+"),
    ("EXISTS", KEYS["n"], KEYS["d"]),
)

SOME = ("BCAST", "PREFIX", KEYS["s"], "PREFIX", KEYS["n"])
MODES = ((), ("NOLOOP",), ("BCAST",), ("BCAST", "NOLOOP"), SOME, ("OPTIN",), ("OPTOUT",))

# In which modes changes are asked for, and whether the client itself makes them.
CHANGES = (
    ((), False),
    ((), True),
    (("NOLOOP",), True),
    (("BCAST",), True),
    (("BCAST", "NOLOOP"), True),
    (SOME, False),
)

FURTHER = """
pfadd {k}n a
pfadd {k}n a ; pfcount {k}n ; pfmerge {k}n {k}d
geoadd {k}n 13 38 a ; geosearchstore {k}d {k}n fromlonlat 13 38 byradius 10 km
getex {k}s exat 1
copy {k}s {k}n
sort {k}l by nosort store {k}n
bitop not {k}n {k}s
multi ; set {k}n 1 ; set {k}s 2 ; set {k}n 3 ; exec
multi ; set {k}n 1 ; flushall ; set {k}s 2 ; exec
eval "redis.call('set', KEYS[1], 1) redis.call('del', KEYS[2]) return redis.call('incr', KEYS[1])" 2 {k}n {k}s
mset {k}n 1 {k}s 2 {k}d 3
rename {k}s {k}n
smove {k}t {k}d 1
lmove {k}l {k}d left right
blpop {k}l 0
function flush
"""

# What a client asks of what it keeps, and what it then has: requests, and afterwards a change by another of `{k}s`.
KEEPS = """
get {k}s
multi ; get {k}s ; exec
multi ; get {k}s ; discard
eval "return redis.call('get', KEYS[1])" 1 {k}s
eval_ro "return redis.call('get', KEYS[1])" 1 {k}s
lrange {k}s 0 1
set {k}s 1 get
getex {k}s
getset {k}s 1
watch {k}s ; unwatch
exists {k}s
touch {k}s
type {k}s
ttl {k}s
dump {k}s
object encoding {k}s
strlen {k}s
getrange {k}s 0 1
sort_ro {k}s
sort {k}s
pfcount {k}s
memory usage {k}s
scan 0
keys *
randomkey
client caching yes ; get {k}s
client caching no ; get {k}s
client caching yes ; ping ; get {k}s
client caching yes ; client id ; get {k}s
client caching yes ; nothing ; get {k}s
client caching yes ; get ; get {k}s
client caching yes ; multi ; get {k}s ; exec
client caching no ; multi ; get {k}s ; exec ; get {k}s
multi ; client caching yes ; get {k}s ; exec
client caching yes ; multi ; get {k}n ; exec ; get {k}s
get {k}s ; client tracking off
get {k}s ; client tracking on
get {k}s ; client tracking on bcast
get {k}s ; client tracking on noloop
get {k}s ; client tracking on optin
get {k}s ; client tracking on optout
client tracking on prefix a
client tracking on bcast prefix a prefix ab
client tracking on bcast prefix a ; client tracking on bcast prefix ab
client tracking on bcast prefix a ; client tracking on bcast prefix b ; client trackinginfo
client tracking on optin optout
client tracking on bcast optin
client tracking on bcast optout noloop
client tracking on redirect 0
client tracking on redirect 999999
client tracking on redirect x
client tracking on redirect
client tracking on nothing
client tracking maybe
client tracking off nothing
client tracking off noloop
client caching maybe
client caching yes
client caching no
client getredir
client trackinginfo
client caching yes ; client trackinginfo
client caching no ; client trackinginfo
reset ; hello 3 ; client trackinginfo ; client getredir
"""

OWN_SCRIPTS = (
    "Redis takes a client's own script for another: with BCAST and NOLOOP it tells of what the script changed"
)
SCRIPTS = (
    """eval "return redis.call('set', KEYS[1], 10)" 1 {k}s""",
    """eval "redis.call('set', KEYS[1], 1) return redis.call('set', KEYS[1], 10)" 1 {k}s""",
    """eval "redis.call('set', KEYS[1], 1) error('x')" 1 {k}s""",
    """eval "redis.call('set', KEYS[1], 1) redis.call('del', KEYS[1])" 1 {k}n""",
    """eval "redis.call('set', KEYS[1], 1) redis.call('del', KEYS[2]) return redis.call('incr', KEYS[1])" 2 {k}n {k}s""",
)
DIFFERENCES = {f"BCAST NOLOOP: itself: {script}": OWN_SCRIPTS for script in SCRIPTS}

END = "__end__"


class Told:
    """One server: a client that keeps copies, one that hears in its place, and one that changes keys."""

    def __init__(self, port):
        self.port = port
        self.other = Wire(port, within=SECONDS_MAX)
        self.numbers = itertools.count()

    def run(self, mode, how, reads, requests, by_self):
        """What is told of these requests, to a client of this mode, by its own connection or another's."""
        self._ask_all(self.other, RESET)
        with Wire(self.port, within=SECONDS_MAX) as tracker, Wire(self.port, within=SECONDS_MAX) as hearer:
            options, numbers = list(mode), [tracker.query("CLIENT", "ID")]
            if how != "2":
                tracker.ask("HELLO", "3")
            if how != "3":
                numbers.append(hearer.query("CLIENT", "ID"))
                hearer.ask("SUBSCRIBE", "__redis__:invalidate")
                options += ["REDIRECT", str(numbers[1])]
            told = tracker.ask("CLIENT", "TRACKING", "ON", *options)
            hears = tracker if how == "3" else hearer
            told += self._until_end(tracker, hears, reads)
            told += self._until_end(tracker if by_self else self.other, hears, requests)
            told += self._until_end(self.other, hears, [("SET", KEYS["s"], "last")])
            for number in numbers:
                told = told.replace(b":%d\r" % number, b":(number)\r")
            return told

    @staticmethod
    def _ask_all(wire, requests):
        wire.send_raw(b"".join(request(*words) for words in requests))
        return b"".join(_reply(wire) for _ in requests)

    def _until_end(self, wire, hears, requests):
        """Replies to these requests, each with what was told by the time; pushes are left where they come."""
        told = b""
        for words in requests:
            wire.send(*words)
            told += _with_pushes(wire, words)
            if wire is not hears:
                told += self._heard(hears)
        return told if wire is hears else told + self._heard(hears)

    def _heard(self, hears):
        # A request of its own ends what it was told before.
        end = f"{END}{next(self.numbers)}"
        hears.send("PING", end)
        told = b""
        while end.encode() not in (part := hears.receive()):
            told += part
        return told


def _reply(wire):
    while (part := wire.receive())[:1] == b">":
        pass
    return part


def _with_pushes(wire, words):
    """A reply to what is about the client, a dot for any other; and before it what was told by then."""
    told = b""
    while (part := wire.receive())[:1] == b">":
        told += part
    return told + (part if words[0] == "client" else b".")


def cases():
    """Each with its text, the mode, how it is told, what is read and done, and who does it."""
    changes = [
        (line.split(" | ")[1], requests)
        for line, _, requests in watched.situations(watched.SITUATIONS)
        if "until-gone" not in line
    ]
    changes += [(text, requests) for text, requests in _lines(FURTHER)]
    for mode, by_self in CHANGES:
        by = "itself" if by_self else "another"
        for text, requests in changes:
            yield f"{' '.join(mode)}: {by}: {text}", mode, "3", READS, requests, by_self
    for mode in MODES:
        for how in ("3", "2", "redirected"):
            for text, requests in _lines(KEEPS):
                yield f"{' '.join(mode)}: keeps ({how}): {text}", mode, how, (), requests, True


def _lines(text):
    for line in text.strip().splitlines():
        yield line, next(watched.situations(f"- | {line}"))[2]


def sweep(ports, comparison):
    """Compares what is told, case by case."""
    servers = [Told(port) for port in ports]
    try:
        for text, *case in cases():
            told = [server.run(*case) for server in servers]
            comparison.compare(
                question("tracking", text, difference=DIFFERENCES.get(text)), "3", *told
            )
    finally:
        for server in servers:
            server.other.close()
