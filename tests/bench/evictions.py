#!/usr/bin/env python3
"""How well eviction keeps what is in use, beside redis-server, in one run.

    tests/bench/evictions.py BINARY [--room 50000] [--requests 1000000] [--policies allkeys-lru,allkeys-lfu] [--dir DIR]

Gives one node of one shard and a redis-server (cluster mode, all slots) room for so many keys, and asks both for the same keys: those of
a set ten times as large, by a law under which a few are asked for often, and a quarter that are asked for once. What is not found is
set. Prints the share that was found in the second half, keys and evictions, and microseconds of CPU a request, user and system time of
the whole process. Standard library only.
"""

import argparse
import atexit
import pathlib
import random
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from collection_bytes import start_moonraft, start_redis  # noqa: E402

BATCH = 100
VALUE = "x" * 200
# What a leader keeps of its log in memory, and more: so that it does not come out of the room for keys.
FILLED_BYTES = 16 << 20


def trace(requests, keys):
    """Names of keys, the same for both."""
    draw = random.Random(11)
    for number in range(requests):
        yield f"once:{number}" if draw.random() < 0.25 else f"key:{int(keys ** draw.random())}"


def info(server, section, field):
    return int(server.client.query("INFO", section).decode().partition(f"{field}:")[2].split()[0])


def prepare(server, room):
    """Empties a server, and gives it room for so many keys."""
    query = server.client.query
    query("CONFIG", "SET", "maxmemory", 0)
    query("FLUSHALL")
    for start in range(0, FILLED_BYTES, BATCH * 1000):
        server.client.query_all([["SET", "filled", "x" * 1000]] * BATCH)
    query("DEL", "filled")
    before = server.used()
    for start in range(0, room, BATCH):
        server.client.query_all([["SET", f"room:{n:06}", VALUE] for n in range(start, start + BATCH)])
    query("WAIT", 0, 0)
    limit = server.used()
    query("FLUSHALL")
    query("CONFIG", "RESETSTAT")
    query("CONFIG", "SET", "maxmemory", limit)
    return (limit - before) / room


def measure(server, policy, room, requests):
    query = server.client.query
    query("CONFIG", "SET", "maxmemory-policy", policy)
    size = prepare(server, room)
    names, found, asked, cpu = list(trace(requests, room * 10)), 0, 0, 0.0
    for start in range(0, requests, BATCH):
        if start == requests // 2 // BATCH * BATCH:
            cpu = server.process.cpu()
        batch = names[start : start + BATCH]
        missing = {name for name, value in zip(batch, server.client.query_all([["GET", name] for name in batch])) if value is None}
        if start >= requests // 2:
            asked += len(batch)
            found += sum(name not in missing for name in batch)
        if missing:
            server.client.query_all([["SET", name, VALUE] for name in sorted(missing)])
    cpu = (server.process.cpu() - cpu) / asked * 1e6
    return found / asked, query("DBSIZE"), info(server, "stats", "evicted_keys"), cpu, size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--room", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--policies", default="allkeys-lru,allkeys-lfu,allkeys-random")
    parser.add_argument("--dir")
    arguments = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="evictions-", dir=arguments.dir))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    servers = [start_redis(directory), start_moonraft("Moonraft", arguments.binary, directory)]
    print("| policy | server | found | keys | evicted | µs of CPU a request | bytes a key |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for policy in arguments.policies.split(","):
        for server in servers:
            found, keys, evicted, cpu, size = measure(server, policy, arguments.room, arguments.requests)
            print(f"| {policy} | {server.name} | {found:.3f} | {keys} | {evicted} | {cpu:.1f} | {size:.0f} |", flush=True)


if __name__ == "__main__":
    main()
