"""Disks that fail, hang or run full: nothing is acknowledged on them, and the cluster goes on.

`faulty_disk.c` stands between a server and the system: it makes the calls that reach the disk fail or hang on
command. Full disks are small file systems in memory, so they need the right to mount one.
"""

import contextlib
import os
import subprocess

import faulty_disk
import pytest
import redis
from faulty_disk import command
from test_failover import assert_replicas_agree

from harness import moonraft
from harness.cluster import Cluster
from harness.processes import eventually
from harness.recorder import Recorder
from harness.wire import Wire, WireError

pytestmark = pytest.mark.moonraft_only("it is about our log")

# `EX_IOERR`: the disk has failed.
EXIT_DISK = 74


@pytest.fixture(scope="module")
def faulty_cluster(directory):
    """Three nodes whose disks obey `command`."""
    home = directory / "faulty"
    home.mkdir()
    cluster = Cluster(moonraft.Node, home)
    faulty_disk.install(cluster, home)
    cluster.start()
    yield cluster
    for node in cluster.nodes:
        command(node, "")
        if node.is_running():
            node.kill()


@pytest.fixture
def faulty(faulty_cluster):
    """The same, well and whole."""
    for node in faulty_cluster.nodes:
        command(node, "")
    faulty_cluster.heal()
    return faulty_cluster


