"""What taking a snapshot costs, and a restart: one node, one shard, filled, written to, probed.

    tests/bench/snapshots.py BINARY [--gigabytes 1] [--snapshots 1] [--writes-per-second N] [--elements 1000000]
                                    [--clients-on CPU] [--dir DIR]

Fills a node with keys of 16 bytes and values of 100, or with lists of so many of those, then waits for snapshots that are taken while one
client writes at random and another asks for one key after the other, one request at a time. Prints the
longest answer with and without the snapshot, the longest step of the shard for it, the growth of the process, and how long
a restart takes until the first write is served. Standard library only.

On each processor a process of the highest priority, which does nothing but wake up, notes when it woke too late: then no program
ran on that processor, whether the host held it up or the system did, perhaps for a call of the server's own. Steps beyond the limit
that fall into such a moment are told apart; that does not show who is to blame. It needs root.
"""

import argparse
import datetime
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
# Who wakes up so much too late, at the highest priority, was held up by the system or its host.
LATE_MS = 1.0
# A step of the shard is to take no longer.
STEP_MS_MAX = 5.0


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
        plain = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text())
        return [line for line in plain.splitlines() if text in line]

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


class Machine:
    """Watches each processor: when did the machine itself stand still, and for how long?"""

    def __init__(self):
        self.stop, self.watches = multiprocessing.Event(), []
        for cpu in sorted(os.sched_getaffinity(0)):
            receiver, sender = multiprocessing.Pipe(False)
            process = multiprocessing.Process(target=self.watch, args=(cpu, sender))
            process.start()
            self.watches.append((process, receiver))

    def watch(self, cpu, sender):
        """Notes each time at which it woke up late: when, and how much."""
        os.sched_setaffinity(0, {cpu})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        late = []
        while not self.stop.is_set():
            for _ in range(1000):
                before = time.monotonic()
                time.sleep(0.0005)
                took = (time.monotonic() - before) * 1000 - 0.5
                if took > LATE_MS:
                    late.append((time.time(), took))
        sender.send(late)

    def held_up(self):
        """Ends the watch: all these moments, in order."""
        self.stop.set()
        moments = sorted(moment for _, receiver in self.watches for moment in receiver.recv())
        for process, _ in self.watches:
            process.join()
        return moments


def write(stop, data, written, rate):
    """Writes at random, some requests together, in a process of its own; no more than `rate` a second, if that is given."""
    client, began = Client(), time.monotonic()
    while not stop.is_set():
        client.send(*(data.change() for _ in range(50)))
        written.value += 50
        if rate:
            time.sleep(max(0.0, began + written.value / rate - time.monotonic()))


def under_load(data, until, rate, limit=600):
    """Asks for one thing at a time under a load of writes until `until` says so; the answers' times, and writes."""
    stop, written = multiprocessing.Event(), multiprocessing.Value("q", 0)
    writer = multiprocessing.Process(target=write, args=(stop, data, written, rate))
    writer.start()
    client, took, began = Client(), [], time.monotonic()
    look = began
    while True:
        before = time.monotonic()
        client.send(data.ask())
        after = time.monotonic()
        took.append(after - before)
        if rate:
            time.sleep(0.0005)
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
    parser.add_argument("--snapshots", type=int, default=1, help="how many are measured")
    parser.add_argument("--writes-per-second", type=int, help="of the client that writes; else as many as can be, and so of who asks")
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
        measure(server, data, options)
        server.kill()
        began = time.monotonic()
        os.sched_setaffinity(0, everywhere)  # the server's
        server = Server(options.binary, directory)
        server.wait_until_serving()
        print(f"restart: a write is served after {time.monotonic() - began:.2f} s")
    finally:
        server.kill()


def measure(server, data, options):
    """A while without a snapshot, and some with."""
    rate = options.writes_per_second
    idle_since = time.monotonic()
    seen = len(server.lines("snapshot written"))
    while time.monotonic() - idle_since < 5:  # snapshots of the fill end first
        if len(server.lines("snapshot written")) != seen:
            seen, idle_since = seen + 1, time.monotonic()
        time.sleep(0.1)
    end = time.monotonic() + 5
    took, written = under_load(data, lambda: time.monotonic() > end, rate)
    tell("without a snapshot", took, written, 5)
    for _ in range(options.snapshots):
        measure_snapshot(server, data, rate)


def measure_snapshot(server, data, rate):
    """What one snapshot costs. It may have begun before, as soon as the log was long enough."""
    pid = server.process.pid
    seen, told = len(server.lines("snapshot written")), len(server.lines("was long"))
    resident = memory(pid, "VmRSS")
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak counts from here
    machine = Machine() if os.geteuid() == 0 else None
    began = time.monotonic()
    took, written = under_load(data, lambda: len(server.lines("snapshot written")) > seen, rate)
    held_up = machine.held_up() if machine else []
    tell("until the next snapshot was there", took, written, time.monotonic() - began)
    peak = memory(pid, "VmHWM")
    print(f"  resident {resident / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB: {100 * (peak / resident - 1):.1f} % more")
    line = server.lines("snapshot taken")[-1]
    size = int(field(server.lines("snapshot written")[-1], "bytes"))
    longest, worked = (int(field(line, name)) / 1000 for name in ("longest_step_us", "worked_us"))
    print(f"  {size / 1e9:.2f} GB written, longest step {longest:.1f} ms, of which {worked:.1f} on a processor")
    if machine:
        most = max((late for _, late in held_up), default=0.0)
        print(f"  the machine stood still {len(held_up)} times for more than {LATE_MS:.0f} ms, at most {most:.1f} ms")
    for line in server.lines("was long")[told:]:
        explain(line, held_up)


def explain(line, held_up):
    """A step beyond the limit: how much of it the machine stood still."""
    took = int(field(line, "took_us")) / 1000
    end = datetime.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()
    overlaps = (min(end, at) - max(end - took / 1000, at - late / 1000) for at, late in held_up)
    still = max((overlap * 1000 for overlap in overlaps), default=0.0)
    rest = took - max(still, 0.0)
    verdict = "in a hold-up" if rest <= STEP_MS_MAX else "outside of any"
    print(f"  a step of {took:.1f} ms, in which the machine stood still for {max(still, 0.0):.1f}: {verdict}")


def field(line, name):
    """A field of a line of the server's log."""
    return re.search(rf"{name}=(\S+)", line)[1]


main()
