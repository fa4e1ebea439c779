#!/usr/bin/env python3
"""What taking a snapshot costs, and a restart: one node, one shard, filled, written to, probed.

    tests/bench/snapshots.py BINARY [--gigabytes 1] [--snapshots 1] [--writes-per-second N] [--elements 1000000]
                                    [--clients-on CPU] [--dir DIR]

Fills a node with keys of 16 bytes and values of 100, or with lists of so many of those, then waits for snapshots that are taken while one
client writes at random and another asks for one key after the other, one request at a time. Prints the
longest answer with and without the snapshot, the longest step of the shard for it, the growth of the process, and how long
a restart takes until the first write is served. Standard library only.

Of a step beyond the limit it tells who had the processor meanwhile. The kernel's trace says whether that was the shard. If it was, a
process of the highest priority on each processor, which does nothing but wake up, says whether the processor stood still: a
step calls nothing of the system's, so it can be interrupted at any instruction, and who wakes up too late while it runs was held
up by what is below it: a fault of memory, an interrupt, the host. What the host takes for others it says itself: that is
"stolen", and is not in the processor time of a step. How much the machine does so by itself is watched
before. This needs root and tracefs.
"""

import argparse
import atexit
import collections
import datetime
import multiprocessing
import os
import pathlib
import random
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import moonraft  # noqa: E402
from harness.processes import free_ports  # noqa: E402
from harness.wire import ReplyError, Wire, WireError  # noqa: E402

VALUE = b"v" * 100
# The next snapshot is taken when the log has grown by so much; the fill itself writes more.
LOG_BYTES_MAX = 64 << 20
# Who wakes up so much too late, at the highest priority, was held up by the system or its host.
LATE_MS = 0.5
TRACEFS = pathlib.Path("/sys/kernel/tracing")
# So many steps beyond the limit are told one by one, the longest first.
STEPS_TOLD = 10
# The kernel keeps so much of its trace a processor: a second and more.
TRACE_KIB = 8192


def key(number):
    """A key of 16 bytes."""
    return b"key:%012d" % number


def memory(pid, name):
    """A line of /proc/PID/status, in bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) * 1024


class Server(moonraft.Node):
    """One node that is its own cluster."""

    def __init__(self, binary, directory, first_port):
        settings = {"log-bytes-max": LOG_BYTES_MAX}
        super().__init__(1, [moonraft.Ports.of_node(first_port, 1)], 1, directory, settings, binary)
        self.launch()

    def client(self):
        """A connection to it."""
        return Wire(self.ports.clients[0])

    def wait_until_serving(self):
        """The time until a write is acknowledged."""
        while True:
            try:
                return self.client().query("SET", "served", "v")
            except (OSError, WireError, ReplyError):
                if not self.is_running():
                    sys.exit(self.process.output())
                time.sleep(0.01)

    def lines(self, text):
        """Lines of its log with this text."""
        plain = re.sub(r"\x1b\[[0-9;]*m", "", self.log_path().read_text())
        return [line for line in plain.splitlines() if text in line]


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
        self.began, self.stolen_before = time.monotonic(), stolen()
        for cpu in range(os.cpu_count()):
            receiver, sender = multiprocessing.Pipe(False)
            process = multiprocessing.Process(target=self.watch, args=(cpu, sender))
            process.start()
            self.watches.append((process, receiver))

    def watch(self, cpu, sender):
        """Notes each time at which it woke up late: when, how much, and on which processor."""
        os.sched_setaffinity(0, {cpu})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        late = []
        while not self.stop.is_set():
            for _ in range(1000):
                before = time.monotonic()
                time.sleep(0.0005)
                took = (time.monotonic() - before) * 1000 - 0.5
                if took > LATE_MS:
                    late.append((time.time(), took, cpu))
        sender.send(late)

    def held_up(self):
        """Ends the watch: all these moments, in order."""
        self.stop.set()
        self.stolen, self.seconds = stolen() - self.stolen_before, time.monotonic() - self.began
        moments = sorted(moment for _, receiver in self.watches for moment in receiver.recv())
        for process, _ in self.watches:
            process.join()
        return moments

    def tell(self, held_up):
        """A line about them."""
        most = max((late for _, late, _ in held_up), default=0.0)
        print(f"processors stood still {len(held_up)} times for more than {LATE_MS} ms, at most {most:.1f} ms; ", end="")
        print(f"the host stole {self.stolen:.2f} s of {self.seconds * len(self.watches):.0f}")


def stolen():
    """Processor time that the host has taken for others since the system began, in seconds."""
    processors = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(processors[8]) / os.sysconf("SC_CLK_TCK")


def count(stop):
    """Keeps a processor busy with nothing but itself."""
    number = 0
    while not stop.is_set():
        for _ in range(100_000):
            number += 1


def machine_alone(seconds=30):
    """How long processors stand still that do nothing but count: there is no server yet."""
    stop, machine = multiprocessing.Event(), Machine()
    counting = [multiprocessing.Process(target=count, args=(stop,)) for _ in machine.watches]
    for process in counting:
        process.start()
    time.sleep(seconds)
    stop.set()
    for process in counting:
        process.join()
    print(f"before there is a server, {seconds} s: ", end="")
    machine.tell(machine.held_up())


class Switches:
    """The kernel's trace of who has which processor."""

    def __init__(self):
        if not (TRACEFS / "instances").exists():
            subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], check=True)
        self.instance = TRACEFS / "instances" / f"moonraft-{os.getpid()}"  # one at a time
        self.instance.mkdir()
        atexit.register(lambda: self.instance.exists() and self.instance.rmdir())
        for name, value in (("trace_clock", "boot"), ("buffer_size_kb", str(TRACE_KIB)), ("events/sched/sched_switch/enable", "1")):
            (self.instance / name).write_text(value)

    def between(self, begin, end):
        """Who had a processor when, in this time (wall clock): thread, its number, processor, from, until."""
        offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        # It is stopped while it is read, and begins anew: what is lost would look like one long piece.
        (self.instance / "tracing_on").write_text("0")
        text = (self.instance / "trace").read_text(errors="replace")
        (self.instance / "trace").write_text("")
        (self.instance / "tracing_on").write_text("1")
        since, pieces = {}, []
        for line in text.splitlines():
            found = re.search(r"\[(\d+)\] \S+ +(\d+\.\d+): sched_switch: prev_comm=(.*) prev_pid=(\d+) ", line)
            if found:
                processor, at = int(found[1]), float(found[2]) + offset
                if processor in since:
                    pieces.append((found[3], int(found[4]), processor, max(begin, since[processor]), min(end, at)))
                since[processor] = at
        return [piece for piece in pieces if piece[3] < piece[4]]

    def end(self):
        """No more of it."""
        self.instance.rmdir()


