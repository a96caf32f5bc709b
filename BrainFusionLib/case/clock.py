"""Timing, progress and cancelling of the steps of a case."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from BrainFusionLib.progress import Cancel, Progress, stop_if


class Clock:
    """Times the steps, reports their progress, and stops if the caller cancels."""

    def __init__(self, progress: Progress | None, cancel: Cancel | None) -> None:
        self.timings_s: dict[str, float] = {}
        self.progress = progress
        self.cancel = cancel

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a step and report its progress."""
        self._report(name, 0.0)
        began = time.perf_counter()
        yield
        self.timings_s[name] = time.perf_counter() - began
        self._report(name, 1.0)

    def under(self, name: str) -> Progress:
        """Return a progress callback that reports every stage under the name given."""
        return lambda _, fraction: self._report(name, fraction)

    def _report(self, name: str, fraction: float) -> None:
        stop_if(self.cancel)
        if self.progress is not None:
            self.progress(name, fraction)
