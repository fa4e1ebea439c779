#!/usr/bin/env python3
"""How long a shard hears nobody while a request does something that costs much: one node, one shard.

    tests/bench/silence.py BINARY [--threshold 500] [--elements 1000000] [--only WORD]

First scripts, then plain requests. One client sends a script; another sends PING, a millisecond after each reply. Each of the scripts goes on for as long as
it is let, or costs seconds. Printed for each, in milliseconds:

* heard: until PING is answered again, by `-BUSY` or since the script has ended. Ideal is the threshold
  (`busy-reply-threshold`) and the 20 ms at which a busy shard looks at its sockets;
* silence: the longest wait for an answer after that, while the script goes on;
* kill: from SCRIPT KILL, sent two seconds after the script began, to the end of the script; `-` if it had ended before.

Plain requests are about values of `--elements` elements, each sent once. Printed for each, in milliseconds:

* took: until it was answered;
* silence: the longest wait of another client for an answer to GET of a key beside them meanwhile.

Who waits for longer than `--patience` is given up with the node, and the figures say more than that. Standard library only.
"""

import argparse
import multiprocessing
import pathlib
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import moonraft  # noqa: E402
from harness.wire import Wire, WireError  # noqa: E402

FORK = multiprocessing.get_context("fork")

SETUP = "local s = ('x'):rep(10000000) local a, b = s .. 'a', s .. 'b' "
ZEROS = r"local z = ('\0'):rep(10000000) local a, b = z .. 'a', z .. 'b' "
TABLE = "local t = {} for i = 1, 2000000 do t[i] = i end "
FOREVER = "while true do %s end"
FRONT = "local t = {} for i = 1, 400000 do t[i] = i end "


def forever(body, setup=SETUP):
    return ["EVAL", setup + FOREVER % body, "0"]


