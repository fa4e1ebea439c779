#!/usr/bin/env python3
"""Records what a real Redis answers to the scripts of scripts.txt.

    python3 node/src/script/golden/record.py

starts the redis-server on PATH (7.0.15 made the file in the tree) on a spare
port, runs every script with KEYS = {k1, k2}, ARGV = {a1, a2} on an empty
database, and rewrites the lines that begin with "= ". The diff is the review.
"""

import os
import pathlib
import socket
import subprocess
import tempfile
import time

FILE = pathlib.Path(__file__).with_name("scripts.txt")


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


def main():
    port = spare_port()
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            link = connect(port)
            stream = link.makefile("rb")

            def ask(*words):
                link.sendall(request(*words))
                return shown(stream)

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
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    os.umask(0o022)
    main()
