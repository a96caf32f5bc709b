"""How long each step takes, and whether to go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from BrainFusionLib.progress import Cancel, Progress, stop_if


class Clock:
    """Times the steps, and asks at each whether to go on."""

    def __init__(self, progress: Progress | None, cancel: Cancel | None) -> None:
        self.timings_s: dict[str, float] = {}
        self.progress = progress
        self.cancel = cancel

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a step under its name."""
        self._tell(name, 0.0)
        began = time.perf_counter()
        yield
        self.timings_s[name] = time.perf_counter() - began
        self._tell(name, 1.0)

    def under(self, name: str) -> Progress:
        """Return a progress that books what it is told under the name of a stage."""
        return lambda _, fraction: self._tell(name, fraction)

    def _tell(self, name: str, fraction: float) -> None:
        stop_if(self.cancel)
        if self.progress is not None:
            self.progress(name, fraction)
