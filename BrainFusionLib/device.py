"""Which device to compute on, and how its memory is used."""

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


# Numbers of glibc's mallopt (malloc.h); blocks up to so many bytes stay with the process.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next arrays; return whether it can.

    For processes of our own: a caller's process is the caller's. glibc otherwise gives every large array's memory back
    and fetches it again, zeroed, page by page: a fifth of the time of a fusion (docs/measured.md). The peak is the
    same. Elsewhere than on glibc nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt if sys.platform == "linux" else None
    except (OSError, AttributeError):
        return False
    return mallopt is not None and all(mallopt(which, KEPT_BYTES) for which in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))


def give_memory_back() -> None:
    """Give back what `keep_freed_memory` let this process keep: a process that waits for work needs none."""
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


def require_torch() -> None:
    """Say how to get torch where it is missing, before something imports it.

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

    ``auto`` is the GPU where there is one, and else the CPU.

    Raises
    ------
    SettingsError
        No such device on this machine, or no such name.
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
        f"the device {name!r} was asked for, but torch {torch.__version__} finds only {', '.join(there)} here. "
        "Choose auto or cpu; or install the GPU's driver and a build of torch that supports it (pytorch.org)."
    )


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Use so many CPU threads in torch and SimpleITK, and restore the caller's numbers afterwards.

    ``None`` changes nothing, but the numbers that were changed inside are restored all the same.
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
