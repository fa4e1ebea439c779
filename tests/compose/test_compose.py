"""Does the cluster that docker-compose starts serve host and network alike, and
lose nothing that it acknowledged, whatever happens to its containers?"""

import time

import pytest
from stack import (
    HOST,
    STOP_SECONDS_MAX,
    HostWriters,
    NetworkWriters,
    run,
    wait_for_progress,
)

from harness.processes import eventually


def host_addresses(stack):
    return {f"{HOST}:{node.port + shard}" for node in stack.nodes for shard in range(stack.shards)}


def network_addresses(stack):
    return {f"{node.name}:{6379 + shard}" for node in stack.nodes for shard in range(stack.shards)}


def test_each_side_is_told_addresses_that_it_can_reach(cluster):
    for node in range(1, 4):
        with cluster.client(node) as client:
            assert {member.name for member in client.get_nodes()} == host_addresses(cluster)
    with NetworkWriters(cluster) as network:
        assert set(network.ask("addresses")) == network_addresses(cluster)


# These keys are of three shards; the arguments say where to begin.
THREE_SHARDS = """
for key in a b c; do redis-cli -c "$@" SET $key v$key; done
for key in a b c; do redis-cli -c "$@" GET $key; done
"""


def test_redis_cli_follows_redirects_on_both_sides(cluster):
    for node in cluster.nodes:
        for side in (
            ["sh", "-c", THREE_SHARDS, "sh", "-p", str(node.port)],
            cluster.in_network("sh", "-c", THREE_SHARDS, "sh", "-h", node.name),
        ):
            assert run(*side).stdout.split() == ["OK", "OK", "OK", "va", "vb", "vc"]


def test_containers_have_no_more_than_they_need(cluster):
    for node in cluster.nodes:
        facts = node.inspect()
        assert facts["Config"]["User"] == "moonraft"
        assert facts["HostConfig"]["ReadonlyRootfs"]
        status = run("docker", "exec", node.container, "cat", "/proc/1/status").stdout
        lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert lines["Uid"].split()[0] == "10001"
        assert lines["CapEff"] == lines["CapBnd"] == "0" * 16


FAULTS = ["crash", "kill", "stop", "restart", "pause", "cut_off"]


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_acknowledged_is_lost(cluster, fault):
    """Each node in turn, under load from both sides."""
    with HostWriters(cluster) as host, NetworkWriters(cluster) as network:
        wait_for_progress(host, network)
        for node in cluster.nodes:
            getattr(node, fault)()
            wait_for_progress(host, network)
            cluster.heal()
            wait_for_progress(host, network)
        lost = host.finish() + network.finish()
        written = sum(host.counts()) + sum(network.counts())
        assert not lost, f"{len(lost)} of {written} acknowledged writes are lost: {lost[:5]}"
        if fault in ("stop", "restart"):
            assert host.errors + network.errors == [], "a graceful stop costs no error"


def test_a_graceful_stop_is_over_in_time_and_clean(cluster):
    node = cluster.nodes[0]
    begin = time.monotonic()
    node.stop()
    assert time.monotonic() - begin < STOP_SECONDS_MAX
    assert node.inspect()["State"]["ExitCode"] == 0


def test_health_tells_a_node_that_cannot_serve(cluster):
    for node in cluster.nodes[1:]:
        node.stop()
    alone = cluster.nodes[0]
    words = ["docker", "exec", alone.container, "moonraft", "health"]

    def is_refused():
        done = run(*words, check=False)
        return done.returncode == 1 and done.stdout.startswith("not ready: ")

    eventually(is_refused, what="a node without a majority is not ready")


def test_down_and_up_again_keeps_the_data(cluster):
    with HostWriters(cluster) as host:
        wait_for_progress(host)
        # All at once, in the middle of it; the volumes stay.
        cluster.compose("down", "--timeout", str(STOP_SECONDS_MAX))
        cluster.up()
        wait_for_progress(host)
        assert host.finish() == []
