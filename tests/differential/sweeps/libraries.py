"""The libraries of scripts on drawn values: `cjson`, `cmsgpack`, `struct`, `bit`, and numbers as texts."""

import random

from sweeps.cases import Case, Reason, Step, Sweep
from sweeps.lua_values import NUMBERS, TEXTS, Draw, literal

SEED = 7_0_15
# How many are drawn of each.
VALUES, DOCUMENTS, OPERANDS, FORMATS = 5000, 2500, 2000, 1500

# Runs a text, and shows what it returns or raises: types, all digits, and tables in their order.
SCRIPT = r"""
local function shown(value, depth)
  if type(value) == 'number' then return ('%.17g'):format(value)
  elseif type(value) == 'string' then return '"' .. value .. '"'
  elseif value == cjson.null then return 'null'
  elseif type(value) ~= 'table' then return type(value) == 'boolean' and tostring(value) or type(value) end
  if depth > 1100 then return '...' end
  local parts, is_ordered = {}, true
  for key, inner in pairs(value) do
    parts[#parts + 1] = shown(key, depth + 1) .. '=' .. shown(inner, depth + 1)
    -- These stand where their address, or the hash of a long text, puts them.
    is_ordered = is_ordered and type(key) ~= 'table' and not (type(key) == 'string' and #key > 31)
  end
  if not is_ordered then table.sort(parts) end
  return '{' .. table.concat(parts, ',') .. '}'
end
local run, why = loadstring(ARGV[1], '=drawn')
if not run then return why end
local function all(...)
  local out = {}
  for index = 1, select('#', ...) do out[index] = shown((select(index, ...)), 0) end
  return table.concat(out, ' ')
end
return all(pcall(run))
"""


# The same, and the client gets what it returns or raises.
UNCAUGHT = "return loadstring(ARGV[1], '=drawn')()"
UNCAUGHT_EVERY = 17


def _uncaught(case):
    _, _, *words = case.steps[0].words
    return Case(f"uncaught: {case.text}", [Step(words=("EVAL", UNCAUGHT, *words))])


def _case(text, *data):
    told = "".join(f" of {shortened!r}" for shortened in (word[:200] for word in data))
    return Case(text + told, [Step(words=("EVAL", SCRIPT, "0", text, *data))])


# ---- cjson ----

SWITCHES = ("true", "false", '"null"', '"on"', '"off"', "nil")


def _encode_settings(draw):
    yield ""
    while True:
        if draw.below(3):
            yield ""
            continue
        yield draw.choice(
            (
                f"c.encode_invalid_numbers({draw.choice(SWITCHES)})",
                f"c.encode_number_precision({draw.draw.randint(1, 14)})",
                f"c.encode_max_depth({draw.draw.randint(1, 5)})",
                f"c.encode_sparse_array(true, {draw.draw.randint(1, 5)}, {draw.below(30)})",
                f"c.encode_sparse_array(false, {draw.draw.randint(1, 5)}, {draw.below(30)})",
                "c.encode_keep_buffer(false)",
            )
        )


def _of_cjson(draw):
    settings = _encode_settings(draw)
    for _ in range(VALUES):
        value, setting = draw.value(), next(settings)
        yield _case(f"local c = cjson.new() {setting} local t = c.encode({value}) return t, c.decode(t)")
    for _ in range(DOCUMENTS):
        document = draw.json()
        if draw.below(2):
            document = draw.broken(document)
        setting = draw.choice(
            ("", "", "c.decode_invalid_numbers(false)", f"c.decode_max_depth({draw.below(5) + 1})")
        )
        yield _case(f"local c = cjson.new() {setting} return c.decode(ARGV[2])", document)
    for depth in (999, 1000, 1001):
        yield _case("return cjson.decode(ARGV[2])", b"[" * depth + b"]" * depth)
        yield _case("return cjson.decode(ARGV[2])", b'{"a":' * depth + b"1" + b"}" * depth)
        yield _case(f"local v = 1 for _ = 1, {depth} do v = {{v}} end return cjson.encode(v)")
    yield _case("local v = {} v[1] = v return cjson.encode(v)")
    yield _case("local v = {} v.v = v return cjson.encode(v)")
    for function in CJSON_SETTINGS:
        for words in CJSON_ARGUMENTS:
            yield _case(f"local c = cjson.new() return c.{function}({words}), c.{function}()")
    for words in ("", "1, 2", "nil", "{}", "print"):
        for function in ("encode", "decode"):
            yield _case(f"return cjson.{function}({words})")
    for library in ("cjson", "cjson.new()", "cjson.new(1, 2)"):
        yield _case(f"local v = {{}} for k in pairs({library}) do v[#v + 1] = k end table.sort(v) return v")
    yield _case(
        "return cjson._NAME, cjson._VERSION, cjson.null == nil, type(cjson.null), tostring(cjson.null)"
    )


