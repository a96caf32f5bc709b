"""Exit codes, and the output of errors."""

from __future__ import annotations

from BrainFusionLib.cli.remedies import PHRASES
from BrainFusionLib.console import say
from BrainFusionLib.errors import BrainFusionError

DONE, FAULT, WRONG_INPUT, NOT_FOUND, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143


def fail(error: BrainFusionError | str, code: int) -> int:
    """Print an error, with the remedy in terms of the command's options, and return the exit code."""
    if isinstance(error, BrainFusionError):
        say(*f"brainfusion: {error.phrased(PHRASES)}".split("\n"), error=True)
    else:
        say(f"brainfusion: {error}", error=True)
    return code