@pytest.mark.parametrize("fault", ["fsync-eio", "write-eio"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_disk_that_fails_ends_the_node_and_nothing_is_lost(faulty, fault, role):
    leader = faulty.leader(0)
    node = leader.node if role == "leader" else faulty.followers(0)[0].node
    with Recorder(faulty) as recorder:
        recorder.wait_for_progress()
        command(node, fault)
        assert node.process.wait() == EXIT_DISK
        recorder.wait_for_progress()
        line = [line for line in node.process.output().splitlines() if line.startswith("moonraft:")]
        assert len(line) == 1 and ".raftlog cannot be written" in line[0], line
        # The engine names the call that failed, and keeps the number of the error to itself. The ledger may be first.
        assert ("fdatasync" if fault == "fsync-eio" else "pwrite") in line[0] or "ledger: Input/output" in line[0], line
        # The disk is replaced, or was only unplugged: the node returns.
        command(node, "")
        faulty.heal()
        recorder.assert_nothing_is_lost(faulty)
    assert_replicas_agree(faulty)


def test_a_disk_that_hangs_under_a_leader(faulty):
    """Others lead; what it executed stays unacknowledged; it serves nothing stale, and sends its clients away."""
    leader = faulty.leader(0)
    key = faulty.key_on(0, "hang")
    answers = []

    def turns_away():
        try:
            with Wire(leader.port) as reader:
                answers.append(reader.ask("GET", key))
        except (WireError, OSError):
            return True
        return answers[-1].startswith(b"-MOVED")

    with Recorder(faulty) as recorder, Wire(leader.port) as writer:
        recorder.wait_for_progress()
        assert writer.ask("SET", key, "old") == b"+OK\r\n"
        command(leader.node, "hang")
        writer.send("SET", key + "other", "hung")
        eventually(lambda: write_elsewhere(faulty, leader, key), what="another leader took the write")
        # It cannot know who leads now, but that it should not keep anybody.
        eventually(turns_away, what="the node whose disk hangs turns clients away")
        assert b"$3\r\nold\r\n" not in answers, "a stale read"
        recorder.wait_for_progress()
        command(leader.node, "")
        try:
            answer = writer.receive()
        except WireError:
            answer = b""  # "outcome unknown" is an honest answer
        # Its entry was on the way to the others before the disk was asked: they may have committed it.
        assert answer in (b"", b"+OK\r\n") or answer.startswith(b"-MOVED"), answer
        faulty.heal()
        recorder.assert_nothing_is_lost(faulty)
    with faulty.client() as client:
        assert client.get(key) == "new"
    assert_replicas_agree(faulty)


def write_elsewhere(cluster, hung, key):
    """Writes through whichever node answers that another one leads."""
    for replica in cluster.replicas:
        if replica.shard == hung.shard and replica.node is not hung.node:
            with Wire(replica.port) as wire:
                if wire.ask("SET", key, "new") == b"+OK\r\n":
                    return True
    return False


def test_a_disk_that_hangs_under_a_follower(faulty):
    """Nobody waits for it."""
    follower = faulty.followers(0)[0]
    with Recorder(faulty, shards=[0]) as recorder:
        recorder.wait_for_progress()
        command(follower.node, "hang")
        recorder.wait_for_progress(500)
        command(follower.node, "")
        faulty.heal()
        recorder.assert_nothing_is_lost(faulty)
    assert_replicas_agree(faulty)


# Room


def test_below_min_free_disk_what_grows_the_data_is_refused(cluster):
    """Reads and deletions pass; writes are back by themselves when there is room."""
    leader = cluster.leader(0)
    key = cluster.key_on(0, "room")
    free = leader.node.metrics("moonraft_disk_free_bytes")[""]
    with Wire(leader.port) as wire:
        assert wire.ask("SET", key, "value") == b"+OK\r\n"
        wire.ask("SADD", key + "set", "a", "b")
        # Every node is short, so nobody is better off.
        cluster.configure("min-free-disk", int(free * 1.5))
        eventually(lambda: wire.ask("SET", key, "value").startswith(b"-MISCONF "), what="writes are refused")
        assert wire.ask("EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", key).startswith(b"-MISCONF ")
        assert wire.ask("GET", key) == b"$5\r\nvalue\r\n"
        assert wire.ask("SREM", key + "set", "a") == b":1\r\n"
        # Next to none is left: no write at all.
        cluster.configure("min-free-disk", int(free * 6))
        eventually(lambda: wire.ask("DEL", "no" + key).startswith(b"-MISCONF "), what="all writes are refused")
        assert wire.ask("DEL", key).startswith(b"-MISCONF ")
        assert wire.ask("GET", key) == b"$5\r\nvalue\r\n"
        cluster.configure("min-free-disk", 256 << 20)
        eventually(lambda: wire.ask("SET", key, "again") == b"+OK\r\n", what="writes are taken again")
    assert_replicas_agree(cluster)


def test_a_node_short_of_disk_hands_its_leadership_over(cluster):
    node, key = cluster.nodes[0], cluster.key_on(0, "elsewhere")
    free = node.metrics("moonraft_disk_free_bytes")[""]
    replica = cluster.home(0)
    with replica.connect() as client:
        client.config_set("min-free-disk", int(free * 1.5))
    eventually(lambda: cluster.leader(0).node is not node, what="another node leads")
    with cluster.client() as client:
        assert client.set(key, "value") is True
    with replica.connect() as client:
        client.config_set("min-free-disk", 256 << 20)
    cluster.heal()


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of this many megabytes."""
    mounted = []

    def mount(megabytes):
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
        if subprocess.run(words, capture_output=True).returncode != 0:
            pytest.skip("no right to mount a file system")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place, leave_bytes):
    """Takes all room but this much; returns the file that has it."""
    ballast = place / "ballast"
    with open(ballast, "ab") as file:
        while free(place) > leave_bytes:
            file.write(bytes(min(1 << 20, free(place) - leave_bytes)))
            file.flush()
    return ballast


def free(place):
    """Free bytes."""
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def test_a_full_disk_ends_the_node_and_it_returns_when_there_is_room(own_cluster, small_disk):
    cluster = own_cluster(3, 1)
    node, place = cluster.nodes[0], small_disk(160)
    node.directory = place / "data"
    node.arguments = ["--set", "min-free-disk=0"]
    cluster.start()
    key = cluster.key_on(0, "full")
    with Recorder(cluster) as recorder:
        recorder.wait_for_progress()
        ballast = fill(place, 0)
        with cluster.client() as client:
            # Its log has a file of 64 MB set aside, which must be full first.
            number = 0
            while node.is_running() and number < 200:
                with contextlib.suppress(redis.RedisError):
                    client.set(f"{key}:{number % 20}", "x" * 1_000_000)
                number += 1
        assert node.process.wait() == EXIT_DISK
        assert "No space left on device" in node.process.output()
        recorder.wait_for_progress()
        ballast.unlink()
        cluster.heal()
        recorder.assert_nothing_is_lost(cluster)
    assert_replicas_agree(cluster)


def test_a_snapshot_that_does_not_fit_is_tried_again(own_cluster, small_disk):
    """The node lives on its log meanwhile, and takes the room of no half snapshot."""
    cluster = own_cluster(1, 1)
    node, place = cluster.nodes[0], small_disk(4)
    node.arguments = ["--set", "log-bytes-max=8mb"]
    cluster.start()
    node.stop()
    # Only the snapshots are short of room.
    snapshots = node.directory / "snapshots"
    snapshots.rmdir()
    snapshots.symlink_to(place)
    cluster.start()
    key = cluster.key_on(0, "snapshot")
    with cluster.client() as client:
        for number in range(12):
            client.set(f"{key}:{number}", "x" * 1_000_000)
        eventually(lambda: "tried again later" in node.process.output(), what="a snapshot was given up")
        eventually(lambda: not list(snapshots.iterdir()), what="nothing of it is left")
        assert client.set(key, "alive") is True
        subprocess.run(["mount", "-o", "remount,size=200m", str(place)], check=True)
        eventually(lambda: list(snapshots.glob("*.snapshot")), within=30, what="a snapshot is there")
        assert client.get(key) == "alive"
    node.kill()
    cluster.start()
    with cluster.client() as client:
        assert client.get(f"{key}:11") == "x" * 1_000_000