REQUESTS = {
    "compare texts of 10 MB": forever("local _ = a < b"),
    "compare texts of 10 MB of zero bytes": forever("local _ = a < b", ZEROS),
    "sort texts of 10 MB": forever("local l = {} for i = 1, 1000 do l[i] = a end table.sort(l)"),
    "tonumber of 10 MB": forever("local _ = tonumber(d)", "local d = ('1'):rep(10000000) "),
    "add to 10 MB of digits": forever("local _ = d + 1", "local d = ('1'):rep(10000000) "),
    "join texts of 10 MB": forever("local _ = a .. b"),
    "join 150 texts of 100 kB": forever("local _ = " + "s .. " * 150 + "s", "local s = ('x'):rep(100000) "),
    "append to a text": forever("s = #s < 30000000 and s .. c or ''", "local c, s = ('x'):rep(100000), '' "),
    "table.concat of two million": forever("table.concat(t, ',')", TABLE),
    "string.rep": forever("('x'):rep(50000000)", ""),
    "string.format %s": forever("string.format('%s%s', a, b)"),
    "string.format %q": forever("string.format('%q', z)", ZEROS),
    "string.upper": forever("a:upper()"),
    "string.reverse": forever("a:reverse()"),
    "string.sub": forever("a:sub(2)"),
    "string.byte, string.char": forever("string.char(s:byte(1, 7000))"),
    "redis.sha1hex": forever("redis.sha1hex(a)"),
    "insert at the front of 400,000": forever("table.insert(t, 1, 1)", FRONT),
    "insert at the front of two million": forever("table.insert(t, 1, 1) table.remove(t)", TABLE),
    "remove at the front of two million": forever("table.remove(t, 1) t[#t + 1] = 1", TABLE),
    "table.sort of two million": forever("table.sort(t, function(x, y) return x > y end) table.sort(t)", TABLE),
    "table.maxn": forever("table.maxn(t)", TABLE),
    "table.foreachi without a Lua function": forever("table.foreachi(t, getmetatable)", TABLE),
    "next at the empty front of a table": forever("next(t)", TABLE + "for i = 1, 1999999 do t[i] = nil end "),
    "unpack": forever("unpack(t, 1, 7000)", TABLE),
    "a class of 100 kB, find": forever("s:find(p)", "local s, p = ('x'):rep(1000000), '[' .. ('y'):rep(100000) .. ']' "),
    "a class of 100 kB, gsub": forever("s:gsub(p, '')", "local s, p = ('x'):rep(1000000), '[' .. ('y'):rep(100000) .. ']' "),
    "a class of 100 kB, gmatch": forever("for _ in s:gmatch(p) do end", "local s, p = ('x'):rep(1000000), '[' .. ('y'):rep(100000) .. ']+' "),
    "a pattern that backtracks": forever("s:find('.-.-.-.-.-y')", "local s = ('x'):rep(3000) "),
    "a gsub that multiplies": ["EVAL", "return #(('x'):rep(1000000):gsub('.+', ('%0'):rep(500000)))", "0"],
    "cjson.encode": forever("cjson.encode(t)", TABLE),
    "cjson.encode of control characters": forever("cjson.encode(z)", ZEROS),
    "cjson.decode": forever("cjson.decode(d)", TABLE + "local d = cjson.encode(t) t = nil "),
    "cjson.decode of one long text": forever(r"cjson.decode(d)", r"local d = '\"' .. ('\\\\n'):rep(10000000) .. '\"' "),
    "cmsgpack.pack": forever("cmsgpack.pack(t)", TABLE),
    "cmsgpack.unpack": forever("cmsgpack.unpack(d)", TABLE + "local d = cmsgpack.pack(t) t = nil "),
    "struct": forever("struct.unpack('s', struct.pack('s', s))"),
    "bit, one by one": forever("bit.bxor(unpack(t, 1, 7000))", TABLE),
    "a chain of or, compiled": ["EVAL", "return " + "a or " * 100000 + "a", "0"],
    "a chain of or, SCRIPT LOAD": ["SCRIPT", "LOAD", "return " + "b or " * 40000 + "b"],
    "a chain of or, loadstring": forever("loadstring(c)", "local c = 'return ' .. ('a or '):rep(100000) .. 'a' "),
    "elseif without end, compiled": ["EVAL", "if a then " + "elseif a then " * 70000 + "end", "0"],
    "names in nested functions, compiled": [
        "EVAL",
        "".join(
            "local %s local f=function() " % ",".join("a%d_%d" % (depth, name) for name in range(190)) for depth in range(50)
        )
        + "b=b " * 150000
        + "end " * 50,
        "0",
    ],
    "a million small tables": forever("for i = 1, 1000000 do t[i] = {} end", "local t = {} "),
    "a million texts": forever("for i = 1, 1000000 do t[i] = 'k' .. i end", "local t = {} "),
    "texts of one hash": forever(
        "n = n + 1 t[n] = h .. n .. h", "local h, n, t = ('x'):rep(200), 100000, {} "
    ),
    "GET of 10 MB": ["EVAL", "redis.call('SET', KEYS[1], ('x'):rep(10000000)) while true do redis.call('GET', KEYS[1]) end", "1", "k"],
    "calls of SUNIONSTORE": [
        "EVAL",
        TABLE + "for i = 1, 1000000, 5000 do redis.call('SADD', KEYS[1], unpack(t, i, i + 4999)) end "
        "while true do redis.call('SUNIONSTORE', KEYS[2], KEYS[1], KEYS[2]) end",
        "2",
        "{t}s",
        "{t}d",
    ],
    "return a million values": ["EVAL", "local t = {} for i = 1, 1000000 do t[i] = i end return t", "0"],
    "a million arguments": ["EVAL", "while true do end", "0"] + ["a%d" % number for number in range(1000000)],
}


