"""Overload: every queue has a bound, and past it there is back-pressure or a clear error.

docs/operations.md has the table of limits; here clients and nodes misbehave until
one is reached, and what others notice, and what it costs in memory, is checked.
Figures are printed (`tests/scenarios/run test_overload.py -s`).
"""

import contextlib
import resource
import socket
import threading
import time

import pytest
import redis
from test_failover import assert_replicas_agree

from harness.processes import eventually
from harness.wire import Wire, request

MIB = 1 << 20
OURS = "limits of this server"

# Settings and named constants of the server, as docs/operations.md has them.
CLIENTS_MAX = 10_000
IN_FLIGHT_BYTES_MAX = 128 * MIB
OUTBOX_BYTES_FULL = 32 * MIB
LANE_BYTES_MAX = 256 * MIB
# Append messages on their way to one follower: `inflight_max` of `message_bytes_max`.
APPENDS_BYTES_MAX = 256 * MIB

# What a process may take besides what a test makes it hold: its allocator keeps some
# of what was freed, and log files are mapped.
SLACK_BYTES = 128 * MIB


@pytest.fixture(scope="module")
def _one_shard(make_cluster):
    return make_cluster(nodes=3, shards=1)


@pytest.fixture
def one_shard(_one_shard):
    """Three nodes and one shard: every client and every byte meets one replica."""
    _one_shard.heal()
    with _one_shard.leader(0).connect() as leader:
        leader.flushall()
    return _one_shard


