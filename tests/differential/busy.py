"""Every command at a server whose script is over its time, in all states a session may be in.

A session is brought into its state, then a script runs away on both servers. While it does, each session sends
its request, and some `EXEC` behind it. The script is killed, and the blocks that are still open are executed: what
they did is compared, too. One script serves all rows of the table.
"""

from situation import END, ENDING, NEWER, Pair, question, rows, shown

from harness.processes import eventually

SCRIPT = "while true do end"
KEY = "{busy}key"

# Not sent, and why.
LEFT_OUT = {"shutdown": "it would end both servers", **dict.fromkeys(ENDING, "it would end redis-server")}

# What is told of a server and a session differs; only its shape counts.
SHAPES = {"hello": "shape"}


class State:
    """A state of a session: how it comes about, and what follows the request before the script has ended."""

    def __init__(self, name, before=(), after=(), executes=False):
        self.name = name
        self.before = before
        self.after = after
        # Whether `EXEC` follows once the script has ended.
        self.executes = executes


BLOCK = (["MULTI"], ["SET", "{busy}paid:%d", "yes"])

STATES = (
    State("alone"),
    State("alone, RESP3", before=(["HELLO", "3"],)),
    State("in a block", before=BLOCK, executes=True),
    State("in a block with WATCH", before=(["WATCH", KEY], *BLOCK), executes=True),
    State("in a block that EXEC ends", before=BLOCK, after=(["EXEC"],), executes=True),
    State("listening", before=(["SUBSCRIBE", "news"],), after=(["RESET"],)),
    State("listening, RESP3", before=(["HELLO", "3"], ["SUBSCRIBE", "news"])),
    State("without replies", before=(["CLIENT", "REPLY", "OFF"],), after=(["RESET"],)),
    State("without the next reply", before=(["CLIENT", "REPLY", "SKIP"],)),
)


class Session:
    """One session with its request, on both servers."""

    def __init__(self, ports, number, state, row, words):
        self.pair = Pair(ports)
        self.number = number
        self.state = state
        self.row = row
        self.words = words
        self.before = [[self._numbered(word) for word in words] for words in state.before]

    def _numbered(self, word):
        return word % self.number if "%" in word else word

    def begin(self):
        """Brings it into its state."""
        self.pair.send(*self.before)
        if not self.is_silent():
            self.pair.send([END])

    def has_begun(self):
        """Reads what it was told."""
        if not self.is_silent():
            self.pair.until_end()

    def is_silent(self):
        """Whether its next request is not answered."""
        return any(words[:2] == ["CLIENT", "REPLY"] for words in self.before)

    def send(self):
        """Sends its request while the script runs."""
        self.pair.send(self.words, *self.state.after, [END])

    def finish(self):
        """Executes what is open, and looks at what it did."""
        self.pair.send(["EXEC"], ["GET", self._numbered("{busy}paid:%d")], [END])

    def compare(self, comparison, when):
        """Takes the replies of both."""
        text = f"{shown(self.words)} ({self.state.name}, {when})"
        compare = SHAPES.get(self.row.name, "exact")
        difference = self._difference() if when == "while it runs" else None
        protocol = 3 if ["HELLO", "3"] in self.before else 2
        expected, found = self.pair.until_end()
        comparison.compare(question("busy", text, compare, difference), protocol, expected, found)


    def _difference(self):
        """Why its request is answered differently, if it is."""
        name, state = self.row.name, self.state.name
        is_right = len(self.words) == abs(self.row.arity)
        if self.is_silent():
            return None  # neither says anything
        if name in NEWER:
            return "it is newer than 7.0"
        if name == "replconf" and is_right and state != "listening" and "block" not in state:
            return "no Redis follows by it"
        if name == "client|reply" and "block" in state and is_right:
            return "refused in a block, as by Valkey 9"
        # To Redis the words of DEBUG are arguments, which it does not look at so early.
        if name == "debug" and is_right:
            return "DEBUG has no such subcommand"
        if name.startswith("debug|") and (state == "listening" or not is_right):
            return "words of DEBUG are rows"
        return None


def _requests(table, state):
    for row in table:
        if row.name in LEFT_OUT:
            continue
        yield row, row.request(KEY)
        if state.name in ("alone", "in a block"):
            yield row, row.request("1")
            wrong = row.wrong_request(KEY)
            if wrong:
                yield row, wrong
    yield table[0], ["NO-SUCH", "command"]


def _would_kill(state, words):
    return [word.lower() for word in words] == ["script", "kill"] and "block" not in state.name


def sweep(ports, comparison):
    """All rows in all states, a runaway script a state."""
    table = rows(ports[1])
    with_threshold(ports, 1)
    try:
        for state in STATES:
            sessions = [
                Session(ports, number, state, row, words)
                for number, (row, words) in enumerate(_requests(table, state))
                if not _would_kill(state, words)
            ]
            _beside_a_script(ports, sessions, comparison)
    finally:
        with_threshold(ports, 5000)


def with_threshold(ports, milliseconds):
    """Sets after how long a script is over its time."""
    pair = Pair(ports)
    pair.ask("CONFIG", "SET", "busy-reply-threshold", milliseconds)
    pair.close()


def _beside_a_script(ports, sessions, comparison):
    owner, operator = Pair(ports), Pair(ports)
    for session in sessions:
        session.begin()
    for session in sessions:
        session.has_begun()
    owner.send(["EVAL", SCRIPT, "1", KEY])
    eventually(
        lambda: all(reply.startswith(b"-BUSY") for reply in operator.ask("GET", KEY)),
        what="both servers say that they are busy",
    )
    for session in sessions:
        session.send()
    for session in sessions:
        session.compare(comparison, "while it runs")
    # Who kills it was not there when it began.
    guest = Pair(ports)
    comparison.compare(question("busy", "script kill"), 2, *guest.ask("SCRIPT", "KILL"))
    ends = [wire.receive() for wire in owner.wires]
    comparison.compare(question("busy", "the killed script"), 2, *ends)
    executing = [session for session in sessions if session.state.executes]
    for session in executing:
        session.finish()
    for session in executing:
        session.compare(comparison, "EXEC once it is killed")
    for pair in [owner, operator, guest, *(session.pair for session in sessions)]:
        pair.close()
