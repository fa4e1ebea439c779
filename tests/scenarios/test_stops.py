"""A stop ends, whatever the node is in the midst of, and costs nothing that was acknowledged."""

import contextlib
import fcntl
import os
import resource
import signal
import subprocess
import threading
import time

import faulty_disk
import pytest
import redis

from harness import moonraft
from harness.cluster import HOST
from harness.moonraft import dev_ports
from harness.processes import Process, eventually
from harness.wire import Wire, WireError, request

pytestmark = pytest.mark.moonraft_only("it is about our stop")

# Seconds. A stop that waits for nothing takes well under two, one that waits for something in vain takes
# `shutdown-timeout`: 10 by default. Between the two there is room for a machine that is busy.
PROMPT = 6
BOTH = pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])

READS_FOREVER = "while true do redis.call('GET', KEYS[1]) end"
WRITES_FOREVER = """
redis.call('SET', KEYS[1], 'half of it')
while true do redis.call('GET', KEYS[1]) end
"""
# The process was ended by its own last resort; by a second signal.
EXIT_OVERDUE, EXIT_INTERRUPTED = 1, 130


def stop(process, number=signal.SIGTERM, within=PROMPT):
    """Stops a process that must end cleanly and promptly."""
    process.signal(number)
    code = process.wait(within)
    assert code == 0, (code, process.output())


@contextlib.contextmanager
def running(port, script, key):
    """A script that runs and does not end by itself; yields what its client is told in the end."""
    answers = []

    def ask():
        with Wire(port) as wire:
            try:
                answers.append(wire.ask("EVAL", script, 1, key))
            except (WireError, OSError):
                answers.append(b"closed")

    thread = threading.Thread(target=ask)
    with redis.Redis(port=port, socket_timeout=10) as client:
        client.config_set("busy-reply-threshold", 50)
    thread.start()
    eventually(lambda: is_busy(port), what="the script holds its shard")
    yield answers
    thread.join(30)
    assert not thread.is_alive(), "its client hears nothing"


def is_busy(port):
    with Wire(port) as wire:
        return wire.ask("PING").startswith(b"-BUSY")


class Readiness:
    """Asks `/ready` all the time; every status that was seen."""

    def __init__(self, node):
        self._node, self._done = node, threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.seen = []

    def __enter__(self):
        self._thread.start()
        eventually(lambda: self.seen, what="/ready answers")
        return self.seen

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _ask(self):
        while not self._done.is_set():
            with contextlib.suppress(OSError):
                self.seen.append(self._node.page("/ready"))


# Scripts


@BOTH
def test_a_script_that_runs_away_ends_with_its_node(own_cluster, signal_number):
    """It is undone whole, and `/ready` says that the node goes."""
    cluster = own_cluster(1, 1).start()
    node, port = cluster.nodes[0], cluster.nodes[0].ports.clients[0]
    with Readiness(node) as seen, running(port, WRITES_FOREVER, "key") as answers:
        stop(node.process, signal_number)
    assert answers == [b"closed"] or answers[0].startswith(b"-ERR Script killed by the server"), answers
    assert 503 in [status for status, _ in seen], seen
    assert (503, "node 1 stops\n") in seen
    cluster.start()
    with cluster.client() as client:
        assert client.get("key") is None


def test_a_script_that_runs_away_does_not_keep_its_shard_from_being_led_elsewhere(cluster):
    leader, key = cluster.leader(0), cluster.key_on(0)
    with running(leader.port, WRITES_FOREVER, key) as answers:
        leader.node.process.signal(signal.SIGTERM)
        eventually(lambda: write_elsewhere(cluster, leader, key), what="another leader took a write")
        assert leader.node.process.wait(PROMPT) == 0
    # Nothing of it happened, so its client is sent to who leads now, or hears nothing.
    assert answers == [b"closed"] or answers[0].startswith(b"-MOVED"), answers
    cluster.heal()
    with cluster.client() as client:
        assert client.get(key) == "elsewhere"
    cluster.configure("busy-reply-threshold", 5000)


def write_elsewhere(cluster, left, key):
    """Writes through whichever node leads now."""
    for replica in cluster.followers_of(left):
        with Wire(replica.port) as wire:
            if wire.ask("SET", key, "elsewhere") == b"+OK\r\n":
                return True
    return False


