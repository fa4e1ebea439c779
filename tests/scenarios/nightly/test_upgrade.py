"""A rolling upgrade from a build that knows one format of the log only, under load, and back while that is possible.

The older build is made of an earlier commit (`older`). While one node is of the older build, or holds its agreement
back (`format-max`), all that is written can be read by both builds; then the shards agree on the newer format, and
the older build does not start any more.
"""

import re
import subprocess
from pathlib import Path

import pytest

from load import RedisPyLoad, redis_rs_load, wait_for_progress
from harness.processes import eventually

pytestmark = [
    pytest.mark.moonraft_only("it has formats of its own"),
    # The older server may have to be built first.
    pytest.mark.timeout(900),
]

# What the build under test reads and writes, as it is told there.
ENTRIES = Path(__file__).parents[3] / "proto" / "src" / "entry.rs"
NEWEST_FORMAT = int(re.search(r"NEWEST_FORMAT: u8 = (\d+);", ENTRIES.read_text())[1])


@pytest.fixture(scope="session")
def older():
    """The older server."""
    script = Path(__file__).with_name("older")
    return Path(subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


def restart(node, loads, program=None, arguments=()):
    """The node goes on with another build, or the one under test."""
    wait_for_progress(loads)
    node.stop()
    node.program, node.arguments = program, [*arguments]
    node.launch()
    node.wait_until_ready()


def formats(cluster):
    """What the replicas of newer builds have agreed on."""
    found = {}
    for replica in cluster.running_replicas():
        with replica.connect() as client:
            found[replica.address] = client.info("server").get("moonraft_agreed_format")
    return found


def agreed(cluster, format):
    """Whether all replicas have agreed on this format."""
    found = formats(cluster)
    assert set(found.values()) == {format}, found
    return True


def take_snapshots(cluster):
    """Every replica writes one: a restart, and the other build, begin with it."""
    for replica in cluster.running_replicas():
        with replica.connect() as client:
            client.bgsave()


def test_a_cluster_goes_to_a_newer_build_and_back_and_there_again(own_cluster, older, directory):
    cluster = own_cluster(3, 3)
    for node in cluster.nodes:
        node.program = older
    cluster.start()
    assert set(formats(cluster).values()) == {None}, "it knows nothing of formats"
    loads = [RedisPyLoad(cluster), redis_rs_load(cluster, directory)]
    try:
        for load in loads:
            load.start()
        # There: the last node holds the agreement back.
        for node, arguments in zip(cluster.nodes, ([], [], ["--set", "format-max=1"])):
            restart(node, loads, arguments=arguments)
        take_snapshots(cluster)
        wait_for_progress(loads)
        agreed(cluster, 1)
        # And back, in the same order: a node of the older build is there before the one that holds back goes.
        for node in cluster.nodes:
            restart(node, loads, program=older)
        take_snapshots(cluster)
        # There again, for good.
        for node in cluster.nodes:
            restart(node, loads, arguments=["--set", "format-max=1"])
        agreed(cluster, 1)
        cluster.configure("format-max", "255")
        eventually(lambda: agreed(cluster, NEWEST_FORMAT), what="the shards agree on the newer format")
        wait_for_progress(loads)
        outcomes = [load.stop() for load in loads]
    finally:
        for load in loads:
            load.abandon()
    for outcome in outcomes:
        assert outcome.errors == [] and outcome.lost == 0, outcome
    for node in cluster.nodes:
        assert "agreed on a newer format" in node.process.output()

    cluster.heal()
    the_older_build_is_refused(cluster, older)
    for shard in range(cluster.shards):
        eventually(lambda: len(set(cluster.digests(shard))) == 1, what="equal replicas")


def the_older_build_is_refused(cluster, older):
    """With data of the newer format it does not start; with none it is not taken in, and is told why."""
    last = cluster.nodes[2]
    last.stop()
    last.program, last.arguments = older, []
    last.launch()
    assert last.process.wait() == 2
    assert "build reads up to format 1. Start the build that wrote it, or a newer one" in last.process.output()
    last.directory.rename(last.directory.with_suffix(".aside"))
    last.launch()
    refused = f"the cluster has agreed on format {NEWEST_FORMAT}, and node 3 reads up to format 1. Start a newer build there"
    eventually(lambda: refused in last.process.output(), what="it tells why it is not heard")
    last.stop()
    last.directory.rename(last.directory.with_suffix(".empty"))
    last.directory.with_suffix(".aside").rename(last.directory)
    last.program = None
    cluster.heal()
