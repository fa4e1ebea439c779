"""A script that runs away: others hear -BUSY, it can be killed even after it wrote."""

import contextlib
import threading

import pytest
import redis

from harness.processes import eventually
from harness.wire import Wire

# How long a script may run before others are told BUSY, milliseconds.
PATIENCE_MS = 100

READS_FOREVER = "while true do redis.call('GET', KEYS[1]) end"
WRITES_FOREVER = """
redis.call('SET', KEYS[1], 'written by the script')
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', 'news', 'from the script')
while true do
  redis.call('RPUSH', KEYS[3], 'more')
  -- Slowly: what a script changes is bounded (max-unit-bytes), and that would end it.
  for _ = 1, 20000 do end
end
"""
WRITES_TOO_MUCH = "while true do redis.call('RPUSH', KEYS[1], string.rep('x', 1000)) end"
# A naive kill is just another error to this one.
CATCHES_ITS_KILL = "while true do pcall(function() while true do end end) end"


@contextlib.contextmanager
def runaway(cluster, script, keys):
    """Runs a script that does not end, until others are told so; yields its outcome."""
    cluster.configure("busy-reply-threshold", PATIENCE_MS)
    leader, outcome = cluster.leader(0), []

    def run():
        with leader.connect(socket_timeout=60, retry=None) as client:
            try:
                outcome.append(client.eval(script, len(keys), *keys))
            except redis.RedisError as error:
                outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with leader.connect(retry=None) as other:
            eventually(lambda: is_busy(other, keys[0]), what="other clients hear -BUSY")
            yield leader, other, outcome
            thread.join(30)
            assert not thread.is_alive(), "the script still runs"
    finally:
        with contextlib.suppress(redis.RedisError), leader.connect(retry=None) as other:
            other.script_kill()
        thread.join(30)


def is_busy(client, key):
    """Whether the shard refuses an ordinary request because of a script."""
    try:
        client.get(key)
    except redis.ResponseError as error:
        return str(error).startswith("BUSY") or type(error).__name__ == "BusyError"
    return False


def test_a_script_that_only_reads(cluster):
    keys = [cluster.key_on(0)]
    with runaway(cluster, READS_FOREVER, keys) as (leader, other, outcome):
        assert other.script_kill() in (True, "OK", b"OK")
    assert "Script killed by user" in str(outcome[0])
    assert cluster.leader(0) is leader
    with leader.connect() as client:
        assert client.set(keys[0], "served again")


def test_the_kill_cannot_be_caught(cluster):
    with runaway(cluster, CATCHES_ITS_KILL, [cluster.key_on(0)]) as (_, other, outcome):
        assert other.script_kill() in (True, "OK", b"OK")
    assert "Script killed by user" in str(outcome[0])


def test_a_refused_request_breaks_the_block(cluster):
    """What was refused is missing from the block: to execute the rest would be half of it."""
    tag = cluster.key_on(0)
    paid, stock = f"{tag}:paid", f"{tag}:stock"
    with Wire(cluster.leader(0).port) as buyer, Wire(cluster.leader(0).port) as other:
        assert buyer.ask("SET", stock, 5) == b"+OK\r\n"
        for wire in (buyer, other):
            assert wire.ask("MULTI") == b"+OK\r\n"
            assert wire.ask("SET", paid, "yes") == b"+QUEUED\r\n"
        with runaway(cluster, READS_FOREVER, [tag]) as (_, operator, _):
            assert buyer.ask("DECR", stock).startswith(b"-BUSY ")
            assert other.ask("EXEC").startswith(b"-EXECABORT Transaction discarded because of: BUSY ")
            # A new block may be begun meanwhile, as a client does that sends it in one go.
            assert other.ask("MULTI") == b"+OK\r\n"
            operator.script_kill()
        assert buyer.ask("EXEC").startswith(b"-EXECABORT ")
        assert other.ask("INCR", stock) == b"+QUEUED\r\n"
        assert other.ask("EXEC") == b"*1\r\n:6\r\n"
        assert buyer.ask("GET", paid) == b"$-1\r\n"


