"""Values as large as Redis takes them: replicated, with leaders kept in their places."""

import contextlib

import pytest
import redis
from redis.exceptions import MovedError

from harness.processes import eventually

MIB = 1 << 20

# Half a gigabyte is written to three disks of one machine, and read back.
pytestmark = pytest.mark.timeout(600)

PATIENCE = {"socket_timeout": 300, "decode_responses": False}


def terms(cluster):
    """The terms of all shards: an election anywhere makes one higher."""
    with cluster.running_replicas()[0].connect() as client:
        nodes = client.execute_command("CLUSTER NODES")
    if isinstance(nodes, dict):
        return sorted((address, node["epoch"]) for address, node in nodes.items())
    return nodes


def resident_mib(cluster):
    """The most memory that any node's process ever held."""
    peaks = []
    for node in cluster.nodes:
        with open(f"/proc/{node.process.pid}/status", encoding="ascii") as status:
            (line,) = [line for line in status if line.startswith("VmHWM")]
        peaks.append(int(line.split()[1]) >> 10)
    return max(peaks)


def on_leader(cluster, work):
    """Does `work` on a connection to the leader of shard 0, wherever that is: MOVED means that it was not done."""
    for _ in range(5):
        with cluster.leader(0).connect(**PATIENCE) as leader, contextlib.suppress(MovedError):
            return work(leader)
    raise AssertionError("the leadership went around five times")


def assert_nobody_was_elected(cluster, leader, before):
    """Large values cost no leader its term.

    That is tested on virtual clocks and slow virtual disks (`consensus/tests/window.rs`). Here the clocks are real: a
    machine that stood still for longer than followers wait ends a term whatever the server does. Only the node that led can
    tell, and only its word counts.
    """
    if terms(cluster) == before:
        return
    held_up = [line for line in leader.node.process.output().splitlines() if "held up:" in line]
    assert held_up, f"somebody was elected, and the machine of {leader.address} did not stand still"
    print(f"an election, after: {held_up}")


@pytest.mark.moonraft_only("asks what Moonraft promises of large entries")
def test_values_up_to_the_limit_reach_all_replicas(make_cluster):
    cluster = make_cluster(nodes=3, shards=1)
    before, first = terms(cluster), cluster.leader(0)
    value = b"0123456789abcdef" * (200 * MIB // 16)

    def set_and_wait(name, data, patience_ms):
        def work(leader):
            assert leader.set(name, data)
            assert leader.wait(2, patience_ms) == 2

        on_leader(cluster, work)

    set_and_wait("large", value, 120_000)
    assert on_leader(cluster, lambda leader: leader.strlen("large")) == len(value)
    assert on_leader(cluster, lambda leader: leader.getrange("large", 200 * MIB - 4, -1)) == b"cdef"

    # As long as a string may be, by a piece behind it and by a gap.
    assert on_leader(cluster, lambda leader: leader.append("large", value)) == 400 * MIB
    assert on_leader(cluster, lambda leader: leader.setrange("gap", 512 * MIB - 1, b"x")) == 512 * MIB
    with pytest.raises(redis.ResponseError, match="string exceeds maximum allowed size"):
        on_leader(cluster, lambda leader: leader.setrange("gap", 512 * MIB, b"x"))
    on_leader(cluster, lambda leader: leader.delete("gap"))

    set_and_wait("largest", b"v" * (512 * MIB), 240_000)
    print(f"most memory of a node's process: {resident_mib(cluster)} MiB")
    assert_nobody_was_elected(cluster, first, before)
    eventually(lambda: len(set(cluster.digests(0))) == 1, within=60, what="all replicas hold the same")


@pytest.mark.moonraft_only("Redis counts replicas that may forget")
def test_wait_counts_followers_that_are_there(cluster):
    with cluster.leader(0).connect() as leader:
        leader.set(cluster.key_on(0), "v")
        assert leader.wait(2, 10_000) == 2
        follower = cluster.followers(0)[0]
        follower.node.kill()
        leader.set(cluster.key_on(0), "w")
        assert leader.wait(1, 10_000) == 1
        assert leader.wait(2, 300) == 1
        assert leader.wait(9, 100) == 1
