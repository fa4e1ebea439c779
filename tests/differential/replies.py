"""Comparing raw replies: exactly, without order, by shape, with numbers as numbers, or errors only."""


def equal(kind, one, other):
    """Whether two raw replies are the same, in the given sense."""
    if one == other:
        return True
    if kind == "errors":
        return one[:1] != b"-" != other[:1]
    if kind == "exact" or not _is_reply(one) or not _is_reply(other):
        return False
    view = {"unordered": _unordered, "shape": _shape, "numbers": _numbers}[kind]
    return view(_parse_all(one)) == view(_parse_all(other))


def plain(data):
    """One reply as texts, numbers and lists."""
    return _plain(_parse(data)[0])


def _plain(reply):
    kind, payload = reply
    if isinstance(payload, list):
        return [_plain(item) for item in payload]
    return int(payload) if kind == b":" else payload.decode()


def _is_reply(reply):
    return reply[:1] in b"+-:_#,($=!*~>%|" and reply[:1] != b""


def _parse_all(data):
    """All replies to one request, as if they were the elements of one."""
    found, position = [], 0
    while position < len(data):
        reply, position = _parse(data, position)
        found.append(reply)
    return b"replies", found


def _parse(data, position=0):
    """One reply as (kind, payload), with maps as lists of pairs; and where it ends."""
    end = data.index(b"\r\n", position) + 2
    kind, rest = data[position : position + 1], data[position + 1 : end - 2]
    if kind in b"+-:_#,(":
        return (kind, rest), end
    count = int(rest)
    if kind in b"$=!":
        if count < 0:
            return (b"_", b""), end
        return (kind, data[end : end + count]), end + count + 2
    items = []
    for _ in range(max(count, 0) * (2 if kind == b"%" else 1)):
        item, end = _parse(data, end)
        items.append(item)
    if count < 0:
        return (b"_", b""), end
    if kind == b"%":
        items = [(b"pair", list(pair)) for pair in zip(items[::2], items[1::2])]
    return (kind, items), end


def _unordered(reply):
    kind, payload = reply
    if not isinstance(payload, list):
        return reply
    items = [_unordered(item) for item in payload]
    # A pair of a map is ordered, the pairs are not.
    return kind, items if kind == b"pair" else sorted(items, key=repr)


def _shape(reply):
    kind, payload = reply
    if isinstance(payload, list):
        return kind, [_shape(item) for item in payload]
    if kind == b"-":
        return kind, payload.split(b" ")[0]
    return kind, None


def _numbers(reply):
    kind, payload = reply
    if isinstance(payload, list):
        return kind, [_numbers(item) for item in payload]
    try:
        return kind, float(payload) if kind in b"$," else payload
    except ValueError:
        return reply


def shorten(reply):
    """A reply as it is printed: of a long one, its beginning."""
    return repr(reply) if len(reply) <= 300 else f"{reply[:300]!r}… ({len(reply)} bytes)"
