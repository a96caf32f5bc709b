"""Which backend a device has."""

from __future__ import annotations

from functools import lru_cache

from BrainFusionLib.backend.base import Backend
from BrainFusionLib.backend.compiled import Compiled
from BrainFusionLib.backend.native import loops
from BrainFusionLib.backend.plain import Plain


@lru_cache(maxsize=1)
def on_cpu() -> Plain:
    """Return the backend of the CPU: in C, or in numpy where there is no compiled library."""
    library = loops()
    return Plain() if library is None else Compiled(library)


def backend_of(device: str) -> Backend:
    """Return the backend of a device (`device.pick_device`); on ``mps``, which has no float64, that of the CPU.

    Raises
    ------
    MissingDependencyError
        A graphics card needs torch, which is not installed.
    """
    if device in ("cpu", "mps"):
        return on_cpu()
    from BrainFusionLib.device import require_torch

    require_torch(f"the device {device!r}")
    from BrainFusionLib.backend.on_torch import OnTorch

    return OnTorch(device)
