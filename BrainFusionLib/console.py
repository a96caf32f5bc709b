"""Output of the console command: text, and a line of progress."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO

WIDTH = 24
LABEL_WIDTH = 14
# Least time between two redraws, so that a slow terminal does not slow the work.
INTERVAL_S = 0.1


def say(words: str, *, error: bool = False) -> None:
    """Write a line for the user; errors go to the error stream.

    If the reader has closed the pipe (``brainfusion cohort ... | head``), the work continues silently.
    """
    stream = sys.stderr if error else sys.stdout
    # A name that is not UTF-8 on the disk, or a stream of a few letters only, must not end the work.
    words = words.encode(stream.encoding or "utf-8", "replace").decode(stream.encoding or "utf-8")
    try:
        stream.write(words + "\n")
        stream.flush()
    except BrokenPipeError:
        # The stream keeps the unwritten text, and would fail again at exit: redirect it to the null device.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class ProgressLine:
    """A bar with the stage, its percentage and the time since the start, on one line of a terminal.

    If the stream is not a terminal (a log file), each stage gets one plain line instead. This class is a
    `BrainFusionLib.progress.Progress`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0
        self._stage = ""

    def __call__(self, stage: str, fraction: float) -> None:
        """Show the progress of `stage`, 0 to 1."""
        now = time.monotonic()
        new_stage = stage != self._stage
        self._stage = stage
        if not self._terminal:
            if new_stage:
                self._stream.write(f"{stage} ...\n")
                self._stream.flush()
            return
        if new_stage or fraction >= 1 or now - self._drawn >= INTERVAL_S:
            self._drawn = now
            filled = round(WIDTH * min(max(fraction, 0.0), 1.0))
            bar = "#" * filled + "." * (WIDTH - filled)
            self._stream.write(f"\r{stage:<{LABEL_WIDTH}} [{bar}] {100 * fraction:3.0f} %  {now - self._began:5.1f} s ")
            self._stream.flush()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the line."""
        if self._terminal:
            self._stream.write("\r" + " " * (LABEL_WIDTH + WIDTH + 24) + "\r")
            self._stream.flush()
