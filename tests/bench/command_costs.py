#!/usr/bin/env python3
"""What commands cost at collections of several sizes, beside redis-server, in one run.

    tests/bench/command_costs.py BINARY [--elements 1000,100000] [--requests 20000] [--rows SET,XADD] [--durable] [--dir DIR]
    tests/bench/run --commands [--elements …]

Fills a key of each type of one node of one shard and of a redis-server (cluster mode, all slots, no file) with so many elements, then asks
both for the same in pipelines of 50, alternately. Prints microseconds of CPU a request, user and system time of the whole process, and
names the rows above 1.2 times. What writes is made durable by Moonraft, and by redis-server with `--durable` only, which syncs its log
before it answers then. `--rows`: those whose names begin so. Standard library only.
"""

import argparse
import atexit
import pathlib
import random
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from collection_bytes import BATCH, start_moonraft, start_redis  # noqa: E402

PARTS = 4
FILLED_AT_ONCE = 500
# Of requests that look at all elements there are fewer.
ELEMENTS_SEEN_MAX = 400_000
# Above this a row is named.
RATIO_MAX = 1.2

S, B, H, L, T, U, Z, X, G, P = ("{a}" + kind for kind in "sbhltuzxgp")


def fillers(elements):
    """Requests that fill one key of each type."""
    yield ["SET", S, "x" * 1000]
    yield ["SETBIT", B, elements * 8, 1]
    for start in range(0, elements, FILLED_AT_ONCE):
        at = range(start, min(start + FILLED_AT_ONCE, elements))
        both = lambda left, right: [word for n in at for word in (left % n, right % n)]  # noqa: B023, E731
        yield ["HSET", H, *both("f%d", "v%d")]
        yield ["RPUSH", L, *("e%d" % n for n in at)]
        yield ["SADD", T, *("m%d" % n for n in at)]
        yield ["ZADD", Z, *both("%d", "m%d")]
        yield ["GEOADD", G, *(word for n in at for word in ((n * 7) % 170, (n * 3) % 80, "m%d" % n))]
        yield ["PFADD", P, *("e%d" % n for n in at)]
        yield from (["XADD", X, f"{n + 1}-0", "f", "v"] for n in at)
    yield ["SADD", U, *("m%d" % n for n in range(50))]


