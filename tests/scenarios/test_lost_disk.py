"""A disk is lost or damaged: the node comes back by itself, under an id that promised nothing."""

import shlex
import shutil
import subprocess

import pytest
from test_failover import assert_replicas_agree

from harness import moonraft
from harness.cluster import Cluster
from harness.processes import eventually
from harness.recorder import Recorder
from harness.wire import Wire

pytestmark = pytest.mark.moonraft_only("redis-server takes an empty disk for the truth")

# The header of a log file: 57 bytes of magic, version, alignment.
LOG_HEADER = len(b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5") + 16


def lose_disk(node):
    """The process dies and its directory is gone."""
    if node.is_running():
        node.kill()
    shutil.rmtree(node.directory)


def wait_until_voter(cluster, node, incarnation):
    """Every running node knows `node` as a voter under this incarnation, and under no other."""

    def is_voter():
        for witness in (n for n in cluster.nodes if n.is_running()):
            for shard in range(cluster.shards):
                mine = {member[1:] for member in witness.members(shard) if member[0] == node.number}
                assert mine == {(incarnation, "voter")}, f"shard {shard}: {mine}"
        return True

    eventually(is_voter, within=60, what=f"node {node.number}.{incarnation} votes everywhere")


def incarnation_of(cluster, node):
    """The life of its disk that a node is known by."""
    others = next(n for n in cluster.nodes if n is not node)
    return max(member[1] for member in others.members(0) if member[0] == node.number)


def addresses(cluster):
    """What CLUSTER NODES of each running replica lists."""
    seen = set()
    for replica in cluster.running_replicas():
        with Wire(replica.port) as wire:
            lines = wire.ask("CLUSTER", "NODES").split(b"\n")
        seen |= {line.split()[1].split(b"@")[0] for line in lines if line.count(b" ") >= 7}
    return seen


def test_a_lost_disk_under_load(cluster):
    """Twice in a row. Nothing acknowledged is lost, and the cluster looks the same throughout."""
    node = cluster.nodes[2]
    before, first = addresses(cluster), incarnation_of(cluster, node)
    for life in (first + 1, first + 2):
        with Recorder(cluster) as recorder:
            recorder.wait_for_progress()
            lose_disk(node)
            recorder.wait_for_progress()
            assert addresses(cluster) == before
            node.launch()
            recorder.wait_for_progress()
            wait_until_voter(cluster, node, life)
            cluster.heal()
            recorder.wait_for_progress()
            recorder.assert_nothing_is_lost(cluster)
        assert addresses(cluster) == before
        assert_replicas_agree(cluster)


def test_each_node_in_turn_loses_its_disk(cluster):
    """In the end no disk is left that saw the data written."""
    with Recorder(cluster) as recorder:
        recorder.wait_for_progress()
        for node in cluster.nodes:
            life = incarnation_of(cluster, node) + 1
            lose_disk(node)
            node.launch()
            wait_until_voter(cluster, node, life)
            cluster.heal()
        recorder.assert_nothing_is_lost(cluster)
    assert_replicas_agree(cluster)


def test_a_lost_disk_does_not_vote_while_another_node_is_down(cluster):
    """One disk of three with the data: no progress rather than loss, until the other is back."""
    down, lost = cluster.nodes[1], cluster.nodes[2]
    key, leader = cluster.key_on(0), cluster.leader(0)
    life = incarnation_of(cluster, lost) + 1
    with leader.connect() as client:
        client.set(key, "kept")
    down.kill()
    lose_disk(lost)
    lost.launch()
    eventually(
        lambda: f"joins its peers anew as {lost.number}.{life}" in lost.process.output(),
        what="the node knows that it is not new",
    )

    def nobody_leads():
        with Wire(leader.port) as wire:
            return wire.ask("GET", key).startswith(b"-CLUSTERDOWN")

    eventually(nobody_leads, within=30, what="nobody leads")
    with Wire(leader.port) as wire:
        assert wire.ask("SET", key, "lost").startswith(b"-CLUSTERDOWN")
    assert lost.page("/ready")[0] == 503
    down.launch()
    wait_until_voter(cluster, lost, life)
    cluster.heal()
    with cluster.client() as client:
        assert client.get(key) == "kept"
    assert_replicas_agree(cluster)


@pytest.fixture
def new_cluster(directory, request):
    """Three nodes that have never been started."""
    home = directory / request.node.name.replace("[", "-").replace("]", "")
    home.mkdir()
    cluster = Cluster(moonraft.Node, home)
    yield cluster
    for node in cluster.nodes:
        if node.is_running():
            node.kill()


@pytest.mark.parametrize("order", ["123", "312", "231"])
def test_first_start_in_any_order(new_cluster, order):
    """Nobody begins before all are there; then all are in their first life."""
    nodes = [new_cluster.nodes[int(digit) - 1] for digit in order]
    nodes[0].launch()
    missing = ", ".join(str(number) for number in sorted(node.number for node in nodes[1:]))
    told = f"node {nodes[0].number} waits to hear node {missing} before it knows whether it is new"
    eventually(lambda: nodes[0].page("/ready") == (503, told + "\n"), what="/ready says what it waits for")
    eventually(lambda: told in nodes[0].process.output(), what="so does a line in the traces")
    # Nothing is decided, so a node may stop and start, politely or not.
    nodes[0].stop()
    nodes[0].launch()
    nodes[1].launch()
    eventually(lambda: f"node {nodes[2].number} " in nodes[1].page("/ready")[1], what="both wait")
    nodes[0].kill()
    nodes[2].launch()
    new_cluster.start()
    for node in nodes:
        for shard in range(new_cluster.shards):
            voters = {(number, 0, "voter") for number in (1, 2, 3)}
            eventually(lambda n=node, s=shard: n.members(s) == voters, what="all are in their first life")


def batches(file):
    """Where the batches of a log file begin, and where the last one ends."""
    data, at, found = file.read_bytes(), LOG_HEADER, []
    while length := int.from_bytes(data[at : at + 7], "big"):
        found.append(at)
        at += length
    return found, at


def newest_log_file(node):
    """The file that is appended to."""
    return max((node.directory / "log").glob("*.raftlog"))


def write_some(cluster, count=200):
    with cluster.client() as client:
        for number in range(count):
            client.set(f"key-{number}", "x" * 100)


def test_a_log_damaged_in_the_middle_is_refused_and_rebuilt(cluster):
    """The line that refuses names file, offset and command; the command is enough."""
    node = cluster.nodes[1]
    life = incarnation_of(cluster, node) + 1
    write_some(cluster)
    node.kill()
    file = newest_log_file(node)
    found, _ = batches(file)
    damaged = found[len(found) // 2]
    with open(file, "r+b") as log:
        log.seek(damaged + 20)
        byte = log.read(1)
        log.seek(damaged + 20)
        log.write(bytes([byte[0] ^ 1]))
    before = file.read_bytes()
    node.launch()
    assert node.process.wait() == 2
    line = next(line for line in node.process.output().splitlines() if line.startswith("moonraft:"))
    assert f"{file}, offset {damaged}: a batch's checksum is wrong" in line
    words = shlex.split(line[line.index("moonraft rebuild") :])
    assert words[1:] == ["rebuild", "--cluster", str(node.file), "--node", "2", "--dir", str(node.directory)]

    done = subprocess.run([moonraft.binary(), *words[1:]], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    aside = node.directory / "set-aside-1"
    assert str(aside) in done.stdout and len(done.stdout.splitlines()) == 1
    assert (aside / "log" / file.name).read_bytes() == before, "nothing is deleted"
    node.launch()
    wait_until_voter(cluster, node, life)
    cluster.heal()
    assert_replicas_agree(cluster)


def test_a_log_that_is_gone_is_refused(cluster):
    """A disk that lost only some of its files is no better than one that lost all."""
    node = cluster.nodes[1]
    life = incarnation_of(cluster, node) + 1
    node.kill()
    shutil.rmtree(node.directory / "log")
    node.launch()
    assert node.process.wait() == 2
    assert "the log is missing" in node.process.output()
    words = ["rebuild", "--cluster", node.file, "--node", "2", "--dir", node.directory]
    subprocess.run([moonraft.binary(), *words], check=True, capture_output=True, timeout=30)
    node.launch()
    wait_until_voter(cluster, node, life)
    cluster.heal()


def test_a_torn_write_at_the_end_is_cut(cluster):
    """What a crash leaves of the write it interrupted: a line in the traces, and no more."""
    node = cluster.nodes[1]
    life = incarnation_of(cluster, node)
    write_some(cluster)
    node.kill()
    file = newest_log_file(node)
    found, end = batches(file)
    last = file.read_bytes()[found[-1] : end]
    with open(file, "r+b") as log:
        log.seek(end)
        log.write(last[: len(last) // 2])
    node.launch()
    cluster.heal()
    assert f"{file} is cut at offset {end}" in node.process.output()
    assert incarnation_of(cluster, node) == life
    assert_replicas_agree(cluster)


def test_rebuild_refuses_what_is_in_use_or_not_this_nodes(cluster):
    """One line, exit code 2, nothing changed."""
    node = cluster.nodes[0]

    def refused(number, directory, *told):
        words = ["rebuild", "--cluster", node.file, "--node", str(number), "--dir", directory]
        done = subprocess.run([moonraft.binary(), *words], capture_output=True, text=True, timeout=30)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert all(word in done.stderr for word in told), done.stderr

    refused(1, node.directory, "in use")
    cluster.nodes[1].kill()
    refused(1, cluster.nodes[1].directory, "holds the data of node 2")
    refused(9, node.directory, "no node 9")
    refused(1, node.directory.parent / "nowhere", "no data")
    assert not (node.directory.parent / "nowhere").exists()
    cluster.heal()


def refusal(node):
    """The one line of a node that does not start, and the words of the command in it."""
    node.launch()
    assert node.process.wait() == 2
    lines = [line for line in node.process.output().splitlines() if line.startswith("moonraft:")]
    assert len(lines) == 1 and "panicked" not in node.process.output(), node.process.output()
    words = shlex.split(lines[0][lines[0].index("moonraft rebuild") :])
    expected = ["--cluster", str(node.file), "--node", str(node.number), "--dir", str(node.directory)]
    assert words[1:] == ["rebuild", *expected]
    return lines[0], words[1:]


def remove(file):
    """It is gone."""
    file.unlink()
    return "is missing"


def empty(file):
    """It is there, with nothing in it."""
    file.write_bytes(b"")
    return "has 0 bytes, but had"


@pytest.mark.parametrize("harm", [remove, empty])
def test_a_log_file_that_is_lost_loses_no_acknowledged_write(cluster, harm):
    """A write that two nodes acknowledged, one of which loses the file it is in; the third never had it."""
    one, two, three = cluster.nodes
    life = incarnation_of(cluster, one) + 1
    key = cluster.key_on(0)
    three.kill()
    with cluster.leader(0).connect() as client:
        client.set(key, harm.__name__)
    one.kill()
    two.kill()
    file = newest_log_file(one)
    told = harm(file)
    line, command = refusal(one)
    assert f"{file} {told}" in line
    assert refusal(one)[0] == line, "nothing was changed"
    three.launch()
    subprocess.run([moonraft.binary(), *command], check=True, capture_output=True, timeout=30)
    one.launch()
    # What is left has no majority with the write: nobody serves until the node is back that has it.
    eventually(
        lambda: "waits to hear node" in one.page("/ready")[1] or "joins its peers anew" in one.process.output(),
        what="the node knows that it lost its disk, or asks",
    )
    two.launch()
    wait_until_voter(cluster, one, life)
    cluster.heal()
    with cluster.client() as client:
        assert client.get(key) == harm.__name__
    assert_replicas_agree(cluster)


def test_whatever_a_node_once_had_is_missed(cluster):
    """Each file of the data directory, and the log put back from an older copy: refused, then rebuilt."""
    node = cluster.nodes[1]
    write_some(cluster)
    cluster.heal()
    node.kill()
    directory, old = node.directory, node.directory.parent / "old"
    shutil.copytree(directory / "log", old)
    node.launch()
    cluster.heal()
    write_some(cluster, 50)
    node.stop()

    kept = directory.parent / "kept"
    shutil.copytree(directory, kept)

    def put_back():
        shutil.rmtree(directory)
        shutil.copytree(kept, directory)

    for file in [directory / "ledger", directory / "identity", *(directory / "log").glob("*.r*")]:
        for harm in (remove, empty):
            harm(file)
            assert str(file) in refusal(node)[0]
            put_back()
    shutil.rmtree(directory / "log")
    shutil.copytree(old, directory / "log")
    line, command = refusal(node)
    assert str(directory / "log") in line
    life = incarnation_of(cluster, node) + 1
    subprocess.run([moonraft.binary(), *command], check=True, capture_output=True, timeout=30)
    node.launch()
    wait_until_voter(cluster, node, life)
    cluster.heal()
    assert_replicas_agree(cluster)


def test_an_older_copy_of_everything_is_noticed_by_a_leader(cluster):
    """Nothing on the disk could tell; whoever leads still knows what the node acknowledged."""
    node = cluster.nodes[2]
    life = incarnation_of(cluster, node) + 1
    write_some(cluster)
    node.kill()
    old = node.directory.parent / "all-of-it"
    shutil.copytree(node.directory, old)
    node.launch()
    cluster.heal()
    # Less than makes a leader send a snapshot.
    write_some(cluster, 50)
    cluster.heal()
    node.kill()
    shutil.rmtree(node.directory)
    shutil.copytree(old, node.directory)
    line, command = refusal(node)
    assert "was acknowledged by this node, but its log ends at" in line
    subprocess.run([moonraft.binary(), *command], check=True, capture_output=True, timeout=30)
    node.launch()
    wait_until_voter(cluster, node, life)
    cluster.heal()
    assert_replicas_agree(cluster)
