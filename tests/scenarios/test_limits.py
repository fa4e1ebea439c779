"""What strangers and requests may take of one node: descriptors, memory, and the shard's time.

docs/operations.md has the limits. One node here: nobody could take over from it.
"""

import contextlib
import os
import resource
import socket

import pytest
import redis
from test_overload import MIB, SLACK_BYTES, Watch

from harness.processes import eventually
from harness.wire import Wire, request

OURS = "limits of this server"
pytestmark = pytest.mark.moonraft_only(OURS)

DESCRIPTORS = 1100
# More than the process has descriptors for, after its own.
STRANGERS = 1075

REPLY_BYTES_MAX = 128 * MIB


@pytest.fixture(scope="module")
def node(make_cluster):
    """A cluster of one node and one shard, whose process may open few files; the test itself needs more."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cluster = make_cluster(nodes=1, shards=1)
    (only,) = cluster.nodes
    if only.is_running():
        only.stop()
    only.wrapper = ["prlimit", f"--nofile={DESCRIPTORS}"]
    cluster.start()
    return cluster.replicas[0]


def descriptors(node):
    """How many files the node has open."""
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


@pytest.mark.parametrize("port", ["http", "peer"])
def test_half_sent_requests_take_no_descriptor_that_the_log_needs(node, port):
    with contextlib.ExitStack() as stack:
        for _ in range(STRANGERS):
            stranger = stack.enter_context(socket.socket())
            stranger.connect(("127.0.0.1", getattr(node.node.ports, port)))
            stranger.send(b"GET /ready HTTP/1.1\r\nx: ")
        # All were accepted once who comes after them is answered.
        assert node.node.answers_ready()
        assert descriptors(node.node) < DESCRIPTORS - 256
        with node.connect() as client:
            # Two more files of the log at least.
            for number in range(10):
                assert client.set(f"large-{number}", os.urandom(16 * MIB))
            assert client.flushall()
        assert node.node.is_running()
    assert node.node.answers_ready()


def test_clients_beyond_the_descriptors_are_told_so_and_the_log_goes_on(node):
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(STRANGERS):
            clients.append(stack.enter_context(contextlib.closing(Wire(node.port))))
        told = clients[-1].receive()
        assert told == b"-ERR max number of clients reached\r\n"
        assert clients[0].ask("SET", "k", os.urandom(100 * MIB)) == b"+OK\r\n"
        assert clients[0].ask("DEL", "k") == b":1\r\n"
        assert node.node.answers_ready()


def test_a_reply_of_gigabytes_is_refused_and_takes_nothing(node):
    with node.connect() as client, Watch(node.node) as watch:
        client.set("{k}v", b"v" * 10 * MIB)
        client.hset("{k}h", "field", b"v" * 10 * MIB)
        for words in (["MGET", *["{k}v"] * 250], ["HMGET", "{k}h", *["field"] * 250]):
            with pytest.raises(redis.ResponseError, match="max-reply-bytes"):
                client.execute_command(*words)
        # As much as is allowed, from a client that reads nothing.
        with Wire(node.port) as deaf:
            deaf.send("MGET", *["{k}v"] * 12)
            eventually(lambda: client.info("memory")["used_memory"] > 100 * MIB)
            assert client.ping()
        assert watch.report("replies of 2.5 GB refused") < 2 * REPLY_BYTES_MAX + SLACK_BYTES
        client.flushall()


def test_memory_counts_at_once_when_it_is_taken_and_when_it_is_free_again(node):
    limit = 200 * MIB
    with node.connect() as client:
        # What the node held for other tests' clients.
        eventually(lambda: client.info("memory")["used_memory"] < limit / 4, what="little is taken")
        client.config_set("maxmemory", limit)
        try:
            number = 0
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                while True:
                    client.set(f"key-{number}", b"v" * MIB)
                    number += 1
            used = client.info("memory")["used_memory"]
            # A write and its entry are what it may be above the limit; what was in flight is given back by now.
            assert limit - 8 * MIB < used < limit + 8 * MIB
            assert client.flushall()
            assert client.set("key", "value"), "at once"
            # A snapshot that is being taken may still write what was there.
            eventually(lambda: client.info("memory")["used_memory"] < limit / 2, what="it is given back")
        finally:
            client.config_set("maxmemory", 0)


def test_a_request_of_many_words_is_executed(node):
    with Wire(node.port) as client:
        keys = [b"{t}%d" % number for number in range(1_100_000)]
        assert client.ask("DEL", *keys) == b":0\r\n"
        assert client.ask("PING") == b"+PONG\r\n"
        client.send_raw(b"*2147483648\r\n")
        assert client.receive() == b"-ERR Protocol error: invalid multibulk length\r\n"


def test_who_speaks_http_is_hung_up_on(node):
    with socket.create_connection(("127.0.0.1", node.port), timeout=10) as browser:
        browser.sendall(b"POST / HTTP/1.1\r\nHost: here\r\n\r\n" + request("SET", "k", "v"))
        with contextlib.suppress(ConnectionResetError):
            assert browser.recv(1000) == b""
    with node.connect() as client:
        assert client.get("k") is None
    assert "speaks HTTP" in node.node.log_path().read_text()
