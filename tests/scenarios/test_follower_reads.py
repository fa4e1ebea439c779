"""Clients that read at followers (`READONLY`) see a write soon after it was acknowledged.

Run with `-s` it prints how soon. On a quiet machine that is about a tenth of a millisecond; what is asserted leaves room
for a busy one, and is well below a heartbeat, with which followers hear of commits where nobody reads.
"""

import statistics
import threading
import time

import pytest

from harness.processes import eventually
from harness.wire import Wire

WRITES = 200
# A heartbeat is every 100 ms.
MEDIAN_MS_MAX = 20


def lags(leader, follower, key):
    """Milliseconds after each acknowledged write until the follower's client sees it."""
    found = []
    with Wire(leader.port) as writer, Wire(follower.port) as reader:
        assert reader.ask("READONLY") == b"+OK\r\n"
        for number in range(WRITES):
            wanted = b"$%d\r\n%d\r\n" % (len(str(number)), number)
            found.append(lag(writer, reader, key, number, wanted))
    return found


def lag(writer, reader, key, value, wanted):
    """The same for one write, after which the follower answers `wanted`."""
    assert writer.ask("SET", key, value) == b"+OK\r\n"
    acknowledged = time.monotonic()
    while reader.ask("GET", key) != wanted:
        assert time.monotonic() - acknowledged < 10, "it is not there at all"
    return (time.monotonic() - acknowledged) * 1000


def tell(what, found):
    """The median; printed with the rest."""
    median = statistics.median(found)
    high = statistics.quantiles(found, n=10)[-1]
    print(f"{what}: p50 {median:.2f} ms, p90 {high:.2f} ms, longest {max(found):.1f} ms")
    return median


@pytest.mark.rival_may_lose("redis-server is as fast, and a reader may come first")
def test_a_write_is_seen_at_a_follower_at_once(cluster):
    leader, key = cluster.leader(0), cluster.key_on(0, "seen")
    for follower in cluster.followers(0):
        assert tell(f"idle, {follower.address}", lags(leader, follower, key)) < MEDIAN_MS_MAX


def test_a_write_is_seen_at_a_follower_while_others_write(cluster):
    leader, follower, key = cluster.leader(0), cluster.followers(0)[0], cluster.key_on(0, "seen")
    done, written = threading.Event(), []

    def write():
        with Wire(leader.port) as wire:
            while not done.is_set():
                written.append(wire.ask("SET", key + "other", len(written)))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        eventually(lambda: written, what="the other writes")
        assert tell("with another writer", lags(leader, follower, key)) < MEDIAN_MS_MAX
    finally:
        done.set()
        writer.join()


def test_a_reader_that_was_idle_is_served_as_soon(cluster):
    """Nothing but its `READONLY` was heard of it before the write."""
    leader, follower, key = cluster.leader(0), cluster.followers(0)[0], cluster.key_on(0, "first")
    found = []
    for number in range(20):
        with Wire(leader.port) as writer, Wire(follower.port) as reader:
            assert reader.ask("READONLY") == b"+OK\r\n"
            found.append(lag(writer, reader, key, f"value {number}", b"$%d\r\nvalue %d\r\n" % (6 + len(str(number)), number)))
    assert tell("first reads", found) < MEDIAN_MS_MAX
