#!/usr/bin/env python3
"""Records what a real Redis answers to the scripts of scripts.txt.

    python3 node/src/script/golden/record.py

starts the redis-server on PATH (7.0.15 made the file in the tree) on a spare
port, runs every script with KEYS = {k1, k2}, ARGV = {a1, a2} on an empty
database, and rewrites the lines that begin with "= ". The diff is the review.

    python3 node/src/script/golden/record.py numbers

asks a server of 7.2 or newer (valkey-server 9.1.2 made the file in the tree) how it
writes the numbers that scripts hand to commands, and writes numbers.txt.
MOONRAFT_ORACLE names the server's binary, if it is not the one on PATH.
"""

import itertools

import os
import pathlib
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time

FILE = pathlib.Path(__file__).with_name("scripts.txt")
NUMBERS = FILE.with_name("numbers.txt")
# Numbers that are asked, and where drawing them begins.
NUMBER_COUNT, SEED = 5000, 13


def spare_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def request(*words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)


def quoted(data):
    out = []
    for byte in data:
        if byte in b'"\\':
            out.append("\\" + chr(byte))
        elif 32 <= byte < 127:
            out.append(chr(byte))
        else:
            out.append("\\x%02x" % byte)
    return '"' + "".join(out) + '"'


def shown(stream):
    """One reply as text, as tests.rs writes it."""
    line = stream.readline()[:-2]
    kind, rest = line[:1], line[1:]
    if kind in b"+-":
        return kind.decode() + rest.decode("utf-8", "replace")
    if kind == b":":
        return rest.decode()
    if kind == b"$":
        if int(rest) < 0:
            return "nil"
        data = stream.read(int(rest) + 2)[:-2]
        return quoted(data)
    if kind == b"*":
        if int(rest) < 0:
            return "nil"
        return "[" + ", ".join(shown(stream) for _ in range(int(rest))) + "]"
    raise ValueError("unexpected reply %r" % line)


def connect(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise SystemExit("redis-server did not start")


def numbers():
    """Doubles: some that matter, all powers of ten and their like, and drawn ones."""
    yield from (0.0, -0.0, 19.99, 0.1, 0.1 + 0.2, 1 / 3, 2 / 3, 100 / 3, 1.5e9, 123456.789, 1700000000123456789.0)
    yield from (2.0**53, 2.0**62, 2.0**62 + 1024, -(2.0**62), -(2.0**62) - 1024, 2.0**63, -(2.0**63), 2.0**64)
    yield from (5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, float("inf"), float("-inf"), 1e300, 1e100)
    for sign, exponent in itertools.product((1, -1), range(-30, 40)):
        for mantissa in (1, 1.5, 1.25, 9.999, 1.2345678901234567):
            yield sign * mantissa * 10.0**exponent
    draw = random.Random(SEED)
    kinds = (
        lambda: draw.randrange(10**6) / 100,
        lambda: round(draw.uniform(-1e6, 1e6), draw.randrange(1, 8)),
        lambda: float(draw.randrange(-(2**63), 2**63)),
        lambda: struct.unpack("<d", draw.randbytes(8))[0],
        lambda: draw.random() * 10.0 ** draw.randint(-12, 25),
        lambda: draw.randrange(1, 10 ** draw.randint(1, 17)) * 10.0 ** draw.randint(-25, 25),
    )
    while True:
        number = draw.choice(kinds)()
        if number == number:
            yield number


def record_numbers(ask):
    script = "return redis.call('echo', (struct.unpack('>d', ARGV[1])))"
    different = dict.fromkeys(struct.pack(">d", number) for number in itertools.islice(numbers(), 2 * NUMBER_COUNT))
    lines = ["# The bits of doubles, and the words that they become: made by record.py."]
    for bits in itertools.islice(different, NUMBER_COUNT):
        lines.append(f"{bits.hex()} {ask('EVAL', script, '0', bits)[1:-1]}")
    NUMBERS.write_text("\n".join(lines) + "\n")


def record_scripts(ask):
    lines, script, out = FILE.read_text().split("\n"), [], []
    for line in lines:
        if line.startswith("= "):
            continue
        if script and not line.startswith("> "):
            ask("FLUSHALL")
            # A new Lua state: settings of cjson outlive a script there.
            ask("SCRIPT", "FLUSH", "SYNC")
            out.append("= " + ask("EVAL", "\n".join(script), "2", "k1", "k2", "a1", "a2"))
            script = []
        if line.startswith("> "):
            script.append(line[2:])
        out.append(line)
    FILE.write_text("\n".join(out))


def main():
    port = spare_port()
    binary = os.environ.get("MOONRAFT_ORACLE", "redis-server")
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            link = connect(port)
            stream = link.makefile("rb")

            def ask(*words):
                link.sendall(request(*words))
                return shown(stream)

            (record_numbers if sys.argv[1:] == ["numbers"] else record_scripts)(ask)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    os.umask(0o022)
    main()
