"""Differences on purpose: which replies to drawn requests may differ from redis-server 7.0.15, and why. The only such table."""

import re
from dataclasses import dataclass

from sequences.shrinking import line


@dataclass(frozen=True)
class Reason:
    """Why replies differ: to requests whose line `requests` matches, if the replies match `expected` and `found`."""

    requests: str
    why: str
    expected: str = ""
    found: str = ""
    # What follows has no meaning: the state differs, too.
    ends: bool = False

    def explains(self, text, expected, found):
        """Whether this is the reason."""
        return bool(
            re.search(self.requests, text, re.IGNORECASE)
            and re.search(self.expected, expected)
            and re.search(self.found, found)
        )


REASONS = (
    Reason(
        "XGROUP CREATECONSUMER",
        "a consumer is there once it has asked, as in 7.2",
        expected=":1",
        found=":0",
    ),
    Reason(
        r"\bLPOS\b.* RANK -9223372036854775808",
        "a rank that cannot change its sign is refused, as in 7.2",
        found="out of range",
    ),
    Reason(
        r"\bZ(REV)?RANK\b",
        "WITHSCORE came with 7.2",
        expected="wrong number|Wrong number|EXECABORT",
    ),
    Reason(
        "EVAL|FCALL|ZUNION|ZINTER|ZDIFF|ZMPOP|LMPOP|SINTERCARD",
        "a count of keys that is no number is not read as one",
        expected="CROSSSLOT|non local",
        found="not an integer|out of range|numkeys|syntax",
    ),
    Reason(r"\bSCAN (?!0 )|\b[SHZ]SCAN \S+ (?!0 )", "cursors are Moonraft's own"),
    Reason(
        r"XREADGROUP .*STREAMS .*({k}x\d) .*\1 ",
        "a stream that is named twice is read as it was before the request",
        expected=r"\*",
        found=r"\*",
        ends=True,
    ),
    Reason(r"SORT(_RO)? .*BY .*LIMIT", "the elements of a set have no order to keep"),
    Reason(
        r"(BYLEX|LEXCOUNT) (?!{k}y0)|BYLEX",
        "the order of members tells nothing where scores differ",
        ends=True,
    ),
    Reason(
        r"\binf\b",
        "a time to wait that is too long to be one is out of range, as in 7.2",
        expected="timeout is negative",
        found="timeout is out of range",
    ),
    Reason(
        r"^(EVAL|FCALL|EXEC|FUNCTION).*WAIT",
        "a script may call WAIT, and is answered at once, as in 7.2",
        expected="not allowed from script",
        ends=True,
    ),
)


class Reasons:
    """The table, in use."""

    def __init__(self):
        self.used = dict.fromkeys(REASONS, 0)

    def explain(self, words, block, expected, found):
        """The reason for a difference, or None. What stands in a block is looked at with all of it."""
        text = "; ".join(line(request) for request in (words, *(block or ())))
        one, other = repr(expected), repr(found)
        for reason in REASONS:
            if reason.explains(text, one, other):
                self.used[reason] += 1
                return reason
        return None
