"""The device to compute on, its threads and its memory."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from BrainFusionLib.errors import MissingDependencyError, SettingsError

if TYPE_CHECKING:
    import torch


# Parameters of glibc's mallopt (malloc.h), and the largest block that the process keeps.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next arrays; return whether that is possible.

    Only for processes that this project starts, not for a caller's. By default glibc returns the memory of every large
    array to the system and requests it again, zeroed page by page, which takes a fifth of the time of a fusion
    (docs/measured.md). The peak is the same. Without glibc nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt if sys.platform == "linux" else None
    except (OSError, AttributeError):
        return False
    return mallopt is not None and all(mallopt(which, KEPT_BYTES) for which in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))


def give_memory_back() -> None:
    """Return the memory that `keep_freed_memory` retained, while a process waits for work."""
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


def require_torch() -> None:
    """Check that torch is installed, before it is imported; otherwise explain how to get it.

    Raises
    ------
    MissingDependencyError
        torch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(
            "registration and fusion need torch, which is not installed. "
            "Run: pip install torch (in Slicer: install the PyTorch extension)."
        )


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`: ``cpu``, ``cuda`` (or ``cuda:1``, …), ``mps``, or ``auto``.

    ``auto`` is the GPU if there is one, otherwise the CPU.

    Raises
    ------
    SettingsError
        The name is unknown, or this machine does not have the device.
    MissingDependencyError
        torch is not installed.
    """
    require_torch()
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if gpus else "mps" if apple else "cpu")
    there = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{n}" for n in range(gpus)), *(["mps"] if apple else [])]
    if name in there:
        return torch.device(name)
    if name != "mps" and name.partition(":")[0] != "cuda":
        raise SettingsError(f"the device must be auto, cpu, cuda or mps; got {name!r}")
    raise SettingsError(
        f"the device {name!r} was requested, but torch {torch.__version__} finds only {', '.join(there)} here. "
        "Choose auto or cpu; or install the GPU's driver and a build of torch that supports it (pytorch.org)."
    )


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Use `count` CPU threads in torch and SimpleITK, and restore the caller's numbers afterwards.

    ``None`` changes nothing at the start; numbers that the block changes are still restored.
    """
    import SimpleITK as sitk
    import torch

    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    if count is not None:
        torch.set_num_threads(count)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before[1])
