"""Server processes, the ports they get, and waiting for what they do.

Nothing in the suites sleeps to give a server time. A process is waited for by
what it prints, everything else by `eventually`, which asks until the answer is
yes or a deadline makes the test fail with the last reason for "no".
"""

import os
import random
import signal
import socket
import subprocess
import threading
import time

# Between two looks at a condition: short beside an election (about 1 s), long
# beside the cost of asking.
POLL_SECONDS = 0.02

# Servers listen below the range from which the kernel takes ports for outgoing
# connections, or a client's socket could take a port between choice and use.
PORT_LOWEST = 12000
PORT_HIGHEST = 32000


def eventually(check, within=20.0, what=None):
    """Calls `check` until it returns something true, and returns that.

    An exception counts as "not yet"; it is the reason given when time is up.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            outcome, reason = check(), "the condition stayed false"
            if outcome:
                return outcome
        except Exception as error:  # every failure means "not yet"
            reason = f"{type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            what = what or getattr(check, "__name__", "condition")
            raise AssertionError(f"not within {within:g} s: {what} ({reason})")
        time.sleep(POLL_SECONDS)


def free_ports(count):
    """The first of `count` consecutive ports on which nobody listens."""
    for _ in range(200):
        first = random.randrange(PORT_LOWEST, PORT_HIGHEST - count)
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError(f"no {count} free ports in a row")


def is_free(port):
    """Whether nobody listens on a port."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def run(*words, check=True, within=240):
    """A finished command, with its output as text; that is in the error if it failed."""
    words = [str(word) for word in words]
    done = subprocess.run(words, capture_output=True, text=True, timeout=within, check=False)
    if check and done.returncode != 0:
        raise AssertionError(
            f"`{' '.join(words)}` ended with {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


class Process:
    """A child process whose output is kept in a file and can be waited for."""

    def __init__(self, words, log_path, directory=None, environment=None):
        self.words = [str(word) for word in words]
        self.log_path = log_path
        self._lines = []
        self._changed = threading.Condition()
        self._ended = False
        self._paused = False
        self._child = subprocess.Popen(
            self.words,
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is for pytest, which then ends its servers.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self):
        """The process id."""
        return self._child.pid

    def _read(self):
        with open(self.log_path, "ab") as log:
            for line in self._child.stdout:
                log.write(line)
                log.flush()
                with self._changed:
                    self._lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for_line(self, start, within=60.0):
        """Blocks until a line that begins with `start` was printed."""

        def found():
            return next((line for line in self._lines if line.startswith(start)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, timeout=within)
            line = found()
        if line is None:
            state = "ended" if self._ended else "is still silent"
            raise AssertionError(
                f"`{' '.join(self.words)}` {state} without a line `{start}…`; "
                f"its last lines ({self.log_path}):\n" + "\n".join(self._lines[-20:])
            )
        return line

    def output(self):
        """Everything printed so far."""
        with self._changed:
            return "\n".join(self._lines)

    def cpu(self):
        """Seconds of processor time of all its threads since its start."""
        # The clock of another process, as clock_getcpuclockid(3) makes it of its id.
        return time.clock_gettime(~self.pid << 3 | 2)

    def is_running(self):
        """Whether the process has not ended."""
        return self._child.poll() is None

    def signal(self, number):
        """Sends a signal, if there is still somebody to receive it."""
        if self.is_running():
            os.kill(self.pid, number)

    def pause(self):
        """Stops the process in its tracks (SIGSTOP), as a frozen machine would."""
        self._paused = True
        self.signal(signal.SIGSTOP)

    def resume(self):
        """Takes a pause back."""
        if self._paused:
            self._paused = False
            self.signal(signal.SIGCONT)

    def kill(self):
        """Ends the process as a crash does: no handler runs."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self, within=20.0):
        """Asks the process to end (SIGTERM) and returns its exit code."""
        self.resume()
        self.signal(signal.SIGTERM)
        return self.wait(within)

    def wait(self, within=20.0):
        """Waits for the end of the process and returns its exit code."""
        try:
            code = self._child.wait(within)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._child.wait()
            raise AssertionError(f"`{' '.join(self.words)}` did not end in {within:g} s") from None
        self._reader.join()
        return code
