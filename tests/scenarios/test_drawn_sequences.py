"""Sequences drawn from the table of commands, with leaders that lose their office or their life: replicas stay equal.

What a leader has executed and not committed is undone when another leads: each command's effects by their undos. Here
that happens to every command there is, with all its options, also those whose replies chance decides; the digests of
all replicas tell whether anything was left.
"""

import sys

import pytest

from harness.moonraft import REPOSITORY
from harness.processes import eventually
from harness.wire import Wire, WireError, request

sys.path.append(str(REPOSITORY / "tests" / "differential"))
from sequences.running import payloads
from sequences.units import Units
from sweeps.drawn import Commands

SEED = "scenarios"
ROUNDS = 6
# Of a sequence: answered, then executed and not committed.
FIRST = 100

pytestmark = pytest.mark.moonraft_only("Redis keeps what its old leader alone has, until it is wiped")


def _sequence(commands, values, libraries, number):
    units = Units(commands.docs, set(commands.facts), values, libraries, f"{SEED}:{number}")
    return [step.words for step in units.sequence(by_chance=True)]


def _send(wire, requests):
    wire.send_raw(b"".join(request(*words) for words in requests))


def _ask(port, requests):
    """Sends requests and reads all replies, unless the connection ends."""
    with Wire(port) as wire:
        _send(wire, requests)
        try:
            for _ in requests:
                wire.receive()
        except WireError:
            return False
    return True


def _processed(port):
    """How many requests a replica has executed."""
    with Wire(port) as wire:
        lines = wire.query("INFO", "stats").decode().splitlines()
    return next(int(line.split(":")[1]) for line in lines if line.startswith("total_commands_processed:"))


def _leads(replica):
    with replica.connect(socket_timeout=2) as client:
        return client.info("replication")["role"] == "master"


def _digest(cluster):
    found = eventually(
        lambda: (digests := cluster.digests(0)) and len(digests) == 3 and len(set(digests)) == 1 and digests,
        within=30,
        what="one digest on all replicas",
    )
    return found[0]


@pytest.fixture
def drawn(own_cluster):
    """A cluster of one shard, and sequences for it."""
    cluster = own_cluster(3, 1).start()
    port = cluster.leader(0).port
    commands, (values, libraries) = Commands(port), payloads(port)
    return cluster, lambda number: _sequence(commands, values, libraries, number)


def test_what_is_undone_leaves_no_trace(drawn):
    """The leader executes a sequence that nobody hears of; others elect one of them meanwhile."""
    cluster, sequence = drawn
    for number in range(ROUNDS):
        leader, followers = cluster.leader(0), cluster.followers(0)
        requests = sequence(number)
        assert _ask(leader.port, requests[:FIRST])
        before = _digest(cluster)
        for follower in followers:
            follower.node.pause()
        with Wire(leader.port) as wire:
            done = _processed(leader.port)
            _send(wire, requests[FIRST:])
            eventually(lambda: _processed(leader.port) > done + 10, what="the leader executes them")
            leader.node.pause()
            for follower in followers:
                follower.node.resume()
            eventually(lambda: any(_leads(follower) for follower in followers), what="another leads")
            leader.node.resume()
        # What had left before the followers stood still may be in their sockets: then it is committed, and everywhere.
        assert _digest(cluster), f"after {before}"


def test_replicas_are_equal_after_kills(drawn):
    """Leaders are killed in the midst of sequences, and come back with what their log holds."""
    cluster, sequence = drawn
    for number in range(ROUNDS, 2 * ROUNDS):
        leader = cluster.leader(0)
        with Wire(leader.port) as wire:
            requests = sequence(number)
            _send(wire, requests)
            for _ in range(FIRST // 2):
                wire.receive()
            leader.node.kill()
        cluster.start()
        assert _digest(cluster)