@BOTH
def test_dev_ends_in_time_whatever_its_scripts_do(tmp_path, signal_number):
    port = dev_ports(3, 3)
    words = [moonraft.binary(), "dev", "--port", port, "--dir", tmp_path / "data"]
    process = Process(words, tmp_path / "dev.log")
    try:
        process.wait_for_line("ready:")
        with redis.RedisCluster(host=HOST, port=port) as client:
            home = client.get_node_from_key("key").port
        with running(home, WRITES_FOREVER, "key"):
            stop(process, signal_number)
        process = Process(words, tmp_path / "dev.log")
        process.wait_for_line("ready:")
        with redis.RedisCluster(host=HOST, port=port) as client:
            assert client.get("key") is None
        stop(process, signal_number)
    finally:
        process.kill()


# Nobody else


@BOTH
def test_a_node_that_is_alone_waits_for_no_other(own_cluster, signal_number):
    cluster = own_cluster(1, 1).start()
    stop(cluster.nodes[0].process, signal_number)


def test_a_node_without_a_majority_waits_for_none(own_cluster):
    """Whether it led is over; requests that wait for a leader are let go."""
    cluster = own_cluster(3, 1).start()
    leader = cluster.leader(0)
    for node in cluster.nodes:
        if node is not leader.node:
            node.kill()
    with Wire(leader.port) as written, Wire(leader.port) as parked:
        written.send("SET", "key", "never acknowledged")
        eventually(lambda: not leader.node.page("/ready")[1].startswith("ready"), what="it is not ready")
        parked.send("SET", "key", "never executed")
        stop(leader.node.process)
        for wire in (written, parked):
            with contextlib.suppress(WireError):
                assert wire.receive().startswith((b"-CLUSTERDOWN", b"-MOVED"))


def test_a_node_that_waits_for_its_peers_to_begin(own_cluster):
    cluster = own_cluster(3, 1)
    node = cluster.nodes[0]
    node.launch()
    eventually(lambda: "node 2, 3" in node.page("/ready")[1], what="it waits for its peers")
    stop(node.process)


def test_a_node_that_finds_no_majority_after_its_start(own_cluster):
    cluster = own_cluster(3, 1).start()
    cluster.kill()
    node = cluster.nodes[0]
    node.launch()
    eventually(lambda: node.page("/ready")[0] == 503, what="it is there")
    stop(node.process)


@pytest.mark.parametrize("milliseconds", [0, 5, 20, 50, 100, 200])
def test_a_start_can_be_broken_off(own_cluster, milliseconds):
    """Wherever in its start the signal meets it: the node ends, and its data is whole."""
    cluster = own_cluster(1, 1)
    cluster.nodes[0].arguments = ["--set", "log-bytes-max=8mb"]
    cluster.start()
    with cluster.client() as client:
        for number in range(30):
            client.set(f"key-{number}", str(number) * 200_000)
    cluster.kill()
    node = cluster.nodes[0]
    node.launch()
    # Not a wait for anything: the moments of a start are what this test is about.
    time.sleep(milliseconds / 1000)
    node.process.signal(signal.SIGTERM)
    # The system ends one that has not even begun to heed signals.
    assert node.process.wait(PROMPT) in (0, -signal.SIGTERM), node.process.output()
    cluster.start()
    with cluster.client() as client:
        assert all(client.get(f"key-{number}") == str(number) * 200_000 for number in range(30))


# Clients


def test_clients_that_read_nothing_keep_no_node(own_cluster):
    cluster = own_cluster(1, 1).start()
    node = cluster.nodes[0]
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(node.ports.clients[0])) for _ in range(10)]
        assert wires[0].ask("SET", "large", "x" * 1_000_000) == b"+OK\r\n"
        for wire in wires:
            wire.offer(request("GET", "large") * 100, patience=0.1)
        stop(node.process)


def test_thousands_of_clients_keep_no_node(own_cluster):
    cluster = own_cluster(1, 1).start()
    node = cluster.nodes[0]
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, soft - 500)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(node.ports.clients[0])) for _ in range(count)]
        assert wires[-1].ask("PING") == b"+PONG\r\n"
        stop(node.process)


def test_clients_that_are_blocked_keep_no_node(own_cluster):
    """By `WAIT` for followers that there are not, by a pause, by a transaction that is open."""
    cluster = own_cluster(1, 1).start()
    port = cluster.nodes[0].ports.clients[0]
    with contextlib.ExitStack() as stack:
        waiting, paused, open_block, control = [stack.enter_context(Wire(port)) for _ in range(4)]
        waiting.send("WAIT", 5, 0)
        assert open_block.ask("MULTI") == b"+OK\r\n"
        assert open_block.ask("SET", "key", "value") == b"+QUEUED\r\n"
        assert control.ask("CLIENT", "PAUSE", 600_000) == b"+OK\r\n"
        paused.send("SET", "key", "value")
        stop(cluster.nodes[0].process)


