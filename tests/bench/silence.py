#!/usr/bin/env python3
"""How long a shard hears nobody while a script does something that costs much: one node, one shard.

    tests/bench/silence.py BINARY [--threshold 500] [--only WORD]

One client sends a script; another sends PING, a millisecond after each reply. Each of the scripts goes on for as long as
it is let, or costs seconds. Printed for each, in milliseconds:

* heard: until PING is answered again, by `-BUSY` or since the script has ended. Ideal is the threshold
  (`busy-reply-threshold`) and the 20 ms at which a busy shard looks at its sockets;
* silence: the longest wait for an answer after that, while the script goes on;
* kill: from SCRIPT KILL, sent two seconds after the script began, to the end of the script; `-` if it had ended before.

Who waits for longer than `--patience` is given up with the node, and the figures say more than that. Standard library only.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import moonraft  # noqa: E402
from harness.wire import Wire, WireError  # noqa: E402

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
    "return a million values": ["EVAL", "local t = {} for i = 1, 1000000 do t[i] = i end return t", "0"],
    "a million arguments": ["EVAL", "while true do end", "0"] + ["a%d" % number for number in range(1000000)],
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--threshold", type=int, default=500)
    parser.add_argument("--patience", type=float, default=30)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    requests = {name: words for name, words in REQUESTS.items() if arguments.only in name}
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


if __name__ == "__main__":
    main()
