"""Exit codes, and how a failure is told."""

from __future__ import annotations

from BrainFusionLib.console import say
from BrainFusionLib.errors import BrainFusionError

DONE, FAULT, WRONG_INPUT, NOT_FOUND, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143


def fail(error: BrainFusionError | str, code: int) -> int:
    """Tell an error in words, and return the exit code."""
    say(f"brainfusion: {error}", error=True)
    return code
