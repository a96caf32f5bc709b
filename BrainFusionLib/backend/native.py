"""The loops in C behind the backend of the CPU: ``kernel.c``, ``arrays.c``, ``resample.c`` (see `native`)."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

from BrainFusionLib.native import load_compiled

# The functions, and the kinds of their arguments: p is a pointer, w a whole number, f a float.
_FUNCTIONS = {
    "brainfusion_look_up": "ppwpwppwppp",
    "brainfusion_pull": "pwwpppwp",
    "brainfusion_pool": "pwwpppp",
    "brainfusion_cells": "pwpwffp",
    "brainfusion_bins": "pwpwp",
    "brainfusion_nearest": "pwppwpwp",
    "brainfusion_resample": "ppppfp",
    "brainfusion_sample": "ppppwp",
}
_KINDS: dict[str, Any] = {"p": ctypes.c_void_p, "w": ctypes.c_int64, "f": ctypes.c_float}


@lru_cache(maxsize=1)
def loops() -> Any:
    """Return an object with the C functions; ``None`` where the library is not there."""
    found = load_compiled(tuple(_FUNCTIONS))
    if found is not None:
        for name, kinds in _FUNCTIONS.items():
            function = getattr(found, name)
            function.argtypes, function.restype = [_KINDS[kind] for kind in kinds], None
    return found
