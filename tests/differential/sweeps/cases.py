"""A case of a sweep, and how it is compared."""

import re
from dataclasses import dataclass, field
from itertools import groupby

import replies

from harness.processes import eventually
from harness.wire import Wire, request

# Cases that are sent in one packet: a round trip each would take most of the time.
CASES_AT_ONCE = 40


@dataclass(frozen=True)
class Step:
    """One request, of one connection; `compare` as in the corpus, or `nothing`."""

    words: tuple
    connection: str = "main"
    compare: str = "exact"
    # It is asked again until this is the reply.
    until: bytes = None


@dataclass
class Case:
    """Requests that belong together; what differs is told by its text."""

    text: str
    steps: list

    @property
    def is_of_one_connection(self):
        """Whether its requests may share a packet."""
        return all(step.connection == "main" and not step.until for step in self.steps)


@dataclass
class Reason:
    """Why the replies to some cases may differ: those whose text `pattern` matches, and `replies` theirs.

    They must be alike in the way that `compare` says. A reason that no case needs is a failure, unless they
    differ by chance.
    """

    pattern: str
    why: str
    replies: str = ""
    compare: str = "nothing"
    by_chance: bool = False
    used: int = 0

    def explains(self, case, expected, found):
        """Whether it says why these replies differ."""
        both = f"{replies.shorten(expected)} {replies.shorten(found)}"
        if not re.search(self.pattern, case.text) or not re.search(self.replies, both):
            return False
        return self.compare == "nothing" or replies.equal(self.compare, expected, found)


@dataclass
class Sweep:
    """A sweep's cases, and what may differ."""

    name: str
    cases: list
    reasons: list = field(default_factory=list)


class Connections:
    """Connections to one server, made when first named."""

    def __init__(self, port):
        self.port = port
        self.wires = {}

    def wire(self, name):
        """The connection of this name."""
        if name not in self.wires:
            self.wires[name] = Wire(self.port, within=20)
        return self.wires[name]

    def close(self):
        """Closes all of them."""
        for wire in self.wires.values():
            wire.close()


def run(sweep, redis_port, other_port, is_self_check=False):
    """Runs a sweep on both servers. Returns how many requests, what differs, and how often it may."""
    servers = [Connections(redis_port), Connections(other_port)]
    failures, known, requests = [], 0, 0
    try:
        for batch in _batches(sweep.cases):
            for case in batch:
                if case.is_of_one_connection:
                    _send(servers, case)
            for case in batch:
                expected, found = [_receive(server, case) for server in servers]
                requests += len(case.steps)
                for step, one, other in zip(case.steps, expected, found):
                    if step.compare == "nothing" or replies.equal(step.compare, one, other):
                        continue
                    if _is_known(sweep, case, one, other):
                        known += 1
                        continue
                    failures.append(_told(sweep, case, step, one, other))
                    break
    finally:
        for server in servers:
            server.close()
    for reason in sweep.reasons:
        if not reason.used and not reason.by_chance and not is_self_check:
            failures.append(f"{sweep.name}: nothing differs any more ({reason.why})")
    return requests, failures, known


def _batches(cases):
    """Cases in packets; one with several connections goes alone."""
    batch = []
    for case in cases:
        if batch and (len(batch) == CASES_AT_ONCE or not case.is_of_one_connection):
            yield batch
            batch = []
        batch.append(case)
        if not case.is_of_one_connection:
            yield batch
            batch = []
    if batch:
        yield batch


def _send(servers, case):
    packet = b"".join(request(*step.words) for step in case.steps)
    for server in servers:
        server.wire("main").send_raw(packet)


def _receive(server, case):
    if case.is_of_one_connection:
        return [server.wire("main").receive() for _ in case.steps]
    received = []
    # What one connection asks in a row is one packet.
    for (name, until), steps in groupby(case.steps, key=lambda step: (step.connection, step.until)):
        wire, steps = server.wire(name), list(steps)
        if until:
            received += [_ask_until(wire, step) for step in steps]
        else:
            wire.send_raw(b"".join(request(*step.words) for step in steps))
            received += [wire.receive() for _ in steps]
    return received


def _ask_until(wire, step):
    return eventually(lambda: wire.ask(*step.words) == step.until and step.until, what=str(step.words))


def _is_known(sweep, case, expected, found):
    for reason in sweep.reasons:
        if reason.explains(case, expected, found):
            reason.used += 1
            return True
    return False


def _told(sweep, case, step, expected, found):
    shown = " ".join(repr(word)[1:] if isinstance(word, bytes) else str(word) for word in step.words)
    which = "" if len(case.steps) == 1 else f"\n    at       {shown}"
    return (
        f"{sweep.name} differs: {case.text}{which}\n"
        f"    redis    {replies.shorten(expected)}\n    moonraft {replies.shorten(found)}"
    )
