"""(h) A lock whose waiters sleep until a message wakes them; a queue of waiters by priority."""

import threading
import uuid

from harness.processes import eventually
from harness.workers import at_once

RELEASE_AND_TELL = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
redis.call('DEL', KEYS[1])
return redis.call('PUBLISH', KEYS[1], 'released')
"""

JOIN = """
local number = redis.call('INCR', KEYS[2])
redis.call('ZADD', KEYS[1], ARGV[2] * 1000000 + number, ARGV[1])
return number
"""

SERVE = """
local first = redis.call('ZPOPMIN', KEYS[1])
if #first == 0 then
  return false
end
redis.call('RPUSH', KEYS[2], first[1])
redis.call('PUBLISH', KEYS[3] .. first[1], 'your turn')
return first[1]
"""

# Nobody waits that long for a message in a healthy cluster.
MESSAGE_SECONDS_MAX = 30


class PubSubLock:
    """A lock one waits for without asking again and again."""

    def __init__(self, client, name):
        self.client = client
        self.key = f"lock:{{{name}}}"
        self.token = str(uuid.uuid4())
        self.wakes = 0
        self._release = client.register_script(RELEASE_AND_TELL)

    def acquire(self):
        """Waits for the lock. Subscribes before it tries, so no release is missed."""
        with self.client.pubsub() as messages:
            messages.subscribe(self.key)
            assert messages.get_message(timeout=MESSAGE_SECONDS_MAX)["type"] == "subscribe"
            while not self.client.set(self.key, self.token, nx=True, ex=60):
                message = messages.get_message(timeout=MESSAGE_SECONDS_MAX)
                assert message is not None, "never woken, though the lock was released"
                assert message["data"] == "released"
                self.wakes += 1

    def release(self):
        """How many waiters heard of it; -1 if the lock was not mine."""
        return self._release(keys=[self.key], args=[self.token])


def test_waiters_are_woken_by_the_message_and_take_turns(cluster):
    holder_count = 8
    inside, order = [], []

    def worker(number):
        with cluster.client() as client:
            lock = PubSubLock(client, "printer")
            lock.acquire()
            inside.append(number)
            assert inside == [number], "two hold the lock"
            order.append(number)
            inside.remove(number)
            assert lock.release() >= 0, "the lock was lost while held"
            return lock.wakes

    with cluster.client() as client:
        first = PubSubLock(client, "printer")
        first.acquire()
        wait_for = (cluster, first, holder_count)
        release = threading.Thread(target=release_when_all_wait, args=wait_for)
        release.start()
        wakes = at_once(holder_count, worker)
        release.join()

    assert sorted(order) == list(range(holder_count))
    assert sum(wakes) >= holder_count - 1, "somebody got in without being woken"


def release_when_all_wait(cluster, lock, waiters):
    """Releases once every waiter has subscribed, as PUBSUB NUMSUB on all nodes tells."""

    def subscribed():
        total = 0
        for replica in cluster.replicas:
            with replica.connect() as client:
                total += client.pubsub_numsub(lock.key)[0][1]
        return total >= waiters

    eventually(subscribed, what="all waiters subscribed")
    assert lock.release() >= 0


def test_a_stranger_neither_releases_nor_wakes(client):
    mine, stranger = PubSubLock(client, "safe"), PubSubLock(client, "safe")
    mine.acquire()
    with client.pubsub() as messages:
        messages.subscribe(mine.key)
        assert messages.get_message(timeout=MESSAGE_SECONDS_MAX)["type"] == "subscribe"
        assert stranger.release() == -1
        mine.release()
        assert messages.get_message(timeout=MESSAGE_SECONDS_MAX)["data"] == "released"
        assert messages.get_message(timeout=0) is None, "the stranger published"


class WaitingRoom:
    """Serves the lowest priority number first, and equals in order of arrival."""

    def __init__(self, client, name):
        self.queue, self.numbers = f"{{{name}}}:queue", f"{{{name}}}:numbers"
        self.served, self.channel = f"{{{name}}}:served", f"{{{name}}}:turn:"
        self._join = client.register_script(JOIN)
        self._serve = client.register_script(SERVE)

    def join(self, patient, priority):
        """Takes a number."""
        return self._join(keys=[self.queue, self.numbers], args=[patient, priority])

    def serve(self):
        """Calls the next one; None if the room is empty."""
        return self._serve(keys=[self.queue, self.served, self.channel])


def test_a_priority_queue_of_waiters(client):
    room = WaitingRoom(client, "clinic")
    with client.pubsub() as messages:
        messages.psubscribe(room.channel + "*")
        assert messages.get_message(timeout=MESSAGE_SECONDS_MAX)["type"] == "psubscribe"

        for patient, priority in [("cold", 5), ("cut", 3), ("heart", 1), ("flu", 5), ("bone", 3)]:
            room.join(patient, priority)
        called = [room.serve() for _ in range(6)]

        assert called == ["heart", "cut", "bone", "cold", "flu", None]
        assert client.lrange(room.served, 0, -1) == called[:5]
        for patient in called[:5]:
            message = messages.get_message(timeout=MESSAGE_SECONDS_MAX)
            assert message["channel"] == room.channel + patient