def resident_bytes(node):
    """What the node's process takes of the machine's memory."""
    with open(f"/proc/{node.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Watch:
    """The most that a node took, above what it took at first."""

    def __init__(self, node):
        self.node = node
        self.before = resident_bytes(node)
        self.growth = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _look(self):
        while not self._done.wait(0.02):
            self.growth = max(self.growth, resident_bytes(self.node) - self.before)

    def report(self, what):
        """Prints and returns the growth."""
        print(f"{what}: the node grew by {self.growth / MIB:.0f} MiB at most")
        return self.growth


def assert_others_are_served(replica, key):
    """A client beside the one that misbehaves sees nothing of it."""
    with replica.connect(socket_timeout=5, retry=None) as client:
        for number in range(50):
            client.set(key, number)
            assert client.get(key) == str(number)


@pytest.mark.moonraft_only(OURS)
def test_ten_thousand_connections_at_once(one_shard):
    needed = CLIENTS_MAX + 500
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < needed:
        pytest.skip(f"the system allows {hard} open files; {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    leader = one_shard.leader(0)
    key = one_shard.key_on(0)
    with contextlib.ExitStack() as stack, Watch(leader.node) as watch:
        clients = [stack.enter_context(Wire(leader.port)) for _ in range(CLIENTS_MAX)]
        begin = time.monotonic()
        for client in clients:
            client.send("INCR", key)
        answers = sorted(int(client.receive()[1:]) for client in clients)
        print(f"{CLIENTS_MAX} clients answered in {time.monotonic() - begin:.2f} s")
        assert answers == list(range(1, CLIENTS_MAX + 1))
        with Wire(leader.port) as one_too_many:
            assert one_too_many.receive() == b"-ERR max number of clients reached\r\n"
        # Idle clients have no buffers: what is left is sockets and sessions.
        assert watch.report(f"{CLIENTS_MAX} clients") < CLIENTS_MAX * 16_384

    def gone():
        with leader.connect() as client:
            return client.info("clients")["connected_clients"] < 100

    eventually(gone, what="the server noticed that its clients have left")


@pytest.mark.moonraft_only(OURS)
def test_a_client_that_reads_nothing_waits_and_then_gets_every_reply(one_shard):
    leader, key = one_shard.leader(0), one_shard.key_on(0)
    value = b"v" * MIB
    with leader.connect() as client:
        client.set(key, value)
    count = 1000
    with Wire(leader.port) as deaf, Watch(leader.node) as watch:
        assert deaf.offer(request("GET", key) * count) == count * len(request("GET", key))
        assert_others_are_served(leader, f"{key}:other")
        assert watch.report(f"{count} replies of 1 MiB unread") < 2 * OUTBOX_BYTES_FULL + SLACK_BYTES
        # It was only slow: all that it asked for is there, in order.
        for _ in range(count):
            assert deaf.receive() == b"$%d\r\n%s\r\n" % (len(value), value)


@pytest.mark.moonraft_only(OURS)
def test_clients_that_together_take_too_much_are_closed_largest_first(one_shard):
    leader, key = one_shard.leader(0), one_shard.key_on(0)
    limit = 96 * MIB
    with leader.connect() as client:
        client.set(key, b"v" * MIB)
        client.config_set("maxmemory-clients", limit)
    try:
        with contextlib.ExitStack() as stack, Watch(leader.node) as watch:
            deaf = [stack.enter_context(Wire(leader.port)) for _ in range(20)]
            for client in deaf:
                client.offer(request("GET", key) * 200)

            def some_are_closed():
                with leader.connect() as client:
                    return client.info("clients")["connected_clients"] < 10

            eventually(some_are_closed, what="most of those who read nothing were disconnected")
            assert_others_are_served(leader, f"{key}:other")
            # Buffers grow by doubling, and one client may be filled before it is looked at.
            growth = watch.report("20 clients that read nothing")
            assert growth < 2 * (limit + OUTBOX_BYTES_FULL) + SLACK_BYTES
    finally:
        with leader.connect() as client:
            client.config_set("maxmemory-clients", "2gb")


@pytest.mark.moonraft_only(OURS)
def test_a_subscriber_that_reads_nothing_is_closed_and_its_publisher_is_not_kept(one_shard):
    leader = one_shard.leader(0)
    message = b"m" * MIB
    with Wire(leader.port) as deaf, Wire(leader.port) as good, Watch(leader.node) as watch:
        for listener in (deaf, good):
            assert listener.ask("SUBSCRIBE", "channel").startswith(b"*3")
        with leader.connect() as publisher:
            for _ in range(100):
                publisher.publish("channel", message)
                assert good.receive().endswith(message + b"\r\n")
            eventually(
                lambda: publisher.execute_command("PUBSUB", "NUMSUB", "channel")[1] == 1,
                what="the deaf subscriber was disconnected",
            )
        assert watch.report("a subscriber 100 MiB behind") < 32 * MIB + SLACK_BYTES


@pytest.mark.moonraft_only(OURS)
def test_a_follower_that_sleeps_costs_its_leader_bounded_memory(one_shard):
    leader, follower = one_shard.leader(0), one_shard.followers(0)[0]
    key = one_shard.key_on(0)
    value = b"v" * (100 << 10)
    with leader.connect(retry=None) as client, Watch(leader.node) as watch:
        follower.node.pause()
        begin, longest = time.monotonic(), 0.0
        # 400 MiB of log on 1 MiB of data.
        for block in range(400):
            since = time.monotonic()
            with client.pipeline(transaction=False) as pipe:
                for number in range(10):
                    pipe.set(f"{key}:{number}", value)
                assert all(pipe.execute())
            longest = max(longest, time.monotonic() - since)
        seconds = time.monotonic() - begin
        print(f"400 MiB written in {seconds:.1f} s, the longest MiB in {longest * 1000:.0f} ms")
        growth = watch.report("one follower asleep")
        follower.node.resume()
    assert growth < LANE_BYTES_MAX + 2 * SLACK_BYTES
    assert_replicas_agree(one_shard)


@pytest.mark.moonraft_only(OURS)
def test_without_a_majority_writes_wait_within_bounds_and_each_is_answered(one_shard):
    leader, followers = one_shard.leader(0), one_shard.followers(0)
    tag = one_shard.key_on(0)
    value = b"v" * (64 << 10)
    count = 4000
    # Before there is no majority: what takes time would take it from the leader's last half second.
    stream = b"".join(request("SET", f"{tag}:{number}", value) for number in range(count))
    with Wire(leader.port) as writer, Watch(leader.node) as watch:
        for follower in followers:
            follower.node.pause()
        taken = writer.offer(stream, patience=0.3)
        print(f"{taken / MIB:.0f} of {len(stream) / MIB:.0f} MiB of requests were taken")
        # The rest waits with the client: what is in flight, a buffer of requests, the sockets'.
        assert taken < IN_FLIGHT_BYTES_MAX + SLACK_BYTES
        sending = threading.Thread(target=writer.send_raw, args=(stream[taken:],), daemon=True)
        sending.start()

        def says_that_there_is_no_leader():
            with Wire(leader.port) as client:
                return client.ask("GET", f"{tag}:0").startswith(b"-CLUSTERDOWN")

        eventually(says_that_there_is_no_leader, what="a request that nobody can serve is answered")
        # What is known of the writes: nothing was answered that could still be executed.
        for follower in followers:
            follower.node.resume()
        answers = [writer.receive() for _ in range(count)]
        sending.join()
        growth = watch.report("no majority")
    # The values and their entries, and what is on its way to each follower: in its messages and on the wire.
    on_the_way = len(followers) * APPENDS_BYTES_MAX
    assert growth < 2 * IN_FLIGHT_BYTES_MAX + on_the_way + SLACK_BYTES
    kinds = {answer.split()[0] for answer in answers}
    print({kind: sum(answer.startswith(kind) for answer in answers) for kind in kinds})
    assert kinds <= {b"+OK", b"-MOVED", b"-CLUSTERDOWN"}, kinds
    eventually(lambda: one_shard.is_whole(), within=30)
    with one_shard.client() as client:
        for number, answer in enumerate(answers):
            there = client.exists(f"{tag}:{number}") == 1
            assert there == answer.startswith(b"+OK"), (number, answer)


@pytest.mark.moonraft_only(OURS)
def test_strangers_on_the_peer_port_disturb_nobody(one_shard):
    """They connect and say nothing, or say something else, and never read."""
    leader = one_shard.leader(0)
    address = ("127.0.0.1", leader.node.ports.peer)
    with contextlib.ExitStack() as stack, Watch(leader.node) as watch:
        for number in range(200):
            stranger = stack.enter_context(socket.create_connection(address))
            said = [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9, b"MRL1\0\0", b"MRL1\xff\xff\xff\xff" + b"x" * 9]
            stranger.sendall(said[number % len(said)])
        assert_others_are_served(leader, one_shard.key_on(0))
        assert one_shard.leader(0) is leader
        assert watch.report("200 strangers") < SLACK_BYTES


def test_a_pipeline_that_is_sent_whole_before_it_is_read(one_shard):
    """As simple clients do: more replies than the server keeps at once, and nobody waits for ever."""
    leader, key = one_shard.leader(0), one_shard.key_on(0)
    with leader.connect() as client:
        client.set(key, "v" * 1000)
        with client.pipeline(transaction=False) as pipe:
            for _ in range(100_000):
                pipe.get(key)
            try:
                assert pipe.execute() == ["v" * 1000] * 100_000
            except redis.TimeoutError as error:
                raise AssertionError("client and server wait for each other") from error