class Watch:
    """What the machine did, and the steps of the shard beyond the limit, each told with who had the processor."""

    def __init__(self, server):
        self.server, self.told, self.steps = server, len(server.lines("was long")), []
        self.machine, self.switches = Machine(), Switches()

    def look(self):
        """Takes those that are new: the kernel forgets."""
        for line in self.server.lines("was long")[self.told :]:
            self.told += 1
            end = datetime.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()
            begin = end - int(field(line, "took_us")) / 1e6
            worked, thread = (int(field(line, name)) for name in ("worked_us", "thread"))
            self.steps.append((begin, end, worked, thread, self.switches.between(begin, end)))

    def tell(self):
        """What was watched, now that it is known who woke up late: when, by how much, and on which processor."""
        late = self.machine.held_up()
        print("  ", end="")
        self.machine.tell(late)
        if self.steps:
            most = max(worked for _, _, worked, _, _ in self.steps)
            print(f"  {len(self.steps)} steps were long; they worked for {most / 1000:.1f} ms at most")
        longest_first = sorted(self.steps, key=lambda step: step[0] - step[1])
        for begin, end, worked, thread, pieces in longest_first[:STEPS_TOLD]:
            print(f"  a step of {(end - begin) * 1000:.1f} ms worked for {worked / 1000:.1f}: ", end="")
            own = [piece for piece in pieces if piece[1] == thread]
            if not own:
                print("the kernel's trace does not reach back to it")
                continue
            still = sum(overlap(piece, (at - by / 1000, at)) for piece in own for at, by, on in late if on == piece[2])
            others = self.others(begin, end, thread, own, pieces)
            names = ", ".join(f"{name} {took * 1000:.1f}" for name, took in others.most_common(3) if took > 1e-4)
            had = sum(piece[4] - piece[3] for piece in own)
            print(f"the shard had a processor for {had * 1000:.1f}, which stood still for {still * 1000:.1f} of them", end="")
            print(f"; others had it: {names or 'none'}")
        self.switches.end()

    @staticmethod
    def others(begin, end, thread, own, pieces):
        """Who had the processor that the shard had left, and how long, until it had one again."""
        others = collections.Counter()
        left = [(begin, own[0][2])] + [(piece[4], piece[2]) for piece in own]
        again = [piece[3] for piece in own] + [end]
        for (since, processor), until in zip(left, again):
            for piece in pieces:
                if piece[1] != thread and piece[2] == processor:
                    others[piece[0]] += overlap(piece, (since, until))
        return others


