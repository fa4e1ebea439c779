"""What the sweeps share: every command of the table, its shortest request, connections in pairs."""

import contextlib

import corpus
import replies

from harness.wire import Wire, WireError

REPLY_SECONDS_MAX = 10

# Rows that 7.0 does not know: of Redis 7.2, 7.4, 8.0 and 8.4, and of Valkey 9.
NEWER = (
    "client|no-touch",
    "client|setinfo",
    "cluster|myshardid",
    "delex",
    "delifeq",
    "digest",
    "hexpire",
    "hexpireat",
    "hexpiretime",
    "hgetdel",
    "hgetex",
    "hpersist",
    "hpexpire",
    "hpexpireat",
    "hpexpiretime",
    "hpttl",
    "hsetex",
    "httl",
    "msetex",
    "waitaof",
)

# Words of DEBUG that end redis-server.
ENDING = (
    "debug|assert",
    "debug|crash-and-recover",
    "debug|loadaof",
    "debug|oom",
    "debug|panic",
    "debug|restart",
    "debug|segfault",
)

# What is compared when the server closed the connection.
CLOSED = b"<the connection was closed>"
# A request nobody knows: its answer ends the answers to those before it.
END = b"THE-END"


class Row:
    """A command or subcommand, as the server under test lists it."""

    def __init__(self, name, arity, flags):
        self.name = name
        self.arity = arity
        self.flags = flags

    def request(self, filler, further=0):
        """Its shortest request, all words behind its name being `filler`; longer or shorter by `further`."""
        words = self.name.split("|")
        count = abs(self.arity) + further
        return (words + [filler] * count)[:count]

    def wrong_request(self, filler):
        """A request with a word too few; with one too many if it has no more words than its name."""
        names = self.name.count("|") + 1
        is_bare = abs(self.arity) == names
        if is_bare and self.arity < 0:
            return None
        return self.request(filler, 1 if is_bare else -1)


def rows(port):
    """All rows of the server at this port, subcommands included."""
    with Wire(port) as wire:
        listed = replies.plain(wire.query("COMMAND"))
    found = []
    for entry in listed:
        for name, arity, flags, *_ in [entry, *entry[9]]:
            found.append(Row(name, arity, flags))
    return sorted(found, key=lambda row: row.name)


class Pair:
    """The same connection to both servers: what is sent to one is sent to the other."""

    def __init__(self, ports):
        self.wires = [Wire(port, within=REPLY_SECONDS_MAX) for port in ports]

    def ask(self, *words):
        """One request with one reply; both replies."""
        self.send(words)
        return [wire.receive() for wire in self.wires]

    def send(self, *requests):
        """Sends requests, and reads nothing."""
        for wire in self.wires:
            # Who has been closed finds out when it reads.
            with contextlib.suppress(OSError):
                for words in requests:
                    wire.send(*words)

    def send_each(self, *requests):
        """Sends each server its own request, and reads nothing."""
        for wire, words in zip(self.wires, requests, strict=True):
            wire.send(*words)

    def until_end(self):
        """All replies up to that to `END`, which was sent; of both servers."""
        return [_until_end(wire) for wire in self.wires]

    def close(self):
        """Closes both."""
        for wire in self.wires:
            wire.close()


def _until_end(wire):
    found = b""
    try:
        while END not in (reply := wire.receive()):
            found += reply
    except (WireError, OSError):
        found += CLOSED
    return found


def question(sweep, text, compare="exact", difference=None):
    """A line of a report, as the comparison wants it."""
    return corpus.Request(
        place=sweep,
        text=text,
        connection="main",
        compare=compare,
        words=(),
        raw=b"",
        replies=1,
        difference=difference,
    )


def shown(words):
    """A request as text."""
    return " ".join(word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in words)
