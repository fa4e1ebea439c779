"""What the tips of `COMMAND` promise: clients send such requests to every node, and join the replies.

A client that reads `request_policy:all_nodes` sends the request to leaders and followers alike and
fails if one of them fails; `all_shards` goes to the leaders, but old clients ask everybody.
"""

import re
import subprocess

import pytest

from harness.processes import eventually
from harness.wire import Wire, WireError

SCRIPT = "return ARGV[1]"
LIBRARY = '#!lua name=lib\nredis.register_function("f", function() return 1 end)'
SHA = "098e0f0d1448c0a81dafe820f66d460eb09263da"

OK = re.escape("+OK\r\n")
ARRAY = r"\*\d+\r\n"
NUMBER = r":\d+\r\n"
TEXT = r"\$\d+\r\n"
READONLY = "-READONLY You can't write against a read only replica."

# By row: the request, what a leader answers, and what a follower does if that is something else.
REQUESTS = {
    "config|set": ("CONFIG SET timeout 0", OK),
    "dbsize": ("DBSIZE", NUMBER),
    "flushall": ("FLUSHALL", OK, READONLY),
    "flushdb": ("FLUSHDB", OK, READONLY),
    "function|delete": ("FUNCTION DELETE none", "-ERR Library not found", READONLY),
    "function|flush": ("FUNCTION FLUSH", OK, READONLY),
    "function|kill": ("FUNCTION KILL", "-NOTBUSY No scripts in execution right now."),
    "function|load": (f"FUNCTION LOAD REPLACE '{LIBRARY}'", re.escape("$3\r\nlib\r\n"), READONLY),
    "function|restore": ("FUNCTION RESTORE x", "-ERR DUMP payload version or checksum are wrong", READONLY),
    "function|stats": ("FUNCTION STATS", ARRAY),
    "info": ("INFO server", TEXT),
    "keys": ("KEYS *", ARRAY),
    "latency|doctor": ("LATENCY DOCTOR", TEXT),
    "latency|graph": ("LATENCY GRAPH none", "-ERR No samples available for event 'none'"),
    "latency|histogram": ("LATENCY HISTOGRAM", ARRAY),
    "latency|history": ("LATENCY HISTORY none", ARRAY),
    "latency|latest": ("LATENCY LATEST", ARRAY),
    "latency|reset": ("LATENCY RESET", NUMBER),
    "memory|doctor": ("MEMORY DOCTOR", TEXT),
    "memory|malloc-stats": ("MEMORY MALLOC-STATS", TEXT),
    "memory|purge": ("MEMORY PURGE", OK),
    "memory|stats": ("MEMORY STATS", ARRAY),
    "ping": ("PING", re.escape("+PONG\r\n")),
    "randomkey": ("RANDOMKEY", r"\$-1\r\n"),
    "script|exists": (f"SCRIPT EXISTS {SHA} {'0' * 40}", re.escape("*2\r\n:1\r\n:0\r\n")),
    "script|flush": ("SCRIPT FLUSH", OK),
    "script|kill": ("SCRIPT KILL", "-NOTBUSY No scripts in execution right now."),
    "script|load": (f"SCRIPT LOAD {SCRIPT!r}", re.escape(f"$40\r\n{SHA}\r\n")),
    "slowlog|get": ("SLOWLOG GET", ARRAY),
    "slowlog|len": ("SLOWLOG LEN", NUMBER),
    "slowlog|reset": ("SLOWLOG RESET", OK),
    "wait": ("WAIT 0 0", NUMBER, "-ERR WAIT cannot be used with replica instances."),
    "waitaof": ("WAITAOF 0 0 0", ARRAY, "-ERR WAITAOF cannot be used with replica instances."),
}


def rows(commands):
    """All rows of an answer to `COMMAND`, subcommands included."""
    for row in commands:
        yield row
        yield from rows(row[9])


def promised(cluster):
    """The names of the rows whose tips send clients to more than one node."""
    with cluster.leader(0).connect() as client:
        client.response_callbacks.clear()
        policies = {"request_policy:all_nodes", "request_policy:all_shards"}
        return {row[0] for row in rows(client.execute_command("COMMAND")) if policies & set(row[7])}


