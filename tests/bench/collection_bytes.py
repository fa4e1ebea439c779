#!/usr/bin/env python3
"""What small and large collections take of memory, beside redis-server, in one run.

    tests/bench/collection_bytes.py BINARY [--before OLDER] [--count 100000] [--dir DIR]

Fills one node of one shard and a redis-server (cluster mode, all slots), and an older build if there is one, with the same, one kind
after the other: many small hashes, lists, sets and sorted sets, then one large one of each; streams, and what is pending of them. Prints bytes a collection or, of a large
one, an element, by `used_memory` of INFO, and CPU a request that made one (user and system time of the whole process).
Standard library only.
"""

import argparse
import atexit
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import moonraft  # noqa: E402
from harness.processes import Process, free_ports  # noqa: E402
from measured import Server  # noqa: E402

BATCH = 50
# A large collection comes in requests of so many elements.
SLICE = 100
# Of its newest entries a leader keeps so much in memory, for followers.
LOG_KEPT_BYTES = 8 << 20

START_MS = 1_700_000_000_000
GROUP = ("XGROUP", "CREATE")


def pairs(numbers, left, right):
    """Words of fields with values, or of scores with members."""
    return [word for number in numbers for word in (left % number, right % number)]


# The words of request `n`, and how many elements of a large collection it brings; 0: it is one small collection.
KINDS = {
    "hash of 10 short fields": (lambda n: ["HSET", "{a}h:%06d" % n, *pairs(range(10), "field%d", "value%d")], 0),
    "list of 20 short elements": (lambda n: ["RPUSH", "{a}l:%06d" % n, *("element%d" % m for m in range(20))], 0),
    "set of 10 short members": (lambda n: ["SADD", "{a}s:%06d" % n, *("member%d" % m for m in range(10))], 0),
    "set of 10 integers": (lambda n: ["SADD", "{a}i:%06d" % n, *range(n % 1000, n % 1000 + 10)], 0),
    "sorted set of 10 short members": (lambda n: ["ZADD", "{a}z:%06d" % n, *pairs(range(10), "%d", "member%d")], 0),
    "a field of a large hash": (lambda n: ["HSET", "{a}H", *pairs(slice_of(n), "field:%d", "value:%d")], SLICE),
    "an element of a large list": (lambda n: ["RPUSH", "{a}L", *("element:%d" % m for m in slice_of(n))], SLICE),
    "a member of a large set": (lambda n: ["SADD", "{a}S", *("member:%d" % m for m in slice_of(n))], SLICE),
    "a member of a large sorted set": (lambda n: ["ZADD", "{a}Z", *pairs(slice_of(n), "%d", "member:%d")], SLICE),
    "stream of 1 entry": (lambda n: ["XADD", "{a}x:%06d" % n, f"{n + 1}-0", *entry(n)], 0),
    "empty stream with a group": (lambda n: [*GROUP, "{a}g:%06d" % n, "group", "0", "MKSTREAM"], 0),
    "an entry of a large stream": (lambda n: ["XADD", "{a}X", f"{START_MS + n // 3}-{n % 3}", *entry(n)], 0),
    "that is pending in a group": (lambda n: read_by("worker:%d" % (n % 10)), SLICE),
}
# Asked before the requests of a kind.
BEFORE = {"that is pending in a group": [*GROUP, "{a}X", "group", "0"]}


def entry(number):
    return "sensor", "s:%d" % (number % 1000), "value", "%d.%d" % (number % 100, number % 7), "unit", "celsius"


def read_by(consumer):
    return ["XREADGROUP", "GROUP", "group", consumer, "COUNT", SLICE, "STREAMS", "{a}X", ">"]


def slice_of(request):
    return range(request * SLICE, (request + 1) * SLICE)


class Filled(Server):
    """A server, and what it takes of memory."""

    def used(self):
        info = self.client.query("INFO", "memory").decode()
        return int(info.partition("used_memory:")[2].split()[0])

    def measure(self, words_of, requests):
        """Bytes and microseconds a request."""
        bytes_before, cpu_before = self.used(), self.process.cpu()
        for start in range(0, requests, BATCH):
            self.client.query_all([words_of(n) for n in range(start, min(start + BATCH, requests))])
        # Undone and logged changes go once they are committed.
        self.client.query("WAIT", 0, 0)
        return (self.used() - bytes_before) / requests, (self.process.cpu() - cpu_before) / requests * 1e6


def start_moonraft(name, binary, directory):
    port = moonraft.dev_ports(1, 1)
    words = [binary, "dev", "--nodes", 1, "--shards", 1, "--port", port, "--dir", directory / f"{name}-data"]
    return Filled(name, Process(words, directory / f"{name}.log"), port)


def start_redis(directory, durable=False):
    """One without files, or one whose log is on the disk before a write is acknowledged."""
    port = free_ports(1)
    words = ["redis-server", "--port", port, "--save", "", "--cluster-enabled", "yes", "--dir", directory]
    if durable:
        words += ["--appendonly", "yes", "--appendfsync", "always"]
    return Filled("Redis", Process(words, directory / "redis.log"), port)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--before", help="an older build")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dir")
    arguments = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="collections-", dir=arguments.dir))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    servers = [start_redis(directory)]
    if arguments.before:
        servers.append(start_moonraft("before", arguments.before, directory))
    servers.append(start_moonraft("Moonraft", arguments.binary, directory))
    for server in servers:
        # What a server keeps of its log whatever it is asked, so that the first kind does not pay for it.
        server.measure(lambda _: ["SET", "{a}once", "x" * 1000], 2 * LOG_KEPT_BYTES // 1000)
    names = [server.name for server in servers]
    print("| bytes (µs of CPU) |", " | ".join(names), "|\n| --- |" + " ---: |" * len(names))
    for kind, (words_of, elements) in KINDS.items():
        requests = arguments.count // 10 if elements else arguments.count
        if kind in BEFORE:
            requests = arguments.count // SLICE  # as many entries as the stream has
        if kind in BEFORE:
            for server in servers:
                server.client.query(*BEFORE[kind])
        figures = [server.measure(words_of, requests) for server in servers]
        each = elements or 1
        print("|", kind, "|", " | ".join(f"{size / each:.0f} ({cpu / each:.2f})" for size, cpu in figures), "|", flush=True)


if __name__ == "__main__":
    main()