# What has to be done before, and the request.
PLAIN = {
    "SMEMBERS": ["SMEMBERS {t}set"],
    "SUNION": ["SUNION {t}set {t}set2"],
    "SINTER": ["SINTER {t}set {t}set2"],
    "SDIFF": ["SDIFF {t}set {t}set2"],
    "SUNIONSTORE": ["SUNIONSTORE {t}d {t}set {t}set2"],
    "SINTERSTORE": ["SINTERSTORE {t}d {t}set {t}set2"],
    "SDIFFSTORE": ["SDIFFSTORE {t}d {t}set {t}set2"],
    "SRANDMEMBER": ["SRANDMEMBER {t}set -1000000"],
    "SPOP": ["COPY {t}set {t}d REPLACE", "SPOP {t}d 900000"],
    "SORT ALPHA": ["SORT {t}set ALPHA"],
    "SORT STORE": ["SORT {t}list STORE {t}d"],
    "LRANGE": ["LRANGE {t}list 0 -1"],
    "LTRIM": ["COPY {t}list {t}d REPLACE", "LTRIM {t}d 900000 -1"],
    "LPOP": ["COPY {t}list {t}d REPLACE", "LPOP {t}d 900000"],
    "LREM": ["COPY {t}list {t}d REPLACE", "LREM {t}d 0 none"],
    "LPOS": ["LPOS {t}list none"],
    "HGETALL": ["HGETALL {t}hash"],
    "HKEYS": ["HKEYS {t}hash"],
    "HRANDFIELD": ["HRANDFIELD {t}hash -1000000 WITHVALUES"],
    "ZRANGE": ["ZRANGE {t}sorted 0 -1 WITHSCORES"],
    "ZRANGESTORE": ["ZRANGESTORE {t}d {t}sorted 0 -1"],
    "ZUNION": ["ZUNION 2 {t}sorted {t}sorted2"],
    "ZUNIONSTORE": ["ZUNIONSTORE {t}d 2 {t}sorted {t}sorted2"],
    "ZINTERSTORE": ["ZINTERSTORE {t}d 2 {t}sorted {t}sorted2"],
    "ZDIFFSTORE": ["ZDIFFSTORE {t}d 2 {t}sorted {t}sorted2"],
    "ZRANDMEMBER": ["ZRANDMEMBER {t}sorted -1000000"],
    "ZPOPMIN": ["COPY {t}sorted {t}d REPLACE", "ZPOPMIN {t}d 900000"],
    "ZREMRANGEBYSCORE": ["COPY {t}sorted {t}d REPLACE", "ZREMRANGEBYSCORE {t}d -inf 900000"],
    "COPY": ["COPY {t}sorted {t}d REPLACE"],
    "DUMP": ["DUMP {t}hash"],
    "DEL": ["COPY {t}sorted {t}d REPLACE", "DEL {t}d"],
    "RENAME over it": ["COPY {t}sorted {t}d REPLACE", "SET {t}e v", "RENAME {t}e {t}d"],
    "GET of 100 MB": ["SETRANGE {t}str 99999999 x", "GET {t}str"],
    "GETRANGE of 100 MB": ["SETRANGE {t}str 99999999 x", "GETRANGE {t}str 0 -1"],
    "SETRANGE of 500 MB": ["DEL {t}d", "SETRANGE {t}d 499999999 x"],
    "BITOP of 100 MB": ["SETRANGE {t}str 99999999 x", "BITOP NOT {t}d {t}str"],
    "BITCOUNT of 100 MB": ["BITCOUNT {t}str"],
    "LCS of 10 kB": ["SETRANGE {t}a 9999 x", "SETRANGE {t}b 9999 x", "LCS {t}a {t}b"],
    "SADD of a million words": ["DEL {t}d", "SADD {t}d *"],
    "RPUSH of a million words": ["DEL {t}d", "RPUSH {t}d *"],
    "MSET of 49,999 keys": ["DEL {t}d", "MSET pairs*49999"],
    "MGET of 99,999 keys": ["MGET keys*99999"],
    "DEL of 99,999 keys": ["DEL keys*99999"],
    "MSET of a million keys": ["DEL {t}d", "MSET pairs*1000000"],
    "MGET of a million keys": ["MGET keys*1000000"],
    "EXISTS of a million keys": ["EXISTS keys*1000000"],
    "UNLINK of a million keys": ["UNLINK keys*1000000"],
    "SUNION of a million keys": ["SUNION keys*1000000"],
    "WATCH of 100,000 keys": ["WATCH keys*100000"],
    "SUBSCRIBE to a million channels": ["SSUBSCRIBE keys*1000000"],
    "SCRIPT EXISTS of a million": ["SCRIPT EXISTS keys*1000000"],
    "COMMAND INFO of a million": ["COMMAND INFO get*1000000"],
    "SET of 100 MB": ["SET {t}d bytes*100000000"],
    "SET of 500 MB": ["SET {t}d bytes*500000000"],
    "APPEND to 100 MB": ["SETRANGE {t}d 99999999 x", "APPEND {t}d x"],
    "HSCAN COUNT": ["DEL {t}d", "HSCAN {t}hash 0 COUNT 1000000"],
    "GEOSEARCH": ["GEOSEARCH {t}geo FROMLONLAT 0 0 BYRADIUS 20000 km"],
    "GEOSEARCHSTORE": ["GEOSEARCHSTORE {t}d {t}geo FROMLONLAT 0 0 BYRADIUS 20000 km"],
    "XRANGE": ["XRANGE {t}stream - +"],
    "XREADGROUP": ["XREADGROUP GROUP g c STREAMS {t}stream >"],
    "XPENDING IDLE": ["XPENDING {t}stream g IDLE 100000000 - + 10"],
    "XAUTOCLAIM": ["XAUTOCLAIM {t}stream g d 0 0 COUNT 500000"],
    "XINFO STREAM FULL": ["XINFO STREAM {t}stream FULL COUNT 0"],
    "XTRIM": ["COPY {t}stream {t}d REPLACE", "XTRIM {t}d MAXLEN 10"],
    "PFCOUNT of 900 counters": ["EVAL for#i=1,900#do#redis.call('PFADD','{t}pf:'..i,unpack(ARGV))#end 0 counted*5000", "PFCOUNT counters*900"],
    "MEMORY USAGE SAMPLES 0": ["MEMORY USAGE {t}hash SAMPLES 0"],
    "a block of unions": ["DEL {t}d", "MULTI", "SUNIONSTORE {t}d {t}set {t}set2", "ZUNIONSTORE {t}e 2 {t}sorted {t}sorted2", "EXEC"],
    "SCAN COUNT": ["DEL {t}d", "keys", "SCAN 0 COUNT 1000000"],
    "KEYS *": ["DEL {t}d", "keys", "KEYS *"],
    "KEYS {t}key:99999*": ["KEYS {t}key:99999*"],
    "CLUSTER GETKEYSINSLOT": ["CLUSTER GETKEYSINSLOT 15891 1000000"],
    "RANDOMKEY": ["RANDOMKEY"],
    "DBSIZE": ["DBSIZE"],
    "INFO": ["INFO"],
    "MEMORY STATS": ["MEMORY STATS"],
    "FLUSHALL": ["FLUSHALL"],
}