@pytest.mark.moonraft_only("redis-server hears nobody while such a script runs")
def test_a_threshold_of_never_locks_nobody_out(cluster):
    """Others wait and are told nothing, but who would end the script is heard."""
    key = cluster.key_on(0)
    port = cluster.leader(0).port
    cluster.configure("busy-reply-threshold", 0)
    try:
        with Wire(port) as owner, Wire(port) as other, Wire(port) as operator:
            owner.send("EVAL", READS_FOREVER, 1, key)
            # Until it has begun there is nothing to kill.
            eventually(lambda: operator.ask("SCRIPT", "KILL") == b"+OK\r\n", what="the kill is heard")
            assert b"Script killed by user" in owner.receive()
            owner.send("EVAL", READS_FOREVER, 1, key)
            other.send("SET", key, "waits")
            with Wire(port) as late:
                eventually(lambda: late.ask("SCRIPT", "KILL") == b"+OK\r\n", what="a new client is heard")
            assert b"Script killed by user" in owner.receive()
            assert other.receive() == b"+OK\r\n"
    finally:
        cluster.configure("busy-reply-threshold", 5000)


def test_nothing_to_kill(cluster):
    with cluster.leader(0).connect() as client:
        with pytest.raises(redis.ResponseError, match="No scripts in execution right now"):
            client.script_kill()


@pytest.mark.moonraft_only("redis-server cannot kill a script that wrote (UNKILLABLE)")
def test_a_script_that_wrote_is_undone_whole(cluster):
    tag = cluster.key_on(0)
    keys = [f"{tag}:set", f"{tag}:deleted", f"{tag}:list"]
    with cluster.leader(0).connect() as client, client.pubsub() as news:
        news.subscribe("news")
        assert news.get_message(timeout=10)["type"] == "subscribe"
        client.set(keys[0], "as it was")
        client.hset(keys[1], "field", "still here")
        # A follower hears of a commit with what comes next: up to a heartbeat later.
        assert eventually(lambda: len(set(cluster.digests(0))) == 1)
        before = cluster.digests(0)

        with runaway(cluster, WRITES_FOREVER, keys) as (leader, other, outcome):
            assert other.script_kill() in (True, "OK", b"OK")
        assert "Script killed by user" in str(outcome[0])

        assert client.get(keys[0]) == "as it was"
        assert client.hgetall(keys[1]) == {"field": "still here"}
        assert client.exists(keys[2]) == 0
        assert cluster.leader(0) is leader, "leadership was lost"
        assert eventually(lambda: len(set(cluster.digests(0))) == 1)
        assert cluster.digests(0) == before
        assert news.get_message(timeout=0) is None, "it published what never happened"


@pytest.mark.moonraft_only("redis-server cannot kill a script that wrote (UNKILLABLE)")
def test_leadership_is_kept_for_longer_than_an_election_would_take(cluster):
    """Heartbeats have a thread of their own; the other shards do not notice at all."""
    tag = cluster.key_on(0)
    keys = [f"{tag}:set", f"{tag}:deleted", f"{tag}:list"]
    # Found out now: a shard that is busy does not tell who has which slots.
    neighbour_key = cluster.key_on(1)
    with runaway(cluster, WRITES_FOREVER, keys) as (leader, other, outcome):
        with cluster.leader(1).connect(retry=None) as neighbour:
            # Work on another shard measures the time: it is served throughout.
            _, started_at = neighbour.time(), neighbour.time()[0]
            while neighbour.time()[0] - started_at < 5:
                assert neighbour.incr(neighbour_key) > 0
        assert is_busy(other, keys[0])
        followers = [r for r in cluster.replicas if r.shard == 0 and r is not leader]
        for follower in followers:
            with follower.connect(retry=None) as client:
                with pytest.raises(redis.exceptions.MovedError, match=leader.address):
                    client.get(keys[0])
        other.script_kill()
    assert "Script killed by user" in str(outcome[0])
    assert cluster.leader(0) is leader


def test_who_comes_late_can_kill_it(cluster):
    """An operator connects when something is wrong, not before."""
    key = cluster.key_on(0)
    with runaway(cluster, READS_FOREVER, [key]) as (leader, _, outcome):
        with leader.connect(retry=None) as late:
            assert late.script_kill() in (True, "OK", b"OK")
            eventually(lambda: not is_busy(late, key), what="its connection is served")
            assert late.get(key) is None
    assert "Script killed by user" in str(outcome[0])


@pytest.mark.moonraft_only("redis-server bounds neither a script's writes nor a transaction's")
def test_a_script_that_writes_too_much_ends_by_itself(cluster):
    """It may not take the memory of the node, even if nobody kills it."""
    leader, key = cluster.leader(0), cluster.key_on(0)
    with leader.connect(socket_timeout=60, retry=None) as client:
        with pytest.raises(redis.ResponseError, match="exceed max-unit-bytes"):
            client.eval(WRITES_TOO_MUCH, 1, key)
        assert client.exists(key) == 0
    assert cluster.leader(0) is leader