CJSON_SETTINGS = (
    *("encode_sparse_array", "encode_max_depth", "decode_max_depth", "encode_number_precision"),
    *("encode_keep_buffer", "encode_invalid_numbers", "decode_invalid_numbers"),
)
CJSON_ARGUMENTS = (
    *("", "nil", "true", "false", '"on"', '"off"', '"null"', '"x"', '""'),
    *("0", "1", "14", "15", "16", "17", "-1", "1.5"),
    *('"7"', '"0x7"', "2^31-1", "2^31", "2^53", "0/0"),
    *("{}", "print", "1, 2", "true, 1", "true, 1, 2", "true, 1, 2, 3"),
    *("true, -1", "true, 1, -1", "nil, 3, 4", "false, nil, 7"),
    *("true, {}", '"null", 1', "true, 0, 0", "true, 2^31"),
)


# ---- cmsgpack ----


def _of_cmsgpack(draw):
    for _ in range(VALUES):
        values = ", ".join(draw.value() for _ in range(draw.choice((1, 1, 1, 2, 3))))
        yield _case(f"local t = cmsgpack.pack({values}) return t, cmsgpack.unpack(t)")
    for number in (*NUMBERS, *_near_powers()):
        yield _case(f"local t = cmsgpack.pack({number}) return t, cmsgpack.unpack(t)")
    for _ in range(DOCUMENTS):
        document = b"".join(draw.message() for _ in range(draw.choice((1, 1, 2, 4))))
        if draw.below(2):
            document = draw.broken(document)
        yield _case(_unpack(draw, len(document)), document)
    for tag in range(256):
        for rest in (b"", b"\0", b"\1a", b"\0\1ab", b"\0\0\0\1abcdefghij", b"\xff" * 9, b"\x7f" * 40):
            yield _case("return cmsgpack.unpack(ARGV[2])", bytes([tag]) + rest)
    for depth in (14, 15, 16, 17, 18, 40):
        yield _case(f"local v = 1 for _ = 1, {depth} do v = {{v}} end return cmsgpack.pack(v)")
        yield _case(f"local v = 1 for _ = 1, {depth} do v = {{v = v}} end return cmsgpack.pack(v)")
        yield _case("return cmsgpack.unpack(ARGV[2])", b"\x91" * depth + b"\x01")
        yield _case("return cmsgpack.unpack(ARGV[2])", b"\x81\x01" * depth + b"\x01")
    yield _case("local v = {} v[1] = v return cmsgpack.pack(v)")
    yield _case("local v = {} v.v = v return cmsgpack.pack(v)")
    for count in (15, 16, 17, 255, 256, 65535, 65536):
        yield _case(f"local v = {{}} for i = 1, {count} do v[i] = 1 end return cmsgpack.pack(v)")
        yield _case(f"local v = {{}} for i = 1, {count} do v[-i] = 1 end return #cmsgpack.pack(v)")
    for words in (
        *("", "nil", "nil, nil", "1", "{}", "print", '"", 1', "1, 1", '"\\1", {}', '"\\1", 1, {}'),
        '"\\1", "1"',
    ):
        for function in ("pack", "unpack", "unpack_one", "unpack_limit"):
            yield _case(f"return cmsgpack.{function}({words})")
    yield _case("local v = {} for k in pairs(cmsgpack) do v[#v + 1] = k end table.sort(v) return v")
    yield _case("return cmsgpack._NAME, cmsgpack._VERSION, cmsgpack._COPYRIGHT, cmsgpack._DESCRIPTION")


