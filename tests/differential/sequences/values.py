"""What stands for an argument in a drawn request: few values, so that they meet, and those at the edges.

All are words of requests as bytes. Nothing here depends on when it is drawn: deadlines are past or years away, ids of
streams are explicit, so both servers must come to the same.
"""

# Keys by type, of one slot; and one of another slot.
KEYS = {
    "string": ("{k}s0", "{k}s1"),
    "bitmap": ("{k}s0", "{k}s2"),
    "hyperloglog": ("{k}p0", "{k}p1", "{k}p2"),
    "list": ("{k}l0", "{k}l1"),
    "hash": ("{k}h0", "{k}h1"),
    "set": ("{k}t0", "{k}t1", "{k}t2"),
    "sorted-set": ("{k}z0", "{k}z1", "{k}z2"),
    "geo": ("{k}g0", "{k}g1", "{k}z0"),
    "stream": ("{k}x0", "{k}x1"),
}
MISSING = "{k}n0"
# All scores are 0: what `BYLEX` means is told for such only.
OF_ONE_SCORE = "{k}y0"
ELSEWHERE = "{e}s0"
ALL_KEYS = sorted({key for keys in KEYS.values() for key in keys} | {MISSING, OF_ONE_SCORE, ELSEWHERE})
SAME_SLOT = [key for key in ALL_KEYS if key not in (OF_ONE_SCORE, ELSEWHERE)]

I64_MAX, I64_MIN = str(2**63 - 1), str(-(2**63))
FAR_SECONDS = ("100000", "200000", "9000000")

# What containers hold. The longer ones are on both sides of what is kept packed (64 bytes) and embedded (44).
SMALL = ("a", "b", "c", "d", "e", "1", "2", "3", "10", "-1")
RARE = ("", "0", "3.5", "-0", "1e3", "01", " 1", I64_MAX, I64_MIN, str(2**63), b"\x00\xff\r\n", "é", "A")
LONG = ("x" * 44, "x" * 45, "y" * 64, "y" * 65, "z" * 300)

GARBAGE = ("x", "", "1.5", "99999999999999999999", "0x1", "nan")
INDEXES = ("0", "1", "2", "3", "5", "-1", "-2", "-3", "-5")
FAR_INDEXES = ("100", "-100", "127", "128", I64_MAX, I64_MIN, "4294967296")
COUNTS = ("1", "2", "3", "10", "0", "-1", "-2")
DOUBLES = ("0", "1", "2", "3", "-1", "1.5", "0.5", "-0.5", "10", "1e10", "inf", "-inf", "0.1", "3.14")
SCORES = ("-inf", "+inf", "0", "1", "2", "3", "(1", "(2", "(3", "1.5", "(inf", "1e10")
LEXES = ("-", "+", "[a", "(a", "[b", "[c", "(d", "[m1", "[m150", "(", "[")
PLACES = (
    ("13.361389", "38.115556"),
    ("15.087269", "37.502669"),
    ("13.583333", "37.316667"),
    ("0", "0"),
    ("-0.5", "51.5"),
    ("180", "85.05112878"),
    ("-180", "-85.05112878"),
    ("179.9", "0.1"),
)
WRONG_PLACES = (("181", "0"), ("0", "86"), ("x", "1"))
STREAM_IDS = ("0-0", "0", "1-0", "1-1", "2-0", "2", "3-0", "4-0", "5-0", "5-5", "8-0", "12-0", "1000-0")
FAR_IDS = (f"{2**64 - 1}-{2**64 - 1}", f"{2**64 - 1}", "7-18446744073709551615", "-1", "x", "1-", "1-x")
NAMES = ("g", "h", "c", "d")


class Values:
    """Draws values for one sequence."""

    def __init__(self, draw, payloads):
        self.draw = draw
        # Of `DUMP`, by the real server.
        self.payloads = payloads
        self.last_id = 0

    def pick(self, usual, rare=(), chance=0.08):
        """One of the usual values, seldom one of the rare ones."""
        return self.draw.choice(rare if rare and self.draw.random() < chance else usual)

    def key(self, group):
        """A key, mostly of a type that the command is about."""
        chance = self.draw.random()
        if chance < 0.84 and group in KEYS:
            return self.draw.choice(KEYS[group])
        if chance < 0.86:
            return ELSEWHERE
        return self.draw.choice(SAME_SLOT)

    def text(self):
        """An element, a member, a field, a value."""
        chance = self.draw.random()
        if chance < 0.75:
            return self.draw.choice(SMALL)
        if chance < 0.88:
            return f"m{self.draw.randrange(200)}"
        return self.draw.choice(RARE if chance < 0.97 else LONG)

    def integer(self):
        """A number to add."""
        return self.pick(("1", "2", "-1", "5", "0", "-3", "100"), (I64_MAX, I64_MIN, *GARBAGE))

    def index(self):
        """A position, from either end."""
        return self.pick(INDEXES, (*FAR_INDEXES, *GARBAGE))

    def count(self):
        """How many."""
        return self.pick(COUNTS, ("128", "1000", I64_MAX, *GARBAGE))

    def double(self):
        """A score, an increment."""
        return self.pick(DOUBLES, ("x", "", "nan", "1e308", "-1e308", "1e-320"))

    def score(self):
        """A bound of scores."""
        return self.pick(SCORES, ("x", "(", "nan"))

    def lex(self):
        """A bound of members."""
        return self.pick(LEXES, ("x", "", "a"))

    def seconds(self):
        """A time from now: far, or not in the future."""
        return self.pick(FAR_SECONDS, ("0", "-1", I64_MAX, I64_MIN, "x", "9223372036854775"), 0.25)

    def milliseconds(self):
        """The same in milliseconds."""
        return self.pick(("100000000", "200000000"), ("0", "-1", I64_MAX, I64_MIN, "x"), 0.25)

    def unix_seconds(self):
        """A moment: past, or far away."""
        return self.pick(("4000000000", "5000000000"), ("1", "0", "-1", I64_MAX, I64_MIN, "x"), 0.3)

    def unix_milliseconds(self):
        """The same in milliseconds."""
        return self.pick(("4000000000000", "5000000000000"), ("1", "0", "-1", I64_MAX, I64_MIN, "x"), 0.3)

    def offset(self):
        """A position in a string or bitmap that takes no memory worth mentioning."""
        return self.pick(("0", "1", "7", "8", "9", "15", "63", "100"), ("-1", "1000", "4294967296", "x", I64_MAX))

    def new_id(self):
        """The id of a new entry: mostly the next."""
        chance = self.draw.random()
        if chance < 0.6:
            self.last_id += self.draw.choice((1, 1, 1, 2))
            return f"{self.last_id}-{self.draw.choice((0, 0, 1))}"
        if chance < 0.75:
            return f"{self.last_id + self.draw.randrange(2)}-*"
        return self.pick(STREAM_IDS, FAR_IDS)

    def id(self):
        """The id of an entry, which may be there."""
        if self.draw.random() < 0.5:
            return f"{self.draw.randint(1, max(1, self.last_id))}-0"
        return self.pick(STREAM_IDS, FAR_IDS, 0.05)

    def range_id(self):
        """An end of a range of ids."""
        if self.draw.random() < 0.4:
            return self.draw.choice(("-", "+"))
        return ("(" if self.draw.random() < 0.2 else "") + self.id()

    def place(self):
        """Longitude and latitude."""
        return self.pick(PLACES, WRONG_PLACES, 0.04)

    def payload(self):
        """A value as `DUMP` gives it, or what is none."""
        return self.pick(self.payloads, ("", "x" * 12), 0.08)
