"""The worker process as the runner sees it: started, spoken to, heard, and ended so that nothing of it is left.

Slicer's ``PythonSlicer`` is no Python, but a launcher that starts one and waits for it (CTKAppLauncher). Who kills the
launcher leaves the Python running, which may still be writing; and where the Python is killed or crashes, the launcher
ends with code 1.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence

from BrainFusionLib.errors import BrainFusionError

logger = logging.getLogger(__name__)

# Bytes of the end of the worker's output that are read: a crash is told ahead of where it happened.
OUTPUT_BYTES = 8000
# The launcher's words for a process that was killed or has crashed, and Python's for a crash.
ABNORMAL, CRASHED = "exit abnormally", re.compile(r"(?:Fatal Python error|Windows fatal exception): (.+)")
CLOSING_S = 0.05
# A process that is killed is gone within milliseconds, unless the system itself hangs.
ENDING_S, POLL_S = 2.0, 0.002


class EndedError(BrainFusionError):
    """The worker process ended amid a job."""


class WorkerProcess:
    """A worker that is running, from its start until `end`.

    Parameters
    ----------
    command
        What to start: a Python, or a launcher of one.
    environment
        Environment variables of the worker; this process's when ``None``.

    Raises
    ------
    OSError
        It cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed when the worker has ended)
        hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows would show a console
        try:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environment,
                creationflags=hidden,
            )
        except OSError:
            self._stderr.close()
            raise
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self._stdin, self._stdout = self.popen.stdin, self.popen.stdout
        os.set_blocking(self._stdout.fileno(), False)
        self._received = b""
        # Of the Python; known from the moment it is ready.
        self.python_pid: int | None = None
        self.has_closed = False

    def send(self, line: bytes) -> None:
        """Write a line to the worker."""
        self._stdin.write(line)
        self._stdin.flush()

    def lines(self) -> list[bytes]:
        """Return what the worker has said since the last time, a line each; does not wait."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._stdout.fileno(), 1 << 16):
                self._received += piece
            self.has_closed = True
        *lines, self._received = self._received.split(b"\n")
        return lines

    def has_ended(self) -> bool:
        """Say whether it has ended by itself."""
        return self.popen.poll() is not None

    def ends_now(self) -> bool:
        """Say whether a worker that has closed its output ends: it closes that when it ends, too."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(CLOSING_S)
        return self.has_ended()

    def how_it_ended(self) -> EndedError:
        """Return an error that says how a worker that has ended did so."""
        code = self.popen.wait()
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - OUTPUT_BYTES))
        output = self._stderr.read().decode(errors="replace").strip()
        logger.error("BrainFusion's worker process: %s", output)
        said = output.splitlines()
        is_launchers = bool(said) and ABNORMAL in said[-1]
        if is_launchers:
            said.pop()
        crash = CRASHED.search(output)
        how, memory, last = f"ended with code {code}", "", f" Last output: {said[-1]}" if said else ""
        if crash is not None:
            how, last = f"crashed ({crash[1].strip()})", ""
        elif is_launchers or code < 0:
            how = "was terminated by the system" if is_launchers else f"was terminated by signal {-code}"
        # Where memory runs out, the kernel ends a process with signal 9, which leaves no words.
        if code == -9 or (is_launchers and crash is None):
            memory = " Most likely there was not enough memory: close other programs, or choose smaller volumes."
        return EndedError(f"the worker process {how} during its work; nothing was changed.{memory}{last}")

    def end(self) -> None:
        """End it, and return when nothing of it is left that could write."""
        if self.python_pid not in (None, self.popen.pid) and not self.has_ended():
            # The launcher is there, and so the Python that it waits for: the id is nobody else's.
            with contextlib.suppress(OSError):
                os.kill(self.python_pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        with contextlib.suppress(OSError):  # at the end of its stdin it ends by itself, too
            self._stdin.close()
        self.popen.kill()
        self.popen.wait()
        if self.python_pid is not None:  # else it has no work yet
            self._wait_until_closed()
        with contextlib.suppress(OSError):
            self._stdout.close()
        self._stderr.close()

    def _wait_until_closed(self) -> None:
        """Wait until its output is closed, which it keeps open as long as it lives."""
        until = time.monotonic() + ENDING_S
        with contextlib.suppress(OSError):
            while not self.has_closed and time.monotonic() < until:
                self.lines()
                time.sleep(POLL_S)
