"""Steady loads through real clients: what an application sees while nodes come and go.

Three kinds of application, all alike: a writer a shard writes numbered keys, one
after the other at a steady pace, remembers what was acknowledged, what went
wrong and the longest it waited for one write, and reads everything back at the
end. redis-py runs in threads here, redis-rs and node-redis in programs of their
own (`rust/`, `node/`).
"""

import os
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.exceptions import RedisClusterException, RedisError

from harness.moonraft import REPOSITORY
from harness.processes import Process, eventually

# Between two writes of a writer. Clients, servers and tests share two processors
# in CI; a load that takes all of them would measure their scheduler.
PACE_SECONDS = 0.004

# Where Debian keeps the libraries of node.js; `run` puts it in NODE_PATH.
NODE_PROGRAM = Path(__file__).with_name("node") / "node_redis_writers.js"


@dataclass(frozen=True)
class Outcome:
    """What an application saw."""

    client: str
    acknowledged: int
    lost: int
    errors: list
    longest_ms: float

    def __str__(self):
        return (
            f"{self.client}: {self.acknowledged} writes, longest wait {self.longest_ms:.0f} ms, "
            f"{len(self.errors)} errors, {self.lost} lost"
        )


class RedisPyLoad:
    """Writers on redis-py as it comes, one thread and one client each."""

    name = "redis-py"

    def __init__(self, cluster):
        self.cluster = cluster
        self.writers = [
            _Writer(cluster.client(), cluster.key_on(shard, "python"), shard)
            for shard in range(cluster.shards)
        ]

    def start(self):
        """Begins to write."""
        for writer in self.writers:
            writer.start()

    def progress(self):
        """Acknowledged writes of the slowest writer."""
        return min(writer.acknowledged for writer in self.writers)

    def stop(self):
        """Ends the writing and reads everything back."""
        for writer in self.writers:
            writer.stop()
        with self.cluster.client() as client:
            lost = sum(writer.count_lost(client) for writer in self.writers)
        return Outcome(
            self.name,
            sum(writer.acknowledged for writer in self.writers),
            lost,
            [error for writer in self.writers for error in writer.errors],
            max(writer.longest for writer in self.writers) * 1000,
        )

    def abandon(self):
        """Ends the writing, whatever became of it."""
        for writer in self.writers:
            writer.stop()


class _Writer(threading.Thread):
    def __init__(self, client, tag, number):
        super().__init__(daemon=True)
        self.client = client
        self.prefix = f"{tag}:redis-py:{number}"
        self.acknowledged = 0
        self.longest = 0.0
        self.errors = []
        self._done = threading.Event()

    def run(self):
        while not self._done.wait(PACE_SECONDS):
            number = self.acknowledged + 1
            begin = time.monotonic()
            try:
                self.client.set(f"{self.prefix}:{number}", number)
                self.acknowledged = number
            except (RedisError, RedisClusterException, OSError) as error:
                self.errors.append(error)
            self.longest = max(self.longest, time.monotonic() - begin)

    def stop(self):
        self._done.set()
        if self.is_alive():
            self.join()

    def count_lost(self, client):
        lost = 0
        for first in range(1, self.acknowledged + 1, 500):
            numbers = range(first, min(first + 500, self.acknowledged + 1))
            values = client.mget([f"{self.prefix}:{number}" for number in numbers])
            lost += sum(value != str(number) for number, value in zip(numbers, values))
        return lost


class ProgramLoad:
    """Writers in a program that says how far it came, and ends at SIGTERM."""

    def __init__(self, name, words, log_path):
        self.name = name
        self.words = words
        self.log_path = log_path
        self.process = None

    def start(self):
        """Starts the program."""
        self.process = Process(self.words, self.log_path)

    def progress(self):
        """Acknowledged writes of the slowest writer."""
        found = re.findall(r"^progress (\d+) ", self.process.output(), re.MULTILINE)
        assert self.process.is_running(), self.process.output()
        return int(found[-1]) if found else 0

    def stop(self):
        """Ends the writing; the program reads everything back."""
        code = self.process.stop(within=60)
        output = self.process.output()
        told = re.search(r"^acknowledged (\d+), lost (\d+), errors \d+, longest (\d+) ms$", output, re.M)
        assert told, output
        errors = [line for line in output.splitlines() if line.startswith("error")]
        acknowledged, lost, longest = (int(number) for number in told.groups())
        assert code == (1 if lost else 0), output
        return Outcome(self.name, acknowledged, lost, errors, longest)

    def abandon(self):
        """Ends the program, whatever became of it."""
        if self.process is not None:
            self.process.signal(9)


def redis_rs_load(cluster, directory):
    """Writers on redis-rs' asynchronous cluster client."""
    profile = os.environ.get("MOONRAFT_PROFILE", "release")
    program = Path(REPOSITORY, "target", profile, "redis-rs-failover")
    tags = [f"--tag={cluster.key_on(shard, 'rust')}" for shard in range(cluster.shards)]
    pace = f"--pace-ms={PACE_SECONDS * 1000:.0f}"
    words = [program, "--address", cluster.address(), pace, *tags]
    return ProgramLoad("redis-rs", words, directory / "redis-rs.log")


def node_redis_load(cluster, directory):
    """Writers on node-redis; skips the test where the library is not installed."""
    node = shutil.which("node")
    has_library = node and subprocess.run([node, "-e", "require('redis')"], capture_output=True)
    if not node or has_library.returncode != 0:
        pytest.skip("node-redis is not installed (Debian: nodejs, node-redis)")
    tags = [cluster.key_on(shard, "node") for shard in range(cluster.shards)]
    words = [node, NODE_PROGRAM, cluster.address(), f"{PACE_SECONDS * 1000:.0f}", *tags]
    return ProgramLoad("node-redis", words, directory / "node-redis.log")


def wait_for_progress(loads, count=25, within=60):
    """Blocks until every writer of every load has `count` more writes."""
    goals = [load.progress() + count for load in loads]
    eventually(
        lambda: all(load.progress() >= goal for load, goal in zip(loads, goals)),
        within,
        f"{count} more writes by each writer",
    )
