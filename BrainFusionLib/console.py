"""Output of the console command: text, and a line of progress."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from types import TracebackType
from typing import TextIO

from BrainFusionLib.printable import shown

WIDTH = 24
LABEL_WIDTH = 14
# Least time between two redraws, so that a slow terminal does not slow the work.
INTERVAL_S = 0.1

_lost: list[str] = []


def say(*lines: str, error: bool = False) -> None:
    """Write lines for the user; errors go to the error stream.

    A stream that is closed, full or gone (``brainfusion cohort ... | head``, ``> /dev/full``, ``2>&-``) does not end
    the work; see `lost_output`.
    """
    _write(sys.stderr if error else sys.stdout, "".join(f"{_one_line(line)}\n" for line in lines))


def _one_line(text: str) -> str:
    return "\t".join(map(shown, text.split("\t")))  # tables have tabs


def lost_output() -> str:
    """Return why text for the output stream was lost, or nothing; a reader who closed the pipe wanted no more."""
    return _lost[0] if _lost else ""


class SaidLog(logging.Handler):
    """Puts what the library logs through the same door, on the error stream."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; one that does not fit its own text ends nothing, as with Python's handlers."""
        try:
            say(*self.format(record).split("\n"), error=True)
        except Exception:
            self.handleError(record)


def close_output() -> None:
    """Write out what the streams still hold, so that nothing is left to fail as Python ends."""
    for stream in (sys.stdout, sys.stderr):
        _write(stream, "")


def _write(stream: TextIO | None, words: str) -> None:
    if stream is None:  # closed before Python started
        return
    try:
        # A name that is not UTF-8 on the disk, or a stream of a few letters only, must not end the work.
        encoding = stream.encoding or "utf-8"
        stream.write(words.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except (OSError, ValueError) as error:  # ValueError: closed by another part of the program
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            _lost.append(getattr(error, "strerror", None) or str(error))
        # The stream keeps the unwritten text, and would fail again at exit: redirect it to the null device.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


class ProgressLine:
    """A bar with the stage, its percentage and the time since the start, on one line of a terminal.

    If the stream is not a terminal (a log file), each stage gets one plain line instead. This class is a
    `BrainFusionLib.progress.Progress`.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._terminal = stream is not None and stream.isatty()
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
                _write(self._stream, f"{shown(stage)} ...\n")
            return
        if new_stage or fraction >= 1 or now - self._drawn >= INTERVAL_S:
            self._drawn = now
            filled = round(WIDTH * min(max(fraction, 0.0), 1.0))
            bar = "#" * filled + "." * (WIDTH - filled)
            _write(
                self._stream,
                f"\r{shown(stage):<{LABEL_WIDTH}} [{bar}] {100 * fraction:3.0f} %  {now - self._began:5.1f} s ",
            )

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the line."""
        if self._terminal:
            _write(self._stream, "\r" + " " * (LABEL_WIDTH + WIDTH + 24) + "\r")
