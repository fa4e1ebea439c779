"""(i) Redlock over five independent clusters of one node each."""

import uuid

import pytest
from redis.exceptions import RedisError

from harness.workers import at_once

INSTANCES = 5
QUORUM = INSTANCES // 2 + 1
TTL_MS = 60_000

RELEASE_IF_MINE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


class Redlock:
    """Mine if a majority of the instances say so."""

    def __init__(self, clients, name):
        self.clients = clients
        self.name = name
        self.token = str(uuid.uuid4())

    def acquire(self):
        """Whether a majority gave the lock; a minority is given back."""
        given = sum(self._ask(self._lock, client) for client in self.clients)
        if given >= QUORUM:
            return True
        self.release()
        return False

    def release(self):
        """On how many instances it was mine."""
        return sum(self._ask(self._unlock, client) for client in self.clients)

    def _lock(self, client):
        return bool(client.set(self.name, self.token, nx=True, px=TTL_MS))

    def _unlock(self, client):
        return bool(client.eval(RELEASE_IF_MINE, 1, self.name, self.token))

    @staticmethod
    def _ask(question, client):
        try:
            return question(client)
        except RedisError:
            return False  # an instance that is down has no vote


@pytest.fixture
def instances(make_cluster):
    """Five clusters that know nothing of each other."""
    clusters = [make_cluster(nodes=1, shards=1) for _ in range(INSTANCES)]
    yield clusters
    for cluster in clusters:
        if cluster.nodes[0].is_running():
            cluster.stop()


def connect(instances):
    """A client an instance, each of which fails fast."""
    return [cluster.replicas[0].connect(retry=None, socket_timeout=5) for cluster in instances]


def test_redlock(instances):
    # At most one of many contenders has it.
    def contender(_):
        return Redlock(connect(instances), "resource").acquire()

    assert at_once(16, contender).count(True) <= 1
    for client in connect(instances):
        client.flushall()

    # One owner, and only the owner releases.
    clients = connect(instances)
    mine, theirs = Redlock(clients, "resource"), Redlock(clients, "resource")
    assert mine.acquire()
    assert not theirs.acquire()
    assert theirs.release() == 0
    assert mine.release() == INSTANCES
    assert theirs.acquire()
    assert theirs.release() == INSTANCES

    # Two of five may crash.
    for cluster in instances[:2]:
        cluster.kill()
    assert mine.acquire()
    assert not theirs.acquire()
    assert mine.release() == QUORUM

    # With three gone there is no majority, and nothing stays behind.
    instances[2].kill()
    assert not mine.acquire()
    assert [client.get("resource") for client in clients[3:]] == [None, None]
