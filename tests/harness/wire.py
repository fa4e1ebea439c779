"""Requests and replies as bytes, and what replies say.

The one reader of RESP of the suites and measurements: [`Wire.receive`] gives a reply as the bytes it came in,
[`Wire.value`] as what it says. It takes nothing on trust that a client library would.
"""

import contextlib
import io
import select
import socket

# Longer than any election, shorter than a test.
REPLY_SECONDS_MAX = 30

# What is sent at a time to a peer that may not take it.
OFFER_BYTES = 1 << 20

# Kinds of replies that are a line.
LINES = b"+-:_#,("


def request(*words):
    """The bytes of one request: an array of bulk strings."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


class WireError(Exception):
    """The peer closed the connection, or sent what is not RESP."""


class ReplyError(Exception):
    """The server answered with an error."""


def read_parts(stream, parts):
    """Appends the lines and texts of one whole reply."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise WireError(f"the connection ended after {line!r}")
    parts.append(line)
    kind = line[:1]
    if kind in LINES:
        return
    count = int(line[1:-2])
    if kind in b"$=!":
        if count >= 0:
            text = stream.read(count + 2)
            if len(text) < count + 2:
                raise WireError("the connection ended inside a reply")
            parts.append(text)
        return
    if kind not in b"*~>%|":
        raise WireError(f"not a reply: {line!r}")
    # Attributes come before the reply they describe.
    for _ in range(max(count, 0) * (2 if kind in b"%|" else 1) + (kind == b"|")):
        read_parts(stream, parts)


def tree(parts):
    """The reply that an iterator over its parts holds, as (kind, payload); a map is a list of pairs."""
    line = next(parts)
    kind, rest = line[:1], line[1:-2]
    if kind in LINES:
        return kind, rest
    count = int(rest)
    if count < 0:
        return b"_", b""
    if kind in b"$=!":
        return kind, next(parts)[:-2]
    if kind == b"|":
        for _ in range(2 * count):
            tree(parts)
        return tree(parts)
    if kind == b"%":
        return kind, [(b"pair", [tree(parts), tree(parts)]) for _ in range(count)]
    return kind, [tree(parts) for _ in range(count)]


def trees(data):
    """All replies that these bytes are."""
    stream, found = io.BytesIO(data), []
    while stream.tell() < len(data):
        parts = []
        read_parts(stream, parts)
        found.append(tree(iter(parts)))
    return found


def value_of(reply):
    """What a reply says: bytes, a number, a list, or None. An error is raised."""
    kind, payload = reply
    if isinstance(payload, list):
        return [value_of(item) for item in payload]
    if kind in b"-!":
        raise ReplyError(payload.decode(errors="replace"))
    if kind == b":":
        return int(payload)
    return None if kind == b"_" else payload


class Wire:
    """One connection, no cleverness: requests out, replies in."""

    def __init__(self, port, host="127.0.0.1", within=REPLY_SECONDS_MAX):
        self._within = within
        self._socket = socket.create_connection((host, port), timeout=within)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes the connection."""
        self._stream.close()
        self._socket.close()

    def send(self, *words):
        """Sends one request."""
        self.send_raw(request(*words))

    def send_raw(self, data):
        """Sends bytes as they are."""
        self._socket.sendall(data)

    def end(self):
        """Sends no more: the server sees the end of what came."""
        self._socket.shutdown(socket.SHUT_WR)

    def offer(self, data, patience=1.0):
        """Sends until the peer has taken nothing for so many seconds. How much it took."""
        sent = 0
        self._socket.settimeout(patience)
        try:
            while sent < len(data):
                sent += self._socket.send(data[sent : sent + OFFER_BYTES])
        except OSError:  # it takes no more, or is gone
            pass
        self._socket.settimeout(self._within)
        return sent

    def is_readable(self, within=0.0):
        """Whether bytes come within so many seconds; none has been read and left before."""
        return bool(select.select([self._socket], [], [], within)[0])

    def receive(self):
        """One whole reply, as the bytes it came in."""
        parts = []
        read_parts(self._stream, parts)
        return b"".join(parts)

    def receive_all(self):
        """All bytes until the server closes, whatever they are; also if it leaves something unread."""
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := self._stream.read1(OFFER_BYTES):
                parts.append(part)
        return b"".join(parts)

    def value(self):
        """One whole reply, as what it says."""
        parts = []
        read_parts(self._stream, parts)
        return value_of(tree(iter(parts)))

    def ask(self, *words):
        """Sends one request and returns its raw reply."""
        self.send(*words)
        return self.receive()

    def query(self, *words):
        """Sends one request and returns what its reply says."""
        self.send(*words)
        return self.value()

    def query_all(self, requests):
        """Sends requests in a row, and returns what their replies say."""
        self.send_raw(b"".join(request(*words) for words in requests))
        return [self.value() for _ in requests]