def kinds(elements):
    """The words of request `n` of each kind, and how many elements it looks at."""
    draw = random.Random(7)
    somewhere = [draw.randrange(elements) for _ in range(1 << 14)]
    at = lambda n: somewhere[n % len(somewhere)]  # noqa: E731
    return {
        "GET": (lambda n: ["GET", S], 1),
        "SET": (lambda n: ["SET", "{a}w", "x" * 64], 1),
        "INCR": (lambda n: ["INCR", "{a}i"], 1),
        "MGET of 10": (lambda n: ["MGET", *[S] * 10], 1),
        "GETRANGE": (lambda n: ["GETRANGE", S, 100, 199], 1),
        "SETBIT": (lambda n: ["SETBIT", B, at(n), n % 2], 1),
        "BITCOUNT of all": (lambda n: ["BITCOUNT", B], elements // 8),
        "HSET of a field": (lambda n: ["HSET", H, "f%d" % at(n), "w%d" % n], 1),
        "HGET": (lambda n: ["HGET", H, "f%d" % at(n)], 1),
        "HMGET of 10": (lambda n: ["HMGET", H, *("f%d" % at(n + m) for m in range(10))], 1),
        "HGETALL": (lambda n: ["HGETALL", H], elements),
        "HSCAN COUNT 100": (lambda n: ["HSCAN", H, 0, "COUNT", 100], 100),
        "LPUSH": (lambda n: ["LPUSH", L, "e"], 1),
        "RPOP": (lambda n: ["RPOP", L], 1),
        "LINDEX in the midst": (lambda n: ["LINDEX", L, elements // 2], 1),
        "LSET in the midst": (lambda n: ["LSET", L, elements // 2, "e%d" % n], 1),
        "LRANGE of 100 at the head": (lambda n: ["LRANGE", L, 0, 99], 100),
        "LPOS of the last": (lambda n: ["LPOS", L, "none"], elements),
        "SADD, SREM": (lambda n: [["SADD", "SREM"][n % 2], T, "new"], 1),
        "SISMEMBER": (lambda n: ["SISMEMBER", T, "m%d" % at(n)], 1),
        "SRANDMEMBER": (lambda n: ["SRANDMEMBER", T], 1),
        "SMEMBERS": (lambda n: ["SMEMBERS", T], elements),
        "SINTER with 50": (lambda n: ["SINTER", T, U], 50),
        "SUNIONSTORE": (lambda n: ["SUNIONSTORE", "{a}o", T, U], elements),
        "ZADD of a new score": (lambda n: ["ZADD", Z, n % 1000, "m%d" % at(n)], 1),
        "ZSCORE": (lambda n: ["ZSCORE", Z, "m%d" % at(n)], 1),
        "ZRANK": (lambda n: ["ZRANK", Z, "m%d" % at(n)], 1),
        "ZRANGE of 10 in the midst": (lambda n: ["ZRANGE", Z, elements // 2, elements // 2 + 9], 10),
        "ZRANGEBYSCORE LIMIT 10": (lambda n: ["ZRANGEBYSCORE", Z, at(n), "inf", "LIMIT", 0, 10], 10),
        "ZCOUNT": (lambda n: ["ZCOUNT", Z, at(n), "inf"], 1),
        "ZINCRBY": (lambda n: ["ZINCRBY", Z, 1, "m%d" % at(n)], 1),
        "ZUNIONSTORE": (lambda n: ["ZUNIONSTORE", "{a}o", 2, Z, U], elements),
        "XADD": (lambda n: ["XADD", X, "*", "f", "v"], 1),
        "XRANGE of 10": (lambda n: ["XRANGE", X, f"{at(n)}-0", "+", "COUNT", 10], 10),
        "XREAD of 10": (lambda n: ["XREAD", "COUNT", 10, "STREAMS", X, f"{at(n)}-0"], 10),
        "GEOADD": (lambda n: ["GEOADD", G, at(n) % 170, at(n) % 80, "m%d" % at(n)], 1),
        "GEOSEARCH of 100 km": (lambda n: ["GEOSEARCH", G, "FROMLONLAT", 14, 6, "BYRADIUS", 100, "km"], 100),
        "PFADD": (lambda n: ["PFADD", P, "e%d" % n], 1),
        "PFCOUNT": (lambda n: ["PFCOUNT", P], 1),
        "EVAL that reads": (lambda n: ["EVAL", "return redis.call('HGET', KEYS[1], ARGV[1])", 1, H, "f%d" % at(n)], 1),
    }


def measure(servers, words_of, requests):
    """Microseconds of CPU a request, of each server; the servers take turns."""
    cpu = [0.0] * len(servers)
    part = max(requests // PARTS, 1)
    for number in range(PARTS):
        for at, server in enumerate(servers):
            before = server.process.cpu()
            for start in range(number * part, (number + 1) * part, BATCH):
                server.client.query_all([words_of(n) for n in range(start, min(start + BATCH, (number + 1) * part))])
            server.client.query("WAIT", 0, 0)
            cpu[at] += server.process.cpu() - before
    return [seconds / (part * PARTS) * 1e6 for seconds in cpu]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--elements", default="1000,100000")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rows", default="", help="begins of names; all by default")
    parser.add_argument("--durable", action="store_true", help="Redis with appendfsync always")
    parser.add_argument("--dir")
    arguments = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="commands-", dir=arguments.dir))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    servers = [start_redis(directory, arguments.durable), start_moonraft("Moonraft", arguments.binary, directory)]
    dear = []
    for elements in map(int, arguments.elements.split(",")):
        for server in servers:
            server.client.query("FLUSHALL")
            requests = list(fillers(elements))
            for start in range(0, len(requests), BATCH):
                server.client.query_all(requests[start : start + BATCH])
        print(f"\n| µs of CPU a request, {elements} elements | Redis | Moonraft | ratio |\n| --- | ---: | ---: | ---: |")
        for kind, (words_of, seen) in kinds(elements).items():
            if not kind.startswith(tuple(arguments.rows.split(","))):
                continue
            requests = max(min(arguments.requests, ELEMENTS_SEEN_MAX // seen), 2 * PARTS)
            theirs, ours = measure(servers, words_of, requests)
            ratio = ours / theirs if theirs else float("inf")
            print(f"| {kind} | {theirs:.1f} | {ours:.1f} | {ratio:.2f} |", flush=True)
            if ratio > RATIO_MAX:
                dear.append(f"{kind} at {elements}: {ratio:.2f}")
    print(f"\nabove {RATIO_MAX}: " + ("; ".join(dear) or "none"))


if __name__ == "__main__":
    main()
