"""What taking a snapshot costs, and a restart: one node, one shard, filled, written to, probed.

    tests/bench/snapshots.py BINARY [--gigabytes 1] [--elements 1000000] [--clients-on CPU] [--dir DIR]

Fills a node with keys of 16 bytes and values of 100, or with lists of so many of those, then waits for a snapshot that is taken while one
client writes at random and another asks for one key after the other, one request at a time. Prints the
longest answer with and without the snapshot, the growth of the process, the rate of the file, and how long
a restart takes until the first write is served. Standard library only.
"""

import argparse
import multiprocessing
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

PORT = 21700
VALUE = b"v" * 100
# The next snapshot is taken when the log has grown by so much; the fill itself writes more.
LOG_BYTES_MAX = 64 << 20


class Client:
    """A connection that speaks just enough."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, *requests):
        """Sends requests, and reads a line for each; a bulk string's second line too."""
        self.socket.sendall(b"".join(encode(request) for request in requests))
        replies = [self.file.readline() for _ in requests]
        for reply in replies:
            if reply[:1] not in (b"+", b":"):
                raise RuntimeError(f"the server answered {reply!r}")
        return replies


def encode(words):
    """A request."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def key(number):
    """A key of 16 bytes."""
    return b"key:%012d" % number


def memory(pid, name):
    """A line of /proc/PID/status, in bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) * 1024


class Server:
    """One node that is its own cluster."""

    def __init__(self, binary, directory):
        self.log = directory / "server.log"
        file = directory / "cluster.toml"
        file.write_text(
            f'name = "bench"\nshards = 1\nreplicas = 1\n[settings]\nlog-bytes-max = {LOG_BYTES_MAX}\n'
            f'[[node]]\nid = 1\nhost = "127.0.0.1"\nport = {PORT}\npeer-port = {PORT + 1}\nhttp-port = {PORT + 2}\n'
        )
        words = [binary, "server", "--cluster", file, "--node", "1", "--dir", directory / "data"]
        self.output = self.log.open("ab")
        self.process = subprocess.Popen(words, stdout=self.output, stderr=self.output)

    def wait_until_serving(self):
        """The time until a write is acknowledged."""
        while True:
            try:
                return Client().send((b"SET", b"served", b"v"))
            except (OSError, RuntimeError):
                if self.process.poll() is not None:
                    sys.exit(self.log.read_text())
                time.sleep(0.01)

    def lines(self, text):
        """Lines of its log with this text."""
        return [line for line in self.log.read_text().splitlines() if text in line]

    def kill(self):
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Strings:
    """`count` values, each a string."""

    def __init__(self, count):
        self.count = count

    def fill(self):
        """What makes them, in parts."""
        for first in range(0, self.count, 500):
            yield [(b"SET", key(n), VALUE) for n in range(first, min(first + 500, self.count))]

    def change(self):
        """What changes one of them."""
        return b"SET", key(random.randrange(self.count)), VALUE

    def ask(self):
        """What asks for one."""
        return b"STRLEN", key(1)


class Lists:
    """`count` values, in lists of `elements`."""

    def __init__(self, count, elements):
        self.elements, self.lists = elements, max(1, count // elements)

    def fill(self):
        """What makes them, in parts."""
        for first in range(0, self.lists * self.elements, 500):
            yield [(b"RPUSH", key(first // self.elements), *[VALUE] * 500)]

    def change(self):
        """What changes one of them, and lets it have as many as before."""
        return b"LSET", key(random.randrange(self.lists)), b"%d" % random.randrange(self.elements), VALUE

    def ask(self):
        """What asks for one."""
        return b"LLEN", key(0)


def write(stop, data, written):
    """Writes at random, some requests together, in a process of its own."""
    client = Client()
    while not stop.is_set():
        client.send(*(data.change() for _ in range(50)))
        written.value += 50


def under_load(data, until, limit=600):
    """Asks for one thing at a time under a load of writes until `until` says so; the answers' times, and writes."""
    stop, written = multiprocessing.Event(), multiprocessing.Value("q", 0)
    writer = multiprocessing.Process(target=write, args=(stop, data, written))
    writer.start()
    client, took, began = Client(), [], time.monotonic()
    look = began
    while True:
        before = time.monotonic()
        client.send(data.ask())
        after = time.monotonic()
        took.append(after - before)
        if after > look + 0.1:
            look = after
            if until() or after > began + limit:
                break
    stop.set()
    writer.join()
    return sorted(took), written.value


def tell(what, took, written, seconds):
    """A line about answers."""
    p99 = took[int(len(took) * 0.99)] * 1000
    print(f"{what}: longest {took[-1] * 1000:.1f} ms, p99 {p99:.2f} ms, {written / seconds:.0f} writes/s")


def main():
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--elements", type=int, help="lists of so many instead of strings, a multiple of 500")
    parser.add_argument("--clients-on", type=int, help="the processor that both clients share, as if on another machine")
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("bench-data"))
    options = parser.parse_args()
    directory = options.dir / f"snapshots-{os.getpid()}"
    directory.mkdir(parents=True)
    count = int(options.gigabytes * 1e9 / (16 + len(VALUE)))
    data = Lists(count, options.elements) if options.elements else Strings(count)
    everywhere = os.sched_getaffinity(0)
    server = Server(options.binary, directory)
    if options.clients_on is not None:
        os.sched_setaffinity(0, {options.clients_on})  # its children's, too
    try:
        server.wait_until_serving()
        client = Client()
        for requests in data.fill():
            client.send(*requests)
        print(f"{count} values, {options.gigabytes} GB; load average {os.getloadavg()[0]:.1f}")
        measure(server, data)
        server.kill()
        began = time.monotonic()
        os.sched_setaffinity(0, everywhere)  # the server's
        server = Server(options.binary, directory)
        server.wait_until_serving()
        print(f"restart: a write is served after {time.monotonic() - began:.2f} s")
    finally:
        server.kill()


def measure(server, data):
    """A while without a snapshot, and one with."""
    pid = server.process.pid
    idle_since = time.monotonic()
    seen = len(server.lines("snapshot written"))
    while time.monotonic() - idle_since < 5:  # snapshots of the fill end first
        if len(server.lines("snapshot written")) != seen:
            seen, idle_since = seen + 1, time.monotonic()
        time.sleep(0.1)
    end = time.monotonic() + 5
    took, written = under_load(data, lambda: time.monotonic() > end)
    tell("without a snapshot", took, written, 5)
    seen, resident = len(server.lines("snapshot written")), memory(pid, "VmRSS")
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak counts from here
    began = time.monotonic()
    took, written = under_load(data, lambda: len(server.lines("snapshot written")) > seen)
    tell("until the next snapshot was there", took, written, time.monotonic() - began)
    peak = memory(pid, "VmHWM")
    print(f"resident {resident / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB: {100 * (peak / resident - 1):.1f} % more")
    for text in ("snapshot taken", "snapshot written"):
        print(server.lines(text)[-1])


main()
