"""The ways to write a number, for each number that a command takes, and each that it finds in a value."""

from sweeps.cases import Case, Reason, Step, Sweep
from sweeps.drawn import KEYS, RESET, SHOW

FORMS = (
    *("0", "1", "-1", "2", "10", "100000", "-0", "+0", "+1", "01", "00012", "-01"),
    *(" 1", "1 ", "\t1", "1\n", "1\0", "\0", "", " ", "a", "1a", "1,0", "1_0", "--1", "+-1", "-", "+", "."),
    *("1.", "1.0", ".5", "-.5", "1.5", "-1.5", "0.1", "1e3", "1E3", "1e+3", "1e-3", "1e", "1e17", "3.0e3"),
    *("0x10", "0X1F", "0x1p4", "0x1P-2", "0x1.8", "0x.8", "0x1.", "0x", "0xg", "-0x10", "0x1p", "0b1", "1p4"),
    *("inf", "-inf", "+inf", "INF", "infinity", "Infinity", "infinit", "nan", "-nan", "NaN", "nan(1)"),
    *("1e400", "-1e400", "1e-400", "5e-324", "4.9e-324", "2e-324", "1.7976931348623157e308", "1.8e308"),
    *("2147483647", "2147483648", "-2147483649", "4294967296", "18446744073709551615", "18446744073709551616"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775807", "-9223372036854775808"),
    *("-9223372036854775809", "999999999999999999999999", "0x1fffffffffffff8", "1e2147483648", "\u0661"),
    *("0." + "0" * 30 + "1", "1" + "0" * 310, "9007199254740993", "0x20000000000001", "1" * 257, "0.3"),
)

# What is not asked beside what no sweep asks, and why.
LEFT_OUT = {
    "acl|log": "it tells how long ago something was",
    "client|list": "the lines are of the moment",
    "lolwut": "it draws another picture",
    "memory|usage": "sizes are Moonraft's own",
    "slowlog|get": "what was slow is of the moment",
}

# Numbers that would take the server's memory or time, or whose effect is over before it is looked at.
DRAWS = ("srandmember count", "hrandfield count", "zrandmember count")
OFFSETS = ("setbit offset", "bitfield offset")
SOON = ("1", "2", "10")


def is_left_out(command, name, form):
    """Whether a form is not asked at this place."""
    place = f"{command} {name}"
    if place in DRAWS:
        return form.startswith("-") and form not in ("-1", "-0")
    if place in OFFSETS:
        return form in ("2147483647", "2147483648")
    if place in ("wait numreplicas",):
        return form not in ("0", "-1") and form.lstrip("-").isdecimal()
    return name in ("milliseconds", "seconds", "ttl") and form in SOON


def of_arguments(commands, known):
    """Every number that a request may hold, in every form."""
    for name in sorted(known & set(commands.docs)):
        if name in LEFT_OUT or not commands.is_asked(name):
            continue
        asked = set()
        for form in commands.forms(name):
            for at, word in enumerate(form.words):
                # A number that stands in several requests means the same in each.
                place = (word.name, form.words[at - 1].text, form.mode())
                if word.kind in ("integer", "double", "unix-time") and place not in asked:
                    asked.add(place)
                    yield Case("reset", [Step(words=request, compare="nothing") for request in RESET])
                    yield from _with_forms(form, at, commands.writes(name))


def _with_forms(form, at, writes):
    before, after = (RESET, SHOW) if writes else ((), ())
    for written in FORMS:
        if is_left_out(form.command, form.words[at].name, written):
            continue
        words = list(form.texts())
        words[at] = written
        text = " ".join(repr(word) if word is words[at] else str(word) for word in words)
        steps = [Step(words=request, compare="nothing") for request in before]
        steps.append(Step(words=tuple(words)))
        steps += [Step(words=request, compare="unordered") for request in after]
        yield Case(text, steps)


# Values that hold a number, and who reads it.
READERS = (
    (("SET", KEYS["s"]), ("INCR", KEYS["s"]), ("GET", KEYS["s"])),
    (("SET", KEYS["s"]), ("INCRBY", KEYS["s"], "7"), ("GET", KEYS["s"])),
    (("SET", KEYS["s"]), ("DECRBY", KEYS["s"], "7"), ("GET", KEYS["s"])),
    (("SET", KEYS["s"]), ("INCRBYFLOAT", KEYS["s"], "1.5"), ("GET", KEYS["s"])),
    (("SET", KEYS["s"]), ("OBJECT", "REFCOUNT", KEYS["s"]), ("STRLEN", KEYS["s"])),
    (("HSET", KEYS["h"], "f"), ("HINCRBY", KEYS["h"], "f", "7"), ("HGET", KEYS["h"], "f")),
    (("HSET", KEYS["h"], "f"), ("HINCRBYFLOAT", KEYS["h"], "f", "1.5"), ("HGET", KEYS["h"], "f")),
    (("LPUSH", KEYS["l"]), ("SORT", KEYS["l"]), ("LPOS", KEYS["l"], "1")),
    (("LPUSH", KEYS["l"]), ("SORT", KEYS["l"], "DESC"), ("SORT", KEYS["l"], "ALPHA")),
    (("SADD", KEYS["t"]), ("SISMEMBER", KEYS["t"], "1"), ("SMEMBERS", KEYS["t"])),
    (("EVAL", "return tonumber(ARGV[1])", "0"), ("GET", KEYS["s"]), ("GET", KEYS["s"])),
)


def of_values():
    """Every form in a value."""
    for put, read, look in READERS:
        for written in FORMS:
            steps = [Step(words=request, compare="nothing") for request in RESET]
            steps += [Step(words=(*put, written)), Step(words=read), Step(words=look, compare="unordered")]
            yield Case(f"{' '.join(put)} {written!r}; {' '.join(read)}", steps)


REASONS = [
    Reason("", "doubles are the shortest text that reads back, as in 7.2", compare="numbers"),
    Reason("^(SRAND|ZRAND|HRAND|SPOP|RANDOM)", "drawn at random", compare="shape", by_chance=True),
    Reason("SCAN ", "cursors and the order are Moonraft's own", replies=r"^b'\*2.* b'\*2", by_chance=True),
    Reason("SCAN .*x00", "a cursor is read to its end", replies="invalid cursor", by_chance=True),
    Reason("^LPOS .* RANK '-9223372036854775808'", "refused, as in 7.2", replies="out of range"),
    Reason("^[LZ]MPOP '2e-324'", "a count of keys that is no number is not read as one", replies="CROSSSLOT"),
    Reason("^XINFO STREAM .* FULL", "active-time of a consumer came with 7.2"),
    Reason("^XAUTOCLAIM .* '9007199254740993'", "no memory is taken ahead", replies="COUNT too high"),
    Reason("^RESTORE.* '9223372036854775807'", "a deadline that is too far is far, not past"),
]


def sweep(commands, known):
    """The sweep for the commands that both servers know."""
    return Sweep("number forms", [*of_arguments(commands, known), *of_values()], REASONS)
