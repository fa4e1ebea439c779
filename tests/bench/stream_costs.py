#!/usr/bin/env python3
"""What requests to a large stream cost, beside redis-server, in one run.

    tests/bench/stream_costs.py BINARY [--entries 10000000] [--requests 50000] [--durable] [--dir DIR]

Fills a stream of one node of one shard and of a redis-server (cluster mode, all slots) with so many entries, by scripts, gives all but a
tenth to a group, and then asks each for the same in pipelines of 50, and alternately: XADD, XREADGROUP of ten entries, XACK of one and of
ten, XRANGE of ten in the midst, XDEL in the midst. Prints microseconds of CPU a request, user and system time of the whole process, and
bytes an entry, of as many such streams as have a hundred thousand entries: what a server takes for its first script, or for its log, would else
count for them. With `--durable` redis-server syncs its log before it answers, as Moonraft does. Standard library only.
"""

import argparse
import atexit
import pathlib
import random
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from collection_bytes import BATCH, LOG_KEPT_BYTES, start_moonraft, start_redis  # noqa: E402

KEY = "{a}stream"
FILL = """for n = ARGV[1], ARGV[2] - 1 do
redis.call('XADD', KEYS[1], string.format('%d-0', n + 1), 'sensor', 's:' .. n % 1000, 'value', n % 997, 'unit', 'celsius') end"""
DELIVER = "redis.call('XREADGROUP', 'GROUP', 'g', ARGV[1], 'COUNT', ARGV[2], 'STREAMS', KEYS[1], '>') return 1"
FILLED_AT_ONCE = 5000
DELIVERED_AT_ONCE = 1000
PARTS = 5
# Entries of which the bytes are measured, in one stream or in several.
MEASURED = 100_000


def fill(server, entries):
    """Streams of entries, of which all but a tenth are pending."""
    begun, count = time.time(), max(MEASURED // entries, 1)
    keys = [KEY, *(f"{KEY}:{number}" for number in range(1, count))]
    delivered = entries * 9 // 10

    def ask_all(*words):
        server.client.query(*words)
        server.client.query("WAIT", 0, 0)

    # Both scripts are known before.
    ask_all("EVAL", FILL, 1, KEY, 0, 0)
    ask_all("XGROUP", "CREATE", KEY, "g", "0", "MKSTREAM")
    ask_all("EVAL", DELIVER, 1, KEY, "none", 1)
    ask_all("DEL", KEY)
    before = server.used()
    for key in keys:
        for start in range(0, entries, FILLED_AT_ONCE):
            ask_all("EVAL", FILL, 1, key, start, min(start + FILLED_AT_ONCE, entries))
    filled = server.used()
    for key in keys:
        ask_all("XGROUP", "CREATE", key, "g", "0")
        for start in range(0, delivered, DELIVERED_AT_ONCE):
            at_once = min(DELIVERED_AT_ONCE, delivered - start)
            ask_all("EVAL", DELIVER, 1, key, f"worker:{start // DELIVERED_AT_ONCE % 10}", at_once)
    print(
        f"{server.name}: {(filled - before) / entries / count:.1f} bytes an entry, "
        f"{(server.used() - filled) / delivered / count:.1f} a pending one; filled in {time.time() - begun:.0f} s",
        flush=True,
    )


def kinds(entries):
    """The words of request `n` of each kind."""
    draw = random.Random(7)
    somewhere = [draw.randrange(1, entries * 9 // 10) for _ in range(1 << 16)]
    at = lambda n: somewhere[n % len(somewhere)]  # noqa: E731
    return {
        "XADD": lambda n: ["XADD", KEY, f"{entries + n + 1}-0", "sensor", "s:1", "value", n % 997, "unit", "celsius"],
        "XREADGROUP COUNT 10": lambda n: ["XREADGROUP", "GROUP", "g", "late", "COUNT", 10, "STREAMS", KEY, ">"],
        "XACK of the oldest": lambda n: ["XACK", KEY, "g", f"{n + 1}-0"],
        "XACK of 10 anywhere": lambda n: ["XACK", KEY, "g", *(f"{at(n * 10 + m)}-0" for m in range(10))],
        "XRANGE of 10 anywhere": lambda n: ["XRANGE", KEY, f"{at(n)}-0", "+", "COUNT", 10],
        "XCLAIM of 1 anywhere": lambda n: ["XCLAIM", KEY, "g", "claimer", 0, f"{at(n)}-0", "JUSTID"],
        "XDEL of 1 anywhere": lambda n: ["XDEL", KEY, f"{at(n)}-0"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--durable", action="store_true", help="Redis with appendfsync always")
    parser.add_argument("--dir")
    arguments = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="streams-", dir=arguments.dir))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    servers = [start_redis(directory, arguments.durable), start_moonraft("Moonraft", arguments.binary, directory)]
    for server in servers:
        # What a server keeps of its log whatever it is asked, so that the entries do not pay for it.
        server.measure(lambda _: ["SET", "{a}once", "x" * 1000], 2 * LOG_KEPT_BYTES // 1000)
        fill(server, arguments.entries)
    print("| µs of CPU a request |", " | ".join(server.name for server in servers), "| ratio |\n| --- | ---: | ---: | ---: |")
    part = arguments.requests // PARTS // BATCH * BATCH
    for kind, words_of in kinds(arguments.entries).items():
        cpu = [0.0, 0.0]
        for number in range(PARTS):
            for at, server in enumerate(servers):
                requests = range(number * part, (number + 1) * part, BATCH)
                batches = [[words_of(n) for n in range(start, start + BATCH)] for start in requests]
                before = server.process.cpu()
                for batch in batches:
                    server.client.query_all(batch)
                cpu[at] += server.process.cpu() - before
        each = [seconds / (part * PARTS) * 1e6 for seconds in cpu]
        print(f"| {kind} | {each[0]:.1f} | {each[1]:.1f} | {each[1] / each[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
