"""Runs drawn sequences on both servers, and shrinks what differs."""

import time

import replies
from sequences import differences, scripts, shrinking
from sequences.playing import Stage
from sequences.units import Units
from situation import question
from sweeps.drawn import Commands

from harness.wire import Wire

# Those of CI; others are given by `--seed`, `--commands`.
SEED = 7_0_15
COMMANDS = 200_000
# Differences that are shrunk and told; more would say the same.
TOLD_MAX = 10

VALUES = (
    ("SET", "k", "10"),
    ("SET", "k", "text"),
    ("RPUSH", "k", "a", "b", "1"),
    ("HSET", "k", "a", "1", "b", "2"),
    ("SADD", "k", "1", "2"),
    ("SADD", "k", "a", "b"),
    ("ZADD", "k", "1", "a", "2.5", "b"),
    ("XADD", "k", "1-1", "f", "v"),
    ("PFADD", "k", "a", "b"),
)


def payloads(port):
    """Values as `DUMP` of the real server gives them, and libraries as `FUNCTION DUMP` does."""
    values, libraries = [], [b"x"]
    with Wire(port) as wire:
        for words in VALUES:
            wire.ask("DEL", "k")
            wire.ask(*words)
            values.append(wire.query("DUMP", "k"))
        wire.ask("DEL", "k")
        for text in scripts.LIBRARIES[:4]:
            wire.ask("FUNCTION", "FLUSH")
            wire.ask("FUNCTION", "LOAD", text)
            libraries.append(wire.query("FUNCTION", "DUMP"))
        wire.ask("FUNCTION", "FLUSH")
    return values, libraries


class Run:
    """Sequences of one seed."""

    def __init__(self, ports, seed):
        self.seed = seed
        self.stage = Stage(ports)
        self.commands = Commands(ports[0])
        self.known = set(self.commands.facts) & set(Commands(ports[1]).facts)
        self.payloads, self.libraries = payloads(ports[0])
        self.reasons = differences.Reasons()
        self.requests = self.explained = 0
        self.told = []

    def units(self, number):
        """The sequence of this number, to be drawn."""
        seed = f"{self.seed}:{number}"
        return Units(self.commands.docs, self.known, self.payloads, self.libraries, seed)

    def play(self, number):
        """Plays one; tells what differs, made short."""
        units = self.units(number)
        steps = units.sequence()
        difference, explained = self.stage.play(steps, units.protocol, self.reasons)
        self.requests += len(steps)
        self.explained += explained
        if difference is None:
            return
        shrinker = shrinking.Shrinker(lambda few: self.stage.play(few, units.protocol, self.reasons)[0], difference)
        few, shown = shrinker.shrink(steps)
        self.told.append(_told(self.seed, number, units.protocol, few, shown))


def _told(seed, number, protocol, steps, difference):
    lines = [f"sequences differ: seed {seed}, number {number}, RESP{protocol}, at {difference.row}"]
    for step in steps:
        lines.append("    " + ("" if step.connection == "a" else f"@{step.connection} ") + shrinking.line(step.words))
    if difference.at >= len(steps):
        lines.append(f"    # then {shrinking.line(difference.words)}")
    lines.append(f"    redis    {replies.shorten(difference.expected)}")
    lines.append(f"    moonraft {replies.shorten(difference.found)}")
    return "\n".join(lines)


def sweep(ports, comparison, seed=SEED, commands=COMMANDS, only=None):
    """So many commands of a seed, or the sequence with one number."""
    began, run, number = time.monotonic(), Run(ports, seed), 0
    if only is not None:
        run.play(only)
    while only is None and run.requests < commands and len(run.told) < TOLD_MAX:
        run.play(number)
        number += 1
    comparison.requests += run.requests
    comparison.failures += run.told
    seconds = time.monotonic() - began
    print(
        f"sequences: seed {seed}, {number} sequences, {run.requests} requests in {seconds:.1f} s, "
        f"{len(run.told)} differ unexpectedly, {run.explained} replies as documented"
    )
    for reason, used in run.reasons.used.items():
        if not used and run.requests >= COMMANDS:
            print(f"    not met: {reason.why}")
