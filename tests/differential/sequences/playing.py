"""Plays a sequence on both servers, and finds the first difference: a reply, or what the keys hold in the end."""

import socket
from dataclasses import dataclass
from itertools import groupby

from sequences import replies_of, scripts, state

from harness.wire import WireError, request

# Nothing that is drawn takes long; a reply that is late is one that is missing.
REPLY_SECONDS_MAX = 5
MISSING = b"-<no reply>\r\n"
CLOSED = b"-<the connection was closed>\r\n"


@dataclass(frozen=True)
class Step:
    """One request of one of two connections."""

    words: tuple
    connection: str = "a"


@dataclass
class Difference:
    """Where two servers parted."""

    # Of the step, or how many steps there are: then the state differs.
    at: int
    row: str
    words: tuple
    expected: bytes
    found: bytes


class Channel:
    """A connection that reads many replies at once."""

    def __init__(self, port):
        self.port = port
        self._connect()

    def _connect(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=REPLY_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data, self.at = b"", 0

    def send(self, requests):
        """Sends all requests in one packet."""
        try:
            self.socket.sendall(b"".join(request(*words) for words in requests))
        except OSError:
            self._connect()

    def receive(self, count):
        """So many replies, each as its bytes."""
        found = []
        try:
            while len(found) < count:
                found.append(self._one())
        except (OSError, WireError) as error:
            what = MISSING if isinstance(error, TimeoutError) else CLOSED
            found += [what] * (count - len(found))
            self.close()
            self._connect()
        return found

    def _one(self):
        while (end := _end(self.data, self.at)) is None:
            more = self.socket.recv(1 << 18)
            if not more:
                raise WireError("closed")
            self.data, self.at = self.data[self.at :] + more, 0
        reply, self.at = self.data[self.at : end], end
        return reply

    def close(self):
        """Closes it."""
        self.socket.close()


def _end(data, at):
    """Where the reply at `at` ends; None if there is more to come."""
    left = 1
    while left:
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        kind = data[at]
        at_value, at, left = at + 1, line + 2, left - 1
        if kind in b"$=!":
            length = int(data[at_value:line])
            if length >= 0:
                at += length + 2
                if at > len(data):
                    return None
        elif kind in b"*~>":
            left += max(int(data[at_value:line]), 0)
        elif kind in b"%|":
            left += 2 * int(data[at_value:line]) + (kind == ord("|"))
    return at


class Stage:
    """Both servers, with the connections of a sequence."""

    def __init__(self, ports):
        self.channels = [{name: Channel(port) for name in "ab"} for port in ports]

    def close(self):
        """Closes all connections."""
        for channels in self.channels:
            for channel in channels.values():
                channel.close()

    def both(self, name, requests):
        """Replies of both servers to requests of one connection."""
        for channels in self.channels:
            channels[name].send(requests)
        return [channels[name].receive(len(requests)) for channels in self.channels]

    def reset(self, protocol, settings=()):
        """Nothing is left of what was played before."""
        begin = [(b"RESET",)] + [(b"HELLO", b"3")] * (protocol == 3)
        self.both("b", begin)
        wipe = [(b"FLUSHALL",), (b"SCRIPT", b"FLUSH"), (b"FUNCTION", b"FLUSH"), *settings]
        self.both("a", begin + wipe)

    def play(self, steps, protocol, reasons):
        """Plays it from nothing. Returns the first unexplained difference, or None, and how many were explained."""
        self.reset(protocol)
        queues, explained = {name: replies_of.Queue() for name in "ab"}, 0
        at = 0
        for name, together in groupby(steps, key=lambda step: step.connection):
            together = [step.words for step in together]
            for words, expected, found in zip(together, *self.both(name, together), strict=True):
                block = queues[name].hears(words, expected)
                if MISSING in (expected, found):
                    return Difference(at, "no reply", words, expected, found), explained
                if expected != found and not replies_of.equal(words, block, expected, found):
                    refused = queues[name].refused if replies_of.row(words) == "exec" else []
                    reason = reasons.explain(words, [*(block or ()), *refused], expected, found)
                    if reason is None:
                        return Difference(at, replies_of.row(words), words, expected, found), explained
                    explained += 1
                    if reason.ends:
                        return None, explained
                at += 1
        return self._state(len(steps), protocol, reasons), explained

    def _state(self, at, protocol, reasons):
        end = [(b"RESET",)] + [(b"HELLO", b"3")] * (protocol == 3)
        self.both("a", end)
        for questions in state.rounds():
            asked = questions(lambda requests: self.both("a", requests))
            for words, expected, found in asked:
                if MISSING in (expected, found):
                    return Difference(at, "no reply", words, expected, found), explained
                if expected != found and not replies_of.equal(words, None, expected, found):
                    if reasons.explain(words, None, expected, found) is None:
                        return Difference(at, f"state {replies_of.row(words)}", words, expected, found)
        return None
