#!/usr/bin/env python3
"""What a call of SCAN, HSCAN, SSCAN and ZSCAN costs, beside redis-server, in one run.

    tests/bench/scans.py BINARY [--elements 100000,1000000] [--count 10] [--calls 20000] [--rounds 3] [--dir DIR]

Fills one node of one shard and a redis-server (cluster mode, all slots) with the same: keys of one hash tag, keys of all slots, a
hash, a set and a sorted set of so many elements each, one after the other. Then one client walks, the sides in turns, one
request at a time. Prints CPU a call (user and system time of the whole process, what it uses at rest taken off), elements a call,
and the longest wait for an answer. Then one walk to the end with COUNT 1000, which must return each element. Standard library only.
"""

import argparse
import atexit
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import moonraft  # noqa: E402
from harness.processes import Process, free_ports  # noqa: E402
from measured import Server  # noqa: E402

FILL_BATCH = 500


class Scanned(Server):
    """A server, and what it uses at rest."""

    def idle(self, seconds=1.0, share_max=0.1, patience=120):
        """The share of a processor that it uses at rest: once a snapshot is over that filling caused."""
        deadline = time.monotonic() + patience
        while True:
            before = self.process.cpu()
            time.sleep(seconds)
            share = (self.process.cpu() - before) / seconds
            if share < share_max or time.monotonic() > deadline:
                return share


def fill(client, kind, elements):
    """As many of a kind."""
    for start in range(0, elements, FILL_BATCH):
        numbers = range(start, min(start + FILL_BATCH, elements))
        if kind == "SCAN, one tag":
            client.query_all([(b"SET", b"{t}key:%012d" % n, b"v") for n in numbers])
        elif kind == "SCAN, all slots":
            client.query_all([(b"SET", b"key:%012d" % n, b"v") for n in numbers])
        elif kind == "HSCAN":
            client.query(b"HSET", b"c", *(w for n in numbers for w in (b"field:%012d" % n, b"v")))
        elif kind == "SSCAN":
            client.query(b"SADD", b"c", *(b"member:%012d" % n for n in numbers))
        else:
            client.query(b"ZADD", b"c", *(w for n in numbers for w in (b"%d" % n, b"member:%012d" % n)))


def empty(client, elements):
    """In steps, so that the other side's turn is not disturbed by what is freed."""
    client.query(b"FLUSHALL")
    deadline = time.monotonic() + 120 + elements / 50_000
    while client.query(b"DBSIZE") != 0:
        if time.monotonic() > deadline:
            raise RuntimeError("keys are left")
        time.sleep(0.1)
    time.sleep(1)


class Walk:
    """One client that walks, again and again."""

    def __init__(self, server, kind, count):
        self.server, self.cursor = server, b"0"
        words = kind.split(",")[0].encode()
        self.head = (words,) if words == b"SCAN" else (words, b"c")
        self.tail = (b"COUNT", b"%d" % count)
        self.width = 2 if kind in ("HSCAN", "ZSCAN") else 1

    def call(self):
        self.cursor, found = self.server.client.query(*self.head, self.cursor, *self.tail)
        return found

    def measure(self, calls, idle):
        """CPU seconds and elements a call, and the longest wait."""
        before, began, found, longest = self.server.process.cpu(), time.monotonic(), 0, 0
        for _ in range(calls):
            sent = time.monotonic()
            found += len(self.call()) // self.width
            longest = max(longest, time.monotonic() - sent)
        used = self.server.process.cpu() - before - idle * (time.monotonic() - began)
        return used / calls, found / calls, longest


def whole(server, kind, elements):
    """A walk to the end with COUNT 1000: its seconds."""
    walk, seen, began = Walk(server, kind, 1000), set(), time.monotonic()
    while True:
        seen.update(walk.call()[:: walk.width])
        if walk.cursor == b"0":
            break
    seconds = time.monotonic() - began
    if len(seen) != elements:
        raise RuntimeError(f"{server.name} returned {len(seen)} of {elements}")
    return seconds


def median(values):
    return sorted(values)[len(values) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--elements", default="100000,1000000")
    parser.add_argument("--kinds", default="SCAN, one tag;SCAN, all slots;HSCAN;SSCAN;ZSCAN")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=pathlib.Path)
    options = parser.parse_args()

    directory = pathlib.Path(options.dir or tempfile.mkdtemp(prefix="bench-scans-"))
    if not options.dir:
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    (directory / "redis").mkdir(parents=True, exist_ok=True)
    port = free_ports(2)
    words = ["redis-server", "--port", port, "--cluster-port", port + 1, "--cluster-enabled", "yes", "--save", "",
             "--dir", directory / "redis"]
    dev = moonraft.Dev(directory / "moonraft", nodes=1, shards=1, program=options.binary)
    servers = [
        Scanned("Redis", Process(words, directory / "redis.log"), port),
        Scanned("Moonraft", dev.process, dev.port),
    ]

    print(f"COUNT {options.count}; {options.rounds} rounds of {options.calls} calls, the sides in turns; medians.\n")
    print("| walk | elements | side | CPU us/call | elements/call | longest wait ms | CPU ratio | COUNT 1000 to the end, s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for elements in map(int, options.elements.split(",")):
        for kind in options.kinds.split(";"):
            for server in servers:
                fill(server.client, kind, elements)
            time.sleep(2)
            idle = {server.name: server.idle() for server in servers}
            walks = [Walk(server, kind, options.count) for server in servers]
            rounds = {server.name: [] for server in servers}
            for _ in range(options.rounds):
                for walk in walks:
                    name = walk.server.name
                    rounds[name].append(walk.measure(options.calls, idle[name]))
            redis = median([used for used, _, _ in rounds["Redis"]])
            for server in servers:
                used, found, longest = zip(*rounds[server.name])
                ratio = "" if server.name == "Redis" else f"{median(used) / redis:.2f}"
                end = whole(server, kind, elements)
                print(f"| {kind} | {elements} | {server.name} | {median(used) * 1e6:.1f} | {median(found):.1f} "
                      f"| {max(longest) * 1e3:.2f} | {ratio} | {end:.2f} |", flush=True)
            for server in servers:
                empty(server.client, elements)


if __name__ == "__main__":
    sys.exit(main())