class Node:
    """One node with one shard."""

    def __init__(self, arguments):
        self.patience = arguments.patience
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="silence-"))
        settings = ["--set", f"busy-reply-threshold={arguments.threshold}"]
        self.dev = moonraft.Dev(self.directory, nodes=1, shards=1, arguments=settings, program=arguments.binary)
        self.dev.process.wait_for_line("ready:")

    def client(self):
        return Wire(self.dev.port, within=self.patience)

    def end(self):
        self.dev.process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def run_script(client, words, result):
    result["begun"] = time.monotonic()
    try:
        client.ask(*(word.encode("latin-1") for word in words))
        result["ended"] = time.monotonic()
    except (OSError, WireError):
        pass


def measure(node, words):
    """The three figures, and whether the node is still good."""
    patience = node.patience
    prober, killer, sender = node.client(), node.client(), node.client()
    result = {}
    thread = threading.Thread(target=run_script, args=(sender, words, result), daemon=True)
    thread.start()
    time.sleep(0.002)
    begun = result.get("begun", time.monotonic())
    heard, silence, killed = 0.0, 0.0, None
    while thread.is_alive() and time.monotonic() - begun < patience:
        if killed is None and time.monotonic() - begun > 2:
            killed = time.monotonic()
            killer.send("SCRIPT", "KILL")
        asked = time.monotonic()
        try:
            busy = prober.ask("PING").startswith(b"-BUSY")
        except (OSError, WireError):
            return (patience, patience, patience), False
        waited = time.monotonic() - asked
        if not heard and (busy or waited > 0.05):
            heard = waited
        elif busy:
            silence = max(silence, waited)
        time.sleep(0.001)
    if "ended" not in result:
        return (heard or patience, silence, patience), False
    kill = result["ended"] - killed if killed is not None else None
    return (heard, silence, kill), True


