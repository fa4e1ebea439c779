"""Snapshots of real processes: taken under load, sent to who was away, read at a restart, refused if damaged."""

import shutil
import subprocess
import threading
import zlib

import pytest
from test_lost_disk import incarnation_of, refusal, wait_until_voter

from harness import moonraft
from harness.cluster import Cluster
from harness.processes import eventually

pytestmark = pytest.mark.moonraft_only("snapshots of ours")

# So small that a second of writes needs the next snapshot.
SETTINGS = {"log-bytes-max": 1 << 20, "log-entries-max": 1000}
VALUE = "v" * 1000


@pytest.fixture
def small(directory, request):
    """Three nodes with one shard, and a log that is cut all the time."""

    def make_node(number, ports, shards, home):
        node = moonraft.Node(number, ports, shards, home)
        node.file.write_text(moonraft.cluster_file(ports, shards, SETTINGS))
        return node

    home = directory / request.node.name
    home.mkdir()
    cluster = Cluster(make_node, home, nodes=3, shards=1).start()
    yield cluster
    for node in cluster.nodes:
        node.resume()
        if node.is_running():
            node.kill()


def fill(leader, first, count):
    """Keys of all types: each pipeline of writes is some entries of the log."""
    for number in range(first, first + count):
        pipeline = leader.pipeline(transaction=False)
        pipeline.set(f"{{t}}string:{number % 500}", f"{number}{VALUE}")
        pipeline.hset(f"{{t}}hash:{number % 7}", f"field{number % 300}", number)
        pipeline.rpush("{t}list", number)
        pipeline.sadd("{t}set", number % 400, f"m{number % 300}")
        pipeline.zadd("{t}sorted", {f"m{number % 500}": number})
        pipeline.pexpire(f"{{t}}string:{number % 50}", 10_000_000)
        pipeline.execute()


def snapshots(node):
    """The snapshot files of a node."""
    return sorted((node.directory / "snapshots").glob("*.snapshot"))


def snapshot_index(node):
    """The last entry in the newest snapshot of a node; 0: there is none."""
    return max((int(path.name.split("-")[1]) for path in snapshots(node)), default=0)


def same_digests(cluster):
    """Whether all replicas hold the same."""
    digests = cluster.digests(0)
    return len(digests) == 3 and len(set(digests)) == 1


def test_a_replica_that_was_away_longer_than_the_log_catches_up_while_the_leader_serves(small):
    away = small.followers(0)[0].node
    with small.leader(0).connect() as leader:
        fill(leader, 0, 200)
        away.kill()
        had = snapshot_index(away)
        fill(leader, 200, 3000)
        source = small.leader(0).node
        eventually(lambda: snapshot_index(source) > had, what="the leader took a snapshot")
        before = snapshot_index(source)
        stop, served = threading.Event(), []

        def serve():
            with small.leader(0).connect() as other:
                while not stop.is_set():
                    served.append(other.incr("{t}served"))

        thread = threading.Thread(target=serve)
        thread.start()
        away.launch()
        away.wait_until_ready()
        eventually(lambda: snapshot_index(away) >= before, what="the snapshot arrived")
        stop.set()
        thread.join()
        assert served == list(range(1, len(served) + 1)), "the leader served all the time"
        leader.set("{t}last", "v")
    eventually(lambda: same_digests(small), what="equal digests")


def test_what_was_acknowledged_is_there_after_all_were_killed_in_the_midst_of_snapshots(small):
    acknowledged = []
    with small.leader(0).connect() as leader:
        fill(leader, 0, 1500)
        for number in range(3000):
            leader.set(f"{{t}}string:{number % 500}", f"{number}{VALUE}")
            acknowledged.append(leader.rpush("{t}acknowledged", number))
    small.kill()
    assert all(snapshots(node) for node in small.nodes), "there is something to restart from"
    small.start()
    with small.leader(0).connect() as leader:
        assert leader.lrange("{t}acknowledged", 0, -1) == [str(n) for n in range(len(acknowledged))]
        assert leader.get("{t}string:499") == f"2999{VALUE}"
    eventually(lambda: same_digests(small), what="equal digests")


@pytest.mark.parametrize("damage", ["flipped", "cut", "newer"])
def test_a_snapshot_that_cannot_be_read_stops_the_start(small, damage):
    with small.leader(0).connect() as leader:
        fill(leader, 0, 2500)
    node = small.followers(0)[0].node
    eventually(lambda: snapshots(node), what="a snapshot")
    assert node.process.stop() == 0
    path = snapshots(node)[-1]
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "cut":
        del content[-5:]
    else:
        content[8] += 1  # and the header's checksum tells that this is no accident
        content[12:16] = crc32(content[:12])
    path.write_bytes(content)
    node.launch()
    assert node.process.wait() == 2
    said = node.process.output()
    assert str(path) in said and "panic" not in said, said
    if damage == "newer":
        assert "snapshot format 3; this build reads format 2" in said, said
    else:
        assert "offset" in said, said


@pytest.mark.parametrize("harm", ["gone", "empty", "an older copy"])
def test_a_snapshot_that_the_log_begins_after_is_missed(small, harm):
    """The start is refused by name, and what the line says brings the node back."""
    node = small.followers(0)[0].node
    with small.leader(0).connect() as leader:
        fill(leader, 0, 2500)
        eventually(lambda: snapshots(node), what="a snapshot")
        older = snapshots(node)[-1]
        kept = node.directory.parent / older.name
        shutil.copy(older, kept)
        fill(leader, 2500, 2500)
        eventually(lambda: snapshots(node)[-1:] not in ([], [older]), what="a newer snapshot")
    life = incarnation_of(small, node) + 1
    assert node.process.stop() == 0
    path = snapshots(node)[-1]
    if harm == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    if harm == "an older copy":
        shutil.copy(kept, older)
    line, command = refusal(node)
    assert str(path.parent) in line, line
    assert refusal(node)[0] == line, "nothing was changed"
    subprocess.run([moonraft.binary(), *command], check=True, capture_output=True, timeout=30)
    node.launch()
    wait_until_voter(small, node, life)
    small.heal()
    eventually(lambda: same_digests(small), what="equal digests")


def crc32(content):
    """CRC-32 as the file has it."""
    return zlib.crc32(content).to_bytes(4, "little")