def _near_powers():
    for power in (5, 7, 8, 15, 16, 31, 32, 53, 63, 64):
        for sign in ("", "-"):
            yield from (f"{sign}2^{power}{more}" for more in ("", "+1", "-1"))


def _unpack(draw, length):
    offset = draw.choice(
        ("0", "1", "2", str(length), str(length + 1), str(length - 1), "-1", "-2", "1.5", "2^31")
    )
    limit = draw.choice(("0", "1", "2", "3", "100", "-1", "-2", "2^31-1", "1.9"))
    return draw.choice(
        (
            "return cmsgpack.unpack(ARGV[2])",
            f"return cmsgpack.unpack_one(ARGV[2], {offset})",
            "return cmsgpack.unpack_one(ARGV[2])",
            f"return cmsgpack.unpack_limit(ARGV[2], {limit})",
            f"return cmsgpack.unpack_limit(ARGV[2], {limit}, {offset})",
        )
    )


# ---- struct ----

LETTERS = ("b", "B", "h", "H", "i", "I", "l", "L", "T", "f", "d", "s", "c", "x", ">", "<", "!", " ")
WRONG_LETTERS = (
    *("z", "a", "j", "n", "p", "q", "=", "@", "0", "5", "-", "S", "X", "C", "\\0", "\\255", "%", "'"),
)
SIZES = (
    *("0", "1", "2", "3", "4", "5", "7", "8", "9", "15", "16", "17", "31", "32", "33", "100"),
    *("2147483647", "2147483648"),
)


def _of_struct(draw):
    for _ in range(VALUES):
        letters = [_letter(draw) for _ in range(draw.choice((1, 1, 2, 3, 5, 9)))]
        values = "".join(f", {_for_letter(draw, letter)}" for letter in letters if letter[0] not in "x><! ")
        form = "".join(letters)
        more = draw.choice(("", "", "", ", 1, 2"))
        yield _case(f'local t = struct.pack("{form}"{values}{more}) return t, struct.unpack("{form}", t)')
        if draw.below(2):
            continue
        yield _case(f'return struct.size("{form}")')
        offset = draw.choice(
            ("", "", ", 1", ", 2", ", 5", ", 40", ", 41", ", 0", ", -1", ", 2^31", ", 1.9", ", 2^40")
        )
        data = draw.draw.randbytes(draw.below(60)) if draw.below(2) else draw.bytes()
        yield _case(f'return struct.unpack("{form}", ARGV[2]{offset})', data)
    for letter in LETTERS + WRONG_LETTERS:
        for size in ("", *SIZES) if letter in LETTERS else ("", "8"):
            form = letter + size
            yield _case(f'return struct.size("{form}")')
            yield _case(f'return struct.size("!b{form}")')
            yield _case(f'return struct.pack("{form}", 200)')
            yield _case(f'return struct.pack(">{form}", -2)')
            yield _case(f'return struct.pack("{form}")')
            yield _case(f'return struct.unpack("{form}", ARGV[2])', bytes(range(250, 200, -1)))
            yield _case(f'return struct.unpack(">!8b{form}", ARGV[2])', bytes(range(100, 250)))
            yield _case(f'return struct.unpack("{form}", "")')
    for letter in "bBhHiIlLTfd":
        for number in NUMBERS:
            yield _case(f'local t = struct.pack("{letter}", {number}) return t, struct.unpack("{letter}", t)')
            yield _case(f'return struct.pack(">i16", {number}), struct.pack("<I3", {number})')
    for words in (
        *("", "nil", '"b"', '"b", {}', '"b", "7"', '"b", "x"', '"s", 7', '"s", nil', "1"),
        '"bc0", "\\3abc"',
    ):
        for function in ("pack", "unpack", "size"):
            yield _case(f"return struct.{function}({words})")
    yield _case("local v = {} for k in pairs(struct) do v[#v + 1] = k end table.sort(v) return v")


