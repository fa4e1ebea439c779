"""(j) The simple lock: SETEX, an EXISTS/TTL/EXPIRE script, auto-renewal, and spinning."""

import threading
import uuid

from harness.processes import eventually
from harness.workers import at_once

# Never shortens what is left.
EXTEND = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  return -1
end
if redis.call('TTL', KEYS[1]) >= tonumber(ARGV[1]) then
  return 0
end
return redis.call('EXPIRE', KEYS[1], ARGV[1])
"""

TAKE = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  return false
end
return redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
"""


class SimpleLock:
    """A key that is there while somebody holds it."""

    def __init__(self, client, name, seconds):
        self.client = client
        self.key = f"simple:{name}"
        self.seconds = seconds
        self.token = str(uuid.uuid4())
        self._take = client.register_script(TAKE)
        self._extend = client.register_script(EXTEND)

    def take(self):
        """Whether it is mine now."""
        return self._take(keys=[self.key], args=[self.token, self.seconds]) is not None

    def spin(self):
        """Asks until it is mine."""
        eventually(self.take, within=60, what=f"the lock {self.key}")

    def extend(self, seconds):
        """1 if it lasts longer now, 0 if it lasted that long anyway, -1 if it is gone."""
        return self._extend(keys=[self.key], args=[seconds])

    def give_back(self):
        """Frees the lock."""
        self.client.delete(self.key)


class Renewal:
    """Prolongs a lock in the background for as long as the work takes."""

    def __init__(self, lock):
        self.lock = lock
        self.renewals = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        # A third of the lock's time: two renewals may fail before it is lost.
        while not self._done.wait(self.lock.seconds / 3):
            assert self.lock.extend(self.lock.seconds) >= 0, "the lock was lost"
            self.renewals += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()


def test_setex_holds_and_expires(client):
    client.setex("simple:plain", 1, "me")
    assert client.ttl("simple:plain") == 1
    eventually(lambda: not client.exists("simple:plain"), within=5, what="the second passed")


def test_extend_tells_three_cases_apart(client):
    lock = SimpleLock(client, "three", 10)
    assert lock.extend(20) == -1
    assert lock.take()
    assert lock.extend(20) == 1
    assert 19 <= client.ttl(lock.key) <= 20
    assert lock.extend(5) == 0
    assert client.ttl(lock.key) >= 18


def test_renewal_keeps_a_lock_beyond_its_time(client):
    lock, rival = SimpleLock(client, "renewed", 1), SimpleLock(client, "renewed", 1)
    assert lock.take()
    with Renewal(lock) as renewal:
        # Six renewals take two seconds: twice the lock's own time.
        eventually(lambda: renewal.renewals >= 6, within=20, what="six renewals")
        assert not rival.take()
        assert client.get(lock.key) == lock.token
    eventually(rival.take, within=5, what="without renewal the lock expires")


def test_spinners_take_turns(cluster):
    inside = []

    def worker(number):
        with cluster.client() as client:
            for _ in range(5):
                lock = SimpleLock(client, "spin", 60)
                lock.spin()
                inside.append(number)
                assert inside == [number], "two hold the lock"
                inside.remove(number)
                lock.give_back()

    at_once(8, worker)
    assert inside == []
