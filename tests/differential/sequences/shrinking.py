"""Makes a sequence that shows a difference as short as it can: fewer requests, then fewer and plainer words."""

import time
from dataclasses import replace

PLAYS_MAX = 600
SECONDS_MAX = 40


class Shrinker:
    """Tries shorter sequences; keeps those that still show a difference of the same row."""

    def __init__(self, play, difference):
        self.play = play
        self.difference = difference
        self.plays = 0
        self.until = time.monotonic() + SECONDS_MAX

    def shrink(self, steps):
        """The shortest that was found, and its difference."""
        steps = steps[: self.difference.at + 1]
        steps = self._fewer_steps(steps)
        steps = self._fewer_words(steps)
        return self._fewer_steps(steps), self.difference

    def _shows(self, steps):
        if self.plays >= PLAYS_MAX or time.monotonic() > self.until or not steps:
            return False
        self.plays += 1
        found = self.play(steps)
        if found is None or found.row != self.difference.row:
            return False
        self.difference = found
        return True

    def _fewer_steps(self, steps):
        size = max(len(steps) // 2, 1)
        while True:
            at = 0
            while at < len(steps):
                shorter = steps[:at] + steps[at + size :]
                if self._shows(shorter):
                    steps = shorter
                else:
                    at += size
            if size == 1:
                return steps
            size = max(size // 2, 1)

    def _fewer_words(self, steps):
        for at in range(len(steps)):
            size = max((len(steps[at].words) - 1) // 2, 1)
            while True:
                word = 1
                while word < len(steps[at].words):
                    words = steps[at].words[:word] + steps[at].words[word + size :]
                    shorter = [*steps[:at], replace(steps[at], words=words), *steps[at + 1 :]]
                    # A request that waits needs its time: without it, it might wait for ever.
                    if b"0.01" not in steps[at].words[word : word + size] and self._shows(shorter):
                        steps = shorter
                    else:
                        word += size
                if size == 1:
                    break
                size = max(size // 2, 1)
        return steps


def line(words):
    """A request as a line of the corpus."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word):
    text = word.decode("latin-1")
    if text and all("!" <= character <= "~" for character in text) and not set(text) & set("\"'\\"):
        return text
    escapes = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c) or (c if " " <= c <= "~" else f"\\x{ord(c):02x}") for c in text) + '"'