def words(request):
    """A request in words; what stands in quotes is one."""
    return [quoted or word for quoted, word in re.findall(r"'([^']*)'|(\S+)", request)]


def test_every_row_that_promises_is_asked(cluster):
    assert promised(cluster) ^ set(REQUESTS) == set()


@pytest.mark.parametrize("read_only", [False, True], ids=["plain", "READONLY"])
def test_every_node_keeps_the_promises(cluster, read_only):
    """Every such request, at every replica of every shard."""
    leaders = [cluster.leader(shard) for shard in range(cluster.shards)]
    names, wrong = promised(cluster) & set(REQUESTS), []
    for replica in cluster.replicas:
        with Wire(replica.port) as wire:
            if read_only:
                assert wire.ask("READONLY") == b"+OK\r\n"
            wire.ask("SCRIPT", "LOAD", SCRIPT)
            for name in sorted(names, key=lambda name: (name == "script|flush", name)):
                request, at_leader, *at_follower = REQUESTS[name]
                expected = at_leader if replica in leaders else (at_follower or [at_leader])[0]
                answer = wire.ask(*words(request)).decode()
                if not re.match(expected, answer):
                    role = "leader" if replica in leaders else "follower"
                    wrong.append(f"{request} at a {role}: {answer}")
    assert wrong == []


def test_a_script_that_was_sent_to_every_node(cluster):
    """Known to each of them at once, by its name; and forgotten by all when all are told."""
    wires = [(replica, Wire(replica.port)) for replica in cluster.replicas]
    leaders = [cluster.leader(shard) for shard in range(cluster.shards)]
    keys = [cluster.key_on(shard) for shard in range(cluster.shards)]
    for _, wire in wires:
        assert wire.ask("SCRIPT", "FLUSH") == b"+OK\r\n"
    for _, wire in wires:
        assert wire.ask("SCRIPT", "LOAD", SCRIPT) == f"$40\r\n{SHA}\r\n".encode()
    for replica, wire in wires:
        assert wire.ask("SCRIPT", "EXISTS", SHA) == b"*1\r\n:1\r\n"
        command = "EVALSHA"
        if replica not in leaders:
            assert wire.ask("READONLY") == b"+OK\r\n"
            command = "EVALSHA_RO"
        assert wire.ask(command, SHA, "1", keys[replica.shard], "hello") == b"$5\r\nhello\r\n"
        assert wire.ask("EVALSHA", SHA, "0", "hello") == b"$5\r\nhello\r\n"
    for _, wire in wires:
        assert wire.ask("SCRIPT", "FLUSH") == b"+OK\r\n"
    for replica, wire in wires:

        def is_forgotten(wire=wire):
            return wire.ask("SCRIPT", "EXISTS", SHA) == b"*1\r\n:0\r\n"

        eventually(is_forgotten, what=f"the script is unknown at {replica.address}")
    for _, wire in wires:
        wire.close()


@pytest.mark.moonraft_only("there a node of ours is a process a shard")
def test_a_client_shuts_a_node_down(cluster, client):
    """Like SIGTERM: leaderships go first, the process ends well, nothing is lost, others serve."""
    key, node = cluster.key_on(0), cluster.leader(0).node
    client.set(key, "kept")
    with Wire(cluster.leader(0).port) as wire, Wire(cluster.leader(0).port) as other:
        for each in (wire, other):
            each.send("SHUTDOWN", "NOSAVE")
        with pytest.raises((WireError, OSError)):
            wire.receive()
    assert node.process.wait() == 0, node.process.output()
    assert client.get(key) == "kept"
    assert cluster.leader(0).node is not node


@pytest.mark.moonraft_only("it would wait for the copy")
def test_a_copy_by_redis_cli_is_refused_clearly(cluster):
    words = ["redis-cli", "-p", str(cluster.leader(0).port), "--rdb", "/dev/null"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert "SYNC is not supported: replicas are those of the cluster file" in done.stdout + done.stderr
