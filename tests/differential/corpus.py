"""The corpus's grammar: one request a line, in redis-cli's quoting.

    set k "two words\\r\\n"     a request; the replies must be equal, byte for byte
    ~ smembers s              the order of elements does not count
    ? ttl k                   only the shape counts: kinds, and lengths of arrays
    @other get k              on another connection, made when first named
    (2) subscribe a b         a request with two replies (0 for none)
    <                         no request, but one more reply
    > "*1\\r\\n$x\\r\\n"          bytes as they are, one reply
    ! reason                  the next request is known to be answered differently
    # comment

The marks `@`, `~` or `?`, and `(n)` may stand together, in that order. A file
starts with an empty keyspace and new connections.
"""

import re
from dataclasses import dataclass

MARKS = re.compile(
    r"^(?:@(?P<connection>\w+)\s+)?(?:(?P<compare>[~?])\s+)?(?:\((?P<replies>\d+)\)\s+)?"
)

ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "b": b"\b", "a": b"\a"}


class CorpusError(Exception):
    """A line that does not follow the grammar."""


@dataclass(frozen=True)
class Request:
    """A line of the corpus."""

    place: str
    text: str
    connection: str
    # "exact", "unordered" or "shape"
    compare: str
    # Exactly one of these two is set, or neither: a reply without a request.
    words: tuple
    raw: bytes
    replies: int
    # Why the replies are known to differ, or None.
    difference: str


def read(path):
    """The requests of a file, in order."""
    requests, difference = [], None
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        place, line = f"{path.name}:{number}", line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("! "):
            difference = line[2:].strip()
            continue
        requests.append(_request(place, line, difference))
        difference = None
    if difference:
        raise CorpusError(f"{path.name} ends with a reason and no request")
    return requests


def _request(place, line, difference):
    marks = MARKS.match(line)
    rest = line[marks.end() :]
    words, raw = (), b""
    if rest.startswith("> "):
        (raw,) = split(rest[2:], place)
    elif rest != "<":
        words = tuple(split(rest, place))
    return Request(
        place=place,
        text=line,
        connection=marks["connection"] or "main",
        compare={"~": "unordered", "?": "shape", None: "exact"}[marks["compare"]],
        words=words,
        raw=raw,
        replies=int(marks["replies"] or 1),
        difference=difference,
    )


def split(text, place="?"):
    """Splits a line into words as redis-cli does (sdssplitargs)."""
    words, position = [], 0
    while position < len(text):
        if text[position].isspace():
            position += 1
        else:
            word, position = _word(text, position, place)
            words.append(word)
    return words


def _word(text, position, place):
    word = b""
    while position < len(text) and not text[position].isspace():
        character = text[position]
        if character not in "\"'":
            word += character.encode()
            position += 1
            continue
        quoted, position = _quoted(text, position, place)
        word += quoted
        if position < len(text) and not text[position].isspace():
            raise CorpusError(f"{place}: a quote ends inside a word")
    return word, position


def _quoted(text, position, place):
    quote, word = text[position], b""
    position += 1
    while position < len(text) and text[position] != quote:
        if text[position] != "\\":
            word += text[position].encode()
            position += 1
        elif quote == '"' and re.match(r"x[0-9a-fA-F]{2}", text[position + 1 :]):
            word += bytes.fromhex(text[position + 2 : position + 4])
            position += 4
        elif quote == "'" and text[position + 1 : position + 2] != "'":
            word += b"\\"
            position += 1
        else:
            character = text[position + 1 : position + 2]
            escape = ESCAPES.get(character) if quote == '"' else None
            word += escape if escape is not None else character.encode()
            position += 2
    if position >= len(text):
        raise CorpusError(f"{place}: a quote is not closed")
    return word, position + 1
