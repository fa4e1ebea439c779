"""A cluster that docker-compose runs, and what a test may do to it.

On the host the client port of shard `s` of node `n` is `7001 + 100 (n - 1) + s`; in
the network it is `node<n>:6379 + s`.
"""

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

from redis.cluster import ClusterNode, RedisCluster

from harness.processes import eventually, run
from harness.recorder import Writer

REPOSITORY = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
PROJECT = "moonraft-test"
# A frozen node and one whose network is gone take connections and are silent:
# a client that minds has a limit of its own.
TIMEOUTS = {"socket_timeout": 2, "socket_connect_timeout": 2}
# The file allows a graceful stop 20 s.
STOP_SECONDS_MAX = 20


class Stack:
    """The containers of one compose file, under a project of their own."""

    def __init__(self, file, nodes, shards, network):
        self.file = REPOSITORY / "cluster-configs" / file
        self.nodes = [Node(self, number) for number in range(1, nodes + 1)]
        self.shards = shards
        self.network = network

    def __enter__(self):
        with contextlib.ExitStack() as undo:
            undo.callback(self.compose, "down", "--volumes", "--timeout", STOP_SECONDS_MAX)
            undo.push(self._tell_logs)
            self.up()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *failure):
        self._undo.__exit__(*failure)

    def _tell_logs(self, failure, *_):
        if failure:
            print(self.compose("logs", "--no-color", "--tail=60", check=False))

    def compose(self, *words, check=True):
        """A command of docker-compose."""
        project = ("--project-name", PROJECT, "--file", self.file)
        return run("docker-compose", *project, *words, check=check).stdout

    def up(self):
        """Starts what is not there, and waits until all are healthy."""
        self.compose("up", "--detach", "--no-build")
        return self.wait_until_healthy()

    def wait_until_healthy(self):
        """Waits for the health check of every container."""
        for node in self.nodes:
            eventually(node.is_healthy, within=60, what=f"{node.name} is healthy")
        return self

    def heal(self):
        """Undoes every fault."""
        for node in self.nodes:
            node.heal()
        for node in self.nodes:
            # The health check asks the same, every five seconds.
            eventually(node.answers_ready, within=60, what=f"GET /ready of {node.name} is 200")
        return self

    def client(self, node=1):
        """A cluster client on the host that is told one address of one node."""
        start = [ClusterNode(HOST, self.nodes[node - 1].port)]
        return RedisCluster(startup_nodes=start, decode_responses=True, **TIMEOUTS)

    def in_network(self, *words):
        """Words of `docker run` for a client's container."""
        options = ["--rm", "--interactive", "--network", self.network]
        return ["docker", "run", *options, "moonraft-test-client", *words]


