"""What clients see while nodes are killed and restarted; `measure` starts it.

Prints figures and asserts nothing: the scenarios do that, with limits that hold
on a busy machine too. The figures of docs/reliability.md come from here.
"""

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from load import RedisPyLoad, node_redis_load, redis_rs_load
from redis.exceptions import RedisClusterException, RedisError
from test_rolling_restart import restart_all

from harness import moonraft
from harness.cluster import Cluster
from harness.processes import eventually
from harness.wire import Wire, WireError

# Between two writes of a client: far below what is measured.
PACE_SECONDS = 0.002


class Acknowledgements(threading.Thread):
    """A client that writes one key again and again, and notes when it was next acknowledged."""

    def __init__(self, write):
        super().__init__(daemon=True)
        self.write = write
        self.next = None
        self.errors = 0
        self._done = threading.Event()

    def run(self):
        while not self._done.wait(PACE_SECONDS):
            try:
                self.write()
                self.next = self.next or time.monotonic()
            except (RedisError, RedisClusterException, WireError, OSError):
                self.errors += 1

    def wait(self, since):
        """Seconds from `since` to the next acknowledgement from now on."""
        self.next = None
        eventually(lambda: self.next, what="an acknowledged write")
        return self.next - since

    def stop(self):
        """Ends the writing."""
        self._done.set()
        self.join()


class AnyNode:
    """A bare client: it asks any replica of the shard, follows MOVED, and knows nothing else."""

    def __init__(self, cluster, key):
        self.ports = [replica.port for replica in cluster.replicas if replica.shard == 0]
        self.key = key
        self.wire = None

    def write(self):
        """One acknowledged write, however often it must be asked for."""
        while True:
            try:
                self.wire = self.wire or Wire(self.ports[0], within=5)
                answer = self.wire.ask("SET", self.key, "x")
            except (WireError, OSError):
                self._go_on()
                continue
            if answer == b"+OK\r\n":
                return
            if not answer.startswith(b"-MOVED"):
                raise WireError(answer.decode())
            self._go_on(int(answer.rsplit(b":", 1)[1]))

    def _go_on(self, port=None):
        if self.wire is not None:
            self.wire.close()
            self.wire = None
        if port is None:
            self.ports.append(self.ports.pop(0))
        else:
            self.ports.remove(port)
            self.ports.insert(0, port)


def failover(cluster, arguments):
    """Kills the leader's node again and again; prints how long clients waited."""
    key = cluster.key_on(0, "failover")
    redis_py = cluster.client()
    clients = {
        "bare client": Acknowledgements(AnyNode(cluster, key).write),
        "redis-py": Acknowledgements(lambda: redis_py.set(key, "x")),
    }
    for client in clients.values():
        client.start()
    waits = {name: [] for name in clients}
    for _ in range(arguments.kills):
        for client in clients.values():
            client.wait(0)
        leader = cluster.leader(0)
        killed = time.monotonic()
        leader.node.kill()
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda client: client.wait(killed), clients.values())
            for name, seconds in zip(clients, found):
                waits[name].append(seconds * 1000)
        cluster.heal()
    for client in clients.values():
        client.stop()
    for name, found in waits.items():
        found.sort()
        print(
            f"{name}: {len(found)} kills; to the next acknowledged write "
            f"p50 {statistics.median(found):.0f} ms, p99 {found[min(len(found) - 1, int(len(found) * 0.99))]:.0f} ms, longest {found[-1]:.0f} ms; "
            f"errors seen by the application: {clients[name].errors}"
        )


def rolling(cluster, arguments):
    """Restarts all nodes in turn under each client's load; prints the longest wait."""
    directory = cluster.directory
    kinds = {
        "redis-py": RedisPyLoad,
        "redis-rs": lambda cluster: redis_rs_load(cluster, directory),
        "node-redis": lambda cluster: node_redis_load(cluster, directory),
    }
    for make in (kinds[name] for name in arguments.clients.split(",")):
        for _ in range(arguments.rounds):
            for outcome in restart_all(cluster, [make(cluster)]):
                print(outcome, *outcome.errors[:3], sep="\n  ", flush=True)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("failover")
    command.add_argument("--kills", type=int, default=30)
    command.set_defaults(measure=failover)
    command = commands.add_parser("rolling")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--clients", default="redis-py,redis-rs,node-redis")
    command.set_defaults(measure=rolling)
    arguments = parser.parse_args()

    directory = Path(tempfile.mkdtemp(prefix="moonraft-measure-"))
    cluster = Cluster(moonraft.Node, directory)
    try:
        arguments.measure(cluster.start(), arguments)
    finally:
        for node in cluster.nodes:
            node.resume()
            if node.is_running():
                node.kill()
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
