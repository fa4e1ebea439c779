"""Comparing raw replies: exactly, without order, by shape, with numbers as numbers, or errors only."""

from harness.wire import trees


def equal(kind, one, other):
    """Whether two raw replies are the same, in the given sense."""
    if one == other:
        return True
    if kind == "errors":
        return one[:1] != b"-" != other[:1]
    if kind == "exact" or not _is_reply(one) or not _is_reply(other):
        return False
    view = {"unordered": unordered, "shape": shape, "numbers": _numbers}[kind]
    return view(_parse_all(one)) == view(_parse_all(other))


def plain(reply):
    """A reply as texts, numbers and lists, from what it says as bytes."""
    if isinstance(reply, list):
        return [plain(item) for item in reply]
    return reply.decode() if isinstance(reply, bytes) else reply


def _is_reply(reply):
    return reply[:1] in b"+-:_#,($=!*~>%|" and reply[:1] != b""


def _parse_all(data):
    """All replies to one request, as if they were the elements of one."""
    return b"replies", trees(data)


def unordered(reply):
    """The reply with its elements in an order of their own, but for the two of a pair."""
    kind, payload = reply
    if not isinstance(payload, list):
        return reply
    items = [unordered(item) for item in payload]
    # A pair of a map is ordered, the pairs are not.
    return kind, items if kind == b"pair" else sorted(items, key=repr)


def shape(reply):
    """Of what kind a reply is, and its elements; of an error its first word."""
    kind, payload = reply
    if isinstance(payload, list):
        return kind, [shape(item) for item in payload]
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
