"""Sends the corpus to Redis and to Moonraft, and compares every reply.

Both are one node that owns all slots. Every file is run in RESP2 and in RESP3.
"""

import argparse
import functools
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
import blocking
import busy
import corpus
import monitor
import pause
import payloads
import replies
from sequences import running as sequences
from sweeps import (
    cases,
    drawn,
    events,
    facts,
    libraries,
    number_forms,
    script_ends,
    tracking,
    watched,
    wrong_requests,
)

from harness import moonraft, rival
from harness.cluster import Cluster
from harness.wire import Wire, WireError

MODULES = (number_forms, wrong_requests, watched, libraries, script_ends, facts)
SWEEPS = {module.__name__.split(".")[1]: module for module in MODULES}

# Redis is started so, too.
MOONRAFT = functools.partial(moonraft.Node, settings={"enable-debug-command": '"yes"'})

# No request of the corpus takes long; a reply that is late is a reply that is missing.
REPLY_SECONDS_MAX = 10

# What is compared when the server closed the connection instead of replying.
CLOSED = b"<the connection was closed>"
MISSING = b"<no reply>"

# All rows of the table in a situation of the server, several clients in one, and what is carried between both.
SITUATIONS = {
    "busy": busy,
    "monitor": monitor,
    "pause": pause,
    "blocking": blocking,
    "events": events,
    "tracking": tracking,
    "sequences": sequences,
    "payloads": payloads,
}


class Target:
    """One server under comparison, as one file sees it."""

    def __init__(self, port, protocol):
        self.port = port
        self.protocol = protocol
        self.wires = {}

    def reset(self):
        """An empty keyspace, no scripts, no functions."""
        with Wire(self.port) as wire:
            for words in (["FLUSHALL"], ["SCRIPT", "FLUSH"], ["FUNCTION", "FLUSH"]):
                answer = wire.ask(*words)
                assert answer == b"+OK\r\n", f"{words} on port {self.port}: {answer}"

    def send(self, request):
        """All replies to a request, one after the other."""
        wire = self._wire(request.connection)
        try:
            if request.words:
                wire.send(*request.words)
            elif request.raw:
                wire.send_raw(request.raw)
            return b"".join(wire.receive() for _ in range(request.replies))
        except TimeoutError:
            return MISSING
        except (WireError, OSError):
            return CLOSED

    def _wire(self, name):
        if name not in self.wires:
            wire = Wire(self.port, within=REPLY_SECONDS_MAX)
            if self.protocol == 3:
                assert wire.ask("HELLO", "3")[:1] == b"%"
            self.wires[name] = wire
        return self.wires[name]

    def close(self):
        """Closes all connections."""
        for wire in self.wires.values():
            wire.close()


class Comparison:
    """Counts, and what differed."""

    def __init__(self, is_self_check):
        self.is_self_check = is_self_check
        self.requests = 0
        self.known_differences = []
        self.failures = []

    def compare(self, request, protocol, expected, found):
        """Takes the replies to one request."""
        self.requests += 1
        if expected == MISSING:
            # Redis answers everything; the line counts its replies wrongly.
            self._fail(request, protocol, "waits in vain", expected, found)
            return
        is_equal = replies.equal(request.compare, expected, found)
        if request.difference and not self.is_self_check:
            if is_equal:
                self._fail(
                    request, protocol, f"no longer differs ({request.difference})", expected, found
                )
            else:
                self.known_differences.append(f"{request.text}: {request.difference}")
        elif not is_equal:
            self._fail(request, protocol, "differs", expected, found)

    def _fail(self, request, protocol, what, expected, found):
        self.failures.append(
            f"{request.place} RESP{protocol} {what}: {request.text}\n"
            f"    redis    {replies.shorten(expected)}\n    moonraft {replies.shorten(found)}"
        )