def overlap(piece, time_of):
    """How long a piece lies within a time, in seconds."""
    return max(0.0, min(piece[4], time_of[1]) - max(piece[3], time_of[0]))


def write(stop, server, data, written, rate):
    """Writes at random, some requests together, in a process of its own; no more than `rate` a second, if that is given."""
    client, began = server.client(), time.monotonic()
    while not stop.is_set():
        client.query_all(data.change() for _ in range(50))
        written.value += 50
        if rate:
            time.sleep(max(0.0, began + written.value / rate - time.monotonic()))


def under_load(server, data, until, rate, limit=600):
    """Asks for one thing at a time under a load of writes until `until` says so; the answers' times, and writes."""
    stop, written = multiprocessing.Event(), multiprocessing.Value("q", 0)
    writer = multiprocessing.Process(target=write, args=(stop, server, data, written, rate))
    writer.start()
    client, took, began = server.client(), [], time.monotonic()
    look = began
    while True:
        before = time.monotonic()
        client.query(*data.ask())
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
    if os.geteuid() == 0:
        machine_alone()
    first_port = free_ports(moonraft.PORTS_PER_NODE)
    server = Server(options.binary, directory, first_port)
    if options.clients_on is not None:
        os.sched_setaffinity(0, {options.clients_on})  # its children's, too
    try:
        server.wait_until_serving()
        fill(server, data)
        print(f"{count} values, {options.gigabytes} GB; load average {os.getloadavg()[0]:.1f}")
        measure(server, data, options)
        server.kill()
        began = time.monotonic()
        os.sched_setaffinity(0, everywhere)  # the server's
        server = Server(options.binary, directory, first_port)
        server.wait_until_serving()
        print(f"restart: a write is served after {time.monotonic() - began:.2f} s")
    finally:
        server.kill()


def fill(server, data):
    """Makes the data, as fast as can be; tells of the snapshots that are taken meanwhile."""
    client, watch = server.client(), watch_of(server)
    for number, requests in enumerate(data.fill()):
        client.query_all(requests)
        if watch and number % 20 == 0:
            watch.look()
    wait_for_quiet(server, watch)
    longest = [int(field(line, "longest_step_us")) / 1000 for line in server.lines("snapshot taken")]
    print(f"{len(longest)} snapshots while it was filled, longest steps in ms: {', '.join(map(str, longest))}")
    if watch:
        watch.tell()


def watch_of(server):
    """A watch, if this may be."""
    return Watch(server) if os.geteuid() == 0 else None


def wait_for_quiet(server, watch):
    """Until no snapshot has been taken for a while; the last of the fill are watched too."""
    idle_since = time.monotonic()
    seen = len(server.lines("snapshot written"))
    while time.monotonic() - idle_since < 5:
        if len(server.lines("snapshot written")) != seen:
            seen, idle_since = seen + 1, time.monotonic()
        if watch:
            watch.look()
        time.sleep(0.1)


def measure(server, data, options):
    """A while without a snapshot, and some with."""
    rate = options.writes_per_second
    end = time.monotonic() + 5
    took, written = under_load(server, data, lambda: time.monotonic() > end, rate)
    tell("without a snapshot", took, written, 5)
    for _ in range(options.snapshots):
        measure_snapshot(server, data, rate)


def measure_snapshot(server, data, rate):
    """What one snapshot costs. It may have begun before, as soon as the log was long enough."""
    pid = server.process.pid
    seen = len(server.lines("snapshot written"))
    resident = memory(pid, "VmRSS")
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak counts from here
    watch = watch_of(server)

    def is_there():
        if watch:
            watch.look()
        return len(server.lines("snapshot written")) > seen

    began = time.monotonic()
    took, written = under_load(server, data, is_there, rate)
    tell("until the next snapshot was there", took, written, time.monotonic() - began)
    peak = memory(pid, "VmHWM")
    print(f"  resident {resident / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB: {100 * (peak / resident - 1):.1f} % more")
    line = server.lines("snapshot taken")[-1]
    size = int(field(server.lines("snapshot written")[-1], "bytes"))
    longest, worked = (int(field(line, name)) / 1000 for name in ("longest_step_us", "worked_us"))
    print(f"  {size / 1e9:.2f} GB written, longest step {longest:.1f} ms, of which {worked:.1f} on a processor")
    if watch:
        watch.tell()


def field(line, name):
    """A field of a line of the server's log."""
    return re.search(rf"{name}=(\S+)", line)[1]


main()
