"""Requests that are wrong in one way, drawn up from what the table tells: which error, and its text."""

import random

from sweeps.cases import Case, Reason, Step, Sweep
from sweeps.drawn import KEYS, RESET

SEED = 7_0_15

JUNK = ("x", "", "-1", "1.5", "99999999999999999999", "nope", "0", "EX")
NUMBERS = ("x", "", "1.5", "-1", "0", " 1", "9223372036854775808", "-9223372036854775808", "1e3")


def wrong(form, forms, draw):
    """Requests that are wrong in one way, made from one that is right."""
    words = list(form.texts())
    named = 2 if "|" in form.command else 1
    yield words
    yield words[:named]
    if len(words) > named:
        yield words[:-1]
    yield [*words, draw.choice(JUNK)]
    yield [*words, draw.choice(JUNK), draw.choice(JUNK)]
    for other in draw.sample(forms, min(3, len(forms))):
        yield words + list(other.texts())[named + 1 :]
    for at, word in enumerate(form.words):
        if word.kind == "key":
            for key in (*KEYS.values(), "of-another-slot"):
                yield [*words[:at], key, *words[at + 1 :]]
        elif word.kind in ("integer", "double", "unix-time"):
            for number in NUMBERS:
                yield [*words[:at], number, *words[at + 1 :]]
        elif word.kind in ("token", "string", "pattern"):
            yield [*words[:at], draw.choice(JUNK), *words[at + 1 :]]
            yield words[:at] + words[at + 1 :]
            yield [*words[: at + 1], words[at], *words[at + 1 :]]


# None ends in a zero byte: the answers of redis-server 7.0 to such a name were not the same at each of its starts.
UNKNOWN = (
    ("nothing",),
    ("nothing", "a", "b"),
    ("nothing", "a" * 200, "b"),
    ("x" * 200, "b"),
    ("no\r\nthing", "a\r\nb"),
    ("no thing", "'", '"', "\\"),
    ("",),
    ("", ""),
    ("\xff\xfe", "\x00\x01"),
    ("config", "nothing"),
    ("config",),
    ("object", "nothing", "k"),
    ("object", "x" * 200),
    ("script", "no\r\nthing"),
    ("client", ""),
    ("cluster", "NOTHING"),
    ("command", "nothing", "x"),
    ("memory", "nothing"),
    ("slowlog", "nothing"),
    ("latency", "nothing"),
    ("get|x", "k"),
    ("config|get", "x"),
)


def sweep(commands, known):
    """The sweep for the commands that both servers know."""
    draw = random.Random(SEED)
    requests = {}
    for name in sorted(known & set(commands.docs)):
        if not commands.is_asked(name) or commands.facts[name]["container"]:
            continue
        forms = commands.forms(name)
        for form in forms:
            for words in wrong(form, forms, draw):
                requests.setdefault(tuple(words), name)
    cases = []
    for words in [*requests, *UNKNOWN]:
        name = requests.get(words)
        steps = []
        if name is None or commands.writes(name):
            steps = [Step(words=request, compare="nothing") for request in RESET]
        steps.append(Step(words=words, compare="errors"))
        cases.append(Case(" ".join(word if isinstance(word, str) else repr(word) for word in words), steps))
    return Sweep("wrong requests", cases, REASONS)


REASONS = [
    Reason("^LPOS .* RANK -9223372036854775808", "refused, as in 7.2", replies="out of range"),
    Reason("^Z(REV)?RANK {k}. ", "WITHSCORE came with 7.2", replies="wrong number"),
]
