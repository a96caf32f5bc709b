"""Callbacks for progress and cancelling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from BrainFusionLib.errors import Cancelled

Cancel = Callable[[], bool]


class Progress(Protocol):
    """Receives the progress of a stage: its name, and a fraction from 0 to 1."""

    def __call__(self, stage: str, fraction: float) -> object:
        """Receive the progress."""


def stop_if(cancel: Cancel | None) -> None:
    """Raise `Cancelled` if the caller wants to stop.

    Raises
    ------
    Cancelled
        `cancel` returned true.
    """
    if cancel is not None and cancel():
        raise Cancelled("cancelled as requested; nothing was changed")