def _letter(draw):
    if draw.below(40) == 0:
        return draw.choice(WRONG_LETTERS)
    letter = draw.choice(LETTERS)
    if letter in "iIc":
        return letter + draw.choice(("", "", *SIZES[:12]))
    if letter == "!":
        return letter + draw.choice(("", "1", "2", "4", "8", "16", "3", "0"))
    return letter


def _for_letter(draw, letter):
    if draw.below(30) == 0:
        return draw.value(2)
    if letter[0] not in "sc":
        return draw.number()
    if letter[1:].isdecimal() and int(letter[1:]) < 100:
        return literal(bytes(draw.draw.choices(b"ab\0\xff", k=int(letter[1:]))))
    return literal(draw.bytes())


# ---- bit ----


def _of_bit(draw):
    for _ in range(OPERANDS):
        a, b, c = (_operand(draw) for _ in range(3))
        by = draw.choice((b, str(draw.draw.randint(-70, 70))))
        one = ", ".join(f"bit.{name}({a})" for name in ("tobit", "bnot", "bswap", "tohex"))
        many = ", ".join(
            f"bit.{name}({a}, {b}), bit.{name}({a}, {b}, {c})" for name in ("band", "bor", "bxor")
        )
        shifts = ", ".join(f"bit.{name}({a}, {by})" for name in ("lshift", "rshift", "arshift", "rol", "ror"))
        yield _case(f"return {one}, {many}, {shifts}, bit.tohex({a}, {draw.draw.randint(-10, 10)})")
    names = (
        *("tobit", "bnot", "bswap", "tohex", "band", "bor", "bxor", "lshift", "rshift", "arshift"),
        *("rol", "ror"),
    )
    for name in names:
        for words in (
            *("", "nil", '"x"', '"7"', '" 0x7 "', "{}", "1, nil", '1, "2"', "1, {}", "true"),
            *("1, 2, 3, 4", "1, 2, nil"),
        ):
            yield _case(f"return bit.{name}({words})")
    yield _case("local v = {} for k in pairs(bit) do v[#v + 1] = k end table.sort(v) return v")


def _operand(draw):
    kind = draw.below(4)
    if kind == 0:
        return draw.number()
    if kind == 1:
        return f"{draw.draw.randint(-(2**31), 2**32 - 1)}"
    if kind == 2:
        return f"{draw.draw.randint(-(2**53), 2**53)}"
    return f"{draw.draw.randint(-(2**33), 2**33)}.5"


# ---- numbers and texts ----


def _of_texts(draw):
    for _ in range(FORMATS):
        flags = "".join(draw.draw.sample("-+ #0", draw.below(4)))
        width = draw.choice(("", "", str(draw.below(30)), str(draw.below(100)), "100"))
        precision = draw.choice(("", "", ".", f".{draw.below(20)}", f".{draw.below(100)}", ".100", ".-1"))
        letter = draw.choice("diouxXcseEfgGqaApn%LlhzS\\0 \\255")
        form = f"%{flags}{width}{precision}{letter}"
        value = draw.number() if draw.below(9) else draw.value(1)
        if letter in "sq" and draw.below(4):
            value = draw.text()
        yield _case(f'return string.format("<{form}>", {value})')
    for number in NUMBERS:
        for letter in "diouxXceEfgG":
            yield _case(f'return string.format("%{letter}", {number})')
        yield _case(
            f"return tostring({number}), {number} .. '', ('%s'):format({number}), ('%q'):format({number})"
        )
    for text in TEXTS:
        for form in ("%s", "%q", "%.3s", "%5s", "%-5s|", "%100s", "%d", "%c", "%x", "%g"):
            yield _case(f'return string.format("{form}", ARGV[2])', text)
    for words in (
        *("", "nil", "{}", '"%"', '"%d"', '"%d", nil', '"%s"', '"%s", nil', '"%s", true', '"%%"'),
        *('"a\\0%d", 1', "1"),
    ):
        yield _case(f"return string.format({words})")
    for form in (
        *("%00005d", "%-----5d", "%123d", "%1.123d", "%.5.5d", "%5", "%-", "%.", "%#", "%lld", "%*d"),
        *("%1$d", "%é"),
    ):
        yield _case(f'return string.format("{form}", 7)')
    for _ in range(FORMATS):
        base = draw.choice(
            ("", "", f", {draw.draw.randint(0, 40)}", ", 10", ", 16", ", 36", ", 2", ", 1.9", ", nil", ", -1")
        )
        yield _case(f"return tonumber(ARGV[2]{base})", _number_text(draw))
        yield _case(f"return tonumber({draw.number()}{base})")
    for words in (
        *("", "nil", "nil, 10", "{}", "{}, 16", "true", '"7", "8"', '"7", {}', '"7", "x"', '"", 36'),
        "2^53, 16",
    ):
        yield _case(f"return tonumber({words})")
        yield _case(f"return tostring({words.replace('{}', 'false')})")
    for byte in range(256):
        yield _case(
            f'return loadstring("return " .. string.char({byte}), "=" .. string.char(({byte} + 128) % 128))'
        )
        yield _case(f"return _G[string.char({byte})]")
        yield _case(f'local v = collectgarbage("x" .. string.char({byte or 1}))')
        yield _case(f"return error(string.char({byte}))")


