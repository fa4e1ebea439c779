"""Scripts and functions that call drawn commands: their arguments are the calls, each with its number of words before it."""

_EACH = """local out, at = {}, 1
while at <= #ARGV do
  local n = tonumber(ARGV[at])
  -- Arguments of another meaning, while a sequence is made shorter, must not keep it running.
  if not n or n < 0 then break end
  out[#out + 1] = redis.%s(unpack(ARGV, at + 1, at + n))
  at = at + n + 1
end
"""
_RETURN = "return out"

SCRIPTS = (
    _EACH % "pcall" + _RETURN,
    _EACH % "pcall" + _RETURN,
    _EACH % "call" + _RETURN,
    "redis.setresp(3) " + _EACH % "pcall" + _RETURN,
    _EACH % "pcall" + "error('after all')",
    "#!lua\n" + _EACH % "pcall" + _RETURN,
    "#!lua flags=no-writes\n" + _EACH % "pcall" + _RETURN,
    "#!lua flags=allow-cross-slot-keys\n" + _EACH % "call" + _RETURN,
)


def _library(name, functions):
    text = f"#!lua name={name}\nlocal function pcalls(KEYS, ARGV) {_EACH % 'pcall' + _RETURN} end\n"
    text += f"local function calls(KEYS, ARGV) {_EACH % 'call' + _RETURN} end\n"
    for function, body, flags in functions:
        text += f"redis.register_function{{function_name='{function}', callback={body}, flags={{{flags}}}}}\n"
    return text


LIBRARIES = (
    _library("lib1", [("f1", "pcalls", ""), ("f2", "calls", "'no-writes'")]),
    _library("lib1", [("f1", "calls", "")]),
    _library("lib2", [("f3", "pcalls", "'allow-cross-slot-keys'"), ("f4", "pcalls", "'no-writes', 'allow-oom'")]),
    _library("lib2", [("f1", "pcalls", "")]),
    "#!lua name=lib3\nredis.register_function('f5', function(keys, args) return args end)",
    "#!lua name=lib3\nno lua at all",
    "#!lua name=bad-name\nreturn 1",
    "return 1",
)
FUNCTIONS = ("f1", "f1", "f2", "f3", "f4", "f5", "nope")


def packed(calls):
    """Calls as arguments."""
    return [word for words in calls for word in (str(len(words)).encode(), *words)]


def unpacked(arguments):
    """The calls that these arguments are; none if they are something else."""
    calls, at = [], 0
    while at < len(arguments):
        if not arguments[at].isdigit():
            return []
        end = at + 1 + int(arguments[at])
        calls.append(tuple(arguments[at + 1 : end]))
        at = end
    return calls