def fill(node, elements):
    """Values of so many elements, under these names."""
    client = node.client()
    names = [b"element:%d" % number for number in range(elements * 3 // 2)]

    def add(command, key, words, per):
        for at in range(0, len(words), 1000 * per):
            client.ask(command, key, *words[at : at + 1000 * per])

    def scored(names):
        return [word for number, name in enumerate(names) for word in (b"%d" % number, name)]

    for key, own in ((b"", names[:elements]), (b"2", names[elements // 2 :])):
        add(b"SADD", b"{t}set" + key, own, 1)
        add(b"ZADD", b"{t}sorted" + key, scored(own), 2)
    add(b"RPUSH", b"{t}list", [b"%d" % number for number in range(elements)], 1)
    add(b"HSET", b"{t}hash", [word for name in names[:elements] for word in (name, b"value")], 2)
    client.ask(b"SET", b"{t}small", b"v")
    # One by one they would take minutes.
    script = (
        "for i = ARGV[1], ARGV[2] do redis.call('XADD', KEYS[1], '1-' .. i, 'f', i) "
        "redis.call('GEOADD', KEYS[2], i % 360 - 180, i % 170 - 85, i) end"
    )
    for at in range(1, elements + 1, 20000):
        client.ask(b"EVAL", script.encode(), b"2", b"{t}stream", b"{t}geo", b"%d" % at, b"%d" % min(at + 19999, elements))
    client.ask(b"XGROUP", b"CREATE", b"{t}stream", b"g", b"0")


# What a last word of this form stands for, so many times.
MANY = {
    b"bytes": lambda count: [b"x" * count],
    b"keys": lambda count: [b"{t}some:%d" % number for number in range(count)],
    b"get": lambda count: [b"get"] * count,
    b"pairs": lambda count: [word for number in range(count) for word in (b"{t}some:%d" % number, b"v")],
    b"counters": lambda count: [b"{t}pf:%d" % number for number in range(1, count + 1)],
    b"counted": lambda count: [b"%d" % number for number in range(count)],
}


def words_of(request, elements):
    """Its words; `*` stands for as many as there are elements, `#` for a blank in a word."""
    words = [word.replace(b"#", b" ") for word in request.encode().split(b" ")]
    kind, _, count = words[-1].partition(b"*")
    if kind in MANY and count:
        return words[:-1] + MANY[kind](int(count))
    return words[:-1] + [b"element:%d" % number for number in range(elements)] if words[-1] == b"*" and len(words) > 2 else words


def add_keys(client, elements):
    for at in range(0, elements, 1000):
        client.ask(b"MSET", *(word for number in range(at, at + 1000) for word in (b"{t}key:%d" % number, b"v")))


def measure_plain(node, requests, elements):
    """How long the last request took, and the longest silence meanwhile."""
    client, prober = node.client(), node.client()
    for request in requests[:-1]:
        add_keys(client, elements) if request == "keys" else client.ask(*words_of(request, elements))
    words = words_of(requests[-1], elements)
    ours, theirs = FORK.Pipe()

    def send():
        begun = time.monotonic()
        client.ask(*words)
        theirs.send(time.monotonic() - begun)

    # In a process of its own: reading a million elements would keep this one from noticing anything.
    sender = FORK.Process(target=send, daemon=True)
    sender.start()
    silence = 0.0
    while sender.is_alive():
        asked = time.monotonic()
        prober.ask("GET", "{t}small")
        silence = max(silence, time.monotonic() - asked)
        time.sleep(0.0005)
    sender.join()
    if not ours.poll():
        raise SystemExit(f"{requests[-1]}: no answer")
    return ours.recv(), silence


def plain(arguments):
    requests = {name: requests for name, requests in PLAIN.items() if arguments.only in name}
    if not requests:
        return
    node = Node(arguments)
    print("\n| request | took | silence |\n| --- | ---: | ---: |")
    worst = 0.0
    try:
        fill(node, arguments.elements)
        for name, steps in requests.items():
            took, silence = measure_plain(node, steps, arguments.elements)
            worst = max(worst, silence)
            print(f"| {name} | {took * 1e3:,.0f} | {silence * 1e3:,.0f} |", flush=True)
    finally:
        node.end()
    print(f"| the worst of {len(requests)} | | {worst * 1e3:,.0f} |")


def scripts(arguments):
    requests = {name: words for name, words in REQUESTS.items() if arguments.only in name}
    if not requests:
        return
    node = Node(arguments)
    worst = [0.0, 0.0, 0.0]
    print("| request | heard | silence | kill |\n| --- | ---: | ---: | ---: |")
    try:
        for name, words in requests.items():
            figures, good = measure(node, words)
            if not good:
                node.end()
                node = Node(arguments)
            worst = [max(most, figure or 0) for most, figure in zip(worst, figures)]
            shown = [
                "-" if figure is None else f"> {figure * 1e3:,.0f}" if not good and figure >= arguments.patience else f"{figure * 1e3:,.0f}"
                for figure in figures
            ]
            print(f"| {name} | {' | '.join(shown)} |", flush=True)
    finally:
        node.end()
    print("| the worst of %d | %s |" % (len(requests), " | ".join(f"{figure * 1e3:,.0f}" for figure in worst)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--threshold", type=int, default=500)
    parser.add_argument("--patience", type=float, default=30)
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    scripts(arguments)
    plain(arguments)


if __name__ == "__main__":
    main()
