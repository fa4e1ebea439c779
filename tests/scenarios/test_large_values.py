"""Values as large as Redis takes them: replicated, with leaders kept in their places."""

import pytest
import redis

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


@pytest.mark.moonraft_only("asks what Moonraft promises of large entries")
def test_values_up_to_the_limit_reach_all_replicas(make_cluster):
    cluster = make_cluster(nodes=3, shards=1)
    before = terms(cluster)
    with cluster.leader(0).connect(**PATIENCE) as leader:
        value = b"0123456789abcdef" * (200 * MIB // 16)
        assert leader.set("large", value)
        assert leader.wait(2, 120_000) == 2
        assert leader.strlen("large") == len(value)
        assert leader.getrange("large", 200 * MIB - 4, -1) == b"cdef"

        # As long as a string may be, by a piece behind it and by a gap.
        assert leader.append("large", value) == 400 * MIB
        assert leader.setrange("gap", 512 * MIB - 1, b"x") == 512 * MIB
        with pytest.raises(redis.ResponseError, match="string exceeds maximum allowed size"):
            leader.setrange("gap", 512 * MIB, b"x")
        leader.delete("gap")

        assert leader.set("largest", b"v" * (512 * MIB))
        assert leader.wait(2, 240_000) == 2
    print(f"most memory of a node's process: {resident_mib(cluster)} MiB")
    assert terms(cluster) == before, "nobody was elected meanwhile"
    assert len(set(cluster.digests(0))) == 1


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
