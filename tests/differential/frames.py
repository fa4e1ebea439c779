"""Sends malformed and unusual requests to Redis and to Moonraft, and compares all bytes that come back.

Each frame has a connection of its own, with a request behind it that shows whether the
server still follows; then the client sends no more, and what comes until the server closes is the
answer. A frame that both servers wait for the rest of is answered by nothing, on both.
"""

import contextlib
import itertools
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from replies import shorten

from harness import moonraft, rival
from harness.cluster import Cluster
from harness.wire import Wire, request

# Frames that are drawn, beside those that are listed. The seed makes every run the same.
DRAWN = 3000
SEED = 7

# Follows every frame: a client that is still understood gets this back.
SENTINEL = request("ECHO", "after")

# No frame takes long; an answer that is late is missing.
SECONDS_MAX = 10

PING = request("PING")

NUMBERS = [
    *(b"0 1 2 3 4 5 10 -1 -2 -10 -0 +1 +0 00 01 001 -01 1.0 1e1 0x1 0b1 1a a1 a $ * - + --1".split()),
    *(b"1024 16384 16385 1048576 1048577 536870911 536870912 536870913 2147483646 2147483647".split()),
    *(b"2147483648 4294967295 4294967296 4294967297 9223372036854775807 9223372036854775808".split()),
    *(b"-9223372036854775808 -9223372036854775809 18446744073709551615 18446744073709551616".split()),
    *(b"", b" ", b" 1", b"1 ", b"\t1", b"1\t", b"\x001", b"1\x00", b"1\x002", b"1\n", b"\n1", b"\xff"),
    *(b"\xc2\xb9", b"1" * 20, b"1" * 40, b"0" * 40 + b"1", b"9" * 1000, b"1\r1", b"inf", b"nan"),
]
LINE_ENDS = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\rX", b"\r\x00", b"\x00\r\n", b" \r\n", b""]
INLINE = [
    *(b"PING", b"ping", b" PING", b"PING ", b"\tPING\x0b", b"PING\r", b"PING \r", b"'PING'", b'"PING"'),
    *(b'"\\x50ING"', b'"P"ING', b"'PING'x", b"'PING", b'"PING', b'"', b"'", b'""', b"''", b'"\\', b'"\\"'),
    *(b'ECHO "a\\n\\r\\t\\a\\bz"', b'ECHO "\\x0g\\x4"', b"ECHO 'it\\'s'", b"ECHO 'a\\nb'", b'ECHO a"b c"'),
    *(b"ECHO \xff\xfe", b'ECHO "\\xff\\x00"', b"ECHO a b", b"ECHO", b"ECHO ''", b"", b" ", b"\r", b"\r\r"),
    *(b"P\x00ING", b"\x00", b"PING\x00", b"\x16\x03\x01\x02\x00\x01", b"\x01\x02\x03", b"-1", b":1", b"+OK"),
    *(b"$4", b"$-1", b"_", b"#t", b"%1", b"~1", b">1", b"(1", b"=4", b"!1", b"|1", b",1.5", b"$"),
    *(b"GET / HTTP/1.1", b"POST / HTTP/1.1", b"post", b"Host: here", b"HOST: here", b"host:", b"Host", b"POST:"),
    *(b"GET / HTTP/1.1\r\nHost: here", b"PUT / HTTP/1.1\r\nUser-Agent: x\r\nhost: here\r\n\r\nPING"),
    *(b"PING\r\nPOST /\r\nPING", b"PRI * HTTP/2.0\r\n\r\nSM", b"OPTIONS * RTSP/1.0", b"EHLO here"),
    *(b"x" * 65000, b"ECHO " + b"x" * 60000, b"PING " * 20, b'ECHO "' + b"x" * 1000),
]


