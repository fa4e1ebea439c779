"""Values and documents for the sweep of libraries: the source of Lua expressions, or bytes."""

import struct

NUMBERS = (
    *("0", "-0", "0/-1", "1", "-1", "2", "10", "100"),
    *("0.1", "-0.1", "1/3", "-1/3", "2/3", "0.5", "1.5", "-2.5"),
    *("0/0", "-(0/0)", "math.huge", "-math.huge", "1e14", "1e15", "1e16", "1e17", "1e21", "1e22", "1e100"),
    *("123456789012345", "99999999999999.9", "0.0001", "0.00001", "1e-7"),
    *("1e300", "-1e300", "1e308", "1e-300"),
    *("1e-308", "5e-324", "2.2250738585072014e-308", "1.7976931348623157e308"),
    *("16777217", "3.4e38", "3.5e38"),
    *("1e-45", "1.5e-45", "0.30000000000000004", "4503599627370497.5", "9007199254740993", "1e9", "1e10"),
)
# Stock Lua looks at some bytes of a longer text for its place in a table, Redis's at all.
KEY_BYTES_MAX = 31
ESCAPES = (
    *('"', "\\", "/", "b", "f", "n", "r", "t", "u0000", "u0041", "u00e9", "u20AC", "uD83D\\uDE00"),
    "ud83d",
)
WRONG_ESCAPES = (
    *("a", "x41", "u", "u12", "u12g4", "u 123", "u+123", "uDE00", "ud83d\\u0041", "ud83dx", "U0041"),
    "\0",
)
TEXTS = (
    *(b"", b"a", b"\0", b"a\0b", b"\x7f", b"/", b'"\\', b"\xff\xfe", b"\xc3\xa9", b"\xc3", b"\xe2\x82\xac"),
    *(b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xed\xb0\x80"),
    *(b"\xc0\x80", b"\xf5\x80\x80\x80", b"\r\n\t\b\f\v\a"),
    *(bytes(range(256)), b"1", b"-1", b"1.0", b"0x10", b"1e3", b" 1 ", b"nan", b"inf", b"null", b"true"),
)


def literal(data):
    """Bytes as a text of Lua."""
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'


class Draw:
    """Draws from one seed."""

    def __init__(self, draw):
        self.draw = draw
        self.choice = draw.choice
        self.below = draw.randrange

    def bytes(self, most=20):
        """Bytes of any kind."""
        if self.below(3) == 0:
            return self.choice(TEXTS)
        letters = self.choice((b"ab1 .-", bytes(range(32, 127)), bytes(range(256))))
        return bytes(self.draw.choices(letters, k=self.below(most + 1)))

    def text(self):
        """A text, now and then as long as where its form changes."""
        if self.below(40) == 0:
            return f'("x"):rep({self.choice((31, 32, 33, 255, 256, 257, 65535, 65536))})'
        return literal(self.bytes())

    def number(self):
        """A number."""
        kind = self.below(5)
        if kind == 0:
            return self.choice(NUMBERS)
        if kind == 1:
            return str(self.draw.randint(-300, 70000))
        if kind == 2:
            more = self.choice(("", "+1", "-1", "+0.5", "+2^-20"))
            return f"{self.choice(('', '-'))}(2^{self.below(70)}{more})"
        if kind == 3:
            return repr(self.draw.uniform(-1, 1) * 10 ** self.draw.randint(-20, 20))
        (drawn,) = struct.unpack("<d", self.draw.randbytes(8))
        return repr(drawn) if drawn - drawn == 0 else "0/0"

    def value(self, depth=4):
        """Any value."""
        kind = self.below(12)
        if kind < 3:
            return self.number()
        if kind < 6:
            return self.text()
        if kind == 6:
            return self.choice(("true", "false", "nil", "cjson.null"))
        if kind == 7 and self.below(6) == 0:
            return self.choice(("print", "tostring", "function() end", "coroutine.create(function() end)"))
        return self.table(depth - 1) if depth else "{}"

    def table(self, depth):
        """A table: a list, with holes or without, or with keys of any kind."""
        kind = self.below(6)
        if kind == 0:
            return self.choice(("{}", "{{}}", "{{{}}, {}}", "{[1]={}}", '{[""]={}}'))
        if kind < 3:
            many = self.choice((1, 2, 3, 14, 15, 16, 17)) if depth == 3 else self.below(4)
            return "{" + ", ".join(self.value(depth) for _ in range(many)) + "}"
        entries = (f"[{self.key(kind)}] = {self.value(depth)}" for _ in range(self.below(5)))
        return "{" + ", ".join(entries) + "}"

    def key(self, kind):
        """What may stand in a table: small numbers, texts, or anything."""
        if kind == 3:
            return str(self.draw.randint(1, 40))
        if kind == 4:
            return literal(self.bytes()[:KEY_BYTES_MAX])
        odd = (
            *("0", "-1", "1.5", "2^31", "2^31-1", "2^32", "2^53", "2^63", "1e15", "1e300", "-1e300"),
            "math.huge",
        )
        return self.choice((*odd, "true", "cjson.null", '"1"', "1", "2", "3"))

    # ---- documents ----

    def json(self, depth=4):
        """A document of JSON, with what is only tolerated."""
        kind = self.below(10)
        if kind < 3:
            return self.json_number()
        if kind < 6 or not depth:
            return self.json_text()
        if kind == 6:
            return self.choice((b"true", b"false", b"null"))
        space = self.choice((b"", b"", b" ", b"\n\t\r ", b"\v" if self.below(9) == 0 else b""))
        items = [self.json(depth - 1) for _ in range(self.below(4))]
        if kind == 7:
            return b"[" + space + (b"," + space).join(items) + space + b"]"
        pairs = [self.json_text() + space + b":" + space + item for item in items]
        return b"{" + space + (space + b",").join(pairs) + space + b"}"

    def json_number(self):
        """A number, or what C takes for one."""
        odd = (
            *("nan", "-nan", "NaN", "+nan", "inf", "-inf"),
            *("+Inf", "Infinity", "-infinity", "infinit", "nan(1)", "nano"),
            *("0x10", "0X1f", "-0x1.8p3", "0x1p", "0x", "0x.8"),
            *("0x1p99999999999", "0x1p-2000", "0x0p5", "0xg", "01"),
            *("-01", "00", "+1", "-", "--1", "-a", "1.", ".5"),
            *("-.5", "1e", "1e+", "1E5", "1e400", "-1e400", "1e-400"),
            *("1.e5", "0e0", "1e5x", "1_0", "1,0", "0.1.2"),
            *("i", "n", "nu", "tru", "falsey", "1e99999999999999999999"),
            *("0x123456789abcdef01", "0x1.fffffffffffff8p0"),
            *("0x1.00000000000008p0", "0x0.0000000000001p-1000"),
            *("0" + "." + "0" * 400 + "1", "9" * 400, "9" * 30, "0x" + "f" * 300),
            *("1" + "0" * 300 + "e-300", "-0", "0"),
            *("-0.0", "2.4703282292062327e-324", "2.4703282292062328e-324"),
            *("1.7976931348623159e308", "0x8p-1075"),
        )
        if self.below(3) == 0:
            return self.choice(odd).encode()
        return self.choice(
            (str(self.draw.randint(-(10**6), 10**20)), repr(self.draw.uniform(-1e6, 1e6)))
        ).encode()

    def json_text(self):
        """A text with escapes, sometimes wrong ones."""
        wrong = self.below(15) == 0
        parts = [b'"']
        for _ in range(self.below(4)):
            parts.append(self.bytes(6).replace(b"\\", b"").replace(b'"', b"") if self.below(2) else b"a")
            escape = self.choice(WRONG_ESCAPES if wrong else ESCAPES)
            parts.append(b"\\" + escape.encode() if self.below(2) else b"")
        return b"".join(parts) + b'"'

    def broken(self, document):
        """A document with some bytes changed, left out or doubled."""
        document = bytearray(document)
        for _ in range(self.below(3) + 1):
            at, change = self.below(len(document) + 1), self.below(4)
            if change == 0:
                del document[at:]
            elif change == 1:
                document[at : at + 1] = self.draw.choices(b'{}[]:,"\\ntfu019eE+-.xIN\0 \xff', k=1)
            elif change == 2:
                del document[at : at + 1]
            else:
                document[at:at] = document[at : at + 3]
        return bytes(document)

    def message(self, depth=4):
        """A document of MessagePack of every kind, some claiming more than they hold."""
        tag = self.below(256)
        if depth == 0 and (0x80 <= tag < 0xA0 or tag >= 0xDC):
            tag = self.choice((0xC0, 0x01, 0xFF, 0xA1))
        some = self.below(4)
        if tag < 0x80 or tag >= 0xE0:
            return bytes([tag])
        if tag < 0xA0:
            many = some * (2 if tag < 0x90 else 1)
            return bytes([tag & 0xF0 | some]) + b"".join(self.message(depth - 1) for _ in range(many))
        if tag < 0xC0:
            return bytes([tag]) + self.draw.randbytes(tag & 31)
        sized = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
        if tag in sized:
            head = bytes([tag]) + some.to_bytes(sized[tag], "big")
            if tag < 0xDC:
                return head + self.draw.randbytes(some)
            return head + b"".join(self.message(depth - 1) for _ in range(some * (2 if tag >= 0xDE else 1)))
        widths = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
        return bytes([tag]) + self.draw.randbytes(widths.get(tag, some))
