"""How long work tells its caller where it is, and asks whether to go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from BrainFusionLib.errors import Cancelled

Cancel = Callable[[], bool]


class Progress(Protocol):
    """Is told how far a stage is: its name, and a fraction from 0 to 1."""

    def __call__(self, stage: str, fraction: float) -> object:
        """Take note."""


def stop_if(cancel: Cancel | None) -> None:
    """Raise `Cancelled` when the caller wants to stop.

    Raises
    ------
    Cancelled
        `cancel` said yes.
    """
    if cancel is not None and cancel():
        raise Cancelled("cancelled as asked; nothing was changed")