class Node:
    """One container."""

    def __init__(self, stack, number):
        self.stack = stack
        self.number = number
        self.name = f"node{number}"
        self.port = 7001 + 100 * (number - 1)
        self._cut_off = False

    @property
    def container(self):
        """Its container's id; another one after `down` and `up`."""
        labels = {"project": PROJECT, "service": self.name}
        filters = [f"--filter=label=com.docker.compose.{key}={it}" for key, it in labels.items()]
        return run("docker", "ps", "--all", "--quiet", *filters).stdout.strip()

    def inspect(self):
        """All that Docker knows of it."""
        return json.loads(run("docker", "inspect", self.container).stdout)[0]

    def state(self):
        """`running`, `paused`, `exited`…"""
        return self.inspect()["State"]["Status"]

    def is_healthy(self):
        """Whether its health check says so."""
        state = self.inspect()["State"]
        return state["Status"] == "running" and state["Health"]["Status"] == "healthy"

    def answers_ready(self):
        """Whether `GET /ready` on its published port is a 200."""
        address = f"http://{HOST}:{8080 + self.number}/ready"
        with urllib.request.urlopen(address, timeout=2) as answer:
            return answer.status == 200

    # Faults

    def crash(self):
        """kill -9 of the process: Docker starts it again."""
        os.kill(self.inspect()["State"]["Pid"], signal.SIGKILL)

    def kill(self):
        """`docker kill`: it stays down."""
        run("docker", "kill", self.container)

    def stop(self):
        """`docker stop` as docker-compose does it."""
        self.stack.compose("stop", self.name)

    def restart(self):
        """Stop and start."""
        self.stack.compose("restart", self.name)

    def pause(self):
        """Freezes all its threads. Docker gives up on one that waits for the disk just then."""

        def pause():
            run("docker", "pause", self.container)
            return True

        eventually(pause, what=f"{self.name} is frozen")

    def cut_off(self):
        """Takes it out of the network, and so off the host's ports."""
        self._cut_off = True
        run("docker", "network", "disconnect", self.stack.network, self.container)

    def heal(self):
        """Undoes them."""
        if self._cut_off:
            self._cut_off = False
            # docker-compose gave it this alias; `connect` would leave it without.
            alias = ("--alias", self.name)
            run("docker", "network", "connect", *alias, self.stack.network, self.container)
        state = self.state()
        if state == "paused":
            run("docker", "unpause", self.container)
        elif state in ("exited", "created"):
            run("docker", "start", self.container)


class HostWriters:
    """Writers on the host, one an entry node; see `recorder`."""

    def __init__(self, stack):
        self.stack = stack
        self.writers = [
            Writer(stack.client(number), f"{{host-{number}}}", "w")
            for number in range(1, len(stack.nodes) + 1)
        ]

    def __enter__(self):
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_):
        for writer in self.writers:
            writer.stop()

    def counts(self):
        """Acknowledged writes, by writer."""
        return [writer.acknowledged for writer in self.writers]

    def finish(self):
        """Stops, and returns the acknowledged writes that a new client does not find."""
        self.__exit__()
        with self.stack.client() as client:
            return [key for writer in self.writers for key in writer.lost(client)]

    @property
    def errors(self):
        """What the application had to see."""
        return [str(error) for writer in self.writers for error in writer.errors]


class NetworkWriters:
    """The same in a container of the network: `inside.py`."""

    def __init__(self, stack):
        self.stack = stack
        self.told = {"counts": [0]}

    def __enter__(self):
        import redis  # the very library that the host's writers use

        library = Path(redis.__file__).parents[1]
        mounts = []
        for source, target in (
            (library, "/library"),
            (REPOSITORY / "tests/harness", "/tests/harness"),
            (REPOSITORY / "tests/compose", "/tests/compose"),
        ):
            mounts += ["--volume", f"{source}:{target}:ro"]
        words = self.stack.in_network("python3", "/tests/compose/inside.py", str(len(self.stack.nodes)))
        path = "PYTHONPATH=/library:/tests"
        words[2:2] = [*mounts, "--env", path, "--env", "PYTHONDONTWRITEBYTECODE=1"]
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
        return self

    def __exit__(self, *_):
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait(60)

    def ask(self, question):
        """One question, one answer: see `inside.py`."""
        self._child.stdin.write(question + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise AssertionError("the client in the network has ended")
        return json.loads(answer)

    def counts(self):
        """Acknowledged writes, by writer."""
        return self.ask("counts")

    def finish(self):
        """Stops, and returns the acknowledged writes that a new client does not find."""
        return self.ask("finish")

    @property
    def errors(self):
        """What the application had to see."""
        return self.ask("errors")


def wait_for_progress(*recorders, count=50, within=30):
    """Blocks until every writer has `count` more acknowledged writes."""
    goals = [[done + count for done in recorder.counts()] for recorder in recorders]

    def reached():
        for recorder, wanted in zip(recorders, goals):
            counts = recorder.counts()
            assert all(done >= goal for done, goal in zip(counts, wanted)), (counts, wanted)
        return True

    eventually(reached, within, f"{count} more writes by each writer")