def _number_text(draw):
    if draw.below(3) == 0:
        return draw.json_number()
    letters = draw.choice(
        (
            b"01",
            b"0123456789",
            b"0123456789abcdefxX",
            b"0123456789abcdefghijklmnopqrstuvwxyzABCXYZ",
            b"0159.eE+- x",
        )
    )
    text = bytes(draw.draw.choices(letters, k=draw.choice((1, 2, 5, 12, 20, 70))))
    return (
        draw.choice((b"", b"", b" ", b"-", b"+", b"0x", b"-0x", b"\t"))
        + text
        + draw.choice((b"", b"", b" ", b"\n", b"\0", b"."))
    )


# ---- limits ----


def _of_limits(_draw):
    for many in (7000, 8100):
        yield _case(f'return select("#", cmsgpack.unpack(("\\1"):rep({many})))')
        yield _case(f'return select("#", struct.unpack(("b"):rep({many}), ("a"):rep({many})))')
        yield _case(f'return cmsgpack.unpack_limit(("\\1"):rep({many}), {many + 1})')
    yield _case('return select("#", cmsgpack.unpack(("\\1"):rep(7950)))')
    yield _case(
        'local c = cjson.new() c.decode_max_depth(2000) return c.decode(("["):rep(1200) .. ("]"):rep(1200))'
    )
    yield _case(
        "local v, c = 1, cjson.new() c.encode_max_depth(2000) "
        "for _ = 1, 1200 do v = {v} end return c.encode(v)"
    )
    yield _case('return cmsgpack.unpack(("\\145"):rep(1200) .. "\\1")')
    yield _case("return next(1)")
    yield _case(
        'local x, y, z = ("x"):rep(40), ("y"):rep(41), ("z"):rep(44) '
        'return cjson.encode({[x] = 1, [y] = 2, [z] = 3, ["a"] = 4, ["b"] = 5})'
    )


_BOUNDED = "no text or value makes the server's own stack grow without bound"
REASONS = [
    Reason(r"_max_depth\(2000\)|145.*rep\(1200\)", _BOUNDED),
    Reason(r"rep\(7950\)", "some places are the host's"),
    Reason("^return next", "a part in Lua that is called last in a function has no line"),
    Reason(r"rep\(44\)", "stock Lua looks at some bytes of a long text for its place in a table"),
]


def sweep(_commands, _known):
    """The sweep; what is asked does not depend on the commands."""
    draw = Draw(random.Random(SEED))
    parts = (_of_cjson, _of_cmsgpack, _of_struct, _of_bit, _of_texts, _of_limits)
    cases = [case for part in parts for case in part(draw)]
    return Sweep("libraries", [*cases, *map(_uncaught, cases[::UNCAUGHT_EVERY])], REASONS)
