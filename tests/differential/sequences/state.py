"""All that can be told of a server's state after a sequence: each key whole, and what is beside the keys."""

from sequences.values import ALL_KEYS

KEYS = [key.encode() for key in ALL_KEYS]
CONTENT = {
    b"string": ((b"GET",), ()),
    b"list": ((b"LRANGE",), (b"0", b"-1")),
    b"hash": ((b"HGETALL",), ()),
    b"set": ((b"SMEMBERS",), ()),
    b"zset": ((b"ZRANGE",), (b"0", b"-1", b"WITHSCORES")),
    b"stream": ((b"XINFO", b"STREAM"), (b"FULL", b"COUNT", b"0")),
}
GROUPS_SHOWN = (b"g", b"h")


def rounds():
    """Questions in rounds: each asks with what it is given, and tells words with both replies."""
    return (_facts, _contents)


def _facts(ask):
    """Of each key its type and deadline."""
    words = [(name, key) for key in KEYS for name in (b"TYPE", b"PEXPIRETIME")]
    words += [(b"FUNCTION", b"LIST", b"WITHCODE")]
    return list(zip(words, *ask(words), strict=True))


def _contents(ask):
    """All that each key holds. Types are the same on both servers by now."""
    types, _ = ask([(b"TYPE", key) for key in KEYS])
    words = []
    for key, kind in zip(KEYS, types, strict=True):
        kind = kind[1:-2]
        if kind not in CONTENT:
            continue
        before, after = CONTENT[kind]
        words += [(*before, key, *after), (b"OBJECT", b"ENCODING", key)]
        if kind == b"stream":
            words += [(b"XINFO", b"GROUPS", key)]
            words += [(b"XPENDING", key, group, b"-", b"+", b"1000") for group in GROUPS_SHOWN]
    return list(zip(words, *ask(words), strict=True))