# Snapshots


def fill(cluster, megabytes):
    with cluster.client() as client:
        for number in range(megabytes):
            client.set(f"key-{number}", str(number % 10) * 1_000_000)


def test_a_snapshot_that_is_being_written_is_given_up(own_cluster):
    cluster = own_cluster(1, 1)
    node = cluster.nodes[0]
    node.arguments = ["--set", "log-bytes-max=8mb", "--set", "snapshot-bytes-per-second=1mb"]
    cluster.start()
    fill(cluster, 20)
    snapshots = node.directory / "snapshots"
    eventually(lambda: list(snapshots.iterdir()), what="a snapshot is being written")
    stop(node.process)
    cluster.start()
    with cluster.client() as client:
        assert all(client.get(f"key-{number}") for number in range(20))


def test_a_snapshot_that_is_being_sent_is_given_up(own_cluster):
    """To a node that has stopped taking it."""
    cluster = own_cluster(3, 1)
    for node in cluster.nodes:
        node.arguments = ["--set", "log-bytes-max=8mb", "--set", "log-purge-bytes=64mb"]
    cluster.start()
    leader, behind = cluster.leader(0).node, cluster.followers(0)[0].node
    behind.kill()
    fill(cluster, 60)
    eventually(lambda: leader.metrics("moonraft_raft_snapshot_index")['{shard="0"}'] > 0, what="a snapshot")
    behind.launch()
    eventually(lambda: list((behind.directory / "snapshots").iterdir()), what="it is sent a snapshot")
    behind.pause()
    # The others can do without the node, which hands its leadership over.
    stop(leader.process)


# Disks, and those who read what a process prints


def hung_leader(cluster, home, seconds):
    """A node whose disk does not return from an fsync."""
    faulty_disk.install(cluster, home)
    for node in cluster.nodes:
        node.arguments = ["--set", f"shutdown-timeout={seconds}"]
    leader = cluster.start().leader(0)
    faulty_disk.command(leader.node, "hang")
    with Wire(leader.port) as wire:
        wire.send("SET", "key", "value")
        eventually(lambda: is_turned_away(leader.port), what="the node has noticed that its disk hangs")
    return leader.node


def is_turned_away(port):
    """Whether a connection is closed at once."""
    with Wire(port, within=2) as wire:
        try:
            return not wire.ask("PING")
        except (WireError, ConnectionError):
            return True


def test_a_disk_that_hangs_keeps_no_node(own_cluster, tmp_path):
    cluster = own_cluster(3, 1)
    node = hung_leader(cluster, tmp_path, seconds=2)
    begin = time.monotonic()
    node.process.signal(signal.SIGTERM)
    assert node.process.wait(PROMPT) == EXIT_OVERDUE
    assert time.monotonic() - begin > 2, "the disk had its time"
    line = [line for line in node.process.output().splitlines() if line.startswith("moonraft: ")]
    assert len(line) == 1 and "shutdown-timeout" in line[0] and "disk" in line[0], line
    faulty_disk.command(node, "")
    cluster.heal()


@BOTH
def test_a_second_signal_ends_a_node_at_once(own_cluster, tmp_path, signal_number):
    node = hung_leader(own_cluster(1, 1), tmp_path, seconds=600)
    node.process.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in node.process.output(), what="it stops")
    node.process.signal(signal_number)
    assert node.process.wait(PROMPT) == EXIT_INTERRUPTED


def test_who_does_not_read_what_a_node_prints_does_not_keep_it(own_cluster):
    """Whatever thread has something to say waits for the reader then, the one that stops the node too."""
    cluster = own_cluster(1, 1)
    node = cluster.nodes[0]
    words = [moonraft.binary(), "server", "--cluster", node.file, "--node", "1", "--dir", node.directory]
    words += ["--set", "shutdown-timeout=1"]
    pipe, end = os.pipe()
    # As small as there is, and full.
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, resource.getpagesize())
    os.set_blocking(end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(end, b"x")
    os.set_blocking(end, True)
    process = subprocess.Popen(words, stdout=end, stderr=end)
    try:
        eventually(lambda: is_listening(node.ports.clients[0]), what="it is there")
        process.send_signal(signal.SIGTERM)
        # Its first lines wait already: it may not have gone as far as to serve.
        assert process.wait(PROMPT) in (0, EXIT_OVERDUE)
    finally:
        process.kill()
        process.wait()
        os.close(pipe)
        os.close(end)


def is_listening(port):
    with contextlib.suppress(ConnectionError), Wire(port):
        return True
    return False
