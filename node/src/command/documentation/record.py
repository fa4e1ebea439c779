#!/usr/bin/env python3
"""Records what a real Redis answers to COMMAND DOCS.

    python3 node/src/command/documentation/record.py

starts the redis-server on PATH (7.0.15 made the file in the tree) on a spare
port and rewrites redis-7.0.15.json: an object with a line for every command and
subcommand. The diff is the review.
"""

import json
import pathlib
import socket
import subprocess
import tempfile
import time

FILE = pathlib.Path(__file__).with_name("redis-7.0.15.json")


def spare_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise SystemExit("redis-server did not start")


def reply(stream):
    """One reply of RESP3."""
    line = stream.readline()[:-2]
    kind, rest = line[:1], line[1:]
    if kind == b"+":
        return rest.decode()
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return stream.read(int(rest) + 2)[:-2].decode()
    if kind in b"*~":
        return [reply(stream) for _ in range(int(rest))]
    if kind == b"%":
        return {reply(stream): reply(stream) for _ in range(int(rest))}
    raise ValueError(f"unexpected reply {line}")


def flat(commands):
    """All commands by full name, subcommands beside their containers."""
    for name, facts in commands.items():
        subcommands = facts.pop("subcommands", {})
        yield name, facts
        yield from flat(subcommands)


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
            link.sendall(b"HELLO 3\r\n")
            reply(stream)
            link.sendall(b"COMMAND DOCS\r\n")
            commands = dict(flat(reply(stream)))
        finally:
            server.terminate()
            server.wait()
    lines = (f"{json.dumps(name)}: {json.dumps(commands[name])}" for name in sorted(commands))
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