def listed():
    """Frames that somebody thought of."""
    for number, end in itertools.product(NUMBERS, LINE_ENDS):
        yield b"*" + number + end + b"$4\r\nPING\r\n"
        yield b"*1\r\n$" + number + end + b"PING\r\n"
        yield b"*2\r\n$4\r\nECHO\r\n$" + number + end + b"xxxx\r\n"
    for byte in range(256):
        yield bytes([byte]) + b"1\r\n$4\r\nPING\r\n"
        yield b"*1\r\n" + bytes([byte]) + b"4\r\nPING\r\n"
        yield b"*1\r\n$4\r\nPING" + bytes([byte]) + b"\n"
        yield b"*1\r" + bytes([byte]) + b"$4\r\nPING\r\n"
        yield b"PI" + bytes([byte]) + b"NG\r\n"
        yield request("ECHO", bytes([byte]))
        yield request(bytes([byte]) + b"x", "y")
        yield b'ECHO "\\' + bytes([byte]) + b'"\r\n'
    for line, end in itertools.product(INLINE, [b"\r\n", b"\n", b"\x00\r\n", b""]):
        yield line + end
    for words in (["POST", "/"], ["post"], ["Host:"], ["host:", "x"], ["PING", "POST"], [""], ["", ""], ["PING", ""]):
        yield request(*words)
    yield request("MULTI") + request("POST") + PING
    for size in (65535, 65536, 70000, 100000):
        for start in (b"*", b"*1\r\n$", b"*1\r\nx", b"*2\r\n$4\r\nPING\r\n$", b"x"):
            # Redis looks at what one read has brought, up to 16 KiB: nothing may stand behind that it finds first.
            yield start + b"1" * size
    yield request(*["PING"] * 3)
    yield request("ECHO", b"x" * 100_000)
    yield request("DEL", *[f"{{t}}{number}" for number in range(5000)])
    yield b"*0\r\n" * 100 + b"*-1\r\n" * 100 + b"\r\n" * 100 + PING


def drawn():
    """Requests in which some bytes are changed, left out or doubled."""
    draw = random.Random(SEED)
    whole = [PING, request("ECHO", "words"), request("PING", "a\r\nb"), b"PING\r\n", b"ECHO 'a b'\r\n"]
    bytes_of_interest = b"\r\n\x00*$0123456789-+ '\"\\xPING:\xff"
    for _ in range(DRAWN):
        frame = bytearray(b"".join(draw.choices(whole, k=draw.randint(1, 3))))
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(frame))
            change = draw.randrange(3)
            if change == 0:
                frame[at] = draw.choice(bytes_of_interest)
            elif change == 1:
                del frame[at : at + draw.randint(1, 3)]
            else:
                frame[at:at] = bytes(draw.choices(bytes_of_interest, k=draw.randint(1, 3)))
            frame = frame or bytearray(b"\n")
        yield bytes(frame)


def split():
    """Frames that are sent byte by byte."""
    yield from (PING, request("ECHO", "a\r\nb"), b"*2\r\n:4\r\nPING\r\n", b"*x\r\n", b"*1\r\n$x\r\n", b"*2\r\nPING\r\n")
    yield from (b"ECHO 'a b'\r\n", b"'\r\n", b"*-1\r\n*0\r\n\r\nPING\r\n", b"*01\r\n", b"*1\r\n$04\r\nPING\r\n")
    yield from (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nPING\r\n", b"*3\r\n$4\r\nECHO\r\n$1\r\nx\r\n:1\r\n")


def answer(port, frame, pieces=False):
    """All that a server sends to a frame and the request behind it."""
    with Wire(port, within=SECONDS_MAX) as client:
        with contextlib.suppress(OSError):  # it may have closed before all was sent
            if pieces:
                for byte in frame:
                    client.send_raw(bytes([byte]))
                    time.sleep(0.001)  # so that it is a piece of its own; the answer must not depend on it
            # Too much for a line stands alone: what is behind it could be the end of the line.
            client.send_raw(frame if len(frame) > 65000 else frame * (not pieces) + b"\r\n" + SENTINEL)
            client.end()
        return client.receive_all()


def main():
    """Starts both servers, sends the frames, and tells what differed."""
    is_self_check = os.environ.get("MOONRAFT_RIVAL") == "redis"
    failures, count = [], 0
    with tempfile.TemporaryDirectory(prefix="moonraft-frames-") as directory:
        clusters = []
        for name, kind in [("redis", rival), ("other", rival if is_self_check else moonraft)]:
            home = Path(directory, name)
            home.mkdir()
            clusters.append(Cluster(kind.Node, home, nodes=1, shards=1))
        try:
            ports = [cluster.start().replicas[0].port for cluster in clusters]
            every = [(frame, False) for frame in dict.fromkeys([*listed(), *drawn()])]
            for frame, pieces in every + [(frame, True) for frame in split()]:
                expected, found = (answer(port, frame, pieces) for port in ports)
                count += 1
                if found != expected:
                    failures.append(
                        f"{shorten(frame)}\n    redis    {shorten(expected)}\n    moonraft {shorten(found)}"
                    )
        finally:
            for cluster in clusters:
                if cluster.nodes[0].is_running():
                    cluster.kill()
    print("\n".join(failures[:50]))
    print(f"{count} frames compared: {len(failures)} differ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
