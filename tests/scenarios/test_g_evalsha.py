"""(g) EVALSHA with the NOSCRIPT fallback, register_script, and scripts that outlive a leader."""

import hashlib

import pytest
from redis.exceptions import NoScriptError

from harness.processes import eventually
from harness.wire import Wire

GREET = "return 'hello ' .. ARGV[1] .. ' from ' .. KEYS[1]"
GREET_SHA = hashlib.sha1(GREET.encode()).hexdigest()


class CachedScript:
    """What most libraries do: try the digest, fall back to the text."""

    def __init__(self, client, text):
        self.client = client
        self.text = text
        self.sha = hashlib.sha1(text.encode()).hexdigest()
        self.fallbacks = 0

    def run(self, key, *args):
        """The script's answer, however the server came to know the script."""
        try:
            return self.client.evalsha(self.sha, 1, key, *args)
        except NoScriptError:
            self.fallbacks += 1
            return self.client.eval(self.text, 1, key, *args)


def flush_scripts(cluster):
    for shard in range(cluster.shards):
        with cluster.leader(shard).connect() as leader:
            leader.script_flush()


def test_the_fallback_is_needed_once(cluster, client):
    flush_scripts(cluster)
    script = CachedScript(client, GREET)
    answers = [script.run("{one}", "me") for _ in range(3)]
    assert answers == ["hello me from {one}"] * 3
    assert script.fallbacks == 1


def test_an_unknown_digest_is_noscript(cluster, client):
    flush_scripts(cluster)
    with pytest.raises(NoScriptError):
        client.evalsha("f" * 40, 1, "key")


def test_register_script_works_on_every_shard(cluster, client):
    flush_scripts(cluster)
    greet = client.register_script(GREET)
    for shard in range(cluster.shards):
        key = cluster.key_on(shard)
        assert greet(keys=[key], args=["you"]) == f"hello you from {key}"
    assert greet.sha == GREET_SHA


def test_load_exists_flush(cluster):
    flush_scripts(cluster)
    with cluster.leader(0).connect() as leader:
        assert leader.script_exists(GREET_SHA, "0" * 40) == [False, False]
        assert leader.script_load(GREET) == GREET_SHA
        assert leader.script_exists(GREET_SHA, "0" * 40) == [True, False]
        leader.script_flush()
        assert leader.script_exists(GREET_SHA) == [False]


@pytest.mark.rival_may_lose("redis-server does not replicate SCRIPT LOAD")
def test_a_loaded_script_survives_the_leader(cluster):
    """Loaded is acknowledged, hence replicated: no NOSCRIPT from the next leader."""
    flush_scripts(cluster)
    with cluster.leader(0).connect() as leader:
        leader.script_load(GREET)
    key, leader = cluster.key_on(0), cluster.leader(0)
    with cluster.client() as client:
        leader.node.kill()
        answers = []

        def ask():
            try:
                answers.append(client.evalsha(GREET_SHA, 1, key, "heir"))
            except NoScriptError:
                pytest.fail("the new leader does not know the script")
            return True

        eventually(ask, what="the shard has a leader again")
        assert answers == [f"hello heir from {key}"]
        assert cluster.leader(0) is not leader


READ = "return redis.call('GET', KEYS[1])"
WRITE = "return redis.call('INCR', KEYS[1])"


@pytest.mark.rival_may_lose("a redis-server waits for no replica")
def test_scripts_that_read_clean_keys_wait_for_no_follower(cluster):
    leader = cluster.leader(0)
    clean, dirty = cluster.key_on(0, "clean"), cluster.key_on(0, "dirty")
    followers = cluster.followers(0)
    with Wire(leader.port) as reader, Wire(leader.port) as writer:
        names = {text: reader.ask("SCRIPT", "LOAD", text)[5:45] for text in (READ, WRITE)}
        for key in (clean, dirty):
            assert reader.ask("SET", key, 1) == b"+OK\r\n"
        for follower in followers:
            follower.node.pause()
        try:
            writer.send("EVALSHA", names[WRITE], 1, dirty)
            ways = ("EVALSHA", "EVALSHA_RO")
            # All of it within the lease, a fraction of a second.
            read = [reader.ask(way, names[READ], 1, clean) for way in ways for _ in range(10)]
            waits = not writer.is_readable()
            # What saw the write waits with it.
            reader.send("EVALSHA_RO", names[READ], 1, dirty)
            sees = reader.is_readable(within=0.02)
        finally:
            for follower in followers:
                follower.node.resume()
        assert read == [b"$1\r\n1\r\n"] * 20
        assert waits and not sees
        assert writer.receive() == b":2\r\n"
        assert reader.receive() == b"$1\r\n2\r\n"
