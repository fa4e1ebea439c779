"""(b) A lock with an owner: SET NX EX, and scripts that act only if it is mine."""

import uuid

from harness.processes import eventually
from harness.workers import at_once

RELEASE_IF_MINE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""

EXTEND_IF_MINE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
"""


class Lock:
    """Exclusive until released or until its time is up."""

    def __init__(self, client, name, seconds=10):
        self.client = client
        self.key = f"lock:{name}"
        self.seconds = seconds
        self.token = str(uuid.uuid4())
        self._release = client.register_script(RELEASE_IF_MINE)
        self._extend = client.register_script(EXTEND_IF_MINE)

    def acquire(self):
        """Whether the lock is mine now."""
        return bool(self.client.set(self.key, self.token, nx=True, ex=self.seconds))

    def extend(self, milliseconds):
        """Whether it was still mine and now lasts that long."""
        return bool(self._extend(keys=[self.key], args=[self.token, milliseconds]))

    def release(self):
        """Whether it was still mine."""
        return bool(self._release(keys=[self.key], args=[self.token]))


def test_one_of_sixteen_gets_it(cluster):
    def contender(_):
        with cluster.client() as client:
            return Lock(client, "prize").acquire()

    assert at_once(16, contender).count(True) == 1


def test_only_the_owner_extends_and_releases(client):
    mine, theirs = Lock(client, "door"), Lock(client, "door")
    assert mine.acquire()
    assert not theirs.acquire()

    assert not theirs.extend(60_000)
    assert not theirs.release()
    assert client.pttl(mine.key) <= 10_000

    assert mine.extend(60_000)
    assert 50_000 < client.pttl(mine.key) <= 60_000

    assert mine.release()
    assert not mine.release(), "it was released already"
    assert theirs.acquire()


def test_a_forgotten_lock_frees_itself(client):
    forgotten, next_one = Lock(client, "short"), Lock(client, "short")
    assert forgotten.acquire()
    assert forgotten.extend(150)

    eventually(next_one.acquire, within=5, what="the lock expired")

    assert not forgotten.release(), "the late owner must not take the lock of the new one"
    assert client.get(next_one.key) == next_one.token


def test_the_section_it_guards_is_never_shared(cluster):
    """A read and a write by GET and SET lose updates unless the lock works."""
    rounds = 10

    def worker(_):
        with cluster.client() as client:
            for _ in range(rounds):
                lock = Lock(client, "section")
                eventually(lock.acquire, within=60, what="my turn")
                seen = int(client.get("section:counter") or 0)
                client.set("section:counter", seen + 1)
                assert lock.release()

    at_once(8, worker)
    with cluster.client() as client:
        assert client.get("section:counter") == str(8 * rounds)
