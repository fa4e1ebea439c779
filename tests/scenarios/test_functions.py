"""Functions are state of their shard: what was loaded, replaced or deleted is so after any failover."""

import pytest
import redis

from harness.processes import eventually

LIBRARY = """#!lua name=versioned
redis.register_function('call', function(keys)
  return {%d, redis.call('INCR', keys[1])}
end)
"""
VERSIONS = 24


class Calls:
    """A client that calls and loads at whoever leads, and knows what it was told."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.key = cluster.key_on(0, "calls")
        # Calls that were answered, and those that may have been done.
        self.answered = self.sent = 0

    def _at_leader(self, *words):
        with self.cluster.leader(0).connect(socket_timeout=5) as leader:
            return leader.execute_command(*words)

    def load(self, version):
        """Loads this version, however long that takes."""
        words = ("FUNCTION", "LOAD", "REPLACE", LIBRARY % version)
        eventually(lambda: self._at_leader(*words) == "versioned", within=60, what=f"version {version} is loaded")

    def call(self):
        """The version that answers."""
        def once():
            self.sent += 1
            return self._at_leader("FCALL", "call", "1", self.key)

        version, count = eventually(once, within=60, what="a call is answered")
        self.answered += 1
        assert self.answered <= count <= self.sent
        return version


@pytest.mark.rival_may_lose("redis-server acknowledges a library before its replicas have it")
def test_no_version_of_a_library_is_lost(cluster):
    calls = Calls(cluster)
    for version in range(1, VERSIONS + 1):
        calls.load(version)
        if version % 6 == 0:
            cluster.leader(0).node.kill()
        assert calls.call() == version, "the version whose loading was acknowledged"
        if version % 6 == 3:
            cluster.heal()
    cluster.heal()
    digests = eventually(lambda: (found := cluster.digests(0)) and len(set(found)) == 1 and found, what="one digest")
    assert len(digests) == 3


@pytest.mark.rival_may_lose("redis-server acknowledges a deletion before its replicas have it")
def test_what_was_deleted_stays_deleted(cluster):
    calls = Calls(cluster)
    calls.load(1)
    with cluster.leader(0).connect() as leader:
        assert leader.execute_command("FUNCTION", "DELETE", "versioned") == "OK"
    cluster.leader(0).node.kill()
    with cluster.leader(0).connect() as leader, pytest.raises(redis.ResponseError, match="Function not found"):
        eventually(lambda: leader.ping(), what="it answers")
        leader.execute_command("FCALL", "call", "1", calls.key)
    cluster.heal()
    for replica in cluster.replicas:
        if replica.shard == 0:
            with replica.connect() as client:
                eventually(lambda client=client: client.function_list("versioned") == [], what="it is nowhere")
