"""What `MONITOR` tells of requests of every kind, and what who monitors may send."""

import re

from situation import question

from harness.wire import Wire

SECONDS_MAX = 10

REQUESTS = (
    ("SET", "{m}k", "v"),
    ("SET", "{m}k", 'a\x00\n\r\t\a\b\\ " é~'),
    ("GET",),
    ("get", "{m}k"),
    ("INCR", "{m}k"),
    ("NOTHING",),
    ("MULTI",),
    ("SET", "{m}k", "1"),
    ("GET", "{m}k"),
    ("EVAL", "return redis.call('incr', KEYS[1])", "1", "{m}k"),
    ("EXEC",),
    ("MULTI",),
    ("GET",),
    ("EXEC",),
    ("MULTI",),
    ("DISCARD",),
    ("EVAL", "redis.call('set', KEYS[1], 1) return redis.pcall('incr', KEYS[1])", "1", "{m}k"),
    ("EVAL", "return redis.call('nothing')", "0"),
    ("EVAL", "syntax error", "0"),
    ("EVALSHA", "0" * 40, "0"),
    ("CONFIG", "GET", "x"),
    ("SLOWLOG", "LEN"),
    ("HELLO", "2"),
    ("HELLO", "2", "SETNAME", "x"),
    ("CLIENT", "SETNAME", "y"),
    ("CLIENT", "ID"),
    ("PING",),
    ("ECHO", ""),
    ("WATCH", "{m}k"),
    ("UNWATCH",),
    ("PUBLISH", "a", "b"),
    ("INFO", "server"),
    ("WAIT", "0", "0"),
    ("RESET",),
)
OWN = (
    ("PING",),
    ("GET", "k"),
    ("SET", "k", "v"),
    ("PUBLISH", "a", "b"),
    ("EVAL", "return 1", "0"),
    ("CONFIG", "GET", "x"),
)
AFTER = (("RESET",), ("PING",))


def sweep(ports, comparison):
    """Lines about requests, then replies to the requests of who monitors."""
    for protocol in ("2", "3"):
        told = [_told(port, protocol) for port in ports]
        for words, *lines in zip((("all",), *OWN, *AFTER), *told):
            comparison.compare(question("monitor", " ".join(words)), protocol, *lines)


def _told(port, protocol):
    """The lines about others' requests, and what follows each of one's own."""
    with Wire(port, within=SECONDS_MAX) as monitor, Wire(port, within=SECONDS_MAX) as client:
        monitor.ask("HELLO", protocol)
        monitor.ask("MONITOR")
        for words in REQUESTS:
            client.ask(*words)
        told = [_until(monitor, client, "the end")]
        for at, words in enumerate(OWN):
            monitor.send(*words)
            told.append(monitor.receive() + _until(monitor, client, f"own-{at}"))
        monitor.send("RESET")
        told.append(_until(monitor, client, "", b"RESET"))
        told.append(monitor.ask("PING"))
    return told


def _until(monitor, client, mark, sign=None):
    """What is told until this mark is echoed, or there is this sign."""
    if not sign:
        client.ask("ECHO", mark)
    found = b""
    while (sign or mark.encode()) not in found:
        found += monitor.receive()
    found = re.sub(rb"\d+\.\d{6} \[0 lua\]", b"(lua)", found)
    return re.sub(rb"\d+\.\d{6} \[0 [^ ]*\]", b"(client)", found)
