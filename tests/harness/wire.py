"""Requests and replies as bytes, for tests that must see them bare."""

import select
import socket

# Longer than any election, shorter than a test.
REPLY_SECONDS_MAX = 30

# What is sent at a time to a peer that may not take it.
OFFER_BYTES = 1 << 20


def request(*words):
    """The bytes of one request: an array of bulk strings."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


class WireError(Exception):
    """The peer closed the connection, or sent what is not RESP."""


class Wire:
    """One connection, no cleverness: requests out, raw replies in."""

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

    def ask(self, *words):
        """Sends one request and returns its raw reply."""
        self.send(*words)
        return self.receive()

    def is_readable(self, within=0.0):
        """Whether bytes come within so many seconds; none has been read and left before."""
        return bool(select.select([self._socket], [], [], within)[0])

    def receive(self):
        """One whole reply, as the bytes it came in."""
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise WireError(f"the connection ended after {line!r}")
        kind = line[:1]
        if kind in b"+-:_#,(":
            return line
        count = int(line[1:-2])
        if kind in b"$=!":
            return line if count < 0 else line + self._read(count + 2)
        if kind in b"*~>":
            return line + b"".join(self.receive() for _ in range(max(count, 0)))
        if kind == b"%":
            return line + b"".join(self.receive() for _ in range(2 * count))
        if kind == b"|":  # attributes come before the reply they describe
            return line + b"".join(self.receive() for _ in range(2 * count + 1))
        raise WireError(f"not a reply: {line!r}")

    def _read(self, count):
        data = self._stream.read(count)
        if len(data) < count:
            raise WireError("the connection ended inside a reply")
        return data
