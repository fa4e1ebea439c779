"""Writers that remember what the cluster acknowledged, to ask for it later."""

import threading

from redis.exceptions import RedisClusterException, RedisError

from harness.processes import eventually


class Writer(threading.Thread):
    """Writes keys of one hash tag, one after the other, until told to stop.

    A write whose outcome is unknown is repeated, so a value can be written
    twice but no number is left out.
    """

    def __init__(self, client, tag, name):
        super().__init__(daemon=True)
        self.client = client
        self.prefix = f"{tag}:{name}"
        self.acknowledged = 0
        self.errors = []
        self._done = threading.Event()

    def key(self, number):
        """The key of the write of that number, from 1."""
        return f"{self.prefix}:{number}"

    def run(self):
        while not self._done.is_set():
            number = self.acknowledged + 1
            try:
                if self.client.set(self.key(number), number) is True:
                    self.acknowledged = number
            except (RedisError, RedisClusterException, OSError) as error:
                self.errors.append(error)

    def stop(self):
        """Ends after the write that is under way."""
        self._done.set()
        self.join()

    def lost(self, client):
        """The acknowledged writes that are no longer there."""
        lost = []
        for first in range(1, self.acknowledged + 1, 500):
            numbers = range(first, min(first + 500, self.acknowledged + 1))
            values = client.mget([self.key(number) for number in numbers])
            lost += [self.key(n) for n, value in zip(numbers, values) if value != str(n)]
        return lost


class Recorder:
    """Two writers on each of the given shards."""

    PER_SHARD = 2

    def __init__(self, cluster, shards=None):
        shards = range(cluster.shards) if shards is None else shards
        self.writers = [
            Writer(cluster.client(), cluster.key_on(shard, "recorder"), f"writer-{number}")
            for shard in shards
            for number in range(self.PER_SHARD)
        ]

    def __enter__(self):
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends all writers."""
        for writer in self.writers:
            writer.stop()

    def wait_for_progress(self, count=50, within=30):
        """Blocks until every writer has `count` more acknowledged writes."""
        goals = [writer.acknowledged + count for writer in self.writers]

        def reached():
            return all(w.acknowledged >= goal for w, goal in zip(self.writers, goals))

        eventually(reached, within, f"{count} more writes by each writer")

    @property
    def errors(self):
        """What the application had to see."""
        return [error for writer in self.writers for error in writer.errors]

    def assert_nothing_is_lost(self, cluster):
        """Every acknowledged write is readable, by a client that was not there."""
        self.stop()
        with cluster.client() as client:
            lost = [key for writer in self.writers for key in writer.lost(client)]
        written = sum(writer.acknowledged for writer in self.writers)
        assert not lost, f"{len(lost)} of {written} acknowledged writes are lost: {lost[:5]}…"
