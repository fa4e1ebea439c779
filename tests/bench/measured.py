"""A server that a bench measures."""

import atexit
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.processes import eventually  # noqa: E402
from harness.wire import Wire  # noqa: E402


class Server:
    """A process, a connection to it, and what it uses."""

    def __init__(self, name, process, port):
        self.name, self.process = name, process
        atexit.register(process.kill)
        self.client = eventually(lambda: Wire(port), within=30, what=f"{name} listens")
        if name == "Redis":
            self.client.query("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: self.client.query("DEL", "any") == 0, within=30, what=f"{name} serves")
