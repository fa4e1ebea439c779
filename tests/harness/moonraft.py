"""A Moonraft node: one `moonraft server` process."""

import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from harness.processes import Process, eventually, is_free

REPOSITORY = Path(__file__).resolve().parents[2]
# Ports of one node: see `Ports`.
PORTS_PER_NODE = 12


@dataclass(frozen=True)
class Ports:
    """The ports of one node: one for clients a shard, then peers, then HTTP."""

    clients: tuple
    peer: int
    http: int

    @staticmethod
    def of_node(first, shards):
        """The ports of a node whose block starts at `first`."""
        return Ports(tuple(range(first, first + shards)), first + 10, first + 11)


def binary():
    """The `moonraft` under test; `tests/scenarios/run` says where it is."""
    path = Path(os.environ.get("MOONRAFT_BINARY", REPOSITORY / "target/release/moonraft"))
    if not path.is_file():
        raise AssertionError(
            f"there is no server at {path}: run `cargo build --release`, or set MOONRAFT_BINARY"
        )
    return path


def cluster_file(ports, shards, settings=None):
    """The text of a cluster file; `ports` has one entry a node."""
    lines = ['name = "scenarios"', f"shards = {shards}", f"replicas = {len(ports)}"]
    if settings:
        lines += ["", "[settings]", *(f"{name} = {value}" for name, value in settings.items())]
    for number, node in enumerate(ports, start=1):
        lines += [
            "",
            "[[node]]",
            f"id = {number}",
            'host = "127.0.0.1"',
            f"port = {node.clients[0]}",
            f"peer-port = {node.peer}",
            f"http-port = {node.http}",
        ]
    return "\n".join(lines) + "\n"


class Node:
    """One machine of a Moonraft cluster."""

    def __init__(self, number, ports, shards, directory, settings=None, program=None):
        self.number = number
        self.program = program
        self.ports = ports[number - 1]
        self.directory = directory / f"node-{number}"
        self.file = directory / "cluster.toml"
        self.file.write_text(cluster_file(ports, shards, settings))
        # A test may set these before a start.
        self.arguments = []
        self.environment = {}
        self.wrapper = []
        self.process = None

    def launch(self):
        """Starts the process if it is not running."""
        if self.is_running():
            return
        words = [*self.wrapper, self.program or binary(), "server", "--cluster", self.file, "--node", self.number]
        words += ["--dir", self.directory, *self.arguments]
        log = self.log_path()
        self.process = Process(words, log, environment=self.environment)

    def log_path(self):
        """Where its output is kept."""
        return self.file.parent / f"node-{self.number}.log"

    def wait_until_ready(self):
        """Ready is what the node itself says, on its output and over HTTP."""
        self.process.wait_for_line("ready:")
        eventually(self.answers_ready, within=30, what=f"GET /ready of node {self.number} is 200")

    def answers_ready(self):
        """Whether `GET /ready` is a 200."""
        address = f"http://127.0.0.1:{self.ports.http}/ready"
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200

    def page(self, path):
        """Status and text of a page of the HTTP port."""
        address = f"http://127.0.0.1:{self.ports.http}{path}"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self, name):
        """The samples of a metric, by their labels."""
        _, text = self.page("/metrics")
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name))
        return {labels[len(name) :]: float(value) for labels, value in samples}

    def members(self, shard):
        """Who belongs to a shard, as this node knows: (node, incarnation, role)."""
        found = set()
        for labels in self.metrics("moonraft_raft_member"):
            of = dict(re.findall(r'(\w+)="(\w+)"', labels))
            if of["shard"] == str(shard):
                found.add((int(of["node"]), int(of["incarnation"]), of["role"]))
        return found

    def lead_home(self):
        """Leadership goes home by itself."""

    def is_running(self):
        """Whether the process is there."""
        return self.process is not None and self.process.is_running()

    def kill(self):
        """kill -9."""
        self.process.kill()

    def pause(self):
        """SIGSTOP."""
        self.process.pause()

    def resume(self):
        """SIGCONT."""
        if self.process is not None:
            self.process.resume()

    def stop(self):
        """SIGTERM; a clean end is exit code 0."""
        if self.is_running():
            code = self.process.stop()
            assert code == 0, f"node {self.number} ended with {code}\n{self.process.output()}"


def dev_ports(nodes, shards):
    """A port for `dev --port`: node i's shard s is at port + 100 * (i - 1) + s."""

    def are_free(first):
        wanted = [first + 100 * node + shard for node in range(nodes) for shard in range(shards)]
        wanted += [
            first + 100 * node + offset for node in range(nodes) for offset in (10000, 20000)
        ]
        return all(is_free(port) for port in wanted)

    # Peer and HTTP ports are 10000 and 20000 above, and all of them below 32768.
    # Below are those of the compose files, which may be tested at the same time.
    return next(first for first in range(9001 + os.getpid() % 1000, 12000, 7) if are_free(first))


class Dev:
    """A cluster of `moonraft dev`: in one process, while the context lasts."""

    def __init__(self, directory, nodes, shards, arguments=(), program=None):
        directory.mkdir(parents=True, exist_ok=True)
        self.port = dev_ports(nodes, shards)
        words = [program or binary(), "dev", "--nodes", nodes, "--shards", shards, "--port", self.port, *arguments]
        self.process = Process([*words, "--dir", directory / "data"], directory / "dev.log")

    def __enter__(self):
        self.process.wait_for_line("ready:")
        return self

    def __exit__(self, *_):
        code = self.process.stop()
        assert code == 0, f"it ended with {code}\n{self.process.output()}"