def run_file(requests, protocol, redis_port, other_port, comparison):
    """One file in one protocol on both servers."""
    redis_target, other = Target(redis_port, protocol), Target(other_port, protocol)
    try:
        for target in (redis_target, other):
            target.reset()
        for request in requests:
            expected, found = redis_target.send(request), other.send(request)
            comparison.compare(request, protocol, expected, found)
            if MISSING in (expected, found):
                break  # what follows would be compared with the wrong reply
    finally:
        redis_target.close()
        other.close()


def run_sweep(name, redis_port, other_port, is_self_check):
    """One sweep on both servers. Returns what differed unexpectedly."""
    for port in (redis_port, other_port):
        Target(port, protocol=2).reset()
    commands, others = drawn.Commands(redis_port), drawn.Commands(other_port)
    sweep = SWEEPS[name].sweep(commands, set(commands.facts) & set(others.facts))
    began = time.monotonic()
    requests, failures, known = cases.run(sweep, redis_port, other_port, is_self_check)
    if SWEEPS[name] is facts and not is_self_check:
        with Wire(redis_port) as redis_wire, Wire(other_port) as other_wire:
            for compare in (facts.compare, facts.compare_settings, facts.compare_counts):
                count, wrong = compare(redis_wire, other_wire)
                requests, failures = requests + count, failures + wrong
    print(
        f"{name}: {len(sweep.cases)} cases, {requests} requests in {time.monotonic() - began:.1f} s, "
        f"{len(failures)} differ unexpectedly, {known} replies as documented"
    )
    return failures


def main():
    """Starts both servers, runs the files, and tells what differed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    names = "files of the corpus, or sweeps without their ending; all of them by default"
    arguments.add_argument("files", nargs="*", help=names)
    arguments.add_argument(
        "--keep-going", action="store_true", help="print all differences, not 50"
    )
    arguments.add_argument("--seed", default=sequences.SEED, help="of drawn sequences")
    arguments.add_argument(
        "--commands", type=int, default=sequences.COMMANDS, help="how many sequences draw"
    )
    arguments.add_argument("--number", type=int, help="only the sequence with this number")
    options = arguments.parse_args()

    is_self_check = os.environ.get("MOONRAFT_RIVAL") == "redis"
    sweeps = [name for name in options.files if name in SWEEPS]
    situations = [name for name in options.files if name in SITUATIONS]
    paths = [HERE / "corpus" / Path(name).name for name in options.files if name.endswith(".txt")]
    if not options.files:
        sweeps, situations = list(SWEEPS), list(SITUATIONS)
        paths = sorted((HERE / "corpus").glob("*.txt"))
    files = {path.name: corpus.read(path) for path in paths}
    comparison = Comparison(is_self_check)

    with tempfile.TemporaryDirectory(prefix="moonraft-differential-") as directory:
        clusters = []
        for name, kind in [("redis", rival.Node), ("other", rival.Node if is_self_check else MOONRAFT)]:
            home = Path(directory, name)
            home.mkdir()
            clusters.append(Cluster(kind, home, nodes=1, shards=1))
        try:
            ports = [cluster.start().replicas[0].port for cluster in clusters]
            for requests in files.values():
                for protocol in (2, 3):
                    run_file(requests, protocol, *ports, comparison)
            for name in sweeps:
                comparison.failures += run_sweep(name, *ports, is_self_check)
            for name in situations:
                how = (options.seed, options.commands, options.number)
                SITUATIONS[name].sweep(ports, comparison, *(how if name == "sequences" else ()))
        finally:
            for cluster in clusters:
                if cluster.nodes[0].is_running():
                    cluster.kill()

    shown = comparison.failures if options.keep_going else comparison.failures[:50]
    print("\n".join(shown))
    lines = sum(len(requests) for requests in files.values())
    print(
        f"{lines} requests in {len(files)} files, {comparison.requests} replies compared: "
        f"{len(comparison.failures)} differ unexpectedly, "
        f"{len(comparison.known_differences)} as documented"
    )
    return 1 if comparison.failures else 0


if __name__ == "__main__":
    sys.exit(main())
